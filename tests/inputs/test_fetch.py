"""The fetcher: what it refuses it never touches, and what it touches it can leave in time."""

import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from sightline.core.errors import AddressError
from sightline.inputs import addresses
from sightline.inputs import fetch as fetching
from sightline.inputs.addresses import is_public, shown_address
from sightline.inputs.fetch import FetchLimits, fetch
from sightline.inputs.images import DecodeOptions, read_image
from tests.inputs import hostile

LOOPBACK = FetchLimits(private_hosts=frozenset({"127.0.0.1"}))
BODY = b"\x89PNG not really"


class Server:
    """A loopback server of raw answers by path. It records each request as it came."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Callable[[socket.socket], None]] = {}
        self.hits: list[bytes] = []
        self.stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def address(self, path: str = "/a.png", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._answer, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            request = b""
            try:
                while b"\r\n\r\n" not in request and (block := connection.recv(4096)):
                    request += block
                    if request[0] == 0x16:  # a TLS greeting, to which this server cannot reply
                        break
                self.hits.append(request)
                path = request.split(b" ")[1].decode() if request.startswith(b"GET ") else ""
                answer = self.answers.get(path, reply(BODY))
                if isinstance(answer, bytes):
                    connection.sendall(answer)
                else:
                    answer(connection)
            except OSError:
                return

    def stop(self) -> None:
        self.stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)


def reply(
    body: bytes = b"", status: str = "200 OK", length: int | None = None, **headers: str
) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def redirect(target: str) -> bytes:
    return reply(status="302 Found", Location=target)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


def resolver(*answers: Sequence[str]) -> Callable[[str, int], Sequence[str]]:
    """Gives each answer once, in order, and the last one from then on."""
    left = list(answers)
    return lambda host, port: left.pop(0) if len(left) > 1 else left[0]


def reason(address: str, limits: FetchLimits = LOOPBACK, **options: object) -> str:
    with pytest.raises(AddressError) as caught:
        fetch(address, limits, **options)
    text = str(caught.value)
    assert text.isprintable()
    return text


# What works


def test_a_body_is_fetched_with_plain_headers(server: Server) -> None:
    assert fetch(server.address("/a b.png".replace(" ", "%20") + "?x=1&y=ü"), LOOPBACK) == BODY
    (request,) = server.hits
    assert request.startswith(b"GET /a%20b.png?x=1&y=%C3%BC HTTP/1.1\r\n")
    headers = request.lower()
    assert b"accept-encoding: identity" in headers
    assert f"host: 127.0.0.1:{server.port}".encode() in headers
    assert b"cookie" not in headers and b"authorization" not in headers


def test_chunked_and_unmeasured_bodies_are_fetched(server: Server) -> None:
    server.answers["/chunked"] = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    server.answers["/open"] = b"HTTP/1.0 200 OK\r\n\r\nabcde"
    assert fetch(server.address("/chunked"), LOOPBACK) == b"abcde"
    assert fetch(server.address("/open"), LOOPBACK) == b"abcde"


def test_redirects_are_followed_and_counted(server: Server) -> None:
    for number in range(11):
        server.answers[f"/{number}"] = redirect(f"/{number + 1}")
    server.answers["/11"] = reply(BODY)
    assert fetch(server.address("/8"), LOOPBACK) == BODY
    assert len(server.hits) == 4
    assert "more than 3 redirects" in reason(server.address("/0"))
    assert len(server.hits) == 8


def test_a_picture_is_read_from_its_address(server: Server) -> None:
    server.answers["/a.png"] = reply(hostile.encode(hostile.drawing()), Content_Type="image/png")
    array = read_image(server.address(), DecodeOptions(fetch=LOOPBACK))
    assert (array == hostile.drawing()).all()


def test_proxies_and_netrc_are_not_used(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetch(server.address(), LOOPBACK) == BODY


# What is refused before anything is touched

PRIVATE = [
    "127.0.0.1",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "a.localhost",
    "0.0.0.0",
    "0",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.0.0.1.",
    "017700000001",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fd00::1]",
    "[ff02::1]",
    "169.254.169.254",
    "100.64.0.1",
    "10.0.0.1",
    "192.168.1.1",
    "172.31.255.255",
    "224.0.0.1",
    "255.255.255.255",
    "metadata",
    "metadata.google.internal",
    "printer.local",
    "router.home.arpa",
]


@pytest.mark.parametrize("host", PRIVATE)
def test_private_hosts_are_refused_with_no_connection(
    host: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> socket.socket:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(fetching, "_open_socket", forbidden)
    text = reason(server.address(host=host), FetchLimits(), resolve=resolver(["127.0.0.1"]))
    assert server.hits == []
    words = ("private", "hides an address", "malformed", "not a well-formed")
    assert any(word in text for word in words), text


@pytest.mark.parametrize(
    "number",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.1.1", "100.127.255.255"),
        *("0.1.2.3", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
        *("224.0.0.1", "240.0.0.1", "255.255.255.255", "192.88.99.1"),
        *("::", "::1", "::8.8.8.8", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8", "64:ff9b::10.0.0.1"),
        *("64:ff9b:1::8.8.8.8", "2001::1", "2001:db8::1", "2002:808:808::1", "fc00::1", "fe80::1"),
        *("fec0::1", "ff0e::1", "2a00:1450::5efe:127.0.0.1", "2a00:1450::1%eth0", "word", ""),
    ],
)
def test_reserved_addresses_are_not_public(number: str) -> None:
    assert not is_public(number)


@pytest.mark.parametrize(
    "number",
    ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2a00:1450:4001::1", "64:ff9b::8.8.8.8"],
)
def test_public_addresses_are_public(number: str) -> None:
    assert is_public(number)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://user@example.org/a", "user name"),
        ("http://user:secret@example.org/a", "user name"),
        ("http://example.org@127.0.0.1/a", "user name"),
        ("http://example.org\\@127.0.0.1/a", "backslash"),
        ("http:\\\\127.0.0.1\\a", "backslash"),
        ("http://example.org/a\r\nHost: x", "control character"),
        ("http://exam ple.org/", "a space"),
        ("http://\t127.0.0.1/", "control character"),
        ("file:///etc/passwd", "only https and http are fetched, not 'file'"),
        ("ftp://example.org/a", "not 'ftp'"),
        ("gopher://example.org/a", "not 'gopher'"),
        ("http:///a", "missing or malformed"),
        ("http://example.org:0/", "missing or malformed"),
        ("http://example.org:99999/", "not a well-formed"),
        ("http://[::1/", "not a well-formed"),
        ("http://a..b/", "not a well-formed"),
    ],
)
def test_tricks_in_the_address_are_refused(address: str, words: str) -> None:
    text = reason(address, FetchLimits(), resolve=resolver(["127.0.0.1"]))
    assert words in text and "secret" not in text


def test_http_can_be_forbidden_and_hosts_listed(server: Server) -> None:
    assert "only https are fetched" in reason(server.address(), replace(LOOPBACK, allow_http=False))
    listed = FetchLimits(only_hosts=frozenset({"example.org"}))
    text = reason("https://example.com/a", listed, resolve=resolver(["8.8.8.8"]))
    assert text == "https://example.com/a: its host is not on the list of allowed hosts"
    assert server.hits == []


def test_one_private_answer_among_public_ones_is_enough(server: Server) -> None:
    mixed = resolver(["8.8.8.8", "127.0.0.1"])
    assert "private or reserved" in reason(server.address(host="e.org"), resolve=mixed)
    assert server.hits == []


def test_an_unknown_host_says_so() -> None:
    for answers in ([], OSError()):

        def resolve(host: str, port: int, found: object = answers) -> Sequence[str]:
            if isinstance(found, OSError):
                raise found
            return []

        assert "cannot be found; check the spelling" in reason("http://e.org/", resolve=resolve)


def test_the_system_resolver_obeys_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(addresses.socket, "getaddrinfo", lambda *_, **__: release.wait(20) and [])
    started = time.monotonic()
    assert "cannot be found" in reason("http://e.org/", FetchLimits(total_seconds=0.1))
    assert time.monotonic() - started < 2
    release.set()


# Redirects and names that change


def test_a_redirect_into_the_private_network_is_refused(server: Server) -> None:
    inner = Server()
    try:
        for target in (inner.address(host="localhost"), f"http://127.1:{inner.port}/", "file:///x"):
            server.answers["/a.png"] = redirect(target)
            # the outer host is trusted, the one it leads to is not
            limits = FetchLimits(private_hosts=frozenset({"outer.example"}))
            text = reason(
                server.address(host="outer.example"), limits, resolve=resolver(["127.0.0.1"])
            )
            assert "(redirected to " in text
        assert inner.hits == [] and len(server.hits) == 3
    finally:
        inner.stop()


def test_a_redirect_without_a_target_or_with_tricks_is_refused(server: Server) -> None:
    server.answers["/a.png"] = reply(status="302 Found")
    assert "answered 302 without saying where to go" in reason(server.address())
    for target in ("http://u:p@127.0.0.1/", "http://[::1/", "//127.0.0.1\\@x/"):
        server.answers["/a.png"] = redirect(target)
        reason(server.address())
    assert len(server.hits) == 4


def test_a_name_is_resolved_once_and_the_checked_address_is_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when checked, loopback when asked again."""
    asked: list[str] = []
    connected: list[str] = []

    def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["93.184.216.34"] if len(asked) == 1 else ["127.0.0.1"]

    def connect(number: str, port: int, until: float) -> socket.socket:
        connected.append(number)
        return socket.create_connection(("127.0.0.1", server.port), 5)

    monkeypatch.setattr(fetching, "_open_socket", connect)
    assert fetch("http://e.org/a.png", FetchLimits(), resolve) == BODY
    assert asked == ["e.org"] and connected == ["93.184.216.34"]
    assert b"Host: e.org\r\n" in server.hits[0]


def test_a_name_that_changes_between_hops_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/a.png"] = redirect("/b.png")
    monkeypatch.setattr(
        fetching,
        "_open_socket",
        lambda *_: socket.create_connection(("127.0.0.1", server.port), 5),
    )
    text = reason(
        "http://e.org/a.png", FetchLimits(), resolve=resolver(["93.184.216.34"], ["127.0.0.1"])
    )
    assert "(redirected to http://e.org/b.png): it leads to a private" in text
    assert len(server.hits) == 1


class FakeContext:
    """Stands for TLS: records the name that is asked for and leaves the connection plain."""

    names: tuple[str, ...] = ()

    def wrap_socket(self, connection: socket.socket, server_hostname: str) -> socket.socket:
        FakeContext.names = (*FakeContext.names, server_hostname)
        return connection


def test_tls_asks_for_the_name_and_never_falls_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        fetching,
        "_open_socket",
        lambda *_: socket.create_connection(("127.0.0.1", server.port), 5),
    )
    public = resolver(["93.184.216.34"])
    assert "the secure connection failed" in reason("https://e.org/", FetchLimits(), resolve=public)
    assert not any(b"GET" in hit for hit in server.hits)
    FakeContext.names = ()
    monkeypatch.setattr(ssl, "create_default_context", FakeContext)
    assert fetch("https://e.org/a.png", FetchLimits(), public) == BODY
    assert FakeContext.names == ("e.org",)
    server.answers["/a.png"] = redirect("http://e.org/b.png")
    text = reason("https://e.org/a.png", FetchLimits(), resolve=public)
    assert "redirects from https to an unencrypted address" in text


# Answers that are too slow, too long or of the wrong kind


def drip(first: bytes, each: bytes, stopped: threading.Event) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(first)
        while not stopped.wait(0.02):
            connection.sendall(each)

    return answer


@pytest.mark.parametrize(
    ("first", "each"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b""),
    ],
    ids=["body", "chunks", "header", "continue", "silence"],
)
def test_a_slow_source_is_cut_at_the_deadline(server: Server, first: bytes, each: bytes) -> None:
    server.answers["/a.png"] = drip(first, each, server.stopped)
    started = time.monotonic()
    text = reason(server.address(), replace(LOOPBACK, total_seconds=0.3))
    assert "no complete answer in time (5 s to connect, 0.3 s in all)" in text
    assert time.monotonic() - started < 2


def test_an_endless_body_is_cut_at_the_byte_limit(server: Server) -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not server.stopped.is_set():
            connection.sendall(bytes(65536))

    server.answers["/a.png"] = endless
    limits = replace(LOOPBACK, max_bytes=1_000_000)
    assert "it is larger than 1,000,000 bytes" in reason(server.address(), limits)
    server.answers["/a.png"] = reply(BODY, length=30_000_000)
    assert "it is larger than 20,000,000 bytes" in reason(server.address())


@pytest.mark.parametrize("answer", [reply(BODY), b"HTTP/1.0 200 OK\r\n\r\n" + BODY])
def test_a_body_of_exactly_the_limit_is_fetched(server: Server, answer: bytes) -> None:
    server.answers["/a.png"] = answer
    limits = replace(LOOPBACK, max_bytes=len(BODY))
    assert fetch(server.address(), limits) == BODY
    assert "larger than" in reason(server.address(), replace(limits, max_bytes=len(BODY) - 1))


def test_a_trusted_host_does_not_open_the_door_to_others() -> None:
    public = resolver(["8.8.8.8"])
    for host in ("metadata.google.internal", "localhost", "2130706433"):
        text = reason(f"http://{host}/", LOOPBACK, resolve=public)
        assert "private network" in text or "hides an address" in text


def test_a_wrong_length_is_noticed(server: Server) -> None:
    server.answers["/a.png"] = reply(BODY, length=len(BODY) + 50)
    assert f"it ended after {len(BODY)} of {len(BODY) + 50} bytes" in reason(server.address())
    server.answers["/a.png"] = reply(BODY, length=4)
    assert fetch(server.address(), LOOPBACK) == BODY[:4]
    server.answers["/a.png"] = reply(b"")
    assert "it answered with nothing" in reason(server.address())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply(gzip.compress(bytes(1 << 20)), Content_Encoding="gzip"), "compressed answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "compressed answer"),
        (reply(b"<html>", Content_Type="text/html; charset=utf-8"), "it is a web page, not a pict"),
        (reply(b"", status="404 Not Found"), "it answered 404 Not Found"),
        (reply(b"", status="403 \x1b[31m"), "it answered 403 [31m"),
        (reply(BODY, status="206 Partial Content"), "it answered 206"),
        (b"HELLO\r\n\r\n", "the connection failed (BadStatusLine)"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n", "the connection failed"),
        (
            b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000 + b"\r\n\r\n",
            "connection failed (LineTooLong",
        ),
        (b"", "the connection failed (RemoteDisconnected)"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc",
            "the connection failed (IncompleteRead)",
        ),
    ],
)
def test_strange_answers_are_refused_in_words(server: Server, answer: bytes, words: str) -> None:
    server.answers["/a.png"] = answer
    assert words in reason(server.address())


def test_a_closed_port_says_so(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "the connection failed (Connection refused)" in reason(f"http://127.0.0.1:{port}/")


def test_the_next_address_is_tried(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def connect(number: str, port: int, until: float) -> socket.socket:
        tried.append(number)
        if len(tried) == 1:
            raise ConnectionRefusedError(111, "Connection refused")
        return socket.create_connection(("127.0.0.1", server.port), 5)

    monkeypatch.setattr(fetching, "_open_socket", connect)
    assert fetch("http://e.org/", FetchLimits(), resolver(["8.8.8.8", "1.1.1.1"])) == BODY
    assert tried == ["8.8.8.8", "1.1.1.1"]


# What messages show


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://e.org/a.png?key=secret#part", "https://e.org/a.png"),
        ("https://user:secret@e.org/a.png", "https://e.org/a.png"),
        ("https://user:se/cret@e.org/a.png", "https://(malformed)"),
        ("https://user:se?cret@e.org/a.png", "https://(malformed)"),
        ("https://[::1]:80/a", "https://[::1]:80/a"),
        ("https://e.org/\x1b[31m\n", "https://e.org/?[31m?"),
    ],
)
def test_credentials_and_queries_never_show(address: str, shown: str) -> None:
    assert shown_address(address) == shown
    assert len(shown_address(address + "x" * 5000)) <= 200
