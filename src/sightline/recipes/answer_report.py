"""What the report of a model that speaks shows: test pictures, what was asked, what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sightline.data.examples import Example
from sightline.inputs.images import read_image
from sightline.recipes.answer_data import Speller
from sightline.tasks.batching import Failed
from sightline.tasks.sheets import SheetItem
from sightline.tasks.writing import read_task_options, write_each

if TYPE_CHECKING:
    from sightline.tasks.model import Model
    from sightline.tasks.report import Report

SHOWN = 16
LONGEST = 64
"""Tokens of a shown answer; a network that knows nothing writes on and on."""


def show_answers(report: Report, model: Model, examples: Sequence[Example], length: int) -> None:
    """Some test examples with their prompts, the true answers and the model's."""
    told = model.system.instructions
    assert told is not None
    speller = Speller(model.processor, told(model.config), length)
    count = min(SHOWN, len(examples))
    chosen = [examples[place * len(examples) // count] for place in range(count)]
    sources = (example.pictures for example in chosen)
    prompts = (speller.tokens(example)[0] for example in chosen)
    written = write_each(
        model, sources, prompts, read_task_options({}, LONGEST), SHOWN, on_error="collect"
    )
    items, right = [], []
    for example, said in zip(chosen, written, strict=True):
        if isinstance(said, Failed):  # counted by the scores already
            continue
        same = said.text == example.suffix.strip()
        truth = "" if same else f", true: {example.suffix}"
        words = f"{example.prefix}: {said.text}{truth}"
        items.append(SheetItem(read_image(example.pictures[0]), words))
        right.append(same)
    report.section("Answers", "Test pictures: the prompt, what the model says, and the truth.")
    report.gallery(items, right)
    report.section("Use it").code(
        f"sightline caption FILE --model {model.folder}\n"
        f"sightline ask FILE 'what colour is the bench?' --model {model.folder}"
    )
