"""The container engines, declared once: those that kiwi's `backend` attribute can name, and those of `engine`.

The parameter `engine` is for what kiwi does not know. To add an engine, declare it here. One that takes archives from a
directory, or uses the store of another, needs nothing else; for one that has to be told, add to `inject/load.sh` the
commands that load and list an image. `docs/engines.md` has what each of them can load.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from osc_containers.oci.quirk import Quirk
from osc_containers.oci.reference import Reference


class Engine(NamedTuple):
    """A container engine, or a program that hands images to one.

    `stores` are the directories where it keeps images, and must be mounted before it loads one. Of several, only the
    engine itself knows which it uses. `daemon` is the systemd unit that must run, if there is one. `packages`
    are the names under which distributions ship the engine. `refuses` has the images that it cannot load, with the
    releases or settings that cannot: all of them if that is empty. `verb` is what it does with the others.

    A unit loads images into it, unless it takes archives by itself, from the directory `archives`; `metadata` then
    returns the text of a file beside an archive, which is called `….metadata`, and by which alone it finds the image.
    `loaded_by` is another engine that loads images into the store that both use. With `needs_tag`, it knows images by
    their tags only.
    """

    name: str
    stores: tuple[str, ...]
    packages: tuple[str, ...]
    refuses: Mapping[Quirk, str]
    daemon: str = ""
    archives: str = ""
    metadata: Callable[[Reference, str], str] | None = None
    loaded_by: str = ""
    needs_tag: bool = False
    verb: str = "load"

    def can_load(self, quirks: Iterable[Quirk]) -> bool:
        """Tell whether some release or setting of it can load an image with these quirks."""
        return not any(self.refuses.get(quirk) == "" for quirk in quirks)


# What engines with the library of podman and skopeo refuse. Zstd in a Docker manifest is refused by podman 5.4, and no
# longer by 5.8. Other digests of layers are refused by skopeo, with which kiwi pulls, and by docker's containerd store.
_CONTAINERS_IMAGE = {
    Quirk.URLS: "",
    Quirk.DOCKER_CONFIG: "",
    Quirk.OCI_LAYERS: "",
    Quirk.DOCKER_ZSTD: "",
    Quirk.CONFIG_DIGEST: "",
    Quirk.LAYER_DIGEST: "",
    Quirk.ENCRYPTED: "",
    Quirk.CONFIG_TYPES: "",
    Quirk.TOO_MANY_TO_MOUNT: "so that it runs, before release 5 of podman",
}
_CONTAINERD_STORE = "with the containerd image store, the default since 29"

# The order is that of kiwi's schema, and messages list the names in it.
BACKENDS: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(name="podman", stores=("/var/lib/containers",), packages=("podman",), refuses=_CONTAINERS_IMAGE),
        Engine(
            name="docker",
            stores=("/var/lib/docker", "/var/lib/containerd"),
            packages=("docker", "docker-stable", "docker-ce", "docker-ee", "docker.io", "moby-engine"),
            refuses={
                Quirk.CONFIG_DIGEST: "",
                Quirk.ENCRYPTED: "",
                Quirk.LAYER_DIGEST: "",
                Quirk.CONFIG_TYPES: "",
                Quirk.DIFF_IDS: "",
                Quirk.DOCKER_ZSTD: "with the containerd image store before release 28",
                Quirk.UNKNOWN_LAYER: _CONTAINERD_STORE,
                Quirk.HIDDEN_COMPRESSION: _CONTAINERD_STORE,
                Quirk.MANY_LAYERS: "with the classic image store, the default before 29",
            },
            daemon="docker.service",
        ),
        # kiwi orders on a container-snap.service, which container-snap does not have: it runs without a daemon.
        Engine(
            name="container-snap",
            stores=("/var/lib/container-snap",),
            packages=("container-snap",),
            refuses=_CONTAINERS_IMAGE,
        ),
    )
}
"""The engines that kiwi knows, by name."""

# containerd's ctr refuses what Docker's containerd store does.
_CONTAINERD = {
    Quirk.CONFIG_DIGEST: "",
    Quirk.ENCRYPTED: "",
    Quirk.LAYER_DIGEST: "",
    Quirk.UNKNOWN_LAYER: "",
    Quirk.HIDDEN_COMPRESSION: "",
    Quirk.CONFIG_TYPES: "",
    Quirk.DIFF_IDS: "",
}


def _mgradm_metadata(reference: Reference, archive: str) -> str:
    """Return what mgradm reads of an image (uyuni-tools, shared/podman/images.go, GetRpmImagePath)."""
    image = {"name": reference.repository.replace("/", "-"), "tags": [reference.tag], "file": archive}
    return json.dumps({"image": image}, indent=2) + "\n"


OTHER_ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            name="containerd",
            stores=("/var/lib/containerd",),
            packages=("containerd", "containerd.io"),
            refuses={**_CONTAINERD, Quirk.DOCKER_ZSTD: "before release 2"},
            daemon="containerd.service",
        ),
        *(
            # At their start they import all archives of this directory, and pin the images (k3s, pkg/agent/containerd).
            Engine(
                name=name,
                stores=(f"/var/lib/rancher/{name}",),
                packages=packages,
                refuses={**_CONTAINERD, Quirk.DOCKER_ZSTD: "with containerd before release 2"},
                archives=f"/var/lib/rancher/{name}/agent/images",
                needs_tag=True,
            )
            for name, packages in (("k3s", ("k3s",)), ("rke2", ("rke2-server", "rke2-agent")))
        ),
        # It loads an archive into podman when it first needs the image.
        Engine(
            name="mgradm",
            stores=("/var/lib/containers",),
            packages=("mgradm", "mgrpxy"),
            refuses=_CONTAINERS_IMAGE,
            archives="/usr/share/suse-docker-images/native",
            metadata=_mgradm_metadata,
            needs_tag=True,
        ),
        Engine(
            name="cri-o",
            stores=("/var/lib/containers",),
            packages=("cri-o",),
            refuses=_CONTAINERS_IMAGE,
            loaded_by="podman",
        ),
    )
}
"""The engines that only the parameter `engine` can name."""

ENGINES: Mapping[str, Engine] = {**BACKENDS, **OTHER_ENGINES}
"""All engines by name."""

NAMESPACE = "k8s.io"
"""The namespace of containerd that Kubernetes uses."""


def engine_of(target: str) -> Engine:
    """Return the engine of a target: its name, and for containerd `:NAMESPACE` if that is another than `NAMESPACE`.

    :raises KeyError: there is no such engine.
    """
    return ENGINES[target.partition(":")[0]]


STORE_BACKEND = "podman"
"""The only engine that has read-only stores."""
STORE = Engine(
    name="a read-only store",
    stores=(),
    packages=(),
    # Layers with URLs or other digests do no harm here: `inject` unpacks the layers, and podman does not copy them.
    refuses={
        # podman would not only fail to run these, but also to list any other image.
        Quirk.DOCKER_CONFIG: "",
        Quirk.OCI_LAYERS: "",
        Quirk.DOCKER_ZSTD: "",
        Quirk.CONFIG_DIGEST: "",
        Quirk.CONFIG_TYPES: "",
        # `inject` cannot unpack these, or not prove that they are what the image names.
        Quirk.ENCRYPTED: "",
        Quirk.RARE_COMPRESSION: "",
        Quirk.DIFF_IDS: "",
        Quirk.TOO_MANY_TO_STACK: "",
        Quirk.MANY_IN_STORE: "so that it runs, before release 5 of podman",
    },
    verb="have",
)
"""What `inject` can put into a read-only store, and podman can use there."""
