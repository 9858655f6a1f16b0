"""A tiny model, drawn parks and a way to call the command line within the process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

# Read before any test sets HF_HUB_OFFLINE: it keeps what it finds for the whole process.
import huggingface_hub.constants  # noqa: F401
import pytest
from click.testing import CliRunner

from sightline.cli.program import program
from sightline.data import park
from tests.hub.tiny import tiny_folder
from tests.tasks.writers import small_codec


class Answer(NamedTuple):
    """What a call left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output as one JSON document; anything beside it fails."""
        document: dict[str, Any] = json.loads(self.out)
        assert "model" in document
        return document


Run = Callable[..., Answer]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Call `sightline` with these arguments, offline, with no model in the environment."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("SIGHTLINE_MODEL", raising=False)

    def call(*arguments: object) -> Answer:
        result = CliRunner().invoke(program, [str(part) for part in arguments])
        assert "Traceback" not in result.stderr
        return Answer(result.exit_code, result.stdout, result.stderr)

    yield call


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SigLIP with random weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny-siglip"
    tiny_folder("siglip", folder)
    return folder


@pytest.fixture(scope="session")
def parks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four drawn scenes with captions."""
    folder = tmp_path_factory.mktemp("data") / "parks"
    park.write((park.scene(seed) for seed in range(4)), folder)
    return folder


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per class, two pictures in each."""
    folder = tmp_path_factory.mktemp("data") / "classes"
    for place, name in enumerate(["a red ball", "a blue car"]):
        (folder / name).mkdir(parents=True)
        for seed in range(2):
            park.scene(10 * place + seed).image.save(folder / name / f"{seed}.png")
    return folder


@pytest.fixture(scope="session")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small mask codec, named as a checkpoint has it beside it."""
    return small_codec(tmp_path_factory.mktemp("codec") / "mask_codec")
