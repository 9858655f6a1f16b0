"""Whole folders: what the reference saves is read here, and what is saved here is read there."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from sightline.core.errors import CheckpointError
from sightline.inputs.preprocessing import ImageSpec
from sightline.inputs.processors import Processor
from sightline.inputs.tokenizers import TextSpec
from sightline.inputs.vocabulary import train_vocabulary
from tests.inputs.pictures import picture

TEXTS = ["a photo of a cat", "two dogs on a bench"] * 5
SPEC = ImageSpec(32, 32, "shortest_then_crop", "bicubic", (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
OTHER = ImageSpec(64, 64, "square", "bilinear")
CLIP_TEXT = TextSpec(max_length=20)
SIGLIP_TEXT = TextSpec(max_length=16, padding="max_length")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP processor as the reference saves it: nested, without a preprocessor_config.json."""
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("clip")
    train_vocabulary(TEXTS, 650, "clip").save(folder)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    colours = {"image_mean": list(SPEC.mean), "image_std": list(SPEC.std)}
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32, **colours)
    processor = transformers.CLIPProcessor(images, tokenizer)
    processor.save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()
    return folder, processor


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return float((ours - theirs).abs().max()) < 1.001 / 255 / 0.2


def test_a_folder_of_the_reference_is_read(clip) -> None:
    folder, theirs = clip
    ours = Processor.load(folder, OTHER, CLIP_TEXT)
    assert ours.image is not None and ours.image.spec == SPEC
    images, texts = [picture(40, 60), picture(33, 31)], ["A cat.", "dogs on a bench"]
    found = theirs(text=texts, images=images, padding=True, return_tensors="pt",
                   input_data_format="channels_last")  # fmt: skip
    assert close(ours.images(images), found["pixel_values"])
    batch = ours.texts(texts)
    assert torch.equal(batch.ids, found["input_ids"])
    assert torch.equal(batch.mask, found["attention_mask"].bool())


def test_an_old_preprocessor_file_is_read(clip, tmp_path) -> None:
    old = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32,
           "resample": 3, "do_resize": True, "do_center_crop": True, "do_normalize": True,
           "image_mean": list(SPEC.mean), "image_std": list(SPEC.std)}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    assert Processor.load(tmp_path, OTHER, None).image.spec == SPEC


@pytest.mark.parametrize("system", ["clip", "siglip", "vit"])
def test_the_reference_reads_what_is_saved(system, tmp_path) -> None:
    import transformers

    fit = {"clip": "shortest_then_crop", "siglip": "square", "vit": "square"}[system]
    spec = dataclasses.replace(SPEC, fit=fit)
    from sightline.inputs.preprocessing import ImageProcessor

    text = None
    if system != "vit":
        text = train_vocabulary(TEXTS, 650, system, max_length=16)
    ours = Processor(ImageProcessor(spec), text)
    ours.save(tmp_path, system)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": system}))
    images = [picture(40, 60), picture(33, 31)]
    pixels = ours.images(images)
    auto = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    theirs = auto(images, return_tensors="pt", input_data_format="channels_last")
    assert close(pixels, theirs["pixel_values"])
    if text is not None:
        both = transformers.AutoProcessor.from_pretrained(tmp_path)
        found = both(text=TEXTS[:2], images=images, padding=text.spec.padding, return_tensors="pt",
                     max_length=16, input_data_format="channels_last")  # fmt: skip
        assert torch.equal(found["input_ids"], ours.texts(TEXTS[:2]).ids)
        assert close(pixels, found["pixel_values"])
    again = Processor.load(tmp_path, OTHER, SIGLIP_TEXT if system == "siglip" else CLIP_TEXT)
    assert torch.equal(again.images(images), pixels) and again.image.spec == spec


def test_saving_replaces_an_older_nested_description(clip, tmp_path) -> None:
    (tmp_path / "processor_config.json").write_bytes(
        (clip[0] / "processor_config.json").read_bytes()
    )
    from sightline.inputs.preprocessing import ImageProcessor

    Processor(ImageProcessor(OTHER), None).save(tmp_path, "siglip")
    assert Processor.load(tmp_path, SPEC, None).image.spec == OTHER


def test_an_empty_folder_takes_the_defaults_and_has_no_text(tmp_path) -> None:
    ours = Processor.load(tmp_path, OTHER, CLIP_TEXT)
    assert ours.image.spec == OTHER and ours.text is None
    with pytest.raises(
        CheckpointError, match="no tokenizer in this folder, so no text can be read"
    ):
        ours.texts(["a"])


def test_a_network_without_pictures_says_so(clip) -> None:
    ours = Processor.load(clip[0], None, CLIP_TEXT)
    with pytest.raises(CheckpointError, match="takes no pictures"):
        ours.images([picture(3, 3)])


def test_untrusted_is_the_default(clip) -> None:
    ours = Processor.load(clip[0], SPEC, CLIP_TEXT)
    spelled = "<|endoftext|>"
    assert (
        ours.texts([spelled], trusted=True).ids.shape[1] == 3 < ours.texts([spelled]).ids.shape[1]
    )


@pytest.mark.parametrize(("name", "content", "message"), [
    ("processor_config.json", b'{"image_processor": 3}', "image_processor is int; allowed: an obj"),
    ("processor_config.json", b'{"image_processor": {"size": 0}}', "size is 0;"),
    ("processor_config.json", b'{"image_proc', "not valid JSON"),
    ("preprocessor_config.json", b"", "not valid JSON"),
    ("preprocessor_config.json", b"\xff\xfe\x00", "not valid JSON"),
    ("preprocessor_config.json", b"[" * 100_000, "not valid JSON"),
    ("preprocessor_config.json", b"null", "expected a JSON object, not NoneType"),
    ("preprocessor_config.json", b'{"size": 1e9}', "size is 1000000000;"),
    ("preprocessor_config.json", b'{"crop_size": {"height": "x", "width": 1}}',
     "crop_size.height is 'x';"),
])  # fmt: skip
def test_hostile_folders_are_named(tmp_path, name, content, message) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        Processor.load(tmp_path, SPEC, CLIP_TEXT)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_pixels_of_one_picture_do_not_depend_on_its_company(clip) -> None:
    ours = Processor.load(clip[0], SPEC, None)
    images = [picture(40, 60), np.zeros((5, 9, 3), np.uint8)]
    assert torch.equal(ours.images(images)[1], ours.images(images[1:])[0])
