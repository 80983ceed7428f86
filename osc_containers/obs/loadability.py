"""Whether the engines that a description names can load an image, by what is unusual about it."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from osc_containers.kiwi.backend import BACKENDS
from osc_containers.obs.selection import Use
from osc_containers.oci.quirk import Found
from osc_containers.oci.reference import Reference


class Judgement(NamedTuple):
    """An engine that cannot load an image: `why`, and how to `fix` it. `where` is the container in the description.

    `will_fail` says that the engine shall load the image, and that no release or setting of it can. The image is
    hopeless if that is so for every engine that the description names for it.
    """

    will_fail: bool
    is_hopeless: bool
    is_fetch_only: bool
    where: str
    why: str
    fix: str


def judge(reference: Reference, arch: str, uses: Iterable[Use], quirks: Sequence[Found]) -> tuple[Judgement, ...]:
    """Return what keeps an image with these quirks from being loaded where a description uses it for `arch`."""
    uses = [use for use in uses if use.arch == arch]
    kinds = [each.quirk for each in quirks]
    loads = [BACKENDS[use.backend] for use in uses if not use.is_fetch_only]
    is_loadable = any(backend.can_load(kinds) for backend in loads)
    judgements = []
    for use in uses:
        backend = BACKENDS[use.backend]
        for quirk, detail in quirks:
            only = backend.refuses.get(quirk)
            if only is None:
                continue
            condition = f" {only}" if only else ""
            others = [each.name for each in BACKENDS.values() if each.can_load(kinds)]
            fix = quirk.remedy
            if others and not backend.can_load(kinds):
                fix += f", use backend={' or '.join(map(repr, others))}"
            if not use.is_fetch_only:
                fix += ", or set fetch_only='true' and load it in your own way"
            will_fail = only == "" and not use.is_fetch_only
            judgements.append(
                Judgement(
                    will_fail=will_fail,
                    is_hopeless=will_fail and not is_loadable,
                    is_fetch_only=use.is_fetch_only,
                    where=use.where,
                    why=f"{reference} ({arch}): {backend.name} cannot load it{condition}: {detail}",
                    fix=fix,
                )
            )
    return tuple(dict.fromkeys(judgements))
