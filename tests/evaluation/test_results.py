"""What a result says, writes, reads back and refuses."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sightline.core.errors import DataError
from sightline.evaluation.compare import compare
from sightline.evaluation.results import Metric, Result, Sample, read_result, short_hash, signature
from sightline.metrics.intervals import paired_test


def sample(i: int, score: float = 1.0) -> Sample:
    return Sample(
        id=f"{i}.png", kind="zeroshot", target=("cat",), ranking=(("cat", 0.5), ("dog", math.nan)),
        rank=1.0 if score else math.inf, score=score, group=f"{i}.png",
    )  # fmt: skip


def result(**changes: object) -> Result:
    made = Result(
        task="zeroshot",
        variant="cosine",
        headline="top1",
        metrics={
            "top1": Metric(0.75, (0.5, 0.9), 4),
            "median_rank": Metric(math.inf, (1.0, math.inf), 4),
        },
        n=4,
        signature="zeroshot|metric:top1|v:1",
        data="pets",
        data_sha256="ab" * 32,
        n_missing=1,
        n_invalid=2,
        missing=("3.png: it is torn",),
        groups={"class": {"cat": Metric(1.0, None, 2)}},
        prompt_templates=("a photo of a {}.",),
        versions={"torch": "2"},
        samples=tuple(sample(i) for i in range(4)),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_written_and_read_is_the_same(tmp_path: Path) -> None:
    path = result().write(tmp_path / "run")
    assert sorted(p.name for p in path.parent.iterdir()) == ["results.json", "samples.jsonl"]
    back = read_result(path.parent)
    # Infinity is null in JSON and comes back as "not a number"; everything else is equal.
    assert math.isnan(back.metrics["median_rank"].value)
    assert back.metrics["top1"] == result().metrics["top1"]
    assert math.isnan(back.samples[0].ranking[1][1])
    plain = result().metrics["top1"]
    same = {"metrics": {"top1": plain}, "samples": ()}
    assert replace(back, **same) == result(**same)
    assert [s.id for s in back.samples] == [f"{i}.png" for i in range(4)]


@pytest.mark.parametrize(
    "words",
    ["two\u2028lines", "one\x85more", "lone \ud83d", "\udcff", "a\r\nb", '"\\'],
    ids=["line-separator", "next-line", "lone-surrogate", "escaped-byte", "line-end", "quotes"],
)
def test_whatever_a_model_writes_is_kept(tmp_path: Path, words: str) -> None:
    said = replace(sample(0), raw=words, parsed=words, blind=words, blind_score=0.5,
                   prompt=words, target=(words,), tags={"kind": words}, key="k")  # fmt: skip
    made = result(samples=(said, sample(1)), missing=(f"{words}: torn",))
    back = read_result(made.write(tmp_path).parent)
    assert replace(back.samples[0], ranking=()) == replace(said, ranking=())
    assert back.missing == made.missing


def test_a_test_of_the_headline_is_kept(tmp_path: Path) -> None:
    tests = {"blind": paired_test(torch.tensor([1.0, 0, 1]), torch.tensor([0.0, 0, 1]))}
    made = result(tests=tests)
    assert read_result(made.write(tmp_path).parent).tests == tests


def test_the_document_is_strict_json_with_the_promised_fields(tmp_path: Path) -> None:
    text = result(seconds=math.inf).write(tmp_path).read_text()
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert {
        "format", "version", "task", "variant", "value", "ci95", "n", "n_invalid", "n_unparsed",
        "n_missing", "groups", "signature", "data_sha256", "model_sha256", "prompt_templates",
        "versions", "seed", "seconds", "metrics", "partial", "samples_sha256",
    } <= set(document)  # fmt: skip
    assert (document["value"], document["ci95"]) == (0.75, [0.5, 0.9])
    assert document["metrics"]["median_rank"] == {"value": None, "ci95": [1.0, None], "n": 4}
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["ranking"] == [["cat", 0.5], ["dog", None]]


def test_other_files_of_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result().write(tmp_path)
    result().write(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 3


def test_summary_reads_like_a_table() -> None:
    rows = result(partial=True).summary_rows()
    assert rows == [
        ("task", "zeroshot on pets (PARTIAL)"),
        ("top1", "0.7500 (95 % interval 0.5 to 0.9)"),
        ("median_rank", "inf (95 % interval 1 to inf)"),
        ("pictures", "4 (1 missing, 2 invalid)"),
        ("missing", "3.png: it is torn"),
        ("signature", "zeroshot|metric:top1|v:1"),
    ]
    many = result(missing=tuple(f"{i}.png: torn" for i in range(12)), n_missing=12)
    assert ("missing", "and 2 more, named in results.json") in many.summary_rows()


def test_no_score_is_a_failure() -> None:
    nothing = {"metrics": {"top1": Metric(math.nan)}}
    assert result(**nothing).failed
    assert ("top1", "no score") in result(**nothing).summary_rows()
    assert result(n=0).failed
    assert result(n_missing=4).failed
    assert not result().failed


def test_signature_and_hash_are_stable() -> None:
    assert signature("zeroshot", 1, metric="top1", n=3) == "zeroshot|metric:top1|n:3|v:1"
    digest = hashlib.sha256(b'["a", "b"]').hexdigest()
    assert short_hash(["a", "b"]) == short_hash(("a", "b")) == digest[:8]
    assert short_hash(["ab"]) != short_hash(["a", "b"])


def changed(tmp_path: Path, **changes: object) -> Path:
    """A written result with other values; None takes the field away."""
    path = result().write(tmp_path)
    document = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in document.items() if k not in changes or v}))
    return tmp_path


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist: give the folder of a result"):
        read_result(tmp_path)
    with pytest.raises(DataError, match=r"version 2 of 'sightline\.result'.*update Sightline"):
        read_result(changed(tmp_path, version=2))
    with pytest.raises(DataError, match="is not a result of Sightline"):
        read_result(changed(tmp_path, format="other"))
    with pytest.raises(DataError, match="lacks or misspells a field"):
        read_result(changed(tmp_path, metrics=None))
    with pytest.raises(DataError, match="lacks or misspells a field"):
        read_result(changed(tmp_path, metrics=[1]))
    result().write(tmp_path)
    (tmp_path / "samples.jsonl").write_text("")
    with pytest.raises(DataError, match=r"is not the file that results\.json was written with"):
        read_result(tmp_path)
    (tmp_path / "results.json").write_text('{"format": ')
    with pytest.raises(DataError, match="is no JSON"):
        read_result(tmp_path)


def test_two_models_are_compared_on_the_same_samples() -> None:
    right = result(samples=tuple(sample(i) for i in range(12)))
    mixed = result(samples=tuple(sample(i, float(i < 2)) for i in reversed(range(12))))
    found = compare(right, mixed)["zeroshot"]
    assert found.difference == pytest.approx(10 / 12)
    assert found.p_value == pytest.approx(2 / 2**10)
    assert compare(right, right)["zeroshot"].p_value == 1
    # Matched by id, whatever the order: equal models differ in no sample.
    turned = replace(mixed, samples=mixed.samples[::-1])
    assert compare(mixed, turned)["zeroshot"].p_value == 1


def test_results_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(DataError, match=r"not comparable: task is zeroshot in result 1 and other"):
        compare(result(), result(signature="other|metric:top1|v:1"))
    changed = result(signature="zeroshot|metric:top1|templates:2-ab|v:2")
    with pytest.raises(
        DataError,
        match="not comparable: v is 1 in result 1 and 2 in result 2; "
        "templates is not given in result 1 and 2-ab in result 2; evaluate all models",
    ):
        compare(result(), changed)
    with pytest.raises(DataError, match="different samples of zeroshot"):
        compare(result(), result(samples=(sample(9),)))
