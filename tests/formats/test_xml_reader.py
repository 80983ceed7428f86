"""XML from strangers: where its elements are, and what is refused before it does harm."""

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.formats import xml_reader

HEAD = '<?xml version="1.0" encoding="utf-8"?>\n'


def doctype(*declarations: str) -> str:
    return f"<!DOCTYPE a [{' '.join(declarations)}]>\n"


def laughs(depth: int) -> str:
    names = "abcdefghijklmnop"
    first = '<!ENTITY a "ha ha ha ha">'
    return doctype(first, *(f'<!ENTITY {names[i + 1]} "{f"&{names[i]};" * 10}">' for i in range(depth)))


def test_elements_come_with_their_lines_and_attributes() -> None:
    xml = (
        b"<?xml version='1.0'?>\n<a>\n  <b x='1'>\n    <c\n y='&lt;2'/>t</b>\n  <skipped/><k:b xmlns:k='urn:k'/>\n</a>"
    )
    root = xml_reader.parse(xml, "file", ("b",))
    first, second = root.children
    assert (root.name, root.line) == ("a", 2)
    assert (first.name, first.line, first.attributes, first.has_text) == ("b", 3, {"x": "1"}, True)
    assert [(c.name, c.line, c.attributes, c.has_text) for c in first.children] == [("c", 4, {"y": "<2"}, False)]
    assert (second.name, second.line) == ("urn:k b", 6)


def test_lines_are_counted_beyond_what_fits_in_two_bytes() -> None:
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
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_elements_are_cut_out_of_every_encoding(codec: str, declared: str, mark: bytes, newline: str) -> None:
    letter = "й" if codec == "koi8-r" else "ü"
    start = f'<?xml version="1.0" encoding="{declared}"?>\n<a x="{letter}">\n'
    end = f"  <d>{letter}</d>\n</a>\n"
    xml = f"{start}  <b>\n    <!-- {letter} </b> --><c/>\n  </b >\n \t<b/>  \n{end}"

    def encoded(text: str) -> bytes:
        return mark + text.replace("\n", newline).encode(codec)

    assert xml_reader.without(encoded(xml), "b") == encoded(start + end)


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
        (doctype('<!ENTITY e "x">') + "<a>&e;<b>&e;</b>&e;</a>", doctype('<!ENTITY e "x">') + "<a>&e;&e;</a>"),
    ],
)
def test_only_children_of_the_root_are_cut_out(xml: str, expected: str | None) -> None:
    assert xml_reader.without(xml.encode(), "b").decode() == (xml if expected is None else expected)


@given(st.lists(st.sampled_from(["<b/>", "<b>x</b>", "<b><c/></b>", "<c/>", " ", "\n", "\t", "<!-- <b/> -->", "t"])))
def test_what_is_cut_out_is_the_elements_and_blanks(pieces: list[str]) -> None:
    xml = f"<a>{''.join(pieces)}</a>".encode()
    rest = "".join(piece for piece in pieces if not piece.startswith("<b"))
    left = xml_reader.without(xml, "b").decode()
    assert "".join(left.split()) == "".join(f"<a>{rest}</a>".split())
    assert left.count("<b") == rest.count("<b")


_DTD = "refers to a DTD in another file or a parameter entity, which are never read; remove it"


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("", "file:1: not XML; no element found"),
        ("not xml", "file:1: not XML; syntax error"),
        ("\n\n<a>\n<b></a>", "file:4: not XML; mismatched tag"),
        ("<a/>\n<b/>", "file:2: not XML; junk after document element"),
        ("<a>\0</a>", "file:1: not XML; not well-formed (invalid token)"),
        ("<a>&unknown;</a>", "file:1: not XML; undefined entity"),
        ("<a><k:b/></a>", "file:1: not XML; unbound prefix"),
        ("<a x='1' x='2'/>", "file:1: not XML; duplicate attribute"),
        ("<?xml version='1.0' encoding='shift_jis'?><a/>", None),
        ("<?xml version='1.0' encoding='no-such'?><a/>", None),
        ("<?xml version='1.0' encoding='hex'?><a/>", None),
        ("<a>" * 257 + "</a>" * 257, "file:1: elements are nested too deeply, expected at most 256"),
        ("<a>" + "<b/>" * 20_000 + "</a>", "file:1: more than 20000 elements"),
        ("<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", f"file:1: {_DTD}"),
        ("<!DOCTYPE a PUBLIC 'x' 'http://127.0.0.1/x.dtd'><a/>", f"file:1: {_DTD}"),
        ("<?xml version='1.0' standalone='yes'?><!DOCTYPE a SYSTEM 'x'><a/>", f"file:1: {_DTD}"),
        (doctype("%p;") + "<a/>", f"file:1: {_DTD}"),
        (
            doctype("<!ENTITY e SYSTEM 'file:///etc/passwd'>") + "<a>&e;</a>",
            "file:1: entity 'e' is in another file, which is never read; remove it",
        ),
        (
            doctype("<!ENTITY e SYSTEM 'x' NDATA n>") + "<a/>",
            "file:1: entity 'e' is in another file, which is never read; remove it",
        ),
        (
            doctype("\n<!ENTITY % p \"<!ENTITY e 'x'>\">%p;") + "<a>&e;</a>",
            "file:2: parameter entity 'p'; expected entities that are plain texts",
        ),
        (doctype("<!ENTITY e '<b/>'>") + "<a>&e;</a>", "file:1: entity 'e' holds markup; write it where it is used"),
        (doctype("<!ENTITY e '&#60;b/>'>") + "<a/>", "file:1: entity 'e' holds markup; write it where it is used"),
        (doctype(f"<!ENTITY e '{'x' * 4097}'>") + "<a/>", "file:1: entity 'e' has 4097 characters, expected 4096"),
        (doctype(*(f"<!ENTITY e{i} 'x'>" for i in range(101))) + "<a/>", "file:1: more than 100 entities"),
        (laughs(9) + "<a>&j;</a>", "file:1: entities could expand to more than 16777216 characters"),
        (laughs(15) + "<a x='&p;'/>", "file:1: entities could expand to more than 16777216 characters"),
        (
            doctype("<!ENTITY e '&f;'>", "<!ENTITY f '&e;'>") + "<a>&e;</a>",
            "file:1: entities could expand to more than 16777216 characters",
        ),
        (
            doctype(f"<!ENTITY e '{'x' * 4000}'>") + "<a>" + "&e;" * 5000 + "</a>",
            "file:1: entities could expand to more than 16777216 characters",
        ),
    ],
)
def test_what_is_refused_is_named_with_its_line(xml: str, message: str | None) -> None:
    message = message or "file:1: unknown encoding, expected UTF-8, UTF-16 or one of a byte for a letter"
    with pytest.raises(ValueError, match=r"^file:") as caught:
        xml_reader.parse(xml.encode(), "file", ("b",))
    assert str(caught.value) == message


def test_a_file_of_more_than_the_limit_is_refused_unread() -> None:
    with pytest.raises(ValueError, match=r"^file: has more than 4194304 bytes, too many for such a file$"):
        xml_reader.parse(b" " * (xml_reader.SIZE_LIMIT + 1), "file")


@pytest.mark.parametrize(
    "xml",
    [
        doctype(*(f"<!ENTITY e{i} '{'&e0;' * 1000}'>" for i in range(100))) + "<a/>",
        "<a>" + "<c/>" * 900_000 + "</a>",
        "<a>" + "<!---->" * 500_000 + "</a>",
        "<a x='" + "&#65;" * 800_000 + "'/>",
        "<a " + " ".join(f"x{i}=''" for i in range(300_000)) + "/>",
        "<a>" + "x" * 4_000_000 + "</a>",
        doctype("<!ENTITY e 'x'>", f"<!ATTLIST c y CDATA '{'x' * 60_000}'>") + "<a>" + "<c/>" * 800_000 + "</a>",
        "<a>" + (" " * 1000 + "<b/>") * 4000 + "</a>",
    ],
    ids=["entities", "elements", "comments", "references", "attributes", "text", "defaults", "blanks"],
)
def test_no_file_within_the_limit_takes_long_or_much(xml: str) -> None:
    content = xml.encode()
    assert len(content) <= xml_reader.SIZE_LIMIT
    started = time.process_time()
    tracemalloc.start()
    try:
        xml_reader.without(content, "b")
    except ValueError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert time.process_time() - started < 20
    assert peak < 200 << 20


@given(st.text("<>/ab='\"&;!-[]?% \n", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        xml_reader.without(f"<a>{text}</a>".encode(), "b")
    except ValueError as error:
        said = str(error)
    else:
        said = "XML file:1"
    assert said.startswith("XML file:1") or "\n" in text


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        xml_reader.without(content, "b")
    except ValueError as error:
        said = str(error)
    else:
        said = "XML file:"
    assert said.startswith("XML file:")
