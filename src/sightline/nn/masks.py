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

prefix_causal(queries 0..3, prefix 2)      the same, windows of 2      a further token, 4
1 1 . .                                    1 1 . .                     1 1 1 1 1
1 1 . .                                    1 1 . .
1 1 1 .                                    . 1 1 .
1 1 1 1                                    . . 1 1
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


def same_owner(
    owners: Int[Tensor, "B L"], shared: Bool[Tensor, "B L"] | None = None
) -> Bool[Tensor, "B 1 L L"]:
    """Sequences packed into one row see themselves and not each other (block-diagonal).

    Args:
        shared: elements that every sequence of the row sees, whoever owns them.
    """
    seen = owners[:, :, None] == owners[:, None, :]  # [B L L]
    if shared is not None:
        seen = seen | shared[:, None]
    return seen[:, None]  # [B 1 L L]


def prefix_causal(
    queries: Int[Tensor, "B L"],
    keys: Int[Tensor, "B S"] | Int[Tensor, "1 S"],
    prefix: Int[Tensor, "B P"] | None = None,
    window: int | None = None,
) -> Bool[Tensor, "B 1 L S"]:
    """A prefix that sees itself in both directions, and what follows it from left to right.

    Liu et al. 2018 (arXiv:1801.10198); for pictures and questions PaliGemma (arXiv:2407.07726,
    section 3.2). Without a prefix, causal.

    Args:
        queries: positions in their own sequence.
        keys: the same of the keys.
        prefix: positions below this one are prefix; one for each row, or for each of its elements
            where several sequences share a row.
        window: a query outside of the prefix sees so many positions at most, its own included.
    """
    q, k = queries[:, :, None], keys[:, None]  # [B L 1], [B 1 S]
    allowed = k <= q  # [B L S]
    if window is not None:
        allowed = allowed & (k > q - window)
    if prefix is not None:
        allowed = allowed | ((q < prefix[:, :, None]) & (k < prefix[:, None]))
    return allowed[:, None]  # [B 1 L S]
