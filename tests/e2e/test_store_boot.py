"""Images with a read-only store, booted with real systemd and podman: their containers are there without a load."""

import hashlib
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from osc_containers.inject import units
from osc_containers.inject.image_file import Symlink, TextFile
from osc_containers.inject.store.image_files import STORAGE_CONF
from osc_containers.inject.store.stores import StoredContainer
from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import Reference
from tests.support import images, layer_tars, store
from tests.support.e2e.machine import SUITES, Machine
from tests.support.e2e.packed import pack
from tests.support.layer_tars import Writer

pytestmark = pytest.mark.integration

MakeMachine = Callable[..., Machine]

NAME = "registry.example.com/team/app:1.0"
UNIT = "kiwi_containers-podman-app_1.0.service"
"""The unit that would load a container, and now is a name of the one that checks the store."""
CHECK_OF_PROFILE = "kiwi_containers-store_Server"
OTHER = "registry.example.com/team/other:1.0"


OPTIONS = (
    "--runtime crun --cgroups=disabled --network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 "
    "--stop-signal KILL"
)
"""podman's options for a container in a machine that is a container itself."""
PODMAN = ("--system-call-filter=@keyring bpf", "--capability=all")
RUN = f"""#!/bin/sh
# Print the output of a container, which is never empty. podman 4.3 has been seen to lose it without an error, so the
# container runs again then. If it is always empty, so is this.
output=$(mktemp)
for attempt in 1 2 3; do
    podman run --rm --pull=never {OPTIONS} "$@" > "$output"
    status=$?
    [ $status = 0 ] && [ ! -s "$output" ] || break
done
cat "$output"
exit $status
"""


def shell(root: Path) -> images.Layer:
    """Return a layer with the programs that the tests run, from a root file system."""
    layer = Writer()
    for link, target in (("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")):
        layer.symlink(link, target)
    libraries = root / "usr/lib/x86_64-linux-gnu"
    for name in ("libc.so.6", "libselinux.so.1", "libpcre2-8.so.0"):
        layer.add(f"usr/lib/x86_64-linux-gnu/{name}", content=(libraries / name).read_bytes())
    loader = (libraries / "ld-linux-x86-64.so.2").read_bytes()
    layer.add("usr/lib64/ld-linux-x86-64.so.2", content=loader, mode=0o755)
    for name, source in {"sh": "dash", "cat": "cat", "sleep": "sleep"}.items():
        layer.add(f"usr/bin/{name}", content=(root / "usr/bin" / source).read_bytes(), mode=0o755)
    layer.add("usr/bin/setuid", content=(root / "usr/bin/id").read_bytes(), mode=0o4755)
    return images.layer_of(layer.done())


Contents = Mapping[str, tuple[str, images.Image]]
"""An image and its name for each overlay directory."""


def with_stores(machine: Machine, directory: Path, contents: Contents | None = None) -> Machine:
    """Install stores in a machine; by default two: that of every image, and that of a profile."""
    app_image, other_image = app(machine.root), other(machine.root)
    contents = contents or {"root": (NAME, images.index(app_image)), "Server": (OTHER, other_image)}
    with store.Blobs.of_images([image for _, image in contents.values()], directory / "blobs") as blobs:
        groups = {
            key: [StoredContainer(Reference.parse(name), store.described(image), UNIT)]
            for key, (name, image) in contents.items()
        }
        store.install(machine, groups, blobs)
    return machine


def consumer(script: str) -> tuple[TextFile | Symlink, ...]:
    """Return a service that runs a script after all containers are there, and writes its output to /out/script.

    The script may use `RUN`, as the program `run`.
    """
    text = "#!/bin/sh\nexec >/out/script 2>&1\nexport PODMAN_IGNORE_CGROUPSV1_WARNING=1 HOME=/root\n" + script
    unit = (
        f"[Unit]\nAfter={UNIT} kiwi_containers.service\nRequires={UNIT}\nBefore=multi-user.target\n"
        "[Service]\nType=oneshot\nExecStart=/usr/bin/script\n"
    )
    return (
        TextFile(path="/usr/bin/script", text=text, mode=0o755),
        TextFile(path="/usr/bin/run", text=RUN, mode=0o755),
        TextFile(path=f"{units.UNITS}/script.service", text=unit, mode=0o644),
        Symlink(path=f"{units.UNITS}/multi-user.target.wants/script.service", target="../script.service"),
    )


@pytest.fixture
def machine(make: MakeMachine, tmp_path: Path) -> Machine:
    """Return a machine with stores."""
    return with_stores(make(), tmp_path)


def app(root: Path) -> images.Image:
    return images.image(shell(root), images.layer({"etc/app": b"app\n"}), images.layer_of(layer_tars.special()))


def new_version(root: Path) -> images.Image:
    return images.image(shell(root), images.layer({"etc/app": b"app\n"}), images.layer({"etc/newer": b"newer\n"}))


def other(root: Path) -> images.Image:
    return images.image(shell(root), images.layer({"etc/other": b"other\n"}))


USES = """
run {name} cat /etc/app
run {repository}@{platform} cat /etc/app
run {repository}@{index} cat /etc/app
run {identity} cat /etc/app
run {other} cat /etc/other
run --user 1000 {name} setuid -u
podman run --detach --quiet --name kept {options} {name} sleep 600 > /dev/null
podman exec kept sh -c 'read -r text < /etc/app && [ "$text" = app ]' && echo app
podman exec kept sh -c 'echo x > /etc/app'
podman commit --quiet kept localhost/derived:1 > /dev/null
podman rm --force --time 0 kept > /dev/null
run localhost/derived:1 cat /etc/app
podman save --quiet --output /var/saved --format oci-archive {name} && echo saved
podman rmi {name}
podman pull --quiet oci-archive:/var/newer.tar
run {name} cat /etc/newer
ls /var/lib/containers/storage/overlay | grep -c '^[0-9a-f]*$'
"""


with_each_podman = pytest.mark.parametrize("suite", SUITES)


@with_each_podman
def test_a_store_is_there_at_every_boot(make: MakeMachine, tmp_path: Path, suite: str) -> None:
    machine = with_stores(make(suite=suite), tmp_path)
    image, new = app(machine.root), new_version(machine.root)
    index = images.index(image)
    images.write_layout(new, machine.var / "newer", NAME)
    subprocess.run(["tar", "-C", machine.var / "newer", "-cf", machine.var / "newer.tar", "."], check=True)
    identity = Digest.of(image.blobs[0]).hex
    values = {
        "options": OPTIONS,
        "name": NAME,
        "repository": NAME.partition(":")[0],
        "platform": image.digest,
        "index": index.digest,
        "identity": identity,
        "other": OTHER,
    }
    machine.install(*consumer(USES.format(**values)))
    report = machine.boot(*store.devices(), *PODMAN)
    new_identity = Digest.of(new.blobs[0])
    assert (machine.out / "script").read_text().splitlines() == [
        *["app"] * 4,
        "other",
        "0",
        "app",
        "x",
        "saved",
        f'Error: cannot remove read-only image "{identity}"',
        new_identity.hex,
        "newer",
        "2",  # layers: what was committed, and the only one that is new
    ]
    assert report.units == dict.fromkeys(["kiwi_containers", "kiwi_containers-store", CHECK_OF_PROFILE], "active")

    machine.install(*consumer(f"run {NAME} cat /etc/newer"))
    report = machine.boot(*store.devices(), *PODMAN)
    shown = {line for line in report.images if "localhost/" not in line and "<none>" not in line}
    assert (machine.out / "script").read_text() == "newer\n"
    assert shown == {
        f"{NAME} {index.digest} sha256:{identity}",  # podman lists this one, too, but uses the one that was pulled
        f"{NAME} {new.digest} {new_identity}",
        f"{OTHER} {other(machine.root).digest} {Digest.of(other(machine.root).blobs[0])}",
    }


def test_a_power_cut_before_podman_has_a_store_of_its_own(machine: Machine) -> None:
    """The check at the first boot makes podman create its records, which are cut off."""
    machine.boot_until((machine.var / "lib/containers/storage").exists, *store.devices())
    report = machine.boot(*store.devices())
    assert {line.partition(" ")[0] for line in report.images} == {NAME, OTHER}
    assert report.units["kiwi_containers"] == "active"


@pytest.mark.parametrize("suite", [pytest.param("bookworm", marks=pytest.mark.matrix), "trixie"])
def test_a_power_cut_during_a_load_beside_a_store(make: MakeMachine, tmp_path: Path, suite: str) -> None:
    """What is loaded, and an image of the user, rest on a layer of the store, so podman's repair would remove both."""
    machine = with_stores(make(suite=suite), tmp_path)
    changes: dict[str, object] = {"config": {"Volumes": {"/data": {}}}}  # which are not to be created during a repair
    own = images.image(shell(machine.root), images.layer({"etc/own": b"own\n"}), config_changes=changes)
    own_name = "registry.example.com/team/own:1.0"
    pack_for_user(own, own_name, machine.var)
    machine.install(*consumer("podman pull --quiet oci-archive:/var/own.tar"))
    machine.boot(*store.devices(), *PODMAN)

    parts = ["one", "two"]
    image = images.image(shell(machine.root), *(images.random_layer(part, 40 << 20) for part in parts))
    loaded = pack("registry.example.com/team/loaded:1.0", image)
    loaded.write(machine.directory)
    machine.install(*units.render([loaded.load]))
    layers = machine.var / "lib/containers/storage/overlay"
    machine.boot_until(
        lambda: sum(path.stat().st_size for path in layers.glob("*/diff/srv/*")) > 50 << 20, *store.devices(), *PODMAN
    )

    files = " ".join(f"/srv/{part}" for part in parts)
    script = f"""
        run {NAME} cat /etc/app
        run --image-volume ignore {own_name} cat /etc/own 2> /dev/null # podman warns of links that it creates again
        run {loaded.name} cat {files} | sha256sum
        ls /var/lib/containers/storage/overlay | wc -l
        podman ps --all --quiet
        podman volume ls --quiet
    """
    machine.install(*consumer(script))
    report = machine.boot(*store.devices(), *PODMAN)
    content = b"".join(hashlib.shake_256(part.encode()).digest(40 << 20) for part in parts)
    assert (machine.out / "script").read_text().splitlines() == [
        "app",
        "own",
        f"{Digest.of(content).hex}  -",
        "4",  # one layer of the user's, two of the load, and the directory of short names
    ]
    assert {line.partition(" ")[0] for line in report.images} == {NAME, OTHER, own_name, loaded.name}
    assert report.units["kiwi_containers"] == "active"


def pack_for_user(image: images.Image, name: str, directory: Path) -> None:
    """Write an archive that podman can pull, `own.tar`."""
    images.write_layout(image, directory / "own", name)
    subprocess.run(["tar", "-C", directory / "own", "-cf", directory / "own.tar", "."], check=True)


UPDATED = """
run {name} cat /etc/app
podman start --attach kept > /dev/null 2>&1 || echo kept cannot start
podman rm kept
run {own} cat /etc/own 2> /dev/null || echo {own} cannot run
podman rmi --force {own} > /dev/null 2>&1
podman pull --quiet oci-archive:/var/own.tar > /dev/null 2>&1
run {own} cat /etc/own
run {name} cat /etc/app
"""


@with_each_podman
def test_an_os_update_brings_another_store(make: MakeMachine, tmp_path: Path, suite: str) -> None:
    """What rests on the layers of the old store cannot run, and is replaced as docs/store.md says."""
    machine = make(suite=suite)
    old, new = (images.image(shell(machine.root), images.layer({"etc/app": text})) for text in (b"old\n", b"new\n"))
    own = images.image(shell(machine.root), images.layer({"etc/app": b"old\n"}), images.layer({"etc/own": b"own\n"}))
    own_name = "registry.example.com/team/own:1.0"
    pack_for_user(own, own_name, machine.var)
    values = {"name": NAME, "own": own_name}

    (tmp_path / "old").mkdir()
    with_stores(machine, tmp_path / "old", {"root": (NAME, old)})
    first = f"""
        podman create --quiet --name kept {OPTIONS} {NAME} cat /etc/app > /dev/null
        podman pull --quiet oci-archive:/var/own.tar > /dev/null
        run {own_name} cat /etc/app
    """
    machine.install(*consumer(first))
    machine.boot(*store.devices(), *PODMAN)
    assert (machine.out / "script").read_text() == "old\n"

    # The new system has another root, and the /var of the old one.
    (tmp_path / "new").mkdir()
    with_stores(machine, tmp_path / "new", {"root": (NAME, new)})
    machine.install(*consumer(UPDATED.format(**values)))
    report = machine.boot(*store.devices(), *PODMAN)
    assert (machine.out / "script").read_text().splitlines() == [
        "new",
        "kept cannot start",
        "kept",
        f"{own_name} cannot run",
        "own",
        "new",
    ]
    assert report.units["kiwi_containers"] == "active"


def deleting(root: Path) -> images.Image:
    """Return an image whose upper layer deletes what a lower one has."""
    lower = images.layer({"etc/gone": b"gone\n", "srv/hidden": b"hidden\n", "srv/sub/hidden": b"hidden\n"})
    return images.image(
        shell(root), lower, images.layer({"etc/.wh.gone": b"", "srv/.wh..wh..opq": b"", "srv/new": b"new\n"})
    )


OTHER_ROOT = """
awk '$2 == "/" {{ print $3, substr($4, 1, 2) }}' /proc/self/mounts
podman images --noheading --format '{{{{.Repository}}}} {{{{.ReadOnly}}}}' | sort
run {name} sh -c 'echo /etc/gone* /srv/*'
run {server} cat /etc/other
run {desktop} cat /etc/app
"""
CHECKED = """
podman system check && echo all layers are those of the records
"""
# podman does not start a container whose directories have owners outside of the user's own. The mount maps them.
ROOTLESS = """
store=/var/lib/ann/store
mkdir -p /run/ann $store /var/lib/ann/.config/containers
mount -o loop,ro,nodev,nosuid,X-mount.idmap='u:0:1000:1 u:1:100000:65536 g:0:1000:1 g:1:100000:65536' \\
    /usr/lib/kiwi_containers/store.squashfs $store
cat > /var/lib/ann/.config/containers/storage.conf << END
[storage]
driver = "overlay"
[storage.options]
additionalimagestores = ["$store"]
END
chown -R ann:ann /run/ann /var/lib/ann/.config
chown ann:ann /var/lib/ann
as_ann() {{
    setpriv --reuid=ann --regid=ann --clear-groups env HOME=/var/lib/ann USER=ann XDG_RUNTIME_DIR=/run/ann \\
        "$@" 2> /run/ann.log || cat /run/ann.log # not the warnings that there is no session
}}
as_ann run {name} sh -c 'echo /etc/gone* /srv/*; echo changed > /srv/new; cat /srv/new'
as_ann run --user 1000 {name} setuid -u
"""
USERS = (
    TextFile(path="/etc/passwd", text="root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/var/lib/ann:/bin/sh\n", mode=0o644),
    TextFile(path="/etc/group", text="root:x:0:\nann:x:1000:\n", mode=0o644),
    TextFile(path="/etc/subuid", text="ann:100000:65536\n", mode=0o644),
    TextFile(path="/etc/subgid", text="ann:100000:65536\n", mode=0o644),
)


@with_each_podman
def test_a_store_on_a_read_only_overlay_and_for_a_user(make: MakeMachine, tmp_path: Path, suite: str) -> None:
    """The root is a read-only overlay, /var is new at each boot, two profiles have stores, and a user runs podman."""
    machine = make(suite=suite)
    deleted, other_image, app_image = deleting(machine.root), other(machine.root), app(machine.root)
    desktop = "registry.example.com/team/desktop:1.0"
    contents = {"root": (NAME, deleted), "Server": (OTHER, other_image), "Desktop": (desktop, app_image)}
    with_stores(machine, tmp_path, contents)
    # podman 4 has no such check, and mount of Debian 12 does not map owners yet.
    script = OTHER_ROOT + ("" if suite == "bookworm" else CHECKED + ROOTLESS)
    values = {"name": NAME, "server": OTHER, "desktop": desktop}
    machine.install(*USERS, *consumer(script.format(**values)))
    # A user can mount /proc only where it is in full view somewhere, and nspawn hides some files of the machine's own.
    proc = "--bind=/proc:/run/proc:norbind"
    report = machine.boot(*store.devices(), *PODMAN, proc, "--volatile=state", has_var=False)
    newer = ["all layers are those of the records", "/etc/gone* /srv/new", "changed", "0"]
    assert (machine.out / "script").read_text().splitlines() == [
        "overlay ro",
        "registry.example.com/team/app true",
        "registry.example.com/team/desktop true",
        "registry.example.com/team/other true",
        "/etc/gone* /srv/new",
        "other",
        "app",
        *([] if suite == "bookworm" else newer),
    ]
    assert report.units["kiwi_containers"] == "active"


def test_podman_works_where_a_store_cannot_be_mounted(machine: Machine) -> None:
    report = machine.boot()
    assert report.images == frozenset()
    assert report.units["kiwi_containers"] == "failed"
    assert report.lines("/usr/lib/containers/storage: /usr/lib/kiwi_containers/store.squashfs is not mounted")
    assert report.lines(f"not loaded: {UNIT} kiwi_containers-store.service {CHECK_OF_PROFILE}.service")
    assert not report.lines("podman failed")


def test_a_store_that_storage_conf_does_not_list_is_reported(machine: Machine) -> None:
    path = Path(f"{machine.root}{STORAGE_CONF}")
    path.write_text(path.read_text().partition("[storage.options]")[0])
    report = machine.boot(*store.devices())
    assert report.lines(f"podman does not have {NAME}; additionalimagestores in /etc/containers/storage.conf must list")
    assert report.units["kiwi_containers"] == "failed"
