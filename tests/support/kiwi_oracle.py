"""Ask kiwi itself which containers a description has.

Run by the interpreter of an environment that has kiwi installed; it answers a JSON line on standard output for each on
standard input. A question is `{"description": PATH, "selections": [{"arch": A, "profiles": [P, …]}, …]}`, an answer
`{"error": CLASS, "message": TEXT}` or `{"answers": […]}` with, for each selection, an error or `{"containers": […]}`.
"""

import functools
import json
import logging
import sys
from typing import Any

from kiwi import xml_state  # type: ignore[import-not-found]
from kiwi.defaults import Defaults  # type: ignore[import-not-found]
from kiwi.xml_description import XMLDescription  # type: ignore[import-not-found]
from lxml import isoschematron

COMMANDS: list[list[str]] = []


class _Command:
    """Stands in for `kiwi.command.Command`: what would have been run is kept."""

    @staticmethod
    def run(command: list[str], *_args: object, **_kwargs: object) -> None:
        COMMANDS.append(command)


def _select(data: Any, selection: dict[str, Any]) -> dict[str, Any]:
    Defaults.set_platform_name(selection["arch"])
    try:
        state = xml_state.XMLState(data, selection["profiles"])
        return {"containers": [_container(container) for container in state.get_containers()]}
    except Exception as error:  # whatever it is, kiwi would not build
        return {"error": type(error).__name__, "message": str(error)}


def _container(container: Any) -> dict[str, Any]:
    COMMANDS.clear()
    container.fetch_command("/root-of-the-image")
    return {
        "endpoint": COMMANDS[0][4].removeprefix("docker://"),
        "backend": container.backend,
        "fetch_only": container.fetch_only,
        "container_file": container.container_file,
        "load_command": container.load_command,
    }


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    try:
        data = XMLDescription(question["description"]).load()
    except Exception as error:  # as above
        return {"error": type(error).__name__, "message": str(error)}
    return {"answers": [_select(data, selection) for selection in question["selections"]]}


def main() -> None:
    """Answer until there are no more questions."""
    logging.disable(logging.CRITICAL)
    xml_state.Command = _Command
    Defaults.is_buildservice_worker = staticmethod(lambda: False)
    # Compiling the same schema anew takes nine tenths of each question.
    compiled = functools.partial(_compiled, isoschematron.Schematron, {})
    setattr(isoschematron, "Schematron", compiled)  # noqa: B010  (mypy takes a class for a constant)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


def _compiled(compile_schema: Any, cache: dict[str, Any], document: Any, **options: Any) -> Any:
    if "schema" not in cache:
        cache["schema"] = compile_schema(document, **options)
    return cache["schema"]


if __name__ == "__main__":
    main()
