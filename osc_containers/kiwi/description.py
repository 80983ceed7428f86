"""Reader for kiwi descriptions: their containers, and for which architectures and profiles these are.

`read` reads a description and the files that it includes; `parse` does the same without a disk. Elements and attributes
mean what they mean to kiwi 10.3 and 11 (its schema, `kiwi/xml_state.py` and `kiwi/xsl/include.xsl`), whatever the
`schemaversion` of the file is, with these differences:

- kiwi ignores an include in an included file. It is followed here, and marked with `Include.is_nested`.
- kiwi's schema allows white space around a boolean, but its code fails on it. It is ignored here.
- Some things are errors here that kiwi accepts: a name that no registry can have (`osc_containers.kiwi.image_source`),
  a DOCTYPE (`osc_containers.formats.xml_tags`), and an include of a file outside the package.

Descriptions in YAML or JSON are not supported.
"""

import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import DescriptionError
from osc_containers.formats import xml_editor, xml_reader
from osc_containers.formats.xml_reader import Element, Problems
from osc_containers.kiwi import description_files, profiles
from osc_containers.kiwi.containers import Container, containers_of
from osc_containers.kiwi.profiles import Profile

INCLUDE_LIMIT = 100
"""Includes of one description. A file that is included twice counts twice."""
PROBLEM_LIMIT = 100
"""Problems of one description that are reported."""

# kiwi takes this for a URI, in which all other characters are special or not allowed.
_INCLUDED = re.compile(r"(?:this://)?(?!/)([A-Za-z0-9._+=,~@/-]+)")


class Include(NamedTuple):
    """An `<include>`: the name of the included file, and where the element is; kiwi ignores nested ones."""

    name: str
    file: str
    line: int
    is_nested: bool


class Description(NamedTuple):
    """A description with everything that it includes, in the order of the document.

    `exclusive_archs` and `obs_profiles` are the values of the comments `OBS-ExclusiveArch` and `OBS-Profiles` that
    obs-build finds in the file itself, or None if there is no such comment. `outer_profiles` are the profiles of each
    description that may be built with this one, which then is only a file with containers.
    """

    path: Path
    containers: tuple[Container, ...]
    profiles: tuple[Profile, ...]
    includes: tuple[Include, ...]
    exclusive_archs: tuple[str, ...] | None
    obs_profiles: tuple[str, ...] | None
    outer_profiles: tuple[tuple[Profile, ...], ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The description and the files it includes, each once."""
        names = dict.fromkeys([self.path.name, *(include.name for include in self.includes)])
        return tuple(self.path.parent / name for name in names)

    @property
    def content_key(self) -> tuple[tuple[Container, ...], tuple[Profile, ...]]:
        """A value that is equal for two descriptions that get the same containers from the same included files."""
        return self.containers, self.profiles

    @property
    def seen_by_obs_build(self) -> tuple[Container, ...]:
        """The containers in the description itself. obs-build reads no included files."""
        return tuple(container for container in self.containers if container.file == self.path.name)

    def select(self, arch: str, requested: Collection[str] = ()) -> tuple[Container, ...]:
        """Return the containers that kiwi puts into an image, as `used_profiles`.

        :raises DescriptionError: a profile is not declared for `arch`.
        """
        used = self.used_profiles(arch, requested)
        return tuple(container for container in self.of_architecture(arch) if container.is_in(used))

    def used_profiles(self, arch: str, requested: Collection[str] = ()) -> frozenset[str]:
        """Return the profiles that kiwi uses on `arch` if its options request these, or none.

        :raises DescriptionError: a profile is not declared for `arch`.
        """
        # It is enough if one of the descriptions that this one may be built with declares the profiles.
        used: frozenset[str] | None = None
        for declared in self.declarations:
            try:
                used = profiles.resolve(declared, arch, requested) | (used or frozenset())
            except ValueError as error:
                problem = f"{self.path.name}: {error}"
        if used is None:
            raise DescriptionError(problem)
        return used

    def usable_profiles(self, arch: str) -> frozenset[str]:
        """Return the profiles that an image for `arch` can have."""
        usable = frozenset().union(*(profiles.selectable(each, arch) for each in self.declarations))
        if not self.is_fragment:
            return usable
        # A description that is not known here may declare the other names.
        declared = {profile.name for each in self.declarations for profile in each}
        return usable.union(name for each in self.containers for name in each.profile_names if name not in declared)

    def of_architecture(self, arch: str) -> tuple[Container, ...]:
        """Return the containers for `arch` in all profiles that an image for `arch` can have."""
        usable = self.usable_profiles(arch)
        return tuple(each for each in self.containers if each.is_for(arch) and each.is_in(usable))

    @property
    def declarations(self) -> tuple[tuple[Profile, ...], ...]:
        """The declarations of profiles for an image: its own, or one for each description that it may be built with."""
        return self.outer_profiles if self.is_fragment and self.outer_profiles else (self.profiles,)

    @property
    def is_fragment(self) -> bool:
        """Whether it is a file with containers that is built with another description, which declares the profiles."""
        return not description_files.is_description(self.path.name) and not self.profiles


def read(path: Path) -> Description:
    """Read a description and the files that it includes, which are relative to its directory.

    :raises DescriptionError: a file is invalid; there is one message for each problem.
    """
    name = os.fsencode(path.name)
    try:
        # Python represents other bytes by surrogates, which the check below would call control characters.
        name.decode("utf-8")
    except UnicodeDecodeError:
        raise DescriptionError(f"{str(name)[2:-1]}: the file name is not UTF-8; rename the file") from None
    if not path.name.isprintable():
        raise DescriptionError(f"{path.name!r}: expected a file name without control characters")
    try:
        xml = description_files.load(path.parent, path.name)
    except ValueError as error:
        raise DescriptionError(f"{path.name}: {error}") from None
    return parse(xml, path, lambda name: description_files.load(path.parent, name))


def parse(xml: bytes, path: Path, load: Callable[[str], bytes]) -> Description:
    """Read a description whose content is `xml`; `load` returns included files by their names in the package.

    `load` may raise `OSError`, and `ValueError` with only the reason.

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
                    declared.append(Profile.from_element(child))
    # A file may be included twice, but each of its problems is reported once.
    if messages := list(dict.fromkeys(reader.problems.messages)):
        more = [f"{path.name}: and {len(messages) - PROBLEM_LIMIT} more"] if len(messages) > PROBLEM_LIMIT else []
        raise DescriptionError(*messages[:PROBLEM_LIMIT], *more)
    return Description(
        path=path,
        containers=tuple(containers),
        profiles=tuple(declared),
        includes=tuple(reader.includes),
        exclusive_archs=_directive(b"OBS-ExclusiveArch", xml),
        obs_profiles=_directive(b"OBS-Profiles", xml),
    )


def _directive(name: bytes, xml: bytes) -> tuple[str, ...] | None:
    """Return the words of a comment for obs-build, which finds it with a pattern (Build/Kiwi.pm, `kiwiparse`)."""
    # The pattern there also matches blank lines before the comment. This one does not, so that it takes linear time.
    # The words begin and end with \S for the same reason: no blank can then match in two ways.
    pattern = rb"^[^\S\n]*<!--\s+%s:\s+(?:(\S(?:.*\S)?)\s+|\s)-->\s*$" % name
    match = re.search(pattern, xml, re.IGNORECASE | re.MULTILINE)
    # The first comment counts, even if it has no words and so sets no limit.
    return tuple(dict.fromkeys(match[1].decode("utf-8", "replace").split())) if match and match[1] else None


class _Reader:
    """Reads a description file by file, and collects the problems of all of them."""

    def __init__(self, load: Callable[[str], bytes]) -> None:
        self.load = load
        self.includes: list[Include] = []
        self.problems = Problems()
        self.open_files: list[str] = []

    def elements(self, file: str, xml: bytes) -> Iterator[tuple[str, Element]]:
        """Yield the sections of a file, each with the name of the file that it is in; includes are replaced."""
        try:
            root = xml_reader.parse(xml, file, ("containers", "profiles", "include"))
        except ValueError as error:
            self.problems.messages.append(str(error))
            return
        if root.name != "image":
            self.problems.messages.append(f"{file}:{root.line}: got the root {root.name[:80]!r}, expected 'image'")
            return
        self.open_files.append(file)
        for element in root.children:
            if element.name == "include":
                yield from self.included(file, element)
            elif element.name.startswith("{"):
                namespace, _, name = element.name[1:].rpartition("}")
                problem = f"{name!r} has the namespace {namespace[:80]!r}, expected none"
                self.problems.messages.append(f"{file}:{element.line}: {problem}")
            else:
                yield file, element
        self.open_files.pop()

    def included(self, file: str, element: Element) -> Iterator[tuple[str, Element]]:
        """Yield the sections of the file that an `<include>` names."""
        xml = None
        with self.problems.at(file, element):
            name = _included_name(element)
            if name in self.open_files:
                raise ValueError(f"include {name!r}: includes itself through {' and '.join(self.open_files)}")
            if len(self.includes) >= INCLUDE_LIMIT:
                raise ValueError(f"include {name!r}: expected at most {INCLUDE_LIMIT} includes")
            try:
                xml = self.load(name)
            except FileNotFoundError:
                raise ValueError(f"include {name[:160]!r}: there is no such file in the package") from None
            except OSError as error:
                raise ValueError(f"include {name[:160]!r}: {error.strerror}") from None
            except ValueError as error:
                raise ValueError(f"include {name!r}: {error}") from None
        # Otherwise a problem was reported.
        if xml is not None:
            # The first open file is the description itself.
            is_nested = len(self.open_files) > 1
            self.includes.append(Include(name=name, file=file, line=element.line, is_nested=is_nested))
            yield from self.elements(name, xml)


def _included_name(element: Element) -> str:
    """Return the name in the package of the file that an `<include>` names."""
    if element.children or element.has_text:
        raise ValueError("include: got content in it, expected none; move the content out")
    name = element.required("from")
    # kiwi includes files by document() of XSLT, which resolves the name relative to this attribute (XSLT 1.0, 12.1).
    if any(attribute.endswith("}base") for attribute in element.attributes):
        raise ValueError(f"include {name[:160]!r}: got an 'xml:base', expected the whole path in 'from'")
    match = _INCLUDED.fullmatch(name)
    parts = [part for part in match[1].split("/") if part not in ("", ".")] if match else []
    if not parts or ".." in parts:
        raise ValueError(f"include {name[:160]!r}: expected a file of the package, like 'this://./containers.xml'")
    return "/".join(parts)


def remove_containers(xml: bytes, used: Collection[str] | None = None) -> bytes:
    """Return a description file without its `<containers>`, and with all other bytes unchanged.

    Lines that become empty go, too. If `used` is given, only those sections are removed that are in an image with these
    profiles.

    :raises ValueError: as `osc_containers.formats.xml_reader.parse`.
    """
    return xml_editor.remove(
        xml, "containers", lambda section: used is None or profiles.is_in(section.attributes.get("profiles"), used)
    )
