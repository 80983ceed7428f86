"""Locks for tests: one of a given shape, and a pair of which one is an update of the other."""

from collections.abc import Mapping, Sequence

from osc_containers.archive.layout import lay_out
from osc_containers.lock.lockfile import Lock, LockedImage, LockedReference
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import MANIFEST, Descriptor
from osc_containers.oci.reference import Reference


def make_lock(sizes: Mapping[str, int], arch: str = "x86_64", layers: Sequence[str] = ()) -> Lock:
    """Return a lock whose archives have these sizes, by reference: multiples of 512 bytes, if enough."""
    blob = Descriptor(digest=Digest.of(b""), size=0, media_type="")
    descriptors = tuple(Descriptor(digest=blob.digest, size=0, media_type=media_type) for media_type in layers)
    references = {}
    for name, size in sizes.items():
        layer = named_blob(name, 0)
        image = Image(manifest=blob, config=blob, layers=(*descriptors, layer))
        rest = size - lay_out(image, Reference.parse(name), arch).size
        image = image._replace(layers=(*descriptors, layer._replace(size=max(rest, 0))))
        locked = LockedImage(image=image, created="")
        references[Reference.parse(name)] = LockedReference(
            digest=blob.digest, media_type=MANIFEST, images={arch: locked}
        )
    return Lock(references=references)


LONG_NAME = "registry.opensuse.org/home/someone/containers/opensuse/tumbleweed-with-a-long-name:latest"


def named_blob(name: str, size: int) -> Descriptor:
    """Return the descriptor of a blob whose content is its name."""
    return Descriptor(digest=Digest.of(name.encode()), size=size, media_type="")


def _image(name: str, created: str, layers: Sequence[tuple[str, int]]) -> LockedImage:
    image = Image(
        manifest=named_blob(f"manifest {name}", 500),
        config=named_blob(f"config {name}", 1500),
        layers=tuple(named_blob(*layer) for layer in layers),
    )
    return LockedImage(image=image, created=created)


def _lock(references: dict[str, dict[str, LockedImage]]) -> Lock:
    return Lock(
        references={
            Reference.parse(name): LockedReference(
                digest=Digest.of(repr(sorted(locked.image.manifest.digest for locked in by_arch.values())).encode()),
                media_type=MANIFEST,
                images=by_arch,
            )
            for name, by_arch in references.items()
        }
    )


_BASE = ("base", 30_000_000)
# A reference of each kind: changed, removed, unchanged, with an additional architecture, and a new one.
OLD_LOCK = _lock(
    {
        LONG_NAME: {
            "aarch64": _image("a1", "2026-01-02T03:04:05Z", [_BASE, ("a1", 2_000_000)]),
            "x86_64": _image("x1", "2026-01-01T03:04:05Z", [_BASE, ("x1", 2_000_000)]),
        },
        "docker.io/library/gone:1": {"x86_64": _image("gone", "", [_BASE])},
        "docker.io/library/same:1": {"x86_64": _image("same", "", [_BASE])},
        "docker.io/library/wider:1": {"x86_64": _image("wider", "2026-03-01T00:00:00Z", [_BASE])},
    }
)
NEW_LOCK = _lock(
    {
        LONG_NAME: {
            "aarch64": _image("a1", "2026-01-02T03:04:05Z", [_BASE, ("a1", 2_000_000)]),
            "x86_64": _image("x2", "2026-02-01T03:04:05Z", [_BASE, ("x2", 1_000_000), ("new", 1_500_000)]),
        },
        "docker.io/library/added:1": {"x86_64": _image("added", "2026-02-03T00:00:00Z", [_BASE, ("new", 1_500_000)])},
        "docker.io/library/same:1": {"x86_64": _image("same", "", [_BASE])},
        "docker.io/library/wider:1": {
            "aarch64": _image("wider arm", "2026-03-01T00:00:00Z", [("arm", 700)]),
            "x86_64": _image("wider", "2026-03-01T00:00:00Z", [_BASE]),
        },
    }
)
