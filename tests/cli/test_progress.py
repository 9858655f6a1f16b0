"""Progress: nothing when short or quiet, plain lines off a terminal, a bar on one."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from sightline.cli import progress
from sightline.cli.output import Call, printable
from sightline.cli.progress import Meter, TrainingMeter, duration

Clock = Callable[[float], None]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Set the time."""
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def set_to(seconds: float) -> None:
        now[0] = 100.0 + seconds

    return set_to


def test_short_work_shows_nothing(at: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Meter(Call("x")) as meter:
        at(0.9)
        meter.update(9, 10)
    assert capsys.readouterr().err == ""


def test_long_work_is_a_line_every_ten_seconds(
    at: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Meter(Call("x")) as meter:
        for second in range(1, 26):
            at(second)
            meter.update(2 * second, 100)
    assert capsys.readouterr().err.splitlines() == [
        "sightline: 20 of 100, 2.0 pictures/s, 40 s left",
        "sightline: 40 of 100, 2.0 pictures/s, 30 s left",
    ]


def test_quiet_is_quiet(at: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Meter(Call("x", quiet=True)) as meter:
        at(60)
        meter.update(1, 100)
    assert capsys.readouterr().err == ""


def test_training_says_step_loss_rate_and_time(
    at: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with TrainingMeter(Call("train")) as meter:
        at(11)
        meter.update(5, 1000, 0.25, 81.0, 3725.0)
    line = "sightline: 5 of 1,000, loss 0.2500, 81.0 pictures/s, 1 h 02 min left\n"
    assert capsys.readouterr().err == line


def test_a_terminal_gets_a_bar_that_goes_away(at: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Meter(Call("x", json=True)) as meter:
        at(2)
        meter.update(10, 100)
    assert "10/100" in terminal.getvalue() and "pictures/s" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_control_characters_are_replaced() -> None:
    assert printable("a\x1b[2Jb\r\nc\u202e") == "a\ufffd[2Jb\ufffd\nc\ufffd"
