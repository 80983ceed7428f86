"""Hypothesis strategies for digests, references, images and locks, and for JSON that is almost valid."""

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from osc_containers.lock.lockfile import Lock, LockedImage, LockedReference
from osc_containers.oci import platform
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Descriptor
from osc_containers.oci.reference import Reference

_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}

CANONICAL = [arch for arch in platform.ARCHITECTURES if platform.canonical(arch) == arch]

digests = st.sampled_from(sorted(_LENGTHS)).flatmap(
    lambda algorithm: st.builds(
        lambda value: Digest(algorithm, f"{value:0{_LENGTHS[algorithm]}x}"),
        st.integers(0, 16 ** _LENGTHS[algorithm] - 1),
    )
)

_lines = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=5)

# A digest has one size. That of a layer may be large, that of a document not.
layers = st.builds(
    lambda digest, media_type: Descriptor(digest=digest, size=int(digest.hex, 16) % (1 << 63), media_type=media_type),
    digests.filter(lambda digest: int(digest.hex, 16) % 2 == 1),
    _lines,
)
documents = st.builds(
    lambda digest, media_type: Descriptor(digest=digest, size=int(digest.hex, 16) % (1 << 22), media_type=media_type),
    digests.filter(lambda digest: int(digest.hex, 16) % 2 == 0),
    _lines,
)

images = st.builds(
    lambda manifest, config, layers: Image(manifest=manifest, config=config, layers=tuple(layers)),
    documents,
    documents,
    st.lists(layers, max_size=3),
)

# Few letters and many separators, so that flattened names are often equal or almost equal.
_words = st.text("ab", min_size=1, max_size=3) | st.sampled_from(["a" * 40, "a" * 39 + "b"])
_paths = st.builds(
    lambda first, rest: first + "".join(separator + word for separator, word in rest),
    _words,
    st.lists(st.tuples(st.sampled_from("/_.-"), _words), max_size=3),
)
_tags = st.none() | st.from_regex(r"[abAB_][abAB_.-]{0,4}", fullmatch=True) | st.just("a" * 128)


@st.composite
def _references(draw: st.DrawFn) -> Reference:
    host = draw(st.sampled_from(["docker.io", "r.io", "R.io", "localhost:5000", "a" * 63 + ".io"]))
    tag = draw(_tags)
    digest = draw(st.none() | digests)
    suffix = (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    return Reference.parse(f"{host}/{draw(_paths)}{suffix}")


references = _references()

_dates = st.just("") | st.datetimes().map(lambda date: f"{date.isoformat(timespec='seconds')}Z")


@st.composite
def _locks(draw: st.DrawFn) -> Lock:
    names = draw(st.lists(references, max_size=3, unique=True))
    return Lock(references={reference: draw(_locked_reference()) for reference in names})


@st.composite
def _locked_reference(draw: st.DrawFn) -> LockedReference:
    architectures = draw(st.lists(st.sampled_from(CANONICAL), min_size=1, max_size=2, unique=True))
    locked = {arch: LockedImage(image=draw(images), created=draw(_dates)) for arch in architectures}
    return LockedReference(digest=draw(digests), media_type=draw(_lines), images=locked)


locks = _locks()

# Values that break parsers: lone surrogates, control characters, invalid, huge and borderline numbers, long text.
_hostile = st.sampled_from(
    [
        "\ud800",
        "a\0b",
        "\x1b[2J",
        "../x",
        "x" * 5000,
        "\n",
        "",
        10**300,
        2**63,
        -1,
        0.5,
        1e400,
        float("nan"),
        True,
        None,
    ]
)
json_values = st.recursive(
    _hostile | st.text(max_size=5) | st.integers() | st.floats(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=5,
)


@st.composite
def mutated(draw: st.DrawFn, document: Any) -> Any:
    """Return a copy of a JSON document in which one or two values are replaced, removed or have another key."""
    copy = {"": json.loads(json.dumps(document))}
    for _ in range(draw(st.integers(1, 2))):
        parent, key = draw(st.sampled_from(list(_items(copy))))
        action = draw(st.sampled_from(["replace", "remove", "rename"]))
        if action == "replace" or parent is copy:
            parent[key] = draw(json_values)
        elif action == "remove" or isinstance(parent, list):
            del parent[key]
        else:
            parent[draw(st.text() | st.sampled_from(["\ud800", "k" * 5000]))] = parent.pop(key)
    return copy[""]


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in list(pairs):
        yield value, key
        yield from _items(below)
