"""The profiles of a description and which of them a build uses.

The rules are those of kiwi's `XMLState`: a profile may be for some architectures only, may require others, and those
with `import="true"` are used when none is asked for.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from osc_containers.formats.xml_reader import BLANKS, Element
from osc_containers.oci import platform


class Requirement(NamedTuple):
    """Another profile that comes with a profile, on these architectures (a comma list; None is all)."""

    profile: str
    arch: str | None = None


class Profile(NamedTuple):
    """A `<profile>` as declared."""

    name: str
    arch: str | None = None
    is_imported: bool = False
    requires: tuple[Requirement, ...] = ()

    @classmethod
    def of(cls, element: Element) -> "Profile":
        """Read a `<profile>`.

        :raises ValueError: an attribute is missing or not what kiwi's schema asks for.
        """
        requires = (child for child in element.children if child.name == "requires")
        name = element.required("name")
        if not name:
            raise ValueError("profile name '': expected a name, for kiwi copies the directory of that name")
        return cls(
            name=name,
            arch=arch_of(element),
            is_imported=element.boolean("import"),
            requires=tuple(Requirement(profile=r.required("profile"), arch=arch_of(r)) for r in requires),
        )


def arch_of(element: Element) -> str | None:
    """Return the `arch` attribute, without the blanks around it.

    :raises ValueError: kiwi's schema would refuse it.
    """
    value = element.attributes.get("arch")
    if value is None:
        return None
    value = value.strip(BLANKS)
    for arch in value.split(","):
        if arch not in platform.ARCHITECTURES:
            known = ", ".join(platform.ARCHITECTURES)
            raise ValueError(
                f"arch {value[:160]!r}: got {arch[:80]!r}, expected a comma list without blanks of {known}"
            )
    return value


def is_for(arch: str, wanted: str | None) -> bool:
    """Tell whether the `arch` attribute `wanted` lets `arch` in; without one, everything may."""
    return not wanted or arch in wanted.split(",")


def used(declared: Sequence[Profile], arch: str, asked: Collection[str]) -> frozenset[str]:
    """Return the profiles that kiwi uses on `arch` for `--profile` options `asked`, or for none.

    :raises ValueError: one that is asked for or required is not declared for `arch`.
    """
    available = {profile.name: profile for profile in declared if is_for(arch, profile.arch)}
    if not asked:
        # Without what they require, and twice declared ones by either: kiwi does so too.
        return frozenset(p.name for p in declared if p.is_imported and is_for(arch, p.arch))
    found: set[str] = set()
    pending = [(name, "") for name in asked]
    while pending:
        name, because = pending.pop(0)
        if name not in available:
            known = ", ".join(repr(each[:80]) for each in available)
            expected = f"expected one of {known[:2000]}" if known else "there is none"
            raise ValueError(f"profile {name[:80]!r}{because} is not declared for {arch}, {expected}")
        if name not in found:
            found.add(name)
            because = f" (required by {name[:80]!r})"
            pending += [(each.profile, because) for each in available[name].requires if is_for(arch, each.arch)]
    return frozenset(found)
