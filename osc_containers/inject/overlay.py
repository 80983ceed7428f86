"""What an image gets for its containers: archives, the units that load them, and where each of them goes."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import DescriptionError
from osc_containers.inject import units
from osc_containers.inject.units import ARCHIVES, Load, Symlink, TextFile
from osc_containers.kiwi.containers import Container
from osc_containers.lock import archive_names
from osc_containers.lock.lockfile import Lock, LockedImage
from osc_containers.oci.reference import Reference

ROOT = "root"
"""The overlay directory for every image (kiwi/system/setup.py, import_overlay_files)."""

_NAME_LENGTH = 255
_TAKEN = {"", ROOT, "repos", "containers", "images"}
"""Directories that mean something else to kiwi or obs-build, and so cannot be a profile's; "" is the package itself."""


class Archive(NamedTuple):
    """An archive in the image: the file `name` of the package at `path`."""

    path: str
    name: str


class Placed(NamedTuple):
    """A container, what is locked for it, and its path in the image."""

    container: Container
    locked: LockedImage
    path: str


def paths(containers: Sequence[Container]) -> Mapping[Container, str]:
    """Give each container of a description its path: kiwi's, but another where that cannot be or stands for two.

    `containers` are those of one architecture and all profiles, since kiwi may combine any of these in one image.
    """
    references = defaultdict(set)
    for container in containers:
        references[container.file_name].add(container.reference)
    taken = {name for name, users in references.items() if not _fault(name) and len(users) == 1}
    others = _avoid(taken, archive_names.flatten(container.reference for container in containers))
    found = ((each, each.file_name if each.file_name in taken else others[each.reference]) for each in containers)
    return {container: f"{ARCHIVES}/{name}" for container, name in found}


def _avoid(taken: Collection[str], flat: Mapping[Reference, str]) -> Mapping[Reference, str]:
    """Make names distinct from those that are taken, too."""
    used = {*taken, *flat.values()}
    result = {}
    for reference, name in flat.items():
        if name in taken:
            while name in used:
                name += "_"
            used.add(name)
        result[reference] = name
    return result


def _fault(name: str) -> str:
    """Say why no file can have a name of kiwi's, if none can."""
    if "/" in name:
        return "its directory is not made"
    if len(name.encode()) > _NAME_LENGTH:
        return f"its name is longer than {_NAME_LENGTH} bytes"
    return "its name begins with a dot" if name.startswith(".") else ""


def moved(where: Mapping[Container, str]) -> Iterator[tuple[Container, str]]:
    """Yield each container that is not where kiwi would put it, and say why."""
    for container, path in where.items():
        own = f"{ARCHIVES}/{container.file_name}"
        if path != own:
            fault = _fault(container.file_name)
            yield (
                container,
                f"plain kiwi fails to write {own}: {fault}" if fault else f"plain kiwi writes several images to {own}",
            )


def notices(where: Mapping[Container, str]) -> tuple[str, ...]:
    """Say of each container that is not where kiwi would put it that it is not."""
    return tuple(
        f"{each.file}:{each.line}: {each.reference}: at {where[each]}, since {why}" for each, why in moved(where)
    )


def place(containers: Sequence[Container], where: Mapping[Container, str], arch: str, lock: Lock) -> tuple[Placed, ...]:
    """Combine containers with their paths and what is locked for them; those that are not locked are left out."""
    pairs = ((container, lock.image_for(container.reference, arch)) for container in containers)
    return tuple(
        Placed(container=container, locked=locked, path=where[container]) for container, locked in pairs if locked
    )


def directories(placed: Sequence[Placed]) -> dict[str, list[Placed]]:
    """Sort containers into kiwi's overlay directories: `root` for all images, the profiles' for theirs.

    :raises DescriptionError: a profile's directory is something else to kiwi or obs-build.
    """
    found: dict[str, list[Placed]] = {}
    problems: list[str] = []
    for item in placed:
        problems += problems_of_profiles(item.container)
        for name in item.container.profile_names if item.container.profiles else (ROOT,):
            found.setdefault(name, []).append(item)
    if problems:
        raise DescriptionError(*problems)
    return found


def problems_of_profiles(container: Container) -> tuple[str, ...]:
    """Say of each profile of a container that cannot have a directory that it cannot."""
    return tuple(
        f"{container.file}:{container.line}: profile {profile[:80]!r}: a directory of that name is something else to "
        "kiwi or obs-build; give the profile another name"
        for profile in container.profile_names
        if profile in _TAKEN or "/" in profile or profile.startswith(".")
    )


def problem_of_directory(path: Path) -> str | None:
    """Say of an overlay directory of the packager that it is none."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        return f"{path.name}: got a file or a link, expected an overlay directory, or nothing; rename it"
    return None


def plan(placed: Sequence[Placed]) -> tuple[Archive | TextFile | Symlink, ...]:
    """List everything that carries these containers into an image, sorted by path."""
    archives = {item.path: Archive(path=item.path, name=item.locked.archive.name) for item in placed}
    loads = {_load(item): None for item in placed if not item.container.fetch_only}
    kept = {item.path: units.keep(item.path) for item in placed if item.container.fetch_only}
    entries = (*archives.values(), *kept.values(), *(units.render(loads) if archives else ()))
    return tuple(sorted(entries, key=lambda entry: entry.path))


def _load(item: Placed) -> Load:
    return Load(
        backend=item.container.backend,
        reference=item.container.reference,
        path=item.path,
        size=item.locked.archive.size,
        sha256=item.locked.archive.sha256,
        manifest=item.locked.image.manifest.digest,
        image_id=item.locked.image.config.digest,
    )
