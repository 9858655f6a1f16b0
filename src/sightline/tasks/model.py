"""The object that `sightline.load` returns: a method per task, leading to the task's file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sightline.tasks import ask as asking
from sightline.tasks import caption as captioning
from sightline.tasks import chat as chatting
from sightline.tasks import classify as classifying
from sightline.tasks import detect as detecting
from sightline.tasks import embed as embedding
from sightline.tasks import explain as explaining
from sightline.tasks import likelihood
from sightline.tasks import match as matching
from sightline.tasks import segment as segmenting
from sightline.tasks import tag as tagging
from sightline.tasks.abilities import cannot, tasks_of
from sightline.tasks.batching import Failed
from sightline.tasks.prompted import PromptCache
from sightline.tasks.writing import is_row

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

    from sightline.core.interfaces import MaskCodec, System
    from sightline.core.outputs import Label
    from sightline.hub.load import Loaded

Answer = TypeVar("Answer")


def load(
    name: str | os.PathLike[str],
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    adapter: str | os.PathLike[str] | None = None,
    quantize: str | None = None,
    allow_pickle: bool = False,
) -> Model:
    """A model by hub id, known name, bundled name or folder, ready to be asked.

    Args:
        name: "google/siglip2-base-patch16-224", "ViT-B/32", "park-siglip" or a folder.
        device: "auto" takes a GPU where there is one.
        dtype: type of linear layers and convolutions; "auto" is never slower than float32.
        revision: branch, tag or commit on the hub.
        adapter: folder or hub id of a LoRA adapter in PEFT's layout, put on top.
        quantize: "int8" computes the image tower of a vision transformer in 8 bits, for answers on
            the CPU that are quicker and a little less exact.
        allow_pickle: also read `.bin` weights, with torch's tensors-only reader.

    Raises:
        HubError: the model could not be fetched; the subclass says why.
        CheckpointError: its files do not fit together.
        ConfigError: a device or dtype that does not exist here.
    """
    from sightline.hub.load import load_checkpoint

    return Model(
        load_checkpoint(
            name, device, dtype, revision=revision, adapter=adapter, quantize=quantize,
            allow_pickle=allow_pickle,
        )
    )  # fmt: skip


class Model:
    """A loaded network with its preprocessing, behind one method per task.

    A picture is a path, an http(s) address, bytes, a PIL image or uint8[H, W, 3]. A list (or any
    other stream) of pictures gives a list of answers; several pictures of one question travel in a
    tuple, and an empty tuple is no picture. Tensors come back on the CPU, detached.
    A method that this model cannot do raises `UnsupportedTaskError` and names models which can.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.name = loaded.name
        self.revision = loaded.revision
        self.folder = loaded.folder
        self.system: System = loaded.system
        self.config = loaded.config
        self.network = cast(Any, loaded.network)  # its role is checked by the task, not by type
        self.processor = loaded.processor
        self.device: torch.device = loaded.device
        self.dtype: torch.dtype = loaded.dtype
        self.bundled = loaded.bundled
        self.origin = loaded.origin
        """What an adapter of this network is for; None where the weights came from nowhere."""
        self.quantize = loaded.quantize
        self.end_ids = loaded.end_ids
        """Tokens that end an answer; none for a network that does not write."""
        self.domain = loaded.domain
        """What the weights know, where that is little ("drawn parks"); None for the open world."""
        self.decode = "exact"
        """How JPEG files are read: "exact", or "reduced" at 1/2, 1/4 or 1/8 where the network sees
        no more, which is quicker and gives vectors that differ a little."""
        self.prompts = PromptCache()
        self.mask_codec: MaskCodec | None = None
        """What reads the masks that it writes; found beside the weights when first needed."""

    def __repr__(self) -> str:
        return f"<sightline.Model {self.name} ({self.system.name}) on {self.device}>"

    @property
    def tasks(self) -> tuple[str, ...]:
        """What this model can be asked for."""
        return tasks_of(self)

    def embed_images(self, images: Any, batch_size: int = 32) -> Tensor:
        """Unit vectors float32[N, D] of one picture or many; one picture gives [1, D]."""
        return embedding.embed_images(self, images, batch_size)

    def embed_texts(self, texts: str | Iterable[str]) -> Tensor:
        """Unit vectors float32[N, D] of one sentence or many, in the space of the pictures."""
        return embedding.embed_texts(self, texts)

    def similarity(self, images: Any, texts: str | Iterable[str]) -> Tensor:
        """Logits float32[N, M]: scale * cosine + bias for each picture and each text."""
        return matching.similarity(self, images, texts)

    def classify(
        self,
        image: Any,
        labels: Iterable[str] | None = None,
        templates: str | Iterable[str] | None = None,
    ) -> Any:
        """Every label with its score, best first: [Label]; a list of them for a list of pictures.

        Softmax over the labels where the system was trained so (CLIP), an independent sigmoid for
        each otherwise (SigLIP). Several templates are averaged; None takes the system's own.
        A model that writes shares one between the labels by their likelihood as its answer. A
        classifier (ViT, ResNet with a classification layer) knows the labels of its training: None
        means all of them, and others cannot be asked. Any other model needs `labels`.
        """
        return self._answers(image, classifying.classify_each(self, image, labels, templates))

    def tag(
        self, image: Any, vocabulary: Iterable[str] | None = None, threshold: float | None = None
    ) -> Any:
        """The words that fit, best first: [Label]; a list of them for a list of pictures.

        Each word is scored on its own. None takes the built-in vocabulary of everyday words and
        the threshold of `tasks.tag.THRESHOLDS`.
        """
        return self._answers(image, tagging.tag_each(self, image, vocabulary, threshold))

    def match(self, image: Any, texts: str | Iterable[str]) -> Any:
        """Probability float32[N] that each text describes the picture; a list for a list.

        For systems without a probability of their own (CLIP): against prompts that claim nothing,
        see `tasks.scores`. A model that writes is asked: the share of "yes" against "no".
        """
        return self._answers(image, matching.match_each(self, image, texts))

    def ask(
        self, image: Any, question: str, choices: Iterable[str] | None = None, **options: Any
    ) -> Any:
        """The answer to a question about a picture: str; a list of them for a list of pictures.

        With `choices` the likeliest of these answers; `tasks.ask.score_choices` gives all the
        scores, and generation options change nothing. A dual encoder can only score and needs them.
        Options: max_new_tokens, temperature (0 takes the likeliest), top_k, top_p, beams, seed,
        stop, and the others of `generation.options`.
        """
        if choices is None:
            return self._answers(image, asking.ask_each(self, image, question, options))
        asking.check_options(options)
        ranked = asking.score_choices(self, image, question, choices)
        return self._answers(image, (row if isinstance(row, Failed) else row[0].label
                                     for row in ranked))  # fmt: skip

    def caption(self, image: Any, prompt: str | None = None, **options: Any) -> Any:
        """A sentence about the picture: str; a list of them for a list of pictures.

        `prompt` is what the checkpoint's published processor would be given, special tokens
        included. Options: detail ("short" or "long", without a prompt), and those of `ask`.
        """
        return self._answers(image, captioning.caption_each(self, image, prompt, options))

    def chat(self, messages: Any, stream: bool = False, **options: Any) -> Any:
        """The next turn of a conversation with pictures: str, or an iterator of its pieces.

        Messages are `{"role": "user", "content": text or parts}`, see `tasks.chat`. PaliGemma is no
        model for dialogue: earlier turns stand in front of the question as plain lines. Options are
        those of `ask`.
        """
        speak = chatting.chat_stream if stream else chatting.chat
        return speak(self, messages, options)

    def logprob(self, image: Any, prompt: str, texts: str | Iterable[str]) -> Any:
        """log p(text, end | picture, prompt) float32[N], natural; a list for a list of pictures.

        Prompt and texts are what the checkpoint's published processor would be given, special
        tokens included.
        """
        return self._answers(image, likelihood.logprob_each(self, image, prompt, texts))

    def detect(self, image: Any, queries: Iterable[str] | None = None) -> Any:
        """Named boxes in pixels of the original: [Detection]; a list of them for a list.

        No queries: everything that the model can name. What a score means stands in `tasks.detect`,
        where there are options too.
        """
        return self._answers(image, detecting.detect_each(self, image, queries))

    def segment(self, image: Any, queries: Iterable[str] | None = None) -> Any:
        """Named masks of the original's size: [Segment]; a list of them for a list.

        Codes of masks are read by the codec beside the checkpoint; see `tasks.segment`.
        """
        return self._answers(image, segmenting.segment_each(self, image, queries))

    def draw(
        self, prompt: str, seed: int = 0, steps: int | None = None, guidance: float | None = None,
        sampler: str | None = None, size: Any = None, negative: str | None = None,
        image: Any = None, mask: Any = None, strength: float | None = None, latents: Any = None,
        count: int = 1,
    ) -> Image.Image:  # fmt: skip
        """A picture from a sentence."""
        raise cannot(self, "draw", "draw pictures")

    def upscale(self, image: Any, prompt: str | None = None, seed: int = 0) -> Image.Image:
        """The same picture with more pixels."""
        raise cannot(self, "upscale", "enlarge pictures")

    def fill(self, image: Any, mask: Any) -> Image.Image:
        """The picture with its masked patches predicted."""
        raise cannot(self, "fill", "fill in pictures")

    def fill_text(self, text: str, image: Any = None) -> list[Label]:
        """Candidates for a masked word."""
        raise cannot(self, "fill_text", "fill in words")

    def explain(self, image: Any, text: str, method: str | None = None) -> Any:
        """How much each pixel spoke for the text: float32[H, W], 0..1; a list for a list.

        Of the picture's own size; 0 where the network does not look (outside of a crop) and where
        nothing spoke for it. A classifier is asked for one of its labels. Methods: "gradient",
        "rollout", "occlusion" (`tasks.explain`); None takes what was measured to be the best.
        """
        rows = explaining.explain_each(self, image, text, method)
        return self._answers(image, (r if isinstance(r, Failed) else r.heat for r in rows))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model in the layout that transformers loads; an adapter is merged into it.

        Its mask codec goes along, and of its card what it knows and how it is asked for everything.
        """
        from sightline.hub.bundled import lasting_card
        from sightline.hub.save import save_checkpoint

        codec = self.folder / segmenting.FOLDER
        save_checkpoint(
            self.network, self.processor, self.config, self.system, folder,
            metadata=lasting_card(self.folder) or None, end_ids=self.end_ids,
            beside={segmenting.FOLDER: codec} if codec.is_dir() else None,
        )  # fmt: skip

    def save_adapter(self, folder: str | os.PathLike[str]) -> None:
        """Write the adapter that the network carries, without its base, in PEFT's layout.

        Raises:
            UnsupportedTaskError: there is none, or one that PEFT could not put on.
        """
        from sightline.hub.adapters import Origin, save_adapter

        origin = self.origin or Origin(None)
        save_adapter(self.network, self.system, self.config, folder, origin)

    def require_role(self, role: str, task: str, deed: str) -> None:
        """Raises `UnsupportedTaskError` unless the network plays this role."""
        if self.system.role != role:
            raise cannot(self, task, deed)

    def _answers(self, images: Any, answers: Iterator[Answer | Failed]) -> Answer | list[Answer]:
        """A list in is a list out; one picture gives its answer bare."""
        listed = [answer for answer in answers if not isinstance(answer, Failed)]
        return listed[0] if is_row(images) else listed
