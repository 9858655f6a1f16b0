"""The generation_config.json beside a network that writes: which tokens end an answer.

Its sampling settings are not read: answers are greedy unless somebody asks for something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sightline.core.errors import CheckpointError
from sightline.core.files import write_json
from sightline.core.interfaces import WRITING_ROLES, System
from sightline.inputs.published import read_object

GENERATION_CONFIG = "generation_config.json"


def read_end_ids(folder: Path, system: System, config: Any) -> tuple[int, ...]:
    """Tokens that end an answer: those that the file lists, else the one of the config.

    Empty for a network that does not write.

    Raises:
        CheckpointError: something else than tokens of the vocabulary.
    """
    if system.role not in WRITING_ROLES:
        return ()
    words = getattr(config, "text", config)
    file = folder / GENERATION_CONFIG
    value = read_object(file).get("eos_token_id") if file.is_file() else None
    if value is None:
        return (words.eos_id,)
    ids = value if isinstance(value, list) else [value]
    if not ids or not all(type(i) is int and 0 <= i < words.vocab_size for i in ids):
        raise CheckpointError(
            f"{file}: 'eos_token_id' is {str(value)[:60]}, where a token or a list of tokens from "
            f"0 to {words.vocab_size - 1} is expected"
        )
    return tuple(ids)


def write_generation_config(folder: Path, config: Any, end_ids: Sequence[int] = ()) -> None:
    """What transformers reads.

    Args:
        config: the system's own config.
        end_ids: tokens that end an answer; none for the one of the config.
    """
    words = getattr(config, "text", config)
    ends = list(end_ids) or [words.eos_id]
    write_json(
        folder / GENERATION_CONFIG,
        {
            "bos_token_id": words.bos_id,
            "eos_token_id": ends[0] if len(ends) == 1 else ends,
            "pad_token_id": words.pad_id,
        },
    )
