"""Where a webhook may go: one reading of its URL, and a judgement of every address that it would be sent to.

Whoever may submit a job may name a URL, and the service stands where callers do not: beside databases, other tenants
and the metadata service of the cloud. So a URL is read once, strictly, by this grammar alone, and what comes of it is
handed on in parts, that nobody reads a second time. What decides is never the name but each address behind it.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from msgspec import Struct

from forebay.core.errors import InvalidRequest
from forebay.core.webhook import URL_MOST_CHARS

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

HTTPS_PORT, HTTP_PORT = 443, 80
HOST_MOST_CHARS = 253

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?")
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::([0-9]*))?")
_NAME = re.compile(r"([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label that makes a host an address in the eyes of some reader (WHATWG URL, "ends in a number")."""
_UNSAFE = re.compile(r"[^A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def _table(*rows: tuple[str, str]) -> tuple[tuple[Network, str], ...]:
    return tuple((ip_network(network), what) for row, what in rows for network in row.split())


_NEVER = _table(
    # AWS, Google, Azure, Oracle, DigitalOcean, Scaleway and Tencent have theirs in the first, the others are AWS's,
    # Google's and Scaleway's on IPv6, Alibaba's, Azure's and Oracle's older one. No receiver is link-local otherwise.
    ("169.254.0.0/16 fe80::/10", "link-local, where clouds keep metadata"),
    ("fd00:ec2::/32 fd20:ce::254/128 fd00:42::42/128", "a cloud's metadata service"),
    ("100.100.100.200/32 168.63.129.16/32 192.0.0.192/32", "a cloud's metadata service"),
    ("0.0.0.0/8 ::/128", "unspecified"),
    ("224.0.0.0/4 ff00::/8", "multicast"),
    ("255.255.255.255/32", "broadcast"),
)
"""What no setting opens."""

_CLOSED = _table(
    ("127.0.0.0/8 ::1/128", "loopback"),
    ("10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7", "private"),
    ("100.64.0.0/10", "shared by a carrier's customers"),
    ("192.0.0.0/24 192.88.99.0/24 192.52.193.0/24 192.31.196.0/24 192.175.48.0/24 240.0.0.0/4", "reserved"),
    ("192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20", "for documentation"),
    ("198.18.0.0/15 2001:2::/48", "for benchmarks"),
    ("64:ff9b:1::/48", "a private network's NAT64"),
    ("::/96", "an IPv4-compatible one"),
    ("2002::/16", "6to4"),
    ("2001::/32", "Teredo"),
    ("2001::/23 2620:4f:8000::/48", "reserved"),
    ("fec0::/10", "site-local"),
)
"""What `allow_networks` may open. Source: IANA's registries of special-purpose addresses, and what the standard library
lets through as global: multicast, NAT64, 6to4, IPv4-compatible and site-local ones."""

_MAPPED = ip_network("::ffff:0:0/96")
_NAT64 = ip_network("64:ff9b::/96")
"""Where a network has no IPv4, DNS64 gives public receivers addresses in it (RFC 6052): it is what they hold."""
_GLOBAL_UNICAST = ip_network("2000::/3")
_EMBEDDING_LAST = (_MAPPED, _NAT64, ip_network("::/96"), ip_network("64:ff9b:1::/48"))
"""Their last 32 bits are an IPv4 address. ::1 and :: are none of the third."""


class Target(Struct, frozen=True, kw_only=True):
    """A URL, read. `host` is a name or an address (IPv6 without brackets), lower case; `path` begins with a slash, and
    it and `query` are percent-encoded as they came."""

    scheme: str
    host: str
    port: int
    path: str
    query: str


class EgressPolicy(Struct, frozen=True, kw_only=True):
    """What the operator allows. Names in `http_hosts` are in lower case.

    `loopback`: http and https to this machine, at any port, if the URL itself names it (`localhost`, 127.0.0.1): for a
    service that only this machine can reach. A name from elsewhere that leads here stays refused.
    """

    allow_networks: tuple[Network, ...] = ()
    http_hosts: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset({HTTPS_PORT})
    loopback: bool = False

    def check_url(self, url: str) -> Target:
        """Raises InvalidRequest, with the reason, for what cannot be sent to. An address in the URL is judged; a name
        is not looked up: that happens at every try, and counts there only."""
        target = _read(url)
        local = self.loopback and _names_this_machine(target.host)
        insecure = target.scheme == "http"
        if insecure and not (local or target.host in self.http_hosts):
            raise InvalidRequest("the URL must begin with https://; http is for hosts in webhook_http_hosts")
        allowed = self.ports | {HTTP_PORT} if insecure else self.ports
        if not local and target.port not in allowed:
            raise InvalidRequest(f"the URL's port {target.port} is not open to webhooks (webhook_ports)")
        if _is_address(target.host) and (reason := self.judge(target.host)):
            raise InvalidRequest(f"the URL's address is {reason}, where webhooks do not go")
        return target

    def judge(self, address: str, *, host: str = "") -> str | None:
        """What is wrong with sending to `address`, or None. `host` is the name that led to it, empty if none did.

        Whatever is no address is refused too.
        """
        try:
            parsed = ip_address(address)
        except ValueError:  # refused, like any other that is not judged good
            return "no IP address"
        if isinstance(parsed, IPv6Address) and parsed.scope_id is not None:
            return "of one link"
        return self._judge(parsed, host or address)

    def _judge(self, address: Address, host: str) -> str | None:
        if what := _of(_NEVER, address):
            return what
        for held in _embedded(address):
            if what := self._judge(held, host):
                return f"one that holds another which is {what}"
        if any(address in network for network in self.allow_networks):
            return None
        if self.loopback and address.is_loopback and _names_this_machine(host):
            return None
        if address in _MAPPED or address in _NAT64:
            return None  # what it holds was judged
        if what := _of(_CLOSED, address):
            return what
        return None if address.version == 4 or address in _GLOBAL_UNICAST else "reserved"


def _read(url: str) -> Target:
    if not url or len(url) > URL_MOST_CHARS:
        raise InvalidRequest(f"a URL has 1 to {URL_MOST_CHARS} characters")
    if not url.isascii():
        raise InvalidRequest("the URL has characters beyond ASCII: write names as xn--..., the rest percent-encoded")
    if unsafe := _UNSAFE.search(url):
        raise InvalidRequest(f"the URL has the character {unsafe[0]!r}, which no part of one may have")
    if not (parts := _URL.fullmatch(url)):
        raise InvalidRequest("the URL must be whole: https://HOST/PATH")
    scheme, authority, path, query, fragment = parts.groups()
    if scheme.lower() not in ("https", "http"):
        raise InvalidRequest("the URL must begin with https://")
    if fragment is not None:
        raise InvalidRequest("the URL has a fragment (#), which is never sent")
    if "@" in authority:
        raise InvalidRequest("the URL has a user name or a password; webhooks are signed instead")
    if _BAD_ESCAPE.search(path) or _BAD_ESCAPE.search(query or ""):
        raise InvalidRequest("the URL has a % without two hexadecimal digits behind it")
    if not (place := _AUTHORITY.fullmatch(authority)):
        raise InvalidRequest("the URL's host is neither a name nor an address, with or without a port")
    bracketed, name, port = place.groups()
    return Target(
        scheme=scheme.lower(),
        host=_host(bracketed, name),
        port=_port(port, scheme.lower()),
        path=path or "/",
        query=query or "",
    )


def _host(bracketed: str | None, name: str) -> str:
    """Only one spelling of an IPv4 address is taken: of 0x7f.1, 017700000001 and 2130706433 each reader makes its
    own."""
    if bracketed is not None:
        try:
            return str(IPv6Address(bracketed))
        except ValueError:
            raise InvalidRequest("the URL's host is no IPv6 address") from None
    host = name.lower()
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise InvalidRequest("the URL's host must be a name, or four decimal numbers with dots") from None
    if len(host) > HOST_MOST_CHARS or not _NAME.fullmatch(host):
        raise InvalidRequest("the URL's host is no name")
    return host


def _port(text: str | None, scheme: str) -> int:
    if text is None:
        return HTTPS_PORT if scheme == "https" else HTTP_PORT
    if not 1 <= len(text) <= 5 or not 1 <= int(text) <= 65535:
        raise InvalidRequest("the URL's port is none of 1 to 65535")
    return int(text)


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()


def _names_this_machine(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _of(table: tuple[tuple[Network, str], ...], address: Address) -> str | None:
    return next((what for network, what in table if address in network), None)


def _embedded(address: Address) -> list[IPv4Address]:
    """The IPv4 addresses that a gateway, a tunnel or the kernel would read in an IPv6 one."""
    if isinstance(address, IPv4Address) or address.is_loopback:
        return []
    if any(address in network for network in _EMBEDDING_LAST):
        return [IPv4Address(int(address) & 0xFFFF_FFFF)]
    if address.sixtofour is not None:
        return [address.sixtofour]
    return list(address.teredo or ())
