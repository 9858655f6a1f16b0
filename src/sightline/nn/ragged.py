"""Sequences of different lengths in one rectangular tensor, and where each element lies in it.

Letters of this file: S, all elements of all sequences, one sequence behind the other.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def places_of(owners: Int[Tensor, "R L"], total: int) -> Int[Tensor, " S"]:
    """Flat places in [R L] of every element, sequence by sequence, each in its own order.

    Args:
        owners: which sequence an element belongs to, from 0; -1 for padding.
        total: S, how many elements are not padding.
    """
    order = owners.flatten().argsort(stable=True)  # [R*L], padding first
    return order[len(order) - total :]  # [S]


def gather_rows(x: Float[Tensor, "R L D"], places: Int[Tensor, " S"]) -> Float[Tensor, "S D"]:
    """The elements at flat places."""
    return x.flatten(0, 1)[places]  # [S D]


def add_at(
    x: Float[Tensor, "R L D"], places: Int[Tensor, " S"], values: Float[Tensor, "S D"]
) -> Float[Tensor, "R L D"]:
    """`x` with `values` added at flat places; everything else is unchanged."""
    return x.flatten(0, 1).index_add(0, places, values.to(x.dtype)).unflatten(0, x.shape[:2])


def spread(
    rows: Float[Tensor, "S D"], lengths: Int[Tensor, " B"]
) -> tuple[Float[Tensor, "B P D"], Bool[Tensor, "B P"]]:
    """One sequence a row, zeros behind each, P being the longest; and where there is something."""
    most = int(lengths.max())
    present = torch.arange(most) < lengths.cpu()[:, None]  # [B P]
    present = present.to(rows.device)
    batch = rows.new_zeros(*present.shape, rows.shape[1])  # [B P D]
    places = present.flatten().nonzero()[:, 0]  # [S]
    return batch.flatten(0, 1).index_copy(0, places, rows).unflatten(0, present.shape), present
