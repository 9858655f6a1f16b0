"""Records into train, val and test: by group, balanced over labels, the same for any order.

Everything follows from ids, labels and groups, hashed with the seed; the order of the records
does not matter, and no record is lost or in two parts.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

import numpy as np

from sightline.core.errors import ConfigError, DataError
from sightline.data.curation.groups import DisjointSets
from sightline.data.records import Record, split_name

REST = "rest"
_MIXED = "\0several labels"


@dataclass(frozen=True)
class Share:
    """How much a part gets: a count of records, a fraction of them, or what is left."""

    count: int | None = None
    fraction: Fraction | None = None


def parse_parts(text: str) -> dict[str, Share]:
    """ "train=0.8,val=0.1,test=0.1", "train=rest,test=500" or "train=80%,test=20%".

    A whole number is a count of records; a number with a point or a percent sign is a fraction.

    Raises:
        ConfigError: not of this form.
    """
    parts: dict[str, Share] = {}
    for item in text.split(","):
        name, _, value = (piece.strip() for piece in item.partition("="))
        name = split_name(name)
        if not name or not value or name in parts:
            raise _unreadable(text)
        parts[name] = _share(value, text)
    if sum(share == Share() for share in parts.values()) > 1:
        raise ConfigError(f"parts {text!r}: only one part can take the {REST}")
    return parts


def split_records(
    records: Sequence[Record],
    parts: Mapping[str, Share],
    seed: int = 0,
    together: Iterable[Sequence[int]] = (),
    groups: Sequence[Hashable | None] | None = None,
    stratify: bool = True,
) -> tuple[str, ...]:
    """The part of each record.

    Records of one id are one group. A group goes to one part as a whole, so parts may miss their
    size by the size of a group; without groups, counts are exact, fractions within one record, and
    each label's share in each part is within about one record of the same proportion.

    Args:
        records: what to split.
        parts: names and shares, as `parse_parts` reads them.
        seed: of the hashes that decide.
        together: numbers of records that must be in the same part, such as duplicates.
        groups: for each record a value that it shares with its group, such as a person, or None.
        stratify: give each part the same mixture of labels.

    Raises:
        ConfigError: shares that do not add up to the records.
    """
    weights = _weights(parts, len(records))
    strata: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for group in _members(records, together, groups):
        label = _label(records, group) if stratify else ""
        key = _hash(seed, *sorted(records[member].id for member in group))
        strata.setdefault(label, []).append((key, group))
    assigned = dict.fromkeys(parts, 0)
    result = [""] * len(records)
    for label in sorted(strata, key=lambda name: _hash(seed, "stratum", name)):
        left = _quota(weights, assigned, sum(len(group) for _, group in strata[label]))
        for key, group in sorted(strata[label]):
            name = _drawn(left, len(group), key)
            left[name] -= len(group)
            assigned[name] += len(group)
            for member in group:
                result[member] = name
    return tuple(result)


def group_values(records: Sequence[Record], column: str) -> list[str | None]:
    """What a column says of each record, as text; None where it says nothing.

    Raises:
        DataError: no record has the column.
    """
    values = [record.extra.get(column) for record in records]
    if all(value is None for value in values):
        known = sorted({name for record in records for name in record.extra})
        raise DataError(
            f"no record has a column {column!r}: columns are {', '.join(known) or 'none'}"
        )
    return [None if value in (None, "") else str(value) for value in values]


def _weights(parts: Mapping[str, Share], total: int) -> dict[str, Fraction]:
    """Records that each part should get, as exact numbers that add up to all."""
    wanted = {
        name: Fraction(share.count) if share.count is not None else (share.fraction or 0) * total
        for name, share in parts.items()
        if share != Share()
    }
    left = total - sum(wanted.values())
    rest = [name for name, share in parts.items() if share == Share()]
    if left < 0 or (left > 0 and not rest):
        raise ConfigError(
            f"parts ask for {float(sum(wanted.values())):g} of {total} records: let them add up "
            f"to all, or give one part the {REST} (train={REST})"
        )
    return {name: Fraction(wanted.get(name, left)) for name in parts}


def _members(
    records: Sequence[Record],
    together: Iterable[Sequence[int]],
    groups: Sequence[Hashable | None] | None,
) -> list[tuple[int, ...]]:
    """The groups that must not be parted; most have one member."""
    if groups is not None and len(groups) != len(records):
        raise ConfigError(f"{len(groups)} groups for {len(records)} records: give one each")
    sets = DisjointSets(len(records))
    sets.join_all(together)
    for values in ([record.id for record in records], groups or ()):
        same: dict[Hashable, list[int]] = {}
        for number, value in enumerate(values):
            if value is not None:
                same.setdefault(value, []).append(number)
        sets.join_all(same.values())
    members: dict[int, list[int]] = {}
    for number, root in enumerate(sets.roots.tolist()):
        members.setdefault(root, []).append(number)
    return [tuple(group) for group in members.values()]


def _drawn(left: Mapping[str, int], size: int, key: str) -> str:
    """A part for a group, drawn by its hash with chances in proportion to the room that is left."""
    fitting = {name: room for name, room in left.items() if room >= size}
    if not fitting:
        return max(left, key=lambda name: (left[name], name))
    place = int(key[:16], 16) * sum(fitting.values()) >> 64
    ends = list(accumulate(fitting.values()))
    return list(fitting)[bisect_right(ends, place)]


def _label(records: Sequence[Record], group: Sequence[int]) -> str:
    labels = {records[member].label for member in group}
    return (labels.pop() or "") if len(labels) == 1 else _MIXED


def _quota(
    weights: Mapping[str, Fraction], assigned: Mapping[str, int], count: int
) -> dict[str, int]:
    """So many of the next `count` records for each part.

    Dealt one by one to the part that lies furthest behind its share, so that what small strata
    and large groups leave over is made up for in the next strata.
    """
    total = sum(weights.values())
    scale = int(np.lcm.reduce([weight.denominator for weight in weights.values()]))
    whole = {name: int(weight * scale) for name, weight in weights.items()}
    full = int(total * scale)
    dealt = dict(assigned)
    seen = sum(dealt.values())
    for place in range(seen + 1, seen + count + 1):
        behind = max(
            whole, key=lambda name: (whole[name] * place - dealt[name] * full, whole[name], name)
        )
        dealt[behind] += 1
    return {name: dealt[name] - assigned[name] for name in dealt}


def _hash(seed: int, *texts: str) -> str:
    digest = hashlib.sha256(f"{seed}\0".encode())
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _share(value: str, text: str) -> Share:
    try:
        if value == REST:
            return Share()
        if value.endswith("%"):
            share = Share(fraction=Fraction(value[:-1].strip()) / 100)
        elif "." in value:
            share = Share(fraction=Fraction(value))
        else:
            share = Share(count=int(value))
    except (ValueError, ZeroDivisionError):
        raise _unreadable(text) from None
    if (share.count or 0) < 0 or not 0 <= (share.fraction or 0) <= 1:
        raise _unreadable(text)
    return share


def _unreadable(text: str) -> ConfigError:
    return ConfigError(
        f"parts {text!r}: write NAME=SHARE, each name once, such as train=0.8,val=0.1,test=0.1 or "
        f"train={REST},test=500"
    )
