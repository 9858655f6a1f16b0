"""Gemma: Open Models Based on Gemini Research and Technology.

Gemma Team, Google DeepMind, 2024, https://arxiv.org/abs/2403.08295. Reads and writes the layout of
the `google/gemma-2b` and `google/gemma-7b` checkpoints (transformers' GemmaForCausalLM).

A decoder with rotary positions, keys and values of one head for all queries (2B) and a gated MLP.
Three things of its own: norms multiply by 1 + weight; vectors of tokens are multiplied by the
square root of their width, rounded to the number type of the table; heads are wider than width by
heads would give. The table scores tokens as well.

Differs from the paper: nothing in the network.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from sightline.core.interfaces import System
from sightline.inputs.tokenizers import TextSpec
from sightline.models.keys import KeyTable
from sightline.models.published import field, section, token
from sightline.nn.attention import Attention
from sightline.nn.blocks import DecoderBlock
from sightline.nn.decoder import Decoder
from sightline.nn.linear import TokenTable
from sightline.nn.mlp import GatedMLP
from sightline.nn.norms import RMSNorm
from sightline.nn.rotary import turns
from sightline.nn.writer import Writer


@dataclass(frozen=True)
class GemmaConfig:
    """One decoder."""

    width: int
    depth: int
    num_heads: int
    kv_heads: int
    head_size: int
    mlp_width: int
    vocab_size: int = 256000
    context_length: int = 8192
    activation: str = "gelu_pytorch_tanh"
    norm_eps: float = 1e-6
    rope_base: float = 10000.0
    pad_id: int = 0
    eos_id: int = 1
    bos_id: int = 2


# Table 1 of the paper.
VARIANTS = {
    "2B": GemmaConfig(2048, 18, 8, 1, 256, 16384),
    "7B": GemmaConfig(3072, 28, 16, 16, 256, 24576),
}

TINY = GemmaConfig(
    width=20, depth=3, num_heads=4, kv_heads=2, head_size=6, mlp_width=28, vocab_size=99,
    context_length=64,
)  # fmt: skip


class Gemma(Writer):
    """Tokens to next tokens."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__(decoder(config))
        initialise(self)


def decoder(
    config: GemmaConfig,
    *,
    first_position: int = 0,
    scale: float | None = None,
    attention_cap: float | None = None,
    logit_cap: float | None = None,
    norms_behind: bool = False,
    windows: Sequence[int | None] = (),
) -> Decoder:
    """The stack; also PaliGemma's and, with all that is new there, Gemma 2's.

    Args:
        first_position, logit_cap, windows: as in `nn.decoder.Decoder`.
        scale, attention_cap: as in `nn.attention.Attention`.
        norms_behind: whether what each half of a block adds is normalised as well.
    """
    norm = partial(RMSNorm, config.width, eps=config.norm_eps, offset=1.0)

    def block() -> DecoderBlock:
        attention = Attention(
            config.width,
            config.num_heads,
            kv_heads=config.kv_heads,
            head_size=config.head_size,
            bias=False,
            out_bias=False,
            scale=scale,
            cap=attention_cap,
        )
        mlp = GatedMLP(config.width, config.mlp_width, config.activation)
        behind = [norm(), norm()] if norms_behind else [None, None]
        return DecoderBlock(norm(), attention, norm(), mlp, *behind)

    return Decoder(
        TokenTable(config.vocab_size, config.width, scale=config.width**0.5),
        (block() for _ in range(config.depth)),
        norm(),
        partial(turns, head_size=config.head_size, base=config.rope_base),
        windows=windows,
        cap=logit_cap,
        first_position=first_position,
    )


def initialise(network: nn.Module) -> None:
    """First values of tables and linear layers; norms keep theirs.

    A vector that is looked up has components of variance 1 behind its factor, as the stream needs
    it; the paper says nothing about first values.
    """
    for module in network.modules():
        if isinstance(module, TokenTable):
            nn.init.normal_(module.weight, std=1 / module.scale)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def text(config: GemmaConfig) -> TextSpec:
    """As the folder's files say, the begin token in front."""
    return TextSpec(max_length=config.context_length, pad_id=config.pad_id, end_token=False)


def read_config(config: Mapping[str, Any]) -> GemmaConfig:
    """A published config.json to ours; absent fields take transformers' defaults."""
    return GemmaConfig(
        width=field(config, "hidden_size", 3072),
        depth=field(config, "num_hidden_layers", 28),
        num_heads=field(config, "num_attention_heads", 16),
        kv_heads=field(config, "num_key_value_heads", 16),
        head_size=field(config, "head_dim", 256),
        mlp_width=field(config, "intermediate_size", 24576),
        **read_shared(config, "hidden_act"),
    )


def read_shared(config: Mapping[str, Any], activation: str) -> dict[str, Any]:
    """Fields that both generations have.

    Args:
        activation: the field that names it. Early files say "gelu" and mean its tanh form.
    """
    rope = section(config, "rope_parameters") or config  # older writers: at the top
    named = field(config, activation, "gelu_pytorch_tanh")
    return {
        "vocab_size": field(config, "vocab_size", 256000),
        "context_length": field(config, "max_position_embeddings", 8192),
        "activation": "gelu_pytorch_tanh" if named == "gelu" else named,
        "norm_eps": field(config, "rms_norm_eps", 1e-6),
        "rope_base": field(rope, "rope_theta", 10000.0),
        "pad_id": field(config, "pad_token_id", 0),
        "eos_id": token(config, "eos_token_id", 1),
        "bos_id": field(config, "bos_token_id", 2),
    }


def write_config(config: GemmaConfig) -> dict[str, Any]:
    """Ours to what transformers reads."""
    return {
        "architectures": ["GemmaForCausalLM"],
        "model_type": "gemma",
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.mlp_width,
        "hidden_act": config.activation,
        **write_shared(config),
    }


def write_shared(config: Any) -> dict[str, Any]:
    """The inverse of `read_shared`, less the activation."""
    return {
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,
        "rope_parameters": {"rope_theta": config.rope_base, "rope_type": "default"},
        "tie_word_embeddings": True,
        "pad_token_id": config.pad_id,
        "eos_token_id": config.eos_id,
        "bos_token_id": config.bos_id,
    }


def decoder_keys(norms: Mapping[str, str]) -> dict[str, str]:
    """The pairs of published and own names of a decoder.

    Args:
        norms: the published names of a block's norms to ours.
    """
    layer, block = "model.layers.*", "decoder.blocks.*"
    return {
        "model.embed_tokens.weight": "decoder.table.weight",
        **{f"{layer}.{published}.weight": f"{block}.{own}.weight"
           for published, own in norms.items()},
        f"{layer}.self_attn.q_proj.*": f"{block}.attention.q.*",
        f"{layer}.self_attn.k_proj.*": f"{block}.attention.k.*",
        f"{layer}.self_attn.v_proj.*": f"{block}.attention.v.*",
        f"{layer}.self_attn.o_proj.*": f"{block}.attention.out.*",
        f"{layer}.mlp.gate_proj.*": f"{block}.mlp.gate.*",
        f"{layer}.mlp.up_proj.*": f"{block}.mlp.up.*",
        f"{layer}.mlp.down_proj.*": f"{block}.mlp.down.*",
        "model.norm.weight": "decoder.norm.weight",
    }  # fmt: skip


# The head is the table; some writers store it twice.
IGNORED = ("lm_head.weight", "model.layers.*.self_attn.rotary_emb.inv_freq")
PAIRS = decoder_keys({"input_layernorm": "norm1", "post_attention_layernorm": "norm2"})
KEYS = KeyTable(PAIRS, IGNORED)


_BARE = re.compile(r"^(?=(embed_tokens|layers|norm)\.)")


def whole_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with the decoder's own level in front, which files of the bare decoder lack."""
    return {_BARE.sub("model.", name): tensor for name, tensor in state.items()}


def read_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors to ours."""
    return KEYS.read(whole_names(state))


def write_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ours to the published tensors."""
    return KEYS.write(state)


SYSTEM = System(
    name="gemma",
    title="Gemma: Open Models Based on Gemini Research and Technology (Gemma Team 2024)",
    role="language model",
    model_types=("gemma",),
    build=Gemma,
    read_config=read_config,
    write_config=write_config,
    read_state=read_state,
    write_state=write_state,
    preprocessing=lambda config: None,
    text=text,
    variants=VARIANTS,
    tiny=TINY,
    known_names={"Gemma-2B": "google/gemma-2b", "Gemma-7B": "google/gemma-7b"},
)
