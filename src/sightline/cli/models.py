"""`sightline models`: the catalogue, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.core.errors import unknown_name

if TYPE_CHECKING:
    from sightline.hub.catalogue import Entry


@click.command()
@click.option("--task", metavar="TASK", help="Only models that can do this, such as classify.")
@click.option("--family", metavar="NAME", help="Only models of this family, such as siglip.")
@shared_options(model=False)
def models(call: Call, task: str | None, family: str | None) -> int:
    """List the models that are known by name; others load by their hub id.

    Memory is that of the weights in float32; bfloat16 takes about half. --json tells more.
    """
    from sightline.hub.catalogue import DEFAULTS, entries

    listed = entries()
    tasks = sorted({name for entry in listed for name in entry.tasks})
    if task is not None:
        wanted = {name for name in tasks if name == task or name.startswith(f"{task}-with-")}
        if not wanted:
            raise click.BadParameter(unknown_name("task", task, tasks), param_hint="--task")
        listed = [entry for entry in listed if wanted & set(entry.tasks)]
    families = sorted({entry.system for entry in listed})
    if family is not None:
        if family.lower() not in families:
            message = unknown_name("family", family, families)
            raise click.BadParameter(message, param_hint="--family")
        listed = [entry for entry in listed if entry.system == family.lower()]
    headers = ("name", "family", "size", "memory", "licence", "gated", "tasks", "verified")
    if call.drawn:  # tasks and proof are the same for whole families, and wide
        call.table(headers[:-2], [_row(entry)[:-2] for entry in listed])
        for tasks_and_proof, members in _alike(listed).items():
            call.line(f"\n{', '.join(members)}: {'; '.join(tasks_and_proof)}")
    else:
        call.table(headers, [_row(entry) for entry in listed])
    call.document({"models": [describe(entry) for entry in listed], "defaults": dict(DEFAULTS)})
    return 0


def describe(entry: Entry) -> dict[str, Any]:
    """Everything that the catalogue says of a model."""
    return {
        "name": entry.name,
        "family": entry.system,
        "variant": entry.variant or None,
        "tasks": list(entry.tasks),
        "licence": entry.licence,
        "gated": entry.gated,
        "bundled": entry.bundled,
        "parameters": entry.parameters,
        "download_bytes": entry.download_bytes,
        "memory_bytes": {name: entry.memory_bytes(name) for name in ("float32", "bfloat16")},
        "aliases": list(entry.aliases),
        "verified": entry.verified,
        "note": entry.note,
    }


def _alike(listed: list[Entry]) -> dict[tuple[str, ...], list[str]]:
    """Tasks and what was verified, to the families (or bundled models) that share them."""
    found: dict[tuple[str, ...], list[str]] = {}
    for entry in listed:
        members = found.setdefault(_row(entry)[-2:], [])
        who = entry.name if entry.bundled else entry.system
        if who not in members:
            members.append(who)
    return found


def _row(entry: Entry) -> tuple[str, ...]:
    from sightline.hub.download import readable_size

    return (
        entry.name,
        entry.system,
        readable_size(entry.download_bytes),
        readable_size(entry.memory_bytes()),
        entry.licence,
        "yes" if entry.gated else "no",
        ", ".join(entry.tasks),
        entry.verified,
    )
