"""Damaged, foreign and unwritable checkpoints."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sightline.core.errors import CheckpointError, TrainingError
from sightline.training import checkpoints
from sightline.training.loop import LoopOptions, train
from tests.training import small_run

OPTIONS = LoopOptions(accumulate=2, ema=0.9, save_every=4, keep=3, plot=False)


def run(out: Path, **changes) -> None:
    settings = {"network": small_run.network(), "loader": small_run.Rows(), "options": OPTIONS}
    train(step=small_run.step, stages=small_run.STAGES, out=out, **(settings | changes))


@pytest.fixture
def done(tmp_path):
    run(tmp_path)
    return tmp_path


def newest(out: Path) -> Path:
    return checkpoints.checkpoint_folders(out / "checkpoints")[-1] / "training"


def truncate(folder: Path) -> None:
    os.truncate(folder / "state.safetensors", 1000)


def flip(folder: Path) -> None:
    data = bytearray((folder / "state.safetensors").read_bytes())
    data[-3] ^= 4
    (folder / "state.safetensors").write_bytes(data)


def huge_header(folder: Path) -> None:
    data = (2**62).to_bytes(8, "little") + b"{}"
    (folder / "state.safetensors").write_bytes(data)


def another_digit(folder: Path) -> None:
    text = (folder / "state.json").read_text()
    (folder / "state.json").write_text(text.replace('"step": 12', '"step": 11'))


def edit(folder: Path, **changes) -> None:
    document = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(document | changes))


DAMAGES = {
    "cut off": truncate,
    "one bit": flip,
    "huge header": huge_header,
    "empty": lambda folder: os.truncate(folder / "state.safetensors", 0),
    "no tensors": lambda folder: (folder / "state.safetensors").unlink(),
    "no state": lambda folder: (folder / "state.json").unlink(),
    "state cut off": lambda folder: os.truncate(folder / "state.json", 100),
    "another digit": another_digit,
    "a list": lambda folder: (folder / "state.json").write_text("[1, 2]"),
    "not text": lambda folder: (folder / "state.json").write_bytes(b"\xff\xfe\x00"),
    "another format": lambda folder: edit(folder, format="something"),
    "wrong type": lambda folder: edit(folder, version="new"),
    "odd alias": lambda folder: edit(folder, aliases={"a": "b"}),
    "deep": lambda folder: (folder / "state.json").write_text("[" * 100_000),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_named_and_the_one_before_is_taken(done, caplog, damage):
    before = small_run.losses(done)
    DAMAGES[damage](newest(done))
    with caplog.at_level(logging.WARNING):
        found = checkpoints.read_newest(done / "checkpoints")
    assert found is not None and found.state["run"]["step"] == 8
    assert "step-00000012 is damaged" in caplog.text
    assert "stepping back to the checkpoint before it" in caplog.text
    assert (done / "checkpoints" / "broken-step-00000012").is_dir()
    run(done)
    assert small_run.losses(done) == before


def test_all_damaged_is_an_error(done):
    for folder in checkpoints.checkpoint_folders(done / "checkpoints"):
        truncate(folder / "training")
    with pytest.raises(CheckpointError, match=r"none of the 3 checkpoints in .* can be read"):
        run(done)


def test_newer_version_is_refused_by_name_and_kept(done):
    edit(newest(done), version=99)
    with pytest.raises(CheckpointError, match="has version 99, this Sightline reads up to 2"):
        run(done)
    assert newest(done).parent.name == "step-00000012"


def test_no_pickle_is_written(done):
    kinds = {path.suffix for path in done.rglob("[!.]*") if path.is_file()}
    assert kinds == {".json", ".jsonl", ".safetensors"}


def test_tied_weights_are_stored_once_and_read_twice(done):
    stored = load_file(newest(done) / "state.safetensors")
    assert "network/mix.weight" in stored and "network/again.weight" not in stored
    read = checkpoints.read_checkpoint(newest(done).parent).tensors
    assert torch.equal(read["network/mix.weight"], read["network/again.weight"])


def test_views_of_one_storage_are_saved_apart(tmp_path):
    base = torch.arange(6.0)
    tensors = {"a": base[:4], "b": base[2:], "c": base.view(2, 3).T, "d": base[:4]}
    checkpoints.write_checkpoint(tmp_path / "step-00000001", tensors, {}, {})
    read = checkpoints.read_checkpoint(tmp_path / "step-00000001").tensors
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_same_step_gets_a_new_name_and_the_later_one_wins(tmp_path):
    for number in range(12):
        folder = checkpoints.next_folder(tmp_path, 7)
        checkpoints.write_checkpoint(folder, {}, {"number": number}, {})
    found = checkpoints.read_newest(tmp_path)
    assert found is not None and found.state["number"] == 11


def test_half_written_and_half_deleted_folders_are_swept(done):
    root = done / "checkpoints"
    (root / ".step-00000004.x.part").mkdir()
    (root / ".step-00000004.old" / "training").mkdir(parents=True)
    run(done)
    assert not [path for path in root.glob(".*") if path.is_dir()]


def test_oldest_are_pruned_but_not_the_best(tmp_path):
    scores = iter([3.0, 9.0, 1.0, 2.0, 3.0, 4.0])
    options = LoopOptions(eval_every=2, save_every=1, keep=2, plot=False)
    run(tmp_path, options=options, evaluate=lambda net: {"x": next(scores)}, score="x")
    names = [path.name for path in checkpoints.checkpoint_folders(tmp_path / "checkpoints")]
    assert names == ["step-00000004", "step-00000011", "step-00000012"]
    assert os.readlink(tmp_path / "checkpoints" / "best") == "step-00000004"
    assert os.readlink(tmp_path / "checkpoints" / "last") == "step-00000012"


def test_missing_links_do_not_matter(tmp_path, monkeypatch, caplog):
    def refuse(*_args, **_options):
        raise PermissionError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    run(tmp_path)
    assert "could not let" in caplog.text
    assert checkpoints.read_newest(tmp_path / "checkpoints") is not None


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"could not write .*: Not a directory; no checkpoint"):
        run(tmp_path / "file" / "run")


def test_full_disk_names_the_last_checkpoint(tmp_path, monkeypatch):
    write, calls = checkpoints.save_file, []

    def full(tensors, path):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, os.strerror(28))
        write(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(TrainingError) as caught:
        run(tmp_path)
    assert "step-00000008: No space left on device; the last complete" in str(caught.value)
    assert "step-00000004. Free some space" in str(caught.value)
    run(tmp_path)
    assert newest(tmp_path).parent.name == "step-00000012"


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_real_write_error_in_the_middle_of_a_file(tmp_path):
    """A limit on file size, so that the system itself refuses half-way through the tensors."""
    program = (
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from sightline.training.checkpoints import write_checkpoint, checkpoint_folders\n"
        "root = Path(sys.argv[1])\n"
        "write_checkpoint(root / 'step-00000001', {'a': torch.zeros(4)}, {}, {})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n"
        "    write_checkpoint(root / 'step-00000002', {'a': torch.zeros(40_000)}, {}, {})\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
        "print([p.name for p in root.iterdir()])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("TrainingError could not write"), done.stdout
    assert "File too large" in done.stdout and "step-00000001. Free some space" in done.stdout
    assert done.stdout.endswith("['step-00000001']\n")


def test_vanished_best_checkpoint_is_told(tmp_path, caplog):
    scores = iter([3.0, 9.0, 1.0, 2.0, 3.0, 4.0])
    options = LoopOptions(eval_every=2, save_every=1, keep=2, plot=False)
    changes = {"options": options, "evaluate": lambda net: {"x": next(scores)}, "score": "x"}
    run(tmp_path, **changes)
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000004")
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000012")
    scores = iter([4.0])
    run(tmp_path, **changes)
    assert "best checkpoint step-00000004 is gone" in caplog.text
    assert os.readlink(tmp_path / "checkpoints" / "best") == "step-00000012"


def test_saved_file_is_what_safetensors_reads(tmp_path):
    checkpoints.write_checkpoint(tmp_path / "step-00000001", {"a": torch.ones(2)}, {}, {})
    save_file({"a": torch.ones(2)}, tmp_path / "plain.safetensors")
    path = tmp_path / "step-00000001" / "training" / "state.safetensors"
    assert path.read_bytes() == (tmp_path / "plain.safetensors").read_bytes()
