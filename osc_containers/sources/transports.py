"""The one place that makes an image source out of the place that a description names.

`docker://` is a registry; `oci:`, `oci-archive:`, `docker-archive:` and `dir:` are read here; what only an engine can
read (`containers-storage:`, `docker-daemon:`) is first copied to a scratch directory by the host's skopeo.

Spec: containers-transports(5).
"""

import os
import ssl
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from osc_containers.errors import Error, RegistryError
from osc_containers.fs import program
from osc_containers.fs.program import NotInstalledError
from osc_containers.oci.reference import Reference
from osc_containers.registry.config import certs_d
from osc_containers.registry.retry import Policy
from osc_containers.sources import local
from osc_containers.sources.interface import ImageSource
from osc_containers.sources.local import LocalFiles
from osc_containers.sources.registry import RegistryImages

_SCRATCH = "/var/tmp"  # noqa: S108 - images do not fit into a /tmp in memory
_SKOPEO_VARIABLES = (
    *("CONTAINERS_*", "_CONTAINERS_*", "CONTAINER_HOST", "BUILDAH_*", "DOCKER_*", "REGISTRIES_*", "STORAGE_*"),
)
_SKOPEO_TIMEOUT = 4 * 3600.0  # seconds; images can have many gigabytes


class Sources:
    """The image sources of one run: what they share (connections, tokens, scratch files) ends with the context.

    Relative paths start at `directory`, and no program in it is started. `system_context` is asked for TLS settings
    when a registry needs the usual ones. Images outside of the package, and in the stores of engines, need
    `allow_local`. May be used from several threads.
    """

    def __init__(
        self,
        directory: Path,
        *,
        policy: Policy | None = None,
        environ: Mapping[str, str] = os.environ,
        system_context: Callable[[], ssl.SSLContext] = certs_d.system_context,
        allow_local: bool = False,
    ) -> None:
        self._directory = directory
        self._environ = program.outside(directory, environ)
        self._allow_local = allow_local
        self._local_files: dict[str, LocalFiles] = {}
        self._registries = RegistryImages(policy or Policy(), self._environ, system_context)
        self._lock = threading.Lock()
        self._opened: dict[str, ImageSource] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "Sources":
        self._stack.callback(self._registries.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def cancel(self) -> None:
        """Let what is asked of registries fail soon, from any thread; to be closed is all that is left then."""
        self._registries.cancel()

    def open(self, place: str) -> ImageSource:
        """Return the source for a place in the form of containers-transports(5), each once.

        :raises DescriptionError: the place is outside of the package, and that is not allowed.
        :raises RegistryError: there is no such transport, or no image at the place.
        """
        if place.startswith("docker://"):
            return self._registries
        with self._lock:
            if place not in self._opened:
                self._opened[place] = self._open(place)
            return self._opened[place]

    def describe_access(self, place: str, reference: Reference) -> str:
        """Return whose image was read at a place so far, if it may be a private one; empty if it is public."""
        if place.startswith("docker://"):
            hosts = self._registries.hosts_with_login(reference)
            return f"with your login for {' and '.join(hosts)}" if hosts else ""
        files = self._local_files.get(place)
        was_read = files.left_package if files else place in self._opened
        return "from this machine" if was_read else ""

    def _open(self, place: str) -> ImageSource:
        from osc_containers.sources.blob_store import Directory, Tar
        from osc_containers.sources.docker_archive import DockerArchive  # nearly all descriptions name registries alone
        from osc_containers.sources.oci_layout import DirLayout, OciLayout

        transport, _, rest = place.partition(":")
        if transport in local.ENGINES:
            if not self._allow_local:
                raise local.refusal(place)
            return DirLayout(Directory(self._copy(place)))
        files = self._local_files[place] = LocalFiles(self._directory, allowed=self._allow_local)
        path, version = self._directory / local.path_of(place), rest.partition(":")[2]
        if transport == "oci":
            return OciLayout(Directory(path, files.open), version)
        if transport == "oci-archive":
            return OciLayout(Tar(path, files.open), version)
        if transport == "docker-archive":
            return DockerArchive(Tar(path, files.open), version)
        if transport == "dir":
            return DirLayout(Directory(path, files.open))
        raise RegistryError(f"{place[:160]!r}: unknown transport {transport[:40]!r}")

    def _copy(self, place: str) -> Path:
        """Copy an image out of an engine; `dir:` keeps its manifest and its layers as they are there."""
        parent = self._environ.get("TMPDIR") or _SCRATCH
        scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="osc-containers.", dir=parent)))
        try:
            done = program.run(
                *("skopeo", "copy", "--quiet"),
                arguments=[place, "dir:image"],
                environ=self._environ,
                inherit=_SKOPEO_VARIABLES,
                directory=scratch,
                timeout=_SKOPEO_TIMEOUT,
            )
        except NotInstalledError as error:
            raise RegistryError(f"{error}, but needed for {place[:160]!r}") from None
        except Error as error:
            raise RegistryError(f"{place[:160]!r}: {error}") from None
        if done.status != 0:
            raise RegistryError(f"{place[:160]!r}: skopeo cannot copy it: {done.reason!r}")
        return scratch / "image"
