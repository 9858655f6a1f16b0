"""Labels to sentences: templates with one `{}` for the label.

Which template a system was trained behind stands in its file in `models`; the ensembles here are
for anyone who wants an average over several.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sightline.core.errors import ConfigError, InputError

SLOT = "{}"
MAX_TEMPLATES = 1000

GENERAL = (
    "a photo of a {}.",
    "a picture that shows a {}.",
    "there is a {} in this picture.",
    "a {} seen from nearby.",
    "a {} seen from far away.",
    "a small {} beside other things.",
    "a large {} filling the frame.",
    "a {} outdoors.",
    "a {} indoors.",
    "a drawing of a {}.",
)
"""Sentences about anything, for averaging: distance, size, place and medium vary."""

DRAWN = (
    "a drawing of a {}.",
    "a {} in a park.",
    "a park with a {}.",
    "there is a {}.",
    "one can see a {}.",
)
"""The same for the generated parks."""

ENSEMBLES = {"general": GENERAL, "drawn": DRAWN}


def check_template(template: str) -> str:
    """The template, if it has exactly one `{}`.

    Raises:
        ConfigError: none, or several.
    """
    count = template.count(SLOT)
    if count != 1:
        raise ConfigError(
            f"template {template[:80]!r} has {count} places for the label; "
            "write {} exactly once, as in 'a photo of a {}.'"
        )
    return template


def fill(template: str, label: str) -> str:
    """The template with the label in place of its `{}`.

    Plain replacement, so that braces in a label, or elsewhere in the template, are only text.

    Raises:
        ConfigError: the template has no `{}`, or several.
    """
    before, _, after = check_template(template).partition(SLOT)
    return before + label + after


def class_prompts(labels: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """One row a label, one sentence a template: the rows to average after embedding.

    Raises:
        ConfigError: no template, or one without exactly one `{}`.
        InputError: no label, or one that is empty.
    """
    if isinstance(labels, str) or isinstance(templates, str):
        raise InputError("labels and templates must be lists of strings, not one string")
    if not labels:
        raise InputError("no labels: name at least one")
    if not templates:
        raise ConfigError("no templates: write at least one, as in 'a photo of a {}.'")
    for position, label in enumerate(labels):
        if not label.strip():
            raise InputError(f"label {position + 1} of {len(labels)} is empty")
    return [[fill(template, label) for template in templates] for label in labels]


def read_templates(source: str | Path) -> tuple[str, ...]:
    """Templates by the name of an ensemble, or from a text file: one a line, # for comments.

    Raises:
        ConfigError: neither an ensemble nor a readable file, no template in it, or a line without
            exactly one `{}`.
    """
    if isinstance(source, str) and source in ENSEMBLES:
        return ENSEMBLES[source]
    path = Path(source)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        known = ", ".join(ENSEMBLES)
        raise ConfigError(
            f"templates {str(source)[:80]!r}: neither an ensemble ({known}) nor a readable "
            f"UTF-8 file ({type(error).__name__})"
        ) from None
    numbered = [(place, line.strip()) for place, line in enumerate(lines, start=1)]
    templates = [(place, line) for place, line in numbered if line and not line.startswith("#")]
    if not 1 <= len(templates) <= MAX_TEMPLATES:
        raise ConfigError(f"{path}: {len(templates)} templates; allowed are 1 to {MAX_TEMPLATES}")
    for place, template in templates:
        try:
            check_template(template)
        except ConfigError as error:
            raise ConfigError(f"{path}, line {place}: {error}") from None
    return tuple(template for _, template in templates)
