"""Edits XML files of a packager so that every other byte stays."""

import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from osc_containers.formats import xml_reader, xml_tags
from osc_containers.formats.xml_reader import Element

_HEAD = re.compile(r"(\ufeff|\xef\xbb\xbf)?(<\?xml\s.*?\?>)?", re.DOTALL)
_REST_OF_LINE = re.compile(r"[ \t]*\r?\n")

_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
)


def escape(text: str) -> str:
    """Return a text in ASCII as it stands in an element or between double quotes, read back to the character.

    So it can stand in a file of any encoding. The standard library's own loads an HTTP client (xml.sax.saxutils).
    """
    return text.translate(_ESCAPES).encode("ascii", "xmlcharrefreplace").decode()


class XmlText(NamedTuple):
    """The text of a file as in `osc_containers.formats.xml_tags.decode`; only ASCII can be put into it."""

    text: str
    codec: str

    @classmethod
    def of(cls, xml: bytes) -> "XmlText":
        """Take a file that was read without an error."""
        return cls(*xml_tags.decode(xml))

    def encode(self, text: str) -> bytes:
        """Return the bytes of an edited text."""
        return text.encode(self.codec)

    @property
    def newline(self) -> str:
        """What ends the lines of the file."""
        return "\r\n" if "\r\n" in self.text else "\n"

    @property
    def head(self) -> str:
        """The byte order mark and the XML declaration for another file in the same encoding."""
        mark, declaration = next(_HEAD.finditer(self.text)).groups("")  # it matches nothing, too
        encoding = "utf-8" if self.codec == "latin-1" else "utf-16"
        return mark + (declaration or f'<?xml version="1.0" encoding="{encoding}"?>')

    def begins_line(self, position: int) -> bool:
        """Tell whether only blanks are before `position` on its line."""
        start = self._before_blanks(position)
        return start == 0 or self.text[start - 1] == "\n"

    def line_start(self, position: int) -> int:
        """Return where the line begins, if only blanks are before `position` on it, else `position`."""
        return self._before_blanks(position) if self.begins_line(position) else position

    def _before_blanks(self, position: int) -> int:
        # Looking for the newline instead would take forever in a file of a single long line.
        while position and self.text[position - 1] in " \t":
            position -= 1
        return position

    def whole_line(self, start: int, end: int) -> tuple[int, int]:
        """Widen a place to all of its lines where only blanks are beside it."""
        rest = _REST_OF_LINE.match(self.text, end)
        return (self.line_start(start), rest.end()) if rest and self.begins_line(start) else (start, end)


def spans(
    xml: bytes, name: str, matches: Callable[[Element], bool] = lambda element: True
) -> tuple[tuple[int, int], ...]:
    """Return where each child `name` of the root begins and ends in the text of the file.

    :raises ValueError: as `osc_containers.formats.xml_reader.parse`.
    """
    root = xml_reader.parse(xml, "XML file", (name,))
    return tuple((each.tag.start, each.tag.end) for each in root.children if each.name == name and matches(each))


def without(xml: bytes, name: str, matches: Callable[[Element], bool] = lambda element: True) -> bytes:
    """Return the file without the children `name` of the root that match, every other byte as it was.

    The lines they stood on go too where nothing else is on them.

    :raises ValueError: as `osc_containers.formats.xml_reader.parse`.
    """
    source = XmlText.of(xml)
    kept, done = [], 0
    for start, end in _whole_lines(source, spans(xml, name, matches)):
        kept.append(source.text[done:start])
        done = end
    return source.encode("".join([*kept, source.text[done:]]))


def _whole_lines(source: XmlText, elements: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int]]:
    """Widen each element to its line where only blanks and other ones of `elements` are on it."""
    remaining = deque(elements)
    while remaining:
        on_line = [remaining.popleft()]
        while remaining and not source.text[on_line[-1][1] : remaining[0][0]].strip(" \t\r"):
            on_line.append(remaining.popleft())
        start, end = on_line[0][0], on_line[-1][1]
        lines = source.whole_line(start, end)
        yield from on_line if lines == (start, end) else [lines]
