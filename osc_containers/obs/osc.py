"""Reads from a working copy of osc, and from its server by `osc cat`.

`.osc` comes with the package, which others wrote, so that it only counts if it has names as OBS makes them and a server
that the user's own configuration (oscrc, osc/conf.py) has.
"""

import configparser
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from osc_containers.errors import Error
from osc_containers.formats import xml_reader
from osc_containers.fs import plain_file, program

STORE = ".osc"

_STORE_LIMIT = 4096
_LIST_LIMIT = 4 << 20
_CONFIGURATION_LIMIT = 1 << 20
# Projects, packages and flavors as OBS names them. None of these can be an option or a path.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(?::[A-Za-z0-9_][A-Za-z0-9_.+-]*)*"
# A number or a hash; the source server also knows two revisions by name.
_REVISION = r"[0-9a-f]{1,40}|latest|upload"
_TIMEOUT = 300.0  # seconds; it may ask an agent to unlock a key
_INHERITED = (
    *("OSC_*", "SSL_CERT_*", "*_proxy", "*_PROXY", "SSH_AUTH_SOCK", "SSH_AGENT_PID", "GNUPGHOME", "GPG_TTY"),
    *("PASSWORD_STORE_*", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY"),
)
"""What osc needs to log in and to reach its server."""


def kept(directory: Path, name: str, limit: int) -> bytes | None:
    """Return a file as osc last received it: osc 1 keeps them in `sources`, older versions beside its own files.

    :raises Error: it is no regular file, or has more than `limit` bytes.
    """
    content = plain_file.read(directory, f"{STORE}/sources/{name}", limit)
    return plain_file.read(directory, f"{STORE}/{name}", limit) if content is None else content


def kept_size(directory: Path, name: str) -> int | None:
    """Return the size of a file as osc last received it, or None if it has not."""
    for path in (directory / STORE / "sources" / name, directory / STORE / name):
        if path.is_file() and not path.is_symlink():
            return path.stat().st_size
    return None


def untracked(directory: Path, names: Collection[str]) -> list[str]:
    """Return those of the files `names` that osc does not know: neither from the server, nor by `osc add`."""
    added = plain_file.read(directory, f"{STORE}/_to_be_added", _LIST_LIMIT) or b""
    listed = plain_file.read(directory, f"{STORE}/_files", _LIST_LIMIT)
    try:
        files = xml_reader.parse(listed, "_files", ("entry",)).children if listed else ()
    except ValueError:
        files = ()
    # File names may have characters at which splitlines() would split, too.
    known = {*added.decode("utf-8", "replace").split("\n"), *(entry.attributes.get("name", "") for entry in files)}
    return [name for name in names if name not in known and kept_size(directory, name) is None]


def add(directory: Path, names: Sequence[str], environ: Mapping[str, str]) -> None:
    """Run `osc add`.

    :raises Error: `.osc` is malformed, the server is unknown, or osc fails.
    """
    configuration = _configuration(environ)
    apiurl = _apiurl(directory, configuration, environ)
    # Absolute paths are no options. osc refuses `--`.
    paths = [os.path.join(os.path.abspath(directory), name) for name in names]
    done = program.run(
        *("osc", f"--config={configuration}", "-A", apiurl, "add", *paths),
        environ=environ,
        inherit=_INHERITED,
        timeout=_TIMEOUT,
    )
    done.output()


def read(directory: Path, name: str, revision: str, limit: int, environ: Mapping[str, str]) -> bytes:
    """Return a file of a revision on the server.

    :raises Error: `.osc` or the revision is malformed, the server is unknown, or osc fails.
    """
    if not re.fullmatch(_REVISION, revision):
        raise Error(f"{revision[:80]!r}: no such file, and a revision of OBS is a number, a hash or 'latest'")
    project, package = (_name(directory, each) for each in ("_project", "_package"))
    configuration = _configuration(environ)
    apiurl = _apiurl(directory, configuration, environ)
    # osc takes no `--` under all versions of Python. None of these words can begin with a dash.
    done = program.run(
        *("osc", f"--config={configuration}", "-A", apiurl, "cat", "--revision", revision, project, package, name),
        environ=environ,
        inherit=_INHERITED,
        limit=limit,
        timeout=_TIMEOUT,
    )
    return done.output()


def service_error(directory: Path) -> str:
    """Return the error of the services that the server ran for the last commit or checkout; empty if there was none.

    osc keeps the answer of the server (`<serviceinfo code="failed"><error>` in a directory).
    """
    content = plain_file.read(directory, f"{STORE}/_files", xml_reader.SIZE_LIMIT)
    if content is None:
        return ""
    try:
        root = xml_reader.parse(content, f"{STORE}/_files", ("serviceinfo",))
    except ValueError:
        return ""  # osc reports this
    failed = (each for each in root.children if each.name == "serviceinfo" and each.attributes.get("code") == "failed")
    return next((error.text.strip() for each in failed for error in each.children if error.name == "error"), "")


def _line(directory: Path, name: str) -> str:
    content = plain_file.read(directory, f"{STORE}/{name}", _STORE_LIMIT)
    if content is None:
        raise Error(f"{directory / STORE / name}: missing; check the package out again")
    return content.decode("utf-8", "replace").strip()


def _name(directory: Path, name: str) -> str:
    text = _line(directory, name)
    if not re.fullmatch(_NAME, text):
        expected = f"the name of a {name[1:]}"
        raise Error(f"{directory / STORE / name}: got {text[:80]!r}, expected {expected}; check the package out again")
    return text


def _apiurl(directory: Path, configuration: str, environ: Mapping[str, str]) -> str:
    text = _line(directory, "_apiurl")
    servers = _servers(configuration, environ)
    if text.rstrip("/") not in servers:
        where = f"{directory / STORE}/_apiurl"
        raise Error(f"{where}: got {text[:200]!r}, expected a server of {configuration}; check the package out again")
    return servers[text.rstrip("/")]


def _configuration(environ: Mapping[str, str]) -> str:
    """Return the absolute name of the user's configuration, which osc would find by itself (`identify_conf`).

    :raises Error: the environment names it by a relative path, which could be in the package.
    """
    home = environ.get("HOME") or "/"
    if "OSC_CONFIG" in environ:
        # osc reads no file if the variable is empty, and does the same for /dev/null.
        path = environ["OSC_CONFIG"] or os.devnull
        path = path.replace("~", home, 1) if path.startswith("~/") else path
        if not os.path.isabs(path):
            raise Error(f"OSC_CONFIG: got {path!r}, expected an absolute path")
        return path
    # The newer location counts if both files exist, as for osc.
    new = os.path.join(environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"), "osc", "oscrc")
    old = os.path.join(home, ".oscrc")
    return old if os.path.exists(old) and not os.path.exists(new) else new


def _servers(configuration: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the servers that the user has configured, by their URLs and aliases."""
    # What osc accepts (OscConfigParser): `%` means nothing, `;` after a blank begins a comment, names may be repeated.
    parser = configparser.ConfigParser(
        interpolation=None, strict=False, allow_no_value=True, inline_comment_prefixes=(";",)
    )
    servers: dict[str, str] = {}
    try:
        with open(configuration, encoding="utf-8", errors="replace") as file:
            text = file.read(_CONFIGURATION_LIMIT + 1)
        # The beginning may be valid without the rest, which may have the server.
        if len(text) > _CONFIGURATION_LIMIT:
            raise Error(f"{configuration}: got more than {_CONFIGURATION_LIMIT} characters, expected a file of osc")
        parser.read_string(text)
    except FileNotFoundError:
        pass  # the environment can have all that osc needs
    except configparser.Error as error:
        raise Error(f"{configuration}: {str(error).splitlines()[0][:200]}") from None
    for section in parser.sections():
        if section != "general":
            url = _sanitized(section)
            aliases = re.split("[, ]+", parser.get(section, "aliases", fallback="") or "")
            servers |= dict.fromkeys(filter(None, aliases), url) | {url: url}
    default = environ.get("OSC_APIURL") or parser.get("general", "apiurl", fallback="")
    # With a login from the environment, a server needs no section of its own.
    if default and default not in servers:
        servers[_sanitized(default)] = _sanitized(default)
    return servers


def _sanitized(url: str) -> str:
    """Return the URL of a server in the form in which osc writes it."""
    try:
        scheme, host, path = urlsplit(url if re.match("https?://", url) else f"https://{url}")[:3]
    except ValueError as error:
        raise Error(f"{url[:200]!r}: not the URL of a server: {error}") from None
    return f"{scheme}://{host}{path.rstrip('/')}"
