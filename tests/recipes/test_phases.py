"""Phases: what each preset trains, and settings of single ones."""

import pytest
import torch
from torch import nn

from sightline.core.errors import ConfigError
from sightline.models import paligemma
from sightline.recipes.dual_encoder import DualEncoderRecipe
from sightline.recipes.paligemma import PaliGemmaRecipe
from sightline.recipes.phases import PHASES, Phase, chosen_phases
from sightline.recipes.settings import override
from sightline.recipes.speaking import with_additions
from sightline.recipes.start import Start
from sightline.training.optimisers import build_optimiser, set_rate
from sightline.training.stages import Group, begin_stage


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return paligemma.PaliGemma(paligemma.TINY)


def with_phase(network: nn.Module, phase: Phase) -> nn.Module:
    """The network as the phase begins with it."""
    if phase.lora_rank:
        start = Start(network, None, paligemma.TINY, paligemma.SYSTEM)  # type: ignore[arg-type]
        with_additions(start, phase, None, 0)
    return network


def everything(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("name", PHASES)
def test_what_a_preset_does_not_train_stays_bit_identical(name: str) -> None:
    phase = PHASES[name]
    network = with_phase(tiny(), phase)
    before = everything(network)
    begin_stage(network, phase.stage(network, 10), _fixed(network))
    learning = [p for p in network.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW(learning, 0.1, weight_decay=0.1).step()
    moved = {n for n, tensor in everything(network).items() if not torch.equal(tensor, before[n])}
    if name == "alignment":
        expected = {n for n in before if n.startswith("projector.")}
    elif phase.lora_rank:
        expected = {n for n in before if "lora_" in n}
        assert len(expected) == 2 * 2 * (3 + 3)  # A and B of q and v in both stacks
    else:
        expected = set(before)
    assert moved == expected
    assert bool(phase.four_bit) == any(n.endswith(".codes") for n in before)


def _fixed(network: nn.Module) -> frozenset[str]:
    return frozenset(n for n, p in network.named_parameters() if not p.requires_grad)


def test_what_a_run_freezes_learns_in_no_phase() -> None:
    network = tiny()
    stage = PHASES["transfer"].stage(network, 10, freeze=("image.*",))
    learning = begin_stage(network, stage, _fixed(network))
    assert learning and not any(name.startswith("image.") for name in learning)
    assert not network.get_submodule("image").training


def test_the_tower_warms_up_slowly_where_it_learns() -> None:
    network, phase = tiny(), PHASES["joint"]
    stage = phase.stage(network, 100)
    optimiser = build_optimiser(network, stage, begin_stage(network, stage, frozenset()))
    own = {("image" in group["names"][0]): group for group in optimiser.param_groups}
    for step, share in ((2, 3 / 50), (24, 25 / 50), (49, 1.0), (80, 1.0)):
        rate = set_rate(optimiser, stage, step)
        assert own[True]["lr"] == pytest.approx(share * rate)
        assert own[False]["lr"] == rate
    # a tower that does not learn has no group, which would fit nothing
    assert phase.stage(network, 100, freeze=("image.*",)).groups == ()


def test_a_negative_warm_up_is_refused() -> None:
    with pytest.raises(ConfigError, match="a warm-up of -1 steps: use 0 or more"):
        Group(("*",), warmup=-1)


def test_settings_reach_their_phase_alone() -> None:
    first, last = chosen_phases(["joint", "transfer"], {"transfer.lr": "3e-6"})
    assert first == PHASES["joint"]
    assert (last.name, last.lr, last.stage(tiny(), 10).lr) == ("transfer", 3e-6, 3e-6)


def test_a_setting_for_all_phases_gives_way_to_a_phases_own() -> None:
    every = {"steps": 7, "lr": 1e-4}
    first, last = chosen_phases(["joint", "transfer"], {"transfer.steps": "9"}, every)
    assert (first.steps, first.lr, last.steps, last.lr) == (7, 1e-4, 9, 1e-4)


def test_epochs_count_examples() -> None:
    assert Phase("transfer", batch_size=5, accumulate=2, epochs=2.5).number_of_steps(100) == 25
    assert Phase("transfer", steps=3).number_of_steps(100) == 3


def test_keys_with_a_dot_are_of_a_phase() -> None:
    said = {"transfer.lr": "3e-6", "phases": "joint,transfer", "batch_size": "8",
            "transfer.batch_size": "2"}  # fmt: skip
    recipe = override(override(PaliGemmaRecipe(), said), {"joint.steps": "5"})
    first, last = recipe.chosen()
    assert (first.steps, first.batch_size, last.lr, last.batch_size) == (5, 8, 3e-6, 2)
    alone = recipe.alone(last)
    assert (alone.batch_size, alone.phases) == (2, ("transfer",))
    assert alone.chosen() == [last]
    with pytest.raises(ConfigError, match=r"setting 'transfer\.lr'"):
        override(DualEncoderRecipe(), {"transfer.lr": "1"})
    with pytest.raises(ConfigError, match="setting 'phase_settings'"):
        override(recipe, {"phase_settings": "1"})


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        ([], {}, "name at least one"),
        (["joint", "joint"], {}, "each may run once"),
        (["jiont"], {}, "joint"),
        (["joint"], {"transfer.lr": "1"}, "phase of this run"),
        (["joint"], {"joint.rate": "1"}, "rate"),
        (["joint"], {"joint.name": "x"}, "keeps its name"),
        (["joint"], {"joint.warmup": "2"}, "share from 0 to 1"),
        (["joint"], {"joint.image_warmup": "2"}, "image_warmup 2.0 is a share"),
        (["joint"], {"joint.text_length": "0"}, "at least 2"),
        (["qlora"], {"qlora.lora_rank": "0"}, "weights of 4 bits do not learn"),
    ],
)
def test_wrong_phases_are_refused(names: list[str], settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen_phases(names, settings)
