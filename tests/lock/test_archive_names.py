"""File names for references are distinct and valid, whatever the references are."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.lock import archive_names
from osc_containers.oci import platform
from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import Reference
from tests.support.strategies import references

_NAME_MAX = 255


def flatten(*texts: str) -> list[str]:
    parsed = [Reference.parse(text) for text in texts]
    flat = archive_names.flatten(parsed)
    return [flat[reference] for reference in parsed]


def assert_valid(references: list[Reference]) -> None:
    flat = archive_names.flatten(references)
    assert set(flat) == set(references)
    assert len({name.lower() for name in flat.values()}) == len(set(references))
    assert archive_names.flatten(reversed(references)) == flat
    for name in flat.values():
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name)
        assert len(f"kiwi_containers-container-snap-{name}.service") <= _NAME_MAX
        assert max(len(archive_names.archive(name, arch)) for arch in platform.ARCHITECTURES) <= _NAME_MAX


def with_imitations(originals: list[Reference]) -> list[Reference]:
    """Add references whose names without a hash equal the names with a hash of others."""
    suffixes = [Digest.of(str(reference).encode()).hex[:digits] for reference in originals for digits in (8, 32, 64)]
    forged = [
        f"{reference.name}:{(reference.tag or 'x')[:60]}-{suffix}" for reference in originals for suffix in suffixes
    ]
    return originals + [Reference.parse(text) for text in forged]


@given(
    st.lists(references, max_size=8, unique=True) | st.lists(references, max_size=3, unique=True).map(with_imitations)
)
def test_names_are_distinct_and_valid(parsed: list[Reference]) -> None:
    assert_valid(parsed)


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("app", "docker.io_library_app_latest"),
        ("registry.example.com:5000/a/b_c:1.0-2", "registry.example.com_5000_a_b_c_1.0-2"),
        (f"r.io/a:1@sha256:{'0' * 64}", f"r.io_a_1_sha256_{'0' * 64}"),
        (f"r.io/{'a' * 151}:1-x", f"r.io_{'a' * 151}_1-x"),
        (f"r.io/{'a' * 152}:1-x", f"r.io_{'a' * 152}_1--26e16fff"),
        (f"r.io/a@sha512:{'0' * 128}", f"r.io_a_sha512_{'0' * 128}"),
    ],
)
def test_a_name_depends_on_its_reference_only(reference: str, name: str) -> None:
    assert flatten(reference) == [name]
    assert flatten(reference, "r.io/other") == [name, "r.io_other_latest"]


A_B, A_C = "r.io/a/b:1", "r.io/a_b:1"
HASH_OF_A_B = Digest.of(A_B.encode()).hex


@pytest.mark.parametrize(
    "texts",
    [
        (A_B, A_C),
        ("r.io/a:X", "r.io/a:x"),
        (A_B, A_C, f"r.io/a/b:1-{HASH_OF_A_B[:8]}"),
        (A_B, A_C, f"r.io/a/b:1-{HASH_OF_A_B[:8]}", f"r.io/a/b:1-{HASH_OF_A_B[:32]}"),
        (A_B, A_C, f"r.io/a_b:1-{HASH_OF_A_B[:8]}", f"r.io/a/b:1-{HASH_OF_A_B[:8]}"),
        # the same first 160 characters, and the same first 8 of the hash
        (f"r.io/{'a' * 200}:77415", f"r.io/{'a' * 200}:83536"),
    ],
)
def test_references_with_the_same_name_get_hashes(texts: tuple[str, ...]) -> None:
    assert_valid([Reference.parse(text) for text in texts])
    assert all(re.search(r"-[0-9a-f]{8,}\Z", name) for name in flatten(*texts))


def test_a_hash_is_short_if_that_is_enough() -> None:
    assert flatten(A_B, A_C) == [f"r.io_a_b_1-{HASH_OF_A_B[:8]}", f"r.io_a_b_1-{Digest.of(A_C.encode()).hex[:8]}"]


def test_an_archive_name_ends_with_its_architecture() -> None:
    assert archive_names.archive("r.io_a_1", "x86_64") == "r.io_a_1.x86_64.ociarchive"
