"""The measurement of streaming: every contender sees every picture, in a process of its own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sightline.bench import stream
from sightline.bench.stream import PEER, PROCESSES, THREADS, bench_stream, one_pass, write_drawn
from sightline.cli.program import program
from sightline.core.errors import ConfigError
from sightline.data.shards.webdataset import open_shards


def test_every_contender_goes_through_all_pictures(tmp_path: Path) -> None:
    pytest.importorskip("webdataset", reason="it writes the tars; the extra `test` has it")
    calls = []
    result = bench_stream(
        41, 32, 5, workers=1, rounds=1, folder=tmp_path / "set",
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert [row.name for row in result.rows] == [PROCESSES, PEER, THREADS]
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (result.pictures, result.shards, result.drawings) == (41, 3, 5)
    for row in result.rows:
        assert row.slowest <= row.pictures_per_second <= row.fastest
        assert row.core_use > 0 and row.peak_bytes > 10e6
        assert row.share_of_free is None or 0 < row.share_of_free <= 1
    assert result.to_json()["bench"] == "stream"


def test_pictures_are_different_files_under_different_keys(tmp_path: Path) -> None:
    assert write_drawn(tmp_path, 24, 32, 4, 10) == 4
    records = open_shards(tmp_path)
    assert len({record.id for record in records}) == 24
    assert len({record.image.read_stored() for record in records}) == 24
    assert len({record.caption for record in records}) <= 4
    assert [len(index) for index in records.indexes] == [10, 10, 4]


def test_tars_that_are_there_are_taken_and_a_missing_peer_is_named(
    tmp_path: Path, monkeypatch: Any
) -> None:
    write_drawn(tmp_path, 6, 32, 2, 3)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "webdataset" else find(name)
    )
    seen = []
    monkeypatch.setattr(
        stream,
        "in_a_process",
        lambda module, function, **given: seen.append(given["who"]) or one_pass(**given),
    )
    monkeypatch.setattr(stream, "PROCESSES", THREADS)  # none is started in this process
    shown = CliRunner().invoke(
        program, ["bench", "stream", "--shards", str(tmp_path), "--workers", "1", "--rounds", "2"]
    )
    assert shown.exit_code == 0, shown.output
    assert "6 pictures in 2 tar(s)" in shown.stderr and "different drawings" not in shown.stderr
    assert "not measured, not installed: webdataset" in shown.stderr
    assert set(seen) == {THREADS}


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ConfigError, match="drawings must be at least 1: 0 arrived"):
        bench_stream(drawings=0)
