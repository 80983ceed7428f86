"""The kinds of files that an image gets. Paths are absolute paths in the image."""

from typing import NamedTuple, TypeAlias

from osc_containers.oci.manifest import Descriptor


class TextFile(NamedTuple):
    """A file with a known text."""

    path: str
    text: str
    mode: int


class Symlink(NamedTuple):
    """A symbolic link; `target` is relative to the directory of the link, or an absolute path in the image."""

    path: str
    target: str


class BlobFile(NamedTuple):
    """A file that is a blob of an image. All files of one blob are hard links, so that it is stored once."""

    path: str
    blob: Descriptor


class ArchiveFile(NamedTuple):
    """The archive of an image: a copy of, or a hard link to, the file `name` of the package."""

    path: str
    name: str


ImageFile: TypeAlias = TextFile | Symlink | BlobFile | ArchiveFile
