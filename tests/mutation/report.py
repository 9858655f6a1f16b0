"""docs/mutation.md, from the outcomes of a run."""

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from sightline.metrics.intervals import wilson
from tests.mutation.mistakes import MISTAKES
from tests.mutation.planting import Mutant, Remark, remark
from tests.mutation.trial import Outcome

Result = tuple[Mutant, Outcome]
PACKAGES = ("torch", "transformers", "pytest", "hypothesis", "jaxtyping", "beartype")
HEAD = Path(__file__).parent / "page.md"


def share(results: Sequence[Result]) -> float:
    """Caught among all; 1 where there are none."""
    return sum(outcome.caught for _, outcome in results) / max(1, len(results)) if results else 1.0


def counted(results: Iterable[Result], equivalent: Sequence[Remark]) -> list[Result]:
    """Without those that change nothing."""
    return [each for each in results if remark(each[0], equivalent) is None]


def page(
    results: Sequence[Result], planted: int, command: str,
    equivalent: Sequence[Remark], survivors: Sequence[Remark],
) -> str:  # fmt: skip
    """The page of the documentation.

    Args:
        planted: how many mutants there are to draw from.
        command: what was run.
        equivalent: mistakes that change no behaviour; not counted.
        survivors: why others were not caught.
    """
    real = counted(results, equivalent)
    caught = sum(outcome.caught for _, outcome in real)
    low, high = wilson(caught, len(real))
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    missed = [each for each in real if not each[1].caught]
    alike = [each for each in results if remark(each[0], equivalent) is not None]
    return "\n".join(
        [
            HEAD.read_text(),
            "## Result\n",
            f"`{command}`: of {planted:,} mistakes that can be planted {len(results)} were drawn; "
            f"{len(alike)} change no behaviour. Of the other {len(real)} the tests caught "
            f"**{caught}: {share(real):.1%}** (95 % interval {low:.1%} to {high:.1%}).\n",
            f"Python {platform.python_version()}, {versions}.\n",
            *_table("room", real, lambda mutant: mutant.room),
            *_table("mistake", real, lambda mutant: mutant.mistake),
            *_ends(real),
            f"## Survivors: {len(missed)}\n",
            *_list(missed, survivors),
            f"## Equivalent: {len(alike)}\n",
            *_list(alike, equivalent),
        ]
    )


def _table(head: str, results: Sequence[Result], key: Callable[[Mutant], str]) -> list[str]:
    planted = Counter(key(mutant) for mutant, _ in results)
    caught = Counter(key(mutant) for mutant, outcome in results if outcome.caught)
    means = {name: (kind.__doc__ or "").rstrip(".") for name, kind in MISTAKES.items()}
    rows = [
        f"| {name} | {means.get(name, '')} | {planted[name]} | {caught[name]} | "
        f"{caught[name] / planted[name]:.0%} |"
        for name in sorted(planted, key=lambda name: (-planted[name], name))
    ]
    return [f"| {head} | | planted | caught | share |", "|---|---|---|---|---|", *rows, ""]


def _ends(results: Sequence[Result]) -> list[str]:
    """What caught them, where it was no failing test."""
    ends = Counter(
        "by a file of tests that could not be imported" if "importing" in outcome.by else outcome.by
        for _, outcome in results
        if outcome.caught and "::" not in outcome.by
    )
    said = "; ".join(f"{count} {by}" for by, count in sorted(ends.items()))
    return [f"Of those caught, not by a test that failed but: {said}.\n"] if said else []


def _list(results: Sequence[Result], remarks: Sequence[Remark]) -> list[str]:
    lines = []
    for mutant, outcome in sorted(results, key=lambda each: (each[0].path, each[0].line)):
        why = remark(mutant, remarks) or "not looked into yet"
        note = f" (but {outcome.by} fails)" if outcome.caught else ""
        owner = f", `{mutant.where}`" if mutant.where else ""
        lines.append(
            f"- `{mutant.path}`{owner}: `{mutant.before}` → `{mutant.after}` "
            f"({mutant.mistake}; {outcome.tests} tests). {why}{note}"
        )
    return [*lines, ""] if lines else ["None.\n"]
