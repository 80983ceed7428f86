"""The reader of layers: what it reads, and what it refuses because readers of tar disagree about it."""

import tarfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.formats import layer_tar
from osc_containers.formats.layer_tar import Member
from tests.support.layer_tars import Writer, archive, file, header, pax
from tests.support.slices import slice_of


def members(content: bytes) -> list[Member]:
    with slice_of(content) as file_slice:
        return list(layer_tar.members(file_slice, len(content)))


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """Return the header of GNU tar for a long name, or with `K` for the target of a link."""
    return header(kind, kind, size=len(name)) + name.ljust(512, b"\0")


GOOD = {
    "no end": (file(b"a", b"x"), b"a"),
    "one block of zeros": (file(b"a") + bytes(512), b"a"),
    "old file": (archive(header(b"a", b"\0")), b"a"),
    "prefix": (archive(file(b"a", prefix=b"in")), b"in/a"),
    "prefix of star": (archive(file(b"a", prefix=b"in", trailer=b"tar\0")), b"in/a"),
    "prefix of old Go": (archive(file(b"a", magic=b"ustar  \0", prefix=b"in/it")), b"in/it/a"),
    "pax path": (archive(pax([(b"path", b"long")]), file(b"a")), b"long"),
    "pax header of each member": (
        archive(pax([(b"path", b"1")]), file(b"a"), pax([(b"uid", b"2")]), file(b"2")),
        b"1 2",
    ),
    "GNU name": (archive(long_name(b"new"), file(b"a")), b"new"),
    "GNU name and other pax records": (archive(pax([(b"uid", b"1")]), long_name(b"new"), file(b"a")), b"new"),
    "GNU name and the same in pax": (archive(pax([(b"path", b"new")]), long_name(b"new"), file(b"a")), b"new"),
}


@pytest.mark.parametrize(("content", "name"), GOOD.values(), ids=GOOD)
def test_names_are_read_as_by_go(content: bytes, name: bytes) -> None:
    assert [member.name for member in members(content)] == name.split()


def test_values_of_a_header() -> None:
    values = pax([(b"uid", b"4294967294"), (b"mtime", b"-1.5"), (b"SCHILY.xattr.user.a", b"=\n\0")])
    [member] = members(archive(values, file(b"a", b"12345", mode=0o107755, gid=b"\x80\0\0\0\0\0\1\0")))
    assert (member.mode, member.uid, member.gid, member.mtime) == (0o7755, 4294967294, 256, -1)
    assert (member.size, member.offset, member.xattrs) == (5, 1536, {b"user.a": b"=\n\0"})


def test_global_headers_have_no_effect() -> None:
    first, second = members(archive(pax([(b"path", b"x"), (b"uid", b"7")], b"g"), file(b"a")))
    assert (first.kind, second.name, second.uid) == (layer_tar.GLOBAL, b"a", 0)


def broken(block: bytes) -> bytes:
    return block[:148] + b"0000000\0" + block[156:]


BAD = {
    "cut off in a header": (file(b"a")[:100], "is cut off"),
    "cut off in a file": (file(b"a", b"x" * 600)[:-600], "bytes of content, expected at most"),
    "only an extended header": (pax([(b"path", b"x")]), "ends after an extended header"),
    "text": (b"not a tar archive" * 40, "got"),
    "checksum": (broken(file(b"a")), "wrong checksum"),
    "data behind the end": (archive(file(b"a")) + file(b"hidden"), "data after the end of the archive at byte"),
    "sparse of GNU": (header(b"a", b"S"), "'a': got a sparse file"),
    "sparse of pax": (pax([(b"GNU.sparse.major", b"1")]) + file(b"a"), "'a': got a sparse file"),
    "unknown type": (header(b"a", b"7"), "'a': got type b'7'"),
    "directory with content": (header(b"a", b"5", size=5) + bytes(512), "got 5 bytes of content for type"),
    "link without a target": (header(b"a", b"2"), "a link without a target"),
    "no name": (header(b""), "expected the name of a file"),
    "file with a slash": (header(b"a/"), "expected the name of a file"),
    "negative size": (header(b"a", raw_size=b"\xff" * 12), "size: got -1"),
    "size of 2^70": (header(b"a", raw_size=b"\x80\0\x40" + bytes(9)), "expected a number of at most 63 bits"),
    "no octal number": (header(b"a", mtime=b"99999999999"), "mtime: got '99999999999', expected an octal number"),
    "owner beyond 32 bits": (pax([(b"uid", b"4294967295")]) + file(b"a"), "uid: got 4294967295, expected at most"),
    "negative owner": (pax([(b"uid", b"-1")]) + file(b"a"), "pax record 'uid': got '-1', expected a number"),
    "size with an underscore": (pax([(b"size", b"1_0")]) + file(b"a"), "expected a number"),
    "endless size": (pax([(b"size", b"9" * 30)]) + file(b"a"), "expected a number"),
    "pax size beyond the end": (pax([(b"size", b"99999")]) + file(b"a"), "got 99999 bytes of content"),
    "bad time": (pax([(b"mtime", b"now")]) + file(b"a"), "expected a time in seconds"),
    "NUL in a path": (pax([(b"path", b"a\0b")]) + file(b"a"), "a NUL in the pax record 'path'"),
    "two paths": (pax([(b"path", b"a"), (b"path", b"b")]) + file(b"a"), "two pax records 'path'"),
    "empty pax path": (pax([(b"path", b"")]) + file(b"a"), "got an empty name"),
    "empty pax target": (pax([(b"linkpath", b"")]) + header(b"a", b"2", target=b"b"), "got an empty name"),
    "empty GNU name": (long_name(b"\0") + file(b"a"), "got an empty name"),
    "two pax headers": (
        pax([(b"path", b"1")]) + pax([(b"uid", b"2")]) + file(b"a"),
        "a second extended header of type",
    ),
    "two GNU names": (long_name(b"1") + long_name(b"2") + file(b"a"), "a second extended header of type b'L'"),
    "GNU name and another in pax": (
        pax([(b"path", b"1")]) + long_name(b"2") + file(b"a"),
        "the long name '2', and '1'",
    ),
    "GNU target and another in pax": (
        long_name(b"2", b"K") + pax([(b"linkpath", b"1")]) + header(b"a", b"2", target=b"b"),
        "the long name '2', and '1'",
    ),
    "record without a length": (header(b"x", b"x", size=8) + b"path=abc".ljust(512, b"\0") + file(b"a"), "bad pax"),
    "record that is too long": (header(b"x", b"x", size=8) + b"99 a=bc\n".ljust(512, b"\0") + file(b"a"), "bad pax"),
    "record without a key": (header(b"x", b"x", size=6) + b"6 =bc\n".ljust(512, b"\0") + file(b"a"), "bad pax"),
    "record of length 0": (header(b"x", b"x", size=6) + b"0 a=b\n".ljust(512, b"\0") + file(b"a"), "bad pax"),
    "large extended header": (header(b"x", b"x", size=1 << 30), "an extended header of 1073741824 bytes"),
    "extended header that is cut off": (header(b"x", b"x", size=5000), "an extended header of 5000 bytes"),
}


@pytest.mark.parametrize(("content", "problem"), BAD.values(), ids=BAD)
def test_what_readers_disagree_about_is_an_error(content: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("(", r"\(")):
        members(content)


names = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=150).filter(
    lambda name: name.strip("/") == name and "//" not in name
)


@given(
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.lists(st.tuples(names, st.binary(max_size=600), st.integers(0, 4294967294)), max_size=5),
)
def test_what_tarfile_writes_is_read(style: int, entries: list[tuple[str, bytes, int]]) -> None:
    writer = Writer(style)
    for name, content, uid in entries:
        writer.add(name, content=content, uid=uid)
    archive = writer.done()
    assert [(member.name.decode(), member.size, member.uid) for member in members(archive)] == [
        (name, len(content), uid) for name, content, uid in entries
    ]


@given(st.binary(max_size=3000))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with suppress(ValueError):
        assert all(member.offset + member.size <= len(content) for member in members(content))
