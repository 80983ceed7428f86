"""What `check` says about containers in a read-only store."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from osc_containers.cli.main import main
from osc_containers.inject.store.image_files import STORAGE_CONF
from osc_containers.lock import lockfile
from tests.support.locks import make_lock

MIB = 1 << 20
KIWI = """<image schemaversion="8.0" name="n">
  <profiles><profile name="A" description="a"/></profiles>
  <preferences><type image="oem" filesystem="ext4"{type}/></preferences>
  <packages type="image"><package name="podman"/><package name="coreutils"/>{packages}</packages>
  <include from="this://./containers.xml"/>
</image>
"""
CONTAINERS = """<image schemaversion="8.0" name="n">
  <containers source="registry.example.com" backend="podman">
    <container name="app" path="team" tag="1.0"/>
  </containers>
  <containers source="registry.example.com" backend="docker">
    <container name="web" path="team" tag="1.0"/>
  </containers>
</image>
"""
SERVICE = """<services>
  <service name="kiwi_containers" mode="manual"><param name="arch">x86_64</param>{prefetch}</service>
  <service name="kiwi_containers_inject" mode="buildtime">
    <param name="store">{store}</param>
  </service>
</services>
"""
STORAGE = '[storage]\ndriver = "overlay"\nrunroot = "/r"\ngraphroot = "/g"\n'
SIZES = {"registry.example.com/team/app:1.0": 10 * MIB, "registry.example.com/team/web:1.0": MIB}


def findings(
    directory: Path,
    capsys: pytest.CaptureFixture[str],
    files: Mapping[str, str] = {},
    *,
    store: str = "*/app:*",
    prefetch: str = "",
    packages: str = "",
    size: int = 10 * MIB,
    check: str = "store",
) -> list[tuple[str, str, str]]:
    """Return severity, location and reason of each finding of a kind."""
    lock = make_lock(SIZES | {"registry.example.com/team/app:1.0": size})
    content = {
        "a.kiwi": KIWI.format(packages=packages, type=""),
        "containers.xml": CONTAINERS,
        "containers.lock": lockfile.dumps(lock),
        "_service": SERVICE.format(store=store, prefetch=prefetch),
        **files,
    }
    for name, text in content.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    main(["check", str(directory), "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    return [
        (each["severity"], f"{each['file']}:{each['line'] or 0}", each["why"])
        for each in found
        if each["check"] == check
    ]


def test_a_store_that_works_has_no_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = '[storage.options]\nadditionalimagestores = ["/usr/lib/containers/storage"]\n'
    assert findings(tmp_path, capsys) == []
    assert findings(tmp_path, capsys, {f"root{STORAGE_CONF}": STORAGE + line}) == []


def test_other_engines_and_typing_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert findings(tmp_path, capsys, store="*/web:*") == [
        (
            "error",
            "containers.xml:6",
            "registry.example.com/team/web:1.0 matches store='*/web:*', but is for docker: only podman has such "
            'stores; use a pattern that does not match it, or backend="podman"',
        )
    ]
    assert findings(tmp_path, capsys, store="*/nothing") == [
        ("warning", "_service:3", "store='*/nothing' matches no container")
    ]


def test_a_bundle_has_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = findings(tmp_path, capsys, prefetch='<param name="inject">source</param>')
    assert found == [("error", "_service:3", "a bundle has no store, so that all containers would be loaded")]


def test_a_storage_conf_that_conflicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [(severity, location, why)] = findings(tmp_path, capsys, {f"A{STORAGE_CONF}": STORAGE})
    assert (severity, location) == ("error", f"A{STORAGE_CONF}:0")
    assert why.startswith("does not list the stores of this image; add to [storage.options]: additionalimagestores = ")


@pytest.mark.parametrize(
    ("line", "module"),
    [("install squashfs /bin/false", "squashfs"), ("blacklist loop", "loop"), ("# blacklist squashfs", "")],
)
def test_modules_that_are_disabled(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, module: str) -> None:
    found = findings(tmp_path, capsys, {"root/etc/modprobe.d/50-hardening.conf": f"{line}\n"})
    why = f"this disables the kernel module {module}, which is needed to mount the store"
    assert found == ([("error", "root/etc/modprobe.d/50-hardening.conf:0", why)] if module else [])


def test_small_kernels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = findings(tmp_path, capsys, packages='<package name="kernel-default-base"/>')
    why = "kernel-default-base has few modules: the store needs squashfs with zstd, and loop"
    assert found == [("info", "a.kiwi:4", why)]


def test_space_in_the_build_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert findings(tmp_path, capsys, size=500 * MIB) == []
    [(severity, location, why)] = findings(tmp_path, capsys, size=4000 * MIB)
    assert (severity, location) == ("info", "_service:3")
    assert why.startswith("the build needs about 16.8 GB of disk space to unpack")
    size = '<constraints><hardware><disk><size unit="{unit}">{size}</size></disk></hardware></constraints>'
    [(severity, _, why)] = findings(tmp_path, capsys, {"_constraints": size.format(unit="G", size=10)}, size=4000 * MIB)
    assert severity == "warning"
    assert why.endswith("and _constraints asks for 10.7 GB")
    for text in (size.format(unit="G", size=20), size.format(unit="M", size=30_000)):
        assert findings(tmp_path, capsys, {"_constraints": text}, size=4000 * MIB) == []
    for text in ("<broken", size.format(unit="G", size="9" * 5000)):
        assert len(findings(tmp_path, capsys, {"_constraints": text}, size=4000 * MIB)) == 1


def test_a_store_needs_no_space_to_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kiwi = KIWI.format(packages="", type="").replace(
        'filesystem="ext4"/>',
        'filesystem="ext4"><oemconfig><oem-resize>false</oem-resize></oemconfig><size unit="G">1</size></type>',
    )
    assert findings(tmp_path, capsys, {"a.kiwi": kiwi}, size=700 * MIB, check="size") == []
    assert findings(tmp_path, capsys, {"a.kiwi": kiwi}, size=700 * MIB, check="size", store="*/other") != []


def test_units_need_not_wait_for_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"root/etc/containers/systemd/app.container": "[Container]\nImage=registry.example.com/team/app:1.0\n"}
    assert findings(tmp_path, capsys, files, check="unit") == []
    assert findings(tmp_path, capsys, files, check="unit", store="*/other") != []
