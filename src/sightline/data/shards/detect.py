"""Which format sharded data has, from names and the first bytes of the first shard."""

from __future__ import annotations

from pathlib import Path

from sightline.core.errors import DataError
from sightline.data.shards.files import is_pattern, shard_files
from sightline.data.shards.img2dataset import is_img2dataset
from sightline.data.shards.webdataset import looks_like_samples
from sightline.inputs.folders import shown_name

SHARD_FORMATS = ("webdataset", "parquet", "arrow", "img2dataset")
UNMISTAKABLE = ("img2dataset", "arrow")
"""Folders that say themselves what they are, whatever else lies in them."""
BARE_ARCHIVE = "pictures without a word about them"
_BY_SUFFIX = {".tar": "webdataset", ".parquet": "parquet", ".arrow": "arrow"}
_PARQUET_MAGIC = b"PAR1"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")

Way = tuple[str, str]
"""A format, and what spoke for it."""


def pattern_way(path: Path) -> Way | None:
    """The format of `name-{000..127}.tar` or `name-*.parquet`; None for a plain path.

    Raises:
        DataError: a pattern of files that hold no samples.
    """
    if path.exists() or not is_pattern(str(path)):
        return None
    format = _BY_SUFFIX.get(path.suffix.lower())
    if format not in ("webdataset", "parquet"):
        raise DataError(
            f"{shown_name(path)}: braces and stars name shards: files that end in .tar or .parquet"
        )
    files = shard_files(path, path.suffix.lower())
    return format, f"{len(files)} files named {shown_name(path.name)}"


def file_way(file: Path) -> Way | None:
    """The format of a single shard; None for other files.

    Raises:
        DataError: a tar without pictures, a compressed tar, or a file that only bears the suffix.
    """
    name = file.name.lower()
    if name.endswith(_COMPRESSED):
        raise DataError(
            f"{shown_name(file.name)}: is compressed; pictures are read from the middle of a tar, "
            "so decompress it first (it will hardly grow)"
        )
    format = _BY_SUFFIX.get(file.suffix.lower())
    if format == "webdataset":
        look = looks_like_samples(file)
        if look is None:
            raise DataError(
                f"{shown_name(file.name)}: no samples at its beginning: a shard holds pictures "
                "with texts of the same name (0001.jpg, 0001.txt)"
            )
        return format, look if look == "only pictures" else f"samples such as {look}"
    if format == "parquet" and not _is_parquet(file):
        raise DataError(f"{shown_name(file.name)}: is no Parquet file, or is cut off")
    return (format, f"the suffix {file.suffix}") if format else None


def folder_ways(root: Path) -> list[Way]:
    """Every sharded format that a folder may be read as."""
    output = is_img2dataset(root)
    if output is not None:
        return [("img2dataset", f"its statistics and tables, output as {output}")]
    if _is_saved(root):
        return [("arrow", "saved by datasets: dataset_info.json or dataset_dict.json with .arrow")]
    ways: list[Way] = []
    tars = [file for file, _ in shard_files(root, ".tar")]
    looks = [look for file in tars[:3] if (look := looks_like_samples(file))]
    if looks:
        said = BARE_ARCHIVE if looks[0] == "only pictures" else f"samples such as {looks[0]}"
        ways.append(("webdataset", f"{len(tars)} tar(s) with {said}"))
    tables = [file for file, _ in shard_files(root, ".parquet", depth=3)]
    if tables and _is_parquet(tables[0]):
        ways.append(("parquet", f"{len(tables)} .parquet file(s)"))
    return ways


def _is_saved(root: Path) -> bool:
    if not (root / "dataset_info.json").is_file() and not (root / "dataset_dict.json").is_file():
        return False
    return any(root.glob("*.arrow")) or any(root.glob("*/*.arrow"))


def _is_parquet(file: Path) -> bool:
    try:
        with file.open("rb") as handle:
            head = handle.read(4)
            handle.seek(-4, 2)
            return head == handle.read(4) == _PARQUET_MAGIC
    except OSError:
        return False
