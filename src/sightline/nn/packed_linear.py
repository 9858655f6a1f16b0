"""One linear layer in oneDNN's blocked order, and the product with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.core.errors import ConfigError
from sightline.nn.linear import Linear
from sightline.nn.mlp import gelu_tanh

FUSED: Mapping[Callable[..., Tensor], tuple[str, str]] = {
    F.relu: ("relu", ""),
    F.silu: ("swish", ""),
    F.gelu: ("gelu", "none"),
    gelu_tanh: ("gelu", "tanh"),
}
"""Activations to what oneDNN calls them inside a product: kind and algorithm."""


class Packed(nn.Module):
    """A module around one weight in oneDNN's own order, which stays where it is."""

    weight: Tensor
    """[O D] in oneDNN's own layout; `to_dense` gives the plain one."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Packed:
        dense = fn(self.weight.to_dense())
        if dense.device.type != "cpu" or dense.dtype != self.weight.dtype:
            raise ConfigError(
                f"these weights are packed for the CPU in {self.weight.dtype} and cannot become "
                f"{dense.dtype} on {dense.device}: load the model with that device and dtype, or "
                "call sightline.nn.packed.unpack(network) first"
            )
        super()._apply(fn, recurse)
        return self

    # oneDNN's tensors cannot be copied or pickled.
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "weight": self.weight.to_dense()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "weight": reordered(state["weight"])})


class PackedLinear(Packed):
    """A linear layer of lowered weights, for inference on the CPU."""

    bias: Tensor | None

    def __init__(self, weight: Float[Tensor, "O D"], bias: Float[Tensor, " O"] | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = reordered(weight)
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B O"]:
        return product(x, self.weight, self._buffers["bias"])

    def plain(self) -> Linear:
        """The layer that this was made of."""
        with torch.device("meta"):
            layer = Linear(self.in_features, self.out_features, bias=self.bias is not None)
        layer.weight = nn.Parameter(self.weight.to_dense(), requires_grad=False)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias, requires_grad=False)
        return layer

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.weight.to_dense()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        given = state_dict.pop(f"{prefix}weight", None)
        if given is not None:
            self.weight = reordered(given.to(self.weight.dtype))
        else:
            rest[2].append(f"{prefix}weight")  # missing keys
        super()._load_from_state_dict(state_dict, prefix, *rest)


def product(
    x: Float[Tensor, "*B D"],
    weight: Tensor,
    bias: Float[Tensor, " O"] | None,
    kind: str = "none",
    algorithm: str = "",
) -> Float[Tensor, "*B O"]:
    """activation(x W^T + b) with a packed weight, in the weight's number type.

    Raises:
        ConfigError: a gradient is wanted.
    """
    _without_gradient(x)
    x = x.to(weight.dtype)
    result: Tensor = torch.ops.mkldnn._linear_pointwise.default(
        x, weight, bias, kind, [], algorithm
    )
    return result


def gated_product(
    x: Float[Tensor, "*B D"], weight: Tensor, gate: Float[Tensor, "*B O"]
) -> Float[Tensor, "*B O"]:
    """x W^T * gate with a packed weight, in the weight's number type, which `gate` has already.

    Raises:
        ConfigError: a gradient is wanted.
    """
    _without_gradient(x)
    x = x.to(weight.dtype)
    result: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, gate, weight, None, "mul")
    return result


def _without_gradient(x: Tensor) -> None:
    if torch.is_grad_enabled() and x.requires_grad:
        raise ConfigError(
            "packed weights give answers and no gradients: load the model with dtype='float32', or "
            "call sightline.nn.packed.unpack(network) first"
        )


def reordered(weight: Tensor) -> Tensor:
    """The weight in the order that oneDNN likes best."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
    return packed
