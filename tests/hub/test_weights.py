"""Weight files: every layout that is read, and the hostile ones that are not."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sightline.core.errors import CheckpointError, HubDiskError, UnsafeCheckpointError
from sightline.hub.weights import check_header, read_safetensors, read_weights

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([7.0])}


def write(file: Path, header: Any, body: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(raw)) + raw + body)
    return file


def entry(shape: list[int], last: int, dtype: str = "F32", first: int = 0) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def read(folder: Path, *, allow_pickle: bool = False) -> dict[str, torch.Tensor]:
    return read_weights(folder, allow_pickle=allow_pickle, cache=folder / "converted")


def same(given_state: dict[str, torch.Tensor]) -> bool:
    return given_state.keys() == STATE.keys() and all(
        torch.equal(given_state[name], STATE[name]) for name in STATE
    )


def test_one_file_is_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    assert same(read(tmp_path))


def test_changing_a_tensor_does_not_change_the_file(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    read(tmp_path)["a.weight"].zero_()
    assert same(read(tmp_path))


def test_shards_are_read_by_their_index_and_without_one(tmp_path: Path) -> None:
    files = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for file, name in zip(files, STATE, strict=True):
        save_file({name: STATE[name]}, tmp_path / file)
    assert same(read(tmp_path))
    index = {"weight_map": dict(zip(STATE, files, strict=True))}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert same(read(tmp_path))
    (tmp_path / files[1]).unlink()
    with pytest.raises(CheckpointError, match=rf"shard {files[1]} is missing"):
        read(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../model.safetensors", "/etc/model.safetensors", "sub/model.safetensors", "..", "",
     "..\\model.safetensors", "C:\\model.safetensors", "model.bin", "m\x00.safetensors", 7, None],
)  # fmt: skip
def test_an_index_that_leaves_the_folder_is_refused(tmp_path: Path, name: Any) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    save_file(STATE, tmp_path / "model.safetensors")
    index = {"weight_map": {"a": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"shard name .* is not a plain|shard"):
        read(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"weight_map": []}', "[" * 100_000, "{}"])
def test_a_broken_index_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"index.json: not a weight index"):
        read(tmp_path)


def test_one_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    for number in (1, 2):
        save_file(STATE, tmp_path / f"model-0000{number}-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"'a.weight' is in more than one weight file"):
        read(tmp_path)


def test_a_folder_without_weights_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no weights: expected model.safetensors"):
        read(tmp_path)


def test_a_huge_header_is_refused_without_reading_it(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    with pytest.raises(CheckpointError, match=r"header claims 4611686018427387904 bytes in a file"):
        read(tmp_path)


@pytest.mark.parametrize("left", [0, 5, 20, -4])
def test_a_truncated_file_is_named(tmp_path: Path, left: int) -> None:
    file = tmp_path / "model.safetensors"
    save_file(STATE, file)
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(CheckpointError, match=r"model.safetensors: .*(truncated|too short)"):
        read(tmp_path)


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    one = json.dumps(entry([1], 4))
    file = write(tmp_path / "model.safetensors", f'{{"x":{one},"x":{one}}}'.encode(), b"1234")
    with pytest.raises(CheckpointError, match=r"tensor 'x' is in the header twice"):
        read_safetensors(file)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"not json", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        ([], "not a JSON object"),
        ({"x": 3}, "malformed header entry"),
        ({"x": entry([1], 4) | {"shape": None}}, "malformed header entry"),
        ({"x": entry([1], 4) | {"data_offsets": [0]}}, "malformed header entry"),
        ({"x": entry([2], 4)}, "does not fill its 4 bytes"),
        ({"x": entry([-1, -1], 4)}, "does not fill its 4 bytes"),
        ({"x": entry([1], 4, "F8_E4M3")}, "number type 'F8_E4M3', which this version does not"),
        ({"x": entry([1 << 40], 1 << 42)}, "truncated"),
    ],
)
def test_a_header_that_does_not_add_up_is_named(tmp_path: Path, header: Any, words: str) -> None:
    file = write(tmp_path / "model.safetensors", header, b"1234")
    with pytest.raises(CheckpointError, match=rf"model.safetensors: .*{words}"):
        read_safetensors(file)


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    header = {"x": entry([1], 4), "y": entry([1], 4)}
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        read_safetensors(write(tmp_path / "model.safetensors", header, b"1234"))


@settings(max_examples=150, deadline=None)
@given(damage=st.lists(st.tuples(st.integers(0, 250), st.integers(0, 255)), max_size=4))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(
    damage: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_file(STATE, file)
    raw = bytearray(file.read_bytes())
    for place, value in damage:
        raw[place % len(raw)] = value
    file.write_bytes(raw)
    try:
        read_safetensors(file)
    except CheckpointError as error:
        assert "damaged.safetensors" in str(error)


def test_the_header_check_agrees_with_the_library(tmp_path: Path) -> None:
    state = {f"{d}": torch.zeros(2, 3, dtype=d) for d in (torch.float16, torch.bfloat16,
             torch.float64, torch.int64, torch.bool, torch.uint8)}  # fmt: skip
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert {shape for _, shape in check_header(tmp_path / "model.safetensors").values()} == {(2, 3)}


def test_pickles_are_refused_with_the_reason_and_the_way_out(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    with pytest.raises(UnsafeCheckpointError, match=r"can run code when it is opened.*"
                       r"--allow-pickle / allow_pickle=True"):  # fmt: skip
        read(tmp_path)


def test_a_pickle_of_tensors_is_converted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tied = {**STATE, "tied": STATE["a.weight"].T}
    torch.save(tied, tmp_path / "pytorch_model.bin")
    assert torch.equal(read(tmp_path, allow_pickle=True)["tied"], STATE["a.weight"].T)
    (copy,) = (tmp_path / "converted").iterdir()
    assert copy.suffix == ".safetensors"
    monkeypatch.setattr(torch, "load", None)
    assert set(read(tmp_path, allow_pickle=True)) == set(tied)


def test_safetensors_win_over_a_pickle_beside_them(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"never opened")
    assert same(read(tmp_path, allow_pickle=True))


def test_sharded_pickles_are_read(tmp_path: Path) -> None:
    files = [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    for file, name in zip(files, STATE, strict=True):
        torch.save({name: STATE[name]}, tmp_path / file)
    index = {"weight_map": dict(zip(STATE, files, strict=True))}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert same(read(tmp_path, allow_pickle=True))


class Canary:
    """Unpickled, it would write a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("with_torch", [True, False])
def test_a_pickle_with_code_is_refused_even_when_pickles_are_allowed(
    tmp_path: Path, with_torch: bool
) -> None:
    song = tmp_path / "sang"
    content = {"a": STATE["b"], "evil": Canary(song)}
    file = tmp_path / "pytorch_model.bin"
    if with_torch:
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UnsafeCheckpointError, match="holds more than tensors"):
        read(tmp_path, allow_pickle=True)
    assert not song.exists()


@pytest.mark.parametrize("content", [[1, 2], {"a": 3}, "text"])
def test_a_pickle_of_something_else_is_named(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="expected a dictionary of names to tensors"):
        read(tmp_path, allow_pickle=True)


def test_a_broken_pickle_is_named(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin: "):
        read(tmp_path, allow_pickle=True)


def test_a_place_for_the_copy_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    (tmp_path / "converted").write_text("a file")
    with pytest.raises(HubDiskError, match="cannot take the safetensors copy"):
        read(tmp_path, allow_pickle=True)
