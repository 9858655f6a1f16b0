"""The npz of a mask codec: read, written, converted and, where it is hostile, refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sightline.cli.program import program
from sightline.core.errors import (
    CheckpointError,
    ConfigError,
    UnsafeCheckpointError,
    UnsupportedTaskError,
)
from sightline.hub.contents import read_contents
from sightline.hub.convert import convert
from sightline.hub.layouts import npz
from sightline.hub.layouts.detect import layout_of
from sightline.hub.save import save_checkpoint
from sightline.models.mask_codec import SYSTEM, TINY
from sightline.tasks.model import load
from tests.hub.tiny import randomise, tiny_folder


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """A tiny codec by its published names."""
    network = randomise(SYSTEM.build(TINY), seed)
    state = SYSTEM.for_config(TINY).write_state(network.state_dict())
    return {name: tensor.numpy() for name, tensor in state.items()}


def written(folder: Path, **changed: np.ndarray | None) -> Path:
    kept = {name: a for name, a in {**arrays(), **changed}.items() if a is not None}
    np.savez(folder / "vae.npz", **kept)
    return folder / "vae.npz"


def test_the_file_and_its_folder_are_recognised(tmp_path: Path) -> None:
    file = written(tmp_path)
    assert layout_of(file) == layout_of(tmp_path) == "ait"
    contents = read_contents(file)
    assert (contents.layout, contents.system.name, contents.config) == ("ait", "mask_codec", TINY)


@pytest.mark.parametrize("dtype", [None, "float16"])
def test_a_folder_is_written_as_such_a_file_and_proved(tmp_path: Path, dtype: str | None) -> None:
    tiny_folder("mask_codec", tmp_path / "m")
    proof = convert(tmp_path / "m", "ait", tmp_path / "out", dtype)
    assert proof.holds and proof.equal_tensors == proof.tensors
    with np.load(tmp_path / "out" / "vae.npz", allow_pickle=False) as found:
        assert set(found) == set(arrays())
        kind = np.float16 if dtype else np.float32
        assert {found[name].dtype for name in found} == {np.dtype(kind)}
    first = load(tmp_path / "m", device="cpu").network
    again = load(tmp_path / "out", device="cpu").network
    masks = torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(1))
    if dtype is None:
        assert torch.equal(first.encode(masks), again.encode(masks))


def test_the_command_line_converts(tmp_path: Path) -> None:
    tiny_folder("mask_codec", tmp_path / "m")
    words = ["convert", str(tmp_path / "m"), "--to", "ait", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(program, [*words, "--json"], catch_exceptions=False)
    assert result.exit_code == 0 and '"holds": true' in result.stdout


def test_what_a_layout_cannot_hold_is_said(tmp_path: Path) -> None:
    tiny_folder("mask_codec", tmp_path / "m")
    tiny_folder("vit", tmp_path / "vit")
    with pytest.raises(ConfigError, match="it holds mask codecs and no vit"):
        convert(tmp_path / "vit", "ait", tmp_path / "out")
    with pytest.raises(ConfigError, match="transformers has no class for The mask codec"):
        convert(tmp_path / "m", "transformers", tmp_path / "out")
    with pytest.raises(ConfigError, match="a mask codec has none"):
        convert(tmp_path / "m", "onnx", tmp_path / "out")
    with pytest.raises(ConfigError, match="the ait layout does not store bfloat16"):
        convert(tmp_path / "m", "ait", tmp_path / "out", "bfloat16")
    larger = replace(TINY, mask_size=64)
    save_checkpoint(SYSTEM.build(larger), None, larger, SYSTEM, tmp_path / "large")
    with pytest.raises(ConfigError, match="its masks have 4 x 4 tokens, and this codec 8 x 8"):
        convert(tmp_path / "large", "ait", tmp_path / "out")


def test_hostile_files_get_one_clear_error(tmp_path: Path) -> None:
    whole = written(tmp_path).read_bytes()
    (tmp_path / "vae.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"not a readable \.npz file"):
        read_contents(tmp_path / "vae.npz")
    with pytest.raises(UnsafeCheckpointError, match="holds objects, which are pickles"):
        read_contents(written(tmp_path, **{"encoder.0.bias": np.array([{}], dtype=object)}))
    bomb = {**arrays(), "more": np.zeros(npz.SMALL // 4 + 1000, np.float32)}
    np.savez_compressed(tmp_path / "vae.npz", **bomb)
    with pytest.raises(CheckpointError, match=r"would unpack to \d+ bytes, more than"):
        read_contents(tmp_path / "vae.npz")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoder.0.bias": None}, r"1 missing \(-\)[\s\S]*- encoder.down.0.bias"),
        ({"encoder.0.bias": np.zeros(4, np.float32)}, r"encoder.down.0.bias: float32\[4\] in the"),
        ({"encoder.0.bias": np.zeros(3, np.int64)}, r"encoder.down.0.bias: int64\[3\] in the"),
        ({"strange": np.zeros(2, np.float32)}, r"1 unexpected \(\+\)[\s\S]*\+ strange"),
        ({"decoder.0.weight": None}, "'decoder.0.weight' of 4 axes is expected, none arrived"),
        ({"_vq_vae._embedding": np.zeros(3, np.float32)}, r"of 2 axes is expected, \[3\] arrived"),
        ({"_vq_vae._embedding": np.zeros((0, 6), np.float32)}, "0 codewords of 6 numbers"),
        ({"decoder.0.weight": np.zeros((9, 6, 1, 1), np.float32)}, "and 9 channels"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, changed: dict[str, np.ndarray | None], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_contents(written(tmp_path, **changed))


def test_a_codec_looks_at_no_pictures(tmp_path: Path) -> None:
    tiny_folder("mask_codec", tmp_path / "m")
    model = load(tmp_path / "m", device="cpu")
    assert model.tasks == ()
    picture = np.zeros((8, 8, 3), np.uint8)
    for ask in (
        lambda: model.embed_images(picture),
        lambda: model.embed_texts("a"),
        lambda: model.classify(picture, ["a", "b"]),
        lambda: model.explain(picture, "a"),
    ):
        with pytest.raises(UnsupportedTaskError, match=r"\(mask codec\) cannot"):
            ask()
    with pytest.raises(ConfigError, match="8 bits are for image towers, and a mask codec has none"):
        load(tmp_path / "m", device="cpu", quantize="int8")
