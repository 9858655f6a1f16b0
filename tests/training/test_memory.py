"""Activation checkpointing: the same loss and gradient from less memory."""

import copy

import pytest
import torch
from torch import nn

from sightline.core.errors import ConfigError
from sightline.training.memory import blocks_of, checkpointed_blocks


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, 4 * width), nn.Linear(4 * width, width)])

    def forward(self, x):
        hidden = torch.nn.functional.gelu(self.layers[0](x))
        return x + nn.functional.dropout(self.layers[1](hidden), 0.3, self.training)


class Stack(nn.Module):
    def __init__(self, width: int = 16, depth: int = 6) -> None:
        super().__init__()
        self.enter = nn.Linear(8, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, x):
        x = self.enter(x)
        for block in self.blocks:
            x = block(x)
        return x.square().mean()


def kept_bytes(network, x):
    """What the forward pass keeps for the backward pass, beside the weights; and the loss."""
    own = {p.data_ptr() for p in network.parameters()}
    seen = {}

    def keep(tensor):
        if tensor.data_ptr() not in own:
            seen[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = network(x)
    return sum(seen.values()), loss


def test_blocks_are_the_members_of_the_outermost_lists():
    network = Stack(depth=3)
    assert blocks_of(nn.Sequential(network)) == list(network.blocks)


def test_the_loss_and_the_gradients_are_the_same_dropout_included():
    torch.manual_seed(0)
    plain = Stack().double()
    other = copy.deepcopy(plain)
    x = torch.randn(5, 8, dtype=torch.float64)
    torch.manual_seed(1)
    loss = plain(x)
    loss.backward()
    torch.manual_seed(1)
    with checkpointed_blocks(other):
        again = other(x)
        again.backward()
    assert loss.item() == again.item()
    for (name, a), b in zip(plain.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name


def test_it_keeps_a_fraction_of_the_memory():
    network, x = Stack(), torch.randn(64, 8)
    much, _ = kept_bytes(network, x)
    with checkpointed_blocks(network):
        little, _ = kept_bytes(network, x)
    assert little < much / 4


def test_afterwards_the_network_is_as_before():
    network = Stack(depth=2)
    names = list(network.state_dict())
    with checkpointed_blocks(network):
        assert "forward" in vars(network.blocks[0])
        assert list(network.state_dict()) == names
    assert "forward" not in vars(network.blocks[0])
    with checkpointed_blocks(network, wanted=False):
        assert "forward" not in vars(network.blocks[0])


def test_a_network_without_a_stack_is_refused():
    with (
        pytest.raises(ConfigError, match=r"needs a stack of blocks .* Linear has none"),
        checkpointed_blocks(nn.Linear(2, 2)),
    ):
        pass
