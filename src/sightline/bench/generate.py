"""`sightline bench generate`: tokens a second of a model that speaks, against transformers.

Both sides hold the same random weights in bfloat16 (float32 where the processor has no such
products): a PaliGemma with SigLIP's B/16 tower at 224 pixels, which gives 196 picture tokens, and a
decoder of 241 M parameters with a vocabulary of 32,768. Every row writes the same number of tokens;
nothing ends early. Rounds alternate (A-B-A-B), and the first scores are compared before anything is
timed.

A further token reads every weight of the decoder once, so that the speed of memory bounds it. That
speed is measured here, by reading a large tensor, in every round before every turn: other guests of
the same machine halve it from one second to the next. Shares and ratios are medians over the rounds
of what was measured side by side.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from sightline.bench.embedders import quiet
from sightline.core.devices import available_cores, fast_bfloat16, set_threads
from sightline.core.errors import SightlineError
from sightline.core.interfaces import Prompt
from sightline.generation.options import GenerationOptions
from sightline.generation.text import generate
from sightline.hub.load import load_checkpoint
from sightline.hub.save import save_checkpoint
from sightline.inputs.processors import Processor, image_processor
from sightline.models import paligemma, siglip
from sightline.models.gemma import GemmaConfig

SHAPE = paligemma.PaliGemmaConfig(
    image=siglip.VARIANTS["B/16-224"].image,
    text=GemmaConfig(
        width=1024, depth=16, num_heads=8, kv_heads=4, head_size=128, mlp_width=3200,
        vocab_size=32768,
    ),
    image_token=32767,
)  # fmt: skip
"""The committed shape: 241 M parameters write, 93 M see."""
WORDS = 12
"""Tokens of the question behind the picture."""
NEAR = 0.05
"""Largest difference of first scores, of the largest score, that two computations may have."""
_BIG = 1 << 28
"""Numbers of the tensor that is read, far more than any cache holds."""


@dataclass(frozen=True)
class Row:
    """One contender with one number of sequences."""

    name: str
    sequences: int
    prefill_seconds: float
    """From pixels and ids to the first token, the median over the rounds."""
    tokens_per_second: float
    """Further tokens of all sequences, the median over the rounds."""
    share_of_limit: float
    """Of the steps a second that reading the weights alone would have allowed at that moment, the
    median over the rounds."""
    speeds: tuple[float, ...]
    """Tokens a second of every round."""

    @property
    def slowest(self) -> float:
        """Tokens a second of the slowest round."""
        return min(self.speeds)

    @property
    def fastest(self) -> float:
        """Tokens a second of the fastest round."""
        return max(self.speeds)


@dataclass(frozen=True)
class GenerateBench:
    """Everything that was measured."""

    parameters: int
    """Of the decoder."""
    image_tokens: int
    new_tokens: int
    rounds: int
    cores: int
    dtype: str
    read_gb_per_second: float
    """Memory reads, the median over all turns."""
    limit: float
    """Steps a second that they allow."""
    rows: tuple[Row, ...]
    skipped: tuple[str, ...]

    def row(self, name: str, sequences: int) -> Row:
        """One contender's row."""
        return next(r for r in self.rows if (r.name, r.sequences) == (name, sequences))

    def ratio(self, first: str, second: str, sequences: int) -> float:
        """How many times as many tokens the first contender writes, the median over the rounds."""
        pairs = zip(
            self.row(first, sequences).speeds, self.row(second, sequences).speeds, strict=True
        )
        return median(ours / theirs for ours, theirs in pairs)

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {"bench": "generate", **asdict(self)}


@dataclass(frozen=True)
class Turn:
    """One contender in one round."""

    read: float
    """Bytes a second that memory gave just before."""
    first: float
    """Seconds to the first token."""
    last: float
    """Seconds to the last one."""


@dataclass(frozen=True)
class Contender:
    """Somebody who writes."""

    name: str
    first_scores: Callable[[Prompt], Tensor]
    """Scores float[B, V] of the first token."""
    write: Callable[[Prompt, int], object]
    """So many tokens behind every prompt."""


def bench_generate(
    config: paligemma.PaliGemmaConfig = SHAPE,
    new_tokens: int = 128,
    sequences: tuple[int, ...] = (1, 8),
    rounds: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> GenerateBench:
    """Measure Sightline and transformers.

    Args:
        new_tokens: each sequence writes so many.
        sequences: how many are written at a time; each number is a row.
        rounds: times that everybody writes everything, after one that is not counted.
        progress: called with rounds done and their total.

    Raises:
        SightlineError: the two sides do not compute the same.
    """
    set_threads()
    dtype = torch.bfloat16 if fast_bfloat16("cpu") else torch.float32
    with tempfile.TemporaryDirectory() as folder:
        parameters = _write(config, Path(folder))
        contenders, skipped = _contenders(Path(folder), config, dtype)
    prompts = {count: _prompt(config, count) for count in sequences}
    _check(contenders, prompts[sequences[0]])
    turns = _race(contenders, prompts, new_tokens, rounds, progress)
    weights = parameters * dtype.itemsize
    rows = tuple(
        _row(who, count, taken, new_tokens, weights) for (who, count), taken in turns.items()
    )
    speed = median(turn.read for taken in turns.values() for turn in taken)
    image = config.image.image_size[0] // config.image.patch_size[0]
    return GenerateBench(
        parameters, image**2, new_tokens, rounds, available_cores(),
        str(dtype).removeprefix("torch."), speed / 1e9, speed / weights, rows, skipped,
    )  # fmt: skip


def read_speed(big: Tensor) -> float:
    """Bytes a second that all cores read of a tensor, best of three."""
    best = float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        big.sum()
        best = min(best, time.perf_counter() - begun)
    return big.nbytes / best


def _write(config: paligemma.PaliGemmaConfig, folder: Path) -> int:
    """The random checkpoint; parameters of its decoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = paligemma.PaliGemma(config)
        torch.nn.init.normal_(network.projector.weight, std=config.image.width**-0.5)
    processor = Processor(image_processor(paligemma.preprocessing(config)), None)
    save_checkpoint(network, processor, config, paligemma.SYSTEM, folder)
    return sum(parameter.numel() for parameter in network.decoder.parameters())


def _prompt(config: paligemma.PaliGemmaConfig, count: int) -> Prompt:
    """Noise for pictures and random words, everywhere equally long."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(count, 3, *config.image.image_size, generator=generator)
    ids = torch.randint(10, config.text.vocab_size - 10, (count, WORDS), generator=generator)
    return Prompt(ids, torch.ones_like(ids, dtype=torch.bool), tuple((p,) for p in pixels))


def _contenders(
    folder: Path, config: paligemma.PaliGemmaConfig, dtype: torch.dtype
) -> tuple[list[Contender], tuple[str, ...]]:
    network: Any = load_checkpoint(folder, device="cpu", dtype=dtype).network

    def write(prompt: Prompt, count: int) -> object:
        return generate(network, prompt, GenerationOptions(count), ())

    ours = Contender("sightline", lambda prompt: network.prefill(prompt, 0)[0], write)
    try:
        import transformers
    except ModuleNotFoundError:
        return [ours], ("transformers",)
    with quiet(transformers):
        theirs = transformers.PaliGemmaForConditionalGeneration.from_pretrained(
            folder, dtype=dtype
        ).eval()
    # written everywhere, so that nothing ends early
    theirs.generation_config = transformers.GenerationConfig(pad_token_id=0, do_sample=False)
    tokens = (config.image.image_size[0] // config.image.patch_size[0]) ** 2
    return [ours, _transformers(theirs, config.image_token, tokens)], ()


def _transformers(network: Any, image_token: int, image_tokens: int) -> Contender:
    def given(prompt: Prompt) -> dict[str, Tensor]:
        places = torch.full((len(prompt.ids), image_tokens), image_token)
        ids = torch.cat([places, prompt.ids], dim=1)
        pixels = torch.stack([row[0] for row in prompt.pictures]).to(network.dtype)
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "token_type_ids": torch.zeros_like(ids),
            "pixel_values": pixels,
        }

    def scores(prompt: Prompt) -> Tensor:
        found: Tensor = network(**given(prompt)).logits[:, -1].float()
        return found

    def write(prompt: Prompt, count: int) -> object:
        return network.generate(**given(prompt), max_new_tokens=count, min_new_tokens=count)

    return Contender("transformers", torch.inference_mode()(scores), torch.inference_mode()(write))


def _check(contenders: list[Contender], prompt: Prompt) -> None:
    with torch.inference_mode():
        first, *rest = [contender.first_scores(prompt) for contender in contenders]
    for contender, scores in zip(contenders[1:], rest, strict=True):
        gap = float((scores - first).abs().max() / first.abs().max())
        if not gap <= NEAR:
            raise SightlineError(
                f"{contenders[0].name} and {contender.name} differ by {gap:.3f} of the largest "
                "score: they do not compute the same, and their times would mean nothing"
            )


def _race(
    contenders: list[Contender],
    prompts: dict[int, Prompt],
    new_tokens: int,
    rounds: int,
    progress: Callable[[int, int], None] | None,
) -> dict[tuple[str, int], list[Turn]]:
    """Every turn of every contender and number of sequences; a first round does not count."""
    turns: dict[tuple[str, int], list[Turn]] = {}
    big = torch.ones(_BIG)
    for done in range(-1, rounds):
        for count, prompt in prompts.items():
            for contender in contenders:
                turn = Turn(
                    read_speed(big),
                    _seconds(contender, prompt, 1),
                    _seconds(contender, prompt, new_tokens),
                )
                if done >= 0:
                    turns.setdefault((contender.name, count), []).append(turn)
        if progress is not None and done >= 0:
            progress(done + 1, rounds)
    return turns


def _seconds(contender: Contender, prompt: Prompt, count: int) -> float:
    begun = time.perf_counter()
    contender.write(prompt, count)
    return time.perf_counter() - begun


def _row(who: str, count: int, turns: list[Turn], new_tokens: int, weights: int) -> Row:
    steps = [(new_tokens - 1) / (turn.last - turn.first) for turn in turns]
    shares = [step * weights / turn.read for step, turn in zip(steps, turns, strict=True)]
    return Row(
        who, count, median(turn.first for turn in turns), count * median(steps), median(shares),
        tuple(count * step for step in steps),
    )  # fmt: skip


def small(config: paligemma.PaliGemmaConfig = SHAPE) -> paligemma.PaliGemmaConfig:
    """The same kind of network for a machine without time: 1/50 of the parameters."""
    image = replace(config.image, width=96, depth=2, num_heads=4, mlp_width=192)
    text = replace(config.text, width=128, depth=3, head_size=32, mlp_width=256, vocab_size=4096)
    return paligemma.PaliGemmaConfig(image, text, image_token=4095)
