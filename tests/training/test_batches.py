from dataclasses import dataclass
from typing import NamedTuple

import torch

from sightline.training.batches import count_pictures, to_device
from sightline.training.settings import changes


class Named(NamedTuple):
    pixels: torch.Tensor
    names: list[str]


@dataclass(frozen=True)
class Data:
    pixels: torch.Tensor
    label: str


def test_every_tensor_moves_and_the_rest_stays():
    meta = torch.device("meta")
    tensor = torch.zeros(3, 2)
    moved = to_device(
        {"a": [tensor, 1], "b": (tensor, "x"), "c": Named(tensor, ["n"]), "d": Data(tensor, "l")},
        meta,
    )
    assert moved["a"][0].device == moved["b"][0].device == meta and moved["b"][1] == "x"
    assert moved["c"].pixels.device == meta and moved["c"].names == ["n"]
    assert moved["d"].pixels.device == meta and moved["d"].label == "l"


def test_pictures_are_counted_by_the_first_tensor():
    tensor = torch.zeros(3, 2)
    assert count_pictures(tensor) == 3
    assert count_pictures({"name": "x", "a": ["y", tensor]}) == 3
    assert count_pictures(Data(tensor, "l")) == 3
    assert count_pictures(["a", "b"]) == 2
    assert count_pictures(object()) == 1


def test_changes_are_listed_old_and_new_and_harmless_ones_are_not():
    before = {"a": 1, "b": {"c": [1, 2]}, "minutes": 3, "gone": None}
    now = {"a": 1, "b": {"c": [1, 5], "workers": 2}, "minutes": 9, "new": "x"}
    assert changes(before, now) == [
        "- b.c[1] = 2",
        "+ b.c[1] = 5",
        "- gone = None",
        "+ new = 'x'",
    ]
    assert changes(before, before) == []
