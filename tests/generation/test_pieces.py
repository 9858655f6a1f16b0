"""Streamed text: nothing is taken back, nothing is lost, nothing waits without a reason."""

import io
import random

import pytest

from sightline.generation.pieces import TextPieces

TEXTS = [
    "a red boat on the water",
    " leading and trailing  spaces ",
    "naïve café: 3 € for 😀😀 and 漢字",
    "line one\nline two\n\nline four",
    "🚣🏽\u200d♀️ rows",
    "",
]


@pytest.fixture(scope="module")
def pieces_with_bytes():
    """A small vocabulary of sentencepiece that spells what it does not know in bytes."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a red boat on the water", "two trees and a line of cars"] * 20),
        model_writer=model, vocab_size=300, byte_fallback=True, model_type="bpe",
        hard_vocab_limit=False, minloglevel=2, num_threads=1,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.fixture(scope="module")
def fallback_backend(pieces_with_bytes):
    """The same vocabulary in the tokenizers package, whose decoder reads runs of bytes at once."""
    from tokenizers import Tokenizer, decoders, models

    size = pieces_with_bytes.get_piece_size()
    vocabulary = {pieces_with_bytes.id_to_piece(i): i for i in range(size)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    backend.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    return backend


@pytest.fixture(scope="module")
def byte_level():
    """A byte-level vocabulary, as that of GPT-2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def streamed(pieces, ids):
    return [*(pieces.push(token) for token in ids), pieces.close()]


@pytest.mark.parametrize("text", TEXTS)
def test_joined_pieces_are_the_text(text, pieces_with_bytes, fallback_backend, byte_level):
    ids = pieces_with_bytes.encode(text)
    for decode in (
        pieces_with_bytes.decode,
        lambda ids: pieces_with_bytes.decode(ids).strip(),
        fallback_backend.decode,
    ):
        assert "".join(streamed(TextPieces(decode), ids)) == decode(ids)
    ids = byte_level.encode(text).ids
    assert "".join(streamed(TextPieces(byte_level.decode), ids)) == byte_level.decode(ids) == text


def test_half_a_character_waits(pieces_with_bytes):
    ids = pieces_with_bytes.encode("a 😀😀")
    got = streamed(TextPieces(pieces_with_bytes.decode), ids)
    assert all("\ufffd" not in piece for piece in got)
    assert [piece for piece in got if piece][-2:] == ["😀", "😀"]
    # Planted: whoever shows the difference at once shows broken characters.
    texts = [pieces_with_bytes.decode(ids[:count]) for count in range(len(ids) + 1)]
    assert any("\ufffd" in text for text in texts)


def test_an_answer_cut_within_a_character_shows_it(fallback_backend, pieces_with_bytes):
    ids = pieces_with_bytes.encode("a 😀😀")[:-2]
    for decode in (fallback_backend.decode, pieces_with_bytes.decode):
        pieces = TextPieces(decode)
        text = "".join(streamed(pieces, ids))
        assert text == pieces.text
        assert text.rstrip("\ufffd") == "a 😀" and text.endswith("\ufffd")


def test_random_bytes_are_all_shown(byte_level):
    chance = random.Random(0)
    for _ in range(100):
        ids = [chance.randrange(byte_level.get_vocab_size()) for _ in range(12)]
        assert "".join(streamed(TextPieces(byte_level.decode), ids)) == byte_level.decode(ids)


def spelt(ids):
    return "".join(map(chr, ids))


def stopped(text, stop):
    """The text before the stop text that is complete first."""
    for end in range(len(text) + 1):
        found = [word for word in stop if text[:end].endswith(word)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


def test_stop_texts_across_all_cuts_into_tokens():
    chance = random.Random(1)
    seen = 0
    for _ in range(400):
        fragments = ["".join(chance.choices("ab\n", k=chance.randint(1, 4))) for _ in range(6)]
        stop = tuple("".join(chance.choices("ab\n", k=chance.randint(1, 4))) for _ in range(2))
        pieces = TextPieces(lambda ids, f=fragments: "".join(f[i] for i in ids), stop)
        got = []
        for token in range(6):
            got.append(pieces.push(token))
            if pieces.stopped:
                break
        got.append(pieces.close())
        expected, found = stopped("".join(fragments), stop)
        assert ("".join(got), pieces.stopped) == (expected, found), (fragments, stop)
        assert pieces.text == expected
        seen += found
    assert 100 < seen < 390


def test_only_a_possible_beginning_of_a_stop_text_waits():
    pieces = TextPieces(spelt, ("###",))
    assert [pieces.push(ord(letter)) for letter in "a#b##"] == ["a", "", "#b", "", ""]
    assert pieces.close() == "##"
    pieces = TextPieces(spelt, ("###",))
    assert [pieces.push(ord(letter)) for letter in "a###b"] == ["a", "", "", "", ""]
    assert pieces.stopped and pieces.text == "a"


def test_a_copy_goes_its_own_way():
    pieces = TextPieces(spelt, ("!",))
    pieces.push(ord("a"))
    other = pieces.copy()
    other.push(ord("!"))
    pieces.push(ord("b"))
    assert (other.text, other.stopped) == ("a", True)
    assert (pieces.text, pieces.stopped) == ("ab", False)


def test_decoding_does_not_begin_anew_at_every_token():
    longest = 0

    def decode(ids):
        nonlocal longest
        longest = max(longest, len(ids))
        return spelt(ids)

    pieces = TextPieces(decode)
    for letter in "a long answer":
        pieces.push(ord(letter))
    assert longest == 2
