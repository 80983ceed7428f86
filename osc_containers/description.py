"""kiwi descriptions: which containers they ask for, on which architectures and in which profiles.

`read` goes in at a file and the files that it includes, and out come plain values; `parse` is the same without a disk.
The meaning is kiwi's (10.3 and 11: its schema, `kiwi/xml_state.py` and `kiwi/xsl/include.xsl`), whatever the
`schemaversion` of the file, with these differences:

- kiwi loses what an included file includes. We follow it; `Include.is_nested` says where.
- kiwi never fetches for a `backend` with blanks around it. We do.
- What no registry could be asked for is refused here, with its line (see `osc_containers.origin`).
- So are an include from outside of the package, content in `<include>`, and containers that come out of an entity.

Descriptions in YAML or JSON are not read.
"""

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from osc_containers import markup, origin, platforms, profiles
from osc_containers.errors import DescriptionError
from osc_containers.markup import Element
from osc_containers.profiles import Profile, Requirement
from osc_containers.reference import Reference

BACKENDS = ("podman", "docker", "container-snap")
INCLUDE_LIMIT = 100
"""Files that one description may include, those counted twice that it includes twice."""

PROBLEM_LIMIT = 100
"""Problems of a description that are said in one run."""

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_BLANKS = " \t\r\n"
_INCLUDED_NAME = re.compile(r"(?:this://)?([A-Za-z0-9._+=,~@-][A-Za-z0-9._+=,~@/-]*)")
_SECTION = {"source", "backend", "profiles", "arch"}
_CONTAINER = {"name", "path", "tag", "arch", "fetch_only"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One `<container>`, as asked for.

    `endpoint` is the text that kiwi builds, `origin` says where to get the image (in the form of containers-transports(5);
    a relative path starts at the package) and `reference` what it is called in the engine. `file_name` is the path
    that kiwi gives it below `/var/tmp/kiwi_containers`; it may have a slash. `profiles` and the `arch` attributes are as
    written, but for the blanks around the latter. `file` is relative to the package.
    """

    endpoint: str
    origin: str
    reference: Reference
    backend: str
    fetch_only: bool
    file_name: str
    section_arch: str | None
    container_arch: str | None
    profiles: str | None
    file: str
    line: int

    @property
    def arch(self) -> str | None:
        """The container's own `arch`, else its section's."""
        return self.container_arch or self.section_arch

    @property
    def profile_names(self) -> tuple[str, ...]:
        """The profiles that the section is for; none means that it is for all."""
        return tuple(self.profiles.split(",")) if self.profiles else ()

    def is_for(self, arch: str) -> bool:
        """Tell whether section and container both let `arch` in."""
        return profiles.is_for(arch, self.section_arch) and profiles.is_for(arch, self.container_arch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Include:
    """An `<include>`: where it stands and the file it means; kiwi ignores those that are nested."""

    name: str
    file: str
    line: int
    is_nested: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
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
    def visible(self) -> tuple[Container, ...]:
        """Those containers that obs-build sees, because they stand in the description itself."""
        return tuple(container for container in self.containers if container.file == self.path.name)

    def select(self, arch: str, asked: Collection[str] = ()) -> tuple[Container, ...]:
        """Return what kiwi acts on for `arch` and the profiles `asked` for, or those it imports if there are none.

        :raises DescriptionError: a profile is not declared for `arch`.
        """
        try:
            used = profiles.used(self.profiles, arch, asked)
        except ValueError as error:
            raise DescriptionError(f"{self.path.name}: {error}") from None
        return tuple(c for c in self.of_architecture(arch) if not c.profiles or used.intersection(c.profile_names))

    def of_architecture(self, arch: str) -> tuple[Container, ...]:
        """Return every container for `arch`, whatever its profiles."""
        return tuple(container for container in self.containers if container.is_for(arch))


def find(directory: Path) -> tuple[Path, ...]:
    """Return the descriptions of a package, every `*.kiwi` and `config.xml`, sorted.

    A `config.xml` that is a link to one of the others, as obs-build makes it, is left out.

    :raises DescriptionError: there is none.
    """
    with os.scandir(directory) as entries:
        names = sorted(e.name for e in entries if _is_description(e.name) and not e.is_dir(follow_symlinks=False))
    link = directory / "config.xml"
    if link.is_symlink() and os.readlink(link) in names:
        names.remove("config.xml")
    if not names:
        raise DescriptionError(f"{directory}: no kiwi description, expected a file '*.kiwi' or 'config.xml'")
    return tuple(directory / name for name in names)


def _is_description(name: str) -> bool:
    return name == "config.xml" or (name.endswith(".kiwi") and not name.startswith("."))


def read(path: Path) -> Description:
    """Read a description; the package that its includes are taken from is the directory it is in.

    :raises DescriptionError: it or a file that it includes is broken; has a line for each problem.
    """
    try:
        xml = _load(path.parent, path.name)
    except ValueError as error:
        raise DescriptionError(f"{path.name}: {error}") from None
    return parse(xml, path, lambda name: _load(path.parent, name))


def _load(directory: Path, name: str) -> bytes:
    """Read a regular file of a package without following links."""
    path = directory
    for part in name.split("/"):
        path /= part
        if path.is_symlink():
            raise ValueError("is a symbolic link, expected a file of the package")
    # Nothing here may wait for the other end of a pipe.
    with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("is not a regular file")
        return file.read(markup.SIZE_LIMIT + 1)


def parse(xml: bytes, path: Path, load: Callable[[str], bytes]) -> Description:
    """Read a description that was loaded from `path`, with `load` for included files by their name in the package.

    `load` may raise `OSError`, and `ValueError` with the reason alone.

    :raises DescriptionError: as `read`.
    """
    reader = _Reader(load=load)
    for file, element in reader.elements(path.name, xml):
        if element.name == "containers":
            reader.section(file, element)
        elif element.name == "profiles":
            reader.profiles_of(file, element)
    if reader.problems:
        more = len(reader.problems) - PROBLEM_LIMIT
        raise DescriptionError(
            *reader.problems[:PROBLEM_LIMIT], *([f"{path.name}: and {more} more"] if more > 0 else [])
        )
    return Description(
        path=path,
        containers=tuple(reader.containers),
        profiles=tuple(reader.profiles),
        includes=tuple(reader.includes),
        exclusive_archs=_directive(b"OBS-ExclusiveArch", xml),
        obs_profiles=_directive(b"OBS-Profiles", xml),
    )


def _directive(name: bytes, xml: bytes) -> tuple[str, ...] | None:
    """Read a comment for obs-build as obs-build does, by a pattern on the bytes (Build/Kiwi.pm, `kiwiparse`)."""
    # Theirs allows blank lines before; being anchored to the line of the comment makes this one linear.
    pattern = rb"^[^\S\n]*<!--\s+%s:\s+(\S(?:.*\S)?)\s+-->\s*$" % name
    match = re.search(pattern, xml, re.IGNORECASE | re.MULTILINE)
    return tuple(dict.fromkeys(match[1].decode("utf-8", "replace").split())) if match else None


@dataclass(slots=True, kw_only=True)
class _Reader:
    """What has been found so far, and what is wrong with it."""

    load: Callable[[str], bytes]
    containers: list[Container] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    includes: list[Include] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    open_files: list[str] = field(default_factory=list)

    @contextmanager
    def at(self, file: str, element: Element) -> Iterator[None]:
        """Make a problem of a `ValueError`, and go on."""
        try:
            yield
        except ValueError as error:
            self.problems.append(f"{file}:{element.line}: {error}")

    def elements(self, file: str, xml: bytes) -> Iterator[tuple[str, Element]]:
        """Yield the sections of a file with the file they are in; those of an include in its place."""
        try:
            root = markup.parse(xml, file, ("containers", "profiles", "include"))
        except ValueError as error:
            self.problems.append(str(error))
            return
        if root.name != "image":
            self.problems.append(f"{file}:{root.line}: got the element {root.name[:80]!r}, expected a kiwi 'image'")
            return
        self.open_files.append(file)
        for element in root.children:
            if element.name == "include":
                yield from self.included(file, element)
            elif " " in element.name:
                namespace, _, name = element.name.rpartition(" ")
                self.problems.append(
                    f"{file}:{element.line}: {name!r} has the namespace {namespace[:80]!r}, expected none"
                )
            else:
                yield file, element
        self.open_files.pop()

    def included(self, file: str, element: Element) -> Iterator[tuple[str, Element]]:
        name = xml = None
        with self.at(file, element):
            name = _included_name(element)
            if name in self.open_files:
                raise ValueError(f"include {name!r}: includes itself, by way of {' and '.join(self.open_files)}")
            if len(self.includes) >= INCLUDE_LIMIT:
                raise ValueError(f"include {name!r}: more than {INCLUDE_LIMIT} files are included")
            xml = self.loaded(name)
        if name is not None and xml is not None:
            nested = len(self.open_files) > 1
            self.includes.append(Include(name=name, file=file, line=element.line, is_nested=nested))
            yield from self.elements(name, xml)

    def loaded(self, name: str) -> bytes:
        try:
            return self.load(name)
        except FileNotFoundError:
            raise ValueError(f"include {name!r}: there is no such file in the package") from None
        except OSError as error:
            raise ValueError(f"include {name!r}: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"include {name!r}: {error}") from None

    def section(self, file: str, element: Element) -> None:
        """Take in a `<containers>`."""
        backend, arch, source, names = "", None, None, None
        with self.at(file, element):
            _expect(element, _SECTION, {"container"})
            if not element.children:
                raise ValueError("containers: empty, expected a 'container'")
        with self.at(file, element):
            source = _required(element, "source")
        with self.at(file, element):
            backend = _backend(element)
        with self.at(file, element):
            arch = _arch(element)
        with self.at(file, element):
            names = _profiles(element)
        for child in element.children:
            if child.name == "container":
                self.container(file, child, source=source, backend=backend, arch=arch, names=names)

    def container(
        self, file: str, element: Element, *, source: str | None, backend: str, arch: str | None, names: str | None
    ) -> None:
        """Take in a `<container>`; without a source only the problems in it."""
        fetch_only, own_arch, found = False, None, None
        with self.at(file, element):
            _expect(element, _CONTAINER, ())
        with self.at(file, element):
            own_arch = _arch(element)
        with self.at(file, element):
            fetch_only = _boolean(element, "fetch_only")
        with self.at(file, element):
            name = _required(element, "name")
            if source is not None:
                path, tag = (element.attributes.get(key, "") for key in ("path", "tag"))
                found = origin.interpret(source=source, path=path, name=name, tag=tag)
        if found is not None:
            self.containers.append(
                Container(
                    endpoint=found.endpoint,
                    origin=found.place,
                    reference=found.reference,
                    backend=backend,
                    fetch_only=fetch_only,
                    file_name=found.file_name,
                    section_arch=arch,
                    container_arch=own_arch,
                    profiles=names,
                    file=file,
                    line=element.line,
                )
            )

    def profiles_of(self, file: str, element: Element) -> None:
        """Take in a `<profiles>`."""
        for child in element.children:
            if child.name == "profile":
                with self.at(file, child):
                    self.profiles.append(_profile(child))


def _profile(element: Element) -> Profile:
    requires = (child for child in element.children if child.name == "requires")
    return Profile(
        name=_required(element, "name"),
        arch=_arch(element),
        is_imported=_boolean(element, "import"),
        requires=tuple(Requirement(profile=_required(r, "profile"), arch=_arch(r)) for r in requires),
    )


def _included_name(element: Element) -> str:
    """Return the file that an `<include>` means, by its name in the package."""
    if element.children or element.has_text:
        raise ValueError("include: has content, expected none; put it beside")
    name = _required(element, "from")
    if any(attribute.endswith(" base") for attribute in element.attributes):
        raise ValueError(f"include {name[:160]!r}: has an 'xml:base', expected the whole path in 'from'")
    match = _INCLUDED_NAME.fullmatch(name)
    parts = [part for part in match[1].split("/") if part not in ("", ".")] if match else []
    if not parts or ".." in parts:
        raise ValueError(f"include {name[:160]!r}: expected a file of the package, like 'this://./containers.xml'")
    return "/".join(parts)


def _expect(element: Element, attributes: Collection[str], children: Collection[str]) -> None:
    """Refuse what kiwi's schema does not know, lest a slip of the pen changes what is built."""
    if unknown := sorted(set(element.attributes) - set(attributes)):
        raise ValueError(f"{element.name}: unknown attribute {unknown[0][:80]!r}")
    if unknown := sorted({child.name for child in element.children} - set(children)):
        raise ValueError(f"{element.name}: got the element {unknown[0][:80]!r} in it, expected {_list(children)}")
    if element.has_text:
        raise ValueError(f"{element.name}: got text in it, expected {_list(children)}")


def _list(children: Collection[str]) -> str:
    return ", ".join(repr(child) for child in children) or "nothing"


def _required(element: Element, attribute: str) -> str:
    try:
        return element.attributes[attribute]
    except KeyError:
        raise ValueError(f"{element.name}: without attribute {attribute!r}") from None


def _backend(element: Element) -> str:
    backend = _required(element, "backend").strip(_BLANKS)
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend[:80]!r}: expected one of {', '.join(BACKENDS)}")
    return backend


def _arch(element: Element) -> str | None:
    value = element.attributes.get("arch")
    if value is None:
        return None
    value = value.strip(_BLANKS)
    for arch in value.split(","):
        if arch not in platforms.ARCHITECTURES:
            known = ", ".join(platforms.ARCHITECTURES)
            raise ValueError(
                f"arch {value[:160]!r}: got {arch[:80]!r}, expected a comma list without blanks of {known}"
            )
    return value


def _boolean(element: Element, attribute: str) -> bool:
    value = element.attributes.get(attribute, "false")
    try:
        return _BOOLEANS[value.strip(_BLANKS)]
    except KeyError:
        raise ValueError(f"{attribute} {value[:80]!r}: expected one of {', '.join(_BOOLEANS)}") from None


def _profiles(element: Element) -> str | None:
    """Return `profiles` as it is; overlay directories are called by these names, so they must be able to be."""
    value = element.attributes.get("profiles")
    for name in (value or "").split(","):
        if not name.isprintable() or "/" in name or name in (".", ".."):
            raise ValueError(f"profiles {name[:160]!r}: expected names without slash and control characters")
    return value


def containers_spans(xml: bytes) -> tuple[tuple[int, int], ...]:
    """Return the first byte of each `<containers>` of a description file and the byte after it.

    :raises ValueError: as `osc_containers.markup.parse`.
    """
    return markup.spans(xml, "containers")


def without_containers(xml: bytes) -> bytes:
    """Return a description file without its `<containers>`, every other byte as it was.

    The lines they stood on go too where nothing else is on them.

    :raises ValueError: as `osc_containers.markup.parse`.
    """
    return markup.without(xml, "containers")
