"""The benchmark compares like with like; its times are never asserted."""

import pytest
import torch

from sightline.bench import embed
from sightline.core.errors import ConfigError
from sightline.models.table import system


@pytest.fixture
def small(monkeypatch):
    """The tiny CLIP under the name of a size."""
    entry = system("clip")
    monkeypatch.setitem(entry.variants, "tiny", entry.tiny)
    return "clip:tiny"


def test_all_contenders_compute_the_same_vectors(small):
    result = embed.bench_embed(small, batch=4, rounds=2, picture=(40, 30))
    assert [row.name for row in result.rows][:3] == [
        "sightline auto", "sightline float32", "transformers",
    ]  # fmt: skip
    cosines = {row.name: row.cosine for row in result.rows}
    assert cosines["transformers"] > 0.99999
    assert all(cosine > 0.99 for cosine in cosines.values())
    for row in result.rows:
        assert row.slowest <= row.pictures_per_second <= row.fastest
    assert result.ratio("transformers", "transformers") == 1.0
    assert result.to_json()["bench"] == "embed"


def test_a_missing_peer_is_named(small, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    result = embed.bench_embed(small, batch=2, rounds=1, picture=(30, 30))
    assert result.skipped == ("transformers",)
    assert len(result.rows) == 2


def test_arithmetic_is_counted():
    """ViT-B/32 at 224: 4.4 G multiply-adds, as published tables give it."""
    assert embed._flops_per_picture("clip:B/32") / 2e9 == pytest.approx(4.4, abs=0.1)


def test_an_unknown_model_is_refused():
    with pytest.raises(ConfigError, match="unknown model to measure 'clip:B/64'"):
        embed.bench_embed("clip:B/64")


def test_cosines_are_taken_after_centring():
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)) + 50.0
    assert embed._least_cosine(rows, rows) == pytest.approx(1.0)
    assert embed._least_cosine(rows, rows.flip(0)) < 0.9
