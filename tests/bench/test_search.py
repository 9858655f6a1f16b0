"""`sightline bench search` at a small size: both answer, and what is counted is right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from sightline.bench import search as bench
from sightline.cli.program import program


def test_both_are_built_searched_and_right() -> None:
    sizes = ["--vectors", "2000", "--width", "16", "--queries", "5", "--rounds", "1"]
    done = CliRunner().invoke(program, ["bench", "search", *sizes, "--json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["name"] for row in found["rows"]] == ["sightline", "lancedb"]
    for row in found["rows"]:
        assert row["exact_recall"] == 1 and row["approximate"] is None and row["probes"] is None
        assert row["build_seconds"] > 0 and row["exact"][0] <= row["exact"][1]


def test_an_index_is_searched_with_the_same_probes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sightline.search.lance.APPROXIMATE_FROM", 1500)
    monkeypatch.setattr(bench, "APPROXIMATE_FROM", 1500)
    size = {"folder": str(tmp_path), "vectors": 1600, "width": 16, "clusters": 20}
    for who in (bench.OURS, bench.PEER):
        assert bench.build_pass(who, **size)["peak"] >= 0
    found = bench.search_pass(**size, queries=5)
    for own in found.values():
        assert own["probes"] and own["approximate"] is not None
        assert own["approximate_recall"] >= 0.8 and own["exact_recall"] == 1


def test_the_truth_is_every_product() -> None:
    blocks = [block for _, block in bench._blocks(300, 8, 0)]
    asked = bench._block(8, 0, 4, seed=99)
    scores = asked @ np.concatenate(blocks).T
    wanted = [set(np.argsort(-row)[:10].tolist()) for row in scores]
    assert bench._truth(300, 8, 0, asked) == wanted
    assert bench._recall([list(row) for row in wanted], wanted) == 1
    assert bench._recall([[-1] * 10] * 4, wanted) == 0
    assert np.allclose(np.linalg.norm(asked, axis=1), 1, atol=1e-5)
