"""Activation checkpointing: a block's inner values are computed twice instead of kept.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost" (arXiv:1604.06174): only what
enters a block stays in memory, and its forward pass runs again on the way back. Loss and gradients
are the same, dropout included; a step costs about a third more arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from sightline.core.errors import ConfigError


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The blocks that stand in stacks: members with parameters of every `nn.ModuleList`.

    A list inside a block belongs to that block.
    """
    found: list[nn.Module] = []
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            found += [block for block in child if any(True for _ in block.parameters())]
        else:
            found += blocks_of(child)
    return found


@contextmanager
def checkpointed_blocks(network: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Within the block every stacked block keeps its input only and is computed again backward.

    Raises:
        ConfigError: the network has no stack of blocks.
    """
    blocks = blocks_of(network) if wanted else []
    if wanted and not blocks:
        raise ConfigError(
            "activation checkpointing needs a stack of blocks (an nn.ModuleList), and "
            f"{type(network).__name__} has none: set activation_checkpointing=False"
        )
    for block in blocks:
        # of the instance: names of parameters, hooks and saved files stay as they are
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
