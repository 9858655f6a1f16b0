"""Reading the fields of a published config.json, which is somebody else's file."""

from collections.abc import Mapping
from typing import Any, Protocol, TypedDict, TypeVar, runtime_checkable

from sightline.core.errors import CheckpointError

T = TypeVar("T", int, float, str, bool)

LARGEST = 1 << 24
"""No width, depth or vocabulary of a real network is larger; a file that says so is broken."""


def field(config: Mapping[str, Any], name: str, default: T) -> T:
    """The value of one field, of the type of its default; absent or null gives the default.

    Raises:
        CheckpointError: another type, or an integer outside 0 to 2^24.
    """
    value: Any = config.get(name)
    if value is None:
        return default
    kind = type(default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise CheckpointError(
            f"config.json: {name!r} is {value!r}, where a value like {default!r} is expected"
        )
    if isinstance(value, int) and not 0 <= value <= LARGEST:
        raise CheckpointError(f"config.json: {name!r} is {value}, which no network of ours has")
    return value


def pair(config: Mapping[str, Any], name: str, default: int) -> tuple[int, int]:
    """A (height, width) field that may be written as one number."""
    value = config.get(name)
    if isinstance(value, (list, tuple)) and len(value) == 2:
        height, width = (field({name: part}, name, default) for part in value)
        return height, width
    side = field(config, name, default)
    return side, side


def as_written(size: tuple[int, int]) -> int | list[int]:
    """The inverse of `pair`: one number for a square."""
    return size[0] if size[0] == size[1] else list(size)


def section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A nested part of the configuration; absent means empty.

    Raises:
        CheckpointError: the part is there and is no table.
    """
    value = config.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise CheckpointError(f"config.json: {name!r} is {value!r}, where a table is expected")
    return value


class TransformerFields(TypedDict):
    """What every transformer's configuration states."""

    width: int
    depth: int
    num_heads: int
    mlp_width: int
    activation: str
    norm_eps: float


@runtime_checkable
class HasTransformerFields(Protocol):
    """A config with these fields, frozen."""

    @property
    def width(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def mlp_width(self) -> int: ...
    @property
    def activation(self) -> str: ...
    @property
    def norm_eps(self) -> float: ...


def read_transformer(
    config: Mapping[str, Any],
    width: int,
    depth: int,
    num_heads: int,
    mlp_width: int,
    activation: str,
    norm_eps: float,
) -> TransformerFields:
    """The fields under the names that transformers uses, with their defaults."""
    return {
        "width": field(config, "hidden_size", width),
        "depth": field(config, "num_hidden_layers", depth),
        "num_heads": field(config, "num_attention_heads", num_heads),
        "mlp_width": field(config, "intermediate_size", mlp_width),
        "activation": field(config, "hidden_act", activation),
        "norm_eps": field(config, "layer_norm_eps", norm_eps),
    }


def write_transformer(config: HasTransformerFields) -> dict[str, Any]:
    """The inverse of `read_transformer`."""
    return {
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_width,
        "hidden_act": config.activation,
        "layer_norm_eps": config.norm_eps,
    }
