"""Repositories of Debian packages for machines without a network; they are created once and kept below build/."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CACHE = ROOT / "build" / "e2e"

_IN_IMAGES = (
    *("apt", "systemd", "gnupg", "systemd-sysv", "dbus", "podman", "crun", "ca-certificates", "netavark"),
    *("linux-image-cloud-amd64", "initramfs-tools", "udev", "busybox-static"),
)
_IN_BUILD_ROOTS = (
    *("cpio", "fakeroot", "perl", "gawk", "login", "passwd", "procps", "kmod", "psmisc", "less"),
    *("python3", "rsync", "dpkg-dev", "mount", "e2fsprogs", "kpartx", "parted", "fdisk", "xz-utils", "bzip2", "file"),
)
_FOR_OURS = (
    "python3-lxml",
    "python3-requests",
    "python3-urllib3",
    "python3-platformdirs",
    "python3-rich",
    "squashfs-tools",
    "zstd",
    *("openssl", "gpgv"),
)

CleanRoot = Callable[..., "subprocess.CompletedProcess[str]"]


def once(name: str, make: Callable[[Path], object], *inputs: str | Path) -> Path:
    """Return a directory below build/ that `make` fills; it is called again only if an input (text or file) changes."""
    texts = (part if isinstance(part, str) else part.read_text() for part in inputs)
    directory = CACHE / f"{name}-{hashlib.sha256(chr(0).join(texts).encode()).hexdigest()[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            making = CACHE / f"{name}.making"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            make(making)
            making.rename(directory)
    return directory


def run(*command: str | Path) -> None:
    """Run a command that must succeed; pytest shows its output if it fails."""
    subprocess.run(command, check=True)


def fetch() -> Path:
    """Return a repository with all packages for build roots and images, 110 MB."""
    packages = (*_IN_IMAGES, *_IN_BUILD_ROOTS, *_FOR_OURS)
    script = HERE / "fetch-debs"
    return once("debs", lambda directory: run(script, directory, *packages), script, HERE / "index-debs", *packages)


@pytest.fixture(scope="session")
def debs() -> Path:
    """Return the repository that `fetch` made."""
    return fetch()


def kiwi_debs(versions: str) -> Path:
    """Return a repository with only this version of kiwi."""
    script = HERE / "kiwi-deb"
    python = f"PYTHON={sys.executable}"
    return once(
        f"kiwi-deb-{versions[:2]}", lambda directory: run("env", python, script, versions, directory), script, versions
    )


@pytest.fixture(scope="session")
def our_debs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with the packages of this checkout."""
    directory = tmp_path_factory.mktemp("debs")
    run(ROOT / "dist/build-deb", directory)
    run(HERE / "index-debs", directory)
    return directory


# $1: the root, $2: a scratch directory. The mounts end with the command. dpkg syncs often, so the overlay is in memory.
_IN_OVERLAY = """
mount -t tmpfs overlay "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
mount --rbind /dev "$2/root/dev"
mount -t proc proc "$2/root/proc"
root=$2/root
shift 2
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --bind "$2" "$root$1"
    shift 2
done
exec chroot "$root" env --ignore-environment PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root sh -exc "$2"
"""


@pytest.fixture
def clean_root(debs: Path, our_debs: Path, tmp_path: Path) -> CleanRoot:
    """Return a function that runs a shell script in a Debian root with only apt, which can install our packages."""

    def make(directory: Path) -> None:
        source = f"deb [trusted=yes] copy:{debs} ./"
        run("mmdebstrap", "--quiet", "--mode=root", "--variant=apt", "bookworm", directory, source)
        text = "".join(f"deb [trusted=yes] file:{place} ./\n" for place in ("/debs", "/ours"))
        (directory / "etc/apt/sources.list").write_text(text)

    root = once("clean-root", make, str(debs))
    scratch = tmp_path / "clean-root"

    def run_in_root(script: str, shared: Mapping[str, Path]) -> "subprocess.CompletedProcess[str]":
        scratch.mkdir(exist_ok=True)
        places = {"/debs": debs, "/ours": our_debs, **shared}
        arguments = [str(part) for pair in places.items() for part in pair]
        command = [
            "unshare",
            "--mount",
            "sh",
            "-ec",
            _IN_OVERLAY,
            "sh",
            str(root),
            str(scratch),
            *arguments,
            "--",
            script,
        ]
        return subprocess.run(command, capture_output=True, text=True)

    return run_in_root


_INSTALL = """
apt-get -qq update
dpkg-query --show --showformat '${Package}\\n' > /before
DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends PACKAGES > /log
dpkg-query --show --showformat '${Package}\\n' | grep --line-regexp --invert-match --file /before
"""


def install(*packages: str) -> str:
    """Return a script for a clean root that installs packages and prints the names of all new packages."""
    return _INSTALL.replace("PACKAGES", " ".join(packages))
