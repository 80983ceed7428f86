"""Untrusted XML: where its elements are, which errors are reported, and that time and memory are bounded."""

import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from osc_containers.formats import xml_editor, xml_reader, xml_tags

HEAD = '<?xml version="1.0" encoding="utf-8"?>\n'


def doctype(*declarations: str) -> str:
    return f"<!DOCTYPE a [{' '.join(declarations)}]>\n"


def numbered(attribute: str, count: int) -> str:
    before, _, after = attribute.partition("{}")
    return before + f"{after} {before}".join(map(str, range(count))) + after


def declared(encoding: str, body: str = "<a/>") -> bytes:
    return f"<?xml version='1.0' encoding='{encoding}'?>{body}".encode()


def test_elements_have_their_lines_and_attributes() -> None:
    xml = (
        b"<?xml version='1.0'?>\n<a>\n  <b x='1'>\n    <c\n y='&lt;2'/>t</b>\n  <skipped/><k:b xmlns:k='urn:k'/>\n</a>"
    )
    root = xml_reader.parse(xml, "file", ("b",))
    first, second = root.children
    assert (root.name, root.line) == ("a", 2)
    assert (first.name, first.line, first.attributes, first.has_text) == ("b", 3, {"x": "1"}, True)
    assert [(c.name, c.line, c.attributes, c.has_text) for c in first.children] == [("c", 4, {"y": "<2"}, False)]
    assert (second.name, second.line) == ("{urn:k}b", 6)


def test_lines_are_counted_beyond_65535() -> None:
    root = xml_reader.parse(b"<a>" + b"\n" * 100_000 + b"<b/></a>", "file", ("b",))
    assert root.children[0].line == 100_001


@pytest.mark.parametrize(
    ("codec", "declared", "mark"),
    [
        ("utf-8", "utf-8", b""),
        ("utf-8", "utf-8", b"\xef\xbb\xbf"),
        ("utf-16-le", "utf-16", b"\xff\xfe"),
        ("utf-16-be", "utf-16", b"\xfe\xff"),
        ("utf-16-le", "utf-16", b""),
        ("utf-16-be", "utf-8", b"\xfe\xff"),
        ("iso-8859-1", "ISO-8859-1", b""),
        ("cp1252", "windows-1252", b""),
        ("koi8-r", "koi8-r", b""),
        ("shift_jis", "Shift_JIS", b""),
        ("gb18030", "GB18030", b""),
        ("euc-jp", "EUC-JP", b""),
        ("big5", "Big5", b""),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_elements_are_removed_in_every_encoding(codec: str, declared: str, mark: bytes, newline: str) -> None:
    letter = {"koi8-r": "й", "shift_jis": "ソ", "gb18030": "\U0001f600", "euc-jp": "日", "big5": "功"}.get(codec, "ü")
    start = f'<?xml version="1.0" encoding="{declared}"?>\n<a x="{letter}">\n'
    end = f"  <d>{letter}</d>\n</a>\n"
    xml = f"{start}  <b>\n    <!-- {letter} </b> --><c/>\n  </b >\n \t<b/>  \n{end}"

    def encoded(text: str) -> bytes:
        return mark + text.replace("\n", newline).encode(codec)

    assert xml_editor.remove(encoded(xml), "b") == encoded(start + end)
    root = xml_reader.parse(encoded(xml), "file", ("d",))
    assert (root.attributes, root.children[0].text) == ({"x": letter}, letter)


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        ("<a><b/></a>", "<a></a>"),
        ("<a><b></b></a>", "<a></a>"),
        ("<a>\n<b\n/>\n</a>", "<a>\n</a>"),
        ("<a>\n  <b/> <!-- why -->\n</a>", "<a>\n   <!-- why -->\n</a>"),
        ("<a>\n  <c/> <b/>\n</a>", "<a>\n  <c/> \n</a>"),
        ("<a>\n  <b/> <b/>\t<b/>\n</a>", "<a>\n</a>"),
        ("<a>\n  <b/> <c/> <b/>\n</a>", "<a>\n   <c/> \n</a>"),
        ("<a>\n  <b/>\n\n  <b/>\n</a>", "<a>\n\n</a>"),
        ("<a>\n  <b/></a>", "<a>\n  </a>"),
        ("<a><b/>\n</a>", "<a>\n</a>"),
        ("<a x='<b/>'/>".replace("<b", "&lt;b"), "<a x='&lt;b/>'/>"),
        ("<a><!-- <b/> --><![CDATA[<b></b>]]><?b <b/>?></a>", None),
        ("<a><c><b/></c></a>", None),
        ("<a xmlns='urn:a'><b/></a>", None),
        ("<a xmlns:k='urn:a'><k:b/><b xmlns='urn:b'/></a>", None),
        ("<a><bb/><b-b/><b.b/></a>", None),
        ("<a><b x='>' y='/>'/></a>", "<a></a>"),
        ("<a><b x='</b>'>></b\n></a>".replace("'</", "'&lt;/"), "<a></a>"),
        ("<a><b><b/></b></a>", "<a></a>"),
        ("<a/>", None),
    ],
)
def test_only_children_of_the_root_are_removed(xml: str, expected: str | None) -> None:
    assert xml_editor.remove(xml.encode(), "b").decode() == (xml if expected is None else expected)


@given(st.lists(st.sampled_from(["<b/>", "<b>x</b>", "<b><c/></b>", "<c/>", " ", "\n", "\t", "<!-- <b/> -->", "t"])))
def test_only_elements_and_white_space_are_removed(pieces: list[str]) -> None:
    xml = f"<a>{''.join(pieces)}</a>".encode()
    rest = "".join(piece for piece in pieces if not piece.startswith("<b"))
    left = xml_editor.remove(xml, "b").decode()
    assert "".join(left.split()) == "".join(f"<a>{rest}</a>".split())
    assert left.count("<b") == rest.count("<b")


_DOCTYPE = "DOCTYPE is not supported; remove it, and replace the entities that it defines"
_NO_TAG = "not XML; '<' begins no complete tag; write '&lt;' for the character itself"
_CHARACTER = "not XML; a character is not allowed, or not valid in the encoding of the file"
_NO_NAME = "not XML; '<' or '&' has no name behind it; write '&lt;' or '&amp;' for the character itself"


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("", "1: not XML; no element found"),
        ("not xml", "1: not XML; no element found"),
        ("x <a/>", "1: not XML; got text outside of the root element"),
        ("<a/>\nx", "2: not XML; got text outside of the root element"),
        ("<a>\n<b></b>", "1: not XML; 'a' has no end tag"),
        ("\n\n<a>\n<b></a>", "4: not XML; got the end tag of 'a', expected that of 'b'"),
        ("<a/>\n</b>", "2: not XML; got the end tag of 'b'"),
        ("<a/>\n<b/>", "2: not XML; got a second root element"),
        ("<a>\n1 < 2</a>", f"2: {_NO_TAG}"),
        ("<a x='<'/>", f"1: {_NO_TAG}"),
        ("<a", f"1: {_NO_TAG}"),
        ("<a><![CDATA[</a>", f"1: {_NO_TAG}"),
        ("<a>\n<!-- -- --></a>", "2: not XML; a comment has '--' in it"),
        ("<a>\n<!----->-->", "2: not XML; a comment has '--' in it"),
        ("<a>\n<!-- </a>", f"2: {_NO_TAG}"),
        ("<a>\n<!--> </a>", f"2: {_NO_TAG}"),
        ("<a>\n\0</a>", "2: not XML; got a null character"),
        ("<a/>\0", "1: not XML; got a null character"),
        ("<a>\n\1</a>", f"2: {_CHARACTER}"),
        ("<a>&#0;</a>", f"1: {_CHARACTER}"),
        (b"<a>\n\xff</a>", f"2: {_CHARACTER}"),
        ("<a>\n&unknown;</a>", "2: not XML; Entity 'unknown' not defined"),
        ("<a x='&unknown;'/>", "1: not XML; Entity 'unknown' not defined"),
        ("<a>&amp</a>", "1: not XML; an entity has no ';'; write '&amp;' for the character '&' itself"),
        ("<a>1 & 2</a>", f"1: {_NO_NAME}"),
        ("<a><1/></a>", f"1: {_NO_NAME}"),
        ("<a><?></a>?></a>", "1: not XML; '<?' has no name behind it"),
        ("<a x=1/>", "1: not XML; an attribute's value has no quotes"),
        ("<a x/>", "1: not XML; an attribute has no value"),
        ("<a x='1'y='2'/>", "1: not XML; white space is missing between two attributes"),
        ("<a x='1' x='2'/>", "1: not XML; Attribute x redefined"),
        ("<a><k:b/></a>", "1: not XML; Namespace prefix k on b is not defined"),
        ("<a>\n<b k:x=''/></a>", "2: not XML; Namespace prefix k for x on b is not defined"),
        ("<a xmlns:k='u' xmlns:l='u' k:x='' l:x=''/>", "1: not XML; Namespaced Attribute x in 'u' redefined"),
        (declared("utf-16"), "1: encoding 'utf-16' is not supported; save the file as UTF-8"),
        (declared("no-such"), "1: encoding 'no-such' is not supported; save the file as UTF-8"),
        (declared("punycode"), "1: encoding 'punycode' is not supported; save the file as UTF-8"),
        ("<a>" * 257 + "</a>" * 257, "1: more than 256 elements inside each other"),
        ("<a>\n" + "<b/>" * 100_000 + "</a>", "2: more than 100000 elements"),
        (f"<a x='{'y' * 65536}'/>", "1: more than 65536 characters in a tag"),
        ("<a " + numbered("x{}=''", 251) + "/>", "1: more than 250 attributes in an element"),
        ("<a " + numbered("x{}=''", 3000) + "/>", "1: more than 250 attributes in an element"),
        ("<a>" + "<b x='' y='' z=''/>" * 70_000 + "</a>", "1: more than 200000 attributes"),
        ("<a>" + "<b xmlns='urn:b'/>" * 1001 + "</a>", "1: more than 1000 namespace declarations"),
        ("\n<!DOCTYPE a><a/>", f"2: {_DOCTYPE}"),
        ("<!-- -->\n<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", f"2: {_DOCTYPE}"),
        ("<!DOCTYPE a PUBLIC 'x' 'http://127.0.0.1/x.dtd'><a/>", f"1: {_DOCTYPE}"),
        (doctype("<!ENTITY e 'x'>") + "<a>&e;</a>", f"1: {_DOCTYPE}"),
        (doctype("<!ENTITY % p \"<!ENTITY e 'x'>\">%p;") + "<a>&e;</a>", f"1: {_DOCTYPE}"),
        (doctype("<!ENTITY e '&e;&e;'>") + "<a>&e;</a>", f"1: {_DOCTYPE}"),
        (("\ufeff" + doctype("<!ENTITY e 'x'>") + "<a/>").encode("utf-16-be"), f"1: {_DOCTYPE}"),
        ("\ufeff<?xml version='1.0'?>\n<!DOCTYPE a><a/>".encode("utf-16-le"), f"2: {_DOCTYPE}"),
        ("<?xml version='1.0'?>\n<!DOCTYPE a><a/>".encode("utf-16-le"), f"2: {_DOCTYPE}"),
        (b"\xff\xfe<\0a\0/\0>\0x", "1: not XML; invalid UTF-16"),
    ],
)
def test_an_error_has_its_line(xml: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=r"^file:") as caught:
        xml_reader.parse(xml if isinstance(xml, bytes) else xml.encode(), "file", ("b",))
    assert str(caught.value) == f"file:{message}"


@pytest.mark.parametrize(
    ("encoding", "codec"),
    [("UTF-7", "utf-7"), ("ISO-2022-JP", "iso2022_jp"), ("hz-gb-2312", "hz"), ("cp037", "ascii"), ("johab", "johab")],
)
def test_encodings_that_could_hide_markup_are_refused(encoding: str, codec: str) -> None:
    """Characters of UTF-7 may be written as others, so that "+ADw-" is "<"; in the others, "<" may be half a letter."""
    text = "<?xml version='1.0' encoding='ENCODING'?><a><!-- 가 日 --></a>".replace("ENCODING", encoding)
    with pytest.raises(ValueError, match=rf"^file:1: encoding '{encoding}' is not supported; save the file as UTF-8$"):
        xml_reader.parse(text.encode(codec, "replace"), "file")


def test_an_element_that_only_lxml_sees_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xml_tags, "_has_ascii_markup", lambda encoding: True)
    with pytest.raises(ValueError, match=r"^file:1: the encoding is ambiguous; save the file as UTF-8$"):
        xml_reader.parse(declared("utf-7", "<a>+ADw-b/+AD4-</a>"), "file", ("b",))


def test_nothing_else_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    include = f'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{tmp_path}/secret" parse="text"/>'
    stylesheet = f'<?xml-stylesheet type="text/xsl" href="{tmp_path}/secret"?>'
    root = xml_reader.parse(f"{stylesheet}<a>{include}</a>".encode(), "file", ("include",))
    assert [(child.text, child.children) for child in root.children] == [("", ())]


def test_a_file_of_more_than_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^file: has more than 4194304 bytes, too many for such a file$"):
        xml_reader.parse(b" " * (xml_reader.SIZE_LIMIT + 1), "file")


def laughs() -> str:
    names = "abcdefghij"
    entities = (f'<!ENTITY {after} "{f"&{name};" * 10}">' for name, after in pairwise(names))
    return doctype('<!ENTITY a "ha ha ha ha">', *entities) + "<a x='&j;'>&j;</a>"


# Each is near a limit, or makes an old libxml2 collect errors or compare everything with everything.
BOMBS = {
    "laughs": laughs(),
    "quadratic entities": doctype(f"<!ENTITY e '{'x' * 100_000}'>") + f"<a>{'&e;' * 100_000}</a>",
    "elements": "<a>" + "<c/>" * 900_000 + "</a>",
    "kept elements": "<a>" + "<b/>" * 99_999 + "</a>",
    "elements with attributes": "<a>" + "<b x='' y=''/>" * 99_999 + "</a>",
    "depth": "<a>" * 800_000,
    "comments": "<a>" + "<!---->" * 500_000 + "</a>",
    "a comment": "<a><!--" + "- " * 2_000_000 + "--></a>",
    "hyphens": "<a><!--" + "-" * 4_000_000,
    "instructions": "<a>" + "<?a?>" * 800_000 + "</a>",
    "an instruction": "<a><?a " + "?" * 4_000_000,
    "sections": "<a>" + "<![CDATA[]]>" * 300_000 + "</a>",
    "a section": "<a><![CDATA[" + "]" * 4_000_000,
    "references": "<a>" + "&#65;" * 800_000 + "</a>",
    "references in attributes": "<a>" + f"<c x='{'&#65;' * 13_000}'/>" * 60 + "</a>",
    "bad references": "<a>" + f"<c x='{'&x;' * 21_000}'/>" * 60 + "</a>",
    "an attribute": "<a x='" + "y" * 4_000_000 + "'/>",
    "attributes": "<a " + numbered("x{}=''", 300_000) + "/>",
    "many attributes": "<a>" + ("<c " + numbered("x{}=''", 250) + "/>") * 799 + "</a>",
    "unfinished attributes": "<a " + numbered("x{}=''", 300_000),
    "hidden attributes": "<a><?><b " + numbered("x{}=''", 300_000) + "/>?></a>",
    "prefixes": "<a>" + ("<c " + numbered("k:x{}=''", 250) + "/>") * 799 + "</a>",
    "namespaces": "<a " + numbered("xmlns:k{}='u'", 250) + ">" + "<k0:b/>" * 99_000 + "</a>",
    "a name": "<" + "a" * 4_000_000 + "/>",
    "text": "<a>" + "x" * 4_000_000 + "</a>",
    "brackets": "<a>" + ">" * 4_000_000 + "</a>",
    "tags": "<" * 4_000_000,
    "quotes": "<a " + "'\"" * 2_000_000,
    "ampersands": "<a>" + "&" * 4_000_000 + "</a>",
    "control characters": "<a>" + "\1" * 4_000_000 + "</a>",
    "lines": "<a>" + "\n" * 4_000_000 + "</a>",
    "blanks": "<a>" + (" " * 1000 + "<b/>") * 4000 + "</a>",
    "blanks in a tag": "<a" + " " * 4_000_000 + "/>",
    "declarations": "<?xml version='1.0' " + "encoding='punycode' " * 200_000 + "?><a/>",
    "spaces": "<a>" + "<b xml:space='?'/>" * 99_000 + "</a>",
}


_READ = """
import re
import sys
import time
from pathlib import Path
from osc_containers.formats import xml_editor
try:
    xml_editor.remove(Path(sys.argv[1]).read_bytes(), "b")
    print()
except ValueError as error:
    print(error)
# Not the peak of getrusage(2): Linux counts the memory of the process that started this one into that.
print(time.process_time(), re.search(r"VmHWM:\\s*([0-9]+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.sampled(every=6)
@pytest.mark.parametrize("name", BOMBS)
def test_time_and_memory_are_bounded(name: str, tmp_path: Path) -> None:
    """In a process of its own, so that libxml2's memory counts, too."""
    content = BOMBS[name].encode()
    assert len(content) <= xml_reader.SIZE_LIMIT
    (tmp_path / "file").write_bytes(content)
    done = subprocess.run([sys.executable, "-c", _READ, tmp_path / "file"], capture_output=True, text=True, check=True)
    message, used = done.stdout.splitlines()
    seconds, kibibytes = used.split()
    assert message.isprintable()
    assert len(message) < 1000
    assert float(seconds) < 20
    assert int(kibibytes) < 250 << 10


def read_by_kiwi(xml: bytes) -> list[tuple[str, dict[str, str]]]:
    """Return the elements that kiwi's parser reads, none if it refuses the file."""
    try:
        root = etree.parse(BytesIO(xml)).getroot()
    except etree.XMLSyntaxError:
        return []
    return [(str(element.tag), dict(element.attrib)) for element in root.iter(etree.Element)]


def read_by_us(xml: bytes, keep: set[str]) -> list[tuple[str, dict[str, str]]]:
    try:
        root = xml_reader.parse(xml, "file", keep)
    except ValueError as error:
        return [] if str(error).startswith("file:") else [(str(error), {})]
    return list(flat(root))


def flat(element: xml_reader.Element) -> Iterator[tuple[str, dict[str, str]]]:
    yield element.name, dict(element.attributes)
    for child in element.children:
        yield from flat(child)


@given(st.text("<>/ab='\"&;!-[]?k:% \n", max_size=40))
def test_any_text_is_read_as_kiwi_reads_it(text: str) -> None:
    xml = f"<a xmlns:k='u'>{text}</a>".encode()
    expected = read_by_kiwi(xml)
    assert read_by_us(xml, {name.rpartition("}")[2] for name, _ in expected}) == expected


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        xml_editor.remove(content, "b")
    except ValueError as error:
        said = str(error)
    else:
        said = "XML file:"
    assert said.startswith("XML file:")
