"""LoRA: low-rank additions to linear layers (Hu et al. 2021, arXiv:2106.09685).

y = W x + b + s B A x, where A [r, D] and B [O, r] learn and W stays as it is, bit for bit. B starts
at zero, so that the first answer is the base's own (section 4.1). s is alpha / r, or with rsLoRA
alpha / sqrt(r) (Kalajdzievski 2023, arXiv:2312.03732).

Differs from the paper: A starts from Kaiming's uniform distribution as in the authors' code, where
the text says a Gaussian.

Additions are float32 (float64 beside float64 weights) and stay so when `nn.precision.lower` turns
the base to bfloat16: an update smaller than the spacing of bfloat16 would be lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.core.errors import ConfigError
from sightline.core.patterns import select
from sightline.nn.four_bit import FourBitLinear
from sightline.nn.linear import Linear, TokenTable
from sightline.nn.packed import PackedLinear
from sightline.nn.replacement import replace_module

QUERIES_AND_VALUES = ("*.attention.q", "*.attention.v")
"""What the paper adapts (section 4.2): queries and values of every attention block."""


class LoRALinear(nn.Module):
    """A linear layer and its addition.

    Args:
        base: taken over as it is.
        rank: r, the rows of A.
        alpha: numerator of the scale; None takes the rank, which makes the scale 1.
        dropout: probability of dropping a component of the addition's input while training.
        rslora: divide alpha by the square root of the rank.

    Raises:
        ConfigError: a rank below 1, an alpha that is 0 or not finite, a dropout outside [0, 1).
    """

    def __init__(
        self,
        base: Linear | FourBitLinear,
        rank: int,
        alpha: float | None = None,
        *,
        dropout: float = 0.0,
        rslora: bool = False,
    ) -> None:
        super().__init__()
        alpha = float(rank) if alpha is None else float(alpha)
        if rank < 1 or not math.isfinite(alpha) or alpha == 0 or not 0 <= dropout < 1:
            raise ConfigError(
                f"LoRA of rank {rank}, alpha {alpha:g} and dropout {dropout:g}: use a rank from 1 "
                "on, an alpha that is not 0, and a dropout from 0 to below 1"
            )
        self.base: Linear | PackedLinear | FourBitLinear = base
        self.rank, self.alpha, self.dropout, self.rslora = rank, alpha, dropout, rslora
        self.original: Tensor | None = None
        """The base's own weight while the addition is merged into it."""
        kind = torch.float64 if base.weight.dtype == torch.float64 else torch.float32
        with torch.device(base.weight.device):
            self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, dtype=kind))
            self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, dtype=kind))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    @property
    def scale(self) -> float:
        """s of the equation."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @property
    def weight(self) -> Tensor:
        """The base's [O, D], for callers that ask for its number type."""
        return self.base.weight

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B O"]:
        y = self.base(x)
        if self.original is not None:
            return y
        x = F.dropout(x, self.dropout, self.training).to(self.lora_A.dtype)
        addition = F.linear(F.linear(x, self.lora_A), self.lora_B)
        return torch.add(y, addition.to(y.dtype), alpha=self.scale)

    @torch.no_grad()
    def sum(self) -> Float[Tensor, "O D"]:
        """W + s B A, added in the additions' type and rounded once to the weight's."""
        weight = self.own_weight()
        addition = self.scale * (self.lora_B @ self.lora_A)
        return (weight.to(addition.dtype) + addition).to(weight.dtype)

    def own_weight(self, values: bool = True) -> Float[Tensor, "O D"]:
        """W, whether the addition is merged or not, laid out plainly.

        Args:
            values: without them, a weight of 4 bits is stood for by a tensor without memory.
        """
        if isinstance(self.base, FourBitLinear):
            return self.base.real(values)
        weight = self.base.weight.detach()
        if self.original is not None:
            return self.original.to(weight.device)
        return weight.to_dense() if isinstance(self.base, PackedLinear) else weight


def add(
    network: nn.Module,
    rank: int,
    alpha: float | None = None,
    targets: Sequence[str] = QUERIES_AND_VALUES,
    *,
    dropout: float = 0.0,
    rslora: bool = False,
) -> list[str]:
    """Give linear layers additions, in place; afterwards nothing but additions learns.

    Args:
        rank, alpha, dropout, rslora: as in `LoRALinear`.
        targets: patterns of the names of linear layers (`core.patterns`).

    Returns:
        The names of the layers that were given one.

    Raises:
        ConfigError: a pattern that fits no linear layer without an addition, weights that are
            packed, or numbers that `LoRALinear` refuses.
    """
    _refuse_packed(network)
    names = select(_free(network), targets, "LoRA targets", "linear layer")
    for name in names:
        base = network.get_submodule(name)
        assert isinstance(base, (Linear, FourBitLinear))
        layer = LoRALinear(base, rank, alpha, dropout=dropout, rslora=rslora)
        replace_module(network, name, layer.train(base.training))
    additions = {id(p) for layer in layers(network).values() for p in (layer.lora_A, layer.lora_B)}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in additions)
    return names


def layers(network: nn.Module) -> dict[str, LoRALinear]:
    """The layers with an addition, by name."""
    return {n: module for n, module in network.named_modules() if isinstance(module, LoRALinear)}


@torch.no_grad()
def merge(network: nn.Module) -> nn.Module:
    """Put every addition into its base weight, which saves its products; returns the network.

    The weights as they were are kept for `unmerge`. Merging what is merged changes nothing.

    Raises:
        ConfigError: weights that are packed, or stored in 4 bits.
    """
    _refuse_packed(network)
    for name, layer in layers(network).items():
        if isinstance(layer.base, FourBitLinear):
            raise ConfigError(
                f"the weight of {name} is stored in 4 bits, which a merged one would not fit: save "
                "the adapter and load it on the full-precision model, or call "
                "sightline.nn.four_bit.dequantise(network) first"
            )
        if layer.original is None:
            merged = layer.sum()
            layer.original = layer.base.weight.detach()
            layer.base.weight = nn.Parameter(merged, requires_grad=False)
    return network


def unmerge(network: nn.Module) -> nn.Module:
    """Undo `merge`: the base weights are again what they were, bit for bit."""
    for layer in layers(network).values():
        if layer.original is not None:
            assert not isinstance(layer.base, FourBitLinear), "those are never merged"
            layer.base.weight = nn.Parameter(layer.own_weight(), requires_grad=False)
            layer.original = None
    return network


def remove(network: nn.Module) -> nn.Module:
    """Take every addition off; returns the network.

    After `merge` the merged weights stay, and the weights as they were are given up.
    """
    for name, layer in layers(network).items():
        replace_module(network, name, layer.base)
    return network


def base_state(network: nn.Module, *, values: bool = True) -> dict[str, Tensor]:
    """`state_dict` as if nothing had ever been added, nor stored in 4 bits.

    Args:
        values: without them, weights of 4 bits are stood for by tensors without memory.
    """
    weights = {name: layer.own_weight(values) for name, layer in layers(network).items()}
    return _state(network, weights, values)


def merged_state(network: nn.Module) -> dict[str, Tensor]:
    """`state_dict` of a network of real numbers, without additions, that answers as this one."""
    return _state(network, {n: layer.sum() for n, layer in layers(network).items()}, True)


def _state(network: nn.Module, weights: dict[str, Tensor], values: bool) -> dict[str, Tensor]:
    """The state with these weights of the layers by name, and under the names without additions."""
    few_bits = {n: m for n, m in network.named_modules() if isinstance(m, FourBitLinear)}
    own: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        owner, _, kind = name.rpartition(".")
        layer = owner.removesuffix(".base")
        if owner in weights:  # A or B
            continue
        if owner in few_bits and kind != "bias":
            if kind == "codes":  # of the several tensors of a weight, the one that stands for it
                plain = weights.get(layer)
                own[f"{layer}.weight"] = few_bits[owner].real(values) if plain is None else plain
        elif layer == owner or layer not in weights:
            own[name] = tensor
        else:
            own[f"{layer}.{kind}"] = weights[layer] if kind == "weight" else tensor
    return own


def _refuse_packed(network: nn.Module) -> None:
    if any(isinstance(module, PackedLinear) for module in network.modules()):
        raise ConfigError(
            "the weights are packed for answers: load the model with dtype='float32', or call "
            "sightline.nn.packed.unpack(network) first"
        )


def is_adaptable(module: nn.Module) -> TypeGuard[Linear | FourBitLinear]:
    """Whether a module can be given an addition: a table of tokens is not only a product."""
    return isinstance(module, (Linear, FourBitLinear)) and not isinstance(module, TokenTable)


def _free(network: nn.Module) -> list[str]:
    """Names of linear layers without an addition."""
    taken = {f"{name}.base" for name in layers(network)}
    return [
        name
        for name, module in network.named_modules()
        if is_adaptable(module) and name not in taken
    ]
