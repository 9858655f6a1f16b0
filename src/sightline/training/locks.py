"""One run in a folder at a time."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sightline.core.errors import ConfigError

logger = logging.getLogger(__name__)


@contextmanager
def only_run(out: Path) -> Iterator[None]:
    """Hold the folder for this process; the system lets go of it whenever the process dies.

    Systems without such locks (Windows, some network folders) are not held.

    Raises:
        ConfigError: another process holds it.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with (out / ".lock").open("w") as file:
        try:
            # of the process, not of the open file: forked data workers must not inherit it
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise ConfigError(
                f"another process is training in {out}: wait for it, stop it, or choose another "
                "folder"
            ) from None
        except OSError as error:
            logger.info("%s cannot be locked: %s", out, error)
        yield
