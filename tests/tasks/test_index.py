"""An index of pictures: adding, changing, vanishing, searching, and which model may ask."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.core.errors import (
    ConfigError,
    DamagedStoreError,
    DataError,
    InputError,
    UnsupportedTaskError,
)
from sightline.search.manifests import manifests
from sightline.tasks.index import Index
from sightline.tasks.indexed import picture_id
from sightline.tasks.model import Model
from tests.tasks.colours import BLUE, GREEN, RED, colour_model, picture


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (root / "holiday").mkdir(parents=True)
    Image.fromarray(RED).save(root / "red.png")
    Image.fromarray(GREEN).save(root / "holiday" / "green.png")
    Image.fromarray(picture(5, 5, 250, (40, 60))).save(root / "holiday" / "blue.jpg")
    return root


@pytest.fixture
def index(tmp_path: Path, clip: Model, photos: Path) -> Index:
    made = Index.open(tmp_path / "index", clip)
    assert made.add(photos).added == 3
    return made


def table(index: Index) -> dict[str, tuple[Any, ...]]:
    """Everything that does not depend on the clock, by id."""
    names = ("file", "digest", "width", "height", "format", "bytes", "missing")
    rows: dict[str, tuple[Any, ...]] = {}
    for part in index.store.scan(names, vectors=True):
        for place, id in enumerate(part.ids):
            assert id not in rows
            vector = tuple(np.round(part.vectors[place], 4).tolist())
            rows[id] = (vector, *(part.fields[name][place] for name in names))
    return rows


def embedded(model: Model) -> int:
    return sum(model.network.batches)


def test_words_pictures_and_likeness_find_pictures(index: Index, photos: Path) -> None:
    best = index.search("green", k=2)
    assert best[0].path == str(photos / "holiday" / "green.png") and len(best) == 2
    assert best[0].score > best[1].score and best[0].id == picture_id(best[0].path)
    assert [row[0].fields["name"] for row in index.search(["red", "blue"], 1)] == [
        "red.png",
        "blue.jpg",
    ]
    assert index.search(photos / "red.png", 1)[0].score == pytest.approx(1, abs=1e-5)
    assert index.search(GREEN, 1)[0].path.endswith("green.png")
    assert index.search(str(photos / "red.png"), 1, kind="image")[0].path.endswith("red.png")
    purple = index.like(str(photos / "holiday" / "blue.jpg"), k=5)
    assert len(purple) == 2 and all("blue" not in hit.path for hit in purple)
    with pytest.raises(InputError, match="no picture 'nobody'"):
        index.like("nobody")
    with pytest.raises(ConfigError, match="k must be a whole number of at least 1, not 0"):
        index.search("red", 0)


def test_a_row_says_what_the_file_is(index: Index, photos: Path) -> None:
    (hit,) = index.search("blue", 1)
    file = photos / "holiday" / "blue.jpg"
    fields = hit.fields
    assert (fields["width"], fields["height"], fields["format"]) == (60, 40, "jpeg")
    assert (fields["folder"], fields["name"], fields["path"]) == ("holiday", "blue.jpg", str(file))
    assert (fields["bytes"], fields["modified"]) == (file.stat().st_size, file.stat().st_mtime_ns)
    assert fields["missing"] is False and len(fields["digest"]) == 64


def test_filters_choose_before_the_search(index: Index) -> None:
    def names(where: str) -> set[str]:
        return {hit.fields["name"] for hit in index.search("red", 10, where)}

    assert names('folder="holiday"') == {"green.png", "blue.jpg"}
    assert names("width>=60 and format=jpeg") == {"blue.jpg"}
    assert names("path ~ *.PNG") == {"green.png", "red.png"}
    assert names("added<2020-01-01") == set() and len(names("added>2020-01-01")) == 3
    (best,) = index.search("red", 1, "folder=holiday")  # not red.png, which is nearer
    assert best.fields["folder"] == "holiday"
    with pytest.raises(ConfigError, match="no field 'colour'"):
        index.search("red", 1, "colour=red")


def test_adding_again_changes_nothing_and_embeds_nothing(
    index: Index, photos: Path, clip: Model, tmp_path: Path
) -> None:
    before, looked = table(index), embedded(clip)
    version = index.info().store.version
    for given in (photos, [photos / "red.png"], photos / "holiday", [photos, photos]):
        report = index.add(given)
        assert (report.added, report.changed, report.missing, report.failed) == (0, 0, 0, [])
    assert table(index) == before and embedded(clip) == looked
    assert index.info().store.version == version
    reopened = Index.open(tmp_path / "index", clip)
    assert reopened.add(os.path.relpath(photos)).unchanged == 3 and table(reopened) == before


def test_a_changed_file_is_embedded_again_in_its_place(
    index: Index, photos: Path, clip: Model
) -> None:
    looked = embedded(clip)
    Image.fromarray(BLUE).save(photos / "red.png")
    os.utime(photos / "red.png", ns=(1, 10**18))
    report = index.add(photos)
    assert (report.added, report.changed, report.unchanged) == (0, 1, 2)
    assert embedded(clip) == looked + 1 and len(table(index)) == 3
    assert {hit.fields["name"] for hit in index.search("blue", 2)} == {"red.png", "blue.jpg"}


def test_a_touched_file_is_read_but_not_embedded(index: Index, photos: Path, clip: Model) -> None:
    before, looked = table(index), embedded(clip)
    os.utime(photos / "red.png", ns=(1, 10**18))
    assert index.add(photos).unchanged == 3
    assert table(index) == before and embedded(clip) == looked
    (hit,) = index.search("red", 1)
    assert hit.fields["modified"] == 10**18


def test_a_changed_file_that_cannot_be_read_keeps_its_row(index: Index, photos: Path) -> None:
    (photos / "red.png").write_bytes(b"no picture")
    (photos / "new.png").write_bytes(b"")
    report = index.add(photos)
    assert sorted(Path(one.name).name for one in report.failed) == ["new.png", "red.png"]
    assert "red.png" in str(report.failed[1].error) and report.unchanged == 2
    assert len(table(index)) == 3


def test_what_vanished_is_marked_and_what_returns_is_back(
    index: Index, photos: Path, clip: Model
) -> None:
    away = photos.parent / "away.png"
    os.rename(photos / "red.png", away)
    report = index.add(photos)
    assert (report.missing, report.unchanged) == (1, 2)
    info = index.info()
    assert (info.pictures, info.missing) == (2, 1)
    assert all("red" not in hit.path for hit in index.search("red", 5))
    assert [hit.fields["name"] for hit in index.search("red", 5, "missing")] == ["red.png"]
    assert index.add(photos).missing == 0  # marked once
    looked = embedded(clip)
    os.rename(away, photos / "red.png")
    assert index.add(photos).unchanged == 3 and embedded(clip) == looked
    assert index.info().missing == 0


def test_other_folders_are_left_alone(index: Index, photos: Path, tmp_path: Path) -> None:
    twin = tmp_path / "photos2"
    twin.mkdir()
    Image.fromarray(RED).save(twin / "other.png")
    os.remove(photos / "red.png")
    report = index.add(twin)
    assert (report.added, report.missing) == (1, 0)
    # A folder all of whose pictures are gone is no mistake; one that never had any is.
    os.remove(twin / "other.png")
    assert index.add(twin).missing == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="empty: no pictures to index"):
        index.add(empty)
    report = index.add([tmp_path / "nowhere"])
    assert "nowhere" in str(report.failed[0].error)


def test_pictures_in_memory_are_known_by_their_pixels(index: Index) -> None:
    purple = picture(180, 5, 180)
    report = index.add([purple, Image.fromarray(purple), (Path(__file__).name)])
    assert (report.added, len(report.failed)) == (1, 1)
    assert index.add([purple]).unchanged == 1
    (hit,) = index.search("purple", 1)
    assert hit.path == f"memory:{hit.id}"
    assert index.remove(hit.path) == 1


def test_pictures_are_removed_by_id_or_path(index: Index, photos: Path) -> None:
    (hit,) = index.search("green", 1)
    assert index.remove([hit.id, str(photos / "red.png"), "nobody"]) == 2
    assert index.info().pictures == 1 and (photos / "red.png").exists()
    assert index.add(photos).added == 2


def test_near_duplicates_come_from_the_vectors(index: Index, photos: Path) -> None:
    Image.fromarray(picture(245, 8, 5)).save(photos / "almost red.png")
    index.add(photos)
    seen: list[Any] = []
    (pair,) = index.duplicates(0.99, progress=lambda *at: seen.append(at))
    assert [Path(path).name for path in pair[:2]] == ["red.png", "almost red.png"]
    assert pair.score >= 0.99 and seen
    assert index.duplicates(0.99, "folder=holiday") == []
    with pytest.raises(ConfigError, match="the threshold is a cosine, -1 to 1, not 2"):
        index.duplicates(2)


HOSTILE = ["new\nline.png", "quote'\".png", "per%cent_*?.png", "uml\u00e4ut.png", " space .png"]


@pytest.mark.skipif(os.name == "nt", reason="such names do not exist there")
def test_hostile_names_links_and_loops(tmp_path: Path, clip: Model) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    for place, name in enumerate(HOSTILE):
        Image.fromarray(picture(50 * place, 200, 40)).save(root / name)
    raw = os.path.join(os.fsencode(root), b"not-utf8-\xff.png")
    Image.fromarray(RED).save(root / "plain.png")
    os.rename(root / "plain.png", raw)
    (root / "loop").symlink_to(root)
    (root / "dead.png").symlink_to(root / "nowhere")
    with Index.open(tmp_path / "index", clip) as index:
        assert index.add(root).added == 6
        assert index.add(root).unchanged == 6
        hits = {hit.path: hit for hit in index.search("red", 10)}
        assert set(hits) == {str(root / name) for name in HOSTILE} | {os.fsdecode(raw)}
        odd = hits[os.fsdecode(raw)]
        assert odd.fields["name"] == "not-utf8-\N{REPLACEMENT CHARACTER}.png"
        for name in HOSTILE[:3]:
            quoted = name.replace("\\", "\\\\").replace('"', '\\"')
            found = index.search("red", 10, f'name="{quoted}"')
            assert [hit.path for hit in found] == [str(root / name)]
        assert len(index.search("red", 10, "name=\"x' or '1'='1\"")) == 0
        os.remove(raw)
        assert index.add(root).missing == 1
        assert index.remove([hit.id for hit in hits.values()]) == 6


def test_an_index_belongs_to_its_model(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"made by colour-clip .* gives other vectors"):
        Index.open(tmp_path / "index", _turned())
    loads: list[Any] = []

    def load(name: str, revision: str | None = None) -> Model:
        loads.append((name, revision))
        return colour_model("clip")

    monkeypatch.setattr("sightline.tasks.index.load", load)
    assert Index.open(tmp_path / "index", "colour").search("red", 1) and loads == [("colour", None)]
    loads.clear()
    without = Index.open(tmp_path / "index")
    assert without.info().model == "colour-clip" and loads == []
    assert without.like(without.search("red", 1)[0].id, 1)
    assert without.search("blue", 1) and loads == [("colour-clip", "r1")]
    monkeypatch.setattr("sightline.tasks.index.load", lambda name, revision=None: _turned())
    with pytest.raises(DataError, match="gives other vectors"):
        Index.open(tmp_path / "index").search("red")


def _turned() -> Model:
    """The same name, other weights."""
    import torch

    other = colour_model("clip")
    with torch.no_grad():
        other.network.axis.copy_(torch.eye(4)[[1, 2, 0, 3]])
    return other


def test_an_image_encoder_is_asked_with_pictures_alone(
    tmp_path: Path, vit: Model, photos: Path
) -> None:
    with Index.open(tmp_path / "vit", vit) as index:
        index.add(photos)
        assert index.search(RED, 1)[0].path.endswith("red.png")
        with pytest.raises(UnsupportedTaskError, match="cannot read text"):
            index.search("red")


def test_a_damaged_index_is_refused_before_anything_is_embedded(
    index: Index, tmp_path: Path, photos: Path, clip: Model
) -> None:
    manifests(tmp_path / "index")[0].path.write_bytes(b"")
    Image.fromarray(RED).save(photos / "new.png")
    looked = embedded(clip)
    broken = Index.open(tmp_path / "index", clip)
    now = embedded(clip)  # opening compares the model
    with pytest.raises(DamagedStoreError, match="run sightline index repair"):
        broken.add(photos)
    assert embedded(clip) == now > looked


def test_opening_needs_an_index_or_a_model(tmp_path: Path, clip: Model) -> None:
    with pytest.raises(DataError, match="there is no index in this folder: make one with"):
        Index.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file: give a folder"):
        Index.open(tmp_path / "file", clip)


def test_a_newer_index_is_refused(index: Index, clip: Model, tmp_path: Path) -> None:
    index.store._about = {**index.store.about, "version": 2}  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="an index of version 2, this program reads 1"):
        index.use(clip)


def test_commits_are_large_and_survive_a_person_who_stops(
    tmp_path: Path, clip: Model, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Index.open(tmp_path / "other", clip)
    sizes: list[int] = []
    upsert = made.store.upsert

    def counted(rows: Any) -> None:
        sizes.extend([len(rows.ids)] if rows.ids else [])
        upsert(rows)

    monkeypatch.setattr(made.store, "upsert", counted)

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.add(photos, progress=stop)
    assert sizes == [2] and made.info().pictures == 2
    made.add(photos)
    assert sizes == [2, 1]
    made.remove([hit.id for hit in made.search("red", 9)])
    made.add(photos, commit_seconds=0.0)
    assert sizes == [2, 1, 1, 1, 1]
