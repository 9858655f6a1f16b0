"""A run that was stopped anywhere goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from sightline.core.errors import CheckpointError, ConfigError
from sightline.training import checkpoints
from sightline.training.loop import Group, LoopOptions, RunSummary, train
from sightline.training.settings import changes
from tests.training import small_run
from tests.training.small_run import STAGES, losses, network

TOTAL = 12
OPTIONS = LoopOptions(accumulate=2, ema=0.9, eval_every=4, save_every=1, plot=False)


class Crash(Exception):
    pass


def step_until(limit: int, action):
    """The small step, with something happening in the middle of step number `limit`."""
    done = 0

    def step(net, batches):
        nonlocal done
        done += 1
        if done == limit:
            action()
        return small_run.step(net, batches)

    return step


def crash() -> None:
    raise Crash


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def run(out: Path, step=small_run.step, options: LoopOptions = OPTIONS, **changes) -> RunSummary:
    settings = {
        "network": network(),
        "loader": small_run.Rows(),
        "stages": STAGES,
        "evaluate": small_run.evaluate,
        "score": "accuracy",
    }
    return train(step=step, out=out, options=options, **(settings | changes))


def outcome(out: Path) -> tuple:
    newest = checkpoints.read_newest(out / "checkpoints")
    tensors = {name: tensor.tolist() for name, tensor in newest.tensors.items()}
    return losses(out), tensors, os.readlink(out / "checkpoints" / "best")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    run(out)
    return outcome(out)


@pytest.mark.parametrize("at", range(2, TOTAL + 1))
def test_crash_in_any_step_resumes_bit_for_bit(tmp_path, whole, at):
    with pytest.raises(Crash):
        run(tmp_path, step_until(at, crash))
    summary = run(tmp_path)
    assert outcome(tmp_path) == whole
    assert (summary.steps, summary.pictures, summary.stopped) == (TOTAL, TOTAL * 8, "finished")


@pytest.mark.parametrize("at", range(1, TOTAL + 1))
def test_sigterm_finishes_the_step_saves_and_resumes_bit_for_bit(tmp_path, whole, at):
    summary = run(tmp_path, step_until(at, terminate), replace(OPTIONS, save_every=None))
    assert summary.stopped == ("signal" if at < TOTAL else "finished")
    assert summary.steps == at
    assert run(tmp_path, options=replace(OPTIONS, save_every=None)).stopped == "finished"
    assert outcome(tmp_path) == whole


def test_resuming_in_steps_of_one_is_the_same_run(tmp_path, whole):
    """Every step in a process-like life of its own, both stages and the average included."""
    while run(tmp_path, step_until(1, terminate)).stopped == "signal":
        pass
    assert outcome(tmp_path) == whole


def test_losing_a_generators_state_would_show(tmp_path, whole, monkeypatch):
    """The negative control: one forgotten generator, and the resumed run is another one."""
    from sightline.training import randomness

    restore = randomness.restore
    for forgotten in ("torch", "numpy", "python"):
        out = tmp_path / forgotten
        with pytest.raises(Crash):
            run(out, step_until(4, crash))

        def forget(state, name=forgotten):
            restore(state | {name: randomness.capture()[name]})

        with monkeypatch.context() as patch:
            patch.setattr(randomness, "restore", forget)
            run(out)
        assert outcome(out) != whole, forgotten


def test_finished_run_answers_at_once(tmp_path):
    first = run(tmp_path)
    again = run(tmp_path, step_until(1, crash))
    assert (again.steps, again.loss, again.scores, again.best, again.flops) == (
        first.steps, first.loss, first.scores, first.best, first.flops,
    )  # fmt: skip


def test_log_has_every_step_once(tmp_path):
    with pytest.raises(Crash):
        run(tmp_path, step_until(8, crash), replace(OPTIONS, save_every=3))
    assert [x[0] for x in losses(tmp_path) if x[1]] == list(range(1, 8))
    run(tmp_path, options=replace(OPTIONS, save_every=3))
    lines = [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if x["kind"] == "step"] == list(range(1, TOTAL + 1))
    assert [x["step"] for x in lines if x["kind"] == "eval"] == [4, 8, 12]
    assert [x["kind"] for x in lines].count("end") == 1


def test_lines_that_average_over_steps_are_resumed_in_the_middle(tmp_path):
    options = replace(OPTIONS, log_every=5)
    run(tmp_path / "whole", options=options)
    with pytest.raises(Crash):
        run(tmp_path / "cut", step_until(8, crash), options)
    run(tmp_path / "cut", options=options)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert [x[0] for x in losses(tmp_path / "cut") if x[1]] == [5, 10, 12]


def test_other_settings_are_refused_with_a_list(tmp_path):
    with pytest.raises(Crash):
        run(tmp_path, step_until(4, crash), recipe={"width": 8, "data": {"name": "a"}})
    stages = (replace(STAGES[0], lr=0.5), STAGES[1])
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, stages=stages, recipe={"data": {"name": "b"}})
    assert "- recipe.data.name = 'a'\n+ recipe.data.name = 'b'\n- recipe.width = 8\n" in str(
        caught.value
    )
    assert "- stages[0].lr = 0.01\n+ stages[0].lr = 0.5" in str(caught.value)
    assert "allow_changes=True" in str(caught.value)
    changed = replace(OPTIONS, allow_changes=True)
    assert run(tmp_path, stages=stages, options=changed).stopped == "finished"


def test_a_setting_that_is_younger_than_the_run_may_be_none():
    assert asdict(Group(("head.*",)))["warmup"] is None
    assert changes({"lr": 1}, {"lr": 1, "warmup": None}) == []
    assert changes({"lr": 1}, {"lr": 1, "warmup": 0}) == ["+ warmup = 0"]
    assert changes({"warmup": 2}, {"warmup": None}) == ["- warmup = 2", "+ warmup = None"]


def test_settings_that_change_no_weight_may_differ(tmp_path, whole):
    with pytest.raises(Crash):
        run(tmp_path, step_until(6, crash), recipe={"minutes": 5, "lr": 1})
    options = replace(OPTIONS, keep=3, minutes=60.0, save_every=2)
    run(tmp_path, options=options, recipe={"minutes": 7, "lr": 1})
    assert outcome(tmp_path) == whole


def test_resume_false_refuses_a_folder_with_a_run(tmp_path):
    run(tmp_path)
    with pytest.raises(ConfigError, match="already holds a run: choose another folder"):
        run(tmp_path, resume=False)


def test_another_network_is_refused_with_a_list(tmp_path):
    run(tmp_path)
    other = network()
    other.head = torch.nn.Linear(8, 3)
    with pytest.raises(CheckpointError) as caught:
        run(tmp_path, network=other)
    assert "- head.weight (2, 8)" in str(caught.value)
    assert "+ head.weight (3, 8)" in str(caught.value)


def test_minutes_count_over_resumptions(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("sightline.training.loop.time.monotonic", lambda: clock[0])

    def slow(net, batches):
        clock[0] += 20.0
        return small_run.step(net, batches)

    def limit(minutes: float) -> LoopOptions:
        return replace(OPTIONS, minutes=minutes, save_every=None)

    first = run(tmp_path, slow, limit(1.0))
    assert (first.stopped, first.steps, first.hours) == ("minutes", 3, 1 / 60)
    assert first.scores, "the end of the budget is an end: it is scored"
    again = run(tmp_path, slow, limit(1.0))
    assert (again.stopped, again.steps) == ("minutes", 3)
    more = run(tmp_path, slow, limit(2.0))
    assert (more.stopped, more.steps) == ("minutes", 6)
    assert run(tmp_path, slow, limit(60.0)).stopped == "finished"
