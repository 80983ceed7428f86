"""A build root with python3 and lxml, which is all that the inject service needs, and obs-build's runservices."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.service_program import Done

OBS_BUILD = os.environ.get("OBS_BUILD", "/usr/lib/obs-build")
"""The directory of obs-build: Debian's, or another one that the environment variable names."""

_BUILD = Path(__file__).resolve().parents[2] / "build"
# Packages are only unpacked, which takes five seconds. Their installation scripts would need more packages.
_MAKE = [
    "mmdebstrap",
    "--quiet",
    "--mode=root",
    "--variant=extract",
    "--include=python3,python3-lxml,coreutils,dash,gzip,tar",
    "bookworm",
]
# $1: the root, $2: installed tree, $3: SOURCES, $4: scratch directory, $5: PACKAGE:FLAVOR, $6: results.
# /usr is read-only.
_ENTER = """
mount -t tmpfs scratch "$4"
mkdir "$4/upper" "$4/work" "$4/root"
mount -t overlay -o "lowerdir=$1,upperdir=$4/upper,workdir=$4/work" overlay "$4/root"
mount -t overlay -o "lowerdir=$2:$1/usr" overlay "$4/root/usr"
mount --bind "$3" "$4/root/usr/src/packages/SOURCES"
mkdir -p "$4/root/.build.packages/OTHER"
echo BUILD_INCARNATION=0 >"$4/root/.buildenv"
[ -z "$5" ] || echo "BUILD_DISTURL='obs://build.example.org/home:ann/images/0123456789abcdef0123456789abcdef-$5'" \
    >>"$4/root/.buildenv"
cd "$4/root/usr/src/packages/SOURCES"
"$BUILD_DIR/runservices" --buildroot "$4/root" || status=$?
find "$4/upper" -type f ! -name .buildenv
cp -R "$4/root/.build.packages/OTHER/." "$6"
exit $status
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRoot:
    """A build of the package in `sources`, with the installed tree `prefix`."""

    prefix: Path
    sources: Path
    scratch: Path

    @property
    def results(self) -> Path:
        """The directory that gets the results of the build that are neither packages nor images."""
        return self.scratch.with_name("results")

    def run_services(self, arch: str = "x86_64", package: str = "") -> Done:
        """Run the buildtime services as obs-build does; standard output lists new files outside the sources.

        `package` is the name of the package with its flavor, as a worker of OBS tells obs-build.
        """
        paths = [str(path) for path in (_make(), self.prefix, self.sources, self.scratch)]
        for directory in (self.scratch, self.results):
            directory.mkdir(exist_ok=True)
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "POSIX",
            "HOME": "/root",
            "BUILD_DIR": OBS_BUILD,
        }
        return subprocess.run(
            ["unshare", "--mount", "--net", "sh", "-ec", _ENTER, "sh", *paths, package, self.results],
            env=environment | ({"BUILD_ARCH": arch} if arch else {}),
            capture_output=True,
            text=True,
        )


def _make() -> Path:
    """Return the root; the first call creates it."""
    directory = _BUILD / f"build-root-{hashlib.sha256(repr(_MAKE).encode()).hexdigest()[:12]}"
    _BUILD.mkdir(exist_ok=True)
    with (_BUILD / "build-root.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            shutil.rmtree(directory, ignore_errors=True)
            subprocess.run([*_MAKE, directory], check=True)
            for name in ("tmp", "usr/src/packages/SOURCES"):
                (directory / name).mkdir(parents=True, exist_ok=True)
            (directory / "complete").touch()
    return directory
