"""Logins stored on this machine by podman, skopeo, buildah and docker.

Files and their order: containers-auth.json(5), docker's `config.json`. Credential helpers are run as
`docker-credential-NAME get` with the server's name on standard input (docker-credential-helpers, "Usage"). If a helper
fails, the search ends in the same cases as podman's: if the helper is configured for this very registry, or if nothing
else has a login. podman ignores docker's `credsStore`, which is asked about every registry; if that helper fails,
public registries must still work.
"""

import base64
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import Error, RegistryError
from osc_containers.formats import strict_json
from osc_containers.formats.strict_json import Fields
from osc_containers.fs import program
from osc_containers.fs.program import NotInstalledError
from osc_containers.registry.challenge import Login
from osc_containers.registry.config.registries_conf import AUTH_FILES

logger = logging.getLogger(__name__)

_FILE_LIMIT = 4 << 20
# A part of the name of a program that is looked up in PATH, so it must not contain a slash.
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HELPER_TIMEOUT = 120.0
"""Seconds; a helper may ask for a passphrase."""
_NOT_FOUND = "credentials not found"
_IDENTITY = "<token>"
"""The user name with which a helper marks an identity token."""
_DOCKER_HUB = ("docker.io", "registry-1.docker.io")
# The names under which podman, skopeo and docker store logins for Docker Hub.
_DOCKER_HUB_KEYS = ("docker.io", "https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io")


class Credentials(NamedTuple):
    """A credential file: logins and helper names by registry or repository, and a helper for all others.

    The entry of a registry is parsed when it is needed, so that a mistake there does not affect other registries.
    """

    logins: Fields
    helpers: Fields
    store: str

    def login(self, key: str) -> Login | None:
        """Return the login for `key`; None if there is none, as in the entries by which docker marks a helper's.

        :raises ValueError: the entry is malformed; the message contains no secrets.
        """
        if key not in self.logins:
            return None
        entry = self.logins.member(key)
        username, password = entry.text("username", ""), entry.text("password", "")
        if "auth" in entry:
            # Go's decoder, which podman uses, ignores line breaks.
            encoded = entry.text("auth").replace("\r", "").replace("\n", "")
            try:
                decoded = base64.b64decode(encoded, validate=True).decode()
            except ValueError:
                raise ValueError(f"{entry.where}: auth: not a user name and a password in base64") from None
            # Only the password may contain a colon (RFC 7617, 2).
            username, _, password = decoded.partition(":")
        # docker removes NUL characters at the ends, too (`decodeAuth`).
        login = Login(username=username, password=password.strip("\0"), identity_token=entry.text("identitytoken", ""))
        return login if login.username or login.identity_token else None

    def helper(self, key: str) -> str | None:
        """Return the name of the helper for `key`.

        :raises ValueError: the entry is malformed.
        """
        return self.helpers.line(key) if key in self.helpers else None


def parse(text: bytes, where: str) -> Credentials:
    """Parse a credential file.

    :raises ValueError: the file is malformed; the message contains no secrets.
    """
    document = strict_json.load(text, where)
    nothing = Fields({}, where)
    return Credentials(
        logins=document.member("auths") if "auths" in document else nothing,
        helpers=document.member("credHelpers") if "credHelpers" in document else nothing,
        store=document.line("credsStore", ""),
    )


def files(environ: Mapping[str, str], user: int) -> tuple[Path, ...]:
    """Return the possible paths of credential files, in the order in which they are searched.

    A path from the environment replaces the file of `podman login` (containers/common, `GetDefaultAuthFile`). The other
    files are searched after it, as in podman up to 4.3. Newer versions read no other file (containers/image 5.24), but
    a login that is stored there is used here nevertheless.
    """
    home = Path(environ.get("HOME") or "/")
    runtime, docker = environ.get("XDG_RUNTIME_DIR"), environ.get("DOCKER_CONFIG")
    docker_file = Path(docker or home / ".docker") / "config.json"
    if override := environ.get("REGISTRY_AUTH_FILE"):
        first = Path(override)
    elif docker:
        first = docker_file
    else:
        first = Path(runtime, "containers/auth.json") if runtime else Path(f"/run/containers/{user}/auth.json")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    return tuple(dict.fromkeys((first, config / "containers/auth.json", docker_file)))


class Logins:
    """The logins from files and helpers, each asked once; may be used from several threads.

    `helpers` come from registries.conf, where `containers-auth.json` stands for the files.
    """

    def __init__(self, helpers: Sequence[str], environ: Mapping[str, str]) -> None:
        self._helpers = helpers or (AUTH_FILES,)
        self._environ = environ
        self._files = files(environ, os.getuid())
        self._lock = threading.Lock()
        self._credentials: dict[Path, Credentials] = {}
        self._answers: dict[tuple[str, str], Login | RegistryError | None] = {}
        self._warned: set[Path] = set()

    def find(self, host: str, repository: str) -> Login | None:
        """Return the login for a repository: in the first file that has one, the entry with the longest name.

        :raises RegistryError: there is no login, and a file is malformed or a helper fails.
        """
        problems: list[str] = []
        # The lock also keeps several threads from starting the same helper, which may open a dialogue.
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
                if path not in self._credentials:
                    self._credentials[path] = _load(path)
                if login := self._find_in(self._credentials[path], host, repository, path):
                    return login
            except ValueError as error:
                raise RegistryError(f"{error}; correct it, or log in again") from None
        return None

    def _find_in(self, credentials: Credentials, host: str, repository: str, path: Path) -> Login | None:
        keys = tuple(_keys(host, repository))
        for key in keys:
            # A helper takes precedence over a login in the same file, as in podman.
            if (helper := credentials.helper(key)) and (login := self._ask(helper, key)):
                return login
        # docker has at times written URLs as keys.
        urls = [key for key in credentials.logins.values if "://" in key]
        for key in keys:
            for name in (key, *(url for url in urls if url.partition("://")[2].partition("/")[0] == key)):
                if login := credentials.login(name):
                    return login
        return self._find_in_store(credentials.store, host, path) if credentials.store else None

    def _find_in_store(self, store: str, host: str, path: Path) -> Login | None:
        # The URL is docker's name for Docker Hub in its stores.
        for server in ("https://index.docker.io/v1/", host) if host in _DOCKER_HUB else (host,):
            try:
                if login := self._ask(store, server):
                    return login
            except RegistryError as error:
                if path not in self._warned:
                    self._warned.add(path)
                    logger.warning("%s: credsStore: %s; continuing without it: repair or remove it", path, error)
        return None

    def _ask(self, helper: str, server: str) -> Login | None:
        if (helper, server) not in self._answers:
            try:
                self._answers[helper, server] = _run_helper(helper, server, self._environ)
            except RegistryError as error:
                # Failures are kept, too: a dialogue that the user has closed must not open again for every image.
                self._answers[helper, server] = error
        answer = self._answers[helper, server]
        if isinstance(answer, RegistryError):
            raise answer
        return answer


def _load(path: Path) -> Credentials:
    try:
        with path.open("rb") as file:
            # The start of a longer file is not valid JSON, so such a file is refused.
            text = file.read(_FILE_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        text = b""
    except OSError as error:
        raise RegistryError(f"{path}: {error.strerror}") from None
    # An empty file is not valid JSON, but it is clear that it has no logins.
    return parse(text or b"{}", str(path))


def _keys(host: str, repository: str) -> Iterator[str]:
    """Yield the names that a login may be stored under, the most specific first."""
    parts = repository.split("/")
    for count in range(len(parts), 0, -1):
        yield "/".join((host, *parts[:count]))
    yield from _DOCKER_HUB_KEYS if host in _DOCKER_HUB else (host,)


def _run_helper(helper: str, server: str, environ: Mapping[str, str]) -> Login | None:
    name = f"docker-credential-{helper[:80]}"
    if not _HELPER_NAME.fullmatch(helper):
        raise RegistryError(f"credential helper {helper[:80]!r}: expected a name of letters, digits and '._-'")
    try:
        # Helpers are for all kinds of services, whose settings may be in any variable: AWS_PROFILE, GNUPGHOME, …
        done = program.run(
            *(name, "get"),
            stdin=server.encode(),
            environ=environ,
            inherit=["*"],
            limit=_FILE_LIMIT,
            timeout=_HELPER_TIMEOUT,
        )
    except NotInstalledError as error:
        raise RegistryError(f"{error}, but needed for the login at {server}") from None
    except Error as error:
        raise RegistryError(f"{error}; it was asked for the login at {server}") from None
    if done.status != 0:
        # Helpers print this message to standard output (docker-credential-helpers, credentials/error.go).
        if _NOT_FOUND in done.stdout.decode(errors="replace"):
            return None
        # The output of a helper may contain secrets, so it is not part of any message.
        raise RegistryError(f"{name}: failed for {server} with status {done.status}")
    try:
        reply = strict_json.load(done.stdout, name)
        username, secret = reply.text("Username", ""), reply.text("Secret", "")
    except ValueError:
        raise RegistryError(f"{name}: the reply for {server} is malformed") from None
    if username == _IDENTITY:
        return Login(identity_token=secret)
    return Login(username=username, password=secret) if username else None
