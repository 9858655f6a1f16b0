"""Fetching a model folder from the public hub, with an answer for every way it can fail.

The transfer itself is huggingface_hub's, with its cache and its token. Only the files that a
loader here can read are fetched: never code, and pickles only when allowed.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sightline.core.errors import (
    HubDiskError,
    HubNotFoundError,
    HubOfflineError,
    UnsafeCheckpointError,
)
from sightline.hub.catalogue import find
from sightline.hub.environment import cache_folder, endpoint, offline
from sightline.hub.failures import explained_failures
from sightline.hub.pickles import pickle_refusal
from sightline.hub.weights import (
    PICKLE,
    PICKLE_INDEX,
    SAFETENSORS,
    SAFETENSORS_INDEX,
)

logger = logging.getLogger(__name__)

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_SAFETENSORS, ADAPTER_PICKLE = "adapter_model.safetensors", "adapter_model.bin"

ANSWER_SECONDS = 10.0
"""How long the hub may take to describe a repository."""

DESCRIPTIONS = (
    "config.json",
    "card.json",
    "processor_config.json",
    "preprocessor_config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
)
"""Everything but the weights that a model folder may hold for us."""

_SHARDS = ("model-*-of-*.safetensors", "pytorch_model-*-of-*.safetensors")
_SHARD = re.compile(r"(pytorch_)?model-\d{5}-of-\d{5}\.safetensors")


def download(name: str, revision: str | None = None, *, allow_pickle: bool = False) -> Path:
    """The local folder of a hub model, fetched if it is not there yet.

    Args:
        name: "organisation/model".
        revision: branch, tag or commit; None means the main branch.
        allow_pickle: whether weights that exist only as a pickle may be fetched.

    Raises:
        HubOfflineError: no connection (or `HF_HUB_OFFLINE`) and nothing whole in the cache.
        HubAccessError: gated, or a wrong or missing token.
        HubNotFoundError: no such repository, revision or model file.
        HubDiskError: no room for it, or no right to write the cache.
        UnsafeCheckpointError: only pickled weights, and `allow_pickle` is False.
        HubError: the hub is down, or the transfer was cut off.
    """
    with explained_failures(name, revision):
        known = _cached(name, revision)
        names = [file.name for file in known.iterdir()] if known is not None else []
        if offline():
            if not _has_weights(names):
                raise HubOfflineError(
                    f"{name} is not in the cache and HF_HUB_OFFLINE is set: unset it once and run "
                    f"'sightline pull {name}'"
                )
            assert known is not None
            _weight_patterns(name, names, allow_pickle)
            return known
        if not _has_weights(names):
            names = _first_time(name, revision, allow_pickle)
        patterns = [*DESCRIPTIONS, *_weight_patterns(name, names, allow_pickle)]
        return _snapshot(name, revision, patterns)


def download_adapter(name: str, *, allow_pickle: bool = False) -> Path:
    """The local folder of an adapter on the hub, fetched if it is not there yet.

    Raises:
        HubOfflineError: no connection (or `HF_HUB_OFFLINE`) and nothing in the cache.
        HubAccessError, HubDiskError, HubError: as in `download`.
        HubNotFoundError: no such repository, or no adapter that may be read in it.
    """
    with explained_failures(name, None):
        if offline():
            folder = _cached(name, None, ADAPTER_CONFIG)
            if folder is None:
                raise HubOfflineError(
                    f"adapter {name} is not in the cache and HF_HUB_OFFLINE is set: unset it once "
                    "and load the adapter"
                )
        else:
            pickles = [ADAPTER_PICKLE] if allow_pickle else []
            folder = _snapshot(name, None, [ADAPTER_CONFIG, ADAPTER_SAFETENSORS, *pickles])
    present = {file.name for file in folder.iterdir()}
    for wanted in (ADAPTER_CONFIG, ADAPTER_SAFETENSORS):
        if wanted not in present and not (allow_pickle and ADAPTER_PICKLE in present):
            raise HubNotFoundError(
                f"{name} has no {wanted}: it is not an adapter in PEFT's layout, or has its "
                f"tensors only as {ADAPTER_PICKLE}, a pickle, which is read under allow_pickle=True"
            )
    return folder


def readable_size(count: int) -> str:
    """Bytes for a person, in powers of ten and three digits: "813 MB"."""
    units = ("bytes", "kB", "MB", "GB", "TB")
    power = 0
    while count >= (999.5 if power else 1000) * 1000**power and power < len(units) - 1:
        power += 1
    return f"{count / 1000**power:.3g} {units[power]}"


def _snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        name,
        revision=revision,
        cache_dir=cache_folder(),
        endpoint=endpoint(),
        allow_patterns=patterns,
    )
    return Path(folder)


def _cached(name: str, revision: str | None, file: str = "config.json") -> Path | None:
    """The folder of this revision in the cache, whole or not, where it has that file."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, file, cache_dir=cache_folder(), revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def _has_weights(names: Iterable[str]) -> bool:
    present = set(names)
    whole = {SAFETENSORS, SAFETENSORS_INDEX, PICKLE, PICKLE_INDEX}
    return bool(present & whole) or any(_SHARD.fullmatch(name) for name in present)


def _first_time(name: str, revision: str | None, allow_pickle: bool) -> list[str]:
    """The repository's files, after one line about licence and size and a look at the disk."""
    from huggingface_hub import HfApi

    info = HfApi(endpoint=endpoint()).model_info(
        name, revision=revision, timeout=ANSWER_SECONDS, files_metadata=True
    )
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    if "config.json" not in sizes:
        raise HubNotFoundError(
            f"{name} has no config.json, so that nothing says which network it is: it is not in "
            "the layout that Sightline reads"
        )
    wanted = _matching(sizes, [*DESCRIPTIONS, *_weight_patterns(name, sizes, allow_pickle)])
    total = sum(sizes[file] for file in wanted)
    _check_room(name, total)
    logger.info(
        "downloading %s: licence %s, %s, into %s",
        name,
        _licence(name, info),
        readable_size(total),
        cache_folder(),
    )
    return list(sizes)


def _weight_patterns(name: str, names: Iterable[str], allow_pickle: bool) -> list[str]:
    """Which weight files to take of those that a repository has: one whole set, the safest."""
    present = set(names)
    if SAFETENSORS in present:
        return [SAFETENSORS]
    if SAFETENSORS_INDEX in present:
        return [SAFETENSORS_INDEX, *_SHARDS]
    if any(_SHARD.fullmatch(file) for file in present):
        return list(_SHARDS)
    pickles = sorted(present & {PICKLE, PICKLE_INDEX})
    if not pickles:
        raise HubNotFoundError(
            f"{name} has no {SAFETENSORS}: it is not in the layout that Sightline reads"
        )
    if not allow_pickle:
        raise UnsafeCheckpointError(pickle_refusal(name, pickles[0]))
    return [PICKLE] if PICKLE in present else [PICKLE_INDEX, "pytorch_model-*-of-*.bin"]


def _matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    from fnmatch import fnmatchcase

    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _check_room(name: str, total: int) -> None:
    place = cache_folder()
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if total > free:
        raise HubDiskError(
            f"{name} needs {readable_size(total)} and {cache_folder()} has {readable_size(free)} "
            "left: make room, or point HF_HOME to a larger disk"
        )


def _licence(name: str, info: Any) -> str:
    stated = getattr(info.card_data, "license", None) if info.card_data else None
    entry = find(name)
    return str(stated or (entry.licence if entry else "not stated"))
