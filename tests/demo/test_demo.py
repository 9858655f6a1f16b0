"""The first minute: everything is written, true, whole and the same twice."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from sightline.core.errors import ConfigError, MissingDependencyError, UnsupportedTaskError
from sightline.data.park.vocabulary import held_out_pairs, phrases, with_article
from sightline.demo import page
from sightline.demo.answers import Classified, best_threshold, tag_score
from sightline.demo.composite import BAD, GOOD, HEIGHT, WIDTH, composite
from sightline.demo.pictures import (
    PHRASE_LABELS,
    Amounts,
    distinct_scenes,
    prepare_folder,
    queries,
    write_gallery,
)
from sightline.demo.run import STEPS, DemoResult, run_demo
from sightline.hub.save import save_checkpoint
from sightline.inputs.preprocessing import ImageProcessor
from sightline.inputs.processors import Processor
from sightline.inputs.vocabulary import train_vocabulary
from sightline.models.table import system
from sightline.tasks.model import Model, load

FEW = Amounts(shown=4, tagged=2, measured=12, searched=40, described=2)
SECTIONS = [
    "What is it?", "Pairs kept apart", "What is in it?", "Find the picture",
    "Find the words", "What spoke for it", "In its own words", "How the model sees them",
    "Your turn",
]  # fmt: skip
VOID = {"meta", "img", "br"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A tiny SigLIP with random weights that can spell what the park says."""
    entry = system("siglip")
    # Long enough for every prompt: phrases that are cut off alike would tie.
    prompts = [f"This is a photo of {with_article(p)}." for p in phrases()]
    words = train_vocabulary(prompts, 300, max_length=32)
    text = replace(
        entry.tiny.text, vocab_size=words.vocab_size, eos_id=words.eos_id, context_length=32
    )
    config = replace(entry.tiny, text=text)
    network = entry.build(config)
    _randomise(network)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    processor = Processor(ImageProcessor(entry.preprocessing(config)), words)
    save_checkpoint(network.eval(), processor, config, entry, folder)
    return load(folder, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def run(model: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoResult]:
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, run_demo(out, model, amounts=FEW)


def _randomise(network: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        spread = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        parameter.data = spread * torch.randn(parameter.shape, generator=generator)


class _Page(HTMLParser):
    """Headings, pictures and addresses; fails where tags are not balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert not page.open
    return page


def test_the_report_holds_every_section_and_needs_nothing_from_outside(
    run: tuple[Path, DemoResult],
) -> None:
    found = _read(run[1].report)
    assert found.headings == SECTIONS
    assert all(address.startswith(("data:image/", "#")) for address in found.addresses)


def test_every_picture_of_the_report_can_be_decoded(run: tuple[Path, DemoResult]) -> None:
    pictures = [a for a in _read(run[1].report).addresses if a.startswith("data:")]
    # the composite, two figures, and the shown ones: 4 + 4, 2 tagged, 5 queries of 5, 2 described,
    # the 2 tagged ones again, each with two maps, and once more with what was said about them
    assert len(pictures) == 1 + 2 + 8 + 2 + 25 + 2 + 6 + 2
    for picture in pictures:
        Image.open(io.BytesIO(base64.b64decode(picture.split(",", 1)[1]))).load()


def test_what_the_report_says_of_a_picture_is_what_the_model_says(
    run: tuple[Path, DemoResult], model: Model
) -> None:
    out, result = run
    html = result.report.read_text(encoding="utf-8")
    cards = [c for c in html.split('<div class="card">') if '<ul class="bars">' in c]
    answers = result.to_json()["classified"]
    assert len(answers) == 8
    for card, answer in zip(cards, answers, strict=False):
        best = model.classify(out / "pictures" / answer["file"], PHRASE_LABELS)[0]
        assert answer["labels"][0]["label"] == best.label
        assert answer["labels"][0]["score"] == pytest.approx(best.score, rel=1e-4)
        name, number = re.findall(r"<span>(.*?)</span><b>(.*?)</b>", card)[0]
        assert with_article(name) == best.label
        assert float(number) == pytest.approx(best.score, abs=6e-4, rel=0.05)
        assert answer["right"] == (best.label == answer["truth"])


def test_a_picture_is_named_by_what_it_shows(run: tuple[Path, DemoResult]) -> None:
    unseen = {f"{colour} {kind}" for kind, colour in held_out_pairs()}
    for answer in run[1].to_json()["classified"]:
        group, _, name = answer["file"].removesuffix(".png").split("-", 2)
        words = name.replace("-", " ")
        assert answer["truth"] == with_article(words)
        assert (words in unseen) == (group == "unseen")


def test_the_document_parses_and_is_on_disk(run: tuple[Path, DemoResult]) -> None:
    out, result = run
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    stored = json.loads((out / "demo.json").read_text(encoding="utf-8"))
    assert stored.items() <= document.items()
    assert document["complete"] and document["model"] == result.model
    assert set(document["scores"]) == {
        "test/kind", "test/name", "pairs/kind", "pairs/name", "image_to_text", "text_to_image",
    }  # fmt: skip
    assert all((out / name).is_file() for name in document["pictures"])


def test_the_lines_are_aligned_and_name_files_that_exist(run: tuple[Path, DemoResult]) -> None:
    out, result = run
    examples = [line for line in result.lines if line.startswith(("single", "unseen"))]
    assert len(examples) == 8
    ends = {re.search(r" (right|wrong: .*)$", line).start() for line in examples}  # type: ignore[union-attr]
    assert len(ends) == 1
    commands = [line for line in result.lines if line.startswith("  sightline ")]
    told = (line.partition(" --out ")[0] for line in commands)  # what is to be written is not there
    files = {word.lstrip("@") for line in told for word in line.split() if str(out) in word}
    assert len(commands) == 7 and files
    assert all(Path(file.strip("'")).exists() for file in files)


def test_what_is_explained_is_in_the_picture(run: tuple[Path, DemoResult]) -> None:
    found = run[1].to_json()["explained"]
    assert len({(one["file"], one["text"]) for one in found}) == len(found) == 4
    for one in found:
        article, colour, kind = one["text"].split()
        assert f"{colour} {kind}" in phrases() and isinstance(one["found"], bool)
        assert with_article(colour) == f"{article} {colour}"


def test_the_same_model_gives_the_same_bytes(
    run: tuple[Path, DemoResult], model: Model, tmp_path: Path
) -> None:
    out, result = run
    again = tmp_path / "again"
    told: list[tuple[str, int, int]] = []
    run_demo(again, model, lambda *step: told.append(step), FEW)
    assert [step for step, *_ in told] == list(STEPS)
    for name in ("composite.png", "demo.json", "labels.txt", result.document["pictures"][0]):
        assert (again / name).read_bytes() == (out / name).read_bytes(), name


def test_an_earlier_demo_is_replaced_and_anything_else_refused(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    prepare_folder(ours)
    prepare_folder(ours)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="already holds other files: name a new or an empty"):
        prepare_folder(other)
    with pytest.raises(ConfigError, match="is a file, the demo needs a folder"):
        prepare_folder(other / "thesis.txt")
    with pytest.raises(ConfigError, match="cannot be written"):
        prepare_folder(other / "thesis.txt" / "out")
    (ours / "demo.json").write_text('{"format": "sightline-demo", "version": 99}')
    with pytest.raises(ConfigError, match="holds a demo of version 99"):
        prepare_folder(ours)


def test_a_model_without_text_is_refused_before_anything_is_written(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "system", system("vit"))
    with pytest.raises(UnsupportedTaskError):
        run_demo(tmp_path / "out", model)
    assert not (tmp_path / "out").exists()


def test_without_matplotlib_a_sentence_stands_for_the_figures(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise MissingDependencyError("drawing figures needs the package 'matplotlib'")

    monkeypatch.setattr(page, "similarity_figure", missing)
    result = run_demo(tmp_path / "out", model, amounts=FEW)
    found = _read(result.report)
    assert "sightline[train]" in " ".join(found.text)
    assert found.headings == SECTIONS


def test_the_page_says_what_a_park_model_is_not_for(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "photographs" not in page.subtitle(model)
    monkeypatch.setattr(model, "domain", page.PARK_DOMAIN)
    result = run_demo(tmp_path / "out", model, amounts=FEW)
    words = " ".join(_read(result.report).text)
    assert "a model of drawn parks, not for photographs" in words
    assert "sightline pull google/siglip2-base-patch16-224" in words
    assert "Pairs never seen" in words
    assert result.to_json()["domain"] == "drawn parks"


def test_queries_are_true_of_exactly_the_scenes_they_name() -> None:
    scenes = distinct_scenes(40)
    contents = [sorted(thing.name for thing in scene.objects) for scene in scenes]
    assert len({tuple(content) for content in contents}) == 40
    for query in queries(scenes):
        assert query.right
        if len(query.right) > 1:
            thing = query.text.removesuffix(".").split(" ", 1)[1]
            assert query.right == {i for i, content in enumerate(contents) if thing in content}
        else:
            assert any(query.text in scenes[i].captions for i in query.right)


def test_tags_are_counted_against_the_truth() -> None:
    scores = [{"cat": 0.9, "dog": 0.6, "car": 0.1}, {"cat": 0.2, "dog": 0.8, "car": 0.1}]
    truths = [("cat",), ("dog", "car")]
    found = tag_score(scores, truths, 0.5)
    assert (found.right, found.given, found.wanted) == (2, 3, 3)
    assert found.precision == found.recall == pytest.approx(2 / 3)
    assert tag_score(scores, truths, 0.95).precision == 0.0
    assert best_threshold(scores, truths) == 0.8


def test_the_composite_marks_right_and_wrong(run: tuple[Path, DemoResult], tmp_path: Path) -> None:
    from sightline.core.outputs import Label
    from sightline.demo.answers import Found

    shown = write_gallery(prepare_folder(tmp_path / "out"), FEW)
    scenes = distinct_scenes(6)
    query = queries(distinct_scenes(40))[0]
    found = Found(query, tuple((scene, 0.5, place == 1) for place, scene in enumerate(scenes)))
    truth = "a red bench"

    def answers(said: str) -> list[Classified]:
        return [Classified(one, (Label(said, 0.9),), truth) for one in shown.single]

    right = composite(answers(truth), answers(truth), found, "And these?")
    wrong = composite(answers("a pink cat"), answers("a pink cat"), found, "And these?")
    assert right.size == (WIDTH, HEIGHT)
    left = (0, 0, 660, HEIGHT)
    colours = [{c for _, c in image.crop(left).getcolors(1 << 20)} for image in (right, wrong)]
    assert GOOD in colours[0] and BAD not in colours[0]
    assert BAD in colours[1] and GOOD not in colours[1]
