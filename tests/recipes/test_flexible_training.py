"""Training on pictures of mixed aspect ratios, packed: it learns, and shuffled words do not.

Scenes of one object in six shapes, none of them square; each is shown by its colour's name.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sightline.data.packed_pairs import packed_pairs
from sightline.data.park.scenes import scene
from sightline.data.park.vocabulary import COLOURS
from sightline.data.records import Record
from sightline.inputs.naflex import NaFlexProcessor, NaFlexSpec
from sightline.inputs.processors import Processor
from sightline.inputs.vocabulary import train_vocabulary
from sightline.models.table import system
from sightline.objectives.contrastive import sigmoid_contrastive
from sightline.training.accumulation import cached_contrastive

SHAPES = [(32, 48), (48, 32), (32, 64), (64, 32), (32, 80), (40, 56)]
STEPS = 180
CHANCE = 1 / len(COLOURS)
SENTENCES = [f"a {colour} thing" for colour in COLOURS]


def records(split, start, count, shuffled=False):
    found = []
    for seed in range(start, start + count):
        drawn = scene(seed, split, SHAPES[seed % len(SHAPES)], objects=1, object_pixels=20)
        found.append(Record(str(seed), drawn.pixels, (f"a {drawn.objects[0].colour} thing",)))
    if shuffled:
        order = np.random.default_rng(0).permutation(count)
        found = [replace(r, captions=found[i].captions) for r, i in zip(found, order, strict=True)]
    return found


def start():
    """A network of 70 thousand parameters and its processor."""
    entry = system("siglip2-naflex")
    words = train_vocabulary(SENTENCES, 400, "siglip", max_length=8)
    image = replace(
        entry.tiny.image, width=48, num_heads=4, mlp_width=96, depth=2, patch_size=8, num_patches=36
    )
    text = replace(
        entry.tiny.text, width=32, depth=1, vocab_size=words.vocab_size, context_length=8
    )
    torch.manual_seed(0)
    network = entry.build(replace(entry.tiny, image=image, text=text))
    processor = NaFlexProcessor(NaFlexSpec(patch_size=8, max_num_patches=36))
    return network, Processor(processor, words)


def embed(network, batch):
    """Both embeddings, and which sentence each row says, so that equal ones all match."""
    scores = network(batch.pixels, batch.ids, batch.mask)
    return scores.image_embeddings, scores.text_embeddings, batch.ids


def loss(network, columns):
    image, text, ids = columns
    matches = (ids[:, None] == ids[None]).all(dim=-1)
    return sigmoid_contrastive(image, text, *network.pair_scale(), matches=matches)


def train(network, processor, pictures, steps):
    loader = packed_pairs(pictures, processor, row_length=72, rows=8, lengths=(16, 24, 36))
    network.logit_bias.data.fill_(-4.0)  # one pair of ten matches, not one of a whole batch
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=steps)
    step = cached_contrastive(embed, loss)
    for _, batch in zip(range(steps), loader, strict=False):
        optimiser.zero_grad()
        assert batch.pixels.patches.shape[:2] == (8, 72)
        result = step(network, [batch])
        assert result.pictures == len(batch.ids) > 8  # pictures, not rows
        optimiser.step()
        schedule.step()


@torch.no_grad()
def accuracy(network, processor, pictures):
    """Share of held-out scenes whose colour scores highest, embedded one a row."""
    images = network.encode_images(processor.images([record.image for record in pictures]))
    texts = network.encode_texts(processor.texts(SENTENCES).ids)
    truth = torch.tensor([SENTENCES.index(record.caption) for record in pictures])
    return float(((images @ texts.T).argmax(dim=1) == truth).float().mean())


@pytest.mark.parametrize("shuffled", [False, True])
def test_colours_are_learned_from_packed_pictures_and_not_from_shuffled_words(shuffled):
    network, processor = start()
    train(network, processor, records("train", 0, 800, shuffled), steps=STEPS)
    reached = accuracy(network, processor, records("test", 0, 300))

    if shuffled:
        assert reached < 2.2 * CHANCE
    else:
        assert reached > 6 * CHANCE
