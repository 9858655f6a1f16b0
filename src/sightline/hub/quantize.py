"""The image tower of a loaded network in 8 bits, calibrated on pictures that need no data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sightline.core.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    import torch
    from torch import nn

    from sightline.core.interfaces import System
    from sightline.inputs.processors import Processor

KINDS = ("int8",)
CALIBRATION_PICTURES = 16


def check_quantize(kind: str | None, device: torch.device, dtype: torch.dtype) -> None:
    """Whether a network can be quantised so, on that device.

    Raises:
        ConfigError: an unknown kind, a device other than the CPU, a number type that the products
            cannot give, or a build of torch without oneDNN.
    """
    import torch

    if kind is None:
        return
    if kind not in KINDS:
        raise ConfigError(unknown_name("quantize", kind, KINDS))
    if device.type != "cpu":
        raise ConfigError(
            f"quantize={kind!r} computes on the CPU, and the device is {device}: leave quantize "
            "out, or say device='cpu'"
        )
    if dtype not in (torch.float32, torch.bfloat16):
        raise ConfigError(f"quantize={kind!r} goes with float32 or bfloat16, not with {dtype}")
    has_products = hasattr(torch.ops.onednn, "qlinear_pointwise")
    if not (torch.backends.mkldnn.is_available() and has_products):
        raise ConfigError(
            f"quantize={kind!r} needs oneDNN, which this build of torch does not have: leave "
            "quantize out"
        )


def quantize_images(network: nn.Module, processor: Processor, system: System) -> None:
    """Turn the transformers that see pictures to 8 bits, in place.

    The scales are measured on dead leaves, drawn from a fixed seed: the same on every machine.
    An adapter on the network is merged first.

    Raises:
        ConfigError: the network has no transformer that sees pictures.
    """
    from sightline.inputs.dead_leaves import dead_leaves
    from sightline.nn import lora
    from sightline.nn.quantised import quantise

    if processor.image is None:
        raise ConfigError(f"8 bits are for image towers, and a {system.role} has none")
    if lora.layers(network):
        lora.merge(network)
        lora.remove(network)
    pixels = processor.images(dead_leaves(CALIBRATION_PICTURES))

    def calibrate(seen: Any) -> None:
        doors = {"dual encoder": "encode_images", "vision-language model": "image_tokens"}
        encode = getattr(seen, doors.get(system.role, "forward"))
        encode(pixels)

    quantise(network, calibrate)
