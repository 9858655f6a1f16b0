"""The benchmark compares like with like; its times are never asserted."""

import json
import subprocess
import sys

import pytest
import torch

from sightline.bench import embed, embedders
from sightline.core.devices import fast_bfloat16
from sightline.core.errors import ConfigError
from sightline.models.table import system


@pytest.fixture
def small(monkeypatch):
    """The tiny CLIP under the name of a size."""
    entry = system("clip")
    monkeypatch.setitem(entry.variants, "tiny", entry.tiny)
    return "clip:tiny"


@pytest.mark.parametrize("start", ["pixels", "pictures"])
def test_all_contenders_compute_the_same_vectors(small, start, monkeypatch):
    # OpenVINO's threads do not outlive a fork, and other tests fork: it has a process of its own.
    monkeypatch.setitem(sys.modules, "openvino", None)
    result = embed.bench_embed(small, batch=4, rounds=2, start=start, picture=(40, 30))
    names = [row.name for row in result.rows]
    assert names == [
        "sightline auto", "sightline float32", "sightline int8", "transformers",
        "transformers bfloat16",
    ]  # fmt: skip
    cosines = {row.name: row.cosine for row in result.rows}
    assert cosines["transformers"] > 0.99999
    assert all(cosine > 0.95 for cosine in cosines.values())
    for row in result.rows:
        assert row.slowest <= row.pictures_per_second <= row.fastest
        assert row.share_of_limit > 0
    assert result.ratio("transformers", "transformers") == 1.0
    assert result.to_json()["bench"] == "embed"


WITH_OPENVINO = """
import json
from sightline.bench.embed import bench_embed
from sightline.models.table import system

entry = system("clip")
entry.variants["tiny"] = entry.tiny
result = bench_embed("clip:tiny", batch=4, rounds=1, picture=(40, 30))
print(json.dumps({row.name: row.cosine for row in result.rows}))
"""


def test_openvino_computes_the_same_vectors():
    pytest.importorskip("openvino", reason="the extra `bench`, which tests do without")
    command = [sys.executable, "-c", WITH_OPENVINO]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    cosines = json.loads(done.stdout.splitlines()[-1])
    assert cosines["openvino float32"] > 0.9999
    assert cosines.get("openvino bfloat16", 1.0) > 0.95
    assert ("openvino bfloat16" in cosines) == fast_bfloat16("cpu")


def test_files_are_decoded_by_everyone(small):
    result = embed.bench_embed(
        small, batch=4, rounds=1, start="files", picture=(96, 128), files=6,
        only=["sightline auto", "sightline reduced", "transformers"],
    )  # fmt: skip
    cosines = {row.name: row.cosine for row in result.rows}
    assert list(cosines) == [
        "sightline auto", "sightline reduced", "sightline float32", "transformers",
    ]  # fmt: skip
    assert cosines["transformers"] > 0.99999  # the same pixels from the same files
    assert 0.9 < cosines["sightline reduced"] < 0.999999


def test_a_missing_peer_is_named(small, monkeypatch):
    for peer in ("transformers", "openvino"):
        monkeypatch.setitem(sys.modules, peer, None)
    result = embed.bench_embed(small, batch=2, rounds=1, picture=(30, 30))
    assert result.skipped == ("transformers", "openvino")
    assert len(result.rows) == 3


def test_arithmetic_is_counted():
    """ViT-B/32 at 224: 4.4 G multiply-adds, as published tables give it."""
    assert embed._flops_per_picture("clip:B/32") / 2e9 == pytest.approx(4.4, abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "clip:B/64"}, "unknown model to measure 'clip:B/64'"),
        ({"only": ["onnx"]}, "unknown contender 'onnx'"),
        ({"start": "disk"}, "unknown start 'disk'"),
    ],
)
def test_what_is_not_known_is_refused(small, options, message):
    with pytest.raises(ConfigError, match=message):
        embed.bench_embed(**{"model": small, **options})


def test_cosines_are_taken_after_centring():
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)) + 50.0
    assert embed._least_cosine(rows, rows) == pytest.approx(1.0)
    assert embed._least_cosine(rows, rows.flip(0)) < 0.9


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int8])
def test_the_limit_is_measured(kind):
    assert embedders.product_speed(kind) > 1e8
