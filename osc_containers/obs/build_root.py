"""What obs-build tells the services in a build root about the build."""

import os
import re
from pathlib import Path

_ENVIRONMENT = Path("/.buildenv")
"""The script `build` of obs-build writes this file into every build root."""
_DATA = Path("/.build/build.data")
"""What the first stage of a build in a virtual machine leaves for the second (build-vm, `vm_first_stage`)."""
_LIMIT = 1 << 20

# Both files are assignments of a shell script, with quoted values.
_FLAVOR = r"([A-Za-z0-9_][A-Za-z0-9_.+-]{0,99})'$"
_IN_DATA = re.compile(rf"^BUILD_FLAVOR='{_FLAVOR}", re.MULTILINE)
# obs://INSTANCE/PROJECT/REPOSITORY/REVISION-PACKAGE:FLAVOR. A colon in `_product:…` and `_patchinfo:…` is no flavor.
_IN_DISTURL = re.compile(rf"^BUILD_DISTURL='[^'\n]*/[0-9a-f]+-(?!_)[^':/\n]+:{_FLAVOR}", re.MULTILINE)


def is_here() -> bool:
    """Tell whether this is obs-build's chroot or virtual machine, where the sources are a disposable copy.

    The environment alone proves nothing, as anybody can set BUILD_ARCH in a shell. kiwi checks for the same file
    (`Defaults.is_buildservice_worker`).
    """
    return bool(os.environ.get("BUILD_ARCH")) and _ENVIRONMENT.exists()


def flavor() -> str:
    """Return the flavor of `_multibuild` that is built, or an empty text if there is none or it is not known.

    Virtual machines and workers of OBS tell it, `osc build` in a chroot does not.
    """
    for path, pattern in ((_DATA, _IN_DATA), (_ENVIRONMENT, _IN_DISTURL)):
        match = pattern.search(_read(path))
        if match:
            return match[1]
    return ""


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""
