"""Runs in one process and in two forked ones, for test_parallel: prints what came out as JSON.

    python -m tests.training.shared_runs compare FOLDER [--all]
    python -m tests.training.shared_runs fail FOLDER
    python -m tests.training.shared_runs kill FOLDER KILLS [--quiet]

One interpreter imports torch and forks before it computes anything: joining two processes then
takes a fraction of a second.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch._dynamo  # the optimiser imports it; forked children find it loaded

from sightline.core.errors import DataError
from sightline.training import checkpoints, sharding
from sightline.training.distributed import EndedByAnotherError, first, rank
from sightline.training.processes import loopback_socket, processes
from tests.training import shared_run as runs

assert sharding  # imported before the forks, like all that takes long


def children(work: Callable[[], object], count: int, say: Path | None = None) -> list[int]:
    """Fork processes that do the work together; their numbers.

    What one ends with is printed, or written beside `say`; nothing where another said it first.
    """
    with loopback_socket() as free:
        port = free.getsockname()[1]
    started = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                numbers = {"RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
                os.environ.update({name: str(value) for name, value in numbers.items()})
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
                with processes("cpu"):
                    work()
                code = 0
            except EndedByAnotherError:
                pass
            except BaseException as error:
                if say is not None:
                    say.with_name(f"{say.name} {number}").write_text(str(error))
                elif "--quiet" not in sys.argv:
                    traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        started.append(child)
    return started


def together(work: Callable[[], object], count: int = 2) -> None:
    """Do the work in so many processes; 1 is a process by itself."""
    if count == 1:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        ids = [child]
    else:
        ids = children(work, count)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in ids]
    if any(codes):
        raise SystemExit(f"processes ended with {codes}")


WRITES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.chmod"}
KINDS = {"alone": (1, "auto"), "ddp": (2, "ddp"), "fsdp": (2, "fsdp")}
FEW = ("cached", "weighted", "lora")


def compare(folder: Path, everything: bool) -> None:
    """Scenarios alone, as replicas and in shards; and resumed with another number."""
    scenarios = {**runs.SCENARIOS, **runs.MISTAKES}
    for name in scenarios if everything else FEW:
        for kind, (count, parallel) in KINDS.items():
            together(partial(runs.run, scenarios[name], folder / name / kind, parallel), count)
    scenario = runs.SCENARIOS["cached"]
    for before in KINDS:
        for after in KINDS:
            if everything or (before, after) in (("alone", "fsdp"), ("fsdp", "alone")):
                out = folder / "resumed" / f"{before} {after}"
                for kind, stop_at in ((before, 4), (after, None)):
                    count, parallel = KINDS[kind]
                    together(partial(runs.run, scenario, out, parallel, stop_at), count)


def dying(folder: Path, scenario: runs.Scenario, victim: int, limit: int) -> None:
    """A run in which one process dies of SIGKILL just before its write number `limit`."""
    seen = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in WRITES or rank() != victim or str(folder) not in str(arguments[0]):
            return
        if event == "open" and not int(arguments[2]) & (os.O_WRONLY | os.O_RDWR):  # type: ignore[call-overload]
            return
        seen += 1
        if seen == limit:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    runs.run(scenario, folder, "fsdp", None, 1)


def kill(folder: Path, kills: int) -> None:
    """Kill one of two processes that train in shards, again and again, at random writes."""
    dice = random.Random(11)
    scenario = runs.SCENARIOS["cached"]
    if kills > 2:  # long enough that the last kill still meets an unfinished run
        longer = tuple(replace(stage, steps=6 * stage.steps) for stage in scenario.stages)
        scenario = replace(scenario, stages=longer)
    together(partial(runs.run, scenario, folder / "whole", "fsdp", None, 1))
    out, hit = folder / "killed", 0
    for _ in range(kills):
        victim = dice.randrange(2)  # the second process writes its shard and nothing else
        limit = dice.randint(1, 40) if victim == 0 else dice.randint(1, 2)
        ids = children(partial(dying, out, scenario, victim, limit), 2)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in ids]
        hit += codes[victim] == -signal.SIGKILL and codes[1 - victim] == 1
        for found in checkpoints.checkpoint_folders(out / "checkpoints"):
            checkpoints.read_checkpoint(found)  # raises when it cannot
    together(partial(runs.run, scenario, out, "fsdp", None, 1))
    print(json.dumps({"hit": hit, "kills": kills}))


def failing(what: str) -> None:
    if what == "one fails" and rank() == 1:
        raise DataError("the picture is gone")
    if what == "both fail":
        raise DataError("the list is empty")
    if what == "first fails":
        first(lambda: open("/does/not/exist"))
    if what == "one dies" and rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    first(lambda: None)


def failures(folder: Path) -> None:
    """What each of two processes ends with when something fails."""
    report = {}
    for what in ("one fails", "both fail", "first fails", "one dies"):

        def work(what: str = what) -> None:
            failing(what)

        begun = time.monotonic()
        ids = children(work, 2, folder / what)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in ids]
        said = [path.read_text() for path in sorted(folder.glob(f"{what}*"))]
        report[what] = {"codes": codes, "said": said, "seconds": time.monotonic() - begun}
    print(json.dumps(report))


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.fsync = lambda handle: None
    if sys.argv[1] == "compare":
        compare(Path(sys.argv[2]), "--all" in sys.argv)
    elif sys.argv[1] == "fail":
        failures(Path(sys.argv[2]))
    else:
        kill(Path(sys.argv[2]), int(sys.argv[3]))
