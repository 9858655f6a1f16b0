"""A grid of runs: made once, judged by what is held out, with failures named and survived."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sightline.core.errors import ConfigError, TrainingError
from sightline.data import park
from sightline.recipes import sweep as sweeping
from sightline.recipes.dual_encoder import DualEncoderRecipe
from sightline.recipes.paligemma import PaliGemmaRecipe
from sightline.recipes.series import FINISHED
from sightline.recipes.sweep import Row, Sweep, SweptRun, parse_grid, sweep
from sightline.recipes.sweep_report import cells_of, columns_of, sweep_figure
from sightline.recipes.table import RecipeEntry
from sightline.tasks.model import load

SMALL = DualEncoderRecipe(
    steps=2, batch_size=4, image_size=16, width=16, depth=1, num_heads=2, text_width=16,
    text_depth=1, text_heads=2, vocab_size=300, workers=0, eval_every=2, autocast="off",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("data") / "parks"
    park.write((park.scene(seed, size=32) for seed in range(24)), folder)
    return str(folder)


class Training:
    """Stands for a recipe's function: counts its runs, and gives them scores."""

    def __init__(self, scores=None, failing=(), stopped="finished"):
        self.scores, self.failing, self.stopped = scores or {}, failing, stopped
        self.made = []

    def __call__(self, recipe, out, minutes=None, progress=None):
        from sightline.recipes.run import Outcome
        from sightline.training.cost import RunSummary

        self.made.append((recipe.lr, recipe.seed))
        if recipe.lr in self.failing:
            raise TrainingError("the loss became nan at step 3")
        held_out, test = self.scores.get(recipe.lr, (0.5, 0.5))
        summary = RunSummary(
            4, 0.1, held_out + recipe.seed / 100, {}, 16, 0.5, 1, 1, self.stopped, out, out, out
        )
        return Outcome(summary, {}, {"retrieval": test}, out / "model", out / "report.html")


@pytest.fixture
def training(monkeypatch):
    """Replace the training of every recipe."""

    def put(**options) -> Training:
        found = Training(**options)
        monkeypatch.setattr(RecipeEntry, "run", lambda self: found)
        return found

    return put


GRID = {"lr": ["1e-5", "1e-3"], "epochs": ["1", "3"]}
FREE = replace(SMALL, steps=None)


def test_runs_are_made_once_and_a_grid_grows(training, tmp_path):
    made = training().made
    counted = []
    sweep("siglip", FREE, {"lr": ["1e-5", "3e-5"]}, tmp_path, progress=lambda *n: counted.append(n))
    assert made == [(1e-5, 0), (3e-5, 0)] and counted == [(1, 2), (2, 2)]
    found = sweep("siglip", FREE, {"lr": ["0.00001", "3e-5", "1"]}, tmp_path, seeds=2)
    assert made[2:] == [(1e-5, 1), (3e-5, 1), (1.0, 0), (1.0, 1)]
    assert [len(row.runs) for row in found.rows] == [2, 2, 2]
    assert {run.seed for run in found.rows[0].runs} == {0, 1}


def test_every_combination_is_a_run(training, tmp_path):
    training()
    found = sweep("siglip", FREE, GRID, tmp_path)
    assert len(found.rows) == 4 and found.grid == {"lr": [1e-5, 1e-3], "epochs": [1.0, 3.0]}
    folders = {path.parent.name for path in tmp_path.glob(f"*/{FINISHED}")}
    assert folders == {f"lr={lr}_epochs={n}_seed=0" for lr in (1e-5, 1e-3) for n in (1.0, 3.0)}


def test_the_held_out_score_decides_and_the_test_score_never(training, tmp_path):
    training(scores={1e-5: (0.6, 0.1), 3e-5: (0.4, 0.9), 1e-4: (0.5, 0.5)})
    found = sweep("siglip", FREE, {"lr": ["3e-5", "1e-4", "1e-5"]}, tmp_path)
    assert [row.settings["lr"] for row in found.rows] == [1e-5, 1e-4, 3e-5]
    kept = json.loads((tmp_path / "table.json").read_text())
    assert kept["format"] == "sightline.sweep" and kept["score"] == "retrieval"
    assert [row["test"]["retrieval"] for row in kept["rows"]] == [0.1, 0.5, 0.9]
    assert (tmp_path / kept["rows"][0]["runs"][0]["model"]).parent.name == "lr=1e-05_seed=0"


def test_seeds_give_a_mean_and_a_spread(training, tmp_path):
    training()
    (row,) = sweep("siglip", replace(FREE, seed=5), {"lr": ["1"]}, tmp_path, seeds=3).rows
    assert row.held_out == pytest.approx(0.56) and row.spread == pytest.approx((0.55, 0.57))
    assert row.best.seed == 7


def test_a_run_that_fails_is_named_and_stops_no_other(training, tmp_path):
    made = training(failing=(1e-3,)).made
    found = sweep("siglip", FREE, {"lr": ["1e-3", "1e-5"]}, tmp_path)
    assert [row.settings["lr"] for row in found.rows] == [1e-5]
    assert {name: str(error) for name, error in found.failed.items()} == {
        "lr=0.001, seed=0": "the loss became nan at step 3"
    }
    assert "loss became nan" in (tmp_path / "report.html").read_text()
    sweep("siglip", FREE, {"lr": ["1e-3", "1e-5"]}, tmp_path)
    assert [lr for lr, _ in made] == [1e-3, 1e-5, 1e-3]  # a failed run is tried again


def test_a_stopped_run_is_not_taken_for_a_finished_one(training, tmp_path):
    training(stopped="signal")
    with pytest.raises(KeyboardInterrupt):
        sweep("siglip", FREE, {"lr": ["1e-5", "1e-3"]}, tmp_path)
    assert not list(tmp_path.glob(f"*/{FINISHED}"))
    made = training().made
    sweep("siglip", FREE, {"lr": ["1e-5", "1e-3"]}, tmp_path)
    assert made == [(1e-5, 0), (1e-3, 0)]


def test_settings_of_several_spellings_never_share_a_folder(training, tmp_path):
    training()
    sweep("siglip", FREE, {"freeze": ["text.*", "text-*"]}, tmp_path)
    assert len(list(tmp_path.glob(f"*/{FINISHED}"))) == 2
    assert not list(tmp_path.glob("*[*]*"))


def test_another_recipe_or_other_settings_need_another_folder(training, tmp_path):
    training()
    sweep("siglip", FREE, {"lr": ["1"]}, tmp_path)
    with pytest.raises(ConfigError, match=r"another sweep:\n- settings.width = 16\n\+ settings.w"):
        sweep("siglip", replace(FREE, width=32), {"lr": ["1"]}, tmp_path)
    with pytest.raises(ConfigError, match=r"\+ recipe = 'clip'"):
        sweep("clip", FREE, {"lr": ["1"]}, tmp_path)
    sweep("siglip", replace(FREE, workers=3), {"lr": ["1"]}, tmp_path)  # changes no weight


def test_a_grid_is_read_before_the_first_run(training, tmp_path):
    made = training().made
    assert parse_grid(["lr=1e-5, 3e-5", "epochs=1"]) == {"lr": ["1e-5", "3e-5"], "epochs": ["1"]}
    for wrong, match in (
        (["lr"], "--grid 'lr': write key=value"),
        (["lr=1,,2"], "--grid lr=1,,2: write values parted by commas"),
        (["lr=1", "lr=2"], "--grid 'lr' is given twice"),
    ):
        with pytest.raises(ConfigError, match=match):
            parse_grid(wrong)
    for grid, match in (
        ({}, "a sweep needs settings that vary"),
        ({"seed": ["1"]}, "seeds are no setting to choose by"),
        ({"lr": ["1"], "learning_rate": ["1"]}, "unknown setting 'learning_rate'"),
        ({"lr": ["1", "one"]}, "setting 'lr' is 'one': write a value of type float"),
        ({"lr": ["1", "1.0"]}, r"the grid has \{'lr': 1.0\} twice"),
        ({"crop": ["1", "2"]}, "crop 2.0, test_share"),
    ):
        with pytest.raises(ConfigError, match=match):
            sweep("siglip", FREE, grid, tmp_path)
    with pytest.raises(ConfigError, match="epochs mean nothing beside steps=2: add --set steps=n"):
        sweep("siglip", SMALL, {"epochs": ["1", "2"]}, tmp_path)
    assert not made


def test_a_real_sweep_goes_on_inside_a_run(data, tmp_path, monkeypatch):
    """A kill inside the second run: the first is not touched, the second goes on."""
    from sightline.training import loop

    grid = {"lr": ["1e-3", "1e-2"]}
    recipe = replace(SMALL, data=data, steps=4, save_every=1)
    own, steps = loop._Run._one_step, []

    def kill(run):
        if len(steps) == 6:
            raise KeyboardInterrupt
        steps.append(run.state.step)
        own(run)

    monkeypatch.setattr(loop._Run, "_one_step", kill)
    with pytest.raises(KeyboardInterrupt):
        sweep("siglip", recipe, grid, tmp_path)
    assert steps == [0, 1, 2, 3, 0, 1]
    table = json.loads((tmp_path / "table.json").read_text())
    assert [row["settings"] for row in table["rows"]] == [{"lr": 1e-3}]
    stamp = (tmp_path / "lr=0.001_seed=0" / FINISHED).stat().st_mtime_ns
    del steps[:]
    found = sweep("siglip", recipe, grid, tmp_path)
    assert steps == [2, 3]
    assert (tmp_path / "lr=0.001_seed=0" / FINISHED).stat().st_mtime_ns == stamp
    assert len(found.rows) == 2 and all(row.runs[0].steps == 4 for row in found.rows)
    load(tmp_path / found.rows[0].best.model)
    page = (tmp_path / "report.html").read_text()
    assert "held-out retrieval" in page and "data:image/png" in page
    assert (tmp_path / "sweep.png").stat().st_size > 5000


def test_a_figure_has_a_line_for_a_value_and_a_panel_for_the_rest(training, tmp_path):
    training()
    grid = {"lr": ["1e-5", "1e-4", "1e-3"], "epochs": ["1", "3"], "image_size": ["16", "32"]}
    found = sweep("siglip", FREE, grid, tmp_path, seeds=2)
    figure = sweep_figure(found)
    assert [axis.get_title() for axis in figure.axes] == ["image_size 16", "image_size 32"]
    for axis in figure.axes:
        assert axis.get_xlabel() == "lr" and axis.get_xscale() == "log"
        assert [t.get_text() for t in axis.get_legend().get_texts()] == ["epochs 1", "epochs 3"]
    words = sweep("siglip", FREE, {"system": ["siglip", "clip"]}, tmp_path / "b")
    assert sweep_figure(words).axes[0].get_xscale() == "linear"


def test_without_matplotlib_there_is_a_table_all_the_same(training, tmp_path, monkeypatch, caplog):
    from sightline.core.errors import MissingDependencyError

    def missing(found):
        raise MissingDependencyError("drawing figures needs matplotlib")

    training()
    monkeypatch.setattr("sightline.recipes.sweep_report.sweep_figure", missing)
    sweep("siglip", FREE, {"lr": ["1"]}, tmp_path)
    assert "sweep.png was not drawn: drawing figures needs matplotlib" in caplog.text
    assert (tmp_path / "report.html").is_file() and not (tmp_path / "sweep.png").exists()


def test_settings_of_a_phase_can_vary(training, tmp_path):
    training()
    grid = {"transfer.lr": ["1e-5", "3e-5"], "image_size": ["32", "64"]}
    found = sweep("paligemma", PaliGemmaRecipe(init="somewhere"), grid, tmp_path)
    assert found.grid == {"transfer.lr": [1e-5, 3e-5], "image_size": [32, 64]}
    assert len({json.dumps(row.settings) for row in found.rows}) == 4


def test_a_score_that_not_every_run_has_is_a_dash():
    """Pictures that are held out may have one label under one seed, and several under another."""
    runs = [
        SweptRun(0, 0.5, scores, 1, 1, 1.0, "model")
        for scores in ({"zeroshot": 0.4, "retrieval": 0.2}, {"retrieval": 0.4})
    ]
    rows = (Row({"lr": 1.0}, tuple(runs)), Row({"lr": 2.0}, (runs[0],)))
    found = Sweep("siglip", {"lr": [1.0, 2.0]}, "retrieval", rows, {})
    assert columns_of(found)[2:4] == ["test retrieval", "test zeroshot"]
    assert [cells[2:4] for cells in cells_of(found)] == [["0.3000", "-"], ["0.2000", "0.4000"]]


def test_a_run_without_a_held_out_score_cannot_be_compared(monkeypatch):
    point = sweeping._Point({"lr": 1.0}, replace(FREE, lr=1.0))

    def unscored(name, recipe, folder):
        outcome = Training()(recipe, folder)
        return replace(outcome, summary=replace(outcome.summary, best_score=None))

    monkeypatch.setattr(sweeping, "train_whole", unscored)
    with pytest.raises(TrainingError, match=r"lr=1\.0, seed=0 has no score on held-out"):
        sweeping._make("siglip", point, Path("."), Path("."))
