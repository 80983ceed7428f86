"""Reader for the file `_service` of a package, which lists the source services and when they run.

The modes are defined by osc (`obs_scm/serviceinfo.py`), the source server (`bs_service`) and obs-build (`runservices`).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import DescriptionError
from osc_containers.formats import xml_reader
from osc_containers.formats.xml_reader import Element
from osc_containers.obs import engines
from osc_containers.obs.engines import Choice
from osc_containers.obs.parameters import INJECT, NO_VALUE, PREFETCH, SERVICES
from osc_containers.oci import platform

FILE_NAME = "_service"
BUNDLE_HAS_NO_LAYOUT = (
    "layout=blobs needs inject=buildtime, because with inject=source all blobs are in kiwi_containers.obscpio; "
    "remove one of them"
)
BUNDLE_LACKS = {"store": "a bundle has no store", "engine": "a bundle is for kiwi's backends only"}
"""What the inject service can do and a bundle cannot, by parameter."""

_PARAMETER_LIMIT = 1000
"""Parameters of all entries of our services: each pattern is compared with each container."""
_LONGEST = 60
"""Letters of a name that can be a misspelling of one of ours."""
_SIMILARITY = 0.8
"""Of the letters of two names, if one is a misspelling of the other."""


class Entry(NamedTuple):
    """A `<service>`; `mode` is empty if it has none, and `parameters` are its names and values in their order.

    `others` are the names of elements in it other than `<param>`. osc ignores them, but OBS refuses such a file.
    """

    name: str
    mode: str
    parameters: tuple[tuple[str, str], ...] = ()
    line: int = 0
    others: tuple[str, ...] = ()

    def values(self, parameter: str) -> tuple[str, ...]:
        """Return all values of a parameter."""
        return tuple(value for name, value in self.parameters if name == parameter)

    def value(self, parameter: str) -> str:
        """Return the value of a parameter that has choices: the last one, or else its default."""
        # Of an option that is repeated, argparse takes the last value, too.
        last = self.values(parameter)[-1:]
        return last[0] if last and last[0] not in NO_VALUE else SERVICES[self.name].parameters[parameter].choices[0]

    def effective_values(self, parameter: str) -> list[str]:
        """Return the values of a parameter that may have several, as the service uses them."""
        return (architectures if parameter == "arch" else drop_empty)(self.values(parameter))

    def reads(self, description: str) -> bool:
        """Tell whether the service reads a description: it reads all unless it names some."""
        return description in (self.effective_values("description") or [description])

    def problems(self) -> Iterator[str]:
        """Yield a message for each parameter that our service will refuse."""
        parameters = SERVICES[self.name].parameters
        yield from (f"{self.name}: got the element {other[:80]!r} in it, expected 'param'" for other in self.others)
        for name, value in self.parameters:
            if name not in parameters:
                yield f"{self.name}: got the parameter {name[:80]!r}, expected one of {', '.join(parameters)}"
            elif (choices := parameters[name].choices) and value not in (*choices, *NO_VALUE):
                yield f"{self.name}: {name}: got {value[:80]!r}, expected one of {', '.join(choices)}"
            elif parameters[name].numbers and value not in NO_VALUE:
                try:
                    parameters[name].number(value)
                except ValueError as error:
                    yield f"{self.name}: {name}: {error}"
        for arch in self.effective_values("arch"):
            try:
                platform.of_architecture(arch)
            except ValueError as error:
                yield f"{self.name}: {error}"
        yield from (f"{self.name}: {problem}" for problem in engines.list_problems(self.effective_values("engine")))


@cache
def similar_service(name: str) -> str:
    """Return the name of the service of ours that a name is, or resembles; empty if there is none."""
    if name in SERVICES:
        return name
    # To compare long names would take long.
    if len(name) > _LONGEST:
        return ""
    from difflib import SequenceMatcher  # rarely needed

    # Likely mistakes are the name of the package, obs-service-NAME, and dashes, which Debian has in that name.
    plain = name.strip().lower().removeprefix("obs-service-").replace("-", "_")
    ratios = {ours: SequenceMatcher(None, plain, ours).ratio() for ours in SERVICES}
    best = max(ratios, key=lambda ours: ratios[ours])
    return best if ratios[best] >= _SIMILARITY else ""


def read(directory: Path) -> bytes | None:
    """Return the content of a package's `_service`, or None if there is no such file.

    :raises DescriptionError: it was not downloaded by git-lfs.
    """
    path = directory / FILE_NAME
    try:
        return xml_reader.read(path) if path.is_file() else None
    except ValueError as error:
        raise DescriptionError(f"{FILE_NAME}: {error}") from None


def read_entries(directory: Path) -> tuple[Entry, ...]:
    """Return the services of a package, none if it has no `_service`.

    :raises DescriptionError: as `parse`.
    """
    xml = read(directory)
    return () if xml is None else parse(xml)


def is_bundled(prefetches: Iterable[Entry]) -> bool:
    """Tell whether prefetch puts the containers into an archive that obs-build unpacks without our service."""
    return any(entry.value("inject") == "source" for entry in prefetches)


def allows_bundle(entries: Collection[Entry]) -> bool:
    """Return whether a package may have a bundle: the prefetch writes one, or `_service` has no services of ours.

    In the latter case the prefetch is run by hand, and an option tells it what to write.
    """
    prefetches = [entry for entry in entries if entry.name == PREFETCH]
    return is_bundled(prefetches) or not any(entry.name in SERVICES for entry in entries)


def has_blobs(prefetches: Iterable[Entry]) -> bool:
    """Tell whether some entry of prefetch writes each blob to a file."""
    return any(entry.value("layout") == "blobs" for entry in prefetches)


def layout(prefetches: Sequence[Entry]) -> str:
    """Return the layout of the files that prefetch writes: `archives` or `blobs`.

    :raises DescriptionError: entries differ, and each would remove the files of the others; or it is `blobs` for a
        bundle.
    """
    blobs = [entry for entry in prefetches if entry.value("layout") == "blobs"]
    if blobs and len(blobs) < len(prefetches):
        lines = " and ".join(str(entry.line) for entry in blobs)
        raise DescriptionError(
            f"{FILE_NAME}:{lines}: {PREFETCH} has layout=blobs, but not in its other entries; a package has one "
            "layout, so write the same in all entries"
        )
    if blobs and is_bundled(blobs):
        raise DescriptionError(f"{FILE_NAME}:{blobs[0].line}: {PREFETCH}: {BUNDLE_HAS_NO_LAYOUT}")
    return "blobs" if blobs else "archives"


def connections(prefetches: Iterable[Entry]) -> int | None:
    """Return the number of parallel downloads: the lowest of all entries, since a limit has a reason; None without one.

    :raises DescriptionError: one is no such number.
    """
    parameter = SERVICES[PREFETCH].parameters["connections"]
    numbers = []
    for entry in prefetches:
        # As in `Entry.value`, the last one counts, even if it stands for no value.
        for value in drop_empty(entry.values(parameter.name)[-1:]):
            try:
                numbers.append(parameter.number(value))
            except ValueError as error:
                where = f"{FILE_NAME}:{entry.line}: {PREFETCH}"
                raise DescriptionError(f"{where}: {parameter.name}: {error}") from None
    return min(numbers, default=None)


def store_patterns(entries: Collection[Entry], description: str) -> list[str]:
    """Return the patterns for containers of a description that go into a read-only store."""
    if is_bundled(entry for entry in entries if entry.name == PREFETCH):
        return []
    return [
        pattern
        for entry in entries
        if entry.name == INJECT and entry.reads(description)
        for pattern in entry.effective_values("store")
    ]


def check_no_bundle(
    entries: Collection[Entry], options: Mapping[str, Collection[str]] | None = None, *, bundled: bool | None = None
) -> None:
    """Check that nothing is asked for where the prefetch makes a bundle that a bundle cannot have.

    `options` has the values of parameters of the inject service by name, in addition to those in `_service`.

    :raises DescriptionError: something is.
    """
    if not (is_bundled(entry for entry in entries if entry.name == PREFETCH) if bundled is None else bundled):
        return
    problems = []
    for name, why in BUNDLE_LACKS.items():
        problem = f"{name}: {why}; remove {name!r}, or use inject=buildtime instead of inject=source"
        requests = [entry for entry in entries if entry.name == INJECT and entry.effective_values(name)]
        if requests:
            problems += [f"{FILE_NAME}:{entry.line}: {problem}" for entry in requests]
        elif (options or {}).get(name):
            problems.append(problem)
    if problems:
        raise DescriptionError(*problems)


def engine_choices(entries: Iterable[Entry], description: str | None = None) -> tuple[Choice, ...]:
    """Return the choices of `engine` in entries of the inject service, for one description or for all.

    A value that is no choice is left out: the service itself will refuse it.
    """
    return engines.parse_valid(
        value
        for entry in entries
        if entry.name == INJECT and (description is None or entry.reads(description))
        for value in entry.effective_values("engine")
    )


def is_locked(prefetches: Sequence[Entry]) -> bool:
    """Tell whether prefetch uses only what is locked, and does not follow tags.

    :raises DescriptionError: only some of its entries are locked.
    """
    locked = {entry.value("locked") == "yes" for entry in prefetches}
    if len(locked) > 1:
        lines = " and ".join(str(entry.line) for entry in prefetches if entry.value("locked") == "yes")
        raise DescriptionError(
            f"{FILE_NAME}:{lines}: {PREFETCH} is locked, but not in its other entries; run all entries, or choose "
            "by --locked or --no-locked, or by the --description of some"
        )
    return locked == {True}


class SignatureParameters(NamedTuple):
    """What to do about signatures; `is_user_choice` if the mode is from the command line and not from the package."""

    mode: str
    policies: tuple[str, ...]
    is_user_choice: bool


def signature_parameters(
    prefetches: Iterable[Entry], mode: str | None = None, policies: Sequence[str] = ()
) -> SignatureParameters:
    """Return the parameters about signatures: the options, or else those of the entries, of which the strictest counts.

    With `ignore` in the package, the package's policies do not count.
    """
    entries = list(prefetches)
    choices = SERVICES[PREFETCH].parameters["signatures"].choices
    modes = {entry.value("signatures") for entry in entries} or {choices[0]}
    # From the strictest to the weakest.
    own = next(each for each in ("required", "policy", "ignore") if each in modes)
    names = drop_empty(policies) or [name for entry in entries for name in entry.effective_values("policy")]
    chosen = mode or own
    if chosen == "ignore":
        names = []
    return SignatureParameters(mode=chosen, policies=tuple(dict.fromkeys(names)), is_user_choice=mode is not None)


def parse(xml: bytes) -> tuple[Entry, ...]:
    """Read the services in a `_service` file.

    :raises DescriptionError: it is not XML, or not such a file, or has too many parameters of our services.
    """
    entries = tuple(_entry(element) for element in parse_root(xml).children)
    count = 0
    for entry in entries:
        count += len(entry.parameters) if entry.name in SERVICES else 0
        if count > _PARAMETER_LIMIT:
            raise DescriptionError(
                f"{FILE_NAME}:{entry.line}: got more than {_PARAMETER_LIMIT} parameters of {' and '.join(SERVICES)}, "
                "expected at most that many; use patterns that match several images"
            )
    return entries


def _entry(element: Element) -> Entry:
    name, mode = (element.attributes.get(attribute, "") for attribute in ("name", "mode"))
    return Entry(
        name=name,
        mode=mode,
        parameters=tuple(
            # osc passes the text as it is, and our services strip it.
            (child.attributes.get("name", ""), child.text.strip(xml_reader.BLANKS))
            for child in element.children
            if child.name == "param"
        ),
        line=element.line,
        others=tuple(child.name for child in element.children if child.name != "param"),
    )


def parse_root(xml: bytes) -> Element:
    """Return the root element of a `_service` file.

    :raises DescriptionError: it is not XML, or not such a file.
    """
    try:
        root = xml_reader.parse(xml, FILE_NAME, ("service",))
    except ValueError as error:
        raise DescriptionError(str(error)) from None
    if root.name != "services":
        raise DescriptionError(f"{FILE_NAME}:{root.line}: got the root {root.name[:80]!r}, expected 'services'")
    return root


def drop_empty(values: Sequence[str]) -> list[str]:
    """Return the values of a parameter without empty ones, and without the white space around them.

    White space inside a value belongs to the name of a description or profile.
    """
    return [value for value in map(str.strip, values) if value not in NO_VALUE]


def architectures(values: Sequence[str]) -> list[str]:
    """Return the values of `arch` by their canonical names, each once; a value may be a list with blanks or commas."""
    words = [word for value in values for word in value.replace(",", " ").split()]
    return list(dict.fromkeys(map(platform.canonical, drop_empty(words))))
