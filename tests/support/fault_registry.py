"""A registry in this process that behaves well or badly, as a test needs it; real HTTP on a free loopback port.

It has the read side of the distribution specification (v1.1: pull, content discovery) and of token authentication.
For every request a `Script` may name a fault, which then answers in the registry's place; `faults` has them.
"""

import base64
import hashlib
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.images import Image

_ROUTES = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<what>[^/]+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as received; header names are in lower case."""

    number: int
    connection: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The decoded path, without the query."""
        return unquote(urlsplit(self.target).path)

    def without_range(self) -> "Request":
        """Return the same request without a range."""
        return replace(self, headers={name: value for name, value in self.headers.items() if name != "range"})

    @property
    def is_blob(self) -> bool:
        """Tell whether the request is for a blob, in the registry or in a store."""
        return "/blobs/" in self.path or self.path.startswith("/storage/")


@dataclass(slots=True, kw_only=True)
class Answer:
    """A response before it is sent; a fault may change it."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    version: str = "HTTP/1.1"

    def head(self) -> bytes:
        """Return status line and headers as bytes."""
        lines = (f"{name}: {value}" for name, value in self.headers.items())
        return "\r\n".join((f"{self.version} {self.status} Status", *lines, "", "")).encode("latin-1")


class Exchange:
    """One request and its connection."""

    def __init__(self, registry: "FaultRegistry", request: Request, sock: socket.socket) -> None:
        self.registry = registry
        self.request = request
        self._socket = sock
        self.is_open = True

    def answer(self) -> Answer:
        """Return the answer of a correct registry."""
        return self.registry.answer(self.request)

    def send(self, answer: Answer) -> None:
        """Send a complete answer, in chunks if its headers say so."""
        chunked = answer.headers.get("Transfer-Encoding") == "chunked"
        self.send_bytes(
            answer.head() + (b"" if self.request.method == "HEAD" else chunks(answer) if chunked else answer.body)
        )
        if answer.version == "HTTP/1.0" or answer.headers.get("Connection") == "close":
            self.close()

    def send_bytes(self, content: bytes) -> None:
        """Send bytes unchanged."""
        if self.is_open:
            self._socket.sendall(content)

    def close(self) -> None:
        """Close the connection."""
        if self.is_open:
            self.is_open = False
            self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Reset the connection."""
        if self.is_open:
            self.is_open = False
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._socket.close()

    def pause(self, seconds: float) -> bool:
        """Wait, and tell whether the registry is still running."""
        return not self.registry.stopping.wait(seconds)


def chunks(answer: Answer, size: int = 1000) -> bytes:
    """Return the body in chunks (RFC 9112, 7.1)."""
    body = answer.body
    parts = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


Fault = Callable[[Exchange], None]
Script = Callable[[Request], Fault | None]


def _no_faults(_request: Request) -> Fault | None:
    return None


class FaultRegistry:
    """The registry's contents and settings; a test may change them at any time."""

    def __init__(self, host: str, refuse: Callable[[float], None]) -> None:
        self.host = host
        self.refuse = refuse
        """Accept no connection for some seconds."""
        self.script: Script = _no_faults
        self.stopping = threading.Event()
        self.requests: list[Request] = []
        self.manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.blobs: dict[str, bytes] = {}
        self.auth: str | None = None
        """None, `basic` or `bearer`."""
        self.users: dict[str, str] = {}
        self.identity_tokens: set[str] = set()
        self.allows_anonymous = True
        """Whether the token server issues tokens without a login."""
        self.realm = f"http://{self.host}/token"
        self.turn: AbstractContextManager[object] = nullcontext()
        """A context for serving a connection; with a lock, connections are served one at a time."""
        self.refuses_other_protocols = True
        """Whether a client with another protocol is refused, or kept waiting."""
        self.takes_ranges = True
        self.has_digest_header = True
        self.blob_location: str | None = None
        """The URL, without the digest at its end, to which requests for blobs are redirected."""
        self._tokens: dict[str, str] = {}
        self._lock = threading.Lock()

    def push(self, image: Image, name: str) -> str:
        """Store `image` and everything below it as `name` (`PATH:TAG`); return `HOST/PATH:TAG`."""
        repository, _, tag = name.rpartition(":")
        for part in image.manifests():
            for blob in part.blobs:
                self.put_blob(blob)
            for reference in (str(part.digest), f"sha512:{hashlib.sha512(part.raw).hexdigest()}"):
                self.manifests[repository, reference] = (part.raw, part.media_type)
        self.manifests[repository, tag] = (image.raw, image.media_type)
        return f"{self.host}/{name}"

    def put_blob(self, content: bytes) -> str:
        """Store a blob by its digests; return that of SHA-256."""
        for algorithm in ("sha384", "sha512"):
            self.blobs[f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"] = content
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return digest

    def expire_tokens(self) -> None:
        """Invalidate all tokens."""
        self._tokens.clear()

    def note(self, method: str, target: str, headers: dict[str, str], body: bytes, connection: int) -> Request:
        """Record a request with its number."""
        with self._lock:
            request = Request(
                number=len(self.requests),
                connection=connection,
                method=method,
                target=target,
                headers=headers,
                body=body,
            )
            self.requests.append(request)
        return request

    def answer(self, request: Request) -> Answer:
        """Return the answer that the specification demands."""
        if request.path == "/token":
            return self._token(request)
        if request.path.startswith("/storage/"):
            return self._blob(request, request.path.rpartition("/")[2])
        match = _ROUTES.fullmatch(request.path)
        denied = self._denial(request, match["name"] if match else "")
        if denied or request.path == "/v2/":
            return denied or _json(200, {})
        if match is None:
            return _error(404, "NOT_FOUND", "no such place")
        if match["kind"] == "manifests":
            return self._manifest(match["name"], match["what"])
        if match["kind"] == "blobs":
            if self.blob_location:
                return Answer(
                    status=307, headers={"Location": self.blob_location + match["what"], "Content-Length": "0"}
                )
            return self._blob(request, match["what"])
        if match["kind"] == "tags":
            return self._tags(request, match["name"])
        return _json(200, {"schemaVersion": 2, "manifests": []})

    def _manifest(self, name: str, reference: str) -> Answer:
        if (name, reference) not in self.manifests:
            return _error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        raw, media_type = self.manifests[name, reference]
        headers = {"Content-Type": media_type, "Content-Length": str(len(raw))}
        algorithm = reference.partition(":")[0] if reference.startswith("sha512:") else "sha256"
        if self.has_digest_header:
            headers["Docker-Content-Digest"] = f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"
        return Answer(status=200, headers=headers, body=raw)

    def _blob(self, request: Request, digest: str) -> Answer:
        blob = self.blobs.get(digest)
        if blob is None:
            return _error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(blob))}
        match = _RANGE.fullmatch(request.headers.get("range", ""))
        if not match or not self.takes_ranges:
            return Answer(status=200, headers=headers, body=blob)
        first, last = int(match[1]), min(int(match[2] or len(blob) - 1), len(blob) - 1)
        if first > last:
            return _error(416, "RANGE_INVALID", "invalid range") if first else Answer(status=200, headers=headers)
        part = blob[first : last + 1]
        headers |= {"Content-Length": str(len(part)), "Content-Range": f"bytes {first}-{last}/{len(blob)}"}
        return Answer(status=206, headers=headers, body=part)

    def _tags(self, request: Request, name: str) -> Answer:
        tags = sorted(tag for repository, tag in self.manifests if repository == name and ":" not in tag)
        query = parse_qs(urlsplit(request.target).query)
        tags = [tag for tag in tags if tag > query.get("last", [""])[0]]
        count = int(query.get("n", ["100"])[0])
        answer = _json(200, {"name": name, "tags": tags[:count]})
        if len(tags) > count:
            answer.headers["Link"] = f'</v2/{name}/tags/list?n={count}&last={tags[count - 1]}>; rel="next"'
        return answer

    def _denial(self, request: Request, repository: str) -> Answer | None:
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if self.auth is None:
            return None
        if self.auth == "basic":
            if kind.lower() == "basic" and self._user(value):
                return None
            challenge = 'Basic realm="registry"'
        else:
            scope = f"repository:{repository}:pull"
            if kind.lower() == "bearer" and self._tokens.get(value) == scope:
                return None
            challenge = f'Bearer realm="{self.realm}",service="fault registry",scope="{scope}"'
        answer = _error(401, "UNAUTHORIZED", "authentication required")
        answer.headers["WWW-Authenticate"] = challenge
        return answer

    def _user(self, encoded: str) -> str | None:
        user, _, password = base64.b64decode(encoded).decode().partition(":")
        return user if user and self.users.get(user) == password else None

    def _token(self, request: Request) -> Answer:
        query = parse_qs(request.body.decode() if request.method == "POST" else urlsplit(request.target).query)
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if request.method == "POST":
            is_known = query.get("refresh_token", [""])[0] in self.identity_tokens
        else:
            is_known = self._user(value) is not None if kind else self.allows_anonymous
        if not is_known:
            return _error(401, "UNAUTHORIZED", "incorrect username or password")
        with self._lock:
            token = f"token{len(self._tokens)}-{time.monotonic_ns()}"
            self._tokens[token] = query.get("scope", [""])[0]
        return _json(200, {"token": token, "expires_in": 300, "issued_at": "2020-01-01T00:00:00Z"})


def _json(status: int, document: object) -> Answer:
    body = json.dumps(document).encode()
    return Answer(
        status=status, headers={"Content-Type": "application/json", "Content-Length": str(len(body))}, body=body
    )


def _error(status: int, code: str, message: str) -> Answer:
    return _json(status, {"errors": [{"code": code, "message": message}]})


@contextmanager
def serve(context: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> Iterator[FaultRegistry]:
    """Run a registry at an IPv4 address of this machine until the context is left, with TLS if there is a `context`."""
    server = _Server(context, address)
    try:
        yield server.registry
    finally:
        server.stop()


class _Server:
    """The sockets; one thread accepts connections, and each connection has a thread."""

    def __init__(self, context: ssl.SSLContext | None, address: str) -> None:
        self._context = context
        self._listener = socket.create_server((address, 0))
        self._address = address, self._listener.getsockname()[1]
        self.registry = FaultRegistry("{}:{}".format(*self._address), self._refuse)
        self._pause = 0.0
        self._open: dict[int, socket.socket] = {}
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stop(self) -> None:
        self.registry.stopping.set()
        with suppress(OSError):  # `refuse` may have closed it for a moment
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for sock in list(self._open.values()):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()

    def _refuse(self, seconds: float) -> None:
        self._pause = seconds
        self._listener.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self.registry.stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                self._listener.close()
                if not self.registry.stopping.wait(self._pause):
                    self._listener = socket.create_server(self._address)
                continue
            number = len(self._threads)
            self._open[number] = sock
            self._threads.append(threading.Thread(target=self._serve, args=(sock, number)))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        with (
            suppress(OSError, _GoneError),
            sock,
            self._secured(sock) as secured,
            secured.makefile("rb") as stream,
            self.registry.turn,
        ):
            self._open[number] = secured
            is_open = True
            while is_open:
                request = self.registry.note(*_read_request(stream), number)
                exchange = Exchange(self.registry, request, secured)
                fault = self.registry.script(request)
                if fault:
                    fault(exchange)
                else:
                    exchange.send(exchange.answer())
                is_open = exchange.is_open
        self._open.pop(number, None)

    def _secured(self, sock: socket.socket) -> socket.socket:
        """Start TLS if the registry uses it. A client with another protocol gets no further."""
        if (sock.recv(1, socket.MSG_PEEK) == b"\x16") == (self._context is not None):
            return self._context.wrap_socket(sock, server_side=True) if self._context else sock
        if self.registry.refuses_other_protocols:
            sock.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        else:
            while sock.recv(1 << 10):
                pass
        raise _GoneError


class _GoneError(Exception):
    """The client has closed the connection."""


def _read_request(stream: BinaryIO) -> tuple[str, str, dict[str, str], bytes]:
    words = stream.readline().decode("latin-1").split()
    if len(words) != 3:
        raise _GoneError
    headers = {}
    while (line := stream.readline().decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return words[0], words[1], headers, stream.read(int(headers.get("content-length", "0")))
