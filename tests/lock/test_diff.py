"""`outdated` and `diff`: what changed between two locks, or since a tag was locked."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from osc_containers.cli import changelog
from osc_containers.cli.main import main
from osc_containers.formats.human import size
from osc_containers.lock import diff as differences
from osc_containers.lock import lockfile
from osc_containers.lock.lockfile import ArchiveFile, Lock, LockedImage, LockedReference
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import MANIFEST, Descriptor
from osc_containers.oci.reference import Reference
from tests.support import images
from tests.support.docker_registry import DockerRegistry

LONG = "registry.opensuse.org/home/someone/containers/opensuse/tumbleweed-with-a-long-name:latest"


def blob(name: str, size: int) -> Descriptor:
    return Descriptor(digest=Digest.of(name.encode()), size=size, media_type="")


def locked(name: str, created: str, layers: Sequence[tuple[str, int]]) -> LockedImage:
    image = Image(
        manifest=blob(f"manifest {name}", 500),
        config=blob(f"config {name}", 1500),
        layers=tuple(blob(*layer) for layer in layers),
    )
    file = ArchiveFile(name=f"{name.replace(' ', '_')}.ociarchive", size=10_000, sha256="0" * 64)
    return LockedImage(image=image, created=created, archive=file)


def make(references: dict[str, dict[str, LockedImage]]) -> Lock:
    return Lock(
        references={
            Reference.parse(name): LockedReference(
                digest=Digest.of(repr(sorted(each.image.manifest.digest for each in found.values())).encode()),
                media_type=MANIFEST,
                images=found,
            )
            for name, found in references.items()
        }
    )


BASE = ("base", 30_000_000)
OLD = make(
    {
        LONG: {
            "aarch64": locked("a1", "2026-01-02T03:04:05Z", [BASE, ("a1", 2_000_000)]),
            "x86_64": locked("x1", "2026-01-01T03:04:05Z", [BASE, ("x1", 2_000_000)]),
        },
        "docker.io/library/gone:1": {"x86_64": locked("gone", "", [BASE])},
        "docker.io/library/same:1": {"x86_64": locked("same", "", [BASE])},
        "docker.io/library/wider:1": {"x86_64": locked("wider", "2026-03-01T00:00:00Z", [BASE])},
    }
)
NEW = make(
    {
        LONG: {
            "aarch64": locked("a1", "2026-01-02T03:04:05Z", [BASE, ("a1", 2_000_000)]),
            "x86_64": locked("x2", "2026-02-01T03:04:05Z", [BASE, ("x2", 1_000_000), ("new", 1_500_000)]),
        },
        "docker.io/library/added:1": {"x86_64": locked("added", "2026-02-03T00:00:00Z", [BASE, ("new", 1_500_000)])},
        "docker.io/library/same:1": {"x86_64": locked("same", "", [BASE])},
        "docker.io/library/wider:1": {
            "aarch64": locked("wider arm", "2026-03-01T00:00:00Z", [("arm", 700)]),
            "x86_64": locked("wider", "2026-03-01T00:00:00Z", [BASE]),
        },
    }
)

TEXT = f"""\
  ARCH     OLD           CREATED     NEW           CREATED     LAYERS          TO FETCH
docker.io/library/added:1
  x86_64   -             -           ADDED         2026-02-03  0 kept, +2, -0    1.5 MB
docker.io/library/gone:1
  x86_64   GONE          -           -             -           0 kept, +0, -1         -
docker.io/library/wider:1
  aarch64  -             -           WIDER-ARM     2026-03-01  0 kept, +1, -0    2.7 kB
{LONG}
  x86_64   X1            2026-01-01  X2            2026-02-01  1 kept, +2, -1    1.0 MB"""

CHANGES = f"""\
- Update containers:
  * docker.io/library/wider:1: sha256:886a95762a19 ->
    sha256:93e7a2af315e (2026-03-01), for aarch64, too
  * {LONG}:
    sha256:1d52d006c6f3 (2026-01-01) -> sha256:7c01b7cc43a1
    (2026-02-01), 2 of 3 layers new
- Add containers:
  * docker.io/library/added:1: sha256:6c5e4848d360 (2026-02-03)
- Remove containers:
  * docker.io/library/gone:1"""


def with_digests(text: str) -> str:
    """Put the short digests of manifests in place of the names of their images."""
    for name in ("WIDER-ARM", "ADDED", "GONE", "X1", "X2"):
        short = blob(f"manifest {name.lower().replace('-', ' ')}", 1).digest.short
        text = text.replace(f" {name.ljust(12)}", f" {short}")
    return text


def test_changes_as_a_table() -> None:
    assert changelog.as_text(differences.compare(OLD.references, NEW.references)) == with_digests(TEXT)


def test_changes_for_a_changes_file() -> None:
    text = changelog.as_changes(differences.compare(OLD.references, NEW.references))
    assert text == CHANGES


def test_changes_for_programs() -> None:
    found = differences.as_objects(differences.compare(OLD.references, NEW.references))
    old, new = (made.references[Reference.parse(LONG)] for made in (OLD, NEW))
    assert found[-1] == {
        "reference": LONG,
        "old": str(old.digest),
        "new": str(new.digest),
        "architectures": {
            "x86_64": {
                "old": {"digest": str(blob("manifest x1", 1).digest), "created": "2026-01-01T03:04:05Z"},
                "new": {"digest": str(blob("manifest x2", 1).digest), "created": "2026-02-01T03:04:05Z"},
                "layers": {
                    "kept": [{"digest": str(blob("base", 1).digest), "size": 30_000_000}],
                    "added": [
                        {"digest": str(blob("x2", 1).digest), "size": 1_000_000},
                        {"digest": str(blob("new", 1).digest), "size": 1_500_000},
                    ],
                    "dropped": [{"digest": str(blob("x1", 1).digest), "size": 2_000_000}],
                },
                "fetch": 1_002_000,  # the layer "new" is counted where it is needed first
            }
        },
    }
    assert found[1]["new"] is None
    assert json.loads(json.dumps(found)) == found


def test_equal_locks_do_not_differ() -> None:
    assert differences.compare(OLD.references, OLD.references) == ()


def test_moved_looks_at_what_is_asked_for_only() -> None:
    (reference,) = (each for each in NEW.references if str(each) == LONG)
    now = {reference: NEW.references[reference]}
    assert [str(change.reference) for change in differences.moved(OLD.references, now)] == [LONG]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Give a package whose lock is the new one."""
    (tmp_path / "containers.lock").write_text(lockfile.dumps(NEW))
    return tmp_path


def diff(package: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["diff", "--directory", str(package), *arguments]) == 0
    return capsys.readouterr().out


def test_diff_with_a_file(package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.lock"
    other.write_text(lockfile.dumps(OLD))
    assert diff(package, capsys, str(other)) == with_digests(TEXT) + "\n"
    assert diff(package, capsys, str(other), "--format", "changes") == CHANGES + "\n"
    assert len(json.loads(diff(package, capsys, str(other), "--format", "json"))) == 4


@pytest.mark.parametrize("place", ["sources/containers.lock", "containers.lock"])
def test_diff_with_what_osc_has_committed(package: Path, capsys: pytest.CaptureFixture[str], place: str) -> None:
    path = package / ".osc" / place
    path.parent.mkdir(parents=True)
    path.write_text(lockfile.dumps(OLD))
    assert diff(package, capsys) == with_digests(TEXT) + "\n"


def test_diff_with_a_working_copy_that_never_had_a_lock(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (package / ".osc").mkdir()
    text = diff(package, capsys, "--format", "changes")
    assert text.startswith("- Add containers:\n  * docker.io/library/added:1: ")
    assert "Update" not in text


def git(directory: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com")
    subprocess.run(["git", "-C", directory, *identity, *arguments], check=True, capture_output=True)


def test_diff_with_a_revision_of_git(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(package, "init")
    git(package, "commit", "--allow-empty", "--message", "Begin")
    inner = package / "inner"
    inner.mkdir()
    for made in (OLD, NEW):
        (inner / "containers.lock").write_text(lockfile.dumps(made))
        git(package, "add", "inner")
        git(package, "commit", "--message", "Lock")
    assert diff(inner, capsys) == ""
    assert diff(inner, capsys, "HEAD~1") == with_digests(TEXT) + "\n"
    assert diff(inner, capsys, "HEAD~2", "--format", "changes").startswith("- Add containers:")


def test_diff_with_a_repository_of_git_that_has_no_commit(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(package, "init")
    assert diff(package, capsys, "--format", "changes").startswith("- Add containers:\n")


def test_diff_says_why_git_refuses(
    package: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    git(package, "init")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert main(["diff", "--directory", str(package)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("osc-containers: git: fatal: detected dubious ownership in repository at ")
    assert said.count("\n") == 1
    assert "git config --global --add safe.directory" in said


def test_diff_with_a_revision_of_obs_asks_osc(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / ".osc").mkdir()
    for name, text in (("_apiurl", "https://api.example.com"), ("_project", "home:ann"), ("_package", "appliance")):
        (package / ".osc" / name).write_text(f"{text}\n")
    (tmp_path / "old").write_text(lockfile.dumps(OLD))
    program = tmp_path / "bin" / "osc"
    program.parent.mkdir()
    expected = "-A https://api.example.com cat --revision 7 home:ann appliance containers.lock"
    program.write_text(f'#!/bin/sh\n[ "$*" = "{expected}" ] && exec cat "{tmp_path}/old"\necho "no: $*" >&2; exit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert diff(package, capsys, "7") == with_digests(TEXT) + "\n"
    assert main(["diff", "--directory", str(package), "8"]) == 1
    assert capsys.readouterr().err.startswith("osc-containers: osc: no: -A https://api.example.com cat --revision 8")


@pytest.mark.parametrize(
    ("system", "arguments", "expected"),
    [
        (None, [], "is no working copy of osc or git; name the file to compare with"),
        (".git", ["gone"], "'gone': no such file, and no such revision in git"),
        (".git", ["--", "--output=x"], "'--output=x': no such file, and no such revision in git"),
        (".osc", ["x/y"], "'x/y': no such file, and a revision of OBS is a number, a hash or 'latest'"),
    ],
)
def test_diff_says_what_it_cannot_find(
    package: Path, capsys: pytest.CaptureFixture[str], system: str | None, arguments: list[str], expected: str
) -> None:
    if system == ".git":
        git(package, "init")
    elif system:
        (package / system).mkdir()
    assert main(["diff", "--directory", str(package), *arguments]) == 1
    assert expected in capsys.readouterr().err


@pytest.mark.integration
def test_outdated_asks_for_small_things_only_and_changes_nothing(
    docker_registry: DockerRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = images.random_layer("base", 100_000)
    old, new = (images.image(base, images.random_layer(name, 50_000)) for name in ("old", "new"))
    docker_registry.push(old, "outdated/moving:1")
    docker_registry.push(images.small("staying"), "outdated/staying:1")
    (tmp_path / "a.kiwi").write_text(
        f"<image><containers source='{docker_registry.host}/outdated' backend='podman'>"
        "<container name='moving' tag='1'/><container name='staying' tag='1'/></containers></image>"
    )
    assert main(["prefetch", "--arch", "x86_64", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["outdated", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "2 images are what their tags name\n"
    docker_registry.push(new, "outdated/moving:1")
    before, asked = sorted(tmp_path.iterdir()), len(docker_registry.requests())
    assert main(["outdated", str(tmp_path)]) == 1
    fetched = len(new.raw) + len(new.blobs[0]) + len(new.blobs[2])
    dates = f"{old.digest.short}  1970-01-01  {new.digest.short}  1970-01-01"
    assert capsys.readouterr().out == (
        "  ARCH    OLD           CREATED     NEW           CREATED     LAYERS          TO FETCH\n"
        f"{docker_registry.host}/outdated/moving:1\n"
        f"  x86_64  {dates}  1 kept, +1, -1  {size(fetched):>8}\n"
        f"\n{size(fetched)} to fetch\n"
    )
    blobs = [request for request in docker_registry.requests()[asked:] if request.is_blob]
    assert [request.written for request in blobs] == [len(new.blobs[0])]
    assert sorted(tmp_path.iterdir()) == before
    assert main(["outdated", "--format", "json", str(tmp_path)]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["architectures"]["x86_64"]["fetch"] == fetched
