"""Bounded reader for untrusted XML.

lxml reads it as it does for kiwi, so that both accept the same files. A DOCTYPE is refused before lxml sees the file:
there are no entities to expand, and nothing else is loaded. XInclude has no effect.

Spec: Extensible Markup Language (XML) 1.0, fifth edition; Namespaces in XML 1.0.
"""

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from osc_containers.formats import xml_tags
from osc_containers.formats.xml_tags import Tag
from osc_containers.fs import atomic, lfs_pointer

if TYPE_CHECKING:
    from lxml.etree import _Element

SIZE_LIMIT = 4 << 20
"""Bytes of one file; the largest descriptions in use have a twentieth of that."""

BLANKS = " \t\r\n"
"""White space in the sense of XML."""
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_REASONS = {
    "ERR_ATTRIBUTE_NOT_STARTED": "an attribute's value has no quotes",
    "ERR_ATTRIBUTE_WITHOUT_VALUE": "an attribute has no value",
    "ERR_DOCUMENT_EMPTY": "got text outside of the root element",
    "ERR_DOCUMENT_END": "got text outside of the root element",
    "ERR_ENTITYREF_SEMICOL_MISSING": "an entity has no ';'; write '&amp;' for the character '&' itself",
    "ERR_INVALID_CHAR": "a character is not allowed, or not valid in the encoding of the file",
    "ERR_INVALID_ENCODING": "a character is not allowed, or not valid in the encoding of the file",
    "ERR_NAME_REQUIRED": "'<' or '&' has no name behind it; write '&lt;' or '&amp;' for the character itself",
    "ERR_PI_NOT_STARTED": "'<?' has no name behind it",
    "ERR_SPACE_REQUIRED": "white space is missing between two attributes",
}
"""Plain words for errors of libxml2 that are hard to understand. The others are shown as they are."""


class Element(NamedTuple):
    """An element; `name` is `{namespace}local` if it has a namespace.

    `text` is all text directly in the element, with its white space and without the text of its children. `tag` is its
    position in the text of the file.
    """

    name: str
    attributes: Mapping[str, str]
    tag: Tag
    children: tuple["Element", ...]
    text: str

    @property
    def line(self) -> int:
        """The line where the start tag begins."""
        return self.tag.line

    @property
    def has_text(self) -> bool:
        """Whether it has text that is not only white space."""
        return bool(self.text.strip(BLANKS))

    def required(self, attribute: str) -> str:
        """Return an attribute.

        :raises ValueError: it is missing.
        """
        try:
            return self.attributes[attribute]
        except KeyError:
            raise ValueError(f"{self.name}: attribute {attribute!r} is missing") from None

    def boolean(self, attribute: str) -> bool:
        """Return an `xsd:boolean`; if it is missing, it is false.

        :raises ValueError: it is not a boolean.
        """
        value = self.attributes.get(attribute, "false")
        try:
            return _BOOLEANS[value.strip(BLANKS)]
        except KeyError:
            raise ValueError(f"{attribute} {value[:80]!r}: expected one of {', '.join(_BOOLEANS)}") from None

    def expect(self, attributes: Collection[str], children: Collection[str] = ()) -> None:
        """Check that the element has no other attributes and children, and no text.

        :raises ValueError: it has.
        """
        expected = ", ".join(repr(child) for child in children) or "nothing"
        if unknown := sorted(set(self.attributes) - set(attributes)):
            raise ValueError(f"{self.name}: unknown attribute {unknown[0][:80]!r}")
        if unknown := sorted({child.name for child in self.children} - set(children)):
            raise ValueError(f"{self.name}: got the element {unknown[0][:80]!r} in it, expected {expected}")
        if self.has_text:
            raise ValueError(f"{self.name}: got text in it, expected {expected}")


class Problems:
    """Collects the problems of several elements, so that a reader can go on and report all of them together."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    @contextmanager
    def at(self, file: str, element: Element) -> Iterator[None]:
        """Collect a `ValueError` as a problem of this element."""
        try:
            yield
        except ValueError as error:
            self.messages.append(f"{file}:{element.line}: {error}")


def read(path: Path, flags: int = 0) -> bytes:
    """Read a regular file, but not more than one byte beyond `SIZE_LIMIT`, by which `parse` refuses it.

    :raises ValueError: it is not a regular file, or was not downloaded by git-lfs.
    """
    # O_NONBLOCK, because opening a FIFO would wait for its writer.
    with open(path, "rb", opener=lambda path, own: os.open(path, own | flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("is not a regular file")
        with atomic.naming(path):
            content = file.read(SIZE_LIMIT + 1)
    if lfs_pointer.is_pointer(content):
        raise ValueError(lfs_pointer.problem(path.parent))
    return content


def parse(xml: bytes, file: str, keep: Collection[str] = ()) -> Element:
    """Read an XML file: its root element, and those children of it whose local names are in `keep`.

    :raises ValueError: it is not XML, has a DOCTYPE, or exceeds a limit of this module or of `xml_tags`.
        The message begins with `file:line`, or with `file` if the file is too large.
    """
    if len(xml) > SIZE_LIMIT:
        raise ValueError(f"{file}: has more than {SIZE_LIMIT} bytes, too many for such a file")
    try:
        text, _ = xml_tags.decode(xml)
    except ValueError as error:
        raise ValueError(f"{file}:1: {error}") from None
    try:
        tags = xml_tags.find(text)
        root = _parse_with_lxml(xml)
    except ValueError as error:
        raise ValueError(f"{file}:{error}") from None
    # Both list the elements in the order of their start tags, so they can be paired one by one.
    nodes = list(root.iter())
    if len(nodes) != len(tags) or not all(map(_is_same, nodes, tags)):
        # The encoding hides markup from one of the two.
        raise ValueError(f"{file}:1: the encoding is ambiguous; save the file as UTF-8")
    tag_of = dict(zip(nodes, tags, strict=True))
    return _element(root, tag_of, [child for child in root if _local(child) in keep])


def _parse_with_lxml(xml: bytes) -> "_Element":
    """Read an XML file as kiwi does, but leave out comments and processing instructions.

    :raises ValueError: it is not XML; the message begins with the line number.
    """
    # Imported here, because this takes tens of milliseconds, and `--help` and completion need no XML.
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        # Unlike etree.fromstring, this stops at the first error; libxml2 2.9 could go on and keep millions of them.
        parser.feed(xml)
        return parser.close()
    except etree.XMLSyntaxError as error:
        first = next(iter(parser.feed_error_log.filter_from_errors()), None)
        if first is None:
            raise ValueError(f"{error.lineno or 1}: not XML; {error.msg}") from None
        reason = _REASONS.get(first.type_name) or repr(first.message.splitlines()[0][:200])[1:-1]
        raise ValueError(f"{first.line}: not XML; {reason}") from None


def _element(node: "_Element", tag_of: Mapping["_Element", Tag], children: Collection["_Element"]) -> Element:
    return Element(
        name=str(node.tag),
        attributes=dict(node.attrib),
        tag=tag_of[node],
        children=tuple(map(partial(_descend, tag_of), children)),
        # In lxml, the text behind a child is the `tail` of that child.
        text="".join([node.text or "", *(child.tail or "" for child in node)]),
    )


def _descend(tag_of: Mapping["_Element", Tag], node: "_Element") -> Element:
    return _element(node, tag_of, node)


def _is_same(node: "_Element", tag: Tag) -> bool:
    name = _local(node)
    # Where the text is Latin-1, a name with other characters than ASCII looks different in it.
    return name == tag.name.rpartition(":")[2] or not name.isascii()


def _local(node: "_Element") -> str:
    return str(node.tag).rpartition("}")[2]
