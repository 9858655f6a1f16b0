"""What a PaliGemma's config says about its pictures, its words and its prompts."""

from __future__ import annotations

from dataclasses import replace

import torch

from sightline.models import clip_resnet, gemma, gemma2, mask_codec, paligemma

WIDE = replace(
    paligemma.TINY,
    image=replace(paligemma.TINY.image, image_size=(24, 40), patch_size=(8, 10)),
)


def test_pictures_are_squeezed_to_the_size_of_the_tower() -> None:
    spec = paligemma.preprocessing(WIDE)
    assert (spec.height, spec.width, spec.fit) == (24, 40, "square")
    assert (spec.filter, spec.mean, spec.std) == ("bicubic", (0.5,) * 3, (0.5,) * 3)


def test_nothing_is_added_to_words_and_every_patch_is_a_token() -> None:
    spec = paligemma.text(replace(WIDE, text=replace(WIDE.text, pad_id=7)))
    assert not spec.add_special and spec.pad_id == 7
    assert paligemma.instructions(WIDE).picture_tokens == 3 * 4


def test_a_cache_has_room_for_what_is_read_and_what_follows() -> None:
    decoder = gemma.decoder(gemma.TINY)
    _, cache = decoder.start(torch.zeros(2, 5, gemma.TINY.width), [5, 3], None, 7)
    assert cache.rows.room == 5 + 7 and cache.filled == [5, 3]
    for memory in cache.memories:
        assert memory.keys is not None and memory.keys.shape[2] == 12


def test_classes_begin_with_what_an_empty_file_means() -> None:
    assert gemma2.Gemma2Config.window == gemma2.read_config({}).window
    own = clip_resnet.CLIPResNetConfig.embedding_width
    assert own == clip_resnet.read_config({}).embedding_width
    assert mask_codec.read_config({}) == mask_codec.MaskCodecConfig()
