"""Tables of systems: equal budgets, runs that go on, and a table that says what was run."""

import json
from dataclasses import replace

import pytest

from sightline.core.errors import ConfigError
from sightline.recipes import (
    comparison,
    comparison_tables,
    park_paligemma,
    series,
    speech_scores,
)
from sightline.recipes.comparison import Finished, as_markdown, compare_systems
from sightline.recipes.comparison_tables import (
    BATCH,
    DATA,
    DUAL_ENCODERS,
    PREFIX_LM,
    SPEAKING_BATCH,
    SPEAKING_STEPS,
    STEPS,
    TABLES,
    Contender,
)
from sightline.recipes.table import RECIPES, RecipeEntry


@pytest.fixture
def small(monkeypatch):
    """Two contenders, few drawings and few scored scenes."""
    table = replace(
        DUAL_ENCODERS,
        contenders=(Contender("CLIP", "clip"), Contender("SigLIP", "siglip")),
        shared={**DUAL_ENCODERS.shared, "eval_limit": "4"},
    )
    monkeypatch.setitem(TABLES, "small", table)
    monkeypatch.setattr(comparison, "SCENES", 100)
    monkeypatch.setattr(comparison_tables, "SCORED", 8)
    return "small"


def test_every_contender_names_a_recipe_and_data_and_gets_the_same_budget(tmp_path):
    budgets = {"dual-encoders": STEPS * BATCH, "prefix-lm": SPEAKING_STEPS * SPEAKING_BATCH}
    for name, table in TABLES.items():
        for contender in table.contenders:
            assert contender.recipe in RECIPES and contender.data in DATA
            recipe = contender.chosen(table.shared, tmp_path, 1, None)
            assert recipe.seed == 1 and recipe.eval_every == recipe.steps
            if not contender.note:
                assert recipe.steps * recipe.batch_size == budgets[name], contender.name


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
    scores = dict.fromkeys([*DUAL_ENCODERS.columns, "pairs kind"], 0.5)
    runs = [
        Finished("CLIP", seed, {**scores, "test kind": value}, 100, 1.5)
        for seed, value in enumerate((0.25, 0.75))
    ]
    contenders = (Contender("CLIP", "clip", note="quick"), Contender("LiT", "lit"))
    table = as_markdown(runs, replace(DUAL_ENCODERS, contenders=contenders))
    assert "| CLIP (quick) | 2 | " in table and "0.500 (0.250 to 0.750)" in table
    assert "LiT" not in table


def test_a_run_that_a_signal_stopped_is_not_scored(small, tmp_path, monkeypatch):
    own = RECIPES["clip"].run()

    def stopped(recipe, out):
        outcome = own(recipe, out)
        return replace(outcome, summary=replace(outcome.summary, stopped="signal"))

    monkeypatch.setattr(RecipeEntry, "run", lambda self: stopped)
    with pytest.raises(KeyboardInterrupt):
        compare_systems(small, tmp_path, seeds=1, steps=1, only=["CLIP"])
    assert not (tmp_path / "clip-0" / series.FINISHED).exists()


TINY = {
    "init": "none", "image_width": "32", "image_depth": "1", "width": "32", "depth": "1",
    "num_heads": "2", "kv_heads": "1", "mlp_width": "32", "batch_size": "4", "eval_limit": "2",
    "compile": "no", "autocast": "off", "workers": "0",
}  # fmt: skip


def test_the_prefix_of_a_writing_model_is_compared_by_four_tasks(tmp_path, monkeypatch):
    """Both rows share one codec, and the models that are scored differ in the mask alone."""
    scored = []
    scores = comparison_tables.writing_scores

    def watched(model, contender):
        scored.append((model, contender.name))
        return scores(model, contender)

    monkeypatch.setattr(comparison_tables, "SPOKEN", 2)
    monkeypatch.setattr(park_paligemma, "show_answers", lambda report, model, codec: None)
    for task, options in speech_scores.MOST.items():  # what knows nothing writes on and on
        monkeypatch.setitem(speech_scores.MOST, task, {**options, "max_new_tokens": 8})
    codec = replace(PREFIX_LM.codec, settings={"batch_size": "4"})
    contenders = tuple(replace(c, settings={**c.settings, **TINY}) for c in PREFIX_LM.contenders)
    table = replace(PREFIX_LM, contenders=contenders, codec=codec, scores=watched)
    monkeypatch.setitem(TABLES, "prefix-lm", table)
    finished = compare_systems("prefix-lm", tmp_path, seeds=1, steps=1)
    assert [model.config.prefix_lm for model, _ in scored] == [True, False]
    configs = [replace(model.config, prefix_lm=True) for model, _ in scored]
    assert configs[0] == configs[1]
    for run in finished:
        tasks = [run.scores[name] for name in ("caption", "answers", "boxes", "masks")]
        assert run.scores["mean"] == pytest.approx(sum(tasks) / 4) and run.pictures == 4
    codecs = [
        (model.folder / "mask_codec" / "model.safetensors").read_bytes() for model, _ in scored
    ]
    assert codecs[0] == codecs[1] and not (tmp_path / "data").exists()
    text = (tmp_path / "table.md").read_text()
    assert "| mean of the four |" in text and "| causal everywhere | 1 |" in text
