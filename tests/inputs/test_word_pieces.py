"""BERT's word pieces from every kind of folder, beside the reference's own class."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.errors import CheckpointError
from sightline.inputs.tokenizers import TextSpec, load_tokenizer
from sightline.inputs.vocabulary import train_vocabulary

transformers = pytest.importorskip("transformers")  # the reference; part of the test extra

TEXTS = ["A photo of two cats, isn't it?", "naïve café in Zürich", "北京 is a city", "the red ball",
         "unaffable photographers photographed", "don't run 12 fish & 7 boats!"] * 3  # fmt: skip

AWKWARD = [
    "", " ", "a", "\t\n\r a \u3000b\u00a0c", "UPPER lower MiXeD", "Ünïcödé ÀÉÎÕÜ ñ ß İ \u0131 ﬁ",
    "e\u0301 e\u0301\u0323 a\u030a", "北京市 is 東京, 한국어 日本語カタカナ",
    "\U00020000\U0002a6df ideographs", "\x00nul\x01\x07\x1b[0m\x7f",
    "zero\u200bwidth\u200d\ufeff", "soft\u00adhyphen", "\ufffd\ufffe",
    "!!! ??? ... -- __ $5.00 #tag @you a/b\\c", "«quotes» “curly” \u2018x\u2019 — … ¿qué?",
    "۱۲۳ مرحبا नमस्ते ไทย",
    "👩‍👩‍👧‍👦 👍🏽 🏴‍☠️ ❤️", "x" * 100, "x" * 101, "x" * 300 + " a", "photo" * 21, "the cat " * 60,
    "[CLS] a [SEP]", "[MASK] the [PAD] b [UNK]", "[cls] [ MASK ]", "a[SEP]b", "##s ##", "[SEP]" * 3,
    "line\u2028separator\u2029next\x85line", "\U0010fffd", "1st 2nd 3.14e-8", "a\u0300\u0301\u0302",
]  # fmt: skip


@pytest.fixture(scope="module")
def words() -> list[str]:
    """A vocabulary with pieces of most kinds, and one that a naive reader would cut in two."""
    vocabulary = train_vocabulary([*TEXTS, *AWKWARD], 700, "bert").backend.get_vocab()
    listed = sorted(vocabulary, key=vocabulary.__getitem__)
    return [*listed, "un\u2028cut", "Cat", "É", "##É"]


def folder_of(folder: Path, words: list[str], kind: str, **config: Any) -> Path:
    """A checkpoint's tokenizer as a bare vocab.txt, or as a tokenizer.json of the reference."""
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "model_max_length": 512, **config})
    )
    if kind == "tokenizer.json":
        theirs = transformers.BertTokenizer.from_pretrained(folder)
        theirs.backend_tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "vocab.txt").unlink()
    return folder


KINDS = ["vocab.txt", "tokenizer.json"]
CASES = {
    "uncased": {"do_lower_case": True},
    "cased": {"do_lower_case": False},
    "unsaid": {},
    "accents kept": {"do_lower_case": True, "strip_accents": False},
    "accents dropped": {"do_lower_case": False, "strip_accents": True},
    "chinese in words": {"tokenize_chinese_chars": False},
}


@pytest.fixture(scope="module", params=[(k, c) for k in KINDS for c in CASES], ids=": ".join)
def pair(request, words, tmp_path_factory):
    kind, case = request.param
    folder = folder_of(tmp_path_factory.mktemp("bert") / "m", words, kind, **CASES[case])
    return load_tokenizer(folder, TextSpec(512)), transformers.BertTokenizer.from_pretrained(folder)


def test_ids_and_masks_equal_the_reference(pair):
    ours, theirs = pair
    expected = theirs(AWKWARD + TEXTS, padding=True, truncation=True, return_tensors="pt")
    got = ours(AWKWARD + TEXTS, trusted=True)
    for row, text in enumerate(AWKWARD + TEXTS):
        assert got.ids[row].tolist() == expected["input_ids"][row].tolist(), repr(text)
    assert torch.equal(got.mask.long(), expected["attention_mask"])
    assert ours.vocab_size == len(theirs)
    names = ("pad", "unk", "cls", "sep", "mask")
    assert [ours.token_id(f"[{n.upper()}]") for n in names] == list(range(5))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(text=st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.lists(st.sampled_from([*AWKWARD[:30], "cat", "Cat", " ", "[SEP]"]), max_size=5).map("".join),
))  # fmt: skip
def test_ids_equal_the_reference_for_any_text(pair, text):
    ours, theirs = pair
    assert (
        ours([text], trusted=True).ids[0].tolist()
        == theirs(text, truncation=True, max_length=512)["input_ids"]
    )


def test_untrusted_text_never_becomes_a_special_token(pair):
    ours, _ = pair
    reference = transformers.BertTokenizer.from_pretrained(
        ours.files.folder, split_special_tokens=True
    )
    for text in AWKWARD:
        ids = ours.encode(text)
        assert {0, 2, 3, 4}.isdisjoint(ids), text
        assert [2, *ids[:510], 3] == reference(text, truncation=True, max_length=512)["input_ids"]


@pytest.mark.parametrize("length", [3, 5, 8])
def test_cut_texts_keep_both_ends(words, tmp_path, length):
    folder = folder_of(tmp_path / "m", words, "vocab.txt")
    ours = load_tokenizer(folder, TextSpec(length))
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    expected = theirs(TEXTS, padding=True, truncation=True, max_length=length, return_tensors="pt")
    assert torch.equal(ours(TEXTS).ids, expected["input_ids"])
    assert (ours(TEXTS).ids[:, 0] == 2).all() and ours(["a " * 50]).ids[0, -1] == 3


def test_the_classes_setting_rules_over_the_files_own(words, tmp_path):
    """A cased config beside an uncased tokenizer.json, as half-converted folders have it."""
    folder = folder_of(tmp_path / "m", words, "tokenizer.json", do_lower_case=True)
    for config in ({"tokenizer_class": "BertTokenizer", "do_lower_case": False},
                   {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False},
                   {"do_lower_case": False}):  # fmt: skip
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        theirs = transformers.BertTokenizer.from_pretrained(folder)
        ours = load_tokenizer(folder, TextSpec(512))
        assert ours(["Cat cat"]).ids[0].tolist() == theirs("Cat cat")["input_ids"]
        assert ours.pad_id == 0
    (folder / "tokenizer_config.json").unlink()  # then the file decides
    assert len(set(load_tokenizer(folder, TextSpec(512))(["Cat cat"]).ids[0, 1:3].tolist())) == 1


def test_saved_folders_load_here_and_in_the_reference(pair, tmp_path):
    ours, theirs = pair
    ours.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    first = ours(AWKWARD, trusted=True).ids
    assert torch.equal(load_tokenizer(tmp_path, TextSpec(512))(AWKWARD, trusted=True).ids, first)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert type(again) is type(theirs)
    found = again(AWKWARD, padding=True, truncation=True, max_length=512, return_tensors="pt")
    assert torch.equal(found["input_ids"], first) and "token_type_ids" in found


def test_a_bare_vocabulary_needs_no_other_file(words, tmp_path):
    folder = folder_of(tmp_path / "m", words, "vocab.txt")
    (folder / "tokenizer_config.json").unlink()
    ours = load_tokenizer(folder, TextSpec(16, pad_id=0))
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    assert ours(["A Cat, 北京"]).ids[0].tolist() == theirs("A Cat, 北京")["input_ids"]
    ours.save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved/tokenizer_config.json").read_text())
    assert saved["tokenizer_class"] == "BertTokenizer"


def test_windows_line_ends_and_doubled_words_read_as_in_the_reference(words, tmp_path):
    folder = folder_of(tmp_path / "m", words, "vocab.txt")
    lines = [*words, "cat", "the"]
    (folder / "vocab.txt").write_bytes("\r\n".join(lines).encode())
    ours = load_tokenizer(folder, TextSpec(16))
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    assert ours(["the cat"]).ids[0].tolist() == theirs("the cat")["input_ids"]
    assert ours.token_id("cat") == len(words)


def test_decoding_joins_the_pieces(pair):
    ours, theirs = pair
    for text in TEXTS[:6]:
        ids = ours([text]).ids[0].tolist()
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(("content", "message"), [
    ("a\nb\n", r"vocab.txt: cannot be read as a tokenizer \(the vocabulary lacks '\[UNK\]'\)"),
    ("[UNK]\n[CLS]\na\n", r"lacks '\[SEP\]'\): fetch the file again"),
    ("", r"lacks '\[UNK\]'"),
])  # fmt: skip
def test_vocabularies_without_their_frame_are_refused(tmp_path, content, message):
    (tmp_path / "vocab.txt").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(tmp_path, TextSpec(16))


def test_a_vocabulary_beyond_any_size_is_not_read(tmp_path, monkeypatch):
    from sightline.inputs import word_pieces

    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\n")
    monkeypatch.setattr(word_pieces, "MAX_JSON_BYTES", 4)
    with pytest.raises(CheckpointError, match="larger than 0 MB"):
        load_tokenizer(tmp_path, TextSpec(16))
