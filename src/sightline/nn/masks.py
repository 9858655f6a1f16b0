"""Attention masks. True means: this query (row) may attend to that key (column).

causal(4)          key_padding([3, 2], 4)
1 . . .            1 1 1 .    (first sequence, the same for each query)
1 1 . .            1 1 . .    (second)
1 1 1 .
1 1 1 1

same_owner([[0, 0, 1, -1]])
1 1 . .
1 1 . .
. . 1 .
. . . 1     (padding sees padding, so that no row is empty: softmax over nothing is not a number)
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def causal(length: int, device: torch.device | None = None) -> Bool[Tensor, "L L"]:
    """Each position sees itself and what came before."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def key_padding(lengths: Int[Tensor, " B"], length: int) -> Bool[Tensor, "B 1 1 L"]:
    """Nobody sees the keys at or behind the sequence's own length."""
    positions = torch.arange(length, device=lengths.device)  # [L]
    return (positions < lengths[:, None])[:, None, None]  # [B 1 1 L]


def present_keys(present: Bool[Tensor, "B L"]) -> Bool[Tensor, "B 1 1 L"]:
    """Nobody sees the keys that are not present."""
    return present[:, None, None]  # [B 1 1 L]


def same_owner(owners: Int[Tensor, "B L"]) -> Bool[Tensor, "B 1 L L"]:
    """Sequences packed into one row see themselves and not each other (block-diagonal)."""
    return (owners[:, :, None] == owners[:, None, :])[:, None]  # [B 1 L L]
