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
    ("errors", "sources.progress", "cli.progress"),
    (
        "oci.digest",
        "oci.reference",
        "oci.platform",
        "formats.strict_json",
        "formats.human",
        "fs.ranges",
        "fs.atomic",
        "cli.table",
        "formats.xml_editor",
        "cli.terminal",
        "checks.finding",
    ),
    ("formats.tar", "fs.rooted_tree", "oci.manifest", "sources.interface", "lock.archive_names", "inject.units"),
    (
        "formats.xml_reader",
        "kiwi.profiles",
        "kiwi.image_source",
        "kiwi.containers",
        "kiwi.description",
        "obs.service_file",
        "kiwi.image_type",
    ),
    (
        "oci.image",
        "archive.layout",
        "lock.lockfile",
        "formats.cpio",
        "obs.package",
        "inject.overlay",
        "inject.bundle",
        "archive.find",
        "obs.working_copy",
    ),
    (
        "registry.url_policy",
        "registry.errors",
        "registry.retry",
        "registry.challenge",
        "registry.config.registries_conf",
    ),
    (
        "registry.config.auth_json",
        "registry.config.certs_d",
        "registry.config.proxy",
        "registry.connection",
        "registry.response",
    ),
    ("registry.tokens", "registry.client", "registry.download", "sources.registry"),
    ("sources.blob_store", "sources.oci_layout", "sources.docker_archive", "sources.transports"),
    (
        "prefetch.cache",
        "prefetch.partial_file",
        "prefetch.checksum_cache",
        "prefetch.download",
        "obs.selection",
        "prefetch.pin",
        "prefetch.assemble",
    ),
    ("archive.verify", "cli.listing", "prefetch.prefetch", "inject.inject", "kiwi.split", "lock.diff", "cli.changelog"),
    ("checks.context", "checks.layout", "checks.services", "checks.archives", "checks.programs", "checks.space"),
    ("cli.process", "cli.arguments"),
    (
        "cli.commands.list",
        "cli.commands.split",
        "cli.commands.prefetch",
        "cli.commands.verify",
        "cli.commands.inject",
        "cli.commands.init",
    ),
    ("cli.commands.outdated", "cli.commands.diff", "cli.commands.check"),
    ("cli.services", "cli.main"),
)
ORDER = [module for layer in LAYERS for module in layer]

FOREIGN = {
    "urllib3": {f"registry.{name}" for name in ("client", "connection", "errors", "config.proxy", "response")},
    "platformdirs": {"prefetch.cache"},
    "rich": {"cli.progress"},
    "argcomplete": {"cli.main"},
}
"""Who may import what is not in the standard library."""

BUILD_ROOT_LACKS = {"requests", "urllib3", "sources.transports", "prefetch.prefetch", "prefetch.assemble"}

PACKAGES = tuple(".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in PACKAGE.rglob("__init__.py"))
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


@pytest.mark.parametrize("module", ["inject.inject", "archive.verify"])
def test_the_offline_half_needs_no_network(module: str) -> None:
    assert not needs(module) & BUILD_ROOT_LACKS


def test_the_command_line_loads_the_network_only_when_it_fetches() -> None:
    script = "import sys, osc_containers.cli.main, osc_containers.cli.services; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert not {"requests", "urllib3", "osc_containers.registry.client", "dataclasses"} & set(loaded)
