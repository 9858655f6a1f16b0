"""Ids against the reference's own classes, on vocabularies made here."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.errors import CheckpointError, ConfigError, TextError
from sightline.core.interfaces import TextBatch, Tokenizer
from sightline.inputs.tokenizers import MAX_CHARACTERS, TextSpec, load_tokenizer

CORPUS = [
    "a photo of a cat", "two dogs on the red bench", "the boat isn't there, it's gone",
    "A small GREEN umbrella & 12 fish!", "naïve café in Zürich", "don't you'll we've I'm he'd",
    "a cat. a dog; a bench? the cat's hat", "photo photos photographer", "北京 is a city",
] * 4  # fmt: skip

NASTY = [
    "", " ", "a", "a  b\t\nc", "  leading and trailing  ", "UPPER lower MiXeD",
    "don't they're I'LL", "12345 6.7e-8", "!!! ??? ...", "a,b;c:d", "under_score-dash",
    "<|endoftext|>", "</s>", "<pad>", "<unk>", "a </s> b", "x<|startoftext|>y", "</s></s>",
    "a</s>", " </s> a", "<|ENDOFTEXT|>", "</S>", "\u2581", "a\u2581b", "\u2581\u2581x",
    "İstanbul ΟΔΥΣΣΕΥΣ ß ﬁ", "e\u0301 é", "\u00a0nbsp\u3000wide", "北京市 東京",
    "👩‍👩‍👧‍👦 👍🏽 🏴‍☠️", "zero\u200bwidth\u200d", "\x00nul\x00", "\x07\x1b[0m", "\ufeffbom",
    "line\r\nbreak", "a\x1cb\x85c", "{} {0} {{", "the cat " * 60, "x" * 300, "مرحبا", "नमस्ते",
    "\U0010fffd", "\ufffd", "<eos>", "<bos> a", "<start_of_turn>", "[MASK] [CLS]",
]  # fmt: skip


@pytest.fixture(scope="module")
def reference():
    import transformers

    return transformers


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    """OpenAI's layout: vocab.json, merges.txt and two small JSON files."""
    from sightline.inputs.vocabulary import train_vocabulary

    folder = tmp_path_factory.mktemp("clip")
    model = json.loads(train_vocabulary(CORPUS, 700, "clip").backend.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), "utf-8")
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges + "\n", "utf-8")
    end = {
        "__type": "AddedToken",
        "content": "<|endoftext|>",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
    }
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "unk_token": end,
              "bos_token": {**end, "content": "<|startoftext|>"}, "eos_token": end,
              "pad_token": "<|endoftext|>"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return folder


def siglip_layout(folder: Path, squeezes: bool) -> Path:
    """SigLIP's layout; the SentencePiece model squeezes white space itself, or leaves it."""
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, vocab_size=120, pad_id=0, eos_id=1,
        unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2, num_threads=1,
        remove_extra_whitespaces=squeezes,
    )  # fmt: skip
    (folder / "spiece.model").write_bytes(model.getvalue())
    config = {"tokenizer_class": "SiglipTokenizer", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return folder


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory) -> Path:
    return siglip_layout(tmp_path_factory.mktemp("siglip"), squeezes=True)


@pytest.fixture(scope="module")
def siglip_spaces_folder(tmp_path_factory) -> Path:
    return siglip_layout(tmp_path_factory.mktemp("siglip_spaces"), squeezes=False)


@pytest.fixture(scope="module")
def siglip2_folder(tmp_path_factory) -> Path:
    """Gemma's layout: byte pairs over a string without words, with byte fallback."""
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    from sightline.core.files import write_json

    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=[*special, *(f"<0x{i:02X}>" for i in range(256))],
        show_progress=False,
    )  # fmt: skip
    backend.train_from_iterator([t.lower() for t in CORPUS], trainer)
    state = json.loads(backend.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in special]
    backend.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", 1)]
    )
    state["post_processor"] = json.loads(backend.to_str())["post_processor"]
    folder = tmp_path_factory.mktemp("siglip2")
    write_json(folder / "tokenizer.json", state)
    config = {"tokenizer_class": "Siglip2Tokenizer", "model_max_length": 64, "bos_token": "<bos>",
              "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>",
              "mask_token": "<mask>", "add_bos_token": False, "add_eos_token": True,
              "padding_side": "right"}  # fmt: skip
    write_json(folder / "tokenizer_config.json", config)
    return folder


CLIP = TextSpec(max_length=77)
SIGLIP = TextSpec(max_length=64, padding="max_length", lower_case=True, strip_punctuation=True,
                  squeeze_whitespace=True)  # fmt: skip
SIGLIP2 = TextSpec(max_length=64, padding="max_length", lower_case=True)


def expected(tokenizer, texts, spec, **options):
    with warnings.catch_warnings():
        # The reference warns when a text ends in the end token.
        warnings.filterwarnings("ignore", "This sequence already has")
        batch = tokenizer(texts, padding=spec.padding, max_length=spec.max_length, truncation=True,
                          return_tensors="pt", return_attention_mask=True, **options)  # fmt: skip
    return batch["input_ids"], batch.get("attention_mask")


def check(ours: TextBatch, theirs, texts) -> None:
    ids, mask = theirs
    for row, text in enumerate(texts):
        assert ours.ids[row].tolist() == ids[row].tolist(), repr(text[:60])
    assert torch.equal(ours.mask, mask.bool())
    assert ours.ids.dtype == torch.int64 and ours.mask.dtype == torch.bool


CASES = [("clip_folder", "CLIPTokenizer", CLIP), ("siglip_folder", "SiglipTokenizer", SIGLIP),
         ("siglip_spaces_folder", "SiglipTokenizer", SIGLIP),
         ("siglip2_folder", "Siglip2Tokenizer", SIGLIP2)]  # fmt: skip


@pytest.fixture(scope="module", params=CASES, ids=["clip", "siglip", "siglip-spaces", "siglip2"])
def pair(request, reference):
    folder, name, spec = request.param
    folder = request.getfixturevalue(folder)
    theirs = getattr(reference, name).from_pretrained(folder)
    return load_tokenizer(folder, spec), theirs, spec


def test_ids_equal_the_reference(pair) -> None:
    ours, theirs, spec = pair
    texts = NASTY + CORPUS[:9]
    check(ours(texts, trusted=True), expected(theirs, texts, spec), texts)
    assert (ours.pad_id, ours.eos_id) == (theirs.pad_token_id, theirs.eos_token_id)
    assert isinstance(ours, Tokenizer)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(text=st.one_of(
    st.text(max_size=80),
    st.lists(st.sampled_from([*NASTY[:30], "cat", " ", "'s", "A"]), max_size=5).map("".join),
))  # fmt: skip
def test_ids_equal_the_reference_for_any_text(pair, text) -> None:
    ours, theirs, spec = pair
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        return
    check(ours([text], trusted=True), expected(theirs, [text], spec), [text])


@pytest.mark.parametrize("length", [4, 5, 9])
def test_truncation_keeps_the_end_token(pair, length) -> None:
    ours, theirs, spec = pair
    from dataclasses import replace

    short = replace(spec, max_length=length)
    cut = load_tokenizer(ours.files.folder, short)
    texts = ["a photo of a cat", "the cat " * 40, "a", "photo photo photo </s>", "a</s>"]
    check(cut(texts, trusted=True), expected(theirs, texts, short), texts)
    assert cut.eos_id in cut(["the cat " * 40]).ids[0]


def test_untrusted_text_never_becomes_a_special_token(pair) -> None:
    ours, theirs, spec = pair
    special = {ours.token_id(t) for t in theirs.all_special_tokens} - {theirs.unk_token_id}
    special |= {ours.eos_id, ours.pad_id}
    for text in [
        "</s>",
        "<|endoftext|>",
        "a <|startoftext|> b",
        "<eos>",
        "<bos>",
        "<pad>",
        "<mask>",
    ]:
        assert special.isdisjoint(ours.encode(text)), text
    texts = [t for t in NASTY if t]
    if hasattr(theirs, "backend_tokenizer"):
        # The fast classes read `split_special_tokens` when they are built, not when called.
        theirs = type(theirs).from_pretrained(ours.files.folder, split_special_tokens=True)
        check(ours(texts), expected(theirs, texts, spec), texts)
    else:
        check(ours(texts), expected(theirs, texts, spec, split_special_tokens=True), texts)


def test_a_spelling_stays_readable_text(clip_folder) -> None:
    ours = load_tokenizer(clip_folder, CLIP)
    assert ours.decode(ours.encode("say <|endoftext|> now")) == "say <| endoftext |> now"
    assert ours.encode("<|endoftext|>", trusted=True) == [ours.eos_id]


def test_a_unigram_vocabulary_cannot_be_talked_into_special_tokens(tmp_path) -> None:
    """There "</s>" is an ordinary piece with the best score of all."""
    from tokenizers import Tokenizer, models

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((c, -5.0) for c in "ab</s>pdunk ")]
    backend = Tokenizer(models.Unigram([*dict(pieces).items()], unk_id=2))
    backend.save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = load_tokenizer(tmp_path, TextSpec())
    assert ours.encode("a</s>b", trusted=True).count(1) == 1
    assert (
        1 not in ours.encode("a</s>b")
        and ours.decode(ours.encode("a</s>b")).replace(" ", "") == "a</s>b"
    )


def test_saved_folders_load_here_and_in_the_reference(pair, reference, tmp_path) -> None:
    ours, theirs, spec = pair
    ours.save(tmp_path)
    again = load_tokenizer(tmp_path, spec)
    texts = NASTY + CORPUS[:9]
    first = ours(texts, trusted=True)
    assert torch.equal(again(texts, trusted=True).ids, first.ids)
    for loaded in (
        type(theirs).from_pretrained(tmp_path),
        reference.AutoTokenizer.from_pretrained(tmp_path),
    ):
        check(first, expected(loaded, texts, spec), texts)
        assert loaded.pad_token_id == ours.pad_id


def test_decoding_equals_the_reference(pair) -> None:
    ours, theirs, _ = pair
    for text in CORPUS[:9]:
        ids = ours([text]).ids[0].tolist()
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True).strip()
    assert ours.decode([10**9, -1]) == ""


def test_clip_pads_with_zero_where_the_folder_names_no_pad_token(clip_folder, tmp_path) -> None:
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((clip_folder / name).read_bytes())
    config = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
              "unk_token": "<|endoftext|>"}  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = load_tokenizer(tmp_path, TextSpec(max_length=8, padding="max_length", pad_id=0))
    assert ours(["a"]).ids[0, -1] == 0 and ours.pad_id == 0
    assert ours(["a"]).mask.sum() == 3


def test_bert_word_pieces_equal_the_reference(reference, tmp_path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "photo", "##s", "of", "the",
             "cafe", "!", ",", "##c", "c", "北"]  # fmt: skip
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    spec = TextSpec(max_length=16, padding="max_length")
    theirs = reference.BertTokenizer.from_pretrained(tmp_path)
    texts = ["A photo of the cats!", "café, 北", "zebra", "", "the [SEP] cat", "a" * 300]
    ours = load_tokenizer(tmp_path, spec)
    check(ours(texts, trusted=True), expected(theirs, texts, spec), texts)
    assert ours.token_id("[SEP]") not in ours.encode("the [SEP] cat")


def test_left_padding_where_the_folder_says_so(siglip2_folder, tmp_path, reference) -> None:
    config = json.loads((siglip2_folder / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer.json").write_bytes((siglip2_folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "padding_side": "left"}))
    ours = load_tokenizer(tmp_path, SIGLIP2)
    theirs = reference.Siglip2Tokenizer.from_pretrained(tmp_path)
    check(ours(["A cat", "a"]), expected(theirs, ["A cat", "a"], SIGLIP2), ["A cat", "a"])
    assert not ours(["a"]).mask[0, 0]


def test_siglip_one_drops_punctuation_and_siglip_two_keeps_it(
    siglip_folder, siglip2_folder
) -> None:
    one, two = (load_tokenizer(f, SIGLIP) for f in (siglip_folder, siglip2_folder))
    assert one.encode("A, cat!") == one.encode("a cat")
    assert two.encode("A, cat!") == two.encode("a, cat!") != two.encode("a cat")


@pytest.mark.parametrize(("texts", "message"), [
    ("a cat", "list of strings, not one string"),
    ([3], "must be a string, not int"),
    ([b"a"], "must be a string, not bytes"),
    ([None], "must be a string, not NoneType"),
    (["a\ud800"], "half of a surrogate pair at character 1"),
    (["x" * (MAX_CHARACTERS + 1)], "allowed are 1000000"),
])  # fmt: skip
def test_text_that_no_tokenizer_can_take(pair, texts, message) -> None:
    with pytest.raises(TextError, match=message):
        pair[0](texts)


def test_no_texts_are_an_empty_batch(pair) -> None:
    batch = pair[0]([])
    assert batch.ids.shape[0] == 0 and batch.mask.shape == batch.ids.shape


@pytest.mark.parametrize(("name", "content", "message"), [
    ("tokenizer.json", b"", "cannot be read as a tokenizer"),
    ("tokenizer.json", b'{"version": "1.0"}', "cannot be read as a tokenizer"),
    ("tokenizer.json", b"[" * 5000, "cannot be read as a tokenizer"),
    ("spiece.model", b"", "cannot be read as a tokenizer"),
    ("spiece.model", b"\x00\xff" * 100, "cannot be read as a tokenizer"),
    ("tokenizer.model", b"hello", "cannot be read as a tokenizer"),
    ("vocab.txt", b"a\nb\n", "cannot be read as a tokenizer"),
    ("vocab.txt", b"\xff\xfe", "cannot be read as a tokenizer"),
    ("tokenizer_config.json", b"{", "not valid JSON"),
    ("tokenizer_config.json", b"[1]", "expected a JSON object, not list"),
    ("tokenizer_config.json", b'{"pad_token": 3}', "pad_token is 3"),
    ("tokenizer_config.json", b'{"padding_side": "up"}', "padding_side is 'up'"),
    ("tokenizer_config.json", b'{"added_tokens_decoder": {"x": {}}}', "decoder is 'x'"),
    ("special_tokens_map.json", b"[" * 100_000, "not valid JSON"),
    ("added_tokens.json", b'{"a": "b"}', "an id"),
])  # fmt: skip
def test_broken_files_are_named(tmp_path, siglip2_folder, name, content, message) -> None:
    if not name.endswith((".model", ".txt")):
        (tmp_path / "tokenizer.json").write_bytes((siglip2_folder / "tokenizer.json").read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_tokenizer(tmp_path, SIGLIP2)(["a"])
    assert name.split(".")[0].split("_")[0] in str(caught.value) and "\n" not in str(caught.value)


def test_no_tokenizer_in_the_folder(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer here; expected one of tokenizer"):
        load_tokenizer(tmp_path, CLIP)


def test_byte_pairs_of_another_family_are_refused(tmp_path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0, "\\u0120b": 1}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(CheckpointError, match="not CLIP's kind of byte pairs"):
        load_tokenizer(tmp_path, CLIP)


@pytest.mark.parametrize(("fields", "message"), [
    ({"padding": "longst"}, "unknown padding 'longst': did you mean 'longest'"),
    ({"padding_side": "up"}, "unknown padding side 'up'"),
    ({"max_length": 0}, "at least one token is needed"),
])  # fmt: skip
def test_specs_that_cannot_be_are_refused(fields, message) -> None:
    with pytest.raises(ConfigError, match=message):
        TextSpec(**fields)


def test_lengths_that_do_not_fit_are_refused(clip_folder) -> None:
    with pytest.raises(ConfigError, match="max_length 2 leaves no room beside 2 special tokens"):
        load_tokenizer(clip_folder, TextSpec(max_length=2))
