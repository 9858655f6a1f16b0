"""The ground floor: errors, lazy names, devices and files."""

import json
import os
import stat

import pytest
import torch

from sightline.core import devices
from sightline.core.errors import (
    CheckpointError,
    ConfigError,
    ImageError,
    InputError,
    MissingDependencyError,
    SightlineError,
    nearest,
    unknown_name,
)
from sightline.core.files import atomic_file, atomic_folder, write_json
from sightline.core.lazy import lazy_names, require
from sightline.core.outputs import PairScores


def test_errors_are_of_the_kinds_that_people_catch():
    assert issubclass(InputError, ValueError) and issubclass(ConfigError, ValueError)
    assert issubclass(MissingDependencyError, ImportError)
    assert not issubclass(CheckpointError, ValueError)
    assert ImageError("a.jpg: empty", "image_empty").code == "image_empty"


def test_nearest_ignores_capitals():
    assert nearest("vit-b/32", ["ViT-B/32", "ViT-B/16", "park-siglip"])[0] == "ViT-B/32"
    assert nearest("zzz", ["ViT-B/32"]) == []


def test_unknown_names_get_a_hint_or_the_list():
    assert unknown_name("recipe", "sigclip", ["clip", "siglip"]).endswith("?")
    assert "known are clip, siglip" in unknown_name("recipe", "zzz", ["siglip", "clip"])


def test_lazy_names_import_on_use():
    get = lazy_names("package", {"dumps": "json", "json": "json"})
    assert get("dumps") is json.dumps
    with pytest.raises(AttributeError, match="module 'package' has no attribute 'loads'"):
        get("loads")


def test_a_missing_package_says_how_to_get_it():
    with pytest.raises(MissingDependencyError, match=r"pip install 'sightline\[search\]'"):
        require("no_such_package_here", "search", "the index")
    assert require("json", "x", "y") is json


@pytest.mark.parametrize(
    ("content", "quota"),
    [("max 100000", None), ("150000 100000", 1.5), ("rubbish", None), ("", None)],
)
def test_the_quota_of_the_container(tmp_path, content, quota):
    (tmp_path / "cpu.max").write_text(content)
    assert devices._cgroup_quota(tmp_path) == quota


def test_the_quota_of_the_first_version(tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("200000")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert devices._cgroup_quota(tmp_path) == 2.0
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1")
    assert devices._cgroup_quota(tmp_path) is None
    assert devices._cgroup_quota(tmp_path / "nothing") is None


def test_cores_and_threads_stay_within_the_machine():
    cores = devices.available_cores()
    assert 1 <= cores <= (os.cpu_count() or 1)
    before = torch.get_num_threads()
    try:
        assert devices.set_threads(1) == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("told", "threads"), [("2", 2), ("9", 3), ("0", 3), ("many", 3)])
def test_nobody_gets_more_threads_than_were_told(monkeypatch, told, threads):
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert devices.set_threads(3) == threads
    assert chosen == [threads]


def test_devices_by_name():
    assert devices.choose_device("cpu") == torch.device("cpu")
    assert devices.choose_device().type in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match="unknown device 'gpu'"):
        devices.choose_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="'cuda' is not present on this machine: use 'cpu'"):
            devices.choose_device("cuda")


def test_dtypes_by_name(monkeypatch):
    cpu = torch.device("cpu")
    assert devices.choose_dtype("bfloat16", cpu) == torch.bfloat16
    assert devices.choose_dtype(torch.float16, cpu) == torch.float16
    with pytest.raises(ConfigError, match="unknown dtype 'bf16'"):
        devices.choose_dtype("bf16", cpu)
    for fast, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(devices, "fast_bfloat16", lambda kind, fast=fast: fast)
        assert devices.choose_dtype("auto", cpu) == expected


def test_a_lowered_instruction_set_is_respected(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert devices.fast_bfloat16.__wrapped__("cpu") is False


def test_an_atomic_file_is_whole_or_absent(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    with atomic_file(target) as temporary:
        temporary.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"
    with pytest.raises(RuntimeError), atomic_file(target) as temporary:
        temporary.write_text("two")
        raise RuntimeError
    assert target.read_text() == "one"
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_written_files_have_the_modes_of_ordinary_ones(tmp_path):
    with atomic_file(tmp_path / "a") as temporary:
        temporary.write_text("x")
    (tmp_path / "b").write_text("x")
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "c").write_text("x")
    (tmp_path / "ordinary").mkdir()

    def mode(name):
        return stat.S_IMODE((tmp_path / name).stat().st_mode)

    assert mode("a") == mode("b")
    assert mode("folder") == mode("ordinary")


def test_an_atomic_folder_replaces_the_old_one_whole(tmp_path):
    target = tmp_path / "folder"
    for text in ("one", "two"):
        with atomic_folder(target) as temporary:
            (temporary / f"{text}.txt").write_text(text)
    assert [p.name for p in target.iterdir()] == ["two.txt"]
    with pytest.raises(RuntimeError), atomic_folder(target) as temporary:
        raise RuntimeError
    assert [p.name for p in target.iterdir()] == ["two.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_json_is_written_without_nan(tmp_path):
    write_json(tmp_path / "a.json", {"é": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"é": [1, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"é": [1, None]}


def test_pair_scores_are_scaled_cosines_plus_bias():
    image, text = torch.eye(2), torch.tensor([[0.6, 0.8]])
    scores = PairScores(image, text, torch.tensor(10.0), torch.tensor(-1.0))
    assert torch.allclose(scores.logits, torch.tensor([[5.0], [7.0]]))


def test_every_error_of_ours_has_one_base():
    from sightline.core import errors

    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, Exception)]
    assert all(issubclass(kind, SightlineError) for kind in kinds)
