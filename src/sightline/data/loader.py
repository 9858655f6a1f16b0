"""Batches in a seeded order that can be left and taken up again anywhere.

Threads decode (Pillow and torch release the interpreter's lock), so nothing is pickled, forked or
left behind. Pictures so small that most of the work on them is the interpreter's own want
`Processes`. The order of results never depends on the kind of workers, or how many there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, TypeGuard, TypeVar

import numpy as np

from sightline.core.errors import ConfigError, DataError, ImageError
from sightline.data.shares import Draws, Share
from sightline.data.worker_processes import ProcessDecoders, Processes
from sightline.data.workers import Decoders, Draw, ThreadDecoders

log = logging.getLogger(__name__)

T = TypeVar("T")
B = TypeVar("B")

STATE_FORMAT = "sightline.loader"
STATE_VERSION = 1
_ORDER = 0  # spawn key of an epoch's order; `workers.SAMPLE` is that of its samples


class Loader(Generic[B]):
    """An iterator over batches whose state can be saved after any batch.

    The state counts the batches that were handed out, not those prepared ahead: after batch k it
    leads to batch k + 1, bit for bit, with any number of workers. Order and randomness depend on
    (seed, epoch, index) alone.

    A picture that cannot be read is left out and the next one drawn in its place, so that batches
    stay full; it is counted in `skipped` and in the report of the data set. An iteration starts
    where the state stands; only the latest of several iterations over one loader is valid.

    Args:
        collate: samples to a batch; runs in the caller's thread.
        drop_last: leave out the rest of an epoch that fills no batch.
        workers: threads that decode, or `Processes`. Threads run ahead of the caller only where
            workers and torch's threads together fit the cores; otherwise they work while the caller
            waits, so that the two never compete. 0 decodes in the caller's thread.
        transform: applied to a sample together with a generator of its own.
        on_error: "skip" leaves out pictures that cannot be read, "raise" stops at the first.
        epochs: how many epochs in all, resumed ones included; None never ends.
        share: of several processes, which part of every batch this one takes; `batch_size` counts
            the batch of all. The state is that of a single process.

    Raises:
        DataError: the data set is empty, or smaller than a batch although `drop_last` is on.
        ConfigError: a setting out of its range.
    """

    def __init__(
        self,
        dataset: Sequence[T],
        collate: Callable[[list[Any]], B],
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        workers: int | Processes = 0,
        transform: Callable[[T, np.random.Generator], Any] | None = None,
        on_error: Literal["skip", "raise"] = "skip",
        epochs: int | None = None,
        share: Share | None = None,
    ) -> None:
        if share is not None:
            share.check(batch_size, drop_last)
        _check_settings(batch_size, seed, workers, on_error, epochs)
        self.dataset: Sequence[Any] = dataset
        self.collate = collate
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.workers = workers
        self.transform: Callable[[Any, np.random.Generator], Any] | None = transform
        self.on_error = on_error
        self.epochs = epochs
        self.share = share
        self.skipped: dict[str, str] = {}
        """Pictures left out so far, by the record's id (or the index), with the reason."""
        self._epoch = 0
        self._position = 0
        self._fingerprint: str | None = None
        self._check_size()

    @property
    def batches_per_epoch(self) -> int:
        """Batches in an epoch without broken pictures."""
        whole = len(self.dataset) / self.batch_size
        return math.floor(whole) if self.drop_last else math.ceil(whole)

    @property
    def epoch(self) -> int:
        """The epoch, from 0, that the next batch is drawn from."""
        return self._epoch

    def rewind(self) -> None:
        """Go back to the first batch of the first epoch."""
        self._epoch = self._position = 0

    def state_dict(self) -> dict[str, Any]:
        """JSON values from which `load_state_dict` goes on with the next batch."""
        state = {"format": STATE_FORMAT, "version": STATE_VERSION}
        return {**state, **self._settings(), "epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken; it holds from the next iteration on.

        Raises:
            DataError: the data set is another one than then.
            ConfigError: other settings, a newer version, or not a loader's state.
        """
        if state.get("format") != STATE_FORMAT:
            raise ConfigError(f"not the state of a loader: format {state.get('format')!r}")
        if state.get("version") != STATE_VERSION:
            raise ConfigError(
                f"the loader's state has version {state.get('version')!r}, this Sightline reads "
                f"{STATE_VERSION}: update Sightline, or start the run anew"
            )
        self._check_same(state)
        epoch, position = state.get("epoch"), state.get("position")
        if not _is_count(epoch) or not _is_count(position) or position > len(self.dataset):
            raise ConfigError(f"the loader's state is damaged: epoch {epoch!r}, place {position!r}")
        self._epoch, self._position = epoch, position

    def __iter__(self) -> Iterator[B]:
        with self._decoders() as decoders:
            empty_from = self._epoch if self._position == 0 else self._epoch + 1
            while self.epochs is None or self._epoch < self.epochs:
                epoch = self._epoch
                yielded = False
                for batch, position in self._batches(decoders, epoch, self._position):
                    self._position = position
                    yielded = True
                    yield batch
                if not yielded and epoch >= empty_from:
                    raise DataError(
                        f"too few pictures can be read for one batch of {self.batch_size}: "
                        f"{len(self.skipped)} of {len(self.dataset)} were left out; the first: "
                        f"{next(iter(self.skipped.values()), '')}"
                    )
                self._epoch, self._position = epoch + 1, 0

    def _batches(self, decoders: Decoders, epoch: int, position: int) -> Iterator[tuple[B, int]]:
        """The batches of one epoch from a place in its order, each with the place behind it."""
        order = self._order(epoch)
        if self.share is not None:
            yield from self._shared(self.share, decoders, epoch, order, position)
            return
        results = decoders.results(epoch, order[position:], self.batch_size)
        while True:
            room = len(order) - position
            if room == 0 or (self.drop_last and room < self.batch_size):
                return
            samples: list[Any] = []
            while len(samples) < self.batch_size and position < len(order):
                drawn = results(self.batch_size - len(samples))
                position += 1
                if drawn.error is None:
                    samples.append(drawn.value)
                else:
                    self._skip(drawn.number, drawn.error)
            if not samples or (self.drop_last and len(samples) < self.batch_size):
                return
            yield self.collate(samples), position

    def _shared(
        self, share: Share, decoders: Decoders, epoch: int, order: np.ndarray, position: int
    ) -> Iterator[tuple[B, int]]:
        draw = Draw(self.dataset, self.transform, self.seed)
        draws = Draws(share, self.batch_size, epoch, order, draw, self._skip)
        results, expected = draws.ahead(decoders, position), position
        while len(order) - position >= self.batch_size:
            if position != expected:  # a broken picture has moved everything behind it
                results = draws.ahead(decoders, position)
            found = draws.next(results, position)
            if found is None:
                return
            expected = position + self.batch_size
            samples, position = found
            yield self.collate(samples), position

    def _order(self, epoch: int) -> np.ndarray:
        """int64[len(dataset)]: the indices of an epoch."""
        count = len(self.dataset)
        if not self.shuffle:
            return np.arange(count)
        own = getattr(self.dataset, "epoch_order", None)
        if own is not None:  # data that lies in shards, or is mixed, knows which order suits it
            return own(self.seed, epoch)
        key = np.random.SeedSequence(self.seed, spawn_key=(_ORDER, epoch))
        return np.random.default_rng(key).permutation(count)

    def _decoders(self) -> ThreadDecoders | ProcessDecoders:
        draw = Draw(self.dataset, self.transform, self.seed)
        if isinstance(self.workers, Processes):
            return ProcessDecoders(draw, self.workers.count)
        return ThreadDecoders(draw, self.workers)

    def _skip(self, index: int, error: ImageError) -> None:
        if self.on_error == "raise":
            raise error
        name = str(index)
        with contextlib.suppress(ImageError):  # a data set may decode when indexed
            name = str(getattr(self.dataset[index], "id", index))
        known = name in self.skipped
        self.skipped[name] = str(error)
        note = getattr(self.dataset, "note_broken", None)
        if note is not None:
            note(name, str(error))
        elif not known:
            log.warning("sample %s is left out: %s", name, error)

    def _settings(self) -> dict[str, Any]:
        if self._fingerprint is None:
            self._fingerprint = _fingerprint(self.dataset)
        return {"seed": self.seed, "batch_size": self.batch_size, "shuffle": self.shuffle,
                "drop_last": self.drop_last, "length": len(self.dataset),
                "fingerprint": self._fingerprint}  # fmt: skip

    def _check_same(self, state: Mapping[str, Any]) -> None:
        own = self._settings()
        if state.get("length") != own["length"]:
            raise DataError(
                f"the data set has changed: {state.get('length')} records then, {own['length']} "
                "now: restore it, or start the run anew"
            )
        if state.get("fingerprint") != own["fingerprint"]:
            raise DataError(
                "the data set has changed: as many records, but other ids, captions, labels or "
                "order: restore it, or start the run anew"
            )
        changed = [
            f"{name} {state.get(name)!r} then, {own[name]!r} now"
            for name in own
            if name not in ("length", "fingerprint") and state.get(name) != own[name]
        ]
        if changed:
            raise ConfigError(f"the loader cannot go on with other settings: {'; '.join(changed)}")

    def _check_size(self) -> None:
        count = len(self.dataset)
        if count == 0:
            raise DataError("the data set is empty: nothing to load")
        if self.drop_last and count < self.batch_size:
            raise DataError(
                f"the data set has {count} records, fewer than one batch of {self.batch_size}: "
                "use a smaller batch size, or more data"
            )


def _check_settings(
    batch_size: int, seed: int, workers: int | Processes, on_error: str, epochs: int | None
) -> None:
    if not _is_count(batch_size) or batch_size < 1:
        raise ConfigError(f"batch_size must be a whole number from 1 on, got {batch_size!r}")
    threads = 0 if isinstance(workers, Processes) else workers
    for name, value in (("seed", seed), ("workers", threads), ("epochs", epochs or 0)):
        if not _is_count(value):
            raise ConfigError(f"{name} must be a whole number from 0 on, got {value!r}")
    if on_error not in ("skip", "raise"):
        raise ConfigError(f"on_error must be 'skip' or 'raise', got {on_error!r}")


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _fingerprint(dataset: Sequence[Any]) -> str:
    """The data set's own fingerprint, or one of its type and length."""
    own = getattr(dataset, "fingerprint", None)
    if isinstance(own, str):
        return own
    text = f"{type(dataset).__qualname__} {len(dataset)}"
    return hashlib.sha256(text.encode()).hexdigest()
