"""A package gives its lock and archives, from wherever osc left them, and is one run's alone."""

import fcntl
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from osc_containers.errors import Error, LockError
from osc_containers.formats import xml_reader
from osc_containers.fs import atomic, user_cache
from osc_containers.lock import lockfile
from osc_containers.obs import run_lock, selection
from osc_containers.obs.package import Package
from tests.support.descriptors import all_closed
from tests.support.messages import exactly

LOCK = lockfile.dumps(lockfile.EMPTY)
NAME = "app.x86_64.ociarchive"
OWN = "_service:kiwi_containers:"


def make(directory: Path, *names: str) -> Package:
    for name in names:
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(LOCK)
    return Package(directory)


def make_dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_link_to_fifo(path: Path) -> None:
    os.mkfifo(path.parent / "fifo")
    path.symlink_to("fifo")


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ([], None),
        ([NAME], NAME),
        ([OWN + NAME], OWN + NAME),
        ([f".old/{NAME}"], None),
        ([f".old/{OWN}{NAME}"], f".old/{OWN}{NAME}"),
        ([NAME, OWN + NAME, f".old/{OWN}{NAME}"], NAME),
        ([OWN + NAME, f".old/{OWN}{NAME}"], f".old/{OWN}{NAME}"),
        ([f"_service:recompress:{OWN}{NAME}"], f"_service:recompress:{OWN}{NAME}"),
        ([f"_service:{NAME}"], f"_service:{NAME}"),
        ([f"_service:x:{OWN.replace(':', '-')}{NAME}", f"x{OWN}{NAME}", f"{OWN}x{NAME}"], None),
    ],
)
def test_a_file_is_found_where_osc_leaves_it(tmp_path: Path, there: list[str], found: str | None) -> None:
    package = make(tmp_path, *there)
    assert package.find(NAME) == (tmp_path / found if found else None)


@pytest.mark.parametrize("make_other", [Path.mkdir, os.mkfifo, make_dangling, make_loop, make_link_to_fifo])
def test_what_is_no_file_is_not_found(tmp_path: Path, make_other: Callable[[Path], object]) -> None:
    (tmp_path / ".old").mkdir()
    for name in (NAME, f".old/{OWN}{NAME}"):
        make_other(tmp_path / name)
    assert Package(tmp_path).find(NAME) is None
    assert Package(tmp_path).image_paths() == ()


def test_to_find_one_file_no_other_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand containers are each looked for in the thousand results of an earlier run."""
    (tmp_path / ".old").mkdir()
    for number in range(50):
        (tmp_path / ".old" / f"_service:kiwi_containers:{number}.ociarchive").touch()
    looked_at: list[Path] = []
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: looked_at.append(path) or is_file(path))  # type: ignore[func-returns-value]
    assert Package(tmp_path).find("7.ociarchive") == tmp_path / ".old" / "_service:kiwi_containers:7.ociarchive"
    assert len(looked_at) < 10


def test_files_with_blobs_are_all_there_are_once_each_and_sorted(tmp_path: Path) -> None:
    names = [
        "b.ociarchive",
        "a.ociarchive",
        f"{OWN}c.ociarchive",
        f".old/{OWN}a.ociarchive",
        "kiwi_containers.obscpio",
        "x.blob",
    ]
    package = make(tmp_path, *names, "a.ociarchive.part", ".old/a.ociarchive", f"{OWN}x", "sub/a.ociarchive")
    (tmp_path / "link.ociarchive").symlink_to("b.ociarchive")
    assert package.image_paths() == tuple(sorted(tmp_path / name for name in [*names, "link.ociarchive"]))


def test_a_package_without_a_lock_has_none(tmp_path: Path) -> None:
    assert Package(tmp_path).read_lock() is None


@pytest.mark.parametrize("name", ["containers.lock", f"{OWN}containers.lock", f".old/{OWN}containers.lock"])
def test_a_lock_is_read(tmp_path: Path, name: str) -> None:
    assert make(tmp_path, name).read_lock() == lockfile.EMPTY


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "not UTF-8 text; remove it and run the prefetch again"),
        (LOCK.encode("utf-16"), "not UTF-8 text; remove it and run the prefetch again"),
        (b"", "not valid JSON; Expecting value: line 1 column 1 (char 0); remove the lock and run the prefetch again"),
    ],
)
def test_a_broken_lock_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "containers.lock").write_bytes(content)
    with pytest.raises(LockError, match=exactly(f"containers.lock: {message}")):
        Package(tmp_path).read_lock()


def test_a_lock_is_bounded(tmp_path: Path) -> None:
    with (tmp_path / "containers.lock").open("wb") as file:
        file.truncate(lockfile.LIMIT + 1)
    message = "containers.lock: got 67108865 bytes, expected at most 67108864"
    with pytest.raises(LockError, match=exactly(message)):
        Package(tmp_path).read_lock()


@pytest.mark.parametrize("make_other", [Path.mkdir, os.mkfifo, make_link_to_fifo])
def test_a_lock_that_is_no_file_is_an_error(tmp_path: Path, make_other: Callable[[Path], object]) -> None:
    make_other(tmp_path / "containers.lock")
    message = "containers.lock: got a directory or a special file, expected a file; remove it"
    with pytest.raises(LockError, match=exactly(message)):
        Package(tmp_path).read_lock()


@contextmanager
def other_run(directory: Path) -> Iterator[int]:
    """Hold a package in another process, and give its id."""
    script = (
        "import pathlib, sys\nfrom osc_containers.obs.package import Package\n"
        "with Package(pathlib.Path(sys.argv[1])).hold():\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process.pid


def test_the_second_run_is_told_who_is_the_first(tmp_path: Path) -> None:
    package = Package(tmp_path)
    with other_run(tmp_path) as pid:
        message = f"{tmp_path}: in use by process {pid}; wait until it has ended"
        with pytest.raises(Error, match=exactly(message)), package.hold():
            pass
        (tmp_path / "other").mkdir()
        with Package(tmp_path / "other").hold():
            pass
        (tmp_path / "other").rmdir()
    with package.hold():
        assert os.listdir(tmp_path) == []


def test_reader_is_told_who_changes_the_package(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    package = Package(tmp_path)
    package.warn_of_writer()
    assert not (Path.home() / ".local").exists()
    with other_run(tmp_path) as pid:
        message = f"{tmp_path}: process {pid} is changing it, as prefetch and init do; wait until it has ended"
        with pytest.raises(Error, match=exactly(message)), package.share():
            pass
        package.warn_of_writer()
    assert caplog.messages == [f"{tmp_path}: process {pid} is changing it, as prefetch and init do"]
    with package.share(), Package(tmp_path).share():
        package.warn_of_writer()
    assert len(caplog.messages) == 1


def test_run_waits_for_readers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with ExitStack() as readers, ThreadPoolExecutor() as pool:
        for _ in range(2):
            readers.enter_context(Package(tmp_path).share())
        writer = pool.submit(enter_and_leave, Package(tmp_path))
        while not caplog.messages:
            time.sleep(0.01)
        assert not writer.done()
        readers.close()
        writer.result(timeout=10)
    assert caplog.messages == [f"{tmp_path}: waiting for process {os.getpid()}, which is reading it"]
    assert os.listdir(Path.home() / ".local/state/osc-containers/locks") == []


def test_readers_do_not_refuse_each_other_at_any_moment(tmp_path: Path) -> None:
    """The one that ends last removes the file while others begin."""

    def read() -> None:
        for _ in range(300):
            with Package(tmp_path).share():
                pass

    with ThreadPoolExecutor() as pool:
        for reader in [pool.submit(read) for _ in range(4)]:
            reader.result()
    assert os.listdir(Path.home() / ".local/state/osc-containers/locks") == []


def test_run_waits_for_the_next_reader_if_one_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    find_holder = run_lock._holder
    lookups = [None]
    monkeypatch.setattr(run_lock, "_holder", lambda status: lookups.pop() if lookups else find_holder(status))
    with ExitStack() as reader, ThreadPoolExecutor() as pool:
        reader.enter_context(Package(tmp_path).share())
        writer = pool.submit(enter_and_leave, Package(tmp_path))
        while not caplog.messages and not writer.done():
            time.sleep(0.01)
        reader.close()
        writer.result(timeout=10)
    assert caplog.messages == [f"{tmp_path}: waiting for process {os.getpid()}, which is reading it"]


def test_run_that_ends_while_it_is_looked_up_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as first:
        first.enter_context(Package(tmp_path).hold())
        monkeypatch.setattr(run_lock, "_holder", lambda status: first.close())
        with Package(tmp_path).hold():
            pass


def enter_and_leave(package: Package) -> None:
    with package.hold():
        pass


def test_home_that_does_not_exist_is_not_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    package = Package(tmp_path)
    with package.share():
        pass
    with package.hold():
        pass
    with pytest.raises(FileNotFoundError):
        user_cache.open_directory()
    assert os.listdir(tmp_path) == []


def test_a_package_is_free_again_when_a_run_fails(tmp_path: Path) -> None:
    package = Package(tmp_path)
    for _ in range(2):
        with all_closed(), pytest.raises(ZeroDivisionError), package.hold():
            raise ZeroDivisionError


@pytest.mark.parametrize("kind", [fcntl.LOCK_SH, fcntl.LOCK_EX])
def test_a_lock_that_a_reader_can_hold_is_only_noted(
    tmp_path: Path, kind: int, caplog: pytest.LogCaptureFixture
) -> None:
    abandoned = Path(atomic.temporary_name(tmp_path / "x"))
    abandoned.touch()
    reader = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(reader, kind)
    with Package(tmp_path).hold():
        assert abandoned.exists()  # it may belong to a run of the other user
        with pytest.raises(Error, match=f": in use by process {os.getpid()};"), Package(tmp_path).hold():
            pass
    os.close(reader)
    assert caplog.messages == [f"{tmp_path}: process {os.getpid()} has a lock on this directory, which is ignored"]


def test_the_lock_file_is_private_and_goes_with_the_run(tmp_path: Path) -> None:
    locks = Path.home() / ".local/state/osc-containers/locks"
    with Package(tmp_path).hold():
        (lock,) = locks.iterdir()
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
        assert stat.S_IMODE(locks.stat().st_mode) == 0o700
    assert os.listdir(locks) == []


def make_open_directory(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


@pytest.mark.parametrize("make", [Path.touch, make_link_to_fifo, make_open_directory])
def test_without_a_lock_file_a_run_only_warns(
    tmp_path: Path, make: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    locks = Path.home() / ".local/state/osc-containers/locks"
    locks.parent.mkdir(parents=True)
    make(locks)
    with Package(tmp_path).hold():
        pass
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path}: cannot be locked against a second run at the same time: {locks}: ")


def test_a_lock_file_that_others_can_open_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    locks = Path.home() / ".local/state/osc-containers/locks"
    with Package(tmp_path).hold():
        (lock,) = locks.iterdir()
    lock.touch(mode=0o644)
    with Package(tmp_path).hold():
        pass
    assert "it is not a file that only this user can open; remove it" in caplog.text


def test_a_package_that_is_not_there_cannot_be_held(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), Package(tmp_path / "x").hold():
        pass


def test_what_killed_runs_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = (
        ".gitignore",
        ".app.0123456789abcdef",
        "x.0123456789abcdef.osc-containers",
        ".d.0123456789abcdef.osc-containers",
    )
    for name in kept[:-1]:
        (tmp_path / name).touch()
    (tmp_path / kept[-1]).mkdir()
    Path(atomic.temporary_name(tmp_path / "containers.lock")).touch()
    with Package(tmp_path).hold():
        assert {path.name for path in tmp_path.iterdir()} == set(kept)


def test_a_run_reads_each_description_and_service_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = '<containers source="r.example.com" backend="podman"><container name="x"/></containers>'
    (tmp_path / "a.kiwi").write_text(f'<image schemaversion="8.0" name="a">{section}</image>')
    (tmp_path / "_service").write_text('<services><service name="kiwi_containers" mode="manual"/></services>')
    reads: list[str] = []
    read = xml_reader.read

    def counted(path: Path, flags: int = 0) -> bytes:
        reads.append(path.name)
        return read(path, flags)

    monkeypatch.setattr(xml_reader, "read", counted)
    package = Package(tmp_path)
    for _ in range(2):
        assert selection.image_requests(selection.of_package(package))
        assert package.prefetches
    assert sorted(reads) == ["_service", "a.kiwi"]
