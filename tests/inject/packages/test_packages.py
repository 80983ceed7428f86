"""The packages in a container are those that dpkg, rpm and syft list, also after later layers remove some of them."""

import io
import json
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from osc_containers.cli.main import main
from osc_containers.evidence.sbom.component import Component, inventory
from osc_containers.evidence.sbom.document import FORMATS, render
from osc_containers.inject.packages import databases, installed, rpm_databases, text_databases
from osc_containers.inject.packages.databases import Databases, Layer
from osc_containers.inject.packages.installed import Installed
from osc_containers.inject.packages.record import Record, Release, parse_release, to_package
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Descriptor
from osc_containers.oci.reference import Reference
from tests.support import images, packages, scanners
from tests.support.docker_registry import DockerRegistry
from tests.support.policy_oracle import make_system
from tests.support.sbom_validators import canonical, problems
from tests.support.slices import slice_of

BLOB = Descriptor(digest=Digest.of(b"blob"), size=4, media_type="application/octet-stream")
RPM = "usr/lib/sysimage/rpm"
STATUS = b"""\
Package: base
Status: install ok installed
Architecture: amd64
Version: 1:2.0+x~1-3
Description: several
 lines: with a colon
 .
 Package: no

Package: removed
Status: deinstall ok config-files
Version: 1

Package: half
Status: install ok half-installed
Version: 1
"""
APK = b"C:Q1\nP:Musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\nF:lib\nR:x\n\nP:busybox\nV:1.36-r1\nA:x86_64\nL:GPL-2.0-only\n\n"


def read(*layers: bytes, diff_ids: Sequence[Digest] = ()) -> Installed:
    """Return the packages in layers that are tar archives, the lowest first."""
    with ExitStack() as stack:
        found = databases.find(
            [
                Layer(
                    Descriptor(digest=Digest.of(layer), size=len(layer), media_type=""),
                    diff_ids[number] if diff_ids else Digest.of(layer),
                    stack.enter_context(slice_of(layer)),
                )
                for number, layer in enumerate(layers)
            ]
        )
    return installed.of_databases(found)


def names(found: Installed) -> list[str]:
    return [f"{each.name} {each.version}" for each in found.packages]


def layer(files: Mapping[str, bytes]) -> bytes:
    return images.layer(files, compression="none").content


def test_states_and_fields_of_dpkg_count() -> None:
    found = read(layer({"var/lib/dpkg/status": STATUS, "etc/os-release": b'NAME="x"\nID=debian\nVERSION_ID="12"\n'}))
    assert found.gaps == ()
    [base] = found.packages
    assert (base.name, base.version) == ("base", "1:2.0+x~1-3")
    assert base.purl == "pkg:deb/debian/base@1:2.0%2Bx~1-3?arch=amd64&distro=debian-12"


def test_images_without_a_package_manager_have_files_of_single_packages() -> None:
    files = {"var/lib/dpkg/status.d/base": b"Package: base\nVersion: 1\n", "var/lib/dpkg/status.d/base.md5sums": b"x"}
    assert names(read(layer(files))) == ["base 1"]


def test_each_package_counts_once() -> None:
    twice = b"P:a\nV:1\nL:MIT\n\nP:A\nV:1\nL:ISC\n\nP:b\n\n"
    assert [each.purl for each in read(layer({"lib/apk/db/installed": twice})).packages] == ["pkg:apk/a@1", "pkg:apk/b"]


def test_licences_of_apk_are_read() -> None:
    found = read(layer({"lib/apk/db/installed": APK}))
    assert [(each.name, each.license, each.purl) for each in found.packages] == [
        ("Musl", "MIT", "pkg:apk/musl@1.2.5-r0?arch=x86_64"),
        ("busybox", "GPL-2.0-only", "pkg:apk/busybox@1.36-r1?arch=x86_64"),
    ]


ONE, TWO = (f"Package: {name}\nVersion: 1\n".encode() for name in ("one", "two"))
DPKG = "var/lib/dpkg/status"


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([{DPKG: ONE}, {DPKG: TWO}], ["two 1"]),
        ([{DPKG: ONE}, {"var/lib/dpkg/.wh.status": b""}], []),
        ([{DPKG: ONE}, {"var/lib/.wh.dpkg": b""}], []),
        ([{DPKG: ONE}, {".wh.var": b""}], []),
        ([{DPKG: ONE}, {"var/lib/dpkg/.wh..wh..opq": b""}], []),
        ([{DPKG: ONE}, {".wh..wh..opq": b""}], []),
        ([{DPKG: ONE}, {"var/lib/dpkg": b"a file"}], []),
        ([{DPKG: ONE}, {"var/lib/.wh.dpk": b"", "var/lib/dpkg/.wh.statu": b""}], ["one 1"]),
        # A whiteout is for what is below its layer.
        ([{DPKG: ONE}, {DPKG: TWO, "var/lib/dpkg/.wh..wh..opq": b""}], ["two 1"]),
        ([{DPKG: ONE, "var/lib/dpkg/status.d/x": TWO}, {"var/lib/dpkg/.wh.status.d": b""}], ["one 1"]),
        ([{"./" + DPKG: ONE}, {"lib/apk/db/installed": b"P:apk\nV:1\n\n"}], ["apk 1", "one 1"]),
        ([{"x/../" + DPKG: ONE, "srv/" + DPKG: TWO}], []),
    ],
)
def test_layers_delete_and_replace(layers: Sequence[Mapping[str, bytes]], expected: Sequence[str]) -> None:
    found = read(*map(layer, layers))
    assert (names(found), found.gaps) == (expected, ())


def _links(links: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO(layer({}))
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        for name, target in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "gap"),
    [
        (layer({"var/lib/rpm/Packages": b"x"}), "'var/lib/rpm/Packages': Berkeley DB is not supported"),
        (layer({f"{RPM}/rpmdb.sqlite-wal": b"x"}), "write-ahead log"),
        (layer({f"{RPM}/rpmdb.sqlite": b"x" * 5000}), "sqlite cannot read it"),
        (layer({f"{RPM}/Packages.db": b"x" * 5000}), "not a database of rpm (ndb)"),
        (_links({DPKG: "/x"}), "'var/lib/dpkg/status': it is not a regular file"),
        (_links({"var/lib/dpkg": "/opt/dpkg"}), "'var/lib/dpkg': it is a link to '/opt/dpkg'"),
        (b"x" * 1024, "expected an octal number"),
        (b"BZh" + b"x" * 1024, "compressed with bzip2"),
    ],
)
def test_what_cannot_be_read_is_named(content: bytes, gap: str) -> None:
    found = read(layer({"lib/apk/db/installed": APK}), content)
    assert len(found.packages) == 2
    [only] = found.gaps
    assert gap in only
    assert only.isprintable()


def test_usual_links_are_no_gaps() -> None:
    links = {"lib": "usr/lib", "var/lib/rpm": "../../usr/lib/sysimage/rpm", "etc/os-release": "../usr/lib/os-release"}
    assert read(_links(links)).gaps == ()


def test_a_layer_that_is_not_that_of_the_configuration_is_not_read() -> None:
    content = layer({DPKG: ONE})
    found = read(content, diff_ids=[Digest.of(b"another")])
    assert found.packages == ()
    assert "its blob is not the layer that the configuration names" in found.gaps[0]


def test_package_urls_are_canonical() -> None:
    for kind in ("deb", "apk", "rpm"):
        for name in ("libstdc++6", "Foo_Bar", *(("a@b c?d#e", "ü", "x:y") if kind != "apk" else ())):
            record = Record(kind, name, "1:2~rc1+git/3^4", "x86_64", "", "1" if kind == "rpm" else "")
            purl = to_package(record, Release("opensuse-leap", "15.6")).purl
            assert canonical(purl) == purl
    assert parse_release(b"ID='a b'\nVERSION_ID=\"1\n\xff") == Release("", "")


SPEC = """\
Name: {name}
Version: {version}
Release: 1
{more}
Summary: x
License: {license}
BuildArch: noarch
%description
x
%files
"""


@pytest.fixture(scope="module")
def rpms(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("rpms")
    for name, version, more, license_ in (
        ("plain", "1.0", "", "MIT"),
        ("with-epoch", "2~rc1", "Epoch: 3", "GPL-2.0-or-later AND MIT"),
        ("a+b", "1.0^git5", "", "Something else"),
    ):
        spec = directory / f"{name}.spec"
        spec.write_text(SPEC.format(name=name, version=version, more=more, license=license_))
        run("rpmbuild", "--quiet", "-bb", "--define", f"_topdir {directory}", spec)
    return sorted(directory.glob("RPMS/noarch/*.rpm"))


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# $1: the small Debian 13, $2: what it has as /mnt; then the arguments of rpm.
_IN_DEBIAN_13 = 'mount --bind "$2" "$1/mnt"; root=$1; shift 2; exec chroot "$root" rpm "$@"'


class RpmDatabase:
    """A database of rpm in a directory. Debian 12's rpm has no ndb, so that of Debian 13 writes those."""

    def __init__(self, backend: str, rpms: Iterable[Path], directory: Path) -> None:
        (directory / "rpms").mkdir(parents=True)
        self._directory, self._backend = directory, backend
        self.path = directory / "db" / ("Packages.db" if backend == "ndb" else "rpmdb.sqlite")
        self.rpm("--initdb")
        for rpm in rpms:
            shutil.copy(rpm, directory / "rpms")
            self.rpm("-i", "--justdb", "--nodeps", "--nosignature", f"rpms/{rpm.name}")

    def rpm(self, *arguments: str) -> str:
        """Run rpm with the database; an argument `rpms/NAME` is a package."""
        command: list[str | Path] = ["rpm"]
        base = self._directory
        if self._backend == "ndb":
            command = ["unshare", "--mount", "sh", "-ec", _IN_DEBIAN_13, "sh", make_system(), base]
            base = Path("/mnt")
        options = ["--define", f"_db_backend {self._backend}", "--dbpath", f"{base}/db"]
        return run(*command, *options, *(f"{base}/{each}" if each[:5] == "rpms/" else each for each in arguments))

    def installed(self) -> set[str]:
        """Return what rpm says."""
        form = "%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\\n"
        return set(self.rpm("-qa", "--qf", form).splitlines())


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["ndb", "sqlite"])
def test_rpm_lists_the_same(rpms: list[Path], tmp_path: Path, backend: str) -> None:
    database = RpmDatabase(backend, rpms, tmp_path / "rpm")
    expected, content = database.installed(), database.path.read_bytes()
    assert len(expected) == 3
    release = b"ID=opensuse-leap\nVERSION_ID=15.6\n"
    found = read(layer({f"{RPM}/{database.path.name}": content, "etc/os-release": release}))
    assert (set(names(found)), found.gaps) == (expected, ())
    epoch = next(each for each in found.packages if each.name == "with-epoch")
    assert epoch.purl.endswith("with-epoch@2~rc1-1?arch=noarch&distro=opensuse-leap-15.6&epoch=3")
    assert epoch.license == "GPL-2.0-or-later AND MIT"
    database.rpm("-e", "--justdb", "plain")
    assert database.installed() == expected - {"plain 1.0-1"}
    changed = layer({f"{RPM}/{database.path.name}": database.path.read_bytes()})
    assert set(names(read(changed))) == expected - {"plain 1.0-1"}
    _survives(rpm_databases.ndb if backend == "ndb" else rpm_databases.sqlite, content, 300)


def _survives(parse: Callable[[bytes], Iterable[Record]], content: bytes, count: int) -> None:
    """Change and cut content at random: it is read, or refused with a message."""
    rng = random.Random(1)
    messages = []
    for _ in range(count):
        changed = bytearray(content[: rng.choice((len(content), rng.randrange(len(content))))])
        for _ in range(rng.randrange(1, 30)):
            if changed:
                start = rng.choice((0, rng.randrange(len(changed))))
                changed[start : start + rng.randrange(1, 5)] = rng.randbytes(rng.randrange(1, 5))
        try:
            list(parse(bytes(changed)))
        except ValueError as error:
            messages.append(str(error))
    assert messages or content in (STATUS, APK)
    assert all(message.isprintable() for message in messages)


def test_hostile_text_is_read() -> None:
    for parse, content in ((text_databases.dpkg, STATUS), (text_databases.apk, APK)):
        _survives(parse, content, 300)


def test_headers_that_overlap_are_refused() -> None:
    """A small file would stand for gigabytes."""
    header = struct.pack(">2I", 1, 1000) + struct.pack(">4I", 1000, 6, 0, 1) + b"name".ljust(1000, b"\0")
    page = struct.pack("<4I", 0x506D7052, 0, 0, 1).ljust(32, b"\0")
    page += struct.pack("<4I", 0x746F6C53, 1, 256, 1) * ((4096 - 32) // 16)
    blob = struct.pack("<4I", 0x53626C42, 1, 0, len(header)) + header
    with pytest.raises(ValueError, match="got more headers than it has space for"):
        list(rpm_databases.ndb(page + blob))


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE VIEW Packages AS SELECT 1 AS hnum, zeroblob(100) AS blob",
        "CREATE TABLE Packages (hnum INTEGER, blob TEXT); INSERT INTO Packages VALUES (1, 'text')",
        "CREATE TABLE Packages (hnum INTEGER, blob BLOB AS (zeroblob(1000000000)))"
        "; INSERT INTO Packages (hnum) VALUES (1)",
        "CREATE TABLE Other (x)",
    ],
)
def test_hostile_schemas_are_refused(tmp_path: Path, schema: str) -> None:
    connection = sqlite3.connect(tmp_path / "x")
    connection.executescript(schema)
    connection.commit()
    connection.close()
    with pytest.raises(ValueError, match=r"not a database of rpm|expected a header|sqlite cannot read it"):
        list(rpm_databases.sqlite((tmp_path / "x").read_bytes()))


@pytest.fixture
def package(docker_registry: DockerRegistry, rpms: list[Path], tmp_path: Path) -> Path:
    """Give a package with containers of each kind; that of Debian has the packages of this machine but one."""
    status = Path("/var/lib/dpkg/status").read_bytes()
    release = images.layer({"etc/os-release": b"ID=debian\nVERSION_ID=12\n"})
    first, _, rest = status.partition(b"\n\n")
    assert first.startswith(b"Package: ")
    path = RpmDatabase("sqlite", rpms, tmp_path / "rpm").path
    made = {
        "debian": [release, images.layer({DPKG: status}), images.layer({DPKG: rest}, compression="gzip")],
        "apk": [images.layer({"lib/apk/db/installed": APK, "etc/os-release": b"ID=alpine\n"}, compression="zstd")],
        "rpm": [images.layer({f"{RPM}/rpmdb.sqlite": path.read_bytes(), "etc/os-release": b"ID=sles\n"})],
        "gone": [images.layer({DPKG: status}), images.layer({"var/lib/dpkg/.wh.status": b""})],
    }
    for name, layers in made.items():
        docker_registry.push(images.image(*layers), f"installed/{name}:1")
    containers = [f'name="{name}" path="installed" tag="1"' for name in made]
    directory = packages.write(tmp_path / "package", packages.section(docker_registry.host, *containers))
    assert main(["prefetch", "--arch", "x86_64", str(directory)]) == 0
    return directory


@pytest.mark.integration
def test_dpkg_rpm_and_syft_list_the_same(
    package: Path, rpms: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dpkg").mkdir()
    status = Path("/var/lib/dpkg/status").read_bytes()
    (tmp_path / "dpkg/status").write_bytes(status.partition(b"\n\n")[2])
    form = "${db:Status-Status} ${Package} ${Version}\\n"
    lines = run("dpkg-query", "--admindir", tmp_path / "dpkg", "--show", "--showformat", form).splitlines()
    capsys.readouterr()
    assert main(["sbom", "--packages", "--arch", "x86_64", "--format", "cyclonedx", str(package)]) == 0
    text = capsys.readouterr().out
    assert problems(text.encode(), "cyclonedx") == []
    found = {
        each["name"].rpartition("/")[2]: {f"{part['name']} {part['version']}" for part in each.get("components", ())}
        for each in json.loads(text)["components"]
    }
    assert found["debian"] == {line.partition(" ")[2] for line in lines if line.startswith("installed ")}
    assert found["rpm"] == RpmDatabase("sqlite", rpms, tmp_path / "again").installed()
    assert found["gone"] == set()
    for name, listed in found.items():
        [archive] = package.glob(f"*_installed_{name}_1.x86_64.ociarchive")
        assert scanners.packages("syft", "scan", f"oci-archive:{archive}") == listed, name
    assert main(["sbom", "--packages", "--arch", "x86_64", "--format", "spdx", str(package)]) == 0
    text = capsys.readouterr().out
    assert problems(text.encode(), "spdx") == []
    assert "pkg:rpm/sles/with-epoch@2~rc1-1?arch=noarch&distro=sles&epoch=3" in text
    assert main(["sbom", "--arch", "x86_64", "--format", "spdx", str(package)]) == 0
    assert "pkg:rpm/" not in capsys.readouterr().out


@pytest.mark.integration
@pytest.mark.parametrize("format_", FORMATS)
def test_the_same_package_gives_the_same_bytes(
    package: Path, tmp_path: Path, format_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sbom", "--packages", "--arch", "x86_64", "--format", format_]
    capsys.readouterr()
    assert main([*command, str(package)]) == 0
    text = capsys.readouterr().out
    again = shutil.copytree(package, tmp_path / "again")
    assert main([*command, str(again)]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.integration
def test_no_program_of_the_package_is_used(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = package / "bin/zstd"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\ntouch {package}/started\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent))
    assert main(["sbom", "--packages", "--arch", "x86_64", "--format", "spdx", str(package)]) == 0
    captured = capsys.readouterr()
    assert not (package / "started").exists()
    # Python 3.14 needs no program.
    assert ("install the program zstd" in captured.err) == (sys.version_info < (3, 14))
    assert ("not read: layer 1 of 1: " in captured.out) == (sys.version_info < (3, 14))


@pytest.mark.integration
def test_damaged_images_are_refused(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [archive] = package.glob("*_installed_debian_1.x86_64.ociarchive")
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    assert main(["sbom", "--packages", "--arch", "x86_64", "--format", "spdx", str(package)]) == 1
    assert "it is damaged" in capsys.readouterr().err
    assert main(["sbom", "--arch", "x86_64", "--format", "spdx", str(package)]) == 0


def test_members_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "_CHANGE_LIMIT", 50)
    files = {f"var/lib/dpkg/status.d/{n}": ONE for n in range(51)}
    assert "got more than 50 members that concern databases" in read(layer(files)).gaps[0]
    monkeypatch.setattr(databases, "_MEMBER_LIMIT", 100)
    assert "got more than 100 members" in read(layer({str(n): b"" for n in range(101)})).gaps[0]
    monkeypatch.setattr(databases, "_SIZE_LIMIT", 10)
    assert "the databases have more than 10" in read(layer({DPKG: ONE})).gaps[0]


@pytest.mark.integration
@pytest.mark.parametrize("format_", FORMATS)
def test_gaps_are_in_the_documents(format_: str) -> None:
    found = installed.of_databases(Databases({b"var/lib/rpm/Packages": b"x"}, []))
    assert found == Installed(gaps=("'var/lib/rpm/Packages': Berkeley DB is not supported",))
    image = Image(manifest=BLOB, config=BLOB, layers=(BLOB,))
    reference = Reference.parse("r.test/app:1")
    component = Component(reference, "x86_64", BLOB.digest, image, packages=found.packages, gaps=found.gaps)
    text = render(inventory("x", "1", [component]), format_)
    assert problems(text, format_) == []
    assert b"Berkeley DB is not supported" in text
