"""What belongs to an installation besides the command itself."""

import sys
from importlib.util import find_spec
from pathlib import Path

from osc_containers.errors import Error

_FOR_PREFETCH = ("requests", "urllib3", "platformdirs")
"""The modules of other packages that a prefetch imports."""
_SERVICE = Path("/usr/lib/obs/service/kiwi_containers")
"""The only place where osc looks for the service (osc/obs_scm/serviceinfo.py)."""


def note_missing() -> str:
    """Return how to get the services if osc cannot find them, as after `pip install`; empty if it can."""
    if _SERVICE.exists():
        return ""
    return (
        f"osc finds no service in {_SERVICE.parent}, so 'osc service' cannot run it: use 'osc-containers prefetch', "
        "or run 'sudo make install' in a checkout, which also installs the osc plugin and the manual page"
    )


def require_prefetch() -> None:
    """Check that a prefetch can start.

    :raises Error: a library is missing.
    """
    # The modules are only looked up, which is much faster than to import them.
    if missing := [name for name in _FOR_PREFETCH if find_spec(name) is None]:
        raise Error(
            f"{sys.executable}: the prefetch needs {', '.join(missing)}; install "
            f"{', '.join(f'python3-{name}' for name in missing)}, or use --no-prefetch"
        )
