"""Lowering the weights of linear layers and convolutions, and what must not be lowered."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from sightline.core.errors import ConfigError
from sightline.nn.linear import Conv2d, Linear


def lower(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert the weights of every linear layer and convolution in place; returns the network.

    Norms, embeddings, positions and scales keep float32: their cost is small and their rounding
    is what moves answers. float32 as `dtype` undoes an earlier lowering (not its rounding).

    Raises:
        ConfigError: a type that networks are not computed in.
    """
    if dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        raise ConfigError(
            f"dtype {dtype} is not one that networks compute in: use float32, bfloat16 or float16"
        )
    for module in network.modules():
        if isinstance(module, (Linear, Conv2d)):
            module.to(dtype)
    return network


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A block whose products keep the types they are given, whatever autocast is around it."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
