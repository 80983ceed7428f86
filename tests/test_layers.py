"""The modules import in one direction, and the half that runs in a build root needs no network client."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "osc_containers"

# A module may import those that stand before it.
LAYERS = (
    ("errors", "progress"),
    ("digest", "reference", "platforms", "fields", "files", "table", "xmltext", "terminal", "findings"),
    ("tarball", "tree", "oci", "sources", "names", "units"),
    ("markup", "profiles", "origin", "sections", "description", "servicefile", "appliance"),
    ("archive", "lock", "obscpio", "package", "overlay", "bundle", "holdings", "workingcopy"),
    ("registry.hosts", "registry.failures", "registry.retries", "registry.auth", "registry.registries"),
    ("registry.logins", "registry.certificates", "registry.proxies", "registry.connection", "registry.replies"),
    ("registry.tokens", "registry.client", "registry.downloads", "registry.distribution"),
    ("storage", "layouts", "docker_archive", "transports"),
    ("cache", "parts", "sums", "arrival", "pins", "transfer", "request"),
    ("verify", "listing", "prefetch", "inject", "split", "differences", "changelog"),
    ("checks.subject", "checks.layout", "checks.services", "checks.archives", "checks.programs", "checks.space"),
    ("program", "commands.arguments"),
    ("commands.list", "commands.split", "commands.prefetch", "commands.verify", "commands.inject", "commands.init"),
    ("commands.outdated", "commands.diff", "commands.check"),
    ("services", "cli"),
)
ORDER = [module for layer in LAYERS for module in layer]

FOREIGN = {
    "requests": {f"registry.{name}" for name in ("connection", "failures", "replies")},
    "urllib3": {f"registry.{name}" for name in ("connection", "failures", "proxies", "replies")},
    "platformdirs": {"cache"},
    "rich": {"progress"},
    "argcomplete": {"cli"},
}
"""Who may import what is not in the standard library."""

BUILD_ROOT_LACKS = {"requests", "urllib3", "transports", "prefetch", "transfer"}

PACKAGES = ("osc_containers", "osc_containers.checks", "osc_containers.commands", "osc_containers.registry")
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
)


def imports(module: str) -> Iterator[str]:
    """Yield what `module` imports anywhere: our modules by their own names, others by their top-level package."""
    for node in ast.walk(ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text())):
        if isinstance(node, ast.Import):
            yield from (_own_or_top(name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            if node.module in PACKAGES:
                yield from (_own_or_top(f"{node.module}.{name.name}") for name in node.names)
            else:
                yield _own_or_top(node.module or "")


def _own_or_top(name: str) -> str:
    first, _, rest = name.partition(".")
    return rest if first == "osc_containers" and rest else first


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_those_before_it(module: str) -> None:
    assert module in ORDER, "say in LAYERS where it stands"
    allowed = set(ORDER[: ORDER.index(module)])
    assert {name for name in imports(module) if name in MODULES} <= allowed


@pytest.mark.parametrize("module", MODULES)
def test_foreign_packages_stay_in_their_module(module: str) -> None:
    ours = {*MODULES, "osc_containers", "__version__"}
    foreign = set(imports(module)) - ours - set(sys.stdlib_module_names)
    assert foreign == {name for name in foreign if module in FOREIGN.get(name, ())}


def test_values_are_quick_to_define() -> None:
    assert [module for module in MODULES if "dataclasses" in set(imports(module))] == []


def needs(module: str) -> set[str]:
    """Return everything that `module` imports, directly or not."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        new = set(imports(waiting.pop())) - found
        found |= new
        waiting += new & set(MODULES)
    return found


@pytest.mark.parametrize("module", ["inject", "verify"])
def test_the_offline_half_needs_no_network(module: str) -> None:
    assert not needs(module) & BUILD_ROOT_LACKS


def test_the_command_line_loads_the_network_only_when_it_fetches() -> None:
    script = "import sys, osc_containers.cli, osc_containers.services; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert not {"requests", "urllib3", "osc_containers.registry.client", "dataclasses"} & set(loaded)
