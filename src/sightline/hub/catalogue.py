"""The models that Sightline knows by name: what they can do, cost and allow.

Any other model of a system that is read here loads by its hub id as well. Licences and names were
looked up in the public record, for a family on the card of at least one of its members; "not
checked" says where that was not possible. Parameter counts are those of the configurations, which
a test builds without memory and counts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from sightline.core.errors import UnsupportedTaskError
from sightline.hub.bundled import DRAWN_PARKS, bundled_names, bundled_path, read_card
from sightline.hub.configuration import read_config_json
from sightline.hub.weights import SAFETENSORS, check_header

DUAL_ENCODER_TASKS = (
    "embed",
    "similarity",
    "classify",
    "tag",
    "retrieve",
    "search",
    "match",
    "ask-with-choices",
    "explain",
)
IMAGE_ENCODER_TASKS = ("embed",)
CLASSIFIER_TASKS = (*IMAGE_ENCODER_TASKS, "classify", "explain")
TEXT_ENCODER_TASKS = ("embed-texts",)

WRITER_TASKS = (
    "caption", "ask", "chat", "detect", "segment", "logprob", "match", "classify",
)  # fmt: skip

PARITY = "architecture and parity with transformers on random weights; published weights not run"

_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue."""

    name: str
    """Hub id, or the name of a bundled model."""
    system: str
    tasks: tuple[str, ...]
    licence: str
    """As the model's card states it; "not stated" where the card says nothing."""
    parameters: int
    variant: str = ""
    """Key of the system's `variants`, where the table has this size."""
    gated: bool = False
    stored_width: int = 4
    """Bytes of one stored parameter."""
    aliases: tuple[str, ...] = ()
    verified: str = PARITY
    note: str = ""

    @property
    def download_bytes(self) -> int:
        """The weights as they are stored; tokenizer files add up to 40 MB."""
        return self.parameters * self.stored_width

    @property
    def bundled(self) -> bool:
        return "/" not in self.name

    def memory_bytes(self, dtype: str = "float32") -> int:
        """The weights in memory when linears and convolutions have this number type (an upper
        estimate of the saving: norms, embeddings and scales stay float32)."""
        return self.parameters * _WIDTHS[dtype]


def _dual(
    name: str, system: str, parameters: int, variant: str, licence: str,
    aliases: tuple[str, ...] = (), note: str = "",
) -> Entry:  # fmt: skip
    return Entry(
        name, system, DUAL_ENCODER_TASKS, licence, parameters, variant, aliases=aliases, note=note
    )


_IMAGENET = "classifies among the 1000 ImageNet labels and no others"


def _vit(name: str, parameters: int, variant: str = "", aliases: tuple[str, ...] = ()) -> Entry:
    licence = "apache-2.0" if name.startswith("google/") else "not checked"
    bare = name.endswith("-in21k")
    return Entry(
        name, "vit", IMAGE_ENCODER_TASKS if bare else CLASSIFIER_TASKS, licence, parameters,
        variant, aliases=aliases, note="" if bare else _IMAGENET,
    )  # fmt: skip


_PICKLED = (
    "the main branch is known to hold its weights as a pickle only: give a revision with "
    "safetensors, or allow it"
)
_FLEXIBLE = "every picture keeps its aspect ratio"
_OPENAI = "not stated on the card (code: MIT)"

VIT = (
    _vit("google/vit-base-patch16-224", 86_567_656, aliases=("vit-base",)),
    _vit("google/vit-base-patch16-384", 86_859_496),
    _vit("google/vit-base-patch32-384", 88_297_192),
    _vit("google/vit-base-patch16-224-in21k", 86_389_248, "B/16", ("ViT-B/16-in21k",)),
    _vit("google/vit-base-patch32-224-in21k", 88_045_824, "B/32", ("ViT-B/32-in21k",)),
    _vit("google/vit-large-patch16-224", 304_326_632),
    _vit("google/vit-large-patch16-384", 304_715_752),
    _vit("google/vit-large-patch32-384", 306_632_680),
    _vit("google/vit-large-patch16-224-in21k", 304_351_232, "L/16", ("ViT-L/16-in21k",)),
    _vit("google/vit-huge-patch14-224-in21k", 632_404_480, "H/14", ("ViT-H/14-in21k",)),
    _vit("WinKawaks/vit-tiny-patch16-224", 5_717_416),
    _vit("WinKawaks/vit-small-patch16-224", 22_050_664),
)


def _resnet(depth: int, parameters: int, aliases: tuple[str, ...] = ()) -> Entry:
    return Entry(
        f"microsoft/resnet-{depth}", "resnet", CLASSIFIER_TASKS, "apache-2.0", parameters,
        aliases=(f"resnet-{depth}", *aliases), note=_IMAGENET,
    )  # fmt: skip


RESNET = (
    _resnet(18, 11_689_512),
    _resnet(34, 21_797_672),
    _resnet(50, 25_557_032, ("resnet50",)),
    _resnet(101, 44_549_160),
    _resnet(152, 60_192_808),
)


def _swin(
    size: str, parameters: int, variant: str, aliases: tuple[str, ...] = (), note: str = ""
) -> Entry:
    head = "the classification layer over a closed set of labels is left out"
    return Entry(
        f"microsoft/swin-{size}", "swin", IMAGE_ENCODER_TASKS, "apache-2.0", parameters, variant,
        aliases=aliases, note=f"{head}; {note}" if note else head,
    )  # fmt: skip


_UNSEEN = "whether the main branch holds safetensors was not checked"
SWIN = (
    _swin("tiny-patch4-window7-224", 27_519_354, "T", ("Swin-T",), _UNSEEN),
    _swin("small-patch4-window7-224", 48_837_258, "S", ("Swin-S",), _UNSEEN),
    _swin("base-patch4-window7-224", 86_743_224, "B", ("Swin-B",), _UNSEEN),
    _swin("base-patch4-window7-224-in22k", 86_743_224, "B"),
    _swin("base-patch4-window12-384", 86_878_584, "B/384", note=_UNSEEN),
    _swin("base-patch4-window12-384-in22k", 86_878_584, "B/384", note=_PICKLED),
    _swin("large-patch4-window7-224", 194_995_476, "L", ("Swin-L",), _PICKLED),
    _swin("large-patch4-window7-224-in22k", 194_995_476, "L", note=_PICKLED),
    _swin("large-patch4-window12-384", 195_198_516, "L/384", note=_UNSEEN),
    _swin("large-patch4-window12-384-in22k", 195_198_516, "L/384", note=_PICKLED),
)

CLIP = (
    _dual("openai/clip-vit-base-patch32", "clip", 151_277_313, "B/32", _OPENAI,
          ("ViT-B/32", "clip-base"), _PICKLED),
    _dual("openai/clip-vit-base-patch16", "clip", 149_620_737, "B/16", _OPENAI, ("ViT-B/16",),
          "whether the main branch holds safetensors was not checked"),
    _dual("openai/clip-vit-large-patch14", "clip", 427_616_513, "L/14", _OPENAI,
          ("ViT-L/14", "clip-large")),
    _dual("openai/clip-vit-large-patch14-336", "clip", 427_944_193, "L/14@336", _OPENAI,
          ("ViT-L/14@336px",), "whether the main branch holds safetensors was not checked"),
    _dual("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "clip", 151_277_313, "B/32-laion2B", "mit",
          ("laion-B-32",)),
    _dual("laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "clip", 427_616_513, "L/14-laion2B", "mit",
          ("laion-L-14",)),
    _dual("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "clip", 986_109_441, "H/14-laion2B", "mit",
          ("ViT-H/14", "laion-H-14")),
    _dual("laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", "clip", 2_539_567_105, "bigG/14-laion2B",
          "not checked", ("ViT-bigG/14", "laion-bigG-14"), "weights in two shards"),
)  # fmt: skip


def _siglip(
    name: str, parameters: int, variant: str, aliases: tuple[str, ...] = (), note: str = ""
) -> Entry:
    return _dual(f"google/{name}", "siglip", parameters, variant, "apache-2.0", aliases, note)


SIGLIP = (
    _siglip("siglip-base-patch16-224", 203_155_970, "B/16-224", ("SigLIP-B/16", "siglip-base")),
    _siglip("siglip-base-patch16-256", 203_202_050, "B/16-256"),
    _siglip("siglip-base-patch16-384", 203_447_810, "B/16-384"),
    _siglip("siglip-base-patch16-512", 203_791_874, "B/16-512"),
    _siglip("siglip-base-patch16-256-multilingual", 370_626_050, "B/16-256-i18n",
            note="some hundred languages"),
    _siglip("siglip-large-patch16-256", 652_150_786, "L/16-256"),
    _siglip("siglip-large-patch16-384", 652_478_466, "L/16-384", ("SigLIP-L/16",)),
    _siglip("siglip-so400m-patch14-224", 877_360_306, "So400m/14-224",
            note="texts of 16 tokens"),
    _siglip("siglip-so400m-patch14-384", 877_960_498, "So400m/14-384", ("SigLIP-So400m/14",)),
    _siglip("siglip-so400m-patch16-256-i18n", 1_128_758_962, "So400m/16-256-i18n"),
)  # fmt: skip

SIGLIP2 = (
    _siglip("siglip2-base-patch16-224", 375_187_970, "2-B/16-224",
            ("SigLIP2-B/16", "siglip2", "siglip2-base"), "the default of this version"),
    _siglip("siglip2-base-patch16-256", 375_234_050, "2-B/16-256"),
    _siglip("siglip2-base-patch16-384", 375_479_810, "2-B/16-384"),
    _siglip("siglip2-base-patch16-512", 375_823_874, "2-B/16-512"),
    _siglip("siglip2-base-patch32-256", 376_856_066, "2-B/32-256"),
    _siglip("siglip2-large-patch16-256", 881_526_786, "2-L/16-256", ("SigLIP2-L/16",)),
    _siglip("siglip2-large-patch16-384", 881_854_466, "2-L/16-384"),
    _siglip("siglip2-large-patch16-512", 882_313_218, "2-L/16-512"),
    _siglip("siglip2-so400m-patch14-224", 1_135_463_602, "2-So400m/14-224"),
    _siglip("siglip2-so400m-patch14-384", 1_136_008_498, "2-So400m/14-384",
            ("SigLIP2-So400m/14",)),
    _siglip("siglip2-so400m-patch16-256", 1_135_670_962, "2-So400m/16-256"),
    _siglip("siglip2-so400m-patch16-384", 1_136_039_602, "2-So400m/16-384"),
    _siglip("siglip2-so400m-patch16-512", 1_136_555_698, "2-So400m/16-512"),
    _siglip("siglip2-giant-opt-patch16-256", 1_871_393_906, "2-g-opt/16-256"),
    _siglip("siglip2-giant-opt-patch16-384", 1_871_885_426, "2-g-opt/16-384"),
)  # fmt: skip

SIGLIP2_NAFLEX = (
    _dual("google/siglip2-base-patch16-naflex", "siglip2-naflex", 375_234_050, "B/16",
          "apache-2.0", ("SigLIP2-B/16-NaFlex", "siglip2-naflex"), _FLEXIBLE),
    _dual("google/siglip2-so400m-patch16-naflex", "siglip2-naflex", 1_135_670_962, "So400m/16",
          "apache-2.0", ("SigLIP2-So400m/16-NaFlex",), _FLEXIBLE),
)  # fmt: skip


def _bert(size: str, parameters: int, aliases: tuple[str, ...] = (), note: str = "") -> Entry:
    heads = "the heads for masked words and for the next sentence are left out"
    return Entry(
        f"google-bert/bert-{size}", "bert", TEXT_ENCODER_TASKS, "apache-2.0", parameters, size,
        aliases=(f"bert-{size}", *aliases), note=f"{note}; {heads}" if note else heads,
    )  # fmt: skip


BERT = (
    _bert("base-uncased", 109_482_240, ("bert-base",)),
    _bert("base-cased", 108_310_272),
    _bert("large-uncased", 335_141_888, ("bert-large",)),
    _bert("large-cased", 333_579_264),
    _bert("base-multilingual-uncased", 167_356_416, note="102 languages"),
    _bert("base-multilingual-cased", 177_853_440, note="104 languages"),
)

VISION_TEXT = (
    _dual("clip-italian/clip-italian", "vision_text", 198_938_113, "clip-B/32+bert-base-italian",
          "gpl-3.0", ("clip-italian",),
          "the words are Italian, and parameters are counted on the towers that the card names; "
          "whether the main branch holds safetensors was not checked"),
)  # fmt: skip

_GATED = "asks for an agreement to Gemma's terms before the download"


def _gemma(
    name: str, parameters: int, variant: str, aliases: tuple[str, ...] = (), note: str = ""
) -> Entry:
    generation = "gemma2" if name.startswith("gemma-2-") else "gemma"
    return Entry(
        f"google/{name}", generation, (), "gemma", parameters, variant, gated=True,
        stored_width=2, aliases=aliases, note=f"{_GATED}; {note}" if note else _GATED,
    )  # fmt: skip


_TYPE_UNSEEN = "in which number type the main branch stores it was not checked"
GEMMA = (
    _gemma("gemma-2b", 2_506_172_416, "2B", ("Gemma-2B",)),
    _gemma("gemma-2b-it", 2_506_172_416, "2B"),
    _gemma("gemma-7b", 8_537_680_896, "7B", ("Gemma-7B",)),
    _gemma("gemma-7b-it", 8_537_680_896, "7B"),
)  # fmt: skip
GEMMA2 = (
    _gemma("gemma-2-2b", 2_614_341_888, "2B", ("Gemma2-2B",), _TYPE_UNSEEN),
    _gemma("gemma-2-2b-it", 2_614_341_888, "2B", note=_TYPE_UNSEEN),
    _gemma("gemma-2-9b", 9_241_705_984, "9B", ("Gemma2-9B",), _TYPE_UNSEEN),
    _gemma("gemma-2-9b-it", 9_241_705_984, "9B", note=_TYPE_UNSEEN),
    _gemma("gemma-2-27b", 27_227_128_320, "27B", ("Gemma2-27B",), _TYPE_UNSEEN),
    _gemma("gemma-2-27b-it", 27_227_128_320, "27B", note=_TYPE_UNSEEN),
)  # fmt: skip


def _paligemma(
    name: str, parameters: int, variant: str, aliases: tuple[str, ...] = (), note: str = ""
) -> Entry:
    kind = "ready to be asked" if "-mix-" in name else note or "made to be trained further"
    return Entry(
        f"google/{name}", "paligemma", WRITER_TASKS, "gemma", parameters, variant, gated=True,
        stored_width=2 if name.startswith("paligemma2") else 4, aliases=aliases,
        note=f"{kind}; {_GATED}",
    )  # fmt: skip


_DOCCI = "writes long captions"
PALIGEMMA = (
    _paligemma("paligemma-3b-pt-224", 2_923_466_480, "3B-224"),
    _paligemma("paligemma-3b-pt-448", 2_924_351_216, "3B-448"),
    _paligemma("paligemma-3b-pt-896", 2_927_890_160, "3B-896"),
    _paligemma("paligemma-3b-mix-224", 2_923_466_480, "3B-224", ("PaliGemma-3B", "paligemma")),
    _paligemma("paligemma-3b-mix-448", 2_924_351_216, "3B-448"),
)  # fmt: skip
PALIGEMMA2 = (
    _paligemma("paligemma2-3b-pt-224", 3_032_242_416, "2-3B-224"),
    _paligemma("paligemma2-3b-pt-448", 3_033_127_152, "2-3B-448"),
    _paligemma("paligemma2-3b-pt-896", 3_036_666_096, "2-3B-896"),
    _paligemma("paligemma2-3b-mix-224", 3_032_242_416, "2-3B-224", ("PaliGemma2-3B", "paligemma2")),
    _paligemma("paligemma2-3b-mix-448", 3_033_127_152, "2-3B-448"),
    _paligemma("paligemma2-10b-pt-224", 9_662_638_832, "2-10B-224"),
    _paligemma("paligemma2-10b-pt-448", 9_663_523_568, "2-10B-448"),
    _paligemma("paligemma2-10b-pt-896", 9_667_062_512, "2-10B-896"),
    _paligemma("paligemma2-10b-mix-224", 9_662_638_832, "2-10B-224"),
    _paligemma("paligemma2-10b-mix-448", 9_663_523_568, "2-10B-448", ("PaliGemma2-10B",)),
    _paligemma("paligemma2-28b-pt-224", 27_650_487_024, "2-28B-224"),
    _paligemma("paligemma2-28b-pt-448", 27_651_371_760, "2-28B-448"),
    _paligemma("paligemma2-28b-pt-896", 27_654_910_704, "2-28B-896"),
    _paligemma("paligemma2-28b-mix-224", 27_650_487_024, "2-28B-224"),
    _paligemma("paligemma2-28b-mix-448", 27_651_371_760, "2-28B-448"),
    _paligemma("paligemma2-3b-ft-docci-448", 3_033_127_152, "2-3B-448", note=_DOCCI),
    _paligemma("paligemma2-10b-ft-docci-448", 9_663_523_568, "2-10B-448", note=_DOCCI),
)  # fmt: skip

PUBLISHED = (
    VIT + RESNET + SWIN + CLIP + SIGLIP + SIGLIP2 + SIGLIP2_NAFLEX + BERT + VISION_TEXT
    + GEMMA + GEMMA2 + PALIGEMMA + PALIGEMMA2
)  # fmt: skip

_DEFAULT = "google/siglip2-base-patch16-224"
DEFAULTS: Mapping[str, str] = {
    task: _DEFAULT for task in (*DUAL_ENCODER_TASKS, "ask", "index", "eval")
}
"""Command or task to the model it takes when none is named: public, ungated, permissive, small."""

OFFLINE_MODEL, OFFLINE_WRITER = "park-siglip", "park-paligemma"


def entries() -> list[Entry]:
    """Every model of the catalogue: the bundled ones of this installation, then the published."""
    return [*(_bundled(name) for name in bundled_names()), *PUBLISHED]


def find(name: str) -> Entry | None:
    """The entry of a name or alias, capitals apart; None when the catalogue has none."""
    wanted = name.lower()
    for entry in PUBLISHED:
        if wanted in (entry.name.lower(), *(alias.lower() for alias in entry.aliases)):
            return entry
    return _bundled(wanted) if wanted in bundled_names() else None


def catalogue_names() -> list[str]:
    """Every name and alias, for hints."""
    published = [name for entry in PUBLISHED for name in (entry.name, *entry.aliases)]
    return [*bundled_names(), *published]


def models_for(task: str) -> list[Entry]:
    """The models that can do a task; empty when this version has none."""
    return [entry for entry in entries() if task in entry.tasks]


def default_model(task: str, explicit: str | None = None) -> str:
    """The model for a task: the one named, else `SIGHTLINE_MODEL`, else the task's default.

    Raises:
        UnsupportedTaskError: no model is named and this version takes none for the task by itself.
    """
    chosen = explicit or os.environ.get("SIGHTLINE_MODEL") or DEFAULTS.get(task)
    if chosen:
        return chosen
    able = ", ".join(entry.name for entry in models_for(task)[:4])
    if able:
        raise UnsupportedTaskError(
            f"no model is taken for {task!r} unless one is named: --model NAME or SIGHTLINE_MODEL; "
            f"models which can: {able}"
        )
    raise UnsupportedTaskError(
        f"no model of this version can do {task!r}; it can do {', '.join(sorted(DEFAULTS))}"
    )


def offline_substitute(task: str) -> str | None:
    """The bundled model to take when the hub cannot be reached, or has no public default.

    It knows drawn parks and no photographs, and who takes it says so first. None when none can do
    the task.
    """
    name = OFFLINE_MODEL if task in DEFAULTS else OFFLINE_WRITER if task in WRITER_TASKS else None
    return name if name in bundled_names() else None


def _bundled(name: str) -> Entry:
    folder = bundled_path(name)
    shapes = [shape for _, shape in check_header(folder / SAFETENSORS).values()]
    card = read_card(folder)
    kind = str(read_config_json(folder).get("model_type", ""))
    return Entry(
        name=name,
        system=kind,
        tasks=_TASKS_OF_KIND.get(kind, DUAL_ENCODER_TASKS),
        licence=str(card.get("licence", "apache-2.0")),
        parameters=sum(_product(shape) for shape in shapes),
        stored_width=2,
        verified="trained and measured by this project; scores in its card",
        note=f"{card.get('domain', DRAWN_PARKS)}, not for photographs",
    )


_TASKS_OF_KIND = {"vit": IMAGE_ENCODER_TASKS, "paligemma": WRITER_TASKS}


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total
