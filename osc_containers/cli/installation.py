"""What belongs to an installation besides the command itself."""

from pathlib import Path

_SERVICE = Path("/usr/lib/obs/service/kiwi_containers")
"""The only place where osc looks for the service (osc/obs_scm/serviceinfo.py)."""


def note_missing() -> str:
    """Return how to get the services if osc cannot find them, as after `pip install`; empty if it can."""
    if _SERVICE.exists():
        return ""
    return (
        f"osc finds no service in {_SERVICE.parent}, so 'osc service manualrun' does not work: use 'osc-containers "
        "prefetch', or run 'sudo make install' in a checkout, which also installs the osc plugin and the manual page"
    )
