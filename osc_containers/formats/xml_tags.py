"""Finds the elements of an XML file by their tags, before a parser reads it.

libxml2 does not say where in a file an element is, cannot count more than 65535 lines, and its version in Debian 12
needs minutes for one tag with 100,000 attributes. So `xml_reader` compares what libxml2 has read with what is found
here, and this module bounds what libxml2 gets to see.

A regular expression can do this: outside of comments, processing instructions and CDATA sections, every `<` of a
well-formed file without a DOCTYPE begins a tag, and tags have no other `<` in them (XML 1.0, productions 10 and 14).
"""

import codecs
import re
from typing import NamedTuple

DEPTH_LIMIT = 256
"""Elements inside each other, as libxml2 (and so kiwi) limits them."""
ELEMENT_LIMIT = 100_000
ATTRIBUTE_LIMIT = 250
"""Attributes of one element, four times what kiwi's schema has. libxml2 2.9 compares each with all others."""
TOTAL_ATTRIBUTE_LIMIT = 200_000
"""Attributes of all elements. libxml2 2.9 keeps an error for each that has an unknown prefix."""
NAMESPACE_LIMIT = 1000
"""Namespace declarations. libxml2 2.9 compares each prefix with all of them."""
TAG_LIMIT = 1 << 16
"""Characters of a start tag. libxml2 2.9 keeps an error for each unknown entity in it."""

# The order of the alternatives matters: what begins no complete markup is `broken`. So is a tag with more than 1000
# values in quotes, for which `find` reports the limit of attributes.
_MARKUP = re.compile(
    r"""
      (?P<comment><!--.*?-->)
    | <!\[CDATA\[.*?\]\]>
    | <\?.*?\?>
    | </(?P<end>[^ \t\r\n<>]*)[ \t\r\n]*>
    | <(?P<name>[^ \t\r\n<>/!?"']+)(?P<attributes>[^<>"']*(?:(?:"[^"<]*"|'[^'<]*')[^<>"']*){0,1000})>
    | (?P<doctype><!DOCTYPE)
    | (?P<broken><)
    """,
    re.DOTALL | re.VERBOSE,
)
_VALUE = re.compile(r"""=[ \t\r\n]*(?:"[^"]*"|'[^']*')""")
_DECLARATION = re.compile(r"(?:\xef\xbb\xbf)?<\?xml\s.*?\?>", re.DOTALL)
_ENCODING = re.compile(r"""encoding\s*=\s*["']([A-Za-z0-9._-]*)""")
# By Python's names. In UTF-7, EBCDIC, ISO 2022 and a few others, other bytes than `<` can begin a tag, or a letter can
# have a `<` in it, so that elements could be hidden from `find`.
_ASCII_BASED = re.compile(
    "utf-8|ascii|iso8859-[0-9]+|cp125[0-9]|cp(437|85[0-9]|86[0-9])|koi8-[rtu]|mac-[a-z]+|"
    "big5|big5hkscs|cp9(32|49|50)|euc_(jp|kr)|gb2312|gbk|gb18030|shift_jis"
)
# With one of these first bytes, libxml2 ignores the encoding of the declaration.
_UTF_16 = {
    b"\xff\xfe": "utf-16-le",
    b"\xfe\xff": "utf-16-be",
    b"<\0?\0": "utf-16-le",
    b"\0<\0?": "utf-16-be",
}


class Tag(NamedTuple):
    """An element in the text of its file: its start tag begins at `start`, and its end tag from `stop` to `end`.

    An element without end tag has the same `stop` and `end`.
    """

    name: str
    line: int
    start: int
    stop: int
    end: int


def decode(xml: bytes) -> tuple[str, str]:
    """Return the text of an XML file and the codec that turns the text into the same bytes again.

    UTF-16 is decoded. In every other supported encoding, markup is ASCII: the text is Latin-1, which has a character
    for each byte, and only its ASCII characters can be relied on.

    :raises ValueError: the encoding is not supported.
    """
    for first_bytes, codec in _UTF_16.items():
        if xml.startswith(first_bytes):
            try:
                return xml.decode(codec), codec
            except UnicodeDecodeError:
                raise ValueError("not XML; invalid UTF-16") from None
    text = xml.decode("latin-1")
    declaration = _DECLARATION.match(text)
    # Everything that looks like an encoding is checked: this expression cannot tell which one a parser will use.
    for encoding in _ENCODING.findall(declaration[0]) if declaration else ():
        if not _has_ascii_markup(encoding):
            raise ValueError(f"encoding {encoding[:40]!r} is not supported; save the file as UTF-8")
    return text, "latin-1"


def _has_ascii_markup(encoding: str) -> bool:
    try:
        return bool(_ASCII_BASED.fullmatch(codecs.lookup(encoding).name))
    except LookupError:
        return False


def find(text: str) -> list[Tag]:
    """Return the elements of a file in the order of their start tags.

    :raises ValueError: the tags do not match, there is a DOCTYPE, or a limit is exceeded. The message begins with the
        line number.
    """
    tags: list[Tag] = []
    open_tags: list[int] = []
    total_attributes = namespaces = position = 0
    line = 1
    if "\0" in text:
        line += text.count("\n", 0, text.index("\0"))
        raise ValueError(f"{line}: not XML; got a null character")
    for match in _MARKUP.finditer(text):
        if match.lastgroup is None:  # a processing instruction or a CDATA section
            continue
        line += text.count("\n", position, match.start())
        position = match.start()
        if match.lastgroup == "doctype":
            raise ValueError(f"{line}: DOCTYPE is not supported; remove it, and replace the entities that it defines")
        if match.lastgroup == "comment":
            if "--" in match[0][4:-2]:
                raise ValueError(f"{line}: not XML; a comment has '--' in it")
            continue
        if match.lastgroup == "broken":
            if len(_VALUE.findall(text[position : text.find("<", position + 1)])) > ATTRIBUTE_LIMIT:
                raise ValueError(f"{line}: more than {ATTRIBUTE_LIMIT} attributes in an element")
            raise ValueError(f"{line}: not XML; '<' begins no complete tag; write '&lt;' for the character itself")
        if match.lastgroup == "end":
            if not open_tags or tags[open_tags[-1]].name != match["end"]:
                expected = f", expected that of {tags[open_tags[-1]].name[:80]!a}" if open_tags else ""
                raise ValueError(f"{line}: not XML; got the end tag of {match['end'][:80]!a}{expected}")
            # Until now, the tag counted as one without content; the end tag completes it.
            index = open_tags.pop()
            tags[index] = tags[index]._replace(stop=match.start(), end=match.end())
            continue
        if tags and not open_tags:
            raise ValueError(f"{line}: not XML; got a second root element")
        attributes = len(_VALUE.findall(match["attributes"]))
        total_attributes += attributes
        # This is an upper bound, because it also counts what is in names and values.
        namespaces += match["attributes"].count("xmlns")
        for amount, limit, what in (
            (len(match[0]), TAG_LIMIT, "characters in a tag"),
            (len(tags) + 1, ELEMENT_LIMIT, "elements"),
            (len(open_tags) + 1, DEPTH_LIMIT, "elements inside each other"),
            (attributes, ATTRIBUTE_LIMIT, "attributes in an element"),
            (total_attributes, TOTAL_ATTRIBUTE_LIMIT, "attributes"),
            (namespaces, NAMESPACE_LIMIT, "namespace declarations"),
        ):
            if amount > limit:
                raise ValueError(f"{line}: more than {limit} {what}")
        if not match["attributes"].endswith("/"):
            open_tags.append(len(tags))
        tags.append(Tag(match["name"], line, match.start(), match.end(), match.end()))
    if open_tags:
        tag = tags[open_tags[-1]]
        raise ValueError(f"{tag.line}: not XML; {tag.name[:80]!a} has no end tag")
    if not tags:
        raise ValueError("1: not XML; no element found")
    return tags
