"""Known mistakes of decoders, planted one at a time: the comparison must notice each."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from sightline.models import paligemma
from sightline.models.table import system
from sightline.nn import decoder
from sightline.nn.attention import Attention
from sightline.nn.masks import prefix_causal
from sightline.nn.mlp import GatedMLP
from sightline.nn.norms import RMSNorm
from sightline.nn.rotary import turns
from tests.models.writers import (
    SYSTEMS,
    agree,
    disagreeing,
    prompts,
    read,
    reference,
    their_steps,
)


def modules(network, kind):
    return [module for module in network.modules() if isinstance(module, kind)]


def pure_causal_mask(ours, monkeypatch):
    ours.prefix_lm = False


def pictures_times_the_root_of_the_width(ours, monkeypatch):
    seen = paligemma.PaliGemma._seen
    monkeypatch.setattr(
        paligemma.PaliGemma, "_seen", lambda self, p: [t * 20**0.5 for t in seen(self, p)]
    )


def the_begin_token_in_front_of_the_pictures(ours, monkeypatch):
    ordered = paligemma.PaliGemma.prompt_vectors

    def moved(self, prompt):
        counts = [9 * len(row) for row in prompt.pictures]
        return [
            torch.cat([row[count : count + 1], row[:count], row[count + 1 :]])
            for row, count in zip(ordered(self, prompt), counts, strict=True)
        ]

    monkeypatch.setattr(paligemma.PaliGemma, "prompt_vectors", moved)


def the_second_picture_first(ours, monkeypatch):
    ordered = paligemma.PaliGemma.prompt_vectors

    def turned(self, prompt):
        return ordered(self, prompt._replace(pictures=tuple(r[::-1] for r in prompt.pictures)))

    monkeypatch.setattr(paligemma.PaliGemma, "prompt_vectors", turned)


def norms_without_the_one(ours, monkeypatch):
    for norm in modules(ours, RMSNorm):
        norm.offset = 0.0


def products_scaled_by_width_over_heads(ours, monkeypatch):
    for attention in modules(ours.decoder, Attention):
        attention.scale = (20 / 4) ** -0.5


def words_without_their_factor(ours, monkeypatch):
    ours.decoder.table.scale = 1.0


def exact_gelu(ours, monkeypatch):
    for mlp in modules(ours.decoder, GatedMLP):
        mlp.activation = F.gelu


def positions_of_another_base(ours, monkeypatch):
    ours.decoder.turns = partial(turns, head_size=6, base=1000.0)


def neighbouring_components_turned(ours, monkeypatch):
    """Pairs (0, 1), (2, 3), ... instead of halves."""

    def rotate(x, by):
        halves = torch.cat([x[..., 0::2], x[..., 1::2]], dim=-1)
        first, second = halves.chunk(2, dim=-1)
        return halves * by.cos + torch.cat([second, first], dim=-1) * by.sin

    monkeypatch.setattr("sightline.nn.attention.rotate", rotate)


def no_cap_of_scores(ours, monkeypatch):
    for attention in modules(ours.decoder, Attention):
        attention.cap = None


def no_cap_of_logits(ours, monkeypatch):
    ours.decoder.cap = None


def window_forgotten(ours, monkeypatch):
    ours.decoder.windows = (None,) * len(ours.decoder.windows)


def windows_in_the_other_blocks(ours, monkeypatch):
    ours.decoder.windows = ours.decoder.windows[::-1]


def window_of_one_more(ours, monkeypatch):
    ours.decoder.windows = tuple(w and w + 1 for w in ours.decoder.windows)


def window_inside_the_prompt(ours, monkeypatch):
    """The prompt's two directions end at the window as well."""

    def narrow(queries, keys, prefix=None, window=None):
        allowed = prefix_causal(queries, keys, prefix, window)
        far = (queries[:, :, None] - keys[:, None]).abs() >= (window or 1 << 30)
        return allowed & ~far[:, None]

    monkeypatch.setattr(decoder, "prefix_causal", narrow)


def nothing_normalised_behind_the_halves(ours, monkeypatch):
    for block in ours.decoder.blocks:
        block.after1 = block.after2 = None


EVERYWHERE = [
    norms_without_the_one, products_scaled_by_width_over_heads, words_without_their_factor,
    exact_gelu, positions_of_another_base, neighbouring_components_turned,
]  # fmt: skip
SECOND = [
    no_cap_of_scores, no_cap_of_logits, window_forgotten, windows_in_the_other_blocks,
    window_of_one_more, nothing_normalised_behind_the_halves,
]  # fmt: skip
PICTURES = [
    pure_causal_mask, pictures_times_the_root_of_the_width,
    the_begin_token_in_front_of_the_pictures, the_second_picture_first,
]  # fmt: skip
MISTAKES = {
    "gemma": EVERYWHERE[:1],
    "gemma2": EVERYWHERE + SECOND,
    "paligemma": EVERYWHERE + PICTURES,
    "paligemma2": [*PICTURES, window_forgotten, window_inside_the_prompt],
}


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """Name to the reference and its folder; nothing changes the reference."""
    made = {}
    for name in SYSTEMS:
        made[name] = reference(name), tmp_path_factory.mktemp(name)
        made[name][0].save_pretrained(made[name][1])
    return made


@pytest.mark.parametrize(
    ("name", "mistake"),
    [(name, mistake) for name, mistakes in MISTAKES.items() for mistake in mistakes],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_comparison_notices(name, mistake, references, monkeypatch):
    theirs, folder = references[name]
    ours = read(name, folder)
    mistake(ours, monkeypatch)
    assert "logits" in disagreeing(theirs, ours, name)


@pytest.mark.parametrize("name", SYSTEMS)
def test_without_a_mistake_they_agree(name, references):
    theirs, folder = references[name]
    assert disagreeing(theirs, read(name, folder), name) == set()


def test_heads_of_width_over_their_number_do_not_fit_the_file(references):
    _, folder = references["gemma"]
    entry = system("gemma")
    config = entry.read_config(json.loads((folder / "config.json").read_text()))
    ours = entry.build(replace(config, head_size=config.width // config.num_heads))
    state = entry.read_state(load_file(folder / "model.safetensors"))
    with pytest.raises(
        RuntimeError, match=r"size mismatch for decoder\.blocks\.0\.attention\.q\.weight"
    ):
        ours.load_state_dict(state)


@torch.no_grad()
def test_a_constant_offset_of_positions_is_invisible_and_a_changing_one_is_not(references):
    """Why counting from 1 is no matter of truth, and must be the same at every step."""
    theirs, folder = references["paligemma"]
    prompt, _ = prompts("paligemma")
    ids = torch.randint(3, 97, (4, 3), generator=torch.Generator().manual_seed(8))
    expected = their_steps(theirs, prompt, ids)

    def answers(first, then):
        ours = read("paligemma", folder)
        ours.decoder.first_position = first
        logits, cache = ours.prefill(prompt, 3)
        ours.decoder.first_position = then
        return torch.cat([logits[:, None], ours.extend(ids, cache)], dim=1)

    assert agree(answers(1, 1), expected)
    assert agree(answers(0, 0), expected)
    assert not agree(answers(1, 0), expected)
