"""Architecture names of kiwi and the platforms of OCI images.

kiwi's names are the `arch-name` of its schema (kiwi/schema/kiwi.rnc): those of `uname -m` and their synonyms.
Platforms: OCI image-spec v1.1, image-index.md, "Platform Variants"; fall-backs as in the library of skopeo, with which
kiwi pulls (containers/image, internal/pkg/platform), and amd64's first level under both its names as in containerd's
(platforms/database.go).
"""

import os
from typing import NamedTuple


class Platform(NamedTuple):
    """Operating system, architecture and variant in the words of Go; the variant is empty where there is only one."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant))) or "no platform"


_PLATFORMS = {
    "x86_64": Platform("linux", "amd64"),
    "amd64": Platform("linux", "amd64"),
    "i586": Platform("linux", "386"),
    "i686": Platform("linux", "386"),
    "ix86": Platform("linux", "386"),
    "aarch64": Platform("linux", "arm64", "v8"),
    "arm64": Platform("linux", "arm64", "v8"),
    "armv5el": Platform("linux", "arm", "v5"),
    "armv5tel": Platform("linux", "arm", "v5"),
    "armv6hl": Platform("linux", "arm", "v6"),
    "armv6l": Platform("linux", "arm", "v6"),
    "armv7hl": Platform("linux", "arm", "v7"),
    "armv7l": Platform("linux", "arm", "v7"),
    "ppc": Platform("linux", "ppc"),
    "ppc64": Platform("linux", "ppc64"),
    "ppc64le": Platform("linux", "ppc64le"),
    "s390": Platform("linux", "s390"),
    "s390x": Platform("linux", "s390x"),
    "riscv64": Platform("linux", "riscv64"),
}

ARCHITECTURES = tuple(_PLATFORMS)

# Which variants an architecture takes, best first. An image that names none may be for any: it is the last resort.
_RUNS_VARIANTS = {
    ("arm64", "v8"): ("v8", ""),
    ("arm", "v7"): ("v7", "v6", "v5", ""),
    ("arm", "v6"): ("v6", "v5", ""),
    ("arm", "v5"): ("v5", ""),
    ("amd64", ""): ("", "v1"),
}


def of_architecture(arch: str) -> Platform:
    """Return the platform of a kiwi architecture.

    :raises ValueError: kiwi knows no such architecture.
    """
    try:
        return _PLATFORMS[arch]
    except KeyError:
        raise ValueError(f"unknown architecture {arch[:80]!r}, expected one of {', '.join(ARCHITECTURES)}") from None


def names_of(platform: Platform) -> list[str]:
    """Return the architectures of kiwi that are this platform."""
    return [name for name, own in _PLATFORMS.items() if own == platform]


def of_this_machine() -> str:
    """Return the architecture that kiwi sees on this machine: `uname -m`."""
    return os.uname().machine


def rank(wanted: Platform, offered: Platform) -> int | None:
    """Say how well an image for `offered` serves `wanted`: 0 is best, None is not at all."""
    if (wanted.os, wanted.architecture) != (offered.os, offered.architecture):
        return None
    variants = _RUNS_VARIANTS.get((wanted.architecture, wanted.variant), (wanted.variant,))
    return variants.index(offered.variant) if offered.variant in variants else None
