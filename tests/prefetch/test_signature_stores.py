"""Signatures in a store that registries.d names by http(s): whatever its server does, and what it gets to know."""

import base64
import json
import os
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from osc_containers.errors import Error, RegistryError
from osc_containers.evidence.signatures import payload
from osc_containers.evidence.signatures.payload import SIMPLE
from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import Reference
from osc_containers.prefetch.signature_finder import Found, SignatureFinder, StoreReader
from osc_containers.registry.config import certs_d
from osc_containers.registry.retry import Policy
from osc_containers.sources.registry import RegistryImages
from tests.support import fault_registry, faults
from tests.support.fault_registry import Answer, Exchange, Fault, FaultRegistry, Request

_POLICY = Policy(connect_timeout=2, read_timeout=0.5, deadline=3, attempts=3, first_delay=0.02, longest_delay=0.05)
_LIMIT = payload.LIMIT
_DIGEST = Digest.of(b"manifest")
_PATH = f"/store/team/app@sha256={_DIGEST.hex}/signature-"
_GOOD = b"\x90 an OpenPGP message"
_SECRET = base64.b64encode(b"ann:secret").decode()
_AUTHORITY = Path(__file__).parent.parent / "support/authorities/not-critical"


@pytest.fixture
def store() -> Iterator[FaultRegistry]:
    """Give a server with two signatures."""
    with fault_registry.serve() as server:
        _serve(server)
        yield server


@pytest.fixture
def elsewhere() -> Iterator[FaultRegistry]:
    with fault_registry.serve() as server:
        _serve(server)
        yield server


def _file(content: bytes) -> Fault:
    """Answer with a file."""
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(content))}
    return lambda exchange: exchange.send(Answer(status=200, headers=headers, body=content))


def _truncated(exchange: Exchange) -> None:
    """Announce more bytes than there are."""
    exchange.send(Answer(status=200, headers={"Content-Length": "1000", "Connection": "close"}, body=_GOOD))


def _serve(server: FaultRegistry, more: Mapping[str, Fault] = {}, count: int = 2) -> None:
    """Serve some signatures; `more` has other answers for the paths of some of them."""

    def script(request: Request) -> Fault | None:
        number = request.path.removeprefix(_PATH)
        is_there = number.isdecimal() and 1 <= int(number) <= count
        return more.get(number) or (_file(_GOOD + number.encode()) if is_there else None)

    server.script = script


def _look(url: str, home: Path, *, image: str = "registry.example/team/app:1") -> Found:
    """Look for the signatures of an image; the user has logins for the registry and for every server."""
    configuration = home / ".config/containers"
    (configuration / "registries.d").mkdir(parents=True, exist_ok=True)
    text = json.dumps({"default-docker": {"lookaside": url}})
    (configuration / "registries.d/default.yaml").write_text(text)
    hosts = ["registry.example", url.partition("://")[2].partition("/")[0]]
    (home / "auth.json").write_text(json.dumps({"auths": {host: {"auth": _SECRET} for host in hosts}}))
    environ = {"HOME": str(home), "REGISTRY_AUTH_FILE": str(home / "auth.json")}
    images = RegistryImages(_POLICY, environ, certs_d.system_context)
    try:
        return SignatureFinder(images, StoreReader(environ)).find(Reference.parse(image), _DIGEST)
    finally:
        images.close()


def _failure(url: str, home: Path) -> str:
    """Return why looking for signatures failed, which takes no longer than the deadline and some."""
    started = time.monotonic()
    with pytest.raises(RegistryError) as caught:
        _look(url, home)
    assert time.monotonic() - started < 10 * _POLICY.deadline
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_signatures_are_files_with_numbers(store: FaultRegistry, tmp_path: Path) -> None:
    found = _look(f"http://{store.host}/store", tmp_path)
    assert [each.value for each in found.signatures] == [_GOOD + b"1", _GOOD + b"2"]
    assert {each.format for each in found.signatures} == {SIMPLE}
    assert [(request.method, request.path) for request in store.requests] == [("GET", f"{_PATH}{n}") for n in (1, 2, 3)]


def test_a_store_without_signatures_is_no_error(store: FaultRegistry, tmp_path: Path) -> None:
    _serve(store, count=0)
    assert _look(f"http://{store.host}/store", tmp_path).signatures == ()
    assert len(store.requests) == 1


def test_the_store_gets_no_login(store: FaultRegistry, elsewhere: FaultRegistry, tmp_path: Path) -> None:
    """Neither when it asks for one, nor when it is the registry itself; podman sends none, either."""
    challenge = {"WWW-Authenticate": 'Basic realm="store"'}
    _serve(store, {"2": faults.redirect(f"http://{elsewhere.host}{_PATH}2"), "3": faults.status(401, challenge)})
    assert "HTTP 401" in _failure(f"http://{store.host}/store", tmp_path)
    assert [request.path for request in elsewhere.requests] == [f"{_PATH}2"]
    for request in (*store.requests, *elsewhere.requests):
        assert not {"authorization", "cookie", "proxy-authorization"} & set(request.headers)
        assert _SECRET not in str(request)


@pytest.mark.integration
def test_a_failure_that_passes_is_waited_for(store: FaultRegistry, tmp_path: Path) -> None:
    for fault in (faults.status(503), faults.reset_before, _truncated, faults.stall_before):
        _serve(store)
        good = store.script
        flaky = faults.on(fault, lambda request: request.path.endswith("-2"), times=1)
        store.script = lambda request, good=good, flaky=flaky: flaky(request) or good(request)  # type: ignore[misc]
        assert len(_look(f"http://{store.host}/store", tmp_path).signatures) == 2


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (faults.status(403), "HTTP 403"),
        (faults.status(410), "HTTP 410"),
        (faults.status(500), "HTTP 500"),
        (faults.status(204), "HTTP 204"),
        (faults.endless_error, "HTTP 500"),
        (_file(bytes(_LIMIT + 1)), f"got more than {_LIMIT} bytes"),
        (faults.endless_body, f"got more than {_LIMIT} bytes"),
        (_truncated, f"interrupted after {len(_GOOD)} of 1000 bytes"),
        (faults.endless_headers, "the response is not HTTP"),
        (faults.endless_interim, "the response is not HTTP"),
        pytest.param(faults.stall_before, "no answer in time", marks=pytest.mark.integration),
        (faults.garbage, "the response is not HTTP"),
        (faults.web_page, "expected a signature"),
        (_file(b""), "expected a signature"),
        (_file(b"\0sigstore-json\n{"), "not valid JSON"),
        (faults.redirect_loop, "got more than 9 redirects"),
        (faults.redirect("file:///etc/passwd"), "expected http or https"),
        (faults.redirect("http://169.254.169.254/latest"), "expected one on the registry's own machine"),
        (faults.redirect("http://[fd00::1]/"), "expected one on the registry's own machine"),
        (faults.redirect("http://u:p@127.0.0.1/"), "got a URL with a user name"),
    ],
)
def test_what_a_store_cannot_give_is_an_error(store: FaultRegistry, tmp_path: Path, fault: Fault, message: str) -> None:
    """A store that fails may hide a signature, so the image is refused, as podman does."""
    _serve(store, {"2": fault})
    assert message in _failure(f"http://{store.host}/store", tmp_path)


def test_signatures_without_end_are_refused(store: FaultRegistry, tmp_path: Path) -> None:
    _serve(store, count=1000)
    assert "got more than 128 signatures of one image" in _failure(f"http://{store.host}/store", tmp_path)
    assert len(store.requests) == 129


def test_a_store_may_be_behind_tls(tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(f"{_AUTHORITY}.server.crt", _AUTHORITY.with_name("server.key"))
    with fault_registry.serve(context) as store, fault_registry.serve() as plain:
        _serve(store)
        _serve(plain)
        url = f"https://{store.host}/store"
        assert f"{store.host}/ca.crt" in _failure(url, tmp_path)
        assert store.requests == []
        directory = tmp_path / ".config/containers/certs.d" / store.host
        directory.mkdir(parents=True)
        (directory / "ca.crt").write_bytes(Path(f"{_AUTHORITY}.crt").read_bytes())
        assert len(_look(url, tmp_path).signatures) == 2
        _serve(store, {"1": faults.redirect(f"http://{plain.host}{_PATH}1")})
        _look(url, tmp_path)  # a redirect to the same machine may use plain HTTP
        _serve(store, {"1": faults.redirect("http://192.0.2.1/")})
        assert "expected one on the registry's own machine" in _failure(url, tmp_path)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://store.example/x", "expected file:, http: or https:"),
        ("/var/lib/store", "expected file:, http: or https:"),
        ("https:///x", "got a URL without a host"),
        ("https://ann:secret@store.example/x", "stores with a login are not supported"),
        ("https://store.example:x/", "Port could not be cast"),
        ("https://[::1/", "Invalid IPv6 URL"),
        ("https://store.example\\x/", "expected the name or address of a host"),
        ("file:///x%00y", "embedded null "),  # the rest depends on the release of Python
    ],
)
def test_urls_that_are_none_are_errors(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(Error) as caught:
        _look(url, tmp_path)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message"), [("pipe", "expected a regular file"), ("large", "got more than"), ("directory", "directory")]
)
def test_files_that_are_no_signature_are_errors(tmp_path: Path, kind: str, message: str) -> None:
    path = tmp_path / f"store/team/app@sha256={_DIGEST.hex}/signature-1"
    path.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)
    assert message in _failure(f"file://{tmp_path}/store", tmp_path)
