"""A bootable machine: a small Debian with systemd and podman, in systemd-nspawn.

A machine is a temporary overlay of a root that `make-root` created. Its `/var` is a separate file system, which can be
full, and which can lose data in a power cut. When a machine reaches its target, it writes a report to `/out` and powers
off. To boot a machine by hand, use `make-root`, `mount` and `boot`.
"""

import fcntl
import hashlib
import json
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from osc_containers.fs.rooted_tree import Tree
from osc_containers.inject.image_file import Symlink, TextFile

HERE = Path(__file__).resolve().parent
SUITES = [os.environ["E2E_SUITE"]] if "E2E_SUITE" in os.environ else ["bookworm", "trixie"]
"""The releases of Debian in which every podman is tried: these two have 4.3 and 5.4."""
CACHE = HERE.parents[2] / "build" / "e2e"

_REPORT = r"""#!/bin/sh
podman images --all --no-trunc --digests --format '{{.Repository}}:{{.Tag}} {{.Digest}} {{.ID}}' > /out/images
for image in $(podman images --all --quiet --no-trunc); do
    root=$(podman image mount "$image") && (cd "$root" && find . -type f -exec sha256sum '{}' +)
    podman image unmount "$image" > /dev/null
done > /out/files
systemctl list-units --all --plain --no-legend 'kiwi_containers*' > /out/units
systemctl show --property=Id,ActiveState --value multi-user.target consumer-*.service > /out/consumers
journalctl --boot --identifier=kiwi_containers --output=json --output-fields=MESSAGE,PRIORITY > /out/journal
journalctl --boot --output=short-monotonic > /out/everything
touch /out/finished
systemctl --no-block poweroff
"""

_FILES = (
    TextFile(path="/usr/local/bin/report", text=_REPORT, mode=0o755),
    TextFile(
        path="/etc/systemd/system/report.service",
        text="[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\nExecStart=/usr/local/bin/report\n",
        mode=0o644,
    ),
    TextFile(
        path="/etc/systemd/system/report.target",
        text="[Unit]\nRequires=multi-user.target\nWants=report.service\nAfter=multi-user.target\n",
        mode=0o644,
    ),
    Symlink(path="/etc/systemd/system/default.target", target="report.target"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The state of a machine at the end of a boot."""

    images: frozenset[str]
    """`NAME MANIFEST-DIGEST sha256:ID` of every image that podman has."""
    files: frozenset[str]
    """SHA-256 of every file in an image."""
    units: Mapping[str, str]
    """The state of each `kiwi_containers*` unit, by name without suffix."""
    active: frozenset[str]
    """Those of `multi-user.target` and `consumer-*.service` that are active."""
    journal: tuple[tuple[int, str], ...]
    """Priority and text of each line that the loader wrote."""

    def lines(self, text: str) -> list[str]:
        """Return the lines of the loader that contain `text`."""
        return [line for _, line in self.journal if text in line]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine that can be booted repeatedly; its file systems are below `directory`."""

    directory: Path

    @property
    def root(self) -> Path:
        """The root file system of the machine, without `/var`."""
        return self.directory / "root"

    @property
    def var(self) -> Path:
        """The file system `/var` of the machine."""
        return self.directory / "var"

    @property
    def out(self) -> Path:
        """The directory `/out` of the machine."""
        return self.directory / "out"

    def install(self, *files: TextFile | Symlink) -> None:
        """Write files to the root file system."""
        tree = Tree(self.root)
        for file in files:
            if isinstance(file, Symlink):
                tree.symlink(file.path, file.target)
            else:
                tree.write(file.path, file.text.encode(), file.mode)

    def boot(self, *options: str, has_var: bool = True, limit: int = 120) -> Report:
        """Boot until the machine powers itself off, and return its report; `limit` is in seconds.

        `options` are those of systemd-nspawn. Without `has_var`, it does not mount the file system `/var`.
        """
        with self._booting(options, has_var=has_var) as process:
            process.wait(limit)
        assert (self.out / "finished").exists(), "the machine did not reach its target"
        return _read_report(self.out)

    def boot_until(self, moment: Callable[[], bool], *options: str, limit: int = 120) -> None:
        """Boot, and cut the power as soon as `moment` returns true; `options` and `limit` are those of `boot`."""
        os.sync()
        with self._booting(options) as process:
            end = time.monotonic() + limit
            while not moment():
                assert process.poll() is None, "the moment did not come"
                assert time.monotonic() < end, "the moment did not come in time"
                time.sleep(0.002)
            _lose_unwritten(self.var)
        subprocess.run(["umount", self.var], check=True)
        # A copy of the disk as it is now. As long as another mount namespace has the old file system, which may be the
        # case until the end of all tests, the kernel would give us that one again, and not what is on the disk.
        image = self.directory / "var.img"
        subprocess.run(["cp", "--sparse=always", image, image.with_suffix(".cut")], check=True)
        image.with_suffix(".cut").replace(image)
        _mount_var(self.directory)

    @contextmanager
    def _booting(self, options: tuple[str, ...], *, has_var: bool = True) -> Iterator[subprocess.Popen[bytes]]:
        for left in self.out.iterdir():
            left.unlink()
        var = [f"--bind={self.var}:/var"] if has_var else []
        command: list[str | Path] = [HERE / "boot", self.root, self.out, *var, *options]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    _kill(process)


def _lose_unwritten(directory: Path) -> None:
    """Stop a file system at once, so that everything it has not written to its disk is lost (FS_IOC_SHUTDOWN)."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, 0x8004587D, struct.pack("I", 2))
    finally:
        os.close(descriptor)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the first process of the machine, which ends all others."""
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    process.wait(30)


def _read_report(out: Path) -> Report:
    units = (line.split() for line in (out / "units").read_text().splitlines())
    shown = [part.split() for part in (out / "consumers").read_text().split("\n\n")]
    entries = map(json.loads, (out / "journal").read_text().splitlines())
    return Report(
        images=frozenset((out / "images").read_text().splitlines()),
        files=frozenset(line.partition(" ")[0] for line in (out / "files").read_text().splitlines()),
        units={name.removesuffix(".service"): active for name, _, active, *_ in units},
        active=frozenset(name for pair in shown for name in pair if "active" in pair and name != "active"),
        journal=tuple((int(entry["PRIORITY"]), entry["MESSAGE"]) for entry in entries),
    )


def make_root(suite: str) -> Path:
    """Return a small Debian root, which is kept in build/ until `make-root` changes."""
    recipe = HERE / "make-root"
    root = CACHE / f"{suite}-{hashlib.sha256(recipe.read_bytes()).hexdigest()[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            making = root.with_suffix(".making")
            subprocess.run(["rm", "-rf", making], check=True)
            subprocess.run([recipe, making, suite], check=True)
            making.rename(root)
    return root


@contextmanager
def make_machine(base: Path, directory: Path, *, var_size: int = 1 << 30) -> Iterator[Machine]:
    """Create a machine in `directory` from the root `base`; `var_size` is in bytes."""
    machine = Machine(directory=directory)
    for path in (machine.root, machine.var, machine.out, directory / "upper", directory / "work"):
        path.mkdir(parents=True)
    layers = f"lowerdir={base},upperdir={directory}/upper,workdir={directory}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", machine.root], check=True)
    with ExitStack() as stack:
        stack.callback(_unmount, machine.root)
        with (directory / "var.img").open("wb") as image:
            image.truncate(var_size)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", directory / "var.img"], check=True)
        _mount_var(directory)
        stack.callback(_unmount, machine.var)
        subprocess.run(["cp", "-a", f"{base}/var/.", machine.var], check=True)
        machine.install(*_FILES)
        yield machine


def _mount_var(directory: Path) -> None:
    subprocess.run(["mount", "-o", "loop", directory / "var.img", directory / "var"], check=True)


def _unmount(directory: Path) -> None:
    subprocess.run(["umount", "--lazy", directory], check=True)
