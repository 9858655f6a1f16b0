"""Putting another module in the place of one, by its name."""

from torch import nn


def replace_module(network: nn.Module, name: str, module: nn.Module) -> None:
    """Set the submodule of that dotted name."""
    owner, _, last = name.rpartition(".")
    setattr(network.get_submodule(owner), last, module)
