"""The proxies of the environment (`https_proxy`, `no_proxy`, …), in the way that requests reads them."""

import os
from importlib import import_module
from typing import Any
from urllib.parse import unquote

from urllib3 import PoolManager, ProxyManager, make_headers
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from osc_containers.registry import hosts
from osc_containers.registry.failures import Failure

_SUFFIX = "_proxy"


def of_environment(url: str) -> str | None:
    """Return the URL of the proxy that a request for `url` goes through; None for none, as always for this machine."""
    # Few have one, and what knows all forms of no_proxy takes long to load.
    if not any(name.lower().endswith(_SUFFIX) for name in os.environ) or hosts.is_loopback(hosts.origin(url)[1]):
        return None
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(url, get_environ_proxies(url))
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def manager(proxy: str, **settings: Any) -> PoolManager:
    """Return what makes connections through a proxy, with the login that its URL has.

    :raises Failure: it is no URL of a proxy that can be used.
    """
    try:
        if proxy.startswith("socks"):
            return _socks(proxy, **settings)
        login = parse_url(proxy).auth
        headers = make_headers(proxy_basic_auth=unquote(login)) if login else None
        return ProxyManager(proxy, proxy_headers=headers, **settings)
    except (HTTPError, ValueError) as error:
        shown = hosts.shown(proxy)
        raise Failure(
            f"{shown}: no proxy that can be used, {type(error).__name__}; correct https_proxy", is_final=True
        ) from None


def _socks(proxy: str, **settings: Any) -> PoolManager:
    try:
        import_module("socks")  # urllib3 would warn before it raises
        from urllib3.contrib.socks import SOCKSProxyManager
    except ImportError:
        raise Failure(
            f"{hosts.shown(proxy)}: a proxy of this kind needs the Python package PySocks", is_final=True
        ) from None
    return SOCKSProxyManager(proxy, **settings)
