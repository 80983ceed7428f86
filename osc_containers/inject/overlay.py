"""The files that an image gets for its containers, the path of each archive, and kiwi's overlay directories."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import DescriptionError
from osc_containers.inject import layout_directory, units
from osc_containers.inject.image_file import ArchiveFile, ImageFile, Symlink, TextFile
from osc_containers.inject.units import ARCHIVES, Load
from osc_containers.kiwi.backend import engine_of
from osc_containers.kiwi.containers import Container
from osc_containers.lock import archive_names
from osc_containers.lock.lockfile import Lock
from osc_containers.obs import engines
from osc_containers.obs.engines import Choice
from osc_containers.oci.chain import Claim
from osc_containers.oci.reference import Reference

TMPFILES = "/usr/lib/tmpfiles.d/kiwi_containers.conf"

ROOT = "root"
"""The overlay directory for every image (kiwi/system/setup.py, import_overlay_files)."""

_NAME_LENGTH = 255
_RESERVED = {"", ROOT, "repos", "containers", "images"}
"""Names that a profile's directory cannot have: kiwi or obs-build uses them, and "" would be the package itself."""


class Placement(NamedTuple):
    """A container with its image in the lock, and the name of the image's archive in the package.

    `path` is kiwi's path for the archive in the image. It is used only for `fetch_only`, but the ID of a container that
    is loaded is made of it as well. `targets` are the engines that get it (see `obs.engines`); without one, it is an
    archive at kiwi's path.
    """

    container: Container
    claim: Claim
    path: str
    archive: str
    targets: tuple[str, ...]

    @property
    def id(self) -> str:
        """The ID in the names of units and files."""
        return units.load_id(self.path)

    @property
    def loads(self) -> tuple[Load, ...]:
        """How units load the container, for each engine that needs one."""
        names = [engine_of(each).loaded_by or each for each in self.targets if not engine_of(each).archives]
        return tuple(
            Load(
                target=name,
                id=self.id,
                reference=self.claim.reference,
                image=self.claim.image,
                arch=self.claim.arch,
            )
            for name in dict.fromkeys(names)
        )


def assign_paths(containers: Sequence[Container]) -> Mapping[Container, str]:
    """Return the absolute path in the image for the archive of each container.

    This is kiwi's own path unless kiwi could not write it, or would write several images to it. Then it is derived
    from the reference, and no two references have the same path.

    `containers` must be those of one architecture and of all profiles, because kiwi can combine any profiles in one
    image.
    """
    references = defaultdict(set)
    for container in containers:
        references[container.file_name].add(container.reference)
    kiwi_names = {name for name, users in references.items() if not _name_problem(name) and len(users) == 1}
    # The names of archives are distinct for distinct references. They may still be the kiwi name of another container.
    names = archive_names.flatten(container.reference for container in containers)
    other_names = _avoid_collisions(names, kiwi_names)
    return {
        each: f"{ARCHIVES}/{each.file_name if each.file_name in kiwi_names else other_names[each.reference]}"
        for each in containers
    }


def _avoid_collisions(names: Mapping[Reference, str], kiwi_names: Collection[str]) -> Mapping[Reference, str]:
    """Append underscores to each name that is one of `kiwi_names`, until it is unique."""
    unavailable = {*kiwi_names, *names.values()}
    result = {}
    for reference, name in names.items():
        # A name that is only derived gives way, because other programs rely on kiwi's paths.
        if name in kiwi_names:
            while name in unavailable:
                name += "_"
            unavailable.add(name)
        result[reference] = name
    return result


def _name_problem(name: str) -> str:
    """Return why kiwi cannot write a file of this name, or an empty string if it can."""
    if "/" in name:
        return "it does not create the directory"
    if len(name.encode()) > _NAME_LENGTH:
        return f"the file name is longer than {_NAME_LENGTH} bytes"
    return "the file name starts with a dot" if name.startswith(".") else ""


def list_relocations(paths: Mapping[Container, str]) -> Iterator[tuple[Container, str]]:
    """Yield each container whose path is not kiwi's own, with the reason."""
    for container, path in paths.items():
        kiwi_path = f"{ARCHIVES}/{container.file_name}"
        if path != kiwi_path:
            problem = _name_problem(container.file_name)
            yield (
                container,
                f"plain kiwi cannot write {kiwi_path}: {problem}"
                if problem
                else f"plain kiwi writes several images to {kiwi_path}",
            )


def place(
    containers: Sequence[Container],
    paths: Mapping[Container, str],
    arch: str,
    lock: Lock,
    choices: Sequence[Choice] = (),
) -> tuple[Placement, ...]:
    """Combine containers with their images in the lock and their paths; leave out those that are not in the lock.

    `choices` are the values of `engine`.
    """
    names = lock.archive_names()
    claims = ((container, lock.claim_for(container.reference, arch)) for container in containers)
    return tuple(
        Placement(
            container=container,
            claim=claim,
            path=paths[container],
            archive=names[claim.reference, claim.arch],
            targets=engines.targets(container, choices),
        )
        for container, claim in claims
        if claim
    )


def group_by_directory(placements: Sequence[Placement]) -> dict[str, list[Placement]]:
    """Group containers by kiwi's overlay directories: `root` for every image, `PROFILE` for images of a profile.

    A container for several profiles is in each of their directories.

    :raises DescriptionError: a profile's directory would have a reserved name; every such profile is listed.
    """
    groups: dict[str, list[Placement]] = {}
    problems: list[str] = []
    for placement in placements:
        # profiles="," is not the same as no profiles: kiwi then puts the container into no image.
        problems += check_profiles(placement.container)
        for name in placement.container.profile_names if placement.container.profiles else (ROOT,):
            groups.setdefault(name, []).append(placement)
    if problems:
        raise DescriptionError(*problems)
    return groups


def check_profiles(container: Container) -> tuple[str, ...]:
    """Return a problem for each profile of a container that cannot have an overlay directory."""
    where = f"{container.file}:{container.line}: profile"
    reserved = (
        f"{where} {profile[:80]!r}: kiwi or obs-build uses a directory of this name for something else; rename the "
        "profile"
        for profile in container.profile_names
        if profile in _RESERVED or "/" in profile or profile.startswith(".")
    )
    too_long = (
        f"{where} {profile[:80]!r}: got {len(profile.encode())} bytes, expected at most {_NAME_LENGTH}, since kiwi has "
        "an overlay directory of this name; rename the profile"
        for profile in container.profile_names
        if len(profile.encode()) > _NAME_LENGTH
    )
    return (*reserved, *too_long)


def check_directory(path: Path) -> str | None:
    """Return the problem of an overlay directory: the packager has a file or symlink there."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        return f"{path.name}: got a file or symlink, expected an overlay directory or nothing; rename it"
    return None


def list_files(placements: Sequence[Placement]) -> tuple[ImageFile, ...]:
    """Return every file that one overlay directory needs for these containers, sorted by path.

    A container is an archive if no engine gets it, or one that takes archives. It is a layout directory if it is
    loaded. One that is both is stored twice.
    """
    archives = [file for each in placements for file in _archives(each)]
    loads = [load for each in placements for load in each.loads]
    files: list[ImageFile] = [*archives, *units.render(loads)]
    if any(file.path.startswith(f"{ARCHIVES}/") for file in archives):
        files.append(tmpfiles())
    streamed = {load.id for load in loads if load.has_stream}
    for load in loads:
        has_stream = load.id in streamed
        files += layout_directory.files(load.id, load.reference, load.image, load.arch, has_stream=has_stream)
    # Two engines that load the same container share a layout, whose files are in the list twice.
    return tuple(sorted({file.path: file for file in files}.values(), key=lambda file: file.path))


def _archives(placement: Placement) -> Iterator[ArchiveFile | Symlink | TextFile]:
    """Yield the archive of a container, if it has one, links to it, and what engines need beside it.

    Engines that take archives share one file, and kiwi's path is a link to it.
    """
    takers = [engine for target in placement.targets if (engine := engine_of(target)).archives]
    if placement.targets and not takers:
        return
    name = f"{placement.id}.tar"
    for each in takers:
        if each.metadata:
            text = each.metadata(placement.claim.reference, name)
            yield TextFile(path=f"{each.archives}/{placement.id}.metadata", text=text, mode=0o644)
    first, *others = [*(f"{engine.archives}/{name}" for engine in takers), placement.path]
    yield ArchiveFile(path=first, name=placement.archive)
    yield from (Symlink(path=path, target=first) for path in others)


def tmpfiles() -> TextFile:
    """Return the rules for the directory of archives (tmpfiles.d(5)).

    They create it for root before any other user can, and exclude it from the aging of /var/tmp.
    """
    text = (
        "# Archives of containers with fetch_only stay here for good; no other user may write here.\n"
        f"d {ARCHIVES} 0755 root root -\n"
        f"x {ARCHIVES}\n"
    )
    return TextFile(path=TMPFILES, text=text, mode=0o644)
