"""One network in several processes: alone, as replicas, or in shards.

- `Alone`: one process; everything as torch does it.
- `Replicas` ("ddp"): each process has the whole network and a share of the batch; gradients are
  averaged before the update (Li et al. 2020, "PyTorch Distributed", arXiv:2006.15704).
- `Shards` ("fsdp", in `sharding`): each process keeps a part of every weight, moment and average.

The loop asks these for what differs, and is otherwise the same for one process and for many. All
give the same losses and weights for the same whole batch.

Replicas average after the last backward pass of a step, where torch's wrapper would do so during
it: a step may then run any number of forward and backward passes (gradient caching runs two of
each), use the scale outside of `forward`, and leave any parameter unused.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sightline.core.errors import ConfigError, unknown_name
from sightline.training import checkpoints
from sightline.training.averages import WeightAverage
from sightline.training.distributed import first, joined, rank, total, world_size
from sightline.training.options import PARALLEL
from sightline.training.snapshot import load_weights
from sightline.training.stages import set_modes

logger = logging.getLogger(__name__)

BUCKET_BYTES = 25 * 2**20
"""Gradients that travel together."""

COMPILERS = ("c++", "g++", "clang++", "cl")
"""Of which torch needs one to compile for a CPU."""

SaveModel = Callable[[nn.Module, Path], None]


def _can_compile(network: nn.Module) -> bool:
    on_cpu = all(parameter.device.type == "cpu" for parameter in network.parameters())
    return not on_cpu or any(map(shutil.which, COMPILERS))


def wrap(network: nn.Module, kind: str = "auto") -> Alone:
    """The network as the group's processes will train it.

    Args:
        kind: "auto" (replicas where there are several processes), "none", "ddp" or "fsdp". With
            "fsdp" the network is sharded in place, for good.

    Raises:
        ConfigError: an unknown kind, or one that the number of processes does not allow.
    """
    if kind not in PARALLEL:
        raise ConfigError(unknown_name("parallel", kind, PARALLEL))
    if kind == "none" and world_size() > 1:
        raise ConfigError(
            f"parallel='none' in {world_size()} processes would train {world_size()} networks in "
            "one folder: use ddp or fsdp, or start one process"
        )
    if kind == "fsdp":
        if not joined():
            raise ConfigError(
                "parallel='fsdp' shares a network among processes and this one is alone: start "
                "with torchrun or --processes N, or use parallel=auto"
            )
        from sightline.training.sharding import Shards

        return Shards(network)
    return Replicas(network) if world_size() > 1 else Alone(network)


class Alone:
    """A network in one process."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._compiled: nn.Module | None = None

    def check_stage(self) -> None:
        """Refuse what cannot learn in several processes, once flags and modes are set.

        Raises:
            ConfigError: a batch norm learns, whose statistics would be those of a share.
        """

    def compiled(self) -> nn.Module:
        """The network as `torch.compile` makes it, or with those parts compiled that it names.

        As it is where torch would need a C++ compiler and finds none.
        """
        if self._compiled is None and not _can_compile(self.network):
            logger.info("no C++ compiler: not compiled, which can take twice as long")
            self._compiled = self.network
        if self._compiled is None:
            parts: Callable[[], Iterable[nn.Module]] | None
            parts = getattr(self.network, "parts_to_compile", None)
            if parts is None:
                self._compiled = torch.compile(self.network)  # type: ignore[assignment]
            else:
                for part in parts():
                    part.compile()
                self._compiled = self.network
        assert self._compiled is not None
        return self._compiled

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Make every gradient the mean over the processes."""

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> float:
        """Cut the gradient down to a norm of `limit`; its norm before."""
        return float(nn.utils.clip_grad_norm_(parameters, limit))

    @contextmanager
    def whole(self, average: WeightAverage | None) -> Iterator[nn.Module | None]:
        """The network as others will meet it: whole, averaged weights, eval mode, no gradients.

        None in all processes but the first.
        """
        if rank() != 0:
            yield None
            return
        with average.applied(self.network) if average else nullcontext(), torch.no_grad():
            self.network.eval()
            try:
                yield self.network
            finally:
                set_modes(self.network)

    def write(
        self,
        folder: Path,
        tensors: Mapping[str, Tensor],
        documents: checkpoints.Documents,
        save_model: SaveModel | None,
        average: WeightAverage | None,
    ) -> None:
        """Write a checkpoint; every process calls this, the first one writes.

        Raises:
            TrainingError: the disk is full or may not be written to.
        """

        def fill(temporary: Path) -> None:
            assert save_model is not None
            with self.whole(average) as network:
                assert network is not None
                save_model(network, temporary)

        first(
            lambda: checkpoints.write_checkpoint(
                folder, tensors, *documents, None if save_model is None else fill
            )
        )

    def newest(self, root: Path) -> checkpoints.Checkpoint | None:
        """The newest checkpoint that can be read; None where there is none.

        Raises:
            CheckpointError: there are some and none can be read.
        """
        return checkpoints.read_newest(root)

    def load_weights(self, tensors: Mapping[str, Tensor], folder: Path) -> None:
        """Put saved weights into the network.

        Raises:
            CheckpointError: they are those of another network.
        """
        load_weights(self.network, tensors, folder)


class Replicas(Alone):
    """The whole network in each process; all begin with the first one's weights."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        same_beginning(network)

    def check_stage(self) -> None:
        refuse_batch_norm(self.network)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        average_gradients(parameters)

    def newest(self, root: Path) -> checkpoints.Checkpoint | None:
        return newest_of_all(root, checkpoints.load_tensors_of)


def newest_of_all(root: Path, load: checkpoints.LoadTensors) -> checkpoints.Checkpoint | None:
    """The checkpoint that the first process finds to be whole, loaded in every process."""

    def name() -> str | None:
        found = checkpoints.read_newest(root, tensors=False)
        return None if found is None else found.folder.name

    folder = first(name)
    if folder is None:
        return None
    return checkpoints.read_checkpoint(root / folder, checked=True, load_tensors=load)


@torch.no_grad()
def same_beginning(network: nn.Module) -> None:
    """Give every process the first one's parameters and buffers."""
    for tensor in [*network.parameters(), *network.buffers()]:
        whole = tensor.detach().contiguous()
        dist.broadcast(whole, 0)
        tensor.copy_(whole)


def refuse_batch_norm(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise ConfigError(
                f"{name or 'the network'} is a batch norm that learns: in {world_size()} processes "
                f"its statistics would be those of a share of the batch. Freeze it (freeze="
                f"{name}.*), or train in one process"
            )


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes.

    A parameter that only some processes used counts as zero in the others; one that none used
    keeps no gradient, as in a single process.
    """
    used = total([0.0 if p.grad is None else 1.0 for p in parameters])
    for parameter, count in zip(parameters, used, strict=True):
        if count and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [p.grad for p in parameters if p.grad is not None]
    travelling: list[tuple[list[Tensor], Tensor, Any]] = []
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket]).div_(world_size())
        travelling.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
    for bucket, flat, work in travelling:
        work.wait()
        for gradient, mean in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type and device, up to `BUCKET_BYTES` together."""
    bucket: list[Tensor] = []
    size, kind = 0, None
    for gradient in gradients:
        own = (gradient.dtype, gradient.device)
        if bucket and (own != kind or size + gradient.nbytes > BUCKET_BYTES):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size, kind = size + gradient.nbytes, own
    if bucket:
        yield bucket


def cut(gradients: Sequence[Tensor], norm: Tensor, limit: float) -> None:
    """Scale gradients in place so that their common norm is at most `limit`."""
    if gradients and math.isfinite(limit):
        scale = (limit / (norm + 1e-6)).clamp(max=1.0)  # as torch's clip_grad_norm_
        torch._foreach_mul_(list(gradients), scale)
