"""TLS trust per registry: which authorities are accepted, and which client certificate is sent.

Source: containers-certs.d(5); docker's /etc/docker/certs.d has the same format. A directory that we may not read is
skipped, as in containers/image: it often belongs to another user, and if it matters, the registry's refusal says so.
"""

import os
import re
import ssl
import threading
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from osc_containers.errors import RegistryError

_SYSTEM = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
# Names as `openssl rehash` makes them: the hash of the authority's name, and a number for equal hashes.
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")
_partial: "weakref.WeakSet[ssl.SSLContext]" = weakref.WeakSet()
"""Contexts that have only the directory of the system's authorities, and not the file with all of them."""
_lock = threading.Lock()


def directory_of(host: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the first existing directory for `host` (with its port); None if there is none."""
    home = Path(environ.get("HOME") or "/") / ".config/containers/certs.d"
    return next((base / host for base in (home, *_SYSTEM) if _is_directory(base / host)), None)


def directory_for(host: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory to put certificates for `host` into: the existing one, or one to be created."""
    return directory_of(host, environ) or _SYSTEM[0] / host


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:
        return False


def system_context() -> ssl.SSLContext:
    """Return the TLS settings for a registry without configuration.

    If the system's authorities are only in a file, it takes about 30 ms to read them; other threads can run meanwhile.
    """
    return context_for(None)


def context_for(directory: Path | None, *, insecure: bool = False) -> ssl.SSLContext:
    """Return the TLS settings for a registry, with the authorities of the system and of `directory`.

    The settings may be partial (see `is_partial`).

    :raises RegistryError: the directory has a certificate without its key, a key without its certificate, or a file
        that is neither.
    """
    hashed = _hashed_directory()
    # With a directory, `ssl` does not read the file with all authorities; with None, it does.
    context = ssl.create_default_context(capath=hashed)
    if hashed:
        _partial.add(context)
    # As in podman, an authority that was installed by hand is trusted even if it is not a root.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    # Python 3.13 is strict by default, and refuses older authorities without the key usage extension.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if insecure:
        # In this order, because `ssl` refuses CERT_NONE while it checks host names.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for path in _files(directory) if directory else ():
        try:
            _load(context, path)
        except ssl.SSLError:
            raise RegistryError(f"{path}: not a certificate in PEM format, or not the key for it") from None
        except OSError as error:
            raise RegistryError(f"{path}: {error.strerror}") from None
    return context


def _hashed_directory() -> str | None:
    """Return the system's directory of authorities if OpenSSL can look one up there by the hash of its name.

    It does so during a handshake, and reads one or two authorities instead of all.
    """
    directory = ssl.get_default_verify_paths().capath
    if directory is None:
        return None
    with suppress(OSError), os.scandir(directory) as entries:
        if any(_HASHED.fullmatch(entry.name) for entry in entries):
            return directory
    return None


def is_partial(context: ssl.SSLContext) -> bool:
    """Return whether the file with all authorities of the system was not read yet; it may have more than its directory.

    After a certificate was not accepted, `complete` the settings, and try again.
    """
    return context in _partial


def complete(context: ssl.SSLContext) -> None:
    """Read the file with all authorities of the system, unless that is done."""
    with _lock:
        if context in _partial:
            context.load_default_certs()
            _partial.discard(context)


def _files(directory: Path) -> Iterable[Path]:
    try:
        return sorted(directory.iterdir())
    except PermissionError:
        return ()
    except OSError as error:
        raise RegistryError(f"{directory}: {error.strerror}") from None


def _load(context: ssl.SSLContext, path: Path) -> None:
    if path.suffix == ".crt":
        # On RHEL, links lead nowhere until the machine is registered.
        with suppress(FileNotFoundError):
            context.load_verify_locations(path)
    elif path.suffix == ".cert":
        key = path.with_suffix(".key")
        if not key.exists():
            raise RegistryError(f"{path}: {key.name} is missing in the same directory")
        # Without a password, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(path, key, password="")
    elif path.suffix == ".key" and not path.with_suffix(".cert").exists():
        raise RegistryError(f"{path}: {path.with_suffix('.cert').name} is missing in the same directory")
