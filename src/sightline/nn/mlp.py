"""The feed-forward half of a transformer block and its activations."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.core.errors import ConfigError, unknown_name
from sightline.nn.linear import Linear, product_type

QUICK = 1.702
"""The slope inside quick GELU."""


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x): the cheap approximation of GELU that OpenAI's CLIP was trained with.

    Written as silu(1.702 x) / 1.702, which keeps one tensor for the way back instead of two.
    """
    return F.silu(QUICK * x) * (1 / QUICK)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh approximation (Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2)."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_new": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "silu": F.silu,
}
"""Activations under the names that published configurations use."""


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The activation of that name.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(unknown_name("activation", name, ACTIVATIONS))
    return ACTIVATIONS[name]


class MLP(nn.Module):
    """Linear, activation, linear."""

    def __init__(self, width: int, hidden: int, activation_name: str) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)
        self.activation = activation(activation_name)

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        return self.fc2(self.activation(self.fc1(x)))


class GatedMLP(nn.Module):
    """down(activation(gate(x)) * up(x)), without biases (GLU variants; Shazeer 2020,
    arXiv:2002.05202, section 2)."""

    def __init__(self, width: int, hidden: int, activation_name: str) -> None:
        super().__init__()
        self.gate = Linear(width, hidden, bias=False)
        self.up = Linear(width, hidden, bias=False)
        self.down = Linear(hidden, width, bias=False)
        self.activation = activation(activation_name)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        x = x.to(product_type(self.gate.weight))  # once for both
        return self.down(self.activation(self.gate(x)) * self.up(x))
