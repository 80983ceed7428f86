"""The file `_service` of a package: what it runs when, and how to add to it so that every other byte stays.

Modes and what they mean: osc (`obs_scm/serviceinfo.py`), the source server (bs_service), obs-build (`runservices`).
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import DescriptionError
from osc_containers.formats import xml_reader
from osc_containers.formats.xml_editor import XmlText, escape
from osc_containers.formats.xml_reader import Element
from osc_containers.obs.parameters import INJECT, NO_VALUE, PREFETCH, SERVICES
from osc_containers.oci import platform

FILE_NAME = "_service"


class Entry(NamedTuple):
    """A `<service>`; `mode` is empty where it has none, `parameters` are name and value in their order.

    `others` are the elements in it that are no parameters: osc passes over them, and OBS takes no such file.
    """

    name: str
    mode: str
    parameters: tuple[tuple[str, str], ...] = ()
    line: int = 0
    others: tuple[str, ...] = ()

    def values(self, parameter: str) -> tuple[str, ...]:
        """Return the values of a parameter that may be given several times."""
        return tuple(value for name, value in self.parameters if name == parameter)

    def value(self, parameter: str) -> str:
        """Return the value of a parameter that has choices: the last one given, or else its default."""
        last = self.values(parameter)[-1:]
        return last[0] if last and last[0] not in NO_VALUE else SERVICES[self.name].parameters[parameter].choices[0]

    def given(self, parameter: str) -> list[str]:
        """Return the values of a parameter as the service takes them."""
        return (words if parameter == "arch" else given)(self.values(parameter))

    def reads(self, description: str) -> bool:
        """Tell whether it is about a description: one that it names, or any where it names none."""
        return description in (self.given("description") or [description])

    def problems(self) -> Iterator[str]:
        """Yield a problem for each parameter of one of our services that the service will refuse."""
        parameters = SERVICES[self.name].parameters
        yield from (f"{self.name}: got the element {other[:80]!r} in it, expected 'param'" for other in self.others)
        for name, value in self.parameters:
            if name not in parameters:
                yield f"{self.name}: got the parameter {name[:80]!r}, expected one of {', '.join(parameters)}"
            elif (choices := parameters[name].choices) and value not in (*choices, *NO_VALUE):
                yield f"{self.name}: {name}: got {value[:80]!r}, expected one of {', '.join(choices)}"
        for arch in self.given("arch"):
            try:
                platform.of_architecture(arch)
            except ValueError as error:
                yield f"{self.name}: {error}"


def read(directory: Path) -> bytes | None:
    """Return the file of a package, or None where there is none."""
    path = directory / FILE_NAME
    return xml_reader.read(path) if path.is_file() else None


def entries_in(directory: Path) -> tuple[Entry, ...]:
    """Read the entries of a package, none where it has no such file.

    :raises DescriptionError: as `entries`.
    """
    xml = read(directory)
    return () if xml is None else entries(xml)


def is_bundled(prefetches: Iterable[Entry]) -> bool:
    """Tell whether the prefetch puts the containers into an archive that obs-build unpacks by itself."""
    return any(entry.value("inject") == "source" for entry in prefetches)


def is_locked(prefetches: Sequence[Entry]) -> bool:
    """Tell whether the prefetch follows no tags.

    :raises DescriptionError: some of its entries do, and some do not.
    """
    found = {entry.value("locked") == "yes" for entry in prefetches}
    if len(found) > 1:
        lines = " and ".join(str(entry.line) for entry in prefetches if entry.value("locked") == "yes")
        raise DescriptionError(
            f"{FILE_NAME}:{lines}: {PREFETCH} is locked, but not in its other entries; run 'osc service manualrun', or "
            "choose by --locked or --no-locked, or by the --description of some"
        )
    return found == {True}


def entries(xml: bytes) -> tuple[Entry, ...]:
    """Read the entries.

    :raises DescriptionError: it is not such a file.
    """
    return tuple(_entry(element) for element in _root(xml).children)


def _entry(element: Element) -> Entry:
    name, mode = (element.attributes.get(attribute, "") for attribute in ("name", "mode"))
    return Entry(
        name=name,
        mode=mode,
        parameters=tuple(
            (child.attributes.get("name", ""), child.text.strip(xml_reader.BLANKS))
            for child in element.children
            if child.name == "param"
        ),
        line=element.line,
        others=tuple(child.name for child in element.children if child.name != "param"),
    )


def _root(xml: bytes) -> Element:
    try:
        root = xml_reader.parse(xml, FILE_NAME, ("service",))
    except ValueError as error:
        raise DescriptionError(str(error)) from None
    if root.name != "services":
        raise DescriptionError(f"{FILE_NAME}:{root.line}: got the root {root.name[:80]!r}, expected 'services'")
    return root


def completed(
    xml: bytes | None, parameters: Sequence[tuple[str, str]] = (), names: Collection[str] = (PREFETCH, INJECT)
) -> bytes:
    """Return the file with those of our two services in it that are named; what is there of them stays as it is.

    New entries get those of `parameters` that they know.

    :raises DescriptionError: as `entries`.
    """
    there = {entry.name for entry in entries(xml)} if xml is not None else set()
    new = [
        Entry(
            name=name, mode=service.mode, parameters=tuple(each for each in parameters if each[0] in service.parameters)
        )
        for name, service in SERVICES.items()
        if name in names and name not in there
    ]
    if xml is None:
        return created(new)
    return extended(xml, new) if new else xml


def created(new: Sequence[Entry]) -> bytes:
    """Return a file with these entries alone."""
    return "\n".join(["<services>", *(_written(entry, "  ", "\n") for entry in new), "</services>", ""]).encode("ascii")


def extended(xml: bytes, new: Sequence[Entry]) -> bytes:
    """Return the file with entries more at its end, written as the others are indented.

    :raises DescriptionError: as `entries`.
    """
    root = _root(xml)
    source = XmlText.of(xml)
    end = root.tag.stop
    indent = _indent(source, root)
    added = source.newline.join(_written(entry, indent, source.newline) for entry in new)
    if not source.text.startswith("</", end):  # <services/>
        end = source.text.rindex("/", 0, end)
        rest = f">{source.newline}{added}{source.newline}</services{source.text[end + 1 :]}"
        return source.encode(source.text[:end].rstrip() + rest)
    start = source.line_start(end)
    before = "" if source.begins_line(end) else source.newline
    return source.encode(source.text[:start] + before + added + source.newline + source.text[start:])


def _indent(source: XmlText, root: Element) -> str:
    """Return the blanks before the last entry on its line, or two."""
    for child in reversed(root.children):
        position = child.tag.start
        if source.begins_line(position):
            return source.text[source.line_start(position) : position]
    return "  "


def _written(entry: Entry, indent: str, newline: str) -> str:
    opening = f'{indent}<service name="{entry.name}" mode="{entry.mode}"'
    if not entry.parameters:
        return f"{opening}/>"
    step = indent or "  "
    lines = [f'{indent}{step}<param name="{name}">{escape(value)}</param>' for name, value in entry.parameters]
    return newline.join([f"{opening}>", *lines, f"{indent}</service>"])


def given(values: Sequence[str]) -> list[str]:
    """Return the values of a parameter that mean something.

    Blanks around one are layout of the XML; those in it belong to the name of a description or profile.
    """
    return [value for value in map(str.strip, values) if value not in NO_VALUE]


def words(values: Sequence[str]) -> list[str]:
    """Split the values of a parameter that takes lists at blanks and commas, which only `arch` does."""
    return given([word for value in values for word in value.replace(",", " ").split()])
