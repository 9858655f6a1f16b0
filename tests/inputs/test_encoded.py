"""Pictures written out as base64."""

import base64

import pytest

from sightline.core.errors import ImageError
from sightline.inputs.encoded import from_base64, from_data_address, is_data_address

BYTES = bytes(range(256))
TEXT = base64.b64encode(BYTES).decode()


@pytest.mark.parametrize("kind", ["image/png", "image/svg+xml", "IMAGE/JPEG", ""])
def test_an_address_gives_its_bytes(kind):
    address = f"data:{kind};base64,{TEXT}"
    assert is_data_address(address) and from_data_address(address) == BYTES


def test_lines_of_base64_are_one_text():
    assert from_base64(base64.encodebytes(BYTES)) == BYTES


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("data:text/html;base64,aGk=", "'data:text/html;base64' holds no picture in base64"),
        ("data:image/png,abc", "holds no picture in base64"),
        ("data:", "holds no picture in base64"),
        ("data:image/png;base64,a*", "its base64 is damaged"),
        ("data:image/png;base64,abc", "its base64 is damaged"),
        ("data:image/png;base64,\xe9\u732b", "its base64 is damaged"),
    ],
)
def test_what_is_no_picture(address, message):
    with pytest.raises(ImageError, match=message):
        from_data_address(address)


def test_too_much_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr("sightline.inputs.encoded.MAX_BYTES", 30)
    with pytest.raises(ImageError, match="more base64 than a picture may have"):
        from_base64(TEXT.encode())


@pytest.mark.parametrize("source", ["a.png", b"data:", None, "https://x.org/data:"])
def test_other_sources(source):
    assert not is_data_address(source)


def test_the_next_turn_and_data_sets_read_the_same_addresses():
    from sightline.core.errors import InputError
    from sightline.tasks.chat import read_messages

    def asked(url):
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}]
        return read_messages([{"role": "user", "content": parts}])

    assert asked(f"data:image/png;base64,{TEXT}")[0].pictures == (BYTES,)
    with pytest.raises(InputError, match="message 1: its base64 is damaged"):
        asked("data:image/png;base64,a*")
