"""Editor for the file `_service` of a package: what is there stays unchanged, byte for byte."""

import re
from collections.abc import Collection, Sequence

from osc_containers.formats import xml_editor
from osc_containers.formats.xml_editor import XmlText, escape
from osc_containers.obs import service_file
from osc_containers.obs.parameters import INJECT, PREFETCH, SERVICES
from osc_containers.obs.service_file import Entry


def add_our_services(
    xml: bytes | None,
    parameters: Sequence[tuple[str, str]] = (),
    names: Collection[str] = (PREFETCH, INJECT),
    mode: str = SERVICES[PREFETCH].mode,
) -> bytes:
    """Return a `_service` file with our services of these names, or a new file if it is None.

    Services that are there stay unchanged. New ones get those of `parameters` that they have; a new prefetch service
    gets this mode.

    :raises DescriptionError: as `service_file.parse`.
    """
    existing = {entry.name for entry in service_file.parse(xml)} if xml is not None else set()
    new = [
        Entry(
            name=name,
            mode=mode if name == PREFETCH else service.mode,
            parameters=tuple(each for each in parameters if each[0] in service.parameters),
        )
        for name, service in SERVICES.items()
        if name in names and name not in existing
    ]
    if xml is None:
        return create(new)
    return append(xml, new) if new else xml


def create(new: Sequence[Entry]) -> bytes:
    """Return a `_service` file with these services."""
    return "\n".join(["<services>", *(_format(entry, "  ", "\n") for entry in new), "</services>", ""]).encode("ascii")


def append(xml: bytes, new: Sequence[Entry]) -> bytes:
    """Return a `_service` file with more services at its end, indented like the others.

    :raises DescriptionError: as `service_file.parse`.
    """
    root = service_file.parse_root(xml)
    source = XmlText.of(xml)
    end = root.tag.stop
    indent = xml_editor.indent_of(source, root)
    added = source.newline.join(_format(entry, indent, source.newline) for entry in new)
    if not source.text.startswith("</", end):  # <services/>
        end = source.text.rindex("/", 0, end)
        # The slash moves to a new end tag. What followed it, the `>` first, completes that tag.
        rest = f">{source.newline}{added}{source.newline}</services{source.text[end + 1 :]}"
        return source.encode(source.text[:end].rstrip() + rest)
    start = source.line_start(end)
    # An end tag on the line of the last service moves to a line of its own.
    before = "" if source.begins_line(end) else source.newline
    return source.encode(source.text[:start] + before + added + source.newline + source.text[start:])


def replace_mode(xml: bytes, name: str, old: str, new: str) -> bytes:
    """Return a `_service` file in which the entries `name` with the mode `old` have the mode `new`.

    :raises DescriptionError: as `service_file.parse`.
    """
    source = XmlText.of(xml)
    pieces, done = [], 0
    for element in service_file.parse_root(xml).children:
        if (element.attributes.get("name"), element.attributes.get("mode")) == (name, old):
            end = source.text.index(">", element.tag.start)
            # A '>' in a value is allowed, but no value of an entry that osc can use has one.
            tag = source.text[element.tag.start : end + 1]
            match = re.search(rf"""\smode\s*=\s*(["'])({re.escape(old)})\1""", tag)
            if match:
                start, stop = (element.tag.start + each for each in match.span(2))
                pieces += [source.text[done:start], new]
                done = stop
    return source.encode("".join([*pieces, source.text[done:]]))


def _format(entry: Entry, indent: str, newline: str) -> str:
    opening = f'{indent}<service name="{entry.name}" mode="{entry.mode}"'
    if not entry.parameters:
        return f"{opening}/>"
    step = indent or "  "
    lines = [f'{indent}{step}<param name="{name}">{escape(value)}</param>' for name, value in entry.parameters]
    return newline.join([f"{opening}>", *lines, f"{indent}</service>"])
