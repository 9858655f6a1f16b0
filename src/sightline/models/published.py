"""Reading the fields of a published config.json, which is somebody else's file."""

from collections.abc import Mapping
from typing import Any, Protocol, TypedDict, TypeVar, runtime_checkable

from torch import Tensor

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


def token(config: Mapping[str, Any], name: str, default: int) -> int:
    """The id of a token; of a list, as newer writers name the ends of an answer, the first."""
    value = config.get(name)
    if isinstance(value, list) and value:
        return field({name: value[0]}, name, default)
    return field(config, name, default)


def pair(config: Mapping[str, Any], name: str, default: int) -> tuple[int, int]:
    """A (height, width) field that may be written as one number."""
    value = config.get(name)
    if isinstance(value, (list, tuple)) and len(value) == 2:
        height, width = (field({name: part}, name, default) for part in value)
        return height, width
    side = field(config, name, default)
    return side, side


def integers(config: Mapping[str, Any], name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """A list of positive integers; absent or null gives the default.

    Raises:
        CheckpointError: something else, an empty list, or a number outside 1 to 2^24.
    """
    value = config.get(name)
    if value is None:
        return default
    whole = isinstance(value, (list, tuple)) and all(type(part) is int for part in value)
    if not whole or not value or not all(1 <= part <= LARGEST for part in value):
        raise CheckpointError(
            f"config.json: {name!r} is {str(value)[:60]}, where a list like {list(default)} is "
            "expected"
        )
    return tuple(value)


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


def read_labels(config: Mapping[str, Any], architecture: str) -> tuple[str, ...]:
    """The labels of a classification class, by number; two without names are its default.

    Args:
        architecture: the class in "architectures" that has the layer; any other has no labels.

    Raises:
        CheckpointError: labels that are not numbered from 0 on.
    """
    if architecture not in (config.get("architectures") or ()):
        return ()
    names = section(config, "id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    numbered = {str(number): label for number, label in names.items()}
    labels = [numbered.get(str(number)) for number in range(len(names))]
    if not all(isinstance(label, str) for label in labels):
        raise CheckpointError(
            f"config.json: 'id2label' does not number its {len(names)} labels from 0 on"
        )
    return tuple(str(label) for label in labels)


def write_labels(labels: tuple[str, ...]) -> dict[str, Any]:
    """The inverse of `read_labels`, both ways round; nothing where there are no labels.

    Two classes of one name (ImageNet has two cranes) share a line of "label2id".
    """
    if not labels:
        return {}
    return {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }


def match_labels(
    labels: tuple[str, ...], state: Mapping[str, Tensor], weight: str
) -> tuple[str, ...]:
    """The labels where the published tensors have a classification layer, and only there.

    Args:
        labels: what config.json says.
        state: the published tensors.
        weight: how the name of the layer's weight ends, whatever level a writer put in front.
    """
    layer = next((tensor for key, tensor in state.items() if key.endswith(weight)), None)
    if layer is None:
        return ()
    if labels or layer.ndim != 2:
        return labels
    return tuple(f"LABEL_{number}" for number in range(len(layer)))


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
