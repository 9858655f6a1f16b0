"""`sightline info NAME`: what a model is, without loading its weights."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import click

from sightline.cli.models import describe
from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.core.errors import CheckpointError


@click.command()
@click.argument("name", required=False)
@shared_options(adapter=False)
def info(call: Call, name: str | None) -> int:
    """Describe a model: configuration, parameters, preprocessing, files.

    NAME is a folder, a bundled model, a known name or a hub id. No weights are loaded and nothing
    is fetched: of a hub model that was never pulled, only the catalogue speaks.
    """
    from sightline.hub.bundled import DRAWN_PARKS
    from sightline.hub.catalogue import find
    from sightline.hub.names import resolve

    wanted = name or call.model_name
    if wanted is None:
        raise click.UsageError("give the NAME of a model; 'sightline models' lists the known ones")
    place = resolve(wanted)
    call.model = place.name
    known = find(place.name)
    folder = place.folder or _cached(place.name)
    document: dict[str, Any] = {} if known is None else describe(known)
    document["folder"] = None if folder is None else str(folder)
    if folder is not None:
        document |= describe_folder(folder)
        domain = document["card"].get("domain", DRAWN_PARKS if place.bundled else None)
        call.domain = domain if isinstance(domain, str) else None
    else:
        call.note(f"{place.name} is not on this machine; 'sightline pull {place.name}' fetches it")
    call.table(("what", "value"), _rows({"name": place.name, **document}))
    call.document(document)
    return 0


def describe_folder(folder: Path) -> dict[str, Any]:
    """What the files of a model folder say; of the weights only the headers are read.

    Raises:
        CheckpointError: files that are broken, hostile or of no known system.
    """
    from sightline.hub.bundled import read_card
    from sightline.hub.configuration import read_config_json
    from sightline.inputs.processors import Processor
    from sightline.models.table import system_for
    from sightline.tasks.abilities import TASKS_OF_ROLE

    published = read_config_json(folder)
    try:
        system = system_for(published)
        config = system.read_config(published)
    except (CheckpointError, ValueError, TypeError, KeyError, ArithmeticError) as error:
        raise CheckpointError(f"{folder}: {error}") from None
    text = system.text(config) if system.text is not None else None
    processor = Processor.load(folder, system.preprocessing(config), text)
    return {
        "family": system.name,
        "paper": system.title,
        "role": system.role,
        "tasks": list(TASKS_OF_ROLE.get(system.role, ())),
        **_weights(folder),
        "config": _plain(config),
        "preprocessing": _plain(getattr(processor.image, "spec", None)),
        "vocabulary": None if processor.text is None else processor.text.vocab_size,
        "template": system.default_template,
        "card": read_card(folder),
        "files": {f.name: f.stat().st_size for f in sorted(folder.iterdir()) if f.is_file()},
    }


def _weights(folder: Path) -> dict[str, Any]:
    from sightline.hub.weights import check_header, find_weights

    found = find_weights(folder)
    if found.pickled:
        return {"weights": "pickle"}
    headers = [check_header(file) for file in found.files]
    tensors = [tensor for header in headers for tensor in header.values()]
    total = 0
    for _, shape in tensors:
        count = 1
        for side in shape:
            count *= side
        total += count
    stored = sorted({kind for kind, _ in tensors})
    return {"weights": "safetensors", "parameters": total, "stored_as": stored}


def _cached(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    from sightline.hub.environment import cache_folder

    found = try_to_load_from_cache(name, "config.json", cache_dir=cache_folder())
    return Path(found).parent if isinstance(found, str) else None


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else None


_LISTED = 20
"""Of a longer list, such as a thousand labels, people see the beginning; --json has all of it."""


def _rows(document: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested fields as dotted names, for people."""
    rows: list[tuple[str, str]] = []
    for name, value in document.items():
        if isinstance(value, dict):
            rows += _rows(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            more = f", ... {len(value) - _LISTED} more" if len(value) > _LISTED else ""
            rows.append((prefix + name, ", ".join(map(str, value[:_LISTED])) + more))
        elif value not in (None, ""):
            text = f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)
            rows.append((prefix + name, text))
    return rows
