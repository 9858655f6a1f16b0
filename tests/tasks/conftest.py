"""Fixtures of the tasks: the colour model, in the two ways that systems score."""

from __future__ import annotations

from pathlib import Path

import pytest

from sightline.tasks.model import Model
from tests.tasks.colours import colour_model
from tests.tasks.writers import small_codec


@pytest.fixture
def clip() -> Model:
    return colour_model("clip")


@pytest.fixture
def siglip() -> Model:
    return colour_model("siglip")


@pytest.fixture
def vit() -> Model:
    return colour_model("vit")


@pytest.fixture(scope="session")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small mask codec, named as a checkpoint has it beside it."""
    return small_codec(tmp_path_factory.mktemp("codec") / "mask_codec")
