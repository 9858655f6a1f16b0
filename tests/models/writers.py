"""Decoders of transformers with weights drawn anew, and the same prompts for them and for ours."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from sightline.core.interfaces import Prompt, TextBatch
from sightline.models.table import system
from tests.models.test_parity import randomise, transformers

BASE = {
    "hidden_size": 20, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 6, "intermediate_size": 28, "vocab_size": 99, "max_position_embeddings": 128,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip
SECOND = {
    **BASE, "query_pre_attn_scalar": 9, "sliding_window": 5, "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 3.0,
}  # fmt: skip
TOWER = {
    "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40,
    "image_size": 24, "patch_size": 8, "model_type": "siglip_vision_model",
    "vision_use_head": False,
}  # fmt: skip
IMAGE = 98
"""The token of a picture in the reference's prompts."""
SYSTEMS = {"gemma": "gemma", "gemma2": "gemma2", "paligemma": "paligemma",
           "paligemma2": "paligemma"}  # fmt: skip


def new_reference(name: str, **changes: Any) -> nn.Module:
    """The class of transformers, its weights as its constructor left them."""
    second = name.endswith("2")
    words: dict[str, Any] = {**(SECOND if second else BASE), **changes}
    if name.startswith("gemma"):
        kind = (transformers.Gemma2Config, transformers.Gemma2ForCausalLM) if second else (
            transformers.GemmaConfig, transformers.GemmaForCausalLM)  # fmt: skip
        return kind[1]._from_config(kind[0](**words), attn_implementation="eager")
    words["model_type"] = "gemma2" if second else "gemma"
    config = transformers.PaliGemmaConfig(
        text_config=words, vision_config={**TOWER, "projection_dim": words["hidden_size"]},
        projection_dim=words["hidden_size"], image_token_index=IMAGE, pad_token_id=0,
        eos_token_id=1, bos_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    return transformers.PaliGemmaForConditionalGeneration._from_config(
        config, attn_implementation="eager"
    )


def reference(name: str, **changes: Any) -> nn.Module:
    """The same with every parameter drawn anew."""
    return randomise(new_reference(name, **changes))


def read(name: str, folder: Path) -> nn.Module:
    """Ours, from the folder that the reference wrote."""
    entry = system(SYSTEMS[name])
    config = entry.read_config(json.loads((folder / "config.json").read_text()))
    ours = entry.build(config)
    state: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        state |= load_file(file)
    ours.load_state_dict(entry.read_state(state), strict=True)
    return ours.eval()


def prompts(name: str, pictures: tuple[int, ...] = (1, 2, 0, 1)) -> tuple[Prompt, TextBatch]:
    """Prompts and suffixes of unequal lengths, with unequal numbers of pictures."""
    generator = torch.Generator().manual_seed(6)

    def words(lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        return torch.randint(3, 97, mask.shape, generator=generator) * mask, mask

    seen: tuple[tuple[Tensor, ...], ...] = ()
    if name.startswith("paligemma"):
        seen = tuple(
            tuple(torch.randn(3, 24, 24, generator=generator) for _ in range(count))
            for count in pictures
        )
    return Prompt(*words((6, 2, 9, 1)), seen), TextBatch(*words((4, 7, 1, 3)))


def their_inputs(
    prompt: Prompt, suffix: TextBatch, picture: int = IMAGE
) -> tuple[dict[str, Tensor], list[list[int]]]:
    """What the reference takes, padded on the right, and where it predicts each written token.

    Args:
        picture: the token that stands for a picture.
    """
    rows, kinds, places = [], [], []
    for row in range(len(prompt.ids)):
        count = 9 * len(prompt.pictures[row]) if prompt.pictures else 0
        front = [picture] * count + prompt.ids[row, prompt.mask[row]].tolist()
        written = suffix.ids[row, suffix.mask[row]].tolist()
        rows.append(front + written)
        kinds.append([0] * len(front) + [1] * len(written))
        places.append([len(front) - 1 + n for n in range(len(written))])
    length = max(map(len, rows))
    inputs = {
        "input_ids": torch.tensor([row + [0] * (length - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(r) + [0] * (length - len(r)) for r in rows]),
    }
    if prompt.pictures:
        inputs["token_type_ids"] = torch.tensor([k + [1] * (length - len(k)) for k in kinds])
        shown = [picture for row in prompt.pictures for picture in row]
        inputs["pixel_values"] = torch.stack(shown) if shown else torch.empty(0, 3, 24, 24)
    return inputs, places


def their_outputs(
    network: nn.Module, prompt: Prompt, suffix: TextBatch, **options: Any
) -> dict[str, Tensor]:
    """Logits of the written tokens [W V] and, row by row, every layer's states."""
    token = getattr(network.config, "image_token_id", IMAGE)
    inputs, places = their_inputs(prompt, suffix, token)
    inputs = {k: v.to(network.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    out = network(**inputs, output_hidden_states=True, use_cache=False, **options)
    found = {"logits": torch.cat([out.logits[r, own] for r, own in enumerate(places)])}
    for number, states in enumerate(out.hidden_states[1:]):
        # the last token of a row predicts nothing, and ours does not read it
        found[f"layer {number}"] = torch.cat(
            [s[: own[-1] + 1] for s, own in zip(states, places, strict=True)]
        )
    if prompt.pictures:
        seen = network.model.get_image_features(inputs["pixel_values"]).pooler_output
        found["pictures"] = seen.flatten(0, 1)
    return found


def our_outputs(network: Any, prompt: Prompt, suffix: TextBatch) -> dict[str, Tensor]:
    """The same of ours. The reference's last layer comes behind the norm."""
    states: list[Tensor] = []
    kind = next(network.parameters()).dtype
    prompt = prompt._replace(
        pictures=tuple(tuple(p.to(kind) for p in row) for row in prompt.pictures)
    )
    *blocks, _ = network.decoder.blocks
    handles = [
        module.register_forward_hook(lambda m, i, out: states.append(out))
        for module in (*blocks, network.decoder.norm)
    ]
    try:
        logits = network(prompt, suffix).logits[suffix.mask]
    finally:
        for handle in handles:
            handle.remove()
    _, places = their_inputs(prompt, suffix)
    found = {"logits": logits}
    for number, state in enumerate(states):
        found[f"layer {number}"] = torch.cat(
            [s[: own[-1] + 1] for s, own in zip(state, places, strict=True)]
        )
    if prompt.pictures:
        pictures = [picture for row in prompt.pictures for picture in row]
        found["pictures"] = network.image_tokens(torch.stack(pictures)).flatten(0, 1)
    return found


def their_steps(network: nn.Module, prompt: Prompt, ids: Tensor) -> Tensor:
    """Logits [B T+1 V] behind the prompts and each further token, padded on the left, cached."""
    inputs, _ = their_inputs(prompt, TextBatch(ids[:, :0], torch.ones_like(ids[:, :0]).bool()))
    lengths = inputs["attention_mask"].sum(dim=1)
    longest = inputs["input_ids"].shape[1]
    shift = [longest - int(length) for length in lengths]
    first = 1 if prompt.pictures else 0
    for key in ("input_ids", "attention_mask"):
        inputs[key] = torch.stack(
            [row.roll(by) for row, by in zip(inputs[key], shift, strict=True)]
        )
    if prompt.pictures:
        inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    positions = (torch.arange(longest) - torch.tensor(shift)[:, None]).clamp_min(0) + first
    out = network(**inputs, position_ids=positions, use_cache=True)
    found, mask = [out.logits[:, -1]], inputs["attention_mask"]
    for step in range(ids.shape[1]):
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        out = network(
            input_ids=ids[:, step : step + 1],
            attention_mask=mask,
            position_ids=(lengths + step + first)[:, None],
            past_key_values=out.past_key_values,
            use_cache=True,
        )
        found.append(out.logits[:, -1])
    return torch.stack(found, dim=1)


def their_greedy(
    network: nn.Module, prompt: Prompt, rows: Iterable[int], count: int
) -> list[list[int]]:
    """The likeliest tokens behind some prompts, one prompt at a time, by its own `generate`."""
    network.generation_config.eos_token_id = None  # nothing ends before the last token
    answers = []
    for row in rows:
        own = prompt.mask[row : row + 1]
        alone = Prompt(
            prompt.ids[row, own[0]][None], own[own][None], prompt.pictures[row : row + 1]
        )
        empty = TextBatch(alone.ids[:, :0], alone.mask[:, :0])
        inputs, _ = their_inputs(alone, empty)
        if alone.pictures == ((),):
            del inputs["pixel_values"]
        out = network.generate(**inputs, max_new_tokens=count, do_sample=False, pad_token_id=0)
        answers.append(out[0, inputs["input_ids"].shape[1] :].tolist())
    return answers


def in_double(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The reference in float64, with the steps that it takes in float32 whatever its weights are.

    Angles stay float32, there as here.
    """

    def norm(self: Any, x: Tensor) -> Tensor:
        return self._norm(x) * (1.0 + self.weight)

    def softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.softmax(x, dim)

    network = network.double()
    for module in network.modules():
        if type(module).__name__ in ("GemmaRMSNorm", "Gemma2RMSNorm"):
            monkeypatch.setattr(type(module), "forward", norm)
        if hasattr(module, "scalar_embed_scale"):
            module.embed_scale = torch.tensor(module.scalar_embed_scale, dtype=torch.float64)
    monkeypatch.setattr(F, "softmax", softmax)
    return network


def agree(ours: Tensor, theirs: Tensor) -> bool:
    """Parity: 1e-5 of the largest value or of 1 in float32, 1e-9 in float64."""
    ours, theirs = ours.detach(), theirs.detach()
    part = 1e-9 if theirs.dtype == torch.float64 else 1e-5
    limit = part * max(1.0, float(theirs.abs().max()))
    return ours.shape == theirs.shape and float((ours - theirs).abs().max()) <= limit


def disagreeing(theirs: nn.Module, ours: nn.Module, name: str) -> set[str]:
    """Names of outputs that are not alike."""
    batch = prompts(name)
    with torch.no_grad():
        expected, found = their_outputs(theirs, *batch), our_outputs(ours, *batch)
    return {key for key in expected if not agree(found[key], expected[key])}
