"""The comparison of closed and open labels: what is known, what is new, and who is asked what."""

import json
from dataclasses import replace

import pytest

import sightline
from sightline.core.errors import ConfigError
from sightline.data.formats import open_dataset
from sightline.data.park.vocabulary import COLOURS, KINDS, held_out_pairs
from sightline.recipes import open_set as module
from sightline.recipes import run
from sightline.recipes.open_set import NEW_KINDS, OpenSetSettings, cases, open_set, recipes
from sightline.recipes.open_set import write_data as write_case

SMALL = OpenSetSettings(steps=1, again=1, pictures=60, test=12, batch_size=8, width=16)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The case of new words in single steps; the other case differs in its data alone."""
    out, seen = tmp_path_factory.mktemp("comparison") / "out", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "cases", lambda: cases()[:1])
        patch.setattr(run, "available_cores", lambda: 1)  # one thread: the steps are tiny
        patch.setattr(run, "write_report", lambda out, *_: out / "report.html")
        rows = open_set(out, SMALL, progress=lambda place, total: seen.append((place, total)))
    assert seen == [(place, 4) for place in range(1, 5)]
    return rows, out


def test_new_classes_are_new_words_or_new_combinations_of_known_ones():
    words, pairs = cases()
    assert set(words.known) | set(words.new) == set(KINDS) and words.new == NEW_KINDS
    assert not set(words.known) & set(words.new)
    assert {tuple(reversed(phrase.split())) for phrase in pairs.new} == held_out_pairs()
    assert len(pairs.known) == 170 and not set(pairs.known) & set(pairs.new)
    said = {word for phrase in pairs.known for word in phrase.split()}
    assert said == {*KINDS, *COLOURS}  # every word of a new phrase is known


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.label)
def test_known_data_show_and_say_nothing_new(case, tmp_path):
    write_case(case, tmp_path, replace(SMALL, pictures=300))
    known = open_dataset(str(tmp_path / "known-classes"))
    assert known.splits == ("test", "train", "val")
    assert set(known.labels) <= set(case.known)
    text = " ".join(caption for record in known for caption in record.captions)
    assert not any(f" {name} " in f"{text} " for name in case.new)
    both = open_dataset(str(tmp_path / "all-classes"))
    assert set(known.labels) < set(both.labels) <= {*case.known, *case.new}
    new = [r for r in both if r.label in case.new and r.split == "train"]
    assert len(new) == round(300 * len(case.new) / len(case.known))
    ids = [record.id for record in both]
    assert len(ids) == len(set(ids))


def test_a_classifier_has_no_row_for_what_is_new(done):
    rows, out = done
    assert [(row.case, row.model, row.trained_on) for row in rows] == [
        ("new words", model, trained_on)
        for model in ("classifier", "dual encoder")
        for trained_on in ("known", "all")
    ]
    assert rows[0].new.value == 0.0
    assert [row.among_new is None for row in rows] == [True, True, False, False]
    assert all(row.known.n == row.new.n == 12 and row.pictures == 8 for row in rows)
    document = json.loads((out / "open-set.json").read_text())
    assert document["format"] == "sightline.open-set" and document["settings"]["pictures"] == 60
    assert [row["new"]["value"] for row in document["rows"]] == [row.new.value for row in rows]


def test_the_second_training_knows_every_class(done):
    _, out = done
    first, second = (
        sightline.load(out / "new-words/classifier" / part / "checkpoints/last/model")
        for part in ("known", "all")
    )
    assert set(second.config.labels) - set(first.config.labels) == set(NEW_KINDS)


def test_both_start_from_the_same_tower_with_the_same_budget(done):
    _, out = done
    classifier, dual = recipes(cases()[0], out / "new-words/untrained", SMALL)
    for name in ("data", "steps", "lr", "batch_size", "seed", "width", "image_size"):
        assert getattr(classifier, name) == getattr(dual, name), name
    assert classifier.init == dual.init_image and dual.init is None


def test_settings_and_folders_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="is there already: times would mix"):
        open_set(tmp_path, SMALL)
    with pytest.raises(ConfigError, match="counted from 1 on"):
        OpenSetSettings(steps=0)
