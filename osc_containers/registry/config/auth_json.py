"""The logins that podman, skopeo, buildah and docker have stored on this machine.

Files and their order: containers-auth.json(5), docker's `config.json`. Credential helpers are run as
`docker-credential-NAME get`, the server's name on standard input (docker-credential-helpers, "Usage"). One that fails
ends the search where podman's ends, too: where it is named for this very registry, or nothing else has a login. podman
does not know docker's `credsStore`: it is asked about every registry, so that the public ones must do without it.
"""

import base64
import logging
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import RegistryError
from osc_containers.formats import strict_json
from osc_containers.formats.strict_json import Fields
from osc_containers.registry.challenge import Login
from osc_containers.registry.config.registries_conf import AUTH_FILES

logger = logging.getLogger(__name__)

_FILE_LIMIT = 4 << 20
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HELPER_PATIENCE = 120.0  # seconds: it may ask for a passphrase
_NOT_FOUND = "credentials not found"
_IDENTITY = "<token>"  # the user name with which a helper marks an identity token
_DOCKER_HUB = ("docker.io", "registry-1.docker.io")
_DOCKER_HUB_KEYS = ("docker.io", "https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io")


class Credentials(NamedTuple):
    """A credential file: logins and names of helpers, each by registry or repository, and a helper for all others.

    What stands for one registry is read when it is asked for: a slip there keeps nobody from the others.
    """

    logins: Fields
    helpers: Fields
    store: str

    def login(self, key: str) -> Login | None:
        """Return what stands for `key`; None for nothing, as where docker only marks that a helper has it.

        :raises ValueError: it is malformed; the message holds nothing of its secrets.
        """
        return _login(self.logins.member(key)) if key in self.logins else None

    def helper(self, key: str) -> str | None:
        """Return the name of the helper for `key`.

        :raises ValueError: it is malformed.
        """
        return self.helpers.line(key) if key in self.helpers else None


def parse(text: bytes, where: str) -> Credentials:
    """Read a credential file.

    :raises ValueError: it is malformed; the message holds nothing of its secrets.
    """
    document = strict_json.load(text, where)
    nothing = Fields({}, where)
    return Credentials(
        logins=document.member("auths") if "auths" in document else nothing,
        helpers=document.member("credHelpers") if "credHelpers" in document else nothing,
        store=document.line("credsStore", ""),
    )


def _login(entry: Fields) -> Login | None:
    username, password = entry.text("username", ""), entry.text("password", "")
    if "auth" in entry:
        encoded = entry.text("auth").replace("\r", "").replace("\n", "")  # which Go passes over, too
        try:
            decoded = base64.b64decode(encoded, validate=True).decode()
        except ValueError:
            raise ValueError(f"{entry.where}: auth: not base64 of a name and a password") from None
        username, _, password = decoded.partition(":")
    login = Login(username=username, password=password.strip("\0"), identity_token=entry.text("identitytoken", ""))
    return login if login.username or login.identity_token else None


def files(environ: Mapping[str, str], user: int) -> tuple[Path, ...]:
    """Return where credential files may be, the first to look at first.

    What the environment names stands for the file of `podman login` (containers/common, `GetDefaultAuthFile`); the
    others are looked at after it, as podman does up to 4.3. Later ones read no other file (containers/image 5.24), but
    whoever is logged in there is so here, too.
    """
    home = Path(environ.get("HOME") or "/")
    runtime, docker = environ.get("XDG_RUNTIME_DIR"), environ.get("DOCKER_CONFIG")
    docker_file = Path(docker or home / ".docker") / "config.json"
    if named := environ.get("REGISTRY_AUTH_FILE"):
        first = Path(named)
    elif docker:
        first = docker_file
    else:
        first = Path(runtime, "containers/auth.json") if runtime else Path(f"/run/containers/{user}/auth.json")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    return tuple(dict.fromkeys((first, config / "containers/auth.json", docker_file)))


class Logins:
    """What the files and `helpers` say, each asked once; may be used from several threads.

    `helpers` are those of registries.conf, in whose list `containers-auth.json` stands for the files.
    """

    def __init__(self, helpers: Sequence[str], environ: Mapping[str, str]) -> None:
        self._helpers = helpers or (AUTH_FILES,)
        self._files = files(environ, os.getuid())
        self._lock = threading.Lock()
        self._read: dict[Path, Credentials] = {}
        self._helped: dict[tuple[str, str], Login | RegistryError | None] = {}
        self._warned: set[Path] = set()

    def find(self, host: str, repository: str) -> Login | None:
        """Return the login for a repository: of the first file that has one, that of the longest name.

        :raises RegistryError: there is none, and a file is malformed, or a helper fails.
        """
        problems: list[str] = []
        with self._lock:
            for helper in self._helpers:
                try:
                    login = self._find_in_files(host, repository) if helper == AUTH_FILES else self._ask(helper, host)
                except RegistryError as error:
                    problems.extend(error.problems)
                    continue
                if login:
                    return login
        if problems:
            raise RegistryError(*problems)
        return None

    def _find_in_files(self, host: str, repository: str) -> Login | None:
        for path in self._files:
            try:
                if path not in self._read:
                    self._read[path] = _load(path)
                if login := self._find_in(self._read[path], host, repository, path):
                    return login
            except ValueError as error:
                raise RegistryError(f"{error}; correct it, or log in again") from None
        return None

    def _find_in(self, credentials: Credentials, host: str, repository: str, path: Path) -> Login | None:
        keys = tuple(_keys(host, repository))
        for key in keys:
            if (helper := credentials.helper(key)) and (login := self._ask(helper, key)):
                return login
        urls = [key for key in credentials.logins.values if "://" in key]
        for key in keys:
            for name in (key, *(url for url in urls if _host_of(url) == key)):
                if login := credentials.login(name):
                    return login
        return self._find_in_store(credentials.store, host, path) if credentials.store else None

    def _find_in_store(self, store: str, host: str, path: Path) -> Login | None:
        for server in ("https://index.docker.io/v1/", host) if host in _DOCKER_HUB else (host,):
            try:
                if login := self._ask(store, server):
                    return login
            except RegistryError as error:
                if path not in self._warned:
                    self._warned.add(path)
                    logger.warning("%s: credsStore: %s; going on without: mend it, or remove credsStore", path, error)
        return None

    def _ask(self, helper: str, server: str) -> Login | None:
        if (helper, server) not in self._helped:
            try:
                self._helped[helper, server] = _run_helper(helper, server)
            except RegistryError as error:
                self._helped[helper, server] = error
        found = self._helped[helper, server]
        if isinstance(found, RegistryError):
            raise found
        return found


def _load(path: Path) -> Credentials:
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        text = b""
    except OSError as error:
        raise RegistryError(f"{path}: {error.strerror}") from None
    return parse(text or b"{}", str(path))


def _keys(host: str, repository: str) -> Iterator[str]:
    """Yield the names under which a login may stand, the most special first."""
    parts = repository.split("/")
    for count in range(len(parts), 0, -1):
        yield "/".join((host, *parts[:count]))
    yield from _DOCKER_HUB_KEYS if host in _DOCKER_HUB else (host,)


def _host_of(key: str) -> str:
    """Return the host of a key that is a URL, as docker has written them at times."""
    return key.partition("://")[2].partition("/")[0]


def _run_helper(helper: str, server: str) -> Login | None:
    program = f"docker-credential-{helper[:80]}"
    if not _HELPER_NAME.fullmatch(helper):
        raise RegistryError(f"credential helper {helper[:80]!r}: expected a name of letters, digits and '._-'")
    try:
        done = subprocess.run(
            [program, "get"], input=server.encode(), capture_output=True, timeout=_HELPER_PATIENCE, check=False
        )
    except FileNotFoundError:
        raise RegistryError(f"{program}: not installed, but asked for the login at {server}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RegistryError(f"{program}: cannot be run for {server}: {type(error).__name__}") from None
    if done.returncode != 0:
        if _NOT_FOUND in done.stdout.decode(errors="replace"):
            return None
        raise RegistryError(f"{program}: fails for {server} with status {done.returncode}")
    try:
        reply = strict_json.load(done.stdout[:_FILE_LIMIT], program)
        username, secret = reply.text("Username", ""), reply.text("Secret", "")
    except ValueError:
        raise RegistryError(f"{program}: the reply for {server} is malformed") from None
    if username == _IDENTITY:
        return Login(identity_token=secret)
    return Login(username=username, password=secret) if username else None
