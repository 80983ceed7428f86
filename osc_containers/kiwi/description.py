"""kiwi descriptions: which containers they ask for, on which architectures and in which profiles.

`read` goes in at a file and the files that it includes, and out come plain values; `parse` is the same without a disk.
The meaning is kiwi's (10.3 and 11: its schema, `kiwi/xml_state.py` and `kiwi/xsl/include.xsl`), whatever the
`schemaversion` of the file, with these differences:

- kiwi ignores an include in an included file. It is followed here, and `Include.is_nested` tells.
- kiwi's schema allows blanks around a boolean, on which its parser then fails. Here they are taken off.
- What no registry could be asked for is refused with its line (`osc_containers.origin`), as is what could not be cut
  out of the file again (`osc_containers.formats.xml_tags`) and an include that leaves the package.

Descriptions in YAML or JSON are not read.
"""

import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import DescriptionError
from osc_containers.formats import xml_editor, xml_reader
from osc_containers.formats.xml_reader import Element, Problems
from osc_containers.kiwi import profiles
from osc_containers.kiwi.containers import Container, containers_of, is_in
from osc_containers.kiwi.profiles import Profile

INCLUDE_LIMIT = 100
"""Files that one description may include, those counted twice that it includes twice."""
PROBLEM_LIMIT = 100
"""Problems of a description that are said in one run."""

# More letters than these mean something in the address that kiwi takes this for, or may not be in it.
_INCLUDED = re.compile(r"(?:this://)?(?!/)([A-Za-z0-9._+=,~@/-]+)")


class Include(NamedTuple):
    """An `<include>`: the file it means, and where it stands; kiwi ignores those that are nested."""

    name: str
    file: str
    line: int
    is_nested: bool


class Description(NamedTuple):
    """A description with everything that it includes, in the order of the document.

    `exclusive_archs` and `obs_profiles` are what obs-build reads from the comments `OBS-ExclusiveArch` and
    `OBS-Profiles` of the file itself; None where there is no such comment.
    """

    path: Path
    containers: tuple[Container, ...]
    profiles: tuple[Profile, ...]
    includes: tuple[Include, ...]
    exclusive_archs: tuple[str, ...] | None
    obs_profiles: tuple[str, ...] | None

    @property
    def files(self) -> tuple[Path, ...]:
        """The description and the files it includes, each once."""
        names = dict.fromkeys([self.path.name, *(include.name for include in self.includes)])
        return tuple(self.path.parent / name for name in names)

    @property
    def asks(self) -> tuple[tuple[Container, ...], tuple[Profile, ...]]:
        """What it asks for, and where: the same for descriptions that share it by their includes."""
        return self.containers, self.profiles

    @property
    def visible(self) -> tuple[Container, ...]:
        """Those containers that obs-build sees, because they stand in the description itself."""
        return tuple(container for container in self.containers if container.file == self.path.name)

    def select(self, arch: str, asked: Collection[str] = ()) -> tuple[Container, ...]:
        """Return what kiwi acts on for `arch` and the profiles `asked` for, or those it imports if there are none.

        :raises DescriptionError: a profile is not declared for `arch`.
        """
        used = self.used_profiles(arch, asked)
        return tuple(container for container in self.of_architecture(arch) if container.is_in(used))

    def used_profiles(self, arch: str, asked: Collection[str] = ()) -> frozenset[str]:
        """Return the profiles that kiwi uses for `arch` and those `asked` for.

        :raises DescriptionError: one is not declared for `arch`.
        """
        try:
            return profiles.used(self.profiles, arch, asked)
        except ValueError as error:
            raise DescriptionError(f"{self.path.name}: {error}") from None

    def of_architecture(self, arch: str) -> tuple[Container, ...]:
        """Return every container for `arch`, whatever its profiles."""
        return tuple(container for container in self.containers if container.is_for(arch))


def find(directory: Path) -> tuple[Path, ...]:
    """Return the descriptions of a package, every `*.kiwi` and `config.xml`, sorted.

    One that is a link to another is left out: obs-build makes such a `config.xml`, and people link to theirs. So is
    what a service that runs automatically made of another, `_service:NAME:appliance.kiwi`: it is not the one to edit,
    and a build has but one of them.

    :raises DescriptionError: there is none.
    """
    with os.scandir(directory) as entries:
        found = [e for e in entries if _is_description(e.name) and not e.is_dir(follow_symlinks=False)]
    files = [entry.name for entry in found if not entry.is_symlink()]
    names = sorted(files + [e.name for e in found if e.is_symlink() and os.readlink(e) not in files])
    names = [name for name in names if not name.startswith("_service:") or name.rpartition(":")[2] not in files]
    if not names:
        raise DescriptionError(f"{directory}: no kiwi description, expected a file '*.kiwi' or 'config.xml'")
    return tuple(directory / name for name in names)


def _is_description(name: str) -> bool:
    return name == "config.xml" or (name.endswith(".kiwi") and not name.startswith("."))


def read(path: Path) -> Description:
    """Read a description; the package that its includes are taken from is the directory it is in.

    :raises DescriptionError: it or a file that it includes is broken; has a line for each problem.
    """
    if not path.name.isprintable():
        raise DescriptionError(f"{path.name!r}: expected a file name without control characters")
    try:
        xml = load(path.parent, path.name)
    except ValueError as error:
        raise DescriptionError(f"{path.name}: {error}") from None
    return parse(xml, path, lambda name: load(path.parent, name))


def load(directory: Path, name: str) -> bytes:
    """Read a regular file of a package without following links."""
    path = directory
    for part in name.split("/"):
        path /= part
        if path.is_symlink():
            raise ValueError("is a symbolic link, expected a file of the package")
    return xml_reader.read(path, os.O_NOFOLLOW)


def parse(xml: bytes, path: Path, load: Callable[[str], bytes]) -> Description:
    """Read a description that was loaded from `path`, with `load` for included files by their name in the package.

    `load` may raise `OSError`, and `ValueError` with the reason alone.

    :raises DescriptionError: as `read`.
    """
    reader = _Reader(load)
    containers: list[Container] = []
    declared: list[Profile] = []
    for file, element in reader.elements(path.name, xml):
        if element.name == "containers":
            containers += containers_of(element, file, reader.problems)
        for child in element.children:
            if (element.name, child.name) == ("profiles", "profile"):
                with reader.problems.at(file, child):
                    declared.append(Profile.of(child))
    if found := list(dict.fromkeys(reader.problems.found)):  # a file may be included twice
        more = [f"{path.name}: and {len(found) - PROBLEM_LIMIT} more"] if len(found) > PROBLEM_LIMIT else []
        raise DescriptionError(*found[:PROBLEM_LIMIT], *more)
    return Description(
        path=path,
        containers=tuple(containers),
        profiles=tuple(declared),
        includes=tuple(reader.includes),
        exclusive_archs=_directive(b"OBS-ExclusiveArch", xml),
        obs_profiles=_directive(b"OBS-Profiles", xml),
    )


def _directive(name: bytes, xml: bytes) -> tuple[str, ...] | None:
    """Read a comment for obs-build as obs-build does, by a pattern on the bytes (Build/Kiwi.pm, `kiwiparse`)."""
    # Theirs also lets blank lines before it match; beginning in its own line makes this one linear.
    pattern = rb"^[^\S\n]*<!--\s+%s:\s+(?:(\S(?:.*\S)?)\s+|\s)-->\s*$" % name
    match = re.search(pattern, xml, re.IGNORECASE | re.MULTILINE)
    return tuple(dict.fromkeys(match[1].decode("utf-8", "replace").split())) if match and match[1] else None


class _Reader:
    """The way through a description and its includes."""

    def __init__(self, load: Callable[[str], bytes]) -> None:
        self.load = load
        self.includes: list[Include] = []
        self.problems = Problems()
        self.open_files: list[str] = []

    def elements(self, file: str, xml: bytes) -> Iterator[tuple[str, Element]]:
        """Yield the sections of a file with the file they are in; those of an include in its place."""
        try:
            root = xml_reader.parse(xml, file, ("containers", "profiles", "include"))
        except ValueError as error:
            self.problems.found.append(str(error))
            return
        if root.name != "image":
            self.problems.found.append(f"{file}:{root.line}: got the root {root.name[:80]!r}, expected 'image'")
            return
        self.open_files.append(file)
        for element in root.children:
            if element.name == "include":
                yield from self.included(file, element)
            elif element.name.startswith("{"):
                namespace, _, name = element.name[1:].rpartition("}")
                problem = f"{name!r} has the namespace {namespace[:80]!r}, expected none"
                self.problems.found.append(f"{file}:{element.line}: {problem}")
            else:
                yield file, element
        self.open_files.pop()

    def included(self, file: str, element: Element) -> Iterator[tuple[str, Element]]:
        """Yield the sections of the file that an `<include>` means."""
        found = None
        with self.problems.at(file, element):
            name = _included_name(element)
            if name in self.open_files:
                raise ValueError(f"include {name!r}: includes itself, by way of {' and '.join(self.open_files)}")
            if len(self.includes) >= INCLUDE_LIMIT:
                raise ValueError(f"include {name!r}: expected at most {INCLUDE_LIMIT} includes")
            found = name, self.loaded(name)
        if found is not None:
            nested = len(self.open_files) > 1
            self.includes.append(Include(name=found[0], file=file, line=element.line, is_nested=nested))
            yield from self.elements(*found)

    def loaded(self, name: str) -> bytes:
        """Load an included file."""
        try:
            return self.load(name)
        except FileNotFoundError:
            raise ValueError(f"include {name[:160]!r}: there is no such file in the package") from None
        except OSError as error:
            raise ValueError(f"include {name[:160]!r}: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"include {name!r}: {error}") from None


def _included_name(element: Element) -> str:
    """Return the file that an `<include>` means, by its name in the package."""
    if element.children or element.has_text:
        raise ValueError("include: has content, expected none; put it beside")
    name = element.required("from")
    if any(attribute.endswith("}base") for attribute in element.attributes):
        raise ValueError(f"include {name[:160]!r}: has an 'xml:base', expected the whole path in 'from'")
    match = _INCLUDED.fullmatch(name)
    parts = [part for part in match[1].split("/") if part not in ("", ".")] if match else []
    if not parts or ".." in parts:
        raise ValueError(f"include {name[:160]!r}: expected a file of the package, like 'this://./containers.xml'")
    return "/".join(parts)


def containers_spans(xml: bytes) -> tuple[tuple[int, int], ...]:
    """Return where each `<containers>` begins and ends in the text of a description file.

    :raises ValueError: as `osc_containers.formats.xml_reader.parse`.
    """
    return xml_editor.spans(xml, "containers")


def without_containers(xml: bytes, used: Collection[str] | None = None) -> bytes:
    """Return a description file without its `<containers>`, every other byte as it was.

    The lines they stood on go too where nothing else is on them. Those that no image has with the profiles `used`, if
    these are given, stay.

    :raises ValueError: as `osc_containers.formats.xml_reader.parse`.
    """
    return xml_editor.without(
        xml, "containers", lambda section: used is None or is_in(section.attributes.get("profiles"), used)
    )
