"""Templates: the label is text, whatever it spells."""

import pytest

from sightline.core.errors import ConfigError, InputError
from sightline.inputs import prompts


@pytest.mark.parametrize("label", ["cat", "{}", "{0}", "{label}", "}{", "100 %s", "\\1", ""])
def test_braces_in_a_label_are_only_text(label) -> None:
    assert prompts.fill("a photo of a {}.", label) == "a photo of a " + label + "."


def test_other_braces_in_a_template_are_only_text() -> None:
    assert prompts.fill("{a} {} {b", "cat") == "{a} cat {b"


@pytest.mark.parametrize(("template", "count"), [("a photo", 0), ("{} and {}", 2), ("", 0)])
def test_templates_need_exactly_one_place(template, count) -> None:
    with pytest.raises(ConfigError, match=f"has {count} places for the label; write"):
        prompts.fill(template, "cat")


def test_every_label_meets_every_template() -> None:
    rows = prompts.class_prompts(["cat", "{}"], ["a {}", "{}!"])
    assert rows == [["a cat", "cat!"], ["a {}", "{}!"]]


@pytest.mark.parametrize(("labels", "templates", "message"), [
    ([], ["{}"], "no labels"),
    (["cat", " "], ["{}"], "label 2 of 2 is empty"),
    ("cat", ["{}"], "must be lists of strings"),
    (["cat"], "{}", "must be lists of strings"),
    (["cat"], [], "no templates"),
])  # fmt: skip
def test_labels_and_templates_that_cannot_be_are_refused(labels, templates, message) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        prompts.class_prompts(labels, templates)
    assert isinstance(caught.value, ConfigError | InputError)


def test_the_ensembles_are_well_formed() -> None:
    for name, ensemble in prompts.ENSEMBLES.items():
        assert len(set(ensemble)) == len(ensemble) >= 5
        assert [prompts.check_template(t) for t in ensemble] == list(prompts.read_templates(name))


def test_templates_are_read_from_a_file(tmp_path) -> None:
    path = tmp_path / "templates.txt"
    path.write_text("# mine\n\n  a sketch of a {}.  \n{} é\n", "utf-8")
    assert prompts.read_templates(str(path)) == ("a sketch of a {}.", "{} é")


@pytest.mark.parametrize(("content", "message"), [
    (b"", "0 templates; allowed are 1 to 1000"),
    (b"no place\n", "has 0 places"),
    (b"\xff\xfe{}", "neither an ensemble .* nor a readable"),
])  # fmt: skip
def test_files_without_templates_are_refused(tmp_path, content, message) -> None:
    path = tmp_path / "templates.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        prompts.read_templates(path)


def test_a_missing_file_names_the_ensembles() -> None:
    with pytest.raises(ConfigError, match=r"'genral': neither an ensemble \(general, drawn\)"):
        prompts.read_templates("genral")
