"""Which addresses may be fetched, and to which machines they lead.

Special-purpose addresses: the IANA registries (RFC 6890); IPv6 forms that carry an IPv4 address:
RFC 4291 (mapped, compatible), RFC 6052 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo), RFC 5214
(ISATAP).
"""

import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from sightline.core.errors import AddressError

Resolver = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True)
class FetchLimits:
    """What the fetcher allows. Any port is allowed: every address it reaches is public.

    Attributes:
        connect_seconds: for one connection, with its TLS handshake.
        total_seconds: wall clock for everything, redirects and the last byte included.
        max_bytes: the largest body, counted while it arrives.
        max_redirects: how many hops are followed; each is checked like the first.
        allow_http: whether unencrypted addresses are fetched.
        only_hosts: where given, the only names that are fetched, in lower case.
        private_hosts: names that may resolve to a private address, in lower case. For programs
            that own such a host; it is never filled from what a user typed.
    """

    connect_seconds: float = 5.0
    total_seconds: float = 10.0
    max_bytes: int = 20_000_000
    max_redirects: int = 3
    allow_http: bool = True
    only_hosts: frozenset[str] | None = None
    private_hosts: frozenset[str] = frozenset()


DEFAULT_LIMITS = FetchLimits()


def shown_address(address: str) -> str:
    """An address for messages and logs: no user name, password, query or control characters."""
    text = re.split(r"[?#]", address.replace("\\", "/"))[0]
    scheme, mark, rest = text.partition("://")
    if mark:
        host, slash, path = rest.partition("/")
        host = host.rpartition("@")[2]
        if not re.fullmatch(r"(\[[^\]]*\]|[^:]*)(:\d*)?", host):
            host, slash, path = "(malformed)", "", ""  # may be half of a password
        text = scheme + mark + host + slash + path
    else:
        text = text.rpartition("@")[2]
    clean = "".join(letter if letter.isprintable() else "?" for letter in text)
    return clean if len(clean) <= 200 else f"{clean[:150]}...{clean[-40:]}"


# The address itself


def checked_url(address: str, limits: FetchLimits) -> SplitResult:
    """The parts of an address that may be fetched, its host in plain lower-case ASCII.

    Raises:
        AddressError: the reason alone; `fetch` puts the address before it.
    """
    if any(letter <= " " or letter in "\\\x7f" for letter in address):
        raise AddressError("it contains a space, a control character or a backslash")
    try:
        url = urlsplit(address)
        port = url.port
        host = (url.hostname or "").rstrip(".")
        host = host if ":" in host else host.encode("idna").decode("ascii").lower().rstrip(".")
    except ValueError:  # also UnicodeError
        raise AddressError("it is not a well-formed address") from None
    schemes = ("https", "http") if limits.allow_http else ("https",)
    if url.scheme not in schemes:
        raise AddressError(f"only {' and '.join(schemes)} are fetched, not {url.scheme[:20]!r}")
    if "@" in url.netloc:
        raise AddressError("it contains a user name, which is never sent")
    if not host or "%" in host or port == 0:
        raise AddressError("its host or port is missing or malformed")
    _check_host(host, limits)
    bracketed = f"[{host}]" if ":" in host else host
    return url._replace(netloc=bracketed if port is None else f"{bracketed}:{port}")


_PRIVATE_SUFFIXES = ("localhost", "local", "internal", "localdomain", "home.arpa", "onion")


def _check_host(host: str, limits: FetchLimits) -> None:
    if host in limits.private_hosts:
        return
    if limits.only_hosts is not None and host not in limits.only_hosts:
        raise AddressError("its host is not on the list of allowed hosts")
    if ":" in host:
        return
    labels = host.split(".")
    if labels[-1].isdigit() or labels[-1].startswith("0x"):
        # inet_aton reads 127.1, 0177.0.0.1, 2130706433 and 0x7f000001 as 127.0.0.1
        if not _is_dotted_quad(host):
            raise AddressError("its host is a number in a form that hides an address")
    elif len(labels) == 1 or host.endswith(tuple("." + suffix for suffix in _PRIVATE_SUFFIXES)):
        raise AddressError(f"{host[:80]!r} names a machine on a private network")


def _is_dotted_quad(host: str) -> bool:
    try:
        return str(ipaddress.IPv4Address(host)) == host
    except ValueError:
        return False


def port_of(url: SplitResult) -> int:
    """The port of a checked address, with the default of its scheme."""
    return url.port or (443 if url.scheme == "https" else 80)


# The machines it names

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Listed in full, because what `is_global` covers has changed between Python releases.
_REFUSED = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24"),
        *("192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "100::/64"),
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7"),
        *("fe80::/10", "fec0::/10", "ff00::/8"),
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)


def is_public(address: str) -> bool:
    """Whether a numeric address is one that anybody on the internet would reach alike."""
    try:
        number: _Address = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(number, ipaddress.IPv6Address):
        if number.scope_id is not None or (int(number) >> 32) & 0xFFFFFFFF in _ISATAP:
            return False
        if number in _NAT64:  # how a network without IPv4 names every IPv4 host
            return is_public(str(ipaddress.IPv4Address(int(number) & 0xFFFFFFFF)))
    listed = any(number.version == net.version and number in net for net in _REFUSED)
    return number.is_global and not number.is_multicast and not listed


def public_addresses(url: SplitResult, limits: FetchLimits, resolve: Resolver) -> Sequence[str]:
    """The numeric addresses of a checked address's host, all of them public.

    Raises:
        AddressError: the host is unknown, or one of its addresses is not public.
    """
    host = url.hostname or ""
    literal = ":" in host or _is_dotted_quad(host)
    try:
        found = [host] if literal else resolve(host, port_of(url))
    except (OSError, UnicodeError):
        found = []
    if not found:
        raise AddressError("its host cannot be found; check the spelling and the connection")
    # one private answer among public ones is a rebinding attempt: refuse them all
    if host not in limits.private_hosts and not all(is_public(number) for number in found):
        raise AddressError("it leads to a private or reserved network address, which is refused")
    return found


def system_resolve(host: str, port: int, deadline: float) -> list[str]:
    """The system's resolver, in a thread because it takes no time limit.

    Args:
        host: a name.
        port: where it will be reached.
        deadline: on the clock of `time.monotonic`.
    """
    found: list[str] = []

    def look_up() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        found.extend(dict.fromkeys(str(row[4][0]) for row in rows))

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
    return list(found)
