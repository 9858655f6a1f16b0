"""`sightline train park-siglip`: the bundled dual encoder of drawn parks.

    sightline train park-siglip --out RUN

A SigLIP of 1.7 M parameters learns on scenes drawn as it goes. Sentences alone teach a network of
this size to see very slowly, so two small heads also ask every patch for the kind and the colour
of what covers it, which the park knows exactly; they are thrown away afterwards, and what remains
is a plain SigLIP. Half of the scenes hold one object; in part a sentence is a prompt about one
thing, as classification and tagging will ask.

It learns to see first, then to speak exactly, then to take things apart:

- At first a sentence is a match of its own picture alone, as in any captioned data.
- After a third of the run a prompt is true of every picture of the batch that shows such a thing,
  which the park knows, and the sigmoid loss takes all of them as matches.
- In the second half some pictures lose their colours and keep a sentence about a kind alone, and
  some prompts name a colour and no kind. Without them the network learns that what it never saw in
  orange cannot be orange, and fails on new pairs of kind and colour. Part of the colourless ones
  are negatives, where dark is light: otherwise a kind that is never white is never the lightest
  thing around. Grey is none of the park's colours: no held-out pair is shown.

With all of it from the first step the patches' kinds were learned at less than half the speed; with
more colourless pictures and no prompts about colours, new pairs got their kinds right and their
colours wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sightline.core.errors import ConfigError
from sightline.data.loader import Loader
from sightline.data.park.records import BACKGROUND, ParkRecords, patch_truth
from sightline.data.park.scenes import Scene, scene
from sightline.data.park.vocabulary import COLOURS, KINDS, with_article
from sightline.data.records import Dataset
from sightline.nn.linear import Linear
from sightline.nn.norms import unit_length
from sightline.objectives.contrastive import sigmoid_contrastive
from sightline.recipes.dual_encoder import DualEncoderRecipe
from sightline.recipes.park_scores import park_scores
from sightline.recipes.run import Outcome, Plan, carry_out, dual_encoder_stage
from sightline.recipes.splits import CHOOSING, PARK
from sightline.recipes.towers import start_from
from sightline.training import distributed
from sightline.training.accumulation import Step, StepResult, backward

if TYPE_CHECKING:
    from sightline.inputs.processors import Processor
    from sightline.tasks.model import Model
    from sightline.training.options import Progress

PROMPTED_ALONE, PROMPTED_AMONG = 0.5, 0.25
"""Share of sentences that are a prompt about one thing, in scenes of one object and of several."""
SHARED_FROM, APART_FROM = 0.3, 0.55
"""Share of the run after which a sentence has several matches, and after which there are
colourless pictures and prompts about a colour alone."""
COLOURLESS = 0.2
"""Share of pictures turned to middle greys, with a sentence about a kind."""
NEGATIVE = 0.3
"""Share of those in which dark and light change places."""
GREY = len(COLOURS)
"""Where `shown` keeps the kinds of a picture without colours."""
ANY = -1
"""A claim about no kind (a caption), or about no colour."""
BACKGROUND_WEIGHT = 0.2
ABOUT = ("both", "kind", "both", "colour")
"""What a prompt may name of a thing; equal chances."""
PROMPTS = ("This is a photo of {}.", "a photo of {}.", "{}.", "{}", "there is {} here.")


@dataclass(frozen=True)
class ParkSigLIPRecipe(DualEncoderRecipe):
    """The settings of the published run."""

    data: str = PARK
    batch_size: int = 128
    steps: int | None = 3100
    """Each of their pictures is a scene of its own."""
    lr: float = 2.5e-3
    warmup: float = 0.05
    image_size: int | None = 64
    width: int = 128
    depth: int = 5
    text_width: int = 128
    context_length: int | None = 32
    vocab_size: int = 400
    teaching: float = 2.0
    """Weight of the per-patch losses."""
    crop: float = 1.0
    eval_limit: int = 500


class TaughtBatch(NamedTuple):
    """Pairs with what covers each patch."""

    pixels: Tensor
    """float32[B, 3, H, W]"""
    ids: Tensor
    """int64[B, T]"""
    kinds: Tensor
    """int64[B, P]: index of the kind, or `BACKGROUND`."""
    colours: Tensor
    """int64[B, P]"""
    claims: Tensor
    """int64[B, 2]: kind and colour that the sentence claims, or `ANY`."""
    shown: Tensor
    """bool[B, kinds, colours + 1]: what each picture shows; the last one is `GREY`."""


class Taught(nn.Module):
    """A dual encoder with two heads that name what covers each patch."""

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__()
        self.model = model
        self.kind = Linear(width, len(KINDS) + 1)
        self.colour = Linear(width, len(COLOURS) + 1)

    def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Image and text embeddings, then logits [B P kinds+1] and [B P colours+1]."""
        encoded = self.model.image(pixels)  # type: ignore[operator]
        texts = self.model.encode_texts(ids)  # type: ignore[operator]
        tokens = encoded.tokens
        return unit_length(encoded.pooled), texts, self.kind(tokens), self.colour(tokens)


def train_park_siglip(
    recipe: ParkSigLIPRecipe,
    out: str | Path,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Train the bundled model; see `run.train_dual_encoder` for what is written."""
    if recipe.data != PARK or recipe.accumulate != 1 or recipe.steps is None:
        raise ConfigError(
            "park-siglip learns from drawn parks (data=park), in so many steps, with accumulate=1"
        )
    if distributed.world_size() > 1:
        raise ConfigError(
            "park-siglip matches every sentence with the pictures of its own process: train it in "
            "one process"
        )
    if recipe.shapes:
        raise ConfigError("park-siglip learns from square scenes: leave shapes out")
    if recipe.patch_dropout:
        raise ConfigError("park-siglip asks every patch what covers it: use patch_dropout=0")
    start = start_from(recipe, vocabulary_texts())
    network = Taught(start.network, recipe.width)
    plan = Plan(
        start=start,
        network=network,
        loader=taught_loader(start.processor, recipe),
        step=taught_step(recipe.teaching),
        steps=recipe.steps,
        stage=dual_encoder_stage(recipe, recipe.steps, network),
        choose=lambda model: scores(model, recipe.eval_limit, CHOOSING),
        judge=lambda model: scores(model, recipe.eval_limit, 0),
        test=Dataset(list(ParkRecords("test", count=recipe.eval_limit)), name="park test"),
        inner=lambda network: network.model,  # type: ignore[arg-type,return-value]
    )
    return carry_out(recipe, plan, Path(out), minutes, progress)


def vocabulary_texts() -> list[str]:
    """Sentences that hold every word the park can say."""
    from sightline.data.park.text import texts

    prompts = [p.format(with_article(f"{c} {k}")) for p in PROMPTS for k in KINDS for c in COLOURS]
    return [*texts(seeds=range(3000)), *prompts]


def taught_loader(processor: Processor, recipe: ParkSigLIPRecipe) -> Loader[TaughtBatch]:
    """Scenes drawn by the loader's threads in the order of their seeds, every other of one object.

    What a sample may be depends on its seed, hence on its place in the run.
    """
    assert recipe.image_size is not None and recipe.steps is not None
    size = recipe.image_size
    count = recipe.steps * recipe.batch_size
    shared, apart = round(SHARED_FROM * count), round(APART_FROM * count)

    def draw(seed: int, generator: np.random.Generator) -> tuple[Any, ...]:
        drawn = scene(seed, "train", size, objects=1 if seed % 2 else None)
        kinds, colours = patch_truth(drawn, recipe.patch_size)
        if seed >= apart and generator.random() < COLOURLESS:
            words, claim = prompt(drawn, generator, "kind")
            nothing = np.full_like(colours, BACKGROUND)
            shown = contents(drawn, colourless=True)
            pixels = middle_grey(drawn.pixels, generator.random() < NEGATIVE)
            return pixels, words, kinds, nothing, np.array(claim), shown
        words, claim = sentence(drawn, generator, ABOUT if seed >= apart else ABOUT[:2])
        if seed < shared:
            claim = (ANY, ANY)
        return drawn.pixels, words, kinds, colours, np.array(claim), contents(drawn)

    def collate(samples: list[tuple[Any, ...]]) -> TaughtBatch:
        pixels, words, *truths = zip(*samples, strict=True)
        stacked = (torch.from_numpy(np.stack(column)) for column in truths)
        return TaughtBatch(
            cast(Tensor, processor.images(pixels)), processor.texts(words).ids, *stacked
        )

    seeds: Sequence[int] = range(count)
    return Loader(
        seeds,
        collate,
        recipe.batch_size,
        recipe.seed,
        False,
        workers=recipe.workers,
        transform=draw,
    )


def sentence(
    drawn: Scene, generator: np.random.Generator, about: Sequence[str] = ABOUT
) -> tuple[str, tuple[int, int]]:
    """A caption, or a prompt about one of the objects; and the kind and colour it claims.

    Args:
        about: what a prompt may name, see `prompt`.
    """
    prompted = PROMPTED_ALONE if len(drawn.objects) == 1 else PROMPTED_AMONG
    if generator.random() >= prompted:
        return drawn.captions[int(generator.integers(len(drawn.captions)))], (ANY, ANY)
    return prompt(drawn, generator, about[int(generator.integers(len(about)))])


def prompt(drawn: Scene, generator: np.random.Generator, about: str) -> tuple[str, tuple[int, int]]:
    """A prompt that names one object's kind, its colour, or both; and what it claims."""
    thing = drawn.objects[int(generator.integers(len(drawn.objects)))]
    kind = ANY if about == "colour" else KINDS.index(thing.kind)
    colour = ANY if about == "kind" else COLOURS.index(thing.colour)
    if about == "colour":
        words = thing.colour if generator.random() < 0.5 else f"something {thing.colour}"
    else:
        words = thing.kind if about == "kind" else thing.name
        if generator.random() < 0.5:
            words = with_article(words)
    template = PROMPTS[int(generator.integers(len(PROMPTS)))]
    return template.format(words), (kind, colour)


def middle_grey(pixels: NDArray[np.uint8], negative: bool = False) -> NDArray[np.uint8]:
    """The brightness of a picture between 80 and 176: shapes without colours, black or white."""
    brightness = pixels @ np.array([0.299, 0.587, 0.114])  # [H W], ITU-R BT.601
    if negative:
        brightness = 255 - brightness
    grey = (80 + brightness * (96 / 255)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def contents(drawn: Scene, colourless: bool = False) -> NDArray[np.bool_]:
    """bool[kinds, colours + 1]: which kinds in which colours a picture shows."""
    shown = np.zeros((len(KINDS), len(COLOURS) + 1), dtype=np.bool_)
    for thing in drawn.objects:
        shown[KINDS.index(thing.kind), GREY if colourless else COLOURS.index(thing.colour)] = True
    return shown


def true_pairs(claims: Tensor, shown: Tensor) -> Tensor:
    """bool[B, B]: picture i against sentence j. A caption is true of its own picture alone.

    Args:
        claims: int64[B, 2], kind and colour or `ANY`.
        shown: bool[B, kinds, colours + 1].
    """
    kind, colour = claims.unbind(dim=1)  # [B]
    of_kind = torch.where(
        (kind == ANY)[None, :, None], shown.any(dim=1)[:, None], shown[:, kind.clamp(min=0)]
    )  # [B B colours+1]
    of_colour = of_kind.gather(2, colour.clamp(min=0).expand(len(shown), -1)[..., None])[..., 0]
    told = torch.where(colour == ANY, of_kind.any(dim=-1), of_colour)  # [B B]
    told &= (kind != ANY) | (colour != ANY)
    return told | torch.eye(len(shown), dtype=torch.bool, device=shown.device)


def taught_step(teaching: float) -> Step:
    """The sigmoid loss over what is true, plus the two per-patch cross-entropies."""

    def step(network: nn.Module, batches: list[TaughtBatch]) -> StepResult:
        (batch,) = batches
        image, text, kinds, colours = network(batch.pixels, batch.ids)
        scale, bias = network.model.pair_scale()  # type: ignore[operator,union-attr]
        matches = true_pairs(batch.claims, batch.shown)
        contrast = sigmoid_contrastive(image, text, scale, bias, matches=matches)
        kind_loss, kind_right = patch_loss(kinds, batch.kinds)
        colour_loss, colour_right = patch_loss(colours, batch.colours)
        backward(contrast + teaching * (kind_loss + colour_loss))
        metrics = {"patch_kind": kind_right, "patch_colour": colour_right}
        return StepResult(contrast.item(), metrics, len(batch.pixels))

    return step


def patch_loss(logits: Tensor, truth: Tensor) -> tuple[Tensor, float]:
    """Cross-entropy of the patches, and the share right among those an object covers.

    Three patches of four are background, which is soon known; it counts a fifth.

    Args:
        logits: float[B, P, names + 1], the last one for background.
        truth: int64[B, P].
    """
    background = logits.shape[-1] - 1
    target = truth.where(truth != BACKGROUND, background).flatten()  # [B*P]
    flat = logits.flatten(0, 1)  # [B*P names+1]
    covered = target != background
    right = (flat.argmax(dim=-1) == target)[covered].float().mean()
    weight = torch.ones(background + 1, device=flat.device)
    weight[background] = BACKGROUND_WEIGHT
    return F.cross_entropy(flat, target, weight), right.item()


def scores(model: Model, count: int, first: int) -> dict[str, float]:
    """What the bundled model is judged by, on few scenes; "score", the mean, decides."""
    found = {name: metric.value for name, metric in park_scores(model, count, start=first).items()}
    judged = [found[n] for n in ("test phrase", "pairs phrase", "image to text", "text to image")]
    return {"score": float(np.mean(judged)), **found}
