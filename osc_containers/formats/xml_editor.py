"""XML files of a packager as text that can be edited so that every other byte stays."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_HEAD = re.compile(r"(\ufeff|\xef\xbb\xbf)?(<\?xml\s.*?\?>)?", re.DOTALL)
_REST_OF_LINE = re.compile(r"[ \t]*\r?\n")
_HIDDEN = re.compile(r"<!--.*?-->|<\?.*?\?>", re.DOTALL)


_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
)


def escape(text: str) -> str:
    """Return a text in ASCII as it stands in an element or between double quotes, read back to the character.

    So it can stand in a file of any encoding. The standard library's own loads an HTTP client (xml.sax.saxutils).
    """
    return text.translate(_ESCAPES).encode("ascii", "xmlcharrefreplace").decode()


class XmlText(NamedTuple):
    """A file in letters that go back to the same bytes; those beyond ASCII may stand for something else.

    In every encoding that XML parsers read, markup is written in ASCII or in UTF-16. So the file is taken apart as
    Latin-1, which has a letter for every byte, or as UTF-16, and what is put into it must be ASCII.
    """

    xml: bytes
    codec: str
    text: str

    @classmethod
    def of(cls, xml: bytes, root: int) -> "XmlText":
        """Take apart a file that has the `<` of its root element at byte `root`."""
        codec = {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}.get(xml[root : root + 2], "latin-1")
        return cls(xml, codec, xml.decode(codec, "surrogatepass"))

    def position(self, offset: int) -> int:
        """Return the place in `text` of the letter that begins at byte `offset`."""
        return next(self.positions([offset]))

    def positions(self, offsets: Iterable[int]) -> Iterator[int]:
        """Yield the places of several letters, which are in the order of the text."""
        done = position = 0
        for offset in offsets:
            position += len(self.xml[done:offset].decode(self.codec, "surrogatepass"))
            done = offset
            yield position

    def encode(self, text: str) -> bytes:
        """Return the bytes of an edited text."""
        return text.encode(self.codec, "surrogatepass")

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

    def has_doctype(self, root: int) -> bool:
        """Tell whether a DTD stands before the root element, which begins at `root` in the text."""
        return "<!DOCTYPE" in _HIDDEN.sub("", self.text[:root])

    def begins_line(self, position: int) -> bool:
        """Tell whether only blanks are before `position` on its line."""
        return not self.text[self._newline_before(position) : position].strip(" \t")

    def line_start(self, position: int) -> int:
        """Return where the line begins, if only blanks are before `position` on it, else `position`."""
        return self._newline_before(position) if self.begins_line(position) else position

    def _newline_before(self, position: int) -> int:
        return self.text.rfind("\n", 0, position) + 1

    def whole_line(self, start: int, end: int) -> tuple[int, int]:
        """Widen a place to all of its lines where only blanks are beside it."""
        rest = _REST_OF_LINE.match(self.text, end)
        return (self.line_start(start), rest.end()) if rest and self.begins_line(start) else (start, end)
