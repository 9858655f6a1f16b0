"""The measurement of tars: every reader sees every picture; missing peers are named."""

import sys

import pytest

from sightline.bench.data import LIMIT, bench_data
from sightline.core.errors import ConfigError


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves tars open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_every_reader_goes_through_all_pictures():
    pytest.importorskip("webdataset", reason="it writes the tars; the extra `test` has it")
    calls = []
    result = bench_data(60, 16, 2, lambda done, total: calls.append((done, total)))
    names = [row.name for row in result.rows]
    assert names[:2] == ["sightline bytes", "webdataset bytes"]
    assert names[-1] == LIMIT
    assert calls[-1] == (14, 14)
    assert result.rows[-1].share_of_limit == 1
    assert result.ratio(LIMIT, LIMIT) == 1
    assert result.to_json()["bench"] == "data"


def test_a_missing_peer_is_named_and_skipped(monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    result = bench_data(5, 16, 1)
    assert result.skipped == ("webdataset",)
    assert not any(row.name.startswith("webdataset") for row in result.rows)


def test_nothing_to_measure_is_refused():
    with pytest.raises(ConfigError, match="pictures 0, side 64, rounds 3: all must be above 0"):
        bench_data(0)
