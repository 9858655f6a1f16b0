"""What a network starts from: deviations that the released codes state, drawn often enough to see.

The expected numbers are the formulas of the papers' code, written out for the tiny sizes.
"""

import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from sightline.models import lit, swin
from sightline.models.table import system

transformers = pytest.importorskip("transformers")  # knows the published means

DRAWS = 24
Rule = Callable[[int, int], float]  # of what goes in and what comes out of the layer


def by_input(inputs: int, outputs: int) -> float:
    return inputs**-0.5


def xavier(inputs: int, outputs: int) -> float:
    return (2 / (inputs + outputs)) ** 0.5


def thin(inputs: int, outputs: int) -> float:
    return 0.02


DEPTH = 3  # of every tiny transformer
CLIP = {
    r".*\.[qkv]\.weight": by_input,
    r".*\.attention\.out\.weight": lambda i, o: (2 * DEPTH * i) ** -0.5,
    r".*\.fc1\.weight": lambda i, o: (2 * i) ** -0.5,
    r".*\.fc2\.weight": lambda i, o: (2 * DEPTH * o) ** -0.5,
    r"text\.embedding\.weight": thin,
    r"text\.positions": lambda i, o: 0.01,
}
SIGLIP = {
    r"image\.pool\.probe|text\.positions|.*positions\.table|.*embedding\.weight": by_input,
    r"image\.patches\.projection\.weight": by_input,
    r".*(q|k|v|kv|out|fc1|fc2|head)\.weight": xavier,
}
RULES: dict[str, dict[str, Rule]] = {
    "vit": {r"positions\.table": thin, r".*(\.[qkv]|out|fc1|fc2|pooler)\.weight": xavier},
    "resnet": {},  # by the convolutions' outputs, below
    "swin": {r".*(projection|[qkv]|out|fc1|fc2|reduction)\.weight|.*position_bias\.table": thin},
    "bert": {r"positions|segments\.weight|.*(embedding|[qkv]|out|fc1|fc2|pooler)\.weight": thin},
    "clip": {**CLIP, r"image\.(class_token|positions\.table)|.*_projection\.weight": by_input},
    "clip_resnet": {
        **CLIP,
        r"image\.pool\.([qkv]\.weight|positions\.table)|.*_projection\.weight": by_input,
    },
    "siglip": SIGLIP,
    "siglip2-naflex": SIGLIP,
    "unicl": {
        r"text\..*\.[qkv]\.weight": lambda i, o: (i + o) ** -0.5,  # a third of one Xavier matrix
        r"text\..*(embedding|out|fc1|fc2)\.weight|.*_projection\.weight": thin,
    },
    "lit": {r".*_head\.weight": by_input},
    "vision_text": {r".*_projection\.weight": by_input},
}


def drawn(name):
    """Each parameter's values over several networks, float[draws, ...]."""
    entry = system(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = [dict(entry.build(entry.tiny).named_parameters()) for _ in range(DRAWS)]
    return {name: torch.stack([each[name].detach() for each in networks]) for name in networks[0]}


@pytest.mark.parametrize("name", RULES)
def test_deviations_are_those_of_the_released_code(name):
    found, used = drawn(name), set()
    for parameter, values in found.items():
        for pattern, rule in RULES[name].items():
            if re.fullmatch(pattern, parameter):
                used.add(pattern)
                shape = values.shape[1:]
                inputs = shape[1:].numel() if len(shape) > 1 else shape[0]
                expected = rule(inputs, shape[0])
                assert values.std().item() == pytest.approx(expected, rel=0.15), parameter
                assert values.mean().abs() < 0.3 * expected, parameter
    assert used == set(RULES[name])


def test_resnet_draws_by_what_a_convolution_gives():
    found = {name: each for name, each in drawn("resnet").items() if name.endswith("conv.weight")}
    for name, values in found.items():
        fan_out = values.shape[1] * values.shape[3] * values.shape[4]
        tolerance = 0.15 if values.numel() > 600 else 0.3
        assert values.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=tolerance), name


@pytest.mark.parametrize("name", ["vit", "swin", "bert", "clip", "siglip", "siglip2-naflex"])
def test_norms_start_as_nothing_and_biases_at_zero(name):
    for parameter, values in drawn(name).items():
        if re.search(r"norm\w*\.weight$", parameter):
            assert (values == 1).all(), parameter
        elif parameter.endswith(".bias") and "patches" not in parameter:
            assert (values == 0).all(), parameter


def test_each_block_of_clip_s_resnet_starts_as_its_shortcut():
    found = drawn("clip_resnet")
    last = [values for name, values in found.items() if name.endswith("layers.2.norm.weight")]
    others = [values for name, values in found.items() if re.search(r"[01]\.norm\.weight$", name)]
    assert last and all((values == 0).all() for values in last)
    assert others and all((values == 1).all() for values in others)


@pytest.mark.parametrize(
    ("name", "scale", "bias"),
    [
        ("clip", 1 / 0.07, 0), ("clip_resnet", 1 / 0.07, 0), ("vision_text", 1 / 0.07, 0),
        ("siglip", 10, -10), ("siglip2-naflex", 10, -10), ("unicl", math.e, 0),
        ("lit", 10, -2.71),
    ],
)  # fmt: skip
def test_cosines_start_with_the_published_scale(name, scale, bias):
    entry = system(name)
    found = entry.build(entry.tiny).pair_scale()
    assert [each.item() for each in found] == pytest.approx([scale, bias], rel=1e-4)


def test_positions_of_swin_start_like_its_weights():
    table = swin.Swin(replace(swin.TINY, absolute_positions=True)).positions.table
    assert table.std().item() == pytest.approx(0.02, rel=0.15)


def published():
    known = transformers.image_utils
    half = known.IMAGENET_STANDARD_MEAN, known.IMAGENET_STANDARD_STD
    imagenet = known.IMAGENET_DEFAULT_MEAN, known.IMAGENET_DEFAULT_STD
    openai = known.OPENAI_CLIP_MEAN, known.OPENAI_CLIP_STD
    return {
        "vit": half, "siglip": half, "siglip2-naflex": half, "swin": imagenet, "resnet": imagenet,
        "unicl": imagenet, "clip": openai, "clip_resnet": openai,
    }  # fmt: skip


@pytest.mark.parametrize("name", published())
def test_pictures_are_shifted_by_the_published_numbers(name):
    entry = system(name)
    spec = entry.preprocessing(entry.tiny)
    mean, deviation = published()[name]
    assert spec.mean == tuple(mean) and spec.std == tuple(deviation)


def test_unicl_resizes_by_the_shorter_side():
    entry = system("unicl")
    assert entry.tiny.image.image_size == (36, 48)
    assert entry.preprocessing(entry.tiny).shortest == 36 * 256 // 224


def test_the_shortest_sentence_of_lit_has_cls_and_a_token():
    tiny = lit.TINY
    assert replace(tiny, max_tokens=2, image_head=0).max_tokens == 2
