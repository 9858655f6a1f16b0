"""Swin beside transformers' SwinModel, on random weights and pictures of many sizes."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from sightline.core.errors import CheckpointError
from sightline.models import swin
from sightline.models.swin import SYSTEM, TINY, Swin, read_config
from sightline.nn import windows
from sightline.nn.meta import without_memory
from sightline.nn.windows import PatchMerging, RelativePositionBias, WindowBlock
from tests.models.test_parity import agree, load_ours, randomise

transformers = pytest.importorskip("transformers")  # the reference; part of the test extra

SHAPE = {
    "embed_dim": 12, "depths": [2, 3, 2], "num_heads": [2, 3, 4], "window_size": 3,
    "image_size": [44, 58], "mlp_ratio": 2.5,
}  # fmt: skip
SIZES = [(44, 58), (48, 48), (40, 41), (97, 64), (36, 36)]
"""The own one; windows fit on every grid; a row of pixels over; three windows and a bit; a last
grid that is one window."""


def reference(**fields):
    """Made anew for each picture size: transformers' blocks remember the first small grid."""
    return randomise(transformers.SwinModel(transformers.SwinConfig(**{**SHAPE, **fields})))


@pytest.fixture
def both(tmp_path):
    theirs = reference()
    theirs.save_pretrained(tmp_path)
    return theirs, load_ours("swin", tmp_path), tmp_path


def pixels(size=(44, 58), batch=2):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(5))


def outputs(theirs, size=(44, 58)):
    found = theirs(pixels(size))
    return {"tokens": found.last_hidden_state, "pooled": found.pooler_output}


def our_outputs(ours, size=(44, 58)):
    found = ours(pixels(size))
    return {"tokens": found.tokens, "pooled": found.pooled}


def disagreeing(theirs, ours, size=(44, 58)):
    expected, got = outputs(theirs, size), our_outputs(ours, size)
    return {name for name in expected if not agree(got[name], expected[name])}


@pytest.mark.parametrize("size", SIZES)
def test_outputs_agree_over_sizes(both, size):
    assert disagreeing(*both[:2], size) == set()


def test_maps_behind_each_stage_agree(both):
    theirs, ours, _ = both
    found = theirs.encoder(
        *theirs.embeddings(pixels()),
        output_hidden_states=True,
        output_hidden_states_before_downsampling=True,
    )
    expected = found.reshaped_hidden_states[1:]  # the first is the patches
    got = ours.stages(pixels())
    assert [tuple(x.shape[1:]) for x in got] == [(12, 11, 15), (24, 6, 8), (48, 3, 4)]
    assert all(agree(a, b) for a, b in zip(got, expected, strict=True))


def test_every_intermediate_state_agrees(both):
    theirs, ours, _ = both
    expected, got = [], []
    for module in theirs.modules():
        if type(module).__name__ == "SwinLayer":
            module.register_forward_hook(lambda m, i, o: expected.append(o[0]))
        if type(module).__name__ == "SwinPatchMerging":
            module.register_forward_hook(lambda m, i, o: expected.append(o))
    for module in ours.modules():
        if isinstance(module, (WindowBlock, PatchMerging)):
            module.register_forward_hook(lambda m, i, o: got.append(o.flatten(1, 2)))
    theirs(pixels())
    ours(pixels())
    assert len(got) == len(expected) == 7 + 2
    assert all(agree(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("size", [(44, 58), (40, 41)])
def test_gradients_agree(both, size):
    theirs, ours, folder = both
    weights = {k: torch.randn(v.shape, generator=torch.Generator().manual_seed(9))
               for k, v in outputs(theirs, size).items()}  # fmt: skip
    for values in (outputs(theirs, size), our_outputs(ours, size)):
        sum((values[name] * weight).sum() for name, weight in weights.items()).backward()
    # Saving is how transformers says which parameter has which name in a file.
    for parameter in theirs.parameters():
        parameter.data = parameter.grad
    theirs.save_pretrained(folder / "gradients")
    expected = load_file(folder / "gradients" / "model.safetensors")
    got = SYSTEM.write_state({name: p.grad for name, p in ours.named_parameters()})
    assert got.keys() == expected.keys()
    assert [name for name in expected if not agree(got[name], expected[name])] == []


def test_what_is_saved_here_loads_there_with_no_missing_key(both):
    theirs, ours, folder = both
    config = read_config(json.loads((folder / "config.json").read_text()))
    out = folder / "ours"
    out.mkdir()
    (out / "config.json").write_text(json.dumps(SYSTEM.write_config(config)))
    written = SYSTEM.write_state(ours.state_dict())
    published = load_file(folder / "model.safetensors")
    assert written.keys() == published.keys()
    assert all(torch.equal(written[name], published[name]) for name in published)
    save_file(written, out / "model.safetensors", metadata={"format": "pt"})
    back, info = transformers.SwinModel.from_pretrained(out, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected, got = outputs(theirs), outputs(back.eval())
    assert all(torch.equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", ["SwinForImageClassification", "SwinForMaskedImageModeling"])
def test_files_of_classes_with_heads_give_their_trunk(kind, tmp_path):
    config = transformers.SwinConfig(**{**SHAPE, "image_size": 48, "num_labels": 5})
    theirs = randomise(getattr(transformers, kind)(config))
    theirs.save_pretrained(tmp_path)
    ours = load_ours("swin", tmp_path)
    expected = theirs.swin(pixels((48, 48))).last_hidden_state
    assert agree(ours(pixels((48, 48))).tokens, expected)


def test_buffers_of_old_writers_are_left_out(both):
    _, ours, folder = both
    published = load_file(folder / "model.safetensors")
    name = "encoder.layers.1.blocks.2.attention.self.relative_position_index"
    published[name] = torch.zeros(9, 9, dtype=torch.int64)
    assert SYSTEM.read_state(published).keys() == ours.state_dict().keys()


def test_an_unknown_name_is_passed_on_for_the_loader_to_report():
    assert "neck.weight" in SYSTEM.read_state({"neck.weight": torch.zeros(1)})


def test_absolute_positions_agree(tmp_path):
    theirs = reference(use_absolute_embeddings=True, image_size=[44, 60])
    theirs.save_pretrained(tmp_path)
    ours = load_ours("swin", tmp_path)
    assert ours.positions is not None
    assert disagreeing(theirs, ours, (44, 60)) == set()
    written = SYSTEM.write_state(ours.state_dict())
    published = load_file(tmp_path / "model.safetensors")
    assert written.keys() == published.keys()
    assert all(torch.equal(written[name], published[name]) for name in published)
    config = read_config(json.loads((tmp_path / "config.json").read_text()))
    assert read_config(SYSTEM.write_config(config)) == config


def test_absolute_positions_resample_as_the_reference_does(tmp_path):
    """Its reference knows square tables alone."""
    theirs = reference(use_absolute_embeddings=True, image_size=48, patch_size=4)
    theirs.embeddings.patch_size = 4  # it divides by the number, and stores a pair
    theirs.save_pretrained(tmp_path)
    ours = load_ours("swin", tmp_path)
    picture = pixels((64, 56))
    expected = theirs(picture, interpolate_pos_encoding=True).last_hidden_state
    assert agree(ours(picture).tokens, expected)


@pytest.mark.parametrize("size", [(24, 24), (12, 30), (4, 4), (3, 50), (1, 1)])
def test_pictures_smaller_than_a_window_are_seen(size):
    """The reference cannot: its table fits one size of window only."""
    ours = randomise(Swin(TINY))
    found = ours(pixels(size))
    assert found.tokens.isfinite().all()
    rows, columns = (-(-side // 16) for side in size)
    assert found.tokens.shape == (2, rows * columns, 48)


def test_a_small_picture_does_not_change_what_a_large_one_gets():
    ours = randomise(Swin(TINY))
    before = ours(pixels()).pooled
    ours(pixels((12, 12)))
    assert torch.equal(ours(pixels()).pooled, before)


def test_released_names_are_read_and_written(both):
    """The authors' own layout, written here by hand: one matrix for three, and other words."""
    _, ours, _ = both
    own = ours.state_dict()
    released = swin.write_released(own)
    block = "stacks.1.2.attention"
    fused = torch.cat([own[f"{block}.{part}.weight"] for part in "qkv"])
    assert torch.equal(released["layers.1.blocks.2.attn.qkv.weight"], fused)
    assert torch.equal(released["layers.0.downsample.norm.bias"], own["mergings.0.norm.bias"])
    assert torch.equal(released["patch_embed.norm.weight"], own["norm_in.weight"])
    table = own["stacks.0.1.position_bias.table"]
    assert torch.equal(released["layers.0.blocks.1.attn.relative_position_bias_table"], table)
    released |= {
        "layers.0.blocks.1.attn_mask": torch.zeros(1, 9, 9),
        "layers.0.blocks.1.attn.relative_position_index": torch.zeros(9, 9),
        "head.weight": torch.zeros(5, 48),
    }
    back = swin.read_released(released)
    assert back.keys() == own.keys()
    assert all(torch.equal(back[name], own[name]) for name in own)


def test_a_fused_tensor_that_three_does_not_divide_is_left_for_the_loader():
    name = "layers.0.blocks.0.attn.qkv.weight"
    assert swin.read_released({name: torch.zeros(7, 2)}).keys() == {name}


@pytest.mark.parametrize(
    ("variant", "count"),
    [("T", 27_519_354), ("S", 48_837_258), ("B", 86_743_224), ("B/384", 86_878_584),
     ("L", 194_995_476), ("L/384", 195_198_516)],
)  # fmt: skip
def test_full_size_parameter_counts(variant, count):
    config = SYSTEM.variants[variant]
    fields = SYSTEM.write_config(config)
    with without_memory():
        ours = Swin(config)
        theirs = transformers.SwinModel(
            transformers.SwinConfig(
                **{k: v for k, v in fields.items() if k not in ("architectures", "model_type",
                   "hidden_size", "num_layers")}
            )
        )  # fmt: skip
    assert sum(p.numel() for p in ours.parameters()) == count
    assert sum(p.numel() for p in theirs.parameters()) == count


def test_branches_are_dropped_more_the_deeper_they_are():
    network = Swin(replace(TINY, branch_drop=0.5))
    rates = [m.branch_drop for m in network.modules() if isinstance(m, WindowBlock)]
    assert rates == pytest.approx([0.5 * n / 6 for n in range(7)])
    theirs = transformers.SwinModel(transformers.SwinConfig(**{**SHAPE, "drop_path_rate": 0.5}))
    expected = [m.drop_prob for m in theirs.modules() if type(m).__name__ == "SwinDropPath"]
    assert rates[1:] == pytest.approx(expected)  # the first, of rate 0, is left out there
    network.train()
    assert not torch.equal(network(pixels()).pooled, network(pixels()).pooled)
    assert torch.equal(network.eval()(pixels()).pooled, network(pixels()).pooled)


@pytest.mark.parametrize(("fields", "message"), [
    ({"depths": [2, 2]}, "'num_heads' has 4 stages and 'depths' is \\[2, 2\\]"),
    ({"depths": [900, 200, 1, 1]}, "at most 1000"),
    ({"depths": []}, "'depths' is \\[\\]"),
    ({"depths": [2, 0, 1, 1]}, "where a list like"),
    ({"num_heads": "many"}, "'num_heads' is many"),
    ({"window_size": 0}, "'window_size' is 0, where 1 to 64"),
    ({"window_size": 4096}, "'window_size' is 4096"),
    ({"embed_dim": "wide"}, "'embed_dim' is 'wide'"),
])  # fmt: skip
def test_configurations_that_fit_no_network_are_refused(fields, message):
    with pytest.raises(CheckpointError, match=message):
        read_config({"model_type": "swin", **fields})


# Known mistakes.


def no_mask(ours, monkeypatch):
    """Opposite borders of the picture attend to each other."""
    real = windows.shifted_windows
    monkeypatch.setattr(windows, "shifted_windows", lambda *a: torch.ones_like(real(*a)))


def no_shift(ours, monkeypatch):
    for module in ours.modules():
        if isinstance(module, WindowBlock):
            module.shift = 0


def shifted_the_other_way(ours, monkeypatch):
    for module in ours.modules():
        if isinstance(module, WindowBlock):
            module.shift = -module.shift


def first_block_shifted(ours, monkeypatch):
    for stack in ours.stacks:
        for index, module in enumerate(stack):
            module.shift = 0 if index % 2 else 1


def shift_on_a_grid_of_one_window(ours, monkeypatch):
    """The last stage's second block would be shifted, were its grid larger."""
    last = ours.stacks[-1][1]
    attend = windows.shifted_windows

    def forward(x):
        _, height, width, _ = x.shape
        padded = torch.nn.functional.pad(x, (0, 0, 0, -width % 3)).roll((-1, -1), (1, 2))
        mask = attend(3, padded.shape[2], 3, 1).repeat(len(x), 1, 1, 1)
        mixed = last.attention(
            windows.partition(padded, 3), mask=mask, offset=last.position_bias(3)
        )
        back = windows.merge(mixed, 3, 3, padded.shape[2]).roll((1, 1), (1, 2))
        return back[:, :height, :width]

    monkeypatch.setattr(last, "_attend", forward)


def bias_of_the_step_back(ours, monkeypatch):
    """From key to query."""
    forward = RelativePositionBias.forward
    monkeypatch.setattr(RelativePositionBias, "forward", lambda self, n: forward(self, n).mT)


def no_bias(ours, monkeypatch):
    for module in ours.modules():
        if isinstance(module, RelativePositionBias):
            torch.nn.init.zeros_(module.table)


def rows_and_columns_swapped(ours, monkeypatch):
    """Neighbours joined along the rows."""

    def forward(self, x):
        x = torch.nn.functional.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        x = x.unflatten(1, (-1, 2)).unflatten(3, (-1, 2))
        return self.reduction(self.norm(x.transpose(2, 3).flatten(3)))

    monkeypatch.setattr(PatchMerging, "forward", forward)


def merging_drops_an_odd_side(ours, monkeypatch):
    forward = PatchMerging.forward

    def even(self, x):
        return forward(self, x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2])

    monkeypatch.setattr(PatchMerging, "forward", even)


def padding_hidden(ours, monkeypatch):
    """What fills a window up is not attended to: cleaner, and not what was trained."""

    def attend(self, x):
        out = torch.zeros_like(x)
        for top in range(0, x.shape[1], self.side):
            for left in range(0, x.shape[2], self.side):
                part = x[:, top : top + self.side, left : left + self.side]
                bias = self.position_bias(self.side)
                keep = [r * self.side + c for r in range(part.shape[1])
                        for c in range(part.shape[2])]  # fmt: skip
                mixed = self.attention(part.flatten(1, 2), offset=bias[:, :, keep][..., keep])
                out[:, top : top + self.side, left : left + self.side] = mixed.unflatten(
                    1, part.shape[1:3]
                )
        return out

    real = WindowBlock._attend
    monkeypatch.setattr(
        WindowBlock, "_attend", lambda self, x: real(self, x) if self.shift else attend(self, x)
    )


def no_first_norm(ours, monkeypatch):
    ours.norm_in = torch.nn.Identity()


def pooled_before_the_norm(ours, monkeypatch):
    def forward(self, pixels):
        tokens = self.stages(pixels)[-1].flatten(2).transpose(1, 2)
        return swin.EncodedImage(tokens=self.norm(tokens), pooled=self.norm(tokens.mean(1)))

    monkeypatch.setattr(Swin, "forward", forward)


MISTAKES = [
    no_mask, no_shift, shifted_the_other_way, first_block_shifted, shift_on_a_grid_of_one_window,
    bias_of_the_step_back, no_bias, rows_and_columns_swapped, merging_drops_an_odd_side,
    padding_hidden, no_first_norm, pooled_before_the_norm,
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_the_comparison_notices(both, mistake, monkeypatch):
    theirs, ours, _ = both
    assert disagreeing(theirs, ours) == set()
    mistake(ours, monkeypatch)
    assert disagreeing(theirs, ours)
