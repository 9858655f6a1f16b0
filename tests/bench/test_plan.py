"""Predicted memory against what processes really hold."""

import pytest

from sightline.bench.plan import CASES, SMALL, Case, bench_plan, measure_apart, predict
from sightline.core.errors import ConfigError

MEASURED_DAILY = SMALL[0]
JUDGED = [case for case in CASES if case != MEASURED_DAILY]


def assert_near(case: Case) -> None:
    assert predict(case) == pytest.approx(measure_apart(case), rel=0.15), case.name


def test_a_training_step_holds_what_was_predicted() -> None:
    assert_near(MEASURED_DAILY)


@pytest.mark.slow
@pytest.mark.parametrize("case", JUDGED, ids=lambda case: case.name)
def test_every_case_holds_what_was_predicted(case: Case) -> None:
    assert_near(case)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ConfigError, match="give at least one case"):
        bench_plan(())
