"""Whatever is wrong with the user's cache, all is done without it."""

import errno
import fcntl
import os
import pwd
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest

from osc_containers.oci.digest import Digest
from osc_containers.prefetch import verified_files
from osc_containers.prefetch.download import partial_file
from osc_containers.prefetch.plan import OutputFile, Slot
from tests.support import images
from tests.support.fake_source import FakeSource
from tests.support.prefetch_run import APP, WEB, hashes, run_prefetch, want

SOURCE = FakeSource({APP: images.image(images.random_layer("app", 100_000)), WEB: images.small("web")})
KEY = "0" * 64
STALE = (1_000_000_000, 1_000_000_000)


def cache() -> Path:
    path = Path(os.environ["HOME"], ".cache/osc-containers")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def has_no_locks(descriptor: int, operation: int) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def ask_in_vain(name: str) -> Path:
    raise RuntimeError("could not determine the home directory")


@pytest.mark.parametrize(
    "answer", [ask_in_vain, lambda name: Path("~/.cache", name)], ids=["platformdirs 4.14", "platformdirs 2.6"]
)
def test_a_user_without_a_home_has_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], Path]
) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", answer)
    monkeypatch.setattr(time, "time_ns", lambda: 1 << 62)  # what was verified is remembered after a while
    monkeypatch.chdir(tmp_path)
    Path("package").mkdir()
    for _ in range(2):
        run_prefetch(SOURCE, Path("package"), *want(APP))
    assert os.listdir(tmp_path) == ["package"]
    assert len(os.listdir("package")) == 2


def test_a_home_of_the_user_database_that_does_not_exist_is_not_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service account has one like /nonexistent, and its services may be started without HOME."""
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    entry = pwd.struct_passwd(("obs", "x", os.getuid(), os.getgid(), "", str(tmp_path / "nonexistent"), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda number: entry)
    (tmp_path / "package").mkdir()
    run_prefetch(SOURCE, tmp_path / "package", *want(APP))
    assert os.listdir(tmp_path) == ["package"]


def test_without_file_locks_there_are_no_parts_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some NFS."""
    monkeypatch.setattr(fcntl, "flock", has_no_locks)
    run_prefetch(SOURCE, tmp_path, *want(APP, WEB))
    assert len(os.listdir(tmp_path)) == 3
    assert {path.stat().st_size for path in cache().glob("*.part")} == {0}
    for path in cache().glob("*.part"):
        os.utime(path, STALE)
    partial_file.tidy("owner", ())
    assert [path for path in cache().rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path.name)])
def test_what_is_no_part_is_left_alone(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(cache() / f"{KEY}.part")
    with partial_file.part(tmp_path / "x.ociarchive", KEY, 10) as descriptor:
        os.pwrite(descriptor, b"x" * 10, 0)
    assert (tmp_path / "x.ociarchive").read_bytes() == b"x" * 10
    assert os.listdir(cache()) == [f"{KEY}.part"]


@pytest.mark.parametrize("is_made_anew", [False, True])
def test_what_is_cleared_meanwhile_is_not_lost(tmp_path: Path, is_made_anew: bool) -> None:
    """Though another run may have begun with the same since."""
    part = cache() / f"{KEY}.part"
    with partial_file.part(tmp_path / "x.ociarchive", KEY, 10) as descriptor:
        os.pwrite(descriptor, b"x" * 10, 0)
        part.unlink()
        if is_made_anew:
            part.write_bytes(b"another's")
    assert (tmp_path / "x.ociarchive").read_bytes() == b"x" * 10
    assert (tmp_path / "x.ociarchive").stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["x.ociarchive"]
    assert part.exists() is is_made_anew


@pytest.mark.integration
def test_a_part_of_somebody_else_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `sudo` leaves one: root's, in the user's cache."""
    script = (
        "import os, sys; from pathlib import Path; from osc_containers.prefetch.download import partial_file\n"
        "os.setresuid(4711, 4711, 4711)\n"
        "with partial_file.part(Path('x.ociarchive'), sys.argv[1], 10): pass\n"
    )
    with tempfile.TemporaryDirectory() as home:  # where that user gets to, unlike `tmp_path`
        monkeypatch.setenv("HOME", home)
        part = cache() / f"{KEY}.part"
        part.write_bytes(b"root's")
        part.chmod(0o600)
        for directory in (part.parent, part.parent.parent, home):
            os.chown(directory, 4711, 4711)
        subprocess.run([sys.executable, "-c", script, KEY], cwd=home, check=True)
        assert part.read_bytes() == b"root's"
        assert Path(home, "x.ociarchive").stat().st_size == 10


@pytest.mark.integration
def test_a_cache_in_another_mount_of_the_same_file_system_is_not_used(tmp_path: Path) -> None:
    """As a container has it that gets the package from outside: nothing is moved from one mount to another."""
    script = (
        "from pathlib import Path; from osc_containers.prefetch.download import partial_file\n"
        "with partial_file.part(Path('x'), 'key', 10): pass\n"
    )
    command = 'mount --bind . . && cd "$PWD" && exec "$0" -c "$1"'
    assert cache().stat().st_dev == tmp_path.stat().st_dev
    subprocess.run(["unshare", "--mount", "sh", "-c", command, sys.executable, script], cwd=tmp_path, check=True)
    assert (tmp_path / "x").stat().st_size == 10
    assert os.listdir(cache()) == []


def test_what_is_stale_and_cannot_be_removed_keeps_no_other() -> None:
    (cache() / "link.part").symlink_to("nowhere")
    (cache() / "verified/directory").mkdir(parents=True)
    for name in ("a.part", "z.part", "verified/a", "verified/z", "verified/directory"):
        (cache() / name).touch()
        os.utime(cache() / name, STALE)
    (cache() / "new.part").touch()
    partial_file.tidy("owner", ())
    assert sorted(str(path.relative_to(cache())) for path in cache().rglob("*")) == [
        "link.part",
        "new.part",
        "verified",
        "verified/directory",
    ]


def make_writable(path: Path) -> None:
    path.chmod(0o666 | path.stat().st_mode)


def add_name(path: Path) -> None:
    os.link(path, path.with_name("second"))


def give_away(path: Path) -> None:
    os.chown(path, 4711, 4711)


def replace_by_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.integration
@pytest.mark.parametrize("expose", [make_writable, add_name, give_away, replace_by_link])
def test_a_partial_file_that_others_can_change_is_not_used(tmp_path: Path, expose: Callable[[Path], object]) -> None:
    path = cache() / f"{KEY}.part"
    path.write_bytes(b"x" * 10)
    path.chmod(0o600)
    expose(path)
    with partial_file.part(tmp_path / "x.ociarchive", KEY, 10) as descriptor:
        assert os.pread(descriptor, 10, 0) == bytes(10)
    assert path.exists()


@pytest.mark.integration
@pytest.mark.parametrize("expose", [make_writable, give_away, replace_by_link])
@pytest.mark.parametrize("name", ["", "verified"])
def test_a_cache_directory_that_others_can_change_is_not_used(
    tmp_path: Path, expose: Callable[[Path], object], name: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    os.utime(file, STALE)
    directory = cache() / "verified"
    directory.mkdir(mode=0o700)
    status = file.stat()
    fields = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    entry = directory / "-".join(f"{field:x}" for field in fields)
    wrong = OutputFile(name="file", size=7, slots=[Slot(offset=0, size=7, digest=Digest.of(b"other"))])
    entry.write_text(wrong.key)
    entry.chmod(0o600)
    assert verified_files.holds(file, wrong)
    expose(cache() / name)
    assert not verified_files.holds(file, wrong)


def write_part(name: str, age: float = 0) -> None:
    path = cache() / f"{name}.part"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(bytes(8192))
    path.chmod(0o600)
    os.utime(path, (time.time() - age,) * 2)


def test_parts_that_the_package_no_longer_needs_are_removed() -> None:
    """Those of other packages stay, or are continued if the package needs the same."""
    for name in ("needed.other", "needed2.mine", "needed2.other", "moved.mine", "moved.other"):
        write_part(name)
    partial_file.tidy("mine", {"needed", "needed2"})
    assert sorted(os.listdir(cache())) == [
        "moved.other.part",
        "needed.mine.part",
        "needed2.mine.part",
        "needed2.other.part",
    ]


def test_a_part_stays_open_after_an_interrupt(tmp_path: Path) -> None:
    """The run does not wait for threads that may still write to it, so no other file must get its number."""
    with pytest.raises(KeyboardInterrupt), partial_file.part(tmp_path / "x", KEY, 10) as descriptor:
        raise KeyboardInterrupt
    with open(descriptor, "r+b") as file:
        assert file.write(b"late") == 4
    with pytest.raises(ValueError, match="other"), partial_file.part(tmp_path / "x", KEY, 10) as descriptor:
        raise ValueError("another error")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_on_nfs_the_parts_that_runs_have_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, only a file that is open for writing can be locked."""
    flock = fcntl.flock

    def flock_on_nfs(descriptor: int, operation: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_on_nfs)
    with partial_file.part(tmp_path / "x", "held", 10, "mine"):
        partial_file.tidy("mine", ())
        assert os.listdir(cache()) == ["held.mine.part"]


def test_of_several_parts_that_others_left_the_newest_is_continued() -> None:
    for name, age in (("needed.old", 20), ("needed.new", 10)):
        write_part(name, age)
    newest = (cache() / "needed.new.part").stat().st_ino
    partial_file.tidy("mine", {"needed"})
    assert sorted(os.listdir(cache())) == ["needed.mine.part", "needed.old.part"]
    assert (cache() / "needed.mine.part").stat().st_ino == newest


def hide(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let another run remove a file of the cache when its directory was just listed."""
    scandir = os.scandir

    def list_first(directory: int) -> list["os.DirEntry[str]"]:
        entries = list(scandir(directory))
        (cache() / name).unlink(missing_ok=True)
        return entries

    monkeypatch.setattr(os, "scandir", list_first)


def test_a_part_that_another_run_removes_keeps_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gone.mine", "here.mine", "old.other"):
        write_part(name)
    (cache() / "link.mine.part").symlink_to("nowhere")  # cannot be opened, and is the newest
    hide(monkeypatch, "gone.mine.part")
    partial_file.tidy("mine", ())
    assert sorted(os.listdir(cache())) == ["link.mine.part", "old.other.part"]


def test_parts_make_room_although_one_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache() / "link.part").symlink_to("nowhere")
    os.utime(cache() / "link.part", (time.time() - 30,) * 2, follow_symlinks=False)
    for name in ("gone.other", "new.other"):
        write_part(name)
    hide(monkeypatch, "gone.other.part")
    assert partial_file.reusable_bytes(tmp_path / "x.ociarchive") == {"link": 0, "new": 8192}
    monkeypatch.setattr("osc_containers.fs.atomic.describe_shortage", lambda *_: "short")
    partial_file.make_room(tmp_path / "x.ociarchive", (), 10_000)
    assert os.listdir(cache()) == ["link.part"]


def test_parts_are_bounded_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_file, "_SIZE_LIMIT", 3 * 8192)
    for number in range(6):
        write_part(f"key{number}.other", age=100 - number)
    partial_file.tidy("mine", {"key0"})
    assert sorted(os.listdir(cache())) == ["key0.mine.part", *(f"key{number}.other.part" for number in (3, 4, 5))]


def test_parts_of_others_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, age in (("old", 30), ("needed", 20), ("new", 10)):
        write_part(f"{name}.other", age)
    shortages = iter(["short", "short", ""])
    monkeypatch.setattr("osc_containers.fs.atomic.describe_shortage", lambda *_: next(shortages))
    partial_file.make_room(tmp_path / "x.ociarchive", {"needed"}, 10_000)
    assert sorted(os.listdir(cache())) == ["needed.other.part", "new.other.part"]


@pytest.mark.parametrize("is_supported", [True, False])
def test_without_a_cache_nothing_is_seen_of_a_growing_file(
    is_supported: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where files without a name are not supported, the name is one that osc leaves alone, and a run removes."""
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    if not is_supported:
        monkeypatch.setattr(partial_file, "_DESCRIPTORS", "/nonexistent")
    package = tmp_path / "package"
    package.mkdir()
    (package / "x.ociarchive").write_bytes(b"old")
    with partial_file.part(package / "x.ociarchive", KEY, 10) as descriptor:
        os.pwrite(descriptor, b"0123456789", 0)
        assert len(os.listdir(package)) == (1 if is_supported else 2)
        assert (package / "x.ociarchive").read_bytes() == b"old"
    assert os.listdir(package) == ["x.ociarchive"]
    assert (package / "x.ociarchive").read_bytes() == b"0123456789"
    assert (package / "x.ociarchive").stat().st_mode & 0o7777 == 0o644
    with pytest.raises(ZeroDivisionError), partial_file.part(package / "x.ociarchive", KEY, 20):
        raise ZeroDivisionError
    assert os.listdir(package) == ["x.ociarchive"]
    assert (package / "x.ociarchive").read_bytes() == b"0123456789"


def test_file_system_that_cannot_extend_files_gets_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some FUSE file systems, such as fusefat, answer EPERM."""

    def refuse(descriptor: int, size: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    monkeypatch.setattr(partial_file, "_DESCRIPTORS", "/nonexistent")
    monkeypatch.setattr(os, "ftruncate", refuse)
    source = FakeSource({APP: images.small("app"), WEB: images.small("web")})
    run_prefetch(source, tmp_path, *want(APP, WEB))
    monkeypatch.undo()
    before = hashes(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    run_prefetch(source, other, *want(APP, WEB))
    assert hashes(other) == before
