"""Which published set a file or a folder is, from names, the first keys and the first values."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sightline.data.published.conversations import MARK
from sightline.data.published.questions import POPE_KINDS, YES_NO, picture_names
from sightline.data.published.refcoco import INSTANCES, is_refcoco
from sightline.data.published.voc import is_voc

PUBLISHED_FILES = (
    "vqa", "textvqa", "chartqa", "gqa", "pope", "messages", "llava", "prefix-suffix", "instances",
    "refcoco", "vlmeval",
)  # fmt: skip
PUBLISHED_FOLDERS = ("voc",)
FOLDERS = ("train_images", "test_images", "png", "documents", "train2014", "val2014", "train2017",
           "val2017", "test2015", "gqa", "coco")  # fmt: skip
"""What the folders of pictures are called, beside those that are called `images`."""
OTHER_LAYERS = ("caption", "sentences", "keypoints")
"""Keys of what else is said about COCO's pictures in files of the same form."""
PARTS = {"chartqa": ("human", "augmented"), "pope": POPE_KINDS}
"""Words in the names of lists that together are one split."""
ANSWERS = "answers to questions"
_TABLE = {"index", "question", "image"}
_TABLE_OF_PATHS = {"index", "question", "image_path"}
_BASE64 = re.compile(r"[A-Za-z0-9+/]{100}")


class Way(NamedTuple):
    """A format, what spoke for it, and the first pictures it names."""

    format: str
    why: str
    images: tuple[str, ...] = ()


def json_way(file: Path, head: str, tail: str) -> Way | None:
    """The set that a JSON file is; None where it is none of these.

    Args:
        head: the first 64 KiB.
        tail: the last.
    """
    text = head.lstrip()
    return _questions_way(file, text) or _talk_way(text) or _regions_way(text, tail)


def _questions_way(file: Path, text: str) -> Way | None:
    stem = file.stem
    if file.suffix.lower() == ".json" and text.startswith("{"):
        if _list(text, "questions") and _has(text, "question_id", "question"):
            return Way("vqa", "questions about pictures", _pictures(text, "image_id", stem))
        if _list(text, "annotations") and _has(text, "question_id", "answers"):
            return Way("vqa", ANSWERS, _pictures(text, "image_id", stem))
        if _list(text, "data") and "question" in _keys(text):
            images = _strings(text, "image") or _pictures(text, "image_id", stem)
            if _has(text, "questionId") or _has(text, "question_id"):
                return Way("textvqa", "'data' with questions", images)
        if _has(text, "imageId", "question") and re.match(r'\{\s*"[^"]+"\s*:\s*\{', text):
            return Way("gqa", "questions by their number", _pictures(text, "imageId", stem))
    if text.startswith("[") and _has(text, "imgname", "query", "label"):
        return Way("chartqa", "an array with 'imgname' and 'query'", _strings(text, "imgname"))
    first = _first_line(text)
    if {"image", "text", "label", "question_id"} <= first.keys() and first["label"] in YES_NO:
        return Way("pope", "questions to be answered with yes or no", _strings(text, "image"))
    return None


def _talk_way(text: str) -> Way | None:
    images = _strings(text, "image") + tuple(
        json.loads(f'"{name}"', strict=False)
        for name in re.findall(r'"images?"\s*:\s*\[\s*"([^"\\\n]+)"', text)[:3]
    )
    images += tuple(url for url in _strings(text, "url") if not url.startswith("data:"))
    if _list(text, "messages") and _has(text, "role", "content"):
        return Way("messages", "'messages' with 'role' and 'content'", images)
    if _list(text, "conversations") and _has(text, "from", "value"):
        marked = f", {MARK}" if MARK in text else ""
        return Way("llava", f"'conversations' with 'from' and 'value'{marked}", images)
    first = _first_line(text)
    if {"image", "prefix", "suffix"} <= first.keys():
        return Way("prefix-suffix", "an object a line with 'prefix' and 'suffix'", images)
    return None


def _regions_way(text: str, tail: str) -> Way | None:
    both = text + tail
    if not _list(both, "images") or any(f'"{key}"' in both for key in OTHER_LAYERS):
        return None
    if re.search(r'"(?:bbox|segmentation)"\s*:', both) or _list(both, "categories"):
        return Way(
            "instances", "'images' and 'annotations' with boxes", _strings(text, "file_name")
        )
    return None


def table_way(names: Sequence[str], head: str) -> Way | None:
    """Whether a table with these columns is one of VLMEvalKit's."""
    if set(names) >= _TABLE and _BASE64.search(head):
        return Way("vlmeval", "a table with pictures in base64")
    if set(names) >= _TABLE_OF_PATHS and {"A", "answer"} & set(names):
        return Way("vlmeval", "a table with 'index', 'image_path' and 'question'")
    return None


def named_way(file: Path) -> Way | None:
    """The set that a file is by its name alone."""
    if is_refcoco(file.name):
        return Way("refcoco", f"its name, with {INSTANCES}")
    return None


def folder_way(root: Path) -> Way | None:
    """The set that a folder is by the names in it."""
    if is_voc(root):
        return Way("voc", "Annotations/*.xml and JPEGImages")
    return None


def is_companion(file: Path, way: Way, others: Sequence[tuple[Path, Way]]) -> bool:
    """Whether a file only completes another one that is there: answers, or the boxes of RefCOCO."""
    beside = [other for path, other in others if path.parent == file.parent and path != file]
    if way.format == "instances" and file.name == INSTANCES:
        return any(other.format == "refcoco" for other in beside)
    if way.format == "vqa" and way.why == ANSWERS:
        return any(other.format == "vqa" and other.why != ANSWERS for other in beside)
    return False


def _keys(text: str) -> set[str]:
    return set(re.findall(r'"([^"\\\n]{1,40})"\s*:', text))


def _has(text: str, *names: str) -> bool:
    return set(names) <= _keys(text)


def _list(text: str, name: str) -> bool:
    return re.search(rf'"{name}"\s*:\s*\[', text) is not None


def _first_line(text: str) -> dict[str, Any]:
    """The first line where it is a JSON object; an empty one otherwise."""
    try:
        value = json.loads(text.split("\n", 1)[0])
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _strings(text: str, name: str) -> tuple[str, ...]:
    """The first three texts under a key."""
    found = re.findall(rf'"{name}"\s*:\s*("(?:[^"\\\n]|\\.)*")', text)[:3]
    try:
        return tuple(str(json.loads(value, strict=False)) for value in found)
    except ValueError:  # a broken escape: the reader will say where
        return ()


def _pictures(text: str, name: str, stem: str) -> tuple[str, ...]:
    """What the pictures of the first numbers under a key may be called."""
    numbers = re.findall(rf'"{name}"\s*:\s*"?([^",\s}}]{{1,80}})', text)[:3]
    return tuple(named for number in numbers for named in picture_names(number, stem))
