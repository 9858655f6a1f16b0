"""Weights laid out once for oneDNN, and activations computed inside the product that they follow.

For answers on a CPU with bfloat16 products of its own. A plain product brings its weight into
oneDNN's blocked order at every call, and an activation behind it reads and writes the widest tensor
of the block again; here both happen once. The numbers stay what `nn.precision.lower` makes of them:
`state_dict` gives the weights back bit for bit under their own names. There is no backward pass:
`unpack` first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.core.errors import ConfigError
from sightline.nn.linear import Linear
from sightline.nn.mlp import ACTIVATIONS, MLP, QUICK, gelu_tanh, quick_gelu

FUSED: Mapping[Callable[..., Tensor], tuple[str, str]] = {
    F.relu: ("relu", ""),
    F.silu: ("swish", ""),
    F.gelu: ("gelu", "none"),
    gelu_tanh: ("gelu", "tanh"),
}
"""Activations to what oneDNN calls them: kind and algorithm."""


class PackedLinear(nn.Module):
    """A linear layer of lowered weights, for inference on the CPU."""

    weight: Tensor
    """[O D] in oneDNN's own layout; `to_dense` gives the plain one."""
    bias: Tensor | None

    def __init__(self, weight: Float[Tensor, "O D"], bias: Float[Tensor, " O"] | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = _reordered(weight)
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B O"]:
        return product(x, self.weight, self.bias)

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
            self.weight = _reordered(given.to(self.weight.dtype))
        else:
            rest[2].append(f"{prefix}weight")  # missing keys
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedLinear:
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
        super().__setstate__({**state, "weight": _reordered(state["weight"])})


class PackedMLP(nn.Module):
    """`MLP` with its activation inside the first product."""

    def __init__(self, fc1: PackedLinear, fc2: PackedLinear, plain: Callable[..., Tensor]) -> None:
        super().__init__()
        self.fc1, self.fc2, self.activation = fc1, fc2, plain

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        fc1, fc2 = self.fc1, self.fc2
        assert fc1.bias is not None and fc2.bias is not None, "those of an MLP"
        if self.activation is not quick_gelu:
            return fc2(product(x, fc1.weight, fc1.bias, *FUSED[self.activation]))
        # The slope goes to what comes in and off what goes out, where it costs no rounding.
        hidden = product(QUICK * x.float(), fc1.weight, QUICK * fc1.bias, "swish")
        return torch.add(fc2.bias.float(), product(hidden, fc2.weight, None), alpha=1 / QUICK)

    def plain(self) -> MLP:
        """The layers that this was made of."""
        name = next(name for name, known in ACTIVATIONS.items() if known is self.activation)
        with torch.device("meta"):
            mlp = MLP(self.fc1.in_features, self.fc1.out_features, name)
        mlp.fc1, mlp.fc2 = self.fc1.plain(), self.fc2.plain()
        return mlp


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
    if torch.is_grad_enabled() and x.requires_grad:
        raise ConfigError(
            "packed weights give answers and no gradients: load the model with dtype='float32', or "
            "call sightline.nn.packed.unpack(network) first"
        )
    x = x.to(weight.dtype)
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, kind, [], algorithm)
    return result


def pack(network: nn.Module) -> nn.Module:
    """Pack every linear layer and every MLP of them, in place; returns the network.

    Layers of other classes (convolutions, those that carry an adapter) stay as they are, and so do
    weights that are neither bfloat16 nor float32.
    """
    for name, module in list(network.named_children()):
        if type(module) is Linear and module.weight.dtype in (torch.bfloat16, torch.float32):
            setattr(network, name, PackedLinear(module.weight, module.bias))
        else:
            pack(module)
    for name, module in list(network.named_children()):
        if type(module) is MLP and isinstance(module.fc1, PackedLinear):
            fusable = module.activation in FUSED or module.activation is quick_gelu
            if fusable and isinstance(module.fc2, PackedLinear):
                packed = PackedMLP(module.fc1, module.fc2, module.activation)
                setattr(network, name, packed.train(module.training))
    return network


def unpack(network: nn.Module) -> nn.Module:
    """Undo `pack`, in place; returns the network."""
    for name, module in list(network.named_children()):
        if isinstance(module, PackedMLP):
            setattr(network, name, module.plain().train(module.training))
        elif isinstance(module, PackedLinear):
            setattr(network, name, module.plain())
        else:
            unpack(module)
    return network


def _reordered(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
    return packed
