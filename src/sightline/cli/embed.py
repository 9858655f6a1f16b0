"""`sightline embed FILE... --out vectors.safetensors`: pictures or texts to vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sightline.cli.loading import load_model
from sightline.cli.options import batch_option, shared_options
from sightline.cli.output import FAILED, Call
from sightline.cli.pictures import embed_pictures, expand
from sightline.cli.words import sentences

if TYPE_CHECKING:
    from sightline.tasks.embeddings import Embeddings

SUFFIXES = (".safetensors", ".npy", ".jsonl")


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--text", "texts", multiple=True, metavar="TEXT",
              help="Embed sentences instead of pictures; several times.")  # fmt: skip
@click.option("--texts", "file", metavar="@FILE", help="Sentences from a file, one a line.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="PATH",
              help=f"{', '.join(SUFFIXES)}. Default: JSON lines on standard output.")  # fmt: skip
@click.option("--decode", type=click.Choice(["exact", "reduced"]), default="exact",
              show_default=True,
              help="reduced: JPEG files at 1/2 to 1/8 where the model sees no more.")  # fmt: skip
@batch_option
@shared_options()
def embed(
    call: Call,
    files: tuple[str, ...],
    texts: tuple[str, ...],
    file: str | None,
    out: Path | None,
    decode: str,
    batch: int,
) -> int:
    """Turn pictures (or texts) into vectors of length one.

    A .safetensors file also holds the names and which model made it, and `retrieve --from` reads
    it; beside .npy the names are written to NAME.ids.json.
    """
    words = sentences("--texts", texts, file)
    if bool(files) == bool(words):
        raise click.UsageError("give pictures (FILE...), or sentences (--text, --texts)")
    if out is not None and out.suffix not in SUFFIXES:
        raise click.BadParameter(f"{out.name}: end it in {', '.join(SUFFIXES)}", param_hint="--out")
    found = _embed(call, files, words, batch, decode)
    if found is None:
        call.document({"count": 0, "embeddings": []})
        return FAILED
    if out is not None and found.ids:
        _write(found, out)
        call.note(f"wrote {len(found.ids)} vectors of {found.dim} numbers to {out}")
    elif out is None and not call.json:
        for row in _rows(found):
            click.echo(row)
    about = {"count": len(found.ids), "dim": found.dim, "kind": found.kind}
    listed = [json.loads(row) for row in _rows(found)] if call.json and out is None else []
    where = {"ids": found.ids, "out": str(out)} if out is not None else {"embeddings": listed}
    call.document({**about, **where})
    return call.exit_code(len(found.ids))


def _embed(
    call: Call, files: tuple[str, ...], words: list[str], batch: int, decode: str
) -> Embeddings | None:
    """The vectors; None where there is nothing to embed."""
    from sightline.tasks.embeddings import of_texts

    sources = expand(call, files)
    if not sources and not words:
        return None
    model = load_model(call, "embed")
    model.decode = decode
    return of_texts(model, words) if words else embed_pictures(call, model, sources, batch)


def _write(found: Embeddings, out: Path) -> None:
    import numpy as np

    from sightline.core.files import atomic_file, write_json

    if out.suffix == ".safetensors":
        found.save(out)
        return
    if out.suffix == ".npy":
        with atomic_file(out) as temporary, temporary.open("wb") as stream:
            np.save(stream, found.vectors.numpy())
        head = {"format": "sightline.ids", "version": 1, "model": found.model}
        write_json(out.with_suffix(".ids.json"), {**head, "ids": list(found.ids)})
        return
    with atomic_file(out) as temporary:
        temporary.write_text("".join(row + "\n" for row in _rows(found)), encoding="utf-8")


def _rows(found: Embeddings) -> list[str]:
    pairs = zip(found.ids, found.vectors.tolist(), strict=True)
    return [json.dumps({"id": name, "embedding": vector}) for name, vector in pairs]
