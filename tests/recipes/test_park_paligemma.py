"""The bundled model that speaks: its lessons in tokens, what it learns from, its scores."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from sightline.core.errors import ConfigError
from sightline.core.interfaces import Prompt, TextBatch
from sightline.data.park import scene
from sightline.data.park.lessons import Turn, caption
from sightline.data.park.records import BACKGROUND
from sightline.inputs.coordinates import PALIGEMMA
from sightline.objectives.language import UNCOUNTED
from sightline.recipes import speech_scores
from sightline.recipes.bundle import bundle
from sightline.recipes.park_lessons import lesson_loader, patch_targets, spell_box
from sightline.recipes.park_paligemma import (
    ParkPaliGemmaRecipe,
    place_tokens,
    start_speaking,
    taught,
    train_park_paligemma,
    writing_of,
)
from sightline.recipes.park_teacher import lesson_step, spoken
from sightline.recipes.speech_scores import exact_answers, named_in
from sightline.tasks.model import load

TINY = ParkPaliGemmaRecipe(
    init=None, image_width=32, image_depth=1, width=32, depth=1, num_heads=2, kv_heads=1,
    mlp_width=32, steps=2, batch_size=4, eval_limit=4, compile=False, autocast="off", workers=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def started():
    start = start_speaking(TINY)
    for parameter in start.network.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    return start, writing_of(TINY, start, None)


def test_a_lesson_is_turns_one_behind_the_other(started) -> None:
    start, writing = started
    drawn = scene(4)
    turns = [Turn("caption en", caption(drawn)), Turn("answer en is there a cat?", "no")]
    batch = writing.collate([writing.lesson(drawn, turns)])
    decode, tokenizer = start.processor.text.decode, start.processor.text
    for number, turn in enumerate(turns):
        own = batch.owners[0] == number
        ids, following = batch.ids[0, own].tolist(), batch.following[0, own]
        prompt = ids[: int(batch.prefix[0, own][0]) - writing.instructions.picture_tokens]
        assert prompt[0] == tokenizer.bos_id and prompt[-1] == tokenizer.token_id("\n")
        assert decode(prompt[1:-1]) == turn.prompt
        answer = following[following != UNCOUNTED].tolist()
        assert decode(answer[:-1]) == turn.answer and answer[-1] == tokenizer.eos_id
        assert ids[len(prompt) :] == answer[:-1], "nobody reads on from the end"
        assert batch.positions[0, own][0] == writing.instructions.picture_tokens
    assert (batch.following[0, batch.owners[0] == -1] == UNCOUNTED).all()


def test_rows_never_exceed_their_room(started) -> None:
    _, writing = started
    for seed in range(20):
        found = writing.draw(scene(seed), np.random.default_rng(seed))
        assert found.turns.shape[1] <= writing.room


def test_patches_know_what_covers_them() -> None:
    drawn = scene(7)
    truth = patch_targets(drawn, 8).reshape(8, 8, 6)
    for row, column in np.argwhere(truth[..., 0] != BACKGROUND):
        found = PALIGEMMA.decode(truth[row, column, 2:].tolist(), (64, 64))
        assert any(np.allclose(found, thing.box, atol=0.1) for thing in drawn.objects)
    assert (truth[..., 0] == BACKGROUND).any() and (truth[..., 0] != BACKGROUND).any()


@pytest.mark.parametrize("causal", [False, True])
def test_training_and_answering_read_the_same_sequence(started, causal) -> None:
    """The loss of a turn is that of the network's own `forward`."""
    start, writing = started
    turns = [Turn("caption en", caption(scene(1))), Turn("answer en is there a cat?", "no")]
    network = taught(start).eval()
    network.model.prefix_lm = not causal
    for turn in turns:
        batch = writing.collate([writing.lesson(scene(1), [turn])])
        loss, tokens, _, _ = spoken(network, batch)
        prompt, answer = (torch.tensor([ids]) for ids in writing.tokens(turn))
        logits = start.network(
            Prompt(prompt, prompt >= 0, ((batch.pixels[0],),)), TextBatch(answer, answer >= 0)
        ).logits
        expected = torch.nn.functional.cross_entropy(logits[0], answer[0], reduction="sum")
        assert tokens == answer.numel()
        torch.testing.assert_close(loss, expected)
    network.model.prefix_lm = True


def test_no_turn_sees_another(started) -> None:
    """Behind a causal picture, turns together lose what they lose alone."""
    start, writing = started
    turns = [
        Turn("caption en", caption(scene(1))),
        Turn("answer en is there a cat?", "no"),
        Turn("answer en how many trees are there?", "two"),
    ]
    network = taught(start).eval()
    network.model.prefix_lm = False  # a whole prefix would show the picture the first prompt
    together = spoken(network, writing.collate([writing.lesson(scene(1), turns)]))[0]
    alone = [spoken(network, writing.collate([writing.lesson(scene(1), [t])]))[0] for t in turns]
    network.model.prefix_lm = True
    torch.testing.assert_close(together, torch.stack(alone).sum())


def test_another_answer_changes_nothing_behind_it(started) -> None:
    """Also where pictures see the first prompt: what was answered stays unseen."""
    start, writing = started
    batch = writing.collate([writing.draw(scene(1), np.random.default_rng(0))])
    network, answers = taught(start).eval(), batch.positions >= batch.prefix
    last = batch.owners == batch.owners.max()
    assert batch.owners.max() > 1
    only = batch._replace(following=batch.following.where(last, UNCOUNTED))
    other = only._replace(ids=only.ids.where(last | ~answers, 7))
    assert (other.ids != only.ids).any()
    assert torch.equal(spoken(network, only)[0], spoken(network, other)[0])


def test_answers_and_patches_are_learned_from(started) -> None:
    start, writing = started
    batch = writing.collate([writing.draw(scene(1), np.random.default_rng(0))])
    result = lesson_step(1.0)(network := taught(start), [batch])
    assert all(p.grad is not None for p in network.parameters())
    assert {"patch_kind", "patch_colour", "patch_box", "token"} == set(result.metrics)


def test_near_places_begin_alike_and_far_ones_do_not() -> None:
    start = start_speaking(TINY)
    places = start.network.decoder.table.weight[place_tokens(start.processor.text)].detach()
    assert places.shape == (1024, 32)
    alike = torch.nn.functional.cosine_similarity(places[500:501], places)
    assert alike.argmax() == 500 and alike[499] > 0.999 and alike[200] < 0.5 > alike[800]
    words = start.network.decoder.table.weight[: min(place_tokens(start.processor.text))]
    torch.testing.assert_close(
        places.norm(dim=1).mean(), words.norm(dim=1).mean(), rtol=0.1, atol=0
    )


def test_patches_do_not_pull_places_together(started) -> None:
    start, _ = started
    network = taught(start)
    seen = torch.randn(3, 32, requires_grad=True)
    network.zero_grad()
    network.box_likeness(seen, torch.tensor([[1, 2, 3, 4]] * 3)).sum().backward()
    assert seen.grad is not None and start.network.decoder.table.weight.grad is None


def test_the_blind_see_grey(started) -> None:
    _, writing = started
    loader = lesson_loader(replace(writing, grey=True), 4, 0.0, 4, 0, 0)
    batch = next(iter(loader))
    assert batch.pixels.unique().numel() == 1


def test_worker_processes_draw_the_same(started) -> None:
    _, writing = started
    own, other = (next(iter(lesson_loader(writing, 8, 0.5, 4, 0, workers))) for workers in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(own, other, strict=True))


def test_exact_answers_are_what_greedy_writing_gives(started) -> None:
    """Teacher forcing and writing agree on which answers are right."""
    start, writing = started
    found = exact_answers(start.network, writing, 4, 0)
    assert set(found) == {
        "score", "caption", "count", "colour", "exists", "relation", "detect"
    }  # fmt: skip
    assert all(value == 0 for value in found.values()), "a random network is never right"


@pytest.mark.parametrize("shown", ["own", "grey", "other"])
def test_which_pictures_are_shown(shown) -> None:
    seen = []

    def look(model, scenes, pictures):
        seen.extend(pictures)
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(speech_scores, "question_metrics", look)
        speech_scores.speech_metrics(None, 3, shown=shown)
    own = [scene(number, "test").pixels for number in range(3)]
    expected = {"own": own, "grey": [np.full_like(own[0], 128)] * 3, "other": [*own[1:], own[0]]}
    assert all(np.array_equal(a, b) for a, b in zip(seen, expected[shown], strict=True))


def test_captions_are_read_by_what_they_name() -> None:
    for seed in range(60):
        drawn = scene(seed)
        truth = Counter(thing.name for thing in drawn.objects)
        assert named_in(caption(drawn)) == truth
    assert named_in("two large red benches, a cat and an orange fish.") == {
        "red bench": 2, "orange fish": 1
    }  # fmt: skip
    assert named_in("<loc0001> a a red , ;") == {}


def test_boxes_are_spelled_down_before_across() -> None:
    drawn = scene(2)
    thing = drawn.objects[0]
    x1, y1, x2, y2 = thing.box
    expected = "".join(f"<loc{round(v / 64 * 1023):04d}>" for v in (y1, x1, y2, x2))
    assert spell_box(thing, drawn) == expected


def test_a_run_leaves_a_model_that_speaks(tmp_path) -> None:
    outcome = train_park_paligemma(TINY, tmp_path / "run")
    model = load(outcome.model)
    assert "caption" in model.tasks and isinstance(model.caption(scene(0).image), str)
    assert isinstance(model.detect(scene(0).image), list), "its card says how to ask for everything"
    assert outcome.report.is_file()
    card = bundle(tmp_path / "run", tmp_path / "bundled", count=2, blind=tmp_path / "run")
    assert card["everything"] == ["everything"]
    assert {name.removesuffix(" caption") for name in card["scores"] if "caption" in name} == {
        "test", "pairs", "other picture", "blind"
    }  # fmt: skip
    assert str(tmp_path) not in json.dumps(card), "no folder of the trainer"
    assert isinstance(load(tmp_path / "bundled").caption(scene(0).image), str)


def test_a_run_goes_on_from_a_model_of_an_earlier_one(tmp_path) -> None:
    first = start_speaking(TINY)
    first.save(tmp_path / "first")
    start = start_speaking(replace(TINY, init=str(tmp_path / "first"), width=64))
    own, other = first.network.state_dict(), start.network.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own), "all of it, sizes included"
    assert all(parameter.requires_grad for parameter in start.network.parameters())
    text = "what is it?"
    assert first.processor.text.encode(text) == start.processor.text.encode(text)


def test_a_causal_prefix_stays_causal_in_the_saved_model(tmp_path) -> None:
    start_speaking(replace(TINY, causal=True)).save(tmp_path / "causal")
    start_speaking(TINY).save(tmp_path / "whole")
    assert load(tmp_path / "whole").network.prefix_lm
    assert not load(tmp_path / "causal").network.prefix_lm


def test_the_stacks_of_blocks_are_what_is_compiled(started) -> None:
    start, _ = started
    parts = [start.network.decoder, start.network.image.transformer]
    assert taught(start).parts_to_compile() == parts


@pytest.mark.parametrize(
    "setting", [{"data": "photos"}, {"accumulate": 2}, {"steps": None}, {"shapes": ("48x96",)}]
)
def test_settings_that_do_not_fit(setting, tmp_path) -> None:
    with pytest.raises(ConfigError, match="park-paligemma learns from square drawn parks"):
        train_park_paligemma(replace(TINY, **setting), tmp_path)
