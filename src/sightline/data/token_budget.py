"""Batches of pictures of mixed sizes under a budget of patches.

A batch is a fixed number of rows, each of a fixed number of patches; pictures go into the rows by
first fit, several into one where they are small. The budget, rows times length, is what the network
computes on, and no batch exceeds it. `inputs.packing.pack` puts the same pictures, in the same
order, into the same rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from sightline.core.errors import ConfigError, DataError
from sightline.data.loader import Loader
from sightline.data.worker_processes import Processes
from sightline.data.workers import Decoders
from sightline.inputs.packing import OpenRows

T = TypeVar("T")
B = TypeVar("B")


class _Waiting(NamedTuple):
    """A sample that is drawn and not yet in a batch."""

    place: int
    """In the order of the epoch."""
    number: int
    """In the data set."""
    sample: Any
    patches: int


class TokenBudgetLoader(Loader[B]):
    """A `Loader` whose batches hold as many pictures as the budget of patches allows.

    Every readable picture comes exactly once in an epoch. The last batch of an epoch is as small as
    what remains; `drop_last` leaves it out.
    A picture for which no row has room is set aside and comes first in the next batch. Order,
    batches and randomness depend on (seed, epoch, index) and the sizes alone, never on the number
    of workers, and the state leads to the next batch, bit for bit.

    Args:
        collate: samples, in the order in which first fit placed them, to a batch.
        count: patches of a sample, after `transform`.
        row_length: patches in a row; no picture may have more.
        rows: rows in a batch.
        most_pictures: pictures in a batch at most, however small they are.
        patience: how many pictures may be set aside before a batch is closed. More fill the rows
            better, and are kept in memory.
        workers, transform, on_error, epochs, seed, shuffle, drop_last: as in `Loader`.

    Raises:
        DataError: the data set is empty, or (while iterating) a picture is longer than a row.
        ConfigError: a setting out of its range.
    """

    def __init__(
        self,
        dataset: Sequence[T],
        collate: Callable[[list[Any]], B],
        count: Callable[[Any], int],
        row_length: int,
        rows: int = 1,
        most_pictures: int | None = None,
        patience: int = 8,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        workers: int | Processes = 0,
        transform: Callable[[T, np.random.Generator], Any] | None = None,
        on_error: Literal["skip", "raise"] = "skip",
        epochs: int | None = None,
    ) -> None:  # the size of the rows, and everything that a loader has
        _check_budget(row_length, rows, most_pictures, patience)
        # The base's batch size tells the workers how far to look ahead: one picture a row at least.
        super().__init__(
            dataset, collate, rows, seed, shuffle, drop_last, workers, transform, on_error, epochs
        )
        self.count = count
        self.row_length = row_length
        self.rows = rows
        self.most_pictures = most_pictures
        self.patience = patience
        self._held: list[int] = []

    @property
    def budget(self) -> int:
        """Patches that a batch holds at most: rows times their length."""
        return self.rows * self.row_length

    @property
    def batches_per_epoch(self) -> int:
        """Not known: it depends on the sizes of pictures that nobody has looked at yet.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "how many batches an epoch has depends on the sizes of the pictures: count steps, or "
            "iterate with epochs=1"
        )

    def rewind(self) -> None:
        """Go back to the first batch of the first epoch."""
        super().rewind()
        self._held = []

    def state_dict(self) -> dict[str, Any]:
        """As in `Loader`, with the places of the pictures that were set aside."""
        return {**super().state_dict(), "held": list(self._held)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken; raises as `Loader` does."""
        before = self._epoch, self._position
        super().load_state_dict(state)
        held = state.get("held")
        whole = isinstance(held, list) and all(type(place) is int for place in held)
        if not whole or any(not 0 <= place < self._position for place in held or ()):
            self._epoch, self._position = before
            raise ConfigError(f"the loader's state is damaged: set aside {held!r}")
        self._held = list(held or ())

    def _batches(self, decoders: Decoders, epoch: int, position: int) -> Iterator[tuple[B, int]]:
        order = self._order(epoch)
        places = [*self._held, *range(position, len(order))]
        source = self._samples(decoders, epoch, order, places)
        waiting: deque[_Waiting] = deque()
        while True:
            samples, last, ended = self._fill(waiting, source)
            if not samples or (self.drop_last and ended and not waiting):
                self._held = []
                return
            position = max(position, last + 1)
            batch = self.collate(samples)
            self._held = [item.place for item in waiting]
            yield batch, position

    def _samples(
        self, decoders: Decoders, epoch: int, order: np.ndarray, places: Sequence[int]
    ) -> Iterator[_Waiting]:
        """Readable samples of these places of the order, decoded ahead."""
        numbers = order[np.asarray(places, dtype=np.int64)]
        results = decoders.results(epoch, numbers, self.batch_size)
        for place in places:
            drawn = results(self.batch_size)
            if drawn.error is not None:
                self._skip(drawn.number, drawn.error)
                continue
            yield _Waiting(place, drawn.number, drawn.value, self.count(drawn.value))

    def _fill(
        self, waiting: deque[_Waiting], source: Iterator[_Waiting]
    ) -> tuple[list[Any], int, bool]:
        """The samples of one batch, the last place looked at, and whether the epoch has ended."""
        rows = OpenRows(self.row_length, self.rows)
        samples: list[Any] = []
        aside: list[_Waiting] = []
        last, ended = -1, False
        most = self.most_pictures or self.budget
        while (
            len(samples) < most and len(aside) <= self.patience and sum(rows.filled) < self.budget
        ):
            item = waiting.popleft() if waiting else next(source, None)
            if item is None:
                ended = True
                break
            last = max(last, item.place)
            if self._placed(rows, item):
                samples.append(item.sample)
            else:
                aside.append(item)
        waiting.extendleft(reversed(aside))
        return samples, last, ended

    def _placed(self, rows: OpenRows, item: _Waiting) -> bool:
        try:
            return rows.place(item.patches) is not None
        except ConfigError as error:
            name = getattr(self.dataset[item.number], "id", item.number)
            raise DataError(f"sample {name}: {error}") from None

    def _settings(self) -> dict[str, Any]:
        return {
            **super()._settings(),
            "row_length": self.row_length,
            "rows": self.rows,
            "most_pictures": self.most_pictures,
            "patience": self.patience,
        }


def _check_budget(row_length: int, rows: int, most: int | None, patience: int) -> None:
    values = {"row_length": row_length, "rows": rows, "most_pictures": 1 if most is None else most}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} must be a whole number from 1 on, got {value!r}")
    if isinstance(patience, bool) or not isinstance(patience, int) or patience < 0:
        raise ConfigError(f"patience must be a whole number from 0 on, got {patience!r}")
