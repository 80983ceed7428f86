"""osc from PyPI, run in a way that it loads plugins.

In a virtual environment, osc skips all plugin directories. Therefore the base interpreter of the environment runs it,
with the packages of the environment in PYTHONPATH.
"""

import os
import site
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_MAIN = "import sys; from osc.babysitter import main; sys.exit(main())"
PACKAGES = {"PYTHONPATH": os.pathsep.join(site.getsitepackages())}
_AS_INSTALLED = 'mount -t overlay -o "lowerdir=$1:/usr" overlay /usr; shift; exec "$@"'


def log_in(apiurl: str) -> Path:
    """Write osc's configuration for an OBS at `apiurl`, and return the home directory."""
    home = Path(os.environ["HOME"])
    configuration = home / ".config/osc/oscrc"
    configuration.parent.mkdir(parents=True)
    login = "user = ann\npass = secret\nrealname = Ann\nemail = ann@example.com\nallow_http = 1\n"
    configuration.write_text(f"[general]\napiurl = {apiurl}\n[{apiurl}]\n{login}")
    return home


def write_working_copy(package: Path, apiurl: str, **texts: str) -> None:
    """Make a directory a working copy of home:ann/appliance; `texts` are files of `.osc`."""
    (package / ".osc").mkdir()
    for name, text in ({"_apiurl": apiurl, "_project": "home:ann", "_package": "appliance"} | texts).items():
        (package / ".osc" / name).write_text(f"{text}\n")


def command(*arguments: str) -> list[str]:
    """Return the command that runs osc; it needs `PACKAGES` in its environment."""
    interpreter = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    return [str(interpreter), "-c", _MAIN, *arguments]


def with_installed(prefix: Path, *command: str) -> list[str]:
    """Return a command line that runs a command with a tree created by `make install` merged into /usr."""
    return ["unshare", "--mount", "sh", "-ec", _AS_INSTALLED, "sh", str(prefix), *command]


def run(
    *arguments: str,
    prefix: Path | None = None,
    directory: Path | None = None,
    umask: int = 0o022,
    wrap: Callable[..., list[str]] | None = None,
    environment: dict[str, str] | None = None,
    stderr: int = subprocess.PIPE,
) -> "subprocess.CompletedProcess[str]":
    """Run osc; with `stderr=subprocess.STDOUT`, both outputs are in the order of a terminal.

    `prefix` is a tree created by `make install`. osc sees it merged into /usr, the only place where it looks for
    services. This needs root and a mount namespace; the real /usr is not changed. `wrap` returns the command line that
    runs a command elsewhere, for example in another network.
    """
    osc_command = command(*arguments)
    if prefix:
        osc_command = with_installed(prefix, *osc_command)
    return subprocess.run(
        wrap(*osc_command) if wrap else osc_command,
        cwd=directory,
        env=os.environ | PACKAGES | (environment or {}),
        umask=umask,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )
