"""The proxies of the environment (`https_proxy`, `no_proxy`, …), in the way that requests reads them."""

import os
from typing import Any
from urllib.parse import unquote

from urllib3 import PoolManager, ProxyManager, make_headers
from urllib3.util import parse_url

from osc_containers.registry import hosts

_SUFFIX = "_proxy"


def of_environment(url: str) -> str | None:
    """Return the URL of the proxy that a request for `url` goes through; None for none, as always for this machine.

    :raises ValueError: the environment's is no URL.
    """
    # Few have one, and what knows all forms of no_proxy takes long to load.
    if not any(name.lower().endswith(_SUFFIX) for name in os.environ) or hosts.is_loopback(hosts.origin(url)[1]):
        return None
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(url, get_environ_proxies(url))
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def manager(proxy: str, **settings: Any) -> PoolManager:
    """Return what makes connections through a proxy, with the login that its URL has.

    :raises ValueError: it is no URL of a proxy that can be used.
    """
    if proxy.startswith("socks"):
        try:
            from urllib3.contrib.socks import SOCKSProxyManager
        except ImportError:
            raise ValueError("a SOCKS proxy needs the Python package PySocks") from None
        return SOCKSProxyManager(proxy, **settings)
    login = parse_url(proxy).auth
    headers = make_headers(proxy_basic_auth=unquote(login)) if login else None
    return ProxyManager(proxy, proxy_headers=headers, **settings)
