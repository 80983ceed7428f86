"""The registry of CNCF distribution on a free loopback port, and a way to push images into it unchanged.

Host programs: docker-registry (of Debian); openssl for TLS; htpasswd for users.
"""

import http.client
import json
import shutil
import ssl
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from osc_containers.oci.digest import Digest
from tests.support.images import Image

_PATIENCE = 20.0
"""Seconds that the registry has to come up, or to write a line of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request that the registry has answered; `written` counts the bytes of the body it sent."""

    method: str
    path: str
    status: int
    written: int

    @property
    def is_blob(self) -> bool:
        """Tell whether it fetched a blob, or a part of one."""
        return self.method == "GET" and "/blobs/sha" in self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerRegistry:
    """A running registry; `host` is `127.0.0.1:PORT`, `authority` the file of the CA that signed its certificate."""

    host: str
    directory: Path
    authority: Path | None = None
    users: Mapping[str, str] = field(default_factory=dict)

    def push(self, image: Image, name: str) -> str:
        """Store `image` and everything below it as `name` (`PATH:TAG`), byte for byte; return `HOST/PATH:TAG`."""
        repository, _, tag = name.rpartition(":")
        with self._connection() as connection:
            for part in image.manifests():
                for blob in part.blobs:
                    self._push_blob(connection, repository, blob)
                target = tag if part is image else str(part.digest)
                path = f"/v2/{repository}/manifests/{target}"
                self._request(connection, "PUT", path, 201, body=part.raw, media_type=part.media_type)
        return f"{self.host}/{name}"

    def requests(self) -> tuple[Request, ...]:
        """Return every request that was answered so far, in the order of the registry's log."""
        marker = f"/v2/?marker={time.monotonic_ns()}"  # the log is written after the answer: wait for one of our own
        with self._connection() as connection:
            self._request(connection, "GET", marker, 200)
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            found = tuple(_logged_requests(self.directory / "log"))
            if any(request.path == marker for request in found):
                return tuple(request for request in found if "?marker=" not in request.path)
            time.sleep(0.01)
        raise TimeoutError(f"{self.directory / 'log'}: {marker} does not appear")

    def blob_file(self, digest: Digest) -> Path:
        """Return the file in which the registry keeps a blob, for tests that damage it."""
        return self.directory / "storage/docker/registry/v2/blobs/sha256" / digest.hex[:2] / digest.hex / "data"

    @contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        if self.authority:
            context = ssl.create_default_context(cafile=str(self.authority))
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(self.host, context=context)
        else:
            connection = http.client.HTTPConnection(self.host)
        try:
            yield connection
        finally:
            connection.close()

    def _push_blob(self, connection: http.client.HTTPConnection, repository: str, blob: bytes) -> None:
        # distribution-spec v1.1, "Pushing a blob monolithically", "POST then PUT"
        upload = self._request(connection, "POST", f"/v2/{repository}/blobs/uploads/", 202)
        path = upload.partition(self.host)[2]
        separator = "&" if "?" in path else "?"
        self._request(connection, "PUT", f"{path}{separator}digest={Digest.of(blob)}", 201, body=blob)

    def _request(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        status: int,
        *,
        body: bytes = b"",
        media_type: str = "application/octet-stream",
    ) -> str:
        headers = {"Content-Type": media_type}
        for user, password in list(self.users.items())[:1]:
            headers["Authorization"] = f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        content = response.read()
        if response.status != status:
            raise RuntimeError(f"{method} {path}: {response.status} {content[:400]!r}, expected {status}")
        return response.getheader("Location", "")


class StartRegistry(Protocol):
    """What the fixture `start_registry` gives: the arguments of `serve` without the directory."""

    def __call__(self, *, tls: bool = False, users: Mapping[str, str] | None = None) -> DockerRegistry:
        """Start a registry that stops at the end of the test."""


@contextmanager
def serve(
    directory: Path, *, tls: bool = False, users: Mapping[str, str] | None = None, mirror_of: str = ""
) -> Iterator[DockerRegistry]:
    """Run a registry that keeps its files, its log included, in `directory`; it stops when the context is left.

    With `tls` it makes a certification authority of its own; with `users` (passwords by name) it asks for a password,
    and `push` logs in as the first of them. With `mirror_of` (a URL) it has nothing of its own and gets all from there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    authority = _make_certificate(directory) if tls else None
    configuration = directory / "config.yml"
    configuration.write_text(_configuration(directory, tls, users or {}, mirror_of))
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([program(), "serve", configuration], stdout=output, stderr=output)
    try:
        port = _wait_for_port(log, process)
        yield DockerRegistry(host=f"127.0.0.1:{port}", directory=directory, authority=authority, users=users or {})
    finally:
        process.kill()  # there is nothing to save, and an orderly stop waits for idle connections
        process.wait()


def program() -> str:
    """Return the program of the registry, which is called `registry` in openSUSE and Fedora."""
    return "docker-registry" if shutil.which("docker-registry") else "registry"


def _configuration(directory: Path, tls: bool, users: Mapping[str, str], mirror_of: str) -> str:
    # JSON is YAML. Port 0 lets the kernel choose, so no two registries can race for one.
    http_section: dict[str, object] = {"addr": "127.0.0.1:0"}
    if tls:
        http_section["tls"] = {"certificate": f"{directory}/server.crt", "key": f"{directory}/server.key"}
    document: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": f"{directory}/storage"}, "delete": {"enabled": True}},
        "http": http_section,
    }
    if mirror_of:
        document["proxy"] = {"remoteurl": mirror_of}
    if users:
        document["auth"] = {"htpasswd": {"realm": "test", "path": _make_passwords(directory, users)}}
    return json.dumps(document)


def _make_passwords(directory: Path, users: Mapping[str, str]) -> str:
    lines = (_run("htpasswd", "-nbBC", "4", user, password).strip() for user, password in users.items())
    path = directory / "htpasswd"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def _make_certificate(directory: Path) -> Path:
    new = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    names = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    authority, key = directory / "ca.crt", directory / "ca.key"
    # Python 3.13 wants an authority to say what its key is for; OpenSSL 3.0 adds the other extensions by itself.
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    _run(*new, "-subj", "/CN=test authority", *usage, "-keyout", str(key), "-out", str(authority))
    signed = ("-CA", str(authority), "-CAkey", str(key))
    out = ("-keyout", f"{directory}/server.key", "-out", f"{directory}/server.crt")
    _run(*new, *names, "-addext", "basicConstraints=critical,CA:false", *signed, *out)
    return authority


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _wait_for_port(log: Path, process: "subprocess.Popen[bytes]") -> int:
    deadline = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        for record in _records(log):
            message = str(record.get("msg"))
            if message.startswith("listening on "):
                return int(message.removesuffix(", tls").rpartition(":")[2])
        time.sleep(0.01)
    raise RuntimeError(f"docker-registry does not come up: {log.read_text(errors='replace')[-2000:]}")


def _logged_requests(log: Path) -> Iterator[Request]:
    for record in _records(log):
        if record.get("msg") == "response completed":
            yield Request(
                method=str(record["http.request.method"]),
                path=str(record["http.request.uri"]),
                status=int(str(record["http.response.status"])),
                written=int(str(record["http.response.written"])),
            )


def _records(log: Path) -> Iterator[dict[str, object]]:
    for line in log.read_bytes().split(b"\n")[:-1]:  # the last one may be half written
        if line.startswith(b"{"):
            yield json.loads(line)
