"""Where a request may go: checks of the URLs that a registry names, and redaction of URLs for messages.

A registry must not use our position in the network. It may send us to any other public host, but not to this machine,
its local link, where cloud metadata services are, or a private IPv6 network, and only by HTTP. A registry at such an
address itself may send us to its own kind: see `may_lead`.
"""

import ipaddress
import re
import socket
from collections.abc import Iterator
from urllib.parse import SplitResult, urljoin, urlsplit

# RFC 9110, 4.1 asks every program to support at least 8000 octets; signed URLs are long.
_URL_LENGTH = 8192
_HOST = re.compile(r"[A-Za-z0-9._:-]+")
"""What every URL parser takes for the host. For urllib3 it ends at a backslash, and a proxy may decode a '%'."""
_LOOPBACK = ipaddress.IPv4Address("127.0.0.1")
_METADATA = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16")))
"""Services that clouds have for the machine alone, as on the local link: Alibaba's and Azure's."""
_UNIQUE_LOCAL = ipaddress.IPv6Network("fc00::/7")
_IPV4_AT_THE_END = tuple(map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96")))
"""IPv4-compatible (RFC 4291), IPv4-translated (RFC 2765) and NAT64 (RFC 6052) addresses."""
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
"""A prefix for NAT64 inside a network (RFC 8215). The length of the prefix decides where the IPv4 address is."""
_ISATAP = (0x00005EFE, 0x02005EFE)
"""What precedes the IPv4 address in interface identifiers of ISATAP (RFC 5214, section 6.1)."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_loopback(host: str) -> bool:
    """Tell whether `host` (a name or address, optionally with a port) is this machine."""
    address = _address(_name(host))
    return address is not None and _is_loopback(address)


def is_internal_address(address: Address) -> bool:
    """Tell whether `address`, in any spelling, belongs to this machine, the local link or a private IPv6 network."""
    return _is_local(address) or _is_site_local(address)


def may_lead(home: Address | None, target: Address | None) -> bool:
    """Tell whether a registry at `home` may send us to `target`; None is a name whose address is not known.

    Anybody on this machine can run a registry on loopback, so it may lead to loopback only. A registry on the local
    link may lead to its own address only, one in a private IPv6 network also to others in such a network.
    """
    if home is not None and _is_loopback(home):
        return target is not None and _is_loopback(target)
    if home is not None and _is_local(home):
        return target == home
    if target is None or not is_internal_address(target):
        return True
    return home is not None and _is_site_local(home) and not _is_local(target)


def may_be_home(first: Address, address: Address) -> bool:
    """Tell whether `address` may belong to the registry that was at `first` before.

    A name can resolve to another public address at any time. But if it resolves to this machine or its link all of a
    sudden, its owner is trying to send us there.
    """
    return not _is_local(address) or may_lead(first, address)


def follow(base: str, target: str, *, home: str) -> str:
    """Resolve `target`, a URL that a server named, against `base`. `home` is the registry's host.

    :raises ValueError: the URL is not allowed; the message contains no secrets of it.
    """
    # Parsers disagree about other characters, and what was checked here must be what is requested.
    if len(target) > _URL_LENGTH or not target.isascii() or not target.isprintable():
        raise ValueError(f"got a URL like {target[:60]!r}, expected at most {_URL_LENGTH} printable ASCII characters")
    url = urljoin(base, target)
    parts = _split(url)
    # requests would send such a login, even in place of the user's own.
    if parts.username is not None or parts.password is not None:
        raise ValueError("got a URL with a user name, expected none")
    host = parts.hostname or ""
    home_address, address = _address(_name(home)), _address(_name(host))
    if not may_lead(home_address, address):
        if address is not None and is_internal_address(address) and not is_loopback(home):
            raise ValueError(
                f"got a URL at {host[:80]!r}, which is inside this machine or its link, or in a private network; "
                "expected a public host"
            )
        raise ValueError(
            f"got a URL at {host[:80]!r}, expected one on the registry's own machine; if the registry is reached "
            "through a tunnel, use its own name"
        )
    # Otherwise, somebody in the network could replace what the registry has protected by TLS.
    if parts.scheme == "http" and urlsplit(base).scheme == "https" and not is_loopback(host):
        raise ValueError(f"got plain HTTP at {host[:80]!r}, expected HTTPS as before")
    return url


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port. A secret for one origin must not be sent to another."""
    parts = _split(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}[parts.scheme]


def redact(url: str) -> str:
    """Return scheme, host and port of `url` for messages, without the login, the path and the query.

    A query may be a signature, and messages name the blob by its digest anyway.
    """
    scheme, separator, rest = url.partition("://")
    host = re.split(r"[/?#]", rest if separator else scheme, maxsplit=1)[0].rpartition("@")[2]
    # `repr` escapes control characters, which could change what a terminal shows.
    return repr((f"{scheme}{separator}{host}" if separator else host)[:120])[1:-1]


def path(url: str) -> str:
    """Return the path of `url` for messages, without the query, which may be a signature."""
    return repr(urlsplit(url).path[:400])[1:-1]


def _split(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"got a URL of scheme {parts.scheme[:20]!r}, expected http or https")
    if not parts.hostname:
        raise ValueError("got a URL without a host")
    if not _HOST.fullmatch(parts.hostname):
        raise ValueError(f"got a URL at {parts.hostname[:80]!r}, expected the name or address of a host")
    _ = parts.port  # raises ValueError if the port is malformed
    return parts


def _name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    # With more than one colon it is an IPv6 address, and none of them separates a port. A dot at the end makes a name
    # absolute; it is the same host.
    return (host.partition(":")[0] if host.count(":") == 1 else host).rstrip(".").lower()


def _address(name: str) -> Address | None:
    """Return the address that a host is called by; None if it is a name that must be looked up."""
    # These names mean this machine, whatever a name server says (RFC 6761, 6.3).
    if name == "localhost" or name.endswith(".localhost"):
        return _LOOPBACK
    # After a '%', an IPv6 address names the interface.
    try:
        return ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        pass
    try:
        # The resolver accepts '127.1' and '0x7f000001', too.
        return ipaddress.IPv4Address(socket.inet_aton(name))
    except OSError:
        return None


def _is_loopback(address: Address) -> bool:
    # For Python 3.11, `::ffff:127.0.0.1` is not a loopback address.
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback


def _is_local(address: Address) -> bool:
    """Tell whether an address belongs to this machine or its link, or is translated to one that does."""
    is_local = address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
    return is_local or address in _METADATA or any(map(_is_local, _embedded(address)))


def _is_site_local(address: Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and (address in _UNIQUE_LOCAL or address.is_site_local)


def _embedded(address: Address) -> Iterator[ipaddress.IPv4Address]:
    """Yield the IPv4 addresses that an IPv6 address may stand for where it is translated or tunneled."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    value = int(address)
    last = ipaddress.IPv4Address(value & 0xFFFFFFFF)
    if address.ipv4_mapped:
        yield address.ipv4_mapped
    if address.sixtofour:
        yield address.sixtofour
    yield from address.teredo or ()
    if any(address in network for network in _IPV4_AT_THE_END) or (value >> 32) & 0xFFFFFFFF in _ISATAP:
        yield last
    if address in _LOCAL_NAT64:
        yield from _local_nat64(value)


def _local_nat64(value: int) -> Iterator[ipaddress.IPv4Address]:
    """Yield the IPv4 address for each length of the prefix that fits (RFC 6052, section 2.2).

    Bits 64 to 71 are left out, and what follows the IPv4 address is zero. An address of zeros counts only if no other
    length fits, since it is where the longer or shorter prefix has its own zeros.
    """
    without_gap = (value >> 64 << 56) | (value & ((1 << 56) - 1))  # 120 bits
    # The prefix has at least 48 bits. With 96 bits, the IPv4 address is at the end, behind the gap.
    found = {
        without_gap >> (120 - length - 32) & 0xFFFFFFFF
        for length in (48, 56, 64)
        if not without_gap & ((1 << (120 - length - 32)) - 1)
    } | {value & 0xFFFFFFFF}
    yield from map(ipaddress.IPv4Address, found - {0} or found)
