"""Parity with transformers on random weights: outputs, intermediate states, gradients, files.

Every parameter of the reference is drawn anew, because the defaults (0 and 1) hide mistakes. The
reference writes its checkpoint, Sightline reads it, and both are asked the same.
"""

import pathlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sightline.models.table import system
from sightline.nn.meta import without_memory

transformers = pytest.importorskip("transformers")  # the reference; part of the test extra

TOWER = {"num_hidden_layers": 3, "num_attention_heads": 3, "hidden_size": 24, "num_channels": 3}
VISION = {**TOWER, "intermediate_size": 40, "image_size": 24, "patch_size": 8}
TEXT = {
    "num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 20, "intermediate_size": 36,
    "vocab_size": 99, "max_position_embeddings": 9, "pad_token_id": 1, "bos_token_id": 97,
    "eos_token_id": 98,
}  # fmt: skip


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        spread = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        parameter.data = centre + spread * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def vit() -> nn.Module:
    config = transformers.ViTConfig(**{**VISION, "image_size": (24, 40)})
    return transformers.ViTModel(config)


def clip(eos: int = 98, act: str = "quick_gelu") -> nn.Module:
    config = transformers.CLIPConfig(
        vision_config={**VISION, "hidden_act": act},
        text_config={**TEXT, "eos_token_id": eos, "hidden_act": act},
        projection_dim=16,
    )
    return transformers.CLIPModel(config)


def siglip(vocab: int = 99) -> nn.Module:
    text = {**TEXT, "projection_size": 24, "vocab_size": vocab}
    return transformers.SiglipModel(
        transformers.SiglipConfig(vision_config=VISION, text_config=text)
    )


@dataclass
class Case:
    system: str
    reference: Callable[[], nn.Module]


CASES = {
    "vit": Case("vit", vit),
    "clip": Case("clip", clip),
    "clip-legacy-eos": Case("clip", lambda: clip(eos=2)),
    "clip-exact-gelu": Case("clip", lambda: clip(act="gelu")),
    "siglip": Case("siglip", siglip),
    "siglip2": Case("siglip", lambda: siglip(vocab=251)),
}


@pytest.fixture(params=CASES, ids=str)
def both(request, tmp_path):
    """(case name, reference, ours, folder the reference wrote)."""
    case = CASES[request.param]
    reference = randomise(case.reference())
    reference.save_pretrained(tmp_path)
    return request.param, reference, load_ours(case.system, tmp_path), tmp_path


def load_ours(name: str, folder: pathlib.Path) -> nn.Module:
    import json

    entry = system(name)
    ours = entry.build(entry.read_config(json.loads((folder / "config.json").read_text())))
    ours.load_state_dict(entry.read_state(load_file(folder / "model.safetensors")), strict=True)
    return ours.eval()


def agree(ours: Tensor, reference: Tensor) -> bool:
    ours, reference = ours.detach(), reference.detach()
    limit = 1e-5 * max(1.0, float(reference.abs().max()))
    return ours.shape == reference.shape and float((ours - reference).abs().max()) <= limit


def pixels(reference: nn.Module, batch: int = 3) -> Tensor:
    config = getattr(reference.config, "vision_config", reference.config)
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(5))


def token_ids(reference: nn.Module, case: str) -> Tensor:
    """Sentences of unequal length; CLIP's carry an end of text and padding behind it."""
    text = reference.config.text_config
    ids = torch.randint(3, 90, (4, text.max_position_embeddings),
                        generator=torch.Generator().manual_seed(6))  # fmt: skip
    if case.startswith("clip"):
        for row, end in enumerate([8, 3, 5, 1]):
            ids[row, end] = 98
            ids[row, end + 1 :] = 98 if "legacy" not in case else 0
    else:
        for row, end in enumerate([9, 3, 5, 1]):
            ids[row, end:] = text.pad_token_id
    return ids


def outputs(reference: nn.Module, case: str) -> dict[str, Tensor]:
    if case == "vit":
        out = reference(pixels(reference))
        return {"tokens": out.last_hidden_state, "pooler": out.pooler_output}
    out = reference(pixel_values=pixels(reference), input_ids=token_ids(reference, case))
    return {
        "image": out.image_embeds,
        "text": out.text_embeds,
        "logits": out.logits_per_image,
        "image pooled": reference.vision_model(pixels(reference)).pooler_output,
        "image tokens": out.vision_model_output.last_hidden_state,
        "text tokens": out.text_model_output.last_hidden_state,
    }


def our_outputs(ours: nn.Module, reference: nn.Module, case: str) -> dict[str, Tensor]:
    picture = pixels(reference)
    if case == "vit":
        out = ours(picture)
        return {"tokens": out.tokens, "pooler": ours.pre_logits(out.pooled)}
    ids = token_ids(reference, case)
    scores, image, text = ours(picture, ids), ours.image(picture), ours.text(ids)
    return {
        "image": scores.image_embeddings,
        "text": scores.text_embeddings,
        "logits": scores.logits,
        "image pooled": image.pooled,
        "image tokens": image.tokens,
        "text tokens": text.tokens,
    }


def test_outputs_agree(both):
    case, reference, ours, _ = both
    expected, got = outputs(reference, case), our_outputs(ours, reference, case)
    assert {name for name in expected if not agree(got[name], expected[name])} == set()


def test_every_intermediate_state_agrees(both):
    case, reference, ours, _ = both
    expected, got = [], []
    blocks = {"EncoderLayer": expected, "ViTLayer": expected, "Block": got}
    for network in (reference, ours):
        for module in network.modules():
            for ending, record in blocks.items():
                if type(module).__name__.endswith(ending):
                    module.register_forward_hook(lambda m, i, o, r=record: r.append(o))
    picture = pixels(reference)
    if case == "vit":
        reference(picture)
        ours(picture)
    else:
        reference(pixel_values=picture, input_ids=token_ids(reference, case))
        ours(picture, token_ids(reference, case))
    # The towers may run in either order; each state must be found once.
    assert len(expected) == len(got) == (3 if case == "vit" else 6)
    by_shape = sorted(expected, key=lambda x: x.shape), sorted(got, key=lambda x: x.shape)
    assert all(agree(b, a) for a, b in zip(*by_shape, strict=True))


def test_gradients_agree(both):
    case, reference, ours, _ = both
    weights = {k: torch.randn(v.shape, generator=torch.Generator().manual_seed(9))
               for k, v in outputs(reference, case).items()}  # fmt: skip
    for network, values in (
        (reference, outputs(reference, case)),
        (ours, our_outputs(ours, reference, case)),
    ):
        network.zero_grad()
        sum((values[name] * weight).sum() for name, weight in weights.items()).backward()
    theirs = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    entry = system(CASES[case].system)
    # The written names are the file's; ask the reference to load them and compare by value.
    mine = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    ours_total = torch.cat([g.flatten() for g in mine.values()])
    theirs_total = torch.cat([g.flatten() for g in theirs.values()])
    assert ours_total.numel() == theirs_total.numel()
    if case != "vit":  # transformers renames ViT's parameters in memory, not in the file
        written = entry.write_state({n: g for n, g in mine.items()})
        wrong = [name for name, grad in theirs.items() if not agree(written[name], grad)]
        assert wrong == []
    assert agree(ours_total.sort().values, theirs_total.sort().values)


def test_what_is_saved_here_loads_there_with_no_missing_key(both, tmp_path):
    import json

    case, reference, ours, folder = both
    entry = system(CASES[case].system)
    config = entry.read_config(json.loads((folder / "config.json").read_text()))
    out = tmp_path / "ours"
    out.mkdir()
    (out / "config.json").write_text(json.dumps(entry.write_config(config)))
    written = {k: v.contiguous() for k, v in entry.write_state(ours.state_dict()).items()}
    save_file(written, out / "model.safetensors", metadata={"format": "pt"})
    back, info = type(reference).from_pretrained(out, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected, got = outputs(reference, case), outputs(back.eval(), case)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_the_file_written_here_is_bit_identical_to_theirs(both):
    case, _, ours, folder = both
    theirs = load_file(folder / "model.safetensors")
    written = system(CASES[case].system).write_state(ours.state_dict())
    assert written.keys() == theirs.keys()
    assert all(torch.equal(written[name], theirs[name]) for name in theirs)


def test_positions_resample_as_the_reference_does(both):
    case, reference, ours, _ = both
    if case == "vit":
        pytest.skip("its reference cannot resample a grid that is not square; CLIP's covers it")
    picture = torch.randn(2, 3, 40, 32, generator=torch.Generator().manual_seed(7))
    tower = reference.vision_model
    expected = tower(picture, interpolate_pos_encoding=True)
    assert agree(ours.image(picture).tokens, expected.last_hidden_state)
    assert agree(ours.image(picture).pooled, expected.pooler_output)


@pytest.mark.parametrize(
    ("name", "variant", "count"),
    [
        ("clip", "B/32", 151_277_313),
        ("clip", "B/16", 149_620_737),
        ("clip", "L/14", 427_616_513),
        ("clip", "L/14@336", 427_944_193),
        ("siglip", "B/16-224", 203_155_970),
        ("siglip", "So400m/14-384", 877_960_498),
        ("vit", "B/16", 86_389_248),
    ],
)
def test_full_size_parameter_counts(name, variant, count):
    entry = system(name)
    with without_memory():
        network = entry.build(entry.variants[variant])
    assert sum(p.numel() for p in network.parameters()) == count
