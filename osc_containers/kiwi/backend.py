"""The container engines that kiwi's `backend` attribute can name, declared once.

To add an engine that kiwi knows, add it here, and to `inject/load.sh` the commands that load, list and remove an image.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Backend(NamedTuple):
    """A container engine.

    `stores` are the directories where it keeps images, and must be mounted before it loads one. Of several, only the
    engine itself knows which it uses. `daemon` is the systemd unit that must run, if there is one. `packages`
    are the names under which distributions ship the engine.
    """

    name: str
    stores: tuple[str, ...]
    packages: tuple[str, ...]
    daemon: str = ""


# The order is that of kiwi's schema, and messages list the names in it.
BACKENDS: Mapping[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend(name="podman", stores=("/var/lib/containers",), packages=("podman",)),
        Backend(
            name="docker",
            stores=("/var/lib/docker", "/var/lib/containerd"),
            packages=("docker", "docker-stable", "docker-ce", "docker-ee", "docker.io", "moby-engine"),
            daemon="docker.service",
        ),
        # kiwi orders on a container-snap.service, which container-snap does not have: it runs without a daemon.
        Backend(name="container-snap", stores=("/var/lib/container-snap",), packages=("container-snap",)),
    )
}
