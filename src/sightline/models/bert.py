"""BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding.

Jacob Devlin, Ming-Wei Chang, Kenton Lee, Kristina Toutanova, NAACL 2019,
https://arxiv.org/abs/1810.04805. Reads and writes the layout of the `google-bert/bert-*`
checkpoints (transformers' BertModel); the heads of pre-training in the same files are left out.

A sentence is cut into word pieces, with [CLS] in front and [SEP] behind. Each piece is the sum of
three learned vectors: what it is, where it stands, and which of two segments it belongs to. A
transformer mixes them in both directions, with its norms behind each half instead of before it
(post-norm), and a norm after the sum. The [CLS] position is the sentence's vector: either as it is
("cls"), or through the dense tanh layer that next-sentence prediction was trained on ("pooler").

Padding is attended to unless it is masked, so `forward` asks for the mask.

Differs from the paper: nothing in the encoder. Masked-word and next-sentence heads are not here.
"Pooler" is the default because the published files carry it and transformers answers with it; as
a measure of similarity neither vector was trained for anything before fine-tuning.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sightline.core.errors import CheckpointError, ConfigError, InputError, unknown_name
from sightline.core.interfaces import System
from sightline.core.outputs import EncodedText
from sightline.inputs.tokenizers import TextSpec
from sightline.models.keys import KeyTable
from sightline.models.published import field, read_transformer, write_transformer
from sightline.nn.blocks import Block, Transformer
from sightline.nn.linear import Linear
from sightline.nn.masks import present_keys
from sightline.nn.norms import LayerNorm, at_least_float32

logger = logging.getLogger(__name__)

POOLINGS = ("pooler", "cls")
"""How a sentence's vector is taken."""


@dataclass(frozen=True)
class BERTConfig:
    """Everything that shapes the network.

    Raises:
        ConfigError: an unknown pooling, or "pooler" without a pooler.
    """

    width: int
    depth: int
    num_heads: int
    mlp_width: int
    vocab_size: int = 30522
    context_length: int = 512
    segments: int = 2
    """Token types: which of two sentences a piece belongs to."""
    activation: str = "gelu"
    norm_eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    pad_id: int = 0
    pooling: str = "pooler"
    """One of `POOLINGS`: tanh of a dense layer over [CLS], or [CLS] as it is."""
    pooler: bool = True
    """Whether the checkpoint carries the dense layer; it is kept where it is not used."""

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ConfigError(unknown_name("pooling", self.pooling, POOLINGS))
        if self.pooling == "pooler" and not self.pooler:
            raise ConfigError("pooling 'pooler' in a network without a pooler: use 'cls'")


# Section 3 of the paper; the vocabularies from the released files. The smaller sizes are those of
# Turc et al. 2019 (arXiv:1908.08962), table 1.
_SHAPES: dict[str, dict[str, Any]] = {
    "base": {"width": 768, "depth": 12, "num_heads": 12, "mlp_width": 3072},
    "large": {"width": 1024, "depth": 24, "num_heads": 16, "mlp_width": 4096},
    "tiny": {"width": 128, "depth": 2, "num_heads": 2, "mlp_width": 512},
    "mini": {"width": 256, "depth": 4, "num_heads": 4, "mlp_width": 1024},
    "small": {"width": 512, "depth": 4, "num_heads": 8, "mlp_width": 2048},
    "medium": {"width": 512, "depth": 8, "num_heads": 8, "mlp_width": 2048},
}
VARIANTS = {
    **{f"{size}-uncased": BERTConfig(**shape) for size, shape in _SHAPES.items()},
    "base-cased": BERTConfig(**_SHAPES["base"], vocab_size=28996),
    "large-cased": BERTConfig(**_SHAPES["large"], vocab_size=28996),
    "base-multilingual-uncased": BERTConfig(**_SHAPES["base"], vocab_size=105879),
    "base-multilingual-cased": BERTConfig(**_SHAPES["base"], vocab_size=119547),
}

TINY = BERTConfig(
    width=20, depth=3, num_heads=2, mlp_width=36, vocab_size=99, context_length=11, segments=3
)


class BERT(nn.Module):
    """Token ids to one vector a token and one a sentence."""

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.pooling, self.dropout = config.pooling, config.dropout
        # The padding's row gets no gradient, as in the reference.
        self.embedding = nn.Embedding(config.vocab_size, config.width, config.pad_id)
        self.positions = nn.Parameter(torch.zeros(config.context_length, config.width))
        self.segments = nn.Embedding(config.segments, config.width)
        self.norm_in = LayerNorm(config.width, eps=config.norm_eps)
        self.transformer = Transformer(
            Block(
                config.width,
                config.num_heads,
                config.mlp_width,
                activation=config.activation,
                norm_eps=config.norm_eps,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                post_norm=True,
            )
            for _ in range(config.depth)
        )
        self.pooler = Linear(config.width, config.width) if config.pooler else None
        self._initialise()

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        mask: Bool[Tensor, "B T"],
        segments: Int[Tensor, "B T"] | None = None,
    ) -> EncodedText:
        """Sentences of at most `context_length` tokens, [CLS] first.

        Args:
            mask: True where a token is text; the others are seen by nobody.
            segments: which sentence of a pair a token belongs to; None puts all into the first.

        Returns:
            tokens float[B, T, D] behind the last norm, those of the padding included (they mean
            nothing), and pooled float32[B, D].

        Raises:
            InputError: more tokens than there are positions.
        """
        length = ids.shape[1]
        if length > len(self.positions):
            raise InputError(
                f"a text of {length} tokens: this network has positions for "
                f"{len(self.positions)}; cut it first"
            )
        kind = self.segments.weight[0] if segments is None else self.segments(segments)
        x = self.norm_in(self.embedding(ids) + kind + self.positions[:length])  # [B T D]
        x = F.dropout(x, self.dropout, self.training)
        tokens = self.transformer(x, present_keys(mask))  # [B T D]
        first = tokens[:, 0]  # [B D]
        return EncodedText(
            tokens=tokens, pooled=first if self.pooling == "cls" else self.pooler_output(first)
        )

    def pooler_output(self, first: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """The [CLS] vectors through the dense tanh layer of pre-training (section 3.1)."""
        assert self.pooler is not None, "this checkpoint has no pooler"
        return at_least_float32(self.pooler(first)).tanh()

    def _initialise(self) -> None:
        """The released code: a deviation of 0.02 everywhere."""
        nn.init.normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, (Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, Linear):
                nn.init.zeros_(module.bias)


def text(config: BERTConfig) -> TextSpec:
    """At most `context_length` ids, [CLS] and [SEP] included; the files decide about case."""
    return TextSpec(max_length=config.context_length, padding="longest", pad_id=config.pad_id)


def read_config(config: Mapping[str, Any]) -> BERTConfig:
    """A published config.json to ours; absent fields take transformers' defaults.

    `pooling` and `pooler` are fields of ours; whether a published file has the pooler is not
    written anywhere, see `match_config`.

    Raises:
        CheckpointError: a BERT that is another network under the same name.
    """
    if field(config, "is_decoder", False) or field(config, "add_cross_attention", False):
        raise CheckpointError(
            "config.json describes a BERT that decodes (is_decoder or add_cross_attention): "
            "only the encoder is read here"
        )
    positions = field(config, "position_embedding_type", "absolute")
    if positions != "absolute":
        raise CheckpointError(
            f"config.json: 'position_embedding_type' is {positions!r}; only 'absolute' is read here"
        )
    return BERTConfig(
        **read_transformer(config, 768, 12, 12, 3072, "gelu", 1e-12),
        vocab_size=field(config, "vocab_size", 30522),
        context_length=field(config, "max_position_embeddings", 512),
        segments=field(config, "type_vocab_size", 2),
        dropout=field(config, "hidden_dropout_prob", 0.1),
        attention_dropout=field(config, "attention_probs_dropout_prob", 0.1),
        pad_id=field(config, "pad_token_id", 0),
        pooling=field(config, "pooling", "pooler"),
        pooler=field(config, "pooler", True),
    )


def write_config(config: BERTConfig) -> dict[str, Any]:
    """Ours to what transformers reads.

    transformers has no name for "cls": it loads such a folder and answers with its pooler.
    """
    written = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        **write_transformer(config),
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "type_vocab_size": config.segments,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "pad_token_id": config.pad_id,
    }
    if config.pooling != "pooler":
        written |= {"pooling": config.pooling, "pooler": config.pooler}
    return written


def match_config(config: BERTConfig, published: Mapping[str, Tensor]) -> BERTConfig:
    """Files of masked-word models have no pooler, and the same config.json: [CLS] is taken then."""
    if any(name.endswith("pooler.dense.weight") for name in published) or not config.pooler:
        return config
    logger.info("the weights have no pooler: a sentence's vector is its [CLS] as it is")
    return replace(config, pooler=False, pooling="cls")


_LAYER, _BLOCK = "encoder.layer.*", "transformer.blocks.*"
KEYS = KeyTable(
    {
        "embeddings.word_embeddings.weight": "embedding.weight",
        "embeddings.position_embeddings.weight": "positions",
        "embeddings.token_type_embeddings.weight": "segments.weight",
        "embeddings.LayerNorm.*": "norm_in.*",
        f"{_LAYER}.attention.self.query.*": f"{_BLOCK}.attention.q.*",
        f"{_LAYER}.attention.self.key.*": f"{_BLOCK}.attention.k.*",
        f"{_LAYER}.attention.self.value.*": f"{_BLOCK}.attention.v.*",
        f"{_LAYER}.attention.output.dense.*": f"{_BLOCK}.attention.out.*",
        f"{_LAYER}.attention.output.LayerNorm.*": f"{_BLOCK}.norm1.*",
        f"{_LAYER}.intermediate.dense.*": f"{_BLOCK}.mlp.fc1.*",
        f"{_LAYER}.output.dense.*": f"{_BLOCK}.mlp.fc2.*",
        f"{_LAYER}.output.LayerNorm.*": f"{_BLOCK}.norm2.*",
        "pooler.dense.*": "pooler.*",
    },
    # Ranges that old writers stored as buffers.
    ignored=("embeddings.position_ids", "embeddings.token_type_ids"),
)
# Masked words and next sentence; the heads of fine-tuned classes. The encoder is this system.
_HEADS = ("cls.", "classifier.", "qa_outputs.")


def read_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors to ours: any class's `bert.` level, and TensorFlow's names of a norm."""
    return KEYS.read(
        {_modern(key): tensor for key, tensor in state.items() if not key.startswith(_HEADS)}
    )


def _modern(key: str) -> str:
    """The spelling of today: files converted from TensorFlow say gamma and beta."""
    key = key.removeprefix("bert.")
    for old, new in (("gamma", "weight"), ("beta", "bias")):
        if key.endswith(f"LayerNorm.{old}"):
            return key.removesuffix(old) + new
    return key


SYSTEM = System(
    name="bert",
    title="BERT (Devlin et al. 2019)",
    role="text encoder",
    model_types=("bert",),
    build=BERT,
    read_config=read_config,
    write_config=write_config,
    read_state=read_state,
    write_state=KEYS.write,
    preprocessing=lambda config: None,
    text=text,
    variants=VARIANTS,
    tiny=TINY,
    match_config=match_config,
    known_names={
        "bert-base-uncased": "google-bert/bert-base-uncased",
        "bert-base-cased": "google-bert/bert-base-cased",
        "bert-large-uncased": "google-bert/bert-large-uncased",
    },
)
