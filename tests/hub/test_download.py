"""Every status of the hub, for real, against a false one on the loopback interface."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sightline.core.errors import (
    HubAccessError,
    HubDiskError,
    HubError,
    HubNotFoundError,
    HubOfflineError,
    UnsafeCheckpointError,
)
from sightline.hub import download as downloading
from sightline.hub.download import download, readable_size
from sightline.hub.load import load_checkpoint
from tests.hub.false_hub import COMMIT, FalseHub, false_hub
from tests.hub.tiny import tiny_folder

NAME = "park/tiny"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FalseHub]:
    for variable in ("HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with false_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        running.repos[NAME] = {
            "config.json": b"{}",
            "model.safetensors": b"weights" * 40,
            "tokenizer.json": b"[]",
            "pytorch_model.bin": b"pickle" * 40,
            "modeling_evil.py": b"raise SystemExit",
            "flax_model.msgpack": b"flax",
        }
        yield running


def test_a_first_download_takes_what_is_readable_and_neither_code_nor_pickles(
    hub: FalseHub,
) -> None:
    folder = download(NAME)
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert folder.name == COMMIT
    assert hub.fetched() == {"config.json", "model.safetensors", "tokenizer.json"}


def test_a_first_download_says_name_licence_and_size_once(
    hub: FalseHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.info = {"cardData": {"license": "apache-2.0"}}
    with caplog.at_level(logging.INFO, logger="sightline"):
        download(NAME)
        download(NAME)
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("sightline")]
    assert len(lines) == 1
    assert lines[0].startswith(f"downloading {NAME}: licence apache-2.0, 284 bytes")


def test_a_second_load_sends_no_file_again(hub: FalseHub) -> None:
    first = download(NAME)
    hub.requests.clear()
    assert download(NAME) == first
    assert hub.fetched() == set()


def test_what_is_in_the_cache_works_without_a_connection(
    hub: FalseHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = download(NAME)
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert download(NAME) == folder
    assert hub.requests == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", _closed_address())
    assert download(NAME) == folder


def test_offline_by_choice_names_the_command_that_fetches(
    hub: FalseHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubOfflineError, match=r"HF_HUB_OFFLINE is set.*sightline pull park/tiny"):
        download(NAME)
    assert hub.requests == []


def test_no_connection_says_so(hub: FalseHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", _closed_address())
    with pytest.raises(HubOfflineError, match=r"cannot be reached and park/tiny is not whole"):
        download(NAME)


def test_a_hub_that_does_not_answer_counts_as_offline(
    hub: FalseHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "ANSWER_SECONDS", 0.2)
    hub.mute.set()
    with pytest.raises(HubOfflineError, match="did not answer in time"):
        download(NAME)


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_repository_says_where_to_accept_its_licence(hub: FalseHub, status: int) -> None:
    hub.fail_files = (status, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
    with pytest.raises(HubAccessError, match=r"is gated: accept its licence at http.*park/tiny.*"
                       r"'hf auth login' or set HF_TOKEN"):  # fmt: skip
        download(NAME)


def test_a_wrong_token_is_told_apart_from_a_missing_model(
    hub: FalseHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    hub.fail = (401, {"X-Error-Message": "Invalid credentials in Authorization header"})
    with pytest.raises(HubAccessError, match=r"refused the token.*correct or unset HF_TOKEN"):
        download(NAME)


def test_a_token_without_the_right_is_told(hub: FalseHub) -> None:
    hub.fail = (403, {})
    with pytest.raises(HubAccessError, match="no right to read park/tiny"):
        download(NAME)


def test_a_misspelt_name_gets_the_nearest_one(hub: FalseHub) -> None:
    with pytest.raises(HubNotFoundError, match=r"no model 'gogle/siglip2-base-patch16-224'.*"
                       r"did you mean google/siglip2-base-patch16-224"):  # fmt: skip
        download("gogle/siglip2-base-patch16-224")


def test_an_anonymous_401_means_missing_or_private(hub: FalseHub) -> None:
    hub.fail = (401, {})
    with pytest.raises(HubNotFoundError, match="deleted, renamed or is private"):
        download(NAME)


def test_an_unknown_revision_is_named(hub: FalseHub) -> None:
    with pytest.raises(HubNotFoundError, match=r"has no revision 'v9'.*/tree/main"):
        download(NAME, "v9")


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_with_a_problem_of_its_own_says_later(hub: FalseHub, status: int) -> None:
    hub.fail = (status, {})
    with pytest.raises(HubError, match=rf"problem of its own \(HTTP {status}\).*later"):
        download(NAME)


def test_a_rate_limit_says_wait(hub: FalseHub) -> None:
    hub.fail = (429, {})
    with pytest.raises(HubError, match="limits requests"):
        download(NAME)


def test_a_transfer_that_was_cut_off_leaves_nothing_that_loads(hub: FalseHub) -> None:
    hub.cut = True
    with pytest.raises(HubError, match="was cut off: run it again"):
        download(NAME)
    hub.cut = False
    assert (download(NAME) / "model.safetensors").stat().st_size == 280


def test_a_full_disk_is_refused_before_the_first_byte(
    hub: FalseHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda _: _Usage())
    with pytest.raises(HubDiskError, match=r"needs 284 bytes and .* has 10 bytes left.*HF_HOME"):
        download(NAME)
    assert hub.fetched() == set()


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "no room left"), (errno.EROFS, "cannot be written"),
     (errno.EACCES, "cannot be written")],
)  # fmt: skip
def test_a_disk_that_fails_on_the_way_is_named(
    hub: FalseHub, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def fail(*_: object) -> Path:
        raise OSError(number, "no")

    monkeypatch.setattr(downloading, "_snapshot", fail)
    with pytest.raises(HubDiskError, match=rf"{words}.*HF_HOME"):
        download(NAME)


def test_a_cache_that_is_a_file_is_named(hub: FalseHub, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")
    with pytest.raises(HubDiskError, match="cannot be written: point HF_HOME"):
        download(NAME)


def test_pickles_are_refused_before_they_are_fetched(hub: FalseHub) -> None:
    del hub.repos[NAME]["model.safetensors"]
    with pytest.raises(UnsafeCheckpointError, match=r"only as pytorch_model.bin.*can run code"):
        download(NAME)
    assert hub.fetched() == set()
    folder = download(NAME, allow_pickle=True)
    assert (folder / "pytorch_model.bin").is_file()
    with pytest.raises(UnsafeCheckpointError):
        download(NAME)


def test_sharded_weights_come_with_their_index(hub: FalseHub) -> None:
    files = hub.repos[NAME]
    del files["model.safetensors"]
    files["model.safetensors.index.json"] = b"{}"
    files["model-00001-of-00002.safetensors"] = b"a"
    files["model-00002-of-00002.safetensors"] = b"b"
    files["open_clip_pytorch_model.safetensors"] = b"another library's copy"
    names = {file.name for file in download(NAME).iterdir()}
    assert "model-00002-of-00002.safetensors" in names
    assert "open_clip_pytorch_model.safetensors" not in names


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_repository_in_another_layout_is_named(hub: FalseHub, file: str) -> None:
    del hub.repos[NAME]["pytorch_model.bin"]
    del hub.repos[NAME][file]
    with pytest.raises(HubNotFoundError, match=rf"has no {file}.*layout that Sightline reads"):
        download(NAME)


@pytest.mark.parametrize(
    ("count", "text"),
    [(12, "12 bytes"), (798_000, "798 kB"), (812_623_880, "813 MB"), (4_544_033_992, "4.54 GB"),
     (999_999_999, "1 GB"), (999, "999 bytes")],
)  # fmt: skip
def test_sizes_are_written_for_people(count: int, text: str) -> None:
    assert readable_size(count) == text


class _Usage:
    free = 10


def _closed_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_a_name_becomes_a_network_that_answers(hub: FalseHub, tmp_path: Path) -> None:
    saved = tiny_folder("clip", tmp_path / "published")
    (tmp_path / "published/modeling_evil.py").write_text("raise SystemExit")
    hub.publish(NAME, tmp_path / "published")
    loaded = load_checkpoint(NAME, device="cpu", dtype="float32", revision="main")
    assert (loaded.name, loaded.revision) == (NAME, COMMIT)
    assert "modeling_evil.py" not in hub.fetched()
    words = loaded.processor.texts(["a red ball"])
    pixels = loaded.processor.images([np.zeros((9, 9, 3), np.uint8)])
    with torch.no_grad():
        expected = saved(pixels, words.ids, words.mask).logits
        assert torch.equal(loaded.network(pixels, words.ids, words.mask).logits, expected)


def test_pickled_weights_of_the_hub_are_converted_beside_its_cache(
    hub: FalseHub, tmp_path: Path
) -> None:
    tiny_folder("vit", tmp_path / "published")
    weights = tmp_path / "published/model.safetensors"
    torch.save(load_file(weights), tmp_path / "published/pytorch_model.bin")
    weights.unlink()
    hub.publish(NAME, tmp_path / "published")
    load_checkpoint(NAME, device="cpu", allow_pickle=True)
    (copy,) = (tmp_path / "home/sightline-converted").iterdir()
    assert copy.suffix == ".safetensors"
