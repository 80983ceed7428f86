"""As large as it gets, and whatever the clock says."""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from osc_containers.errors import Error, RegistryError
from osc_containers.inject import inject
from osc_containers.inject.layout_directory import LAYOUTS
from osc_containers.kiwi import description
from osc_containers.lock import lockfile
from osc_containers.obs.package import Package
from osc_containers.oci.manifest import MANIFEST_LIMIT
from osc_containers.oci.reference import Reference
from osc_containers.prefetch.download import partial_file
from osc_containers.registry.retry import Policy
from osc_containers.sources.transports import Sources
from tests.support import images, large
from tests.support.fake_source import FakeSource
from tests.support.fault_registry import serve
from tests.support.prefetch_run import APP, hashes, run_prefetch, want

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.integration
def test_a_thousand_containers_go_all_the_way(tmp_path: Path) -> None:
    names = [f"app{number}" for number in range(1000)]
    references = [f"registry.example.com/team/{name}:1.0" for name in names]
    package, root = tmp_path / "package", tmp_path / "root"
    package.mkdir()
    root.mkdir()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))  # what most systems give
        for name in ("app", "moved"):
            run_prefetch(FakeSource(dict.fromkeys(references, images.small(name))), package, *want(*references))
            assert len(hashes(package)) == 1001
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    containers = "".join(f'<container name="{name}" path="team" tag="1.0"/>\n' for name in names)
    section = f'<containers source="registry.example.com" backend="podman">\n{containers}</containers>'
    (package / "a.kiwi").write_text(f'<image schemaversion="8.0" name="x">\n{section}\n</image>\n')
    found = description.read(package / "a.kiwi")
    inject.inject_root(Package(package), found, "x86_64", (), root)
    assert len(list((root / LAYOUTS[1:]).iterdir())) == 1000
    assert len(list((root / "usr/lib/systemd/system").glob("kiwi_containers-*.service"))) == 1000
    assert (package / lockfile.FILE_NAME).stat().st_size < lockfile.LIMIT // 20


def test_a_limit_on_open_files_is_said_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    references = [f"registry.example.com/team/app{number}:1.0" for number in range(70)]
    source = FakeSource(dict.fromkeys(references, images.small("app")))
    monkeypatch.setattr(resource, "getrlimit", lambda limit: (64, 64))
    with pytest.raises(Error, match="limit on open files: got 64, expected at least 134; raise it"):
        run_prefetch(source, tmp_path, *want(*references))
    assert hashes(tmp_path) == {}


@pytest.mark.integration
def test_a_thousand_images_take_no_more_memory_than_one_may(tmp_path: Path) -> None:
    base = images.random_layer("base", 3000)
    for number in range(1000):
        layers = (images.random_layer(f"{number}-{each}", 2000) for each in range(4))
        images.write_layout(images.image(base, *layers), tmp_path / f"app{number}", "1.0")
    containers = "".join(f'<container name="app{number}" tag="1.0"/>' for number in range(1000))
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.kiwi").write_text(
        f'<image schemaversion="8.0" name="x"><containers source="oci:{tmp_path}" backend="podman">{containers}'
        "</containers></image>"
    )
    script = (
        "import sys; from tests.support import large\n"
        "sys.exit(not large.run(sys.argv[1], ('prefetch', '-q', '--arch=x86_64', '--allow-local-sources')))\n"
    )
    command = [sys.executable, "-c", script, str(package)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(hashes(package)) == 1002


def test_no_container_is_compared_with_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted and not timed: the machine may be busy."""
    compared = 0
    equals = Reference.__eq__

    def count(one: Reference, other: object) -> bool:
        nonlocal compared
        compared += 1
        return equals(one, other)

    references = [f"registry.example.com/team/app{number}:1.0" for number in range(100)]
    source = FakeSource(dict.fromkeys(references, images.small("app")))
    monkeypatch.setattr(Reference, "__eq__", count)
    run_prefetch(source, tmp_path, *want(*references))
    assert compared < 10 * len(references)


@pytest.mark.integration
def test_an_image_of_five_hundred_layers_is_had(tmp_path: Path) -> None:
    image = images.image(*(images.layer({f"{number}": b"x"}) for number in range(500)))
    source = FakeSource({APP: image})
    run_prefetch(source, tmp_path, *want(APP))
    assert len(hashes(tmp_path)) == 2
    assert source.asked["blob"] == 501


@pytest.mark.integration
def test_a_large_layer_takes_no_more_memory_than_another() -> None:
    """As large as a test has time for; `make large` has more."""
    command = [sys.executable, "-m", large.__name__, str(300 << 20)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("excess", "fits"), [(0, True), (1, False)])
def test_a_manifest_may_have_as_many_bytes_as_registries_take(tmp_path: Path, excess: int, fits: bool) -> None:
    image = images.small("app")
    text = json.dumps(json.loads(image.raw) | {"annotations": {"a": ""}})
    padding = "x" * (MANIFEST_LIMIT - len(text) + excess)
    image = replace(image, raw=text.replace('"a": ""', f'"a": "{padding}"').encode())
    with serve() as registry, Sources(tmp_path, policy=Policy(attempts=1)) as sources:
        source = sources.open("docker://")
        (wanted,) = want(registry.push(image, "team/app:1"))
        if fits:
            assert source.manifest(wanted.reference).raw == image.raw
        else:
            with pytest.raises(RegistryError, match="more than 4194304 bytes"):
                source.manifest(wanted.reference)


@pytest.mark.parametrize("now", [0.0, 1e8, 4e9], ids=["1970", "1973", "2096"])
def test_the_clock_changes_nothing_that_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    source = FakeSource({APP: images.multi_platform("app")})
    for name in ("then", "now"):
        (tmp_path / name).mkdir()
    run_prefetch(source, tmp_path / "then", *want(APP))
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(time, "time_ns", lambda: int(now * 1e9))
    run_prefetch(source, tmp_path / "now", *want(APP))
    assert hashes(tmp_path / "now") == hashes(tmp_path / "then")
    # A second run, with files that seem to be of the future or of long ago, has nothing to do.
    for path in (tmp_path / "now").iterdir():
        os.utime(path, (5e8, 5e8))
    source.asked.clear()
    run_prefetch(source, tmp_path / "now", *want(APP))
    assert source.asked == {"resolve": 1}


def test_a_part_that_a_run_has_is_kept_whatever_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with partial_file.part(tmp_path / "x.ociarchive", "held", 10):
        monkeypatch.setattr(time, "time", lambda: 4e9)
        cache = Path(os.environ["HOME"], ".cache/osc-containers")
        (cache / "abandoned.part").touch()
        partial_file.tidy("owner", ())
        assert [path.name for path in cache.glob("*.part")] == ["held.part"]
    assert (tmp_path / "x.ociarchive").stat().st_size == 10
