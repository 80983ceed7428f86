"""Which files of a package are descriptions, and which can be read."""

import os
from pathlib import Path

import pytest

from osc_containers.errors import DescriptionError
from osc_containers.kiwi import description, description_files

CONTAINERS = '<containers source="a.b" backend="podman"><container name="app"/></containers>'


def write(directory: Path, name: str, body: str = CONTAINERS) -> Path:
    path = directory / name
    path.write_text(f'<?xml version="1.0"?>\n<image>\n{body}\n</image>\n')
    return path


def test_the_descriptions_of_a_package_are_found(tmp_path: Path) -> None:
    for name in ("b.kiwi", "a.kiwi", "config.xml", ".hidden.kiwi", "containers.xml", "c.kiwi.txt"):
        write(tmp_path, name)
    (tmp_path / "directory.kiwi").mkdir()
    assert [path.name for path in description_files.find(tmp_path)] == ["a.kiwi", "b.kiwi", "config.xml"]


@pytest.mark.parametrize(
    ("file", "link", "target", "expected"),
    [
        ("a.kiwi", "config.xml", "a.kiwi", ["a.kiwi"]),  # as obs-build makes it
        ("config.xml", "leap-15.6.kiwi", "config.xml", ["config.xml"]),  # as in kiwi's own collection of descriptions
        ("a.kiwi", "config.xml", "other.xml", ["a.kiwi", "config.xml"]),
        ("a.kiwi", "b.kiwi", "b.kiwi", ["a.kiwi", "b.kiwi"]),
    ],
)
def test_a_symlink_to_a_description_is_ignored(
    tmp_path: Path, file: str, link: str, target: str, expected: list[str]
) -> None:
    write(tmp_path, file)
    (tmp_path / link).symlink_to(target)
    assert [path.name for path in description_files.find(tmp_path)] == expected


@pytest.mark.parametrize(("own", "expected"), [("a.kiwi", ["a.kiwi", "b.kiwi"]), ("c.kiwi", None)])
def test_a_copy_made_by_a_service_is_ignored(tmp_path: Path, own: str, expected: list[str] | None) -> None:
    names = [own, "b.kiwi", "_service:set_version:a.kiwi"]
    for name in names:
        write(tmp_path, name)
    assert [path.name for path in description_files.find(tmp_path)] == (expected or sorted(names))


@pytest.mark.parametrize("name", ["_service:obs_scm:config.xml", "_service:obs_scm:a.kiwi", "_service:x:y:a.kiwi"])
def test_a_description_made_by_a_service_is_found(tmp_path: Path, name: str) -> None:
    for each in (name, "_service:obs_scm:containers.xml", "_service:obs_scm:.a.kiwi"):
        write(tmp_path, each)
    assert [path.name for path in description_files.find(tmp_path)] == [name]


def test_a_package_without_a_description_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError) as caught:
        description_files.find(tmp_path)
    assert str(caught.value) == f"{tmp_path}: no kiwi description, expected a file '*.kiwi' or 'config.xml'"


def test_a_description_is_read_with_its_includes(tmp_path: Path) -> None:
    path = write(tmp_path, "a.kiwi", '<include from="this://./containers.xml"/><include from="sub/c.xml"/>')
    (tmp_path / "sub").mkdir()
    write(tmp_path, "containers.xml")
    write(tmp_path, "sub/c.xml")
    read = description.read(path)
    assert [container.file for container in read.containers] == ["containers.xml", "sub/c.xml"]
    assert read.files == (path, tmp_path / "containers.xml", tmp_path / "sub/c.xml")


def test_links_and_special_files_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    package = tmp_path / "package"
    for directory in (outside, package):
        directory.mkdir()
    write(outside, "c.xml")
    write(package, "real.xml")
    (package / "link.xml").symlink_to(outside / "c.xml")
    (package / "inner.xml").symlink_to("real.xml")
    (package / "sub").symlink_to(outside)
    (package / "dangling.xml").symlink_to("nowhere")
    os.mkfifo(package / "pipe.xml")
    (package / "directory.xml").mkdir()
    (package / "huge.xml").write_bytes(b" " * (5 << 20))
    names = ["link", "inner", "sub/c", "dangling", "pipe", "directory", "huge"]
    path = write(package, "a.kiwi", "\n".join(f'<include from="{name}.xml"/>' for name in names))
    with pytest.raises(DescriptionError) as caught:
        description.read(path)
    link = "is a symbolic link, expected a file of the package"
    assert caught.value.problems == (
        f"a.kiwi:3: include 'link.xml': {link}",
        f"a.kiwi:4: include 'inner.xml': {link}",
        f"a.kiwi:5: include 'sub/c.xml': {link}",
        f"a.kiwi:6: include 'dangling.xml': {link}",
        "a.kiwi:7: include 'pipe.xml': is not a regular file",
        "a.kiwi:8: include 'directory.xml': Is a directory",
        "huge.xml: has more than 4194304 bytes, too many for such a file",
    )


def test_a_symlink_as_description_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "real.xml")
    (tmp_path / "a.kiwi").symlink_to("real.xml")
    with pytest.raises(DescriptionError, match=r"^a\.kiwi: is a symbolic link, expected a file of the package$"):
        description.read(tmp_path / "a.kiwi")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\x1b[2J.kiwi", "'a\\x1b[2J.kiwi': expected a file name without control characters"),
        ("a\n.kiwi", "'a\\n.kiwi': expected a file name without control characters"),
        (os.fsdecode(b"a\xff.kiwi"), r"a\xff.kiwi: the file name is not UTF-8; rename the file"),
    ],
)
def test_an_unprintable_file_name_is_refused(tmp_path: Path, name: str, message: str) -> None:
    path = write(tmp_path, name)
    assert description_files.find(tmp_path) == (path,)
    with pytest.raises(DescriptionError) as caught:
        description.read(path)
    assert str(caught.value) == message
    assert str(caught.value).isascii()


def test_an_include_with_a_long_name_is_a_short_error(tmp_path: Path) -> None:
    path = write(tmp_path, "a.kiwi", f'<include from="{"x" * 5000}"/>')
    with pytest.raises(DescriptionError) as caught:
        description.read(path)
    assert str(caught.value) == f"a.kiwi:3: include '{'x' * 160}': File name too long"


def test_a_missing_description_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        description.read(tmp_path / "a.kiwi")
