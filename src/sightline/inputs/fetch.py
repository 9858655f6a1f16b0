"""The one place that fetches a picture from an address somebody typed.

An address is hostile until shown otherwise: it may point into the network of the machine that
reads it, lead there by a redirect or by a name that resolves differently the second time, never
end, or unpack to far more than it weighs. So the name is resolved once for each hop, every answer
must be a public address, and the connection goes to exactly the address that was checked. Proxies,
cookies, credentials and `.netrc` play no part; compressed answers are refused.
"""

import http.client
import io
import socket
import ssl
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast
from urllib.parse import SplitResult, quote, urljoin

from sightline.core.errors import AddressError
from sightline.core.version import __version__
from sightline.inputs.addresses import (
    DEFAULT_LIMITS,
    FetchLimits,
    Resolver,
    checked_url,
    port_of,
    public_addresses,
    shown_address,
    system_resolve,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["FetchLimits", "Resolver", "fetch", "shown_address"]


def fetch(
    address: str, limits: FetchLimits = DEFAULT_LIMITS, resolve: Resolver | None = None
) -> bytes:
    """The body behind an http(s) address on the public internet.

    Args:
        address: as somebody typed it.
        limits: what is allowed.
        resolve: host and port to numeric addresses; the system's resolver when None.

    Raises:
        AddressError: the address may not be fetched, or did not answer with a body. The message
            names the address without user name, password and query.
    """
    deadline = time.monotonic() + limits.total_seconds
    resolve = resolve or (lambda host, port: system_resolve(host, port, deadline))
    hops = [address]
    try:
        while True:
            url = checked_url(hops[-1], limits)
            answer = _request(url, public_addresses(url, limits, resolve), limits, deadline)
            if isinstance(answer, bytes):
                return answer
            _check_redirect(url, answer, len(hops), limits)
            hops.append(answer)
    except AddressError as error:
        trail = f" (redirected to {shown_address(hops[-1])})" if len(hops) > 1 else ""
        raise AddressError(f"{shown_address(address)}{trail}: {error}") from None


def _check_redirect(url: SplitResult, target: str, hops: int, limits: FetchLimits) -> None:
    if hops > limits.max_redirects:
        raise AddressError(f"more than {limits.max_redirects} redirects")
    if url.scheme == "https" and not target.lower().startswith("https:"):
        raise AddressError("it redirects from https to an unencrypted address")


def _request(
    url: SplitResult, numbers: Sequence[str], limits: FetchLimits, deadline: float
) -> bytes | str:
    """The body, or the address of a redirect."""
    try:
        with _connect(url, numbers, limits, deadline) as connection:
            return _converse(url, connection, limits, deadline)
    except TimeoutError:
        raise AddressError(
            f"no complete answer in time ({limits.connect_seconds:g} s to connect, "
            f"{limits.total_seconds:g} s in all)"
        ) from None
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or "no TLS"
        raise AddressError(f"the secure connection failed ({reason})") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise AddressError(f"the connection failed ({reason})") from None


def _connect(
    url: SplitResult, numbers: Sequence[str], limits: FetchLimits, deadline: float
) -> socket.socket:
    """A connection to the first of the checked addresses that answers."""
    until = min(deadline, time.monotonic() + limits.connect_seconds)
    failure: OSError = TimeoutError()
    for number in numbers:
        try:
            connection = _open_socket(number, port_of(url), until)
        except OSError as error:
            failure = error
            continue
        if url.scheme == "http":
            return connection
        try:
            connection.settimeout(_remaining(until))
            context = ssl.create_default_context()
            return context.wrap_socket(connection, server_hostname=url.hostname)
        except BaseException:
            connection.close()
            raise
    raise failure


def _open_socket(number: str, port: int, until: float) -> socket.socket:
    family = socket.AF_INET6 if ":" in number else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(_remaining(until))
        connection.connect((number, port))
    except BaseException:
        connection.close()
        raise
    return connection


def _remaining(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _DeadlineReader(io.RawIOBase):
    """Reads from a socket until one moment, so that a byte a second cannot hold us for ever."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        self._connection.settimeout(_remaining(self._deadline))
        return self._connection.recv_into(buffer)


class _TimedSocket:
    """The two methods of a socket that http.client uses, held to a deadline."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self._connection, self._deadline))

    def sendall(self, data: bytes) -> None:
        self._connection.settimeout(_remaining(self._deadline))
        self._connection.sendall(data)

    def close(self) -> None:
        pass  # http.client closes before the body is read; the caller owns the connection


def _converse(
    url: SplitResult, connection: socket.socket, limits: FetchLimits, deadline: float
) -> bytes | str:
    session = http.client.HTTPConnection(url.hostname or "")
    session.sock = cast(socket.socket, _TimedSocket(connection, deadline))
    path = quote(url.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = "?" + quote(url.query, safe="/%:@!$&'()*+,;=~-._?[]") if url.query else ""
    headers = {
        "Host": url.netloc,
        "User-Agent": f"sightline/{__version__}",
        "Accept": "image/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    session.request("GET", path + query, headers=headers)
    response = session.getresponse()
    try:
        if response.status in (301, 302, 303, 307, 308):
            return _redirect_target(url, response)
        _check_response(response, limits)
        return _body(response, limits)
    finally:
        response.close()


def _redirect_target(url: SplitResult, response: http.client.HTTPResponse) -> str:
    target = response.getheader("Location")
    if not target:
        raise AddressError(f"it answered {response.status} without saying where to go")
    try:
        # http.client reads header bytes as Latin-1; what was sent is UTF-8 or escaped
        return urljoin(url.geturl(), quote(target.encode("latin-1"), safe="".join(_ASCII)))
    except ValueError:
        raise AddressError("it redirects to something that is not an address") from None


_ASCII = [chr(code) for code in range(128)]


def _check_response(response: http.client.HTTPResponse, limits: FetchLimits) -> None:
    if response.status != 200:
        reason = "".join(letter for letter in response.reason[:60] if letter.isprintable())
        raise AddressError(f"it answered {response.status} {reason}".rstrip())
    encoding = response.getheader("Content-Encoding", "identity").strip().lower()
    transfer = response.getheader("Transfer-Encoding", "chunked").strip().lower()
    if encoding not in ("", "identity") or transfer not in ("chunked", "identity"):
        raise AddressError("it sent a compressed answer, which is refused")
    kind = response.getheader("Content-Type", "").split(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise AddressError("it is a web page, not a picture; open it and copy the picture's own")
    if response.length is not None and response.length > limits.max_bytes:
        raise _too_large(limits)


def _body(response: http.client.HTTPResponse, limits: FetchLimits) -> bytes:
    promised = response.length
    body = bytearray()
    while block := response.read(65_536):
        body += block
        if len(body) > limits.max_bytes:
            raise _too_large(limits)
    if promised is not None and len(body) < promised:
        raise AddressError(f"it ended after {len(body):,} of {promised:,} bytes; try again")
    if not body:
        raise AddressError("it answered with nothing")
    return bytes(body)


def _too_large(limits: FetchLimits) -> AddressError:
    return AddressError(f"it is larger than {limits.max_bytes:,} bytes, the most that is fetched")
