"""Transformer blocks with 8-bit weights and activations, for answers on a CPU.

Weights have a scale for each output; activations have one for each product, measured once on
calibration data, so that an answer never depends on its neighbours in a batch. What a network makes
of a few channels much larger than the rest is moved from activations into weights first
(SmoothQuant, Xiao et al. 2023, arXiv:2211.10438, equation 4 with alpha = 1/2); the division costs
nothing, because it goes into the norm, or the value rows, in front. Sums are exact 32-bit integers;
where the processor adds pairs in 16 bits on the way, weights have 7 bits so that they still are.
Norms, softmax and the residual stream stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sightline.core.errors import ConfigError
from sightline.nn.attention import attend
from sightline.nn.blocks import Block, Transformer
from sightline.nn.linear import Linear
from sightline.nn.mlp import QUICK, quick_gelu
from sightline.nn.norms import LayerNorm
from sightline.nn.packed import PackedTransformer
from sightline.nn.packed_linear import FUSED

LARGEST = 127
"""Of a signed 8-bit number; -128 is left out, so that the range is symmetric."""
LEVELS = 255


@dataclass
class Range:
    """What a linear layer was given while calibrating."""

    largest: Float[Tensor, " D"]
    """Largest magnitude of each input channel."""
    low: float
    high: float

    def widen(self, x: Float[Tensor, "*B D"]) -> None:
        """Take more inputs into account."""
        rows = x.detach().float().flatten(0, -2)
        self.largest = torch.maximum(self.largest, rows.abs().amax(dim=0))
        self.low = min(self.low, float(rows.min()))
        self.high = max(self.high, float(rows.max()))


@contextmanager
def measured(network: nn.Module) -> Iterator[dict[nn.Module, Range]]:
    """Inputs of every linear layer of transformer blocks, for as long as the context lasts."""
    ranges: dict[nn.Module, Range] = {}

    def note(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0]
        if layer not in ranges:
            ranges[layer] = Range(torch.zeros(x.shape[-1]), 0.0, 0.0)
        ranges[layer].widen(x)

    layers = [
        layer
        for stack in network.modules()
        if quantisable(stack)
        for layer in stack.modules()
        if type(layer) is Linear
    ]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        yield ranges
    finally:
        for handle in handles:
            handle.remove()


def quantise(network: nn.Module, calibrate: Callable[[nn.Module], object]) -> nn.Module:
    """Turn every transformer that `calibrate` runs to 8 bits, in place; returns the network.

    Transformers that it does not run (the text tower, where only pictures are shown) stay as they
    are, and so do blocks with norms behind their halves and layers outside of blocks.

    Args:
        network: not packed, its weights float32 or bfloat16, on the CPU. Products give the type of
            the weights.
        calibrate: calls the network with typical inputs.

    Raises:
        ConfigError: nothing was found to quantise.
    """
    with measured(network) as ranges, torch.inference_mode():
        calibrate(network)
    found = 0
    for owner in list(network.modules()):
        for name, stack in list(owner.named_children()):
            if not isinstance(stack, Transformer) or not quantisable(stack):
                continue
            listed: list[Any] = list(stack.blocks)
            if listed[0].attention.q in ranges:
                blocks = nn.ModuleList(Int8Block(block, ranges) for block in listed)
                setattr(owner, name, PackedTransformer(blocks).train(stack.training))
                found += 1
    if not found:
        raise ConfigError(
            "8 bits are for vision transformers with norms in front (CLIP, SigLIP, ViT), and this "
            "network has none that sees pictures: load it without quantize"
        )
    return network


def quantisable(stack: nn.Module) -> bool:
    """Whether this is a transformer of plain blocks with norms in front."""
    return type(stack) is Transformer and all(
        type(block) is Block
        and not block.post_norm
        and type(block.mlp.fc1) is Linear
        and type(block.attention.q) is Linear
        and (block.mlp.activation in FUSED or block.mlp.activation is quick_gelu)
        for block in stack.blocks
    )


class Grid(NamedTuple):
    """real = scale * (integer - zero)."""

    scale: float
    zero: int
    type: torch.dtype


class Int8Product(nn.Module):
    """activation(x W^T + b) of 8-bit `x` and `W`.

    Args:
        weight: [O D], what the real input is multiplied with.
        bias: [O], or None.
        grid: of the input.
    """

    weight: Tensor
    """int8[D O] in oneDNN's own layout."""
    scales: Tensor
    bias: Tensor
    zeros: Tensor

    def __init__(self, weight: Float[Tensor, "O D"], bias: Tensor | None, grid: Grid) -> None:
        super().__init__()
        weight = weight.float()
        scales = weight.abs().amax(dim=1).clamp_min(1e-12) / largest_weight()  # [O]
        rounded = (weight / scales[:, None]).round().to(torch.int8)
        bias = torch.zeros(len(weight)) if bias is None else bias.float()
        self.grid = grid
        self.weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        for name, buffer in (
            ("scales", scales),
            ("bias", bias),
            ("zeros", torch.zeros(len(weight), dtype=torch.int32)),
        ):
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, x: Tensor, out: Grid, kind: str = "none", algorithm: str = "") -> Tensor:
        """Integers on this product's grid to numbers of `out`'s type: integers on its grid, or
        real numbers where its scale is 1 and its type a floating one."""
        result: Tensor = torch.ops.onednn.qlinear_pointwise(
            x, self.grid.scale, self.grid.zero, self.weight, self.scales, self.zeros, self.bias,
            out.scale, out.zero, out.type, kind, [], algorithm,
        )  # fmt: skip
        return result


@cache
def largest_weight() -> int:
    """The largest weight whose products are summed exactly here: 127, or 64 without VNNI.

    x86 without those instructions adds two products in 16 bits: 2 * 255 * 64 still fits.
    """
    x = torch.full((8, 256), LEVELS, dtype=torch.uint8)
    weight = torch.full((32, 256), LARGEST, dtype=torch.int8)
    ones, zeros = torch.ones(32), torch.zeros(32, dtype=torch.int32)
    packed = torch.ops.onednn.qlinear_prepack(weight, None)
    found = torch.ops.onednn.qlinear_pointwise(
        x, 1.0, 0, packed, ones, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return LARGEST if bool((found == 256 * LEVELS * LARGEST).all()) else 64


class Norm8(nn.Module):
    """A layer norm whose result is on a grid of 8 bits, what smooths it folded in."""

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: LayerNorm, smooth: Float[Tensor, " D"], scale: float) -> None:
        super().__init__()
        self.shape, self.eps = norm.normalized_shape, norm.eps
        self.register_buffer("weight", norm.weight.detach() / (smooth * scale), persistent=False)
        self.register_buffer("bias", norm.bias.detach() / (smooth * scale), persistent=False)

    def forward(self, x: Float[Tensor, "*B D"]) -> Tensor:
        return on_grid(F.layer_norm(x, self.shape, self.weight, self.bias, self.eps))


def on_grid(x: Tensor) -> Tensor:
    """Rounded to signed 8-bit integers, what lies outside at the end; changes `x`."""
    return x.round_().clamp_(-LARGEST, LARGEST).to(torch.int8)


class Int8Block(nn.Module):
    """`Block` in 8 bits, which adds both halves to `x` in place."""

    def __init__(self, block: Block, ranges: dict[nn.Module, Range]) -> None:
        super().__init__()
        attention, mlp = block.attention, block.mlp
        self.num_heads = attention.num_heads
        self.real = Grid(1.0, 0, attention.q.weight.dtype)
        self._attend_with(block.norm1, attention, ranges)
        smooth, scale = _smoothing(ranges[mlp.fc1], [mlp.fc1])
        self.norm2 = Norm8(block.norm2, smooth, scale)
        self.slope = QUICK if mlp.activation is quick_gelu else 1.0
        self.kind, self.algorithm = ("swish", "") if self.slope != 1.0 else FUSED[mlp.activation]
        seen = ranges[mlp.fc2]
        low, high = self.slope * seen.low, self.slope * seen.high
        step = max(high - low, 1e-12) / LEVELS
        self.hidden = Grid(step, round(-low / step), torch.uint8)
        self.fc1 = Int8Product(
            self.slope * smooth * mlp.fc1.weight.float(),
            _scaled(mlp.fc1.bias, self.slope),
            Grid(scale, 0, torch.int8),
        )
        self.fc2 = Int8Product(mlp.fc2.weight.float() / self.slope, mlp.fc2.bias, self.hidden)

    def _attend_with(self, norm: LayerNorm, attention: Any, ranges: dict[nn.Module, Range]) -> None:
        layers = [attention.q, attention.k, attention.v]
        smooth, scale = _smoothing(ranges[attention.q], layers)
        mixed_smooth, mixed_scale = _smoothing(ranges[attention.out], [attention.out])
        # Attention is a mean of values, so that what divides its result divides the values' rows.
        shrink = 1 / (mixed_smooth * mixed_scale)
        q, k, v = (layer.weight.float() for layer in layers)
        weight = smooth * torch.cat([q, k, shrink[:, None] * v])  # [3*D D]
        bias = None
        if attention.q.bias is not None:
            biases = (attention.q.bias, attention.k.bias, shrink * attention.v.bias.float())
            bias = torch.cat([part.float() for part in biases])
        self.norm1 = Norm8(norm, smooth, scale)
        self.qkv = Int8Product(weight, bias, Grid(scale, 0, torch.int8))
        self.out = Int8Product(
            mixed_smooth * attention.out.weight.float(),
            attention.out.bias,
            Grid(mixed_scale, 0, torch.int8),
        )

    def forward(
        self, x: Float[Tensor, "B L D"], mask: Bool[Tensor, ...] | None = None
    ) -> Float[Tensor, "B L D"]:
        """The same tensor, changed."""
        qkv = self.qkv(self.norm1(x), self.real)  # [B L 3*D]
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [B N L K]
        mixed = attend(q, k, v, mask).transpose(1, 2).flatten(2)  # [B L D], in steps of its grid
        x.add_(self.out(on_grid(mixed), self.real))
        hidden = self.fc1(self.norm2(x), self.hidden, self.kind, self.algorithm)  # [B L H]
        return x.add_(self.fc2(hidden, self.real))

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        raise ConfigError(
            "a network in 8 bits no longer has the weights that a checkpoint holds: load the model "
            "without quantize to save it"
        )


def _smoothing(seen: Range, layers: list[Linear]) -> tuple[Float[Tensor, " D"], float]:
    """What each input channel is divided by, and the grid's step afterwards."""
    weights = torch.stack([layer.weight.float().abs().amax(dim=0) for layer in layers])  # [n D]
    largest = seen.largest.clamp_min(1e-5)
    smooth = (largest / weights.amax(dim=0).clamp_min(1e-5)).sqrt()  # [D]
    return smooth, float((largest / smooth).max()) / LARGEST


def _scaled(bias: Tensor | None, factor: float) -> Tensor | None:
    return None if bias is None else factor * bias.float()
