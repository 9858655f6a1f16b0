"""Runs in forked children that die of SIGKILL, for test_kill: prints what came out as JSON.

    python killed_runs.py FOLDER

One interpreter imports torch and forks before it computes anything: a run then costs a fifth of
a second instead of three, so every moment of a save can be tried.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch._dynamo  # the optimiser imports it; forked children find it loaded

import sightline.training.loop as loop
from sightline.training import checkpoints
from tests.training import small_run

OPTIONS = loop.LoopOptions(accumulate=2, ema=0.9, eval_every=3, save_every=2, plot=False)
WRITES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.chmod"}


LONG = tuple(replace(stage, steps=6 * stage.steps) for stage in small_run.STAGES)


def run(out: Path, stages: tuple[loop.Stage, ...] = small_run.STAGES) -> None:
    loop.train(
        small_run.network(),
        small_run.Rows(),
        small_run.step,
        stages,
        out,
        OPTIONS,
        small_run.evaluate,
        "accuracy",
        small_run.save_model,
    )


def forked(work: Callable[[], None], die_after: float | None = None) -> int:
    """Do the work in a child, killed after so many seconds; the number of its signal or 0."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    if die_after is not None:
        time.sleep(die_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a run failed with {os.WEXITSTATUS(status)}")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def counting_writes(
    folder: Path, limit: int | None, note: Path | None, run: Callable[[Path], object] = run
) -> Callable[[], None]:
    """A run that dies just before write event number `limit` in its folder, or notes all events."""

    def work() -> None:
        seen: list[str] = []

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            if event not in WRITES or str(folder) not in str(arguments[0]):
                return
            if event == "open" and not int(arguments[2]) & (os.O_WRONLY | os.O_RDWR):  # type: ignore[call-overload]
                return
            seen.append(f"{event} {arguments}")
            if len(seen) == limit:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        run(folder)
        if note is not None:
            note.write_text("\n".join(seen))

    return work


def readable(out: Path) -> bool:
    """Whether every checkpoint under a complete name can be read, and the pointers lead there."""
    root = out / "checkpoints"
    folders = checkpoints.checkpoint_folders(root) if root.is_dir() else []
    for folder in folders:
        checkpoints.read_checkpoint(folder)  # raises when it cannot
    links = [root / name for name in ("last", "best") if (root / name).is_symlink()]
    return all(link.is_dir() for link in links)


def outcome(out: Path) -> dict[str, object]:
    """What must be that of the uninterrupted run, to the last bit."""
    last = checkpoints.read_newest(out / "checkpoints")
    assert last is not None
    return {
        "losses": small_run.losses(out),
        "sha256": json.loads((last.folder / "training/state.json").read_text())["sha256"],
        "best": os.readlink(out / "checkpoints" / "best"),
        "random": last.state["random"],
        "kept": [folder.name for folder in checkpoints.checkpoint_folders(out / "checkpoints")],
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    os.fsync = lambda handle: None  # what a killed process wrote is kept by the system anyway
    # a damaged checkpoint is reported as a warning: here that ends the program
    logging.getLogger("sightline").addHandler(_Refuse(logging.WARNING))
    dice = random.Random(7)
    forked(counting_writes(folder / "whole", None, folder / "writes"))
    writes = len((folder / "writes").read_text().splitlines())
    report: dict[str, object] = {"writes": writes, "whole": outcome(folder / "whole")}

    at_writes = []
    for number in sorted(dice.sample(range(1, writes + 1), 20)):
        out = folder / f"write-{number}"
        killed = forked(counting_writes(out, number, None)) == signal.SIGKILL
        sound = readable(out)
        forked(partial(run, out))
        at_writes.append([number, killed, sound, outcome(out)])
    report["at_writes"] = at_writes

    begun = time.monotonic()
    forked(partial(run, folder / "long", LONG))
    duration = time.monotonic() - begun
    report["long"] = outcome(folder / "long")
    out, kills, sound = folder / "often", 0, True
    for _ in range(20):
        # short enough that the twentieth kill still meets an unfinished run
        kills += forked(partial(run, out, LONG), dice.uniform(0, duration / 10)) != 0
        sound = sound and readable(out)
    forked(partial(run, out, LONG))
    report |= {"often": outcome(out), "often_kills": kills, "often_readable": sound}
    print(json.dumps(report))


class _Refuse(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(record.getMessage() + "\n")
        os._exit(3)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
