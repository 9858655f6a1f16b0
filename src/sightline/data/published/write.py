"""Records as published sets are laid out: VQAv2's pair, COCO's instances, messages, pairs of text.

    vqa             train_questions.json, train_annotations.json, images/
    instances       annotations/instances_train.json, images/
    messages        train.jsonl, images/
    prefix-suffix   train.jsonl, images/

A picture that several records share is written once. Each layout keeps what it has a place for;
ids, splits and what it is made for come back as they were.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.data.examples import most_frequent
from sightline.data.items import Encoded, Item
from sightline.data.published.instances import RECORD_ID
from sightline.data.records import Record
from sightline.data.regions import Region
from sightline.data.turns import SUPERVISED, Turn, number_of
from sightline.inputs.picture_size import picture_size

if TYPE_CHECKING:
    from sightline.data.records import Picture

PUBLISHED_LAYOUTS = ("vqa", "instances", "messages", "prefix-suffix")
IMAGES = "images"


def lacking(record: Record, layout: str) -> str:
    """Why a record has no place in a layout; empty where it has one."""
    if layout == "vqa" and record.question is None:
        return "it has no question"
    if layout == "messages" and not _spoken(record):
        return "it has neither a conversation nor a question with an answer"
    if layout == "prefix-suffix" and [turn.role for turn in record.messages] != [
        "user",
        SUPERVISED,
    ]:
        return "it is no conversation of one exchange: choose tasks that make some"
    return ""


class _Pictures:
    """The folder of pictures, each written once, named by a number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[bytes, str] = {}

    def name_of(self, picture: Encoded) -> str:
        """The name of a picture within the folder, which is written if it is new."""
        key = hashlib.sha256(picture.data).digest()
        if key not in self._names:
            self._folder.mkdir(exist_ok=True)
            self._names[key] = f"{len(self._names) + 1:012d}.{picture.suffix}"
            (self._folder / self._names[key]).write_bytes(picture.data)
        return self._names[key]


def _number_of(name: str) -> int:
    return int(Path(name).stem)


def write_vqa(folder: Path, items: Iterator[Item]) -> None:
    """Questions and annotations of each split, as VQAv2 has them (Goyal et al. 2017)."""
    pictures = _Pictures(folder / IMAGES)
    questions: dict[str | None, list[dict[str, Any]]] = {}
    annotations: dict[str | None, list[dict[str, Any]]] = {}
    for item in items:
        record, name = item.record, pictures.name_of(item.pictures[0])
        asked = {"image_id": _number_of(name), "image": name, "question": record.question,
                 "question_id": _as_number(record.id)}  # fmt: skip
        asked |= {"split": record.split} if record.split else {}
        asked |= {"multiple_choices": list(record.choices)} if record.choices else {}
        questions.setdefault(record.split, []).append(asked)
        if record.answers:
            annotations.setdefault(record.split, []).append(_annotation(record, asked))
    for split, entries in questions.items():
        lead = f"{_file_word(split)}_" if split else ""
        _write(folder / f"{lead}questions.json", {"questions": entries})
        if split in annotations:
            _write(folder / f"{lead}annotations.json", {"annotations": annotations[split]})


def _annotation(record: Record, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The answers to a question with the kinds that VQAv2's scores are told by."""
    answer = most_frequent(record.answers)
    kind = "yes/no" if answer in ("yes", "no") else "number" if answer.isdigit() else "other"
    return {
        "image_id": asked["image_id"],
        "question_id": asked["question_id"],
        "question_type": record.extra.get("question_type", "none of the above"),
        "answer_type": record.extra.get("answer_type", kind),
        "multiple_choice_answer": answer,
        "answers": [
            {"answer": text, "answer_confidence": "yes", "answer_id": number}
            for number, text in enumerate(record.answers, 1)
        ],
    }


def write_instances(folder: Path, items: Iterator[Item]) -> None:
    """COCO's instances of each split; a region without an area has that of its box."""
    pictures = _Pictures(folder / IMAGES)
    images: dict[str | None, list[dict[str, Any]]] = {}
    marked: dict[str | None, list[tuple[int, Region]]] = {}
    for item in items:
        record = item.record
        width, height = picture_size(item.data, upright=True)
        entry = {"id": item.number + 1, "file_name": pictures.name_of(item.pictures[0]),
                 "height": height, "width": width, RECORD_ID: record.id}  # fmt: skip
        entry |= {"split": record.split} if record.split else {}
        images.setdefault(record.split, []).append(entry)
        regions = [(item.number + 1, region) for region in record.regions]
        marked.setdefault(record.split, []).extend(regions)
    names = sorted({region.label for regions in marked.values() for _, region in regions})
    numbers = {name: number for number, name in enumerate(names, 1)}
    for split, entries in images.items():
        document = {
            "images": entries,
            "annotations": [
                {"id": number, "image_id": image, **_coco(region, numbers[region.label])}
                for number, (image, region) in enumerate(marked[split], 1)
            ],
            "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        }
        end = f"_{_file_word(split)}" if split else ""
        (folder / "annotations").mkdir(exist_ok=True)
        _write(folder / "annotations" / f"instances{end}.json", document)


def _coco(region: Region, category: int) -> dict[str, Any]:
    x1, y1, x2, y2 = region.box
    outline = region.to_json().get("outline", [])
    area = region.area if region.area is not None else (x2 - x1) * (y2 - y1)
    return {"category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": area,
            "segmentation": outline, "iscrowd": int(region.crowd)}  # fmt: skip


def write_messages(folder: Path, items: Iterator[Item]) -> None:
    """Messages with content parts; a question with answers becomes one exchange."""

    def line(item: Item, pictures: _Pictures) -> dict[str, Any]:
        names = [f"{IMAGES}/{pictures.name_of(picture)}" for picture in item.pictures]
        return {
            "messages": [
                {
                    "role": turn.role,
                    "content": [_part(part, item.record, names) for part in turn.parts],
                }
                for turn in _spoken(item.record)
            ]
        }

    _write_lines(folder, items, line)


def _spoken(record: Record) -> tuple[Turn, ...]:
    """The conversation of a record, or its question and the answer that most people gave."""
    if record.messages or record.question is None or not record.answers:
        return record.messages
    return (
        Turn("user", record.question, record.pictures),
        Turn(SUPERVISED, most_frequent(record.answers)),
    )


def _part(part: str | Picture, record: Record, names: Sequence[str]) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    name = names[number_of(part, record.pictures)]
    return {"type": "image_url", "image_url": {"url": name}}


def write_prefix_suffix(folder: Path, items: Iterator[Item]) -> None:
    """One line an exchange: what the user says is the prefix, the answer the suffix."""

    def line(item: Item, pictures: _Pictures) -> dict[str, Any]:
        said, reply = item.record.messages
        name = f"{IMAGES}/{pictures.name_of(item.pictures[0])}"
        return {"image": name, "prefix": said.text, "suffix": reply.text}

    _write_lines(folder, items, line)


def _write_lines(
    folder: Path, items: Iterator[Item], line: Callable[[Item, _Pictures], dict[str, Any]]
) -> None:
    pictures = _Pictures(folder / IMAGES)
    lines: dict[str | None, list[str]] = {}
    for item in items:
        record, said = item.record, line(item, pictures)
        rest = {name: value for name, value in record.extra.items() if name not in said}
        part = {"split": record.split} if record.split else {}
        fields = {"id": record.id, **said, **part, **rest}
        lines.setdefault(record.split, []).append(_json(fields))
    for split, written in lines.items():
        name = f"{_file_word(split) if split else 'records'}.jsonl"
        (folder / name).write_text("".join(text + "\n" for text in written), "utf-8")


PUBLISHED_WRITERS: Mapping[str, Callable[[Path, Iterator[Item]], None]] = {
    "vqa": write_vqa,
    "instances": write_instances,
    "messages": write_messages,
    "prefix-suffix": write_prefix_suffix,
}


def _as_number(id: str) -> int | str:
    """A record's id as the number that published files have, where it is one."""
    return int(id) if id.isascii() and id.isdigit() and len(id) < 16 and str(int(id)) == id else id


def _file_word(split: str) -> str:
    """A split as a part of a file's name."""
    return "".join(c if c.isalnum() or c in "-" else "-" for c in split) or "split"


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(_json(document), "utf-8")


def _json(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode("utf-8")
