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


def test_both_write_and_the_limit_is_told(tiny) -> None:
    done = []
    result = bench.bench_generate(tiny, 4, (1, 2), 1, lambda now, total: done.append((now, total)))
    assert {(row.name, row.sequences) for row in result.rows} == {
        (name, count) for name in ("sightline", "transformers") for count in (1, 2)
    }
    assert all(0 < row.share_of_limit < 1 for row in result.rows)
    assert result.image_tokens == 196 and done == [(1, 1)]
    assert result.limit == pytest.approx(
        result.read_gb_per_second
        * 1e9
        / (result.parameters * getattr(torch, result.dtype).itemsize)
    )
    assert result.ratio("sightline", "transformers", 1) > 0
    assert result.to_json()["bench"] == "generate"


def test_contenders_that_compute_something_else_are_told(tiny) -> None:
    prompt = bench._prompt(tiny, 1)
    first = bench.Contender("a", lambda prompt: torch.tensor([[1.0, 2.0]]), lambda *_: None)
    other = bench.Contender("b", lambda prompt: torch.tensor([[1.0, 1.5]]), lambda *_: None)
    with pytest.raises(SightlineError, match=r"a and b differ by 0\.250"):
        bench._check([first, other], prompt)
