"""The `<containers>` of a description and what each `<container>` in them asks for."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from osc_containers.formats.xml_reader import BLANKS, Element, Problems
from osc_containers.kiwi import image_source, profiles
from osc_containers.kiwi.backend import BACKENDS
from osc_containers.kiwi.image_source import Source
from osc_containers.oci.reference import Reference

_SECTION = ("source", "backend", "profiles", "arch")
_CONTAINER = ("name", "path", "tag", "arch", "fetch_only")


class Container(NamedTuple):
    """One `<container>`, as asked for.

    `endpoint` is the text that kiwi builds, `origin` says where to get the image (as in containers-transports(5); a
    relative path starts at the package) and `reference` what it is called in the engine. `file_name` is the path that
    kiwi gives it below `/var/tmp/kiwi_containers`; it may have a slash. `profiles` and the `arch` attributes are as
    written, but for blanks around the latter. `file` is relative to the package.
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
        """The profiles that the section is for; none means that it is for all, or for no image if `profiles` is ",".

        As for kiwi, an empty name between commas is nobody's.
        """
        return _names(self.profiles)

    def is_in(self, used: Collection[str]) -> bool:
        """Tell whether an image that uses these profiles has it, if it is for this architecture."""
        return is_in(self.profiles, used)

    def is_for(self, arch: str) -> bool:
        """Tell whether section and container both let `arch` in."""
        return profiles.is_for(arch, self.section_arch) and profiles.is_for(arch, self.container_arch)


def is_in(profiles: str | None, used: Collection[str]) -> bool:
    """Tell whether an image that uses some profiles has a section with this `profiles`."""
    return not profiles or not set(used).isdisjoint(_names(profiles))


def _names(profiles: str | None) -> tuple[str, ...]:
    return tuple(filter(None, profiles.split(","))) if profiles else ()


class _Section:
    """The attributes of a `<containers>`; those that are wrong are None."""

    def __init__(self) -> None:
        self.source: Source | None = None
        self.backend = ""
        self.arch: str | None = None
        self.profiles: str | None = None


def containers_of(section: Element, file: str, problems: Problems) -> Iterator[Container]:
    """Yield what a `<containers>` asks for; those with problems that forbid it are left out."""
    with problems.at(file, section):
        section.expect(_SECTION, ("container",))
        if not section.children:
            raise ValueError("containers: empty, expected a 'container'")
    shared = _Section()
    with problems.at(file, section):
        shared.source = Source.parse(section.required("source"))
    with problems.at(file, section):
        shared.backend = _backend(section)
    with problems.at(file, section):
        shared.arch = profiles.arch_of(section)
    with problems.at(file, section):
        shared.profiles = _profiles(section)
    for child in section.children:
        if child.name == "container":
            yield from _container(shared, child, file, problems)


def _container(section: _Section, element: Element, file: str, problems: Problems) -> Iterator[Container]:
    """Yield the container, or nothing where there is no place to get it from."""
    arch, fetch_only, found = None, False, None
    with problems.at(file, element):
        element.expect(_CONTAINER)
    with problems.at(file, element):
        arch = profiles.arch_of(element)
    with problems.at(file, element):
        fetch_only = element.boolean("fetch_only")
    with problems.at(file, element):
        name = element.required("name")
        if section.source is not None:
            path, tag = (element.attributes.get(attribute, "") for attribute in ("path", "tag"))
            found = image_source.interpret(source=section.source, path=path, name=name, tag=tag)
    if found is not None:
        yield Container(
            endpoint=found.endpoint,
            origin=found.place,
            reference=found.reference,
            backend=section.backend,
            fetch_only=fetch_only,
            file_name=found.file_name,
            section_arch=section.arch,
            container_arch=arch,
            profiles=section.profiles,
            file=file,
            line=element.line,
        )


def _backend(section: Element) -> str:
    backend = section.required("backend").strip(BLANKS)
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend[:80]!r}: expected one of {', '.join(BACKENDS)}")
    return backend


def _profiles(section: Element) -> str | None:
    """Return `profiles` as it is; overlay directories are called by these names, so they must be able to be."""
    value = section.attributes.get("profiles")
    for name in (value or "").split(","):
        if not name.isprintable() or "/" in name or name in (".", ".."):
            raise ValueError(f"profiles {name[:160]!r}: expected names without slash and control characters")
    return value
