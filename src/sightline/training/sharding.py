"""A network in shards: every process keeps its part of each weight, moment and average.

Zhao et al. 2023, "PyTorch FSDP" (arXiv:2304.11277), through torch's `fully_shard`: a block's
weights are gathered when it runs, forward and backward, and let go of afterwards; gradients are
averaged and scattered as the backward pass produces them. Parameters of one element (a logit's
scale and bias) stay whole in every process, because losses use them outside of `forward`.

Shards, gathers and sums are in the type of the weights: autocast alone decides what products are
computed in, and a lowered sum of gradients would be no sum any more.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from sightline.core.errors import ConfigError
from sightline.training import checkpoints
from sightline.training.averages import WeightAverage
from sightline.training.distributed import exchange, first, rank, world_size
from sightline.training.memory import blocks_of
from sightline.training.parallel import (
    Alone,
    SaveModel,
    average_gradients,
    cut,
    newest_of_all,
    refuse_batch_norm,
    same_beginning,
)
from sightline.training.shard_files import load_shards, on_the_cpu, save_shards
from sightline.training.shards import fill
from sightline.training.snapshot import refuse_other_weights


class Shards(Alone):
    """A network of which every process keeps a part."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        same_beginning(network)
        self._copy = _empty_copy(network) if rank() == 0 else None
        shard(network)

    def check_stage(self) -> None:
        refuse_batch_norm(self.network)

    def compiled(self) -> nn.Module:
        """The network with every block compiled on its own, between the gathers."""
        if self._compiled is None:
            for block in blocks_of(self.network):
                block.compile()
            self._compiled = self.network
        return self._compiled

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        # shards were averaged in the backward pass
        average_gradients([p for p in parameters if not isinstance(p, DTensor)])

    @torch.no_grad()
    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> float:
        gradients = [p.grad for p in parameters if p.grad is not None]
        parts = [g.to_local() for g in gradients if isinstance(g, DTensor)]
        whole = [g for g in gradients if not isinstance(g, DTensor)]
        device = next(self.network.parameters()).device
        square = nn.utils.get_total_norm(parts).to(device) ** 2
        dist.all_reduce(square)
        norm = (square + nn.utils.get_total_norm(whole).to(device) ** 2).sqrt()
        cut(parts, norm, limit)
        cut(whole, norm, limit)
        return float(norm)

    @contextmanager
    def whole(self, average: WeightAverage | None) -> Iterator[nn.Module | None]:
        """A copy of the network in the first process, filled from all of them."""
        weights = self._gathered(average)
        if self._copy is None:
            yield None
            return
        empty = {n: tensor for n, tensor in self._copy.state_dict().items() if n in weights}
        for name, buffer in self._copy.named_buffers():
            buffer.copy_(self.network.get_buffer(name))
        self._copy.load_state_dict(weights, strict=False, assign=True)
        try:
            with torch.no_grad():
                yield self._copy.eval()
        finally:
            self._copy.load_state_dict(empty, strict=False, assign=True)

    @torch.no_grad()
    def _gathered(self, average: WeightAverage | None) -> dict[str, Tensor]:
        """Every parameter by name, whole; empty in all processes but the first."""
        shadow = {} if average is None else average.shadow
        seen: dict[int, Tensor] = {}
        gathered: dict[str, Tensor] = {}
        for name, parameter in self.network.named_parameters(remove_duplicate=False):
            if id(parameter) not in seen:
                part = shadow.get(name, parameter.detach()).to(parameter.dtype)
                full = part.full_tensor() if isinstance(part, DTensor) else part.clone()
                seen[id(parameter)] = full if rank() == 0 else torch.empty(0)
            gathered[name] = seen[id(parameter)]
        return gathered if rank() == 0 else {}

    def write(
        self,
        folder: Path,
        tensors: Mapping[str, Tensor],
        documents: checkpoints.Documents,
        save_model: SaveModel | None,
        average: WeightAverage | None,
    ) -> None:
        with self.whole(average) as network, ExitStack() as stack:

            def write_model(temporary: Path) -> None:
                if save_model is not None:
                    assert network is not None
                    save_model(network, temporary)

            place = Path(first(lambda: str(checkpoints.begin_shards(stack, folder, write_model))))
            inner = place / checkpoints.SHARDS
            save_shards(tensors, inner)
            names = sorted(path.name for path in inner.iterdir())
            own = names[rank() :: world_size()]
            sums = exchange({name: checkpoints.sha256_of(inner / name) for name in own})
            digests = {name: digest for part in sums for name, digest in part.items()}
            first(lambda: checkpoints.end_shards(stack, folder, place, digests, documents))

    def newest(self, root: Path) -> checkpoints.Checkpoint | None:
        parameters = dict(self.network.named_parameters(remove_duplicate=False))

        def part(name: str, empty: Tensor) -> Tensor:
            own = parameters.get(parameter_of(name))
            if isinstance(own, DTensor) and own.shape == empty.shape:
                return torch.empty_like(own.detach(), dtype=empty.dtype)
            return on_the_cpu(name, empty)

        def load(folder: Path, document: Mapping[str, Any]) -> dict[str, Tensor]:
            return checkpoints.load_tensors_of(
                folder, document, lambda inner: load_shards(inner, part, alone=False)
            )

        return newest_of_all(root, load)

    def load_weights(self, tensors: Mapping[str, Tensor], folder: Path) -> None:
        own = self.network.state_dict()
        refuse_other_weights(own, tensors, folder)
        for name, tensor in tensors.items():
            fill(own[name], tensor)


def parameter_of(name: str) -> str:
    """The parameter that a tensor of a checkpoint belongs to."""
    part, _, rest = name.partition("/")
    return rest.rpartition("/")[0] if part == "optimiser" else rest


def shard(network: nn.Module) -> None:
    """Shard every stacked block, and what is left as one more part, over all processes.

    Raises:
        ConfigError: a weight is shared by two parts.
    """
    device = next(network.parameters()).device
    mesh = init_device_mesh(device.type, (world_size(),))
    small = {parameter for parameter in network.parameters() if parameter.numel() == 1}
    blocks = blocks_of(network)
    _refuse_shared(network, blocks)
    coarse = any(p.dtype in (torch.bfloat16, torch.float16) for p in network.parameters())
    policy = MixedPrecisionPolicy(
        reduce_dtype=torch.float32 if coarse else None, cast_forward_inputs=False
    )
    for module in (*blocks, network):
        # also the outermost part: what stays gathered would be stale after the next update
        fully_shard(
            module, mesh=mesh, reshard_after_forward=True, mp_policy=policy, ignored_params=small
        )


def _empty_copy(network: nn.Module) -> nn.Module:
    """A copy of a network with its buffers, and parameters that take no memory."""
    parameters = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False)
        for p in network.parameters()
    }
    return copy.deepcopy(network, memo=dict(parameters))


def _refuse_shared(network: nn.Module, blocks: Sequence[nn.Module]) -> None:
    names = {id(p): n for n, p in network.named_parameters()}
    owners: dict[int, nn.Module] = {}
    for block in blocks:
        for parameter in block.parameters():
            if owners.setdefault(id(parameter), block) is not block:
                raise ConfigError(
                    f"{names[id(parameter)]} is shared by two blocks, which fsdp cannot shard: "
                    "use parallel=ddp"
                )
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    members = {id(module) for block in blocks for module in block.modules()}
    for path, module in network.named_modules():
        for parameter in [] if id(module) in members else module.parameters(recurse=False):
            if id(parameter) in inside:
                raise ConfigError(
                    f"{path or type(module).__name__} shares a weight with a block, which fsdp "
                    "cannot shard: use parallel=ddp"
                )
