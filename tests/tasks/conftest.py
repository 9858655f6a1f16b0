"""Fixtures of the tasks: the colour model, in the two ways that systems score."""

from __future__ import annotations

import pytest

from sightline.tasks.model import Model
from tests.tasks.colours import colour_model


@pytest.fixture
def clip() -> Model:
    return colour_model("clip")


@pytest.fixture
def siglip() -> Model:
    return colour_model("siglip")


@pytest.fixture
def vit() -> Model:
    return colour_model("vit")
