"""SigLIP 2 NaFlex beside transformers' Siglip2Model, on random weights and ragged pictures.

Parity is asked at the patches that exist; what a network answers at padding has no meaning.
"""

import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sightline.core.errors import CheckpointError, ConfigError
from sightline.core.interfaces import PackedPatches, PatchBatch
from sightline.inputs.packing import pack
from sightline.models import siglip_naflex
from sightline.models.table import system, system_for
from sightline.nn import pooling
from sightline.nn.mlp import MLP
from sightline.nn.precision import lower
from tests.models.test_parity import TEXT, agree, randomise

transformers = pytest.importorskip("transformers")  # the reference; part of the test extra

PATCH = 4
GRIDS = [(2, 3), (1, 5), (4, 2), (3, 3), (1, 1)]
PADDED = 11  # patches in a row, more than any picture has
ENTRY = system("siglip2-naflex")


def siglip2():
    vision = {
        "num_hidden_layers": 3, "num_attention_heads": 3, "hidden_size": 24, "num_channels": 3,
        "intermediate_size": 40, "patch_size": PATCH, "num_patches": 9,
    }  # fmt: skip
    config = transformers.Siglip2Config(
        vision_config=vision, text_config={**TEXT, "projection_size": 24}
    )
    return transformers.Siglip2Model(config)


@pytest.fixture
def both(tmp_path):
    """(reference, ours, folder the reference wrote)."""
    reference = randomise(siglip2())
    reference.save_pretrained(tmp_path)
    return reference, load_ours(tmp_path), tmp_path


def load_ours(folder):
    ours = ENTRY.build(ENTRY.read_config(json.loads((folder / "config.json").read_text())))
    ours.load_state_dict(ENTRY.read_state(load_file(folder / "model.safetensors")), strict=True)
    return ours.eval()


def pictures(grids=GRIDS, padded=PADDED, seed=5):
    """Random patches; the padding is no zeros, so that looking at it shows."""
    shapes = torch.tensor(grids)
    mask = torch.arange(padded) < shapes.prod(dim=1, keepdim=True)
    generator = torch.Generator().manual_seed(seed)
    return PatchBatch(
        torch.randn(len(grids), padded, 3 * PATCH**2, generator=generator), mask, shapes
    )


def ids():
    found = torch.randint(3, 90, (4, 9), generator=torch.Generator().manual_seed(6))
    for row, end in enumerate([9, 3, 5, 1]):
        found[row, end:] = 1
    return found


def outputs(reference, batch):
    out = reference(
        input_ids=ids(),
        pixel_values=batch.patches,
        pixel_attention_mask=batch.mask.int(),
        spatial_shapes=batch.grids,
    )
    return {
        "image": out.image_embeds,
        "text": out.text_embeds,
        "logits": out.logits_per_image,
        "image pooled": out.vision_model_output.pooler_output,
        "image tokens": out.vision_model_output.last_hidden_state[batch.mask],
        "text tokens": out.text_model_output.last_hidden_state,
    }


def our_outputs(ours, batch):
    scores, image, text = ours(batch, ids()), ours.image(batch), ours.text(ids())
    return {
        "image": scores.image_embeddings,
        "text": scores.text_embeddings,
        "logits": scores.logits,
        "image pooled": image.pooled,
        "image tokens": image.tokens[batch.mask],
        "text tokens": text.tokens,
    }


def disagreeing(reference, ours, batch=None):
    batch = batch or pictures()
    expected, got = outputs(reference, batch), our_outputs(ours, batch)
    return {name for name in expected if not agree(got[name], expected[name])}


def test_outputs_agree_over_ragged_pictures(both):
    reference, ours, _ = both
    assert disagreeing(reference, ours) == set()


@pytest.mark.parametrize("grids", [[(3, 3)], [(9, 1), (1, 9)], [(7, 5), (2, 17), (6, 6)], [(1, 1)]])
def test_outputs_agree_over_grids_larger_and_smaller_than_the_table(both, grids):
    reference, ours, _ = both
    assert disagreeing(reference, ours, pictures(grids, padded=37)) == set()


def test_every_intermediate_state_agrees(both):
    reference, ours, _ = both
    batch, expected, got = pictures(), [], []
    for network, ending, record in ((reference, "EncoderLayer", expected), (ours, "Block", got)):
        for module in network.modules():
            if type(module).__name__.endswith(ending):
                module.register_forward_hook(lambda m, i, o, r=record: r.append(o))
    outputs(reference, batch)
    ours(batch, ids())
    assert len(expected) == len(got) == 6
    for kind in (PADDED, 9):  # pictures, then sentences
        theirs = [x for x in expected if x.shape[1] == kind]
        mine = [x for x in got if x.shape[1] == kind]
        assert len(theirs) == len(mine) == 3
        present = batch.mask if kind == PADDED else torch.ones(4, 9, dtype=torch.bool)
        assert all(agree(b[present], a[present]) for a, b in zip(theirs, mine, strict=True))


def test_gradients_agree(both):
    reference, ours, _ = both
    batch = pictures()
    weights = {k: torch.randn(v.shape, generator=torch.Generator().manual_seed(9))
               for k, v in outputs(reference, batch).items()}  # fmt: skip
    for network, values in (
        (reference, outputs(reference, batch)),
        (ours, our_outputs(ours, batch)),
    ):
        network.zero_grad()
        sum((values[name] * weight).sum() for name, weight in weights.items()).backward()
    written = ENTRY.write_state({n: p.grad for n, p in ours.named_parameters()})
    theirs = {n: p.grad for n, p in reference.named_parameters()}
    assert written.keys() == theirs.keys()
    assert [name for name, grad in theirs.items() if not agree(written[name], grad)] == []


def test_what_is_saved_here_loads_there_with_no_missing_key(both, tmp_path):
    reference, ours, folder = both
    config = ENTRY.read_config(json.loads((folder / "config.json").read_text()))
    out = tmp_path / "ours"
    out.mkdir()
    (out / "config.json").write_text(json.dumps(ENTRY.write_config(config)))
    written = {k: v.contiguous() for k, v in ENTRY.write_state(ours.state_dict()).items()}
    save_file(written, out / "model.safetensors", metadata={"format": "pt"})
    back, info = transformers.Siglip2Model.from_pretrained(out, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected, got = outputs(reference, pictures()), outputs(back.eval(), pictures())
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_the_file_written_here_is_bit_identical_to_theirs(both):
    _, ours, folder = both
    theirs = load_file(folder / "model.safetensors")
    written = ENTRY.write_state(ours.state_dict())
    assert written.keys() == theirs.keys()
    assert all(torch.equal(written[name], theirs[name]) for name in theirs)


def test_a_published_configuration_finds_this_system():
    assert system_for(siglip2().config.to_dict()) is ENTRY
    assert system_for({"model_type": "siglip"}).name == "siglip"


# Packed equals unpacked.


def packings(batch):
    """The same pictures, three ways: first fit, one long row, and an order of our own."""
    counts = batch.grids.prod(dim=1).tolist()
    shuffled = PackedPatches(torch.zeros(2, 21, 3 * PATCH**2), torch.full((2, 21), -1), batch.grids)
    for row, members in enumerate(([4, 2, 1], [3, 0])):  # pictures in no order, gaps in between
        at = 0
        for n in members:
            shuffled.patches[row, at : at + counts[n]] = batch.patches[n, : counts[n]]
            shuffled.pictures[row, at : at + counts[n]] = n
            at += counts[n] + 2
    return {"first fit": pack(batch, 12), "one row": pack(batch, sum(counts)), "own": shuffled}


@pytest.mark.parametrize("layout", ["first fit", "one row", "own"])
def test_packed_equals_unpacked(both, layout):
    _, ours, _ = both
    batch = pictures()
    packed = packings(batch)[layout]
    assert len(packed.patches) < len(batch.patches)
    expected, got = ours(batch, ids()), ours(packed, ids())
    assert agree(got.image_embeddings, expected.image_embeddings)
    assert agree(got.logits, expected.logits)
    longest = int(batch.grids.prod(dim=1).max())
    tokens = ours.image(packed).tokens
    assert tokens.shape[:2] == (len(batch.patches), longest)
    assert agree(tokens[batch.mask[:, :longest]], ours.image(batch).tokens[batch.mask])


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=7))
@settings(max_examples=25, deadline=None)
def test_packed_equals_unpacked_for_any_pictures(grids):
    torch.manual_seed(0)
    ours = randomise(ENTRY.build(ENTRY.tiny))
    batch = pictures(grids, padded=25)
    with torch.no_grad():
        expected = ours.encode_images(batch)
        assert agree(ours.encode_images(pack(batch, 26)), expected)


def test_packed_gradients_equal_unpacked_ones(both):
    _, ours, _ = both
    batch = pictures()
    found = []
    for layout in (batch, pack(batch, 12)):
        ours.zero_grad()
        logits = ours(layout, ids()).logits
        weight = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3))
        (logits * weight).sum().backward()
        found.append({name: p.grad.clone() for name, p in ours.named_parameters()})
    assert [name for name in found[0] if not agree(found[1][name], found[0][name])] == []


def test_a_row_that_is_all_padding_disturbs_nothing(both):
    _, ours, _ = both
    batch = pictures()
    packed = pack(batch, 12, rows=6)
    assert (packed.pictures[-1] == -1).all()
    assert agree(ours.encode_images(packed), ours.encode_images(batch))


def test_padding_changes_nothing_whatever_it_holds(both):
    _, ours, _ = both
    batch = pictures()
    other = batch._replace(patches=batch.patches.where(batch.mask[..., None], 1e3))
    assert torch.equal(ours.encode_images(other), ours.encode_images(batch))


@torch.no_grad()
def test_packed_stays_near_in_bfloat16(both):
    _, ours, _ = both
    batch = pictures()
    expected = ours.encode_images(batch)
    got = lower(ours, torch.bfloat16).encode_images(pack(batch, 12))
    assert got.dtype == torch.float32
    assert float(torch.cosine_similarity(got, expected).min()) >= 0.9995


# Known mistakes: the comparison must notice each.


def channel_first(ours, monkeypatch):
    """Patches flattened (channel, row, column), as a convolution's weight has them."""
    projection = ours.image.patches.projection
    order = torch.arange(3 * PATCH**2).reshape(PATCH, PATCH, 3).permute(2, 0, 1).flatten()
    original = projection.forward
    monkeypatch.setattr(projection, "forward", lambda x: original(x[..., order]))


def positions_of_the_first_picture(ours, monkeypatch):
    """Every picture takes the table's rows as they come, not resampled to its own grid."""
    positions = ours.image.positions
    monkeypatch.setattr(
        positions, "each", lambda grids: torch.cat([positions.table[: r * c] for r, c in grids])
    )


def bicubic_positions(ours, monkeypatch):
    ours.image.positions.filter = "bicubic"


def no_antialias(ours, monkeypatch):
    ours.image.positions.antialias = False


def transposed_grids(ours, monkeypatch):
    each = ours.image.positions.each
    monkeypatch.setattr(ours.image.positions, "each", lambda grids: each([g[::-1] for g in grids]))


def pool_sees_padding(ours, monkeypatch):
    attend = pooling.AttentionPool.attend
    monkeypatch.setattr(
        pooling.AttentionPool, "attend", lambda self, tokens, present: attend(self, tokens)
    )


def padding_is_attended(ours, monkeypatch):
    monkeypatch.setattr(
        siglip_naflex,
        "present_keys",
        lambda present: torch.ones_like(present)[:, None, None],
    )


def exact_gelu(ours, monkeypatch):
    for module in ours.modules():
        if isinstance(module, MLP):
            module.activation = F.gelu


MISTAKES = [
    channel_first, positions_of_the_first_picture, bicubic_positions, no_antialias,
    transposed_grids, pool_sees_padding, padding_is_attended, exact_gelu,
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_the_comparison_notices(both, mistake, monkeypatch):
    reference, ours, _ = both
    assert disagreeing(reference, ours) == set()
    mistake(ours, monkeypatch)
    assert "image" in disagreeing(reference, ours)


def test_neighbours_in_a_row_that_are_seen_are_noticed(both, monkeypatch):
    _, ours, _ = both
    batch = pictures()
    expected, packed = ours.encode_images(batch), pack(batch, 12)
    assert agree(ours.encode_images(packed), expected)
    monkeypatch.setattr(
        siglip_naflex,
        "same_owner",
        lambda owners: torch.ones(len(owners), 1, *owners.shape[1:] * 2).bool(),
    )
    assert not agree(ours.encode_images(packed), expected)


# Refusals.


def test_a_mask_that_contradicts_the_grids_is_refused(both):
    _, ours, _ = both
    batch = pictures()
    wrong = batch._replace(grids=batch.grids.flip(0))
    with pytest.raises(ConfigError, match="do not fit rows of"):
        ours.encode_images(wrong)
    packed = pack(batch, 12)
    with pytest.raises(ConfigError, match="do not fit rows of"):
        ours.encode_images(packed._replace(grids=packed.grids + 1))
    with pytest.raises(ConfigError, match="do not fit rows of"):
        ours.encode_images(packed._replace(pictures=packed.pictures.clamp(min=0)))


def test_patches_of_another_size_are_refused(both):
    _, ours, _ = both
    batch = pictures()
    with pytest.raises(
        ConfigError, match="patches of 47 numbers arrived and this network takes 48"
    ):
        ours.encode_images(batch._replace(patches=batch.patches[..., 1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_patches": 10}, "'num_patches' is 10; allowed: a square number"),
     ({"num_patches": 0}, "'num_patches' is 0"),
     ({"patch_size": [16, 8]}, "'patch_size' is 16 x 8; allowed: a square"),
     ({"vision_use_head": False}, "'vision_use_head' is false")],
)  # fmt: skip
def test_configurations_that_fit_no_network_are_refused(change, message):
    with pytest.raises(CheckpointError, match=message):
        ENTRY.read_config({"vision_config": change})
