"""`sightline train park-paligemma`: the bundled model of drawn parks that speaks.

    sightline train mask-codec --out CODEC
    sightline train park-paligemma --set codec=CODEC --out RUN

Stages of the paper (PaliGemma, section 3.2) at the size of a park. Stage 0 is taken as it is: the
image tower of the bundled park-siglip, which has learned to see. Stage 1 trains everything on a
mixture of all tasks: captions, questions, boxes and masks of scenes drawn as it goes. Stage 2 would
raise the resolution, which parks do not need.

A picture is followed by as many turns as fit into a row (`data.park.lessons`): the first one is a
prefix, which picture and prompt see in both directions, further ones follow causally, and only
answers are learned from. A row then teaches half a dozen answers for the price of one picture.

Every patch is asked what covers it, which the park knows exactly: kind and colour by the vectors
of their words, and the box. What asks is thrown away afterwards (`Taught`).
"""

from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sightline.core.errors import ConfigError
from sightline.core.interfaces import TextBatch
from sightline.data.loader import Loader
from sightline.data.park.lessons import EVERYTHING, Spell, Turn, turns_about
from sightline.data.park.records import BACKGROUND, ParkRecords, patch_owners
from sightline.data.park.scenes import Scene, scene
from sightline.data.park.text import texts as park_texts
from sightline.data.park.vocabulary import COLOURS, KINDS
from sightline.data.records import Dataset
from sightline.data.worker_processes import Processes
from sightline.hub.load import load_checkpoint
from sightline.inputs.coordinates import PALIGEMMA
from sightline.inputs.processors import Processor, image_processor
from sightline.inputs.vocabulary import IMAGE, train_vocabulary
from sightline.models import paligemma
from sightline.models.gemma import GemmaConfig
from sightline.models.siglip import ImageTowerConfig
from sightline.nn.linear import Linear
from sightline.nn.norms import unit_length
from sightline.nn.writer import Writer
from sightline.objectives.language import next_token
from sightline.recipes.park_siglip import patch_loss
from sightline.recipes.run import Outcome, Plan, carry_out
from sightline.recipes.speech_scores import exact_answers, show_answers, speech_scores
from sightline.recipes.splits import CHOOSING, PARK
from sightline.recipes.towers import Start
from sightline.tasks.mask_tokens import mask_tokens
from sightline.tasks.segment import FOLDER
from sightline.training import distributed
from sightline.training.accumulation import Step, StepResult, backward
from sightline.training.stages import Group, Stage

if TYPE_CHECKING:
    from sightline.core.interfaces import MaskCodec
    from sightline.data.park.scenes import ParkObject
    from sightline.inputs.instructions import Instructions
    from sightline.inputs.tokenizers import TextTokenizer
    from sightline.training.options import Progress

logger = logging.getLogger(__name__)

MULTIPLE = 256
"""Scored tokens of a batch are filled up to a multiple of this."""
SHORTEST = 10
"""Tokens that a turn takes at least: nothing else is sought where fewer are left."""
MISSES = 2
"""Turns that did not fit, after which a row is full."""
REACH = 16.0
"""Pixels that the box head counts as one."""


@dataclass(frozen=True)
class ParkPaliGemmaRecipe:
    """The settings of the published run."""

    data: str = PARK
    shapes: tuple[str, ...] = ()
    """Parks are square here."""
    seed: int = 0
    codec: str | None = None
    """Folder or name of a mask codec, or the folder of its run; without one no masks are taught."""
    init: str | None = "park-siglip"
    """A SigLIP whose image tower is taken over; none for a new tower."""
    blind: bool = False
    """Show grey instead of pictures: what words alone give away, for comparison."""

    # the network
    image_size: int | None = 64
    patch_size: int = 8
    image_width: int = 128
    image_depth: int = 5
    width: int = 192
    depth: int = 4
    num_heads: int = 6
    kv_heads: int = 2
    mlp_width: int = 512
    vocab_size: int = 1600
    causal: bool = False
    """Let the prefix see from left to right only, which the paper found to be worse."""

    # optimisation
    room: int = 160
    """Tokens of a row beside those of its picture."""
    turns: int = 12
    """Turns of a row at most."""
    easy: float = 0.2
    """Share of the run with scenes of one to three objects."""
    teaching: float = 1.0
    """Weight of the per-patch losses."""
    batch_size: int = 32
    accumulate: int = 1
    epochs: float = 1.0
    """Parks are endless: `steps` counts."""
    most_steps: int = 5000
    steps: int | None = 5000
    lr: float = 2e-3
    image_lr_scale: float = 0.3
    """Times the rate, for the tower that knows how to see."""
    weight_decay: float = 0.02
    warmup: float = 0.02
    beta2: float = 0.98
    clip: float = 1.0
    ema: float | None = None
    freeze: tuple[str, ...] = ()
    autocast: str = "auto"
    compile: bool = True
    """Let torch fuse what is between the products, where a C++ compiler is at hand: 1.9 times as
    fast on a CPU, after a minute."""
    parallel: str = "auto"
    activation_checkpointing: bool = False
    device: str = "auto"

    # around it
    test_share: float = 0.1
    eval_every: int | None = None
    eval_limit: int = 200
    save_every: int | None = None
    workers: int = 1

    @property
    def system(self) -> str:
        return "paligemma"


def train_park_paligemma(
    recipe: ParkPaliGemmaRecipe,
    out: str | Path,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Train the bundled model; see `run.train_dual_encoder` for what is written.

    Raises:
        ConfigError: settings that do not fit.
    """
    if recipe.data != PARK or recipe.accumulate != 1 or recipe.steps is None or recipe.shapes:
        raise ConfigError(
            "park-paligemma learns from square drawn parks (data=park), in so many steps, with "
            "accumulate=1"
        )
    if distributed.world_size() > 1:
        raise ConfigError("park-paligemma is trained in one process")
    codec = None if recipe.codec is None else codec_folder(recipe.codec)
    start = SpeakingStart(**vars(start_speaking(recipe)), codec=codec)
    network = taught(start)
    writing = writing_of(recipe, start, codec)
    slots = writing.room + patches_of(start.config)
    learns_from = replace(writing, grey=recipe.blind)
    plan = Plan(
        start=start,
        network=network,
        loader=lesson_loader(
            learns_from, recipe.steps * recipe.batch_size, recipe.easy, recipe.batch_size,
            recipe.seed, recipe.workers,
        ),
        step=lesson_step(recipe.teaching, slots, recipe.compile),
        steps=recipe.steps,
        stage=_stage(recipe),
        choose=lambda model: exact_answers(
            model.network, learns_from, recipe.eval_limit, CHOOSING
        ),
        judge=lambda model: speech_scores(
            model, recipe.eval_limit, blind=recipe.blind, codec=codec
        ),
        test=Dataset(list(ParkRecords("test", count=recipe.eval_limit)), name="park test"),
        inner=lambda network: cast(Taught, network).model,
        show=lambda report, model: show_answers(report, model, codec),
    )  # fmt: skip
    # what is worth it is compiled already; the whole holds loops over rows
    return carry_out(replace(recipe, compile=False), plan, Path(out), minutes, progress)


def taught(start: Start) -> Taught:
    """The network of a start with what teaches it."""
    assert start.processor.text is not None
    kinds, colours = (
        [start.processor.text.encode(word)[-1] for word in words] for words in (KINDS, COLOURS)
    )
    return Taught(start.network, start.config.image.width, kinds, colours)


def compile_parts(network: Any) -> None:
    """Compile the stacks of blocks in place, unless there is no C++ compiler."""
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
        logger.info("no C++ compiler: the run is not compiled, which takes about twice as long")
        return
    network.decoder.compile()
    network.image.transformer.compile()


def _stage(recipe: ParkPaliGemmaRecipe) -> Stage:
    assert recipe.steps is not None
    return Stage(
        "speak",
        recipe.steps,
        recipe.lr,
        groups=(Group(("model.image.*",), recipe.image_lr_scale if recipe.init else 1.0),),
        weight_decay=recipe.weight_decay,
        warmup=round(recipe.warmup * recipe.steps),
        final_lr=0.02,
        betas=(0.9, recipe.beta2),
        clip=recipe.clip,
    )


@dataclass
class SpeakingStart(Start):
    """A start whose saved model has its mask codec beside it."""

    codec: Path | None = None

    def save(self, folder: Path, metadata: dict[str, Any] | None = None) -> None:
        """Also the card, which says how it is asked for everything, and the mask codec."""
        super().save(folder, {"everything": [EVERYTHING], **(metadata or {})})
        if self.codec is not None:
            shutil.copytree(self.codec, folder / FOLDER)


def codec_folder(name: str) -> Path:
    """The model folder of a codec, or of the best one of a codec's run."""
    from sightline.recipes.run import best_model

    folder = Path(name)
    return best_model(folder) if (folder / "checkpoints").is_dir() else folder


def start_speaking(recipe: ParkPaliGemmaRecipe) -> Start:
    """A new decoder behind the tower of `init`, with a vocabulary of the park's words."""
    tokenizer = train_vocabulary(
        vocabulary_texts(), recipe.vocab_size, rules="paligemma", max_length=1024
    )
    loaded = None
    if recipe.init is not None:
        loaded = load_checkpoint(recipe.init, device="cpu", dtype="float32")
    image = _tower(recipe) if loaded is None else loaded.config.image
    image_token = tokenizer.token_id(IMAGE)
    assert image_token is not None and tokenizer.eos_id is not None
    text = GemmaConfig(
        recipe.width, recipe.depth, recipe.num_heads, recipe.kv_heads,
        recipe.width // recipe.num_heads, recipe.mlp_width, tokenizer.vocab_size,
    )  # fmt: skip
    config = paligemma.PaliGemmaConfig(image, text, image_token)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = paligemma.PaliGemma(config)
    network.prefix_lm = not recipe.causal
    # a decoder that never learned anything has no words to be spared: patches begin at full length
    nn.init.normal_(network.projector.weight, std=image.width**-0.5)
    if loaded is not None:
        own = network.image.state_dict()
        given = loaded.network.state_dict()
        network.image.load_state_dict({name: given[f"image.{name}"] for name in own})
    processor = Processor(
        image_processor(paligemma.preprocessing(config)),
        tokenizer.with_spec(paligemma.text(config)),
    )
    return Start(network, processor, config, paligemma.SYSTEM)


def _tower(recipe: ParkPaliGemmaRecipe) -> ImageTowerConfig:
    size = recipe.image_size or 64
    return ImageTowerConfig(
        recipe.image_width, recipe.image_depth, recipe.image_width // 32, 4 * recipe.image_width,
        (recipe.patch_size, recipe.patch_size), (size, size),
    )  # fmt: skip


def vocabulary_texts() -> list[str]:
    """Sentences with every word that the park says, and those of the prompts."""
    prompts = ["caption en", "describe en", "answer en", "detect everything ;", "segment"]
    return [*park_texts(seeds=range(1000)), *prompts * 50]


def patches_of(config: paligemma.PaliGemmaConfig) -> int:
    """Tokens of a picture."""
    (height, width), (tall, wide) = config.image.image_size, config.image.patch_size
    return (height // tall) * (width // wide)


def writing_of(recipe: ParkPaliGemmaRecipe, start: Start, codec: Path | None) -> Writing:
    """How lessons become tokens for this network."""
    assert start.processor.text is not None
    mask: Spell | None = None
    if codec is not None:
        network = cast(Any, load_checkpoint(codec, device="cpu", dtype="float32").network)
        mask = MaskSpeller(network)
    return Writing(
        tokenizer=start.processor.text,
        instructions=paligemma.instructions(start.config),
        box=spell_box,
        mask=mask,
        patch_size=start.config.image.patch_size[0],
        room=recipe.room,
        size=start.config.image.image_size[0],
        most_turns=recipe.turns,
    )


def spell_box(thing: ParkObject, drawn: Scene) -> str:
    """The four tokens of an object's box."""
    return PALIGEMMA.spelled(PALIGEMMA.encode(thing.box, (drawn.height, drawn.width)))


class MaskSpeller:
    """Spells the box of an object and the sixteen tokens of its mask.

    All objects of a scene go through the codec together, when the first of them is spelled.
    """

    def __init__(self, codec: MaskCodec) -> None:
        self.codec = codec
        self._known: WeakKeyDictionary[Scene, dict[int, str]] = WeakKeyDictionary()

    def __call__(self, thing: ParkObject, drawn: Scene) -> str:
        if drawn not in self._known:
            things = drawn.objects
            masks, frames = [t.mask for t in things], [t.box for t in things]
            self._known[drawn] = {
                id(t): "".join(f"<seg{code:03d}>" for code in row)
                for t, row in zip(
                    things, mask_tokens(self.codec, masks, frames).tolist(), strict=True
                )
            }
        return spell_box(thing, drawn) + self._known[drawn][id(thing)]

    def __reduce__(self) -> tuple[type, tuple[MaskCodec]]:
        return type(self), (self.codec,)  # what is known of scenes stays behind


class Taught(nn.Module):
    """A PaliGemma that is asked what covers each patch, and where it ends.

    Kind and colour are asked of what the projector makes of a patch, against the vectors of their
    own words, so that a picture of a bench and the word come to lie in one direction: whoever looks
    for the bench then finds both alike. Boxes are asked of the projector's patches too, and from
    the corner of the picture, not of the patch: rotary positions tell the decoder how far apart two
    tokens are and not where they are, so that a patch has to say it.

    Args:
        model: the network.
        width: D of the tower's patches.
        kinds: tokens of the kinds' words.
        colours: the same of the colours.
    """

    def __init__(
        self, model: Any, width: int, kinds: Sequence[int], colours: Sequence[int]
    ) -> None:
        super().__init__()
        self.model = model
        self.words = (list(kinds), list(colours))
        self.nothing = Linear(width, 2)
        """How likely no kind and no colour is."""
        self.sharpness = nn.Parameter(torch.tensor(3.0))
        self.box = Linear(model.projector.out_features, 4)

    def name_patches(self, patches: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B P kinds+1] and [B P colours+1] of the tower's patches and the projector's."""
        table, seen = self.model.decoder.table.weight, unit_length(seen)
        nothing = self.nothing(patches).float()
        kinds, colours = (
            torch.cat(
                [
                    self.sharpness.exp() * (seen @ unit_length(table[words]).T),
                    nothing[..., place : place + 1],
                ],
                dim=-1,
            )
            for place, words in enumerate(self.words)
        )
        return kinds, colours


class Lesson(NamedTuple):
    """One row: a picture, its turns in tokens, and what covers each patch."""

    pixels: NDArray[np.uint8]
    prompt: list[int]
    suffix: list[int]
    counted: list[bool]
    truth: NDArray[np.float32]
    """[P, 6]: kind, colour, and the box from the picture's corner, in `REACH`."""


class LessonBatch(NamedTuple):
    """Lessons as tensors; one row each."""

    pixels: Tensor
    """float32[B, 3, H, W]"""
    prompt: Tensor
    """int64[B, T]"""
    prompt_mask: Tensor
    suffix: Tensor
    """int64[B, M]: answers, and between them the prompts of further turns."""
    suffix_mask: Tensor
    counted: Tensor
    """bool[B, M]: True on the tokens of answers."""
    truth: Tensor
    """float32[B, P, 6]"""


@dataclass(frozen=True)
class Writing:
    """What turns lessons into tokens."""

    tokenizer: TextTokenizer
    instructions: Instructions
    box: Spell
    mask: Spell | None
    """None where no masks are taught."""
    patch_size: int
    room: int
    """Tokens of a row beside those of the picture."""
    size: int = 64
    most_turns: int = 12
    grey: bool = False
    """Whether pictures are replaced by grey."""

    def draw(self, drawn: Scene, generator: np.random.Generator) -> Lesson:
        """As many turns about the scene as there is room for."""
        room, kept, missed = self.room - 1, list[Turn](), 0
        for turn in turns_about(drawn, generator, self.box, self.mask):
            length = len(self._prompt(turn)) + len(self._answer(turn))
            if length <= room:
                kept.append(turn)
                room -= length
            else:
                missed += 1
            if len(kept) == self.most_turns or room < SHORTEST or (kept and missed == MISSES):
                break
        return self.lesson(drawn, kept)

    def lesson(self, drawn: Scene, turns: Sequence[Turn]) -> Lesson:
        """A scene and what is said about it."""
        first, *further = turns
        prompt = self.instructions.encode(self.tokenizer, first.prompt, trusted=True)
        suffix = self._answer(first)
        counted = [True] * len(suffix)
        for turn in further:
            asked, answer = self._prompt(turn), self._answer(turn)
            suffix += asked + answer
            counted += [False] * len(asked) + [True] * len(answer)
        pixels = np.full_like(drawn.pixels, 128) if self.grey else drawn.pixels
        return Lesson(pixels, prompt, suffix, counted, patch_targets(drawn, self.patch_size))

    def _prompt(self, turn: Turn) -> list[int]:
        """A prompt between turns: without the begin token."""
        framed = self.instructions.encode(self.tokenizer, turn.prompt, trusted=True)
        return framed[1:] if self.instructions.begin else framed

    def _answer(self, turn: Turn) -> list[int]:
        assert self.tokenizer.eos_id is not None
        return [*self.tokenizer.encode(turn.answer, trusted=True), self.tokenizer.eos_id]

    def collate(self, lessons: list[Lesson]) -> LessonBatch:
        """Rows side by side, padded to the room there is, so that shapes repeat."""
        pixels = torch.from_numpy(np.stack([each.pixels for each in lessons]))
        prompt, prompt_mask = _padded([each.prompt for each in lessons])
        suffix, suffix_mask = _padded([each.suffix for each in lessons])
        counted, _ = _padded([[int(c) for c in each.counted] for each in lessons])
        return LessonBatch(
            pixels.permute(0, 3, 1, 2).float() / 127.5 - 1,
            prompt,
            prompt_mask,
            suffix,
            suffix_mask,
            counted.bool(),
            torch.from_numpy(np.stack([each.truth for each in lessons])),
        )


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    length = max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = True
    return ids, mask


def patch_targets(drawn: Scene, patch: int) -> NDArray[np.float32]:
    """float32[P, 6]: index of kind and colour (-1 for none), and the box of what covers a patch,
    x1 y1 x2 y2 in `REACH`."""
    owners = patch_owners(drawn, patch)
    none = (BACKGROUND, BACKGROUND, 0.0, 0.0, 0.0, 0.0)
    rows = [(KINDS.index(t.kind), COLOURS.index(t.colour), *t.box) for t in drawn.objects]
    truth = np.array([*rows, none], np.float32)[owners]  # [P 6]; -1 takes the last one
    truth[:, 2:] /= REACH
    return truth


@dataclass(frozen=True)
class DrawLesson:
    """The lesson of a number; an object, so that it can travel to a worker process."""

    writing: Writing
    simple: int
    """Scenes with smaller numbers have one to three objects."""

    def __call__(self, number: int, generator: np.random.Generator) -> Lesson:
        objects = 1 + number % 3 if number < self.simple else None
        return self.writing.draw(scene(number, "train", self.writing.size, objects), generator)


def lesson_loader(
    writing: Writing, count: int, easy: float, batch_size: int, seed: int, workers: int
) -> Loader[LessonBatch]:
    """Scenes in the order of their seeds, simple ones first.

    Drawing and spelling hold the interpreter's lock for most of their time, so that workers are
    processes.

    Args:
        easy: share of the scenes that have one to three objects.
        workers: processes; 0 draws between the steps.
    """
    return Loader(
        range(count),
        writing.collate,
        batch_size,
        seed,
        False,
        workers=Processes(workers) if workers else 0,
        transform=DrawLesson(writing, round(easy * count)),
    )


def lesson_step(teaching: float, slots: int, compiled: bool = False) -> Step:
    """Cross-entropy of the answers' tokens, plus what is said about patches.

    Args:
        teaching: weight of what is said about patches.
        slots: length of a row.
        compiled: compile the stacks of blocks, from the second step on: operations of the first one
            are counted, which what is compiled under a counter never recovers from.
    """
    steps = itertools.count()

    def step(network: nn.Module, batches: list[LessonBatch]) -> StepResult:
        (batch,) = batches
        if next(steps) == 1 and compiled:
            compile_parts(network.model)
        answers, tokens, right, patches = spoken(network, batch, slots)
        taught, metrics = patch_losses(network, *patches, batch.truth)
        loss = answers / tokens
        backward(loss + teaching * taught)
        metrics["token"] = float(right / tokens)
        return StepResult(loss.item(), metrics, len(batch.pixels))

    return step


def spoken(
    network: Any, batch: LessonBatch, slots: int
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    """The summed loss of the answers, their tokens, how many were right, and the patches of the
    tower and of the projector.

    The tower runs once: its patches go to the decoder and to the heads.
    """
    writer: Writer = network.model
    patches = network.model.image.tokens(batch.pixels)  # [B P D]
    seen = network.model.projector(patches)
    words = writer.token_vectors(batch.prompt, batch.prompt_mask)
    prompts = [torch.cat(pair) for pair in zip(seen.float(), words, strict=True)]
    suffix = TextBatch(batch.suffix, batch.suffix_mask)
    hidden = writer.hidden_behind(prompts, suffix, slots=slots)
    loss, tokens = next_token(hidden, batch.suffix, batch.counted, writer.logits, multiple=MULTIPLE)
    with torch.no_grad():
        told = writer.logits(hidden[batch.counted]).argmax(dim=-1)
    right = (told == batch.suffix[batch.counted]).sum()
    return loss, tokens, right, (patches, seen)


def patch_losses(
    network: Any, patches: Tensor, seen: Tensor, truth: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """What the heads learn from, and how well they know it."""
    kinds, colours = truth[..., 0].long(), truth[..., 1].long()
    kind_logits, colour_logits = network.name_patches(patches, seen)
    kind, kind_right = patch_loss(kind_logits, kinds)
    colour, colour_right = patch_loss(colour_logits, colours)
    covered = kinds != BACKGROUND
    boxes, wanted = network.box(seen)[covered].float(), truth[..., 2:][covered]
    box = F.smooth_l1_loss(boxes, wanted, beta=0.1)
    with torch.no_grad():
        off = float((boxes - wanted).abs().mean()) * REACH
    metrics = {"patch_kind": kind_right, "patch_colour": colour_right, "patch_box_pixels": off}
    return kind + colour + 2 * box, metrics
