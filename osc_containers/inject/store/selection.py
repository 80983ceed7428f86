"""Which containers go into a store: those of podman whose reference matches a pattern."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence

from osc_containers.errors import DescriptionError
from osc_containers.kiwi.backend import BACKENDS, STORE_BACKEND, engine_of
from osc_containers.kiwi.containers import Container

logger = logging.getLogger(__name__)


def select(
    containers: Collection[Container], patterns: Sequence[str], targets: Mapping[Container, Sequence[str]]
) -> frozenset[Container]:
    """Return the containers whose full reference matches one of `patterns`; report patterns that match none.

    `targets` are the engines that get each container.

    :raises DescriptionError: a container that matches is not for podman; each one is listed.
    """
    matches = {container: container.matching(patterns) for container in containers}
    problems = [
        f"{each.file}:{each.line}: {each.reference} matches store={pattern[:160]!r}, but is for {other}: {fix}"
        for each, found in matches.items()
        for pattern in found[:1]
        for other, fix in _others(each, targets[each])
    ]
    if problems:
        raise DescriptionError(*problems)
    used = {pattern for found in matches.values() for pattern in found}
    for pattern in dict.fromkeys(patterns):
        if pattern not in used:
            logger.warning("store=%r matches no container of this image", pattern[:160])
    for each, found in matches.items():
        if found and not targets[each]:
            where = f"{each.file}:{each.line}"
            logger.info("%s: %s is in the store, and also stays as an archive (fetch_only)", where, each.reference)
    return frozenset(container for container, found in matches.items() if found)


def _others(container: Container, targets: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each engine that gets a container but has no such store, with the way out."""
    for target in targets or (container.backend,):
        if STORE_BACKEND in (target, engine_of(target).loaded_by):
            continue
        if target in BACKENDS:
            fix = f'use a pattern that does not match it, or backend="{STORE_BACKEND}"'
            yield target, f"only {STORE_BACKEND} has such stores; {fix}"
        else:
            yield target, "it has no such stores; use patterns of store and engine that do not match the same container"
