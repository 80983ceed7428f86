"""A complete OBS back end of Debian 12 (2.9.4) on this machine: its processes, projects and repositories, and osc.

It runs in network, mount and PID namespaces of its own, as root, with all files in one directory. Use it by hand with
`scripts/obs`.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lxml import etree

from tests.support import osc_program
from tests.support.e2e.debs import ROOT, once, run
from tests.support.e2e.obs.daemons import API, REGISTRY, REPOSITORIES, SERVICES, SOURCES, WORKER_SIZE

REGISTRY_HOST = f"127.0.0.1:{REGISTRY}"
"""The registry in the namespace."""
_APIURL = f"http://127.0.0.1:{API}"
_PATIENCE = 120.0
_CONFIG = f"""\
package BSConfig;
our $bsdir = $ENV{{OBS_DIRECTORY}};
our $servicedir = "$bsdir/services";
our ($srcserver, $reposerver, $serviceserver) =
  map {{ "http://127.0.0.1:$_" }} {SOURCES}, {REPOSITORIES}, {SERVICES};
our $ipaccess = {{ '^127\\..*' => 'rw', '.*' => 'worker' }};
our ($bsuser, $bsgroup, $bsserviceuser, $bsservicegroup);
our ($nosharedtrees, $sign_project, $servicedispatch) = (0, 0, 1);
our ($service_timeout, $service_maxchild) = (300, 2);
our $packtrack = [];
our $relsync_pool = {{ "local" => "local", "x86_64" => "i586" }};
1;
"""
_OSCRC = f"""\
[general]
apiurl = {_APIURL}
build-root = DIRECTORY/osc/root
packagecachedir = DIRECTORY/osc/packages
build-cmd = /usr/lib/obs-build/build
su-wrapper =
[{_APIURL}]
user = ann
pass = secret
realname = Ann
email = ann@example.com
allow_http = 1
trusted_prj = debian kiwi containers home:ann
"""
_started: dict[int, "subprocess.Popen[bytes]"] = {}
"""The processes that this one must wait for."""
_DIRECTORIES = ("log", "run", "kill", "away", "home/.config/osc", "osc")


def unpack_server() -> Path:
    """Return the programs of Debian's obs-server. They are unpacked, because its installation starts them."""

    def unpack(directory: Path) -> None:
        download = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "obs-server"]
        subprocess.run(download, cwd=directory, check=True)
        (package,) = directory.glob("obs-server_*.deb")
        run("dpkg-deb", "--extract", package, directory / "files")
        package.unlink()
        server = (directory / "files/usr/lib/obs/server").rename(directory / "server")
        shutil.rmtree(directory / "files")
        (server / "BSConfig.pm").unlink()
        (server / "BSConfig.pm").write_text(_CONFIG)
        (server / "build").unlink()
        (server / "build").symlink_to("/usr/lib/obs-build")

    return once("obs-server", unpack, "obs-server", _CONFIG) / "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A running back end: its directory, and the process that the others end with."""

    directory: Path
    process: int

    @property
    def installed(self) -> Path:
        """The tree of `make install` that its users and its service server have."""
        return self.directory / "installed"

    def wrap(self, *command: str | Path) -> list[str]:
        """Return a command line that runs a command in the network of the back end."""
        return ["nsenter", f"--net=/proc/{self.process}/ns/net", "--", *map(str, command)]

    def run(self, *command: str | Path) -> None:
        """Run a program of the back end, which must succeed."""
        environment = os.environ | {"OBS_DIRECTORY": str(self.directory)}
        subprocess.run(self.wrap(*command), cwd=self.directory / "server", check=True, env=environment)

    def osc(
        self, *arguments: str, directory: Path | None = None, check: bool = True, in_memory: bool = False
    ) -> "subprocess.CompletedProcess[str]":
        """Run osc as the user Ann, with our plugin and services; with `in_memory`, its build root is in a tmpfs."""
        mount = f'mount -t tmpfs -o size={WORKER_SIZE} build {self.directory}/osc; exec "$@"'
        memory = ["unshare", "--mount", "sh", "-ec", mount, "sh"] if in_memory else []
        done = osc_program.run(
            *arguments,
            prefix=self.installed,
            directory=directory or self.directory,
            wrap=lambda *command: self.wrap(*memory, *command),
            environment=self.environment,
            stderr=subprocess.STDOUT,
        )
        assert not check or done.returncode == 0, f"osc {' '.join(arguments)}:\n{done.stdout[-8000:]}"
        return done

    @property
    def environment(self) -> dict[str, str]:
        """The variables for osc: a home directory with its configuration."""
        home = str(self.directory / "home")
        # Debian's obs-build has its Perl modules elsewhere than the programs assume.
        return {
            "BUILD_DIR": "/usr/lib/obs-build",
            "HOME": home,
            "XDG_CONFIG_HOME": f"{home}/.config",
            "XDG_CACHE_HOME": f"{home}/.cache",
        }

    def stored(self, package: str) -> int:
        """Return how many bytes the sources of a package take on the server, with all its revisions."""
        return sum(path.stat().st_size for path in (self.directory / "sources" / package).rglob("*") if path.is_file())

    def uploads(self, package: str) -> dict[str, int]:
        """Return the bytes of all uploads to a package (`PROJECT/PACKAGE`), by file name."""
        lines = (line.split() for line in (self.directory / "log/api").read_text().splitlines())
        sizes: dict[str, int] = {}
        for _, method, size, target in lines:
            path = urllib.parse.unquote(target.partition("?")[0])
            if method == "PUT" and path.startswith(f"/source/{package}/"):
                sizes[path.rpartition("/")[2]] = sizes.get(path.rpartition("/")[2], 0) + int(size)
        return sizes

    def kill(self, daemon: str) -> None:
        """Kill a daemon and its children; it is started again."""
        request = self.directory / "kill" / daemon
        request.touch()
        while request.exists():
            time.sleep(0.05)

    @contextmanager
    def without(self, daemon: str) -> Iterator[None]:
        """Kill a daemon, and start it again when the context is left."""
        mark = self.directory / "away" / daemon
        mark.touch()
        self.kill(daemon)
        try:
            yield
        finally:
            mark.unlink()

    def stop(self) -> None:
        """End all processes. Their mounts and their network go with them."""
        # The first process of the PID namespace; its parent ends when all others have ended.
        for child in _children(self.process):
            os.kill(child, signal.SIGKILL)
        if process := _started.pop(self.process, None):
            process.wait()
        while not _has_ended(self.process):
            time.sleep(0.05)


def _children(process: int) -> list[int]:
    """Return the children of a process; none if it has ended."""
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def _has_ended(process: int) -> bool:
    """Tell whether a process has ended. If another test process started it, that one may not have waited for it yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def start(directory: Path, *, users: Path | None = None) -> Backend:
    """Start a back end in a directory. It ends with `stop`, or when no process holds a lock on the file `users`."""
    install(directory / "installed")
    for name in _DIRECTORIES:
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "ready").unlink(missing_ok=True)
    for name, target in (("server", unpack_server()), ("services", directory / "installed/lib/obs/service")):
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(target)
    if users:
        (directory / "users").symlink_to(users)
    (directory / "registry.yml").write_text(
        f'{{"version": 0.1, "storage": {{"filesystem": {{"rootdirectory": "{directory}/registry/storage"}}}}, '
        f'"http": {{"addr": "{REGISTRY_HOST}"}}}}'
    )
    (directory / "home/.config/osc/oscrc").write_text(_OSCRC.replace("DIRECTORY", str(directory)))
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable]
    with (directory / "log/out").open("ab") as log:
        process = subprocess.Popen(
            [*command, "-m", "tests.support.e2e.obs.daemons", str(directory)],
            cwd=directory,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _started[process.pid] = process
    deadline = time.monotonic() + _PATIENCE
    while not (directory / "ready").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise RuntimeError(f"the back end does not come up: {(directory / 'log/out').read_text()[-2000:]}")
        time.sleep(0.05)
    return Backend(directory=directory, process=process.pid)


def wait_for_server(backend: Backend) -> None:
    """Wait until the source server answers."""
    deadline = time.monotonic() + _PATIENCE
    while backend.osc("api", "/source", check=False).returncode:
        assert time.monotonic() < deadline, "the source server does not answer"


def install(prefix: Path) -> None:
    """Install this checkout for Debian's Python."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--silent", "install", f"PREFIX={prefix}", "DESTDIR=", "PYTHON=/usr/bin/python3"]
    subprocess.run(command, cwd=ROOT, check=True, env=environment)


@contextmanager
def share(directory: Path, set_up: Callable[[Backend], object]) -> Iterator[Backend]:
    """Yield a back end that processes share: the first one starts it, the last one stops it and removes its files."""
    locks = [directory.with_suffix(suffix).open("w") for suffix in (".users", ".guard")]
    with locks[0] as users, locks[1] as guard:
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(guard, fcntl.LOCK_EX)
        process = directory / "process"
        if process.exists():
            backend = Backend(directory=directory, process=int(process.read_text()))
        else:
            backend = start(directory, users=directory.with_suffix(".users"))
            set_up(backend)
            process.write_text(str(backend.process))
        fcntl.flock(guard, fcntl.LOCK_UN)
        try:
            yield backend
        finally:
            fcntl.flock(guard, fcntl.LOCK_EX)
            with suppress(BlockingIOError):  # others still use it
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                backend.stop()
                shutil.rmtree(directory)


def make_project(backend: Backend, name: str, repository: str, *, path: str = "", configuration: str = "") -> None:
    """Make a project with a repository that builds on `path` (`PROJECT/REPOSITORY`)."""
    below = '<path project="{}" repository="{}"/>'.format(*path.split("/")) if path else ""
    meta = (
        f'<project name="{name}"><title/><description/><person userid="ann" role="maintainer"/>'
        "<publish><disable/></publish>"
        f'<repository name="{repository}">{below}<arch>x86_64</arch></repository></project>'
    )
    file = backend.directory / f"{name}.meta"
    for kind, text in (("prj", meta), ("prjconf", configuration)):
        if text:
            file.write_text(text)
            backend.osc("meta", kind, name, "-F", str(file))


def import_debs(backend: Backend, project: str, repository: str, *directories: Path) -> None:
    """Put the packages of directories into a repository, under the names that OBS gives them."""
    full = backend.directory / "build" / project / repository / "x86_64/:full"
    full.mkdir(parents=True, exist_ok=True)
    for path in (path for directory in directories for path in directory.glob("*.deb")):
        name = full / f"{path.name.partition('_')[0]}.deb"
        try:
            name.hardlink_to(path)
        except OSError:  # another file system
            shutil.copyfile(path, name)
    backend.run("perl", "./bs_admin", "--rescan-repository", project, repository, "x86_64")


def results(backend: Backend, project: str, package: str) -> dict[str, str]:
    """Return the state of each flavour of a package, with the reason that the server gives (`broken: no source`)."""
    answer = backend.osc("results", "--xml", project, package).stdout
    states = {}
    for status in etree.fromstring(answer.encode()).iter("status"):
        reason = status.findtext("details")
        states[status.get("package", "")] = f"{status.get('code')}: {reason}" if reason else status.get("code", "")
    return states


def wait_for(
    backend: Backend, project: str, package: str, states: Iterable[str], *, limit: float = 300
) -> dict[str, str]:
    """Wait until every flavour of a package is in one of these states, and return them with the server's reasons."""
    deadline = time.monotonic() + limit
    while True:
        found = results(backend, project, package)
        if found and all(state.startswith(tuple(states)) for state in found.values()):
            return found
        assert time.monotonic() < deadline, f"{project}/{package}: {found}"
        time.sleep(min(5.0, limit / 100))
