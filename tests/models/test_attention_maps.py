"""Recorded attention beside transformers', and the maps made of it beside plain loops over it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sightline
from sightline.nn import relevance
from sightline.nn.attention import recording
from sightline.tasks.heat import on_picture
from tests.hub.tiny import tiny_folder
from tests.models.test_parity import CASES, agree, both, pixels, token_ids  # noqa: F401

transformers = pytest.importorskip("transformers")  # the reference; part of the test extra

Both = tuple[str, nn.Module, nn.Module, object]


def of_reference(
    case: str, reference: nn.Module, picture: Tensor, ids: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The scores and the attention of the picture's side, the pool's last, by the reference."""
    reference.set_attn_implementation("eager")  # the only one that hands its weights out
    picture = picture.clone().requires_grad_()
    if case == "vit":
        out = reference(picture, output_attentions=True)
        return out.last_hidden_state[:, 0].sum(dim=1), list(out.attentions)
    tower = reference.vision_model
    found = tower(picture, output_attentions=True)
    if case.startswith("clip"):
        pooled, weights = reference.visual_projection(found.pooler_output), []
    else:
        pooled, weights = pool_of_reference(tower.head, found.last_hidden_state)
    words = reference.get_text_features(ids)
    words = getattr(words, "pooler_output", words)
    cosines = nn.functional.cosine_similarity(pooled, words[:1], dim=-1)  # [B]
    return cosines, [*found.attentions, *weights]


def pool_of_reference(head: nn.Module, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The reference's pool, written out: torch's module hands out weights that nothing depends on,
    so that they have no gradient; its answers check these."""
    pool, probe = head.attention, head.probe.repeat(len(tokens), 1, 1)
    inputs = (probe, tokens, tokens)
    parts = zip(inputs, pool.in_proj_weight.chunk(3), pool.in_proj_bias.chunk(3), strict=True)
    q, k, v = ((x @ w.T + b).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
               for x, w, b in parts)  # fmt: skip
    weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(dim=-1)
    mixed = pool.out_proj((weights @ v).transpose(1, 2).flatten(2))
    answers = pool(*inputs, average_attn_weights=False)
    assert agree(mixed, answers[0]) and agree(weights, answers[1])
    return (mixed + head.mlp(head.layernorm(mixed)))[:, 0], [weights]


def words(case: str, reference: nn.Module) -> Tensor:
    """Ids of a sentence; a trunk reads none."""
    return torch.zeros(1, 1).long() if case == "vit" else token_ids(reference, case)[1:2]


def of_ours(case: str, ours: nn.Module, reference: nn.Module) -> tuple[Tensor, list[Tensor]]:
    picture = pixels(reference).requires_grad_()
    with recording(getattr(ours, "image", ours)) as record:
        if case == "vit":
            return ours(picture).pooled.sum(dim=1), record.weights
        score = ours.encode_images(picture) @ ours.encode_texts(words(case, reference))[0]
    return score, record.weights


def slopes_of(score: Tensor, weights: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(score.sum(), weights, retain_graph=True))


def test_recorded_weights_and_their_gradients_are_the_reference_s(both: Both) -> None:  # noqa: F811
    case, reference, ours, _ = both
    expected_score, expected = of_reference(
        case, reference, pixels(reference), words(case, reference)
    )
    score, weights = of_ours(case, ours, reference)
    assert agree(score, expected_score)
    assert len(weights) == len(expected) == (4 if case.startswith("siglip") else 3)
    assert all(agree(a, b) for a, b in zip(weights, expected, strict=True))
    pairs = zip(slopes_of(score, weights), slopes_of(expected_score, expected), strict=True)
    assert all(agree(a, b) for a, b in pairs)


def chefer(weights: list[np.ndarray], slopes: list[np.ndarray]) -> np.ndarray:
    """Equations 5 and 6 of arXiv:2103.15679 for one picture, one head after the other."""
    total = np.eye(weights[0].shape[-1])
    for layer, slope in zip(weights, slopes, strict=True):
        heads = [np.maximum(a * g, 0) for a, g in zip(layer, slope, strict=True)]
        total = total + (sum(heads) / len(heads)) @ total
    return total


def abnar(weights: list[np.ndarray], upward: bool = True) -> np.ndarray:
    """Section 3 of arXiv:2005.00928 for one picture."""
    total = np.eye(weights[0].shape[-1])
    for heads in weights if upward else weights[::-1]:
        total = (0.5 * heads.mean(axis=0) + 0.5 * np.eye(heads.shape[-1])) @ total
    return total


def test_relevance_is_the_papers_formulas_over_the_reference_s_weights(both: Both) -> None:  # noqa: F811
    case, reference, ours, _ = both
    score, expected = of_reference(case, reference, pixels(reference), words(case, reference))
    slopes = slopes_of(score, expected)
    our_score, weights = of_ours(case, ours, reference)
    our_slopes = slopes_of(our_score, weights)
    gradient = relevance.weighted_by_gradient(weights[:3], our_slopes[:3])
    rolled = relevance.rollout(weights[:3])
    assert torch.allclose(rolled.sum(dim=-1), torch.ones(3, rolled.shape[1]), atol=1e-5)
    for picture in range(3):
        plain = [w[picture].detach().double().numpy() for w in expected[:3]]
        grad = [g[picture].double().numpy() for g in slopes[:3]]
        assert agree(gradient[picture].double(), torch.from_numpy(chefer(plain, grad)))
        assert agree(rolled[picture].double(), torch.from_numpy(abnar(plain)))
        # Layers multiplied from the top down are the mistake to make here, and do not agree.
        assert not agree(rolled[picture].double(), torch.from_numpy(abnar(plain, upward=False)))


PICTURE = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
TEXT = "a red ball"


@pytest.mark.parametrize("method", ["gradient", "rollout"])
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_the_map_is_what_the_reference_s_attention_gives(
    name: str, method: str, tmp_path: Path
) -> None:
    """From the picture to the heat, with the row of the class token or of the pool."""
    tiny_folder(name, tmp_path)
    model = sightline.load(tmp_path, device="cpu", dtype="float32")
    kind = transformers.CLIPModel if name == "clip" else transformers.SiglipModel
    reference = kind.from_pretrained(tmp_path).eval()
    prepared, ids = model.processor.images([PICTURE]), model.processor.texts([TEXT]).ids
    assert isinstance(prepared, Tensor)
    score, found = of_reference(name, reference, prepared, ids)
    score = score * reference.logit_scale.exp()  # layers multiply, so the scale is not free
    slopes = [slope[0].double().numpy() for slope in slopes_of(score, found)]
    weights = [weight[0].detach().double().numpy() for weight in found]
    if method == "rollout":
        total, last = abnar(weights[:3]), weights[-1].mean(axis=0)
    else:
        total = chefer(weights[:3], slopes[:3])
        last = np.maximum(weights[-1] * slopes[-1], 0).mean(axis=0)
    row = total[0, 1:] if name == "clip" else (last @ total)[0]
    cells = torch.from_numpy(row.reshape(3, 3))
    expected = on_picture(cells, (0, 0, 24, 24), (24, 24))
    assert np.abs(model.explain(PICTURE, TEXT, method) - expected).max() < 1e-4
