"""Checks of `engine`: whether its patterns match containers that the engines can get."""

from collections.abc import Iterator

from osc_containers.checks.context import Context
from osc_containers.checks.finding import Finding, Severity, from_problem
from osc_containers.errors import DescriptionError
from osc_containers.obs import engines, service_file
from osc_containers.obs.parameters import INJECT
from osc_containers.obs.service_file import FILE_NAME


def check(context: Context) -> Iterator[Finding]:
    """Check each entry of the inject service; a value that is no choice is found by the check of the services."""
    for entry in context.entries_of(INJECT):
        if context.is_bundled and entry.effective_values("engine"):
            why = f"{service_file.BUNDLE_LACKS['engine']}, so that no other engine gets its containers"
            fix = f"remove 'engine', or inject=source of {entry.name.removesuffix('_inject')}"
            yield _finding(Severity.ERROR, why, fix, entry.line)
            continue
        choices = service_file.engine_choices([entry])
        containers = {
            container: None
            for description in context.descriptions
            if entry.reads(description.path.name)
            for arch in context.request.architectures_of(description)
            for container in description.of_architecture(arch)
        }
        try:
            engines.select(containers, choices)
        except DescriptionError as error:
            yield from (from_problem(problem, "engine") for problem in dict.fromkeys(error.problems))
        for choice in engines.unused(containers, choices):
            fix = "a pattern for whole references, as 'osc-containers list' shows them, or remove it"
            yield _finding(Severity.WARNING, f"{choice} matches no container", fix, entry.line)


def _finding(severity: Severity, why: str, fix: str, line: int) -> Finding:
    return Finding(severity=severity, check="engine", file=FILE_NAME, line=line, why=why, fix=fix)
