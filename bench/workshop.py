"""A registry with images, packages that ask for them, and the two programs that fetch them."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.link import Link
from bench.machine import PYTHON
from bench.measure import Cost, measure
from tests.support.docker_registry import DockerRegistry, serve
from tests.support.images import Image

_ROOT = Path(__file__).resolve().parent.parent
_LEAST = Path(__file__).with_name("least.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """Our programs as a user has them: the command, and the directory of the library, which is compiled."""

    program: Path
    home: Path


def install(directory: Path) -> Installed:
    """Run `make install` for the Python and the libraries of the distribution, which skopeo comes from, too."""
    command = ["make", "--silent", "install", f"PREFIX={directory}", "DESTDIR=", f"PYTHON={PYTHON}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(command, cwd=_ROOT, check=True, env=environment)
    return Installed(program=directory / "bin/osc-containers", home=directory / "lib/osc-containers")


class Workshop:
    """Everything that a case needs, below the directory `scratch`."""

    def __init__(self, scratch: Path, registry: DockerRegistry, installed: Installed) -> None:
        self.scratch = scratch
        self._registry = registry
        self.installed = installed
        home = scratch / "home"
        home.mkdir()
        # skopeo's temporary files go to the same file system as its archives
        self.environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home), "TMPDIR": str(home)}

    @property
    def host(self) -> str:
        """Where the registry is, without a link before it."""
        return self._registry.host

    def push(self, made: Iterator[tuple[str, Image]] | Sequence[tuple[str, Image]]) -> list[str]:
        """Push images as `bench/NAME:1` and return their names."""
        names = []
        for name, image in made:
            self._registry.push(image, f"bench/{name}:1")
            names.append(name)
        return names

    def make_package(self, host: str, names: Sequence[str], directory: Path) -> None:
        """Write a description that asks for images of `host`."""
        containers = "".join(f'<container name="{name}" path="bench" tag="1"/>' for name in names)
        directory.mkdir()
        (directory / "bench.kiwi").write_text(
            f'<image schemaversion="8.0" name="bench"><containers source="{host}" backend="podman">'
            f"{containers}</containers></image>"
        )

    def prefetch(self, package: Path, link: Link | None = None, layout: str = "archives") -> Cost:
        """Run our program on a package."""
        return self._observe([self._ours("prefetch", "-q", "--arch", "x86_64", "--layout", layout, package)], link)

    def skopeo(self, host: str, names: Sequence[str], directory: Path, link: Link | None = None) -> Cost:
        """Run skopeo for each image, as kiwi does."""
        directory.mkdir()
        options = ("--quiet", "--src-tls-verify=false")
        commands = [
            ["skopeo", "copy", *options, f"docker://{host}/bench/{name}:1", f"oci-archive:{directory}/{name}.oci.tar"]
            for name in names
        ]
        return self._observe(commands, link)

    def least(self, host: str, names: Sequence[str]) -> Cost:
        """Run what no program with the same libraries can do without, for a package with everything."""
        urls = [f"http://{host}/v2/bench/{name}/manifests/1" for name in names]
        return self._observe([[PYTHON, "-I", _LEAST, *urls]], None)

    def store(self, package: Path, root: Path) -> Cost:
        """Inject a package into a root tree, with all its images in a read-only store."""
        return self._observe(
            [self._ours("inject", "-q", "--arch", "x86_64", "--root", root, "--store", "*", package)], None
        )

    def verify(self, package: Path) -> None:
        """Stop the bench if our archives are not what they must be."""
        command = self._ours("verify", package)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=self.environment)

    def _ours(self, *words: str | Path) -> list[str | Path]:
        return [self.installed.program, *words]

    def _observe(self, commands: Sequence[Sequence[str | Path]], link: Link | None) -> Cost:
        answered = len(self._registry.requests())
        carried = link.count() if link else 0
        cost = measure(commands, self.environment)
        carried = link.count() - carried if link else 0
        asked = self._registry.requests()[answered:]
        return replace(
            cost,
            wire=carried or sum(request.written for request in asked),
            blob_bytes=sum(request.written for request in asked if request.is_blob),
            manifest_requests=sum("/manifests/" in request.path for request in asked),
        )


@contextmanager
def open_workshop(directory: Path, installed: Installed) -> Iterator[Workshop]:
    """Start a registry in a directory below `directory`; both go in the end."""
    with TemporaryDirectory(dir=directory) as scratch, serve(Path(scratch, "registry")) as registry:
        yield Workshop(Path(scratch), registry, installed)


def sizes(directory: Path) -> Mapping[str, int]:
    """Return the sizes of the archives and blobs in a directory, by name."""
    found = (path for path in sorted(directory.iterdir()) if path.suffix in (".ociarchive", ".blob", ".tar"))
    return {path.name: path.stat().st_size for path in found}
