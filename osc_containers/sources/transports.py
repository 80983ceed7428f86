"""The factory of image sources: it opens the location that a description names.

`docker://` is a registry. `oci:`, `oci-archive:`, `docker-archive:` and `dir:` are files, which are read directly. Only
an engine can read its own store (`containers-storage:`, `docker-daemon:`), so skopeo first copies such an image to a
temporary directory.

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
# Settings of containers/storage and of docker's client. `_CONTAINERS_*` describes a rootless user namespace.
_SKOPEO_VARIABLES = (
    *("CONTAINERS_*", "_CONTAINERS_*", "CONTAINER_HOST", "BUILDAH_*", "DOCKER_*", "REGISTRIES_*", "STORAGE_*"),
)
_SKOPEO_TIMEOUT = 4 * 3600.0  # seconds; images can have many gigabytes


class Sources:
    """The image sources of one run. They share connections, tokens and temporary files, which end with the context.

    Relative paths start at `directory`, and no program in it is started. `system_context` returns the TLS settings of
    registries without settings of their own. Images outside of the package, and in the stores of engines, need
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
        """Interrupt all requests to registries, from any thread. Afterwards, the sources can only be closed."""
        self._registries.cancel()

    def open(self, location: str) -> ImageSource:
        """Return the source for a location in the syntax of containers-transports(5). Each is opened once.

        :raises DescriptionError: the location is outside of the package, and that is not allowed.
        :raises RegistryError: the transport is unknown, or there is no image at the location.
        """
        if location.startswith("docker://"):
            return self._registries
        with self._lock:
            # The lock is held while skopeo copies, so that two threads do not copy the same image.
            if location not in self._opened:
                self._opened[location] = self._open(location)
            return self._opened[location]

    def describe_access(self, location: str, reference: Reference) -> str:
        """Return how an image was accessed that may be private, in a few words; empty if it is public."""
        if location.startswith("docker://"):
            hosts = self._registries.hosts_with_login(reference)
            return f"with your login for {' and '.join(hosts)}" if hosts else ""
        files = self._local_files.get(location)
        was_read = files.left_package if files else location in self._opened
        return "from this machine" if was_read else ""

    def _open(self, location: str) -> ImageSource:
        # Nearly all descriptions name only registries, so these modules are not imported at the start of the program.
        from osc_containers.sources.blob_store import Directory, Tar
        from osc_containers.sources.docker_archive import DockerArchive
        from osc_containers.sources.oci_layout import DirLayout, OciLayout

        transport, _, rest = location.partition(":")
        if transport in local.ENGINES:
            if not self._allow_local:
                raise local.refusal(location)
            return DirLayout(Directory(self._copy(location)))
        files = self._local_files[location] = LocalFiles(self._directory, allowed=self._allow_local)
        # An absolute path replaces the directory.
        path, version = self._directory / local.path_of(location), rest.partition(":")[2]
        if transport == "oci":
            return OciLayout(Directory(path, files.open), version)
        if transport == "oci-archive":
            return OciLayout(Tar(path, files.open), version)
        if transport == "docker-archive":
            return DockerArchive(Tar(path, files.open), version)
        if transport == "dir":
            return DirLayout(Directory(path, files.open))
        raise RegistryError(f"{location[:160]!r}: unknown transport {transport[:40]!r}")

    def _copy(self, location: str) -> Path:
        """Copy an image out of an engine's store, and return its directory.

        The transport `dir:` keeps manifest and layers unchanged; an OCI layout would convert Docker's manifests.
        """
        parent = self._environ.get("TMPDIR") or _SCRATCH
        scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="osc-containers.", dir=parent)))
        try:
            done = program.run(
                *("skopeo", "copy", "--quiet"),
                arguments=[location, "dir:image"],
                environ=self._environ,
                inherit=_SKOPEO_VARIABLES,
                directory=scratch,
                timeout=_SKOPEO_TIMEOUT,
            )
        except NotInstalledError as error:
            raise RegistryError(f"{error}, but needed for {location[:160]!r}") from None
        except Error as error:
            raise RegistryError(f"{location[:160]!r}: {error}") from None
        if done.status != 0:
            raise RegistryError(f"{location[:160]!r}: skopeo cannot copy it: {done.reason!r}")
        return scratch / "image"
