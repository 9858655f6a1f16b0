"""What img2dataset leaves behind: pictures fetched from lists of addresses, with their statuses.

Layout: https://github.com/rom1504/img2dataset, its three outputs: `files` (folders 00000 with
pictures, texts and JSON), `webdataset` (00000.tar) and `parquet` (pictures in the tables). The
tables beside the first two, and `00000_stats.json`, say what could not be fetched; nothing is
fetched here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError
from sightline.data.columns import Reading
from sightline.data.folders import read_side_cars
from sightline.data.lines import read_document
from sightline.data.shards.parquet import read_parquet
from sightline.data.shards.webdataset import read_webdataset
from sightline.inputs.folders import shown_name

_STATS = re.compile(r"(\d+)_stats\.json")
SUCCESS = "success"


def is_img2dataset(root: Path) -> str | None:
    """Which output lies in a folder ("files", "webdataset", "parquet"); None for other folders.

    Known by `00000_stats.json`, or by a table beside the tar or folder of the same number.
    """
    entries = {path.name: path for path in root.iterdir()}
    numbers = {name.split("_")[0] for name in entries if _STATS.fullmatch(name)}
    tables = {name[: -len(".parquet")] for name in entries if re.fullmatch(r"\d+\.parquet", name)}
    for number in sorted(numbers | tables):
        if f"{number}.tar" in entries:
            return "webdataset"
        if number in entries and entries[number].is_dir():
            return "files"
    return "parquet" if numbers & tables else None


def read_img2dataset(root: Path) -> Reading:
    """The pictures that were fetched, and a note of those that were not.

    Raises:
        DataError: no such output, or only tables of addresses.
    """
    kind = is_img2dataset(root) if root.is_dir() else None
    if kind is None:
        raise DataError(
            f"{shown_name(root)}: no output of img2dataset: its folder holds 00000_stats.json with "
            "00000.tar, 00000/ or 00000.parquet"
        )
    readers = {"files": read_side_cars, "webdataset": read_webdataset, "parquet": read_parquet}
    reading = readers[kind](root)
    return replace(reading, notes=(*reading.notes, *_statuses(root)))


def _statuses(root: Path) -> tuple[str, ...]:
    """How many addresses gave no picture, by the reasons that the statistics name."""
    reasons: Counter[str] = Counter()
    asked = fetched = 0
    for file in sorted(root.iterdir()):
        if not _STATS.fullmatch(file.name):
            continue
        stats = read_document(file)
        if not isinstance(stats, Mapping):
            continue
        asked += _count(stats.get("count"))
        fetched += _count(stats.get("successes"))
        said = stats.get("status_dict")
        for reason, count in said.items() if isinstance(said, Mapping) else ():
            if reason != SUCCESS:
                reasons[str(reason)[:60]] += _count(count)
    if not asked or asked == fetched:
        return ()
    most = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common(3))
    return (f"{asked - fetched} of {asked} addresses gave no picture" + (f": {most}" * bool(most)),)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
