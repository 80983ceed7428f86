"""The package of docs/first-image.md: made by the commands of the page, whose output is compared with the page."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.e2e.debs import ROOT
from tests.support.e2e.obs import scene
from tests.support.e2e.obs.backend import Backend

PAGE = ROOT / "docs/first-image.md"
_OUTPUTS = "first-image.json"
_LAST_BEFORE_THE_BUILD = "osc commit"
_PROMPT = "    $ "


class Step(NamedTuple):
    """A command of osc in the page, and the lines that it prints there."""

    command: str
    lines: tuple[str, ...]


def steps() -> tuple[Step, ...]:
    """Return all commands of osc in a working copy, with what the page says that they print."""
    return tuple(each for each in _commands() if each.command.startswith("osc ") and "mkpac" not in each.command)


def _commands() -> Iterator[Step]:
    command, lines = "", list[str]()
    for line in [*PAGE.read_text().splitlines(), _PROMPT]:
        if line.startswith(_PROMPT) or not line.startswith("    "):
            if command:
                yield Step(command=command, lines=tuple(lines))
            command, lines = line.removeprefix(_PROMPT) if line.startswith(_PROMPT) else "", []
        else:
            lines.append(line.strip())


def description() -> str:
    """Return the description in the page."""
    (block,) = re.findall(r"^    <\?xml.*?</image>\n", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return "".join(line.removeprefix("    ") for line in str(block).splitlines(keepends=True))


def start(backend: Backend) -> None:
    """Make the package up to the commit, after which it is built."""
    package = scene.make_package(backend, "home:ann", "appliance", backend.directory, builds=True)
    for path in package.glob("[!.]*"):
        path.unlink()
    (package / "appliance.kiwi").write_text(description())
    names = [step.command for step in steps()]
    last = next(index for index, name in enumerate(names) if name.startswith(_LAST_BEFORE_THE_BUILD))
    _write(backend, {name: _run(backend, package, name) for name in names[: last + 1]})


def finish(backend: Backend) -> None:
    """Run the other commands of the page."""
    package = backend.directory / "appliance"
    done = read(backend)
    _write(
        backend,
        done | {step.command: _run(backend, package, step.command) for step in steps() if step.command not in done},
    )


def _run(backend: Backend, package: Path, command: str) -> str:
    return backend.osc(*shlex.split(command)[1:], directory=package).stdout


def _write(backend: Backend, outputs: dict[str, str]) -> None:
    (backend.directory / _OUTPUTS).write_text(json.dumps(outputs))


def read(backend: Backend) -> dict[str, str]:
    """Return what each command has printed."""
    outputs: dict[str, str] = json.loads((backend.directory / _OUTPUTS).read_text())
    return outputs


def lines(texts: Iterable[str]) -> list[str]:
    """Return lines without what differs from run to run: times, dots, blanks, and what depends on Debian's busybox."""
    for pattern in (r"^\[ *\d+s\]", r"(?<=sha256:)[0-9a-f]+", r"[\d.]+ MB", r"\*$", r"\.{2,}|^\.$"):
        texts = [re.sub(pattern, "", text) for text in texts]
    return [" ".join(text.split()) for text in texts]
