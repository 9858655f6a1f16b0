"""Labels, tags, matches and choices: what the scores mean, and that they mean it alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from sightline.core.errors import ConfigError, ImageError, InputError, TextError
from sightline.core.outputs import Label
from sightline.tasks.ask import score_choices
from sightline.tasks.batching import Failed
from sightline.tasks.classify import classify_each
from sightline.tasks.model import Model
from sightline.tasks.prompted import class_embeddings
from sightline.tasks.tag import default_vocabulary, read_vocabulary, tag_each
from tests.tasks.colours import BLUE, GREEN, RED, colour_model, picture

COLOURS = ["red", "green", "blue"]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_right_label_comes_first_and_every_label_is_there(kind: str) -> None:
    model = colour_model(kind)
    for shown, word in ((RED, "red"), (GREEN, "green"), (BLUE, "blue")):
        labels = model.classify(shown, COLOURS)
        assert labels[0].label == word
        assert {label.label for label in labels} == set(COLOURS)
        assert all(type(label.score) is float for label in labels)
        assert labels == sorted(labels, key=lambda label: -label.score)


def test_softmax_shares_one_and_sigmoid_judges_each(clip: Model, siglip: Model) -> None:
    purple = picture(250, 0, 250)
    shares = clip.classify(purple, COLOURS)
    assert sum(label.score for label in shares) == pytest.approx(1, abs=1e-6)
    judged = {label.label: label.score for label in siglip.classify(purple, COLOURS)}
    alone = siglip.classify(purple, ["red"])[0].score
    assert judged["red"] == pytest.approx(alone, abs=1e-7)
    logit = siglip.similarity(purple, "This is a photo of red.")
    assert judged["red"] == pytest.approx(float(logit.sigmoid()), abs=1e-6)


def test_scores_do_not_depend_on_the_order_of_the_labels(clip: Model) -> None:
    one = dict(clip.classify(picture(90, 60, 200), COLOURS))
    other = dict(clip.classify(picture(90, 60, 200), COLOURS[::-1]))
    assert one == pytest.approx(other, abs=1e-6)


def test_a_list_in_is_a_list_out_everywhere(siglip: Model) -> None:
    pair = [RED, BLUE]
    assert isinstance(siglip.classify(RED, COLOURS)[0], Label)
    assert [answer[0].label for answer in siglip.classify(pair, COLOURS)] == ["red", "blue"]
    assert siglip.classify([RED], COLOURS)[0] == siglip.classify(RED, COLOURS)
    assert siglip.classify([], COLOURS) == []
    assert isinstance(siglip.tag(RED, COLOURS)[0], Label)
    assert [answer[0].label for answer in siglip.tag(pair, COLOURS)] == ["red", "blue"]
    assert siglip.match(RED, COLOURS).shape == (3,)
    assert [tuple(answer.shape) for answer in siglip.match(pair, "red")] == [(1,), (1,)]
    assert siglip.ask(RED, "which colour?", choices=COLOURS) == "red"
    assert siglip.ask(pair, "which colour?", choices=COLOURS) == ["red", "blue"]
    assert siglip.similarity(RED, "red").shape == (1, 1)
    assert siglip.similarity(pair, COLOURS).shape == (2, 3)


def test_several_templates_are_averaged_and_brought_to_unit_length(clip: Model) -> None:
    templates = ["a photo of {}.", "red {}."]
    ours = class_embeddings(clip, ["blue"], templates)
    parts = clip.embed_texts(["a photo of blue.", "red blue."])
    torch.testing.assert_close(ours, normalize(parts.mean(dim=0, keepdim=True), dim=-1))
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(1))
    plain = clip.classify(RED, COLOURS)
    assert clip.classify(RED, COLOURS, templates=clip.system.default_template) == plain
    assert clip.classify(RED, COLOURS, templates=[clip.system.default_template]) == plain


def test_similarity_is_scale_times_cosine_plus_bias(siglip: Model) -> None:
    cosine = siglip.embed_images([RED, BLUE]) @ siglip.embed_texts(COLOURS).T
    torch.testing.assert_close(siglip.similarity([RED, BLUE], COLOURS), 20 * cosine - 10)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_adding_a_tag_leaves_the_scores_of_the_others(kind: str) -> None:
    model = colour_model(kind)
    shown = picture(200, 40, 160)
    few = dict(model.tag(shown, COLOURS, threshold=0))
    more = dict(model.tag(shown, [*COLOURS, "purple", "zebra"], threshold=0))
    assert {name: more[name] for name in few} == pytest.approx(few, abs=1e-6)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_tags_reach_the_threshold_best_first(kind: str) -> None:
    model = colour_model(kind)
    tags = model.tag(picture(250, 0, 250), [*COLOURS, "purple"])
    assert tags[0].label == "purple"
    assert "green" not in [tag.label for tag in tags]
    scores = [tag.score for tag in model.tag(RED, COLOURS, threshold=0)]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    assert model.tag(RED, ["green", "blue"]) == []


def test_a_softmax_system_is_matched_against_a_prompt_that_claims_nothing(clip: Model) -> None:
    right, wrong, nothing = clip.match(RED, ["red", "blue", "a photo."]).tolist()
    assert right > 0.9 and wrong < 0.5
    assert nothing == pytest.approx(0.5, abs=0.01)


def test_match_is_the_sigmoid_of_the_logit_for_a_sigmoid_system(siglip: Model) -> None:
    expected = siglip.similarity(RED, COLOURS)[0].sigmoid()
    torch.testing.assert_close(siglip.match(RED, COLOURS), expected)


def test_words_are_read_once_for_many_pictures_until_the_weights_change(siglip: Model) -> None:
    before = siglip.tag(RED, COLOURS, threshold=0)
    read = siglip.processor.texts_read
    siglip.tag(RED, COLOURS)
    assert siglip.processor.texts_read == read
    with torch.no_grad():
        siglip.network.axis.add_(torch.full((4, 4), 0.3))
    after = siglip.tag(RED, COLOURS, threshold=0)
    assert siglip.processor.texts_read == read + 3
    assert before != after


def test_the_built_in_vocabulary_is_a_clean_list_of_everyday_words(siglip: Model) -> None:
    words = default_vocabulary()
    assert 500 <= len(words) <= 700
    assert len({word.lower() for word in words}) == len(words)
    assert {"dog", "car", "tree", "bench", "traffic light"} <= set(words)
    assert all(word == word.strip() and len(word) < 30 for word in words)
    assert len(siglip.tag(RED, threshold=0)) == len(words)


def test_a_vocabulary_file_has_one_tag_a_line(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeff# fruit\napple\n\n red apple  # two words\napple\n", encoding="utf-8")
    assert read_vocabulary(path) == ["apple", "red apple"]
    path.write_text("# nothing\n")
    with pytest.raises(InputError, match=r"words\.txt' holds no word: write one tag a line"):
        read_vocabulary(path)
    path.write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"words\.txt' cannot be read"):
        read_vocabulary(path)


def test_choices_are_ranked_and_share_one_for_a_sigmoid_system_too(siglip: Model) -> None:
    (ranked,) = score_choices(siglip, RED, "which colour is it?", COLOURS)
    assert not isinstance(ranked, Failed)
    assert ranked[0].label == "red"
    assert sum(choice.score for choice in ranked) == pytest.approx(1, abs=1e-6)


def test_braces_in_a_question_or_a_choice_stay_text(siglip: Model) -> None:
    assert siglip.ask(RED, "is {choice} {question} it {}?", choices=["{question}", "red"]) == "red"


def test_choices_that_the_model_cannot_tell_apart_are_refused(siglip: Model) -> None:
    question = "one two three four five six seven eight nine ten eleven twelve thirteen?"
    with pytest.raises(TextError, match=r"'red' and 'blue' look the same.*shorten the question"):
        siglip.ask(RED, question, choices=["red", "blue"])


def test_generation_options_are_accepted_and_unknown_ones_are_not(siglip: Model) -> None:
    assert siglip.ask(RED, "which?", choices=COLOURS, temperature=0, max_new_tokens=3) == "red"
    with pytest.raises(ConfigError, match=r"unknown option 'temprature'.*'temperature'"):
        siglip.ask(RED, "which?", choices=COLOURS, temprature=0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("red, blue", r"one string arrived: use \['red', 'blue'\]"),
        ([], "no labels arrived"),
        (["red", " "], "labels must not be empty"),
        (["red", "red"], "'red' arrived twice"),
        (["red", None], "number 2 is NoneType"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(
    clip: Model, labels: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        clip.classify(RED, labels)


def test_settings_that_cannot_be_used_are_refused(clip: Model) -> None:
    with pytest.raises(ConfigError, match="'a photo' has no place for the label"):
        clip.classify(RED, COLOURS, templates="a photo")
    with pytest.raises(ConfigError, match="no templates arrived"):
        clip.classify(RED, COLOURS, templates=[])
    with pytest.raises(ConfigError, match=r"threshold must lie between 0 and 1, not 1\.5"):
        clip.tag(RED, COLOURS, threshold=1.5)
    with pytest.raises(InputError, match="no texts arrived"):
        clip.match(RED, [])
    with pytest.raises(InputError, match="the question must be a sentence"):
        clip.ask(RED, " ", choices=COLOURS)
    with pytest.raises(ConfigError, match="has no place for the answer"):
        list(score_choices(clip, RED, "which?", COLOURS, template="{question}"))


def test_bulk_answers_name_what_failed_and_go_on(clip: Model) -> None:
    for answers in (
        list(classify_each(clip, [RED, b"", BLUE], COLOURS, on_error="collect")),
        list(tag_each(clip, [RED, b"", BLUE], COLOURS, on_error="collect")),
        list(score_choices(clip, [RED, b"", BLUE], "which?", COLOURS, on_error="collect")),
    ):
        assert isinstance(answers[1], Failed) and isinstance(answers[1].error, ImageError)
        assert [a[0].label for a in answers if not isinstance(a, Failed)] == ["red", "blue"]
    with pytest.raises(ImageError):
        clip.classify([RED, b""], COLOURS)
