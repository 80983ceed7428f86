"""XML that somebody else wrote, as the few elements that matter and the places of their bytes.

It is read with expat and not as a tree, because only expat says at which byte an element begins and ends (so that it
can be cut out of a file whose other bytes stay as they are), counts lines beyond 65535, and asks before it expands an
entity. Nothing outside of the bytes is ever read: external entities and DTD files are refused, XInclude means nothing.

Spec: Extensible Markup Language (XML) 1.0, fifth edition; Namespaces in XML 1.0.
"""

import os
import re
import stat
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from osc_containers.fs import atomic

SIZE_LIMIT = 4 << 20
"""Bytes of one file; the largest descriptions in use are a twentieth of that."""
DEPTH_LIMIT = 256
"""Elements inside each other, as libxml2 (and so kiwi) limits them."""
ELEMENT_LIMIT = 20_000
"""Elements that are kept."""
PACKAGE_LIMIT = 100_000
"""The same where packages are among them: so many in lines of their own are all that a file has room for."""
EXPANSION_LIMIT = 16 << 20
"""Characters that all entities of a file could add up to."""
_ENTITY_LIMIT = 100
_ENTITY_LENGTH_LIMIT = 4096

BLANKS = " \t\r\n"
"""White space in the sense of XML."""
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_REFERENCE = re.compile(r"&([^;#&]+);")


class Element(NamedTuple):
    """An element with its attributes; `name` is `namespace local` where it has a namespace.

    `start` is the byte of its `<`; `stop` that of the `<` of its end tag, or the byte after it where it has none.
    `text` is what is in it beside its children, with the blanks.
    """

    name: str
    attributes: Mapping[str, str]
    line: int
    start: int
    stop: int
    children: tuple["Element", ...]
    text: str

    @property
    def has_text(self) -> bool:
        """Whether other text than blanks is in it."""
        return bool(self.text.strip(BLANKS))

    def required(self, attribute: str) -> str:
        """Return an attribute that must be there.

        :raises ValueError: it is not.
        """
        try:
            return self.attributes[attribute]
        except KeyError:
            raise ValueError(f"{self.name}: without attribute {attribute!r}") from None

    def boolean(self, attribute: str) -> bool:
        """Return an `xsd:boolean`, false where it is not there.

        :raises ValueError: it is none of the four spellings.
        """
        value = self.attributes.get(attribute, "false")
        try:
            return _BOOLEANS[value.strip(BLANKS)]
        except KeyError:
            raise ValueError(f"{attribute} {value[:80]!r}: expected one of {', '.join(_BOOLEANS)}") from None

    def expect(self, attributes: Collection[str], children: Collection[str] = ()) -> None:
        """Check that nothing else is in this element.

        :raises ValueError: something is, text other than blanks included.
        """
        expected = ", ".join(repr(child) for child in children) or "nothing"
        if unknown := sorted(set(self.attributes) - set(attributes)):
            raise ValueError(f"{self.name}: unknown attribute {unknown[0][:80]!r}")
        if unknown := sorted({child.name for child in self.children} - set(children)):
            raise ValueError(f"{self.name}: got the element {unknown[0][:80]!r} in it, expected {expected}")
        if self.has_text:
            raise ValueError(f"{self.name}: got text in it, expected {expected}")


class Problems:
    """What is wrong with the elements of some files; reading goes on behind each, so that one run says all."""

    def __init__(self) -> None:
        self.found: list[str] = []

    @contextmanager
    def at(self, file: str, element: Element) -> Iterator[None]:
        """Take a `ValueError` for a problem of this element."""
        try:
            yield
        except ValueError as error:
            self.found.append(f"{file}:{element.line}: {error}")


def read(path: Path, flags: int = 0) -> bytes:
    """Read a file, but no more of it than `parse` has to see to refuse it; nothing is waited for.

    :raises ValueError: it is no regular file.
    """
    with open(path, "rb", opener=lambda path, own: os.open(path, own | flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("is not a regular file")
        with atomic.naming(path):
            return file.read(SIZE_LIMIT + 1)


def parse(xml: bytes, file: str, keep: Collection[str] = (), limit: int = ELEMENT_LIMIT) -> Element:
    """Read an XML file, down from those children of the root whose local name is in `keep`; `limit` is on elements.

    :raises ValueError: it is not XML, breaks one of the limits above, or has a DTD that would bring in anything but
        short texts; the message begins with `file:line`.
    """
    if len(xml) > SIZE_LIMIT:
        raise ValueError(f"{file}: has more than {SIZE_LIMIT} bytes, too many for such a file")
    parser = expat.ParserCreate(_forced_encoding(xml), " ")
    parser.specified_attributes = True  # kiwi's parser ignores the defaults that a DTD declares
    builder = _Builder(parser, keep, limit)
    dtd = _Dtd(xml.count(b"&"))
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = dtd.start
    parser.NotStandaloneHandler = dtd.not_standalone
    parser.EntityDeclHandler = dtd.entity
    try:
        parser.Parse(xml, True)
    except expat.ExpatError as error:
        raise ValueError(f"{file}:{error.lineno}: not XML; {expat.ErrorString(error.code)}") from None
    except _RefusedError as error:
        raise ValueError(f"{file}:{parser.CurrentLineNumber}: {error}") from None
    except (LookupError, ValueError):  # from Python's codecs, which expat asks for what it does not know itself
        raise ValueError(f"{file}:1: unknown encoding, expected UTF-8, UTF-16 or one of a byte for a letter") from None
    return builder.root()


def spans(
    xml: bytes, name: str, matches: Callable[[Element], bool] = lambda element: True
) -> tuple[tuple[int, int], ...]:
    """Return the first byte of each child `name` of the root, which is called otherwise, and the byte after it.

    :raises ValueError: as `parse`.
    """
    root = parse(xml, "XML file", (name,))
    return tuple((each.start, _end(xml, each)) for each in root.children if each.name == name and matches(each))


def without(xml: bytes, name: str, matches: Callable[[Element], bool] = lambda element: True) -> bytes:
    """Return the file without the children `name` of the root that match, every other byte as it was.

    The lines they stood on go too where nothing else is on them.

    :raises ValueError: as `parse`.
    """
    kept, done = [], 0
    for start, end in _whole_lines(xml, spans(xml, name, matches)):
        kept.append(xml[done:start])
        done = end
    return b"".join([*kept, xml[done:]])


def _end(xml: bytes, element: Element) -> int:
    encoding = _encoding_of_markup(xml, element.start)
    if not xml.startswith(f"</{element.name}".encode(encoding), element.stop):
        return element.stop
    bracket = ">".encode(encoding)
    return xml.index(bracket, element.stop) + len(bracket)


def _encoding_of_markup(xml: bytes, start: int) -> str:
    """Tell from the `<` at `start` how markup is written: in all encodings that expat reads, it is in one of these."""
    return {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}.get(xml[start : start + 2], "utf-8")


def _whole_lines(xml: bytes, elements: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int]]:
    """Widen each element to its line where only blanks and other ones of `elements` are on it."""
    encoding = _encoding_of_markup(xml, elements[0][0]) if elements else "utf-8"
    newline = "\n".encode(encoding)
    blanks = re.compile(b"(?:%s)*" % b"|".join(blank.encode(encoding) for blank in " \t\r"))
    remaining = deque(elements)
    done = 0
    while remaining:
        on_line = [remaining.popleft()]
        while remaining and blanks.fullmatch(xml, on_line[-1][1], remaining[0][0]):
            on_line.append(remaining.popleft())
        start, end = on_line[0][0], on_line[-1][1]
        before = xml.rfind(newline, done, start) + len(newline)
        after = xml.find(newline, end, remaining[0][0] if remaining else None)
        # In UTF-16 these could be the halves of other letters; then what is between is no row of blanks either.
        alone = min(before, after) > done and blanks.fullmatch(xml, before, start) and blanks.fullmatch(xml, end, after)
        yield from [(before, after + len(newline))] if alone else on_line
        done = end


def _forced_encoding(xml: bytes) -> str | None:
    # libxml2 believes the first bytes more than the declaration, expat would call that an error.
    return "utf-16" if xml[:2] in (b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<") else None


class _RefusedError(ValueError):
    """Something in the file that we do not act on; the line is known to the parser."""


class _Open(NamedTuple):
    """An element whose end tag is still to come; `children` and `text` grow."""

    name: str
    attributes: dict[str, str]
    line: int
    start: int
    children: list[Element]
    text: list[str]


class _Builder:
    """Elements in the making, from the events of expat."""

    def __init__(self, parser: expat.XMLParserType, keep: Collection[str], limit: int) -> None:
        self.parser = parser
        self.keep = frozenset(keep)
        self.limit = limit
        self.depth = 0
        self.kept = 0
        self.open: list[_Open] = []
        self.done: Element | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > DEPTH_LIMIT:
            raise _RefusedError(f"elements are nested too deeply, expected at most {DEPTH_LIMIT}")
        if len(self.open) != self.depth - 1 or (self.depth == 2 and name.rpartition(" ")[2] not in self.keep):
            return
        self.kept += 1
        if self.kept > self.limit:
            raise _RefusedError(f"more than {self.limit} elements")
        line, start = self.parser.CurrentLineNumber, self.parser.CurrentByteIndex
        self.open.append(_Open(name=name, attributes=attributes, line=line, start=start, children=[], text=[]))

    def end(self, _name: str) -> None:
        if len(self.open) == self.depth:
            of = self.open.pop()
            self.done = Element(
                name=of.name,
                attributes=of.attributes,
                line=of.line,
                start=of.start,
                stop=self.parser.CurrentByteIndex,
                children=tuple(of.children),
                text="".join(of.text),
            )
            if self.open:
                self.open[-1].children.append(self.done)
        self.depth -= 1

    def text(self, text: str) -> None:
        if len(self.open) == self.depth:
            self.open[-1].text.append(text)

    def root(self) -> Element:
        if self.done is None:
            raise AssertionError("expat reports a file without a root element")
        return self.done


class _Dtd:
    """What the internal DTD declares, checked before expat acts on it.

    Expat has a brake of its own since 2.4.0, and distributions have older ones.
    """

    def __init__(self, references: int) -> None:
        self.references = references
        self.values: dict[str, str] = {}

    def start(self, _name: str, system_id: str | None, public_id: str | None, _internal: int) -> None:
        if system_id is not None or public_id is not None:
            self.not_standalone()

    def not_standalone(self) -> int:
        raise _RefusedError("refers to a DTD in another file or a parameter entity, which are never read; remove it")

    def entity(self, name: str, is_parameter: int, value: str | None, _base: object, *_external: str | None) -> None:
        if value is None:
            raise _RefusedError(f"entity {name[:80]!r} is in another file, which is never read; remove it")
        if is_parameter:
            raise _RefusedError(f"parameter entity {name[:80]!r}; expected entities that are plain texts")
        if "<" in value:  # elements need a place in the file, or they cannot be cut out of it
            raise _RefusedError(f"entity {name[:80]!r} holds markup; write it where it is used")
        if len(value) > _ENTITY_LENGTH_LIMIT:
            raise _RefusedError(f"entity {name[:80]!r} has {len(value)} characters, expected {_ENTITY_LENGTH_LIMIT}")
        self.values.setdefault(name, value)
        if len(self.values) > _ENTITY_LIMIT:
            raise _RefusedError(f"more than {_ENTITY_LIMIT} entities")
        lengths: dict[str, int] = {}
        longest = max(self._expanded(each, lengths) for each in self.values)
        if longest * self.references > EXPANSION_LIMIT:
            raise _RefusedError(f"entities could expand to more than {EXPANSION_LIMIT} characters")

    def _expanded(self, name: str, lengths: dict[str, int]) -> int:
        """Count the characters that a reference to `name` brings, as far as it is declared yet."""
        if name in lengths:
            return lengths[name]
        lengths[name] = EXPANSION_LIMIT + 1  # what a reference to itself would come to
        value = self.values.get(name, "")
        inner = (self._expanded(reference, lengths) for reference in _REFERENCE.findall(value))
        lengths[name] = len(value) + sum(inner)
        return lengths[name]
