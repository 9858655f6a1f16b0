"""What a config.json leaves out means what transformers means by it."""

from dataclasses import MISSING, fields, replace

import pytest
import torch

from sightline.core.errors import CheckpointError
from sightline.models import clip, clip_resnet
from sightline.models.published import LARGEST, as_written, field, integers, pair, read_labels
from sightline.models.table import SYSTEMS, system

transformers = pytest.importorskip("transformers")  # the reference; part of the test extra

NESTED = {"clip": ("vision_config", "text_config"), "siglip": ("vision_config", "text_config"),
          "siglip2": ("vision_config", "text_config"),
          "paligemma": ("vision_config", "text_config")}  # fmt: skip
TYPES = sorted(
    kind
    for name in SYSTEMS
    for kind in system(name).model_types
    if kind in transformers.CONFIG_MAPPING and kind != "vision-text-dual-encoder"
)
"""A pair of towers has no default: which towers is the question that its file answers."""


def reference(kind):
    """Every field of transformers' default configuration, as it writes them."""
    whole = transformers.AutoConfig.for_model(kind)
    written = whole.to_dict()
    for part in NESTED.get(kind, ()):  # as a part is written alone: with all its fields
        written[part] = getattr(whole, part).to_dict()
    return written


@pytest.mark.parametrize("kind", TYPES)
def test_an_empty_config_is_transformers_default(kind):
    entry = next(system(name) for name in SYSTEMS if kind in system(name).model_types)
    assert entry.read_config({"model_type": kind}) == entry.read_config(reference(kind))


@pytest.mark.parametrize("kind", TYPES)
def test_the_default_is_written_as_transformers_writes_it(kind):
    """Guards the test above, which could not fail if `read_config` read nothing."""
    entry = next(system(name) for name in SYSTEMS if kind in system(name).model_types)
    theirs = reference(kind)
    ours = entry.write_config(entry.read_config(theirs))
    parts = [(theirs, ours), *((theirs[part], ours[part]) for part in NESTED.get(kind, ()))]
    same = [
        key
        for one, other in parts
        for key in {*one, *other}
        if key in one and key in other and one[key] == other[key]
    ]
    assert len(same) >= 8


def test_an_empty_config_of_clip_s_resnets_is_rn50():
    """Also in what fills a sentence up: OpenAI's tokenizer writes zeros."""
    assert clip_resnet.read_config({}) == clip_resnet.VARIANTS["RN50"]
    given = clip_resnet.read_config({"text_config": {"pad_token_id": 49407}})
    assert given.text.pad_id == 49407, "a file's own word counts"


@pytest.mark.parametrize("end", [98, 2])
def test_what_stands_behind_the_end_of_text_moves_no_sentence(end):
    """Hence 0 and 1 are one answer as padding, whether the end is looked up or is the highest."""
    tower = clip.TextTower(replace(clip_resnet.TINY.text, eos_id=end)).eval()
    ids = torch.tensor([[97, 5, 7, 98, pad, pad] for pad in (0, 1)])
    with torch.no_grad():
        zeros, ones = tower(ids).pooled
        assert torch.equal(zeros, ones)
        other = tower(torch.tensor([[97, 5, 7, 3, 98, 0]])).pooled[0]
    assert not torch.allclose(zeros, other), "a token in front of the end does"


@pytest.mark.parametrize("name", ["clip", "siglip", "vit", "bert", "resnet"])
def test_what_a_tower_does_not_say_is_what_a_file_does_not_say(name):
    read = system(name).read_config({"model_type": name})
    for tower in (read.image, read.text) if hasattr(read, "image") else (read,):
        asked = [each.name for each in fields(tower) if each.default is MISSING]
        assert type(tower)(**{name: getattr(tower, name) for name in asked}) == tower


@pytest.mark.parametrize("size", [16, (16, 16), (24, 40)])
def test_a_size_is_one_number_or_two(size):
    assert pair({"size": size}, "size", 3) == ((size, size) if size == 16 else size)
    assert pair({"size": as_written(pair({"size": size}, "size", 3))}, "size", 3) == pair(
        {"size": size}, "size", 3
    )


@pytest.mark.parametrize(("value", "good"), [(0, True), (LARGEST, True), (-1, False),
                                             (LARGEST + 1, False)])  # fmt: skip
def test_the_borders_of_a_number(value, good):
    if good:
        assert field({"width": value}, "width", 5) == value
    else:
        with pytest.raises(CheckpointError, match="which no network of ours has"):
            field({"width": value}, "width", 5)


@pytest.mark.parametrize(
    ("value", "good"),
    [((1,), True), ((LARGEST,), True), ((0,), False), ((LARGEST + 1,), False), ((), False),
     (3, False)],
)  # fmt: skip
def test_the_borders_of_a_list(value, good):
    if good:
        assert integers({"depths": value}, "depths", (2,)) == value
    else:
        with pytest.raises(CheckpointError, match="where a list like"):
            integers({"depths": value}, "depths", (2,))


def test_labels_are_those_of_the_class_with_the_layer():
    config = {"architectures": ["A"], "id2label": {"1": "two", "0": "one"}}
    assert read_labels(config, "A") == ("one", "two")
    assert read_labels(config, "B") == ()
    assert read_labels({"architectures": ["A"]}, "A") == ("LABEL_0", "LABEL_1")
    with pytest.raises(CheckpointError, match="does not number its 2 labels from 0 on"):
        read_labels({"architectures": ["A"], "id2label": {"1": "one", "2": "two"}}, "A")
