"""Pictures to patches, beside transformers' Pillow processor, and what is refused."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sightline.core.errors import CheckpointError, ConfigError, ImageError
from sightline.inputs import transforms
from sightline.inputs.naflex import (
    NaFlexProcessor,
    NaFlexSpec,
    as_patches,
    as_pixels,
    in_rows,
    join,
)
from sightline.inputs.processors import Processor

SIZES = [
    (1, 1000), (1000, 1), (1, 1), (2, 3), (16, 16), (256, 256), (512, 256), (224, 224), (17, 31),
    (333, 777), (1200, 1601), (4000, 40), (48, 64), (255, 257), (3, 640),
]  # fmt: skip


def reference(patch_size=16, max_num_patches=256):
    pytest.importorskip("transformers")  # the reference; part of the test extra
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.models.siglip2.image_processing_pil_siglip2 import (
            Siglip2ImageProcessorPil,
        )

        return Siglip2ImageProcessorPil(patch_size=patch_size, max_num_patches=max_num_patches)


def picture(height, width, seed=0):
    """Coarse colours, enlarged: edges and flat parts."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, ((height + 6) // 7, (width + 6) // 7, 3), np.uint8)
    return np.kron(coarse, np.ones((7, 7, 1), np.uint8))[:height, :width]


@pytest.mark.filterwarnings("ignore")  # the reference's own
@pytest.mark.parametrize(("patch", "most"), [(16, 256), (16, 1024), (14, 49), (4, 9), (16, 1)])
def test_patches_agree_with_the_reference(patch, most):
    theirs = reference(patch, most)
    ours = NaFlexProcessor(NaFlexSpec(patch_size=patch, max_num_patches=most))
    for size in SIZES:
        pixels = picture(*size)
        expected = theirs([pixels], return_tensors="pt", input_data_format="channels_last")
        got = ours([pixels], length=most)
        assert got.grids.tolist() == expected["spatial_shapes"].tolist(), size
        assert torch.equal(got.mask.int(), expected["pixel_attention_mask"].int()), size
        levels = (got.patches - expected["pixel_values"]).abs().max() * 255 / 2
        assert float(levels) <= 1, size


@pytest.mark.filterwarnings("ignore")  # the reference's own
def test_a_batch_of_mixed_sizes_agrees_with_the_reference():
    pixels = [picture(*size, seed=n) for n, size in enumerate(SIZES)]
    expected = reference()(pixels, return_tensors="pt", input_data_format="channels_last")
    got = NaFlexProcessor(NaFlexSpec())(pixels, length=256)
    assert torch.equal(got.grids, expected["spatial_shapes"])
    assert float((got.patches - expected["pixel_values"]).abs().max()) <= 2 / 255


def search(height, width, patch_size, most):
    from transformers.models.siglip2.image_processing_pil_siglip2 import (
        get_image_size_for_max_num_patches,
    )

    return get_image_size_for_max_num_patches(height, width, patch_size, most)


@given(
    st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 64), st.integers(1, 4096)
)  # fmt: skip
@settings(max_examples=300, deadline=None)
@example(1, 16_384, 16, 1)
@example(1, 1, 16, 4096)
def test_the_size_search_is_that_of_the_reference(height, width, patch, most):
    spec = NaFlexSpec(patch_size=patch, max_num_patches=most)
    assert spec.resized(height, width) == search(height, width, patch, most)
    rows, columns = spec.grid(height, width)
    assert rows * columns <= most


def test_the_aspect_is_kept_as_well_as_whole_patches_allow():
    spec = NaFlexSpec()
    assert spec.grid(100, 100) == (16, 16)
    assert spec.grid(200, 100) == (22, 11)
    assert spec.grid(100, 200) == (11, 22)


def test_numbers_of_a_patch_lie_row_column_channel():
    spec = NaFlexSpec(patch_size=2, max_num_patches=6, mean=(0, 0, 0), std=(1, 1, 1), rescale=1.0)
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    got = NaFlexProcessor(spec)([pixels])
    assert got.grids.tolist() == [[2, 3]]
    assert got.patches[0, 1].tolist() == pixels[:2, 2:4].ravel().tolist()
    assert got.patches[0, 3].tolist() == pixels[2:, :2].ravel().tolist()


def test_a_batch_is_padded_with_zeros_to_its_longest_picture():
    ours = NaFlexProcessor(NaFlexSpec(patch_size=4, max_num_patches=12))
    got = ours([picture(8, 8), picture(40, 10)])
    lengths = got.grids.prod(dim=1)
    assert got.patches.shape == (2, int(lengths.max()), 48)
    assert got.mask.sum(dim=1).tolist() == lengths.tolist()
    assert not got.patches[~got.mask].any()


def test_pictures_joined_are_the_pictures_together():
    ours = NaFlexProcessor(NaFlexSpec(patch_size=4, max_num_patches=12))
    pixels = [picture(8, 8), picture(40, 10), picture(5, 90)]
    together = ours(pixels)
    parts = join([ours(pixels[:1]), ours(pixels[1:])])
    assert all(torch.equal(a, b) for a, b in zip(together, parts, strict=True))


def test_threads_change_nothing():
    ours = NaFlexProcessor(NaFlexSpec(patch_size=4, max_num_patches=12))
    pixels = [picture(30, n + 3, seed=n) for n in range(6)]
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(ours(pixels))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_no_pictures_are_an_empty_batch():
    got = NaFlexProcessor(NaFlexSpec(patch_size=4))([])
    assert got.patches.shape == (0, 0, 48)
    assert got.grids.shape == (0, 2)


def test_a_picture_may_be_cut_into_fewer_patches_than_the_spec_says():
    ours = NaFlexProcessor(NaFlexSpec(patch_size=4, max_num_patches=64))
    pixels = picture(40, 20)
    assert len(ours.patches(pixels)) > 16 >= len(ours.patches(pixels, most=16))


def test_a_row_that_is_too_short_is_refused():
    ours = NaFlexProcessor(NaFlexSpec(patch_size=4, max_num_patches=16))
    with pytest.raises(ConfigError, match="a picture of 16 patches does not fit into a row of 10"):
        in_rows([ours.patches(picture(9, 9))], 48, length=10)


def test_what_is_no_picture_is_refused():
    with pytest.raises(ImageError, match=r"pixels must be a numpy array uint8\[H, W, 3\]"):
        NaFlexProcessor(NaFlexSpec())([np.zeros((4, 4, 3), np.float32)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"patch_size": 0}, "patch_size is 0: allowed is a number from 1"),
     ({"max_num_patches": 10**9}, "max_num_patches is 1000000000: allowed"),
     ({"max_num_patches": 2.5}, "max_num_patches is 2.5"),
     ({"filter": "cubic"}, "unknown filter 'cubic'"),
     ({"mean": (float("nan"), 0, 0)}, "must be finite"),
     ({"std": (0, 1, 1)}, "std must not be zero")],
)  # fmt: skip
def test_a_spec_that_no_picture_fits_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        NaFlexSpec(**fields)


def test_a_published_file_decides_and_defaults_fill_in():
    default = NaFlexSpec(patch_size=16, max_num_patches=256)
    assert NaFlexSpec.from_published({}, default) == default
    got = NaFlexSpec.from_published(
        {"max_num_patches": 1024, "resample": 3, "image_mean": 0.25, "do_rescale": False}, default
    )
    assert got == NaFlexSpec(16, 1024, "bicubic", (0.25, 0.25, 0.25), rescale=1.0)
    assert NaFlexSpec.from_published({"do_normalize": False}, default).std == (1.0, 1.0, 1.0)


def test_what_is_written_is_read_again():
    for spec in (NaFlexSpec(), NaFlexSpec(14, 100, "lanczos", (0, 0, 0), (1, 1, 1), 1.0)):
        assert NaFlexSpec.from_published(spec.to_published("siglip2-naflex"), spec) == spec


@pytest.mark.parametrize(
    ("config", "message"),
    [({"patch_size": 14}, "file.json: patch_size is 14; allowed: 16, which the network"),
     ({"patch_size": "16"}, "file.json: patch_size is '16'; allowed: a whole number"),
     ({"max_num_patches": 0}, "file.json: max_num_patches is 0; allowed: a whole number from 1"),
     ({"max_num_patches": -4}, "max_num_patches is -4"),
     ({"max_num_patches": True}, "max_num_patches is True"),
     ({"max_num_patches": 10**9}, "max_num_patches is 1000000000"),
     ({"do_resize": False}, "file.json: do_resize is false; allowed: true"),
     ({"image_std": [0, 1, 1]}, "image_std has a zero"),
     ({"resample": 77}, "resample is 77")],
)  # fmt: skip
def test_a_published_file_that_cannot_be_used_names_its_field(config, message):
    with pytest.raises(CheckpointError, match=message):
        NaFlexSpec.from_published(config, NaFlexSpec(), "file.json")


@pytest.mark.filterwarnings("ignore")  # the reference's own
def test_the_folder_written_here_is_read_by_the_reference(tmp_path):
    transformers = pytest.importorskip("transformers")
    spec = NaFlexSpec(patch_size=8, max_num_patches=40)
    Processor(NaFlexProcessor(spec), None).save(tmp_path, "siglip2-naflex")
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert (theirs.patch_size, theirs.max_num_patches) == (8, 40)
    pixels = picture(90, 50)
    expected = theirs([pixels], return_tensors="pt")
    got = NaFlexProcessor(spec)([pixels], length=40)
    assert float((got.patches - expected["pixel_values"]).abs().max()) <= 2 / 255
    again = Processor.load(tmp_path, NaFlexSpec(patch_size=8), None)
    assert again.image is not None
    assert again.image.spec == spec


def test_pictures_are_cut_and_put_together_again():
    spec = NaFlexSpec(patch_size=4, max_num_patches=20)
    pixels = picture(48, 96)
    batch = NaFlexProcessor(spec)([pixels, pixels])
    rows, columns = batch.grids[0].tolist()
    whole = as_pixels(batch, 4)
    assert whole.shape == (2, 3, 4 * rows, 4 * columns) and rows != columns
    resized = transforms.resize(pixels, (4 * rows, 4 * columns), spec.filter)
    expected = torch.tensor(resized).permute(2, 0, 1) / 127.5 - 1
    assert (whole[0] - expected).abs().max() < 1e-5
    again = as_patches(whole, 4)
    assert torch.equal(again.patches, batch.patches) and torch.equal(again.mask, batch.mask)
    assert torch.equal(again.grids, batch.grids)
    assert spec.view(48, 96) == (0, 0, 96, 48)
