"""The profiles of a description, and which of them an image uses.

The rules are those of `XMLState` in kiwi/xml_state.py: a profile can be limited to some architectures and can require
others, and profiles with `import="true"` are used if none is requested.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

from osc_containers.formats.xml_reader import BLANKS, Element
from osc_containers.oci import platform


class Requirement(NamedTuple):
    """A profile that another one requires on some architectures: a comma-separated list, or None for all."""

    profile: str
    arch: str | None = None


class Profile(NamedTuple):
    """A `<profile>`."""

    name: str
    arch: str | None = None
    is_imported: bool = False
    requires: tuple[Requirement, ...] = ()

    @classmethod
    def from_element(cls, element: Element) -> "Profile":
        """Read a `<profile>`.

        :raises ValueError: an attribute is missing or invalid.
        """
        requires = (child for child in element.children if child.name == "requires")
        name = element.required("name")
        # An empty name would make the root of the package an overlay directory.
        if not name:
            raise ValueError("profile name '': expected a name; kiwi copies the overlay directory of this name")
        return cls(
            name=name,
            arch=parse_arch(element),
            is_imported=element.boolean("import"),
            requires=tuple(Requirement(profile=r.required("profile"), arch=parse_arch(r)) for r in requires),
        )


def parse_arch(element: Element) -> str | None:
    """Return the `arch` attribute, without white space around it.

    :raises ValueError: kiwi's schema does not allow it.
    """
    value = element.attributes.get("arch")
    if value is None:
        return None
    value = value.strip(BLANKS)
    for arch in value.split(","):
        if arch not in platform.ARCHITECTURES:
            names = ", ".join(platform.ARCHITECTURES)
            raise ValueError(
                f"arch {value[:160]!r}: got {arch[:80]!r}, expected a comma-separated list without spaces of {names}"
            )
    return value


def is_for(arch: str, wanted: str | None) -> bool:
    """Tell whether something with the `arch` attribute `wanted` is for `arch`; without the attribute, it is."""
    return not wanted or arch in wanted.split(",")


def is_in(attribute: str | None, used: Collection[str]) -> bool:
    """Tell whether a section with this `profiles` attribute is in an image with the profiles `used`.

    Without the attribute, or if it is empty, the section is in all images. As in kiwi, one with only commas is in none
    (`XMLState._profiled` in kiwi/xml_state.py).
    """
    return not attribute or any(name in used for name in split_names(attribute))


def split_names(attribute: str | None) -> tuple[str, ...]:
    """Return the names in a `profiles` attribute, without empty ones."""
    return tuple(filter(None, attribute.split(","))) if attribute else ()


def selectable(declared: Sequence[Profile], arch: str) -> frozenset[str]:
    """Return the profiles that an image for `arch` can have, with whatever `--profile` options kiwi is called."""
    available = {profile.name: profile for profile in declared if is_for(arch, profile.arch)}
    users = defaultdict(list)
    for profile in available.values():
        for requirement in profile.requires:
            if is_for(arch, requirement.arch):
                users[requirement.profile].append(profile.name)
    # kiwi refuses a profile that requires, directly or not, one that is not declared for `arch`.
    refused = {name for name in users if name not in available}
    pending = list(refused)
    # Profiles that were found before are not added again, so that a circle of requirements ends.
    while pending:
        found = set(users.get(pending.pop(), ())) - refused
        refused |= found
        pending += found
    # kiwi does not look at what imported profiles require, so they are usable in any case.
    return resolve(declared, arch, ()) | (available.keys() - refused)


def resolve(declared: Sequence[Profile], arch: str, requested: Collection[str]) -> frozenset[str]:
    """Return the profiles that kiwi uses on `arch` if its `--profile` options request these, or none.

    :raises ValueError: a profile that is requested or required is not declared for `arch`.
    """
    available = {profile.name: profile for profile in declared if is_for(arch, profile.arch)}
    if not requested:
        # kiwi ignores what imported profiles require. If a name is declared twice, one `import` is enough.
        return frozenset(p.name for p in declared if p.is_imported and is_for(arch, p.arch))
    # A loop instead of recursion: profiles may require each other, and a hostile description may have thousands.
    used: set[str] = set()
    pending = [(name, "") for name in requested]
    while pending:
        name, reason = pending.pop(0)
        if name not in available:
            names = ", ".join(repr(each[:80]) for each in available)
            expected = f"expected one of {names[:2000]}" if names else "no profile is"
            raise ValueError(f"profile {name[:80]!r}{reason} is not declared for {arch}, {expected}")
        if name not in used:
            used.add(name)
            reason = f" (required by {name[:80]!r})"
            pending += [(each.profile, reason) for each in available[name].requires if is_for(arch, each.arch)]
    return frozenset(used)
