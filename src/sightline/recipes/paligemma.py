"""`sightline train paligemma`: a model that reads pictures and words and writes, in phases.

    sightline train paligemma --data PATH --out RUN --set init=google/paligemma-3b-pt-224
    sightline train paligemma --data PATH --out RUN --set init=FOLDER --set phases=lora
    sightline train paligemma --data PATH --out RUN --set init_image=NAME --set init_text=NAME \
        --set phases=alignment,joint,resolution-448,transfer --set transfer.lr=3e-6
    sightline train paligemma --data park --out RUN

Phases are data (`recipes.phases`) and run one after the other, each in a folder OUT/<n>-<name> with
checkpoints, log and report of its own, from the model that the one before it left. The same command
goes on wherever a run stopped. Every field below is a setting; those of one phase are written with
its name in front.

What is learned: captions, answers to questions, boxes, masks and conversations, whatever the data
hold (`data.examples`). Only the tokens of answers count, each as much as any other of a whole
batch. Beyer et al. 2024, https://arxiv.org/abs/2407.07726.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from sightline.core.errors import ConfigError
from sightline.data.examples import Example
from sightline.data.park.text import texts as park_texts
from sightline.data.records import Dataset
from sightline.inputs.instructions import PALIGEMMA, Instructions
from sightline.models import paligemma
from sightline.recipes.answer_data import ParkExamples, Speller, answer_loader, examples_of
from sightline.recipes.answer_loss import answer_loss
from sightline.recipes.answer_masks import MaskWriter, find_codec
from sightline.recipes.answer_report import show_answers
from sightline.recipes.answer_scores import answer_scores
from sightline.recipes.phased_run import Part, carry_out_phases
from sightline.recipes.phases import SHARED, Phase, chosen_phases
from sightline.recipes.run import Outcome, Plan, carry_out, picture_size
from sightline.recipes.settings import RunSettings, settings_of
from sightline.recipes.speaking import Sizes, joined, resized, weights_of, with_additions
from sightline.recipes.splits import splits
from sightline.recipes.start import Start
from sightline.tasks.segment import FOLDER
from sightline.training.accumulation import accumulate

if TYPE_CHECKING:
    from sightline.core.interfaces import MaskCodec
    from sightline.hub.adapters import Origin
    from sightline.training.options import Progress

NEXT_FROM = ("best", "last")
VOCABULARY_EXAMPLES = 20_000
"""Examples that a new vocabulary is learned from, at most."""


@dataclass(frozen=True)
class PaliGemmaRecipe(Sizes, RunSettings):
    """Settings of one run."""

    tasks: tuple[str, ...] = ()
    """What to learn of the data: caption, ask, detect, segment, written, chat, ...; none given: all
    there is."""
    codec: str | None = None
    """Folder or name of a mask codec, or the folder of its run, in whose codes masks are written;
    None takes the one beside `init`. Without one no masks are learned."""

    # where weights come from
    init: str | None = None
    """A PaliGemma: hub id, known name, bundled name or folder."""
    init_image: str | None = None
    """A SigLIP, or a PaliGemma, whose image tower is taken."""
    init_text: str | None = None
    """A Gemma, Gemma 2 or PaliGemma whose decoder is taken; a vocabulary without places gets
    them."""

    # the network, where no weights are given
    image_size: int | None = None
    """Pixels of a side, in every phase that names no other. None takes that of the weights, or of
    the pictures, from 32 to 224."""
    image_heads: int = 4

    # the phases
    phases: tuple[str, ...] = ()
    """Names of `recipes.phases.PHASES`, in order. None given: transfer from `init`, alignment and
    joint between two given parts, scratch for a new network."""
    phase_settings: Mapping[str, str] = field(default_factory=dict)
    """Of single phases; written transfer.lr=1e-5."""
    next_from: str = "best"
    """Which model of a phase the next one starts from: the best one by the score on validation
    data, or the last one."""

    # for every phase that does not say its own; None for what the phase has
    steps: int | None = None
    epochs: float | None = None
    """Over the examples, instead of steps."""
    lr: float | None = None
    warmup: float | None = None
    """Share of the steps."""
    weight_decay: float | None = None
    image_lr_scale: float | None = None
    """Times the rate, for the image tower."""
    label_smoothing: float | None = None
    text_length: int | None = None
    """Tokens of prompt and answer together, at most."""
    lora_rank: int | None = None
    """Rank of low-rank additions (LoRA), which alone learn then."""
    lora_alpha: float | None = None
    lora_targets: tuple[str, ...] | None = None
    """Patterns of the linear layers that get additions: decoder.*.mlp.*, image.*, projector"""
    lora_dropout: float | None = None
    lora_rslora: bool | None = None

    batch_size: int = 16
    """Examples of all processes together; of every phase that does not say its own."""

    # optimisation
    beta2: float = 0.999
    freeze: tuple[str, ...] = ()
    """Patterns of parameters that learn in no phase: image.*"""
    row_length: int | None = None
    """Pack sequences into rows of so many tokens, those of pictures included; None gives each a row
    of its own."""
    loss_chunk: int | None = None
    """Tokens scored at a time, so that the logits of a large vocabulary never all exist."""
    parallel: str = "auto"
    """How several processes share the work: ddp."""

    # around it
    eval_every: int | None = None
    """Steps; None evaluates ten times a phase."""
    eval_limit: int = 200

    def __post_init__(self) -> None:
        if self.init and (self.init_image or self.init_text):
            raise ConfigError("init gives both parts: use init, or init_image and init_text")
        if self.next_from not in NEXT_FROM:
            raise ConfigError(f"next_from {self.next_from!r}: use best or last")
        if not 0 < self.test_share < 1:
            raise ConfigError(f"test_share {self.test_share} is a share between 0 and 1")
        if self.parallel == "fsdp":
            raise ConfigError("a paligemma is trained whole in each process: use parallel=ddp")
        if self.compile:
            raise ConfigError("a paligemma is not compiled by this recipe: use compile=no")
        self.chosen()

    @property
    def system(self) -> str:
        return "paligemma"

    def chosen(self) -> list[Phase]:
        """The phases with all of their settings."""
        given = {name: getattr(self, name, None) for name in SHARED}
        every = {name: value for name, value in given.items() if value is not None}
        if every.get("lora_rank") == 0:  # the weights themselves
            every["four_bit"] = ()
        every.pop("image_size", None)  # a phase of a resolution has its own
        return chosen_phases(self.phases or self._usual(), self.phase_settings, every)

    def alone(self, phase: Phase) -> PaliGemmaRecipe:
        """The recipe of one phase, as its checkpoints record it."""
        own = {k: v for k, v in self.phase_settings.items() if k.startswith(f"{phase.name}.")}
        return replace(
            self, phases=(phase.name,), phase_settings=own, batch_size=phase.batch_size,
            accumulate=phase.accumulate,
        )  # fmt: skip

    def _usual(self) -> tuple[str, ...]:
        if self.init:
            return ("transfer",)
        return ("alignment", "joint") if self.init_image and self.init_text else ("scratch",)


def train_paligemma(
    recipe: PaliGemmaRecipe,
    out: str | Path,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Run the phases of a recipe, each in a folder of `out`.

    Args:
        minutes: stop after this much time over all phases, with everything saved; a rerun goes on.

    Raises:
        DataError: nothing to learn, or data that cannot be read.
        ConfigError: settings that do not fit, or a folder that holds another run.
    """
    parts = splits(recipe, park="spoken")
    codec = find_codec(recipe.codec, recipe.init)
    if codec is None and "segment" in recipe.tasks:
        raise ConfigError(
            "masks are written in the codes of a mask codec: name one with codec=FOLDER "
            "('sightline train mask-codec' makes one), or leave the task segment out"
        )
    writers = {} if codec is None else {"segment": MaskWriter(cast("MaskCodec", codec.network))}
    told = Told(
        parts.test,
        {} if codec is None else {FOLDER: codec.folder},
        *(examples_of(own, recipe.tasks, recipe.seed, writers) for own in parts),
    )
    if recipe.image_size is None and not (recipe.init or recipe.init_image):
        recipe = replace(recipe, image_size=picture_size(parts.training, recipe.patch_size))

    def part(phase: Phase) -> Part:
        own = recipe.alone(phase)

        def run(model: Path | None, folder: Path, left: float | None) -> Outcome:
            return carry_out(own, _plan(own, phase, told, model), folder, left, progress)

        return Part(phase.name, settings_of(own), run)

    phases = [part(phase) for phase in recipe.chosen()]
    return carry_out_phases(phases, Path(out), minutes, recipe.next_from)


class Told(NamedTuple):
    """What there is to learn in the parts of the data."""

    test_records: Dataset
    beside: Mapping[str, Path]
    """Folders that belong to every model: that of the mask codec."""
    training: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example]


def _plan(recipe: PaliGemmaRecipe, phase: Phase, told: Told, model: Path | None) -> Plan:
    """One phase from the model of the one before it, ready to be carried out.

    Args:
        recipe: of this phase alone.
    """
    start = replace(start_of(recipe, phase, told.training, model), beside=told.beside)
    instructions = paligemma.instructions(start.config)
    length, limit = phase.text_length, recipe.eval_limit
    _check_rows(recipe, phase, instructions)
    steps = phase.number_of_steps(len(told.training))
    return Plan(
        start=start,
        network=start.network,
        loader=answer_loader(
            told.training, Speller(start.processor, instructions, length), recipe.batch_size,
            recipe.seed, recipe.workers,
        ),
        step=accumulate(answer_loss(phase.label_smoothing, recipe.row_length, recipe.loss_chunk)),
        steps=steps,
        stage=phase.stage(
            start.network, steps, recipe.freeze, betas=(0.9, recipe.beta2), clip=recipe.clip
        ),
        choose=lambda model: answer_scores(model, told.validation, length, limit),
        judge=lambda model: answer_scores(model, told.test, length, limit, control=True),
        test=told.test_records,
        show=lambda report, model: show_answers(report, model, told.test, length),
    )  # fmt: skip


def start_of(
    recipe: PaliGemmaRecipe, phase: Phase, examples: Sequence[Example], model: Path | None = None
) -> Start:
    """The network that a phase begins with: of the right size, with additions where it has some.

    Args:
        examples: what a new vocabulary is learned from.
        model: the folder that the phase before left; None for the first one.

    Raises:
        ConfigError: weights of another system, or settings that do not fit them.
        HubError: weights that cannot be fetched.
    """
    weights = recipe.init if model is None else str(model)
    origin: Origin | None = None
    if weights is not None:
        start, origin = weights_of(weights)
    elif phase.lora_rank and not recipe.init_text:
        raise ConfigError(
            f"phase {phase.name!r} adds to weights that stay as they are: name them with init"
        )
    else:
        start = joined(recipe, recipe.init_image, recipe.init_text, _texts(examples), recipe.seed)
    size = phase.image_size or (recipe.image_size if model is None else None)
    if size is not None:
        start = resized(start, size)
    return with_additions(start, phase, origin, recipe.seed) if phase.lora_rank else start


def _texts(examples: Sequence[Example]) -> Iterator[str]:
    """What a new vocabulary is learned from: what is asked and said, and the words of prompts."""
    if isinstance(examples, ParkExamples):  # no picture needs to be drawn for its words
        yield from park_texts(seeds=range(1000))
    else:
        count = min(VOCABULARY_EXAMPLES, len(examples))
        for place in range(count):
            example = examples[place * len(examples) // count]
            yield f"{example.prefix} {example.suffix}"
    asked = [PALIGEMMA.question(""), PALIGEMMA.detection([""]), PALIGEMMA.segmentation([""])]
    yield from [*PALIGEMMA.caption.values(), *asked] * 50


def _check_rows(recipe: PaliGemmaRecipe, phase: Phase, instructions: Instructions) -> None:
    """A row holds at least the longest sequence about one picture."""
    longest = instructions.picture_tokens + phase.text_length
    if recipe.row_length is not None and recipe.row_length < longest:
        raise ConfigError(
            f"row_length {recipe.row_length} is shorter than a picture of "
            f"{instructions.picture_tokens} tokens and a text of {phase.text_length}: use at least "
            f"{longest}, or a smaller text_length"
        )
