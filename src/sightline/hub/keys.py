"""Whether the tensors of a checkpoint fit a network, all of them, and what to say if not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sightline.core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

_LISTED = 12
_WRAPPERS = ("module.", "_orig_mod.", "model.")
"""Levels that distributed training, compilation and enclosing classes put around every name."""


def without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the levels that are in front of every one of their names."""
    names = dict.fromkeys(state, "")
    prefix = ""
    while names:
        level = next((w for w in _WRAPPERS if all(n.startswith(prefix + w) for n in names)), "")
        if not level:
            break
        prefix += level
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def own_state(
    read_state: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    published: Mapping[str, Tensor],
    source: str,
) -> dict[str, Tensor]:
    """Published tensors under the network's own names, for any spelling of the levels in front.

    Raises:
        CheckpointError: shapes that the system's own reading cannot take apart.
    """
    try:
        return read_state(without_wrappers(published))
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{source}: tensors of unexpected shapes ({reason})") from None


def check_state(network: nn.Module, state: Mapping[str, Tensor], source: str, system: str) -> None:
    """Refuse unless the tensors are those of a network, see `check_tensors`.

    Args:
        network: the network that expects the tensors; the meta device will do.
        state: tensors by the network's own names.
        source: the file or folder, for the message.
        system: the system's name, for the message.

    Raises:
        CheckpointError: with a list of what is missing (-), unexpected (+) or different (!).
    """
    check_tensors(dict(network.state_dict()), state, source, system)


def check_tensors(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str, system: str
) -> None:
    """Refuse unless names, shapes and kinds of numbers agree exactly.

    Raises:
        CheckpointError: with a list of what is missing (-), unexpected (+) or different (!).
    """
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    different = [
        f"  ! {name}: {_kind(state[name])} in the file, {_kind(expected[name])} in the network"
        for name in expected
        if name in state and _differs(state[name], expected[name])
    ]
    if not (missing or unexpected or different):
        return
    lines = [
        f"{source}: the weights do not fit {system}: {len(missing)} missing (-), "
        f"{len(unexpected)} unexpected (+), {len(different)} different (!)"
    ]
    lines += _shortened([f"  - {name} {_kind(expected[name])}" for name in missing])
    lines += _shortened([f"  + {name} {_kind(state[name])}" for name in unexpected])
    lines += _shortened(different)
    if part := _absent_part(expected, missing):
        lines.append(
            f"nothing of '{part}' is in the file: it holds only a part of the model, fetch the "
            "whole one"
        )
    raise CheckpointError("\n".join(lines))


def _differs(given: Tensor, expected: Tensor) -> bool:
    return (
        given.shape != expected.shape
        or given.is_floating_point() != expected.is_floating_point()
        or given.is_complex()
    )


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _shortened(lines: Sequence[str]) -> list[str]:
    if len(lines) <= _LISTED:
        return list(lines)
    mark = lines[0][:4]
    return [*lines[:_LISTED], f"{mark}... and {len(lines) - _LISTED} more"]


def _absent_part(expected: Mapping[str, Tensor], missing: Sequence[str]) -> str | None:
    """The first part of the network of which not one tensor is there, while others are."""
    if len(missing) == len(expected):
        return None
    sizes: dict[str, int] = {}
    for name in expected:
        part = name.partition(".")[0]
        sizes[part] = sizes.get(part, 0) + 1
    for name in missing:
        part = name.partition(".")[0]
        sizes[part] -= 1
    return next((part for part, left in sizes.items() if left == 0), None)
