"""Whom to believe at a registry, and which certificate to show it.

Spec: containers-certs.d(5); docker's /etc/docker/certs.d has the same form. A directory that is closed to us is passed
by, as containers/image does: it is often somebody else's, and where it does matter, the registry's refusal says so.
"""

import os
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from osc_containers.errors import RegistryError

_SYSTEM = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


def directory_of(host: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the first directory for `host` (with its port); None where there is none."""
    home = Path(environ.get("HOME") or "/") / ".config/containers/certs.d"
    return next((base / host for base in (home, *_SYSTEM) if _is_directory(base / host)), None)


def place_for(host: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Return where to put certificates for `host`: the directory that is read, or the one to be made."""
    return directory_of(host, environ) or _SYSTEM[0] / host


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:
        return False


def system_context() -> ssl.SSLContext:
    """Return the TLS settings for a registry of which nothing is configured.

    To read the system's authorities takes some 30 ms, in which other threads can run.
    """
    return context_for(None)


def context_for(directory: Path | None, *, insecure: bool = False) -> ssl.SSLContext:
    """Return the TLS settings for a registry: the system's authorities and those of `directory`.

    :raises RegistryError: the directory has a half of a pair, or a file that is no certificate or key.
    """
    context = ssl.create_default_context()
    # As podman does: an authority that was put there by hand is believed, whether it is a root or not.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for path in _files(directory) if directory else ():
        try:
            _load(context, path)
        except ssl.SSLError:
            raise RegistryError(f"{path}: not a certificate, or not the key of it, in the form PEM") from None
        except OSError as error:
            raise RegistryError(f"{path}: {error.strerror}") from None
    return context


def _files(directory: Path) -> Iterable[Path]:
    try:
        return sorted(directory.iterdir())
    except PermissionError:
        return ()
    except OSError as error:
        raise RegistryError(f"{directory}: {error.strerror}") from None


def _load(context: ssl.SSLContext, path: Path) -> None:
    if path.suffix == ".crt":
        with suppress(FileNotFoundError):  # RHEL's links lead nowhere as long as the machine is not registered
            context.load_verify_locations(path)
    elif path.suffix == ".cert":
        key = path.with_suffix(".key")
        if not key.exists():
            raise RegistryError(f"{path}: there is no {key.name} beside it")
        context.load_cert_chain(path, key, password="")
    elif path.suffix == ".key" and not path.with_suffix(".cert").exists():
        raise RegistryError(f"{path}: there is no {path.with_suffix('.cert').name} beside it")
