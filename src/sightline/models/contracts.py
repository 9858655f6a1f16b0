"""What every system promises, as functions that anyone can run on a system of their own.

    from sightline.models.contracts import CONTRACTS
    for check in CONTRACTS: check(my_system)

Each check builds the system's tiny variant with random weights and raises AssertionError, with
what was expected and what came, when the promise is broken.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from sightline.core.interfaces import (
    WRITING_ROLES,
    Classifier,
    DualEncoder,
    MaskCodec,
    System,
    TextEncoder,
)
from sightline.core.outputs import (
    CodedMasks,
    EncodedImage,
    EncodedText,
    NextTokens,
    PairScores,
)
from sightline.models.tiny_inputs import (
    Batch,
    ids_of,
    masked_of,
    pixels_of,
    rows_of,
    tiny_network,
    words_of,
    written_of,
)
from sightline.models.writer_contracts import WRITER_CONTRACTS
from sightline.nn.linear import Conv2d, Linear
from sightline.nn.meta import without_memory
from sightline.nn.packed import pack
from sightline.nn.precision import lower


def builds_on_meta(system: System) -> None:
    """Building needs no memory on the meta device, for the tiny and every published variant."""
    for name, config in {"tiny": system.tiny, **system.variants}.items():
        with without_memory():
            network = system.build(config)
        assert all(p.is_meta for p in network.parameters()), f"{name} left the meta device"


def answers_with_its_role(system: System) -> None:
    """`forward` returns the role's NamedTuple; embeddings are finite, float32 and unit length."""
    output = _forward(system, tiny_network(system))
    if system.role in WRITING_ROLES:
        assert isinstance(output, NextTokens), type(output)
        expected = (*written_of(system).suffix.ids.shape, words_of(system).vocab_size)
        assert output.logits.shape == expected, output.logits.shape
        assert output.logits.dtype == torch.float32, output.logits.dtype
        assert output.logits.isfinite().all(), "logits are not finite"
        return
    if system.role == "image encoder":
        assert isinstance(output, EncodedImage), type(output)
        assert output.pooled.shape == (3, output.tokens.shape[-1]), output.pooled.shape
        assert output.tokens.isfinite().all(), "tokens are not finite"
        return
    if system.role == "text encoder":
        assert isinstance(output, EncodedText), type(output)
        assert output.tokens.shape[:2] == ids_of(system).shape, output.tokens.shape
        assert output.pooled.shape == (4, output.tokens.shape[-1]), output.pooled.shape
        assert output.tokens.isfinite().all(), "tokens are not finite"
        return
    if system.role == "mask codec":
        assert isinstance(output, CodedMasks), type(output)
        _goes_through_its_tokens(system, output)
        return
    assert isinstance(output, PairScores), type(output)
    for rows in (output.image_embeddings, output.text_embeddings):
        assert rows.dtype == torch.float32, rows.dtype
        assert torch.allclose(rows.norm(dim=-1), torch.ones(len(rows)), atol=1e-5), "not unit"
    assert output.logits.shape == (3, 4), output.logits.shape
    assert output.scale.shape == output.bias.shape == (), "scale and bias are single numbers"


def learns_everywhere(system: System) -> None:
    """A backward pass reaches every parameter with finite gradients.

    A layer that only a classification head reads (ViT's pooler) is not part of `forward`, and a
    loss of cosines alone does not reach an additive bias; both are asked through their own door.
    """
    network = tiny_network(system)
    output = _forward(system, network)
    if isinstance(output, PairScores):
        (output.logits * torch.randn_like(output.logits)).sum().backward()
    elif isinstance(output, NextTokens):
        output.logits.square().sum().backward()
    elif isinstance(output, EncodedText):
        (output.tokens.square().sum() + output.pooled.sum()).backward()
    elif isinstance(output, CodedMasks):
        (output.masks.square().sum() + output.codewords.square().sum()).backward()
    else:
        loss = output.tokens.square().sum()
        pre_logits: Callable[[Tensor], Tensor] | None = getattr(network, "pre_logits", None)
        if pre_logits is not None:
            loss = loss + pre_logits(output.pooled).sum()
        loss.backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None]
    assert not silent, f"no gradient reaches {silent}"
    broken = [name for name, p in network.named_parameters() if not _grad(p).isfinite().all()]
    assert not broken, f"gradients of {broken} are not finite"


@torch.no_grad()
def row_equals_batch_of_one(system: System) -> None:
    """A picture, a sentence or a prompt gets the same answer alone and in a batch (within 1e-5)."""
    network = tiny_network(system)
    for encode, batch in _encoders(system, network):
        together = encode(batch)
        alone = torch.cat([encode(row) for row in rows_of(batch)])
        gap = float((together - alone).abs().max())
        assert gap <= 1e-5 * max(1.0, float(together.abs().max())), f"differs by {gap:.2g}"


@torch.no_grad()
def masked_padding_changes_nothing(system: System) -> None:
    """Text encoders: neither more padding nor other ids in it move a sentence (within 1e-5)."""
    if system.role != "text encoder":
        return  # what a dual encoder does with padding is its own: SigLIP was trained to see it
    encode, (ids, mask) = cast(TextEncoder, tiny_network(system)), masked_of(system)
    together = encode(ids, mask)
    other = encode(torch.where(mask, ids, 5), mask)
    assert torch.equal(other.pooled, together.pooled), "ids in the padding are seen"
    for row in range(len(ids)):
        length = int(mask[row].sum())
        bare = encode(ids[row : row + 1, :length], mask[row : row + 1, :length])
        for a, b in ((bare.pooled[0], together.pooled[row]),
                     (bare.tokens[0], together.tokens[row, :length])):  # fmt: skip
            gap = float((a - b).abs().max())
            assert gap <= 1e-5 * max(1.0, float(b.abs().max())), f"padding moves it by {gap:.2g}"


@torch.no_grad()
def bfloat16_is_near(system: System) -> None:
    """Lowered weights move no embedding below cosine 0.9995 or by more than 2^-6 of the largest.

    Cosines are taken as they are: random networks agree too well with each other, but here both
    sides are the same network. Logits may move by 2^-5: nothing normalises them, and rounding the
    weights alone, with exact products, moved those of the tiny PaliGemma 2 by 2.9 %.
    """
    bound = 2**-5 if system.role in WRITING_ROLES else 2**-6
    network = tiny_network(system)
    full = [encode(batch) for encode, batch in _encoders(system, network)]
    lower(network, torch.bfloat16)
    kept = [m for m in network.modules() if not isinstance(m, (Linear, Conv2d))]
    own = [p for m in kept for p in m.parameters(recurse=False)]
    assert all(p.dtype == torch.float32 for p in own), "lowering touched more than linear layers"
    low = [encode(batch) for encode, batch in _encoders(system, network)]
    for a, b in zip(full, low, strict=True):
        assert b.dtype == torch.float32, b.dtype
        _near(a, b, bound)


@torch.no_grad()
def bfloat16_row_stays_near_its_batch(system: System) -> None:
    """With lowered weights a row alone and in a batch agree: cosine 0.9995, 2^-6 of the largest.

    Other shapes may take other kernels, which round elsewhere, so that tokens may differ.
    """
    network = lower(tiny_network(system), torch.bfloat16)
    for encode, batch in _encoders(system, network):
        alone = torch.cat([encode(row) for row in rows_of(batch)])
        _near(alone, encode(batch), 2**-6)


@torch.inference_mode()
def packed_is_near(system: System) -> None:
    """Weights in oneDNN's own order give the same embeddings within 1e-5, and return bit for bit.

    What `load` does where bfloat16 is fast, checked in float32, which every processor multiplies.
    """
    if not torch.backends.mkldnn.is_available():
        return
    network = tiny_network(system)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plain = [encode(batch) for encode, batch in _encoders(system, network)]
    pack(network)
    for a, b in zip(plain, (encode(x) for encode, x in _encoders(system, network)), strict=True):
        gap = float((a - b).abs().max())
        assert gap <= 1e-5 * max(1.0, float(a.abs().max())), f"packing moves it by {gap:.2g}"
    state = network.state_dict()
    assert state.keys() == before.keys(), state.keys() ^ before.keys()
    assert all(torch.equal(state[name], value) for name, value in before.items()), "weights moved"


def state_and_config_return(system: System) -> None:
    """Config and weights survive writing in the published layout and reading it back."""
    network = tiny_network(system)
    config = system.read_config(system.write_config(system.tiny))
    assert config == system.tiny, f"{config} is not {system.tiny}"
    back = system.build(config)
    bound = system.for_config(config)
    back.load_state_dict(bound.read_state(bound.write_state(network.state_dict())), strict=True)
    for name, value in network.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), f"{name} changed on the way"


def tells_labels_apart(system: System) -> None:
    """Image encoders with labels: one logit each, alone as in a batch; they survive writing.

    A dozen steps of gradient descent halve the cross-entropy of three pictures with three labels.
    """
    if not any(field.name == "labels" for field in fields(system.tiny)):
        return
    labels = ("cat", "a boat", "cat's tree")
    labelled = replace(system, tiny=replace(system.tiny, labels=labels))
    network, pixels = cast(Classifier, tiny_network(labelled)), cast(Tensor, pixels_of(labelled))
    logits = network.class_logits(network(pixels).pooled).detach()
    assert logits.shape == (3, 3), logits.shape
    alone = network.class_logits(network(pixels[:1]).pooled).detach()
    gap = (alone - logits[:1]).abs().max().item()
    assert gap <= 1e-5 * max(1.0, float(logits.abs().max())), f"alone it differs by {gap:.2g}"
    back = system.read_config(system.write_config(labelled.tiny)).labels
    assert back == labels, f"{back} came back"
    state = cast(nn.Module, network).state_dict()
    again = system.read_state(system.write_state(state))
    assert again.keys() == state.keys(), again.keys() ^ state.keys()
    first, last = _losses(network, pixels)
    assert last < first / 2, f"the loss went from {first:.3f} to {last:.3f}"


CONTRACTS: tuple[Callable[[System], None], ...] = (
    builds_on_meta,
    answers_with_its_role,
    learns_everywhere,
    row_equals_batch_of_one,
    masked_padding_changes_nothing,
    bfloat16_is_near,
    bfloat16_row_stays_near_its_batch,
    packed_is_near,
    state_and_config_return,
    tells_labels_apart,
    *WRITER_CONTRACTS,
)


def _losses(network: Classifier, pixels: Tensor) -> tuple[float, float]:
    """Cross-entropy of a label for each picture before and after a dozen steps."""
    targets = torch.arange(len(pixels))
    optimiser = torch.optim.AdamW(cast(nn.Module, network).parameters(), lr=0.01)
    losses = []
    for _ in range(13):
        logits = network.class_logits(network(pixels).pooled)
        loss = nn.functional.cross_entropy(logits, targets)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return losses[0], losses[-1]


def _goes_through_its_tokens(system: System, output: CodedMasks) -> None:
    codec = cast(MaskCodec, tiny_network(system))
    masks = cast(Tensor, pixels_of(system))
    assert output.masks.shape == masks.shape, output.masks.shape
    assert output.features.shape == output.codewords.shape, output.codewords.shape
    indices = codec.encode(masks)
    assert torch.equal(indices, output.indices), "forward and encode round differently"
    assert int(indices.min()) >= 0 and int(indices.max()) < system.tiny.codewords, indices
    gap = float((codec.decode(indices) - output.masks).detach().abs().max())
    assert gap <= 1e-5 * max(1.0, float(output.masks.detach().abs().max())), (
        f"decode differs by {gap:.2g}"
    )


Output = PairScores | EncodedImage | EncodedText | NextTokens | CodedMasks


def _forward(system: System, network: nn.Module) -> Output:
    inputs: tuple[Any, ...]
    if system.role in WRITING_ROLES:
        inputs = written_of(system)
    elif system.role == "dual encoder":
        inputs = (pixels_of(system), ids_of(system))
    elif system.role == "text encoder":
        inputs = masked_of(system)
    else:
        inputs = (pixels_of(system),)
    output: Output = network(*inputs)
    return output


def _encoders(system: System, network: nn.Module) -> list[tuple[Callable[[Any], Tensor], Batch]]:
    """What a system makes of its inputs: vectors, or for a network that writes logits [W, V]."""
    if system.role in WRITING_ROLES:
        return [(lambda batch: network(*batch).logits[batch.suffix.mask], written_of(system))]
    if system.role == "dual encoder":
        dual = cast(DualEncoder, network)
        return [(dual.encode_images, pixels_of(system)), (dual.encode_texts, ids_of(system))]
    if system.role == "text encoder":
        pad_id = words_of(system).pad_id
        return [(lambda ids: network(ids, ids != pad_id).pooled, ids_of(system))]
    if system.role == "mask codec":
        return [(lambda masks: network(masks).masks, pixels_of(system))]
    return [(lambda pixels: network(pixels).pooled, pixels_of(system))]


def _near(a: Tensor, b: Tensor, bound: float) -> None:
    """
    Args:
        bound: of the largest difference, of the largest value.
    """
    cosine = float(torch.cosine_similarity(a, b).min())
    assert cosine >= 0.9995, f"cosine {cosine:.5f}"
    gap = float((a - b).abs().max() / a.abs().max())
    assert gap <= bound, f"largest difference {gap:.4f} of the largest value"


def _grad(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
