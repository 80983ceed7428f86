"""The address of a registry: by HTTPS, or by plain HTTP where that is allowed and HTTPS fails."""

import threading
from collections.abc import Callable

from osc_containers.registry import url_policy
from osc_containers.registry.errors import Failure
from osc_containers.registry.response import Response

# The host in the names of Docker Hub's images is a web site; the registry is at another host.
_API_HOSTS = {"docker.io": "registry-1.docker.io"}


class Address:
    """Where the registry `host` answers; may be used from several threads.

    Plain HTTP is allowed for loopback addresses and `insecure` registries. `home` is the host that answers, with its
    port, if it has one.
    """

    def __init__(self, host: str, *, insecure: bool) -> None:
        self.home = _API_HOSTS.get(host, host)
        self._host = host
        # HTTPS is tried first even where plain HTTP is allowed, as in containers/image (`detectProperties`).
        schemes = ("https", "http") if insecure or url_policy.is_loopback(host) else ("https",)
        # The possible URLs; reduced to one as soon as one of them answers.
        self._urls = tuple(f"{scheme}://{self.home}" for scheme in schemes)
        self._first_request = threading.Lock()
        self._is_known = threading.Event()

    @property
    def url(self) -> str:
        """The URL of the registry, without a path: the one that has answered, or else the one that is tried next."""
        return self._urls[0]

    @property
    def may_be_plain_http(self) -> bool:
        """Whether plain HTTP is allowed, and it is not known yet whether the registry uses it."""
        return len(self._urls) > 1

    def send(self, request: Callable[[str], Response]) -> Response:
        """Return the response of `request`, which is called with a URL of the registry.

        It is called again with the URL of plain HTTP if HTTPS fails and plain HTTP is allowed. The first request finds
        out which of them works.

        :raises Failure: there is no response.
        """
        # Other requests wait until the first one is answered: each failure closes all idle connections, so failures of
        # HTTPS would close connections on which plain HTTP works.
        if self.may_be_plain_http and not self._first_request.acquire(blocking=False):
            self._is_known.wait()
        try:
            return self._send_by_either(request)
        finally:
            self._is_known.set()

    def _send_by_either(self, request: Callable[[str], Response]) -> Response:
        urls = self._urls
        try:
            response = request(urls[0])
        except Failure as failure:
            if failure.is_plain_http and len(urls) == 1:
                raise self._plain_http_failure(failure) from None
            if len(urls) == 1 or not failure.may_be_plain_http:
                raise
            https_failure = failure
        else:
            self._urls = urls[:1]
            return response
        # This is certain, so later requests skip HTTPS even if this one fails by plain HTTP, too.
        if https_failure.is_plain_http:
            self._urls = urls[1:]
            self._is_known.set()
        try:
            response = request(urls[1])
        except Failure as failure:
            # The failure of HTTPS says more, unless the registry certainly uses plain HTTP.
            raise (failure if https_failure.is_plain_http or failure.is_final else https_failure) from None
        # An HTTPS server answers 400 to plain HTTP.
        if response.status == 400 and not https_failure.is_plain_http:
            response.close()
            raise https_failure
        self._urls = urls[1:]
        return response

    def _plain_http_failure(self, failure: Failure) -> Failure:
        """Return a failure that says how to allow plain HTTP."""
        return Failure(
            f"{failure}; correct the name, or, if you trust the network up to there, add these lines to "
            f"~/.config/containers/registries.conf (a mirror has [[registry.mirror]]): `[[registry]]`, "
            f'`location = "{self._host}"`, `insecure = true`',
            is_final=True,
        )
