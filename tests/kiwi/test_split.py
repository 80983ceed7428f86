"""Moving `<containers>` out of a description: nothing else changes, and kiwi sees the same, but obs-build nothing."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from osc_containers.cli.main import main
from osc_containers.errors import DescriptionError
from osc_containers.kiwi import description, description_files, split
from tests.support.descriptions import Package, packages
from tests.support.kiwi_peer import Oracle
from tests.support.obs_build import dependencies, obs_builds

SECTION = '<containers source="a.example.com" backend="podman">\n    <container name="x"/>\n  </containers>'
OTHER = '<containers source="b.example.com" backend="docker"><container name="y"/></containers>'
NOTE = "<!-- A file of its own, because OBS would take every container in the description for a package. -->"


def image(inner: str, head: str = '<?xml version="1.0"?>\n') -> str:
    return f'{head}<image schemaversion="8.0" name="n">\n{inner}\n</image>\n'


def moved(inner: str, head: str = '<?xml version="1.0"?>\n') -> str:
    return f'{head}{NOTE}\n<image schemaversion="8.0" name="n">\n{inner}\n</image>\n'


INCLUDE = '<include from="this://./containers.xml"/>'


def split_package(directory: Path) -> tuple[split.Split, ...]:
    splits = split.plan([description.read(path) for path in description_files.find(directory)])
    split.apply(splits)
    return splits


CASES = {
    "one": (f"  <users/>\n  {SECTION}\n  <drivers/>", f"  <users/>\n  {INCLUDE}\n  <drivers/>", f"  {SECTION}"),
    "its comments": (
        f"  <users/>\n\n  <!-- one -->\n  <!-- two\n       lines -->\n  {OTHER} <!-- beside -->",
        f"  <users/>\n\n  {INCLUDE} <!-- beside -->",
        f"  <!-- one -->\n  <!-- two\n       lines -->\n  {OTHER}",
    ),
    "elements that are commented out": (
        f"  <users/>\n  <!-- <users group='root'>\n    <user name='x'/></users> -->\n  <!-- prose -->\n  {OTHER}",
        f"  <users/>\n  <!-- <users group='root'>\n    <user name='x'/></users> -->\n  {INCLUDE}",
        f"  <!-- prose -->\n  {OTHER}",
    ),
    "an include that is commented out": (
        f"  <!-- <include from='x'/> -->\n  {OTHER}",
        f"  <!-- <include from='x'/> -->\n  {INCLUDE}",
        f"  {OTHER}",
    ),
    "containers that are commented out": (
        f"  <users/>\n  <!-- a < b: {SECTION} -->\n  <!-- <container name='z'/> -->\n  {OTHER}",
        f"  <users/>\n  {INCLUDE}",
        f"  <!-- a < b: {SECTION} -->\n  <!-- <container name='z'/> -->\n  {OTHER}",
    ),
    "a comment of something else": (
        f"  <users/> <!-- users -->\n  {OTHER}\n  <!-- far -->\n\n  <drivers/>",
        f"  <users/> <!-- users -->\n  {INCLUDE}\n  <!-- far -->\n\n  <drivers/>",
        f"  {OTHER}",
    ),
    "a comment for obs-build": (
        f"<!-- OBS-Profiles: a -->\n<!-- ours -->\n{OTHER}",
        f"<!-- OBS-Profiles: a -->\n{INCLUDE}",
        f"<!-- ours -->\n{OTHER}",
    ),
    "two, the second with its line": (
        f"  {SECTION}\n  <users/>\n\t{OTHER}\t\n  <drivers/>",
        f"  {INCLUDE}\n  <users/>\n  <drivers/>",
        f"  {SECTION}\n\t{OTHER}",
    ),
    "two on a line": (f"<users/>{OTHER}{OTHER}<drivers/>", f"<users/>{INCLUDE}<drivers/>", f"{OTHER}\n{OTHER}"),
    "one in a comment": (
        f"<!-- {SECTION} -->\n\n{OTHER}",
        f"<!-- {SECTION} -->\n\n{INCLUDE}",
        OTHER,
    ),
}


@pytest.mark.parametrize(("before", "after", "included"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_containers_are_moved_with_their_comments(
    tmp_path: Path, *, before: str, after: str, included: str, newline: str, encoding: str
) -> None:
    def content(text: str) -> bytes:
        return text.replace("\n", newline).encode(encoding)

    path = tmp_path / "appliance.kiwi"
    path.write_bytes(content(image(before)))
    path.chmod(0o640)
    assert len(split_package(tmp_path)) == 1
    assert path.read_bytes() == content(image(after))
    assert (tmp_path / "containers.xml").read_bytes() == content(moved(included))
    assert {file.stat().st_mode & 0o7777 for file in tmp_path.iterdir()} == {0o640}
    assert split_package(tmp_path) == ()


@pytest.mark.parametrize(
    ("head", "codec"),
    [
        ('<?xml version="1.0" encoding="iso-8859-1" standalone="yes"?>\n', "latin-1"),
        ('<?xml version="1.0" encoding="windows-1252"?>\n', "cp1252"),
        ("", "utf-8"),
    ],
)
def test_the_new_file_has_the_encoding_of_the_description(tmp_path: Path, head: str, codec: str) -> None:
    path = tmp_path / "appliance.kiwi"
    path.write_bytes(image(f"<!-- é -->\n{OTHER}<!-- ü -->", head).replace('"n"', '"ñ"').encode(codec))
    split_package(tmp_path)
    assert path.read_bytes() == image(f"{INCLUDE}<!-- ü -->", head).replace('"n"', '"ñ"').encode(codec)
    declaration = head or '<?xml version="1.0" encoding="utf-8"?>\n'
    expected = moved(f"<!-- é -->\n{OTHER}", declaration).replace('"n"', '"&#241;"')
    assert (tmp_path / "containers.xml").read_bytes() == expected.encode(codec)


def test_each_description_gets_its_own_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.kiwi").write_text(image(OTHER))
    (tmp_path / "config.xml").write_text(image("<users/>"))
    split_package(tmp_path)
    for name in ("a", "b"):
        assert f'this://./{name}.containers.xml"' in (tmp_path / f"{name}.kiwi").read_text()
        assert (tmp_path / f"{name}.containers.xml").read_text() == moved(OTHER)
    assert split_package(tmp_path) == ()


def test_a_description_already_split_keeps_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.kiwi").write_text(image(OTHER))
    split_package(tmp_path)
    (tmp_path / "b.kiwi").write_text(image(SECTION))
    split_package(tmp_path)
    assert (tmp_path / "containers.xml").read_text() == moved(OTHER)
    assert (tmp_path / "b.containers.xml").read_text() == moved(SECTION)


def test_an_interrupted_run_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "appliance.kiwi"
    path.write_text(image(OTHER))
    split_package(tmp_path)
    path.write_text(image(OTHER))
    split_package(tmp_path)
    assert path.read_text() == image(INCLUDE)


REFUSALS: dict[str, tuple[dict[str, str], str]] = {
    "a DOCTYPE": (
        {"a.kiwi": image(OTHER, '<?xml version="1.0"?><!-- x -->\n<!DOCTYPE image [<!ENTITY t "1">]>\n')},
        "a.kiwi:2: DOCTYPE is not supported; remove it, and replace the entities that it defines",
    ),
    "another containers.xml": (
        {"a.kiwi": image(OTHER), "containers.xml": "mine"},
        "a.kiwi:3: containers.xml already exists with other content; rename or remove it",
    ),
    "an included containers.xml": (
        {"a.kiwi": image(f"{INCLUDE}\n{OTHER}"), "containers.xml": moved(SECTION)},
        "a.kiwi:4: containers.xml already exists and is included; move this <containers> into it",
    ),
    "an include of another name between": (
        {"a.kiwi": image(f"{OTHER}\n<include from='x.xml'/>\n{SECTION}"), "x.xml": moved(OTHER.replace('"y"', '"z"'))},
        "a.kiwi:3: the order of the containers would change, because an include with others is between them; "
        "move the <containers> before or after it",
    ),
    "a description that is included": (
        {"a.kiwi": image("<include from='b.kiwi'/>"), "b.kiwi": image(OTHER)},
        "b.kiwi:3: a.kiwi includes this file, and kiwi ignores includes in included files; move <containers> into a "
        "file that a.kiwi includes",
    ),
    "a name that no include can have": (
        {"a b.kiwi": image(OTHER), "c.kiwi": image(OTHER)},
        "a b.kiwi:3: 'a b.containers.xml' is not a name that can be included; rename the description",
    ),
}


@pytest.mark.parametrize("name", ["my kiosk.kiwi", "kü.kiwi"])
def test_a_single_description_may_have_any_name(tmp_path: Path, name: str) -> None:
    """What is included is called containers.xml then."""
    (tmp_path / name).write_text(image(OTHER))
    (made,) = split_package(tmp_path)
    assert made.included.name == "containers.xml"
    assert INCLUDE in (tmp_path / name).read_text()


@pytest.mark.parametrize(("files", "expected"), REFUSALS.values(), ids=REFUSALS)
def test_a_split_that_would_lose_something_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], expected: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert main(["split", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"osc-containers: error: {expected}\n"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_a_doctype_in_a_comment_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "a.kiwi").write_text(image(OTHER, "<!-- <!DOCTYPE x> -->\n<?x <!DOCTYPE x> ?>\n"))
    assert len(split_package(tmp_path)) == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f'{INCLUDE}<include from="x.xml"/>', '<include from="x.xml"/>'),
        (f'<include from="x.xml"/> {INCLUDE}\n<users/>', '<include from="x.xml"/> \n<users/>'),
        (f'  {INCLUDE}\n  <include from="x.xml"/>', '  <include from="x.xml"/>'),
        (f"<users/>\n  {INCLUDE}<!-- beside -->{INCLUDE}", "<users/>\n  <!-- beside -->"),
    ],
)
def test_only_the_include_of_containers_is_removed(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "a.kiwi"
    path.write_text(image(before))
    (tmp_path / "containers.xml").write_text(moved(OTHER))
    (tmp_path / "x.xml").write_text(image('<packages type="image"/>'))
    assert split.detach_containers(description.read(path)) == (image(after).encode(), ("containers.xml",))


@pytest.mark.integration
def test_kiwi_sees_the_same_as_before(oracle: Oracle) -> None:
    @settings(
        max_examples=int(os.environ.get("PARITY_EXAMPLES", "60")),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(packages().filter(lambda package: not package.refusals))
    def compare(package: Package) -> None:
        with tempfile.TemporaryDirectory() as directory:
            compare_in(Path(directory), package, oracle)

    compare()


def compare_in(directory: Path, package: Package, oracle: Oracle) -> None:
    path = package.write(directory)
    before = oracle.ask(path, list(package.selections))
    try:
        splits = split_package(directory)
    except DescriptionError as error:
        oracle.counts[f"not split: {error.problems[0].partition(': ')[2]}"] += 1
        return
    oracle.counts["split" if splits else "nothing to split"] += 1
    assert oracle.ask(path, list(package.selections)) == before
    assert description.read(path).seen_by_obs_build == ()


@pytest.mark.integration
@pytest.mark.parametrize("obs_build", obs_builds())
def test_obs_build_sees_no_containers(tmp_path: Path, obs_build: str) -> None:
    path = tmp_path / "appliance.kiwi"
    path.write_text(image(f"{SECTION}\n<packages type='image'><package name='p'/></packages>\n{OTHER}"))
    before = dependencies(obs_build, path)
    split_package(tmp_path)
    assert dependencies(obs_build, path) == [name for name in before if not name.startswith("container:")]
    assert "p" in before
    if obs_build != "/usr/lib/obs-build":  # Debian's is of 2021 and knows no <containers>
        assert {"container:a.example.com/x:latest", "container:b.example.com/y:latest"} <= set(before)
