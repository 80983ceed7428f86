"""The transport sends exactly what it is told to, whatever requests and the environment would add."""

import ipaddress
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from osc_containers.registry.errors import Failure, Route
from osc_containers.registry.session import Transport
from tests.support import faults
from tests.support.fault_registry import Answer, Exchange, Fault, FaultRegistry

LIMIT = 64 << 20


@pytest.fixture
def transport() -> Iterator[Transport]:
    transport = Transport(ssl.create_default_context(), 2)
    yield transport
    transport.close()


@pytest.fixture
def untrusted(transport: Transport) -> Iterator[Transport]:
    """Give the transport for hosts that the registry of `transport` leads to."""
    untrusted = Transport(ssl.create_default_context(), 2, home=transport)
    yield untrusted
    untrusted.close()


def send(
    transport: Transport, url: str, headers: dict[str, str] | None = None, proxy: str | None = None
) -> requests.Response:
    """Send a GET request and read only the headers of the response."""
    route = Route(url="http://registry", proxy="", certificates="")
    response = transport.send("GET", url, headers=headers or {}, body=None, timeout=(5, 5), proxy=proxy, route=route)
    response.raw.close()
    return response


def test_the_body_of_a_redirect_is_not_read(registry: FaultRegistry, transport: Transport) -> None:
    sent = 0

    def endless(exchange: Exchange) -> None:
        nonlocal sent
        answer = Answer(status=307, headers={"Location": "/elsewhere", "Content-Length": str(LIMIT)})
        exchange.send_bytes(answer.head())
        with suppress(OSError):
            for _ in range(LIMIT >> 20):
                exchange.send_bytes(bytes(1 << 20))
                sent += 1 << 20
        exchange.close()

    registry.script = lambda request: endless
    response = send(transport, f"http://{registry.host}/v2/")
    assert (response.status_code, response.headers["Location"]) == (307, "/elsewhere")
    assert sent < LIMIT / 2  # what the buffers of the two sockets hold
    assert len(registry.requests) == 1


def test_no_headers_are_added(registry: FaultRegistry, transport: Transport) -> None:
    send(transport, f"http://{registry.host}/v2/", {"User-Agent": "me", "Accept-Encoding": "identity"})
    assert registry.requests[0].headers == {"host": registry.host, "user-agent": "me", "accept-encoding": "identity"}


def test_a_url_is_sent_unchanged(registry: FaultRegistry, transport: Transport) -> None:
    """A store may have signed exactly this spelling."""
    send(transport, f"http://{registry.host}/a%7Eb%2Fc?signature=%7Ex%2B%41")
    assert registry.requests[0].target == "/a%7Eb%2Fc?signature=%7Ex%2B%41"


def test_cookies_are_neither_kept_nor_sent(registry: FaultRegistry, transport: Transport) -> None:
    registry.script = lambda request: faults.status(200, {"Set-Cookie": "session=1; Path=/"})
    for _ in range(2):
        send(transport, f"http://{registry.host}/v2/")
    assert [request.headers.get("cookie") for request in registry.requests] == [None, None]


def test_netrc_is_ignored(
    registry: FaultRegistry, transport: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    send(transport, f"http://{registry.host}/v2/")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    send(transport, f"http://{registry.host}/v2/")
    assert [request.headers.get("authorization") for request in registry.requests] == [None, None]


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "socks5://127.0.0.1:1", "nonsense://[", ":", "%"])
def test_proxies_of_the_environment_are_ignored(
    registry: FaultRegistry, transport: Transport, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    assert send(transport, f"http://{registry.host}/v2/").status_code == 200


@pytest.mark.parametrize("fault", [faults.reset_before, faults.close_before, faults.reset_in_headers])
def test_a_failed_request_is_not_repeated(registry: FaultRegistry, transport: Transport, fault: Fault) -> None:
    """The caller counts attempts."""
    registry.script = lambda request: fault
    with pytest.raises(Failure):
        send(transport, f"http://{registry.host}/v2/")
    assert len(registry.requests) == 1


@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_is_left_to_the_caller(registry: FaultRegistry, transport: Transport, code: int) -> None:
    registry.script = lambda request: faults.status(code, {"Retry-After": "1"})
    assert send(transport, f"http://{registry.host}/v2/").status_code == code
    assert len(registry.requests) == 1


@pytest.mark.parametrize("url", ["http://.example/", "http://[::1", "http://", "nothing"])
def test_an_unusable_url_is_a_failure(transport: Transport, url: str) -> None:
    with pytest.raises(Failure):
        send(transport, url)


def test_an_untrusted_name_may_not_resolve_to_this_machine(registry: FaultRegistry, untrusted: Transport) -> None:
    with pytest.raises(Failure, match=r"the name resolves to 127\.0\.0\.1, which is inside this machine") as caught:
        send(untrusted, f"http://{registry.host}/v2/")
    assert caught.value.is_final
    assert registry.requests == []


@pytest.mark.parametrize("first", ["192.0.2.1", "169.254.1.1", "fd00::1"])
def test_host_whose_address_is_inside_gets_nothing(
    registry: FaultRegistry, transport: Transport, untrusted: Transport, first: str
) -> None:
    """The registry was outside before: neither a host that it leads to nor its own name may be on this machine."""
    transport._peer = ipaddress.ip_address(first)
    for each in (transport, untrusted):
        with pytest.raises(Failure, match=r"the name resolves to 127\.0\.0\.1, which is inside this machine"):
            send(each, f"http://{registry.host}/v2/")
    assert not registry.requests


def test_registry_on_loopback_leads_to_loopback(
    registry: FaultRegistry, transport: Transport, untrusted: Transport
) -> None:
    send(transport, f"http://{registry.host}/v2/")
    assert send(untrusted, f"http://{registry.host}/v2/").status_code == 200


def test_a_proxy_on_this_machine_serves_untrusted_hosts(registry: FaultRegistry, untrusted: Transport) -> None:
    assert send(untrusted, "http://public.example/v2/", proxy=f"http://{registry.host}").status_code == 200
    assert registry.requests[0].target == "http://public.example/v2/"
