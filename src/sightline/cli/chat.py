"""`sightline chat FILE...`: a conversation about pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.generation import generation_options, streamable
from sightline.cli.loading import load_model
from sightline.cli.options import shared_options
from sightline.cli.output import DONE, Call
from sightline.cli.pictures import expand

if TYPE_CHECKING:
    from sightline.tasks.model import Model

MOST_CHARACTERS = 100_000
"""Of a turn that is read from standard input."""


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--say", metavar="TEXT", help="The one turn, instead of reading it.")
@generation_options
@shared_options()
def chat(call: Call, files: tuple[str, ...], say: str | None, options: dict[str, Any]) -> int:
    """Talk about pictures, all of which belong to the first turn.

    At a terminal turns are read until an empty one; otherwise standard input is one turn.
    PaliGemma is no model for dialogue: it reads earlier turns as plain lines before the question.
    """
    sources = expand(call, files)
    if call.failed:
        return call.exit_code(0)
    talking = say is None and not call.json and sys.stdin.isatty()
    if say is None and not talking:
        say = click.get_text_stream("stdin").read(MOST_CHARACTERS)
    model = load_model(call, "chat")
    messages: list[dict[str, Any]] = []
    for text in _turns() if say is None else [say]:
        parts = [{"type": "text", "text": text}]
        if not messages:
            parts = [*({"type": "image", "image": source} for source in sources), *parts]
        messages.append({"role": "user", "content": parts})
        messages.append({"role": "assistant", "content": _answer(call, model, messages, options)})
    call.document({"messages": messages})
    return DONE


def _turns() -> Iterator[str]:
    """What a person types, until nothing."""
    while True:
        try:
            text = click.prompt(">", prompt_suffix=" ", default="", show_default=False, err=True)
        except click.Abort:
            return
        if not text.strip():
            return
        yield text


def _answer(
    call: Call, model: Model, messages: list[dict[str, Any]], options: dict[str, Any]
) -> str:
    """The next turn, printed as it comes at a terminal."""
    if call.drawn and streamable(options):
        return call.pieces(model.chat(messages, stream=True, **options))
    text: str = model.chat(messages, **options)
    call.line(text)
    return text
