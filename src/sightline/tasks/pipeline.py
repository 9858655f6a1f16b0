"""Pipelines with the arguments and the answers of transformers', for those who switch.

The same names, the same nesting, the same numbers from the same folder: dictionaries with "score"
and "label", lists for a list of pictures. Differences: text is cut and padded as the checkpoint's
own files say (transformers pads SigLIP to 64 whatever the checkpoint), a label may not be given
twice, and boxes of models that write are found by words (`candidate_labels`). "image-to-text" and
"visual-question-answering" answer as transformers 4 did; its version 5 has them no more.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from sightline.core.errors import ConfigError, InputError, unknown_name
from sightline.tasks.abilities import DEEDS, cannot
from sightline.tasks.ask import ask_each
from sightline.tasks.batching import Failed, Pixels, as_sources, is_single
from sightline.tasks.caption import caption_each
from sightline.tasks.classify import classify_each
from sightline.tasks.detect import detect_each
from sightline.tasks.embed import encode_each, evaluating
from sightline.tasks.writing import is_row, require_writer

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.core.outputs import Detection
    from sightline.tasks.model import Model

HYPOTHESIS = "This is a photo of {}."
"""The template of transformers' pipeline, for every model; `Model.classify` has each one's own."""


class ZeroShotImageClassification:
    """Which of these labels: `[{"score": ..., "label": ...}]`, best first."""

    def __init__(self, model: Model, batch_size: int = 1) -> None:
        model.require_role("dual encoder", "similarity", "classify by words")
        self.model, self.batch_size = model, batch_size

    def __call__(
        self,
        image: Any = None,
        candidate_labels: Iterable[str] | None = None,
        hypothesis_template: str = HYPOTHESIS,
        images: Any = None,
    ) -> list[Any]:
        """One list of dictionaries for a picture, a list of such lists for a list of pictures.

        Args:
            image: path, address, bytes, PIL image, array, or a list of them.
            candidate_labels: the words to choose from.
            hypothesis_template: sentence with {} for the label.
            images: an older name of `image`.

        Raises:
            InputError: no picture, or labels that cannot be used.
            ConfigError: a template without a place for the label.
            ImageError: a picture that cannot be read.
        """
        given = image if images is None else images
        if given is None:
            raise InputError(
                "no picture arrived: call it with image=... and candidate_labels=[...]"
            )
        if candidate_labels is None:
            raise InputError("no labels arrived: call it with candidate_labels=[...]")
        rows = classify_each(
            self.model, given, candidate_labels, hypothesis_template, self.batch_size
        )
        answers = [
            [{"score": label.score, "label": label.label} for label in row]
            for row in rows
            if not isinstance(row, Failed)
        ]
        return answers[0] if is_single(given) else answers


class ImageFeatureExtraction:
    """The vectors behind the last layer, one a token: nested lists [1][L][D]."""

    def __init__(self, model: Model, batch_size: int = 1) -> None:
        model.require_role("image encoder", "embed", "give the features of a picture alone")
        self.model, self.batch_size = model, batch_size

    def __call__(self, images: Any, pool: bool = False, return_tensors: bool = False) -> Any:
        """Features of a picture, or a list of them for a list of pictures.

        Args:
            images: path, address, bytes, PIL image, array, or a list of them.
            pool: the one vector [1][D] of the checkpoint's pooler instead (for ViT the tanh layer
                over the class token).
            return_tensors: float32[1, L, D] instead of nested lists.

        Raises:
            ConfigError: `pool`, where the checkpoint has no pooler.
            ImageError: a picture that cannot be read.
        """
        if pool and getattr(self.model.network, "pooler", None) is None:
            raise ConfigError(
                f"{self.model.name} has no pooler: leave pool out, or take "
                "Model.embed_images for one vector a picture"
            )

        def encode(pixels: Pixels) -> Tensor:
            with evaluating(self.model.network):
                encoded = self.model.network(pixels.to(self.model.device))
                found = self.model.network.pre_logits(encoded.pooled) if pool else encoded.tokens
                vectors: Tensor = found.float().cpu()
            return vectors

        rows = encode_each(self.model, as_sources(images), encode, self.batch_size)
        answers = [row[None].clone() for row in rows if not isinstance(row, Failed)]
        plain = answers if return_tensors else [answer.tolist() for answer in answers]
        return plain[0] if is_single(images) else plain


class ImageToText:
    """A caption: `[{"generated_text": ...}]`."""

    def __init__(self, model: Model, batch_size: int = 1) -> None:
        require_writer(model, "caption", "write captions")
        self.model, self.batch_size = model, batch_size

    def __call__(self, images: Any, prompt: str | None = None, **options: Any) -> list[Any]:
        """One list for a picture, a list of such lists for a list of pictures.

        Args:
            images: as `Model.caption`.
            prompt: what the checkpoint's published processor would be given.
            options: of writing, as `Model.caption`.

        Raises:
            ConfigError: an option that does not exist or does not fit.
            ImageError: a picture that cannot be read.
        """
        rows = caption_each(self.model, images, prompt, options, self.batch_size)
        answers = [[{"generated_text": text}] for text in rows if isinstance(text, str)]
        return answers[0] if is_row(images) else answers


class VisualQuestionAnswering:
    """An answer in the model's own words: `[{"answer": ...}]`."""

    def __init__(self, model: Model, batch_size: int = 1) -> None:
        require_writer(model, "ask", "answer questions")
        self.model, self.batch_size = model, batch_size

    def __call__(self, image: Any, question: str, **options: Any) -> list[Any]:
        """One list for a picture, a list of such lists for a list of pictures.

        Args:
            image: as `Model.ask`.
            question: the same for all pictures.
            options: of writing, as `Model.ask`.

        Raises:
            InputError: no question.
            ConfigError: an option that does not exist or does not fit.
            ImageError: a picture that cannot be read.
        """
        rows = ask_each(self.model, image, question, options, self.batch_size)
        answers = [[{"answer": text}] for text in rows if isinstance(text, str)]
        return answers[0] if is_row(image) else answers


class ObjectDetection:
    """Boxes: `[{"score": ..., "label": ..., "box": {"xmin": ..., ...}}]`, in whole pixels."""

    def __init__(self, model: Model, batch_size: int = 1) -> None:
        require_writer(model, "detect", DEEDS["detect"])
        self.model, self.batch_size = model, batch_size

    def __call__(
        self, image: Any, candidate_labels: Iterable[str] | None = None, threshold: float = 0.0
    ) -> list[Any]:
        """One list for a picture, a list of such lists for a list of pictures.

        Args:
            image: as `Model.detect`.
            candidate_labels: what to look for; None is everything that the model can name.
            threshold: boxes with a higher score are given. Scores are no calibrated confidences.

        Raises:
            InputError: labels that cannot be used, or none where the model needs some.
            ImageError: a picture that cannot be read.
        """
        rows = detect_each(self.model, image, candidate_labels, None, self.batch_size)
        answers = [
            [_boxed(one) for one in row if (one.score or 0.0) > threshold]
            for row in rows
            if not isinstance(row, Failed)
        ]
        return answers[0] if is_single(image) else answers


def _boxed(found: Detection) -> dict[str, Any]:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), map(int, found.box), strict=True)
    return {"score": found.score, "label": found.label, "box": dict(sides)}


Pipeline: TypeAlias = (
    ZeroShotImageClassification
    | ImageFeatureExtraction
    | ImageToText
    | VisualQuestionAnswering
    | ObjectDetection
)
TASKS: dict[str, type[Pipeline]] = {
    "zero-shot-image-classification": ZeroShotImageClassification,
    "image-feature-extraction": ImageFeatureExtraction,
    "image-to-text": ImageToText,
    "visual-question-answering": VisualQuestionAnswering,
    "object-detection": ObjectDetection,
    "zero-shot-object-detection": ObjectDetection,
}
"""transformers' names of the tasks that are answered here."""


def pipeline(
    task: str,
    model: str | os.PathLike[str] | Model | None = None,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    batch_size: int = 1,
) -> Pipeline:
    """A callable that answers as transformers' pipeline of that task does.

    Args:
        task: one of `TASKS`, as transformers calls them.
        model: a name or folder for `sightline.load`, or a model that is loaded already.
        device: as `sightline.load`.
        dtype: as `sightline.load`.
        revision: as `sightline.load`.
        batch_size: pictures through the network at once.

    Raises:
        ConfigError: an unknown task, or no model.
        UnsupportedTaskError: a model that cannot do the task.
        SightlineError: what `sightline.load` raises.
    """
    from sightline.tasks.model import Model, load

    if task not in TASKS:
        raise ConfigError(unknown_name("pipeline", task, TASKS))
    if model is None:
        raise ConfigError(f"no model arrived: pipeline({task!r}, model=NAME)")
    loaded = model if isinstance(model, Model) else load(model, device, dtype, revision)
    if loaded.processor.image is None:
        raise cannot(loaded, "embed", "look at pictures")
    return TASKS[task](loaded, batch_size)
