"""Whether the engines that a description names can load an image, by what is unusual about it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from osc_containers.kiwi.backend import BACKENDS, OTHER_ENGINES, STORE, STORE_BACKEND, Engine, engine_of
from osc_containers.obs import engines
from osc_containers.obs.engines import Choice
from osc_containers.obs.selection import Use
from osc_containers.oci.quirk import Found, Quirk
from osc_containers.oci.reference import Reference


class Judgement(NamedTuple):
    """An engine that cannot load an image, or a store that cannot have it: `why`, and how to `fix` it.

    `where` is the container in the description. `will_fail` says that the engine shall load the image, and that no
    release or setting of it can. The image is hopeless if that is so for every engine that the description names for
    it.
    """

    will_fail: bool
    is_hopeless: bool
    is_fetch_only: bool
    where: str
    why: str
    fix: str


def judge(
    reference: Reference, arch: str, uses: Iterable[Use], quirks: Sequence[Found], choices: Iterable[Choice] = ()
) -> tuple[Judgement, ...]:
    """Return what keeps an image with these quirks from being loaded where a description uses it for `arch`.

    `choices` are the values of `engine`.
    """
    kinds = [each.quirk for each in quirks]
    others = engines.targets_of(reference, choices)
    uses = [use for use in uses if use.arch == arch]
    # Each use, the engine or store that gets the image for it, and whether anything is loaded there.
    loads = [(use, STORE, True) for use in uses if use.is_stored]
    # A container with fetch_only is for the engines of `engine`. Without one, it stays an archive, and what its backend
    # cannot load is only advice.
    loads += [
        (use, engine_of(target), not use.is_fetch_only or bool(others))
        for use in uses
        if not use.is_stored
        for target in (use.is_fetch_only and others) or (use.backend,)
    ]
    is_loadable = any(is_loaded and engine.can_load(kinds) for _, engine, is_loaded in loads)
    judgements = []
    for use, engine, is_loaded in loads:
        for quirk, detail in quirks:
            only = engine.refuses.get(quirk)
            if only is None:
                continue
            condition = f" {only}" if only else ""
            will_fail = only == "" and is_loaded
            judgements.append(
                Judgement(
                    will_fail=will_fail,
                    is_hopeless=will_fail and not is_loadable,
                    is_fetch_only=not is_loaded,
                    where=use.where,
                    why=f"{reference} ({arch}): {engine.name} cannot {engine.verb} it{condition}: {detail}",
                    fix=", ".join([quirk.remedy, *_ways_out(engine, kinds, is_loaded=is_loaded)]),
                )
            )
    return tuple(dict.fromkeys(judgements))


def _ways_out(engine: Engine, kinds: Sequence[Quirk], *, is_loaded: bool) -> Iterator[str]:
    """Yield what else can be done than to change the image."""
    backends = [each.name for each in BACKENDS.values() if each.can_load(kinds)]
    if engine is STORE:
        if BACKENDS[STORE_BACKEND].can_load(kinds):
            yield "or leave it out of 'store'"
        return
    if engine.name in OTHER_ENGINES:
        yield "or use a pattern of engine that does not match it, and load it in your own way"
        return
    if backends and not engine.can_load(kinds):
        yield f"use backend={' or '.join(map(repr, backends))}"
    if is_loaded:
        yield "or set fetch_only='true' and load it in your own way"
