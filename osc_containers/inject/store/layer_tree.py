"""The files of one layer as podman unpacks them for overlayfs, built in memory from the members of its tar archive.

Whiteouts become character devices 0:0, and opaque directories get an extended attribute (kernel documentation,
"Overlay Filesystem"). Paths are resolved as in a chroot of the layer, but no file system is involved: a symbolic link
cannot lead anywhere. What podman refuses is refused here, too, and what only an attack would contain.

Spec: OCI image-spec v1.1, layer.md; containers/storage, `pkg/archive`: Unpack, createTarFile, overlayWhiteoutConverter.
"""

from collections.abc import Iterator, Mapping

from osc_containers.formats.layer_tar import CHARACTER, DIRECTORY, FILE, GLOBAL, HARD_LINK, SYMLINK, Member, printable

MEMORY_LIMIT = 128 << 20
"""Bytes that the entries of a layer may need in memory, as estimated by `_charge`; about 300,000 ordinary files."""

STEP_LIMIT = 1 << 26
"""Components of paths that are resolved for one layer, among them those of symbolic links."""

_ENTRY_SIZE = 400
_ROOT_MODE = 0o555
"""podman gives this mode to the root of every layer, and ignores what the layer says about it."""
_LINK_LIMIT = 40
"""Symbolic links that are followed in one path, as in Linux (path_resolution(7))."""
_NAME_LENGTH, _PATH_LENGTH = 255, 4095
_XATTR_NAME_LENGTH, _XATTR_LENGTH = 255, 65535
# The numbers of a device have 12 and 20 bits (Linux, include/linux/kdev_t.h).
_MAJOR_LIMIT, _MINOR_LIMIT = 1 << 12, 1 << 20
_TIME_LIMIT = (1 << 32) - 1
"""squashfs has unsigned times of 32 bits. Earlier and later ones are set to the limit."""

_WHITEOUT, _OPAQUE = b".wh.", b".wh..wh..opq"
_OPAQUE_XATTRS = {b"trusted.overlay.opaque": b"y", b"user.overlay.opaque": b"y"}
"""Containers of rootless users see only the second. podman writes one of them, depending on the user who pulls."""
_OVERLAY_XATTRS = (b"trusted.overlay.", b"user.overlay.")
_STORED_XATTRS = (b"user.", b"trusted.", b"security.")
"""Prefixes of extended attributes that squashfs can store."""


class Node:
    """A file, directory, link or device of a layer. Hard links are the same node under several names."""

    __slots__ = ("children", "device", "gid", "kind", "mode", "mtime", "offset", "size", "target", "uid", "xattrs")

    def __init__(self, kind: bytes, mode: int, uid: int = 0, gid: int = 0) -> None:
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = self.size = self.offset = 0
        self.target = b""
        self.device = (0, 0)
        self.xattrs: Mapping[bytes, bytes] = _NONE
        self.children: dict[bytes, Node] = {} if kind == DIRECTORY else _NO_CHILDREN

    @property
    def is_whiteout(self) -> bool:
        """Whether overlayfs takes the node for a deleted file."""
        return self.kind == CHARACTER and self.device == (0, 0)


# Shared by all nodes that have none, and never changed.
_NONE: Mapping[bytes, bytes] = {}
_NO_CHILDREN: dict[bytes, Node] = {}


class LayerTree:
    """The tree of a layer, to which its members are added in order.

    `uids` and `gids` are those of all members except whiteouts.
    """

    def __init__(self) -> None:
        self.root = Node(DIRECTORY, _ROOT_MODE)
        self.uids: set[int] = set()
        self.gids: set[int] = set()
        self._memory = self._steps = 0
        self._names: set[bytes] = set()

    def add(self, member: Member) -> None:
        """Add a member.

        :raises ValueError: the layer cannot be unpacked, or should not be. The message starts with the member's name.
        """
        try:
            self._add(member)
        except ValueError as error:
            raise ValueError(f"{printable(member.name)}: {error}") from None

    def entries(self) -> Iterator[tuple[bytes, Node]]:
        """Yield each path, without a leading slash, with its node: sorted, and a directory before what is in it.

        :raises ValueError: a path is too long, which symbolic links make possible.
        """
        pending = [(b"", self.root)]
        while pending:
            path, node = pending.pop()
            if len(path) > _PATH_LENGTH:
                raise ValueError(f"{printable(path)}: the path is longer than {_PATH_LENGTH} bytes")
            yield path, node
            # The first path in order has to be the last one in the list.
            pending += [
                (path + b"/" + name if path else name, child) for name, child in sorted(node.children.items())[::-1]
            ]

    def _add(self, member: Member) -> None:
        parts = _split(member.name)
        name = b"/".join(parts)
        # The name is in memory twice: in `_names`, and as the keys of `children`.
        self._charge(_ENTRY_SIZE + 2 * len(name) + len(member.target))
        # podman's record of the archive (tar-split) cannot have a name twice.
        if name in self._names:
            raise ValueError("the layer has this name twice")
        self._names.add(name)
        if member.kind == GLOBAL:
            return
        if parts and parts[-1].startswith(_WHITEOUT):
            self._add_whiteout(member, parts)
            return
        self.uids.add(member.uid)
        self.gids.add(member.gid)
        if not parts:
            if member.kind != DIRECTORY:
                raise ValueError("got no directory, expected the root of the layer to be one")
            return
        parent = self._directory(parts[:-1])
        old = parent.children.get(parts[-1])
        # As in podman, only a directory that replaces a directory leaves its content there.
        if member.kind == DIRECTORY and old and old.kind == DIRECTORY:
            self._describe(old, member)
            return
        # What is replaced is gone before a hard link to it could be made.
        parent.children.pop(parts[-1], None)
        parent.children[parts[-1]] = self._link(member) if member.kind == HARD_LINK else self._new(member)

    def _new(self, member: Member) -> Node:
        node = Node(member.kind, member.mode)
        node.size, node.offset, node.target, node.device = member.size, member.offset, member.target, member.device
        if node.is_whiteout:
            raise ValueError("got a device 0:0, which overlayfs takes for a deleted file")
        if node.device[0] >= _MAJOR_LIMIT or node.device[1] >= _MINOR_LIMIT:
            raise ValueError(f"got a device {node.device[0]}:{node.device[1]}, which Linux does not have")
        if len(node.target) > _PATH_LENGTH:
            raise ValueError(f"got a link of {len(node.target)} bytes, expected at most {_PATH_LENGTH}")
        self._describe(node, member)
        return node

    def _link(self, member: Member) -> Node:
        parts = _split(member.target)
        if not parts:
            raise ValueError("links to the root of the layer, expected a file")
        target = self._directory(parts[:-1], is_member=False).children.get(parts[-1])
        if target is None or target.kind == DIRECTORY or target.is_whiteout:
            what = "a directory" if target and target.kind == DIRECTORY else "nothing"
            raise ValueError(f"links to {printable(member.target)}, which is {what} in this layer so far")
        self._describe(target, member)
        return target

    def _describe(self, node: Node, member: Member) -> None:
        """Give a node the metadata of a member; the header of a hard link applies to its target."""
        # chmod(2) does not change a symbolic link.
        node.mode = 0o777 if node.kind == SYMLINK else member.mode
        node.uid, node.gid = member.uid, member.gid
        node.mtime = min(max(member.mtime, 0), _TIME_LIMIT)
        for key, value in member.xattrs.items():
            self._set_xattr(node, key, value)

    def _set_xattr(self, node: Node, key: bytes, value: bytes) -> None:
        if key == b"security.selinux":
            return  # the label of the machine on which the layer was made; podman drops it, too
        if key.startswith(_OVERLAY_XATTRS):
            raise ValueError(f"got the attribute {printable(key)}, which overlayfs would take for its own")
        if not key.startswith(_STORED_XATTRS):
            raise ValueError(f"got the attribute {printable(key)}, which squashfs cannot store")
        if len(key) > _XATTR_NAME_LENGTH or len(value) > _XATTR_LENGTH or b"\0" in key:
            raise ValueError(f"the attribute {printable(key)} or its value of {len(value)} bytes is too long for Linux")
        self._charge(200 + len(key) + len(value))
        node.xattrs = {**node.xattrs, key: value}

    def _add_whiteout(self, member: Member, parts: list[bytes]) -> None:
        name = parts[-1].removeprefix(_WHITEOUT)
        if parts[-1] != _OPAQUE and (name in (b"", b".", b"..") or name.startswith(_WHITEOUT)):
            raise ValueError("got a whiteout that hides no file")
        if member.size:
            raise ValueError(f"got {member.size} bytes of content, expected none in a whiteout")
        if member.kind != FILE:
            raise ValueError("got a link, directory or device, expected a whiteout to be an empty file")
        parent = self._directory(parts[:-1], is_whiteout=True)
        if parent.is_whiteout:
            return  # the directory is hidden, and all of its files with it
        if parts[-1] == _OPAQUE:
            parent.xattrs = {**parent.xattrs, **_OPAQUE_XATTRS}
            return
        if name in parent.children:
            raise ValueError("hides a file of its own layer")
        parent.children[name] = Node(CHARACTER, 0, member.uid, member.gid)

    def _directory(self, parts: list[bytes], *, is_member: bool = True, is_whiteout: bool = False) -> Node:
        """Return the directory of a path. What is missing of the path of a member is created.

        For a whiteout, this may be the whiteout of the directory or of one above it.
        """
        branch = [self.root]
        # `pending` has the components that are left, the next one last. `branch` has the directories from the root to
        # the current one, so that `..` removes the last of them.
        pending = [(part, is_member) for part in reversed(parts)]
        link_count = 0
        while pending:
            name, may_create = pending.pop()
            self._steps += 1
            if self._steps > STEP_LIMIT:
                raise ValueError("the paths of the layer are too long, or lead through too many symbolic links")
            if name in (b"", b"."):
                continue
            if name == b"..":
                branch.pop()
                if not branch:
                    raise ValueError("a symbolic link in its path leads out of the layer")
                continue
            node = branch[-1].children.get(name)
            if node is None:
                if not may_create:
                    raise ValueError(f"{printable(name)} in its path is missing")
                self._charge(_ENTRY_SIZE + len(name))
                node = branch[-1].children[name] = Node(DIRECTORY, 0o755)
            if node.kind == SYMLINK:
                link_count += 1
                if link_count > _LINK_LIMIT:
                    raise ValueError("too many symbolic links in its path")
                if node.target.startswith(b"/"):
                    branch = [self.root]
                # As in podman, nothing is created that only a link leads to.
                pending += [(part, False) for part in reversed(node.target.split(b"/"))]
            elif node.kind == DIRECTORY:
                branch.append(node)
            elif is_whiteout and node.is_whiteout:
                return node
            else:
                raise ValueError(f"{printable(name)} in its path is not a directory")
        return branch[-1]

    def _charge(self, size: int) -> None:
        self._memory += size
        if self._memory > MEMORY_LIMIT:
            raise ValueError(f"the layer has too many files or too long names: {len(self._names)} members so far")


def _split(path: bytes) -> list[bytes]:
    """Return the components of a path in a layer."""
    if path.startswith(b"/"):
        raise ValueError("got an absolute path, expected one relative to the root of the layer")
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ValueError("got a path with '..'")
    if len(path) > _PATH_LENGTH or any(len(part) > _NAME_LENGTH for part in parts):
        raise ValueError(f"the name is too long, expected at most {_NAME_LENGTH} bytes, and {_PATH_LENGTH} in all")
    return parts
