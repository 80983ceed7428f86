"""The settings of an image other than its containers: its packages, its types, and the size of its file systems.

As kiwi does, this reads the description and the files that it includes, but not those that these include. Values that
kiwi's schema does not allow are ignored here, because kiwi reports them.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import DescriptionError
from osc_containers.formats import xml_reader
from osc_containers.formats.xml_reader import BLANKS, Element
from osc_containers.kiwi import profiles
from osc_containers.kiwi.description import Description
from osc_containers.kiwi.description_files import load

MEBIBYTE = 1 << 20

_MULTIBUILD = "_multibuild"
_FLAVOR = "@BUILD_FLAVOR@"
# More digits are no size of a disk, and int() refuses texts of more than 4300.
_SIZE = re.compile(r"([0-9]{1,12})([MG]?)")


class Packages(NamedTuple):
    """A `<packages>`: the names in it, each with its `arch` attribute. `collections` are patterns and products."""

    kind: str
    profiles: str | None
    file: str
    line: int
    named: tuple[tuple[str, str | None], ...]
    collections: tuple[tuple[str, str | None], ...]

    def is_for(self, used: Collection[str]) -> bool:
        """Tell whether they are in an image with these profiles."""
        return profiles.is_in(self.profiles, used)

    def names(self, arch: str) -> frozenset[str]:
        """Return the names of the packages for an architecture."""
        return frozenset(name for name, wanted in self.named if profiles.is_for(arch, wanted))

    def patterns(self, arch: str) -> frozenset[str]:
        """Return the names of patterns and products for an architecture. Their packages are not known here."""
        return frozenset(name for name, wanted in self.collections if profiles.is_for(arch, wanted))


class Limit(NamedTuple):
    """The size of the root file system, in bytes: its total, or with `is_additive` what kiwi adds to the data."""

    size: int
    is_additive: bool
    line: int
    text: str
    """The element and its value, for messages."""


class ImageType(NamedTuple):
    """A `<type>`, with the limit of its root file system, and the mount points of other volumes and partitions.

    `root` is None if the file system grows to the size of its disk, or if its limit cannot be read. `mounts` leaves out
    what shares its space with others: subvolumes of btrfs, and volumes that take the rest.
    """

    image: str
    profiles: str | None
    arch: str | None
    file: str
    line: int
    root: Limit | None
    mounts: tuple[str, ...]

    def is_for(self, used: Collection[str], arch: str) -> bool:
        """Tell whether it is the type of an image with these profiles on an architecture."""
        return profiles.is_in(self.profiles, used) and profiles.is_for(arch, self.arch)


class ImageSettings(NamedTuple):
    """The packages and types of a description, in the order of the document."""

    packages: tuple[Packages, ...]
    types: tuple[ImageType, ...]


def read(description: Description) -> ImageSettings:
    """Read the settings in a description that was read before, and in the files that it includes.

    :raises DescriptionError: a file was changed since then, and is no longer valid.
    """
    includes = (include.name for include in description.includes if not include.is_nested)
    names = dict.fromkeys([description.path.name, *includes])
    packages: list[Packages] = []
    types: list[ImageType] = []
    for name in names:
        try:
            xml = load(description.path.parent, name)
            root = xml_reader.parse(xml, name, ("packages", "preferences"))
        except ValueError as error:
            raise DescriptionError(str(error)) from None
        for element in root.children:
            if element.name == "packages":
                packages.append(_packages(element, name))
            elif element.name == "preferences":
                types += (_type(child, element, name) for child in element.children if child.name == "type")
    return ImageSettings(packages=tuple(packages), types=tuple(types))


def builds(description: Description, arch: str, flavor: str = "") -> tuple[tuple[str, ...], ...]:
    """Return the profiles of each image that is built from a description for an architecture.

    OBS builds one image for each profile in `OBS-Profiles`, where `@BUILD_FLAVOR@` stands for the flavor that is built;
    without `flavor`, that may be any in `_multibuild`. Without that comment, the images are not known; these are one
    without profiles, and one for each profile that has containers.
    """
    # A profile that is limited to other architectures is not built here, even if a comment names it.
    usable = description.usable_profiles(arch)
    if description.obs_profiles is None:
        used = dict.fromkeys(name for container in description.containers for name in container.profile_names)
        return ((), *((name,) for name in used if name in usable))
    names: list[str] = []
    for name in description.obs_profiles:
        names += [name] if name != _FLAVOR else [flavor] if flavor else flavors(description.path.parent)
    return tuple((name,) for name in dict.fromkeys(names) if name in usable)


def flavors(directory: Path) -> tuple[str, ...]:
    """Return the flavors of a package, none if it has no valid `_multibuild`."""
    path = directory / _MULTIBUILD
    if not path.is_file():
        return ()
    try:
        root = xml_reader.parse(xml_reader.read(path), _MULTIBUILD, ("flavor", "package"))
    except ValueError:
        return ()
    return tuple(child.text.strip(BLANKS) for child in root.children)


def _packages(element: Element, file: str) -> Packages:
    def named(*kinds: str) -> tuple[tuple[str, str | None], ...]:
        children = (child for child in element.children if child.name in kinds)
        return tuple((child.attributes.get("name", "").strip(), child.attributes.get("arch")) for child in children)

    return Packages(
        kind=element.attributes.get("type", ""),
        profiles=element.attributes.get("profiles"),
        file=file,
        line=element.line,
        named=named("package"),
        collections=named("namedCollection", "product", "collectionModule"),
    )


def _type(element: Element, preferences: Element, file: str) -> ImageType:
    return ImageType(
        image=element.attributes.get("image", ""),
        profiles=preferences.attributes.get("profiles"),
        arch=preferences.attributes.get("arch"),
        file=file,
        line=element.line,
        root=_root_limit(element),
        mounts=tuple(_mounts(element)),
    )


def _child(element: Element, *path: str) -> Element | None:
    for name in path:
        child = next((child for child in element.children if child.name == name), None)
        if child is None:
            return None
        element = child
    return element


def _root_limit(element: Element) -> Limit | None:
    """Return the limit of the root file system. That of an oem image grows to its disk, unless `oem-resize` is off."""
    # kiwi resizes an oem image at its first boot (kiwi/builder/disk.py), to the size of the disk or to oem-systemsize.
    if element.attributes.get("image") == "oem":
        resize = _child(element, "oemconfig", "oem-resize")
        if resize is None or resize.text.strip(BLANKS) not in ("false", "0"):
            system = _child(element, "oemconfig", "oem-systemsize")
            return _limit(system, "M", is_additive=False) if system else None
    size = _child(element, "size")
    if size is None:
        # kiwi then makes the file system as large as its data, with only a small reserve.
        return Limit(size=0, is_additive=True, line=element.line, text="without <size>")
    return _limit(size, size.attributes.get("unit", "M"), is_additive=size.attributes.get("additive") in ("true", "1"))


def _limit(element: Element, unit: str, *, is_additive: bool) -> Limit | None:
    bytes_ = _bytes(element.text.strip(BLANKS) + unit)
    # kiwi leaves this part of the disk without a file system.
    unpartitioned = _bytes(element.attributes.get("unpartitioned", "0") + unit) or 0
    if bytes_ is None:
        return None
    size = max(0, bytes_ - unpartitioned)
    text = f"<{element.name}> of {size // MEBIBYTE} MiB{' in addition to the data' if is_additive else ''}"
    return Limit(size=size, is_additive=is_additive, line=element.line, text=text)


def _bytes(text: str) -> int | None:
    match = _SIZE.fullmatch(text)
    return int(match[1]) * MEBIBYTE * (1024 if match[2] == "G" else 1) if match else None


def _mounts(element: Element) -> Iterator[str]:
    """Yield the mount points of partitions and volumes with a size of their own (kiwi/xml_state.py, `get_volumes`)."""
    # Without <partitions>, the loop goes over the children of <type>, none of which is a <partition>.
    for partition in (_child(element, "partitions") or element).children:
        if partition.name == "partition" and "mountpoint" in partition.attributes:
            yield partition.attributes["mountpoint"]
    disk = _child(element, "systemdisk")
    # On btrfs without LVM, kiwi makes subvolumes, which share the space of the root file system.
    uses_lvm = disk is not None and disk.attributes.get("preferlvm") in ("true", "1")
    if disk is not None and (uses_lvm or element.attributes.get("filesystem") != "btrfs"):
        for volume in disk.children:
            name = volume.attributes.get("name", "")
            takes_rest = "all" in (volume.attributes.get("size"), volume.attributes.get("freespace"))
            # The volume @root is the root file system itself.
            if not takes_rest and not name.startswith("@root"):
                yield "/" + (volume.attributes.get("mountpoint") or name).strip("/")
