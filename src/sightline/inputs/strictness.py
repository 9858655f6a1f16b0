"""Pillow without its warnings and without its tolerance, from any number of threads.

Pillow reports damage through `warnings`, and a switch that many training scripts set
(`ImageFile.LOAD_TRUNCATED_IMAGES`) makes it fill what is missing with grey. Both are global to the
process, so the first reader in sets them and the last one out puts them back.
"""

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from PIL import ImageFile

_lock = threading.Lock()
_readers = 0
_restore = ExitStack()


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Within the block Pillow raises on truncated data and warns about nothing."""
    _enter()
    try:
        # from Python 3.14 filters can belong to a thread; then each reader sets its own
        if getattr(sys.flags, "context_aware_warnings", False):
            with _quiet():
                yield
        else:
            yield
    finally:
        _leave()


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\b")
        yield


@contextmanager
def _complete_only() -> Iterator[None]:
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _enter() -> None:
    global _readers
    with _lock:
        _readers += 1
        if _readers == 1:
            _restore.enter_context(_quiet())
            _restore.enter_context(_complete_only())


def _leave() -> None:
    global _readers
    with _lock:
        _readers -= 1
        if _readers == 0:
            _restore.close()
