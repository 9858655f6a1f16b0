"""Captioned pictures of mixed sizes to packed batches."""

import numpy as np
import pytest
import torch

from sightline.core.errors import ConfigError, DataError
from sightline.data.packed_pairs import packed_pairs
from sightline.data.records import Record
from sightline.inputs.naflex import NaFlexProcessor, NaFlexSpec
from sightline.inputs.packing import pack
from sightline.inputs.preprocessing import ImageProcessor, ImageSpec
from sightline.inputs.processors import Processor
from sightline.inputs.vocabulary import train_vocabulary
from sightline.training.batches import count_pictures, to_device

WORDS = ["a red ball", "a blue car", "two ducks"]


def processor():
    image = NaFlexProcessor(NaFlexSpec(patch_size=4, max_num_patches=16))
    return Processor(image, train_vocabulary(WORDS, 400, "siglip", max_length=8))


def records(count=30):
    rng = np.random.default_rng(0)
    return [
        Record(str(n), np.full((*rng.integers(4, 40, 2), 3), n, np.uint8), (WORDS[n % 3],))
        for n in range(count)
    ]


def test_every_batch_has_the_same_shape_and_a_sentence_for_each_picture():
    own = processor()
    batches = list(packed_pairs(records(), own, row_length=20, rows=4, epochs=1))
    assert len(batches) > 2
    for batch in batches:
        assert batch.pixels.patches.shape == (4, 20, 48)
        assert len(batch.ids) == len(batch.mask) == len(batch.pixels.grids) == count_pictures(batch)
        assert int(batch.pixels.pictures.max()) == len(batch.ids) - 1


def test_a_picture_stays_with_its_own_sentence():
    own, known = processor(), {}
    for record in records():
        known[int(record.image[0, 0, 0])] = own.texts(record.captions).ids[0]
    for batch in packed_pairs(records(), own, row_length=20, rows=4, epochs=1):
        for n, ids in enumerate(batch.ids):
            values = batch.pixels.patches[batch.pixels.pictures == n]
            number = round((float(values.mean()) * 0.5 + 0.5) * 255)
            assert torch.equal(ids, known[number])


def test_several_resolutions_are_mixed():
    seen = set()
    for batch in packed_pairs(records(), processor(), 20, 4, lengths=(4, 16), epochs=1):
        seen |= {int(count) for count in batch.pixels.grids.prod(dim=1)}
    assert min(seen) <= 4 < max(seen) <= 16


def test_pictures_are_changed_and_sentences_chosen_as_asked():
    batch = next(iter(packed_pairs(
        records(), processor(), 20, 4,
        sentence=lambda record, generator: "two ducks",
        change=lambda pixels, generator: np.zeros((4, 8, 3), np.uint8),
    )))  # fmt: skip
    assert len({tuple(grid) for grid in batch.pixels.grids.tolist()}) == 1
    assert all(torch.equal(row, batch.ids[0]) for row in batch.ids)


def test_batches_move_between_devices_as_they_are():
    batch = next(iter(packed_pairs(records(), processor(), 20, 4)))
    moved = to_device(batch, torch.device("meta"))
    assert moved.pixels.patches.is_meta and moved.ids.is_meta
    kept = batch.pixels.to("meta")
    assert kept.patches.is_meta and not kept.grids.is_meta  # grids decide shapes
    alone = processor().images([record.image for record in records(3)])
    assert alone.to("meta").mask.is_meta and not alone.to("meta").grids.is_meta
    assert pack(alone, 20).patches.shape[2] == 48


def test_a_processor_of_one_size_is_refused():
    fixed = Processor(ImageProcessor(ImageSpec(8, 8, "square")), None)
    with pytest.raises(ConfigError, match="gives every picture one size: packing needs"):
        packed_pairs(records(), fixed, 20, 4)


@pytest.mark.parametrize("lengths", [(4, 21), (0,)])
def test_lengths_that_no_row_holds_are_refused(lengths):
    with pytest.raises(ConfigError, match="patches do not fit into rows of 20"):
        packed_pairs(records(), processor(), 20, 4, lengths=lengths)


def test_pictures_without_words_are_refused():
    with pytest.raises(DataError, match="no picture has a caption"):
        packed_pairs([Record("a", np.zeros((4, 4, 3), np.uint8))], processor(), 20, 4)
