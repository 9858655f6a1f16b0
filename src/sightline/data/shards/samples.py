"""Samples of tars as records: an index of offsets, and a sample is read when it is asked for."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np

from sightline.core.errors import DataError, ImageError
from sightline.data.columns import find_columns, row_from
from sightline.data.damage import Damage
from sightline.data.records import Record
from sightline.data.shards.ranges import Shard, StoredRange
from sightline.data.shards.tar_index import TarIndex
from sightline.inputs.folders import IMAGE_SUFFIXES, shown_name

log = logging.getLogger(__name__)

TEXT_SUFFIXES = ("txt", "caption", "text")
MAX_TEXT_BYTES = 16 * 2**20
OWN_ID = "record_id"
"""In the JSON of samples that we wrote: the record's id, which may not be a possible key."""
_BLOCK = 256
"""Samples fetched ahead together when one of them is asked for."""
_RECENT_BLOCKS = 512


class ShardRecords(Sequence[Record]):
    """The samples of tars, each read when it is asked for: a picture is one range of a file.

    An index gives a record, from any thread. Samples without a picture are not counted in.

    Args:
        indexes: of the tars, in order.
        splits: of each tar, where its name or folder tells one.
        class_names: what the numbers in `.cls` members stand for.
        name: for messages.
    """

    def __init__(
        self,
        indexes: Sequence[TarIndex],
        splits: Sequence[str | None] | None = None,
        class_names: Sequence[str] = (),
        name: str = "shards",
    ) -> None:
        self.indexes = tuple(indexes)
        self.splits = tuple(splits) if splits is not None else (None,) * len(self.indexes)
        self.class_names = tuple(class_names)
        self.name = name
        self.damage = Damage()
        self.broken: dict[str, str] = {}
        """Pictures that could not be read so far, to the reason."""
        self._samples = [self._with_pictures(index) for index in self.indexes]
        self._ends = list(accumulate(len(samples) for samples in self._samples))
        self._stems = self._leading_names()
        self._fetched: dict[int, None] = {}
        for index in self.indexes:
            for kind, what in index.damage:
                self.damage.note(kind, what if what.startswith(index.shard.name)
                                 else f"{index.shard.name}: {what}")  # fmt: skip

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __repr__(self) -> str:
        return f"ShardRecords({self.name!r}, shards={len(self.indexes)}, records={len(self)})"

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        shard = bisect_right(self._ends, place)
        within = place - (self._ends[shard - 1] if shard else 0)
        self._fetch_ahead(place, shard, within)
        return self._record(shard, int(self._samples[shard][within]))

    def __iter__(self) -> Iterator[Record]:
        return (self[place] for place in range(len(self)))

    @property
    def fingerprint(self) -> str:
        """Sixty-four hexadecimal digits that change with any name, size or order of the members."""
        digest = hashlib.sha256()
        for index in self.indexes:
            digest.update("\0".join((*index.keys, *index.suffixes)).encode("utf-8", "replace"))
            for array in (index.first, index.sizes, index.kinds):
                digest.update(array.tobytes())
        return digest.hexdigest()

    def note_broken(self, id: str, reason: str) -> None:
        """Remember that a picture could not be read."""
        if id not in self.broken:
            log.warning("%s: picture of record %r cannot be read: %s", self.name, id, reason)
        self.broken[id] = reason

    def _with_pictures(self, index: TarIndex) -> np.ndarray:
        """int64[n]: the samples of a tar that hold a picture; others are noted."""
        pictures = np.array([is_picture(suffix) for suffix in index.suffixes], dtype=bool)
        marked = pictures[index.kinds] if len(index.kinds) else np.zeros(0, bool)
        before = np.concatenate([[0], np.cumsum(marked)])
        has = before[index.first[1:]] > before[index.first[:-1]]
        bare = np.flatnonzero(~has)
        if len(bare):
            first = f"{index.shard.name}: {shown_name(index.keys[bare[0]])}"
            self.damage.note("sample(s) without a picture", first, len(bare))
        return np.flatnonzero(has)

    def _leading_names(self) -> list[str]:
        """What leads the keys of each tar in ids: nothing, unless tars use the same keys."""
        hashes = [np.fromiter(map(hash, i.keys), np.int64, len(i)) for i in self.indexes]
        together = np.concatenate(hashes) if hashes else np.zeros(0, np.int64)
        if len(np.unique(together)) == len(together):
            return [""] * len(self.indexes)
        stems = [Path(index.shard.path).stem for index in self.indexes]
        if len(set(stems)) < len(stems):
            base = os.path.commonpath([index.shard.path for index in self.indexes])
            stems = [Path(i.shard.path).relative_to(base).as_posix() for i in self.indexes]
        return [f"{shown_name(stem)}/" for stem in stems]

    def _fetch_ahead(self, place: int, shard: int, within: int) -> None:
        """Have the system read a block of neighbours once, when its first sample is asked for."""
        block = place // _BLOCK
        if block in self._fetched:
            return
        self._fetched[block] = None
        if len(self._fetched) > _RECENT_BLOCKS:  # no lock: a hint that is given twice does no harm
            for old in list(self._fetched)[: _RECENT_BLOCKS // 2]:
                self._fetched.pop(old, None)
        index, samples = self.indexes[shard], self._samples[shard]
        last = int(samples[min(within + _BLOCK, len(samples)) - 1])
        start = int(index.offsets[index.first[samples[within]]])
        end_place = int(index.first[last + 1]) - 1
        end = int(index.offsets[end_place] + index.sizes[end_place])
        index.shard.will_need(start, max(0, end - start))

    def _record(self, shard: int, sample: int) -> Record:
        index = self.indexes[shard]
        key = index.keys[sample]
        id = self._stems[shard] + key
        found: dict[str, tuple[str, int, int]] = {}
        for suffix, offset, size in index.members_of(sample):
            found.setdefault(role_of(suffix), (suffix, offset, size))
        suffix, offset, size = found.get("picture") or found["part"]
        image = StoredRange(index.shard, offset, size, f"{index.shard.name}/{key}.{suffix}")
        fields = self._json(index.shard, found.get("json"), id)
        captions = self._captions(index.shard, found.get("text"), id)
        if captions and not fields:  # nearly every sample of captions alone
            label = self._label(index.shard, found.get("cls"))
            return Record(id, image, tuple(captions), label, self.splits[shard])
        if captions:
            roles = find_columns(tuple(fields)).captions
            fields = {name: value for name, value in fields.items() if name not in roles}
            fields["captions"] = captions
        return self._joined(fields, id, image, shard, self._label(index.shard, found.get("cls")))

    def _joined(
        self, fields: dict[str, Any], id: str, image: StoredRange, shard: int, label: str | None
    ) -> Record:
        if not fields:
            return Record(id, image, label=label, split=self.splits[shard])
        own = fields.pop(OWN_ID, None)
        fields.pop("image", None)  # the picture is the one in the tar, whatever it says
        try:
            row = row_from({"image": id, **fields}, id, self.splits[shard])
            said = row.said.of_record([image], id)
        except DataError as error:
            self.damage.note("sample(s) with unusable fields", str(error))
            return Record(id, image, label=label, split=self.splits[shard])
        captions = tuple(text for text in row.captions if text)
        extra = row.extra
        label = row.label if row.label is not None else label
        name = own if isinstance(own, str) else id
        return Record(name, image, captions, label, row.split, extra, **said)

    def _text(self, shard: Shard, member: tuple[str, int, int] | None, id: str) -> str | None:
        if member is None:
            return None
        suffix, offset, size = member
        try:
            if size <= MAX_TEXT_BYTES:
                return shard.read(offset, size).decode("utf-8").removeprefix("\ufeff")
            kind = f"text(s) above {MAX_TEXT_BYTES >> 20} MiB"
        except UnicodeDecodeError:
            kind = "text(s) that are not UTF-8"
        except ImageError as error:
            self.damage.note("text(s) that cannot be read", str(error))
            return None
        self.damage.note(kind, f"{shard.name}/{id}.{suffix}")
        return None

    def _captions(
        self, shard: Shard, member: tuple[str, int, int] | None, id: str
    ) -> list[str] | None:
        text = self._text(shard, member, id)
        if text is None:
            return None
        return [line.strip() for line in text.split("\n") if line.strip()]

    def _label(self, shard: Shard, member: tuple[str, int, int] | None) -> str | None:
        word = (self._text(shard, member, "cls") or "").strip()
        if (
            word.isascii()
            and word.isdigit()
            and len(word) < 9
            and int(word) < len(self.class_names)
        ):
            return self.class_names[int(word)]
        return word or None

    def _json(self, shard: Shard, member: tuple[str, int, int] | None, id: str) -> dict[str, Any]:
        text = self._text(shard, member, id)
        if text is None:
            return {}
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            self.damage.note("JSON member(s) that are no object", f"{shard.name}/{id}.json")
            return {}
        return value


def is_picture(suffix: str) -> bool:
    """Whether a member with this suffix holds a picture; "seg.png" does."""
    return "." + suffix.rpartition(".")[2] in IMAGE_SUFFIXES


def role_of(suffix: str) -> str:
    """What a member is: picture, part (a further picture such as "seg.png"), text, json, cls."""
    if "." + suffix in IMAGE_SUFFIXES:
        return "picture"
    if suffix in TEXT_SUFFIXES:
        return "text"
    if suffix in ("json", "cls"):
        return suffix
    return "part" if is_picture(suffix) else "other"
