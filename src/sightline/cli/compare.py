"""`sightline compare RUN_A RUN_B`: whether two evaluations differ by more than chance."""

from __future__ import annotations

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call


@click.command()
@click.argument("first", metavar="RUN_A", type=click.Path())
@click.argument("second", metavar="RUN_B", type=click.Path())
@shared_options(model=False)
def compare(call: Call, first: str, second: str) -> int:
    """Compare two folders that `eval --out` wrote, sample by sample.

    The difference is A minus B, with its 95 % interval and the p-value of a paired test.
    """
    from sightline.evaluation.compare import compare as paired
    from sightline.evaluation.results import read_result

    results = [read_result(folder) for folder in (first, second)]
    tests = paired(results[0], results[1])
    names = [results[0].model or first, results[1].model or second]
    call.note(f"A: {names[0]} ({results[0].value:.4f}); B: {names[1]} ({results[1].value:.4f})")
    headers = ("what", "A - B", "95 % interval", "p")
    call.table(
        headers,
        [
            (kind, f"{t.difference:+.4f}", f"{t.low:+.4f} to {t.high:+.4f}", f"{t.p_value:.4f}")
            for kind, t in tests.items()
        ],
    )
    call.document(
        {
            "models": names,
            "values": [result.value for result in results],
            "tests": {kind: test._asdict() for kind, test in tests.items()},
        }
    )
    return 0
