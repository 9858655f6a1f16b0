"""`bench generate`: it measures what it says, on a network of no size."""

from dataclasses import replace

import pytest
import torch

from sightline.bench import generate as bench
from sightline.core.errors import SightlineError
from sightline.models.paligemma import PaliGemma
from sightline.nn.meta import without_memory


@pytest.fixture(scope="module")
def tiny():
    config = bench.small()
    image = replace(config.image, width=32, depth=1, num_heads=2, mlp_width=32)
    text = replace(config.text, width=32, depth=2, head_size=8, mlp_width=32, vocab_size=64)
    return replace(config, image=image, text=text, image_token=63)


def test_the_committed_shape_is_what_it_is_said_to_be() -> None:
    with without_memory():
        network = PaliGemma(bench.SHAPE)
    assert round(sum(p.numel() for p in network.decoder.parameters()) / 1e6) == 241
    assert bench.SHAPE.text.vocab_size == 32768


def test_both_write_and_the_limit_is_told(tiny, monkeypatch) -> None:
    monkeypatch.setattr(bench, "_BIG", 1 << 22)
    done = []
    result = bench.bench_generate(tiny, 4, (1, 2), 1, lambda now, total: done.append((now, total)))
    assert {(row.name, row.sequences) for row in result.rows} == {
        (name, count) for name in ("sightline", "transformers") for count in (1, 2)
    }
    for row in result.rows:
        assert len(row.speeds) == 1  # of which a busy machine makes any number in so short a time
        assert row.slowest == row.tokens_per_second == row.fastest
    assert result.image_tokens == 196 and done == [(1, 1)]
    assert result.limit == pytest.approx(
        result.read_gb_per_second
        * 1e9
        / (result.parameters * getattr(torch, result.dtype).itemsize)
    )
    assert result.to_json()["bench"] == "generate"


def test_what_was_measured_side_by_side_is_compared() -> None:
    """Memory slows down in the second round, for everybody alike."""
    rows = tuple(
        bench._row(name, 2, [bench.Turn(80.0, 1, 1 + a), bench.Turn(40.0, 1, 1 + 2 * a)], 9, 5)
        for name, a in (("a", 4.0), ("b", 8.0))
    )
    result = bench.GenerateBench(5, 4, 9, 2, 1, "bfloat16", 0, 1, rows, ())
    assert result.row("a", 2).speeds == (4.0, 2.0)  # of two sequences, 8 steps in 4 and in 8 s
    assert result.row("a", 2).share_of_limit == 1 / 8
    assert result.ratio("a", "b", 2) == 2


def test_contenders_that_compute_something_else_are_told(tiny) -> None:
    prompt = bench._prompt(tiny, 1)
    first = bench.Contender("a", lambda prompt: torch.tensor([[1.0, 2.0]]), lambda *_: None)
    other = bench.Contender("b", lambda prompt: torch.tensor([[1.0, 1.5]]), lambda *_: None)
    with pytest.raises(SightlineError, match=r"a and b differ by 0\.250"):
        bench._check([first, other], prompt)
