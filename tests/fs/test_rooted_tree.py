"""Nothing is ever written outside a tree, whatever links are in it, and files have the requested content."""

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from osc_containers.errors import VerificationError
from osc_containers.fs.ranges import FileSlice
from osc_containers.fs.rooted_tree import Tree
from osc_containers.fs.source_file import open_source
from tests.support.descriptors import all_closed
from tests.support.messages import exactly
from tests.support.process import SHARED_MEMORY, file_size_limit, umask

OUTSIDE = "outside"

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # renameat2(2) with this flag swaps two names atomically


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    """Yield an empty tree next to a directory that must stay empty; no descriptor may be left open."""
    (tmp_path / "root").mkdir()
    (tmp_path / OUTSIDE).mkdir()
    with all_closed():
        yield Tree(tmp_path / "root")
    assert os.listdir(tmp_path / OUTSIDE) == []
    assert sorted(os.listdir(tmp_path)) == [OUTSIDE, "root"]


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "archive"
    path.write_bytes(b"archive" * 1000)
    path.chmod(0o644)
    return path


def files_of(tree: Tree) -> dict[str, str]:
    """Return the content of each file, `-> target` for each link and the mode of each directory."""
    contents = {}
    for path in sorted(tree.root.rglob("*")):
        name = str(path.relative_to(tree.root))
        if path.is_symlink():
            contents[name] = f"-> {os.readlink(path)}"
        else:
            contents[name] = path.read_text() if path.is_file() else f"{path.stat().st_mode & 0o7777:o}"
    return contents


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(tree: Tree, mask: int) -> None:
    with umask(mask):
        tree.write("/var/tmp/kiwi_containers/x", b"x", 0o640)
        tree.write("/tmp/y", b"y", 0o755)
        tree.symlink("/usr/lib/z", "../y")
    assert files_of(tree) == {
        "tmp": "1777",
        "tmp/y": "y",
        "usr": "755",
        "usr/lib": "755",
        "usr/lib/z": "-> ../y",
        "var": "755",
        "var/tmp": "1777",
        "var/tmp/kiwi_containers": "755",
        "var/tmp/kiwi_containers/x": "x",
    }
    assert (tree.root / "var/tmp/kiwi_containers/x").stat().st_mode & 0o7777 == 0o640
    assert (tree.root / "tmp/y").stat().st_mode & 0o7777 == 0o755


def test_existing_directories_keep_their_modes(tree: Tree) -> None:
    (tree.root / "var/tmp").mkdir(parents=True)
    (tree.root / "var").chmod(0o711)
    (tree.root / "var/tmp").chmod(0o700)
    tree.write("/var/tmp/x", b"x", 0o644)
    assert files_of(tree) == {"var": "711", "var/tmp": "700", "var/tmp/x": "x"}


@pytest.mark.parametrize(
    ("links", "path", "expected"),
    [
        ({}, "/a", "a"),
        ({}, "/a/b/c", "a/b/c"),
        ({}, "//a/./b", "a/b"),
        ({"var": "/srv"}, "/var/x", "srv/x"),
        ({"var": "srv"}, "/var/x", "srv/x"),
        ({"var": "srv/deep/"}, "/var/x", "srv/deep/x"),
        ({"a/var": "../srv"}, "/a/var/x", "srv/x"),
        ({"a/var": "/a"}, "/a/var/var/var/x", "a/x"),
        ({"var": "a", "a": "b", "b": "/c"}, "/var/x", "c/x"),
        ({"var": "/"}, "/var/x", "x"),
        ({"var": ".."}, "/var/x", "x"),
        ({"var": "../../../outside"}, "/var/x", "outside/x"),
        ({"var": "/../outside"}, "/var/x", "outside/x"),
        ({"var": "a/../../../outside/./"}, "/var/x", "outside/x"),
        ({"var": "OUTSIDE"}, "/var/x", "OUTSIDE/x"),
        ({"a/b": "../../..", "var": "a/b/outside"}, "/var/x", "outside/x"),
        ({"var": "/proc/self/root"}, "/var/x", "proc/self/root/x"),
    ],
)
def test_links_are_resolved_inside_the_tree(tree: Tree, links: dict[str, str], path: str, expected: str) -> None:
    outside = str(tree.root.parent / OUTSIDE)
    expected = expected.replace("OUTSIDE", outside.lstrip("/"))
    for name, target in links.items():
        (tree.root / name).parent.mkdir(parents=True, exist_ok=True)
        (tree.root / name).symlink_to(target.replace("OUTSIDE", outside))
    tree.write(path, b"x", 0o644)
    assert [name for name, content in files_of(tree).items() if content == "x"] == [expected]


@pytest.mark.parametrize(("count", "fits"), [(40, True), (41, False)])
def test_as_many_links_are_followed_as_in_linux(tree: Tree, count: int, fits: bool) -> None:
    (tree.root / "link0").mkdir()
    for number in range(count):
        (tree.root / f"link{number + 1}").symlink_to(f"link{number}")
    if fits:
        tree.write(f"/link{count}/x", b"x", 0o644)
        assert (tree.root / "link0/x").read_bytes() == b"x"
    else:
        with pytest.raises(OSError, match=exactly(os_error(tree, f"/link{count}/x", errno.ELOOP))):
            tree.write(f"/link{count}/x", b"x", 0o644)


def os_error(tree: Tree, path: str, number: int) -> str:
    return f"[Errno {number}] {os.strerror(number)}: '{tree.root}{path}'"


def link(tree: Tree, path: str, source: Path) -> bool:
    with ExitStack() as stack:
        return tree.link(path, open_source(source, stack))


def copy(tree: Tree, path: str, source: Path, expected: bytes = b"archive") -> None:
    def check(written: FileSlice) -> None:
        if written.read(0, len(expected)) != expected:
            raise ValueError("got other bytes")

    with ExitStack() as stack:
        content = FileSlice(open_source(source, stack).descriptor, 0)
        tree.copy(path, content, source.stat().st_size, check)


WRITERS: list[Callable[[Tree, str, Path], object]] = [
    lambda tree, path, source: tree.write(path, b"new", 0o644),
    lambda tree, path, source: tree.symlink(path, "new"),
    lambda tree, path, source: link(tree, path, source),
    lambda tree, path, source: copy(tree, path, source),
]
writers = pytest.mark.parametrize("write", WRITERS, ids=["write", "symlink", "link", "copy"])


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_file(path: Path) -> None:
    path.write_text("old")


@pytest.mark.sampled(every=3)
@writers
@pytest.mark.parametrize(
    ("make", "path", "number"),
    [
        (make_loop, "/old/x", errno.ELOOP),
        (make_file, "/old/x", errno.ENOTDIR),
        (make_file, "/old/x/y", errno.ENOTDIR),
        (os.mkfifo, "/old/x", errno.ENOTDIR),
        (Path.mkdir, "/old", errno.EISDIR),
        (make_file, f"/{'n' * 256}/x", errno.ENAMETOOLONG),
        (make_file, f"/{'n' * 256}", errno.ENAMETOOLONG),
    ],
)
def test_an_obstacle_is_named_and_nothing_is_left(
    tree: Tree,
    source: Path,
    write: Callable[[Tree, str, Path], object],
    make: Callable[[Path], object],
    path: str,
    number: int,
) -> None:
    make(tree.root / "old")
    before = os.listdir(tree.root)
    with pytest.raises(OSError, match=exactly(os_error(tree, path, number))):
        write(tree, path, source)
    assert os.listdir(tree.root) == before


@pytest.mark.sampled(every=3)
@writers
@pytest.mark.parametrize(
    "make",
    [make_file, make_loop, os.mkfifo, lambda path: path.symlink_to("/"), lambda path: path.symlink_to("../outside/x")],
)
def test_an_existing_file_or_link_is_replaced(
    tree: Tree, source: Path, write: Callable[[Tree, str, Path], object], make: Callable[[Path], object]
) -> None:
    make(tree.root / "x")
    write(tree, "/x", source)
    assert list(files_of(tree).values()) in (["new"], ["-> new"], [source.read_text()])
    write(tree, "/x", source)
    assert os.listdir(tree.root) == ["x"]


@pytest.mark.parametrize("path", ["", "x", "./x", "/a/../x", "/..", "/x\0"])
def test_a_path_must_be_absolute_without_dots(tree: Tree, path: str) -> None:
    with pytest.raises(ValueError, match=exactly(f"got path {path!r}, expected an absolute path without '..'")):
        tree.write(path, b"x", 0o644)
    assert os.listdir(tree.root) == []


@pytest.mark.parametrize("make", [None, make_file, lambda path: path.symlink_to("outside")])
def test_the_root_must_be_a_directory_and_not_a_link(tmp_path: Path, make: Callable[[Path], object] | None) -> None:
    (tmp_path / OUTSIDE).mkdir()
    if make:
        make(tmp_path / "root")
    with pytest.raises((FileNotFoundError, NotADirectoryError)) as caught:
        Tree(tmp_path / "root").write("/x", b"x", 0o644)
    assert str(caught.value.filename) == str(tmp_path / "root")
    assert os.listdir(tmp_path / OUTSIDE) == []


def test_a_race_with_a_link_does_not_leave_the_tree(tree: Tree) -> None:
    directory, link = tree.root / "var", tree.root / "link"
    directory.mkdir()
    link.symlink_to(tree.root.parent / OUTSIDE)
    exchange = ctypes.CDLL(None).renameat2
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            exchange(_AT_FDCWD, bytes(directory), _AT_FDCWD, bytes(link), _RENAME_EXCHANGE)

    thread = threading.Thread(target=swap)
    thread.start()
    outcomes = set()
    try:
        for _ in range(100):
            try:
                tree.write("/var/tmp/x", b"x", 0o644)
                outcomes.add(0)
            except OSError as error:
                outcomes.add(error.errno or -1)
    finally:
        stop.set()
        thread.join()
    assert 0 in outcomes
    assert outcomes <= {0, errno.ENOTDIR, errno.ELOOP}


def test_an_archive_is_linked_and_not_copied(tree: Tree, source: Path) -> None:
    assert link(tree, "/var/tmp/x", source)
    assert link(tree, "/var/tmp/x", source), "a second link to the same file"
    assert (tree.root / "var/tmp/x").samefile(source)
    assert os.listdir(tree.root / "var/tmp") == ["x"]
    assert os.listdir(source.parent) == [source.name]


def make_link(path: Path) -> None:
    path.symlink_to("x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_link, "got a symbolic link, expected a file; replace it with the file"),
        (os.mkfifo, "got a special file, expected a regular file; remove it"),
        (Path.mkdir, "got a special file, expected a regular file; remove it"),
    ],
)
def test_a_source_that_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / "other")
    with ExitStack() as stack, pytest.raises(OSError, match=f"{message}: '{tmp_path}/other'$"):
        open_source(tmp_path / "other", stack)


def test_a_source_is_the_file_that_was_opened(tree: Tree, source: Path) -> None:
    content = source.read_bytes()
    with ExitStack() as stack:
        opened = open_source(source, stack)
        assert tree.link("/before", opened)
        source.unlink()
        source.symlink_to("/etc/passwd")
        assert tree.link("/linked", opened)
        (tree.root / "before").unlink()
        (tree.root / "linked").unlink()
        assert not tree.link("/copied", opened)
    assert (tree.root / "copied").read_bytes() == content


def test_a_copy_shares_nothing_with_its_source(tree: Tree, source: Path) -> None:
    copy(tree, "/x", source)
    assert (tree.root / "x").read_bytes() == source.read_bytes()
    assert not (tree.root / "x").samefile(source)


def test_a_part_of_a_file_is_copied(tree: Tree, source: Path) -> None:
    with source.open("rb") as file:
        tree.copy("/x", FileSlice(file.fileno(), 2), 9)
    assert (tree.root / "x").read_bytes() == source.read_bytes()[2:11]


def test_a_wrong_copy_is_removed(tree: Tree, source: Path) -> None:
    message = "x: changed after its verification: got other bytes; run again"
    with pytest.raises(VerificationError, match=exactly(message)):
        copy(tree, "/x", source, b"another")
    assert os.listdir(tree.root) == []


def test_a_file_of_the_tree_is_opened_and_linked_there(tree: Tree, source: Path) -> None:
    copy(tree, "/var/x", source)
    (tree.root / "link").symlink_to("/var")
    with ExitStack() as stack:
        assert tree.link("/y", tree.open("/link/x", stack))
    assert (tree.root / "y").samefile(tree.root / "var/x")
    (tree.root / "var/z").symlink_to(source)
    with ExitStack() as stack, pytest.raises(OSError, match="got a symbolic link, expected a file"):
        tree.open("/var/z", stack)


def test_opening_a_file_creates_nothing(tree: Tree) -> None:
    with ExitStack() as stack, pytest.raises(FileNotFoundError, match=exactly(os_error(tree, "/a/b/x", errno.ENOENT))):
        tree.open("/a/b/x", stack)
    assert files_of(tree) == {}


def test_a_fifo_that_takes_the_place_of_a_file_blocks_nothing(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it does so between the look at the file and its opening."""
    (tree.root / "x").write_text("old")
    lstat = os.lstat

    def swap(name: str, *, dir_fd: int) -> os.stat_result:
        status = lstat(name, dir_fd=dir_fd)
        (tree.root / "x").unlink()
        os.mkfifo(tree.root / "x")
        # Without a writer, opening it would wait.
        monkeypatch.setattr(os, "lstat", lambda *_, **__: status)
        return status

    monkeypatch.setattr(os, "lstat", swap)
    with pytest.raises(OSError, match="got a special file, expected a regular file"):
        tree._replace(keeps=True).write("/x", b"new", 0o644)


def is_copy(tree: Tree, source: Path) -> bool:
    is_link = link(tree, "/x", source)
    path = tree.root / "x"
    assert path.read_bytes() == source.read_bytes()
    assert path.stat().st_mode & 0o7777 == 0o644
    assert os.listdir(tree.root) == ["x"]
    assert is_link is path.samefile(source)
    return not is_link


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755, 0o4644])
def test_a_source_of_another_mode_is_copied(tree: Tree, source: Path, mode: int) -> None:
    source.chmod(mode)
    with umask(0o077):
        assert is_copy(tree, source)
    assert source.stat().st_mode & 0o7777 == mode


def test_a_source_on_another_file_system_is_copied(tree: Tree) -> None:
    assert SHARED_MEMORY.stat().st_dev != tree.root.stat().st_dev
    with TemporaryDirectory(dir=SHARED_MEMORY) as directory:
        source = Path(directory) / "x"
        source.write_bytes(b"archive" * 1000)
        source.chmod(0o644)
        assert is_copy(tree, source)


def test_a_missing_source_leaves_nothing(tree: Tree, source: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        link(tree, "/x", source.parent / "missing")
    assert caught.value.filename == str(source.parent / "missing")
    assert os.listdir(tree.root) == []


def test_a_full_disk_leaves_nothing(tree: Tree, source: Path) -> None:
    source.chmod(0o600)
    for write in (lambda: tree.write("/x", b"x" * 2000, 0o644), lambda: link(tree, "/x", source)):
        with file_size_limit(1000), pytest.raises(OSError, match=exactly(os_error(tree, "/x", errno.EFBIG))):
            write()
    assert os.listdir(tree.root) == []
