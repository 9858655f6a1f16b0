"""The hash of the data, and real records instead of fakes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from sightline.data.records import Dataset, Record
from sightline.evaluation.records import data_sha256
from sightline.evaluation.retrieval import retrieval
from sightline.evaluation.zeroshot import zeroshot
from tests.evaluation.fakes import FakeModel, FakeRecord, plane


def test_hash_sees_pixels_captions_and_labels_and_no_order(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"one")
    pixels = np.zeros((2, 3, 3), np.uint8)
    base = [
        FakeRecord("a", file, ("x",), "cat"),
        FakeRecord("b", b"one", ("x",), "cat"),
        FakeRecord("c", Image.fromarray(pixels)),
        FakeRecord("d", pixels),
        FakeRecord("e", "http://localhost/picture.png"),
        FakeRecord("f", str(tmp_path / "absent.png")),
    ]
    known = data_sha256(base)
    assert data_sha256(base[::-1]) == known
    seen = {known}
    changes = [
        FakeRecord("a", file, ("y",), "cat"), FakeRecord("a", file, ("x",), "dog"),
        FakeRecord("a", file, ("x", ""), "cat"), FakeRecord("A", file, ("x",), "cat"),
        FakeRecord("a", pixels + 1, ("x",), "cat"),
        FakeRecord("a", pixels.reshape(3, 2, 3), ("x",), "cat"),
        FakeRecord("a", Image.fromarray(pixels).convert("L"), ("x",), "cat"),
        FakeRecord("a", tmp_path / "absent.png", ("x",), "cat"),
    ]  # fmt: skip
    for change in changes:
        seen.add(data_sha256([change, *base[1:]]))
    file.write_bytes(b"two")
    seen.add(data_sha256(base))
    assert len(seen) == len(changes) + 2


def test_hash_sees_questions_answers_choices_and_every_picture() -> None:
    asked = Record("a", b"one", question="which?", answers=("this", "that"))
    others = [
        replace(asked, question="which one?"), replace(asked, answers=("this",)),
        replace(asked, answers=("that", "this")), replace(asked, choices=("this",)),
        replace(asked, more_images=(b"two",)), replace(asked, question=None, answers=()),
    ]  # fmt: skip
    assert len({data_sha256([record]) for record in [asked, *others]}) == 7
    plain = Record("a", b"one", ("x",), "cat")  # what asks nothing keeps the hash that it had
    assert data_sha256([plain]) == data_sha256([FakeRecord("a", b"one", ("x",), "cat")])


def test_the_data_rooms_records_are_accepted() -> None:
    data = Dataset([Record(n, n.encode(), (f"one {n}",), n) for n in ("cat", "dog")], name="pets")
    texts = {f"a photo of a {n}.": plane(90 * i) for i, n in enumerate(("cat", "dog"))}
    texts |= {f"one {n}": plane(90 * i) for i, n in enumerate(("cat", "dog"))}
    model = FakeModel({"cat": plane(1), "dog": plane(91)}, texts)
    assert zeroshot(model, data).value == 1
    assert retrieval(model, data).value == 1
    assert zeroshot(model, data).data == "pets"
