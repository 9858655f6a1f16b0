"""Whether the threads of a pool end, which nobody waits for."""

from __future__ import annotations

import threading
import time


def ends(prefix: str, seconds: float = 20) -> bool:
    """Whether all threads whose names begin so are gone before long."""
    limit = time.monotonic() + seconds
    while any(thread.name.startswith(prefix) for thread in threading.enumerate()):
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    return True
