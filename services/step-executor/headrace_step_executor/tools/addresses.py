"""Which addresses a pipeline may talk to: public ones, and what the operator allows.

A name is resolved once, every address it has is checked, and the caller connects to exactly those that were
checked: a name that answers differently the second time gains nothing. Pure but for the resolver.
"""

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlsplit

from headrace.contracts.errors import AttemptError
from headrace_step_executor.tools.call import refuse, try_later

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port → addresses as text."""

_NUMERIC: Final = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+)){0,3}\.?")
"""What the C library takes for an IPv4 address: decimal, octal and hexadecimal forms, one to four parts."""
_HOST: Final = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?")
_TRANSLATING: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96", "::ffff:0:0:0/96")
)
"""IPv6 addresses that stand for IPv4 ones: NAT64, 6to4, Teredo, compatible and translated forms."""
_PLATFORM: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(text) for text in ("168.63.129.16/32", "192.88.99.0/24", "192.0.0.0/24", "fd00:ec2::/32")
)
"""Public by number, but answered by the machine's own platform, or an old relay."""
_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")
"""All that is given out of IPv6. The rest is local, as fec0::/10 once was, or nobody's."""
_DOCUMENTATION: Final = ipaddress.ip_network("3fff::/20")


@dataclass(slots=True, frozen=True)
class Target:
    """Where a request goes."""

    scheme: str
    host: str
    """ASCII, lower case, without brackets."""
    port: int
    path: str
    """With the query."""

    @property
    def authority(self) -> str:
        """For the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address again, normalised."""
        return f"{self.scheme}://{self.authority}{self.path}"


_PORTS: Final = {"http": 80, "https": 443}


@dataclass(slots=True, frozen=True)
class AllowList:
    """What the operator allows besides the public internet: `host:port` or a network."""

    hosts: frozenset[tuple[str, int]] = frozenset()
    networks: tuple[Network, ...] = field(default=())

    def allows(self, target: Target, address: Address) -> bool:
        """True when the operator has named this place."""
        if (target.host, target.port) in self.hosts:
            return True
        return any(address in network for network in self.networks if network.version == address.version)


def allow_list(entries: Sequence[str]) -> AllowList:
    """The allow-list in configuration text.

    Raises:
        ValueError: an entry is neither a network nor `host:port`.
    """
    hosts: set[tuple[str, int]] = set()
    networks: list[Network] = []
    for entry in entries:
        host, _, port = entry.rpartition(":")
        if "/" in entry:
            networks.append(ipaddress.ip_network(entry))
        elif host and port.isdigit():
            hosts.add((host.strip("[]").lower(), int(port)))
        else:
            message = f"{entry!r} is neither a network (10.0.0.0/8) nor host:port"
            raise ValueError(message)
    return AllowList(frozenset(hosts), tuple(networks))


def parse_target(url: str) -> Target:
    """The parts of an http or https address.

    Raises:
        AttemptError: `url_invalid`, or `ssrf_blocked` for hosts written so that a check may be fooled.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        msg = "url_invalid"
        raise refuse(msg, f"not an address: {error}") from error
    if parts.scheme not in _PORTS:
        msg = "ssrf_blocked"
        raise refuse(msg, f"scheme {parts.scheme[:20]!r}: only http and https are allowed")
    if "@" in parts.netloc:
        msg = "url_invalid"
        raise refuse(msg, "user and password do not belong into an address; use a header")
    if any(ord(char) <= 32 or ord(char) == 127 or char == "\\" for char in url):
        msg = "url_invalid"
        raise refuse(msg, "white space, control characters and backslashes are not allowed")
    path = parts.path or "/"
    whole = path + (f"?{parts.query}" if parts.query else "")
    encoded = quote(whole, safe="/?%:@!$&'()*+,;=~[]")
    return Target(parts.scheme, _checked_host(host), port or _PORTS[parts.scheme], encoded)


def _checked_host(host: str) -> str:
    if "%" in host:
        msg = "ssrf_blocked"
        raise refuse(msg, "a zone or an escape in the host")
    if ":" in host:
        try:
            return ipaddress.IPv6Address(host).compressed
        except ValueError as error:
            msg = "url_invalid"
            raise refuse(msg, f"not an IPv6 address: {host[:100]!r}") from error
    try:
        plain = (host if host.isascii() else host.encode("idna").decode("ascii")).lower()
    except UnicodeError as error:
        msg = "url_invalid"
        raise refuse(msg, f"not a host name: {host[:100]!r}") from error
    if _NUMERIC.fullmatch(plain):
        try:
            return str(ipaddress.IPv4Address(plain))  # strict: four decimal parts without leading zeros
        except ValueError as error:
            msg = "ssrf_blocked"
            raise refuse(msg, f"{host[:100]!r} is another way to write an address") from error
    if not _HOST.fullmatch(plain) or len(plain) > 253:
        msg = "url_invalid"
        raise refuse(msg, f"not a host name: {host[:100]!r}")
    return plain


def denied(address: Address) -> str:
    """Why an address is no public one; empty for a public one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return "an IPv4 address inside an IPv6 one"
        if any(address in network for network in _TRANSLATING):
            return "an IPv4 address inside an IPv6 one" if int(address) > 1 else "loopback or unspecified"
    if any(address in network for network in _PLATFORM if network.version == address.version):
        return "an address of the platform"
    for reason, applies in (
        ("loopback", address.is_loopback),
        ("link-local or metadata", address.is_link_local),
        ("multicast", address.is_multicast),
        ("unspecified", address.is_unspecified),
        ("private, shared or reserved", not address.is_global or address.is_reserved or _is_unassigned(address)),
    ):
        if applies:
            return reason
    return ""


def _is_unassigned(address: Address) -> bool:
    """What `ipaddress` calls global for want of an entry in its tables."""
    return address.version == 6 and (address not in _GLOBAL_UNICAST or address in _DOCUMENTATION)


async def admitted(target: Target, resolve: Resolver, allowed: AllowList) -> tuple[str, ...]:
    """Addresses to connect to, each checked.

    Raises:
        AttemptError: `ssrf_blocked` if any address of the host is not allowed, `connect` if it has none.
    """
    try:
        ipaddress.ip_address(target.host)
        found: Sequence[str] = (target.host,)
    except ValueError:
        try:
            found = await resolve(target.host, target.port)
        except OSError as error:
            msg = "connect"
            raise try_later(msg, f"{target.host}: {error}") from error
    addresses = tuple(dict.fromkeys(found))
    if not addresses:
        msg = "connect"
        raise try_later(msg, f"{target.host} has no address")
    for text in addresses:
        _require_allowed(target, text, allowed)
    return addresses


def _require_allowed(target: Target, text: str, allowed: AllowList) -> None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise _blocked(target, text, "not a plain address") from error
    if allowed.allows(target, address):
        return
    reason = denied(address)
    if reason:
        raise _blocked(target, text, reason)


def _blocked(target: Target, address: str, reason: str) -> AttemptError:
    return refuse("ssrf_blocked", f"{target.host}: {address[:60]} is {reason}; nothing was sent")


def texts_of(
    found: Sequence[tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]],
) -> list[str]:
    """The addresses in what getaddrinfo gives."""
    return [str(entry[4][0]) for entry in found if entry[0] in (socket.AF_INET, socket.AF_INET6)]
