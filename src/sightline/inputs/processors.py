"""Everything between a person's pictures and words and a network: one checkpoint's processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.core.errors import CheckpointError
from sightline.core.files import write_json
from sightline.core.interfaces import PatchBatch, TextBatch
from sightline.inputs.naflex import NaFlexProcessor, NaFlexSpec
from sightline.inputs.preprocessing import ImageProcessor, ImageSpec
from sightline.inputs.published import read_object
from sightline.inputs.tokenizer_files import VOCABULARIES, has_tokenizer
from sightline.inputs.tokenizers import TextSpec, TextTokenizer, load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

_CLASSES = {
    "clip": "CLIPProcessor",
    "siglip": "SiglipProcessor",
    "vision_text": "VisionTextDualEncoderProcessor",
    "siglip2-naflex": "Siglip2Processor",
    "paligemma": "PaliGemmaProcessor",
}


def image_processor(spec: ImageSpec | NaFlexSpec) -> ImageProcessor | NaFlexProcessor:
    """What carries out a spec."""
    return NaFlexProcessor(spec) if isinstance(spec, NaFlexSpec) else ImageProcessor(spec)


class Processor:
    """A checkpoint's preprocessing: `image` for pictures, `text` for words, either may be None."""

    def __init__(
        self,
        image: ImageProcessor | NaFlexProcessor | None,
        text: TextTokenizer | None,
        source: str = "",
    ) -> None:
        self.image, self.text = image, text
        self._source = source or "this processor"

    def __repr__(self) -> str:
        return f"Processor(image={self.image}, text={type(self.text).__name__})"

    @classmethod
    def load(
        cls,
        folder: Path,
        image_default: ImageSpec | NaFlexSpec | None,
        text_default: TextSpec | None,
    ) -> Processor:
        """Read a checkpoint's folder: its own files decide, the defaults fill in.

        A folder without image files takes `image_default`; one without a vocabulary has no text,
        which is an error only when text is asked for.

        Args:
            image_default: of the system; None for a network without pictures.
            text_default: of the system; None for a network without text.

        Raises:
            CheckpointError: names the file and the field that cannot be used.
        """
        folder = Path(folder)
        image = None
        if image_default is not None:
            published = _published_images(folder)
            spec = image_default
            if published is not None:
                file, config = str(published[0]), published[1]
                if isinstance(image_default, NaFlexSpec):
                    spec = NaFlexSpec.from_published(config, image_default, file)
                else:
                    spec = ImageSpec.from_published(config, image_default, file)
            image = image_processor(spec)
        text = None
        if text_default is not None and has_tokenizer(folder):
            text = load_tokenizer(folder, text_default)
        return cls(image, text, str(folder))

    def images(self, images: Sequence[np.ndarray]) -> Tensor | PatchBatch:
        """uint8[H, W, 3] each, sizes mixed, to float32[B, 3, h, w], or to a `PatchBatch`.

        Raises:
            CheckpointError: this checkpoint takes no pictures.
            ImageError: an array of another kind.
        """
        if self.image is None:
            raise CheckpointError(f"{self._source}: takes no pictures")
        return self.image(images)

    def texts(self, texts: Sequence[str], trusted: bool = False) -> TextBatch:
        """Texts to ids int64[B, T] and mask bool[B, T]; see `TextTokenizer.__call__`.

        Raises:
            CheckpointError: the folder held no tokenizer.
            TextError: something that no tokenizer can take.
        """
        return self.tokenizer(texts, trusted)

    @property
    def tokenizer(self) -> TextTokenizer:
        """What reads words.

        Raises:
            CheckpointError: the folder held no tokenizer.
        """
        if self.text is None:
            raise CheckpointError(
                f"{self._source}: no tokenizer in this folder, so no text can be read; "
                f"put the checkpoint's tokenizer files there ({', '.join(VOCABULARIES)})"
            )
        return self.text

    def save(self, folder: Path, system: str, picture_tokens: int = 0) -> None:
        """Write what transformers' AutoProcessor, AutoImageProcessor and AutoTokenizer load.

        Args:
            system: short name of the system, "clip".
            picture_tokens: how many tokens stand for one picture in a prompt; 0 where none do.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.image is not None:
            config: dict[str, Any] = self.image.spec.to_published(system)
            if system in _CLASSES and self.text is not None:
                config["processor_class"] = _CLASSES[system]
            if picture_tokens:
                config["image_seq_length"] = picture_tokens
            write_json(folder / "preprocessor_config.json", config)
            # An older description in the same folder would win over the one just written.
            (folder / "processor_config.json").unlink(missing_ok=True)
        if self.text is not None:
            self.text.save(folder)


def _published_images(folder: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """The image processor's JSON and its file: nested in processor_config.json, or on its own."""
    nested = folder / "processor_config.json"
    if nested.is_file():
        part = read_object(nested).get("image_processor")
        if part is not None:
            if not isinstance(part, Mapping):
                raise CheckpointError(
                    f"{nested}: image_processor is {type(part).__name__}; allowed: an object. "
                    "Correct the file or fetch it again"
                )
            return nested, part
    own = folder / "preprocessor_config.json"
    return (own, read_object(own)) if own.is_file() else None
