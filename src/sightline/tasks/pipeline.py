"""Pipelines with the arguments and the answers of transformers', for those who switch.

The same names, the same nesting, the same numbers from the same folder: dictionaries with "score"
and "label", lists for a list of pictures. Two of their tasks have a model here. Differences: text
is cut and padded as the checkpoint's own files say (transformers pads SigLIP to 64 whatever the
checkpoint), and a label may not be given twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sightline.core.errors import ConfigError, InputError, unknown_name
from sightline.tasks.abilities import cannot
from sightline.tasks.batching import Failed, Pixels, as_sources, is_single
from sightline.tasks.classify import classify_each
from sightline.tasks.embed import encode_each, evaluating

if TYPE_CHECKING:
    from torch import Tensor

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


TASKS: dict[str, type[ZeroShotImageClassification | ImageFeatureExtraction]] = {
    "zero-shot-image-classification": ZeroShotImageClassification,
    "image-feature-extraction": ImageFeatureExtraction,
}
"""transformers' names of the tasks that are answered here."""


def pipeline(
    task: str,
    model: str | os.PathLike[str] | Model | None = None,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    batch_size: int = 1,
) -> ZeroShotImageClassification | ImageFeatureExtraction:
    """A callable that answers as transformers' pipeline of that task does.

    Args:
        task: "zero-shot-image-classification" or "image-feature-extraction".
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
