"""The folders import in one direction, and the half that runs in a build root needs no network client."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "osc_containers"

# A folder may import those that stand before it.
FOLDERS = (
    *("errors", "fs", "formats", "oci", "kiwi", "lock", "evidence", "registry", "obs", "sources"),
    *("archive", "inject", "prefetch", "checks", "cli"),
)

NEVER = {"prefetch": {"inject"}, "inject": {"registry", "sources"}}
"""What a folder does not import although it stands before it: the two halves meet in the lock and the archives."""

FOREIGN = {
    "requests": {f"registry.{name}" for name in ("errors", "response", "session")},
    "urllib3": {f"registry.{name}" for name in ("config.proxy", "connection", "errors", "response", "session")},
    "lxml": {"formats.xml_reader"},
    "platformdirs": {"obs.run_lock", "fs.user_cache"},
    "yaml": {"evidence.policy.registries_d"},
    "rich": {"cli.output.progress"},
    "argcomplete": {"cli.main"},
    "compression": {"inject.store.inflate"},
}
"""Who may import what is not in the standard library of every Python that we support."""

NETWORK = {"requests", "urllib3", "sources.transports", "prefetch.prefetch", "prefetch.assemble"}
"""What a build root lacks or does not need."""

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.stem != "__init__"
}


@cache
def tree_of(module: str) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(MODULES[module].read_text())


@cache
def imports(module: str) -> frozenset[str]:
    """Return what `module` imports anywhere: our modules by their own names, others by their top-level package."""
    return frozenset(_imports(module))


def _imports(module: str) -> Iterator[str]:
    for node in _statements(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (_own_or_top(name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            source = node.module or ""
            if (PACKAGE.parent / source.replace(".", "/")).is_dir():
                yield from (_own_or_top(f"{source}.{name.name}") for name in node.names)
            else:
                yield _own_or_top(source)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the statements of a module, also those inside others; `ast.walk` takes ten times as long."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        yield (node := waiting.pop())
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting += getattr(node, block, ())


def _own_or_top(name: str) -> str:
    first, _, rest = name.partition(".")
    return rest if first == "osc_containers" and rest else first


def folder(module: str) -> str:
    return module.partition(".")[0]


def test_a_folder_imports_only_those_before_it() -> None:
    wrong: dict[str, set[str]] = {}
    for module in MODULES:
        used = {folder(name) for name in imports(module) if name in MODULES} - {folder(module)}
        allowed = set(FOLDERS[: FOLDERS.index(folder(module))]) - NEVER.get(folder(module), set())
        wrong |= {module: used - allowed} if used - allowed else {}
    assert wrong == {}


def test_no_modules_import_each_other() -> None:
    graph = {module: imports(module) & MODULES.keys() for module in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_every_folder_says_what_it_is_for() -> None:
    for path in {each.parent for each in MODULES.values()}:
        docstring = ast.get_docstring(ast.parse((path / "__init__.py").read_text())) or ""
        assert docstring.endswith("."), path


def test_nothing_else_stands_on_the_ground_floor() -> None:
    assert {module for module in MODULES if "." not in module} <= {"errors", "__main__"}


def test_foreign_packages_stay_in_their_module() -> None:
    ours = {*MODULES, "osc_containers", "__version__", *sys.stdlib_module_names}
    foreign = {(module, name) for module in MODULES for name in imports(module) - ours}
    assert foreign - {(module, name) for name, modules in FOREIGN.items() for module in modules} == set()


PROGRAM_STARTERS = {"subprocess", "multiprocessing", "pty", "ctypes", "_posixsubprocess"}
OS_STARTERS = ("exec", "spawn", "posix_spawn", "fork", "popen", "system", "startfile")


def test_only_one_module_starts_programs() -> None:
    starters = {module: names for module in MODULES if (names := _starters(module))}
    assert starters == {"fs.program": {"subprocess"}}


def _starters(module: str) -> set[str]:
    tree = tree_of(module)
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_os(node.value)}
    names |= {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "posix", "asyncio")
        for alias in node.names
    }
    starters = {name for name in names if name.startswith((*OS_STARTERS, "create_subprocess"))}
    return starters | (imports(module) & PROGRAM_STARTERS)


def _is_os(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id in ("os", "posix", "asyncio")


def needs(module: str) -> set[str]:
    """Return everything that `module` imports, directly or not."""
    names: set[str] = set()
    waiting = [module]
    while waiting:
        new = imports(waiting.pop()) - names
        names |= new
        waiting += new & MODULES.keys()
    return names


@pytest.mark.parametrize("module", ["inject.inject", "archive.verify"])
def test_the_offline_half_needs_no_network(module: str) -> None:
    assert needs("cli.commands.prefetch") >= NETWORK, "a name that nothing imports"
    assert not needs(module) & NETWORK


def test_the_command_line_loads_libraries_only_when_needed() -> None:
    script = "import sys, osc_containers.cli.main, osc_containers.cli.services; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert "osc_containers.cli.services" in loaded
    assert not {"lxml", "urllib3", "ssl", "osc_containers.registry.client"} & set(loaded)


def test_a_prefetch_loads_nothing_of_signatures_and_sboms() -> None:
    """What a policy that accepts anything needs is measured in `tests/evidence/test_package.py`."""
    script = "import sys; from osc_containers.cli import modules, services; modules.load_network(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    ours = {name.removeprefix("osc_containers.") for name in loaded if name.startswith("osc_containers.")}
    assert "prefetch.prefetch" in ours
    needed = {"evidence", "evidence.policy", "evidence.policy.locations"}
    assert {name for name in ours if folder(name) in ("evidence", "inject", "checks")} == needed
    assert "yaml" not in loaded
