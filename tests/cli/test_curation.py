"""`sightline data filter | dedup | split | report`, from arguments to files and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from sightline.data.formats import open_dataset
from sightline.data.park.scenes import scene
from tests.cli.conftest import Run


def write_set(folder: Path, seeds: range, **columns: Any) -> Path:
    """Scenes with captions, listed in metadata.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for seed in seeds:
        drawn = scene(seed)
        drawn.image.save(folder / f"{seed}.png")
        line = {"file_name": f"{seed}.png", "caption": drawn.caption, "id": f"{seed:032x}",
                "label": "odd" if seed % 2 else "even", **columns}  # fmt: skip
        lines.append(json.dumps(line))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def add(folder: Path, name: str, image: Image.Image | bytes, caption: str = "a park") -> None:
    if isinstance(image, bytes):
        (folder / name).write_bytes(image)
    else:
        image.save(folder / name)
    with (folder / "metadata.jsonl").open("a") as lines:
        lines.write(json.dumps({"file_name": name, "caption": caption}) + "\n")


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return write_set(tmp_path / "clean", range(12))


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    """Twelve scenes, three copies and one broken file."""
    folder = write_set(tmp_path / "dirty", range(12))
    picture = scene(0).image.convert("RGB")
    add(folder, "copy.png", picture)
    add(folder, "again.jpg", picture)
    add(folder, "flipped.png", ImageOps.mirror(scene(1).image))
    add(folder, "bad.png", b"nothing of the kind")
    return folder


def test_copies_are_found_one_stays_and_the_broken_is_named(
    run: Run, dirty: Path, tmp_path: Path
) -> None:
    out = tmp_path / "kept.jsonl"
    answer = run("data", "dedup", dirty, "--out", out, "--json")
    assert answer.code == 3
    found = answer.json
    assert (found["format"], found["removed"], found["written"]) == ("sightline.duplicates", 2, 13)
    assert found["groups"][0]["methods"] == ["bytes", "pixels", "dhash"]
    assert [item["file"] for item in found["failed"]] == ["bad.png"]
    assert answer.err.count("bad.png: the content") == 1
    kept = open_dataset(out)
    assert len(kept) == 13 and "flipped.png" in {record.id for record in kept}
    again = run("data", "dedup", out)
    assert again.code == 0 and again.out == ""
    assert "0 of 13 pictures are another one again" in again.err


def test_methods_can_be_chosen(run: Run, dirty: Path) -> None:
    answer = run("data", "dedup", dirty, "--methods", "mirror", "-q")
    assert answer.out == f"{1:032x}\tflipped.png\tmirror\n"
    assert "bad.png" in answer.err, "what failed is named, quiet or not"
    for words, message in (
        (("--methods", "dahsh"), "unknown method 'dahsh': did you mean 'dhash'"),
        (("--dhash", "30"), "distance 30: a hash of 64 bits takes 0 to 11"),
        (("--methods", ""), "no method named"),
    ):
        wrong = run("data", "dedup", dirty, *words)
        assert wrong.code == 2 and message in wrong.err


def test_leaks_fail_with_code_1_until_they_are_gone(run: Run, dirty: Path, tmp_path: Path) -> None:
    test = write_set(tmp_path / "test", range(100, 104))
    add(test, "seen.png", ImageOps.mirror(scene(4).image))
    add(test, "resized.png", scene(5).image.resize((100, 100)))
    out = tmp_path / "train.jsonl"
    answer = run("data", "dedup", dirty, "--against", test, "--out", out, "--json")
    assert answer.code == 1
    found = answer.json
    assert (found["format"], found["leaked"], found["test"]) == ("sightline.leaks", 2, 6)
    leaks = {leak["test"]: (leak["train"], leak["methods"]) for leak in found["leaks"]}
    assert leaks == {
        "seen.png": (f"{4:032x}", ["mirror"]), "resized.png": (f"{5:032x}", ["dhash"])
    }  # fmt: skip
    assert "2 of 6 test pictures are among the 16 of training" in answer.err
    after = run("data", "dedup", out, "--against", test)
    assert after.code == 0 and after.out == ""


def test_a_leak_check_with_unreadable_pictures_is_not_clean(
    run: Run, dirty: Path, tmp_path: Path
) -> None:
    test = write_set(tmp_path / "test", range(100, 103))
    answer = run("data", "dedup", dirty, "--against", test)
    assert answer.code == 3 and "bad.png" in answer.err


def test_a_part_can_be_tested_against_another(run: Run, clean: Path, tmp_path: Path) -> None:
    add(clean, "copy.png", ImageOps.mirror(scene(3).image))
    out = tmp_path / "parts.jsonl"
    answer = run("data", "split", clean, "--parts", "train=rest,test=4", "--out", out, "--json")
    assert answer.code == 0
    assert answer.json["parts"] == {"train": 9, "test": 4}
    assert answer.json["copies_together"] == 1
    again = run(
        "data", "dedup", out, "--split", "train", "--against", out, "--against-split", "test"
    )
    assert again.code == 0, again.out
    wrong = run("data", "dedup", out, "--against-split", "test")
    assert wrong.code == 2 and "--against-split belongs to --against" in wrong.err


def test_a_split_loses_nothing_and_does_not_depend_on_order(
    run: Run, dirty: Path, tmp_path: Path
) -> None:
    lines = (dirty / "metadata.jsonl").read_text().splitlines()
    outs = []
    for place, order in enumerate((lines, lines[::-1])):
        (dirty / "metadata.jsonl").write_text("\n".join(order) + "\n")
        out = tmp_path / f"{place}.jsonl"
        assert run("data", "split", dirty, "--parts", "train=0.5,test=0.5", "--out", out).code == 3
        outs.append({record.id: record.split for record in open_dataset(out)})
    assert outs[0] == outs[1] and len(outs[0]) == 16
    assert {outs[0][name] for name in ("copy.png", "again.jpg", f"{0:032x}")} < {"train", "test"}
    assert len({outs[0][name] for name in ("copy.png", "again.jpg", f"{0:032x}")}) == 1


def test_a_split_by_a_column(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    write_set(folder, range(8))
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for place, line in enumerate(lines):
        line["person"] = f"p{place // 4}"
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "parts.jsonl"
    arguments = ("data", "split", folder, "--out", out, "--methods", "none")
    answer = run(*arguments, "--parts", "train=0.5,test=0.5", "--group-by", "person")
    assert answer.code == 0 and answer.out.splitlines()[1:] == ["train\t4", "test\t4"]
    found = open_dataset(out)
    assert len({(record.extra["person"], record.split) for record in found}) == 2
    wrong = run(*arguments, "--overwrite", "--group-by", "who")
    assert wrong.code == 1 and "no record has a column 'who': columns are person" in wrong.err
    wrong = run(*arguments, "--overwrite", "--parts", "train=0.5")
    assert wrong.code == 2 and "parts ask for 4 of 8 records" in wrong.err


def test_filters_count_what_fell_and_write_the_rest(run: Run, clean: Path, tmp_path: Path) -> None:
    add(clean, "long.png", Image.fromarray(np.zeros((20, 80, 3), np.uint8)), "a long black strip")
    add(clean, "word.png", scene(50).image, "word")
    add(clean, "german.png", scene(51).image, "ein Haus und ein Baum")
    out = tmp_path / "kept.jsonl"
    answer = run(
        "data", "filter", clean, "--preset", "image-based-captions", "--min-side", "64",
        "--out", out, "--json",
    )  # fmt: skip
    assert answer.code == 0
    found = answer.json
    assert found["fell"] == {
        "language en": 1, "at least 2 fastText tokens": 1, "at least 6 characters": 0,
        "shorter side at least 64": 1,
    }  # fmt: skip
    assert (found["records"], found["kept"]) == (15, 12)
    assert len(open_dataset(out)) == 12
    rows = run("data", "filter", clean, "--min-words", "2").out.splitlines()
    assert rows == ["rule\trecords", "records\t15", "at least 2 words\t-1", "kept\t14"]


def test_every_rule_has_an_option(run: Run, clean: Path) -> None:
    answer = run(
        "data", "filter", clean, "--language", "en", "--min-words", 1, "--min-characters", 2,
        "--max-characters", 400, "--min-side", 10, "--max-aspect", 1, "--json",
    )  # fmt: skip
    assert answer.json["kept"] == 12 and len(answer.json["fell"]) == 6


def test_nothing_left_fails_and_writes_nothing(run: Run, clean: Path, tmp_path: Path) -> None:
    out = tmp_path / "kept.jsonl"
    answer = run("data", "filter", clean, "--preset", "datacomp-basic", "--out", out)
    assert answer.code == 1 and not out.exists()
    assert "no record passes every rule, so nothing is written: relax one" in answer.err


def test_original_sizes_come_from_columns(run: Run, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "reduced", range(4), original_width=900, original_height=300)
    arguments = ("data", "filter", folder, "--preset", "datacomp-basic", "--json")
    assert run(*arguments, "--original-sizes").json["kept"] == 4
    assert run(*arguments).json["kept"] == 0


def test_uids_are_written_for_datacomp(run: Run, clean: Path, tmp_path: Path) -> None:
    uids = tmp_path / "uids.npy"
    assert run("data", "filter", clean, "--min-words", 1, "--uids", uids).code == 0
    assert np.load(uids)["f1"].tolist() == list(range(12))
    add(clean, "new.png", scene(60).image)
    answer = run("data", "filter", clean, "--min-words", 1, "--uids", uids, "--overwrite")
    assert answer.code == 1
    assert "record 'new.png' has no uid of 32 hexadecimal digits" in answer.err


def test_a_language_function_of_ones_own(
    run: Run, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_languages.py").write_text("def guess(text):\n    return 'xx'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = ("data", "filter", clean, "--language", "xx", "--json", "--language-by")
    assert run(*arguments, "my_languages:guess").json["kept"] == 12
    for name in ("my_languages:gess", "nowhere:guess", "my_languages", ":"):
        answer = run(*arguments, name)
        assert answer.code == 2 and "is not importable as MODULE:FUNCTION" in answer.err


def test_scores_of_a_model_choose_records(
    run: Run, clean: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "kept.jsonl"
    arguments = ("data", "filter", clean, "--model", model, "--json")
    half = run(*arguments, "--score-fraction", 0.5, "--out", out).json
    assert half["kept"] == 7 and half["model"] == str(model)  # the value at index 6 of 12
    assert run(*arguments, "--score-above", -1).json["kept"] == 12
    assert run(*arguments, "--score-above", 1).json["kept"] == 0


def test_embeddings_group_and_filter(run: Run, clean: Path, model: Path, tmp_path: Path) -> None:
    add(clean, "copy.png", scene(3).image)
    everything, some = tmp_path / "all.safetensors", tmp_path / "some.safetensors"
    assert run("embed", clean, "--model", model, "--out", everything).code == 0
    assert run("embed", clean / "0.png", "--model", model, "--out", some).code == 0
    arguments = (
        "data",
        "dedup",
        clean,
        "--methods",
        "embedding",
        "--cosine",
        "0.9999999",
        "--json",
    )
    saved = run(*arguments, "--embeddings", everything).json
    assert [group["removed"] for group in saved["groups"]] == [["copy.png"]]
    assert run(*arguments, "--model", model).json["groups"] == saved["groups"]
    kept = run(
        "data", "filter", clean, "--like", some, "--embeddings", everything, "--clusters", 13,
        "--json",
    )  # fmt: skip
    assert kept.json["kept"] == 1
    answer = run("data", "dedup", clean, "--methods", "embedding", "--embeddings", some)
    assert "12 of 13 pictures have no saved vector" in answer.err


def test_embeddings_of_other_pictures_or_texts_are_refused(
    run: Run, clean: Path, parks: Path, model: Path, tmp_path: Path
) -> None:
    other, words = tmp_path / "other.safetensors", tmp_path / "words.safetensors"
    run("embed", parks, "--model", model, "--out", other)
    run("embed", "--text", "a cat", "--model", model, "--out", words)
    arguments = ("data", "dedup", clean, "--methods", "embedding", "--embeddings")
    assert "no vector of any picture of clean: embed its pictures" in run(*arguments, other).err
    assert "holds vectors of texts: embed the pictures" in run(*arguments, words).err


def test_a_report_measures_and_writes_a_page(run: Run, dirty: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    answer = run("data", "report", dirty, "--out", out, "--json")
    assert answer.code == 3
    found = answer.json
    assert found["format"] == "sightline.quality"
    assert found["licences"] == {"unknown": 16}
    assert found["duplicates"]["removed"] == 2
    html = out.read_text("utf-8")
    assert "Copies" in html and "3 times: equal files, equal pixels, near" in html
    rows = dict(row.split("\t", 1) for row in run("data", "report", dirty).out.splitlines())
    assert rows["copies"] == "2 in 1 groups" and rows["unreadable"] == "1"


@pytest.mark.parametrize("command", ["filter", "dedup", "split", "report"])
def test_no_file_is_replaced_unasked(run: Run, clean: Path, tmp_path: Path, command: str) -> None:
    out = tmp_path / "mine.jsonl"
    out.write_text("mine")
    rules = ["--min-words", 1] if command == "filter" else []
    answer = run("data", command, clean, *rules, "--out", out)
    assert answer.code == 2 and out.read_text() == "mine"
    assert "exists already: name a new file, or pass --overwrite" in answer.err
    assert run("data", command, clean, *rules, "--out", out, "--overwrite").code == 0
    assert out.read_text("utf-8") != "mine"


def test_wrong_usage_is_said_before_any_work(run: Run, clean: Path) -> None:
    for arguments, message in (
        (("filter",), "no rule: give --preset, --min-side, --score-above"),
        (("filter", "--min-words", 1, "--clusters", 3), "--clusters belongs to --like"),
        (("filter", "--score-fraction", 0), "0 is not in the range"),
    ):
        answer = run("data", arguments[0], clean, *arguments[1:])
        assert answer.code == 2 and message in answer.err
    missing = run("data", "dedup", clean / "nowhere")
    assert missing.code == 1 and "nowhere" in missing.err


def test_pictures_inside_a_tar_are_compared_but_cannot_be_listed(
    run: Run, clean: Path, tmp_path: Path
) -> None:
    import tarfile

    shard = tmp_path / "shard-000000.tar"
    with tarfile.open(shard, "w") as tar:
        for place, name in enumerate(["0.png", "1.png", "0.png"]):
            tar.add(clean / name, arcname=f"{place:04d}.png")
    answer = run("data", "dedup", shard, "--json")
    assert answer.code == 0
    assert [group["methods"] for group in answer.json["groups"]] == [["bytes", "pixels", "dhash"]]
    refused = run("data", "dedup", shard, "--out", tmp_path / "kept.jsonl")
    assert refused.code == 1 and "sightline data convert" in refused.err
    page = tmp_path / "page.html"
    assert run("data", "report", shard, "--out", page).code == 0
    assert page.read_text("utf-8").count("data:image/") >= 2
