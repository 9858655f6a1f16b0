"""One writer in a store at a time, on one machine; readers never wait."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

LOCK = "lock"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Wait until nobody else writes, and hold the store for the time of one commit.

    Lance lets two writers race and one of them try again, which is right for object stores but may
    put in twice a row that both found missing. The system lets go of the lock when the process
    dies. Where there are none (Windows, some network folders), Lance's own way is left.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with (folder / LOCK).open("w") as file:
        try:
            # Of the open file, not of the process: two threads are two writers as well.
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            logger.info("%s cannot be locked: %s", folder, error)
        yield
