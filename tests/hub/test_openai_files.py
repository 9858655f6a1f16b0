"""OpenAI's archives become model folders, and archives that want more than that are refused."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sightline.core.errors import (
    CheckpointError,
    ConfigError,
    HubNotFoundError,
    UnsafeCheckpointError,
)
from sightline.hub.load import load_checkpoint
from sightline.hub.names import resolve
from sightline.hub.openai_files import SHA256, convert_openai
from sightline.hub.torchscript import is_torchscript, read_torchscript
from sightline.inputs.vocabulary import train_vocabulary
from sightline.models import clip, clip_resnet, openai_layout
from tests.hub.tiny import WORDS, randomise

TEXT = clip.TextTowerConfig(
    width=64, depth=2, num_heads=1, mlp_width=72, vocab_size=640, context_length=9, eos_id=639,
    bos_id=638, pad_id=0,
)  # fmt: skip
RESNET = clip_resnet.CLIPResNetConfig(
    clip_resnet.ImageTowerConfig(4, (2, 1, 1, 1), (64, 64)), TEXT, 16
)
VIT = clip.CLIPConfig(
    clip.ImageTowerConfig(64, 2, 1, 72, patch_size=(8, 8), image_size=(24, 24)), TEXT, 16
)


def archive(state: dict[str, Tensor], file: Path) -> Path:
    """A TorchScript archive whose module has these tensors, as torch itself writes it."""
    root = nn.Module()
    for name, tensor in state.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_buffer(last, tensor.clone())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; its files are not gone
        torch.jit.script(root).save(file)
    return file


def written(kind: str) -> tuple[nn.Module, dict[str, Tensor]]:
    if kind == "resnet":
        network = randomise(clip_resnet.CLIPResNet(RESNET))
        return network, clip_resnet.write_state(network.state_dict())
    network = randomise(clip.CLIP(VIT))
    return network, openai_layout.write_openai(network.state_dict())


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    train_vocabulary(WORDS, 640, "clip", max_length=9).save(folder)
    return folder


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_an_archive_becomes_a_folder_that_answers_the_same(
    kind: str, tmp_path: Path, words: Path
) -> None:
    network, state = written(kind)
    extra = {"input_resolution": torch.tensor(64), "context_length": torch.tensor(9)}
    file = archive({**state, **extra}, tmp_path / "RN50.pt")
    folder = convert_openai(file, tmp_path / "made", tokenizer=words)
    loaded = load_checkpoint(folder, device="cpu", dtype="float32")
    assert loaded.system.name == ("clip_resnet" if kind == "resnet" else "clip")
    assert loaded.config == (RESNET if kind == "resnet" else VIT)
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value), name
    batch = loaded.processor.texts(["a red ball", "water"])
    side = loaded.config.image.image_size[0]
    pixels = torch.randn(2, 3, side, side)
    with torch.no_grad():
        before = network(pixels, batch.ids).logits
        assert torch.equal(loaded.network(pixels, batch.ids).logits, before)


def test_numbers_stay_as_they_are_stored(tmp_path: Path) -> None:
    _, state = written("resnet")
    half = {n: t.half() if "conv" in n else t for n, t in state.items()}
    folder = convert_openai(archive(half, tmp_path / "a.pt"), tmp_path / "made")
    with safe_open(folder / "model.safetensors", framework="pt") as stored:
        assert stored.get_tensor("visual.conv1.weight").dtype == torch.float16
        assert stored.get_tensor("visual.bn1.running_var").dtype == torch.float32
        assert stored.get_tensor("visual.bn1.num_batches_tracked").dtype == torch.int64
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "clip_resnet"
    assert config["sightline"]["format"] == "sightline-checkpoint"
    full = load_checkpoint(folder, device="cpu", dtype="float32").network
    assert {p.dtype for p in full.parameters()} == {torch.float32}


def test_a_safetensors_file_of_the_same_layout_is_taken_too(tmp_path: Path) -> None:
    network, state = written("resnet")
    save_file({n: t.contiguous() for n, t in state.items()}, tmp_path / "open_clip.safetensors")
    folder = convert_openai(
        tmp_path / "open_clip.safetensors", tmp_path / "made", activation="gelu"
    )
    loaded = load_checkpoint(folder, device="cpu", dtype="float32")
    assert loaded.config.text.activation == "gelu"
    assert torch.equal(loaded.network.logit_scale, network.logit_scale)


def test_the_archive_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    state = {
        "a.weight": torch.randn(3, 4), "a.narrow": torch.randn(5).half(), "n": torch.tensor(7),
        "b.c.transposed": torch.randn(4, 6).T, "b.c.part": torch.randn(9)[2:5],
        "b.flags": torch.tensor([True, False]), "empty": torch.zeros(0, 3),
    }  # fmt: skip
    found = read_torchscript(archive(state, tmp_path / "a.pt"))
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype, name
        assert found[name].is_contiguous()


@pytest.mark.parametrize("name", SHA256)
def test_names_that_the_hub_does_not_have_say_where_the_file_is(name: str) -> None:
    with pytest.raises(HubNotFoundError, match=rf"{name} is not on the hub: OpenAI publishes it"):
        resolve(name.lower())
    with pytest.raises(HubNotFoundError, match=rf"clip/models/{SHA256[name]}/{name}\.pt, turn it"):
        resolve(name)


def test_a_file_for_a_folder_says_how_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "RN50.pt").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"is a file: turn a file of OpenAI's CLIP into a folder"):
        resolve(str(tmp_path / "RN50.pt"))


def test_a_misspelt_name_is_led_to_the_right_one() -> None:
    with pytest.raises(HubNotFoundError, match=r"did you mean .*RN50x64"):
        resolve("RN50x-64")


# --- What is refused.


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        convert_openai(tmp_path / "none.pt", tmp_path / "made")
    torch.save({"a": torch.ones(1)}, tmp_path / "plain.pt")
    assert not is_torchscript(tmp_path / "plain.pt")
    with pytest.raises(UnsafeCheckpointError, match="neither a TorchScript archive of OpenAI nor"):
        convert_openai(tmp_path / "plain.pt", tmp_path / "made")
    other = archive({"layer.weight": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="not the weights of a CLIP model in OpenAI's layout"):
        convert_openai(other, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_layout_with_a_missing_or_strange_tensor_is_listed(tmp_path: Path) -> None:
    _, state = written("resnet")
    del state["visual.attnpool.k_proj.bias"]
    file = archive({**state, "visual.strange": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"- image.pool.k.bias float32\[128\]\n  \+ visual"):
        convert_openai(file, tmp_path / "made")
    _, state = written("vit")
    del state["token_embedding.weight"]
    with pytest.raises(CheckpointError, match=r"b.pt: no tensor 'token_embedding.weight': these"):
        convert_openai(archive(state, tmp_path / "b.pt"), tmp_path / "made")


def test_a_tokenizer_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    _, state = written("resnet")
    with pytest.raises(CheckpointError, match="has no tokenizer files: give the folder of openai/"):
        convert_openai(archive(state, tmp_path / "a.pt"), tmp_path / "made", tokenizer=tmp_path)


class Storage:
    """Pickles as a reference to stored numbers."""

    def __init__(self, dtype: str, key: str, count: int) -> None:
        self.identity = (dtype, key, count)


def hostile(file: Path, tree: Any, numbers: bytes = b"", **options: Any) -> Path:
    """A zip that looks like an archive, with a tree of our own."""

    class Writer(pickle._Pickler):  # the one that can be overridden
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, Storage):
                dtype, key, count = value.identity
                return ("storage", getattr(torch, dtype), key, "cpu", count)
            return None

    stream = io.BytesIO()
    Writer(stream, protocol=2).dump(tree)
    with zipfile.ZipFile(file, "w", **options) as made:
        made.writestr("m/data.pkl", stream.getvalue())
        made.writestr("m/constants.pkl", b"")
        made.writestr("m/data/0", numbers)
    return file


class Calls:
    """Pickles as a call of anything with anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def rebuilt(count: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> Calls:
    stored = Storage("FloatStorage", "0", count)
    return Calls(torch._utils._rebuild_tensor_v2, stored, offset, shape, strides, False, {})


def sing(*_: Any) -> None:
    raise AssertionError("the archive ran code")


@pytest.mark.parametrize(
    ("function", "arguments"),
    [(sing, ()), (eval, ("1/0",)), (print, ("hello",)), (getattr, ("a", "upper")),
     (torch.load, ("x",)), (bytearray, (1 << 60,))],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_a_tree_that_asks_for_code_is_refused(
    function: Any, arguments: tuple[Any, ...], tmp_path: Path
) -> None:
    file = hostile(tmp_path / "a.pt", Calls(function, *arguments))
    assert is_torchscript(file)
    with pytest.raises(UnsafeCheckpointError, match="which is neither a tensor nor a container"):
        read_torchscript(file)


@pytest.mark.parametrize(
    ("count", "shape", "strides", "offset", "numbers", "words"),
    [
        (4, (2, 3), (3, 1), 0, b"x" * 16, "reaches beyond its 4 numbers"),
        (4, (2,), (9,), 0, b"x" * 16, "reaches beyond its 4 numbers"),
        (4, (2,), (1,), 3, b"x" * 16, "reaches beyond its 4 numbers"),
        (4, (2,), (1,), -1, b"x" * 16, "reaches beyond its 4 numbers"),
        (4, (-1,), (1,), 0, b"x" * 16, "reaches beyond its 4 numbers"),
        (4, (1 << 40,), (0,), 0, b"x" * 16, "reaches beyond its 4 numbers"),
        (4, (2, 2), (1,), 0, b"x" * 16, "not a readable TorchScript archive"),
        (1 << 60, (2,), (1,), 0, b"x" * 16, "truncated, data/0 has 16 bytes of"),
        (3, (2,), (1,), 0, b"x" * 16, "16 bytes long, at most 12 are expected"),
    ],
)
def test_sizes_that_do_not_add_up_are_refused_before_memory_is_taken(
    count: int, shape: Any, strides: Any, offset: int, numbers: bytes, words: str, tmp_path: Path
) -> None:
    file = module_of(rebuilt(count, shape, strides, offset), tmp_path / "a.pt", numbers)
    with pytest.raises(CheckpointError, match=words):
        read_torchscript(file)


def module_of(value: Any, file: Path, numbers: bytes = b"", **options: Any) -> Path:
    """An archive of one object that has the value as its attribute `a`."""
    stream = hostile(file, {"a": value}, numbers, **options)
    with zipfile.ZipFile(stream) as made:
        body = made.read("m/data.pkl")
    assert body[:2] == b"\x80\x02" and body[-1:] == b"."
    tree = b"\x80\x02c__torch__\nM\n)\x81" + body[2:-1] + b"b."
    with zipfile.ZipFile(file, "w", **options) as made:
        made.writestr("m/data.pkl", tree)
        made.writestr("m/constants.pkl", b"")
        made.writestr("m/data/0", numbers)
    return file


def test_compressed_numbers_are_refused(tmp_path: Path) -> None:
    file = module_of(
        rebuilt(1 << 20, (1,), (1,)), tmp_path / "a.pt", bytes(4 << 20),
        compression=zipfile.ZIP_DEFLATED,
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="is compressed or"):
        read_torchscript(file)


def test_a_well_formed_tree_of_ours_is_read(tmp_path: Path) -> None:
    """So that the refusals above are not those of the test's own mistakes."""
    numbers = torch.arange(4.0).numpy().tobytes()
    file = module_of(rebuilt(4, (2, 2), (1, 2)), tmp_path / "a.pt", numbers)
    assert read_torchscript(file)["a"].tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize("length", [0, 10, 100, 1000, -30])
def test_a_file_that_was_cut_off_is_refused(length: int, tmp_path: Path) -> None:
    file = archive({"a": torch.ones(50)}, tmp_path / "a.pt")
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(CheckpointError):
        convert_openai(file, tmp_path / "made")
    with pytest.raises(CheckpointError):
        read_torchscript(file)


def test_modules_without_end_are_refused(tmp_path: Path) -> None:
    """An object that is its own attribute."""
    tree = b"\x80\x02c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb."
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as made:
        made.writestr("m/data.pkl", tree)
        made.writestr("m/constants.pkl", b"")
    with pytest.raises(CheckpointError, match="modules are nested more than 64 deep"):
        read_torchscript(tmp_path / "a.pt")
