"""The text of a lock file is stable; any text is either parsed exactly or refused with all of its problems."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers import __version__
from osc_containers.errors import LockError
from osc_containers.lock import lockfile
from osc_containers.lock.lockfile import Lock, LockedImage, LockedReference
from osc_containers.oci import platform
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import DOCKER_MANIFEST, INDEX, MANIFEST, Descriptor
from osc_containers.oci.reference import Reference
from tests.support.messages import assert_bounded, exactly
from tests.support.strategies import locks, mutated

ADVICE = "; remove the lock and run the prefetch again"
DIGEST = f"sha256:{'0' * 64}"
APP, WEB = "docker.io/library/app:latest", "r.io:5000/web@sha256:" + "1" * 64


def descriptor(digit: str, media_type: str, size: int) -> Descriptor:
    return Descriptor(digest=Digest("sha256", digit * 64), media_type=media_type, size=size)


def locked(*layers: Descriptor, created: str = "") -> LockedImage:
    image = Image(
        manifest=descriptor("2", DOCKER_MANIFEST, 300), config=descriptor("3", "a/config", 200), layers=layers
    )
    return LockedImage(image=image, created=created)


LAYER = descriptor("4", "a/layer", 2**63 - 1)
LOCK = Lock(
    references={
        Reference.parse(WEB): LockedReference(
            digest=Digest("sha256", "1" * 64),
            media_type=INDEX,
            images={
                "x86_64": locked(LAYER, LAYER, created="2024-02-29T12:00:00.5+02:00"),
                "aarch64": locked(),
            },
        ),
        Reference.parse(APP): LockedReference(
            digest=Digest("sha256", "5" * 64), media_type=MANIFEST, images={"s390x": locked()}
        ),
    }
)

GOLDEN = """\
{
  "containers": {
    "docker.io/library/app:latest": {
      "architectures": {
        "s390x": {
          "config": {
            "digest": "sha256:3333333333333333333333333333333333333333333333333333333333333333",
            "mediaType": "a/config",
            "size": 200
          },
          "layers": [],
          "manifest": {
            "digest": "sha256:2222222222222222222222222222222222222222222222222222222222222222",
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "size": 300
          }
        }
      },
      "digest": "sha256:5555555555555555555555555555555555555555555555555555555555555555",
      "mediaType": "application/vnd.oci.image.manifest.v1+json"
    },
    "r.io:5000/web@sha256:1111111111111111111111111111111111111111111111111111111111111111": {
      "architectures": {
        "aarch64": {
          "config": {
            "digest": "sha256:3333333333333333333333333333333333333333333333333333333333333333",
            "mediaType": "a/config",
            "size": 200
          },
          "layers": [],
          "manifest": {
            "digest": "sha256:2222222222222222222222222222222222222222222222222222222222222222",
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "size": 300
          }
        },
        "x86_64": {
          "config": {
            "digest": "sha256:3333333333333333333333333333333333333333333333333333333333333333",
            "mediaType": "a/config",
            "size": 200
          },
          "created": "2024-02-29T12:00:00.5+02:00",
          "layers": [
            {
              "digest": "sha256:4444444444444444444444444444444444444444444444444444444444444444",
              "mediaType": "a/layer",
              "size": 9223372036854775807
            },
            {
              "digest": "sha256:4444444444444444444444444444444444444444444444444444444444444444",
              "mediaType": "a/layer",
              "size": 9223372036854775807
            }
          ],
          "manifest": {
            "digest": "sha256:2222222222222222222222222222222222222222222222222222222222222222",
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "size": 300
          }
        }
      },
      "digest": "sha256:1111111111111111111111111111111111111111111111111111111111111111",
      "mediaType": "application/vnd.oci.image.index.v1+json"
    }
  },
  "version": 1
}
"""


def test_the_text_is_stable_and_sorted() -> None:
    assert lockfile.dumps(LOCK) == GOLDEN


def test_an_empty_lock_survives_a_round_trip() -> None:
    assert lockfile.dumps(lockfile.EMPTY) == '{\n  "containers": {},\n  "version": 1\n}\n'
    assert lockfile.loads(lockfile.dumps(lockfile.EMPTY)) == lockfile.EMPTY


@given(locks)
def test_any_lock_survives_a_round_trip(lock: Lock) -> None:
    text = lockfile.dumps(lock)
    assert lockfile.loads(text.encode().decode()) == lock
    assert lockfile.dumps(lockfile.loads(text)) == text


DOCUMENT: dict[str, Any] = json.loads(GOLDEN)


@given(mutated(DOCUMENT).map(json.dumps) | st.text())
def test_any_text_gives_a_lock_or_an_error(text: str) -> None:
    try:
        lock = lockfile.loads(text)
    except LockError as error:
        assert_bounded(error)
        return
    assert lockfile.loads(lockfile.dumps(lock).encode().decode()).references == lock.references


VERSION = (
    f", expected 1, which osc-containers {__version__} reads; another release wrote it: update osc-containers here, "
    "or, if this is a build, the package obs-service-kiwi_containers_inject in the build's repositories"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"not valid JSON; Expecting value: line 1 column 1 (char 0){ADVICE}"),
        (
            "\ufeff{}",
            f"not valid JSON; Unexpected UTF-8 BOM (decode using utf-8-sig): line 1 column 1 (char 0){ADVICE}",
        ),
        ("[]", f"got an array, expected an object{ADVICE}"),
        ("{}", f"version: missing{ADVICE}"),
        ('{"version": 1.0}', f"version: got a number, expected a whole number{ADVICE}"),
        ('{"version": true}', f"version: got a boolean, expected a whole number{ADVICE}"),
        ('{"version": -1}', f"version: got -1, expected a size in bytes{ADVICE}"),
        ('{"version": 2}', f"got version 2{VERSION}"),
        ('{"version": 0, "containers": []}', f"got version 0{VERSION}"),
        ('{"version": "1"}', f"got version '1'{VERSION}"),
        ('{"version": "1.0\\n"}', f"got version '1.0\\n'{VERSION}"),
        ('{"version": "\u0661.%s"}' % ("0" * 99), f"got version '\\u0661.{'0' * 32}{VERSION}"),
        ('{"version": 1}', f"containers: missing{ADVICE}"),
        ('{"version": 1, "containers": []}', f"containers: got an array, expected an object{ADVICE}"),
        (
            '{"version": 1, "containers": {"x": {}, "x": {}}}',
            f"not valid JSON; duplicate key 'x'{ADVICE}",
        ),
        ('{"a": ' * 100_000, f"nested too deeply, expected at most 256 levels{ADVICE}"),
    ],
)
def test_text_that_is_not_a_lock_is_refused(text: str, message: str) -> None:
    with pytest.raises(LockError, match=exactly(f"containers.lock: {message}")):
        lockfile.loads(text)


@pytest.mark.parametrize("marker", ["<<<<<<< HEAD", ">>>>>>> 1.2.3 (update)", "<<<<<<< .mine\r"])
def test_merge_conflict_markers_are_recognized(marker: str) -> None:
    lines = GOLDEN.splitlines()
    text = "\n".join([*lines[:9], marker, *lines[9:]])
    message = "x.lock: has merge conflict markers; keep either side, then run the prefetch again"
    with pytest.raises(LockError, match=exactly(message)):
        lockfile.loads(text, "x.lock")


IMAGE = ("architectures", "x86_64")
ABSENT = object()


def changed(path: tuple[str | int, ...], value: object) -> str:
    """Return the text of a lock whose second reference has another value, or no value, at a path."""
    document = copy.deepcopy(DOCUMENT)
    parent = document["containers"][WEB]
    for key in path[:-1]:
        parent = parent[key]
    if value is ABSENT:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("digest",), ABSENT, ".digest: missing"),
        (("digest",), "sha256:0", ".digest: got 'sha256:0', expected 64 lower-case hexadecimal digits after 'sha256:'"),
        (("mediaType",), ABSENT, ".mediaType: missing"),
        (("mediaType",), "a\ud800", ".mediaType: got a lone surrogate, expected valid Unicode"),
        (("architectures",), [], ".architectures: got an array, expected an object"),
        (("architectures",), {}, ".architectures: got none, expected at least one"),
        (
            ("architectures", "sparc"),
            {},
            f".architectures.sparc: expected one of {', '.join(platform.ARCHITECTURES)}",
        ),
        (
            ("architectures", "../x"),
            {},
            f".architectures['../x']: expected one of {', '.join(platform.ARCHITECTURES)}",
        ),
        (IMAGE, None, ".architectures.x86_64: missing"),
        ((*IMAGE, "manifest"), ABSENT, ".architectures.x86_64.manifest: missing"),
        (
            (*IMAGE, "manifest", "size"),
            True,
            ".architectures.x86_64.manifest.size: got a boolean, expected a whole number",
        ),
        ((*IMAGE, "config", "size"), -1, ".architectures.x86_64.config.size: got -1, expected a size in bytes"),
        (
            (*IMAGE, "manifest", "size"),
            (4 << 20) + 1,
            f".architectures.x86_64: sha256:{'2' * 64}: got a document of 4194305 bytes, expected at most 4194304",
        ),
        (
            (*IMAGE, "config", "size"),
            1 << 62,
            f".architectures.x86_64: sha256:{'3' * 64}: got a document of {1 << 62} bytes, expected at most 16777216",
        ),
        ((*IMAGE, "config", "mediaType"), 7, ".architectures.x86_64.config.mediaType: got a number, expected a string"),
        ((*IMAGE, "layers"), {}, ".architectures.x86_64.layers: got an object, expected an array"),
        (
            (*IMAGE, "layers", 1, "digest"),
            DIGEST.upper(),
            f".architectures.x86_64.layers[1].digest: got '{DIGEST.upper()}', expected a digest like "
            "'sha256:<64 hexadecimal digits>'",
        ),
        (
            (*IMAGE, "layers", 0, "size"),
            2**63,
            ".architectures.x86_64.layers[0].size: got 9223372036854775808, expected a size in bytes",
        ),
        ((*IMAGE, "created"), 7, ".architectures.x86_64.created: got a number, expected a string"),
        ((*IMAGE, "created"), "now", ".architectures.x86_64.created: got 'now', expected an RFC 3339 date"),
    ],
)
def test_an_error_names_the_invalid_property(path: tuple[str | int, ...], value: object, message: str) -> None:
    with pytest.raises(LockError, match=exactly(f"containers.lock: containers['{WEB}']{message}{ADVICE}")):
        lockfile.loads(changed(path, value))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("app", "expected the complete reference 'docker.io/library/app:latest'"),
        ("index.docker.io/a/b:1", "expected the complete reference 'docker.io/a/b:1'"),
        ("a:", "tag '': expected at most 128 letters, digits and '_.-', starting with a letter, digit or '_'"),
        ("r.io/a@md5:0", "got digest algorithm 'md5', expected one of sha256, sha384, sha512"),
    ],
)
def test_an_incomplete_reference_is_refused(name: str, message: str) -> None:
    document = {"version": 1, "containers": {name: DOCUMENT["containers"][APP]}}
    step = name if name == "app" else f"['{name}']"
    where = f"containers.lock: containers{'.' if step == name else ''}{step}"
    with pytest.raises(LockError, match=exactly(f"{where}: {message}{ADVICE}")):
        lockfile.loads(json.dumps(document))


def test_all_invalid_references_are_reported_up_to_a_limit() -> None:
    document = {"version": 1, "containers": {f"r.io/a:{number}": number for number in range(1000)}}
    with pytest.raises(LockError) as caught:
        lockfile.loads(json.dumps(document))
    problems = [
        f"containers.lock: containers['r.io/a:{number}']: got a number, expected an object{ADVICE}"
        for number in range(50)
    ]
    assert list(caught.value.problems) == [*problems, "containers.lock: 950 more problems"]


def test_a_blob_with_two_sizes_is_refused() -> None:
    digest = f"sha256:{'3' * 64}"
    problem = f"containers.lock: {digest} has 200 bytes in {APP} (s390x), but 201 in {WEB} (x86_64){ADVICE}"
    with pytest.raises(LockError, match=exactly(problem)):
        lockfile.loads(changed((*IMAGE, "config", "size"), 201))


def test_archives_are_named_after_reference_and_architecture() -> None:
    name = f"r.io_5000_web_sha256_{'1' * 64}"
    assert LOCK.archive_names() == {
        (Reference.parse(APP), "s390x"): "docker.io_library_app_latest.s390x.ociarchive",
        (Reference.parse(WEB), "aarch64"): f"{name}.aarch64.ociarchive",
        (Reference.parse(WEB), "x86_64"): f"{name}.x86_64.ociarchive",
    }


@pytest.mark.parametrize(
    ("reference", "arch", "name"),
    [
        (WEB, "x86_64", "x86_64"),
        (WEB, "amd64", "x86_64"),
        (WEB, "arm64", "aarch64"),
        (WEB, "s390x", None),
        (APP, "s390x", "s390x"),
        ("r.io/other", "s390x", None),
    ],
)
def test_an_image_is_found_by_any_name_of_its_platform(reference: str, arch: str, name: str | None) -> None:
    claim = LOCK.claim_for(Reference.parse(reference), arch)
    assert (claim.arch if claim else None) == name
    image = LOCK.image_for(Reference.parse(reference), arch)
    assert image is (LOCK.references[Reference.parse(reference)].images[name] if name else None)


def test_an_architecture_has_one_name() -> None:
    text = GOLDEN.replace('"x86_64": {', '"amd64": {')
    assert lockfile.loads(text) == LOCK
    assert lockfile.dumps(lockfile.loads(text)) == GOLDEN
    twice = GOLDEN.replace('"aarch64": {', '"amd64": {')
    with pytest.raises(LockError, match="got x86_64 a second time; it has several names"):
        lockfile.loads(twice)


def test_images_are_sorted() -> None:
    assert [(str(reference), arch) for reference, arch, _ in LOCK.images()] == [
        (APP, "s390x"),
        (WEB, "aarch64"),
        (WEB, "x86_64"),
    ]
