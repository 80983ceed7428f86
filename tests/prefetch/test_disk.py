"""Disks that fail or fill up at any write: a message that names a file, and the package as it was."""

import errno
import fcntl
import os
import resource
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from osc_containers.cli.main import main
from osc_containers.errors import RegistryError
from osc_containers.fs import ranges
from osc_containers.obs import service_file
from osc_containers.obs.package import Package
from osc_containers.sources.blob_store import StoredFile
from tests.support import images, packages
from tests.support.fake_source import FakeSource
from tests.support.fault_registry import FaultRegistry
from tests.support.prefetch_run import APP, MOVED, SOURCE, WEB, hashes, run_prefetch, want
from tests.support.recording_source import BIG, RecordingSource, transfer


def expected(source: FakeSource) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as name:
        run_prefetch(source, Path(name), *want(APP, WEB))
        return hashes(Path(name))


class FailingWrites:
    """`ranges.write_all` of a disk on which the write `fails_at` fails, half done."""

    def __init__(self, fails_at: int | None, number: int) -> None:
        self.count = 0
        self._fails_at = fails_at
        self._number = number
        self._write_all = ranges.write_all

    def __call__(self, descriptor: int, content: bytes | memoryview, offset: int) -> None:
        self.count += 1
        if self.count - 1 == self._fails_at:
            self._write_all(descriptor, content[: len(content) // 2], offset)
            raise OSError(self._number, os.strerror(self._number))
        self._write_all(descriptor, content, offset)


def failure(package: Path) -> OSError | None:
    try:
        run_prefetch(MOVED, package, *want(APP, WEB))
    except OSError as error:
        return error
    return None


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("has_cache", [True, False], ids=["parts in the cache", "parts beside"])
def test_a_failure_at_any_write_leaves_the_package_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, has_cache: bool
) -> None:
    if not has_cache:
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    run_prefetch(SOURCE, tmp_path, *want(APP, WEB))
    before, after = hashes(tmp_path), expected(MOVED)
    failed = 0
    while True:
        with monkeypatch.context() as patch:
            patch.setattr(ranges, "write_all", FailingWrites(failed, number))
            error = failure(tmp_path)
        if error is None:
            break
        assert (error.errno, error.filename is not None) == (number, True), f"write {failed}"
        assert hashes(tmp_path) == before, f"write {failed}"
        if has_cache:  # each failure at the same place, and not further on with what is there
            for part in Path(os.environ["HOME"], ".cache/osc-containers").glob("*.part"):
                part.unlink()
        failed += 1
    assert failed > 5
    assert hashes(tmp_path) == after


def broken(descriptor: int, buffers: object, offset: int) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_prefetch(SOURCE, tmp_path, *want(APP))
    (archive,) = tmp_path.glob("*.ociarchive")
    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", broken)
        with pytest.raises(OSError, match="Input/output error: ") as caught:
            run_prefetch(SOURCE, tmp_path, *want(APP))
        assert caught.value.filename == str(archive)
        with pytest.raises(RegistryError, match=f"^{archive}: Input/output error$"):
            StoredFile(path=archive, offset=0, size=10).read(10)
    for name in ("containers.lock", "_service"):
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).symlink_to("/proc/self/mem")  # nobody can read its first byte
    for read in (Package(tmp_path).read_lock, lambda: service_file.read(tmp_path)):
        with pytest.raises(OSError, match="Input/output error: "):
            read()


class FailingClose:
    """`os.close` of a file system that says of the file `fails_at`, once, that it could not write it (NFS, FUSE).

    It says that of every lock on a blob, too, but these do not count.
    """

    def __init__(self, fails_at: int) -> None:
        self._fails_at = fails_at
        self._closed: list[int] = []
        self._close = os.close

    def __call__(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        is_lock = os.readlink(f"/proc/self/fd/{descriptor}").startswith(
            f"{Path.home()}/.cache/osc-containers/downloads/"
        )
        is_written = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        self._close(descriptor)
        if is_lock:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        if is_written and stat.S_ISREG(status.st_mode) and status.st_size and status.st_ino not in self._closed:
            self._closed.append(status.st_ino)
            if len(self._closed) - 1 == self._fails_at:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def test_what_is_said_of_a_file_when_it_is_closed_leaves_the_package_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_prefetch(SOURCE, tmp_path, *want(APP, WEB))
    before = hashes(tmp_path)
    for number in range(2):  # the archive, the lock
        with monkeypatch.context() as patch:
            patch.setattr(os, "close", FailingClose(number))
            error = failure(tmp_path)
        assert error is not None
        assert (error.errno, error.filename is not None) == (errno.EDQUOT, True), f"file {number}"
        assert hashes(tmp_path) == before, f"file {number}"
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", FailingClose(2))
        assert failure(tmp_path) is None
    assert hashes(tmp_path) == expected(MOVED)


def test_a_file_system_without_a_size_is_taken_to_have_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As FUSE is that does not say one."""
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((0,) * 11))
    run_prefetch(SOURCE, tmp_path, *want(APP, WEB))
    assert hashes(tmp_path) == expected(SOURCE)


@pytest.mark.integration
def test_a_disk_that_is_full_at_any_size_leaves_the_package_as_it_was(tmp_path: Path) -> None:
    """In file systems of all sizes up to one that is large enough."""
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tests.support.prefetch_run import APP, MOVED, SOURCE, WEB, hashes, run_prefetch, want
os.environ["XDG_CACHE_HOME"] = "/proc/none"
package = Path(sys.argv[1])
run_prefetch(SOURCE, package, *want(APP, WEB))
before = hashes(package)
free = os.statvfs(package).f_bavail
failures = 0
for blocks in range(free + 1):
    filler = package.parent / "filler"
    filler.write_bytes(bytes(4096 * (free - blocks)))
    try:
        run_prefetch(MOVED, package, *want(APP, WEB))
        break
    except OSError as error:
        assert error.filename, blocks
        failures += 1
    assert hashes(package) == before, blocks
print(failures)
"""
    command = (
        f'mount -t tmpfs -o size=1200k none "{tmp_path}" && mkdir "{tmp_path}/p" && exec "$0" -c "$1" "{tmp_path}/p"'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command, sys.executable, script], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 70


def test_a_limit_on_the_size_of_files_is_said(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(OSError, match="File too large: ") as caught:
            run_prefetch(SOURCE, tmp_path, *want(APP, WEB))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path / "registry.example.com_team_app_1.0.x86_64.ociarchive")
    assert hashes(tmp_path) == {}


def test_an_outdir_on_another_file_system_gets_the_same_files(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        assert os.stat(name).st_dev != tmp_path.stat().st_dev
        run_prefetch(SOURCE, tmp_path, *want(APP, WEB), outdir=Path(name))
        assert hashes(tmp_path) == {}
        assert hashes(Path(name)) == expected(SOURCE)


@pytest.mark.integration
def test_a_package_that_cannot_be_written_is_good_for_an_outdir_elsewhere(tmp_path: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tests.support.prefetch_run import APP, MOVED, SOURCE, WEB, hashes, run_prefetch, want
from tests.support.prefetch_run import SOURCE
run_prefetch(SOURCE, Path("package"), *want(APP, WEB), outdir=Path("outdir"))
assert len(hashes(Path("outdir"))) == 3
try:
    run_prefetch(SOURCE, Path("package"), *want(APP, WEB))
except OSError as error:
    print(error)
"""
    (tmp_path / "package").mkdir()
    (tmp_path / "outdir").mkdir()
    command = 'mount --bind package package && mount -o remount,ro,bind package && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command, sys.executable, script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "[Errno 30] Read-only file system: 'package'\n"), done.stderr


@pytest.mark.integration
@pytest.mark.parametrize("other", ["package", "other"])
def test_what_a_broken_run_left_makes_room_for_another_image(
    other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that has not room for both: for another image of the package, or for another package."""
    with mounted("ext4", tmp_path, 48 << 20) as directory:
        monkeypatch.setenv("XDG_CACHE_HOME", str(directory / "cache"))
        for name in {"package", other}:
            (directory / name).mkdir()
        with pytest.raises(RegistryError, match="broken off"):
            transfer(RecordingSource({APP: BIG}, gives=12_000_000), directory / "package")
        free = os.statvfs(directory)
        assert 24_000_000 < free.f_bavail * free.f_frsize < 30_000_000  # what did not come takes no room
        transfer(RecordingSource({APP: images.image(images.random_layer("moved", 30_000_000))}), directory / other)
        assert len(hashes(directory / other)) == 2
        assert list((directory / "cache").rglob("*.part")) == []


@contextmanager
def mounted(kind: str, directory: Path, size: int = 256 << 20) -> Iterator[Path]:
    """Make a file system of `size` bytes."""
    disk, mountpoint = directory / "disk", directory / "mounted"
    with disk.open("wb") as file:
        file.truncate(size)
    subprocess.run([f"mkfs.{kind}", disk], check=True, capture_output=True)
    mountpoint.mkdir()
    types = ["-t", "exfat-fuse"] if kind == "exfat" else []  # not every kernel has exfat
    subprocess.run(["mount", *types, "-o", "loop", disk, mountpoint], check=True, stdout=subprocess.DEVNULL)
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", mountpoint], check=True)


@pytest.mark.integration
def test_a_file_system_that_shares_blocks_has_a_common_layer_once(tmp_path: Path) -> None:
    """Of two archives on one base of 30 MB, on btrfs."""
    shared = images.random_layer("base", 30_000_000)
    both = {APP: images.image(shared, images.random_layer("one", 1000)), WEB: images.image(shared)}
    with mounted("btrfs", tmp_path) as directory:
        before = os.statvfs(directory)
        run_prefetch(FakeSource(both), directory, *want(APP, WEB))
        subprocess.run(["sync", "--file-system", directory], check=True)
        after = os.statvfs(directory)
    assert 30_000_000 < (before.f_bfree - after.f_bfree) * after.f_frsize < 35_000_000


@pytest.mark.integration
def test_a_file_system_without_links_has_the_same_files(
    registry: FaultRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As exfat, which has neither modes nor sparse files, too; a root tree needs links."""
    section = packages.section(registry.host, 'name="app" path="team" tag="1"')
    with mounted("exfat", tmp_path) as directory:
        places = [packages.write(parent / "package", section) for parent in (directory, tmp_path)]
        for name, layout in (("first", "archives"), ("moved", "archives"), ("moved", "blobs")):
            registry.push(
                images.image(images.random_layer(name, 300_000), images.random_layer("base", 5000)), "team/app:1"
            )
            for package in places:
                assert main(["prefetch", "--arch=x86_64", f"--layout={layout}", str(package)]) == 0
                assert main(["verify", "--arch=x86_64", str(package)]) == 0
            assert hashes(places[0]) == hashes(places[1])
        (directory / "root").mkdir()
        assert main(["inject", "--arch=x86_64", f"--root={directory}/root", str(places[0])]) == 1
        assert "no symbolic links can be created there" in capsys.readouterr().err
        assert os.listdir(directory / "root") == []
