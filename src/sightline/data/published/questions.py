"""Questions about pictures as VQAv2, TextVQA, DocVQA, ChartQA, GQA and POPE publish them.

    VQAv2    {"questions": [{"image_id", "question", "question_id"}]} and, in a file of its own,
             {"annotations": [{"question_id", "answers": [{"answer"}]}]}   (Goyal et al. 2017)
    TextVQA  {"data": [{"image_id", "question", "question_id", "answers": [...]}]}
    DocVQA   {"data": [{"image", "question", "questionId", "answers": [...]}]}
    ChartQA  [{"imgname", "query", "label"}]
    GQA      {"02930152": {"imageId", "question", "answer"}}
    POPE     {"question_id", "image", "text", "label": "yes"}             one object a line

One question is one record. Most of them name a picture by a number; what the file is called is
found out from the pictures that are there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError
from sightline.data.columns import Reading, Row, assemble, resolve
from sightline.data.entries import key_of, lists_of, object_of, text_of
from sightline.data.lines import parse_json, place, read_document, text_lines
from sightline.data.records import split_name
from sightline.data.said import Said, answers_in

PAIRED = ("questions", "annotations")
"""What the two files of VQAv2 have in their names."""
YES_NO = ("yes", "no")
POPE_KINDS = ("random", "popular", "adversarial")
"""Of questions, a file each."""
_SUFFIXES = (".jpg", ".png", ".jpeg")
_DATED = re.compile(r"(train|val|test)\d{4}")


def picture_names(image: str | int, stem: str) -> tuple[str, ...]:
    """The names that a picture of this number may have, the likeliest first.

    Args:
        image: its number, or its name with or without a suffix.
        stem: of the file that names it; COCO puts `train2014` and its like into both.
    """
    text = str(image)
    if Path(text).suffix.lower() in _SUFFIXES:
        return (text,)
    stems = [text]
    if text.isdigit() and len(text) <= 12:
        dated = _DATED.search(stem)
        stems = [f"COCO_{dated[0]}_{text:0>12}"] if dated else []
        stems += [f"{text:0>12}", text]
    return tuple(stem + suffix for stem in stems for suffix in _SUFFIXES)


def read_vqa(path: Path, roots: Sequence[Path], split: str | None = None) -> Reading:
    """The questions of VQAv2 (also OK-VQA) with the answers of the annotations beside them.

    Either file may be named. Without annotations, as in test sets, questions have no answers.

    Raises:
        DataError: a damaged file, a question number used twice, several files of annotations, or
            annotations of other questions.
    """
    questions, annotations = pair_of(path)
    asked = _by_question(questions, "questions")
    answered = _by_question(annotations, "annotations") if annotations else {}
    strangers = len(answered.keys() - asked.keys())
    if answered and strangers == len(answered):
        raise DataError(
            f"{place(questions)} and {place(path if annotations is None else annotations)} have no "
            "question in common: are they of one split?"
        )
    rows = (_vqa_row(entry, where, answered.get(number), split)
            for number, (entry, where) in asked.items())  # fmt: skip
    reading = _assembled(rows, roots, questions.stem)
    silent = len(asked.keys() - answered.keys())
    notes = []
    if silent:
        why = "there are no annotations beside it" if annotations is None else "not annotated"
        notes.append(f"{silent} question(s) of {place(questions)} have no answers: {why}")
    if strangers:
        notes.append(f"{strangers} annotation(s) of questions that are not there were left out")
    return Reading(reading.records, notes=tuple(notes))


def pair_of(path: Path) -> tuple[Path, Path | None]:
    """The file of questions and the file of annotations that belong together, by their names.

    Raises:
        DataError: no file of questions, or several that one file may belong to.
    """
    ours, theirs = PAIRED if "annotations" not in path.stem.lower() else PAIRED[::-1]
    other = [
        file
        for file in sorted(path.parent.glob("*.json"))
        if file != path and theirs in file.stem.lower() and _same_set(path.stem, file.stem)
    ]
    if len(other) > 1:
        names = ", ".join(file.name for file in other)
        raise DataError(f"{place(path)}: which {theirs} belong to it? There are {names}")
    if ours == "annotations" and not other:
        raise DataError(
            f"{place(path)}: annotations without their questions: put the file of questions beside "
            "it, named as it is with 'questions' for 'annotations'"
        )
    if ours == "annotations":
        return other[0], path
    return path, other[0] if other else None


def _same_set(first: str, second: str) -> bool:
    """Whether two stems differ in nothing but which of the pair they are."""

    def plain(stem: str) -> str:
        words = re.split(r"[^a-z0-9]+", stem.lower())
        return " ".join(w for w in words if w not in (*PAIRED, "openended", "multiplechoice"))

    return plain(first) == plain(second)


def _by_question(path: Path, name: str) -> dict[str | int, tuple[Mapping[str, Any], str]]:
    """The entries of a list by the number of their question, each with its place."""
    found: dict[str | int, tuple[Mapping[str, Any], str]] = {}
    for number, entry in enumerate(lists_of(path, name)[0], 1):
        where = f"{place(path)}, {name} entry {number}"
        key = key_of(entry, "question_id", where)
        if key in found:
            raise DataError(f"{where}: question_id {key!r} occurs twice")
        found[key] = (entry, where)
    return found


def _vqa_row(
    entry: Mapping[str, Any],
    where: str,
    answered: tuple[Mapping[str, Any], str] | None,
    split: str | None,
) -> Row:
    image = key_of(entry, "image" if "image" in entry else "image_id", where)
    annotation, place_there = answered or ({}, where)
    if "image_id" in annotation and "image_id" in entry:
        if key_of(annotation, "image_id", place_there) != key_of(entry, "image_id", where):
            raise DataError(
                f"{place_there}: image_id {annotation['image_id']!r:.40}, but the question "
                f"{entry['question_id']!r:.40} is about {entry['image_id']!r:.40}"
            )
    said = Said(
        question=text_of(entry, "question", where).strip(),
        answers=answers_in(annotation.get("answers"), "answers", place_there),
        choices=answers_in(entry.get("multiple_choices"), "multiple_choices", where),
    )
    kept = ("question_type", "answer_type", "multiple_choice_answer")
    extra = {name: annotation[name] for name in kept if name in annotation}
    extra |= {"image_id": entry["image_id"]} if "image_id" in entry else {}
    own = entry.get("split")
    part = split_name(own) if isinstance(own, str) and own else split
    return Row(str(image), [], where, None, part, str(entry["question_id"]), extra, said)


def read_text_vqa(path: Path, roots: Sequence[Path], split: str | None = None) -> Reading:
    """TextVQA and DocVQA: `data`, a list of questions with their answers.

    Raises:
        DataError: missing keys, or a value of another type.
    """

    def rows() -> Iterator[Row]:
        for number, entry in enumerate(lists_of(path, "data")[0], 1):
            where = f"{place(path)}, data entry {number}"
            image = key_of(entry, "image" if "image" in entry else "image_id", where)
            id = str(key_of(entry, "questionId" if "questionId" in entry else "question_id", where))
            own = entry.get("data_split", entry.get("set_name"))
            part = split_name(own) if isinstance(own, str) and own else split
            answers = answers_in(entry.get("answers"), "answers", where)
            said = Said(text_of(entry, "question", where).strip(), answers)
            kept = ("image_id", "image_classes", "question_types", "docId")
            extra = {name: entry[name] for name in kept if name in entry}
            yield Row(str(image), [], where, None, part, id, extra, said)

    return _assembled(rows(), roots, path.stem)


def read_chart_qa(path: Path, roots: Sequence[Path], split: str | None = None) -> Reading:
    """ChartQA: one array of `imgname`, `query` and `label`.

    Raises:
        DataError: missing keys, or a value of another type.
    """
    document = read_document(path)
    if not isinstance(document, list):
        raise DataError(f"{place(path)}: a JSON array of questions is expected, got an object")

    def rows() -> Iterator[Row]:
        for number, entry in enumerate(document, 1):
            where = f"{place(path)}, entry {number}"
            image = text_of(entry, "imgname", where)
            answers = answers_in(entry.get("label"), "label", where)
            said = Said(text_of(entry, "query", where).strip(), answers)
            yield Row(image, [], where, None, split, f"{path.stem}/{number}", {}, said)

    return _assembled(rows(), roots, path.stem)


def read_gqa(path: Path, roots: Sequence[Path], split: str | None = None) -> Reading:
    """GQA: one object, question number to `imageId`, `question` and `answer`.

    Raises:
        DataError: missing keys, or a value of another type.
    """

    def rows() -> Iterator[Row]:
        for id, entry in object_of(read_document(path), place(path)).items():
            where = f"{place(path)}, question {id!r:.40}"
            image = key_of(entry, "imageId", where)
            answers = answers_in(entry.get("answer"), "answer", where)
            said = Said(text_of(entry, "question", where).strip(), answers)
            kept = ("fullAnswer", "types", "groups", "isBalanced")
            extra = {"imageId": image} | {name: entry[name] for name in kept if name in entry}
            yield Row(str(image), [], where, None, split, id, extra, said)

    return _assembled(rows(), roots, path.stem)


def read_pope(path: Path, roots: Sequence[Path], split: str | None = None) -> Reading:
    """POPE: whether an object is in the picture, yes or no, one JSON object a line.

    `category` in `extra` is the kind of its questions, where the file is called for one.

    Raises:
        DataError: missing keys, or an answer that is neither yes nor no.
    """

    kinds = [kind for kind in POPE_KINDS if kind in path.stem.lower()]

    def rows() -> Iterator[Row]:
        for number, line in text_lines(path):
            if not line.strip():
                continue
            where = place(path, number)
            entry = object_of(parse_json(line.rstrip("\r\n"), path, number), where)
            answer = text_of(entry, "label", where).strip().lower()
            if answer not in YES_NO:
                raise DataError(f"{where}: 'label' must be yes or no, got {answer!r:.40}")
            said = Said(text_of(entry, "text", where).strip(), (answer,), YES_NO)
            id = str(key_of(entry, "question_id", where))
            own = {"category": kinds[0]} if len(kinds) == 1 else {}
            id = f"{kinds[0]}/{id}" if own else id  # the three files use the same numbers
            yield Row(text_of(entry, "image", where), [], where, None, split, id, own, said)

    return _assembled(rows(), roots, path.stem)


def _assembled(rows: Iterable[Row], roots: Sequence[Path], stem: str) -> Reading:
    """Rows whose pictures are numbers, as records."""
    found = list(rows)
    root, named = naming_of([row.image for row in found[:3]], roots, stem)
    for row in found:
        row.image = named(row.image)
    return assemble(found, [root])


def naming_of(
    images: Sequence[str], roots: Sequence[Path], stem: str
) -> tuple[Path, Callable[[str], str]]:
    """Folder and kind of name under which the first pictures are there; the likeliest otherwise."""
    candidates = [picture_names(image, stem) for image in images]
    best, chosen = -1, (roots[0], 0)
    for root in roots:
        for kind in range(max(map(len, candidates), default=1)):
            found = sum(
                resolve(root, names[min(kind, len(names) - 1)], stem).is_file()
                for names in candidates
            )
            if found > best:
                best, chosen = found, (root, kind)
    root, kind = chosen

    def named(image: str) -> str:
        names = picture_names(image, stem)
        return names[min(kind, len(names) - 1)]

    return root, named
