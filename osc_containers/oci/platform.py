"""Architecture names of kiwi, platforms of OCI images, and how they match.

kiwi's names are those of `arch-name` in its schema (kiwi/schema/kiwi.rnc): the output of `uname -m` and synonyms. The
output of `uname -m` is the canonical one: kiwi compares it with the `arch` attributes of a description
(`XMLState.host_architecture`), so that a synonym there matches on no machine. Options, `_service` and locks may have
synonyms, and are converted where they are read.

Spec: OCI image-spec v1.1, image-index.md, "Platform Variants". The fallbacks are those of skopeo, with which kiwi pulls
(containers/image, internal/pkg/platform). As in containerd, `amd64` and `amd64/v1` are the same
(platforms/database.go).
"""

import os
from typing import NamedTuple


class Platform(NamedTuple):
    """Operating system, architecture and variant by their names in Go; `variant` may be empty."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant))) or "no platform"

    @property
    def gap(self) -> str:
        """What is missing, in words."""
        if self.os:
            return "no architecture"
        return "no operating system" if self.architecture else "no platform"


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

_SYNONYMS = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "i586": "386", "i686": "386"}
"""Names that some builders write into configurations, and what they mean (containerd, platforms/database.go)."""

ARCHITECTURES = tuple(_PLATFORMS)

_CANONICAL = {
    "amd64": "x86_64",
    "i586": "i686",
    "ix86": "i686",
    "arm64": "aarch64",
    "armv5el": "armv5tel",
    "armv6hl": "armv6l",
    "armv7hl": "armv7l",
}
"""The canonical names of synonyms."""

# The variants that a platform can run, best first. An image that declares no variant may need any of them, so it comes
# last.
_COMPATIBLE_VARIANTS = {
    ("arm64", "v8"): ("v8", ""),
    ("arm", "v7"): ("v7", "v6", "v5", ""),
    ("arm", "v6"): ("v6", "v5", ""),
    ("arm", "v5"): ("v5", ""),
    ("amd64", ""): ("", "v1"),
}


def of_architecture(arch: str) -> Platform:
    """Return the platform of a kiwi architecture.

    :raises ValueError: kiwi has no such architecture.
    """
    try:
        return _PLATFORMS[arch]
    except KeyError:
        raise ValueError(f"unknown architecture {arch[:80]!r}, expected one of {', '.join(ARCHITECTURES)}") from None


def canonical(arch: str) -> str:
    """Return the canonical name of an architecture; a name that kiwi does not have is returned as it is."""
    return _CANONICAL.get(arch, arch)


def architectures_of(platform: Platform) -> list[str]:
    """Return all of kiwi's names for a platform."""
    return [arch for arch, candidate in _PLATFORMS.items() if candidate == platform]


def of_this_machine() -> str:
    """Return the architecture of this machine, as kiwi determines it: `uname -m`, here by its canonical name."""
    return canonical(os.uname().machine)


def rank(target: Platform, candidate: Platform) -> int | None:
    """Return how well an image for `candidate` fits `target`: 0 is best, None means that it cannot run there."""
    if (target.os, target.architecture) != (candidate.os, candidate.architecture):
        return None
    variants = _COMPATIBLE_VARIANTS.get((target.architecture, target.variant), (target.variant,))
    return variants.index(candidate.variant) if candidate.variant in variants else None


def is_selectable(candidate: Platform) -> bool:
    """Tell whether some architecture of kiwi selects images for a platform."""
    return any(rank(target, candidate) is not None for target in _PLATFORMS.values())


def may_fit(target: Platform, candidate: Platform) -> bool:
    """Tell whether an image for `candidate` may run on `target` if the empty parts of `candidate` are unknown."""
    known = Platform(candidate.os or target.os, candidate.architecture or target.architecture, candidate.variant)
    return rank(target, known) is not None


def check_config(target: Platform, config: Platform, *, listed: Platform | None, is_chosen: bool) -> str:
    """Check the platform in an image's configuration; return a warning, which is empty if it says what is expected.

    `listed` is the platform in the index that has the image, if it names one: engines believe it. `is_chosen` says that
    the user named this very image by its digest.

    :raises ValueError: the image is for another platform.
    """
    if rank(target, config) is not None:
        return ""
    # The platform may be the right one, with another name for its architecture.
    usual = config._replace(architecture=_SYNONYMS.get(config.architecture, config.architecture))
    if rank(target, usual) is not None:
        return f"its config is for {config}; taken for {target}"
    is_listed = listed is not None and rank(target, listed) is not None
    # What the configuration leaves out, the index may name.
    if may_fit(target, config):
        return "" if is_listed else f"its config names {config.gap}; taken for {target}, as engines do"
    if is_listed:
        return f"its config is for {config}, but its index lists it for {listed}; taken, as engines do"
    # Only the variant differs here, as in amd64/v3, and the machine may be able to run it.
    if is_chosen and (target.os, target.architecture) == (config.os, config.architecture):
        return f"it is for {config}, expected {target}; taken because you named it by its digest"
    raise ValueError(f"it is for {config} only")
