"""Loads at the first boot, with real systemd and podman, and stubs of the other engines."""

import hashlib
import io
import os
import struct
import tarfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from osc_containers.archive.layout import path_of
from osc_containers.inject import units
from osc_containers.inject.image_file import Symlink, TextFile
from osc_containers.inject.units import UNITS
from osc_containers.oci.manifest import Descriptor
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
    """Return an image with these layers."""
    return pack("registry.example.com/big:1.0", images.image(*big_layers()))


@cache
def bomb() -> Packed:
    """Return a small image that needs 200 MiB when unpacked."""
    return pack("registry.example.com/bomb:1.0", images.image(images.layer({"srv/zeros": bytes(200 << 20)})))


# A docker that stores one image, and whose first loads fail: as many as /docker-fails has characters.
DOCKER_STUB = r"""#!/bin/sh
case "$1 $2" in
    "info "*) echo /var/lib ;;
    "image inspect") cat /var/lib/docker-image ;;
    "load "*)
        read -r left < /docker-fails && echo "${left#x}" > /docker-fails && [ -n "$left" ] && echo "no daemon" && exit 1
        sed -n 's/.*"Config":"blobs.sha256.\([0-9a-f]*\)".*/sha256:\1/p' > /var/lib/docker-image ;;
esac
"""


# A container-snap that stores one image.
CONTAINER_SNAP_STUB = r"""#!/bin/sh
case $1 in
    list-images) [ -e /var/lib/snap-image ] && echo "$(cat /var/lib/snap-image),2026-01-01 00:00:00 +0000 UTC,name" ;;
    load) sed -n 's/.*"Config":"blobs.sha256.\([0-9a-f]*\)".*/\1/p' "$3" > /var/lib/snap-image ;;
esac
"""


def put(machine: Machine, *packed: Packed, has_stream: bool = False) -> None:
    """Write the layouts of these images to the machine."""
    for item in packed:
        item.write(machine.directory, has_stream=has_stream)


def layouts(machine: Machine) -> set[str]:
    """Return the names of all layouts in the machine."""
    return {path.name for path in (machine.var / "lib/kiwi_containers/layouts").iterdir()}


def consumer(name: str, needs: str) -> tuple[TextFile, Symlink]:
    """Return a service with these dependencies, and the link that enables it."""
    text = f"[Unit]\n{needs}\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
    unit = f"consumer-{name}.service"
    return (
        TextFile(path=f"{UNITS}/{unit}", text=text, mode=0o644),
        Symlink(path=f"{UNITS}/multi-user.target.wants/{unit}", target=f"../{unit}"),
    )


@pytest.mark.parametrize(("shell", "suite"), [("dash", "bookworm"), ("bash", "trixie")])
def test_first_boot_loads_all_second_boot_nothing(make: MakeMachine, shell: str, suite: str) -> None:
    """Into podman, and one image also into containerd, which Kubernetes then finds by name and by digest."""
    machine = make(suite=suite)
    machine.install(Symlink(path="/usr/bin/sh", target=shell))
    put(machine, DOCKER, PLAIN)
    put(machine, SMALL, has_stream=True)
    in_containerd = SMALL.for_engine("containerd")
    machine.install(*units.render([SMALL.load, DOCKER.load, PLAIN.load, in_containerd]))
    unit, link = consumer("ctr", f"After={in_containerd.unit}\nRequires={in_containerd.unit}")
    listing = 'sh -c "ctr --namespace k8s.io images check --quiet > /out/ctr"'
    machine.install(unit._replace(text=unit.text.replace("/bin/true", f"/usr/bin/{listing}")), link)

    first = machine.boot()
    assert first.images == {SMALL.in_podman, DOCKER.in_podman, PLAIN.in_podman}
    names = set((machine.out / "ctr").read_text().split())
    assert names >= {SMALL.name, f"{SMALL.load.reference.name}@{SMALL.load.image.manifest.digest}"}
    assert layouts(machine) == set()
    assert sorted(first.journal) == sorted(
        [(6, f"{item.name}: loaded into podman") for item in (SMALL, DOCKER, PLAIN)]
        + [(6, f"{SMALL.name}: loaded into containerd")]
    )

    second = machine.boot()
    assert second.images == first.images
    assert set((machine.out / "ctr").read_text().split()) == names
    assert second.journal == ()
    assert set(second.units.values()) == set(first.units.values()) == {"active"}


def exit_program() -> bytes:
    """Return a static x86-64 program that does nothing but exit with status 0."""
    code = bytes.fromhex("b83c000000 31ff 0f05")  # mov eax, 60 (exit); xor edi, edi; syscall
    start, size = 0x400000, 64 + 56 + len(code)
    header = struct.pack("<4s12xHHIQQQIHHHHHH", b"\x7fELF", 2, 62, 1, start + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, start, start, size, size, 0x1000)
    return header[:4] + b"\x02\x01\x01" + header[7:] + segment + code


def program_image(name: str, *, docker: bool = False) -> images.Image:
    """Return a multi-platform image with a program, in the format of OCI or Docker."""
    layer = images.layer({"bin/program": exit_program(), f"etc/{name}": name.encode()})
    children = (images.image(layer, platform=platform, docker=docker) for platform in (images.ARM64, images.AMD64))
    return images.index(*children, docker=docker)


@cache
def runnable() -> tuple[Packed, Packed]:
    """Return an image that is pinned by its tag, and one of Docker that is pinned by the digest of its list alone."""
    tagged, pinned = program_image("tagged"), program_image("pinned", docker=True)
    return (
        pack("registry.example.com:5000/team/tagged:1.0", tagged),
        pack(f"registry.example.com:5000/team/pinned@{pinned.digest}", pinned),
    )


@pytest.mark.parametrize(("suite", "is_quadlet"), [("bookworm", False), ("trixie", True)], ids=["podman 4", "podman 5"])
def test_units_run_their_containers_at_the_first_boot(make: MakeMachine, suite: str, is_quadlet: bool) -> None:
    """By tag, by the digest of the platform and by that of the index; without a network."""
    machine = make(suite=suite)
    tagged, pinned = runnable()
    put(machine, tagged, pinned)
    machine.install(*units.render([tagged.load, pinned.load]))
    tag = f"{pinned.load.reference.name}:sha256-{pinned.load.image.indexes[0].digest.hex[:12]}"
    wanted = {
        "tag": (tagged, tagged.name),
        "platform": (tagged, f"{tagged.load.reference.name}@{tagged.load.image.manifest.digest}"),
        "index": (tagged, f"{tagged.load.reference.name}@{tagged.load.image.indexes[0].digest}"),
        "pinned": (pinned, pinned.name),
        "pinned-tag": (pinned, tag),
    }
    # Container runtimes can do less in systemd-nspawn than on a machine.
    options, allow = "--network=none --cgroups=disabled", "--system-call-filter=@keyring"
    for name, (packed, image) in wanted.items():
        order = f"After={packed.load.unit}\nRequires={packed.load.unit}"
        if is_quadlet:
            text = f"[Unit]\n{order}\n[Container]\nImage={image}\nPodmanArgs={options}\nExec=/bin/program\n"
            text += "[Service]\nType=oneshot\nRemainAfterExit=yes\n[Install]\nWantedBy=multi-user.target\n"
            path = f"/etc/containers/systemd/consumer-{name}.container"
            machine.install(TextFile(path=path, text=text, mode=0o644))
        else:
            command = f"/usr/bin/podman run --rm {options} {image} /bin/program"
            unit, link = consumer(name, order)
            machine.install(unit._replace(text=unit.text.replace("/bin/true", command)), link)
    report = machine.boot(allow)
    assert {f"consumer-{name}.service" for name in wanted} <= report.active, report.journal
    assert report.images >= {tagged.in_podman}
    assert machine.boot(allow).active == report.active


def test_image_removed_by_the_user_is_not_loaded_again(make: MakeMachine) -> None:
    machine = make()
    put(machine, SMALL)
    machine.install(
        *units.render([SMALL.load]),
        *consumer("remover", "Wants=kiwi_containers.service\nAfter=kiwi_containers.service"),
    )
    remover = TextFile(
        path=f"{UNITS}/consumer-remover.service.d/remove.conf",
        text=f"[Service]\nExecStart=-podman rmi {SMALL.name}\n",
        mode=0o644,
    )
    machine.install(remover)
    assert machine.boot().images == set()
    assert machine.boot().journal == ()


def test_failed_loads_stop_no_other_and_succeed_later(make: MakeMachine) -> None:
    machine = make()
    damaged, cut, swapped, lost, foreign = (
        pack(f"registry.example.com/{name}:1.0", images.small(name))
        for name in ("damaged", "cut", "swapped", "lost", "foreign")
    )
    put(machine, SMALL, damaged, cut, swapped, foreign)
    layer, document = damaged.load.image.layers[1], swapped.load.image.manifest
    own_blob(machine, damaged, layer).write_bytes(damaged.blobs[layer.digest][::-1])
    # podman does not check the document that index.json names.
    own_blob(machine, swapped, document).write_bytes(swapped.blobs[document.digest] + b" ")
    own_blob(machine, cut, cut.load.image.layers[1]).write_bytes(b"")
    bad = [damaged.load, cut.load, swapped.load, lost.load, foreign.for_engine("docker")]
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
    assert layouts(machine) == {"damaged_1.0", "cut_1.0", "swapped_1.0", "foreign_1.0"}
    assert first.units == {
        "kiwi_containers": "failed",
        "kiwi_containers-podman-small_1.0": "active",
        **{f"kiwi_containers-podman-{name}_1.0": "failed" for name in ("damaged", "cut", "swapped", "lost")},
        "kiwi_containers-docker-foreign_1.0": "failed",
    }
    assert len(first.lines("not loaded into")) == 5
    for name, says in {
        "damaged": f"layouts/damaged_1.0/blobs/sha256/{layer.digest.hex} is damaged: got sha256:",
        "cut": f"blobs/sha256/{cut.load.image.layers[1].digest.hex} is damaged: got sha256:e3b0c44",
        "swapped": f"layouts/swapped_1.0/blobs/sha256/{document.digest.hex} is damaged: got sha256:",
        "lost": "/lost_1.0 is missing: put it back, or get the image with: podman pull registry.example.com/lost:1.0",
        "foreign": "not loaded into docker: docker is not installed",
    }.items():
        (line,) = first.lines(f"registry.example.com/{name}:1.0: ")
        assert says in line

    put(machine, damaged, cut, swapped, lost)
    put(machine, foreign, has_stream=True)
    machine.install(TextFile(path="/usr/bin/docker", text=DOCKER_STUB, mode=0o755))
    second = machine.boot()
    assert second.images == {item.in_podman for item in (SMALL, damaged, cut, swapped, lost)}
    assert set(second.units.values()) == {"active"}
    assert layouts(machine) == set()
    assert "consumer-all.service" in second.active


def own_blob(machine: Machine, packed: Packed, blob: Descriptor) -> Path:
    """Return the path of a blob in a layout, after replacing a hard link by nothing."""
    path = packed.directory(machine.directory) / path_of(blob.digest)
    path.unlink()
    return path


def test_last_of_three_engines_removes_the_layout(make: MakeMachine) -> None:
    machine = make()
    put(machine, SMALL, has_stream=True)
    machine.install(*units.render([SMALL.load, SMALL.for_engine("docker"), SMALL.for_engine("container-snap")]))

    assert machine.boot().images == {SMALL.in_podman}
    assert layouts(machine) == {"small_1.0"}

    machine.install(TextFile(path="/usr/bin/docker", text=DOCKER_STUB, mode=0o755))
    assert machine.boot().lines("loaded into docker") == [f"{SMALL.name}: loaded into docker"]
    assert layouts(machine) == {"small_1.0"}

    machine.install(TextFile(path="/usr/bin/container-snap", text=CONTAINER_SNAP_STUB, mode=0o755))
    last = machine.boot()
    assert [line for _, line in last.journal] == [f"{SMALL.name}: loaded into container-snap"]
    assert layouts(machine) == set()


def test_masked_load_is_ignored(make: MakeMachine) -> None:
    machine = make()
    put(machine, SMALL)
    docker = SMALL.for_engine("docker")
    machine.install(
        *units.render([SMALL.load, docker]), Symlink(path=f"/etc/systemd/system/{docker.unit}", target="/dev/null")
    )
    assert machine.boot().units["kiwi_containers"] == "active"
    assert layouts(machine) == set()


def test_failing_engine_is_retried_in_the_same_boot(make: MakeMachine) -> None:
    machine = make()
    put(machine, SMALL, has_stream=True)
    machine.install(
        *units.render([SMALL.for_engine("docker")]),
        TextFile(path="/usr/bin/docker", text=DOCKER_STUB, mode=0o755),
        TextFile(path="/docker-fails", text="x\n", mode=0o644),
    )
    assert [line for _, line in machine.boot().journal] == [
        f"{SMALL.name}: not loaded into docker yet: docker failed with status 1: no daemon; next try in 2 s",
        f"{SMALL.name}: loaded into docker",
    ]


def test_full_var_is_reported_and_the_next_boot_succeeds(make: MakeMachine) -> None:
    machine = make(var_size=700 << 20)
    put(machine, big(), bomb(), SMALL)
    ballast = machine.var / "ballast"
    ballast.write_bytes(bytes(400 << 20))
    machine.install(*units.render([big().load, bomb().load, SMALL.load]))

    first = machine.boot()
    assert first.images == {SMALL.in_podman}
    assert layouts(machine) == {"big_1.0", "bomb_1.0"}
    assert "multi-user.target" in first.active

    ballast.unlink()
    assert machine.boot().images == {packed.in_podman for packed in (big(), bomb(), SMALL)}
    assert layouts(machine) == set()


def stored_size(machine: Machine) -> int:
    """Return the number of bytes of the big image that podman has unpacked."""
    files = (machine.var / "lib/containers/storage/overlay").glob("*/diff/srv/*")
    return sum(path.stat().st_size for path in files)


@pytest.mark.parametrize(
    "suite", ["bookworm", pytest.param("trixie", marks=pytest.mark.matrix)], ids=["podman 4", "podman 5"]
)
@pytest.mark.parametrize("unpacked", [10 << 20, 130 << 20], ids=["in the first layer", "in the last layer"])
def test_power_cut_during_a_load_is_repaired(make: MakeMachine, suite: str, unpacked: int) -> None:
    machine = make(suite=suite)
    put(machine, big())
    machine.install(*units.render([big().load]))
    machine.boot_until(lambda: stored_size(machine) > unpacked)
    assert layouts(machine) == {"big_1.0"}
    assert_big_is_loaded(machine)


def test_power_cut_while_containerd_unpacks_is_repaired(make: MakeMachine) -> None:
    machine = make(suite="trixie")
    put(machine, big(), has_stream=True)
    load = big().for_engine("containerd")
    unit, link = consumer("ctr", f"After={load.unit}\nRequires={load.unit}")
    script = (
        f"ctr --namespace k8s.io images mount {big().name} /mnt > /dev/null && cd /mnt && sha256sum srv/* > /out/ctr"
    )
    machine.install(
        *units.render([load]), unit._replace(text=unit.text.replace("/bin/true", f"sh -c '{script}'")), link
    )
    snapshots = machine.var / "lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"
    machine.boot_until(lambda: sum(path.stat().st_size for path in snapshots.glob("*/fs/srv/*")) > 130 << 20)
    assert layouts(machine) == {"big_1.0"}
    report = machine.boot()
    assert report.lines("loaded into containerd") == [f"{big().name}: loaded into containerd"]
    files = {line.partition(" ")[0] for line in (machine.out / "ctr").read_text().splitlines()}
    assert files == {checksum for layer in big_layers() for checksum in checksums(layer)}
    assert layouts(machine) == set()


def test_power_cut_after_layout_removal_loses_nothing(make: MakeMachine) -> None:
    machine = make()
    put(machine, big())
    # By then the file system has written the removal of the layout, but not yet the content of the image.
    pause = "[Service]\nExecStart=/usr/bin/sleep 9\n[Unit]\nAfter=kiwi_containers.service"
    machine.install(*units.render([big().load]), *consumer("pause", pause))
    gone_since = 0.0

    def is_gone_for_good() -> bool:
        nonlocal gone_since
        if not gone_since and (machine.var / "lib/kiwi_containers/podman-big_1.0").exists() and not layouts(machine):
            gone_since = time.monotonic()
        return bool(gone_since) and time.monotonic() > gone_since + 7

    machine.boot_until(is_gone_for_good)
    assert layouts(machine) == set()
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
        os.posix_fallocate(ballast.fileno(), 0, free - single.size - (60 << 20))
    report = machine.boot()
    assert report.images == {single.in_podman}, report.journal
    assert layouts(machine) == set()


def assert_big_is_loaded(machine: Machine) -> None:
    """Boot, and assert that every file of the big image is intact."""
    report = machine.boot()
    assert report.images == {big().in_podman}, "\n".join(line for _, line in report.journal)
    assert report.files == {checksum for layer in big_layers() for checksum in checksums(layer)}
    assert layouts(machine) == set()


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

    # The state after a power cut between load and record. A damaged layout proves that it is not read.
    (machine.var / "lib/kiwi_containers/podman-small_1.0").unlink()
    SMALL.directory(machine.directory).mkdir()
    report = machine.boot()
    assert [line for _, line in report.journal] == [f"{SMALL.name}: podman has it already"]
    assert layouts(machine) == set()


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


def test_newer_system_brings_a_newer_image(make: MakeMachine) -> None:
    """Unit and layout change with the system; records and images in /var stay."""
    machine = make()
    old, new = (pack("registry.example.com/team/app:1.0", images.small(name)) for name in ("old", "new"))
    put(machine, old)
    machine.install(*units.render([old.load]))
    assert machine.boot().images == {old.in_podman}

    # The new system is there, but /var is that of the old one.
    machine.install(*units.render([new.load]))
    report = machine.boot()
    assert report.images == {old.in_podman}
    assert report.units["kiwi_containers"] == "failed"
    (line,) = report.lines("not loaded")[:1]
    assert "/layouts/app_1.0 is missing: put it back, or get the image with: podman pull " in line

    put(machine, new)
    report = machine.boot()
    assert new.in_podman in report.images
    assert {line for line in report.images if not line.startswith("<none>")} == {new.in_podman}
    assert layouts(machine) == set()
    assert set(machine.boot().units.values()) == {"active"}
