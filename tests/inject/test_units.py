"""The text of the files that load containers at the first boot; `e2e/test_boot.py` boots images with them."""

import shutil
import subprocess
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osc_containers.fs.rooted_tree import Tree
from osc_containers.inject import units
from osc_containers.inject.image_file import Symlink, TextFile
from osc_containers.inject.units import ARCHIVES, LOADER, UNITS, Load
from osc_containers.kiwi.backend import BACKENDS
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Descriptor
from osc_containers.oci.reference import Reference

STATE = "/var/lib/kiwi_containers"
RUNTIME = "/run/kiwi_containers"
HOST_UNITS = Path("/usr/lib/systemd/system")


def descriptor(letter: str, kind: str, size: int = 1024) -> Descriptor:
    return Descriptor(digest=Digest("sha256", letter * 64), size=size, media_type=f"application/vnd.oci.image.{kind}")


IMAGE = Image(
    manifest=descriptor("b", "manifest.v1+json"),
    config=descriptor("c", "config.v1+json"),
    layers=(descriptor("d", "layer.v1.tar"), descriptor("e", "layer.v1.tar", 2000)),
    indexes=(descriptor("a", "index.v1+json"),),
)
LOAD = Load(
    target="podman",
    id="app_1.0",
    reference=Reference.parse("registry.example.com:5000/team/app:1.0"),
    image=IMAGE,
    arch="x86_64",
)
DOCKER = LOAD._replace(target="docker")
OTHER = LOAD._replace(reference=Reference.parse("docker.io/library/other"), id="other_latest")

# Strings that would be harmful in a unit if the reference parser let them through.
HOSTILE = ("%n%%", "$HOME ${HOME}", '"', "'", "\\", "a\\", "a\nExecStart=/bin/true", " ;", "-rf", "é\u202e", "\x1b[31m")

# A program argument, and therefore a name, cannot contain a NUL.
ANY_TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)


def texts(*loads: Load) -> dict[str, str]:
    """Render loads; return the text of each file and the target of each link, by path."""
    return {file.path: file.text if isinstance(file, TextFile) else file.target for file in units.render(loads)}


def named(text: str, backend: str = "podman") -> Load:
    """Return a load with `text` as its reference and file name, bypassing the parser."""
    load_id = units.load_id(f"{ARCHIVES}/{text}")
    return LOAD._replace(target=backend, reference=Reference(text, text, text), id=load_id)


def test_load_unit_text() -> None:
    assert texts(LOAD)[f"{UNITS}/kiwi_containers-podman-app_1.0.service"] == (
        "[Unit]\n"
        "Description=Load container registry.example.com:5000/team/app:1.0 into podman\n"
        "RequiresMountsFor=/var/lib/kiwi_containers/layouts /var/lib/containers\n"
        "Before=kiwi_containers.service\n"
        "\n"
        "[Service]\n"
        "Type=oneshot\n"
        "RemainAfterExit=yes\n"
        "StateDirectory=kiwi_containers\n"
        "SyslogIdentifier=kiwi_containers\n"
        'ExecStart=/usr/libexec/kiwi_containers/load "podman" "app_1.0" "registry.example.com:5000/team/app:1.0"'
        f' "6096" "sha256:{"c" * 64}" "sha256:{"b" * 64}" "sha256:{"a" * 64}"\n'
    )


@pytest.mark.parametrize(
    ("backend", "lines"),
    [
        ("podman", {"RequiresMountsFor=/var/lib/kiwi_containers/layouts /var/lib/containers"}),
        (
            "docker",
            {
                "RequiresMountsFor=/var/lib/kiwi_containers/layouts /var/lib/docker /var/lib/containerd",
                "Wants=docker.service",
                "After=docker.service",
            },
        ),
        ("container-snap", {"RequiresMountsFor=/var/lib/kiwi_containers/layouts /var/lib/container-snap"}),
        *(
            (
                target,
                {
                    "RequiresMountsFor=/var/lib/kiwi_containers/layouts /var/lib/containerd",
                    "Wants=containerd.service",
                    "After=containerd.service",
                },
            )
            for target in ("containerd", "containerd:moby")
        ),
    ],
)
def test_load_unit_is_ordered_after_its_stores_and_engine(backend: str, lines: set[str]) -> None:
    text = texts(LOAD._replace(target=backend))[f"{UNITS}/kiwi_containers-{backend}-app_1.0.service"]
    assert set(text.partition("\n\n")[0].splitlines()[2:]) == lines | {"Before=kiwi_containers.service"}


def test_files_and_modes_for_two_engines() -> None:
    files = units.render([LOAD, DOCKER])
    assert {file.path: file.mode if isinstance(file, TextFile) else file.target for file in files} == {
        LOADER: 0o755,
        f"{UNITS}/kiwi_containers.service": 0o644,
        f"{UNITS}/kiwi_containers-docker-app_1.0.service": 0o644,
        f"{UNITS}/kiwi_containers-podman-app_1.0.service": 0o644,
        f"{UNITS}/kiwi_containers.service.wants/kiwi_containers-docker-app_1.0.service": (
            "../kiwi_containers-docker-app_1.0.service"
        ),
        f"{UNITS}/kiwi_containers.service.wants/kiwi_containers-podman-app_1.0.service": (
            "../kiwi_containers-podman-app_1.0.service"
        ),
        f"{UNITS}/multi-user.target.wants/kiwi_containers.service": "../kiwi_containers.service",
    }
    assert [file.path for file in files] == sorted(file.path for file in files)


def test_without_loads_there_are_no_files() -> None:
    assert units.render([]) == ()


def test_only_engines_that_read_archives_get_a_checksum_of_the_stream() -> None:
    for backend in BACKENDS:
        load = LOAD._replace(target=backend)
        (command,) = (line for line in texts(load)[f"{UNITS}/{load.unit}"].splitlines() if line.startswith("ExecStart"))
        assert len(command.split()) == (8 if backend == "podman" else 9)


def test_order_and_duplicates_of_loads_do_not_matter() -> None:
    expected = units.render([LOAD, DOCKER, OTHER])
    for loads in permutations([LOAD, DOCKER, OTHER]):
        assert units.render([*loads, loads[0]]) == expected


def test_files_of_combined_overlays_are_identical() -> None:
    assert texts(LOAD, DOCKER, OTHER) == texts(LOAD, DOCKER) | texts(DOCKER, OTHER)


def test_two_containers_in_one_unit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^kiwi_containers-podman-app_1.0.service: got two different loads, of "):
        units.render([LOAD, LOAD._replace(reference=OTHER.reference)])


def test_unknown_engine_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^got engine 'crio', expected one of podman, docker, container-snap, "):
        units.render([LOAD._replace(target="crio")])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("app_1.0", "app_1.0"),
        ("App-x.y_1.0-rc1", "App-x.y_1.0-rc1"),
        ("team/app_1.0", "team_app_1.0-1b3c9cd95685"),
        ("app@sha256:12_latest", "app_sha256_12_latest-beda835f50c9"),
        ("%i", "_i-65a12a609137"),
        ("", "-5ba1168ef5c5"),
        ("app_1-0123456789ab", "app_1-0123456789ab-8c94a4d70360"),
        ("app_1-0123456789abc", "app_1-0123456789abc"),
        ("app_1-0123456789aB", "app_1-0123456789aB"),
    ],
)
def test_id_is_the_sanitized_archive_name(name: str, expected: str) -> None:
    assert units.load_id(f"{ARCHIVES}/{name}") == expected


@given(st.sampled_from(list(BACKENDS)), st.text() | st.text(min_size=200, max_size=400))
def test_unit_names_are_valid_file_names(backend: str, name: str) -> None:
    unit = units.unit_name(backend, units.load_id(f"{ARCHIVES}/{name}"))
    assert set(unit) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
    assert len(unit) <= 255


@given(st.text(), st.text())
def test_different_paths_have_different_ids(one: str, other: str) -> None:
    assert (units.load_id(one) == units.load_id(other)) == (one == other)


@given(st.text())
def test_no_archive_name_equals_the_id_of_another(name: str) -> None:
    path = f"{ARCHIVES}/{name}"
    imitation = f"{ARCHIVES}/{units.load_id(path)}"
    assert units.load_id(imitation) != units.load_id(path) or imitation == path


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", '""'),
        ("plain", '"plain"'),
        ("a b;c", '"a b;c"'),
        ("100%", '"100%%"'),
        ("$HOME", '"$$HOME"'),
        ('say "x"', r'"say \"x\""'),
        ("it's", '"it\'s"'),
        ("a\\", r'"a\\"'),
        ("a\nb\t\x1b", r'"a\x0ab\x09\x1b"'),
        ("é", r'"\xc3\xa9"'),
    ],
)
def test_argument_is_quoted(text: str, quoted: str) -> None:
    assert units.quote_argument(text) == quoted


def test_argument_with_nul_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^got 'a\\x00', expected text without NUL$"):
        units.quote_argument("a\0")


@given(st.text())
def test_unit_description_is_one_printable_line(text: str) -> None:
    quoted = units.quote_description(text)
    assert quoted.isascii()
    assert quoted.isprintable()
    assert not quoted.endswith("\\")
    assert "%" not in quoted.replace("%%", "")


@given(st.sampled_from(list(BACKENDS)), ANY_TEXT | st.sampled_from(HOSTILE))
def test_hostile_names_add_no_line_to_a_unit(backend: str, name: str) -> None:
    harmless, hostile = (texts(load)[f"{UNITS}/{load.unit}"] for load in (named("x", backend), named(name, backend)))
    assert [line.partition("=")[0] for line in hostile.split("\n")] == [
        line.partition("=")[0] for line in harmless.split("\n")
    ]


def write(root: Path, *loads: Load) -> list[str]:
    """Write the files of loads, and the systemd units that they refer to, into a root; return the unit names."""
    shutil.rmtree(root, ignore_errors=True)
    for name in ("basic", "local-fs", "multi-user", "shutdown", "sysinit"):
        (root / "usr/lib/systemd/system").mkdir(parents=True, exist_ok=True)
        shutil.copy(HOST_UNITS / f"{name}.target", root / "usr/lib/systemd/system")
    tree = Tree(root)
    for file in units.render(loads):
        if isinstance(file, Symlink):
            tree.symlink(file.path, file.target)
        else:
            tree.write(file.path, file.text.encode(), file.mode)
    return ["kiwi_containers.service", *(load.unit for load in loads)]


def verify(root: Path, *loads: Load) -> None:
    """Let systemd verify the units; it prints nothing if they are valid."""
    command = ["systemd-analyze", f"--root={root}", "verify", *write(root, *loads)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.integration
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    targets = (*BACKENDS, "containerd")
    verify(tmp_path / "root", *(LOAD._replace(target=target) for target in targets), OTHER)


@pytest.mark.integration
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ANY_TEXT | st.sampled_from(HOSTILE), min_size=1, max_size=8, unique=True))
def test_systemd_accepts_units_with_hostile_names(tmp_path: Path, names: list[str]) -> None:
    verify(tmp_path / "root", *(named(name) for name in names))
