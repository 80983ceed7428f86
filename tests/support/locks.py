"""Locks for tests."""

from collections.abc import Mapping, Sequence

from osc_containers.lock.lockfile import ArchiveFile, Lock, LockedImage, LockedReference
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import MANIFEST, Descriptor
from osc_containers.oci.reference import Reference


def make_lock(sizes: Mapping[str, int], arch: str = "x86_64", layers: Sequence[str] = ()) -> Lock:
    """Make a lock with an archive of each size."""
    blob = Descriptor(digest=Digest.of(b""), size=0, media_type="")
    made = tuple(Descriptor(digest=blob.digest, size=0, media_type=media_type) for media_type in layers)
    image = Image(manifest=blob, config=blob, layers=made)
    references = {}
    for name, size in sizes.items():
        file = ArchiveFile(name=f"{name.replace('/', '_').replace(':', '_')}.ociarchive", size=size, sha256="0" * 64)
        locked = LockedImage(image=image, created="", archive=file)
        references[Reference.parse(name)] = LockedReference(
            digest=blob.digest, media_type=MANIFEST, images={arch: locked}
        )
    return Lock(references=references)
