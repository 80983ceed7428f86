"""The proxies of the environment (`HTTPS_PROXY`, `NO_PROXY`, …), read as podman and skopeo read them.

Spec: Go's golang.org/x/net/http/httpproxy, `Config`. What there is in Python reads `NO_PROXY` otherwise, and each
release of requests in another way, so that a registry would be reached by one program and not by the other.
"""

import ipaddress
import os
from typing import Any
from urllib.parse import unquote

import urllib3
from urllib3 import PoolManager, ProxyManager
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from osc_containers.registry import url_policy
from osc_containers.registry.challenge import Login
from osc_containers.registry.config import certs_d
from osc_containers.registry.errors import Failure


def of_environment(url: str) -> str | None:
    """Return the URL of the proxy that a request for `url` goes through; None for none, as always for this machine."""
    scheme, host, port = url_policy.origin(url)
    proxy = _variable(f"{scheme}_proxy")
    if not proxy or url_policy.is_loopback(host):
        return None
    if any(_covers(entry.strip().lower(), host, port) for entry in _variable("no_proxy").split(",")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _variable(name: str) -> str:
    return os.environ.get(name.upper()) or os.environ.get(name, "")


def _covers(entry: str, host: str, port: int) -> bool:
    """Tell whether an entry of `NO_PROXY` is about a host: `*`, an address, a network or a domain, perhaps a port."""
    if entry == "*":
        return True
    name, separator, number = entry.rpartition(":")
    if not separator or (":" in name and not name.endswith("]")):  # no port, or an address of version 6
        name, number = entry, ""
    if number not in ("", str(port)):
        return False
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(name.strip("[]"), strict=False)
    except ValueError:
        domain = name.removeprefix("*") if name.startswith("*.") else name
    # A domain is about itself and what is below it; with a dot before it, about the latter only.
    return bool(domain) and (host if domain.startswith(".") else f".{host}").endswith(f".{domain.removeprefix('.')}")


def manager(proxy: str, **settings: Any) -> PoolManager:
    """Return what makes connections through a proxy, with the login that its URL has.

    :raises Failure: it is no URL of an HTTP proxy; SOCKS is not spoken.
    """
    try:
        user, _, password = (parse_url(proxy).auth or "").partition(":")
        login = Login(username=unquote(user), password=unquote(password))  # urllib3 would send it in latin-1
        headers = {"Proxy-Authorization": login.basic} if user else None
        # Without a context of ours, Python 3.13 refuses authorities here that we accept for a registry. With one,
        # urllib3 1 does not compare the proxy's name with the certificate.
        needs_context = proxy.lower().startswith("https:") and hasattr(urllib3, "BaseHTTPResponse")
        context = certs_d.system_context() if needs_context else None
        return ProxyManager(proxy, proxy_headers=headers, proxy_ssl_context=context, **settings)
    except (HTTPError, ValueError) as error:
        shown = url_policy.shown(proxy)
        raise Failure(
            f"{shown}: no HTTP proxy, {type(error).__name__}; correct https_proxy and its like", is_final=True
        ) from None
