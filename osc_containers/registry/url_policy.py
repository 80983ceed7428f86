"""Where a request may go: checks of the URLs that a registry names, and redaction of URLs for messages.

A registry must not use our position in the network. It may send us to any other public host, but not to this machine or
its local link, where cloud metadata services are, and only by HTTP. A registry on such an address itself is exempt.
"""

import ipaddress
import re
import socket
from urllib.parse import SplitResult, urljoin, urlsplit

_URL_LENGTH = 8192
_HOST = re.compile(r"[A-Za-z0-9._:-]+")
"""What every URL parser takes for the host. For urllib3 it ends at a backslash, and a proxy may decode a '%'."""


def is_loopback(host: str) -> bool:
    """Tell whether `host` (a name or address, optionally with a port) is this machine."""
    name = _name(host)
    address = _address(name)
    return name == "localhost" or name.endswith(".localhost") or (address is not None and address.is_loopback)


def is_internal(host: str) -> bool:
    """Tell whether `host` is this machine or on the local link, in any spelling."""
    address = _address(_name(host))
    return is_loopback(host) or (address is not None and is_internal_address(address))


def is_internal_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Tell whether `address` belongs to this machine or the local link."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast


def follow(base: str, target: str, *, home: str) -> str:
    """Resolve `target`, a URL that a server named, against `base`. `home` is the registry's host.

    :raises ValueError: the URL is not allowed; the message contains no secrets of it.
    """
    if len(target) > _URL_LENGTH or not target.isascii() or not target.isprintable():
        raise ValueError(f"got a URL like {target[:60]!r}, expected at most {_URL_LENGTH} printable ASCII characters")
    url = urljoin(base, target)
    parts = _split(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("got a URL with a user name, expected none")
    host = parts.hostname or ""
    if is_internal(host) and not is_internal(home):
        raise ValueError(
            f"got a URL at {host[:80]!r}, which is inside this machine or its link; expected a public host"
        )
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
    return repr((f"{scheme}{separator}{host}" if separator else host)[:120])[1:-1]


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
    return (host.partition(":")[0] if host.count(":") == 1 else host).rstrip(".").lower()


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        pass
    try:
        # The resolver accepts '127.1' and '0x7f000001', too.
        return ipaddress.IPv4Address(socket.inet_aton(name))
    except OSError:
        return None
