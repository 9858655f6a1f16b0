"""`sightline train park-paligemma`: the bundled model of drawn parks that speaks.

    sightline train mask-codec --out CODEC
    sightline train park-paligemma --set codec=CODEC --out RUN

Stages of the paper (PaliGemma, section 3.2) at the size of a park. Stage 0 is taken as it is: the
image tower of the bundled park-siglip, which has learned to see. Stage 1 trains everything on a
mixture of all tasks: captions, questions, boxes and masks of scenes drawn as it goes. Stage 2 would
raise the resolution, which parks do not need.

A picture is followed by as many turns as fit into a row (`data.park.lessons`), and only answers are
learned from. A row then teaches half a dozen answers for the price of one picture. No turn sees
another, and each stands where a first one would: a caption would give the answers of all questions
behind it away, and reading is easier to learn than seeing.

Every patch is asked what covers it, which the park knows exactly: kind and colour by the vectors
of their words, and the box by those of its places. What asks is thrown away afterwards (`Taught`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from sightline.core.errors import ConfigError
from sightline.data.park.lessons import EVERYTHING, Spell
from sightline.data.park.records import ParkRecords
from sightline.data.park.text import texts as park_texts
from sightline.data.park.vocabulary import COLOURS, KINDS
from sightline.data.records import Dataset
from sightline.inputs.coordinates import PALIGEMMA as PLACES
from sightline.inputs.instructions import PALIGEMMA
from sightline.models import paligemma
from sightline.recipes.answer_masks import codec_folder
from sightline.recipes.park_lessons import MaskSpeller, Writing, lesson_loader, spell_box
from sightline.recipes.park_teacher import Taught, lesson_step, order_places
from sightline.recipes.run import Outcome, Plan, carry_out
from sightline.recipes.settings import StageSettings
from sightline.recipes.speaking import Sizes, join, new_vocabulary, part_of
from sightline.recipes.speech_scores import exact_answers, show_answers, speech_scores
from sightline.recipes.splits import CHOOSING, PARK
from sightline.recipes.start import Start
from sightline.tasks.segment import FOLDER, read_codec
from sightline.training import distributed
from sightline.training.stages import Group, Stage

if TYPE_CHECKING:
    from sightline.inputs.tokenizers import TextTokenizer
    from sightline.training.options import Progress


@dataclass(frozen=True)
class ParkPaliGemmaRecipe(Sizes, StageSettings):
    """The settings of the published run."""

    data: str = PARK
    shapes: tuple[str, ...] = ()
    """Parks are square here."""
    codec: str | None = None
    """Folder or name of a mask codec, or the folder of its run; without one no masks are taught."""
    init: str | None = "park-siglip"
    """A SigLIP whose image tower is taken over, or a model of an earlier run to go on from; none
    for a new tower."""
    blind: bool = False
    """Show grey instead of pictures: what words alone give away, for comparison."""

    # the network
    image_size: int | None = 64
    image_width: int = 128
    image_depth: int = 5
    width: int = 192
    depth: int = 4
    mlp_width: int = 512
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
    epochs: float = 1.0
    """Parks are endless: `steps` counts."""
    most_steps: int = 6000
    steps: int | None = 6000
    image_lr_scale: float = 0.3
    """Times the rate, for the tower that knows how to see."""
    weight_decay: float = 0.02
    warmup: float = 0.02
    compile: bool = True
    """Let torch fuse what is between the products, where a C++ compiler is at hand: 1.9 times as
    fast on a CPU, after a minute."""

    # around it
    eval_limit: int = 200

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
    beside = None if codec is None else {FOLDER: codec}
    start = start_speaking(recipe)
    start = replace(start, card={**(start.card or {}), "everything": [EVERYTHING]}, beside=beside)
    network = taught(start)
    writing = writing_of(recipe, start, codec)
    learns_from = replace(writing, grey=recipe.blind)
    plan = Plan(
        start=start,
        network=network,
        loader=lesson_loader(
            learns_from, recipe.steps * recipe.batch_size, recipe.easy, recipe.batch_size,
            recipe.seed, recipe.workers,
        ),
        step=lesson_step(recipe.teaching),
        steps=recipe.steps,
        stage=_stage(recipe),
        choose=lambda model: exact_answers(
            model.network, learns_from, recipe.eval_limit, CHOOSING
        ),
        judge=lambda model: speech_scores(
            model, recipe.eval_limit, shown="grey" if recipe.blind else "own", codec=codec
        ),
        test=Dataset(list(ParkRecords("test", count=recipe.eval_limit)), name="park test"),
        inner=lambda network: cast(Taught, network).model,
        show=lambda report, model: show_answers(report, model, codec),
    )  # fmt: skip
    return carry_out(recipe, plan, Path(out), minutes, progress)


def taught(start: Start) -> Taught:
    """The network of a start with what teaches it."""
    assert start.processor.text is not None
    kinds, colours = (
        [start.processor.text.encode(word)[-1] for word in words] for words in (KINDS, COLOURS)
    )
    places = place_tokens(start.processor.text)
    return Taught(start.network, start.config.image.width, kinds, colours, places)


def place_tokens(tokenizer: TextTokenizer) -> list[int]:
    """Tokens of the places of PaliGemma, in their order."""
    spelled = "".join(PLACES.spelled([number]) for number in range(PLACES.count))
    return tokenizer.encode(spelled, trusted=True)


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


def start_speaking(recipe: ParkPaliGemmaRecipe) -> Start:
    """A new decoder behind the tower of `init`, with a vocabulary of the park's words; or all of
    `init`, where it is a model of an earlier run."""
    loaded = part_of(recipe.init, ("siglip", "paligemma"))
    if loaded is not None and loaded.system is paligemma.SYSTEM:
        return Start.tuning(loaded)
    words = new_vocabulary(vocabulary_texts(), recipe.vocab_size, max_length=1024)
    start = join(recipe, loaded, None, words, recipe.seed, prefix_lm=not recipe.causal)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        order_places(cast(Any, start.network).decoder.table, place_tokens(words))
    return start


def vocabulary_texts() -> list[str]:
    """Sentences with every word that the park says, and those of the prompts."""
    asked = [PALIGEMMA.question(""), PALIGEMMA.segmentation([""])]
    asked.append(PALIGEMMA.detection([EVERYTHING, ""]))
    return [*park_texts(seeds=range(1000)), *[*PALIGEMMA.caption.values(), *asked] * 50]


def writing_of(recipe: ParkPaliGemmaRecipe, start: Start, codec: Path | None) -> Writing:
    """How lessons become tokens for this network."""
    assert start.processor.text is not None
    mask: Spell | None = None
    if codec is not None:
        mask = MaskSpeller(cast(Any, read_codec(codec).network))
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
