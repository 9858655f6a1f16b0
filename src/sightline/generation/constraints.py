"""What may be written at all: a Protocol, and the answers of a list."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from sightline.core.errors import ConfigError, InputError


@runtime_checkable
class Constraint(Protocol):
    """A rule about answers. It holds no state: one object serves any number of rows and beams."""

    def allowed(self, ids: Sequence[int]) -> Tensor:
        """bool[V]: which token may follow these of the answer (the prompt is not among them).

        V is at most the width of the network's scores; what is behind it may not follow. Where
        nothing is allowed the answer is complete. End tokens are tokens like others: without them
        an answer cannot end of itself.
        """
        ...


Constraints: TypeAlias = Constraint | Sequence[Constraint | None] | None
"""One rule for all rows, or one for each."""


class Choices:
    """Exactly one of these answers, then an end token.

    A trie: where one answer begins another, the end token decides between them.
    """

    def __init__(
        self, choices: Sequence[Sequence[int]], vocab_size: int, end_ids: Collection[int]
    ) -> None:
        """
        Args:
            choices: each answer as ids, without an end token.
            end_ids: any of which ends an answer.

        Raises:
            ConfigError: no choice, an empty one, an end token within one, or an id outside the
                vocabulary; or no end token where one choice begins another.
        """
        _check_choices(choices, vocab_size, end_ids)
        self.vocab_size, self.end_ids = vocab_size, tuple(end_ids)
        self._next: dict[tuple[int, ...], set[int]] = {}
        for choice in map(tuple, choices):
            for length, token in enumerate(choice):
                self._next.setdefault(choice[:length], set()).add(token)
        for choice in map(tuple, choices):
            if not end_ids and choice in self._next:
                raise ConfigError(
                    f"the choice {list(choice)} begins another one: without an end token nobody "
                    "can tell which was meant; pass end_ids"
                )
            self._next.setdefault(choice, set()).update(end_ids)

    def allowed(self, ids: Sequence[int]) -> Tensor:
        """bool[V]: the next tokens of the choices that begin like that; nothing elsewhere."""
        mask = torch.zeros(self.vocab_size, dtype=torch.bool)
        following = self._next.get(tuple(ids))
        if following:
            mask[list(following)] = True
        return mask


def row_constraints(constraint: Constraints, rows: int) -> list[Constraint | None]:
    """The rule of each row.

    Raises:
        ConfigError: a number of rules that is not the number of rows.
    """
    if constraint is None or isinstance(constraint, Constraint):
        return [constraint] * rows
    if len(constraint) != rows:
        raise ConfigError(
            f"{len(constraint)} constraints for {rows} prompts: pass one for all, or one for each"
        )
    return list(constraint)


def allowed_rows(
    constraints: Sequence[Constraint | None], written: Sequence[Sequence[int]], width: int
) -> Tensor | None:
    """bool[rows, width]: what may follow in each row; None where everything may everywhere.

    Raises:
        InputError: a constraint that answers with something else than booleans for the vocabulary.
    """
    if all(constraint is None for constraint in constraints):
        return None
    allowed = torch.ones(len(written), width, dtype=torch.bool)
    for row, (constraint, ids) in enumerate(zip(constraints, written, strict=True)):
        if constraint is None:
            continue
        mask = constraint.allowed(ids)
        if mask.dtype != torch.bool or mask.ndim != 1 or len(mask) > width:
            raise InputError(
                f"a constraint allows {mask.dtype}{list(mask.shape)}: it must be booleans for at "
                f"most the {width} tokens that the network knows"
            )
        allowed[row, : len(mask)] = mask
        allowed[row, len(mask) :] = False
    return allowed


def _check_choices(
    choices: Sequence[Sequence[int]], vocab_size: int, end_ids: Collection[int]
) -> None:
    if not choices:
        raise ConfigError("no choices: an answer needs at least one to be chosen")
    for choice in choices:
        if not choice:
            raise ConfigError("a choice without tokens: leave empty answers out")
        if not set(end_ids).isdisjoint(choice):
            raise ConfigError(f"the choice {list(choice)} holds an end token: leave it out")
    outside = {t for ids in (*choices, end_ids) for t in ids if not 0 <= t < vocab_size}
    if outside:
        raise ConfigError(f"token {min(outside)} is not in the vocabulary of {vocab_size}")
