"""The `<containers>` sections of a description, and the images that they name."""

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from osc_containers.formats.xml_reader import BLANKS, Element, Problems
from osc_containers.kiwi import image_source, profiles
from osc_containers.kiwi.backend import BACKENDS
from osc_containers.kiwi.image_source import Source
from osc_containers.oci.reference import Reference

_SECTION = ("source", "backend", "profiles", "arch")
_CONTAINER = ("name", "path", "tag", "arch", "fetch_only")


class Container(NamedTuple):
    """A `<container>` with the attributes of its section.

    `endpoint` is the name that kiwi passes to skopeo. `origin` is the location of the image in the syntax of
    containers-transports(5); a relative path is relative to the package. `reference` is the name of the image in the
    engine, and `file_name` the path of its archive below `/var/tmp/kiwi_containers`, which may contain slashes.
    `profiles` and the `arch` attributes have their original text, without white space around an `arch`. `file` is
    relative to the package.
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
        """The `arch` of the container, or else that of its section."""
        return self.container_arch or self.section_arch

    @property
    def profile_names(self) -> tuple[str, ...]:
        """The profiles of the section, without empty names; none if it is for all images."""
        return profiles.split_names(self.profiles)

    def matching(self, patterns: Iterable[str]) -> list[str]:
        """Return the patterns, as in a shell, that match the full reference."""
        return [pattern for pattern in patterns if self.reference.matches(pattern)]

    def is_in(self, used: Collection[str]) -> bool:
        """Tell whether it is in an image with these profiles, on the architectures that it is for."""
        return profiles.is_in(self.profiles, used)

    def is_for(self, arch: str) -> bool:
        """Tell whether section and container are both for `arch`."""
        return profiles.is_for(arch, self.section_arch) and profiles.is_for(arch, self.container_arch)


class _Section:
    """The attributes of a `<containers>`; invalid ones are None or empty."""

    def __init__(self) -> None:
        self.source: Source | None = None
        self.backend = ""
        self.arch: str | None = None
        self.profiles: str | None = None


def containers_of(section: Element, file: str, problems: Problems) -> Iterator[Container]:
    """Yield the containers of a `<containers>`, except those whose image cannot be determined."""
    with problems.at(file, section):
        section.expect(_SECTION, ("container",))
        if not section.children:
            raise ValueError("containers: empty, expected a 'container'")
    shared = _Section()
    # Each attribute has its own block, so that one run reports the problems of all of them.
    with problems.at(file, section):
        shared.source = Source.parse(section.required("source"))
    with problems.at(file, section):
        # A value in RELAX NG is a token, so kiwi's schema allows white space around it.
        backend = section.required("backend").strip(BLANKS)
        if backend not in BACKENDS:
            raise ValueError(f"backend {backend[:80]!r}: expected one of {', '.join(BACKENDS)}")
        shared.backend = backend
    with problems.at(file, section):
        shared.arch = profiles.parse_arch(section)
    with problems.at(file, section):
        shared.profiles = _profiles(section)
    for child in section.children:
        if child.name == "container":
            yield from _container(shared, child, file, problems)


def _container(section: _Section, element: Element, file: str, problems: Problems) -> Iterator[Container]:
    """Yield the container, or nothing if its image cannot be determined."""
    arch, fetch_only, image = None, False, None
    with problems.at(file, element):
        element.expect(_CONTAINER)
    with problems.at(file, element):
        arch = profiles.parse_arch(element)
    with problems.at(file, element):
        fetch_only = element.boolean("fetch_only")
    with problems.at(file, element):
        name = element.required("name")
        if section.source is not None:
            path, tag = (element.attributes.get(attribute, "") for attribute in ("path", "tag"))
            image = image_source.interpret(source=section.source, path=path, name=name, tag=tag)
    # Without an image, a problem was reported, in this element or in its section.
    if image is not None:
        yield Container(
            endpoint=image.endpoint,
            origin=image.location,
            reference=image.reference,
            backend=section.backend,
            fetch_only=fetch_only,
            file_name=image.file_name,
            section_arch=section.arch,
            container_arch=arch,
            profiles=section.profiles,
            file=file,
            line=element.line,
        )


def _profiles(section: Element) -> str | None:
    """Return the `profiles` attribute. Its names must be valid names of directories: kiwi uses them for overlays."""
    value = section.attributes.get("profiles")
    for name in (value or "").split(","):
        # An empty name is allowed: it stands for no profile, in kiwi as in `split_names`.
        if not name.isprintable() or "/" in name or name in (".", ".."):
            raise ValueError(f"profiles {name[:160]!r}: expected names without slash and control characters")
    return value
