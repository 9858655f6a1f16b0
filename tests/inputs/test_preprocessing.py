"""Pictures to tensors against the reference's Pillow processors, within one level of 255."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.errors import CheckpointError, ConfigError, ImageError
from sightline.inputs.preprocessing import ImageProcessor, ImageSpec
from tests.inputs.pictures import CONTENTS, SIZES, picture

CLIP = ImageSpec(224, 224, "shortest_then_crop", "bicubic", (0.48145466, 0.4578275, 0.40821073),
                 (0.26862954, 0.26130258, 0.27577711))  # fmt: skip
VIT = ImageSpec(224, 224, "square", "bilinear")
SIGLIP = ImageSpec(224, 224, "square", "bicubic")
RESNET = ImageSpec(224, 224, "shortest_then_crop", "bicubic", (0.485, 0.456, 0.406),
                   (0.229, 0.224, 0.225), shortest=256)  # fmt: skip


IMAGENET = {"image_mean": list(RESNET.mean), "image_std": list(RESNET.std)}


@pytest.fixture(scope="module")
def reference():
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    return {"clip": CLIPImageProcessorPil, "vit": ViTImageProcessorPil,
            "siglip": SiglipImageProcessorPil, "resnet": ConvNextImageProcessorPil}  # fmt: skip


def levels(ours: torch.Tensor, theirs: torch.Tensor, spec: ImageSpec) -> float:
    """The largest difference in levels of 255."""
    one = torch.tensor(spec.std).reshape(3, 1, 1) / spec.rescale
    return float(((ours - theirs).abs() * one).max())


def reference_pixels(processor, pixels: np.ndarray) -> torch.Tensor:
    found = processor(pixels, input_data_format="channels_last", return_tensors="pt")
    return found["pixel_values"][0].to(torch.float32)


@pytest.mark.parametrize(("name", "spec"), [("clip", CLIP), ("vit", VIT), ("siglip", SIGLIP)])
def test_pixels_equal_the_reference(reference, name, spec) -> None:
    theirs, ours = reference[name](), ImageProcessor(spec)
    sizes = [s for s in SIZES if name != "clip" or max(s) < 4000]
    for (height, width), content in itertools.product(sizes, CONTENTS):
        if name == "clip" and content != "noise" and 500 in (height, width):
            continue  # the reference blows these up to 75 MB each
        pixels = picture(height, width, content)
        found = ours([pixels])[0]
        assert found.dtype == torch.float32
        assert levels(found, reference_pixels(theirs, pixels), spec) <= 1.001, (
            height,
            width,
            content,
        )


@pytest.mark.parametrize("size", [(4000, 30), (30, 4000)])
def test_long_thin_pixels_equal_the_reference(reference, size) -> None:
    pixels = picture(*size)
    theirs = reference_pixels(reference["clip"](), pixels)
    assert levels(ImageProcessor(CLIP)([pixels])[0], theirs, CLIP) <= 1.001


def test_another_filter_is_noticed(reference) -> None:
    wrong = dataclasses.replace(CLIP, filter="bilinear")
    pixels = picture(480, 640)
    theirs = reference_pixels(reference["clip"](), pixels)
    assert levels(ImageProcessor(wrong)([pixels])[0], theirs, CLIP) > 1.001


@pytest.mark.parametrize(("name", "settings"), [
    ("clip", {}),
    ("clip", {"size": {"shortest_edge": 56}, "crop_size": {"height": 40, "width": 64}}),
    ("clip", {"size": 48, "crop_size": 48, "resample": 2}),
    ("clip", {"size": {"height": 30, "width": 50}, "crop_size": {"height": 32, "width": 32}}),
    ("clip", {"do_resize": False, "crop_size": 50}),
    ("clip", {"do_resize": False, "do_center_crop": False}),
    ("clip", {"do_center_crop": False, "size": {"shortest_edge": 40}}),
    ("clip", {"do_center_crop": False, "size": {"shortest_edge": 40, "longest_edge": 50}}),
    ("clip", {"do_normalize": False}),
    ("clip", {"do_rescale": False}),
    ("clip", {"rescale_factor": 1 / 127.5}),
    ("clip", {"image_mean": [0.0, 0.1, 0.2], "image_std": [1.0, 0.5, 0.25]}),
    ("vit", {}),
    ("vit", {"size": 32}),
    ("vit", {"size": {"height": 24, "width": 48}, "resample": 1}),
    ("vit", {"resample": 0}),
    ("siglip", {}),
    ("siglip", {"size": {"height": 40, "width": 30}, "image_mean": 0.5, "image_std": 0.25}),
    ("resnet", {"size": {"shortest_edge": 224}, "crop_pct": 0.875, **IMAGENET}),
    ("resnet", {"size": {"shortest_edge": 384}, "crop_pct": 0.875, **IMAGENET}),
])  # fmt: skip
def test_published_settings_mean_what_the_reference_makes_of_them(
    reference, name, settings
) -> None:
    theirs = reference[name](**settings)
    default = {"clip": CLIP, "vit": VIT, "siglip": SIGLIP, "resnet": RESNET}[name]
    kind = {"clip": "CLIP", "vit": "ViT", "siglip": "Siglip", "resnet": "ConvNext"}[name]
    old_form = {"feature_extractor_type": kind + "FeatureExtractor", **settings}
    for config in (json.loads(theirs.to_json_string()), old_form):
        spec = ImageSpec.from_published(config, default)
        for size in [(97, 61), (30, 45)]:
            pixels = picture(*size)
            found, other = ImageProcessor(spec)([pixels])[0], reference_pixels(theirs, pixels)
            assert found.shape == other.shape
            assert levels(found, other, spec) <= 1.001, (spec, size)


@pytest.mark.parametrize("spec", [
    CLIP, VIT, SIGLIP, RESNET,
    ImageSpec(32, 48, "square", "lanczos"),
    ImageSpec(32, 48, "stretch_then_crop", stretched=(40, 50)),
    ImageSpec(32, 48, "crop", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    ImageSpec(40, 40, "shortest", shortest=40, longest=50),
    ImageSpec(224, 224, "keep", rescale=1.0),
])  # fmt: skip
@pytest.mark.parametrize("system", ["clip", "vit", "siglip", "another"])
def test_specs_survive_both_kinds_of_json(spec, system) -> None:
    published = json.loads(json.dumps(spec.to_published(system)))
    assert ImageSpec.from_published(published, ImageSpec(224, 224, "square")) == spec
    assert ImageSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_what_a_file_leaves_out_is_the_default(reference) -> None:
    assert ImageSpec.from_published({}, RESNET) == RESNET
    bare = ImageSpec.from_published({"image_mean": [0.1, 0.2, 0.3]}, SIGLIP)
    assert bare == dataclasses.replace(SIGLIP, mean=(0.1, 0.2, 0.3))


def test_mixed_sizes_make_one_batch_equal_to_each_alone() -> None:
    images = [picture(*size) for size in SIZES if max(size) < 1000]
    processor = ImageProcessor(CLIP)
    batch = processor(images)
    assert batch.shape == (len(images), 3, 224, 224)
    for index, pixels in enumerate(images):
        assert torch.equal(batch[index], processor([pixels])[0])


def test_threads_change_nothing() -> None:
    images = [picture(60 + i, 80) for i in range(6)]
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 4):
            torch.set_num_threads(threads)
            results.append(ImageProcessor(SIGLIP)(images))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_no_pictures_are_an_empty_batch() -> None:
    assert ImageProcessor(CLIP)([]).shape == (0, 3, 224, 224)


def test_the_picture_handed_in_is_not_changed() -> None:
    pixels = picture(224, 224)
    before = pixels.copy()
    ImageProcessor(SIGLIP)([pixels])
    assert np.array_equal(pixels, before)


def test_sizes_that_cannot_be_stacked_are_refused() -> None:
    with pytest.raises(ImageError, match=r"different sizes \(10x10 and 20x20\): hand them in one"):
        ImageProcessor(ImageSpec(224, 224, "keep"))([picture(10, 10), picture(20, 20)])


def test_a_bad_picture_among_good_ones_is_refused() -> None:
    with pytest.raises(ImageError, match=r"not float64\[3, 3, 3\]"):
        ImageProcessor(SIGLIP)([picture(3, 3), np.zeros((3, 3, 3))])


@pytest.mark.parametrize(("config", "message"), [
    ({"size": 0}, "size is 0; allowed: a whole number from 1 to 16384"),
    ({"size": 10**9}, "size is 1000000000;"),
    ({"size": 10**400}, r"size is 10+\.\.\.;"),
    ({"size": -1}, "size is -1;"),
    ({"size": 1.5}, "size is 1.5;"),
    ({"size": True}, "size is True;"),
    ({"size": "224"}, "size is '224';"),
    ({"size": {"height": 224}}, "size has height; allowed: height and width"),
    ({"size": {"longest_edge": 800}}, "size has longest_edge;"),
    ({"size": {}}, "size has nothing;"),
    ({"size": {"shortest_edge": 0}}, "size.shortest_edge is 0;"),
    ({"size": {"height": 1, "width": float("inf")}}, "size.width is inf;"),
    ({"size": [1, 2, 3]}, r"size is \[1, 2, 3\];"),
    ({"crop_size": 10**9, "do_center_crop": True}, "crop_size is 1000000000;"),
    ({"do_resize": "yes"}, "do_resize is 'yes'; allowed: true or false"),
    ({"resample": 9}, "resample is 9; allowed: 0 to 5"),
    ({"resample": "best"}, "resample is 'best';"),
    ({"image_mean": [1, 2]}, "image_mean has 2 numbers; allowed: three"),
    ({"image_mean": ["a", 1, 2]}, "image_mean has 'a';"),
    ({"image_mean": [float("nan"), 1, 2]}, "image_mean has nan;"),
    ({"image_std": [0, 1, 1]}, "image_std has a zero;"),
    ({"image_std": 1e300}, r"image_std has 1e\+300;"),
    ({"rescale_factor": "x"}, "rescale_factor is 'x'; allowed: a number"),
    ({"rescale_factor": 1e300}, "a number of sensible size"),
    ({"max_num_patches": 256, "patch_size": 16}, "max_num_patches is not supported"),
    ({"do_pad": True}, "do_pad is not supported"),
    ([], "expected a JSON object, not list"),
])  # fmt: skip
def test_hostile_fields_are_named(config, message) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        ImageSpec.from_published(config, SIGLIP, "somewhere/preprocessor_config.json")
    assert str(caught.value).startswith("somewhere/preprocessor_config.json: ")
    assert "\n" not in str(caught.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["height", "width", "shortest_edge", "longest_edge"]), inner
        )
    ),
    max_leaves=6,
)
FIELDS = ["size", "crop_size", "resample", "do_resize", "do_center_crop", "do_rescale", "crop_pct",
          "do_normalize", "image_mean", "image_std", "rescale_factor", "image_processor_type",
          "do_pad"]  # fmt: skip


@settings(deadline=None, max_examples=200, derandomize=True)
@given(config=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6))
def test_any_json_gives_a_spec_or_a_named_error(config) -> None:
    try:
        spec = ImageSpec.from_published(config, CLIP)
    except CheckpointError:
        return
    assert 1 <= spec.height <= 16_384 and spec.filter


@pytest.mark.parametrize(("fields", "message"), [
    ({"fit": "squared"}, "unknown fit 'squared': did you mean 'square'"),
    ({"filter": "cubic"}, "unknown filter 'cubic'"),
    ({"height": 0}, "a side of 0 pixels: allowed are 1 to 16384"),
    ({"fit": "stretch_then_crop"}, "needs `stretched`"),
    ({"std": (0.0, 1.0, 1.0)}, "std must not be zero"),
    ({"mean": (float("nan"), 0.0, 0.0)}, "must be finite"),
])  # fmt: skip
def test_specs_that_cannot_be_are_refused(fields, message) -> None:
    with pytest.raises(ConfigError, match=message):
        ImageSpec(**{"height": 224, "width": 224, "fit": "square", **fields})


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown field of ImageSpec 'heigth': did you mean"):
        ImageSpec.from_dict({"heigth": 3})


@pytest.mark.parametrize(
    "spec",
    [
        ImageSpec(40, 50, "square"),
        ImageSpec(40, 40, "shortest_then_crop"),
        ImageSpec(41, 30, "shortest_then_crop", shortest=47),
        ImageSpec(60, 60, "shortest_then_crop", shortest=31),  # a border on all sides
        ImageSpec(40, 33, "stretch_then_crop", stretched=(51, 44)),
        ImageSpec(40, 40, "shortest", shortest=45),
        ImageSpec(81, 170, "crop"),
        ImageSpec(150, 201, "crop"),  # a border above and below
        ImageSpec(1, 1, "keep"),
    ],
    ids=lambda spec: f"{spec.fit} {spec.height}x{spec.width}",
)
@pytest.mark.parametrize("size", [(120, 220), (220, 120)])
def test_the_view_says_where_each_pixel_came_from(spec: ImageSpec, size: tuple[int, int]) -> None:
    """In a picture whose colours are its places, resampled without a curve."""
    spec = dataclasses.replace(spec, filter="bilinear")
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    pixels = np.stack([columns, rows, np.full(size, 255)], axis=-1).astype(np.uint8)
    fitted = ImageProcessor(spec).fitted(pixels).astype(float)
    x1, y1, x2, y2 = spec.view(*size)
    height, width = fitted.shape[:2]
    x = x1 + (np.arange(width) + 0.5) * (x2 - x1) / width
    y = y1 + (np.arange(height) + 0.5) * (y2 - y1) / height
    seen = fitted[..., 2] == 255  # borders are black
    assert (seen == np.outer((y > 0) & (y < size[0]), (x > 0) & (x < size[1]))).mean() > 0.9
    inner = np.outer((y > 8) & (y < size[0] - 8), (x > 8) & (x < size[1] - 8))
    assert inner.any() and seen[inner].all()
    assert np.abs(fitted[..., 0] - (x[None] - 0.5))[inner].max() <= 1
    assert np.abs(fitted[..., 1] - (y[:, None] - 0.5))[inner].max() <= 1
