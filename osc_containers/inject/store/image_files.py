"""What an image needs to have its stores: mount units, empty stores below the mounts, storage.conf, and a check.

    /usr/lib/kiwi_containers/store.squashfs                the store of the overlay directory `root`
    /usr/lib/kiwi_containers/store.squashfs.sha256         its SHA-256, for `sha256sum --check`
    /usr/lib/kiwi_containers/store.images                  its images: ID and name
    /usr/lib/containers/storage/                           where it is mounted
    /usr/lib/systemd/system/usr-lib-containers-storage.mount
    /usr/lib/systemd/system/kiwi_containers-store.service  checks that podman has the images
    /usr/lib/systemd/system/kiwi_containers-podman-ID.service   link to it, for each container
    /usr/libexec/kiwi_containers/check-store
    /etc/containers/storage.conf                           tells podman about all stores

The store of a profile has the suffix `_PROFILE`. An image can have the stores of several profiles, but the files of one
profile replace those of another. Therefore all that have the same path are the same: each overlay directory with a
store has an empty store for each mount point, and lists all of them. podman refuses to work at all if a store that is
listed is missing, or is an empty directory.

Spec: systemd.mount(5); containers-storage.conf(5), "additionalimagestores". Tried with podman 4.3.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from osc_containers.inject.image_file import Symlink, TextFile
from osc_containers.inject.units import UNITS, quote_argument, quote_description

STORAGE_CONF = "/etc/containers/storage.conf"
SYSTEM_STORAGE_CONF = "/usr/share/containers/storage.conf"
"""The distribution's file, which is not read if there is one in /etc."""
CHECK = "/usr/libexec/kiwi_containers/check-store"

_SQUASHFS = "/usr/lib/kiwi_containers/store"
_MOUNT_POINT = "/usr/lib/containers/storage"
_SKELETON = {
    "overlay-images/images.json": "[]\n",
    "overlay-images/images.lock": "",
    "overlay-layers/layers.json": "[]\n",
    "overlay-layers/layers.lock": "",
}
_NAME = re.compile(r"[A-Za-z0-9_]{1,80}(?<!_[0-9a-f]{12})")


class Store(NamedTuple):
    """The store of an overlay directory; `suffix` tells it from the others of the same description."""

    suffix: str

    @classmethod
    def of_directory(cls, directory: str) -> "Store":
        """Return the store of an overlay directory: `root`, or that of a profile."""
        if directory == "root":
            return cls("")
        if _NAME.fullmatch(directory):
            return cls(f"_{directory}")
        # The name must need no escapes, neither in storage.conf nor in the name of the mount unit.
        digest = hashlib.sha256(directory.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return cls(f"_{re.sub('[^A-Za-z0-9]', '_', directory)[:60]}_{digest}")

    @property
    def squashfs(self) -> str:
        """The path of the squashfs in the image."""
        return f"{_SQUASHFS}{self.suffix}.squashfs"

    @property
    def images(self) -> str:
        """The path of the list of its images."""
        return f"{_SQUASHFS}{self.suffix}.images"

    @property
    def mount_point(self) -> str:
        """The directory on which it is mounted."""
        return f"{_MOUNT_POINT}{self.suffix}"

    @property
    def mount_unit(self) -> str:
        """The name of its mount unit, which systemd derives from the mount point."""
        return f"{self.mount_point[1:].replace('/', '-')}.mount"

    @property
    def check_unit(self) -> str:
        """The name of the unit that checks its images."""
        return f"kiwi_containers-store{self.suffix}.service"


def render(
    store: Store, images: Mapping[str, str], sha256: str, aliases: Iterable[str] = ()
) -> tuple[TextFile | Symlink, ...]:
    """Return the files of a store, except for the squashfs itself, which has this SHA-256.

    `images` has the ID of each image by its name. `aliases` are the units that would load them: a unit that requires
    such a unit needs no change when its container goes into a store.
    """
    check = " ".join([CHECK, *map(quote_argument, (store.mount_point, store.squashfs, store.images, store.check_unit))])
    lines = "".join(f"{identity} {name}\n" for name, identity in sorted(images.items()))
    service = _CHECK_UNIT.format(description=quote_description(_about(images)), mount=store.mount_unit, command=check)
    return (
        TextFile(path=store.images, text=lines, mode=0o644),
        TextFile(path=f"{store.squashfs}.sha256", text=f"{sha256}  {store.squashfs}\n", mode=0o644),
        TextFile(path=f"{UNITS}/{store.mount_unit}", text=_mount_unit(store), mode=0o644),
        # It is wanted and not required: a machine that cannot mount the store boots nevertheless.
        Symlink(path=f"{UNITS}/local-fs.target.wants/{store.mount_unit}", target=f"../{store.mount_unit}"),
        TextFile(path=f"{UNITS}/{store.check_unit}", text=service, mode=0o644),
        Symlink(path=f"{UNITS}/kiwi_containers.service.wants/{store.check_unit}", target=f"../{store.check_unit}"),
        *(Symlink(path=f"{UNITS}/{alias}", target=store.check_unit) for alias in sorted(set(aliases))),
    )


def render_common(stores: Sequence[Store], *, has_own_configuration: bool) -> tuple[TextFile, ...]:
    """Return the files that each overlay directory with a store needs for all stores of the description.

    storage.conf is left out if the packager has one.
    """
    script = Path(__file__).with_name("check-store.sh").read_text("ascii")
    files = [TextFile(path=CHECK, text=script, mode=0o755)]
    for store in stores:
        files += [
            TextFile(path=f"{store.mount_point}/{path}", text=text, mode=0o644) for path, text in _SKELETON.items()
        ]
    if not has_own_configuration:
        files.append(TextFile(path=STORAGE_CONF, text=_STORAGE_CONF.format(line=setting(stores)), mode=0o644))
    return tuple(files)


def setting(stores: Sequence[Store]) -> str:
    """Return the line of storage.conf that lists the stores."""
    return f"additionalimagestores = {json.dumps([store.mount_point for store in stores])}"


def check_configuration(content: bytes, stores: Sequence[Store]) -> str:
    """Return the problem of the packager's own storage.conf; empty if podman would use the stores with it."""
    try:
        document = tomllib.loads(content.decode())
    except ValueError as error:
        return f"not valid TOML: {str(error)[:200]!r}"
    storage = document.get("storage")
    storage = storage if isinstance(storage, dict) else {}
    options = storage.get("options")
    listed = options.get("additionalimagestores") if isinstance(options, dict) else None
    listed = listed if isinstance(listed, list) else []
    if any(store.mount_point not in listed for store in stores):
        return f"does not list the stores of this image; add to [storage.options]: {setting(stores)}"
    driver = storage.get("driver")
    if driver != "overlay":
        return f'got driver {str(driver)[:40]!r}, but stores need: driver = "overlay"'
    missing = [key for key in ("graphroot", "runroot") if not storage.get(key)]
    return f"has no {' and no '.join(missing)} in [storage], without which podman does not start" if missing else ""


def _about(images: Mapping[str, str]) -> str:
    return (
        f"podman has the {len(images)} images of the read-only store"
        if len(images) > 1
        else (f"podman has {next(iter(images), 'nothing')} in the read-only store")
    )


def _mount_unit(store: Store) -> str:
    return _MOUNT_UNIT.format(squashfs=store.squashfs, mount_point=store.mount_point)


# The mount itself has neither setuid programs nor devices: local users could reach those of containers. Containers have
# both, because they have a mount of their own, an overlay.
_MOUNT_UNIT = """\
[Unit]
Description=Containers of this image (read-only store)
RequiresMountsFor=/usr/lib/kiwi_containers

[Mount]
What={squashfs}
Where={mount_point}
Type=squashfs
Options=loop,ro,nodev,nosuid
"""

# The check does not require the mount, because it has to report a mount that failed.
_CHECK_UNIT = """\
[Unit]
Description={description}
After={mount}
RequiresMountsFor=/var/lib/containers
Before=kiwi_containers.service

[Service]
Type=oneshot
RemainAfterExit=yes
SyslogIdentifier=kiwi_containers
ExecStart={command}
"""

_STORAGE_CONF = """\
# Written by kiwi_containers_inject. podman reads no other storage.conf than this one; to change a setting, put your own
# file here, and keep the list of stores.
[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"

[storage.options]
{line}
"""
