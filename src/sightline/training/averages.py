"""The exponential moving average of the weights over the steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sightline.training.shards import fill, local


class WeightAverage:
    """A float32 shadow of every parameter that may learn (float64 for float64 parameters).

    After update number n, counted from 0, shadow = d * shadow + (1 - d) * weight with
    d = min(decay, (1 + n) / (10 + n)): early in a run the average forgets its random beginning
    faster. Buffers, such as batch-norm statistics, are averages already and are not shadowed.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {
            name: parameter.detach().clone().to(_precise(parameter))
            for name, parameter in network.named_parameters()
            if parameter.is_floating_point() and parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after update number `step`, counted from 0 over the whole run."""
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        for name, parameter in network.named_parameters():
            if name in self.shadow:
                shadow = local(self.shadow[name])
                # lerp leaves a weight that never changes exactly as it is
                shadow.lerp_(local(parameter).to(shadow.dtype), weight)

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Within the block the network carries the averaged weights; then its own, bit for bit."""
        own = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
        try:
            _fill(network, self.shadow)
            yield
        finally:
            _fill(network, own)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from saved shadows."""
        for name, shadow in self.shadow.items():
            fill(shadow, tensors[name])


@torch.no_grad()
def _fill(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, parameter in network.named_parameters():
        if name in tensors:
            parameter.copy_(tensors[name])


def _precise(parameter: Tensor) -> torch.dtype:
    return torch.float64 if parameter.dtype == torch.float64 else torch.float32
