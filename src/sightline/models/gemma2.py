"""Gemma 2: Improving Open Language Models at a Practical Size.

Gemma Team, Google DeepMind, 2024, https://arxiv.org/abs/2408.00118. Reads and writes the layout of
the `google/gemma-2-*` checkpoints (transformers' Gemma2ForCausalLM).

Gemma with four changes (section 2): what a block adds is normalised behind each half as well;
blocks take turns in seeing a sliding window and seeing everything; scores and logits are capped by
a tanh; groups of query heads share keys and values.

Differs from the paper: nothing in the network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sightline.core.errors import CheckpointError
from sightline.core.interfaces import System
from sightline.models import gemma
from sightline.models.gemma import (
    GemmaConfig,
    decoder_keys,
    initialise,
    read_shared,
    whole_names,
    write_shared,
)
from sightline.models.keys import KeyTable
from sightline.models.published import field
from sightline.nn.decoder import Decoder
from sightline.nn.writer import Writer


@dataclass(frozen=True)
class Gemma2Config(GemmaConfig):
    """One decoder of the second generation."""

    query_scale: float = 256.0
    """The products of queries and keys are divided by its square root; often the head size."""
    window: int = 4096
    """How far the first of two blocks sees."""
    attention_cap: float | None = 50.0
    logit_cap: float | None = 30.0


# Table 1 of the paper; 27B divides by width / heads.
VARIANTS = {
    "2B": Gemma2Config(2304, 26, 8, 4, 256, 9216),
    "9B": Gemma2Config(3584, 42, 16, 8, 256, 14336),
    "27B": Gemma2Config(4608, 46, 32, 16, 128, 36864, query_scale=144.0),
}

TINY = Gemma2Config(
    width=20, depth=3, num_heads=4, kv_heads=2, head_size=6, mlp_width=28, vocab_size=99,
    context_length=64, query_scale=9.0, window=4, attention_cap=5.0, logit_cap=3.0,
)  # fmt: skip


class Gemma2(Writer):
    """Tokens to next tokens."""

    def __init__(self, config: Gemma2Config) -> None:
        super().__init__(decoder(config))
        initialise(self)


def decoder(config: Gemma2Config, first_position: int = 0) -> Decoder:
    """Gemma's stack with the four changes; also PaliGemma 2's."""
    return gemma.decoder(
        config,
        first_position=first_position,
        scale=config.query_scale**-0.5,
        attention_cap=config.attention_cap,
        logit_cap=config.logit_cap,
        norms_behind=True,
        windows=[None if number % 2 else config.window for number in range(config.depth)],
    )


def read_config(config: Mapping[str, Any]) -> Gemma2Config:
    """A published config.json to ours; absent fields take transformers' defaults.

    Raises:
        CheckpointError: windows in another order than the published ones.
    """
    depth = field(config, "num_hidden_layers", 26)
    kinds = config.get("layer_types")
    if kinds is not None and kinds != _layer_types(depth):
        raise CheckpointError(
            f"config.json: 'layer_types' is {str(kinds)[:60]}, where sliding_attention and "
            "full_attention take turns in every published Gemma 2"
        )
    return Gemma2Config(
        width=field(config, "hidden_size", 2304),
        depth=depth,
        num_heads=field(config, "num_attention_heads", 8),
        kv_heads=field(config, "num_key_value_heads", 4),
        head_size=field(config, "head_dim", 256),
        mlp_width=field(config, "intermediate_size", 9216),
        query_scale=field(config, "query_pre_attn_scalar", 256.0),
        window=field(config, "sliding_window", 4096),
        attention_cap=_cap(config, "attn_logit_softcapping", 50.0),
        logit_cap=_cap(config, "final_logit_softcapping", 30.0),
        **read_shared(config, "hidden_activation"),
    )


def _cap(config: Mapping[str, Any], name: str, default: float) -> float | None:
    """A bound; null switches it off, where absent means the default."""
    if name in config and config[name] is None:
        return None
    return field(config, name, default)


def _layer_types(depth: int) -> list[str]:
    return ["full_attention" if n % 2 else "sliding_attention" for n in range(depth)]


def write_config(config: Gemma2Config) -> dict[str, Any]:
    """Ours to what transformers reads."""
    scale = config.query_scale
    return {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.mlp_width,
        "hidden_activation": config.activation,
        "query_pre_attn_scalar": int(scale) if scale == int(scale) else scale,
        "sliding_window": config.window,
        "layer_types": _layer_types(config.depth),
        "attn_logit_softcapping": config.attention_cap,
        "final_logit_softcapping": config.logit_cap,
        **write_shared(config),
    }


PAIRS = decoder_keys(
    {
        "input_layernorm": "norm1",
        "post_attention_layernorm": "after1",
        "pre_feedforward_layernorm": "norm2",
        "post_feedforward_layernorm": "after2",
    }
)
KEYS = KeyTable(PAIRS, gemma.IGNORED)


def read_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors to ours."""
    return KEYS.read(whole_names(state))


def write_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ours to the published tensors."""
    return KEYS.write(state)


SYSTEM = System(
    name="gemma2",
    title="Gemma 2: Improving Open Language Models at a Practical Size (Gemma Team 2024)",
    role="language model",
    model_types=("gemma2",),
    build=Gemma2,
    read_config=read_config,
    write_config=write_config,
    read_state=read_state,
    write_state=write_state,
    preprocessing=lambda config: None,
    text=gemma.text,
    variants=VARIANTS,
    tiny=TINY,
    known_names={"Gemma2-2B": "google/gemma-2-2b", "Gemma2-9B": "google/gemma-2-9b"},
)
