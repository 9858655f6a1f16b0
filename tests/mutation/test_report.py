"""Which tests a mutant gets, and what the page says of the outcomes."""

from tests.mutation.lines import Lines
from tests.mutation.planting import Remark, in_source
from tests.mutation.report import page, share
from tests.mutation.trial import Outcome, within

FIRST, SECOND, THIRD = (
    "tests/nn/test_a.py::one",
    "tests/nn/test_b.py::two",
    "tests/nn/test_a.py::six",
)
LINES = Lines(
    {FIRST: 3.0, SECOND: 1.0, THIRD: 2.0},
    {"nn/a.py": {"4": [FIRST, SECOND], "5": [SECOND], "9": [THIRD]}},
    ["numpy"],
)


def test_the_quickest_tests_of_the_lines_come_first():
    assert LINES.tests("nn/a.py", (4, 5)) == [SECOND, FIRST]
    assert LINES.tests("nn/a.py", None) == [SECOND, THIRD, FIRST]
    assert LINES.tests("nn/a.py", (6, 8)) == LINES.tests("nn/b.py", None) == []


def test_a_budget_holds_back_what_is_too_long_together():
    tests = LINES.tests("nn/a.py", None)
    assert within(tests, LINES, 3.5) == [SECOND, THIRD]
    assert within(tests, LINES, 0.5) == [SECOND]  # one at least


def test_the_tests_of_a_file_are_kept_apart():
    part = LINES.of("tests/nn/test_a.py")
    assert part.seconds == {FIRST: 3.0, THIRD: 2.0}
    assert part.tests("nn/a.py", (4, 5)) == [FIRST]


def test_the_page_counts_what_is_real_and_names_what_survived():
    found = in_source(b"def f(x, y):\n    return x.exp() + y\n", "nn/a.py")
    results = [(mutant, Outcome(True, FIRST, 2, 0.1)) for mutant in found]
    lost, alike = results[0][0], results[1][0]
    results[0] = (lost, Outcome(False, "", 2, 0.1))
    results[1] = (alike, Outcome(False, "", 2, 0.1))
    notes = [
        [Remark("nn/a.py", each.text, each.before, each.after, why)]
        for each, why in ((alike, "It is the same."), (lost, "Nobody looked."))
    ]
    text = page(results, 99, "make mutants", *notes)
    real = len(found) - 1
    assert f"**{real - 1}: {(real - 1) / real:.1%}**" in text and "of 99 mistakes" in text
    assert "## Survivors: 1" in text and "Nobody looked." in text
    assert "## Equivalent: 1" in text and "It is the same." in text
    assert f"| nn |  | {real} | {real - 1} |" in text
    assert share(results) == (len(found) - 2) / len(found)
