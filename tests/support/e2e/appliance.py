"""The package that the build tests use: its description uses every feature, and it has its own root.tar.gz."""

import io
import re
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import images
from tests.support.docker_registry import DockerRegistry
from tests.support.images import Image

DESCRIPTION = """\
<?xml version="1.0" encoding="utf-8"?>
<image schemaversion="8.0" name="appliance">
    <description type="system">
        <author>A</author>
        <contact>a@example.com</contact>
        <specification>An appliance</specification>
    </description>
    <profiles>
        <profile name="main" description="What is built unless told otherwise" import="true"/>
        <profile name="extra" description="The same for docker"/>
        <profile name="unused" description="Never built"/>
    </profiles>
    <preferences>
        <version>1.0.0</version>
        <packagemanager>apt</packagemanager>
        <type image="ext4">
            <size unit="M" additive="true">400</size>
        </type>
    </preferences>
    <repository alias="debs" repository_gpgcheck="false">
        <source path="REPOSITORY"/>
    </repository>
    <containers source="REGISTRY" backend="podman">
        <container name="app" path="team" tag="1.0"/>
        <container name="side" path="team" tag="1.0"/>
        <container name="data" path="team" tag="1.0" fetch_only="true"/>
    </containers>
    <containers source="REGISTRY" backend="podman" profiles="main">
        <container name="tools" path="team" tag="2.0"/>
    </containers>
    <containers source="REGISTRY" backend="docker" profiles="extra">
        <container name="app" path="team" tag="1.0"/>
    </containers>
    <containers source="REGISTRY" backend="podman" profiles="unused">
        <container name="never" path="team" tag="1.0"/>
    </containers>
    <packages type="image">
        <package name="systemd-sysv"/>
        <package name="dbus"/>
    </packages>
    <packages type="image" profiles="main">
        <package name="podman"/>
        <package name="crun"/>
        <package name="netavark"/>
        <package name="ca-certificates"/>
        <package name="linux-image-cloud-amd64"/>
        <package name="initramfs-tools"/>
        <package name="udev"/>
    </packages>
    <packages type="bootstrap">
        <package name="apt"/>
        <package name="systemd"/>
        <package name="gnupg"/>
    </packages>
</image>
"""
_KERNEL = "linux-image|initramfs|udev"
OWN_FILE = "etc/packagers-own"
_UNITS = "usr/lib/systemd/system"
LISTED = {
    f"{_UNITS}/kiwi_containers.service": "-rw-r--r--",
    f"{_UNITS}/kiwi_containers-docker-app_1.0.service": "-rw-r--r--",
    f"{_UNITS}/kiwi_containers-podman-app_1.0.service": "-rw-r--r--",
    f"{_UNITS}/kiwi_containers-podman-side_1.0.service": "-rw-r--r--",
    f"{_UNITS}/kiwi_containers-podman-tools_2.0.service": "-rw-r--r--",
    f"{_UNITS}/kiwi_containers.service.wants": "drwxr-xr-x",
    f"{_UNITS}/kiwi_containers.service.wants/kiwi_containers-docker-app_1.0.service": "lrwxrwxrwx",
    f"{_UNITS}/kiwi_containers.service.wants/kiwi_containers-podman-app_1.0.service": "lrwxrwxrwx",
    f"{_UNITS}/kiwi_containers.service.wants/kiwi_containers-podman-side_1.0.service": "lrwxrwxrwx",
    f"{_UNITS}/kiwi_containers.service.wants/kiwi_containers-podman-tools_2.0.service": "lrwxrwxrwx",
    f"{_UNITS}/multi-user.target.wants/kiwi_containers.service": "lrwxrwxrwx",
    "usr/lib/tmpfiles.d/kiwi_containers.conf": "-rw-r--r--",
    "usr/libexec": "drwxr-xr-x",
    "usr/libexec/kiwi_containers": "drwxr-xr-x",
    "usr/libexec/kiwi_containers/load": "-rwxr-xr-x",
    "usr/share/kiwi_containers": "drwxr-xr-x",
    "usr/share/kiwi_containers/containers.cdx.json": "-rw-r--r--",
    "usr/share/kiwi_containers/containers-main.cdx.json": "-rw-r--r--",
    "usr/share/kiwi_containers/containers-extra.cdx.json": "-rw-r--r--",
    "var/lib/kiwi_containers": "drwxr-xr-x",
    "var/lib/kiwi_containers/layouts": "drwxr-xr-x",
    **{
        f"var/lib/kiwi_containers/layouts/{name}": "drwxr-xr-x" if is_directory else "-rw-r--r--"
        for layout in ("app_1.0", "side_1.0", "tools_2.0")
        for name, is_directory in {
            layout: True,
            f"{layout}/oci-layout": False,
            f"{layout}/index.json": False,
            f"{layout}/blobs": True,
            f"{layout}/blobs/sha256": True,
        }.items()
    },
    **{f"var/lib/kiwi_containers/layouts/app_1.0/{name}": "-rw-r--r--" for name in ("stream", "frame")},
    "var/tmp/kiwi_containers": "drwxr-xr-x",
    "var/tmp/kiwi_containers/data_1.0": "-rw-r--r--",
}
"""Type and mode of the documented files and their directories, for the profiles `main` and `extra`; without blobs."""
BLOB = re.compile(r"var/lib/kiwi_containers/layouts/[a-z]+_[0-9.]+/blobs/sha256/[0-9a-f]{64}")
"""The paths of blobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Appliance:
    """The directory of the package and its images, by the names that an engine shows."""

    directory: Path
    images: dict[str, Image] = field(repr=False)

    def in_podman(self, *names: str) -> set[str]:
        """Return the prefixes of the lines in which a machine reports these images."""
        return {
            f"{full} {image.digest} "
            for full, image in self.images.items()
            if full.rpartition("/")[2].startswith(names)
        }


def make(directory: Path, registry: DockerRegistry, debs: Path, *, repository: str, kernel: bool = True) -> Appliance:
    """Write the package without our files, and push its images; it builds faster without `kernel`."""
    directory.mkdir()
    write(directory, registry.host, repository, kernel=kernel)
    named = {registry.push(image, name): image for name, image in make_images(debs, size=32 << 20).items()}
    return Appliance(directory=directory, images=named)


def write(directory: Path, registry: str, repository: str, *, kernel: bool = True) -> None:
    """Write the package without our files."""
    text = DESCRIPTION.replace("REGISTRY", registry).replace("REPOSITORY", repository)
    if not kernel:
        text = "".join(line for line in text.splitlines(keepends=True) if not re.search(_KERNEL, line))
    (directory / "appliance.kiwi").write_text(text)
    _write_root_archive(directory / "root.tar.gz")


def set_inject(package: Path, *parameters: tuple[str, str]) -> None:
    """Add parameters to the inject service of a package, which has none so far."""
    path = package / "_service"
    before = path.read_text()
    entry = '<service name="kiwi_containers_inject" mode="buildtime"'
    params = "".join(f'<param name="{name}">{value}</param>' for name, value in parameters)
    after = before.replace(f"{entry}/>", f"{entry}>{params}</service>")
    assert after != before, before
    path.write_text(after)


def make_images(debs: Path, *, size: int) -> dict[str, Image]:
    """Return the images of the package by `PATH:TAG`; two of them have a layer of `size` bytes."""
    shell = images.layer({"bin/sh": busybox(debs), "bin/hello": b"#!/bin/sh\necho it runs\n"})
    return {
        "team/app:1.0": images.image(shell, images.random_layer("app", size)),
        "team/data:1.0": images.image(images.random_layer("data", size)),
        "team/side:1.0": images.image(shell, images.layer({"bin/side": b"#!/bin/sh\necho it runs from the store\n"})),
        "team/tools:2.0": images.image(shell, images.layer({"etc/tools": b"tools\n"}), docker=True),
        "team/never:1.0": images.small("never"),
    }


def _write_root_archive(path: Path) -> None:
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(OWN_FILE)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"own\n"))


def busybox(debs: Path) -> bytes:
    """Return the path of the statically linked busybox."""
    unpacked = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", *debs.glob("busybox-static_*.deb")], capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(unpacked.stdout)) as tar:
        # Debian 13 moved the files in /bin to /usr/bin.
        (name,) = {"./bin/busybox", "./usr/bin/busybox"} & set(tar.getnames())
        file = tar.extractfile(name)
        assert file
        return file.read()
