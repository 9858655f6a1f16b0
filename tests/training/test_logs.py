import json
import math
import sys
from pathlib import Path

import pytest

from sightline.core.errors import MissingDependencyError, TrainingError
from sightline.training.logs import RunLog, cut_log, finite, read_log
from sightline.training.plots import draw_curves, smoothed


def test_log_is_cut_back_to_the_checkpoint_and_a_torn_line_is_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    with RunLog(path) as log:
        for step in range(1, 7):
            log.write({"kind": "step", "step": step, "loss": 1.0})
            if step % 2 == 0:
                log.write({"kind": "eval", "step": step, "scores": {}})
        log.write({"kind": "end", "step": 6})
    with path.open("a") as file:
        file.write('{"kind": "step", "st')
    cut_log(path, step=4, evaluated=2)
    kept = [(x["kind"], x["step"]) for x in map(json.loads, path.read_text().splitlines())]
    assert kept == [("step", 1), ("step", 2), ("eval", 2), ("step", 3), ("step", 4)]


def test_cutting_a_log_that_is_not_there_makes_none(tmp_path):
    cut_log(tmp_path / "log.jsonl", 3, 0)
    assert not (tmp_path / "log.jsonl").exists()


def test_reader_leaves_out_what_is_no_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'\xff\xfe\n[1]\n7\n{"kind": "step"}\n{"kind": "step", "step": 1}\n')
    assert read_log(path) == [{"kind": "step", "step": 1}]


def test_every_line_is_json_without_nan():
    line = finite({"a": math.nan, "b": [math.inf, 1.0], "c": {"d": -math.inf, "e": 2}})
    assert line == {"a": None, "b": [None, 1.0], "c": {"d": None, "e": 2}}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_told(tmp_path):
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with (
        pytest.raises(TrainingError, match=r"could not write .*log.jsonl: No space left"),
        RunLog(tmp_path / "log.jsonl") as log,
    ):
        log.write({"kind": "step", "step": 1})


def write(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def steps(count: int) -> list[dict]:
    return [{"kind": "step", "step": i + 1, "loss": 1 / (i + 1)} for i in range(count)]


@pytest.mark.parametrize("evaluated", [True, False])
def test_curves_are_a_png(tmp_path, evaluated):
    from PIL import Image

    lines = [*steps(40), {"kind": "step", "step": 41, "loss": None}]
    if evaluated:
        scores = {"recall": 0.5, "loss": None}
        lines += [{"kind": "eval", "step": s, "scores": scores} for s in (20, 40)]
    draw_curves(write(tmp_path / "log.jsonl", lines), tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG" and picture.size == (800, 700 if evaluated else 400)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
        assert len(colours) > 20


def test_curves_of_a_log_without_steps(tmp_path):
    draw_curves(write(tmp_path / "log.jsonl", []), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file()


def test_drawing_leaves_no_global_state(tmp_path):
    draw_curves(write(tmp_path / "log.jsonl", steps(3)), tmp_path / "curves.png")
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


def test_missing_matplotlib_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sightline\[train\]'"):
        draw_curves(write(tmp_path / "log.jsonl", steps(3)), tmp_path / "curves.png")


def test_smoothed_is_the_weighted_mean_by_hand():
    assert smoothed([4.0, 1.0, 7.0], span=2) == pytest.approx([4.0, 2.0, (4 + 2 + 28) / 7])
    assert smoothed([3.0] * 100) == pytest.approx([3.0] * 100)
    assert smoothed([]) == []
