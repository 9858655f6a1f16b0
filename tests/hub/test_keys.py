"""Every tensor fits, or the list says which do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sightline.core.errors import CheckpointError
from sightline.hub.keys import check_state, own_state, without_wrappers


def network() -> nn.Module:
    return nn.ModuleDict({"image": nn.Linear(3, 2), "text": nn.Linear(4, 2)})


def report(state: dict[str, Tensor]) -> str:
    with pytest.raises(CheckpointError) as caught:
        check_state(network(), state, "folder", "clip")
    return str(caught.value)


def test_a_state_that_fits_passes() -> None:
    check_state(network(), network().state_dict(), "folder", "clip")


def test_the_list_names_missing_unexpected_and_different() -> None:
    state = network().state_dict()
    state["other.bias"] = state.pop("image.bias")
    state["text.weight"] = torch.zeros(4, 2)
    assert report(state).splitlines() == [
        "folder: the weights do not fit clip: 1 missing (-), 1 unexpected (+), 1 different (!)",
        "  - image.bias float32[2]",
        "  + other.bias float32[2]",
        "  ! text.weight: float32[4, 2] in the file, float32[2, 4] in the network",
    ]


def test_long_lists_are_cut() -> None:
    state = network().state_dict() | {f"x{n}": torch.zeros(1) for n in range(30)}
    lines = report(state).splitlines()
    assert len(lines) == 1 + 12 + 1
    assert lines[-1] == "  + ... and 18 more"


def test_half_a_model_is_called_so() -> None:
    state = {name: t for name, t in network().state_dict().items() if name.startswith("image")}
    assert "nothing of 'text' is in the file: it holds only a part" in report(state)


def test_integers_where_numbers_belong_are_different() -> None:
    state = network().state_dict()
    state["image.bias"] = torch.zeros(2, dtype=torch.int64)
    assert "! image.bias: int64[2] in the file, float32[2] in the network" in report(state)


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "_orig_mod.", "module.model."])
def test_levels_in_front_of_every_name_are_taken_off(prefix: str) -> None:
    state = {prefix + name: tensor for name, tensor in network().state_dict().items()}
    assert list(without_wrappers(state)) == list(network().state_dict())


def test_a_level_in_front_of_some_names_is_kept() -> None:
    state = {"model.a": torch.zeros(1), "b": torch.zeros(1)}
    assert list(without_wrappers(state)) == ["model.a", "b"]
    assert without_wrappers({}) == {}


def test_a_reading_that_stumbles_over_shapes_is_a_checkpoint_error() -> None:
    with pytest.raises(CheckpointError, match="folder: tensors of unexpected shapes"):
        own_state(lambda state: {"a": state["a"].reshape(7)}, {"a": torch.zeros(3)}, "folder")
