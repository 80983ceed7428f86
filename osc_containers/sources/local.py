"""Images on the packager's machine: which of them are outside of the package, and the option that they need.

A description may name a path outside of the package or an engine's store. An image there may be private, and a
prefetch would add it to the package. So the packager has to allow it, on the command line and not in `_service`, which
comes with the package.
"""

import os
from pathlib import Path

from osc_containers.errors import DescriptionError
from osc_containers.fs.beneath import LeadsOutsideError, open_beneath

OPTION = "--allow-local-sources"
ENGINES = ("containers-storage", "docker-daemon")
_NAME_LENGTH = 400


def path_of(location: str) -> str:
    """Return the path in a location of a transport that leads to a path (containers-transports(5))."""
    transport, _, rest = location.partition(":")
    return rest if transport == "dir" else rest.partition(":")[0]


def is_local(package: Path, location: str) -> bool:
    """Tell whether an image is in an engine's store, or at a path outside of the package directory."""
    transport = location.partition(":")[0]
    if transport == "docker":
        return False
    if transport in ENGINES:
        return True
    try:
        # Opened instead of compared as text, because a link in the package may lead out of it.
        os.close(open_beneath(package, package / path_of(location), os.O_PATH))
    except LeadsOutsideError:
        return True
    except OSError:
        # Whatever is wrong with the path is reported when the image is read.
        pass
    return False


def refusal(what: str) -> DescriptionError:
    """Return the error for an image that may not be read without the option; its message ends with the command."""
    return DescriptionError(
        f"{what[:_NAME_LENGTH]} is on this machine and not in the package, so it may be private; if it may become part "
        f"of the package, run: osc-containers prefetch {OPTION}"
    )


class LocalFiles:
    """Opens files for one image; with `allowed` also those that are outside of the package directory.

    May be used from several threads.
    """

    def __init__(self, package: Path, *, allowed: bool) -> None:
        self._package = package
        self._allowed = allowed
        self.left_package = False
        """Whether a file outside of the package was opened."""

    def open(self, path: Path, flags: int = os.O_RDONLY) -> int:
        """Open a file.

        :raises DescriptionError: it is outside of the package, and that is not allowed.
        :raises OSError: it cannot be opened.
        """
        try:
            return open_beneath(self._package, path, flags)
        except LeadsOutsideError:
            if not self._allowed:
                raise refusal(str(path)) from None
        self.left_package = True
        return open_file(path, flags)


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file and follow links. A FIFO is opened without waiting for its other end."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
