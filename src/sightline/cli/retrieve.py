"""`sightline retrieve "text" FOLDER`: the nearest pictures to words, or to a picture, or words."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.loading import load_model
from sightline.cli.options import batch_option, shared_options
from sightline.cli.output import FAILED, Call, one_line
from sightline.cli.pictures import embed_pictures, expand, write_hits
from sightline.cli.words import sentences
from sightline.core.errors import ImageError

if TYPE_CHECKING:
    from sightline.core.outputs import Hit
    from sightline.tasks.embeddings import Embeddings
    from sightline.tasks.model import Model


@click.command()
@click.argument("arguments", nargs=-1, metavar='["TEXT"] [FOLDER|FILE|TEXT]...')
@click.option("--image", metavar="FILE", help="Search by a picture instead of a text.")
@click.option("--texts", "file", metavar="@FILE", help="Search among the lines of a file.")
@click.option("--from", "saved", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
              help="Search among saved embeddings.")  # fmt: skip
@click.option("-k", "k", type=click.IntRange(min=1), default=10, show_default=True,
              help="Hits to show.")  # fmt: skip
@click.option("--sheet", type=click.Path(dir_okay=False, path_type=Path), metavar="PNG",
              help="Write the hits as a contact sheet.")  # fmt: skip
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Keep the embeddings (.safetensors) for --from.")  # fmt: skip
@batch_option
@shared_options()
def retrieve(
    call: Call,
    arguments: tuple[str, ...],
    image: str | None,
    file: str | None,
    saved: str | None,
    k: int,
    sheet: Path | None,
    save: Path | None,
    batch: int,
) -> int:
    """Search pictures by words, or pictures or texts by a picture.

    \b
    sightline retrieve "a red car" PHOTOS             pictures for a text
    sightline retrieve --image x.jpg PHOTOS           pictures like a picture
    sightline retrieve --image x.jpg "a car" "a cat"  texts for a picture
    sightline retrieve "a red car" --from p.safetensors
    """
    query, gallery = _parts(arguments, image, file, saved)
    texts = sentences("--texts", [], file)
    if image is not None and not texts and gallery and not any(map(os.path.exists, gallery)):
        texts, gallery = gallery, []
    sources = expand(call, gallery)
    if not (sources or texts or saved):
        call.document({"hits": []})
        return FAILED
    model = load_model(call, "retrieve")
    asked = _query(model, query, image)
    collection = _collection(call, model, sources, texts, saved, batch)
    hits = _search(asked, collection, k)
    if save is not None and collection.ids:
        collection.save(save)
        call.note(f"kept {len(collection.ids)} embeddings in {save}")
    if sheet is not None and hits and collection.kind == "image":
        shown = [(hit.id, Path(hit.id).name, hit.score) for hit in hits]
        write_hits(sheet, shown, query or f"like {image}")
        call.note(f"wrote {sheet}")
    for hit in hits:
        call.line(f"{hit.score:.3f}\t{one_line(hit.id)}")
    about = {"query": {"image": image} if image else {"text": query}, "k": k}
    found = [{"id": hit.id, "score": hit.score} for hit in hits]
    call.document({**about, "gallery": len(collection.ids), "hits": found})
    return call.exit_code(len(hits))


def _parts(
    arguments: Sequence[str], image: str | None, file: str | None, saved: str | None
) -> tuple[str, list[str]]:
    """The text that is asked (empty with --image), and what is searched.

    Raises:
        click.UsageError: one of them is missing, or there are two things to search.
    """
    rest = list(arguments)
    if image is None and not rest:
        raise click.UsageError("nothing to search for: give a text, or --image FILE")
    query = "" if image is not None else rest.pop(0)
    given = [bool(rest), file is not None, saved is not None]
    if sum(given) != 1:
        raise click.UsageError(
            "give one thing to search in: folders and pictures, or --from FILE, or --texts @FILE"
        )
    return query, rest


def _query(model: Model, text: str, image: str | None) -> Any:
    """float32[1, D]"""
    from sightline.tasks.embed import embed_images, embed_texts

    if image is None:
        return embed_texts(model, text)
    if os.path.isdir(image):
        raise ImageError(f"{image}: is a folder; --image takes one picture", "image_unsupported")
    return embed_images(model, image)


def _collection(
    call: Call, model: Model, sources: Any, texts: list[str], saved: str | None, batch: int
) -> Embeddings:
    from sightline.tasks.embeddings import Embeddings, of_texts

    if saved is not None:
        collection = Embeddings.load(saved)
        collection.check_model(model)
        return collection
    return of_texts(model, texts) if texts else embed_pictures(call, model, sources, batch)


def _search(asked: Any, collection: Embeddings, k: int) -> list[Hit]:
    from sightline.core.outputs import Hit
    from sightline.tasks.retrieve import top_k

    if not collection.ids:
        return []
    scores, places = top_k(asked, collection.vectors, k)
    pairs = zip(scores[0].tolist(), places[0].tolist(), strict=True)
    return [Hit(collection.ids[place], score) for score, place in pairs]
