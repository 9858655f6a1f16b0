"""The next turn of a conversation with pictures.

A message is `{"role": "user", "content": "what is this?"}`, or with parts as its content:
`[{"type": "image", "image": path or picture}, {"type": "text", "text": "what is this?"}]`. What the
chat interfaces of others send is read too: `image_url` with its address, `url` or `path` beside the
type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sightline.core.errors import ImageError, InputError, unknown_name
from sightline.inputs.encoded import from_data_address, is_data_address
from sightline.tasks.writing import (
    framed,
    one_line,
    read_task_options,
    require_writer,
    write_one,
    write_stream,
)

if TYPE_CHECKING:
    from sightline.tasks.model import Model

ROLES = ("system", "user", "assistant")
MOST = 256
"""The longest turn in tokens, where nobody says another."""
_PICTURE = ("image", "image_url")
_SOURCES = ("image", "image_url", "url", "path")


class Said(NamedTuple):
    """One message: who, what, and which pictures came with it."""

    role: str
    text: str
    pictures: tuple[Any, ...]


def chat(model: Model, messages: Any, options: Mapping[str, Any] | None = None) -> str:
    """The answer to the last message.

    PaliGemma was trained to answer one question and not to talk. Earlier turns are put in front of
    the question as plain lines, oldest first and without roles, and all pictures in front of them;
    with a single message this is `ask`. It has seen no such prompts: expect little memory.

    Raises:
        UnsupportedTaskError: the model writes nothing.
        InputError: messages that are no conversation, or whose last one is not the user's.
        TextError: what no tokenizer can take, or too much of it.
        ConfigError: an option that does not exist or does not fit.
        ImageError: a picture that cannot be read.
    """
    row, ids, how = _asked(model, messages, options or {})
    return write_one(model, row, ids, how).text


def chat_stream(
    model: Model, messages: Any, options: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """The same answer in pieces, as they come; mistakes are told before the first."""
    row, ids, how = _asked(model, messages, options or {})
    return write_stream(model, row, ids, how)


def read_messages(messages: Any) -> list[Said]:
    """The messages of a conversation, checked.

    Raises:
        InputError: what is no message, by its number.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise InputError(
            "messages must be a list such as [{'role': 'user', 'content': 'what is this?'}], "
            f"{type(messages).__name__} arrived"
        )
    read = [_message(message, place) for place, message in enumerate(messages, start=1)]
    if not read or read[-1].role != "user":
        last = read[-1].role if read else "nothing"
        raise InputError(f"the last message must be the user's, to be answered: it is {last}")
    return read


def _asked(model: Model, messages: Any, options: Mapping[str, Any]) -> tuple[Any, list[int], Any]:
    """The pictures of a conversation, its prompt, and how to write."""
    instructions = require_writer(model, "chat", "hold a conversation")
    how = read_task_options(options, MOST)
    said = read_messages(messages)
    earlier = [one_line(turn.text, "turn") for turn in said[:-1] if turn.text.strip()]
    prompt = instructions.conversation(earlier, one_line(said[-1].text, "last turn"))
    pictures = tuple(picture for turn in said for picture in turn.pictures)
    return pictures, framed(model, prompt), how


def _message(message: Any, place: int) -> Said:
    if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
        raise InputError(f"message {place} must have role and content: {str(message)[:60]} arrived")
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise InputError(f"message {place}: {unknown_name('role', str(role), ROLES)}")
    if isinstance(content, str):
        return Said(role, content, ())
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise InputError(
            f"message {place}: content must be text or a list of parts, "
            f"{type(content).__name__} arrived"
        )
    texts, pictures = [], []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in _PICTURE:
            pictures.append(_picture(part, place))
        else:
            raise InputError(
                f"message {place}: a part is {{'type': 'text', 'text': ...}} or {{'type': 'image', "
                f"'image': ...}}: {str(part)[:60]} arrived"
            )
    return Said(role, " ".join(texts), tuple(pictures))


def _picture(part: Mapping[str, Any], place: int) -> Any:
    for name in _SOURCES:
        source = part.get(name)
        if isinstance(source, Mapping):  # {"image_url": {"url": ...}}
            source = source.get("url")
        if isinstance(source, str) and is_data_address(source):
            try:
                return from_data_address(source)
            except ImageError as error:
                raise InputError(f"message {place}: {error}") from None
        if source is not None:
            return source
    raise InputError(f"message {place}: an image without {', '.join(_SOURCES)}")
