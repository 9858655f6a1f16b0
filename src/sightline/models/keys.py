"""Tables of checkpoint names: published spelling to a network's own, and back."""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


class KeyTable:
    """A one-to-one renaming, written with `*` for one component of a dotted name.

    Args:
        pairs: published pattern to own pattern, with the same number of stars.
        ignored: published patterns that are knowingly left out (buffers of old writers).
    """

    def __init__(self, pairs: Mapping[str, str], ignored: Iterable[str] = ()) -> None:
        for published, own in pairs.items():
            assert published.count("*") == own.count("*"), (published, own)
        self._reading = [(_regex(published), own) for published, own in pairs.items()]
        self._writing = [(_regex(own), published) for published, own in pairs.items()]
        self._ignored = [_regex(pattern) for pattern in ignored]

    def read(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Published names to own ones; unknown names pass unchanged, ignored ones are left out."""
        return {
            _rename(key, self._reading): tensor
            for key, tensor in state.items()
            if not any(pattern.fullmatch(key) for pattern in self._ignored)
        }

    def write(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Own names to published ones; unknown names pass unchanged."""
        return {_rename(key, self._writing): tensor for key, tensor in state.items()}


def encoder_keys(published: str, own: str) -> dict[str, str]:
    """The pairs of one transformer tower, as the CLIP and SigLIP files spell it.

    Args:
        published: the tower's name in the file, "vision_model".
        own: the tower's name in the network, "image".
    """
    layer, block = f"{published}.encoder.layers.*", f"{own}.transformer.blocks.*"
    return {
        f"{layer}.layer_norm1.*": f"{block}.norm1.*",
        f"{layer}.self_attn.q_proj.*": f"{block}.attention.q.*",
        f"{layer}.self_attn.k_proj.*": f"{block}.attention.k.*",
        f"{layer}.self_attn.v_proj.*": f"{block}.attention.v.*",
        f"{layer}.self_attn.out_proj.*": f"{block}.attention.out.*",
        f"{layer}.layer_norm2.*": f"{block}.norm2.*",
        f"{layer}.mlp.fc1.*": f"{block}.mlp.fc1.*",
        f"{layer}.mlp.fc2.*": f"{block}.mlp.fc2.*",
    }


def split_thirds(
    state: Mapping[str, Tensor], endings: Mapping[str, tuple[str, str, str]]
) -> dict[str, Tensor]:
    """The state with each fused tensor cut along its first axis into its three equal parts.

    Args:
        endings: end of a fused name to the ends of its parts, such as ".attn.qkv.weight" to those
            of queries, keys and values. A tensor that three does not divide stays whole, for the
            loader to report.
    """
    split: dict[str, Tensor] = {}
    for name, tensor in state.items():
        ending = next((e for e in endings if name.endswith(e)), None)
        if ending is None or tensor.ndim == 0 or len(tensor) % 3:
            split[name] = tensor
            continue
        for part, third in zip(endings[ending], tensor.chunk(3), strict=True):
            split[name.removesuffix(ending) + part] = third
    return split


def join_thirds(
    state: Mapping[str, Tensor], endings: Mapping[str, tuple[str, str, str]]
) -> dict[str, Tensor]:
    """The inverse of `split_thirds`."""
    firsts = {parts[0]: (ending, parts) for ending, parts in endings.items()}
    others = tuple(part for _, *rest in endings.values() for part in rest)
    joined: dict[str, Tensor] = {}
    for name, tensor in state.items():
        first = next((part for part in firsts if name.endswith(part)), None)
        if first is not None:
            ending, parts = firsts[first]
            owner = name.removesuffix(first)
            joined[owner + ending] = torch.cat([state[owner + part] for part in parts])
        elif not name.endswith(others):
            joined[name] = tensor
    return joined


def with_batch_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with a batch counter of 0 beside every running mean that came without one.

    Writers before PyTorch 0.4.1, and networks with frozen statistics, store none.
    """
    complete = dict(state)
    for name in state:
        owner, _, kind = name.rpartition(".")
        if kind == "running_mean":
            complete.setdefault(f"{owner}.num_batches_tracked", torch.tensor(0))
    return complete


def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(r"([^.]+)".join(re.escape(part) for part in pattern.split("*")))


def _rename(key: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, target in rules:
        match = pattern.fullmatch(key)
        if match:
            first, *rest = target.split("*")
            return first + "".join(
                value + text for value, text in zip(match.groups(), rest, strict=True)
            )
    return key
