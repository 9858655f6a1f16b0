"""`sightline train clip|siglip|unicl`: two towers on captioned pictures, new or from weights.

    sightline train siglip --data FOLDER --out RUN
    sightline train clip --data FOLDER --out RUN --set init=ViT-B/32 --set lr=1e-5

Every field below is a setting. Data keeps its `train`, `val` and `test` splits; of what it lacks, a
seeded tenth is held out (`recipes.splits`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sightline.core.errors import ConfigError, unknown_name
from sightline.nn.lora import QUERIES_AND_VALUES
from sightline.objectives.blockwise import check_chunk
from sightline.objectives.contrastive import sigmoid_contrastive, softmax_contrastive
from sightline.objectives.unicl import label_contrastive
from sightline.recipes.pair_data import PairBatch
from sightline.recipes.settings import StageSettings
from sightline.training import distributed
from sightline.training.accumulation import Step, StepResult, cached_contrastive
from sightline.training.ring import ring_exchange
from sightline.training.stages import NO_DECAY, Group, Stage

OBJECTIVES = ("softmax", "sigmoid", "unicl")
"""The losses that a run can take."""
EXCHANGES = ("gather", "ring")


@dataclass(frozen=True)
class DualEncoderRecipe(StageSettings):
    """Settings of one run; the defaults train a small network on a small data set."""

    system: str = "siglip"

    # the network, where no weights are given
    variant: str | None = None
    """A published size ("B/16-224"); None builds the small one below."""
    image_size: int | None = None
    """None takes the size of the pictures, from 32 to 224 pixels."""
    patch_size: int = 8
    width: int = 64
    depth: int = 3
    num_heads: int = 4
    text_width: int = 64
    text_depth: int = 2
    text_heads: int = 4
    context_length: int | None = None
    """None takes the length of the longest sentence, at most 64."""
    vocab_size: int = 1000
    image_tower: str | None = None
    """Of vision_text and where no weights are given: "vit" (None), "resnet" or another image
    encoder."""
    positions: str = "sincos"
    """What the image positions start from: "sincos", or "normal" noise."""
    init: str | None = None
    """Weights for both towers: hub id, known name, bundled name or folder."""
    init_image: str | None = None
    init_text: str | None = None

    # optimisation
    objective: str | None = None
    """"softmax", "sigmoid" or "unicl" (pictures of one class are all true of its texts); None takes
    the system's own."""
    image_lr_scale: float = 1.0
    text_lr_scale: float = 1.0
    lora_rank: int = 0
    """Rank of low-rank additions (LoRA) to the weights of `init`, which alone learn then; 0 trains
    the weights themselves. Each checkpoint has the adapter beside the merged model."""
    lora_alpha: float | None = None
    """The additions' scale is alpha / rank; None takes the rank."""
    lora_targets: tuple[str, ...] = QUERIES_AND_VALUES
    """Patterns of the linear layers that get additions: *.attention.*, *.mlp.*, text.*"""
    lora_dropout: float = 0.0
    """Probability of dropping a component of an addition's input."""
    lora_rslora: bool = False
    """Divide alpha by the square root of the rank, for large ranks."""
    template_share: float = 0.2
    """Share of sentences put into the system's own classification prompt, so that its words are not
    foreign to a vocabulary learned from captions; 0 with `init` or `init_text`."""
    crop: float = 0.9
    """Smallest share of a picture's sides that a random crop keeps; 1 never crops."""
    patch_dropout: float = 0.0
    """Share of each picture's patches that a training step leaves out (FLIP)."""
    label_smoothing: float = 0.0
    """Share of the softmax targets that is spread over the batch."""
    shared_matches: bool = False
    """Whether pictures of one class, and those with equal captions, match each other's sentences in
    the sigmoid loss. The paper's takes them for mismatches, which hurts where captions repeat; for
    the softmax the same is objective=unicl."""
    loss_chunk: int | None = None
    """Columns of the matrix of all pairs that exist at once; None computes it whole."""
    exchange: str = "gather"
    """How several processes meet each other's pairs: gather (each holds the embeddings of all) or
    ring (they travel, and none does)."""

    shuffle_captions: bool = False
    """A control: every picture gets another picture's captions, and nothing can be learned."""

    def __post_init__(self) -> None:
        if self.init and (self.init_image or self.init_text):
            raise ConfigError("init gives both towers: use init, or init_image and init_text")
        if self.lora_rank and not self.init:
            raise ConfigError(
                f"lora_rank {self.lora_rank} adds to weights that stay as they are: name them with "
                "init, or use lora_rank=0"
            )
        if self.positions not in ("sincos", "normal"):
            raise ConfigError(f"positions {self.positions!r}: use sincos or normal")
        if self.objective not in (None, *OBJECTIVES):
            raise ConfigError(unknown_name("objective", str(self.objective), OBJECTIVES))
        if self.exchange not in EXCHANGES:
            raise ConfigError(unknown_name("exchange", self.exchange, EXCHANGES))
        if not 0 < self.crop <= 1 or not 0 < self.test_share < 1 or not 0 <= self.warmup <= 1:
            raise ConfigError(
                f"crop {self.crop}, test_share {self.test_share} and warmup {self.warmup} are "
                "shares between 0 and 1"
            )


def contrastive_step(
    objective: str,
    largest_scale: float | None,
    label_smoothing: float = 0.0,
    chunk: int | None = None,
    exchange: str = "gather",
    shared_matches: bool = False,
) -> Step:
    """Forward and backward over all pairs of a batch, however many micro-batches it comes in.

    Args:
        objective: one of `OBJECTIVES`.
        largest_scale: exp(logit_scale) is kept at most here between steps, as CLIP does.
        label_smoothing: for the softmax loss, see `objectives.contrastive`.
        chunk: columns of the matrix of all pairs that exist at once.
        exchange: one of `EXCHANGES`.
        shared_matches: for the sigmoid loss, whether equal labels are matches.
    """
    loss = pair_loss(objective, label_smoothing, chunk, exchange, shared_matches)

    def embed(network: nn.Module, batch: PairBatch) -> tuple[Tensor, ...]:
        scores = network(batch.pixels, batch.ids, batch.mask)
        return scores.image_embeddings, scores.text_embeddings, batch.labels

    inner = cached_contrastive(embed, loss)

    def step(network: nn.Module, batches: list[PairBatch]) -> StepResult:
        # a scale that does not learn stays what it was, bit for bit
        if largest_scale is not None and network.logit_scale.requires_grad:
            network.logit_scale.data.clamp_(max=math.log(largest_scale))  # type: ignore[operator]
        result = inner(network, batches)
        scale, bias = (float(value.detach()) for value in network.pair_scale())  # type: ignore[operator]
        return StepResult(result.loss, {"scale": scale, "bias": bias}, result.pictures)

    return step


def pair_loss(
    objective: str,
    label_smoothing: float = 0.0,
    chunk: int | None = None,
    exchange: str = "gather",
    shared_matches: bool = False,
) -> Callable[[nn.Module, tuple[Tensor, ...]], Tensor]:
    """The loss of a batch's embeddings and labels, with the network's own scale and bias.

    UniCL's two directions are averaged, so that a learning rate means the same as for CLIP.

    Raises:
        ConfigError: a setting that the objective does not have, or a chunk below 1.
    """
    check_chunk(chunk)
    if label_smoothing and objective != "softmax":
        raise ConfigError(f"label_smoothing is for the softmax objective: use 0 with {objective}")
    if shared_matches and objective != "sigmoid":
        raise ConfigError(
            f"shared_matches is for the sigmoid objective: use no with {objective} (unicl is the "
            "softmax with labels)"
        )

    def loss(network: nn.Module, embeddings: tuple[Tensor, ...]) -> Tensor:
        image, text, *labels = embeddings
        scale, bias = network.pair_scale()  # type: ignore[operator]
        # sentences and pictures of all processes; micro-batches are joined before
        everywhere: dict[str, Any] = {
            "gather": ring_exchange() if exchange == "ring" else distributed.all_gather_with_grad,
            "first_row": distributed.rank() * len(image),
        }
        if objective == "unicl":
            return label_contrastive(
                image, text, scale, *labels, directions="mean", chunk=chunk,
                gather=everywhere["gather"],
            )  # fmt: skip
        if objective == "softmax":
            return softmax_contrastive(
                image, text, scale, label_smoothing=label_smoothing, chunk=chunk, **everywhere
            )
        matches = None
        if shared_matches:
            (own,) = labels
            matches = own[:, None] == distributed.all_gather_with_grad(own)
        return sigmoid_contrastive(
            image, text, scale, bias, matches=matches, chunk=chunk, **everywhere
        )

    return loss


def tower_groups(recipe: DualEncoderRecipe, names: Sequence[str]) -> tuple[Group, ...]:
    """The towers that learn at rates of their own."""
    scales = {"image": recipe.image_lr_scale, "text": recipe.text_lr_scale}
    return tuple(
        Group((f"{tower}*",), lr_scale=scale)
        for tower, scale in scales.items()
        if scale != 1 and any(name.startswith(tower) for name in names)
    )


def training_stage(
    recipe: StageSettings, steps: int, groups: tuple[Group, ...] = (), name: str = "contrast"
) -> Stage:
    """One stage of AdamW over all that is not frozen."""
    return Stage(
        name=name,
        steps=steps,
        lr=recipe.lr,
        trainable=("*", *(f"!{pattern}" for pattern in recipe.freeze)),
        groups=groups,
        weight_decay=recipe.weight_decay,
        no_decay=NO_DECAY,
        warmup=round(recipe.warmup * steps),
        betas=(0.9, recipe.beta2),
        clip=recipe.clip,
    )


def number_of_steps(recipe: StageSettings, pictures: int, batch: float | None = None) -> int:
    """`steps`, or those that `epochs` over so many pictures take, at most `most_steps`.

    Args:
        batch: pictures of a batch on average, where their number varies.
    """
    if recipe.steps is not None:
        return recipe.steps
    whole = (batch or recipe.batch_size) * recipe.accumulate
    return min(recipe.most_steps, max(1, round(recipe.epochs * pictures / whole)))


def objective_of(recipe: DualEncoderRecipe, score: str) -> str:
    """UniCL's own for UniCL; else the loss that goes with how the system scores: softmax with
    softmax, sigmoid with sigmoid."""
    return recipe.objective or ("unicl" if recipe.system == "unicl" else score)


def largest_scale(system: str) -> float | None:
    """CLIP's bound on its scale, for two joined towers too; SigLIP and UniCL have none."""
    from sightline.models.clip import LARGEST_SCALE

    return LARGEST_SCALE if system in ("clip", "vision_text") else None
