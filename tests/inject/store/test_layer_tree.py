"""Trees of layers: whiteouts, links and directories as podman has them, and what is refused."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from osc_containers.formats import layer_tar
from osc_containers.inject.store import layer_tree
from osc_containers.inject.store.layer_tree import LayerTree
from tests.support.layer_tars import Writer
from tests.support.slices import slice_of

Fill = Callable[[Writer], None]


def tree_of(content: bytes) -> LayerTree:
    tree = LayerTree()
    with slice_of(content) as layer:
        for member in layer_tar.members(layer, len(content)):
            tree.add(member)
    return tree


def tree(fill: Fill) -> LayerTree:
    writer = Writer()
    fill(writer)
    return tree_of(writer.done())


def shown(result: LayerTree) -> list[str]:
    """Return a line for each entry: path, type, owner and mode, and what else there is."""
    lines = []
    for path, node in result.entries():
        attributes = " ".join(f"{key.decode()}={value.decode()}" for key, value in node.xattrs.items())
        device = f"{node.device[0]}:{node.device[1]}" if node.kind in b"34" else ""
        parts = (path.decode(), node.kind.decode(), f"{node.uid}:{node.gid}", f"{node.mode:o}", device, attributes)
        lines.append(" ".join(filter(None, parts)))
    return lines


def test_whiteouts_are_devices_and_opaque_directories_have_a_mark() -> None:
    def fill(layer: Writer) -> None:
        layer.add("a/.wh.gone", uid=5)
        layer.add("a/b/.wh..wh..opq")
        layer.add("a/b/new")

    assert shown(tree(fill)) == [
        "5 0:0 555",
        "a 5 0:0 755",
        "a/b 5 0:0 755 trusted.overlay.opaque=y user.overlay.opaque=y",
        "a/b/new 0 0:0 644",
        "a/gone 3 5:0 0 0:0",
    ]


def test_a_hard_link_is_the_same_file_with_the_last_owner() -> None:
    def fill(layer: Writer) -> None:
        layer.add("a", mode=0o644)
        layer.hard_link("z/b", "a", mode=0o4600, uid=7)

    result = tree(fill)
    assert shown(result) == ["5 0:0 555", "a 0 7:0 4600", "z 5 0:0 755", "z/b 0 7:0 4600"]
    assert result.root.children[b"a"] is result.root.children[b"z"].children[b"b"]


def test_paths_lead_through_links_of_the_layer() -> None:
    def fill(layer: Writer) -> None:
        layer.directory("usr/lib")
        layer.symlink("lib", "/usr/lib")
        layer.symlink("usr/up", "../lib/./")
        layer.add("usr/up/f")

    assert "usr/lib/f 0 0:0 644" in shown(tree(fill))


def test_a_later_entry_replaces_an_earlier_one() -> None:
    def fill(layer: Writer) -> None:
        layer.add(".wh.a")
        layer.add("a", mode=0o600)
        layer.directory("usr/x")
        layer.add("usr/x/f")
        layer.symlink("u", "usr")
        layer.add("u/x", mode=0o600)

    assert shown(tree(fill)) == [
        "5 0:0 555",
        "a 0 0:0 600",
        "u 2 0:0 777",
        "usr 5 0:0 755",
        "usr/x 0 0:0 600",
    ]


def test_entries_are_sorted_by_components() -> None:
    def fill(layer: Writer) -> None:
        for name in ("a/b", "a-c", "a.d", "B"):
            layer.add(name)

    assert [path for path, _ in tree(fill).entries()] == [b"", b"B", b"a", b"a/b", b"a-c", b"a.d"]


def hostile(name: str, **fields: Any) -> Fill:
    return lambda layer: layer.add(name, **fields)


def after_link(target: str, name: str = "l/f") -> Fill:
    def fill(layer: Writer) -> None:
        layer.symlink("l", target)
        layer.add(name)

    return fill


def linked(target: str) -> Fill:
    def fill(layer: Writer) -> None:
        layer.add(".wh.gone")
        layer.directory("d")
        layer.hard_link("h", target)

    return fill


def many(count: int, directory: str = "") -> Fill:
    def fill(layer: Writer) -> None:
        for number in range(count):
            layer.add(f"{directory}{number}")

    return fill


def twice(first: str, second: str) -> Fill:
    def fill(layer: Writer) -> None:
        layer.add(first)
        layer.add(second)

    return fill


CHARACTER, FIFO, DIRECTORY = b"3", b"6", b"5"
HOSTILE: dict[str, tuple[Fill, str]] = {
    "absolute": (hostile("/etc/passwd"), "'/etc/passwd': got an absolute path"),
    "parent": (hostile("../x"), "got a path with '..'"),
    "parent within": (hostile("a/../../x"), "got a path with '..'"),
    "link to outside": (after_link("../../etc"), "a symbolic link in its path leads out of the layer"),
    "link upwards": (after_link("a/../../../b"), "in its path is missing"),
    "dangling link": (after_link("/nowhere"), "'nowhere' in its path is missing"),
    "link to itself": (after_link("l"), "too many symbolic links"),
    "file in a file": (twice("a", "a/b"), "'a' in its path is not a directory"),
    "name twice": (twice("a", "./a"), "the layer has this name twice"),
    "file hidden by its layer": (twice("a", ".wh.a"), "hides a file of its own layer"),
    "file below a whiteout": (twice(".wh.a", "a/b"), "'a' in its path is not a directory"),
    "whiteout of nothing": (hostile("a/.wh."), "a whiteout that hides no file"),
    "whiteout of the directory": (hostile("a/.wh.."), "a whiteout that hides no file"),
    "whiteout of the parent": (hostile("a/.wh..."), "a whiteout that hides no file"),
    "whiteout of a whiteout": (hostile(".wh..wh.x"), "a whiteout that hides no file"),
    "aufs": (hostile(".wh..wh.plnk", kind=DIRECTORY), "a whiteout that hides no file"),
    "whiteout with content": (hostile(".wh.a", content=b"x"), "got 1 bytes of content, expected none in a whiteout"),
    "whiteout that is a device": (hostile(".wh.a", kind=CHARACTER), "expected a whiteout to be an empty file"),
    "whiteout as a device": (hostile("a", kind=CHARACTER), "overlayfs takes for a deleted file"),
    "no such device": (hostile("a", kind=CHARACTER, devmajor=4096), "a device 4096:0, which Linux does not have"),
    "root that is a file": (hostile("."), "expected the root of the layer to be one"),
    "hard link to nothing": (linked("x"), "links to 'x', which is nothing in this layer so far"),
    "hard link into nothing": (linked("x/y"), "'x' in its path is missing"),
    "hard link to itself": (linked("h"), "links to 'h', which is nothing in this layer so far"),
    "hard link to a directory": (linked("d"), "links to 'd', which is a directory in this layer so far"),
    "hard link to a whiteout": (linked("gone"), "links to 'gone', which is nothing in this layer so far"),
    "hard link to outside": (linked("../x"), "got a path with '..'"),
    "hard link to an absolute path": (linked("/etc/shadow"), "got an absolute path"),
    "hard link to the root": (linked("./"), "links to the root of the layer"),
    "mark of overlayfs": (hostile("a", xattrs={"trusted.overlay.redirect": b"/"}), "would take for its own"),
    "mark of rootless overlayfs": (hostile("a", xattrs={"user.overlay.opaque": b"y"}), "would take for its own"),
    "ACL": (hostile("a", xattrs={"system.posix_acl_access": b"x"}), "which squashfs cannot store"),
    "long attribute": (hostile("a", xattrs={"user.a": b"x" * 65536}), "its value of 65536 bytes is too long"),
    "long name": (hostile("a/" + "n" * 256), "the name is too long"),
    "long path": (hostile("n/" * 2048 + "n"), "the name is too long"),
    "long target": (lambda layer: layer.symlink("a", "t" * 4096), "a link of 4096 bytes"),
}


@pytest.mark.parametrize(("fill", "problem"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_layers_are_refused(fill: Fill, problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("(", r"\(")) as caught:
        tree(fill)
    assert str(caught.value).isprintable()


def test_number_and_length_of_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_tree, "MEMORY_LIMIT", 100_000)
    with pytest.raises(ValueError, match="too many files or too long names"):
        tree(many(300))
    with pytest.raises(ValueError, match="too many files or too long names"):
        tree(hostile("/".join("a" * 250 for _ in range(10)), xattrs={f"user.{n}": b"x" * 30_000 for n in range(4)}))
    with pytest.raises(ValueError, match="too many files or too long names"):
        tree(many(2, "x/" * 260))


def labelled(layer: Writer) -> None:
    for number in range(300):
        layer.add(f"f{number}", xattrs={"user.note": b"x" * 300, "user.other": b"y"})


def deep(layer: Writer) -> None:
    for number in range(60):
        layer.add(f"{number}/" * 50 + "f")


SHAPES: dict[str, Fill] = {
    "short names": many(1000, "d/"),
    "long names": many(400, "n" * 200),
    "deep paths": deep,
    "attributes": labelled,
}


@pytest.mark.parametrize("fill", SHAPES.values(), ids=SHAPES)
def test_memory_is_not_more_than_is_accounted_for(fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the limit for names and files is one for memory."""
    writer = Writer()
    fill(writer)
    content = writer.done()
    accounted = 0

    def charge(self: LayerTree, size: int) -> None:
        nonlocal accounted
        accounted += size

    monkeypatch.setattr(LayerTree, "_charge", charge)
    tracemalloc.start()
    try:
        result = tree_of(content)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.root.children
    assert used < 1.2 * accounted


def test_work_for_paths_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_tree, "STEP_LIMIT", 1000)

    def fill(layer: Writer) -> None:
        layer.directory("d")
        layer.symlink("l", "././" * 100 + "d")
        for number in range(10):
            layer.add(f"l/{number}")

    with pytest.raises(ValueError, match="lead through too many symbolic links"):
        tree(fill)


def test_depth_is_bounded_through_links() -> None:
    def fill(layer: Writer) -> None:
        deep = "/".join(["n" * 250] * 9)
        layer.directory(f"a/{deep}")
        layer.symlink("l", f"a/{deep}")
        layer.directory(f"l/{deep}")
        layer.add(f"l/{deep}/f")

    result = tree(fill)
    with pytest.raises(ValueError, match="the path is longer than 4095 bytes"):
        list(result.entries())
