"""Mutants at work, in a process that has not imported the library."""

import subprocess
import sys

from tests.mutation.planting import ROOT

PROGRAM = """
from tests.mutation.lines import Lines
from tests.mutation.planting import mutants
from tests.mutation.trial import control, prepare, trials

test = "tests/objectives/test_classification.py::"
names = [test + f"test_values_and_gradients_are_torch_s[{each}]" for each in (0.0, 0.1)]
path = "objectives/classification.py"
found = [mutant for mutant in mutants(["objectives"]) if mutant.path == path]
sign = next(each for each in found if each.mistake == "arithmetic" and each.before[0] == "-")
other = next(each for each in found if each.text.startswith("if not"))
lines = Lines(dict.fromkeys(names, 0.1), {path: {str(sign.line): names}}, [])
prepare(["torch"])
control(lines)
for mutant, outcome in trials([sign, other], lines, budget=9, jobs=2):
    print("sign" if mutant is sign else "other", outcome.caught, outcome.tests, outcome.by)
"""


def test_a_mutant_is_caught_and_one_that_no_test_executes_survives():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True
    )
    other, sign = sorted(done.stdout.splitlines())
    assert other.strip() == "other False 0"
    assert sign.startswith("sign True 2 tests/objectives/test_classification.py::")
