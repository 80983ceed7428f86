"""Proxies from the environment (`HTTPS_PROXY`, `NO_PROXY`, …), interpreted as by podman and skopeo.

Source: Go's golang.org/x/net/http/httpproxy, `Config`. Python's libraries interpret `NO_PROXY` differently, and so do
releases of requests among each other; one program would then reach a registry and another would not.
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
    """Return the URL of the proxy for requests to `url`; None for a direct connection, as always to this machine."""
    scheme, host, port = url_policy.origin(url)
    # ALL_PROXY is ignored, as in Go.
    proxy = _variable(f"{scheme}_proxy")
    if not proxy or url_policy.is_loopback(host):
        return None
    if any(_matches(entry.strip().lower(), host, port) for entry in _variable("no_proxy").split(",")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _variable(name: str) -> str:
    return os.environ.get(name.upper()) or os.environ.get(name, "")


def _matches(entry: str, host: str, port: int) -> bool:
    """Tell whether an entry of `NO_PROXY` matches: `*`, an address, a network or a domain, optionally with a port."""
    if entry == "*":
        return True
    name, separator, number = entry.rpartition(":")
    # There is no port, or the colon belongs to an IPv6 address.
    if not separator or (":" in name and not name.endswith("]")):
        name, number = entry, ""
    if number not in ("", str(port)):
        return False
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(name.strip("[]"), strict=False)
    except ValueError:
        domain = name.removeprefix("*") if name.startswith("*.") else name
    # A domain matches itself and its subdomains; with a leading dot, only the subdomains.
    return bool(domain) and (host if domain.startswith(".") else f".{host}").endswith(f".{domain.removeprefix('.')}")


def manager(proxy: str, **settings: Any) -> PoolManager:
    """Return the pool manager for a proxy, with the login from its URL.

    :raises Failure: this is not the URL of an HTTP proxy. SOCKS proxies are not supported.
    """
    try:
        user, _, password = (parse_url(proxy).auth or "").partition(":")
        # Not left to urllib3, which sends logins in latin-1.
        login = Login(username=unquote(user), password=unquote(password))
        headers = {"Proxy-Authorization": login.basic} if user else None
        # Without a context of ours, Python 3.13 refuses authorities here that we accept for a registry. With one,
        # urllib3 1 does not compare the proxy's name with the certificate.
        needs_context = proxy.lower().startswith("https:") and hasattr(urllib3, "BaseHTTPResponse")
        context = certs_d.system_context() if needs_context else None
        if context:
            certs_d.complete(context)
        return ProxyManager(proxy, proxy_headers=headers, proxy_ssl_context=context, **settings)
    except (HTTPError, ValueError) as error:
        problem = f"not the URL of an HTTP proxy, {type(error).__name__}; correct https_proxy (or http_proxy)"
        raise Failure(f"{url_policy.redact(proxy)}: {problem}", is_final=True) from None
