"""Lookup of blobs in a package, in whichever form the package has them.

The forms are archives (`layout`), files that each are one blob, and a cpio archive (`inject` = `source`). A package may
have several of them, for example after a merge. Unless a function says otherwise, the content is not verified.
"""

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from osc_containers.archive.layout import layout_of
from osc_containers.formats import cpio, tar
from osc_containers.fs.ranges import FileSlice
from osc_containers.fs.source_file import SourceFile, open_source
from osc_containers.lock import archive_names
from osc_containers.lock.lockfile import Lock
from osc_containers.obs.package import Package
from osc_containers.oci import chain
from osc_containers.oci.chain import Claim
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import CONFIG_LIMIT, Descriptor


class Blob(NamedTuple):
    """A blob of `size` bytes, which is what its descriptor says; `content` is where it begins.

    `is_whole` says that the file has nothing else in it, so that it can be hard-linked.
    """

    content: FileSlice
    size: int
    source: SourceFile
    is_whole: bool


class PackageBlobs:
    """The blobs of the images that a package locks.

    Files are opened when they are first needed, by one descriptor each, and stay open until `stack` is closed. So what
    was verified can be used, even if others exchange the files of the package meanwhile.
    """

    def __init__(self, package: Package, lock: Lock, stack: ExitStack) -> None:
        self.lock = lock
        self.names = lock.archive_names()
        """The names of archives, by reference and architecture."""
        self.files = package.image_files()
        """The files that may hold blobs, by their names without the prefix of a service."""
        self._stack = stack
        self._opened: dict[str, SourceFile] = {}
        self._lock = threading.Lock()
        self._layouts: dict[str, _Layout] = {}
        self._bundle: Mapping[Digest, FileSlice] | None = None

    def open(self, name: str) -> SourceFile:
        """Open one of `files`; may be called from several threads.

        :raises OSError: it cannot be opened, or is a link or a special file.
        """
        with self._lock:
            if name not in self._opened:
                self._opened[name] = open_source(self.files[name], self._stack)
            return self._opened[name]

    def in_bundle(self, digest: Digest) -> FileSlice | None:
        """Return a blob in the cpio archive of the package."""
        if self._bundle is None:
            paths = [self.files[cpio.FILE_NAME]] if cpio.FILE_NAME in self.files else []
            self._bundle = in_files(paths, self._stack)
        return self._bundle.get(digest)

    def missing(self, claim: Claim) -> tuple[Descriptor, ...]:
        """Return the blobs of an image that are in no file of the package, by the names of files."""
        if self.names[claim.reference, claim.arch] in self.files:
            return ()
        return tuple(
            blob
            for blob in claim.image.blobs
            if archive_names.blob(blob.digest) not in self.files and not self.in_bundle(blob.digest)
        )

    def find(self, claim: Claim, blob: Descriptor) -> Blob | None:
        """Return a blob of an image, or None if the package does not have it in this size.

        :raises OSError: a file cannot be opened, or is a link or a special file.
        """
        return self._find(claim, blob, self.open)

    def _find(self, claim: Claim, blob: Descriptor, open_file: Callable[[str], SourceFile]) -> Blob | None:
        name = archive_names.blob(blob.digest)
        # A file of the wrong size is passed over: the package may have the blob in another form, too.
        if name in self.files and (source := open_file(name)).status.st_size == blob.size:
            return Blob(content=FileSlice(source.descriptor, 0), size=blob.size, source=source, is_whole=True)
        name = self.names[claim.reference, claim.arch]
        if name in self.files:
            layout = self._layout(claim)
            if (source := open_file(name)).status.st_size == layout.size:
                content = FileSlice(source.descriptor, layout.offsets[blob.digest])
                return Blob(content=content, size=blob.size, source=source, is_whole=False)
        part = self.in_bundle(blob.digest)
        return Blob(content=part, size=blob.size, source=open_file(cpio.FILE_NAME), is_whole=False) if part else None

    def _layout(self, claim: Claim) -> "_Layout":
        name = self.names[claim.reference, claim.arch]
        if name not in self._layouts:
            layout = layout_of(claim)
            self._layouts[name] = _Layout(layout.size, {member.digest: member.offset for member in layout.blobs()})
        return self._layouts[name]

    def document(self, claim: Claim, descriptor: Descriptor) -> bytes | None:
        """Return a document of an image, or None if the package does not have it; it is verified."""
        # There may be thousands of images, so that the files of their documents do not stay open.
        with suppress(OSError), ExitStack() as stack:
            blob = self._find(claim, descriptor, lambda name: open_source(self.files[name], stack))
            return read_document(blob.content, descriptor) if blob else None
        return None

    def read_start(self, claim: Claim, blob: Descriptor, size: int) -> bytes:
        """Return the first `size` bytes of a blob, or fewer if it is smaller; none if the package does not have it."""
        with suppress(OSError), ExitStack() as stack:
            part = self._find(claim, blob, lambda name: open_source(self.files[name], stack))
            return part.content.read(0, min(size, blob.size)) if part else b""
        return b""

    def proves(self, claim: Claim) -> bool:
        """Return whether the package has the documents of an image, and they prove what is claimed of it."""
        with suppress(ValueError):
            # Empty bytes match no document, so a missing one breaks the chain.
            chain.check(claim, lambda each: self.document(claim, each) or b"")
            return True
        return False


class _Layout(NamedTuple):
    """The size of an archive, and the offset of each blob in it."""

    size: int
    offsets: Mapping[Digest, int]


def read_document(content: FileSlice, descriptor: Descriptor) -> bytes | None:
    """Return a document, or None if it is damaged, or larger than a document may be."""
    # The size comes from an untrusted lock file, and the document is read into memory.
    if descriptor.size > CONFIG_LIMIT:
        return None
    document = content.read(0, descriptor.size)
    return document if len(document) == descriptor.size and descriptor.digest.matches(document) else None


def in_files(
    paths: Iterable[Path], stack: ExitStack, wanted: Collection[Digest] | None = None
) -> Mapping[Digest, FileSlice]:
    """Return the blobs in files of a package by digest, as far as names tell.

    The files stay open until `stack` is closed. If `wanted` is given, files that each are one blob are opened only for
    these; of an archive, everything is returned in any case.
    """
    slices: dict[Digest, FileSlice] = {}
    for path in paths:
        digest = archive_names.digest_of_blob(path.name)
        if digest and wanted is not None and digest not in wanted:
            continue
        # There may be thousands of files. A file object for each would take 8 KiB.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        for found, offset in [(digest, 0)] if digest else _in_archive(path, descriptor):
            slices.setdefault(found, FileSlice(descriptor, offset))
    return slices


def _in_archive(path: Path, descriptor: int) -> Iterator[tuple[Digest, int]]:
    """Yield digest and offset of each blob in an archive, or in a cpio archive of blobs and archives."""
    # The descriptor belongs to the slices, so it stays open.
    with open(descriptor, "rb", closefd=False) as file:
        starts = [0]
        if path.name.endswith(cpio.FILE_NAME):
            members = list(cpio.members(file))
            starts = [member.offset for member in members]
            for member in members:
                # Layouts are below overlay directories here, so only the end of the path is that of a blob in a layout.
                if digest := _digest_of_path("/".join(member.path.split("/")[-3:])):
                    yield digest, member.offset
        for start in starts:
            file.seek(start)
            # Other members of a cpio archive are no tar archives, and a damaged archive is used up to the damage.
            with suppress(ValueError):
                for entry in tar.members(file):
                    digest = _digest_of_path(entry.name) if entry.isreg() else None
                    if digest:
                        yield digest, entry.offset_data


def _digest_of_path(path: str) -> Digest | None:
    """Return the digest in a path `blobs/ALGORITHM/HEX`, or None for any other path."""
    directory, _, rest = path.partition("/")
    if directory != "blobs":
        return None
    try:
        return Digest.parse(rest.replace("/", ":", 1))
    except ValueError:
        return None
