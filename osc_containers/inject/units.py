"""What makes the booted image load its containers, as text: systemd units, their loader, a tmpfiles.d entry.

    kiwi_containers.service              waits for all loads; what consumers order on
    kiwi_containers-ENGINE-ID.service    loads one container into one engine
    …/kiwi_containers.service.wants/     enables the latter (links in /usr/lib, so that no preset disables them)
    …/multi-user.target.wants/           enables the former

A unit's text depends on its own load alone, and the unit brings its own link. So the overlays of several kiwi profiles
can be combined, and what they have in common is the same. Why the units look as they do:

- `kiwi_containers.service` only wants and follows the others: one that fails stops no other, and `After=` sees all of
  them finished. It fails itself if one is missing then, so `Requires=kiwi_containers.service` insists on all of them,
  and `Requires=kiwi_containers-ENGINE-ID.service` on one.
- Docker is wanted and followed, not required: the loader can say more about a dead daemon than "dependency failed".
  Podman and container-snap have no daemon. kiwi orders on a `container-snap.service`, which container-snap does not
  have; one that it might get would probably follow `kiwi_containers.service`, as its first-boot unit does.
- A oneshot has no time limit: the loader limits its attempts. With `RemainAfterExit`, `systemctl list-units` shows
  the state of each.

Spec: systemd.unit(5), systemd.service(5) ("Command lines"), tmpfiles.d(5); tried with systemd 252 and 257.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from osc_containers.kiwi.backend import BACKENDS
from osc_containers.oci.digest import Digest
from osc_containers.oci.reference import Reference

ARCHIVES = "/var/tmp/kiwi_containers"  # noqa: S108 - a path in the image, and kiwi's
LOADER = "/usr/libexec/kiwi_containers/load"
KEEP = "/usr/libexec/kiwi_containers/keep"
UNITS = "/usr/lib/systemd/system"
TMPFILES = "/usr/lib/tmpfiles.d/kiwi_containers.conf"

_ID_LENGTH = 160  # with a prefix and a suffix in it, a file name of an ID has less than 255 bytes


class Load(NamedTuple):
    """One container that one engine shall load; `size` is the archive's, in bytes.

    Loads of one `path` share the archive: the engine that loads it last removes it.
    """

    backend: str
    reference: Reference
    path: str
    size: int
    sha256: str
    manifest: Digest
    image_id: Digest

    @property
    def unit(self) -> str:
        """The name of the unit."""
        return f"kiwi_containers-{self.backend}-{load_id(self.path)}.service"


class TextFile(NamedTuple):
    """A text file of the image."""

    path: str
    text: str
    mode: int


class Symlink(NamedTuple):
    """A symbolic link of the image; `target` is relative to the link's directory."""

    path: str
    target: str


def render(loads: Iterable[Load]) -> tuple[TextFile | Symlink, ...]:
    """Return the files for these loads, sorted by path; the same load given twice counts once.

    Without loads that is the tmpfiles.d entry, which archives that are only fetched need too.

    :raises ValueError: a backend is not one of `BACKENDS`, or one would load two containers in units of the same name.
    """
    files: list[TextFile | Symlink] = [TextFile(path=TMPFILES, text=_TMPFILES, mode=0o644)]
    units: dict[str, Load] = {}
    for load in loads:
        if load.backend not in BACKENDS:
            raise ValueError(f"got backend {load.backend[:80]!r}, expected one of {', '.join(BACKENDS)}")
        if units.setdefault(load.unit, load) != load:
            raise ValueError(f"{load.unit}: got two containers, {units[load.unit].reference} and {load.reference}")
    if units:
        files += _common()
    for unit, load in units.items():
        files.append(TextFile(path=f"{UNITS}/{unit}", text=_unit(load), mode=0o644))
        files.append(_wanted_by("kiwi_containers.service", unit))
    return tuple(sorted(files, key=lambda file: file.path))


def keep(path: str) -> TextFile:
    """Return the file that lets no load remove the archive at `path`, in whatever overlay that load comes."""
    return TextFile(path=f"{KEEP}/{load_id(path)}", text=f"{path} is fetch_only\n", mode=0o644)


def load_id(path: str) -> str:
    """Return what names an archive in unit and file names: its name in the image, if that is fit for it.

    Otherwise the name is made fit, and a hash of the path tells it from its like. A name that looks as if it had a hash
    is not fit, lest it is the ID of another.
    """
    name = path.removeprefix(f"{ARCHIVES}/")
    if re.fullmatch(r"[A-Za-z0-9_.-]+(?<!-[0-9a-f]{12})", name) and len(name) <= _ID_LENGTH:
        return name
    mark = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{re.sub('[^A-Za-z0-9_.-]', '_', name)[: _ID_LENGTH - 13]}-{mark}"


def quote_argument(text: str) -> str:
    """Quote one argument of an `Exec…=` line: what the program gets is `text`, byte for byte.

    :raises ValueError: there is a NUL in it, which no argument can have.

    Spec: systemd.service(5), "Command lines"; systemd.syntax(7), "Quoting".
    """
    if "\0" in text:
        raise ValueError(f"got {text[:80]!r}, expected no NUL in it")
    return '"' + "".join(_quote_character(character) for character in text) + '"'


def quote_description(text: str) -> str:
    """Make `text` fit for a `Description=`, which expands specifiers and knows no quotes, and for a terminal."""
    return re.sub(r"[^ -\[\]-~]", "?", text).replace("%", "%%")


def _quote_character(character: str) -> str:
    if character in "$%":
        return character * 2
    if character in '"\\':
        return "\\" + character
    if " " <= character <= "~":
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode())


def _common() -> Iterator[TextFile | Symlink]:
    loader = Path(__file__).with_name("load.sh").read_text("ascii")
    yield TextFile(path=LOADER, text=loader, mode=0o755)
    yield TextFile(path=f"{UNITS}/kiwi_containers.service", text=_SERVICE, mode=0o644)
    yield _wanted_by("multi-user.target", "kiwi_containers.service")


def _wanted_by(wanting: str, unit: str) -> Symlink:
    return Symlink(path=f"{UNITS}/{wanting}.wants/{unit}", target=f"../{unit}")


def _unit(load: Load) -> str:
    name = load.reference.tagged
    arguments = (
        load.backend,
        load_id(load.path),
        name,
        load.path,
        str(load.size),
        load.sha256,
        load.image_id.hex,
        load.manifest.hex,
    )
    return _CONTAINER.format(
        description=quote_description(f"Container {name} in {load.backend}"),
        stores=" ".join(BACKENDS[load.backend].stores),
        daemon=f"Wants={daemon}\nAfter={daemon}\n" if (daemon := BACKENDS[load.backend].daemon) else "",
        command=" ".join([LOADER, *map(quote_argument, arguments)]),
    )


_SERVICE = f"""\
[Unit]
Description=Containers of this image, all loaded

[Service]
Type=oneshot
RemainAfterExit=yes
SyslogIdentifier=kiwi_containers
ExecStart={LOADER}
"""

_CONTAINER = f"""\
[Unit]
Description={{description}}
RequiresMountsFor={ARCHIVES} {{stores}}
{{daemon}}Before=kiwi_containers.service

[Service]
Type=oneshot
RemainAfterExit=yes
StateDirectory=kiwi_containers
SyslogIdentifier=kiwi_containers
ExecStart={{command}}
"""

_TMPFILES = f"""\
# Archives stay until they are loaded, and those that are only fetched for good: no aging as of the rest of /var/tmp.
x {ARCHIVES}
"""
