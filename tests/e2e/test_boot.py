"""Loads at the first boot, with real systemd and podman, and stubs of the other engines."""

import hashlib
import io
import os
import tarfile
import time
from collections.abc import Callable
from functools import cache

import pytest

from osc_containers.inject import units
from osc_containers.inject.units import UNITS, Symlink, TextFile
from tests.support import images
from tests.support.e2e.machine import Machine
from tests.support.e2e.packed import Packed, pack

pytestmark = pytest.mark.integration

MakeMachine = Callable[..., Machine]

SMALL = pack("registry.example.com/team/small:1.0", images.small("small"))
DOCKER = pack("registry.example.com:5000/docker:2.0", images.small("docker", docker=True))
PLAIN = pack("docker.io/library/plain:latest", images.image(images.random_layer("plain", 1 << 20)))


@cache
def big_layers() -> list[images.Layer]:
    """Return layers that take podman some time."""
    return [images.random_layer(f"big{number}", 40 << 20) for number in range(4)]


@cache
def big() -> Packed:
    """Return an archive with these layers."""
    return pack("registry.example.com/big:1.0", images.image(*big_layers()))


@cache
def bomb() -> Packed:
    """Return a small archive whose image needs 200 MiB when unpacked."""
    return pack("registry.example.com/bomb:1.0", images.image(images.layer({"srv/zeros": bytes(200 << 20)})))


# A docker that stores one image, and whose first loads fail: as many as /docker-fails has characters.
DOCKER_STUB = r"""#!/bin/sh
case "$1 $2" in
    "info "*) echo /var/lib ;;
    "image inspect") cat /var/lib/docker-image ;;
    "load "*)
        read -r left < /docker-fails && echo "${left#x}" > /docker-fails && [ -n "$left" ] && echo "no daemon" && exit 1
        sed -n 's/.*"Config":"blobs.sha256.\([0-9a-f]*\)".*/sha256:\1/p' "$4" > /var/lib/docker-image ;;
esac
"""


# A container-snap that stores one image.
CONTAINER_SNAP_STUB = r"""#!/bin/sh
case $1 in
    list-images) [ -e /var/lib/snap-image ] && echo "$(cat /var/lib/snap-image),2026-01-01 00:00:00 +0000 UTC,name" ;;
    load) sed -n 's/.*"Config":"blobs.sha256.\([0-9a-f]*\)".*/\1/p' "$3" > /var/lib/snap-image ;;
esac
"""


def put(machine: Machine, *packed: Packed) -> None:
    """Copy archives to where their loads expect them."""
    for item in packed:
        path = machine.var / item.load.path.removeprefix("/var/")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(item.content)


def archives(machine: Machine) -> set[str]:
    """Return the names of all files in the directory of the archives."""
    return {path.name for path in (machine.var / "tmp/kiwi_containers").iterdir()}


def consumer(name: str, needs: str) -> tuple[TextFile, Symlink]:
    """Return a service with these dependencies, and the link that enables it."""
    text = f"[Unit]\n{needs}\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
    unit = f"consumer-{name}.service"
    return (
        TextFile(path=f"{UNITS}/{unit}", text=text, mode=0o644),
        Symlink(path=f"{UNITS}/multi-user.target.wants/{unit}", target=f"../{unit}"),
    )


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_first_boot_loads_all_second_boot_nothing(make: MakeMachine, shell: str) -> None:
    machine = make()
    machine.install(Symlink(path="/usr/bin/sh", target=shell))
    put(machine, SMALL, DOCKER, PLAIN)
    (machine.var / "tmp/kiwi_containers/fetched_only_1.0").write_bytes(b"for others")
    machine.install(*units.render([SMALL.load, DOCKER.load, PLAIN.load]))

    first = machine.boot()
    assert first.images == {SMALL.in_podman, DOCKER.in_podman, PLAIN.in_podman}
    assert archives(machine) == {"fetched_only_1.0"}
    assert sorted(first.journal) == [
        (6, f"{name}: loaded into podman")
        for name in sorted(str(item.load.reference) for item in (SMALL, DOCKER, PLAIN))
    ]

    second = machine.boot()
    assert second.images == first.images
    assert second.journal == ()
    assert archives(machine) == {"fetched_only_1.0"}
    assert set(second.units.values()) == set(first.units.values()) == {"active"}


def test_image_removed_by_the_user_is_not_loaded_again(make: MakeMachine) -> None:
    machine = make()
    put(machine, SMALL)
    machine.install(
        *units.render([SMALL.load]),
        *consumer("remover", "Wants=kiwi_containers.service\nAfter=kiwi_containers.service"),
    )
    remover = TextFile(
        path=f"{UNITS}/consumer-remover.service.d/remove.conf",
        text=f"[Service]\nExecStart=-podman rmi {SMALL.load.reference}\n",
        mode=0o644,
    )
    machine.install(remover)
    assert machine.boot().images == set()
    assert machine.boot().journal == ()


def test_failed_loads_stop_no_other_and_succeed_later(make: MakeMachine) -> None:
    machine = make()
    damaged, cut, lost, foreign = (
        pack(f"registry.example.com/{name}:1.0", images.small(name)) for name in ("damaged", "cut", "lost", "foreign")
    )
    put(machine, SMALL, damaged, cut, foreign)
    (machine.var / "tmp/kiwi_containers/damaged_1.0").write_bytes(damaged.content.replace(b"base", b"bass", 1)[::-1])
    (machine.var / "tmp/kiwi_containers/cut_1.0").write_bytes(cut.content[:-1])
    bad = [damaged.load, cut.load, lost.load, foreign.for_engine("docker")]
    after = "After=kiwi_containers.service"
    machine.install(
        *units.render([SMALL.load, *bad]),
        *consumer("any", f"{after}\nWants=kiwi_containers.service"),
        *consumer("all", f"{after}\nRequires=kiwi_containers.service"),
        *consumer("one", f"After={SMALL.load.unit}\nRequires={SMALL.load.unit}"),
        *consumer("lost", f"After={lost.load.unit}\nRequires={lost.load.unit}"),
    )

    first = machine.boot()
    assert first.images == {SMALL.in_podman}
    assert first.active == {"multi-user.target", "consumer-any.service", "consumer-one.service"}
    assert archives(machine) == {"damaged_1.0", "cut_1.0", "foreign_1.0"}
    assert first.units == {
        "kiwi_containers": "failed",
        "kiwi_containers-podman-small_1.0": "active",
        "kiwi_containers-podman-damaged_1.0": "failed",
        "kiwi_containers-podman-cut_1.0": "failed",
        "kiwi_containers-podman-lost_1.0": "failed",
        "kiwi_containers-docker-foreign_1.0": "failed",
    }
    assert len(first.lines("not loaded into")) == 4
    for name, says in {
        "damaged": "/damaged_1.0 is damaged: got SHA-256 ",
        "cut": f"/cut_1.0 is damaged: got {cut.load.size - 1} bytes, expected {cut.load.size}",
        "lost": "/lost_1.0 is missing: put it back, or get the image with: podman pull registry.example.com/lost:1.0",
        "foreign": "not loaded into docker: docker is not installed",
    }.items():
        (line,) = first.lines(f"registry.example.com/{name}:1.0: ")
        assert says in line

    put(machine, damaged, cut, lost)
    machine.install(TextFile(path="/usr/bin/docker", text=DOCKER_STUB, mode=0o755))
    second = machine.boot()
    assert second.images == {item.in_podman for item in (SMALL, damaged, cut, lost)}
    assert set(second.units.values()) == {"active"}
    assert archives(machine) == set()
    assert "consumer-all.service" in second.active


def test_last_of_three_engines_removes_the_archive(make: MakeMachine) -> None:
    machine = make()
    put(machine, SMALL)
    machine.install(*units.render([SMALL.load, SMALL.for_engine("docker"), SMALL.for_engine("container-snap")]))

    assert machine.boot().images == {SMALL.in_podman}
    assert archives(machine) == {"small_1.0"}

    machine.install(TextFile(path="/usr/bin/docker", text=DOCKER_STUB, mode=0o755))
    assert machine.boot().lines("loaded into docker") == [f"{SMALL.load.reference}: loaded into docker"]
    assert archives(machine) == {"small_1.0"}

    machine.install(TextFile(path="/usr/bin/container-snap", text=CONTAINER_SNAP_STUB, mode=0o755))
    last = machine.boot()
    assert [line for _, line in last.journal] == [f"{SMALL.load.reference}: loaded into container-snap"]
    assert archives(machine) == set()


def test_masked_load_is_ignored(make: MakeMachine) -> None:
    machine = make()
    put(machine, SMALL)
    docker = SMALL.for_engine("docker")
    machine.install(
        *units.render([SMALL.load, docker]), Symlink(path=f"/etc/systemd/system/{docker.unit}", target="/dev/null")
    )
    assert machine.boot().units["kiwi_containers"] == "active"
    assert archives(machine) == set()


def test_failing_engine_is_retried_in_the_same_boot(make: MakeMachine) -> None:
    machine = make()
    put(machine, SMALL)
    machine.install(
        *units.render([SMALL.for_engine("docker")]),
        TextFile(path="/usr/bin/docker", text=DOCKER_STUB, mode=0o755),
        TextFile(path="/docker-fails", text="x\n", mode=0o644),
    )
    assert [line for _, line in machine.boot().journal] == [
        f"{SMALL.load.reference}: not loaded into docker yet: docker failed with status 1: no daemon; next try in 2 s",
        f"{SMALL.load.reference}: loaded into docker",
    ]


def test_full_var_is_reported_and_the_next_boot_succeeds(make: MakeMachine) -> None:
    machine = make(var_size=700 << 20)
    put(machine, big(), bomb(), SMALL)
    ballast = machine.var / "ballast"
    ballast.write_bytes(bytes(400 << 20))
    machine.install(*units.render([big().load, bomb().load, SMALL.load]))

    first = machine.boot()
    assert first.images == {SMALL.in_podman}
    assert archives(machine) == {"big_1.0", "bomb_1.0"}
    assert "multi-user.target" in first.active

    ballast.unlink()
    assert machine.boot().images == {packed.in_podman for packed in (big(), bomb(), SMALL)}
    assert archives(machine) == set()


def stored_size(machine: Machine) -> int:
    """Return the number of bytes of the big image that podman has unpacked."""
    files = (machine.var / "lib/containers/storage/overlay").glob("*/diff/srv/*")
    return sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("suite", ["bookworm", "trixie"], ids=["podman 4", "podman 5"])
@pytest.mark.parametrize("unpacked", [10 << 20, 130 << 20], ids=["in the first layer", "in the last layer"])
def test_power_cut_during_a_load_is_repaired(make: MakeMachine, suite: str, unpacked: int) -> None:
    machine = make(suite=suite)
    put(machine, big())
    machine.install(*units.render([big().load]))
    machine.boot_until(lambda: stored_size(machine) > unpacked)
    assert archives(machine) == {"big_1.0"}
    assert_big_is_loaded(machine)


def test_power_cut_after_archive_removal_loses_nothing(make: MakeMachine) -> None:
    machine = make()
    put(machine, big())
    # By then the file system has written the removal of the archive, but not yet the content of the image.
    pause = "[Service]\nExecStart=/usr/bin/sleep 9\n[Unit]\nAfter=kiwi_containers.service"
    machine.install(*units.render([big().load]), *consumer("pause", pause))
    gone_since = 0.0

    def is_gone_for_good() -> bool:
        nonlocal gone_since
        if not gone_since and (machine.var / "lib/kiwi_containers/podman-big_1.0").exists() and not archives(machine):
            gone_since = time.monotonic()
        return bool(gone_since) and time.monotonic() > gone_since + 7

    machine.boot_until(is_gone_for_good)
    assert archives(machine) == set()
    assert_big_is_loaded(machine)


def test_power_cut_with_little_space_is_repaired(make: MakeMachine) -> None:
    """To read an image back, podman copies its layers; memory can provide the space if the disk does not."""
    machine = make()
    layer = images.random_layer("single", 160 << 20)
    single = pack("registry.example.com/single:1.0", images.image(layer))
    put(machine, single)
    machine.install(*units.render([single.load]))
    machine.boot_until(lambda: stored_size(machine) > 10 << 20)
    with (machine.var / "ballast").open("wb") as ballast:
        free = os.statvfs(machine.var).f_bavail * 4096
        os.posix_fallocate(ballast.fileno(), 0, free - single.load.size - (60 << 20))
    report = machine.boot()
    assert report.images == {single.in_podman}, report.journal
    assert archives(machine) == set()


def assert_big_is_loaded(machine: Machine) -> None:
    """Boot, and assert that every file of the big image is intact."""
    report = machine.boot()
    assert report.images == {big().in_podman}, "\n".join(line for _, line in report.journal)
    assert report.files == {checksum for layer in big_layers() for checksum in checksums(layer)}
    assert archives(machine) == set()


def checksums(layer: images.Layer) -> set[str]:
    """Return the SHA-256 of each file in a layer."""
    with tarfile.open(fileobj=io.BytesIO(layer.content)) as tar:
        files = (tar.extractfile(member) for member in tar.getmembers())
        return {hashlib.sha256(file.read()).hexdigest() for file in files if file}


def test_existing_image_is_not_loaded_again(make: MakeMachine) -> None:
    machine = make()
    put(machine, SMALL)
    machine.install(*units.render([SMALL.load]))
    machine.boot()

    # The state after a power cut between load and record. A damaged archive proves that it is not read.
    (machine.var / "lib/kiwi_containers/podman-small_1.0").unlink()
    (machine.var / "tmp/kiwi_containers/small_1.0").write_bytes(b"damaged")
    report = machine.boot()
    assert [line for _, line in report.journal] == [f"{SMALL.load.reference}: podman has it already"]
    assert archives(machine) == set()


def test_loads_work_with_a_read_only_root(make: MakeMachine) -> None:
    machine = make()
    put(machine, SMALL)
    machine.install(*units.render([SMALL.load]))
    assert machine.boot("--read-only").images == {SMALL.in_podman}


def test_unit_arguments_arrive_unchanged(make: MakeMachine) -> None:
    machine = make()
    weapons = [
        "",
        " ",
        ";",
        "-rf",
        "$HOME ${HOME} $$",
        "%n %% %",
        "\"'`",
        "a\\",
        "\\x41\\n",
        "a\nb\t\x1b[31m\x7f",
        "é\u202e\x80",
    ]
    arguments = [*weapons, *(chr(code) for code in range(1, 256))]
    dump = "#!/bin/sh\nprintf '%s\\0' \"$@\" > /out/arguments\n"
    command = " ".join(["/usr/bin/dump", *map(units.quote_argument, arguments)])
    machine.install(
        TextFile(path="/usr/bin/dump", text=dump, mode=0o755),
        *consumer("dump", f"[Service]\nExecStart={command}\n[Unit]"),
    )
    machine.boot()
    assert (machine.out / "arguments").read_bytes().split(b"\0")[:-1] == [text.encode() for text in arguments]
