"""Known mistakes, planted one at a time: the comparison with the reference must notice each.

A parity test that passes with a mistake in place measures nothing. Each control changes one thing
in our network and asks whether the outputs still agree with transformers.
"""

import json

import pytest
import torch
import torch.nn.functional as F

from sightline.models import clip, siglip
from sightline.models.table import system
from sightline.nn import pooling
from sightline.nn.masks import causal
from sightline.nn.mlp import MLP, gelu_tanh, quick_gelu
from tests.models.test_parity import CASES, agree, our_outputs, outputs, randomise, token_ids


def pair(case, tmp_path):
    from safetensors.torch import load_file

    reference = randomise(CASES[case].reference())
    reference.save_pretrained(tmp_path)
    entry = system(CASES[case].system)
    ours = entry.build(entry.read_config(json.loads((tmp_path / "config.json").read_text())))
    ours.load_state_dict(entry.read_state(load_file(tmp_path / "model.safetensors")))
    return reference, ours.eval()


def disagreeing(case, reference, ours):
    expected, got = outputs(reference, case), our_outputs(ours, reference, case)
    return {name for name in expected if not agree(got[name], expected[name])}


def use_activation(network, function):
    for module in network.modules():
        if isinstance(module, MLP):
            module.activation = function


def clip_gelu(ours, monkeypatch):
    use_activation(ours, F.gelu)


def clip_norm_on_all_tokens(ours, monkeypatch):
    original = clip.ImageTower.forward

    def forward(self, pixels):
        tokens = self.norm(original(self, pixels).tokens)
        return clip.EncodedImage(tokens=tokens, pooled=tokens[:, 0])

    monkeypatch.setattr(clip.ImageTower, "forward", forward)


def clip_pool_at_the_last_token(ours, monkeypatch):
    monkeypatch.setattr(
        clip.TextTower,
        "_end_of_text",
        lambda self, ids: torch.full((len(ids),), ids.shape[1] - 1),
    )


def clip_without_the_first_norm(ours, monkeypatch):
    ours.image.norm_in = torch.nn.Identity()


def clip_unnormalised(ours, monkeypatch):
    monkeypatch.setattr(clip, "unit_length", lambda x: x)


def clip_without_causal_mask(ours, monkeypatch):
    monkeypatch.setattr(clip, "causal", lambda length, device: torch.ones(length, length).bool())


def clip_wrong_epsilon(ours, monkeypatch):
    for module in ours.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-3


def siglip_causal_text(ours, monkeypatch):
    blocks = ours.text.transformer.forward
    monkeypatch.setattr(ours.text.transformer, "forward", lambda x: blocks(x, causal(x.shape[1])))


def siglip_mask_passed(ours, monkeypatch):
    """Sentences are padded from their own lengths on, and the padding is hidden."""
    blocks = ours.text.transformer.forward
    mask = (token_ids_of_siglip() != 1)[:, None, None]
    monkeypatch.setattr(ours.text.transformer, "forward", lambda x: blocks(x, mask))


def token_ids_of_siglip():
    return token_ids(CASES["siglip"].reference(), "siglip")


def siglip_residual_around_the_pool(ours, monkeypatch):
    def forward(self, tokens):
        residual = self.probe + self.attend(tokens)
        return (residual + self.mlp(self.norm(residual)))[:, 0]

    monkeypatch.setattr(pooling.AttentionPool, "forward", forward)


def siglip_exact_gelu(ours, monkeypatch):
    use_activation(ours, F.gelu)


def siglip_takes_the_last_word(ours, monkeypatch):
    """The last token that is no padding, as other text towers do."""

    def forward(self, ids):
        x = self.embedding(ids) + self.positions[: ids.shape[1]]
        tokens = self.norm(self.transformer(x))
        last = (ids != 1).sum(dim=1) - 1
        return siglip.EncodedText(tokens=tokens, pooled=self.head(pooling.at_index(tokens, last)))

    monkeypatch.setattr(siglip.TextTower, "forward", forward)


MISTAKES = {
    "clip": [
        clip_gelu, clip_norm_on_all_tokens, clip_pool_at_the_last_token,
        clip_without_the_first_norm, clip_unnormalised, clip_without_causal_mask,
        clip_wrong_epsilon,
    ],
    "siglip": [
        siglip_causal_text, siglip_mask_passed, siglip_residual_around_the_pool,
        siglip_exact_gelu, siglip_takes_the_last_word,
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "mistake"),
    [(case, mistake) for case, mistakes in MISTAKES.items() for mistake in mistakes],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_comparison_notices(case, mistake, tmp_path, monkeypatch):
    reference, ours = pair(case, tmp_path)
    assert disagreeing(case, reference, ours) == set()
    mistake(ours, monkeypatch)
    assert disagreeing(case, reference, ours)


def test_changing_the_padding_changes_siglip_and_not_clip(tmp_path):
    for case, changes in (("siglip", True), ("clip", False)):
        reference, ours = pair(case, tmp_path / case)
        ids = token_ids(reference, case)
        other = ids.clone()
        other[1, -1] = 7  # behind the end of the second sentence
        a, b = ours.encode_texts(ids)[1], ours.encode_texts(other)[1]
        assert torch.equal(a, b) is not changes


def test_activations_differ_enough_to_be_told_apart():
    x = torch.linspace(-4, 4, 99)
    assert not torch.allclose(quick_gelu(x), F.gelu(x), atol=1e-3)
    assert not torch.allclose(gelu_tanh(x), F.gelu(x), atol=1e-5)
