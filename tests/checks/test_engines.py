"""What `check` says about `engine`, and about containers that other engines get."""

import json
from pathlib import Path

import pytest

from osc_containers.cli.main import main
from osc_containers.lock import lockfile
from tests.support.locks import make_lock

MIB = 1 << 20
NAME = "registry.example.com/team/app:1.0"
KIWI = """<image schemaversion="8.0" name="n">
  <preferences><type image="ext4">{size}</type></preferences>
  <packages type="image">{packages}</packages>
  <include from="this://./containers.xml"/>
</image>
"""
CONTAINERS = """<image schemaversion="8.0" name="n">
  <containers source="registry.example.com" backend="podman">
    <container name="app" path="team" tag="{tag}"{attributes}/>
  </containers>
</image>
"""
SERVICE = """<services>
  <service name="kiwi_containers" mode="manual"><param name="arch">x86_64</param>{prefetch}</service>
  <service name="kiwi_containers_inject" mode="buildtime">
    {parameters}
  </service>
</services>
"""
FETCH_ONLY = ' fetch_only="true"'


def findings(
    directory: Path,
    capsys: pytest.CaptureFixture[str],
    *engine: str,
    tag: str = "1.0",
    attributes: str = FETCH_ONLY,
    packages: str = "coreutils containerd",
    prefetch: str = "",
    store: str = "",
    size: str = "",
    units: str = "",
    checks: tuple[str, ...] = ("engine", "service", "store", "package", "size", "unit"),
) -> list[tuple[str, str, str, str]]:
    """Return severity, location, reason and fix of the findings of these checks."""
    values = [("engine", value) for value in engine] + ([("store", store)] if store else [])
    parameters = "".join(f'<param name="{name}">{value}</param>' for name, value in values)
    names = "".join(f'<package name="{name}"/>' for name in packages.split())
    lock = make_lock({f"registry.example.com/team/app:{tag}": 100 * MIB})
    for name, text in {
        "a.kiwi": KIWI.format(packages=names, size=size),
        "containers.xml": CONTAINERS.format(tag=tag, attributes=attributes),
        "_service": SERVICE.format(parameters=parameters, prefetch=prefetch),
        "containers.lock": lockfile.dumps(lock),
        "root/etc/systemd/system/app.service": units,
    }.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    main(["check", str(directory), "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    return [
        (each["severity"], f"{each['file']}:{each['line']}", each["why"], each["fix"])
        for each in found
        if each["check"] in checks
    ]


SIZE = '<size unit="M" additive="true">10</size>'


@pytest.mark.parametrize(
    ("engine", "need"),
    [
        ((), "100 MiB for layers, at least 0 MiB for images and 0 MiB for temporary copies"),
        (("containerd=*",), "100 MiB for layers, at least 100 MiB for images and 100 MiB for temporary copies"),
        (("k3s=*", "rke2=*"), "100 MiB for layers, at least 200 MiB for images and 100 MiB for temporary copies"),
        (
            ("containerd=*", "containerd:moby=*"),
            "100 MiB for layers, at least 200 MiB for images and 100 MiB for temporary copies",
        ),
    ],
)
def test_space_is_counted_for_each_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: tuple[str, ...], need: str
) -> None:
    found = findings(tmp_path, capsys, *engine, size=SIZE, checks=("size",))
    whys = (
        [f"<size> of 10 MiB in addition to the data is too small: at the first boot, containers need {need} (x86_64)"]
        if engine
        else []
    )
    assert [each[2] for each in found] == whys


@pytest.mark.parametrize(
    ("engine", "more", "expected"),
    [
        (
            "containerd=*/other:*",
            {},
            (
                "warning",
                "_service:3",
                "engine='containerd=*/other:*' matches no container",
                "a pattern for whole references, as 'osc-containers list' shows them, or remove it",
            ),
        ),
        (
            "crio=*",
            {},
            ("error", "_service:3", "kiwi_containers_inject: engine: got 'crio', expected one of ", None),
        ),
        (
            "containerd=*",
            {"attributes": ""},
            (
                "error",
                "containers.xml:3",
                f"{NAME} matches engine='containerd=*', but is loaded into podman: add fetch_only=\"true\" to it, so "
                "that kiwi's backend leaves it alone, or use a pattern that does not match it",
                None,
            ),
        ),
        (
            "containerd=*",
            {"prefetch": '<param name="inject">source</param>'},
            (
                "error",
                "_service:3",
                "a bundle is for kiwi's backends only, so that no other engine gets its containers",
                "remove 'engine', or inject=source of kiwi_containers",
            ),
        ),
        (
            "containerd=*",
            {"store": "*"},
            (
                "error",
                "containers.xml:3",
                f"{NAME} matches store='*', but is for containerd: it has no such stores; use patterns of store and "
                "engine that do not match the same container",
                None,
            ),
        ),
        (
            "containerd=*",
            {"packages": "coreutils"},
            (
                "error",
                "containers.xml:3",
                "containerd is not in the package list, but is needed to load this container (x86_64)",
                '<packages type="image"><package name="containerd"/></packages>',
            ),
        ),
        (
            "k3s=*",
            {},
            (
                "info",
                "containers.xml:3",
                "k3s is not in the package list, and only that uses the archive of this container (x86_64)",
                '<packages type="image"><package name="k3s"/></packages>',
            ),
        ),
        (
            "cri-o=*",
            {"packages": "coreutils cri-o", "store": "*"},
            (
                "error",
                "containers.xml:3",
                "podman is not in the package list, but is needed to load this container (x86_64)",
                '<packages type="image"><package name="podman"/></packages>',
            ),
        ),
    ],
    ids=["no match", "unknown", "loaded by its backend", "a bundle", "a store", "no package", "no k3s", "no podman"],
)
def test_what_does_not_work_is_found(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    engine: str,
    more: dict[str, str],
    expected: tuple[str, str, str, str | None],
) -> None:
    checks = ("engine", "service", "store", "package")
    found = findings(tmp_path, capsys, engine, checks=checks, **more)
    matching = [each for each in found if each[:2] == expected[:2] and each[2].startswith(expected[2])]
    assert len(matching) == 1, found
    assert matching[0][3] == expected[3]


def test_an_archive_that_engines_share_is_where_units_look_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "[Service]\nExecStart=podman load -i /var/tmp/kiwi_containers/app_1.0\n"
    assert findings(tmp_path, capsys, "containerd=*", "k3s=*", units=text, checks=("unit",)) == []


@pytest.mark.integration
def test_a_long_command_takes_linear_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With quadratic time, this test would not end for hours."""
    text = f"[Service]\nExecStart={'ctr ' * 250_000}{NAME}\n"
    ((_, where, why, _),) = findings(tmp_path, capsys, "containerd=*", units=text, checks=("unit",))
    assert where == "root/etc/systemd/system/app.service:2"
    assert why.startswith(f"{NAME} is in the image, but ")


LOAD = "kiwi_containers-containerd-app_1.0.service"


@pytest.mark.parametrize(
    ("command", "order", "expected"),
    [
        (f"ctr --namespace k8s.io run --rm {NAME} app", f"After={LOAD}\nRequires={LOAD}", None),
        (f"ctr -n=k8s.io run --rm {NAME} app", "", (f"it may start before {NAME} is loaded", f"After={LOAD} ")),
        (
            f"nerdctl --namespace k8s.io pull {NAME}",
            f"After={LOAD}\nRequires={LOAD}",
            (f"nerdctl --namespace k8s.io pull asks a registry for {NAME}", "remove nerdctl"),
        ),
        (
            f"ctr run --rm {NAME} app",
            "",
            (
                f"{NAME} is in the image, but containerd does not load it into the namespace default: it is for "
                "containerd",
                f'fetch_only="true" for this container, and <param name="engine">containerd:default={NAME}</param>',
            ),
        ),
        (
            "podman load -i /var/tmp/kiwi_containers/app_1.0",
            "",
            (
                f"/var/tmp/kiwi_containers/app_1.0 is not in the image, because {NAME} is for containerd (engine)",
                "a pattern of engine that does not match it",
            ),
        ),
        ("podman load -i /var/tmp/kiwi_containers/app_1.0.tar", "", None),
        (
            f"podman run {NAME}",
            "",
            (
                f"{NAME} is in the image, but podman does not load it: it is for containerd",
                'backend="podman" and no fetch_only for this container',
            ),
        ),
    ],
)
def test_units_that_use_containerd_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, order: str, expected: tuple[str, str] | None
) -> None:
    text = f"[Unit]\n{order}\n[Service]\nExecStart={command}\n"
    found = findings(tmp_path, capsys, "containerd=*", units=text, checks=("unit",))
    if expected is None:
        assert found == []
        return
    ((_, _, why, fix),) = found
    assert why.startswith(expected[0])
    assert expected[1] in fix
