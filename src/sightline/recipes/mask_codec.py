"""`sightline train mask-codec`: masks in 16 tokens, learned from masks alone.

    sightline train mask-codec --data park --out RUN
    sightline train mask-codec --data instances_train.json --out RUN --set variant=oid

`park` draws the objects of parks; data with outlines (COCO's instances) give each object that is no
crowd; any other pictures are masks themselves, light inside and dark outside, one object each. A
share of what is seen are ellipses and
polygons, so that the codebook is not only of the shapes at hand. Every field below is a setting.

The codewords are running means of what is rounded to them, and one that falls out of use moves to
where something is; with `decay=none` they learn by gradient instead. The published codec learned
from 64 pixels of Open Images' masks in batches of 512; the recipe's loss is its own: squared
differences to -1 and 1, and a quarter of the features' distance to their codewords.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sightline.core.errors import ConfigError, unknown_name
from sightline.core.outputs import CodedMasks
from sightline.data.boxed_masks import BoxedMask, plain_shape
from sightline.data.records import Dataset
from sightline.evaluation.mask_codec import RoundTrip, round_trip
from sightline.inputs.processors import Processor
from sightline.models.table import system as find_system
from sightline.nn.codebooks import CodebookAverage
from sightline.objectives.mask_codec import COMMITMENT, mask_codec_loss
from sightline.recipes.dual_encoder import number_of_steps, training_stage
from sightline.recipes.mask_data import MaskBatch, mask_loader, mask_parts
from sightline.recipes.run import Outcome, Plan, carry_out
from sightline.recipes.settings import StageSettings
from sightline.recipes.splits import CHOOSING, PARK
from sightline.recipes.start import Start
from sightline.tasks.sheets import SheetItem, write_sheet
from sightline.training import distributed
from sightline.training.accumulation import LossFunction, WeightedLoss, accumulate

if TYPE_CHECKING:
    from sightline.tasks.model import Model
    from sightline.tasks.report import Report
    from sightline.training.options import Progress

SHOWN = 24
"""Objects on the sheet of a run."""
SHEET = "masks.png"
BOTH, LOST, ADDED, NEITHER = (236, 236, 230), (208, 81, 99), (45, 108, 205), (28, 30, 33)
"""Colours of a round trip's pixels: in both masks, in the true one alone, in what came back."""


@dataclass(frozen=True)
class MaskCodecRecipe(StageSettings):
    """Settings of one run; the defaults train the small codec of drawn parks."""

    data: str = PARK
    shapes: tuple[str, ...] = ()
    """Not for masks; those of parks have sizes of their own."""
    shapes_share: float = 0.2
    """Share of plain ellipses and polygons among the masks."""

    # the network
    variant: str = "park"
    """"park", or "oid" for the published size."""
    init: str | None = None
    """Weights to start from: a folder, or the published npz; they bring their size."""

    # optimisation
    commitment: float = COMMITMENT
    """Weight of the features' way to their codewords."""
    decay: float | None = 0.99
    """Of the running means that are the codewords; none learns them by gradient."""
    revive_below: float = 0.02
    """A codeword moves to a feature when its use falls below this share of the mean use."""
    batch_size: int = 128
    epochs: float = 20.0
    """Of a folder; parks are endless."""
    most_steps: int = 1200
    weight_decay: float = 0.0
    warmup: float = 0.05
    freeze: tuple[str, ...] = ()
    """Patterns of parameters that do not learn; *encoder.* keeps the tokens of `init`."""

    # around it
    eval_limit: int = 1000
    """Objects."""

    def __post_init__(self) -> None:
        known = find_system(self.system).variants
        if self.variant not in known:
            raise ConfigError(unknown_name("variant", self.variant, known))
        if not 0 <= self.shapes_share <= 1 or not 0 < self.test_share < 1:
            raise ConfigError(
                f"shapes_share {self.shapes_share} and test_share {self.test_share} are shares "
                "between 0 and 1"
            )
        if self.decay is not None and not 0 <= self.decay < 1:
            raise ConfigError(f"decay {self.decay}: use 0 <= decay < 1, or none for gradients")
        if self.shapes:
            raise ConfigError("mask-codec learns from masks: leave shapes out")

    @property
    def system(self) -> str:
        return "mask_codec"

    @property
    def image_size(self) -> int:
        """Of the masks, which the variant decides."""
        size: int = find_system(self.system).variants[self.variant].mask_size
        return size

    @property
    def patch_size(self) -> int:
        """Pixels of a mask's side to a token."""
        return self.image_size // int(find_system(self.system).variants[self.variant].grid)


class Learning(nn.Module):
    """A codec with the running means of its codebook, which are thrown away afterwards."""

    def __init__(self, model: nn.Module, decay: float | None, revive_below: float) -> None:
        super().__init__()
        # Twice as fast on a CPU, for few channels of many pixels.
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = None
        if decay is not None:
            model.codebook.vectors.requires_grad_(False)  # type: ignore[union-attr]
            self.average = CodebookAverage(model.codebook, decay, revive_below)  # type: ignore[arg-type]

    def forward(self, masks: Tensor) -> CodedMasks:
        coded: CodedMasks = self.model(masks)
        return coded

    def follow(self, coded: CodedMasks) -> int:
        """Move the codewords after a batch; how many of them were out of use."""
        if self.average is None:
            return 0
        features = coded.features.detach().flatten(0, 1)  # [B*P D]
        return self.average.update(self.model.codebook, features, coded.indices.flatten())


def train_mask_codec(
    recipe: MaskCodecRecipe,
    out: str | Path,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Train a mask codec and write checkpoints, log, curves, report and a sheet into `out`.

    Args:
        minutes: stop after this much time, with everything saved; a rerun goes on.

    Raises:
        DataError: data that cannot be read.
        ConfigError: settings that do not fit, or a folder that holds another run.
    """
    if distributed.world_size() > 1:
        raise ConfigError(
            "mask-codec moves its codewords by what its own process sees: train it in one process"
        )
    training, validation, test = mask_parts(recipe)
    start = start_codec(recipe)
    network = Learning(start.network, recipe.decay, recipe.revive_below)
    steps = number_of_steps(recipe, len(training))
    folder = Path(out)
    plan = Plan(
        start=start,
        network=network,
        loader=mask_loader(training, recipe, start.config.mask_size),
        step=accumulate(codec_loss(recipe.commitment, by_gradient=recipe.decay is None)),
        steps=steps,
        choose=lambda model: scores(model, validation),
        judge=lambda model: scores(model, test),
        test=Dataset([], name=f"{recipe.data}, {len(test)} masks"),
        stage=training_stage(recipe, steps, name="codec"),
        inner=lambda network: network.model,  # type: ignore[arg-type,return-value]
        show=lambda report, model: show(report, round_trip(model, test[:SHOWN]), folder / SHEET),
    )
    return carry_out(recipe, plan, folder, minutes, progress)


def start_codec(recipe: MaskCodecRecipe) -> Start:
    """The network, new or from weights.

    Raises:
        ConfigError: weights of another system.
    """
    system = find_system(recipe.system)
    if recipe.init is not None:
        from sightline.hub.load import load_checkpoint

        loaded = load_checkpoint(recipe.init, device="cpu", dtype="float32")
        if loaded.system.name != system.name:
            raise ConfigError(
                f"{recipe.init} is a {loaded.system.name} model: a mask codec starts from one"
            )
        return Start.tuning(loaded)
    config = system.variants[recipe.variant]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = system.build(config)
    return Start(network, Processor(None, None), config, system)


def codec_loss(commitment: float, by_gradient: bool) -> LossFunction:
    """The loss of a micro-batch, which also moves the codewords that are running means."""

    def loss(network: nn.Module, batch: MaskBatch) -> WeightedLoss:
        coded: CodedMasks = network(batch.masks)
        losses = mask_codec_loss(
            batch.masks, coded.masks, coded.features, coded.codewords,
            commitment=commitment, codebook=1.0 if by_gradient else 0.0,
        )  # fmt: skip
        moved = network.follow(coded) if network.training else 0  # type: ignore[operator]
        right = ((coded.masks.detach() > 0) == (batch.masks > 0)).float().mean()
        metrics: dict[str, Tensor | float] = {
            "pixels right": right,
            "codewords moved": float(moved),
        }
        return WeightedLoss(losses.sum(), len(losses), metrics)

    return loss


def scores(model: Model, objects: Sequence[BoxedMask], shapes: int = 200) -> dict[str, float]:
    """Mean IoU first, which chooses the checkpoint; and that of plain shapes nobody trained on."""
    found = round_trip(model, objects).metrics(resamples=0)
    generator = np.random.default_rng(CHOOSING)
    plain = round_trip(model, [plain_shape(generator) for _ in range(shapes)])
    named = {name: metric.value for name, metric in found.items()}
    return {**named, "iou, plain shapes": float(plain.ious.mean())}


def show(report: Report, trip: RoundTrip, sheet: Path) -> None:
    """The objects of a round trip in the report, and on a sheet of their own."""
    items = [
        SheetItem(difference(item, mask), f"{item.name} {item.side:.0f} px".strip(), float(iou))
        for item, mask, iou in zip(trip.objects, trip.masks, trip.ious, strict=True)
    ]
    report.section(
        "Masks",
        "Test objects through the tokens and back, and their IoU. Light pixels are in both masks, "
        "red ones were lost, blue ones added.",
    )
    report.gallery(items)
    write_sheet(sheet, items, title="Masks through 16 tokens: lost in red, added in blue")


def difference(item: BoxedMask, back: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """uint8[h, w, 3]: the true mask and what came back, around the box."""
    x1, y1, x2, y2 = (int(side) for side in item.box)
    rows, columns = slice(max(0, y1 - 1), y2 + 1), slice(max(0, x1 - 1), x2 + 1)
    true, found = item.mask[rows, columns], back[rows, columns]
    picture = np.empty((*true.shape, 3), np.uint8)
    for colour, chosen in (
        (BOTH, true & found), (LOST, true & ~found), (ADDED, found & ~true),
        (NEITHER, ~true & ~found),
    ):  # fmt: skip
        picture[chosen] = colour
    return picture
