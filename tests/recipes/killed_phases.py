"""Runs of two phases that die of SIGKILL inside and between them: prints what came out as JSON.

python killed_phases.py FOLDER
"""

from __future__ import annotations

import json
import signal
import sys
from functools import partial
from pathlib import Path

import torch
import torch._dynamo  # the optimiser imports it; forked children find it loaded

from sightline.recipes import run as one_run
from sightline.recipes.paligemma import train_paligemma
from sightline.training import checkpoints
from tests.recipes.speaking_runs import park_folder, small
from tests.training.killed_runs import counting_writes, forked

FOLDERS = ("1-scratch", "2-alignment")


def outcome(out: Path) -> list[object]:
    """What must be that of the uninterrupted run, to the last bit."""
    found: list[object] = []
    for name in FOLDERS:
        last = checkpoints.read_newest(out / name / "checkpoints")
        assert last is not None
        state = json.loads((last.folder / "training" / "state.json").read_text())
        lines = (out / name / "log.jsonl").read_text().splitlines()
        losses = [json.loads(line).get("loss") for line in lines]
        done = json.loads((out / name / "phase.json").read_text())
        found.append([state["sha256"], losses, done["before"], done["after"]])
    return found


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    one_run.set_threads = lambda count: torch.set_num_threads(1)
    data = park_folder(folder / "parks", "vqa", 6)
    recipe = small(data, phases=("scratch", "alignment"), eval_limit=2)
    run = partial(train_paligemma, recipe)
    note = folder / "writes"
    forked(counting_writes(folder / "whole", None, note, run))
    events = note.read_text().splitlines()
    mark = next(n for n, event in enumerate(events, start=1) if "phase.json" in event)
    moments = {"inside 1": mark // 2, "between": mark, "inside 2": (mark + len(events)) // 2}
    kills = []
    for name, number in moments.items():
        out = folder / f"write-{number}"
        killed = forked(counting_writes(out, number, None, run)) == signal.SIGKILL
        forked(partial(run, out))
        kills.append([name, killed, outcome(out)])
    print(json.dumps({"whole": outcome(folder / "whole"), "kills": kills}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
