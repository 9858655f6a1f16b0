"""Two processes are one process: the same losses, norms, weights, averages and scores."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sightline.training import checkpoints, parallel
from sightline.training.parallel import wrap
from tests.training.small_run import losses

ROOT = Path(__file__).parents[2]
EXACT = {"rtol": 0, "atol": 1e-9}

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def runs(*arguments: object, timeout: float = 280) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.shared_runs", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    folder = tmp_path_factory.mktemp("few")
    runs("compare", folder)
    return folder


@pytest.fixture(scope="module")
def all_of_them(tmp_path_factory):
    folder = tmp_path_factory.mktemp("all")
    runs("compare", folder, "--all", timeout=900)
    return folder


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two runs by more than rounding in float64."""
    found = []
    for a, b in zip(losses(one), losses(other), strict=True):
        pairs = [(a[0], b[0]), (a[1], b[1]), (a[2], b[2])]
        pairs += [(a[3][name], b[3][name]) for name in a[3].keys() | b[3].keys()]
        if any(abs(x - y) > 1e-9 for x, y in pairs):
            found.append(f"{a} {b}")
    last, other_last = (checkpoints.checkpoint_folders(x / "checkpoints")[-1] for x in (one, other))
    tensors = [checkpoints.read_checkpoint(folder).tensors for folder in (last, other_last)]
    tensors += [load_file(folder / "model.safetensors") for folder in (last, other_last)]
    for ours, theirs in (tensors[:2], tensors[2:]):
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            difference = (tensor.double() - theirs[name].double()).abs().max()
            if tensor.shape != theirs[name].shape or difference > 1e-9:
                found.append(f"{name} {difference}")
    return found


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["cached", "weighted", "lora"])
def test_two_processes_are_one(few, name, kind):
    assert differences(few / name / "alone", few / name / kind) == []


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["softmax", "sigmoid", "recomputed", "compiled", "weighted alone"])
def test_two_processes_are_one_in_every_scenario(all_of_them, name, kind):
    reference = "softmax" if name in ("recomputed", "compiled") else name
    assert differences(all_of_them / reference / "alone", all_of_them / name / kind) == []


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize(("mistake", "right"), [("no gather", "softmax"),
                                                ("mean of means", "weighted alone")])  # fmt: skip
@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_known_mistakes_would_show(all_of_them, mistake, right, kind):
    alone = all_of_them / right / "alone"
    assert differences(alone, all_of_them / mistake / "alone") == [], "alone it is none"
    assert differences(alone, all_of_them / mistake / kind) != []


KINDS = ("alone", "ddp", "fsdp")


@pytest.mark.parametrize(("before", "after"), [("fsdp", "alone"), ("alone", "fsdp")])
def test_a_run_goes_on_with_another_number_of_processes(few, before, after):
    assert differences(few / "cached" / "alone", few / "resumed" / f"{before} {after}") == []


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("before", KINDS)
@pytest.mark.parametrize("after", KINDS)
def test_any_kind_goes_on_as_any_other(all_of_them, before, after):
    resumed = all_of_them / "resumed" / f"{before} {after}"
    assert differences(all_of_them / "cached" / "alone", resumed) == []
    steps = [x["step"] for x in map(json.loads, (resumed / "log.jsonl").read_text().splitlines())
             if x["kind"] == "step"]  # fmt: skip
    assert steps == [1, 2, 3, 4, 5, 6], "no step twice, none left out"


def test_shards_on_disk_are_parts_and_hold_no_pickle(few):
    folder = checkpoints.checkpoint_folders(few / "cached" / "fsdp" / "checkpoints")[-1]
    names = sorted(path.name for path in (folder / checkpoints.SHARDS).iterdir())
    assert len(names) == 2 and all(name.endswith(".safetensors") for name in names)
    parts = [load_file(folder / checkpoints.SHARDS / name) for name in names]
    name = "network/image.blocks.0.0.weight"
    whole = checkpoints.read_checkpoint(folder).tensors[name]
    assert [len(part[name]) for part in parts] == [4, 3]
    torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole, **EXACT)


@pytest.mark.parametrize("damage", ["cut off", "gone", "a stranger"])
def test_damaged_shards_are_named(few, tmp_path, damage):
    source = checkpoints.checkpoint_folders(few / "cached" / "fsdp" / "checkpoints")[-1]
    folder = Path(shutil.copytree(source, tmp_path / source.name))
    shard = min((folder / checkpoints.SHARDS).iterdir())
    if damage == "cut off":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif damage == "gone":
        shard.unlink()
    else:
        shutil.copy(shard, shard.with_name("another.safetensors"))
    with pytest.raises(checkpoints.DamagedCheckpointError, match="is damaged"):
        checkpoints.read_checkpoint(folder)


def test_of_one_failure_there_is_one_message(tmp_path):
    report = json.loads(runs("fail", tmp_path))
    said = {what: result["said"] for what, result in report.items()}
    assert said.pop("one dies")[0].startswith("another of the processes that train together has")
    assert said == {
        "one fails": ["the picture is gone"],
        "both fail": ["the list is empty"],
        "first fails": ["[Errno 2] No such file or directory: '/does/not/exist'"],
    }
    for what, result in report.items():
        assert result["codes"] == ([1, -9] if what == "one dies" else [1, 1]), what
        assert result["seconds"] < 60, "nobody waits for the dead"


def test_killed_twice_a_sharded_run_leaves_readable_checkpoints(tmp_path):
    report = json.loads(runs("kill", tmp_path, 2, "--quiet"))
    assert report["hit"] == 2
    assert differences(tmp_path / "whole", tmp_path / "killed") == []


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_killed_twenty_times_a_sharded_run_is_the_same_run(tmp_path):
    report = json.loads(runs("kill", tmp_path, 20, "--quiet", timeout=900))
    assert report["hit"] == 20, "every kill must have hit a run that was still going"
    assert differences(tmp_path / "whole", tmp_path / "killed") == []


def test_without_a_compiler_nothing_is_compiled(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(parallel.shutil, "which", lambda name: None)
    network = nn.Linear(2, 2)
    assert wrap(network, "none").compiled() is network
    assert "no C++ compiler: not compiled" in caplog.text


def test_a_network_says_what_of_it_is_compiled(monkeypatch):
    compiled = []
    monkeypatch.setattr(parallel.shutil, "which", lambda name: "/usr/bin/c++")
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network.parts_to_compile = lambda: [network[1]]
    alone = wrap(network, "none")
    assert alone.compiled() is network and alone.compiled() is network
    assert compiled == [network[1]], "once, and nothing else"
