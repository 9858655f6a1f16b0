"""`sightline index`: from a folder to hits, and what it says when something is wrong."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.cli import thumbnails
from sightline.cli.output import Call
from sightline.cli.program import program
from sightline.data import park
from sightline.search.manifests import manifests
from tests.hub.tiny import tiny_folder

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "holiday"
    folder.mkdir()
    for seed in range(5):
        park.scene(seed).image.save(folder / f"{seed}.png")
    park.scene(0).image.save(folder / "again.png")
    return folder


@pytest.fixture
def index(run: Run, model: Path, photos: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    done = run("index", "add", photos, "--index", folder, "--model", model)
    assert done.code == 0 and done.out == f"{folder}: 6 added\n", done.err
    return folder


def test_add_search_and_info(
    run: Run, index: Path, photos: Path, model: Path, tmp_path: Path
) -> None:
    rows = run("index", "search", "a red bench", "--index", index, "-k", 3).out.splitlines()
    assert len(rows) == 3 and all(str(photos) in row for row in rows)
    sheet = tmp_path / "hits.png"
    found = run("index", "search", "a red bench", "--index", index, "-k", 3, "--json",
                "--sheet", sheet, "--where", "width>=64 and folder=holiday").json  # fmt: skip
    assert [f"{hit['score']:.3f}\t{hit['id']}\t{hit['path']}" for hit in found["hits"]] == rows
    assert found["query"] == {"text": "a red bench"} and found["model"] == str(model)
    assert found["hits"][0]["width"] == 64
    with Image.open(sheet) as drawn:
        assert drawn.width > 400
    none = run("index", "search", "a red bench", "--index", index, "--where", "width>64")
    assert none.code == 0 and none.out == ""

    own = photos / "3.png"
    alike = run("index", "search", "--image", own, "--index", index, "-k", 1, "--json").json
    assert alike["hits"][0]["path"] == str(own) and alike["hits"][0]["score"] > 0.999
    like = run("index", "search", "--like", photos / "0.png", "--index", index, "--json").json
    assert like["hits"][0]["path"].endswith("again.png") and len(like["hits"]) == 5

    about = run("index", "info", "--index", index, "--json").json
    assert about["pictures"] == 6 and about["missing"] == 0 and about["model"] == str(model)
    assert about["store"]["damage"] == [] and about["store"]["approximation"] is None
    assert "exact: every vector is compared" in run("index", "info", "--index", index).out


def test_adding_again_removing_and_failures(
    run: Run, index: Path, photos: Path, tmp_path: Path
) -> None:
    again = run("index", "add", photos, "--index", index, "--json")
    assert again.code == 0 and again.json["unchanged"] == 6 and again.json["added"] == 0
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "empty.png").write_bytes(b"")
    Image.new("RGB", (8, 8), "red").save(bad / "good.png")
    some = run("index", "add", bad, "--index", index, "--json")
    assert some.code == 3 and some.json["added"] == 1
    assert some.json["failed"][0]["file"] == str(bad / "empty.png")
    assert some.json["failed"][0]["code"] == "image_empty"
    assert run("index", "add", bad / "empty.png", "--index", index).code == 1
    gone = run("index", "remove", bad / "good.png", "--index", index, "--json")
    assert gone.code == 0 and gone.json["removed"] == 1
    assert run("index", "remove", "nobody", "--index", index).code == 1
    assert run("index", "add", bad, "--index", index).out == f"{index}: 1 added\n"


def test_duplicates_and_recall(run: Run, index: Path, photos: Path) -> None:
    found = run("index", "duplicates", "--index", index, "--threshold", 0.9999, "--json").json
    assert [str(photos / "0.png"), str(photos / "again.png")] in found["groups"]
    rows = run("index", "duplicates", "--index", index, "--threshold", 0.9999).out
    assert f"{photos / '0.png'}\t{photos / 'again.png'}" in rows
    recall = run("index", "recall", "--index", index, "--sample", 4, "-k", 2, "--json").json
    assert recall["recall"] == 1 and recall["sampled"] == 4 and recall["approximate"] is False
    assert "recall at 2: 1.0000 over 6 searches" in run(
        "index", "recall", "--index", index, "-k", 2
    ).out  # fmt: skip


def test_a_broken_index_is_read_one_step_back_and_repaired(
    run: Run, index: Path, photos: Path
) -> None:
    whole = run("index", "info", "--index", index, "--json").json
    newest = manifests(index)[0]
    newest.path.write_bytes(b"")
    back = run("index", "info", "--index", index, "--json")
    assert back.code == 0 and back.json["pictures"] == 0 and back.json["store"]["damage"]
    assert f"warning: {index}: version {newest.version} is damaged (0 bytes)" in back.err
    refused = run("index", "add", photos, "--index", index)
    assert refused.code == 1 and f"run sightline index repair {index}" in refused.err
    repaired = run("index", "repair", "--index", index)
    assert repaired.code == 0 and "run the same index add again" in repaired.out
    assert run("index", "add", photos, "--index", index).out == f"{index}: 6 added\n"
    after = run("index", "info", "--index", index, "--json")
    assert after.json["pictures"] == whole["pictures"] and "damaged" not in after.err
    assert "all is well" in run("index", "repair", "--index", index).out


@pytest.mark.skipif(os.name == "nt", reason="such names do not exist there")
def test_a_name_that_is_not_utf8_is_shown_and_searched(
    run: Run, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    plain = folder / "plain.png"
    park.scene(0).image.save(plain)
    odd = os.fsdecode(os.path.join(os.fsencode(folder), b"odd\xff\n.png"))
    os.rename(plain, odd)
    index = tmp_path / "index"
    assert run("index", "add", folder, "--index", index, "--model", model).code == 0
    sheet = tmp_path / "sheet.png"
    done = run("index", "search", "a cat", "--index", index, "--sheet", sheet)
    assert done.code == 0 and len(done.out.splitlines()) == 1 and sheet.is_file()
    (hit,) = run("index", "search", "a cat", "--index", index, "--json").json["hits"]
    assert hit["path"] == odd and os.path.exists(hit["path"])
    assert run("index", "remove", hit["id"], "--index", index).code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["search", "a cat"], 1, "there is no index in this folder"),
        (["info"], 1, "there is no index in this folder"),
        (["repair"], 1, "there is no index in this folder"),
        (["search"], 2, "say what to search for: a text, or --image FILE, or --like ID"),
        (["search", "a cat", "--like", "b"], 2, "say what to search for"),
        (["remove"], 2, "Missing argument"),
    ],
)
def test_wrong_usage(
    run: Run, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = run("index", *arguments, "--index", tmp_path / "nothing")
    assert done.code == code and message in done.err


def test_wrong_filters_and_models(run: Run, index: Path, tmp_path: Path) -> None:
    wrong = run("index", "search", "a cat", "--index", index, "--where", "colour=red")
    assert wrong.code == 2 and "there is no field 'colour'" in wrong.err
    assert "fields are path, name, folder, format, width, height" in wrong.err
    other = tmp_path / "other"
    tiny_folder("clip", other)
    refused = run("index", "search", "a cat", "--index", index, "--model", other)
    assert refused.code == 1 and "load the model that made it" in refused.err
    unknown = run("index", "search", "--like", "nobody", "--index", index)
    assert unknown.code == 2 and "no picture 'nobody'" in unknown.err


def test_the_model_of_the_index_wins_over_the_environment(
    run: Run, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_MODEL", "no/such-model")
    assert run("index", "search", "a cat", "--index", index, "-k", 1).code == 0


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({}, None),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
        ({"TERM": "screen-256color", "LC_TERMINAL": "iTerm2"}, None),
    ],
)
def test_only_terminals_that_are_known_get_pictures(
    environment: dict[str, str], protocol: str | None
) -> None:
    assert thumbnails.protocol_of(environment) == protocol


def test_the_escape_codes_hold_the_picture() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    picture = Image.fromarray(noise)
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", thumbnails.kitty(picture))
    assert len(parts) > 1 and parts[0][0] == "a=T,f=100,m=1" and parts[-1][0] == "m=0"
    data = base64.b64decode("".join(part for _, part in parts))
    assert np.array_equal(np.asarray(Image.open(BytesIO(data))), noise)
    inline = re.fullmatch(r"\x1b\]1337;File=inline=1;size=\d+;width=90px:(.*)\a",
                          thumbnails.iterm2(picture))  # fmt: skip
    assert inline is not None
    assert np.array_equal(np.asarray(Image.open(BytesIO(base64.b64decode(inline[1])))), noise)


def test_sixels_draw_the_picture() -> None:
    dice = np.random.default_rng(0)
    drawn = dice.integers(0, 2, (15, 11))  # not a whole number of bands
    picture = Image.fromarray((drawn[..., None] * [255, 0, 0]).astype(np.uint8))
    assert np.array_equal(_decoded(thumbnails.sixel(picture)), drawn)


def _decoded(code: str) -> np.ndarray:
    """Red where a red sixel was drawn: a reader of our own, after the VT330 manual."""
    body = re.fullmatch(r'\x1bPq"1;1;(\d+);(\d+)(.*)\x1b\\', code, re.DOTALL)
    assert body is not None
    canvas = np.zeros((int(body[2]) + 6, int(body[1])), int)
    red, colours, top, left = 0, {}, 0, 0
    for token in re.findall(r"#\d+(?:;2;\d+;\d+;\d+)?|!\d+.|\$|-|.", body[3]):
        if token.startswith("#"):
            number, *rest = token[1:].split(";")
            if rest:
                colours[number] = int(rest[1])
            red = colours[number]
        elif token in "$-":
            top, left = top + 6 * (token == "-"), 0
        else:
            repeat = int(token[1:-1]) if token[0] == "!" else 1
            level = ord(token[-1]) - 63
            for _ in range(repeat):
                for row in range(6):
                    if level >> row & 1:
                        canvas[top + row, left] = red // 100
                left += 1
    return canvas[: int(body[2])]


def test_a_thumbnail_stands_below_its_row_and_a_broken_one_does_not(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("TERM", "xterm-kitty")
    for name in ("TMUX", "STY"):
        monkeypatch.delenv(name, raising=False)
    call = Call("index search")
    thumbnails.show_thumbnail(call, str(photos / "0.png"))
    assert capsys.readouterr().out == ""  # no terminal
    monkeypatch.setattr(Call, "drawn", True)
    thumbnails.show_thumbnail(call, str(photos / "0.png"))
    assert capsys.readouterr().out.startswith("\x1b_Ga=T")
    thumbnails.show_thumbnail(call, str(tmp_path / "gone.png"))
    assert capsys.readouterr().out == ""


def test_the_group_is_in_the_help(run: Run) -> None:
    out = run("index", "--help").out
    assert "search" in out and "repair" in out
    assert program.get_command(None, "index") is not None  # type: ignore[arg-type]
