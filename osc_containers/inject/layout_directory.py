"""The directory in the image from which an engine loads a container: an OCI image layout, one for each container.

    /var/lib/kiwi_containers/layouts/ID/
        oci-layout, index.json
        blobs/sha256/HEX            layers and documents; hard links to one file each
        stream, frame               only for engines that read an archive and no directory

podman pulls from the directory. Removing the directory of a loaded container frees what no other container needs: the
file system counts the links, so there is no index of blobs that could be wrong.

The archive for other engines is made on the device. `frame` has the bytes of the archive (see `archive.layout`) without
the contents of the blobs, and each line of `stream` has a number of bytes to take from the frame and the path of the
blob that follows them; the rest of the frame comes last. Neither depends on more than the lock, so both can be written
before a blob is downloaded.
"""

import hashlib
from collections.abc import Iterator

from osc_containers.archive.layout import LAYOUT_VERSION, index_json, lay_out, path_of
from osc_containers.formats import tar
from osc_containers.inject.image_file import BlobFile, TextFile
from osc_containers.oci.image import Image
from osc_containers.oci.reference import Reference

LAYOUTS = "/var/lib/kiwi_containers/layouts"


def files(
    load_id: str, reference: Reference, image: Image, arch: str, *, has_stream: bool
) -> Iterator[TextFile | BlobFile]:
    """Yield the files of the directory; with `has_stream` also those for engines that read an archive."""
    directory = f"{LAYOUTS}/{load_id}"
    yield TextFile(path=f"{directory}/oci-layout", text=LAYOUT_VERSION.decode("ascii"), mode=0o644)
    yield TextFile(path=f"{directory}/index.json", text=index_json(image, reference, arch).decode("ascii"), mode=0o644)
    for blob in image.blobs:
        yield BlobFile(path=f"{directory}/{path_of(blob.digest)}", blob=blob)
    if has_stream:
        stream, frame = _stream(reference, image, arch)
        yield TextFile(path=f"{directory}/stream", text=stream, mode=0o644)
        yield TextFile(path=f"{directory}/frame", text=frame, mode=0o644)


def stream_sum(reference: Reference, image: Image, arch: str) -> str:
    """Return the SHA-256 of the files `stream` and `frame` together, in hexadecimal."""
    return hashlib.sha256("".join(_stream(reference, image, arch)).encode("ascii")).hexdigest()


def _stream(reference: Reference, image: Image, arch: str) -> tuple[str, str]:
    """Return the texts of `stream` and `frame`. Tar headers are ASCII with zero bytes between the fields."""
    lines, frame, count = [], [], 0
    # `count` is the number of bytes that the frame has since the last blob.
    for member in lay_out(image, reference, arch).members:
        piece = member.header + (member.content or b"")
        frame.append(piece)
        count += len(piece)
        if member.content is None:
            lines.append(f"{count} {path_of(member.digest)}\n")
            count = 0
        padding = bytes(tar.padding(member.size))
        frame.append(padding)
        count += len(padding)
    return "".join(lines), b"".join([*frame, tar.END]).decode("ascii")
