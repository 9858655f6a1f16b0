"""How the rows of other devices reach a loss: all at once, or a shard at a time.

A loss takes either as its `gather`. A function brings every device's rows behind and before one's
own, so that each device holds all of them. A `Ring` lets them travel instead: each device hands
the shard it has to the next one and takes the one behind, until every shard has been everywhere
and is home again with its gradient; no device ever holds more than two. Both give the same loss
and, averaged over the devices, the gradient of one process with the joined batch. Every device
brings equally many rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Gather = Callable[[Tensor], Tensor]
"""float[B, D] of this device to float[all B, D] of all devices in their order, with gradient."""


def alone(rows: Tensor) -> Tensor:
    """The gather of a single process: what is here is all there is."""
    return rows


@dataclass(frozen=True)
class Ring:
    """Devices in a circle (Zhai et al. 2023, arXiv:2303.15343, section 3.3).

    The loss moves gradients along with the rows they belong to and computes them in its forward
    pass: its backward pass says nothing to the others. Every device must therefore weigh its loss
    alike, which a loop that averages gradients over its devices does.
    """

    rank: int
    """This device's place; shards of lower ranks come first in the joined batch."""
    size: int
    pass_on: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
    """Hands tensors to rank + 1 and returns those of rank - 1, of the same shapes and types.

    All devices call it equally often; no gradient passes through it."""
