"""Finds the databases of package managers in the layers of an image, as they are in the container.

Only the paths count that distributions use. What a layer deletes or replaces is gone, and what it has in a form that
cannot be followed, such as a link, is a gap.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from tempfile import TemporaryFile
from typing import NamedTuple

from osc_containers.errors import Error
from osc_containers.formats import human, layer_tar
from osc_containers.formats.layer_tar import DIRECTORY, FILE, GLOBAL, SYMLINK, Member, printable
from osc_containers.fs.ranges import FileSlice
from osc_containers.inject.store.inflate import inflate
from osc_containers.oci.digest import Digest
from osc_containers.oci.manifest import Descriptor

OS_RELEASE = (b"usr/lib/os-release", b"etc/os-release")

_DATABASE = re.compile(
    rb"var/lib/dpkg/status(?:\.d/[^/]+)?|(?:usr/)?lib/apk/db/installed"
    rb"|(?:usr/lib/sysimage|var/lib)/rpm/(?:rpmdb\.sqlite(?:-wal)?|Packages(?:\.db)?)"
)
_PARENTS = frozenset(
    b"/".join(path.split(b"/")[:depth])
    for path in (b"usr/lib/apk/db", b"lib/apk/db", b"usr/lib/sysimage/rpm", b"var/lib/rpm", b"var/lib/dpkg/status.d")
    for depth in range(5)
)
"""The directories that databases are in, from the root of the container on."""
_USUAL_LINKS = {b"lib": b"usr/lib", b"var/lib/rpm": b"usr/lib/sysimage/rpm"}
"""Directories of databases that distributions replace by a link, and where it leads."""
_OPAQUE, _WHITEOUT = b".wh..wh..opq", b".wh."

_SIZE_LIMIT = 256 << 20
"""Bytes of all databases of one image together, which are in memory."""
_MEMBER_LIMIT = 10_000_000
"""Members of one layer."""
_CHANGE_LIMIT = 2_000
"""Those of them that concern databases; an image without a package manager has a few dozen."""


class Layer(NamedTuple):
    """A layer: its blob, and the digest of the tar archive that the blob unpacks to."""

    descriptor: Descriptor
    diff_id: Digest
    content: FileSlice


class Databases(NamedTuple):
    """The content of each file by its path, and what could not be read."""

    files: dict[bytes, bytes]
    gaps: list[str]


def find(layers: Sequence[Layer], environ: Mapping[str, str] = os.environ) -> Databases:
    """Return the databases in the merged layers, the lowest first.

    A layer that is damaged, or that cannot be unpacked here, is a gap.
    """
    found = Databases({}, [])
    for number, layer in enumerate(layers, 1):
        with TemporaryFile() as file:
            content = FileSlice(file.fileno(), 0)
            try:
                size = inflate(layer.content, layer.descriptor, layer.diff_id, content, environ).size
                _add(found, layer_tar.members(content, size), content)
            except (ValueError, Error) as error:
                found.gaps.append(f"layer {number} of {len(layers)}: {error}")
    return found


def _add(found: Databases, members: Iterable[Member], content: FileSlice) -> None:
    """Add a layer. What it deletes is deleted from the layers below, whatever the order of its members."""
    own: dict[bytes, bytes] = {}
    changes = 0
    for count, (path, member) in enumerate(_paths(members)):
        if count == _MEMBER_LIMIT:
            raise ValueError(f"got more than {_MEMBER_LIMIT} members")
        folder, _, name = path.rpartition(b"/")
        # A whiteout concerns the path that it hides. An opaque mark hides what lower layers have in its directory.
        is_opaque, is_whiteout = name == _OPAQUE, name.startswith(_WHITEOUT)
        if is_whiteout:
            path = folder if is_opaque else b"/".join(filter(None, (folder, name.removeprefix(_WHITEOUT))))
        if path not in _PARENTS and not _is_wanted(path):
            continue
        changes += 1
        if changes > _CHANGE_LIMIT:
            raise ValueError(f"got more than {_CHANGE_LIMIT} members that concern databases of packages")
        if is_whiteout:
            _remove(found.files, path, keeps_itself=is_opaque)
        # A directory that is there again adds to that of lower layers. Everything else replaces what had its path.
        elif member.kind != DIRECTORY:
            _remove(found.files, path)
            _remove(own, path)
            _take(found, own, path, member, content)
    found.files.update(own)


def _paths(members: Iterable[Member]) -> Iterator[tuple[bytes, Member]]:
    for member in members:
        parts = [part for part in member.name.split(b"/") if part not in (b"", b".")]
        if parts and b".." not in parts and member.kind != GLOBAL:
            yield b"/".join(parts), member


def _is_wanted(path: bytes) -> bool:
    return path in OS_RELEASE or bool(_DATABASE.fullmatch(path))


def _remove(files: dict[bytes, bytes], path: bytes, *, keeps_itself: bool = False) -> None:
    prefix = path + b"/" if path else b""
    for each in [each for each in files if each.startswith(prefix) or (each == path and not keeps_itself)]:
        del files[each]


def _take(found: Databases, own: dict[bytes, bytes], path: bytes, member: Member, content: FileSlice) -> None:
    """Read a member that is not a directory."""
    if member.kind == FILE and _is_wanted(path):
        if sum(map(len, (*own.values(), *found.files.values()))) + member.size > _SIZE_LIMIT:
            raise ValueError(f"{printable(path)}: the databases have more than {human.size(_SIZE_LIMIT)}")
        own[path] = content.read(member.offset, member.offset + member.size)
    elif _DATABASE.fullmatch(path):
        found.gaps.append(f"{printable(path)}: it is not a regular file")
    elif member.kind == SYMLINK and path not in OS_RELEASE and not _is_usual(path, member.target):
        found.gaps.append(f"{printable(path)}: it is a link to {printable(member.target)}")


def _is_usual(path: bytes, target: bytes) -> bool:
    parts: list[bytes] = [] if target.startswith(b"/") else path.split(b"/")[:-1]
    for part in target.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts) == _USUAL_LINKS.get(path)
