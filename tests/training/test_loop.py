from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sightline.core.errors import ConfigError, DataError, TrainingError
from sightline.training import checkpoints
from sightline.training.accumulation import StepResult, WeightedLoss, accumulate
from sightline.training.loop import Group, LoopOptions, RunSummary, Stage, train
from sightline.training.stages import begin_stage
from tests.training import small_run
from tests.training.small_run import Pair, losses, network

OPTIONS = LoopOptions(plot=False)
HEAD = Stage("head", 6, lr=0.05, trainable=("*", "!tower.*"), weight_decay=0.5)


def run(out: Path, stages=(HEAD,), net=None, **changes) -> RunSummary:
    settings = {"loader": small_run.Rows(), "step": small_run.step, "options": OPTIONS}
    return train(net or network(), stages=stages, out=out, **(settings | changes))


def lines(out: Path, kind: str) -> list[dict]:
    text = (out / "log.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, text) if line["kind"] == kind]


def test_frozen_tower_keeps_every_bit_batch_norm_too(tmp_path):
    net, before = network(), network().state_dict()
    run(tmp_path, net=net)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("tower."), name


def test_parameter_that_arrives_frozen_stays_as_it_is(tmp_path):
    net, before = network(), network().state_dict()
    net.mix.weight.requires_grad_(False)
    run(tmp_path, (Stage("all", 3, weight_decay=0.5),), net)
    assert torch.equal(net.mix.weight, before["mix.weight"])
    assert not net.mix.weight.requires_grad and net.head.weight.requires_grad


def test_same_seed_same_bits_other_seed_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tmp_path / name, (Stage("all", 3),), options=replace(OPTIONS, seed=seed))
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")


def test_loop_is_torchs_own_loop(tmp_path):
    """The same training written out with torch's optimiser, schedule and clipping, in float64."""

    def loss(net: nn.Module, batch: Pair) -> WeightedLoss:
        errors = (net(batch.inputs.double()) - batch.targets.double()) ** 2
        return WeightedLoss(errors.sum(), errors.numel())

    stage = Stage("s", 8, lr=0.02, weight_decay=0.1, no_decay=(), clip=0.3, betas=(0.8, 0.9))
    ours, theirs = (nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)).double() for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    run(tmp_path, (stage,), ours, step=accumulate(loss))

    decayed = [p for p in theirs.parameters() if p.ndim > 1]
    others = [p for p in theirs.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=0.02,
        betas=(0.8, 0.9),
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 8)
    rows = small_run.Rows()
    batches = [*rows, *rows]
    for batch in batches[:8]:
        optimiser.zero_grad()
        nn.functional.mse_loss(theirs(batch.inputs.double()), batch.targets.double()).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.3)
        optimiser.step()
        schedule.step()
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-9)


def test_accumulated_run_is_the_run_of_the_big_batch(tmp_path):
    class Net(nn.Sequential):
        pass

    def loss(net: nn.Module, batch: Pair) -> WeightedLoss:
        errors = (net(batch.inputs.double()) - batch.targets.double()) ** 2
        return WeightedLoss(errors.sum(), errors.numel())

    nets = [Net(nn.Linear(6, 2)).double() for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    stage = (Stage("s", 5),)
    small, big = small_run.Rows(24, 2), small_run.Rows(24, 8)
    step = accumulate(loss)
    four = replace(OPTIONS, accumulate=4)
    run(tmp_path / "a", stage, nets[0], loader=small, step=step, options=four)
    run(tmp_path / "b", stage, nets[1], loader=big, step=step)
    torch.testing.assert_close(nets[0][0].weight, nets[1][0].weight, rtol=0, atol=1e-12)


def test_averaged_weights_are_evaluated_and_saved_and_the_own_ones_go_on(tmp_path):
    seen, saved = [], []
    net = network()

    def evaluate(inner: nn.Module) -> dict[str, float]:
        assert not inner.training and not torch.is_grad_enabled()
        seen.append(inner.head.weight.detach().clone())
        return {"x": 1.0}

    def save(inner: nn.Module, folder: Path) -> None:
        saved.append(inner.head.weight.detach().clone())
        (folder / "config.json").write_text("{}")

    options = replace(OPTIONS, ema=0.5)
    summary = run(tmp_path, net=net, options=options, evaluate=evaluate, save_model=save)
    found = checkpoints.read_newest(tmp_path / "checkpoints")
    assert torch.equal(seen[-1], found.tensors["average/head.weight"])
    assert torch.equal(saved[-1], seen[-1])
    assert torch.equal(net.head.weight, found.tensors["network/head.weight"])
    assert not torch.equal(net.head.weight, seen[-1])
    assert (summary.checkpoint / "config.json").is_file()


def test_best_follows_the_score(tmp_path):
    values = iter([0.2, 0.7, 0.7, math.nan, 0.9, 0.1])
    options = replace(OPTIONS, eval_every=1)
    summary = run(tmp_path, options=options, score="x", evaluate=lambda net: {"x": next(values)})
    assert summary.best_score == 0.9 and summary.best.name == "step-00000005"
    assert summary.scores == {"x": 0.1}
    assert lines(tmp_path, "eval")[3]["scores"] == {"x": None}, "nan is no JSON"


def test_leading_minus_means_lower_is_better(tmp_path):
    values = iter([3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
    options = replace(OPTIONS, eval_every=1)
    summary = run(tmp_path, options=options, score="-x", evaluate=lambda net: {"x": next(values)})
    assert summary.best_score == 1.0 and summary.best.name == "step-00000002"


def test_unknown_score_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="unknown score 'acuracy': did you mean 'accuracy'"):
        run(tmp_path, score="acuracy", evaluate=small_run.evaluate)


def test_evaluation_disturbs_nothing(tmp_path):
    def disturbing(net: nn.Module) -> dict[str, float]:
        net.train()
        torch.rand(5), np.random.rand(5), random.random()
        return {"x": 1.0}

    run(tmp_path / "with", options=replace(OPTIONS, eval_every=1), evaluate=disturbing)
    run(tmp_path / "without")
    assert [x[:3] for x in losses(tmp_path / "with") if x[1]] == [
        x[:3] for x in losses(tmp_path / "without")
    ]


def test_callers_generators_and_handlers_are_as_before(tmp_path):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    run(tmp_path)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1] and random.getstate() == before[2]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers


def test_first_ctrl_c_stops_with_a_checkpoint_and_the_second_interrupts(tmp_path):
    def once(net, batches):
        signal.raise_signal(signal.SIGINT)
        return small_run.step(net, batches)

    assert run(tmp_path / "once", step=once).stopped == "signal"
    assert (tmp_path / "once" / "checkpoints" / "step-00000001").is_dir()

    def twice(net, batches):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "twice", step=twice)


def test_other_threads_may_train(tmp_path):
    done = []
    thread = threading.Thread(target=lambda: done.append(run(tmp_path)))
    thread.start()
    thread.join()
    assert done[0].stopped == "finished"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite_stops_the_run(tmp_path, value):
    count = 0

    def step(net, batches):
        nonlocal count
        count += 1
        result = small_run.step(net, batches)
        return result if count < 4 else StepResult(value)

    message = rf"loss became {value} at step 4 \(stage 'head'\); the last good checkpoint is .*"
    with pytest.raises(TrainingError, match=message + "step-00000002.*Try a lower lr"):
        run(tmp_path, step=step, options=replace(OPTIONS, save_every=2))


def test_gradient_that_is_not_finite_leaves_the_weights_alone(tmp_path):
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    def step(inner, batches):
        result = small_run.step(inner, batches)
        inner.scale.grad.fill_(math.nan)
        return result

    with pytest.raises(TrainingError, match=r"gradient's norm is nan at step 1.*not there yet"):
        run(tmp_path, net=net, step=step)
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())


def test_log_line_says_what_happened(tmp_path):
    run(tmp_path, (replace(HEAD, warmup=2, clip=0.001),))
    first = lines(tmp_path, "step")[0]
    assert first.keys() == {
        "kind", "step", "stage", "lr", "loss", "grad_norm", "error", "pictures_per_second",
        "seconds",
    }  # fmt: skip
    assert (first["step"], first["stage"], first["lr"]) == (1, "head", 0.025)
    assert first["grad_norm"] > 0.1, "the norm before clipping"


def test_clipping_bounds_the_gradient(tmp_path):
    norms = []

    class Watch(torch.optim.AdamW):
        def step(self, closure=None):
            norms.append(nn.utils.get_total_norm([p.grad for p in net.parameters()]).item())
            return super().step(closure)

    net = network()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", Watch)
        run(tmp_path, (Stage("s", 3, clip=0.05),), net)
    assert norms == pytest.approx([0.05] * 3, rel=1e-3)


def test_progress_is_told_after_every_step(tmp_path):
    calls = []

    class Bar:
        def update(self, *values) -> None:
            calls.append(values)

    run(tmp_path, progress=Bar())
    assert [c[:2] for c in calls] == [(i, 6) for i in range(1, 7)]
    assert calls[-1][4] == 0 and all(c[3] > 0 for c in calls)
    assert [c[2] for c in calls] == [x[1] for x in losses(tmp_path)]


def test_flops_are_those_of_the_products(tmp_path):
    net = nn.Linear(6, 2, bias=False)
    summary = run(tmp_path, (Stage("a", 3), Stage("b", 2)), net)
    # 4 rows, 6 in, 2 out, 2 operations each; backward: the weight's gradient, no input's
    assert summary.flops == 5 * 2 * (2 * 4 * 6 * 2)
    assert summary.pictures == 5 * 4 and summary.peak_memory_bytes > 1e7
    assert summary.cost.startswith("5 steps, 20 pictures, 9.60e+02 FLOPs, 0.00 hours, ")
    assert lines(tmp_path, "end")[0]["flops"] == summary.flops


def test_bfloat16_autocast_reaches_the_network_and_not_the_weights(tmp_path):
    kinds = set()

    def loss(net: nn.Module, batch: Pair) -> WeightedLoss:
        answers = net(batch.inputs)
        kinds.add(answers.dtype)
        errors = (answers.float() - batch.targets) ** 2
        return WeightedLoss(errors.sum(), errors.numel())

    net = nn.Linear(6, 2)
    options = replace(OPTIONS, autocast="bfloat16")
    run(tmp_path, (Stage("s", 2),), net, step=accumulate(loss), options=options)
    assert kinds == {torch.bfloat16} and net.weight.dtype == torch.float32


def test_recipe_is_saved_beside_each_checkpoint(tmp_path):
    summary = run(tmp_path, recipe={"data": Path("park"), "width": 8})
    text = (summary.checkpoint / "recipe.json").read_text()
    assert json.loads(text) == {"data": "park", "width": 8}


def test_loader_without_batches_is_told(tmp_path):
    with pytest.raises(DataError, match="the data loader gave no batch"):
        run(tmp_path, loader=small_run.Rows(count=3, batch_size=4))


@pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")
def test_folder_in_which_another_process_trains_is_refused(tmp_path):
    run(tmp_path)
    program = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'w')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / ".lock")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match="another process is training in"):
            run(tmp_path)
        other.stdin.close()
    assert run(tmp_path).stopped == "finished"


def test_scores_and_metrics_that_are_no_numbers_survive_resuming(tmp_path):
    def step(net, batches):
        return replace(small_run.step(net, batches), metrics={"odd": math.nan})

    def stopping(net, batches):
        signal.raise_signal(signal.SIGTERM)
        return step(net, batches)

    options = replace(OPTIONS, log_every=4, eval_every=1)
    changes = {"options": options, "evaluate": lambda net: {"x": math.nan}}
    run(tmp_path, step=stopping, **changes)
    assert math.isnan(run(tmp_path, step=step, **changes).scores["x"])
    assert [line["odd"] for line in lines(tmp_path, "step")] == [None, None]


def test_run_without_stages_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least one stage"):
        run(tmp_path, stages=())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"autocast": "float16"}, "unknown autocast 'float16': did you mean 'bfloat16'"),
        ({"ema": 1.0}, "ema 1.0 is not a decay"),
        ({"accumulate": 0}, "accumulate 0 must be at least 1"),
        ({"keep": 0}, "keep 0 must be at least 1"),
        ({"eval_every": 0}, "eval_every 0 must be at least 1"),
    ],
)
def test_wrong_options_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        LoopOptions(**settings)


def test_groups_of_a_stage_move_at_their_own_rates(tmp_path):
    """Adam's first step moves every weight by the rate, whatever the gradient."""
    net, before = network(), network().state_dict()
    stage = Stage("s", 1, lr=0.01, groups=(Group(("tower.*",), 0.1),), schedule="constant")
    run(tmp_path, (stage,), net)
    moved = {name: (p - before[name]).abs().max().item() for name, p in net.named_parameters()}
    assert moved["head.weight"] == pytest.approx(0.01, rel=1e-3)
    assert moved["tower.0.weight"] == pytest.approx(0.001, rel=1e-2)


def test_stage_modes_return_after_evaluation(tmp_path):
    net, modes = network(), []

    def step(inner, batches):
        modes.append([m.training for m in inner.modules()])
        return small_run.step(inner, batches)

    options = replace(OPTIONS, eval_every=1, ema=0.9)
    run(tmp_path, net=net, step=step, options=options, evaluate=small_run.evaluate)
    begin_stage(net, HEAD, frozenset())
    assert modes == [[m.training for m in net.modules()]] * 6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised inside torch's compiler
def test_compiled_run_learns_the_same(tmp_path):
    def loss(net: nn.Module, batch: Pair) -> WeightedLoss:
        errors = (net(batch.inputs) - batch.targets) ** 2
        return WeightedLoss(errors.sum(), errors.numel())

    nets = [nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 2)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    for net, compiled in zip(nets, (False, True), strict=True):
        options = replace(OPTIONS, compile=compiled)
        run(tmp_path / str(compiled), (Stage("s", 4),), net, step=accumulate(loss), options=options)
    torch.testing.assert_close(nets[0][0].weight, nets[1][0].weight, rtol=0, atol=1e-5)
