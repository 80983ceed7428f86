"""The profiles of a description and which of them a build uses.

The rules are those of kiwi's `XMLState`: a profile may be for some architectures only, may require others, and those
with `import="true"` are used when none is asked for.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """Another profile that comes with a profile, on these architectures (a comma list; None is all)."""

    profile: str
    arch: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A `<profile>` as declared."""

    name: str
    arch: str | None = None
    is_imported: bool = False
    requires: tuple[Requirement, ...] = ()


def is_for(arch: str, wanted: str | None) -> bool:
    """Tell whether the `arch` attribute `wanted` lets `arch` in; without one, everything may."""
    return not wanted or arch in wanted.split(",")


def used(declared: Sequence[Profile], arch: str, asked: Collection[str]) -> frozenset[str]:
    """Return the profiles that kiwi uses on `arch` for `--profile` options `asked`, or for none.

    :raises ValueError: one that is asked for or required is not declared for `arch`.
    """
    available = {profile.name: profile for profile in declared if is_for(arch, profile.arch)}
    if not asked:
        # Without what they require: kiwi does not resolve these either.
        return frozenset(p.name for p in declared if p.is_imported and is_for(arch, p.arch))
    found: set[str] = set()
    pending = [(name, "") for name in asked]
    while pending:
        name, because = pending.pop()
        if name not in available:
            known = ", ".join(repr(each[:80]) for each in available) or "no profile"
            raise ValueError(f"profile {name[:80]!r}{because} is not declared for {arch}, expected one of {known}")
        if name not in found:
            found.add(name)
            because = f" (required by {name[:80]!r})"
            pending += [(each.profile, because) for each in available[name].requires if is_for(arch, each.arch)]
    return frozenset(found)
