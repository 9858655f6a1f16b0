"""Frozen weights of 4 bits, so that a large base fits while additions to it learn (QLoRA).

Dettmers et al. 2023, arXiv:2305.14314. Each block of 64 weights is divided by its largest magnitude
and rounded to the nearest of 16 levels, which are quantiles of the normal distribution (NF4,
section 3). The magnitudes are quantised in their turn, 256 together, to 8 bits around their mean
(double quantisation). A product turns the weights back to real numbers as it needs them, once
more on the way back; nothing of the base learns.

    four_bit.quantise(network, ["decoder.*.attention.*", "decoder.*.mlp.*"])
    lora.add(network, 8, 16.0, ["decoder.*.attention.[qv]"])

Differs from the paper: magnitudes become evenly spaced 8-bit integers, where the authors' code
takes 8-bit floating-point numbers of its own; the difference to the mean is symmetric and narrow,
which even steps hold to 1/254 of its largest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from sightline.core.errors import ConfigError
from sightline.core.patterns import select
from sightline.nn.linear import Linear, TokenTable
from sightline.nn.replacement import replace_module

BLOCK = 64
"""Weights that share a magnitude (section 3)."""
GROUP = 256
"""Magnitudes that share a scale."""
LARGEST = 127


@cache
def levels() -> tuple[float, ...]:
    """The 16 values of NF4, from -1 to 1, in order; 0 is one of them exactly (appendix E).

    Quantiles of the normal distribution at evenly spaced probabilities, 9 from 1/2 up and 8 from
    1/2 down, which share 0, divided by the largest. The outermost probability is the mean of
    1 - 1/30 and 1 - 1/32, so that each of the levels stands for as many weights.
    """
    offset = 0.5 * ((1 - 1 / 30) + (1 - 1 / 32))

    def quantiles(count: int) -> list[float]:
        """Of the probabilities from `offset` down to 1/2, the last one (0) left out."""
        step = (offset - 0.5) / (count - 1)
        shares = [offset - number * step for number in range(count - 1)]
        return [math.sqrt(2) * _inverse_erf(2 * share - 1) for share in shares]

    above, below = quantiles(9), quantiles(8)
    largest = max(above)
    return tuple(sorted([0.0, *(q / largest for q in above), *(-q / largest for q in below)]))


def _inverse_erf(value: float) -> float:
    # on the CPU: the network around may be one without values
    return float(torch.erfinv(torch.tensor(value, dtype=torch.float64, device="cpu")))


class Packed(NamedTuple):
    """A tensor of n numbers in 4 bits each."""

    codes: UInt8[Tensor, " n/2"]
    """Two levels a byte, the first in the higher half."""
    magnitudes: Int[Tensor, " blocks"]
    """int8: (magnitude of a block - mean) / scale of its group."""
    scales: Float[Tensor, " groups"]
    mean: Float[Tensor, ""]
    """Of all magnitudes."""


def pack(weight: Float[Tensor, "*S"]) -> Packed:
    """Quantise a tensor; the last block is filled with zeros.

    Raises:
        ConfigError: values that are not finite.
    """
    flat = weight.detach().float().flatten()
    if not flat.is_meta and not bool(flat.isfinite().all()):
        raise ConfigError("weights that are not finite cannot be stored in 4 bits")
    blocks = F.pad(flat, (0, -len(flat) % BLOCK)).unflatten(0, (-1, BLOCK))  # [blocks 64]
    largest = blocks.abs().amax(dim=1)  # [blocks]
    mean = largest.mean()
    spread = largest - mean
    groups = F.pad(spread, (0, -len(spread) % GROUP)).unflatten(0, (-1, GROUP))  # [groups 256]
    scales = groups.abs().amax(dim=1).clamp_min(1e-12) / LARGEST  # [groups]
    magnitudes = (groups / scales[:, None]).round().flatten()[: len(spread)].to(torch.int8)
    # weights are measured by what the magnitude will be read as; past it they end at -1 and 1
    read = _magnitudes(magnitudes, scales, mean)  # [blocks]
    shares = blocks / read.clamp_min(1e-12)[:, None]
    table = flat.new_tensor(levels())
    between = (table[1:] + table[:-1]) / 2  # [15]
    codes = torch.bucketize(shares.flatten(), between).to(torch.uint8)  # [blocks * 64]
    return Packed((codes[0::2] << 4) | codes[1::2], magnitudes, scales, mean)


def unpack(packed: Packed, shape: Sequence[int], kind: torch.dtype) -> Float[Tensor, "*S"]:
    """The numbers that a packed tensor stands for."""
    codes = torch.stack([packed.codes >> 4, packed.codes & 15], dim=1).flatten().long()
    table = torch.tensor(levels(), dtype=torch.float32, device=codes.device)
    read = _magnitudes(packed.magnitudes, packed.scales, packed.mean)
    flat = (table[codes].unflatten(0, (-1, BLOCK)) * read[:, None]).flatten()
    return flat[: math.prod(shape)].reshape(tuple(shape)).to(kind)


def _magnitudes(
    magnitudes: Int[Tensor, " blocks"], scales: Float[Tensor, " groups"], mean: Float[Tensor, ""]
) -> Float[Tensor, " blocks"]:
    return magnitudes * scales.repeat_interleave(GROUP)[: len(magnitudes)] + mean


class FourBitLinear(nn.Module):
    """A linear layer whose weight is stored in 4 bits and never learns.

    Gradients go through it to what lies in front. It has no `weight` parameter; `weight` computes.

    Args:
        base: what it stands for; its bias is kept as it is.
    """

    codes: Tensor
    magnitudes: Tensor
    scales: Tensor
    mean: Tensor

    def __init__(self, base: Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.kind = base.weight.dtype
        """The number type of products."""
        for name, tensor in pack(base.weight)._asdict().items():
            self.register_buffer(name, tensor)
        bias = None if base.bias is None else base.bias.detach()
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @property
    def weight(self) -> Float[Tensor, "O D"]:
        """As products see it; a new tensor at every look."""
        packed = Packed(self.codes, self.magnitudes, self.scales, self.mean)
        return unpack(packed, (self.out_features, self.in_features), self.kind)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B O"]:
        answer: Tensor = _Product.apply(x.to(self.kind), self, self.bias)
        return answer

    def real(self, values: bool = True) -> Float[Tensor, "O D"]:
        """`weight`, or a tensor of its shape without memory."""
        if values:
            return self.weight
        return torch.empty(self.out_features, self.in_features, dtype=self.kind, device="meta")

    def plain(self) -> Linear:
        """The layer of real numbers that answers alike."""
        with torch.device("meta"):
            layer = Linear(self.in_features, self.out_features, bias=self.bias is not None)
        layer.weight = nn.Parameter(self.weight, requires_grad=False)
        layer.bias = self.bias
        return layer


class _Product(torch.autograd.Function):
    """x W^T + b that keeps nothing but the codes of W for the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FourBitLinear, bias: Tensor | None) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient @ ctx.layer.weight, None, None


def quantise(network: nn.Module, targets: Sequence[str] = ("*",)) -> list[str]:
    """Store the weights of linear layers in 4 bits, in place; afterwards nothing learns.

    Tables of tokens keep theirs. Additions (`nn.lora.add`) come afterwards.

    Args:
        targets: patterns of the names of linear layers (`core.patterns`).

    Returns:
        The names of the layers.

    Raises:
        ConfigError: a pattern that fits no linear layer, or layers that have an addition already.
    """
    linear = [
        name
        for name, module in network.named_modules()
        if isinstance(module, Linear) and not isinstance(module, TokenTable)
    ]
    names = select(linear, targets, "4-bit targets", "linear layer")
    added = [name for name in names if name.endswith(".base")]
    if added:
        raise ConfigError(
            f"{added[0].removesuffix('.base')} has an addition already: store the base in 4 bits "
            "first, then add"
        )
    for name in names:
        base = network.get_submodule(name)
        assert isinstance(base, Linear)
        replace_module(network, name, FourBitLinear(base).train(base.training))
    network.requires_grad_(False)
    return names


def dequantise(network: nn.Module) -> nn.Module:
    """Put linear layers of real numbers in the place of those of 4 bits; returns the network."""
    for name, module in list(network.named_modules()):
        if isinstance(module, FourBitLinear):
            replace_module(network, name, module.plain().train(module.training))
    return network


def stored_bytes(network: nn.Module) -> int:
    """Of all parameters and buffers, as they lie in memory; on the meta device, as they would."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
