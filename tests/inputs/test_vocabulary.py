"""Vocabularies learned here: the rules of SigLIP and CLIP hold, and the reference loads them."""

import json

import pytest
import torch

from sightline.core.errors import ConfigError
from sightline.inputs.tokenizers import TextSpec, load_tokenizer
from sightline.inputs.vocabulary import train_vocabulary

WORDS = ["red", "blue", "bench", "tree", "umbrella", "there is a", "beside the", "two", "on"]
TEXTS = [f"There is a {a} {b}, {c}." for a in WORDS for b in WORDS for c in WORDS]


def test_siglip_rules_hold() -> None:
    tokenizer = train_vocabulary(TEXTS, 200, "siglip", max_length=12)
    batch = tokenizer(["a RED bench!", "a blue tree beside the red umbrella"])
    assert batch.ids.shape == (2, 12)
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.spec.max_length) == (1, 1, 12)
    assert tokenizer.vocab_size <= 200
    lengths = batch.mask.sum(1)
    for row, length in zip(batch.ids, lengths, strict=True):
        assert (row[length - 1 :] == 1).all() and 1 not in row[: length - 1]
    assert tokenizer.decode(batch.ids[0].tolist()) == "a red bench"


def test_clip_rules_hold() -> None:
    tokenizer = train_vocabulary(TEXTS, 700, "clip", max_length=32)
    batch = tokenizer(["a red bench!", "there is a blue tree", "naïve 北京 ✓"])
    assert tokenizer.vocab_size <= 700
    assert tokenizer.eos_id == tokenizer.vocab_size - 1 == tokenizer.pad_id
    first = (batch.ids == tokenizer.eos_id).int().argmax(1)
    assert torch.equal(first, batch.ids.argmax(1)) and torch.equal(first + 1, batch.mask.sum(1))
    assert (batch.ids[:, 0] == tokenizer.bos_id).all()
    assert tokenizer.decode(batch.ids[2].tolist()) == "naïve 北京 ✓"


def test_bert_rules_hold() -> None:
    tokenizer = train_vocabulary(TEXTS, 300, "bert", max_length=12)
    batch = tokenizer(["a RED bench!", "there is a blue tree", "naïve 北京 ✓"])
    assert tokenizer.vocab_size <= 300
    special = [tokenizer.token_id(f"[{name}]") for name in ("PAD", "UNK", "CLS", "SEP", "MASK")]
    assert special == [0, 1, 2, 3, 4] and (tokenizer.pad_id, tokenizer.eos_id) == (0, None)
    assert (batch.ids[:, 0] == 2).all() and ((batch.ids == 3).sum(1) == 1).all()
    assert torch.equal(batch.mask, batch.ids != 0)
    assert tokenizer.decode(batch.ids[0].tolist()) == "a red bench!"
    assert batch.ids[2].tolist().count(1) == 3  # letters that no text held are unknown


def test_bert_vocabularies_spell_rare_words_and_keep_frequent_letters() -> None:
    texts = [*TEXTS, "naïve Ünïcödé 北京 北 ñandú", "Ωmega ΩΩ ж"] * 3
    tokenizer = train_vocabulary(texts, 400, "bert")
    assert all(len(tokenizer.encode(word)) == 1 for word in ["red", "umbrella", "bench"])
    assert 1 not in tokenizer.encode("zebra quiz 123 naive 北京 ωx")
    assert tokenizer.decode(tokenizer.encode("zebra quiz")) == "zebra quiz"
    crowded = [*TEXTS, "".join(map(chr, range(0x4E00, 0x5200)))]
    small = train_vocabulary(crowded, 200, "bert")
    assert small.vocab_size <= 200 and 1 not in small.encode("zebra")


def test_frequent_words_are_one_token_and_rare_ones_are_spelled() -> None:
    tokenizer = train_vocabulary(TEXTS, 200)
    assert all(len(tokenizer.encode(word)) == 1 for word in ["red", "umbrella", "bench"])
    assert len(tokenizer.encode("zebra")) == 6
    assert tokenizer.decode(tokenizer.encode("zebra")) == "zebra"
    assert tokenizer.encode("北") == [tokenizer.token_id("\u2581"), 2]


@pytest.mark.parametrize("rules", ["siglip", "clip", "bert"])
def test_equal_texts_give_equal_vocabularies(rules) -> None:
    first, second = (train_vocabulary(iter(TEXTS), 650, rules).backend.to_str() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("rules", ["siglip", "clip", "bert"])
def test_spelled_special_tokens_stay_text(rules) -> None:
    tokenizer = train_vocabulary([*TEXTS, "<|endoftext|> </s> <pad>"], 700, rules)
    control = {tokenizer.eos_id, tokenizer.bos_id, 0 if rules == "siglip" else None}
    control |= {0, 2, 3, 4} if rules == "bert" else set()
    for text in ["</s>", "a <pad> b", "<|endoftext|>", "x<|startoftext|>", "[CLS] a[SEP]"]:
        assert control.isdisjoint(tokenizer.encode(text))


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("model_type", [None, "siglip", "clip", "bert"])
@pytest.mark.parametrize("rules", ["siglip", "clip", "bert"])
def test_the_reference_loads_what_is_saved(tmp_path, rules, model_type, keep) -> None:
    import transformers

    tokenizer = train_vocabulary(TEXTS, 650, rules, max_length=10, keep_punctuation=keep)
    tokenizer.save(tmp_path)
    if model_type is not None:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = ["A red bench, there!", "zebra", "", "two  trees on the BLUE umbrella " * 3]
    ours = tokenizer(texts)
    found = theirs(texts, padding=tokenizer.spec.padding, truncation=True, return_tensors="pt",
                   max_length=10)  # fmt: skip
    assert torch.equal(ours.ids, found["input_ids"])
    again = load_tokenizer(tmp_path, TextSpec(10, tokenizer.spec.padding))
    assert torch.equal(again(texts).ids, ours.ids)


@pytest.mark.parametrize(("size", "rules", "message"), [
    (20, "siglip", "a vocabulary of 20 ids: 'siglip' needs at least 64"),
    (512, "clip", "'clip' needs at least 600"),
    (100, "bert", "'bert' needs at least 128"),
    (512, "siglp", "unknown rules 'siglp': did you mean 'siglip'"),
])  # fmt: skip
def test_sizes_and_rules_that_cannot_be_are_refused(size, rules, message) -> None:
    with pytest.raises(ConfigError, match=message):
        train_vocabulary(TEXTS, size, rules)
