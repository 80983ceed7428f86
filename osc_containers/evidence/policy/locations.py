"""Where podman's configuration of signatures is: that of the user, where there is one, replaces the system's."""

import os
from collections.abc import Mapping
from pathlib import Path

_SYSTEM = Path("/etc/containers")


def policy_json(environ: Mapping[str, str] = os.environ, system: Path = _SYSTEM) -> Path | None:
    """Return the policy that podman would use on this machine, or None if there is none."""
    paths = (each / "policy.json" for each in (_home(environ), system))
    # A dangling link counts: that a policy cannot be read is an error, and must not mean that there is none.
    return next((path for path in paths if os.path.lexists(path)), None)


def registries_d(environ: Mapping[str, str] = os.environ, system: Path = _SYSTEM) -> Path:
    """Return the directory that says where signatures are; it may be missing."""
    path = _home(environ) / "registries.d"
    return path if path.exists() else system / "registries.d"


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or "/", ".config/containers")
