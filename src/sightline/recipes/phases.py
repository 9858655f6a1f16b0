"""Phases of training a model that speaks, as data: what learns, how fast, at which size.

Names follow the stages of PaliGemma (Beyer et al. 2024, arXiv:2407.07726, section 3.2): everything
is trained jointly, with a tower that warms up slowly, then at higher resolutions with longer
answers, then transferred. `alignment`, the projector alone, is LLaVA's first stage; the paper
leaves it out. `lora` and `qlora` are transfers by additions. `scratch` is for small networks of
which nothing was trained before. Sizes and lengths are the paper's; rates without a number there
are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import nn

from sightline.core.errors import ConfigError, unknown_name
from sightline.core.patterns import fits
from sightline.nn.lora import QUERIES_AND_VALUES
from sightline.recipes.settings import override
from sightline.training.stages import Group, Stage

TOWER = ("image.*",)


@dataclass(frozen=True)
class Phase:
    """One phase of a run; every field but the name is a setting, such as transfer.lr=1e-5."""

    name: str
    trainable: tuple[str, ...] = ("*",)
    """Patterns of the parameters that learn; with additions, of those alone."""
    image_lr_scale: float = 1.0
    """Times the rate, for the image tower."""
    image_warmup: float = 0.0
    """Share of the steps over which the image tower's rate rises, beside `warmup`."""
    image_size: int | None = None
    """Pixels of a side; None leaves it as it is."""
    text_length: int = 128
    """Tokens of prompt and answer together, at most."""
    batch_size: int = 16
    accumulate: int = 1
    steps: int = 1000
    epochs: float | None = None
    """Over the examples, instead of steps."""
    lr: float = 1e-5
    warmup: float = 0.03
    """Share of the steps."""
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    """Share of the target that is spread over the vocabulary."""
    lora_rank: int = 0
    """Rank of low-rank additions, which alone learn then; 0 trains the weights themselves."""
    lora_alpha: float | None = None
    """The additions' scale is alpha / rank; None takes the rank."""
    lora_targets: tuple[str, ...] = QUERIES_AND_VALUES
    """Patterns of the linear layers that get additions: decoder.*.mlp.*, image.*, projector"""
    lora_dropout: float = 0.0
    lora_rslora: bool = False
    four_bit: tuple[str, ...] = ()
    """Patterns of the linear layers whose weights are stored in 4 bits under additions (QLoRA)."""

    def __post_init__(self) -> None:
        for name in ("warmup", "image_warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"phase {self.name!r}: {name} {getattr(self, name)} is a share from 0 to 1"
                )
        if self.text_length < 2 or (self.image_size is not None and self.image_size < 1):
            raise ConfigError(
                f"phase {self.name!r}: text_length {self.text_length} is at least 2, and "
                f"image_size {self.image_size} at least 1"
            )
        if self.four_bit and not self.lora_rank:
            raise ConfigError(
                f"phase {self.name!r}: weights of 4 bits do not learn: give lora_rank=8, or leave "
                "four_bit out"
            )

    def stage(
        self, network: nn.Module, steps: int, freeze: Sequence[str] = (), **options: Any
    ) -> Stage:
        """What the loop runs for so many steps.

        Args:
            network: whose parameters learn, those that nothing has frozen.
            freeze: patterns of parameters that do not learn.
            options: further fields of `Stage`.
        """
        trainable = (*self.trainable, *(f"!{pattern}" for pattern in freeze))
        learning = [n for n, p in network.named_parameters() if p.requires_grad]
        slowly = Group(TOWER, self.image_lr_scale, warmup=round(self.image_warmup * steps) or None)
        grouped = slowly != Group(TOWER) and any(
            fits(name, trainable) and fits(name, TOWER) for name in learning
        )
        return Stage(
            self.name, steps, self.lr, trainable, (slowly,) if grouped else (), self.weight_decay,
            warmup=round(self.warmup * steps), **options,
        )  # fmt: skip

    def number_of_steps(self, examples: int) -> int:
        """`steps`, or those that `epochs` over so many examples take."""
        if self.epochs is None:
            return self.steps
        return max(1, round(self.epochs * examples / (self.batch_size * self.accumulate)))


PHASES: Mapping[str, Phase] = {
    phase.name: phase
    for phase in (
        Phase("scratch", lr=2e-3, weight_decay=0.02, steps=3000),
        Phase("alignment", ("projector.*",), lr=1e-3),
        Phase("joint", image_warmup=0.5, lr=2e-5),
        Phase("resolution-448", image_size=448, text_length=512),
        Phase("resolution-896", image_size=896, text_length=512),
        Phase("transfer"),
        Phase("lora", lr=2e-4, lora_rank=8),
        Phase("qlora", lr=2e-4, lora_rank=8, four_bit=("*",)),
    )
}


def chosen_phases(
    names: Sequence[str], own: Mapping[str, str], every: Mapping[str, Any] | None = None
) -> list[Phase]:
    """The phases of a run in their order.

    Args:
        own: settings of single phases, such as {"transfer.lr": "1e-5"}.
        every: fields that all of them take, where they do not say their own.

    Raises:
        ConfigError: no phase, an unknown or repeated one, or a setting of a phase that does not
            run.
    """
    if not names:
        raise ConfigError("phases is empty: name at least one, such as transfer")
    if len(set(names)) < len(names):
        raise ConfigError(f"phases {','.join(names)}: each may run once")
    for name in names:
        if name not in PHASES:
            raise ConfigError(unknown_name("phase", name, PHASES))
    said: dict[str, dict[str, str]] = {name: {} for name in names}
    for key, text in own.items():
        phase, _, setting = key.partition(".")
        if phase not in said:
            raise ConfigError(unknown_name("phase of this run", phase, names))
        if setting == "name":
            raise ConfigError(f"{key}: a phase keeps its name")
        said[phase][setting] = text
    shared = dict(every or {})
    return [override(replace(PHASES[name], **shared), said[name]) for name in names]


SHARED = tuple(field.name for field in fields(Phase) if field.name not in ("name", "trainable"))
"""Settings that a recipe may give to all of its phases."""
