"""The installed inject service and the commands verify and inject refuse invalid archives, blobs and locks."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import images, packages, service_program
from tests.support.docker_registry import DockerRegistry
from tests.support.service_program import IN_BUILD_ROOT, last_line, snapshot

pytestmark = pytest.mark.integration

_BUILD = {"BUILD_ARCH": "x86_64", "LC_ALL": "POSIX", "HOME": "/nonexistent"}


@pytest.fixture(scope="module")
def prefetched(installed: Path, docker_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package with lock and archives."""
    for name in ("one", "two"):
        docker_registry.push(images.multi_platform(name), f"archives/{name}:1.0")
    containers = ('name="one" path="archives" tag="1.0"', 'name="two" path="archives" tag="1.0"')
    package = packages.write(tmp_path_factory.mktemp("any") / "p", packages.section(docker_registry.host, *containers))
    done = service_program.run(
        installed / "lib/obs/service/kiwi_containers",
        package,
        "--arch=x86_64,aarch64",
        environment={"HOME": str(package.parent)},
    )
    assert done.returncode == 0, done.stderr
    return package


@pytest.fixture(scope="module")
def prefetched_blobs(installed: Path, prefetched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same package with a file for each blob."""
    package = tmp_path_factory.mktemp("blobs") / "p"
    shutil.copytree(prefetched, package)
    service = installed / "lib/obs/service/kiwi_containers"
    done = service_program.run(service, package, "--arch=x86_64,aarch64", "--layout=blobs", "--locked=yes")
    assert done.returncode == 0, done.stderr
    assert not list(package.glob("*.ociarchive"))
    return package


def archive(package: Path, name: str = "one", arch: str = "x86_64") -> Path:
    return next(package.glob(f"*_archives_{name}_1.0.{arch}.ociarchive"))


def _truncated(package: Path) -> None:
    path = archive(package)
    path.write_bytes(path.read_bytes()[:-1024])


def _empty(package: Path) -> None:
    archive(package).write_bytes(b"")


def _wrong_byte(package: Path) -> None:
    content = bytearray(archive(package).read_bytes())
    content[content.index(b"Cmd")] ^= 1
    archive(package).write_bytes(content)


def _trailing_data(package: Path) -> None:
    path = archive(package)
    path.write_bytes(path.read_bytes() + bytes(512))


def _other_image(package: Path) -> None:
    shutil.copy(archive(package, "two"), archive(package))


def _other_architecture(package: Path) -> None:
    shutil.copy(archive(package, "one", "aarch64"), archive(package))


def _swapped(package: Path) -> None:
    one, two = archive(package), archive(package, "two")
    one.rename(package / "aside")
    two.rename(one)
    (package / "aside").rename(two)


def _missing(package: Path) -> None:
    archive(package).unlink()


def _directory(package: Path) -> None:
    path = archive(package)
    path.unlink()
    path.mkdir()


def _no_lock(package: Path) -> None:
    (package / "containers.lock").unlink()


def _broken_lock(package: Path) -> None:
    path = package / "containers.lock"
    path.write_text(path.read_text()[:-20])


def _lock_of_another_digest(package: Path) -> None:
    path = package / "containers.lock"
    layer = r'("layers": \[\s*\{\s*"digest": "sha256:)[0-9a-f]{8}'
    path.write_text(re.sub(layer, r"\g<1>00000000", path.read_text()))


def _two_sizes(package: Path) -> None:
    path = package / "containers.lock"
    document = json.loads(path.read_text())
    one, two = (entry["architectures"]["x86_64"]["layers"] for entry in document["containers"].values())
    two.append(one[0] | {"size": one[0]["size"] + 1})
    path.write_text(json.dumps(document))


def _another_container(package: Path) -> None:
    path = package / "containers.xml"
    path.write_text(path.read_text().replace('name="one"', 'name="three"'))


def _another_tag(package: Path) -> None:
    path = package / "containers.xml"
    path.write_text(path.read_text().replace('tag="1.0"', 'tag="1.1"'))


_ONE = r"\S+_archives_one_1\.0\.x86_64\.ociarchive"
_AGAIN = "; run the prefetch again and commit the result"
_TWO_SIZES = (
    r"containers\.lock: sha256:\w+ has \d+ bytes in \S+/one:1\.0 \(\w+\), but \d+ in \S+/two:1\.0 \(x86_64\); "
    "remove the lock and run the prefetch again"
)
_CASES: list[tuple[Callable[[Path], None], str]] = [
    (_truncated, rf"{_ONE}: got \d+ bytes, expected \d+; .*{_AGAIN}"),
    (_empty, rf"{_ONE}: got 0 bytes, expected \d+; .*{_AGAIN}"),
    (_wrong_byte, rf"{_ONE}: member blobs/sha256/\w+: got sha256:\w+, expected sha256:\w+; it is damaged{_AGAIN}"),
    (_trailing_data, rf"{_ONE}: got \d+ bytes, expected \d+; .*{_AGAIN}"),
    (_other_image, rf"{_ONE}: member blobs/sha256/.*{_AGAIN}"),
    (_other_architecture, rf"{_ONE}: member blobs/sha256/.*{_AGAIN}"),
    (_swapped, rf"\S+_archives_two_1\.0\.x86_64\.ociarchive: member blobs/sha256/.*{_AGAIN}"),
    (_missing, rf"{_ONE}: missing, but locked for \S+/archives/one:1\.0 \(x86_64\){_AGAIN}"),
    (_directory, rf"{_ONE}: missing, .*{_AGAIN}"),
    (
        _no_lock,
        r"containers\.lock: missing; run 'osc-containers prefetch', and commit the result",
    ),
    (_broken_lock, r"containers\.lock: not valid JSON; .*"),
    (_two_sizes, _TWO_SIZES),
    (_lock_of_another_digest, rf"\S+\.ociarchive: member blobs/sha256/0{{8}}\w+ at byte \d+: .*{_AGAIN}"),
    (
        _another_container,
        rf"containers\.xml:5: \S+/archives/three:1\.0 for (x86_64|aarch64) is not in the lock{_AGAIN}",
    ),
    (_another_tag, rf"containers\.xml:6: \S+/archives/two:1\.1 for (x86_64|aarch64) is not in the lock{_AGAIN}"),
]


def blob(package: Path, name: str = "one") -> Path:
    """Return the file of the layer that only this image has."""
    entries = json.loads((package / "containers.lock").read_text())["containers"]
    (entry,) = (entry for reference, entry in entries.items() if reference.endswith(f"/{name}:1.0"))
    return package / f"{entry['architectures']['x86_64']['layers'][-1]['digest'].replace(':', '-')}.blob"


def _cut_blob(package: Path) -> None:
    os.truncate(blob(package), 100)


def _longer_blob(package: Path) -> None:
    with blob(package).open("ab") as file:
        file.write(b"x")


def _wrong_byte_in_blob(package: Path) -> None:
    content = bytearray(blob(package).read_bytes())
    content[len(content) // 2] ^= 1
    blob(package).write_bytes(content)


def _swapped_blobs(package: Path) -> None:
    one, two = blob(package), blob(package, "two")
    one.rename(package / "aside")
    two.rename(one)
    (package / "aside").rename(two)


def _missing_blob(package: Path) -> None:
    blob(package).unlink()


def _blob_of_another_name(package: Path) -> None:
    blob(package).rename(package / f"sha256-{'0' * 64}.blob")


def _directory_of_blob(package: Path) -> None:
    path = blob(package)
    path.unlink()
    path.mkdir()


def _pointer(package: Path) -> None:
    path = blob(package)
    digest, size = path.stem.replace("-", ":"), path.stat().st_size
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid {digest}\nsize {size}\n")


_BLOB = r"sha256-\w{64}\.blob"
_MISSING_BLOB = rf"{_BLOB}: missing, but locked for \S+/archives/one:1\.0 \(x86_64\){_AGAIN}"
_BLOB_CASES: list[tuple[Callable[[Path], None], str]] = [
    (_cut_blob, rf"{_BLOB}: got 100 bytes, expected \d+; .*{_AGAIN}"),
    (_longer_blob, rf"{_BLOB}: got \d+ bytes, expected \d+; .*{_AGAIN}"),
    (_wrong_byte_in_blob, rf"{_BLOB}: got sha256:\w+, expected sha256:\w+; it is damaged{_AGAIN}"),
    (_swapped_blobs, rf"{_BLOB}: got (sha256:\w+|\d+ bytes), expected .*{_AGAIN}"),
    (_missing_blob, _MISSING_BLOB),
    (_blob_of_another_name, _MISSING_BLOB),
    (_directory_of_blob, _MISSING_BLOB),
    (_pointer, rf"{_BLOB}: is a git-lfs pointer, expected the file itself; .*"),
    (_two_sizes, _TWO_SIZES),
]

Check = Callable[[Path], service_program.Done]


def _service(environment: dict[str, str], *within: Path) -> Callable[[Path, Path, Path], service_program.Done]:
    def run(installed: Path, package: Path, _: Path) -> service_program.Done:
        service = installed / "lib/obs/service/kiwi_containers_inject"
        return service_program.run(service, package, environment=environment, within=within)

    return run


def _command(*arguments: str) -> Callable[[Path, Path, Path], service_program.Done]:
    def run(installed: Path, package: Path, root: Path) -> service_program.Done:
        command = [str(installed / "bin/osc-containers"), *(word.replace("ROOT", str(root)) for word in arguments)]
        return subprocess.run(command, cwd=package, capture_output=True, text=True)

    return run


_PROGRAMS = {
    "kiwi_containers_inject in a build": _service(_BUILD, IN_BUILD_ROOT),
    "kiwi_containers_inject elsewhere": _service({}),
    "osc-containers verify": _command("verify"),
    "osc-containers inject": _command("inject", "--root", "ROOT", "--arch", "x86_64"),
}


@pytest.mark.parametrize("program", _PROGRAMS)
@pytest.mark.parametrize(("damage", "message"), _CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_the_last_line_has_the_problem_and_nothing_changes(
    installed: Path, package: Path, tmp_path: Path, program: str, damage: Callable[[Path], None], message: str
) -> None:
    damage(package)
    expect_refusal(installed, package, tmp_path, program, message)


@pytest.mark.parametrize("program", _PROGRAMS)
@pytest.mark.parametrize(("damage", "message"), _BLOB_CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_the_last_line_has_the_problem_of_a_blob(
    installed: Path,
    prefetched_blobs: Path,
    tmp_path: Path,
    program: str,
    damage: Callable[[Path], None],
    message: str,
) -> None:
    package = tmp_path / "package"
    shutil.copytree(prefetched_blobs, package)
    damage(package)
    expect_refusal(installed, package, tmp_path, program, message)


def expect_refusal(installed: Path, package: Path, tmp_path: Path, program: str, message: str) -> None:
    """Run a program on a package; it must end with this message, and change nothing."""
    (tmp_path / "root").mkdir()
    before = snapshot(tmp_path)
    done = _PROGRAMS[program](installed, package, tmp_path / "root")
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert re.fullmatch(f"{program.split()[0]}: error: {message}", last_line(done)), last_line(done)
    assert snapshot(tmp_path) == before


def test_only_archives_of_the_built_architecture_are_verified(installed: Path, package: Path, tmp_path: Path) -> None:
    """A build may lack the archives of other architectures; `verify` checks all of them."""
    archive(package, "one", "aarch64").unlink()
    assert _PROGRAMS["osc-containers verify"](installed, package, tmp_path).returncode == 1
    assert _PROGRAMS["kiwi_containers_inject in a build"](installed, package, tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ("mount -t tmpfs -o size=16k none", r"ROOT: no space left; the archives need \d+ bytes, 16384 are free"),
        ("mount -t tmpfs -o ro none", r"ROOT: Read-only file system"),
        ("rmdir", r"ROOT: No such file or directory"),
    ],
)
def test_a_root_tree_that_cannot_be_written_is_an_error(
    installed: Path, package: Path, tmp_path: Path, mount: str, message: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    script = f'{mount} "$1"; root=$1; shift; "$@" || status=$?; ls -A "$root" 2> /dev/null || :; exit $status'
    command = [str(installed / "bin/osc-containers"), "inject", "--root", str(root), "--arch", "x86_64"]
    before = snapshot(package)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, "sh", str(root), *command],
        cwd=package,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(f"osc-containers: error: {message}".replace("ROOT", re.escape(str(root))), last_line(done))
    assert snapshot(package) == before


def test_a_root_tree_without_space_for_copies_is_left_empty(installed: Path, package: Path, tmp_path: Path) -> None:
    """Root copies archives of other users, because those could still write to a hard link."""
    disk = tmp_path / "disk"
    disk.mkdir()
    space = sum(-(-path.stat().st_size // 4096) * 4 for path in package.iterdir())
    script = f"""
mount -t tmpfs -o size={space + 16}k disk "$1"
cp -r "$2" "$1/package"
chown -R 1:1 "$1/package"
mkdir "$1/root"
cd "$1/package"
"$3" inject --root ../root --arch x86_64 || status=$?
ls -A ../root
exit $status
"""
    names = (str(disk), str(package), str(installed / "bin/osc-containers"))
    command = ["unshare", "--mount", "sh", "-ec", script, "sh", *names]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"osc-containers: error: ../root: no space left; the archives need \d+ bytes, \d+ are free", last_line(done)
    )


def test_a_full_build_root_is_left_unchanged(installed: Path, package: Path, tmp_path: Path) -> None:
    """No block is free. Hard links need none, so the first unit fails."""
    sources = tmp_path / "sources"
    sources.mkdir()
    space = sum(-(-path.stat().st_size // 4096) * 4 for path in package.iterdir())
    script = f"""
mount -t tmpfs -o size={space + 4}k sources "$1"
cp "$2"/* "$1"
cd "$1"
shift 2
"$@" --outdir /nowhere || status=$?
ls -A
exit $status
"""
    service = str(installed / "lib/obs/service/kiwi_containers_inject")
    command = [str(IN_BUILD_ROOT), "sh", "-ec", script, "sh", str(sources), str(package), service]
    done = subprocess.run(command, env=_BUILD, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"kiwi_containers_inject: error: \S*root/usr/\S+: No space left on device", last_line(done))
    assert done.stdout.split() == sorted(path.name for path in package.iterdir())


def test_conflicting_files_in_an_overlay_are_left_unchanged(installed: Path, package: Path, tmp_path: Path) -> None:
    """Units are written before archives. If an archive fails, they are removed and the packager's files are kept."""
    own = package / "root/usr/lib/systemd/system"
    own.mkdir(parents=True)
    (own / "own.service").write_text("mine")
    (package / "root/link").symlink_to("usr")
    (package / "root/var").write_text("mine")
    before = snapshot(package)
    done = _PROGRAMS["kiwi_containers_inject in a build"](installed, package, tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"kiwi_containers_inject: error: \S*root/var/\S+: Not a directory", last_line(done))
    assert snapshot(package) == before
