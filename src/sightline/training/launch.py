"""Starting a program several times on this machine, with everything on the loopback address.

`torchrun` does the same and more (several machines, restarts), but the store at which its processes
meet answers on every network interface.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch.distributed as dist

from sightline.core.devices import available_cores
from sightline.core.errors import ConfigError
from sightline.training.processes import LOOPBACK, loopback_socket

GRACE = 30.0
"""Seconds from one process's failure, or from a second request to stop, to the others' end."""


def launch(command: Sequence[str], count: int) -> int:
    """Run a command as `count` processes that train together; the exit code of the first to fail.

    SIGTERM and Ctrl-C go on to all of them. When one fails the others are asked to end, and made
    to after `GRACE` seconds.

    Raises:
        ConfigError: fewer than one process, or called inside such a process.
    """
    if count < 1:
        raise ConfigError(f"{count} processes: start at least one")
    if "RANK" in os.environ:
        raise ConfigError(
            "this process is one of several already: use torchrun or --processes, not both"
        )
    server = loopback_socket()
    port = server.getsockname()[1]
    store = dist.TCPStore(  # type: ignore[attr-defined]
        LOOPBACK, port, is_master=True, wait_for_workers=False, master_listen_fd=server.detach()
    )
    started: list[subprocess.Popen[bytes]] = []
    with _passed_on(started):
        try:
            for rank in range(count):
                environment = os.environ | _environment(rank, count, port)
                started.append(subprocess.Popen(command, env=environment))
            return _wait(started)
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                process.wait()
            del store


def _environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun would say to the process."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, available_cores() // count))
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    return {name: str(number) for name, number in numbers.items()} | {
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": threads,
    }


def _wait(started: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for all; the code of the first that failed, as a shell writes it, or 0."""
    first, deadline = 0, None
    while True:
        codes = [process.poll() for process in started]
        failed = [code for code in codes if code]
        if failed and not first:
            first, deadline = failed[0], time.monotonic() + GRACE
            for process in started:
                if process.poll() is None:
                    process.terminate()
        if None not in codes:
            return first if first >= 0 else 128 - first
        if deadline is not None and time.monotonic() > deadline:
            for process in started:
                if process.poll() is None:
                    process.kill()
        time.sleep(0.02)


@contextmanager
def _passed_on(started: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Within the block SIGTERM goes on to the processes; a terminal gives them Ctrl-C itself."""

    def tell(number: int, frame: FrameType | None) -> None:
        for process in started:
            if process.poll() is None:
                process.terminate()

    def stay(number: int, frame: FrameType | None) -> None:
        """They stop by themselves, and this process reports how."""

    before = [signal.signal(signal.SIGTERM, tell), signal.signal(signal.SIGINT, stay)]
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
