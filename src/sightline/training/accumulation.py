"""The gradient of a big batch from micro-batches that fit into memory.

A step takes the network and the micro-batches of one update, adds their gradients to the
parameters (which arrive without any) and says what the loss was. Two kinds cover the objectives:
losses that are sums over examples or tokens, and losses over all pairs of a batch.

Where several processes train together, each step sees its own share of the batch; the mean over
the processes of its gradients, loss and metrics must be those of the whole batch. Steps made by
`accumulate` are so; pair losses are so when they gather (`objectives.contrastive`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sightline.core.errors import DataError
from sightline.training import distributed
from sightline.training.batches import Batch, count_pictures
from sightline.training.randomness import restore_torch, torch_state


@dataclass(frozen=True)
class StepResult:
    """What one optimiser step saw."""

    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    pictures: int = 0


def merged(result: StepResult) -> StepResult:
    """What all processes saw in one step: the mean of losses and metrics, the sum of pictures.

    Every process reports metrics of the same names.
    """
    if distributed.world_size() == 1:
        return result
    names = sorted(result.metrics)
    own = [result.loss, *(float(result.metrics[name]) for name in names), float(result.pictures)]
    loss, *means, pictures = distributed.total(own)
    count = distributed.world_size()
    metrics = {name: mean / count for name, mean in zip(names, means, strict=True)}
    return StepResult(loss / count, metrics, int(pictures))


class WeightedLoss(NamedTuple):
    """A loss that is a sum over examples or tokens, and their number."""

    sum: Tensor
    """float[]: the sum, not the mean."""
    weight: Tensor | float
    """Number of examples or supervised tokens that the sum runs over."""
    metrics: Mapping[str, Tensor | float] = {}
    """Further means over the same examples, for the log."""


Step = Callable[[nn.Module, list[Batch]], StepResult]
LossFunction = Callable[[nn.Module, Batch], WeightedLoss]
Embed = Callable[[nn.Module, Batch], tuple[Tensor, ...]]
PairLoss = Callable[[nn.Module, tuple[Tensor, ...]], Tensor]


def accumulate(loss_fn: LossFunction, pictures: Callable[[Batch], int] = count_pictures) -> Step:
    """A step for losses that are sums: its gradient is that of the joined micro-batches.

    Sums are added up first and divided by the weight of all micro-batches once: a mean of means
    would weigh every token of a short micro-batch more.

    Raises:
        DataError: (by the step) the micro-batches carry no weight at all.
    """

    def step(network: nn.Module, batches: list[Batch]) -> StepResult:
        total, weight, metrics = 0.0, 0.0, dict[str, float]()
        for batch in batches:
            part = loss_fn(network, batch)
            own = float(part.weight)
            # of all processes, for each: the mean over them is then the mean over everything
            share = distributed.total([own])[0] / distributed.world_size()
            # one micro-batch is divided before its backward pass, as a plain mean would be
            backward(part.sum / share if len(batches) == 1 and share > 0 else part.sum)
            total += part.sum.item()
            weight += share
            for name, value in part.metrics.items():
                metrics[name] = metrics.get(name, 0.0) + float(value) * own
        if weight <= 0:
            raise DataError(
                "the batches of this step carry no weight (no example, or every target masked): "
                "leave such examples out of the data set"
            )
        if len(batches) > 1:
            _divide_gradients(network, weight)
        means = {name: value / weight for name, value in metrics.items()}
        return StepResult(total / weight, means, sum(map(pictures, batches)))

    return step


def cached_contrastive(
    embed: Embed, loss: PairLoss, pictures: Callable[[Batch], int] = count_pictures
) -> Step:
    """A step for losses over all pairs of the joined batch, with the memory of one micro-batch.

    Gradient caching (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory
    Limited Setup", arXiv:2101.06983, section 3.2): embed every micro-batch without a graph, take
    the loss and its gradient with respect to the embeddings, then embed again with a graph and
    send those gradients through. The second pass replays the random state of the first, so
    dropout agrees. `loss` may use parameters of the network (scale and bias). One micro-batch
    takes the plain way and does nothing twice.

    `embed` may return whatever the loss needs row by row, not embeddings alone: labels, weights,
    the vectors of hard negatives. Each is joined along its first axis, which may be longer or
    shorter than the pictures; what carries no gradient arrives as it is. With a `gather` or a
    ring in the loss, every process joins its own micro-batches first.

    Batch norm in training mode would update its statistics twice, and never sees the joined
    batch: freeze it or use one micro-batch.
    """

    def step(network: nn.Module, batches: list[Batch]) -> StepResult:
        if len(batches) == 1:
            value = loss(network, embed(network, batches[0]))
            backward(value)
        else:
            value = _cached_backward(network, batches, embed, loss)
        return StepResult(value.item(), {}, sum(map(pictures, batches)))

    return step


def backward(loss: Tensor | Sequence[Tensor], gradients: Sequence[Tensor] | None = None) -> None:
    """The backward pass, outside any autocast.

    Under autocast the products of the backward pass of a float32 loss would be lowered too.
    """
    outputs = [loss] if isinstance(loss, Tensor) else list(loss)
    kinds = {tensor.device.type for tensor in outputs}
    with torch.autocast(kinds.pop() if kinds else "cpu", enabled=False):
        torch.autograd.backward(outputs, None if gradients is None else list(gradients))


def _cached_backward(
    network: nn.Module, batches: list[Batch], embed: Embed, loss: PairLoss
) -> Tensor:
    states, rows = [], []
    device = next((p.device for p in network.parameters()), None)
    with torch.no_grad():
        for batch in batches:
            states.append(torch_state(device))
            rows.append(embed(network, batch))
    # where torch remembers casts made without a graph, they would cut the second pass off
    torch.clear_autocast_cache()
    columns = [torch.cat(parts) for parts in zip(*rows, strict=True)]
    for column in columns:
        column.requires_grad_(column.is_floating_point())
    value = loss(network, tuple(columns))
    backward(value)
    after = torch_state(device)
    gradients = [
        _gradient(column).split([len(part) for part in parts])
        for column, parts in zip(columns, zip(*rows, strict=True), strict=True)
    ]
    for index, batch in enumerate(batches):
        restore_torch(states[index])
        pairs = zip(embed(network, batch), gradients, strict=True)
        # the output of a frozen tower has no graph
        linked = [(output, column[index]) for output, column in pairs if output.requires_grad]
        if linked:
            backward([output for output, _ in linked], [gradient for _, gradient in linked])
    restore_torch(after)
    return value.detach()


def _gradient(column: Tensor) -> Tensor:
    return torch.zeros_like(column) if column.grad is None else column.grad


@torch.no_grad()
def _divide_gradients(network: nn.Module, weight: float) -> None:
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    for gradient in gradients:
        gradient.div_(weight)
