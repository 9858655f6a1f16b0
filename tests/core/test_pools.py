"""Pools of threads that generators own."""

import threading
from concurrent.futures import ThreadPoolExecutor

from sightline.core.pools import dismiss
from tests.ended import ends


def test_nobody_waits_for_what_a_dismissed_pool_is_at():
    """Whoever collects garbage may hold what a thread needs to end."""
    release, rescue = threading.Event(), threading.Timer(20, lambda: release.set())
    rescue.start()
    pool = ThreadPoolExecutor(1, thread_name_prefix="held")
    at, waiting = pool.submit(release.wait), pool.submit(lambda: 1)
    dismiss(pool)
    assert not release.is_set(), "it waited"
    assert waiting.cancelled() and not at.done()
    release.set()
    rescue.cancel()
    assert ends("held")
