"""Generated descriptions, and why we refuse some that kiwi takes."""

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.sax.saxutils import quoteattr

from hypothesis import strategies as st

from tests.support.kiwi_peer import Selection


@dataclass(frozen=True, slots=True)
class Item:
    """A top-level piece of a description file, and why we refuse it although kiwi does not."""

    xml: str
    refusals: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a file is written."""

    declared: str
    codec: str
    mark: bytes = b""
    newline: str = "\n"


@dataclass(frozen=True, slots=True)
class File:
    """A file of a package."""

    items: tuple[Item, ...]
    encoding: Encoding

    def content(self, head: str, tail: str) -> bytes:
        """Return the bytes of the file, with `head` and `tail` around its items."""
        text = f'<?xml version="1.0" encoding="{self.encoding.declared}"?>\n{head}\n'
        text += "".join(f"{item.xml}\n" for item in self.items) + tail
        return self.encoding.mark + text.replace("\n", self.encoding.newline).encode(self.encoding.codec)


@dataclass(frozen=True, slots=True)
class Package:
    """A description, the files it includes by name, and what to ask of it."""

    schema: str
    main: File
    included: dict[str, File] = field(default_factory=dict)
    selections: tuple[Selection, ...] = ()

    @property
    def refusals(self) -> tuple[str, ...]:
        """All reasons in all files."""
        files = [self.main, *self.included.values()]
        return tuple(reason for file in files for item in file.items for reason in item.refusals)

    def write(self, directory: Path, edit: Callable[[bytes], bytes] = bytes) -> Path:
        """Write the package, each file through `edit`, and return its description."""
        path = directory / "appliance.kiwi"
        path.write_bytes(edit(self.main.content(f'<image schemaversion="{self.schema}" name="n">{BASE}', "</image>")))
        for name, file in self.included.items():
            (directory / name).write_bytes(edit(file.content("<image>", "</image>")))
        return path


BASE = """
  <description type="system"><author>a</author><contact>c</contact><specification>
  <![CDATA[<containers source="no.example.com" backend="podman"><container name="no"/></containers>]]>
  </specification></description>
  <preferences><version>1.0.0</version><packagemanager>zypper</packagemanager><type image="tbz"/></preferences>
  <repository type="rpm-md"><source path="obs://a/b"/></repository>
  <packages type="image"><package name="p"/></packages>
  <packages type="bootstrap"><package name="p"/></packages>"""

HEX = "0123456789abcdef" * 4


PROFILES = ("A", "B", "C", "with blank", " B", "Ü")


ARCHITECTURES = ("x86_64", "aarch64", "armv7l", "s390x", "riscv64", "ix86")


def attributes(**values: str | None) -> str:
    return "".join(f" {name}={quoteattr(value)}" for name, value in values.items() if value is not None)


def maybe(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[str | None]:
    return st.none() | strategy


architecture_lists = st.builds(
    lambda archs, blank: f"{blank}{','.join(archs)}{blank}",
    st.lists(st.sampled_from(ARCHITECTURES), min_size=1, max_size=3),
    st.sampled_from(["", "", "", " ", "\n"]),
)


booleans = st.sampled_from(["true", "false", "1", "0"])


profile_lists = st.one_of(
    st.lists(st.sampled_from(PROFILES), min_size=1, max_size=3).map(",".join),
    st.sampled_from(["", ",", "A, B", "A,,B", "A,", "none"]),
)


@st.composite
def profile_sections(draw: st.DrawFn) -> Item:
    profiles = []
    names = draw(st.lists(st.sampled_from(PROFILES), min_size=1, max_size=4))
    for name in names:
        others = st.sampled_from(PROFILES if draw(st.integers(0, 9)) == 0 else names)
        requires = "".join(
            f"<requires{attributes(profile=required, arch=arch)}/>"
            for required, arch in draw(st.lists(st.tuples(others, maybe(architecture_lists)), max_size=2))
        )
        values = attributes(
            name=name,
            description="d",
            arch=draw(maybe(architecture_lists)) if draw(st.integers(0, 3)) == 0 else None,
            **{"import": draw(maybe(booleans))},
        )
        profiles.append(f"<profile{values}>{requires}</profile>")
    return Item(f"<profiles>{''.join(profiles)}</profiles>", profiles=tuple(names))


ODD = st.text("aB1.-_/ ", max_size=6)


sources = st.one_of(
    st.sampled_from(["registry.opensuse.org", "docker.io", "localhost:5000", "registry.example.com/devel", "opensuse"]),
    st.sampled_from(
        [
            "registry.example.com/",
            "registry.example.com//a/",
            "./registry.example.com",
            "x/../localhost",
            ".",
            "localhost",
        ]
    ),
    st.sampled_from(
        ["REGISTRY.example.com", "oci:5000", "dir:1/x", "registry.example.com:443/a/./b", "index.docker.io"]
    ),
)


odd_sources = st.one_of(
    ODD,
    st.text("ab.:/@-1", max_size=8),
    st.sampled_from(
        ["https://registry.example.com", "obs://P/R", "obsrepositories:/", "/a", "a@b", "a:b/..", "x:", "?"]
    ),
)


paths = st.sampled_from(["", "a", "/a", "a/", "a//b", "./a", "a/./b", "..", "a/../b", "a-b__c.d", "team"])


names = st.sampled_from(["x", "app", "x/y", "./x", "/x", "a//x", "x-1.2_3", "tumbleweed", "x/./y"])


odd_names = st.one_of(ODD, st.sampled_from(["../x", "x/../y", "x/", "x/.", "X", "x#y", "x?y", "x..y", "ü", "x\u202e"]))


tags = st.sampled_from(["", "latest", "1.0", "v_1", "_", "A" * 128, "15.6-rc.1"])


odd_tags = st.one_of(ODD, st.sampled_from([".bad", "-bad", "a/..", "a/b", "A" * 129, "a#b", "ü"]))


_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"


_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[A-Fa-f0-9:]+\])(?::\d+)?"


_REPOSITORY = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"


_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"


def source_refusal(source: str) -> str | None:
    """Say why kiwi's registry is none."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:(?!\d{1,5}(/|$))", source):
        return "source with a scheme or a broken port"
    if "@" in source:
        return "source with an @"
    return None if source else "source that is empty"


def refusal(*, source: str, path: str, name: str, tag: str) -> str | None:
    """Say why no registry could be asked for the image that kiwi would ask for, by a grammar of its own.

    `name` is without tag and digest, as the generator made it.
    """
    if any(not value.isprintable() for value in (path, name, tag)):
        return "characters that cannot be printed"
    if ".." in name.split("/"):
        return "name with .."
    if tag and not re.fullmatch(_TAG, tag):
        return "no tag"
    image = posixpath.normpath(f"{source}/{path}/{name}:t").removesuffix(":t")
    first, slash, rest = image.partition("/")
    has_host = bool(slash) and (set(first) & set(".:") or first == "localhost" or first != first.lower())
    host, repository = (first, rest) if has_host else ("docker.io", image)
    if not re.fullmatch(_HOST, host):
        return "no registry"
    return None if re.fullmatch(_REPOSITORY, repository) else "no repository"


@st.composite
def containers(draw: st.DrawFn, source: str, odd: bool) -> Item:
    path = draw(maybe(paths | ODD if odd else paths))
    name = draw(names | odd_names if odd else names)
    tag = draw(maybe(odd_tags | tags if odd else tags))
    reason = refusal(source=source, path=path or "", name=name, tag=tag or "")
    # The same image, written in the ways that only we understand (kiwi joins them all the same).
    style = draw(st.sampled_from([*["plain"] * 6, "hex", "digest", "digest in tag", "both in tag", "tag in name"]))
    given_name, given_tag = {
        "plain": (name, tag),
        "hex": (f"{name}@sha256", HEX),
        "digest": (f"{name}@sha256:{HEX}", tag),
        "digest in tag": (name, f"sha256:{HEX}"),
        "both in tag": (name, f"{tag or 'latest'}@sha256:{HEX}"),
        "tag in name": (f"{name}:{tag or 'latest'}", None),
    }[style]
    values = attributes(
        name=given_name,
        path=path,
        tag=given_tag,
        arch=draw(maybe(architecture_lists)),
        fetch_only=draw(maybe(booleans)),
    )
    if style in ("hex", "digest in tag"):
        reason = refusal(source=source, path=path or "", name=name, tag="")
    inside = draw(st.sampled_from(["/>", "></container>", "> <!-- <container name='no'/> --></container>"]))
    return Item(f"<container{values}{inside}", (reason,) if reason else ())


@st.composite
def container_sections(draw: st.DrawFn) -> Item:
    odd = draw(st.integers(0, 11)) == 0
    source = draw(odd_sources | sources if odd else sources)
    inner = [draw(containers(source, odd)) for _ in range(draw(st.integers(1, 3)))]
    between = draw(st.sampled_from(["", "\n    ", " <!-- & < --> ", "<![CDATA[ ]]>", "<?target data?>"]))
    join = f"{between}\n"  # so that each has a line of its own to be named by
    refusals = tuple(reason for item in inner for reason in item.refusals)
    if reason := source_refusal(source):
        refusals = (reason,)
    values = attributes(
        source=source,
        backend=draw(st.sampled_from(["podman", "docker", "container-snap", "podman", " podman "])),
        arch=draw(maybe(architecture_lists)),
        profiles=draw(maybe(profile_lists)),
    )
    xml = f"  <containers{values}>{between}{join.join(item.xml for item in inner)}{between}</containers>"
    if draw(st.integers(0, 9)) == 0:
        xml = xml.replace("<containers", "<containers xmlns:k='urn:example:k'", 1)
    return Item(xml, refusals)


noise = st.sampled_from(
    [
        Item("<!-- <containers source='no.example.com' backend='podman'><container name='no'/></containers> -->"),
        Item("  <?target <containers/> ?>"),
        Item("<users><user name='u' password='&lt;containers>&#60;/containers>'/></users>"),
        Item("<drivers><file name='d'/></drivers><!-- ü -->"),
        Item("<packages type='image'><package name='containers'/></packages>"),
    ]
)


newlines = st.sampled_from(["\n", "\r\n"])


encodings = st.builds(
    lambda encoding, newline: replace(encoding, newline=newline),
    st.sampled_from(
        [
            Encoding("utf-8", "utf-8"),
            Encoding("UTF-8", "utf-8", b"\xef\xbb\xbf"),
            Encoding("utf-16", "utf-16-le", b"\xff\xfe"),
            Encoding("utf-8", "utf-16-be", b"\xfe\xff"),
            Encoding("utf-16", "utf-16-le"),
        ]
    ),
    newlines,
)


narrow_encodings = st.builds(
    lambda name, newline: Encoding(name, name, newline=newline),
    st.sampled_from(["iso-8859-1", "windows-1252", "iso-8859-15"]),
    newlines,
)
# Letters whose second byte is an ASCII character, where the encoding has such.
WIDE = {"shift_jis": "ソ表", "gb18030": "\U0001f600", "euc-jp": "日", "big5": "功"}


@st.composite
def files(draw: st.DrawFn, items: st.SearchStrategy[Item], includes: tuple[str, ...] = ()) -> File:
    chosen = draw(st.lists(items, max_size=4))
    chosen += [Item(f"<include from={quoteattr(draw(spellings) % name)}/>") for name in includes]
    text = "".join(item.xml for item in chosen)
    if text.isascii() and draw(st.integers(0, 3)) == 0:
        name = draw(st.sampled_from(list(WIDE)))
        chosen.append(Item(f"<!-- {WIDE[name]} --><users><user name='u' password='{WIDE[name]}'/></users>"))
        encoding = Encoding(name, name, newline=draw(newlines))
    else:
        narrow = all(ord(character) < 256 and not 0x80 <= ord(character) < 0xC0 for character in text)
        encoding = draw(encodings | narrow_encodings if narrow else encodings)
    return File(tuple(draw(st.permutations(chosen))), encoding)


spellings = st.sampled_from(["this://./%s", "this://%s", "%s", "./%s", "this://.//%s", ".//./%s"])


sections = container_sections() | container_sections() | profile_sections() | noise


@st.composite
def packages(draw: st.DrawFn) -> Package:
    names = tuple(f"c{number}.xml" for number in range(draw(st.sampled_from([0, 0, 1, 2]))))
    nested = ("nested.xml",) if names and draw(st.integers(0, 4)) == 0 else ()
    included = {name: draw(files(sections, nested)) for name in names}
    # kiwi never sees this one, so that its profiles would make a difference that is none of interest.
    included |= {name: draw(files(container_sections())) for name in nested}
    twice = names[:1] if draw(st.integers(0, 9)) == 0 else ()
    main = draw(files(sections, names + twice))
    declared = [name for file in (main, *included.values()) for item in file.items for name in item.profiles]
    none: st.SearchStrategy[list[str]] = st.just([])
    profiles = st.lists(st.sampled_from(declared), max_size=2) if declared else none
    if draw(st.integers(0, 9)) == 0:
        profiles = st.sampled_from([["A"], ["none"]])
    selection = st.builds(Selection, st.sampled_from([*ARCHITECTURES, "loongarch64"]), profiles.map(tuple))
    return Package(
        schema=draw(st.sampled_from(["7.4", "7.5", "7.6", "8.0", "8.1", "8.2", "8.3", "8.4", "8.5"])),
        main=main,
        included=included,
        selections=tuple(draw(st.lists(selection, min_size=1, max_size=4))),
    )
