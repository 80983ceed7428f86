"""The distribution API against registries in this process, correct ones and faulty ones."""

import email.utils
import gzip
import hashlib
import logging
import os
import re
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from osc_containers.errors import RegistryError
from osc_containers.obs.package import Package
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor, Index, Manifest
from osc_containers.oci.reference import Reference
from osc_containers.prefetch.prefetch import prefetch
from osc_containers.registry.errors import Route
from osc_containers.registry.retry import Policy
from osc_containers.registry.session import Transport
from osc_containers.sources.interface import FetchContext, ImageSource
from osc_containers.sources.transports import Sources
from tests.support import faults, images, proxy
from tests.support.fault_registry import Answer, Exchange, Fault, FaultRegistry, Request, Script, serve
from tests.support.prefetch_run import want
from tests.support.proxy import Proxy

HASTY = Policy(connect_timeout=2, read_timeout=0.3, deadline=3, attempts=4, first_delay=0.02, longest_delay=0.05)
PATIENT = HASTY._replace(read_timeout=20, deadline=60)
ENDLESS = 10 * HASTY.deadline
"""Seconds after which a call has ignored its deadline, however busy the machine is."""
IMAGE = images.image(images.random_layer("first", 40_000), images.random_layer("second", 3_000, compression="gzip"))
OTHER = images.image(images.random_layer("other", 500))
EXPECTED = [IMAGE.raw, *IMAGE.blobs]
BIG = hashlib.shake_256(b"big").digest(3_000_000)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[ImageSource]:
    """Give a source that reads logins from the file of `log_in`."""
    environ = os.environ | {"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}
    with Sources(Path(), policy=PATIENT, environ=environ) as sources:
        yield sources.open("docker://")


@pytest.fixture
def hasty_source() -> Iterator[ImageSource]:
    with Sources(Path(), policy=HASTY) as sources:
        yield sources.open("docker://")


def read(source: ImageSource, reference: Reference, blob: Descriptor, start: int = 0, stop: int | None = None) -> bytes:
    buffer = memoryview(bytearray(70_000))
    found = bytearray()
    with source.blob(reference, blob, start, stop) as stream:
        while count := stream.readinto(buffer):
            found += buffer[:count]
    return bytes(found)


def pull(source: ImageSource, name: str) -> list[bytes]:
    """Return manifest and blobs, fetched as in a prefetch: by tag, then by digest."""
    reference = Reference.parse(name)
    manifest = source.manifest(reference, source.resolve(reference))
    assert isinstance(manifest, Manifest)
    return [manifest.raw, *(read(source, reference, blob) for blob in manifest.blobs)]


def put(registry: FaultRegistry, content: bytes, **changes: object) -> tuple[Reference, Descriptor]:
    """Store a blob; return the arguments to fetch it with."""
    digest = Digest.parse(registry.put_blob(content))
    blob = Descriptor(digest=digest, size=len(content), media_type="application/vnd.oci.image.layer.v1.tar")
    return Reference.parse(f"{registry.host}/team/app:1.0"), blob._replace(**changes)  # type: ignore[arg-type]


def pull_error(source: ImageSource, name: str) -> str:
    """Return the message when an image cannot be pulled."""
    with pytest.raises(RegistryError) as caught:
        pull(source, name)
    return str(caught.value)


def test_an_image_needs_one_request_for_each_part(registry: FaultRegistry, source: ImageSource) -> None:
    assert pull(source, registry.push(IMAGE, "team/app:1.0")) == EXPECTED
    assert [request.method for request in registry.requests] == ["HEAD", "GET", "GET", "GET", "GET"]
    assert len({request.connection for request in registry.requests}) == 1
    assert all(request.headers["user-agent"].startswith("osc-containers/") for request in registry.requests)


class Clock:
    """The time as connections measure it: it passes only while a registry answers late."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def late(self, exchange: Exchange) -> None:
        self.now += 0.02
        exchange.send(exchange.answer())


def test_latency_is_high_until_a_registry_answers_quickly(
    registry: FaultRegistry, elsewhere: FaultRegistry, source: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("osc_containers.registry.connection.time", clock)
    slow, quick = (Reference.parse(each.push(IMAGE, "team/app:1.0")) for each in (registry, elsewhere))
    registry.script = lambda request: clock.late
    assert source.is_high_latency
    for _ in range(3):
        source.resolve(slow)
    assert source.is_high_latency
    registry.script = lambda request: None
    source.resolve(slow)
    assert not source.is_high_latency
    elsewhere.script = lambda request: clock.late
    source.resolve(quick)
    assert source.is_high_latency, "one of two is"


def test_a_manifest_fetched_by_tag_is_not_fetched_by_digest(registry: FaultRegistry, source: ImageSource) -> None:
    reference = Reference.parse(registry.push(IMAGE, "team/app:1.0"))
    manifest = source.manifest(reference)
    assert source.manifest(reference, manifest.digest) == manifest
    assert len(registry.requests) == 1


def test_another_thread_may_drop_a_manifest_that_is_wanted(
    registry: FaultRegistry, source: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osc_containers.sources.registry._MANIFEST_COUNT", 1)
    wanted, other = (Reference.parse(registry.push(each, f"{name}:1")) for each, name in ((IMAGE, "a"), (OTHER, "b")))
    lookups = []

    class Wanted(Digest):
        def __hash__(self) -> int:
            lookups.append(self)
            if len(lookups) == 2:
                source.manifest(other)
            return super().__hash__()

    source.manifest(wanted)
    assert source.manifest(wanted, Wanted(*IMAGE.digest)).raw == IMAGE.raw


def test_a_digest_is_resolved_without_a_request(registry: FaultRegistry, source: ImageSource) -> None:
    reference = Reference.parse(f"{registry.push(IMAGE, 'team/app:1.0')}@{IMAGE.digest}")
    registry.push(OTHER, "team/app:1.0")
    assert source.resolve(reference) == IMAGE.digest
    assert registry.requests == []
    assert source.manifest(reference).raw == IMAGE.raw


@pytest.mark.parametrize("docker", [False, True])
def test_nested_indexes_are_fetched(registry: FaultRegistry, source: ImageSource, docker: bool) -> None:
    inner = images.multi_platform("app", docker=docker)
    outer = images.index(inner, docker=docker, media_types=docker)
    reference = Reference.parse(registry.push(outer, "team/app:1.0"))
    index = source.manifest(reference)
    assert isinstance(index, Index)
    nested = source.manifest(reference, index.manifests[0].digest)
    assert isinstance(nested, Index)
    assert source.manifest(reference, nested.manifests[1].digest).raw == inner.children[1].raw


def test_sha512_digests_are_supported(registry: FaultRegistry, source: ImageSource) -> None:
    registry.push(IMAGE, "team/app:1.0")
    digest = Digest.of(IMAGE.raw, "sha512")
    assert source.manifest(Reference.parse(f"{registry.host}/team/app@{digest}")).raw == IMAGE.raw
    reference, blob = put(registry, b"layer", digest=Digest.of(b"layer", "sha512"))
    assert read(source, reference, blob) == b"layer"


@pytest.mark.parametrize("code", [204, 400, 403, 404, 405, 406, 410, 500, 501])
def test_get_replaces_a_refused_head(registry: FaultRegistry, source: ImageSource, code: int) -> None:
    registry.script = faults.on(faults.status(code), lambda request: request.method == "HEAD")
    assert pull(source, registry.push(IMAGE, "team/app:1.0")) == EXPECTED
    assert [request.method for request in registry.requests][:2] == ["HEAD", "GET"]


def test_a_registry_may_serve_one_connection_at_a_time(registry: FaultRegistry, hasty_source: ImageSource) -> None:
    registry.turn = threading.Lock()
    reference, blob = put(registry, BIG)
    _, other = put(registry, b"other")
    buffer = memoryview(bytearray(len(BIG)))
    with ThreadPoolExecutor() as pool:
        with hasty_source.blob(reference, blob) as stream:
            waiting = pool.submit(read, hasty_source, reference, other)
            while stream.readinto(buffer):
                pass
        assert waiting.result() == b"other"


def test_a_plain_http_registry_may_not_answer_tls_at_all(registry: FaultRegistry) -> None:
    registry.refuses_other_protocols = False
    with Sources(Path(), policy=PATIENT._replace(connect_timeout=0.5, attempts=1)) as sources:
        assert pull(sources.open("docker://"), registry.push(IMAGE, "team/app:1.0")) == EXPECTED


@pytest.mark.parametrize("refuses", [True, False])
def test_one_request_finds_out_that_a_registry_speaks_plain_http(registry: FaultRegistry, refuses: bool) -> None:
    """Every failure would close the connections that others have opened, and might take until a timeout."""
    registry.refuses_other_protocols = refuses
    names = [registry.push(images.small(f"app{n}"), f"team/app{n}:1.0") for n in range(4)]
    start = threading.Barrier(len(names))

    with (
        Sources(Path(), policy=PATIENT._replace(connect_timeout=0.5)) as sources,
        ThreadPoolExecutor(len(names)) as pool,
    ):

        def pull_with_others(name: str) -> list[bytes]:
            start.wait()
            return pull(sources.open("docker://"), name)

        assert len(list(pool.map(pull_with_others, names))) == len(names)
    # Connections are counted from 1. The first one tried TLS.
    assert {request.connection for request in registry.requests} <= {2, 3, 4, 5}


def test_get_replaces_a_head_refused_after_a_redirect(registry: FaultRegistry, source: ImageSource) -> None:
    name = registry.push(IMAGE, "team/app:1.0")
    stored = f"http://localhost:{registry.host.rpartition(':')[2]}/v2/team/app/manifests/{IMAGE.digest}"

    def store(request: Request) -> Fault | None:
        if request.target == "/v2/team/app/manifests/1.0":
            return faults.redirect(f"{stored}?signature=of-GET")
        return faults.status(403) if request.method == "HEAD" else None

    registry.script = store
    assert source.resolve(Reference.parse(name)) == IMAGE.digest


@pytest.mark.parametrize("interim", [100, 102, 103])
def test_interim_responses_are_skipped(registry: FaultRegistry, source: ImageSource, interim: int) -> None:
    registry.script = lambda request: faults.interim(interim)
    assert pull(source, registry.push(IMAGE, "team/app:1.0")) == EXPECTED
    assert {request.connection for request in registry.requests} == {registry.requests[0].connection}


def test_the_digest_header_is_optional(registry: FaultRegistry, source: ImageSource) -> None:
    registry.has_digest_header = False
    assert pull(source, registry.push(IMAGE, "team/app:1.0")) == EXPECTED


@pytest.mark.parametrize("fault", [faults.without_type, faults.status(200, {"Content-Type": "text/plain"})])
def test_a_manifest_has_precedence_over_its_content_type(
    registry: FaultRegistry, source: ImageSource, fault: Fault
) -> None:
    made = images.image(images.random_layer("plain", 10), media_types=False)
    reference = Reference.parse(registry.push(made, "team/app:1.0"))

    def relabel(exchange: Exchange) -> None:
        answer = exchange.answer()
        answer.headers["Content-Type"] = "text/plain"
        exchange.send(answer)

    registry.script = faults.on(relabel, lambda _: True)
    assert source.manifest(reference).media_type == "application/vnd.oci.image.manifest.v1+json"


# Parts of the message when a fault affects one request of a pull. Faults that are not listed are survived at every
# request, those with an empty text at some requests.
MESSAGES: dict[str, tuple[str, ...]] = {
    "endless_body": ("", "got more than 4194304 bytes"),
    "redirect_to_file": ("got a URL of scheme 'file', expected http or https",),
    "status_401": ("names no way to log in: WWW-Authenticate is missing or malformed; check the name",),
    "status_403": (
        "",
        "HTTP 403; it does not exist, or requires a login: use `podman login 127.0.0.1:",
    ),
    "status_404": ("", "HTTP 404; it may have been removed", ", although its manifest is: HTTP 404"),
    "status_416": ("", "HTTP 416"),
    "status_429_later": ("HTTP 429; tried once, and it asks to wait 100000 s",),
    "unasked_range": ("", "HTTP 206"),
    "web_page": ("", "got a web page (HTML), expected a"),
    "wrong_digest": ("", "no manifest sha256:0000000000000000"),
}
CORRUPTING = {"flip", "repeat", "endless_body"}
"""Faults that change a blob but not its size; the caller verifies it."""


def attempt(name: str) -> list[bytes] | str:
    """Pull an image with a new client; return its parts, or the message."""
    with Sources(Path(), policy=HASTY._replace(deadline=ENDLESS)) as sources:
        try:
            return pull(sources.open("docker://"), name)
        except RegistryError as error:
            return str(error)


@pytest.mark.sampled(every=6)
@pytest.mark.parametrize("name", faults.FAULTS)
def test_a_fault_at_any_request_is_survived_or_reported(registry: FaultRegistry, name: str) -> None:
    reference = registry.push(IMAGE, "team/app:1.0")
    for number in range(len(EXPECTED) + 1):
        registry.requests.clear()
        registry.script = faults.at(number, faults.FAULTS[name])
        began = time.monotonic()
        outcome = attempt(reference)
        assert time.monotonic() - began < 2 * ENDLESS
        if isinstance(outcome, str):
            assert outcome.startswith(f"{reference}: ")
            assert any(text and text in outcome for text in MESSAGES.get(name, ())), f"{outcome} (at request {number})"
        else:
            assert "" in MESSAGES.get(name, ("",)), f"should have failed at request {number}"
            wrong = [at for at, part in enumerate(outcome, start=1) if part != EXPECTED[at - 1]]
            assert wrong == ([number] if name in CORRUPTING and number > 1 else [])


@pytest.mark.parametrize("seed", range(12))
def test_random_faults_are_survived_or_reported(registry: FaultRegistry, seed: int) -> None:
    reference = registry.push(IMAGE, "team/app:1.0")
    registry.script = faults.seeded(str(seed), 0.3)
    began = time.monotonic()
    outcome = attempt(reference)
    assert time.monotonic() - began < 2 * ENDLESS
    if isinstance(outcome, str):
        assert outcome.startswith(f"{reference}: ")
    else:
        assert [len(part) for part in outcome] == [len(part) for part in EXPECTED]


def test_the_final_message_lists_the_attempts(registry: FaultRegistry, source: ImageSource) -> None:
    name = registry.push(IMAGE, "team/app:1.0")
    script = [faults.status(503), faults.reset_before, faults.status(503), faults.status(503)]
    registry.script = lambda request: script[request.number]
    message = pull_error(source, name)
    assert message.startswith(f"{name}: http://{registry.host}: HTTP 503")
    assert "; before: " in message
    assert "; tried 4 times in 0 s" in message


def test_an_unreachable_registry_is_named(source: ImageSource) -> None:
    with serve() as registry:
        host = registry.host
    assert f"{host}: connection refused; nothing listens there; tried 3 times" in pull_error(
        source, f"{host}/team/app:1.0"
    )


def test_a_missing_tag_is_reported_with_the_registrys_message(registry: FaultRegistry, source: ImageSource) -> None:
    assert pull_error(source, f"{registry.host}/team/app:nope") == (
        f"{registry.host}/team/app:nope: no tag 'nope' at {registry.host}: HTTP 404 ('MANIFEST_UNKNOWN', "
        "'manifest unknown'); the tag or the repository does not exist"
    )


def test_an_artifact_that_is_not_an_image_is_reported(registry: FaultRegistry, source: ImageSource) -> None:
    assert "not an image but an artifact of type" in pull_error(
        source, registry.push(images.helm_chart(), "team/chart:1")
    )


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize(
    "after", ["1", email.utils.formatdate(time.time() + 1.9, usegmt=True)], ids=["seconds", "date"]
)
def test_retry_after_is_obeyed(registry: FaultRegistry, source: ImageSource, after: str) -> None:
    name = registry.push(IMAGE, "team/app:1.0")
    after = after if after == "1" else email.utils.formatdate(time.time() + 1.9, usegmt=True)
    registry.script = faults.at(0, faults.status(429, {"Retry-After": after}))
    began = time.monotonic()
    assert pull(source, name) == EXPECTED
    assert 0.7 < time.monotonic() - began < PATIENT.deadline


def test_a_tag_moved_during_a_pull_yields_one_of_both_images(registry: FaultRegistry, source: ImageSource) -> None:
    name = registry.push(IMAGE, "team/app:1.0")
    registry.script = faults.at(1, faults.move_tag(OTHER, "team/app:1.0"))
    assert pull(source, name) == EXPECTED


# Blobs


@pytest.mark.parametrize(("start", "stop"), [(0, None), (1, None), (0, 10), (1_000_000, 2_000_000), (2_999_999, None)])
def test_a_part_of_a_blob_is_fetched(
    registry: FaultRegistry, source: ImageSource, start: int, stop: int | None
) -> None:
    reference, blob = put(registry, BIG)
    with source.blob(reference, blob, start, stop) as stream:
        assert not stream.ignores_range
    assert read(source, reference, blob, start, stop) == BIG[start:stop]


def test_an_empty_part_needs_no_request(registry: FaultRegistry, source: ImageSource) -> None:
    reference, blob = put(registry, BIG)
    assert read(source, reference, blob, len(BIG)) == b""
    assert registry.requests == []


@pytest.mark.parametrize("fault", [None, faults.wrong_range, faults.status(400), faults.status(416)])
def test_a_registry_without_ranges_is_recognised(
    registry: FaultRegistry, source: ImageSource, fault: Fault | None
) -> None:
    registry.takes_ranges = False
    if fault:
        registry.takes_ranges = True
        registry.script = faults.on(fault, lambda request: "range" in request.headers)
    reference, blob = put(registry, BIG)
    with source.blob(reference, blob, 0, 1000) as stream:
        assert stream.ignores_range
    assert read(source, reference, blob, 1_000_000, 1_500_000) == BIG[1_000_000:1_500_000]


def test_a_registry_may_send_less_than_the_range(registry: FaultRegistry) -> None:
    reference, blob = put(registry, BIG)
    registry.script = faults.on(faults.shorter_range(50_000), lambda _: True)
    with Sources(Path(), policy=PATIENT._replace(attempts=1)) as sources:
        assert read(sources.open("docker://"), reference, blob, 1) == BIG[1:]
    assert len(registry.requests) == 60
    registry.script = faults.on(faults.shorter_range(100), lambda _: True)
    with Sources(Path(), policy=PATIENT) as sources, pytest.raises(RegistryError, match="interrupted after 401 of"):
        read(sources.open("docker://"), reference, blob, 1)


@pytest.mark.parametrize("fault", [faults.reset_in_body, faults.truncate, faults.stall_in_body])
def test_an_interrupted_download_resumes(registry: FaultRegistry, hasty_source: ImageSource, fault: Fault) -> None:
    reference, blob = put(registry, BIG)
    registry.script = faults.on(fault, lambda _: True, times=2)
    assert read(hasty_source, reference, blob) == BIG
    ranges = [request.headers.get("range", "bytes=0-") for request in registry.requests]
    starts = [int(text.partition("=")[2].partition("-")[0]) for text in ranges]
    assert starts == sorted(starts)
    assert starts[1] > 500_000
    assert starts[2] > starts[1]


def test_a_part_after_a_whole_blob_is_not_skipped(registry: FaultRegistry, source: ImageSource) -> None:
    """Servers behind one name may differ: the first ignores ranges, and breaks off before the wanted bytes."""
    reference, blob = put(registry, BIG)

    def ignore_range(exchange: Exchange) -> None:
        answer = Answer(status=200, headers={"Content-Length": str(len(BIG))}, body=BIG)
        exchange.send_bytes(answer.head() + answer.body[:500_000])
        exchange.close()

    registry.script = faults.at(0, ignore_range)
    assert read(source, reference, blob, 1_000_000) == BIG[1_000_000:]
    assert len(registry.requests) == 2


def test_bytes_before_a_reset_are_not_lost(registry: FaultRegistry, source: ImageSource) -> None:
    reference, blob = put(registry, BIG)

    def some(exchange: Exchange) -> None:
        answer = exchange.answer()
        exchange.send_bytes(answer.head() + answer.body[:500_000])
        exchange.pause(0.2)  # otherwise the reset overtakes the bytes
        exchange.reset()

    registry.script = faults.on(some, lambda _: True, times=3)
    buffer, position = memoryview(bytearray(len(BIG))), 0
    with source.blob(reference, blob) as stream:
        while count := stream.readinto(buffer[position:]):
            position += count
    assert buffer == BIG
    assert [request.headers.get("range", "")[:12] for request in registry.requests] == [
        "",
        "bytes=500000",
        "bytes=100000",
        "bytes=150000",
    ]


def test_a_download_without_progress_is_abandoned(registry: FaultRegistry, source: ImageSource) -> None:
    reference, blob = put(registry, BIG)

    def few(exchange: Exchange) -> None:
        answer = exchange.answer()
        exchange.send_bytes(answer.head() + answer.body[:100])
        exchange.close()

    registry.script = faults.on(few, lambda _: True)
    with pytest.raises(RegistryError, match=r"interrupted after \d+ of 3000000 bytes.*tried 4 times"):
        read(source, reference, blob)


@pytest.mark.parametrize(
    "fault", [faults.packed, faults.packed_in_members, faults.falsely_packed, faults.chunked, faults.old_http]
)
@pytest.mark.parametrize("start", [0, 1_234_567])
def test_transfer_encodings_of_blobs_are_undone(
    registry: FaultRegistry, source: ImageSource, fault: Fault, start: int
) -> None:
    reference, blob = put(registry, BIG)
    registry.script = faults.on(fault, lambda _: True)
    assert read(source, reference, blob, start) == BIG[start:]


@pytest.mark.parametrize("encoding", ["aws-chunked", "utf-8", "identity", "binary, aws-chunked"])
def test_encodings_that_are_no_compression_are_ignored(
    registry: FaultRegistry, source: ImageSource, encoding: str
) -> None:
    def label(exchange: Exchange) -> None:
        answer = exchange.answer()
        answer.headers["Content-Encoding"] = encoding
        exchange.send(answer)

    registry.script = faults.on(label, lambda _: True)
    assert pull(source, registry.push(IMAGE, "team/app:1.0")) == EXPECTED


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\0\0\0\xff\xff" * 1000, "got more than 1048576 bytes of gzip data without content"),
        (b"\3\0" + bytes(8) + gzip.compress(b"")[:10], "got more than 1048576 bytes of gzip data without content"),
        (b"\3\0" + bytes(8) + b"more", "got invalid gzip data"),
    ],
    ids=["empty blocks", "empty members", "something else"],
)
def test_compressed_data_without_content_is_refused(registry: FaultRegistry, data: bytes, problem: str) -> None:
    reference, blob = put(registry, BIG)
    name = registry.push(IMAGE, "team/app:1.0")
    registry.script = faults.on(faults.packed_without_content(data), lambda request: request.method == "GET")
    with Sources(Path(), policy=PATIENT._replace(attempts=1)) as sources:
        source = sources.open("docker://")
        assert f"http://{registry.host}: {problem}" in pull_error(source, name)
        with pytest.raises(RegistryError, match=problem):
            read(source, reference, blob)


def test_a_compressed_blob_cannot_exceed_its_size(registry: FaultRegistry, source: ImageSource) -> None:
    reference, blob = put(registry, bytes(5_000_000), size=1000)
    registry.script = faults.on(faults.packed, lambda _: True)
    assert read(source, reference, blob) == bytes(1000)


def test_a_wrong_size_is_reported(registry: FaultRegistry, source: ImageSource) -> None:
    reference, blob = put(registry, BIG, size=1 << 40)
    with pytest.raises(RegistryError, match="got a response of 3000000 bytes, expected 1099511627776"):
        read(source, reference, blob)


def test_a_missing_blob_is_reported(registry: FaultRegistry, source: ImageSource) -> None:
    reference, blob = put(registry, BIG)
    registry.blobs.clear()
    with pytest.raises(RegistryError, match=f"not in {registry.host}, although its manifest is: HTTP 404"):
        read(source, reference, blob)


def test_a_foreign_layer_comes_from_its_urls(
    registry: FaultRegistry, elsewhere: FaultRegistry, source: ImageSource
) -> None:
    registry.auth = "bearer"
    digest = elsewhere.put_blob(BIG)
    urls = ("file:///etc/passwd", f"http://{elsewhere.host}/nothing", f"http://{elsewhere.host}/storage/{digest}")
    reference, blob = put(registry, BIG, urls=urls)
    registry.blobs.clear()
    assert read(source, reference, blob) == BIG
    assert all("authorization" not in request.headers for request in elsewhere.requests)
    assert any("authorization" in request.headers for request in registry.requests)


def test_the_urls_of_a_foreign_layer_are_retried(
    registry: FaultRegistry, elsewhere: FaultRegistry, source: ImageSource
) -> None:
    digest = elsewhere.put_blob(BIG)
    reference, blob = put(registry, BIG, urls=(f"http://{elsewhere.host}/storage/{digest}",))
    registry.blobs.clear()
    script = [faults.status(503, {"Retry-After": "0"}), faults.reset_before]
    elsewhere.script = lambda request: script[request.number] if request.number < len(script) else None
    assert read(source, reference, blob) == BIG


@pytest.mark.integration
def test_a_trickle_times_out(registry: FaultRegistry, hasty_source: ImageSource) -> None:
    reference, blob = put(registry, BIG)
    registry.script = faults.on(faults.trickle, lambda _: True)
    began = time.monotonic()
    with pytest.raises(RegistryError, match="no answer in time"):
        read(hasty_source, reference, blob)
    assert time.monotonic() - began < ENDLESS


@pytest.mark.integration
def test_a_slow_reader_causes_no_timeout(registry: FaultRegistry, hasty_source: ImageSource) -> None:
    reference, blob = put(registry, BIG)
    buffer = memoryview(bytearray(1_000_000))
    with hasty_source.blob(reference, blob) as stream:
        for _ in range(3):
            time.sleep(HASTY.read_timeout * 1.2)
            assert stream.readinto(buffer) == len(buffer)
    assert len(registry.requests) == 1


def test_a_response_that_is_no_manifest_is_retried(registry: FaultRegistry, source: ImageSource) -> None:
    reference = Reference.parse(registry.push(IMAGE, "team/app:1.0"))

    def nonsense(exchange: Exchange) -> None:
        exchange.send(Answer(status=200, headers={"Content-Length": "7"}, body=b"try it "))

    registry.script = faults.on(nonsense, lambda _: True, times=2)
    assert source.manifest(reference).raw == IMAGE.raw
    registry.script = faults.on(nonsense, lambda _: True)
    with pytest.raises(RegistryError, match=rf"manifest from {registry.host}: not valid JSON; .*tried 3 times"):
        source.manifest(Reference.parse(f"{registry.host}/team/other:1.0"))


@pytest.mark.integration
def test_a_failed_request_does_not_fail_other_threads(registry: FaultRegistry) -> None:
    """It closes idle connections, possibly just before another thread uses them."""
    connections = Transport(ssl.create_default_context(), 8)
    route = Route(url=f"http://{registry.host}", proxy="", certificates="")
    end = time.monotonic() + 1

    def ask() -> int:
        count = 0
        while time.monotonic() < end:
            url = f"http://{registry.host}/v2/"
            reply = connections.send("GET", url, headers={}, body=None, timeout=(5, 5), proxy=None, route=route)
            reply.raw.read()
            reply.raw.release_conn()
            count += 1
        return count

    def drop() -> None:
        while time.monotonic() < end:
            connections.drop_idle()
            time.sleep(0.001)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            dropping, *asking = pool.submit(drop), *(pool.submit(ask) for _ in range(3))
            assert all(each.result() > 0 for each in asking)
            dropping.result()
    finally:
        sys.setswitchinterval(interval)
        connections.close()


# Redirects


def test_credentials_are_not_forwarded_to_a_blob_store(
    registry: FaultRegistry, elsewhere: FaultRegistry, source: ImageSource
) -> None:
    registry.auth = "bearer"
    registry.blob_location = f"http://{elsewhere.host}/storage/"
    for content in IMAGE.blobs:
        elsewhere.put_blob(content)
    assert pull(source, registry.push(IMAGE, "team/app:1.0")) == EXPECTED
    assert len(elsewhere.requests) == 3
    assert all("authorization" not in request.headers for request in elsewhere.requests)
    assert any("authorization" in request.headers for request in registry.requests)


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("part", [0, 1_500_000], ids=["before the body", "in the body"])
def test_registry_that_restarts_is_waited_for(registry: FaultRegistry, part: int) -> None:
    """It is down for longer than the attempts of a registry that has never answered take."""

    def restart(exchange: Exchange) -> None:
        exchange.registry.refuse(1.0)
        if part:
            answer = exchange.answer()
            exchange.send_bytes(answer.head() + answer.body[:part])
        exchange.reset()

    reference, blob = put(registry, BIG)
    registry.script = faults.on(restart, lambda request: request.is_blob, times=1)
    with Sources(Path(), policy=HASTY._replace(attempts=3, deadline=30, read_timeout=20)) as sources:
        source = sources.open("docker://")
        source.resolve(Reference.parse(registry.push(IMAGE, "team/app:1.0")))
        assert read(source, reference, blob) == BIG


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("way", ["redirect", "foreign layer"])
def test_blob_store_that_restarts_is_waited_for(registry: FaultRegistry, elsewhere: FaultRegistry, way: str) -> None:
    def restart(exchange: Exchange) -> None:
        exchange.registry.refuse(1.0)
        exchange.send_bytes(exchange.answer().head())
        exchange.reset()

    store = f"http://{elsewhere.host}/storage/"
    digest = elsewhere.put_blob(BIG)
    reference, blob = put(registry, BIG, urls=(f"{store}{digest}",))
    if way == "redirect":
        registry.blob_location = store
    else:
        registry.blobs.clear()
    elsewhere.script = faults.at(0, restart)
    with Sources(Path(), policy=HASTY._replace(attempts=3, deadline=30, read_timeout=20)) as sources:
        assert read(sources.open("docker://"), reference, blob) == BIG


@pytest.mark.integration
def test_registry_that_stays_away_is_given_up(registry: FaultRegistry) -> None:
    def vanish(exchange: Exchange) -> None:
        exchange.registry.refuse(30)
        exchange.reset()

    reference, blob = put(registry, BIG)
    registry.script = faults.on(vanish, lambda request: request.is_blob)
    started = time.monotonic()
    with Sources(Path(), policy=HASTY._replace(outage=1)) as sources:
        source = sources.open("docker://")
        source.resolve(Reference.parse(registry.push(IMAGE, "team/app:1.0")))
        with pytest.raises(RegistryError) as caught:
            read(source, reference, blob)
    assert "connection refused; nothing listens there" in str(caught.value)
    assert 0.5 < time.monotonic() - started < 10


def test_signatures_in_urls_are_not_shown(
    registry: FaultRegistry, source: ImageSource, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    reference, blob = put(registry, BIG)
    registry.blob_location = "/storage/secret?signature=secret&path="
    with pytest.raises(RegistryError) as caught:
        read(source, reference, blob)
    assert any("secret" in request.target for request in registry.requests)
    assert "secret" not in str(caught.value) + caplog.text
    assert re.search(
        rf"GET http://{registry.host}/v2/team/app/blobs/{blob.digest}: 307, 0 bytes, \d\.\d\d s", caplog.text
    )
    assert re.search(rf"GET http://{registry.host}/\.\.\.: 404, \d+ bytes, \d\.\d\d s", caplog.text)


def test_redirects_may_be_relative_and_chained(registry: FaultRegistry, source: ImageSource) -> None:
    reference, blob = put(registry, BIG)
    registry.blob_location = "../../../../first/"

    def hop(request: Request) -> Fault | None:
        return faults.redirect(f"/storage/{blob.digest}") if request.path.startswith("/first/") else None

    registry.script = hop
    assert read(source, reference, blob, 5) == BIG[5:]
    assert [request.path.split("/")[1] for request in registry.requests] == ["v2", "first", "storage"]


@pytest.mark.parametrize("count", [9, 10])
def test_redirects_that_do_not_end_are_not_tried_again(
    registry: FaultRegistry, source: ImageSource, count: int
) -> None:
    """Ten requests are sent, as by Go's programs."""
    reference, blob = put(registry, BIG)
    registry.script = lambda request: faults.redirect_loop if request.number < count else None
    if count < 10:
        assert read(source, reference, blob) == BIG
    else:
        with pytest.raises(RegistryError, match="got more than 9 redirects, which may lead in a circle; ask the"):
            read(source, reference, blob)
    assert len(registry.requests) == 10


def test_a_challenge_after_a_redirect_is_not_answered(
    registry: FaultRegistry, elsewhere: FaultRegistry, source: ImageSource
) -> None:
    registry.auth = "bearer"
    registry.blob_location = f"http://{elsewhere.host}/v2/team/app/blobs/"
    elsewhere.auth = "bearer"
    message = pull_error(source, registry.push(IMAGE, "team/app:1.0"))
    assert f"http://{elsewhere.host}: HTTP 401" in message
    assert all(request.path != "/token" for request in elsewhere.requests)


def test_a_refusal_after_a_redirect_is_not_blamed_on_the_login(
    registry: FaultRegistry, elsewhere: FaultRegistry, source: ImageSource
) -> None:
    registry.blob_location = f"http://{elsewhere.host}/storage/"
    elsewhere.script = lambda request: faults.status(403)
    message = pull_error(source, registry.push(IMAGE, "team/app:1.0"))
    reason = f"{registry.host} redirected there, credentials are not forwarded"
    assert f"http://{elsewhere.host}: HTTP 403; {reason}" in message
    assert "podman login" not in message
    assert len(elsewhere.requests) == 3  # every new redirect has a new signature


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("http://127.0.0.1:1/x", "inside this machine"),
        ("http://[::1]/x", "inside this machine"),
        ("http://169.254.169.254/latest/meta-data", "inside this machine or its link"),
        ("http://2130706433/", "inside this machine"),
        ("http://localhost:1/", "inside this machine"),
        ("http://user:secret@public.example/", "with a user name"),
        ("file:///etc/passwd", "scheme 'file'"),
        ("ftp://public.example/x", "scheme 'ftp'"),
        ("http://public.example:99999/", "Port out of range"),
        ("http://[half", "Invalid IPv6 URL"),
    ],
)
@pytest.mark.parametrize("way", ["redirect", "realm"])
def test_a_public_registry_cannot_redirect_inside(
    registry: FaultRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, problem: str, way: str
) -> None:
    # The registry in this process acts as the proxy, and so as a public registry.
    configuration = tmp_path / "registries.conf"
    configuration.write_text('[[registry]]\nlocation = "registry.example"\ninsecure = true\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(configuration))
    monkeypatch.setenv("http_proxy", f"http://{registry.host}")
    monkeypatch.setenv("https_proxy", f"http://{registry.host}")
    registry.auth = "bearer"
    registry.realm = target
    if way == "redirect":
        registry.script = faults.on(faults.redirect(target), lambda request: request.method != "CONNECT")
    with Sources(Path(), policy=PATIENT) as sources:
        message = pull_error(sources.open("docker://"), "registry.example/team/app:1.0")
    assert problem in message
    assert "secret" not in message
    assert {request.target.partition("/v2/")[0] for request in registry.requests} == {
        "registry.example:443",
        "http://registry.example",
    }


# Plain HTTP


@pytest.fixture
def plain(registry: FaultRegistry, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Give a tunnel to the registry, which seems to be elsewhere: a registry on this machine may speak plain HTTP."""
    with proxy.serve(registry.host) as tunnel:
        monkeypatch.setenv("https_proxy", f"http://{tunnel.host}")
        monkeypatch.setenv("http_proxy", f"http://{tunnel.host}")
        yield tunnel


def test_a_registry_that_speaks_plain_http_is_named(plain: Proxy, source: ImageSource) -> None:
    message = pull_error(source, "registry.example:5000/team/app:1.0")
    assert "https://registry.example:5000: it speaks plain HTTP, expected HTTPS; correct the name, or" in message
    assert '`[[registry]]`, `location = "registry.example:5000"`, `insecure = true`' in message
    assert "tried" not in message
    assert len(plain.asked) == 1


@pytest.mark.parametrize("way", ["redirect", "token server"])
def test_a_server_that_a_registry_names_may_not_speak_plain_http(
    registry: FaultRegistry, elsewhere: FaultRegistry, source: ImageSource, way: str
) -> None:
    registry.auth = "bearer" if way == "token server" else None
    registry.realm = f"https://{elsewhere.host}/token"
    registry.blob_location = f"https://{elsewhere.host}/storage/"
    message = pull_error(source, registry.push(IMAGE, "team/app:1.0"))
    assert f"https://{elsewhere.host}: it speaks plain HTTP, expected HTTPS" in message
    assert "insecure" not in message, message
    assert "tried" not in message
    assert elsewhere.requests == []


# Tokens


def authorizations(registry: FaultRegistry) -> list[str]:
    return [request.headers.get("authorization", "").partition(" ")[0] for request in registry.requests]


def test_an_anonymous_token_is_fetched_once(registry: FaultRegistry, source: ImageSource) -> None:
    registry.auth = "bearer"
    assert pull(source, registry.push(IMAGE, "team/app:1.0")) == EXPECTED
    assert authorizations(registry) == ["", "", "Bearer", "Bearer", "Bearer", "Bearer", "Bearer"]
    assert registry.requests[1].target == ("/token?service=fault+registry&scope=repository%3Ateam%2Fapp%3Apull")


def test_repositories_share_a_challenge_but_no_token(registry: FaultRegistry, source: ImageSource) -> None:
    registry.auth = "bearer"
    for name in ("team/one:1", "team/two:1"):
        assert pull(source, registry.push(IMAGE, name)) == EXPECTED
    tokens = [request.target for request in registry.requests if request.path == "/token"]
    assert [target.rpartition("%2F")[2] for target in tokens] == ["one%3Apull", "two%3Apull"]
    assert authorizations(registry).count("") == 3


def test_threads_share_a_token(registry: FaultRegistry, source: ImageSource) -> None:
    registry.auth = "bearer"
    name = registry.push(IMAGE, "team/app:1.0")
    source.resolve(Reference.parse(name))
    registry.expire_tokens()
    gate = threading.Barrier(8)

    def run(_: int) -> list[bytes]:
        gate.wait()
        return pull(source, name)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(8))) == [EXPECTED] * 8
    assert sum(request.path == "/token" for request in registry.requests) == 2


def test_a_token_that_expires_during_a_download_is_renewed(registry: FaultRegistry, source: ImageSource) -> None:
    registry.auth = "bearer"
    reference, blob = put(registry, BIG)
    registry.script = faults.on(faults.reset_in_body, lambda request: "authorization" in request.headers, times=1)
    buffer = memoryview(bytearray(1000))
    with source.blob(reference, blob) as stream:
        found = bytes(buffer[: stream.readinto(buffer)])
        registry.expire_tokens()
        while count := stream.readinto(buffer):
            found += buffer[:count]
    assert found == BIG
    assert sum(request.path == "/token" for request in registry.requests) == 2


def test_a_registry_that_rejects_its_own_tokens_is_abandoned(registry: FaultRegistry, source: ImageSource) -> None:
    registry.auth = "bearer"
    registry.script = faults.on(faults.expire_token, lambda request: "/v2/" in request.path)
    message = pull_error(source, registry.push(IMAGE, "team/app:1.0"))
    assert "HTTP 401; it does not exist, or requires a login" in message
    assert [request.path for request in registry.requests].count("/token") == 2
    assert len(registry.requests) == 5


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{}", "got no token"),
        (b"[]", "got an array, expected an object"),
        (b'{"token": 5}', "got a number, expected a string"),
        (b'{"token": "a b"}', "expected a token of printable ASCII"),
        (b'{"token": "a\\r\\nX-Evil: 1"}', "expected a token of printable ASCII"),
        (b'{"token": "' + b"x" * 70_000 + b'"}', "expected a token of printable ASCII"),
        (b'{"token": "x", "token": "y"}', "duplicate key 'token'"),
        (b"[" * 100_000, "nested too deeply"),
        (b" " * 2_000_000, "got more than 1048576 bytes"),
    ],
)
def test_a_malformed_token_response_is_reported(
    registry: FaultRegistry, source: ImageSource, body: bytes, problem: str
) -> None:
    registry.auth = "bearer"

    def nonsense(exchange: Exchange) -> None:
        exchange.send(Answer(status=200, headers={"Content-Length": str(len(body))}, body=body))

    registry.script = faults.on(nonsense, lambda request: request.path == "/token")
    message = pull_error(source, registry.push(IMAGE, "team/app:1.0"))
    assert problem in message
    assert len(message) < 2000


def log_in(directory: Path, text: str) -> None:
    (directory / "auth.json").write_text(text)


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_a_password_is_sent_to_its_registry_alone(
    registry: FaultRegistry,
    elsewhere: FaultRegistry,
    source: ImageSource,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    registry.auth = kind
    registry.users = {"me": "secret"}
    registry.allows_anonymous = False
    registry.blob_location = f"http://{elsewhere.host}/storage/"
    for content in IMAGE.blobs:
        elsewhere.put_blob(content)
    log_in(tmp_path, f'{{"auths": {{"{registry.host}": {{"auth": "bWU6c2VjcmV0"}}}}}}')
    assert pull(source, registry.push(IMAGE, "team/app:1.0")) == EXPECTED
    assert "Basic" in authorizations(registry)
    assert set(authorizations(elsewhere)) == {""}
    registry.users = {"me": "changed"}
    registry.expire_tokens()
    message = pull_error(source, registry.push(OTHER, "team/other:1.0"))
    assert f"the login for {registry.host} is not sufficient, renew it with `podman login {registry.host}`" in message
    for text in (message, caplog.text):
        assert "secret" not in text
        assert "bWU6c2VjcmV0" not in text


HARBOR = 'Basic realm="harbor"'


def reject_as_harbor(registry: FaultRegistry) -> Script:
    """Answer a rejected token by Basic alone, as Harbor does."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.answer()
        if answer.status == 401:
            answer.headers["WWW-Authenticate"] = HARBOR
        exchange.send(answer)

    return faults.on(fault, lambda request: request.headers.get("authorization", "").startswith("Bearer"))


@pytest.mark.parametrize("has_login", [False, True])
def test_a_token_rejected_by_basic_alone_is_renewed(
    registry: FaultRegistry, source: ImageSource, tmp_path: Path, has_login: bool
) -> None:
    registry.auth = "bearer"
    registry.users = {"me": "secret"}
    if has_login:
        log_in(tmp_path, f'{{"auths": {{"{registry.host}": {{"auth": "bWU6c2VjcmV0"}}}}}}')
    registry.script = reject_as_harbor(registry)
    name = registry.push(IMAGE, "team/app:1.0")
    assert pull(source, name) == EXPECTED
    registry.expire_tokens()
    registry.requests.clear()
    assert pull(source, name) == EXPECTED
    paths = [(request.path.split("/")[1], bool(request.headers.get("authorization"))) for request in registry.requests]
    assert paths[:4] == [("v2", True), ("v2", False), ("token", has_login), ("v2", True)]
    assert sum(request.path == "/token" for request in registry.requests) == 1


def offer_both(exchange: Exchange) -> None:
    """Accept the password as well as tokens, and offer both."""
    answer = exchange.answer()
    if exchange.request.headers.get("authorization", "").startswith("Basic"):
        exchange.registry.auth, kind = None, exchange.registry.auth
        answer = exchange.answer()
        exchange.registry.auth = kind
    if answer.status == 401:
        answer.headers["WWW-Authenticate"] += ', Basic realm="registry"'
    exchange.send(answer)


TOKEN_FAULTS = {
    "refusal": faults.status(401),
    "forbidden": faults.status(403),
    "missing": faults.status(404),
    "dead": faults.reset_before,
    "broken": faults.status(500),
    "nonsense": faults.status(200, {"Content-Type": "text/html"}),
    "rejected": None,
}


@pytest.mark.parametrize("fault", TOKEN_FAULTS)
def test_the_password_is_used_where_no_token_is_to_be_had(
    registry: FaultRegistry, source: ImageSource, tmp_path: Path, fault: str
) -> None:
    registry.auth = "bearer"
    log_in(tmp_path, f'{{"auths": {{"{registry.host}": {{"auth": "bWU6c2VjcmV0"}}}}}}')
    registry.users = {"me": "secret"}

    def script(request: Request) -> Fault | None:
        if request.path == "/token":
            return TOKEN_FAULTS[fault]
        if fault == "rejected" and request.headers.get("authorization", "").startswith("Bearer"):
            registry.expire_tokens()
        return offer_both

    registry.script = script
    assert pull(source, registry.push(IMAGE, "team/app:1.0")) == EXPECTED
    tokens = sum(request.path == "/token" for request in registry.requests)
    assert tokens == (2 if fault == "rejected" else 1)
    assert authorizations(registry)[-5:] == ["Basic"] * 5


def test_a_password_that_is_rejected_is_sent_once(registry: FaultRegistry, source: ImageSource, tmp_path: Path) -> None:
    registry.auth = "bearer"
    log_in(tmp_path, f'{{"auths": {{"{registry.host}": {{"auth": "bWU6c2VjcmV0"}}}}}}')

    def both(exchange: Exchange) -> None:
        answer = exchange.answer()
        answer.headers["WWW-Authenticate"] += ', Basic realm="registry"'
        exchange.send(answer)

    registry.script = lambda request: faults.status(503) if request.path == "/token" else both
    message = pull_error(source, registry.push(IMAGE, "team/app:1.0"))
    assert "token server http://127.0.0.1" in message
    assert "HTTP 503; tried 4 times" in message
    sent = [request for request in registry.requests if "/v2/" in request.path]
    assert [request.headers.get("authorization", "").partition(" ")[0] for request in sent].count("Basic") == 1


@pytest.mark.parametrize(
    ("challenge", "problem"),
    [
        (None, "names no way to log in: WWW-Authenticate is missing or malformed"),
        ("", "names no way to log in: WWW-Authenticate is missing or malformed"),
        (", ,", "names no way to log in: WWW-Authenticate is missing or malformed"),
        ("Negotiate", "asks for a login by negotiate, expected Basic or Bearer"),
        ('Digest realm="x", NTLM', "asks for a login by digest, ntlm, expected Basic or Bearer"),
        ('Bearer service="x"', "does not name the token server"),
    ],
)
def test_a_login_that_nobody_can_do_is_named(
    registry: FaultRegistry, source: ImageSource, challenge: str | None, problem: str
) -> None:
    headers = {} if challenge is None else {"WWW-Authenticate": challenge}
    registry.script = lambda request: faults.status(401, headers)
    assert f"{registry.host}: asks for a " in (message := pull_error(source, registry.push(IMAGE, "team/app:1.0")))
    assert problem in message
    assert len(registry.requests) == 1


def test_an_identity_token_is_posted_for_a_token(registry: FaultRegistry, source: ImageSource, tmp_path: Path) -> None:
    registry.auth = "bearer"
    registry.allows_anonymous = False
    registry.identity_tokens = {"refresh&me"}
    log_in(tmp_path, f'{{"auths": {{"{registry.host}": {{"identitytoken": "refresh&me"}}}}}}')
    assert pull(source, registry.push(IMAGE, "team/app:1.0")) == EXPECTED
    assert "refresh" not in "".join(request.target for request in registry.requests)


def test_a_login_is_used_for_its_own_host_only(
    registry: FaultRegistry,
    elsewhere: FaultRegistry,
    source: ImageSource,
    tmp_path: Path,
) -> None:
    registry.auth = "bearer"
    registry.realm = elsewhere.realm
    elsewhere.users = {"me": "secret"}
    log_in(tmp_path, f'{{"auths": {{"{elsewhere.host}": {{"auth": "bWU6c2VjcmV0"}}}}}}')
    pull_error(source, registry.push(IMAGE, "team/app:1.0"))
    assert set(authorizations(elsewhere)) == {""}


# Mirrors


@pytest.fixture
def configure(tmp_path: Path) -> Iterator[Callable[[str], ImageSource]]:
    """Give a function that returns a source with a given registries.conf."""
    file = tmp_path / "registries.conf"
    environ = os.environ | {"CONTAINERS_REGISTRIES_CONF": str(file)}
    with Sources(Path(), policy=PATIENT, environ=environ) as sources:

        def write(text: str) -> ImageSource:
            file.write_text(text)
            return sources.open("docker://")

        yield write


def test_mirrors_are_tried_before_the_registry(
    registry: FaultRegistry, elsewhere: FaultRegistry, configure: Callable[[str], ImageSource]
) -> None:
    source = configure(
        f"""
        [[registry]]
        prefix = "registry.example/team"
        location = "{registry.host}/copy"
        [[registry.mirror]]
        location = "{elsewhere.host}/mirror"
        """,
    )
    registry.push(IMAGE, "copy/app:1.0")
    assert pull(source, "registry.example/team/app:1.0") == EXPECTED
    assert [request.path for request in elsewhere.requests][:1] == ["/v2/mirror/app/manifests/1.0"]
    elsewhere.push(OTHER, "mirror/other:1.0")
    count = len(registry.requests)
    assert pull(source, "registry.example/team/other:1.0") == [OTHER.raw, *OTHER.blobs]
    assert len(registry.requests) == count


def test_a_mirror_that_is_down_is_tried_once(
    registry: FaultRegistry, elsewhere: FaultRegistry, configure: Callable[[str], ImageSource]
) -> None:
    source = configure(
        f'[[registry]]\nlocation = "{registry.host}"\n[[registry.mirror]]\nlocation = "{elsewhere.host}"\n',
    )
    elsewhere.script = faults.on(faults.status(503), lambda _: True)
    for name in ("team/app:1.0", "team/app:2.0"):
        assert pull(source, registry.push(IMAGE, name)) == EXPECTED
    assert len(elsewhere.requests) == 2


def test_a_download_from_a_mirror_resumes_at_the_registry(
    registry: FaultRegistry, elsewhere: FaultRegistry, configure: Callable[[str], ImageSource]
) -> None:
    source = configure(
        f'[[registry]]\nlocation = "{registry.host}"\n[[registry.mirror]]\nlocation = "{elsewhere.host}"\n',
    )
    reference, blob = put(registry, BIG)
    put(elsewhere, BIG)
    script = [faults.reset_in_body, *[faults.status(500)] * 9]
    elsewhere.script = lambda request: script[request.number]
    assert read(source, reference, blob) == BIG
    assert "range" in registry.requests[0].headers


def test_a_blob_damaged_at_a_mirror_comes_from_the_registry(
    registry: FaultRegistry, elsewhere: FaultRegistry, configure: Callable[[str], ImageSource], tmp_path: Path
) -> None:
    source = configure(
        f'[[registry]]\nlocation = "{registry.host}"\n[[registry.mirror]]\nlocation = "{elsewhere.host}"\n',
    )
    name = registry.push(IMAGE, "team/app:1.0")
    elsewhere.push(IMAGE, "team/app:1.0")
    elsewhere.blobs = {digest: bytes([blob[0] ^ 1]) + blob[1:] for digest, blob in elsewhere.blobs.items()}
    package = tmp_path / "package"
    package.mkdir()
    prefetch(Package(package), want(name), FetchContext(open_source=lambda _: source), outdir=package, locked=False)
    assert {request.is_blob for request in registry.requests} == {True}
    assert len(registry.requests) == len(IMAGE.blobs)


def test_a_blocked_registry_receives_no_request(
    registry: FaultRegistry, configure: Callable[[str], ImageSource]
) -> None:
    source = configure(f'[[registry]]\nlocation = "{registry.host}"\nblocked = true\n')
    assert "is blocked by " in pull_error(source, registry.push(IMAGE, "team/app:1.0"))
    assert registry.requests == []
