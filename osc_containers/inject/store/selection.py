"""Which containers go into a store: those of podman whose reference matches a pattern."""

import logging
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from osc_containers.errors import DescriptionError
from osc_containers.kiwi.containers import Container

logger = logging.getLogger(__name__)

BACKEND = "podman"


def select(containers: Collection[Container], patterns: Sequence[str]) -> frozenset[Container]:
    """Return the containers whose full reference matches one of `patterns`; report patterns that match none.

    :raises DescriptionError: a container that matches is not for podman; each one is listed.
    """
    matches = {container: matching(container, patterns) for container in containers}
    problems = [
        f"{each.file}:{each.line}: {each.reference} matches store={pattern[:160]!r}, but is for {each.backend}: only "
        f'{BACKEND} has such stores; use a pattern that does not match it, or backend="{BACKEND}"'
        for each, found in matches.items()
        if each.backend != BACKEND
        for pattern in found[:1]
    ]
    if problems:
        raise DescriptionError(*problems)
    used = {pattern for found in matches.values() for pattern in found}
    for pattern in dict.fromkeys(patterns):
        if pattern not in used:
            logger.warning("store=%r matches no container of this image", pattern[:160])
    for each, found in matches.items():
        if found and each.fetch_only:
            where = f"{each.file}:{each.line}"
            logger.info("%s: %s is in the store, and also stays as an archive (fetch_only)", where, each.reference)
    return frozenset(container for container, found in matches.items() if found)


def matching(container: Container, patterns: Sequence[str]) -> list[str]:
    """Return the patterns that match the reference of a container."""
    names = {str(container.reference), container.reference.engine_name}
    return [pattern for pattern in patterns if any(fnmatchcase(name, pattern) for name in names)]
