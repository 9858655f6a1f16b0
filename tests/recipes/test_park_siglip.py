"""The bundled model's recipe: its sentences, its teachers, and that they help."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sightline.core.errors import ConfigError
from sightline.data.park.records import BACKGROUND, LEAST_COVER, ParkRecords, patch_truth
from sightline.data.park.scenes import scene
from sightline.data.park.vocabulary import COLOURS, KINDS, with_article
from sightline.recipes.park_scores import distinct
from sightline.recipes.park_siglip import (
    ANY,
    GREY,
    PROMPTS,
    ParkSigLIPRecipe,
    Taught,
    contents,
    middle_grey,
    patch_loss,
    prompt,
    sentence,
    taught_loader,
    taught_step,
    train_park_siglip,
    true_pairs,
    vocabulary_texts,
)
from sightline.recipes.towers import start_from

SMALL = ParkSigLIPRecipe(
    width=16, depth=1, num_heads=2, text_width=16, text_depth=1, text_heads=2, batch_size=8,
    steps=3, eval_limit=6, workers=0,
)  # fmt: skip


def test_patch_truth_is_what_covers_most_of_the_patch():
    drawn = scene(11, size=64)
    kinds, colours = patch_truth(drawn, 8)
    for place in range(64):
        y, x = 8 * (place // 8), 8 * (place % 8)
        cover = [thing.mask[y : y + 8, x : x + 8].sum() for thing in drawn.objects]
        if max(cover) <= LEAST_COVER * 64:
            assert kinds[place] == colours[place] == BACKGROUND
        else:
            thing = drawn.objects[int(np.argmax(cover))]
            assert (KINDS[kinds[place]], COLOURS[colours[place]]) == (thing.kind, thing.colour)


def sentences(drawn, count=400):
    return dict(sentence(drawn, np.random.default_rng(i)) for i in range(count))


def test_sentences_of_one_object_are_captions_and_prompts():
    drawn = scene(5, objects=1)
    thing = drawn.objects[0]
    words = [thing.kind, thing.name, with_article(thing.kind), with_article(thing.name)]
    words += [thing.colour, f"something {thing.colour}"]
    prompts = {p.format(w) for p in PROMPTS for w in words}
    assert set(sentences(drawn, 600)) == prompts | set(drawn.captions)


def test_claims_say_what_the_sentence_says():
    drawn = next(s for s in (scene(i) for i in range(50)) if len(s.objects) > 2)
    seen = set()
    for words, (kind, colour) in sentences(drawn).items():
        seen.add((kind == ANY, colour == ANY))
        if kind == ANY and colour == ANY:
            assert words in drawn.captions
            continue
        named = [name for name in COLOURS if name in words.replace(".", "").split()]
        assert named == ([] if colour == ANY else [COLOURS[colour]])
        assert kind == ANY or KINDS[kind] in words
        assert kind != ANY or not any(name in words for name in KINDS)
        assert ANY in (kind, colour) or f"{COLOURS[colour]} {KINDS[kind]}" in words
    assert seen == {(True, True), (False, True), (True, False), (False, False)}


def test_true_pairs_by_hand():
    """Three pictures: a red bench; a blue bench and a red cat; a blue tree."""
    bench, cat, tree = (KINDS.index(name) for name in ("bench", "cat", "tree"))
    red, blue = COLOURS.index("red"), COLOURS.index("blue")
    shown = torch.zeros(3, len(KINDS), len(COLOURS) + 1, dtype=torch.bool)
    for picture, kind, colour in (
        (0, bench, red),
        (1, bench, blue),
        (1, cat, red),
        (2, tree, blue),
    ):
        shown[picture, kind, colour] = True
    claims = torch.tensor([[bench, ANY], [bench, blue], [ANY, ANY]])
    assert true_pairs(claims, shown).tolist() == [
        [True, False, False],
        [True, True, False],
        [False, False, True],
    ]


def test_a_colour_alone_is_true_of_all_that_shows_it():
    """A red bench; a blue bench and a red cat; a blue tree. Red is in two pictures, blue in two."""
    bench, cat, tree = (KINDS.index(name) for name in ("bench", "cat", "tree"))
    red, blue = COLOURS.index("red"), COLOURS.index("blue")
    shown = torch.zeros(3, len(KINDS), len(COLOURS) + 1, dtype=torch.bool)
    shown[[0, 1, 1, 2], [bench, bench, cat, tree], [red, blue, red, blue]] = True
    claims = torch.tensor([[ANY, red], [ANY, blue], [ANY, blue]])
    assert true_pairs(claims, shown).tolist() == [
        [True, False, False],
        [True, True, True],
        [False, True, True],
    ]


def test_colourless_pictures_match_kinds_and_no_colours():
    """A grey bench, then a red bench: "a bench" is true of both, "a red bench" of one."""
    bench, red = KINDS.index("bench"), COLOURS.index("red")
    shown = torch.zeros(2, len(KINDS), len(COLOURS) + 1, dtype=torch.bool)
    shown[[0, 1], bench, [GREY, red]] = True
    claims = torch.tensor([[bench, ANY], [bench, red]])
    assert true_pairs(claims, shown).tolist() == [[True, False], [True, True]]


def test_middle_grey_is_no_colour_of_the_park():
    grey = middle_grey(scene(3).pixels)
    assert (grey[..., 0] == grey[..., 1]).all() and (grey[..., 0] == grey[..., 2]).all()
    assert 80 <= grey.min() and grey.max() <= 176
    drawn = scene(3)
    assert contents(drawn, colourless=True).sum() == len({t.kind for t in drawn.objects})
    assert not contents(drawn, colourless=True)[:, :GREY].any()


def test_a_negative_turns_dark_and_light_around_in_the_same_greys():
    pixels = scene(3).pixels
    grey, negative = middle_grey(pixels).astype(int), middle_grey(pixels, negative=True).astype(int)
    assert 80 <= negative.min() and negative.max() <= 176
    assert np.abs(grey + negative - 256).max() <= 1
    assert not np.array_equal(grey, negative)


def test_shared_matches_come_first_then_colourless_pictures_and_colours_alone():
    recipe = replace(SMALL, steps=40)
    loader = taught_loader(start_from(recipe, vocabulary_texts()[:200]).processor, recipe)
    batches = [batch for _, batch in zip(range(40), loader, strict=False)]
    grey = [bool(batch.shown[..., GREY].any()) for batch in batches]
    claims = [bool((batch.claims != ANY).any()) for batch in batches]
    colours = [bool(((batch.claims[:, 0] == ANY) & (batch.claims[:, 1] != ANY)).any())
               for batch in batches]  # fmt: skip
    assert not any(claims[:12]) and any(claims[12:22])
    assert not any(grey[:22]) and any(grey[22:])
    assert not any(colours[:22]) and any(colours[22:])
    for batch in batches:  # what shows no colours teaches none
        colourless = batch.shown[..., GREY].any(dim=1)
        assert (batch.colours[colourless] == BACKGROUND).all()


def test_a_prompt_about_a_kind_names_no_colour():
    drawn = scene(3)
    for i in range(50):
        words, (kind, colour) = prompt(drawn, np.random.default_rng(i), "kind")
        assert KINDS[kind] in words and colour == ANY
        assert not set(words.split()) & set(COLOURS)


def test_no_training_scene_shows_a_held_out_pair():
    from sightline.data.park.vocabulary import held_out_pairs

    start = start_from(SMALL, vocabulary_texts()[:200])
    loader = taught_loader(start.processor, SMALL)
    seen = set()
    for _, batch in zip(range(8), loader, strict=False):
        pairs = set(
            zip(batch.kinds.flatten().tolist(), batch.colours.flatten().tolist(), strict=True)
        )
        seen |= {(KINDS[k], COLOURS[c]) for k, c in pairs if c != BACKGROUND}
    assert seen and seen & set(held_out_pairs()) == set()


def test_patch_loss_is_the_weighted_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, generator=generator)
    truth = torch.tensor([[0, BACKGROUND, 3], [1, 2, BACKGROUND]])
    value, right = patch_loss(logits, truth)
    total = weight = hits = 0.0
    for row, names in zip(logits, truth, strict=True):
        for scores, name in zip(row, names.tolist(), strict=True):
            w, target = (0.2, 4) if name == BACKGROUND else (1.0, name)
            total += w * float(scores.logsumexp(0) - scores[target])
            weight += w
            hits += name != BACKGROUND and int(scores.argmax()) == name
    assert float(value) == pytest.approx(total / weight, abs=1e-6)
    assert right == pytest.approx(hits / 4)


def test_teaching_reaches_the_tower_and_not_the_text():
    start = start_from(SMALL, vocabulary_texts()[:200])
    network = Taught(start.network, SMALL.width)
    batch = next(iter(taught_loader(start.processor, SMALL)))
    gradients = []
    for teaching in (0.0, 1.0):
        network.zero_grad()
        taught_step(teaching)(network, [batch])
        gradients.append({n: p.grad.clone() for n, p in network.named_parameters()})
    assert all(float(g.abs().sum()) == 0 for n, g in gradients[0].items() if n.startswith("kind"))
    changed = {n for n in gradients[0] if not torch.equal(gradients[0][n], gradients[1][n])}
    assert any(n.startswith("model.image.transformer") for n in changed)
    assert not any(n.startswith("model.text") for n in changed)


def test_a_run_saves_a_plain_siglip(tmp_path):
    import sightline

    outcome = train_park_siglip(SMALL, tmp_path / "run")
    model = sightline.load(outcome.model, dtype="float32")
    assert model.system.name == "siglip"
    assert {"score", "test kind", "test phrase", "pairs phrase", "image to text"} <= set(
        outcome.after
    )
    assert not any(name.startswith(("kind", "colour")) for name in model.network.state_dict())


def test_other_data_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="learns from square scenes: leave shapes out"):
        train_park_siglip(ParkSigLIPRecipe(shapes=("mixed",)), tmp_path)
    with pytest.raises(ConfigError, match="learns from drawn parks"):
        train_park_siglip(replace(SMALL, data="folder"), tmp_path)


def test_distinct_scenes_share_no_caption():
    records = distinct(40)
    assert len({r.captions[0] for r in records}) == len(records) == 40
    assert all(len(r.captions) == 1 for r in records)


def test_labels_of_records_are_phrases():
    phrase, kind = (
        ParkRecords("test", count=3, objects=1, label=label)[0].label
        for label in ("phrase", "kind")
    )
    assert phrase.split()[-1] == kind and kind in KINDS
    assert any(r.label is None for r in ParkRecords("test", count=20))
