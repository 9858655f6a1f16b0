"""Captions: how much of what people wrote about a picture does a model write?

CIDEr is the headline (Vedantam et al. 2015), with BLEU-4 and ROUGE-L beside it, as the evaluation
of COCO has them (`metrics.cider`, `metrics.bleu`, `metrics.rouge`), all on the words of the Penn
Treebank tokenizer. Words are weighed by the references of the pictures that are scored, so scores
of other sets, or of a part of one, are not comparable. `blind` is what the same prompt writes
without a picture, the same sentence for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.data.records import Dataset
from sightline.evaluation import results
from sightline.evaluation.asked import Question, caption_way
from sightline.evaluation.judged import Benchmark, Measuring, measure, no_truth
from sightline.evaluation.results import Result

if TYPE_CHECKING:
    from sightline.tasks.model import Model

VERSION = 1
"""Raised when the same model and data would score differently than before."""
METRICS = ("cider", "bleu4", "rouge_l:coco")


def caption(
    model: Model, dataset: Dataset, how: Measuring | None = None, prompt: str | None = None
) -> Result:
    """CIDEr, BLEU-4 and ROUGE-L, with the same blind.

    A picture that cannot be read, and a caption without a character, score 0. Intervals draw
    pictures and leave the weights of words as they are.

    Args:
        model: what `sightline.load` returns.
        dataset: records with captions; those without are counted as excluded.
        how: limit, blind run, batches, options.
        prompt: instead of the model's own; the signature then has its hash.

    Raises:
        DataError: no record has a caption, or only one picture has.
        UnsupportedTaskError: the model writes no captions.
        ConfigError: a limit or an option that cannot be.
    """
    how = how or Measuring()
    usable = [(record, _captions(record.captions)) for record in dataset]
    questions = [Question(record, said) for record, said in usable if said]
    if not questions and len(dataset):
        raise no_truth(dataset, "a caption", "add text files beside the pictures, or a column")
    signed = {"tokenizer": "ptb", "weights": "own-references",
              "prompt": "own" if prompt is None else results.short_hash([prompt])}  # fmt: skip
    return measure(
        model, dataset, questions, caption_way(model, prompt, how.options, how.batch_size),
        Benchmark("caption", VERSION, METRICS, "coco", "pictures", signed), how,
    )  # fmt: skip


def _captions(captions: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text for text in captions if text.strip())
