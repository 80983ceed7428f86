"""The proxies of the environment (`https_proxy`, `no_proxy`, …), in the way that requests reads them."""

import os
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

    :raises Failure: it is no URL of an HTTP proxy; SOCKS is not spoken.
    """
    try:
        login = parse_url(proxy).auth
        headers = make_headers(proxy_basic_auth=unquote(login)) if login else None
        return ProxyManager(proxy, proxy_headers=headers, **settings)
    except (HTTPError, ValueError) as error:
        shown = hosts.shown(proxy)
        raise Failure(
            f"{shown}: no HTTP proxy, {type(error).__name__}; correct https_proxy and its like", is_final=True
        ) from None
