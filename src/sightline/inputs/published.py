"""JSON that checkpoints publish, read with suspicion: a refusal names the file and the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from sightline.core.errors import CheckpointError, ConfigError
from sightline.inputs import transforms
from sightline.inputs.preprocessing import MAX_SIDE, ImageSpec, Triple

MAX_JSON_BYTES = 64 << 20
"""Descriptions are kilobytes; the largest published vocabularies are half of this."""


def read_object(path: Path) -> dict[str, Any]:
    """One JSON object from a file.

    Raises:
        CheckpointError: the file is missing, too large, cut off, or holds something else.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path}: larger than {MAX_JSON_BYTES >> 20} MB, not read")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: not valid JSON ({str(error)[:80]}): fetch the file again"
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path}: expected a JSON object, not {type(value).__name__}: fetch the file again"
        )
    return value


class PublishedImages:
    """One published image processor's JSON, read field by field."""

    def __init__(self, config: Mapping[str, Any], default: ImageSpec, source: str) -> None:
        if not isinstance(config, Mapping):
            raise CheckpointError(
                f"{source}: expected a JSON object, not {type(config).__name__}: "
                "fetch the file again"
            )
        self.config, self.default, self.source = config, default, source
        kind = config.get("image_processor_type") or config.get("feature_extractor_type")
        self.kind = kind if isinstance(kind, str) else ""

    def spec(self) -> ImageSpec:
        """The spec that the file describes.

        Raises:
            CheckpointError: names the file and the field that cannot be used.
        """
        for name in ("max_num_patches", "do_pad", "do_image_splitting"):
            if self.config.get(name):
                raise self.refuse(name, "is not supported for this system", "a fixed size")
        resizes = self.flag("do_resize", self.default.fit not in ("crop", "keep"))
        crops = self.flag("do_center_crop", "crop" in self.default.fit)
        fields = dict(self.geometry(resizes, crops))
        fields["filter"] = self.filter()
        if self.flag("do_normalize", True):
            fields["mean"] = self.triple("image_mean", self.default.mean)
            fields["std"] = self.triple("image_std", self.default.std)
        else:
            fields |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
        fields["rescale"] = 1.0
        if self.flag("do_rescale", True):
            fields["rescale"] = self.number("rescale_factor", self.default.rescale)
        try:
            return ImageSpec(**fields)
        except ConfigError as error:
            raise CheckpointError(f"{self.source}: {error}") from None

    def geometry(self, resizes: bool, crops: bool) -> dict[str, Any]:
        default = self.default
        crop = self.size("crop_size", default.height, default.width) if crops else {}
        if not resizes:
            if not crops:
                return {"fit": "keep", "height": default.height, "width": default.width}
            return {"fit": "crop", **crop}
        size = self.target(crops)
        if self.kind.startswith("ConvNext") and "shortest_edge" in size:
            return self.fraction(size["shortest_edge"])
        if "shortest_edge" in size:
            side = size["shortest_edge"]
            extra = {"longest": size.get("longest_edge")}
            if not crops:
                return {"fit": "shortest", "height": side, "width": side, "shortest": side, **extra}
            same = side == min(crop["height"], crop["width"])
            kept = None if same else side
            return {"fit": "shortest_then_crop", "shortest": kept, **crop, **extra}
        if not crops or crop == size:
            return {"fit": "square", **size}
        stretched = (size["height"], size["width"])
        return {"fit": "stretch_then_crop", "stretched": stretched, **crop}

    def target(self, crops: bool) -> dict[str, int]:
        """`size`, whose bare number means the shorter side for CLIP and a square for ViT."""
        value = self.config.get("size")
        default = self.default
        if value is None:
            if default.fit in ("square", "crop", "keep"):
                return {"height": default.height, "width": default.width}
            if default.stretched is not None:
                return {"height": default.stretched[0], "width": default.stretched[1]}
            return {"shortest_edge": default.shortest or min(default.height, default.width)}
        if isinstance(value, Mapping) and "shortest_edge" in value:
            names = [n for n in ("shortest_edge", "longest_edge") if value.get(n) is not None]
            return {name: self.side("size." + name, value[name]) for name in names}
        if isinstance(value, Mapping) or isinstance(value, list):
            return self.size("size", default.height, default.width)
        side = self.side("size", value)
        shorter = self.kind.startswith(("CLIP", "ConvNext")) or (crops and "ViT" not in self.kind)
        return {"shortest_edge": side} if shorter else {"height": side, "width": side}

    def fraction(self, side: int) -> dict[str, Any]:
        """ConvNeXt's and ResNet's rule: below 384 the crop is a fraction of the resized picture."""
        part = self.number("crop_pct", 0.875)
        if not 0.1 <= part <= 1:
            raise self.refuse("crop_pct", f"is {part}", "0.1 to 1")
        if side >= 384:
            return {"fit": "square", "height": side, "width": side}
        shortest = int(side / part)
        return {"fit": "shortest_then_crop", "height": side, "width": side, "shortest": shortest}

    def size(self, name: str, height: int, width: int) -> dict[str, int]:
        value = self.config.get(name)
        if value is None:
            return {"height": height, "width": width}
        if isinstance(value, list) and len(value) == 2:
            value = {"height": value[0], "width": value[1]}
        if not isinstance(value, Mapping):
            side = self.side(name, value)
            return {"height": side, "width": side}
        if "shortest_edge" in value and "height" not in value:
            value = {"height": value["shortest_edge"], "width": value["shortest_edge"]}
        if "height" not in value or "width" not in value:
            found = ", ".join(map(str, value)) or "nothing"
            raise self.refuse(name, f"has {found[:80]}", "height and width, or shortest_edge")
        sides = {n: self.side(f"{name}.{n}", value[n]) for n in ("height", "width")}
        return sides

    def side(self, name: str, value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIDE:
            raise self.refuse(name, f"is {_shown(value)}", f"a whole number from 1 to {MAX_SIDE}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.config.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(name, f"is {_shown(value)}", "true or false")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.config.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse(name, f"is {_shown(value)}", "a number")
        if not -1e6 <= value <= 1e6:
            raise self.refuse(name, f"is {_shown(value)}", "a number of sensible size")
        return float(value)

    def triple(self, name: str, default: Triple) -> Triple:
        value = self.config.get(name)
        if value is None:
            return default
        values = value if isinstance(value, list | tuple) else [value] * 3
        if len(values) != 3:
            raise self.refuse(name, f"has {len(values)} numbers", "three, for red, green, blue")
        for single in values:
            one = isinstance(single, int | float) and not isinstance(single, bool)
            if not one or not -1e6 <= single <= 1e6:
                raise self.refuse(name, f"has {_shown(single)}", "three numbers")
        if name == "image_std" and min(abs(v) for v in values) < 1e-12:
            raise self.refuse(name, "has a zero", "numbers that pixels can be divided by")
        return cast(Triple, tuple(float(v) for v in values))

    def filter(self) -> str:
        value = self.config.get("resample")
        if value is None:
            return self.default.filter
        if isinstance(value, str) and value.lower() in transforms.FILTERS:
            return value.lower()
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 5:
            raise self.refuse("resample", f"is {_shown(value)}", "0 to 5, Pillow's numbers")
        return transforms.FILTERS[value]

    def refuse(self, name: str, found: str, allowed: str) -> CheckpointError:
        return CheckpointError(
            f"{self.source}: {name} {found}; allowed: {allowed}. Correct the file or fetch it again"
        )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
