"""`eval compositionality` by the likelihoods of a tiny random PaliGemma."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.tasks.writers import writing_folder


@pytest.mark.parametrize("score", ["logprob", "logprob-blank"])
def test_captions_are_scored_by_their_likelihood(run: Run, tmp_path: Path, score: str) -> None:
    model, out = writing_folder(tmp_path / "model"), tmp_path / "scores"
    answer = run("eval", "compositionality", "--data", "park", "--count", 2, "--score", score,
                 "--model", model, "--out", out)  # fmt: skip
    assert answer.code == 0, answer.err
    document = json.loads((out / "results.json").read_text())
    assert document["n"] > 0 and document["n_invalid"] == 0 and document["n_missing"] == 0
    assert score in document["signature"]
