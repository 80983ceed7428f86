"""Editor for XML files that leaves all other bytes unchanged, with their comments, layout and encoding."""

import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from osc_containers.formats import xml_reader, xml_tags
from osc_containers.formats.xml_reader import Element

# A byte order mark, as it is in text from UTF-16, or that of UTF-8 in text from Latin-1; and the XML declaration.
_HEAD = re.compile(r"(\ufeff|\xef\xbb\xbf)?(<\?xml\s.*?\?>)?", re.DOTALL)
_REST_OF_LINE = re.compile(r"[ \t]*\r?\n")

# In an attribute, a parser would turn white space into blanks, unless it is escaped (XML 1.0, 3.3.3).
_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
)


def escape(text: str) -> str:
    """Escape a text for an element or an attribute in double quotes.

    The result is ASCII, so that it fits into a file of any encoding.
    """
    # The function of the standard library, in xml.sax.saxutils, imports an HTTP client.
    return text.translate(_ESCAPES).encode("ascii", "xmlcharrefreplace").decode()


class XmlText(NamedTuple):
    """The text of a file, as from `osc_containers.formats.xml_tags.decode`. Only ASCII may be inserted."""

    text: str
    codec: str

    @classmethod
    def of(cls, xml: bytes) -> "XmlText":
        """Decode a file that was parsed without an error."""
        return cls(*xml_tags.decode(xml))

    def encode(self, text: str) -> bytes:
        """Return an edited text as bytes."""
        return text.encode(self.codec)

    @property
    def newline(self) -> str:
        """The line ending of the file."""
        return "\r\n" if "\r\n" in self.text else "\n"

    @property
    def head(self) -> str:
        """The byte order mark and XML declaration for another file in the same encoding."""
        mark, declaration = next(_HEAD.finditer(self.text)).groups("")  # this always matches, if only the empty text
        # Latin-1 stands for all encodings that are based on ASCII (see `xml_tags.decode`). Without a declaration, the
        # file is in UTF-8.
        encoding = "utf-8" if self.codec == "latin-1" else "utf-16"
        return mark + (declaration or f'<?xml version="1.0" encoding="{encoding}"?>')

    def begins_line(self, position: int) -> bool:
        """Tell whether only white space is before `position` on its line."""
        start = self._before_blanks(position)
        return start == 0 or self.text[start - 1] == "\n"

    def line_start(self, position: int) -> int:
        """Return the start of the line if only white space is before `position`, otherwise `position`."""
        return self._before_blanks(position) if self.begins_line(position) else position

    def _before_blanks(self, position: int) -> int:
        # A search for the newline would take quadratic time in a file that is one long line.
        while position and self.text[position - 1] in " \t":
            position -= 1
        return position

    def whole_line(self, start: int, end: int) -> tuple[int, int]:
        """Extend a span to whole lines if only white space is beside it."""
        rest = _REST_OF_LINE.match(self.text, end)
        return (self.line_start(start), rest.end()) if rest and self.begins_line(start) else (start, end)


def spans(
    xml: bytes, name: str, matches: Callable[[Element], bool] = lambda element: True
) -> tuple[tuple[int, int], ...]:
    """Return start and end of each child `name` of the root in the text of a file.

    :raises ValueError: as `osc_containers.formats.xml_reader.parse`.
    """
    root = xml_reader.parse(xml, "XML file", (name,))
    return tuple((each.tag.start, each.tag.end) for each in root.children if each.name == name and matches(each))


def remove(xml: bytes, name: str, matches: Callable[[Element], bool] = lambda element: True) -> bytes:
    """Return a file without the children `name` of the root that match, and with all other bytes unchanged.

    Lines that become empty go, too.

    :raises ValueError: as `osc_containers.formats.xml_reader.parse`.
    """
    source = XmlText.of(xml)
    kept, done = [], 0
    for start, end in _whole_lines(source, spans(xml, name, matches)):
        kept.append(source.text[done:start])
        done = end
    return source.encode("".join([*kept, source.text[done:]]))


def _whole_lines(source: XmlText, elements: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int]]:
    """Extend each span to its line if only white space and other spans are on the line."""
    remaining = deque(elements)
    while remaining:
        on_line = [remaining.popleft()]
        # Elements are on one line if only blanks, and no newline, are between them.
        while remaining and not source.text[on_line[-1][1] : remaining[0][0]].strip(" \t\r"):
            on_line.append(remaining.popleft())
        start, end = on_line[0][0], on_line[-1][1]
        lines = source.whole_line(start, end)
        yield from on_line if lines == (start, end) else [lines]


def indent_of(source: XmlText, root: Element) -> str:
    """Return the indentation of the last child of the root that begins a line, or two spaces."""
    for child in reversed(root.children):
        position = child.tag.start
        if source.begins_line(position):
            return source.text[source.line_start(position) : position]
    return "  "
