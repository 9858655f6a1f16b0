"""What the report of a model that speaks shows: test pictures, what was asked, what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sightline.core.errors import ImageError
from sightline.data.examples import Example
from sightline.inputs.images import read_image
from sightline.recipes.answer_data import Speller
from sightline.tasks.sheets import SheetItem
from sightline.tasks.writing import read_task_options, write_one

if TYPE_CHECKING:
    from sightline.tasks.model import Model
    from sightline.tasks.report import Report

SHOWN = 24
LONGEST = 64
"""Tokens of a shown answer; a network that knows nothing writes on and on."""


def show_answers(report: Report, model: Model, examples: Sequence[Example], length: int) -> None:
    """Some test examples with their prompts, the true answers and the model's."""
    told = model.system.instructions
    assert told is not None
    speller = Speller(model.processor, told(model.config), length)
    items, right = [], []
    count = min(SHOWN, len(examples))
    for place in range(count):
        example = examples[place * len(examples) // count]
        prompt, _ = speller.tokens(example)
        try:
            said = write_one(model, example.pictures, prompt, read_task_options({}, LONGEST)).text
            picture = read_image(example.pictures[0])
        except ImageError:  # counted by the scores already
            continue
        same = said == example.suffix.strip()
        truth = "" if same else f", true: {example.suffix}"
        items.append(SheetItem(picture, f"{example.prefix}: {said}{truth}", None))
        right.append(same)
    report.section("Answers", "Test pictures: the prompt, what the model says, and the truth.")
    report.gallery(items, right)
    report.section("Use it").code(
        f"sightline caption FILE --model {model.folder}\n"
        f"sightline ask FILE 'what colour is the bench?' --model {model.folder}"
    )
