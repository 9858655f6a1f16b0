"""Pages and sheets for people: complete, escaped, and legible."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.core.errors import ConfigError, ImageError, InputError
from sightline.core.outputs import Label
from sightline.tasks.line_chart import _ticks, line_chart
from sightline.tasks.report import Report, data_address
from sightline.tasks.sheets import CARD, SheetItem, contact_sheet, thumbnail_of, write_sheet
from tests.tasks.colours import BLUE, RED, picture

HOSTILE = "<script>alert('x')</script>\"'&<img src=x onerror=alert(1)>"
VOID = {"meta", "img", "br", "rect", "circle", "path"}


class _Balance(HTMLParser):
    """Collects tags and attributes; fails on a tag that closes another than the last opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _everything(word: str) -> Report:
    points = [(0.0, 2.0), (1.0, float("nan")), (2.0, 1.0)]
    return (
        Report(word, word)
        .section(word, word)
        .section(word)
        .section(word)
        .text(word)
        .code(word)
        .note(word, "warning")
        .facts({word: word, "n": 3})
        .table([word, "n"], [[word, 1], [word, None]], caption=word)
        .picture(RED, word, width=80)
        .lines({word: points}, word, word, caption=word)
        .bars({word: 0.5})
        .labels([Label(word, 0.5)], RED, title=word, truth=word)
        .labels([Label("a", 0.5)], b"broken", title=word, truth=word)
        .gallery([SheetItem(BLUE, word, 0.25)])
    )


def test_every_text_is_escaped_and_every_tag_closed() -> None:
    page = _Balance()
    page.feed(_everything(HOSTILE).html())
    assert page.open == []
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_a_page_fetches_nothing_and_runs_nothing() -> None:
    page = _Balance()
    html = _everything("park").html()
    page.feed(html)
    sources = [value or "" for name, value in page.attributes if name in ("src", "href")]
    assert sources and all(value.startswith(("data:image/", "#s")) for value in sources)
    assert "url(" not in html and "@import" not in html
    assert "default-src 'none'" in html


def test_a_page_is_written_whole_also_with_names_that_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    Report("caf\udce9").write(path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and text.rstrip().endswith("</html>")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_numbers_are_shown_for_readers() -> None:
    html = Report("t").table(["a", "b"], [[12345, 0.12345], [None, 0.00001]]).html()
    for shown in ("12,345", "0.123", "1.0e-05", '<td class="number">–</td>'):  # noqa: RUF001
        assert shown in html
    facts = Report("t").facts({"a": float("nan"), "b": True, "c": 1234567.0}).html()
    for shown in ("not a number", "yes", "1,234,567"):
        assert f"<dd>{shown}</dd>" in facts


def test_bars_stay_inside_their_track() -> None:
    html = Report("t").bars({"a": 2.0, "b": -1.0, "c": float("nan"), "d": 0.25}).html()
    assert re.findall(r"width:([\d.]+)%", html) == ["100.0", "0.0", "0.0", "25.0"]
    assert re.findall(r"width:([\d.]+)%", Report("t").bars({"a": 5}, full=10).html()) == ["50.0"]


def test_the_truth_is_marked_or_named() -> None:
    right = Report("t").labels([Label("cat", 0.9)], truth="cat").html()
    assert '<li class="truth"><span>cat</span>' in right and "truth: cat" not in right
    assert "truth: dog" in Report("t").labels([Label("cat", 0.9)], truth="dog").html()


def test_cards_in_a_row_share_a_grid() -> None:
    report = Report("t").labels([("a", 1.0)]).labels([("b", 1.0)]).text("x").labels([("c", 1.0)])
    assert report.html().count('<div class="grid">') == 2


def test_a_broken_picture_is_named_in_its_card_and_raises_as_a_figure() -> None:
    assert "not readable: picture" in Report("t").labels([("a", 1.0)], image=b"x").html()
    with pytest.raises(ImageError):
        Report("t").picture(b"x")


def test_an_unknown_kind_of_note_is_refused() -> None:
    with pytest.raises(ConfigError, match="kind of note 'loud' is unknown: use note, warning"):
        Report("t").note("x", "loud")


def test_pictures_become_data_addresses_of_moderate_size() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8)
    assert data_address(noise).startswith("data:image/jpeg;base64,")
    assert data_address(RED).startswith("data:image/png;base64,")
    assert data_address("<svg/>").startswith("data:image/svg+xml;base64,")


def test_a_chart_is_svg_with_a_gap_where_a_value_is_missing() -> None:
    nan = float("nan")
    svg = line_chart({"a & b": [(0, 1), (1, 2), (2, nan), (3, 1), (4, nan), (5, 3)]}, "x", "y")
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    drawn = [path.get("d", "") for path in root.iter(f"{space}path") if path.get("fill") == "none"]
    assert len(drawn) == 1 and drawn[0].count("M") == 3 and drawn[0].count("L") == 1
    assert len(list(root.iter(f"{space}circle"))) == 2
    assert "no finite values" in line_chart({"a": [(0, nan)]})
    assert "no finite values" in line_chart({})
    ElementTree.fromstring(line_chart({"flat": [(1, 0)]}))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 17), (1e-9, 2e-9), (5, 5), (0, 123456)])
def test_ticks_cover_the_values_with_few_round_steps(low: float, high: float) -> None:
    ticks = _ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high and 3 <= len(ticks) <= 8
    assert all(b > a for a, b in pairwise(ticks))


def test_a_sheet_shows_every_picture_in_order(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    items = [SheetItem(RED, "red", 0.9), SheetItem(BLUE, "blue", 0.1), SheetItem(b"", "broken")]
    write_sheet(path, items, title="colours", columns=3, thumbnail=60)
    with Image.open(path) as opened:
        sheet = np.asarray(opened.convert("RGB")).astype(int)
    reds = np.argwhere((np.abs(sheet - (250, 5, 5)) < 10).all(axis=2))
    blues = np.argwhere((np.abs(sheet - (5, 5, 250)) < 10).all(axis=2))
    assert len(reds) == len(blues) == 36 * 54  # 6 x 9 pixels enlarged six times
    assert reds[:, 1].max() < blues[:, 1].min()


def test_a_longer_bar_is_a_higher_score() -> None:
    def ink(score: float) -> int:
        sheet = np.asarray(contact_sheet([SheetItem(RED, "", score)])).astype(int)
        return int((np.abs(sheet - (45, 108, 205)) < 12).all(axis=2).sum())

    assert ink(0.9) > 2 * ink(0.3) > 0 == ink(0.0) == ink(float("nan"))
    assert ink(5.0) == ink(1.0)


def test_captions_stay_inside_their_card() -> None:
    long = "x" * 400 + " " + "word " * 100
    sheet = np.asarray(contact_sheet([SheetItem(RED, long)], thumbnail=100)).astype(int)
    edge = sheet[:, 16 + 120 - 9 : 16 + 120]  # the right padding of the card
    assert (edge.max(axis=(0, 2)) >= CARD[0]).all() and edge[30:110].min() > 200


def test_small_pictures_are_enlarged_in_whole_steps_and_large_ones_fit() -> None:
    assert thumbnail_of(picture(1, 2, 3, (10, 20)), 100).size == (100, 50)
    assert thumbnail_of(picture(1, 2, 3, (300, 600)), 100).size == (100, 50)
    assert thumbnail_of(picture(1, 2, 3, (1, 900)), 100).size == (100, 1)


def test_a_sheet_without_pictures_or_with_senseless_sizes_is_refused() -> None:
    with pytest.raises(InputError, match="at least one picture, none arrived"):
        contact_sheet([])
    with pytest.raises(ConfigError, match="columns must be at least 1"):
        contact_sheet([SheetItem(RED)], columns=0)


def test_right_and_wrong_answers_are_marked() -> None:
    page = (
        Report("r")
        .heading("Asked & answered")
        .labels([Label("cat", 0.9), Label("dog", 0.1)], truth="dog", claims=1)
        .labels([Label("cat", 0.9)], truth=["cat", "tree", "car"], claims=1, broad=True)
        .gallery([SheetItem(RED), SheetItem(BLUE)], right=[True, False])
        .html()
    )
    assert "<h3>Asked &amp; answered</h3>" in page
    assert '<li class="false"><span>cat</span>' in page
    assert '<li class="truth"><span>dog</span>' in page
    assert '<li class="truth"><span>cat</span>' in page
    assert "missed: tree, car" in page
    assert page.count('class="card right"') == page.count('class="card broad"') == 1
