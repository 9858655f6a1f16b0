"""`make mutants`: draw, plant, run, report."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from tests.mutation import planting
from tests.mutation.lines import Lines, fingerprint, measured
from tests.mutation.planting import PACKAGE, ROOT, Mutant
from tests.mutation.trial import Outcome, control, prepare, trials

FOLDER = ROOT / "build" / "mutants"


def main(words: Sequence[str] | None = None) -> int:
    """Returns 1 where the share caught is below what is asked for."""
    chosen = _parser().parse_args(words)
    rooms = chosen.rooms.split(",")
    tests = chosen.tests.split(",") if chosen.tests else [f"tests/{room}" for room in rooms]
    everything = planting.mutants(rooms)
    drawn = planting.sample(everything, chosen.sample or len(everything), chosen.seed)
    world = fingerprint(*sorted(_sources()), *tests, str(chosen.budget))
    lines = measured(FOLDER, tests)
    kept = FOLDER / "results.jsonl"
    if chosen.fresh:
        kept.unlink(missing_ok=True)
    known = _known(kept, world)
    left = [mutant for mutant in drawn if mutant.id not in known]
    if left:
        known |= _run(left, lines, chosen.budget, chosen.jobs, kept, world)
    return _tell([(mutant, known[mutant.id]) for mutant in drawn], len(everything), chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.mutation", description=__doc__)
    parser.add_argument("--sample", type=int, default=300, help="how many; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rooms", default="models,nn,objectives")
    parser.add_argument("--tests", help="folders or files; default: those of the rooms")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--budget", type=float, default=30, help="seconds of tests a mutant")
    parser.add_argument("--least", type=float, default=0.9, help="share that must be caught")
    parser.add_argument("--fresh", action="store_true", help="forget earlier outcomes")
    parser.add_argument("--report", type=Path, default=FOLDER / "report.md")
    return parser


def _run(
    left: Sequence[Mutant], lines: Lines, budget: float, jobs: int, kept: Path, world: str
) -> dict[str, Outcome]:
    """Try those that are left; each outcome is on disk before the next one ends."""
    prepare(lines.modules)
    passed = FOLDER / f"control-{world}"
    console = Console(stderr=True)
    with Progress(console=console) as progress, kept.open("a") as file:
        bar = progress.add_task("unchanged", total=None)
        if not passed.exists():
            control(lines)
            passed.touch()
        progress.update(bar, description="mutants", total=len(left))
        found = {}
        for mutant, outcome in trials(left, lines, budget, jobs):
            found[mutant.id] = outcome
            proof = _proof(mutant, outcome, world)
            file.write(json.dumps({"id": mutant.id, "proof": proof, **asdict(outcome)}) + "\n")
            file.flush()
            if not outcome.caught:
                progress.console.print(
                    f"{mutant.id} {mutant.path}:{mutant.line} {mutant.before} → {mutant.after}",
                    markup=False, highlight=False,
                )  # fmt: skip
            progress.advance(bar)
    return found


def _tell(
    results: Sequence[tuple[Mutant, Outcome]], planted: int, chosen: argparse.Namespace
) -> int:
    from tests.mutation import report  # after the trials, whose processes import the library anew

    command = f"make mutants SAMPLE={chosen.sample} SEED={chosen.seed} ROOMS={chosen.rooms}"
    equivalent = planting.remarks("equivalent.txt")
    text = report.page(results, planted, command, equivalent, planting.remarks("survivors.txt"))
    chosen.report.write_text(text)
    share = report.share(report.counted(results, equivalent))
    print(f"{share:.1%} caught; the report is in {chosen.report}")
    return int(share < chosen.least)


def _known(kept: Path, world: str) -> dict[str, Outcome]:
    """Earlier outcomes that still hold."""
    by_id = {each.id: each for each in planting.mutants(_rooms())}
    found: dict[str, Outcome] = {}
    for line in kept.read_text().splitlines() if kept.exists() else ():
        row: dict[str, Any] = json.loads(line)
        name, proof = row.pop("id"), row.pop("proof")
        outcome = Outcome(**row)
        if name in by_id and proof == _proof(by_id[name], outcome, world):
            found[name] = outcome
    return found


def _rooms() -> Iterator[str]:
    return (path.name for path in PACKAGE.iterdir() if path.is_dir())


def _proof(mutant: Mutant, outcome: Outcome, world: str) -> str:
    """What an outcome rests on: the mutant and the test that caught it; for others, everything."""
    test = ROOT / outcome.by.removeprefix("importing ").split("::")[0]
    if not outcome.caught or not test.is_file():
        return world
    return fingerprint(mutant.planted().decode(), test.read_text())


def _sources() -> Iterable[str]:
    paths = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    tool = Path(__file__).parent
    return (
        f"{path.relative_to(ROOT)}\0{path.read_text()}"
        for path in paths
        if tool not in path.parents
    )


if __name__ == "__main__":
    sys.exit(main())
