"""Hostile descriptions, registries, trees and packages achieve nothing but a message."""

import json
import os
import re
import subprocess
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.checks.finding import Finding, Severity
from osc_containers.cli.main import main
from osc_containers.cli.output import terminal
from osc_containers.cli.output.findings import as_text
from osc_containers.errors import DescriptionError, Error, RegistryError, VerificationError
from osc_containers.fs import atomic
from osc_containers.inject import overlay
from osc_containers.inject.image_file import TextFile
from osc_containers.kiwi import description
from osc_containers.obs import selection
from osc_containers.obs.package import Package
from osc_containers.obs.selection import Request, Selection
from osc_containers.oci.digest import Digest
from osc_containers.prefetch import prefetch
from osc_containers.prefetch.download import partial_file
from osc_containers.registry.retry import Policy
from osc_containers.sources.interface import FetchContext
from osc_containers.sources.transports import Sources
from tests.support import faults, images
from tests.support.fake_source import FakeSource
from tests.support.fault_registry import Exchange, Fault, FaultRegistry
from tests.support.prefetch_run import APP, hashes, run_prefetch, want

HOSTILE_NAMES = (
    "../app",
    "../../etc/cron.d/x",
    "/etc/passwd",
    "a/../../b",
    "app\nExecStart=/bin/true",
    "app\\\nUser=root",
    "app\0",
    "%n",
    "%%",
    "$HOME",
    "$(id)",
    "`id`",
    "'; id; '",
    '" id "',
    "a b",
    "-rf",
    "--help",
    "app\x1b[2J",
    "app\x9b2J",
    "аpp",  # Cyrillic а
    "app\u202egnp",
    "app\u2028x",
    "a" * 300,
    "app:1:2",
    ".app",
    "app.",
    "..",
    ".",
    "app#x",
    "app?x",
    "app*",
    "~",
    "app|id",
    "app&id",
    "app<x>",
    "APP",
    "a//b",
    "con",
    "",
    ",",
    "docker,",
    ",docker",
)
_ATTRIBUTES = ("source", "path", "name", "tag", "profiles", "arch", "backend")
_GOOD = {"source": "registry.example", "path": "team", "name": "app", "tag": "1.0", "backend": "podman"}
_PLAIN = re.compile(r"[A-Za-z0-9_@:./-]+")
_IN_IMAGE = re.compile(
    r"/(?:var/tmp|var/lib/kiwi_containers|usr/lib|usr/libexec|usr/share/kiwi_containers)(?:/[A-Za-z0-9_.@:-]+)+"
)


def xml(attributes: dict[str, str]) -> bytes:
    """Return a description with one container; some hostile characters cannot be written in XML."""
    section, container = (
        " ".join(
            f"{name}={quoteattr(value, {chr(10): '&#10;'})}" for name, value in attributes.items() if name in names
        )
        for names in (("source", "backend", "profiles", "arch"), ("path", "name", "tag"))
    )
    profile = quoteattr(attributes.get("profiles") or "p")
    text = f"""<image schemaversion="8.0" name="x">
<profiles><profile name={profile} description="d"/></profiles>
<containers {section}>
<container {container}/>
</containers></image>"""
    return text.encode("utf-8", "surrogatepass")


def outcome(attributes: dict[str, str]) -> None:
    """Process a description up to the files in the image, or assert that it is refused properly."""
    try:
        found = description.parse(xml(attributes), Path("a.kiwi"), lambda name: b"")
        paths = overlay.assign_paths(found.of_architecture("x86_64"))
        with tempfile.TemporaryDirectory() as name:
            source = FakeSource({str(each.reference): images.small("app") for each in found.containers})
            part = Selection(description=found, explicit_architectures=("x86_64",), profiles=())
            wanted = selection.image_requests(Request(parts=(part,)))
            wanted = tuple(each._replace(location=f"docker://{each.reference}") for each in wanted)
            network = FetchContext(open_source=source.open)
            lock = prefetch.prefetch(Package(Path(name)), wanted, network, outdir=Path(name), locked=False)
            for file in os.listdir(name):
                assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", file)
        placements = overlay.place(found.of_architecture("x86_64"), paths, "x86_64", lock)
        for directory in overlay.group_by_directory(placements):
            assert directory
            assert "/" not in directory
            assert directory.isprintable()
            assert not directory.startswith(".")
    except DescriptionError as error:
        for problem in error.problems:
            assert re.match(r"a\.kiwi:\d+: ", problem), problem
            assert problem.isprintable()
            assert len(problem) < 2000
        return
    for entry in overlay.list_files(placements):
        assert _IN_IMAGE.fullmatch(entry.path), entry.path
        assert ".." not in entry.path.split("/")
        if isinstance(entry, TextFile) and entry.path.endswith(".service"):
            check_unit(entry.text)


def check_unit(text: str) -> None:
    """Assert that every line of a unit comes from our templates, with plain names in it."""
    for line in text.splitlines():
        assert line.isprintable()
        assert re.fullmatch(r"(#.*|\[[A-Z][a-z]+\]|[A-Z][A-Za-z]+=.*|)", line), line
        assert not line.endswith("\\")
        if line.startswith("Exec"):
            for word in line.partition("=")[2].split():
                assert _PLAIN.fullmatch(word.strip('"')), line


@pytest.mark.parametrize("attribute", _ATTRIBUTES)
@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_hostile_name_is_refused_with_its_line_or_harmless(attribute: str, name: str) -> None:
    outcome(_GOOD | {attribute: name})


@given(st.sampled_from(_ATTRIBUTES), st.text("aA1/.:@%-_ \n\\'\"$\x1b\u202e;", max_size=12))
def test_any_name_is_refused_with_its_line_or_harmless(attribute: str, text: str) -> None:
    outcome(_GOOD | {attribute: text})


@given(st.text(max_size=30))
def test_output_cannot_control_a_terminal(text: str) -> None:
    assert terminal.printable(text).isprintable()


def test_newline_in_a_name_is_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\nosc-containers: all is well"
    finding = Finding(severity=Severity.ERROR, check="x", file=name, why=name, fix=f"rm -- '{name}'")
    (tmp_path / f"{name}.kiwi").write_text("<image/>")
    (tmp_path / f"{name}.ociarchive").touch()
    assert main(["check", str(tmp_path)]) == 1
    assert main(["prefetch", str(tmp_path), "--description", f"{name}.kiwi"]) == 1
    assert main(["verify", str(tmp_path / name)]) == 3
    with pytest.raises(Error) as caught:
        Package(tmp_path / name).description(f"{name}.kiwi")
    for text in (as_text([finding]), *capsys.readouterr(), terminal.printable(str(caught.value))):
        assert "a\\nosc-containers" in text
        assert "\nosc-containers: all is well" not in text


# Registries


def prefetch_error(registry: FaultRegistry, image: images.Image, directory: Path) -> Error | OSError:
    """Prefetch an image that must be refused; return the message."""
    name = registry.push(image, "team/app:1")
    policy = Policy(attempts=2, first_delay=0.01, deadline=5)
    with Sources(directory, policy=policy) as sources:
        network = FetchContext(open_source=sources.open)
        with pytest.raises((Error, OSError)) as caught:
            prefetch.prefetch(Package(directory), want(name), network, outdir=directory, locked=False)
    assert hashes(directory) == {}
    assert isinstance(caught.value, Error | OSError)
    return caught.value


@pytest.mark.parametrize(
    "stall", [faults.stall_before, faults.stall_in_body, faults.status(429, {"Retry-After": "50"})]
)
def test_first_error_does_not_wait_for_slow_hosts(registry: FaultRegistry, tmp_path: Path, stall: Fault) -> None:
    layers = [images.random_layer(name, 3_000_000) for name in ("gone", "stalls")]
    name = registry.push(images.image(*layers), "team/app:1")
    gone, stalls = (str(Digest.of(layer.content)) for layer in layers)
    asked = threading.Event()

    def refuse_when_the_other_waits(exchange: Exchange) -> None:
        assert asked.wait(10)
        time.sleep(0.2)
        faults.status(404)(exchange)

    def note_and_stall(exchange: Exchange) -> None:
        asked.set()
        stall(exchange)

    script = {gone: refuse_when_the_other_waits, stalls: note_and_stall}
    registry.script = lambda request: script.get(request.path.rpartition("/")[2])
    began = time.monotonic()
    with Sources(tmp_path, policy=Policy()) as sources:
        network = FetchContext(open_source=sources.open, cancel=sources.cancel, connections=2)
        with pytest.raises(RegistryError, match=r"not in .*, although its manifest is: HTTP 404"):
            prefetch.prefetch(Package(tmp_path), want(name), network, outdir=tmp_path, locked=False)
    assert time.monotonic() - began < 20
    assert hashes(tmp_path) == {}


def with_manifest_fields(image: images.Image, **changes: object) -> images.Image:
    """Return an image with these fields of its manifest replaced."""
    document = json.loads(image.raw)
    return replace(image, raw=json.dumps(document | changes).encode())


def test_index_that_contains_itself_is_refused(registry: FaultRegistry, tmp_path: Path) -> None:
    index = images.index(images.small("app"))
    entry = {"mediaType": index.media_type, "digest": "sha256:" + "0" * 64, "size": 5}
    entry["platform"] = {"os": "linux", "architecture": "amd64"}
    loop = with_manifest_fields(index, manifests=[entry])
    registry.manifests["team/app", str(entry["digest"])] = (loop.raw, loop.media_type)
    assert isinstance(prefetch_error(registry, loop, tmp_path), VerificationError | RegistryError)
    assert len(registry.requests) < 10


def test_nested_indexes_are_limited(registry: FaultRegistry, tmp_path: Path) -> None:
    made = images.small("app")
    for _ in range(50):
        made = replace(images.index(made), platform=images.AMD64)
    assert "index inside" in str(prefetch_error(registry, made, tmp_path))
    assert len(registry.requests) < 20


@pytest.mark.parametrize("size", [1 << 44, (1 << 63) - 1])
@pytest.mark.parametrize("count", [1, 3])
def test_huge_layers_are_refused_before_writing(registry: FaultRegistry, tmp_path: Path, size: int, count: int) -> None:
    image = images.small("app")
    layer = json.loads(image.raw)["layers"][0]
    layers = [layer | {"size": size, "digest": f"sha256:{number:064x}"} for number in range(count)]
    error = prefetch_error(registry, with_manifest_fields(image, layers=layers), tmp_path)
    assert isinstance(error, OSError)
    assert error.filename is not None
    assert not any(request.target.endswith(str(layers[0]["digest"])) for request in registry.requests)


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000,
        b'{"schemaVersion": 2, "a": ' * 50_000,
        b'{"schemaVersion": ' + b"9" * 100_000 + b"}",
        b'{"schemaVersion": 2, "manifests": [], "manifests": []}',
        b'{"schemaVersion": 2, "layers": {}, "config": []}',
        b'{"schemaVersion": NaN}',
        b'{"schemaVersion": 2, "config": {"digest": "sha256:../../etc", "size": -1}, "layers": []}',
        b'{"schemaVersion": 2, "mediaType": "\\u001b[2J"}',
        b"\xff\xfe{\0}\0",
        b"null",
        b" " * (5 << 20),
    ],
    ids=lambda raw: ascii(raw[:30]),
)
def test_manifest_bomb_is_reported_in_one_line(registry: FaultRegistry, tmp_path: Path, raw: bytes) -> None:
    image = replace(images.small("app"), raw=raw)
    error = prefetch_error(registry, image, tmp_path)
    assert isinstance(error, RegistryError)
    assert all(problem.isprintable() and len(problem) < 2000 for problem in error.problems)


def test_config_that_contradicts_the_manifest_is_refused(registry: FaultRegistry, tmp_path: Path) -> None:
    image = images.small("app")
    config = json.loads(image.raw)["config"]
    for size in (0, 5, config["size"] + 1, 1 << 40):
        prefetch_error(registry, with_manifest_fields(image, config=config | {"size": size}), tmp_path)


# Trees


def _hostile_root(root: Path, outside: Path) -> None:
    """Create a root tree in which every directory that we use is a symlink that leaves the tree."""
    (root / "usr/lib").mkdir(parents=True)
    (root / "var").symlink_to("/" * 3 + str(outside))
    (root / "usr/lib/systemd").symlink_to("../" * 12 + str(outside)[1:])
    (root / "usr/lib/tmpfiles.d").symlink_to(outside)
    (root / "usr/libexec").symlink_to("../../../../../.." + str(outside))


def snapshot(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (status.st_mode, status.st_ino, content)
    return found


@pytest.mark.parametrize("name", ["root", "link"])
def test_inject_into_a_hostile_tree_writes_nothing_outside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """The path of the tree itself may be a symlink."""
    package, root, outside = tmp_path / "package", tmp_path / "root", tmp_path / "outside"
    package.mkdir()
    outside.mkdir()
    (outside / "precious").write_text("x")
    _hostile_root(root, outside)
    (tmp_path / "link").symlink_to("root")
    run_prefetch(FakeSource({APP: images.small("app")}), package, *want(APP))
    (package / "a.kiwi").write_bytes(xml(_GOOD | {"source": "registry.example.com"}))
    before = snapshot(outside)
    status = main(["inject", "--root", str(tmp_path / name), "--arch", "x86_64", str(package)])
    assert snapshot(outside) == before
    assert status == 0, capsys.readouterr().err
    # Symlinks are resolved as in the image, below the root.
    inside = root / str(outside)[1:]
    assert sorted(inside.rglob("*.service"))
    for path in (root, *root.rglob("*")):
        assert path.lstat().st_uid == os.geteuid()


# Files in the package


@pytest.mark.integration
@pytest.mark.parametrize("command", ["list", "verify", "prefetch", "inject --root out", "check", "outdated"])
def test_package_cannot_inject_code_into_the_command(installed: Path, tmp_path: Path, command: str) -> None:
    trap = tmp_path / "executed"
    code = f"open({str(trap)!r}, 'w')\nraise SystemExit('executed')\n"
    for module in ("requests", "lxml", "sitecustomize", "usercustomize", "json", "logging", "platformdirs", "rich"):
        (tmp_path / f"{module}.py").write_text(code)
    (tmp_path / "osc_containers").mkdir()
    (tmp_path / "osc_containers/__init__.py").write_text(code)
    (tmp_path / "evil.pth").write_text("import sitecustomize\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "a.kiwi").write_bytes(b"<image/>")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}
    environment |= {"PYTHONSTARTUP": str(tmp_path / "json.py"), "PYTHONUSERBASE": str(tmp_path)}
    done = subprocess.run(
        [installed / "bin/osc-containers", *command.split()],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert not trap.exists()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mask", [0, 0o022, 0o077, 0o777])
def test_file_modes_do_not_depend_on_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        run_prefetch(FakeSource({APP: images.small("app")}), tmp_path, *want(APP))
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o7777 for path in tmp_path.iterdir()} == {0o644}
    assert len(list(tmp_path.iterdir())) == 2


def test_partial_files_are_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partial archive is not readable by other users, and its name cannot be guessed."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    with partial_file.part(tmp_path / "x.ociarchive", "key", 10):
        assert not list(tmp_path.iterdir()), "it has no name at all"
    monkeypatch.setattr(partial_file, "_DESCRIPTORS", "/nowhere")
    names = set()
    for _ in range(20):
        with partial_file.part(tmp_path / "x.ociarchive", "key", 10):
            (path,) = (path for path in tmp_path.iterdir() if path.name != "x.ociarchive")
            assert path.stat().st_mode & 0o7777 == 0o600
            names.add(path.name)
    assert len(names) == 20
    with atomic.new_file(tmp_path / "y"):
        (path,) = (path for path in tmp_path.iterdir() if path.name.startswith(".y"))
        assert path.stat().st_mode & 0o7777 == 0o600


def test_link_in_place_of_an_archive_is_replaced(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("x")
    package = tmp_path / "package"
    package.mkdir()
    source = FakeSource({APP: images.small("app")})
    run_prefetch(source, package, *want(APP))
    expected = hashes(package)
    for path in list(package.iterdir()):
        path.unlink()
        if path.name.endswith(".ociarchive"):
            path.symlink_to(victim)
    run_prefetch(source, package, *want(APP))
    assert victim.read_text() == "x"
    assert hashes(package) == expected
    assert not any(path.is_symlink() for path in package.iterdir())


def test_link_in_the_cache_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache/osc-containers").mkdir(parents=True)
    (tmp_path / "cache/osc-containers/key.part").symlink_to(victim)
    with partial_file.part(tmp_path / "x.ociarchive", "key", 10):
        pass
    assert victim.read_text() == "precious"
    assert not (tmp_path / "x.ociarchive").is_symlink()
