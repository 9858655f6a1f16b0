"""A network to work on while the original goes on answering."""

import copy
from collections.abc import Collection

import torch
from torch import nn

from sightline.nn.linear import Conv2d, Linear
from sightline.nn.packed import PackedLinear, unpack
from sightline.nn.precision import lower


def float32_copy(network: nn.Module, without: Collection[str] = ()) -> nn.Module:
    """The same network with modules of its own, that products in float32 can go back through.

    Weights that are float32 (or wider) already are shared and cost nothing; where any is packed or
    narrower, all are copied. The original stays as it is in every bit.

    Args:
        without: names of children that the copy does not need; `nn.Identity` takes their place.
    """
    memo: dict[int, object] = {id(getattr(network, name)): nn.Identity() for name in without}
    wide = all(map(_is_wide, network.modules()))
    if wide:
        memo |= {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    copied = copy.deepcopy(network, memo)
    return copied if wide else lower(unpack(copied), torch.float32)


def _is_wide(module: nn.Module) -> bool:
    if isinstance(module, (Linear, Conv2d)):
        return module.weight.dtype in (torch.float32, torch.float64)
    return not isinstance(module, PackedLinear)
