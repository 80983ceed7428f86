"""The parameter `engine`: which containers go to container engines that kiwi's `backend` cannot name.

A target is the name of an engine, with `:NAMESPACE` for another namespace of containerd than that of Kubernetes.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from osc_containers.errors import DescriptionError
from osc_containers.kiwi.backend import BACKENDS, NAMESPACE, OTHER_ENGINES, engine_of
from osc_containers.kiwi.containers import Container
from osc_containers.oci.reference import Reference

_NAMESPACE = re.compile(r"[A-Za-z0-9]+(?:[._][A-Za-z0-9]+)*")
"""containerd (pkg/identifiers) also allows hyphens. In the name of a unit, they would not end where the ID begins."""
# The name of a unit has the namespace and an ID in it, and as a file name at most 255 bytes.
_NAMESPACE_LENGTH = 32
_HAS_NAMESPACES = "containerd"


class Choice(NamedTuple):
    """A value of `engine`: the containers whose reference matches `pattern` go to `target`."""

    target: str
    pattern: str

    @classmethod
    def parse(cls, value: str) -> "Choice":
        """Parse `ENGINE=PATTERN`.

        :raises ValueError: it is something else, or there is no such engine.
        """
        target, separator, pattern = value.partition("=")
        name, colon, namespace = target.partition(":")
        if not separator or not pattern:
            raise ValueError(f"engine: got {value[:160]!r}, expected ENGINE=PATTERN, such as containerd=*")
        if name in BACKENDS:
            raise ValueError(
                f"engine: got {name!r}, which is a backend of kiwi: write backend={name!r} in the description instead"
            )
        if name not in OTHER_ENGINES:
            raise ValueError(f"engine: got {name[:80]!r}, expected one of {', '.join(OTHER_ENGINES)}")
        if colon and name != _HAS_NAMESPACES:
            raise ValueError(f"engine: got {target[:80]!r}, but only {_HAS_NAMESPACES} has namespaces; write {name!r}")
        if colon and (not _NAMESPACE.fullmatch(namespace) or len(namespace) > _NAMESPACE_LENGTH):
            raise ValueError(
                f"engine: got the namespace {namespace[:80]!r}, expected at most {_NAMESPACE_LENGTH} letters and "
                "digits, separated by '.' or '_'"
            )
        # `containerd` and `containerd:k8s.io` are one target, so that an image is loaded once.
        return cls(target=name if namespace in ("", NAMESPACE) else target, pattern=pattern)

    def __str__(self) -> str:
        return f"engine={f'{self.target}={self.pattern}'[:160]!r}"


def parse(values: Iterable[str]) -> tuple[Choice, ...]:
    """Return the choices that are the values of `engine`.

    :raises DescriptionError: as `Choice.parse`, for each of them.
    """
    problems = list(list_problems(values := tuple(values)))
    if problems:
        raise DescriptionError(*problems)
    return parse_valid(values)


def list_problems(values: Iterable[str]) -> Iterator[str]:
    """Yield the problem of each value that is no choice."""
    for value in values:
        try:
            Choice.parse(value)
        except ValueError as error:
            yield str(error)


def parse_valid(values: Iterable[str]) -> tuple[Choice, ...]:
    """Return the choices among the values of `engine`, each once."""
    return tuple(dict.fromkeys(Choice.parse(value) for value in values if not list(list_problems([value]))))


def targets_of(reference: Reference, choices: Iterable[Choice]) -> tuple[str, ...]:
    """Return the targets of a reference, in an order that does not depend on that of the choices."""
    found = {choice.target for choice in choices if reference.matches(choice.pattern)}
    order = list(OTHER_ENGINES)
    return tuple(sorted(found, key=lambda target: (order.index(engine_of(target).name), target)))


def targets(container: Container, choices: Iterable[Choice]) -> tuple[str, ...]:
    """Return where a container goes: to the engines of `choices`, or else to its backend, unless it is only fetched."""
    return targets_of(container.reference, choices) if container.fetch_only else (container.backend,)


def select(containers: Collection[Container], choices: Sequence[Choice]) -> Mapping[Container, tuple[str, ...]]:
    """Return the targets of each container.

    :raises DescriptionError: a container that matches is loaded by its backend, or an engine that it matches cannot
        find it, or cannot tell it from another one; each one is listed.
    """
    problems = [problem for each in containers for problem in _problems(each, choices)]
    problems += _confusions(containers, choices)
    if problems:
        raise DescriptionError(*problems)
    return {each: targets(each, choices) for each in containers}


def unused(containers: Collection[Container], choices: Iterable[Choice]) -> Iterator[Choice]:
    """Yield the choices that match no container."""
    for choice in choices:
        if not any(each.reference.matches(choice.pattern) for each in containers):
            yield choice


def _confusions(containers: Iterable[Container], choices: Iterable[Choice]) -> Iterator[str]:
    """Yield a problem for each container that an engine would take for another one, by what is written of it."""
    first: dict[tuple[str, str], Container] = {}
    for each in containers:
        for target in targets(each, choices):
            metadata = engine_of(target).metadata
            # The file name is left out, because it differs even if all else is the same.
            other = first.setdefault((target, metadata(each.reference, "")), each) if metadata else each
            if other.reference != each.reference:
                yield (
                    f"{each.file}:{each.line}: {each.reference} is the same image to {target} as {other.reference} at "
                    f"{other.file}:{other.line}; use a pattern of engine that does not match both"
                )


def _problems(container: Container, choices: Iterable[Choice]) -> Iterator[str]:
    reference = container.reference
    for choice in choices:
        if not reference.matches(choice.pattern):
            continue
        start = f"{container.file}:{container.line}: {reference} matches {choice}"
        if not container.fetch_only:
            yield (
                f'{start}, but is loaded into {container.backend}: add fetch_only="true" to it, so that kiwi\'s '
                "backend leaves it alone, or use a pattern that does not match it"
            )
        elif engine_of(choice.target).needs_tag and not reference.tag:
            yield (
                f"{start}, but {choice.target} finds images by their tags: add one to its digest, such as "
                f'tag="1.0@{reference.digest}"'
            )
