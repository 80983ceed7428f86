"""systemd units and loader script that make the booted image load its containers.

    kiwi_containers.service              starts after all loads; the unit that consumers order on
    kiwi_containers-ENGINE-ID.service    loads one container into one engine
    …/kiwi_containers.service.wants/     enables the load units (links in /usr/lib, so no preset disables them)
    …/multi-user.target.wants/           enables kiwi_containers.service

The text of a load unit depends on its own load only, and each load unit has its own `.wants` link. Therefore the
overlays of several kiwi profiles can be combined, and files that they share are identical. Design decisions:

- `kiwi_containers.service` only wants the load units and is ordered after them: a failed load does not stop the
  others, and by then all of them have finished. It then fails itself if a container is missing. So
  `Requires=kiwi_containers.service` demands all containers, `Requires=kiwi_containers-ENGINE-ID.service` one.
- docker.service and containerd.service are wanted, not required: the loader reports more about a dead daemon than
  "dependency failed". podman and container-snap have no daemon. kiwi orders its units on a `container-snap.service`,
  which container-snap does not ship; if it ever does, that unit will probably start after `kiwi_containers.service`,
  as its first-boot unit does.
- A oneshot unit has no start timeout: the loader limits its attempts itself. With `RemainAfterExit=yes`,
  `systemctl list-units` shows the state of each load.

Spec: systemd.unit(5), systemd.service(5) ("Command lines"), tmpfiles.d(5); tested with systemd 252 and 257.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from osc_containers.archive.layout import top
from osc_containers.inject import layout_directory
from osc_containers.inject.image_file import Symlink, TextFile
from osc_containers.inject.layout_directory import LAYOUTS
from osc_containers.kiwi.backend import ENGINES, engine_of
from osc_containers.oci.image import Image
from osc_containers.oci.reference import Reference

ARCHIVES = "/var/tmp/kiwi_containers"  # noqa: S108 - a path in the image, and kiwi's
LOADER = "/usr/libexec/kiwi_containers/load"
UNITS = "/usr/lib/systemd/system"

_ID_LENGTH = 160
"""Longest ID: unit names add a prefix and a suffix, and file names are limited to 255 bytes."""


class Load(NamedTuple):
    """One container to load into one engine. Loads with the same `id` share a layout: the last one removes it.

    `target` is the engine, for containerd with the namespace (see `obs.engines`).
    """

    target: str
    id: str
    reference: Reference
    image: Image
    arch: str

    @property
    def unit(self) -> str:
        """The name of the unit."""
        return unit_name(self.target, self.id)

    @property
    def has_stream(self) -> bool:
        """Whether the engine reads an archive, and no directory."""
        return self.target != "podman"


def unit_name(target: str, load_id: str) -> str:
    """Return the name of the unit that loads a container into an engine."""
    return f"kiwi_containers-{target}-{load_id}.service"


def render(loads: Iterable[Load]) -> tuple[TextFile | Symlink, ...]:
    """Return the files for these loads, sorted by path; duplicate loads count once. Without loads there are none.

    :raises ValueError: an engine is unknown, or two different loads would have units of the same name.
    """
    files: list[TextFile | Symlink] = []
    units: dict[str, Load] = {}
    for load in loads:
        if load.target.partition(":")[0] not in ENGINES:
            raise ValueError(f"got engine {load.target[:80]!r}, expected one of {', '.join(ENGINES)}")
        if units.setdefault(load.unit, load) != load:
            raise ValueError(
                f"{load.unit}: got two different loads, of {units[load.unit].reference} and {load.reference}"
            )
    if units:
        files += render_service()
    for unit, load in units.items():
        files.append(TextFile(path=f"{UNITS}/{unit}", text=_unit(load), mode=0o644))
        files.append(_wanted_by("kiwi_containers.service", unit))
    return tuple(sorted(files, key=lambda file: file.path))


def render_service() -> tuple[TextFile | Symlink, ...]:
    """Return the files of the service that consumers order on: itself, its link, and the script that it runs."""
    loader = Path(__file__).with_name("load.sh").read_text("ascii")
    return (
        TextFile(path=LOADER, text=loader, mode=0o755),
        TextFile(path=f"{UNITS}/kiwi_containers.service", text=_SERVICE, mode=0o644),
        _wanted_by("multi-user.target", "kiwi_containers.service"),
    )


def load_id(path: str) -> str:
    """Return the ID of a container in unit and file names: the name of kiwi's archive, if it has safe characters only.

    Otherwise, unsafe characters become underscores and a hash of the path is appended, so that IDs stay unique. A file
    name that ends like such a hash gets one as well, or it could be the ID of another archive.
    """
    name = path.removeprefix(f"{ARCHIVES}/")
    if re.fullmatch(r"[A-Za-z0-9_.-]+(?<!-[0-9a-f]{12})", name) and len(name) <= _ID_LENGTH:
        return name
    # Every string has an ID, even one that is not valid Unicode.
    suffix = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    # 13 characters are left for the hyphen and the suffix.
    return f"{re.sub('[^A-Za-z0-9_.-]', '_', name)[: _ID_LENGTH - 13]}-{suffix}"


def quote_argument(text: str) -> str:
    """Quote one argument of an `Exec…=` line, so that the program gets exactly the bytes of `text`.

    :raises ValueError: `text` contains a NUL, which no argument can.

    Spec: systemd.service(5), "Command lines"; systemd.syntax(7), "Quoting".
    """
    if "\0" in text:
        raise ValueError(f"got {text[:80]!r}, expected text without NUL")
    return '"' + "".join(_quote_character(character) for character in text) + '"'


def quote_description(text: str) -> str:
    """Return `text` in a form that is safe in a `Description=`, which expands specifiers, and on a terminal.

    Backslashes and everything but printable ASCII become question marks: a description has no quoting.
    """
    return re.sub(r"[^ -\[\]-~]", "?", text).replace("%", "%%")


def _quote_character(character: str) -> str:
    # systemd expands variables ($) and specifiers (%), also inside quotes.
    if character in "$%":
        return character * 2
    if character in '"\\':
        return "\\" + character
    if " " <= character <= "~":
        return character
    # systemd decodes each \x escape to one byte, so that characters outside ASCII are escaped as UTF-8.
    return "".join(f"\\x{byte:02x}" for byte in character.encode())


def _wanted_by(wanting: str, unit: str) -> Symlink:
    return Symlink(path=f"{UNITS}/{wanting}.wants/{unit}", target=f"../{unit}")


def _unit(load: Load) -> str:
    name, image, engine = load.reference.engine_name, load.image, engine_of(load.target)
    arguments = (
        load.target,
        load.id,
        name,
        str(sum(blob.size for blob in image.blobs)),
        *map(str, (image.config.digest, image.manifest.digest, top(image, load.arch).digest)),
        *([layout_directory.stream_sum(load.reference, image, load.arch)] if load.has_stream else ()),
    )
    return _CONTAINER.format(
        description=quote_description(f"Load container {name} into {load.target}"),
        stores=" ".join(engine.stores),
        daemon=f"Wants={engine.daemon}\nAfter={engine.daemon}\n" if engine.daemon else "",
        command=" ".join([LOADER, *map(quote_argument, arguments)]),
    )


_SERVICE = f"""\
[Unit]
Description=All containers of this image are loaded

[Service]
Type=oneshot
RemainAfterExit=yes
SyslogIdentifier=kiwi_containers
ExecStart={LOADER}
"""

_CONTAINER = f"""\
[Unit]
Description={{description}}
RequiresMountsFor={LAYOUTS} {{stores}}
{{daemon}}Before=kiwi_containers.service

[Service]
Type=oneshot
RemainAfterExit=yes
StateDirectory=kiwi_containers
SyslogIdentifier=kiwi_containers
ExecStart={{command}}
"""
