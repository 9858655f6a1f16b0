"""Errors written for the person who will read them.

Each message says what arrived, what is allowed, and what to do next.

    SightlineError
    ├── InputError (also ValueError)        something the caller handed in
    │   ├── ImageError                      a picture that cannot be read; has `.code`
    │   ├── AddressError                    an address that may not or could not be fetched
    │   ├── TextError                       text that a tokenizer cannot take
    │   └── DataError                       a data set that cannot be read or is ambiguous
    ├── ConfigError (also ValueError)       a setting that does not exist or does not fit
    ├── UnsupportedTaskError                the model cannot do what was asked
    ├── CheckpointError                     weights or their description do not fit the network
    │   └── UnsafeCheckpointError           weights that would run code when opened
    ├── TrainingError                       a training run cannot start or go on
    ├── HubError                            a model could not be fetched
    │   ├── HubOfflineError                 no connection
    │   ├── HubAccessError                  gated, or a wrong or missing token
    │   ├── HubNotFoundError                deleted, renamed or misspelt
    │   └── HubDiskError                    no room or no right to write the cache
    ├── StoreError                      vectors on disk that cannot be read or written
    │   └── DamagedStoreError               its newest state is broken: it has to be repaired first
    └── MissingDependencyError (also ImportError)   an optional package is not installed
"""

from collections.abc import Iterable


class SightlineError(Exception):
    """Base of every error that is meant for the user of the library."""


class InputError(SightlineError, ValueError):
    """Something the caller handed in cannot be used."""


class ImageError(InputError):
    """A picture that cannot be read.

    `code` is stable and machine-readable: `image_empty`, `image_undecodable`,
    `image_truncated`, `image_too_large`, `image_unsupported`, `image_not_found`.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (str(self), self.code)  # pickle would forget the code, and fail


class AddressError(InputError):
    """An address that may not be fetched, or that did not answer as it should."""


class TextError(InputError):
    """Text that a tokenizer cannot take."""


class DataError(InputError):
    """A data set that cannot be read, is empty, or could be read in more than one way."""


class ConfigError(SightlineError, ValueError):
    """A setting that does not exist or whose value does not fit."""


class UnsupportedTaskError(SightlineError):
    """The model cannot do what was asked; the message names models which can."""


class CheckpointError(SightlineError):
    """Weights, or the files that describe them, do not fit the network."""


class UnsafeCheckpointError(CheckpointError):
    """Weights in a format that can run code when it is opened."""


class TrainingError(SightlineError):
    """A training run cannot start or go on; the message names its last good checkpoint."""


class HubError(SightlineError):
    """A model could not be fetched."""


class HubOfflineError(HubError):
    """The hub cannot be reached and the files are not in the cache."""


class HubAccessError(HubError):
    """The repository is gated, or the token is missing or wrong."""


class HubNotFoundError(HubError):
    """The repository, revision or file does not exist."""


class HubDiskError(HubError):
    """There is no room, or no right, to write the files."""


class StoreError(SightlineError):
    """Vectors on disk cannot be read or written; what was committed before is still there."""


class DamagedStoreError(StoreError):
    """The newest state of a store is broken; the message names the command that repairs it."""


class MissingDependencyError(SightlineError, ImportError):
    """An optional package is not installed."""


def nearest(word: str, allowed: Iterable[str], count: int = 3) -> list[str]:
    """The allowed words closest to a misspelt one, best first; empty when none is close."""
    from difflib import get_close_matches

    by_lower = {name.lower(): name for name in allowed}
    return [by_lower[m] for m in get_close_matches(word.lower(), by_lower, n=count, cutoff=0.5)]


def unknown_name(kind: str, word: str, allowed: Iterable[str]) -> str:
    """One line for an unknown name: what arrived, the nearest allowed names, or all of them."""
    names = sorted(allowed)
    close = nearest(word, names)
    hint = f"did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    known = ", ".join(names)
    return f"unknown {kind} {word!r}: {hint or 'known are ' + known}"
