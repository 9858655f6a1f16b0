"""Joining the processes that train together, and leaving them in good order.

    torchrun --nproc-per-node 2 -m sightline train siglip --data FOLDER --out RUN
    sightline train siglip --data FOLDER --out RUN --processes 2

Both start the same program several times and say through the environment (RANK, WORLD_SIZE,
MASTER_ADDR, ...) who is who and where to meet. The meeting point, a `TCPStore` of torch, asks for
no password: whoever reaches its port can take part. What is opened here stays on the loopback
address on one machine. The store that `torchrun` opens answers on every network interface; that
cannot be changed from here, and is said as a warning.

The first process that fails leaves its message at the meeting point, so that the others end with
it instead of a broken connection.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from sightline.core.errors import ConfigError, TrainingError
from sightline.training.distributed import EndedByAnotherError, joined, message_of

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
PATIENCE = timedelta(hours=1)
"""How long processes wait for each other: an evaluation or a save of the first one must fit."""
FAREWELL = 5.0
"""Seconds that a failing process keeps the meeting point open for the others to hear why."""
NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_FAILURE = "sightline/failure"


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is, and where they meet."""

    rank: int
    size: int
    host: str
    port: int
    on_one_machine: bool

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Place | None:
        """What torchrun says in the environment; None where nothing is said.

        Raises:
            ConfigError: something is missing or no number.
        """
        if "RANK" not in environment and "WORLD_SIZE" not in environment:
            return None
        missing = [name for name in NAMES if not environment.get(name)]
        if missing:
            raise ConfigError(
                f"the environment names a process of several but lacks {', '.join(missing)}: start "
                "with torchrun, or unset RANK and WORLD_SIZE to train in one process"
            )
        try:
            rank, size, port = (int(environment[n]) for n in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
            here = int(environment.get("LOCAL_WORLD_SIZE") or 0)
        except ValueError:
            given = ", ".join(f"{name}={environment[name]!r}" for name in NAMES)
            raise ConfigError(f"the environment says {given}: these must be numbers") from None
        if not 0 <= rank < size:
            raise ConfigError(f"RANK {rank} is not below WORLD_SIZE {size}: start with torchrun")
        host = environment["MASTER_ADDR"]
        return cls(rank, size, host, port, here == size or (not here and is_loopback(host)))


@contextmanager
def processes(device: str = "auto") -> Iterator[None]:
    """Within the block this process is one of those that torchrun started.

    Started alone, or joined already, the block changes nothing. Tensors of a GPU travel over NCCL,
    the rest over gloo; each process takes the GPU of its number on the machine.

    Raises:
        ConfigError: the environment is incomplete, or has fewer GPUs than processes.
        EndedByAnotherError: another process failed first.
    """
    place = None if joined() else Place.from_environment(os.environ)
    if place is None:
        yield
        return
    uses_cuda = _choose_gpu(device)
    with _interfaces(place):
        store = _meet(place)
        try:
            with _failures_told(store, place):  # another may fail while this one still joins
                dist.init_process_group(
                    "cpu:gloo,cuda:nccl" if uses_cuda else "gloo",
                    store=_under("torch", store),
                    rank=place.rank,
                    world_size=place.size,
                    timeout=PATIENCE,
                )
                yield
        finally:
            if joined():
                dist.destroy_process_group()


def is_loopback(host: str) -> bool:
    """Whether an address or name means this machine and cannot be reached from another."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def listening(port: int, tables: Path = Path("/proc/net")) -> list[str]:
    """The addresses on which somebody on this machine listens at a port; empty where unknown."""
    found = []
    for name in ("tcp", "tcp6"):
        try:
            rows = (tables / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            address, _, number = fields[1].partition(":")
            if fields[3] == "0A" and int(number, 16) == port:  # 0A: listening
                # words of four bytes in the machine's own order
                words = [address[i : i + 8] for i in range(0, len(address), 8)]
                raw = b"".join(int(w, 16).to_bytes(4, sys.byteorder) for w in words)
                found.append(str(ipaddress.ip_address(raw)))
    return found


def loopback_socket() -> socket.socket:
    """A socket that listens at a free port of the loopback address alone."""
    server = socket.socket()
    server.bind((LOOPBACK, 0))
    server.listen(128)
    return server


def _meet(place: Place) -> dist.Store:
    """The store at the meeting point, opened by the first process unless its launcher did."""
    serve = _serves(place)
    descriptor = None
    if serve and is_loopback(place.host):
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((LOOPBACK, place.port))
        server.listen(128)
        descriptor = server.detach()
    store = dist.TCPStore(  # type: ignore[attr-defined]
        place.host, place.port, place.size, is_master=serve, wait_for_workers=False,
        master_listen_fd=descriptor, timeout=PATIENCE,
    )  # fmt: skip
    if place.rank == 0:
        _tell_address(place)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return _under(f"sightline/{attempt}", store)


def _serves(place: Place) -> bool:
    """Whether this process opens the meeting point, which ends with it then."""
    return place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def _under(prefix: str, store: dist.Store) -> dist.Store:
    """The store, with a prefix before every key."""
    return dist.PrefixStore(prefix, store)  # type: ignore[attr-defined]


def _tell_address(place: Place) -> None:
    bound = listening(place.port) or [place.host]
    where = " and ".join(f"{address} port {place.port}" for address in bound)
    logger.info("%d processes meet at %s", place.size, where)
    if any(not is_loopback(address) for address in bound):
        logger.warning(
            "the processes meet at %s, which other machines may reach and which asks for no "
            "password: close the port to strangers%s",
            where,
            ", or start with 'sightline train ... --processes N', which stays on the loopback "
            "address"
            if place.on_one_machine
            else "",
        )


@contextmanager
def _interfaces(place: Place) -> Iterator[None]:
    """On one machine, tensors travel over the loopback interface and no other."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    wanted = [name for name in _INTERFACES if place.on_one_machine and name not in os.environ]
    os.environ.update(dict.fromkeys(wanted, loopback))
    try:
        yield
    finally:
        for name in wanted:
            del os.environ[name]


def _choose_gpu(device: str) -> bool:
    """Take the GPU of this process's number on the machine; whether there is one to take."""
    if device.partition(":")[0] not in ("auto", "cuda") or not torch.cuda.is_available():
        return False
    if ":" in device:
        raise ConfigError(
            f"device {device!r} is one GPU and several processes train together: write cuda, each "
            "process takes its own"
        )
    number, present = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= present:
        raise ConfigError(
            f"process {number} of this machine has no GPU of its own, there are {present}: start "
            f"at most {present} processes, or use device=cpu"
        )
    torch.cuda.set_device(number)
    return True


@contextmanager
def _failures_told(store: dist.Store, place: Place) -> Iterator[None]:
    """Of one failure, one message: that of the process where it began."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:
            raise
        own = f"{place.rank}: {_own_message(error)}"
        told = own
        try:
            if not isinstance(error, EndedByAnotherError):
                told = store.compare_set(_FAILURE, "", own).decode()
            _let_others_ask(store, place)
        except (RuntimeError, dist.DistError) as gone:  # the meeting point as well
            logger.debug("nobody could be told: %s", gone)
        if told != own:
            number, _, message = told.partition(": ")
            raise EndedByAnotherError(f"process {number} failed first: {message}") from error
        if broke_off(error):
            raise TrainingError(_own_message(error)) from error
        raise


def _let_others_ask(store: dist.Store, place: Place) -> None:
    """Keep the meeting point open until the others have heard of the failure, or for `FAREWELL`."""
    ended, deadline = store.add("sightline/ended", 1), time.monotonic() + FAREWELL
    while _serves(place) and ended < place.size and time.monotonic() < deadline:
        time.sleep(0.05)
        ended = store.add("sightline/ended", 0)


def _own_message(error: BaseException) -> str:
    if not broke_off(error):
        return message_of(error)
    return (
        "another of the processes that train together has ended without a word (killed, or out of "
        "memory?): give the same command again, it goes on from the last checkpoint"
    )


def broke_off(error: BaseException) -> bool:
    """Whether an error only says that another process can no longer be reached."""
    if isinstance(error, dist.DistError):
        return True
    signs = ("connection closed by peer", "connection reset by peer", "broken pipe", "gloo")
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in signs)
