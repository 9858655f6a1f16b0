"""`train` in several processes of this machine, from the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sightline.cli.train import without_processes
from sightline.data.park.export import write
from sightline.data.park.scenes import ParkScenes
from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]
SETTINGS = [
    part
    for setting in (
        "steps=6", "batch_size=4", "eval_every=2", "image_size=16", "width=16", "depth=1",
        "num_heads=2", "text_width=16", "text_depth=1", "text_heads=2", "vocab_size=300",
        "workers=0", "autocast=off",
    )
    for part in ("--set", setting)
]  # fmt: skip


def test_the_processes_get_the_rest_of_the_command() -> None:
    words = ["train", "siglip", "--processes", "2", "--out", "run"]
    assert without_processes(words) == ["train", "siglip", "--out", "run"]
    assert without_processes(["train", "--processes=2", "clip"]) == ["train", "clip"]


def test_no_processes_are_wrong_usage(run: Run, tmp_path: Path) -> None:
    done = run("train", "siglip", "--data", "x", "--out", tmp_path, "--processes", 0)
    assert done.code == 2 and "0 is not in the range" in done.err


def start(out: Path, data: Path, *more: str, launcher: tuple[str, ...] = ()) -> Any:
    command = ["train", "siglip", "--data", str(data), "--out", str(out), *SETTINGS, *more]
    return subprocess.Popen(
        [sys.executable, *(launcher or ("-m", "sightline")), *command],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: Any, code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=280)
    assert process.returncode == code, err
    return out, err


def curve(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "step"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parks") / "pictures"
    write(ParkScenes("train", 0, 40, size=32), folder)
    return folder


@pytest.fixture(scope="module")
def alone(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    out = tmp_path_factory.mktemp("alone")
    finish(start(out, pictures))
    return curve(out)


def is_the_run_of_one(out: Path, alone: dict[int, float]) -> bool:
    assert list(alone) == [1, 2, 3, 4, 5, 6]
    return curve(out) == pytest.approx(alone, rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_give_the_curve_of_one_and_one_report(
    pictures: Path, alone: dict[int, float], tmp_path: Path
) -> None:
    said, _ = finish(start(tmp_path, pictures, "--processes", "2", "--json"))
    document = json.loads(said)  # one document, not two
    assert document["steps"] == 6 and Path(document["report"]).is_file()
    assert is_the_run_of_one(tmp_path, alone)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_torchrun_shards_stops_at_a_signal_and_one_process_goes_on(
    pictures: Path, alone: dict[int, float], tmp_path: Path
) -> None:
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "sightline")
    process = start(tmp_path, pictures, "--set", "parallel=fsdp", launcher=torchrun)
    log, deadline = tmp_path / "log.jsonl", time.monotonic() + 200
    while not (log.is_file() and log.read_text().count('"kind": "step"') >= 1):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=200)
    assert "which other machines may reach" in err, "torchrun's port is open, and that is said"
    root = tmp_path / "checkpoints"
    assert any(root.glob("step-*/training/shards/*.safetensors"))
    finish(start(tmp_path, pictures))
    assert is_the_run_of_one(tmp_path, alone)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_failure_is_told_once(pictures: Path, tmp_path: Path) -> None:
    process = start(tmp_path, pictures, "--processes", "2", "--set", "init=/no/such/folder")
    _, err = process.communicate(timeout=200)
    assert process.returncode in (1, 2)
    assert err.count("/no/such/folder") == 1, err
