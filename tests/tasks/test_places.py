"""Boxes and masks that a model writes: original pixels, scores, and answers that are none."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from sightline.core.errors import CheckpointError, ConfigError, InputError, UnsupportedTaskError
from sightline.core.outputs import Detection, Segment
from sightline.hub.save import save_checkpoint
from sightline.inputs.box_masks import paste_mask
from sightline.inputs.coordinates import PALIGEMMA
from sightline.models import mask_codec
from sightline.tasks.batching import Failed
from sightline.tasks.detect import detect_each, find_each
from sightline.tasks.model import load
from sightline.tasks.segment import mask_codec_of, segment_each
from tests.hub.tiny import randomise
from tests.tasks.writers import SCALE, WORDS, scripted, writing_folder

WIDE = np.zeros((30, 120, 3), np.uint8)
TALL = np.zeros((200, 20, 3), np.uint8)
BOX = (12.0, 3.0, 60.0, 15.0)
CODES = "".join(f"<seg{n:03d}>" for n in range(16))


def spelled(box: tuple[float, float, float, float], picture: np.ndarray) -> str:
    return PALIGEMMA.spelled(PALIGEMMA.encode(box, picture.shape[:2]))


def p_token() -> float:
    """With what probability the stand-in writes a token."""
    return math.exp(SCALE) / (math.exp(SCALE) + WORDS.vocab_size - 1)


def test_boxes_are_in_pixels_of_the_original() -> None:
    answer = f"{spelled(BOX, WIDE)} red ball ; {spelled((0, 0, 120, 30), WIDE)} all"
    first, second = scripted(answer).detect(WIDE, ["red ball", "all"])
    assert first.label == "red ball" and second == Detection("all", second.score, (0, 0, 120, 30))
    assert all(type(side) is float for side in first.box)
    for side, expected, step in zip(first.box, BOX, (120, 30, 120, 30), strict=True):
        assert abs(side - expected) <= step / 1023 / 2 + 1e-9
    # the same tokens in a picture of another shape
    tall = scripted(answer).detect(TALL, ["red ball"])[0].box
    assert tall == pytest.approx(
        (first.box[0] / 6, first.box[1] * 20 / 3, first.box[2] / 6, first.box[3] * 20 / 3)
    )


def test_a_list_of_pictures_is_a_list_of_lists() -> None:
    model = scripted(f"{spelled(BOX, WIDE)} x")
    rows = model.detect([WIDE, TALL], ["x"])
    assert [len(row) for row in rows] == [1, 1] and rows[0][0].box != rows[1][0].box
    assert scripted("").detect([WIDE], ["x"]) == [[]]
    with pytest.raises(InputError, match="a tuple of 2 arrived: places belong to one picture"):
        model.detect((WIDE, TALL), ["x"])


def test_scores_are_probabilities_of_the_tokens() -> None:
    answer = f"{spelled(BOX, WIDE)} ab ; {spelled(BOX, WIDE)} ab"
    for rule, expected in (("geometric", p_token()), ("product", p_token() ** 6)):
        # four places and two letters; the space and what parts two things are no one's
        (found,) = detect_each(scripted(answer), [WIDE], ["ab"], {"score": rule})
        assert not isinstance(found, Failed)
        assert [one.score for one in found] == pytest.approx([expected, expected], rel=1e-5)
        assert found[0] == found[1]  # twice is twice
    with pytest.raises(ConfigError, match="unknown score 'mean'"):
        detect_each(scripted(answer), [WIDE], ["ab"], {"score": "mean"})


def test_a_box_without_a_label_is_what_was_asked_for() -> None:
    assert scripted(spelled(BOX, WIDE)).detect(WIDE, ["cat"])[0].label == "cat"
    assert scripted(spelled(BOX, WIDE)).detect(WIDE, ["cat", "dog"])[0].label == ""


def test_queries_are_words_and_joined_as_in_training() -> None:
    model = scripted("")
    model.detect(WIDE, ["cat", "a\nb", "<loc0001> x; y"])
    assert model.network.asked == ["<bos>detect cat ; a b ; loc0001 x, y\n"]
    for queries, message in (
        ([], "no queries arrived"), ("cat", "queries must be a list of words"),
        (["a", "a"], "queries must differ"), (["<>"], "queries must be words, '<>' arrived"),
        (None, "writer does not say what it can name: give queries"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            model.detect(WIDE, queries)


def test_a_card_says_how_everything_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(json.dumps({"everything": ["everything"]}))
    model = scripted(f"{spelled(BOX, WIDE)} red bench", folder=tmp_path)
    assert [one.label for one in model.detect(WIDE)] == ["red bench"]
    assert model.network.asked == ["<bos>detect everything\n"]


HOSTILE = [
    "<loc0500><loc0100><loc0400><loc0200> upside down", "<loc0100><loc0200><loc0300> three",
    "<loc0001><loc0001><loc0001><loc0001> nothing", "cat", ";;;", "<loc", "\x00\ufffd",
    "<loc0100><loc0200><loc0900><loc0800><seg000><seg001> half a mask",
    CODES, "<eos>", "<loc0000>" * 40,
]  # fmt: skip


@pytest.mark.parametrize("answer", HOSTILE)
def test_what_is_no_box_is_none(answer: str, codec: Path) -> None:
    assert scripted(answer).detect(WIDE, ["x"]) == []
    (found,) = find_each(scripted(answer), "detect", [WIDE], ["x"])
    assert not isinstance(found, Failed) and found.places == []
    assert list(segment_each(scripted(answer), [WIDE], ["x"], codec=codec)) == [[]]


def test_whatever_is_written_every_box_lies_in_its_picture(codec: Path) -> None:
    dice = random.Random(0)
    parts = [
        "<loc0000>",
        "<loc1023>",
        "<loc0512>",
        "<loc0300>",
        CODES,
        "<seg127>",
        " ; ",
        " cat",
        "<",
        "\n",
    ]
    for _ in range(20):
        answer = "".join(dice.choice(parts) for _ in range(dice.randrange(25)))
        for picture in (WIDE, TALL, WIDE[:1, :1]):
            height, width = picture.shape[:2]
            for one in scripted(answer).detect(picture, ["x"]):
                x1, y1, x2, y2 = one.box
                assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
                assert one.score is not None and 0 < one.score <= 1
    model = scripted(f"{spelled((0, 0, 0.4, 30), WIDE)}{CODES} thin")
    assert list(segment_each(model, [WIDE], ["x"], codec=codec)) == [[]]  # rounded, no pixel


def test_masks_are_of_the_originals_size_and_inside_their_box(codec: Path) -> None:
    answer = f"{spelled(BOX, WIDE)}{CODES} cat ; {spelled(BOX, WIDE)} only a box"
    model = scripted(answer, folder=codec.parent)
    (found,) = model.segment(WIDE, ["cat"])
    assert isinstance(found, Segment) and found.label == "cat"
    assert model.network.asked == ["<bos>segment cat\n"]
    assert found.mask.shape == (30, 120) and found.mask.dtype == np.bool_
    outside = np.ones((30, 120), bool)
    outside[3:15, 12:60] = False
    assert not (found.mask & outside).any()
    # by hand: codewords, decoder, sign
    network = model.mask_codec
    assert network is not None
    square = network.decode(torch.arange(16)[None])[0]
    expected = paste_mask(square.detach().numpy(), found.box, 30, 120)
    assert np.array_equal(found.mask, expected)
    assert model.segment([WIDE], ["cat"])[0][0].box == found.box


def test_without_a_codec_there_is_one_clear_error(tmp_path: Path, codec: Path) -> None:
    model = scripted(f"{spelled(BOX, WIDE)}{CODES} cat")
    with pytest.raises(UnsupportedTaskError, match=r"has no mask codec beside it.*--codec NAME"):
        model.segment(WIDE, ["cat"])
    (named,) = segment_each(model, [WIDE], ["cat"], codec=codec)
    assert not isinstance(named, Failed) and len(named) == 1
    entry = mask_codec.SYSTEM.for_config(mask_codec.TINY)
    save_checkpoint(
        randomise(mask_codec.MaskCodec(mask_codec.TINY)),
        None,
        mask_codec.TINY,
        entry,
        tmp_path / "other",
    )
    with pytest.raises(CheckpointError, match="and 11 codewords; masks are written in 16 of 128"):
        segment_each(model, [WIDE], ["cat"], codec=tmp_path / "other")
    assert len(model.network.asked) == 1  # neither error cost any work


def test_a_saved_model_keeps_its_codec_and_its_words(tmp_path: Path) -> None:
    first = load(writing_folder(tmp_path / "a", domain="drawn parks", everything=["all"]))
    first.save(tmp_path / "b")
    second = load(tmp_path / "b")
    assert second.domain == "drawn parks"
    assert second.detect(WIDE) == first.detect(WIDE)  # asked for everything
    second.save(tmp_path / "b")  # onto itself
    third = load(tmp_path / "b")
    assert mask_codec_of(third).mask_size == mask_codec_of(first).mask_size
