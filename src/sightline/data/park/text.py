"""The park's sentences without its pictures: what a tokenizer is trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sightline.data.park.scenes import scene


def texts(split: str = "train", seeds: Iterable[int] = range(10000)) -> Iterator[str]:
    """Captions, questions and answers of the scenes, one by one; no picture is drawn."""
    for seed in seeds:
        drawn = scene(seed, split)
        yield from drawn.captions
        for question in drawn.questions:
            yield question.question
            yield question.answer
