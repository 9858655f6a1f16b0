"""Blocks compute the same loss in less memory; times are never asserted."""

import subprocess
import sys

import pytest

from sightline.bench import objectives
from sightline.bench.memory import in_a_process
from sightline.core.errors import ConfigError, SightlineError


@pytest.mark.parametrize("loss", objectives.LOSSES)
def test_blocks_give_the_same_loss_in_less_memory(loss):
    result = objectives.bench_objectives(loss, (2048,), width=16, chunk=64)
    whole, cut = result.rows
    assert (whole.chunk, cut.chunk) == (None, 64)
    assert cut.loss == pytest.approx(whole.loss, rel=1e-5)
    assert cut.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-4)
    assert whole.bytes_above > 2 * 4 * 2048**2 > 2 * cut.bytes_above
    assert result.to_json()["bench"] == "objectives"


def test_a_matrix_that_does_not_fit_is_not_tried(monkeypatch):
    found = {"bytes_above": 1, "seconds": 1.0, "loss": 1.0, "gradient_norm": 1.0}
    monkeypatch.setattr(objectives, "_memory", lambda: 4 * 64**2)
    monkeypatch.setattr(objectives, "in_a_process", lambda *module, **sizes: found)
    result = objectives.bench_objectives("sigmoid", (64,), width=4, chunk=16)
    assert [row.chunk for row in result.rows] == [16]
    assert result.skipped == (64,)


def test_the_peak_is_what_the_work_held():
    """In a process of its own: one that has trained keeps what it freed, and holds no more."""
    work = "lambda: len(bytearray(b'x') * 50_000_000)"
    code = f"from sightline.bench.memory import peak_above; print(peak_above({work}))"
    held = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 45e6 < int(held.stdout) < 150e6


def test_a_failed_measurement_says_why():
    with pytest.raises(SightlineError, match=r"measuring process failed \(.*nothing"):
        in_a_process("json", "nothing")


def test_unknown_losses_and_empty_batches_are_refused():
    with pytest.raises(ConfigError, match="unknown loss 'sigmid'"):
        objectives.bench_objectives("sigmid")
    with pytest.raises(ConfigError, match="numbers from 1 on"):
        objectives.bench_objectives("sigmoid", (0,))
