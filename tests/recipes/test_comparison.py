"""Tables of systems: equal budgets, runs that go on, and a table that says what was run."""

import json

import pytest

from sightline.core.errors import ConfigError
from sightline.recipes import comparison
from sightline.recipes.comparison import (
    COLUMNS,
    DATA,
    TABLES,
    Contender,
    Finished,
    as_markdown,
    compare_systems,
)
from sightline.recipes.table import RECIPES


@pytest.fixture
def small(monkeypatch):
    """Two contenders, few drawings and few scored scenes."""
    monkeypatch.setitem(TABLES, "small", (Contender("CLIP", "clip"), Contender("SigLIP", "siglip")))
    for name, value in (("SCENES", 100), ("LABELLED", 100), ("SCORED", 8)):
        monkeypatch.setattr(comparison, name, value)
    monkeypatch.setitem(comparison.SHARED, "eval_limit", "4")
    return "small"


def test_every_contender_names_a_recipe_and_data_and_gets_the_same_budget(tmp_path):
    for contenders in TABLES.values():
        for contender in contenders:
            assert contender.recipe in RECIPES and contender.data in DATA
            recipe = contender.chosen(tmp_path, 1, None)
            assert recipe.seed == 1 and recipe.eval_every == recipe.steps
            if not contender.note:
                pictures = recipe.steps * recipe.batch_size
                assert pictures == comparison.STEPS * comparison.BATCH, contender.name


def test_a_table_is_made_once_and_goes_on(small, tmp_path):
    counted = []
    only = compare_systems(small, tmp_path, seeds=1, steps=1, only=["CLIP"])
    assert [run.name for run in only] == ["CLIP"]
    stamp = (tmp_path / "clip-0" / "scores.json").stat().st_mtime_ns
    finished = compare_systems(
        small,
        tmp_path,
        seeds=1,
        steps=1,
        progress=lambda done, total: counted.append((done, total)),
    )
    assert counted == [(1, 2), (2, 2)]
    assert (tmp_path / "clip-0" / "scores.json").stat().st_mtime_ns == stamp
    assert [run.name for run in finished] == ["CLIP", "SigLIP"]
    assert all(run.pictures == comparison.BATCH for run in finished)
    table = (tmp_path / "table.md").read_text()
    assert table.count("\n") == 4 and "| SigLIP | 1 |" in table
    kept = json.loads((tmp_path / "comparison.json").read_text())
    assert kept["format"] == "sightline.comparison" and kept["park"]["digest"]


def test_another_budget_needs_another_folder(small, tmp_path):
    compare_systems(small, tmp_path, seeds=1, steps=1, only=["CLIP"])
    with pytest.raises(ConfigError, match="another comparison"):
        compare_systems(small, tmp_path, seeds=1, steps=2)


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown table 'dual'.*dual-encoders"):
        compare_systems("dual", tmp_path)
    with pytest.raises(ConfigError, match=r"unknown contender 'Clip'.*CLIP"):
        compare_systems("dual-encoders", tmp_path, only=["Clip"])


def test_the_table_tells_mean_and_spread_and_leaves_out_what_was_not_run():
    scores = dict.fromkeys([*COLUMNS, "pairs kind"], 0.5)
    runs = [
        Finished("CLIP", seed, {**scores, "test kind": value}, 100, 1.5)
        for seed, value in enumerate((0.25, 0.75))
    ]
    table = as_markdown(runs, [Contender("CLIP", "clip", note="quick"), Contender("LiT", "lit")])
    assert "| CLIP (quick) | 2 | " in table and "0.500 (0.250 to 0.750)" in table
    assert "LiT" not in table
