"""`sightline train classifier`: a ViT or a ResNet that tells apart the labels of its data.

    sightline train classifier --data FOLDER --out RUN
    sightline train classifier --data FOLDER --out RUN --set tower=resnet --set steps=500
    sightline train classifier --data FOLDER --out RUN --set init=google/vit-base-patch16-224

Every field below is a setting. The data need a class for each picture: a folder per class, or a
column named label. The closed-set counterpart of the dual encoders: a label that comes later needs
training again (`init=RUN/...` keeps what was learned, the rows of known labels included). The tower
can start a dual encoder: `sightline train lit --set init_image=RUN/checkpoints/best/model` keeps it
as it is (LiT, arXiv:2111.07991), `sightline train vision_text` lets it learn on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from sightline.core.errors import ConfigError, DataError, unknown_name
from sightline.data.loader import Loader
from sightline.data.mixtures import having
from sightline.data.park.records import ParkRecords
from sightline.data.park.vocabulary import KINDS
from sightline.data.records import Dataset, Record
from sightline.evaluation.closed_set import closed_set
from sightline.hub.bundled import tuned_card
from sightline.inputs.images import read_image
from sightline.inputs.preprocessing import ImageSpec
from sightline.inputs.processors import Processor, image_processor
from sightline.models.resnet import ResNetConfig
from sightline.models.table import system as find_system
from sightline.models.vit import ViTConfig
from sightline.objectives.classification import softmax_classification
from sightline.recipes.dual_encoder import number_of_steps, training_stage
from sightline.recipes.pair_data import random_crop, share_of_this_process
from sightline.recipes.run import Outcome, Plan, carry_out, picture_size
from sightline.recipes.settings import StageSettings
from sightline.recipes.splits import splits
from sightline.recipes.start import Start
from sightline.recipes.towers import small_resnet
from sightline.training.accumulation import LossFunction, WeightedLoss, accumulate
from sightline.training.options import Progress

if TYPE_CHECKING:
    from sightline.tasks.model import Model

TOWERS = ("vit", "resnet")


@dataclass(frozen=True)
class ClassifierRecipe(StageSettings):
    """Settings of one run; the defaults train a small network on a small data set."""

    tower: str = "vit"
    """"vit" or "resnet"."""

    # the network, where no weights are given
    variant: str | None = None
    """A published size ("S/16", "50"); None builds the small one below."""
    image_size: int | None = None
    """None takes the size of the pictures, from 32 to 224 pixels."""
    patch_size: int = 4
    """Of a ViT; the size of the pictures is a multiple of it."""
    width: int = 64
    """Of the picture's vector; the stages of a ResNet come to it from a quarter and a half."""
    depth: int = 3
    """Blocks; a ResNet has at least one in each of its three stages."""
    num_heads: int = 4
    init: str | None = None
    """Weights to start from: hub id, known name or folder. Labels that they know keep their row of
    the classification layer."""

    # optimisation
    label_smoothing: float = 0.1
    """Share of the target that is spread over all labels."""
    accumulate: int = 1
    """Micro-batches of `batch_size` that make one batch, with the gradient of the whole; a batch
    norm sees each by itself."""
    epochs: float = 40.0
    warmup: float = 0.05
    freeze: tuple[str, ...] = ()
    """Patterns of parameters that do not learn; *,!classifier.* trains the last layer alone."""
    crop: float = 0.9
    """Smallest share of a picture's sides that a random crop keeps; 1 never crops."""
    parallel: str = "auto"
    """How several processes share the work: ddp or fsdp; a batch norm needs one process."""

    def __post_init__(self) -> None:
        if self.tower not in TOWERS:
            raise ConfigError(unknown_name("tower", self.tower, TOWERS))
        if not 0 < self.crop <= 1 or not 0 < self.test_share < 1 or not 0 <= self.warmup <= 1:
            raise ConfigError(
                f"crop {self.crop}, test_share {self.test_share} and warmup {self.warmup} are "
                "shares between 0 and 1"
            )

    @property
    def system(self) -> str:
        """The tower is the system."""
        return self.tower


class LabelledBatch(NamedTuple):
    """Pictures and their classes."""

    pixels: Tensor
    """float32[B, 3, H, W]"""
    targets: Tensor
    """int64[B]: place among the labels."""


def train_classifier(
    recipe: ClassifierRecipe,
    out: str | Path,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Train a classifier and write checkpoints, log, curves and report into `out`.

    Args:
        minutes: stop after this much time, with everything saved; a rerun goes on.

    Raises:
        DataError: no labels, or data that cannot be read.
        ConfigError: settings that do not fit, or a folder that holds another run.
    """
    training, validation, test = splits(recipe, park="kinds")
    labels = labels_of(training)
    if recipe.image_size is None and not recipe.init and not recipe.variant:
        unit = recipe.patch_size if recipe.tower == "vit" else 1
        recipe = replace(recipe, image_size=picture_size(training, unit))
    start = start_classifier(recipe, labels)
    steps = number_of_steps(recipe, len(training))
    plan = Plan(
        start=start,
        network=start.network,
        loader=labelled_loader(training, start.processor, recipe, labels),
        step=accumulate(classification_loss(recipe.label_smoothing)),
        steps=steps,
        choose=lambda model: scores(model, validation, recipe.eval_limit),
        judge=lambda model: scores(model, test, recipe.eval_limit),
        test=test,
        stage=training_stage(recipe, steps, name="classify"),
    )
    return carry_out(recipe, plan, Path(out), minutes, progress)


def labels_of(records: Sequence[Record]) -> tuple[str, ...]:
    """The classes of the data, in the order of the alphabet.

    Raises:
        DataError: fewer than two.
    """
    if isinstance(records, ParkRecords):  # no picture needs to be drawn for its kind
        return tuple(sorted(KINDS))
    found = sorted({record.label for record in records if record.label is not None})
    if len(found) < 2:
        raise DataError(
            f"the data to train on have {len(found)} class(es): a classifier needs at least two (a "
            "folder per class, or a column named label)"
        )
    return tuple(found)


def start_classifier(recipe: ClassifierRecipe, labels: tuple[str, ...]) -> Start:
    """Build the network with one output for each label; weights come from `init`, if given.

    Raises:
        ConfigError: weights of another tower, or an unknown variant.
        HubError: the weights cannot be fetched.
    """
    system = find_system(recipe.tower)
    loaded = _weights(recipe)
    config = replace(loaded.config if loaded else _small(recipe), labels=labels)
    if isinstance(config, ViTConfig):
        config = replace(config, pooler=False)  # the layer reads the class token itself
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = system.build(config)
    if loaded is None:
        spec = _whole_picture(system.preprocessing(config), recipe)
        return Start(network, Processor(image_processor(spec), None), config, system)
    _take(network, loaded.network, labels, loaded.config.labels)
    processor = Processor(loaded.processor.image, None)
    return Start(network, processor, config, system, card=tuned_card(loaded))


def _weights(recipe: ClassifierRecipe) -> Any:
    if recipe.init is None:
        return None
    from sightline.hub.load import load_checkpoint

    loaded = load_checkpoint(recipe.init, device="cpu", dtype="float32")
    if loaded.system.name == recipe.tower:
        return loaded
    if loaded.system.name in TOWERS:
        raise ConfigError(
            f"{recipe.init} is a {loaded.system.name}: train it with tower={loaded.system.name}"
        )
    raise ConfigError(
        f"{recipe.init} is a {loaded.system.name} model: a classifier starts from a "
        f"{' or a '.join(TOWERS)}"
    )


def _small(recipe: ClassifierRecipe) -> ViTConfig | ResNetConfig:
    """The published size, or a small network."""
    if recipe.variant is not None:
        variants = find_system(recipe.tower).variants
        if recipe.variant not in variants:
            raise ConfigError(unknown_name("variant", recipe.variant, variants))
        config: ViTConfig | ResNetConfig = variants[recipe.variant]
        size = recipe.image_size
        return config if size is None else replace(config, image_size=(size, size))
    size = recipe.image_size or 32
    if recipe.tower == "vit":
        return ViTConfig(
            width=recipe.width,
            depth=recipe.depth,
            num_heads=recipe.num_heads,
            mlp_width=4 * recipe.width,
            image_size=(size, size),
            patch_size=(recipe.patch_size, recipe.patch_size),
        )
    return small_resnet(recipe.width, recipe.depth, size)


def _whole_picture(spec: ImageSpec, recipe: ClassifierRecipe) -> ImageSpec:
    """The published preparation; a small network sees the border too."""
    if recipe.variant is not None or spec.fit != "shortest_then_crop":
        return spec
    return replace(spec, shortest=min(spec.height, spec.width))


def _take(
    network: nn.Module, source: nn.Module, labels: Sequence[str], known: Sequence[str]
) -> None:
    """Copy the tower, and of the classification layer the rows of the labels that it knows."""
    own, given = network.state_dict(), source.state_dict()
    for name, tensor in given.items():
        if name in own and not name.startswith("classifier."):
            own[name] = tensor
    rows = [(labels.index(label), row) for row, label in enumerate(known) if label in labels]
    for to, row in rows:
        for name in ("classifier.weight", "classifier.bias"):
            own[name][to] = given[name][row]
    network.load_state_dict(own)


def labelled_loader(
    records: Sequence[Record],
    processor: Processor,
    recipe: ClassifierRecipe,
    labels: Sequence[str],
) -> Loader[LabelledBatch]:
    """Endless seeded batches of readable pictures with the places of their classes."""
    usable = records
    if not isinstance(records, ParkRecords):  # every one of those has a class
        usable = having(records, lambda record: record.label is not None)
    places = {label: place for place, label in enumerate(labels)}

    def draw(record: Record, generator: np.random.Generator) -> tuple[np.ndarray, int]:
        pixels = random_crop(read_image(record.image), generator, recipe.crop)
        return pixels, places[str(record.label)]

    def collate(samples: list[tuple[np.ndarray, int]]) -> LabelledBatch:
        pixels = cast(Tensor, processor.images([picture for picture, _ in samples]))
        return LabelledBatch(pixels, torch.tensor([place for _, place in samples]))

    return Loader(
        usable,
        collate,
        recipe.batch_size,
        seed=recipe.seed,
        workers=recipe.workers,
        transform=draw,
        share=share_of_this_process(),
    )


def classification_loss(label_smoothing: float) -> LossFunction:
    """Cross-entropy over a micro-batch, with the share of pictures whose best label is right.

    Raises:
        ConfigError: label smoothing outside 0 to 1.
    """
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"label_smoothing is {label_smoothing}: it lies between 0 and 1")

    def loss(network: nn.Module, batch: LabelledBatch) -> WeightedLoss:
        logits = network.class_logits(network(batch.pixels).pooled)  # type: ignore[operator]
        losses = softmax_classification(logits, batch.targets, label_smoothing=label_smoothing)
        right = (logits.detach().argmax(dim=1) == batch.targets).float().mean()
        return WeightedLoss(losses.sum(), len(losses), {"accuracy": right})

    return loss


def scores(model: Model, records: Dataset, limit: int) -> dict[str, float]:
    """Top-1 first, which chooses the checkpoint, and top-5 where there are more labels."""
    result = closed_set(model, records, limit=min(limit, len(records)), resamples=0)
    return {name: result.metrics[name].value for name in ("top1", "top5") if name in result.metrics}
