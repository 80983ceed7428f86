"""The one place that makes an image source out of the place that a description names.

`docker://` is a registry; `oci:`, `oci-archive:`, `docker-archive:` and `dir:` are read here; what only an engine can
read (`containers-storage:`, `docker-daemon:`) is first copied to a scratch directory by the host's skopeo.

Spec: containers-transports(5).
"""

import os
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from osc_containers.errors import RegistryError
from osc_containers.registry.config import certs_d
from osc_containers.registry.retry import Policy
from osc_containers.sources.interface import ImageSource
from osc_containers.sources.registry import RegistryImages

_SCRATCH = "/var/tmp"  # noqa: S108 - images do not fit into a /tmp in memory
_ENGINE_TRANSPORTS = ("containers-storage", "docker-daemon")


class Sources:
    """The image sources of one run: what they share (connections, tokens, scratch files) ends with the context.

    Relative paths start at `directory`. `system_context` is asked for TLS settings when a registry needs the usual
    ones. May be used from several threads.
    """

    def __init__(
        self,
        directory: Path,
        *,
        policy: Policy | None = None,
        environ: Mapping[str, str] = os.environ,
        system_context: Callable[[], ssl.SSLContext] = certs_d.system_context,
    ) -> None:
        self._directory = directory
        self._environ = environ
        self._registries = RegistryImages(policy or Policy(), environ, system_context)
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

        :raises RegistryError: there is no such transport, or no image at the place.
        """
        if place.startswith("docker://"):
            return self._registries
        with self._lock:
            if place not in self._opened:
                self._opened[place] = self._open(place)
            return self._opened[place]

    def _open(self, place: str) -> ImageSource:
        from osc_containers.sources.blob_store import Directory, Tar
        from osc_containers.sources.docker_archive import DockerArchive  # nearly all descriptions name registries alone
        from osc_containers.sources.oci_layout import DirLayout, OciLayout

        transport, _, rest = place.partition(":")
        if transport in _ENGINE_TRANSPORTS:
            return DirLayout(Directory(self._copy(place)))
        name, _, version = rest.partition(":")
        path = self._directory / name
        if transport == "oci":
            return OciLayout(Directory(path), version)
        if transport == "oci-archive":
            return OciLayout(Tar(path), version)
        if transport == "docker-archive":
            return DockerArchive(Tar(path), version)
        if transport == "dir":
            return DirLayout(Directory(self._directory / rest))
        raise RegistryError(f"{place[:160]!r}: unknown transport {transport[:40]!r}")

    def _copy(self, place: str) -> Path:
        """Copy an image out of an engine; `dir:` keeps its manifest and its layers as they are there."""
        parent = self._environ.get("TMPDIR") or _SCRATCH
        scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="osc-containers.", dir=parent)))
        command = ["skopeo", "copy", "--quiet", place, "dir:image"]
        try:
            done = subprocess.run(
                command, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, check=False, env={**self._environ}
            )
        except FileNotFoundError:
            raise RegistryError(f"{place[:160]!r}: needs skopeo, which is not installed") from None
        except OSError as error:
            raise RegistryError(f"skopeo: {error.strerror}") from None
        if done.returncode != 0:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            raise RegistryError(f"{place[:160]!r}: skopeo cannot copy it: {lines[-1][-400:]!r}")
        return scratch / "image"
