"""Attacks on people who work with packages that others wrote, and on the images built from them.

Each attack is a test. Its docstring says who attacks and what must hold; a successful attack raises `victim.Harm`.
`OPEN` lists the attacks that still succeed. They are expected to fail, and a fix has to remove its line.

    make redteam                                   run all attacks and print a table of the results
    python -m tests.redteam.test_attacks --list    print the attacks
"""

import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import pytest

from osc_containers.lock import lockfile
from osc_containers.oci.digest import Digest
from osc_containers.prefetch.plan import archive_files, jobs_of
from tests.support import faults, images, packages
from tests.support.fault_registry import Answer, Fault, FaultRegistry, serve
from tests.support.images import Image
from tests.support.service_program import snapshot
from tests.support.sink import listen, own_network
from tests.support.victim import NOBODY, SECRET, Done, Harm, Victim, files_of, must

pytestmark = pytest.mark.integration

OPEN: dict[str, str] = {}
"""Attacks that succeed, and why: how the names of the tests begin, after `test_`; whole names and parameters."""


@pytest.fixture(autouse=True)
def _expect_open_attacks_to_succeed(request: pytest.FixtureRequest) -> None:
    name = request.node.name.removeprefix("test_") + "-"
    for start, reason in OPEN.items():
        if name.startswith(start) and name[len(start)] in "[]- ":
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True, raises=Harm))


ROOT = Path(__file__).resolve().parents[2]
APP = 'name="app" path="team" tag="1"'
IMAGE = images.small("app")
LAYOUTS = "/var/lib/kiwi_containers/layouts"
LAYOUT = f"{LAYOUTS}/app_1"


@pytest.fixture(scope="session")
def shared() -> Iterator[FaultRegistry]:
    """Give a registry that lives as long as the packages that were made from it; each has a repository of its own."""
    with serve() as registry:
        yield registry


@pytest.fixture(scope="session")
def _prefetched(shared: FaultRegistry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    maker = Victim(tmp_path_factory.mktemp("prefetched"))
    shared.push(IMAGE, "team/app:1")
    maker.write_package(packages.section(shared.host, APP))
    maker.run("prefetch").succeeded()
    return maker.package


@pytest.fixture
def package(victim: Victim, _prefetched: Path) -> Path:
    """Give the victim's package, with lock and archive of one image."""
    shutil.copytree(_prefetched, victim.package)
    return victim.package


def read_lock(package: Path) -> dict[str, Any]:
    """Read the lock of a package."""
    found: dict[str, Any] = json.loads((package / "containers.lock").read_text())
    return found


def write_lock(package: Path, lock: dict[str, Any]) -> None:
    """Write the lock of a package as we do."""
    (package / "containers.lock").write_text(json.dumps(lock, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def archive_of(package: Path) -> Path:
    """Return the only archive of a package."""
    (path,) = package.glob("*.ociarchive")
    return path


# Programs: what git, osc and others are made to run


def write_repository(directory: Path, settings: str) -> None:
    """Write a git repository that lacks an object, which git then fetches as `settings` say."""
    (directory / "refs/heads").mkdir(parents=True)
    (directory / "objects").mkdir()
    (directory / "HEAD").write_text("ref: refs/heads/main\n")
    (directory / "refs/heads/main").write_text("12" * 20 + "\n")
    (directory / "config").write_text(
        "[core]\nrepositoryformatversion = 1\n[extensions]\npartialClone = origin\n"
        f'[remote "origin"]\npromisor = true\n{settings}'
    )


FETCHES = {
    "uploadpack": 'url = "{here}"\nuploadpack = "{trap};"\n',
    "sshCommand": 'url = "ssh://example.com/x"\n[core]\nsshCommand = "{trap};"\n',
    "ext": 'url = "ext::{file} x"\n[protocol "ext"]\nallow = always\n',
    "gitProxy": 'url = "git://127.0.0.1/x"\n[core]\ngitProxy = {file}\n',
    "credential": 'url = "{web}/x"\n[credential]\nhelper = "!{trap};"\n',
    "askPass": 'url = "{web}/x"\n[core]\naskPass = {file}\n',
    "include": 'url = "{here}"\n[include]\npath = {more}\n',
}
"""Ways in which a configuration of git names a command that a fetch runs."""


@pytest.mark.parametrize(
    ("place", "how", "revision"),
    [
        *(("bare", how, "") for how in FETCHES),
        *((".git", how, "") for how in ("uploadpack", "sshCommand", "credential")),
        *(("bare", "uploadpack", revision) for revision in ("main", "12" * 20, "HEAD~1")),
        ("gitfile", "uploadpack", ""),
        ("above", "ext", ""),
    ],
)
def test_git_fetches_by_a_command(victim: Victim, package: Path, place: str, how: str, revision: str) -> None:
    """A merge request or tarball holds a git repository whose fetch runs a command: `diff` does not run it."""
    where = {"bare": package, ".git": package / ".git", "above": victim.directory / ".git"}
    repository = where.get(place, package / "hidden")
    (victim.directory / "more").write_text(f'[remote "origin"]\nuploadpack = "{victim.trap()};"\n')
    with listen(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'}) as sink:
        words = {"trap": victim.trap(), "file": victim.trap_program(victim.directory / "trap"), "web": sink.url}
        settings = FETCHES[how].format(here=repository, more=victim.directory / "more", **words)
        write_repository(repository, settings)
        if place == "gitfile":
            (package / ".git").write_text("gitdir: hidden\n")
        if place == "bare":
            victim.git("init", "-q", directory=victim.directory)
        done = victim.run("diff", *([revision] if revision else []))
        if place != "bare" or revision:  # the repository around a bare one has no commits, to which all is new
            done.refused()


@pytest.mark.parametrize("command", ["check", "verify", "outdated", "prefetch --locked", "init --no-prefetch", "list"])
def test_git_repository_in_other_commands(victim: Victim, package: Path, command: str) -> None:
    """The same repository, and the victim runs another command than `diff`: nothing runs."""
    victim.git("init", "-q", directory=victim.directory)
    write_repository(package, f'url = "{package}"\nuploadpack = "{victim.trap()};"\n')
    victim.run(*command.split())


CONFIGURED = """[core]
fsmonitor = "{trap};"
hooksPath = {hooks}
pager = "{trap};"
editor = "{trap};"
alternateRefsCommand = "{trap};"
[diff]
external = "{trap};"
[diff "x"]
textconv = "{trap};"
command = "{trap};"
[filter "x"]
smudge = "{trap};"
clean = "{trap};"
process = "{trap};"
required = true
[alias]
rev-parse = "!{trap};"
ls-tree = "!{trap};"
cat-file = "!{trap};"
[pager]
rev-parse = "{trap};"
ls-tree = "{trap};"
cat-file = "{trap};"
[gpg]
program = {file}
[log]
showSignature = true
[trace2]
eventTarget = {outside}/trace
"""


@pytest.mark.parametrize("revision", ["", "HEAD", "main"])
def test_git_configuration_and_attributes(victim: Victim, package: Path, revision: str) -> None:
    """A tarball's `.git` sets every command that git knows: `diff` compares, and runs none of them."""
    victim.commit()
    hooks = package / ".git/hooks"
    for name in ("post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc"):
        victim.trap_program(hooks / name)
    file = victim.trap_program(victim.directory / "trap")
    settings = CONFIGURED.format(trap=victim.trap(), hooks=hooks, file=file, outside=victim.outside)
    with (package / ".git/config").open("a") as config:
        config.write(settings)
    (package / ".gitattributes").write_text("* filter=x diff=x\n")
    (package / ".git/info/attributes").write_text("* filter=x diff=x\n")
    victim.run("diff", *([revision] if revision else [])).succeeded()


def test_git_repository_of_another_user(victim: Victim, package: Path) -> None:
    """Another user makes a repository above the package, as in /tmp: `diff` does not use it."""
    write_repository(victim.directory / ".git", f'url = "{package}"\nuploadpack = "{victim.trap()};"\n')
    give_away(victim.directory / ".git")
    victim.run("diff").refused()


def give_away(path: Path) -> None:
    """Make another user own a file, or a directory with all that is in it."""
    for each in (path, *path.rglob("*")):
        os.chown(each, NOBODY, NOBODY, follow_symlinks=False)


@pytest.mark.parametrize("revision", ["--output=x", "-p", "HEAD:../x", "@{-1}", ":/x", "a\nb", "\x1b[2J", "x" * 5000])
def test_git_revision(victim: Victim, package: Path, revision: str) -> None:
    """A script passes on a revision that an attacker chose: it is no option of git, and drives no terminal."""
    victim.commit()
    victim.run("diff", "--", revision).refused()


@pytest.mark.parametrize(
    ("element", "name", "command"),
    [
        ("", "git", "diff HEAD"),
        (".", "git", "diff HEAD"),
        ("bin", "git", "diff HEAD"),
        ("", "osc", "diff 7"),
        ("", "skopeo", "prefetch --allow-local-sources"),
        ("", "sh", "diff HEAD"),
    ],
)
def test_program_of_the_package_by_path(victim: Victim, package: Path, element: str, name: str, command: str) -> None:
    """The victim's PATH has a relative element, and the package a program of that name: it does not run."""
    if name == "skopeo":
        sections = packages.section("containers-storage:", 'name="x" path="localhost"')
        (package / "containers.xml").write_text(packages.CONTAINERS.format(sections=sections))
    if name == "osc":
        write_osc(victim, STORE)
        (victim.bin / "osc").unlink()
    else:
        victim.commit()
    victim.trap_program(package / element / name)
    victim.run(*command.split(), environment={"PATH": f"{element}:{victim.environment['PATH']}"})


def test_credential_helper_of_the_package_by_path(victim: Victim, registry: FaultRegistry) -> None:
    """The same, and the program that keeps the victim's login is not installed: that of the package does not run."""
    registry.push(IMAGE, "team/app:1")
    registry.auth, registry.users = "basic", {"ann": SECRET}
    victim.log_in(registry.host, helper=True)
    victim.write_package(packages.section(registry.host, APP))
    (victim.bin / "docker-credential-vault").unlink()
    victim.trap_program(victim.package / "docker-credential-vault")
    victim.run("prefetch", environment={"PATH": f":{victim.environment['PATH']}"}).refused()


@pytest.mark.parametrize(
    ("value", "module"),
    [
        *(("", module) for module in ("osc_containers", "json", "argparse", "sitecustomize")),
        *((value, "osc_containers") for value in (":", ".", "relative")),
    ],
)
def test_modules_of_the_package_by_pythonpath(victim: Victim, value: str, module: str) -> None:
    """PYTHONPATH has an empty or relative element, and the package a module: the script that pip made runs none."""
    victim.write_package(packages.section("registry.example.com", APP))
    folder = victim.package / (value if value == "relative" else "")
    code = f"open({str(victim.traps / module)!r}, 'w')\n"
    (folder / module).mkdir(parents=True)
    (folder / module / "__init__.py").write_text(code)
    path = {"PYTHONPATH": f"{value}:/nowhere"}
    victim.run("list", program=[Path(sys.executable).with_name("osc-containers")], environment=path)


PYTHON = {"PYTHONSTARTUP": "{}/evil.py", "PYTHONHOME": "{}", "PYTHONUSERBASE": "{}", "PYTHONPATH": "{}"}


@pytest.mark.parametrize("front", ["scripts/osc-containers", "service/kiwi_containers"])
def test_modules_of_the_package(victim: Victim, front: str) -> None:
    """A package holds modules called like those that we import: no front door imports them."""
    victim.write_package(packages.section("registry.invalid", APP))
    for module in ("osc_containers", "requests", "urllib3", "lxml", "json", "logging", "platformdirs", "rich", "six"):
        (victim.package / f"{module}.py").write_text(f"open({str(victim.traps / module)!r}, 'w')\n")
    environment = {name: value.format(victim.package) for name, value in PYTHON.items()}
    victim.run("--help", program=[sys.executable, "-I", ROOT / front], environment=environment).succeeded()
    command = ["--outdir", "."] if front.startswith("service") else ["list"]
    victim.run(*command, program=[sys.executable, "-I", ROOT / front], environment=environment, patience=200)


def test_plugin_finds_a_program_of_the_package(victim: Victim) -> None:
    """PATH has an empty element, and the package a program `osc-containers`: the plugin does not run it."""
    victim.write_package(packages.section("registry.example.com", APP))
    victim.trap_program(victim.package / "osc-containers")
    plugin = ROOT / "plugin/containers.py"
    shutil.copy(plugin, victim.home / ".local")  # nothing of ours is beside it
    code = (
        "import sys, types; osc = types.ModuleType('osc.commandline'); osc.OscCommand = type('OscCommand', (), {});"
        f"sys.modules['osc.commandline'] = osc; exec(compile(open({str(plugin)!r}).read(), '/nowhere/x.py', 'exec'),"
        "globals() | {'__file__': '/nowhere/lib/x.py'}); "
        "osc.OscCommand.__subclasses__()[0]().run(types.SimpleNamespace(containers_help=False, arguments=['list']))"
    )
    victim.run(program=[sys.executable, "-I", "-c", code], environment={"PATH": ":/usr/bin:/bin"})


# Programs: osc


STORE = {"_apiurl": "https://api.opensuse.org", "_project": "home:ann", "_package": "app"}


def write_osc(victim: Victim, files: Mapping[str, str]) -> Path:
    """Write a working copy of osc, and an osc of the victim that must not run."""
    directory = victim.package / ".osc"
    directory.mkdir()
    for name, text in files.items():
        (directory / name).write_text(f"{text}\n")
    victim.trap_program(victim.bin / "osc")
    configuration = victim.home / ".config/osc/oscrc"
    configuration.parent.mkdir(parents=True, exist_ok=True)
    api = "https://api.opensuse.org"
    configuration.write_text(f"[general]\napiurl = {api}\n[{api}]\nuser = ann\npass = {SECRET}\n")
    victim.keep()
    return directory


STORES = {
    "option for the project": {"_project": "--config=evil.oscrc"},
    "option for the package": {"_package": "--config=evil.oscrc"},
    "option for the server": {"_apiurl": "--config=evil.oscrc"},
    "short option": {"_project": "-A", "_package": "http://127.0.0.1:1/x"},
    "other server": {"_apiurl": "http://127.0.0.1:1"},
    "server by a prefix": {"_apiurl": "https://api.opensuse.org.example.com"},
    "server by a user name": {"_apiurl": "https://api.opensuse.org@example.com"},
    "server without TLS": {"_apiurl": "http://api.opensuse.org"},
    "other path": {"_project": "../../public/source"},
    "escaped path": {"_package": "%2e%2e/%2e%2e"},
    "query": {"_package": "app?cmd=branch"},
    "several lines": {"_project": "home:ann\n--config=evil.oscrc"},
    "nothing": {"_project": ""},
    "terminal": {"_project": "\x1b[2Jhome"},
}


@pytest.mark.parametrize("kind", STORES)
def test_osc_is_told_by_the_package(victim: Victim, package: Path, kind: str) -> None:
    """A checkout has an `.osc` of its own that says other things than names: osc does not even start."""
    write_osc(victim, STORE | STORES[kind])
    (package / "evil.oscrc").write_text("[general]\napiurl = http://127.0.0.1:1\n")
    victim.run("diff", "7").refused()


@pytest.mark.parametrize("revision", ["-1", "7 --config=x", "7\n8", "latest&x=1", "9" * 5000, "--help"])
def test_osc_revision(victim: Victim, package: Path, revision: str) -> None:
    """A script passes on a revision that an attacker chose: it does not reach osc."""
    write_osc(victim, STORE)
    victim.run("diff", "--", revision).refused()


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "link") for name in STORE), ("_apiurl", "pipe"), ("_project", "pipe"), ("_package", "device")],
)
def test_osc_file_that_is_none(victim: Victim, package: Path, name: str, kind: str) -> None:
    """A file in `.osc` is a link to a secret, a pipe or a device: `diff` neither passes it on nor hangs."""
    path = write_osc(victim, STORE) / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(victim.home / ".ssh/id_ed25519" if kind == "link" else "/dev/zero")
    limit = ["prlimit", "--as=1000000000"]
    victim.run("diff", "7", within=limit, patience=10).refused()


def test_osc_signs_for_another_server(victim: Victim, package: Path) -> None:
    """The real osc is led to the attacker's server with the victim's SSH key: nothing is signed or sent."""
    challenge = {"WWW-Authenticate": 'Signature realm="Use your developer account",headers="(created)"'}
    with listen(status=401, headers=challenge) as sink:
        store = {"_apiurl": sink.url, "_project": "--config=evil.oscrc", "_package": "home:ann/app"}
        write_osc(victim, store)
        victim.program("osc", f'#!/bin/sh\nexec {Path(sys.executable).with_name("osc")} "$@"\n')
        victim.trap_program(victim.bin / "ssh-keygen")
        configuration = (
            f"apiurl = {sink.url}\n[{sink.url}]\nuser = ann\npass = x\nsshkey = id_ed25519\nallow_http = 1\n"
        )
        (package / "evil.oscrc").write_text(f"[general]\n{configuration}")
        victim.run("diff", "7").refused()
        must(not sink.received, "the attacker's server must not be asked")


@pytest.mark.parametrize("tracked", ["tracked", "ignored"])
def test_osc_hides_what_git_shows(victim: Victim, package: Path, tracked: str) -> None:
    """A merge request adds an `.osc` with the new lock as the old one: `diff` compares with git's, and warns."""
    new = (package / "containers.lock").read_bytes()
    write_lock(package, read_lock(package) | {"containers": {}})
    victim.commit()
    (package / "containers.lock").write_bytes(new)
    directory = write_osc(victim, STORE)
    (directory / "sources").mkdir()
    for place in (directory, directory / "sources"):
        (place / "containers.lock").write_bytes(new)
    if tracked == "tracked":
        victim.git("add", "-f", ".osc")
    done = victim.run("diff")
    must("team/app:1" in done.output, "diff must show what changed since the last commit of git")
    must(".osc" in done.output, "a warning must name the .osc that is ignored")


# The chain of proof


CHAINS = ("index", "manifest", "pinned", "pinned, and the lock says so", "one architecture")


def forge(maker: Victim, registry: FaultRegistry, kind: str) -> tuple[Path, Image]:
    """Make a package whose lock names the digest of a good image, with all else of an evil one; return it and the good.

    The registry has the good image.
    """
    evil, good = (
        images.small(name) if kind == "manifest" else images.multi_platform(name) for name in ("evil", "good")
    )
    name = f"{CHAINS.index(kind)}/app:1"
    registry.push(evil, name)
    container = f'name="app" path="{CHAINS.index(kind)}" tag="1"'
    package = maker.write_package(packages.section(registry.host, container))
    maker.run("prefetch").succeeded()
    registry.push(good, name)
    ((reference, entry),) = read_lock(package)["containers"].items()
    if kind == "one architecture":
        evil_archive = archive_of(package)
        saved = evil_archive.read_bytes()
        maker.write_service("aarch64")
        maker.run("prefetch").succeeded()
        evil_archive.write_bytes(saved)
        maker.write_service("x86_64", "aarch64")
        lock = read_lock(package)
        lock["containers"][reference]["architectures"] |= entry["architectures"]
        write_lock(package, lock)
        return package, good
    if kind.startswith("pinned"):
        reference = f"{reference}@{good.digest}"
        sections = packages.section(registry.host, container.replace('"1"', f'"1@{good.digest}"'))
        (package / "containers.xml").write_text(packages.CONTAINERS.format(sections=sections))
    if kind != "pinned, and the lock says so":
        entry |= {"digest": str(good.digest), "mediaType": good.media_type}
    write_lock(package, read_lock(package) | {"containers": {reference: entry}})
    return package, good


@pytest.fixture(scope="session")
def _forged(shared: FaultRegistry, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Image]]:
    return cache(lambda kind: forge(Victim(tmp_path_factory.mktemp("forged")), shared, kind))


Forged = Callable[[str], Image]


@pytest.fixture
def forged(victim: Victim, _forged: Callable[[str], tuple[Path, Image]]) -> Forged:
    """Give a function that makes the victim's package a forged one, and returns the image that it should have."""

    def make(kind: str) -> Image:
        package, good = _forged(kind)
        shutil.copytree(package, victim.package)
        return good

    return make


@pytest.mark.parametrize("kind", CHAINS)
@pytest.mark.parametrize("command", ["verify", "prefetch --locked", "inject", "service", "outdated"])
def test_lock_with_another_image_is_accepted(victim: Victim, forged: Forged, kind: str, command: str) -> None:
    """A merge request changes all of a lock but the digest that people look at: every command refuses it."""
    forged(kind)
    if command == "inject":
        root = victim.directory / "root"
        root.mkdir()
        victim.run("inject", "--root", root, "--arch", "x86_64").refused()
        must(not list(files_of(root)), "nothing may be injected")
    elif command == "service":
        victim.service(name="kiwi_containers_inject").refused()
    else:
        victim.run(*command.split()).refused()


@pytest.mark.parametrize("kind", CHAINS)
def test_lock_with_another_image_stays(victim: Victim, forged: Forged, kind: str) -> None:
    """The same, and the packager runs the prefetch: the lock then has the good image, or the run is refused."""
    good = forged(kind)
    if victim.run("prefetch").status == 0:
        text = (victim.package / "containers.lock").read_text()
        (x86_64,) = (part for part in good.manifests() if part.platform == images.AMD64)
        must(str(x86_64.digest) in text, "the image that the lock names must be fetched")
        victim.run("verify").succeeded()


# The bundle, which a build unpacks without looking


@pytest.fixture(scope="session")
def _bundled(shared: FaultRegistry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    maker = Victim(tmp_path_factory.mktemp("bundled"))
    shared.push(IMAGE, "team/app:1")
    package = maker.write_package(packages.section(shared.host, APP))
    (package / "_service").unlink()
    text = (package / "appliance.kiwi").read_text().replace('    <include from="this://./containers.xml"/>\n', "")
    (package / "appliance.kiwi").write_text(text)
    service = '<service name="kiwi_containers" mode="manual">{}</service>'
    parameters = {"description": "containers.xml", "arch": "x86_64", "inject": "source"}
    listed = "".join(f'<param name="{name}">{value}</param>' for name, value in parameters.items())
    (package / "_service").write_text(f"<services>{service.format(listed)}</services>\n")
    maker.run("prefetch").succeeded()
    maker.run("verify").succeeded()
    maker.run("check").succeeded()
    return package


@pytest.fixture
def bundled(victim: Victim, _bundled: Path) -> Path:
    """Give the victim's package, with a bundle."""
    shutil.copytree(_bundled, victim.package)
    return victim.package


def cpio(path: str, mode: int, content: bytes = b"", *, links: int = 1, inode: int = 900) -> bytes:
    """Return a member of a cpio archive."""
    name = path.encode() + b"\0"
    fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


FILE, LINK, DEVICE = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777, stat.S_IFCHR | 0o666
LOADER = "root/usr/libexec/kiwi_containers/load"


def added(member: bytes) -> Callable[[bytes], bytes]:
    """Return what puts a member at the end of a cpio archive."""
    trailer = cpio("TRAILER!!!", 0, inode=0)
    return lambda old: old[: -len(trailer)] + member + trailer


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Return what replaces some bytes by as many others."""
    assert len(old) == len(new)

    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return change


BUNDLES: dict[str, Callable[[bytes], bytes]] = {
    "line of the loader": replaced(b'rm -rf -- "$layout"', b'sh -ec -- "$layout"'),
    "line of a unit": replaced(b"RemainAfterExit=yes", b"ExecStopPost=/x.sh "),
    "file": added(cpio("root/etc/cron.d/evil", FILE, b"* * * * * root id\n")),
    "script of kiwi": added(cpio("config.sh", FILE | 0o755, b"id\n")),
    "path outside": added(cpio("../../x", FILE, b"id\n")),
    "absolute path": added(cpio("/etc/cron.d/evil", FILE, b"id\n")),
    "link": added(cpio("root/etc", LINK, b"/etc")),
    "device": added(cpio("root/dev/sda", DEVICE)),
    "second loader": added(cpio(LOADER, FILE | 0o755, b"id\n")),
    "mode of the loader": lambda old: old.replace(b"000081ED", b"000089ED", 1),
    "behind the end": lambda old: old + cpio("config.sh", FILE, b"id\n"),
    "before the beginning": lambda old: cpio("config.sh", FILE, b"id\n") + old,
    "old format": lambda old: b"070707" + old[6:],
    "cut": lambda old: old[: len(old) // 2],
}


@pytest.mark.parametrize("command", ["verify", "check"])
@pytest.mark.parametrize("kind", BUNDLES)
def test_bundle_with_something_else(victim: Victim, bundled: Path, kind: str, command: str) -> None:
    """A merge request changes the bundle, which no reviewer can read: `verify` and `check` find it."""
    path = bundled / "kiwi_containers.obscpio"
    old = path.read_bytes()
    path.write_bytes(BUNDLES[kind](old))
    assert path.read_bytes() != old
    victim.run(command).refused()


@pytest.mark.parametrize("command", ["verify", "check"])
def test_bundle_where_there_is_none(victim: Victim, package: Path, command: str) -> None:
    """A merge request adds a bundle to a package whose containers a service injects: it is a finding."""
    bundle = cpio("root/etc/cron.d/evil", FILE, b"id\n") + cpio("TRAILER!!!", 0, inode=0)
    (package / "kiwi_containers.obscpio").write_bytes(bundle)
    must("kiwi_containers.obscpio" in victim.run(command).output, "the bundle must be named")


def test_other_archive_with_a_script_whose_name_goes_on(victim: Victim, package: Path) -> None:
    """A merge request adds an archive whose names have a NUL in them, where cpio ends a name: `check` names it."""
    other = cpio("config.sh\0.txt", FILE | 0o755, b"id\n") + cpio("TRAILER!!!", 0, inode=0)
    (package / "tool.obscpio").write_bytes(other)
    must("tool.obscpio" in victim.run("check").output, "the archive must be named")


def test_other_archive_with_a_link_to_the_overlay(victim: Victim, package: Path) -> None:
    """A merge request adds an archive that is unpacked to the overlay through its own link: `check` names it."""
    link, file = cpio("lib", LINK, b"root"), cpio("lib/etc/cron.d/evil", FILE, b"id\n", inode=901)
    (package / "tool.obscpio").write_bytes(link + file + cpio("TRAILER!!!", 0, inode=0))
    must("tool.obscpio" in victim.run("check").output, "the archive must be named")


# Injecting as root


def stopped_at(victim: Victim, appears: Path, command: list[str | Path], act: Callable[[], None]) -> Done:
    """Let the attacker act when a file has appeared: the victim's terminal is stopped, so that the command waits.

    It waits when it writes its first line, to a pipe that is full.
    """
    reading, writing = os.pipe()
    filler = bytes(fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096))
    os.write(writing, filler)
    program = [sys.executable, "-I", ROOT / "scripts/osc-containers", *command]
    with subprocess.Popen(
        program, cwd=victim.package, env=victim.environment, stdout=writing, stderr=writing
    ) as process:
        os.close(writing)
        deadline = time.monotonic() + 20
        while not appears.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        act()
        with open(reading, "rb") as pipe:
            output = pipe.read()[len(filler) :].decode()
    victim.check(output)
    return Done(process.returncode, output)


@pytest.mark.parametrize("kind", ["file", "link", "link to a directory", "directory"])
def test_inject_while_an_archive_is_swapped(victim: Victim, package: Path, kind: str) -> None:
    """A local user swaps an archive between its check and its use: nothing but the locked bytes gets into the image."""
    (victim.home / "private.tar").write_text(SECRET)
    victim.keep()
    path = archive_of(package)
    root = victim.directory / "root"
    root.mkdir()

    def swap() -> None:
        spare = victim.directory / "spare"
        if kind == "file":
            spare.write_bytes(b"evil")
            spare.rename(path)
        elif kind == "link":
            spare.symlink_to(victim.home / "private.tar")
            spare.rename(path)
        else:
            package.rename(victim.directory / "old")
            evil = victim.directory / "evil"
            evil.mkdir()
            (evil / path.name).write_bytes(b"evil")
            if kind == "directory":
                evil.rename(package)
            else:
                package.symlink_to(evil)

    stopped_at(victim, root / "usr/lib", ["inject", "--root", root, "--arch", "x86_64", victim.package], swap)
    blobs = [each for each in files_of(root) if each.parent.name == "sha256"]
    must(bool(blobs), "the verified archive is still open, so its blobs are written")
    for each in blobs:
        must(
            hashlib.sha256(each.read_bytes()).hexdigest() == each.name, "only what was verified may get into the image"
        )


@pytest.mark.parametrize(
    "kind", ["directory of another", "open directory", "archive of another", "open archive", "second name"]
)
def test_inject_links_what_others_can_change(victim: Victim, package: Path, kind: str) -> None:
    """Whoever can write to package or archive: the image gets copies, and no link to a file that can change."""
    path = archive_of(package)
    if kind == "directory of another":
        os.chown(package, NOBODY, NOBODY)
    elif kind == "open directory":
        package.chmod(0o777)
    elif kind == "archive of another":
        os.chown(path, NOBODY, NOBODY)
    elif kind == "open archive":
        path.chmod(0o666)
    else:
        os.link(path, victim.directory / "second")
    root = victim.directory / "root"
    root.mkdir()
    victim.run("inject", "--root", root, "--arch", "x86_64").succeeded()
    for each in files_of(root):
        status = each.lstat()
        must(status.st_nlink == 1, f"{each.name} must be a copy")
        must((status.st_uid, status.st_mode & 0o022) == (0, 0), f"{each.name} must be root's alone")


TREES = (
    "var",
    "var/lib",
    "var/lib/kiwi_containers",
    "usr",
    "usr/lib",
    "usr/lib/systemd",
    "usr/lib/systemd/system",
    "usr/libexec",
    "usr/lib/tmpfiles.d",
)


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        *((where, "absolute") for where in TREES),
        *(("var", kind) for kind in ("relative", "chain")),
        *(("usr/lib/systemd/system", kind) for kind in ("relative", "chain")),
    ],
)
def test_inject_into_a_tree_with_links(victim: Victim, package: Path, where: str, kind: str) -> None:
    """The root tree has a link in the place of a directory, which leads out of it: nothing is written outside."""
    root = victim.directory / "root"
    link = root / where
    link.parent.mkdir(parents=True)
    target = {"absolute": str(victim.outside), "relative": "../" * 20 + str(victim.outside)[1:], "chain": "/etc/hop"}
    link.symlink_to(target[kind])
    if kind == "chain":
        (root / "etc").mkdir()
        (root / "etc/hop").symlink_to(f"../../../../../../..{victim.outside}")
    victim.run("inject", "--root", root, "--arch", "x86_64")


OBSTACLES: dict[str, Callable[[Path, Path], None]] = {
    "link": lambda path, outside: path.symlink_to(outside / "precious"),
    "dangling link": lambda path, outside: path.symlink_to(outside / "new"),
    "hard link": lambda path, outside: os.link(outside / "precious", path),
    "pipe": lambda path, _: os.mkfifo(path),
    "directory": lambda path, _: path.mkdir(),
}


@pytest.mark.parametrize("name", [f"{LAYOUT}/blobs/sha256/CONFIG", f"{LAYOUT}/index.json", LOADER.removeprefix("root")])
@pytest.mark.parametrize("kind", OBSTACLES)
def test_inject_onto_what_is_there(victim: Victim, package: Path, name: str, kind: str) -> None:
    """The root tree has a link, a pipe or a directory in the place of a file: it is replaced or refused, not used."""
    path = victim.directory / "root" / name.replace("CONFIG", config_of(package)).removeprefix("/")
    path.parent.mkdir(parents=True)
    OBSTACLES[kind](path, victim.outside)
    victim.run("inject", "--root", victim.directory / "root", "--arch", "x86_64", patience=20)


@pytest.mark.parametrize("at", ["usr/lib", "usr/lib/systemd/system", "usr/lib/tmpfiles.d"])
def test_inject_while_a_directory_becomes_a_link(victim: Victim, package: Path, at: str) -> None:
    """A local user puts a link in the place of a directory of the root tree meanwhile: nothing is written outside."""
    root = victim.directory / "root"
    root.mkdir()

    def swap() -> None:
        if (root / at).is_dir():
            (root / at).rename(victim.directory / "moved")
            (root / at).symlink_to(victim.outside)

    stopped_at(victim, root / "usr/lib", ["inject", "--root", root, "--arch", "x86_64"], swap)


# The booted image: root loads, other users are there


LOAD = """
mount -t tmpfs -o mode=0755 run /run
mount -t tmpfs -o mode=0755 lib /var/lib
mount -t tmpfs -o mode=1777 tmp /var/tmp
mount -t tmpfs -o mode=1777 shm /dev/shm
cd "$1"
mkdir -p /var/lib/kiwi_containers
cp -a root{layouts} /var/lib/kiwi_containers/
{attack}
PATH="$1/bin:$PATH" sh root/usr/libexec/kiwi_containers/load podman app_1 app 99 {digests}
echo "status $?"
{after}
"""
PODMAN = """#!/bin/sh
# An engine that keeps what it is told to load; while it starts, the attacker may be quick.
case $1 in
    info) mkdir -p /var/lib/containers; echo /var/lib/containers ;;
    image) [ ! -e "{directory}/loaded" ] || echo "{config} app @{manifest} " ;;
    pull) shift $(($# - 1)); setpriv --reuid 65534 --clear-groups sh -c '{quick}' 2>/dev/null
        cat "${{1#oci:}}"/blobs/sha256/* >"{directory}/loaded" ;;
esac
"""
USER = "setpriv --reuid 65534 --regid 65534 --clear-groups"


def config_of(package: Path) -> str:
    """Return the digest of the configuration of the only image, without algorithm."""
    ((_, entry),) = read_lock(package)["containers"].items()
    return str(entry["architectures"]["x86_64"]["config"]["digest"]).partition(":")[2]


class Booted:
    """An image whose containers root loads in a namespace of its own."""

    def __init__(self, victim: Victim, package: Path) -> None:
        self.victim = victim
        self.root = victim.directory / "root"
        self.root.mkdir()
        victim.run("inject", "--root", self.root, "--arch", "x86_64").succeeded()
        blobs = sorted((self.root / LAYOUT[1:] / "blobs/sha256").iterdir())
        self.good = b"".join(each.read_bytes() for each in blobs)
        ((_, entry),) = read_lock(package)["containers"].items()
        image = entry["architectures"]["x86_64"]
        self.config, self.manifest = str(image["config"]["digest"]), str(image["manifest"]["digest"])
        for each in (victim.directory, self.root):
            each.chmod(0o755)

    def load(self, attack: str, *, quick: str = ":", after: str = "") -> str:
        """Run the loader after an attack on its directories; return what was printed."""
        directory = self.victim.directory
        words = {"config": self.config.partition(":")[2], "manifest": self.manifest}
        self.victim.program("podman", PODMAN.format(directory=directory, quick=quick, **words))
        digests = f"{self.config} {self.manifest} {self.manifest}"
        script = LOAD.format(attack=attack, after=after, layouts=LAYOUTS, digests=digests)
        command: list[str | Path] = ["unshare", "--mount", "--net", "sh", "-c", script, "sh", directory]
        return self.victim.run(program=command, directory=directory).output

    def loaded(self) -> bytes | None:
        """Return what the engine got."""
        path = self.victim.directory / "loaded"
        return path.read_bytes() if path.exists() else None


@pytest.fixture
def booted(victim: Victim, package: Path) -> Booted:
    """Give an image that is about to load its container."""
    return Booted(victim, package)


def test_loader_works(booted: Booted) -> None:
    """There is no attack: the image is loaded, and its layout removed, so that the other tests show something."""
    done = booted.load("", after=f"ls -A {LAYOUTS}")
    assert "status 0" in done
    assert booted.loaded() == booted.good
    assert done.endswith("status 0\n")


BLOB = f"{LAYOUT}/blobs/sha256/$(cd {LAYOUT}/blobs/sha256 && ls | head -n 1)"
OWNED = {
    "directory of a user": f"chown 65534 {LAYOUT}",
    "directory of the blobs": f"chown 65534 {LAYOUT}/blobs/sha256",
    "directory that users can write": f"chmod 0777 {LAYOUT}/blobs",
    "directory of a group": f"chgrp 65534 {LAYOUTS}; chmod 0775 {LAYOUTS}",
    "link to a directory of a user": (
        f"{USER} cp -r {LAYOUT} /var/tmp/mine; rm -r {LAYOUT}; ln -s /var/tmp/mine {LAYOUT}"
    ),
    "file of a user": f'chown 65534 "{BLOB}"',
    "file that users can write": f'chmod 0666 "{BLOB}"',
    "link to a file of a user": f'{USER} cp "{BLOB}" /var/tmp/mine; ln -sf /var/tmp/mine "{BLOB}"',
    "pipe": f'blob="{BLOB}"; rm "$blob"; mkfifo "$blob"',
    "index of a user": f"chown 65534 {LAYOUT}/index.json",
}


@pytest.mark.parametrize("kind", OWNED)
def test_loader_takes_an_image_of_a_user(booted: Booted, kind: str) -> None:
    """A part of the layout is not root's alone, and could be swapped after its check: root loads nothing of it."""
    done = booted.load(OWNED[kind], quick=f"echo x > {LAYOUT}/index.json")
    must(booted.loaded() is None, f"root must load nothing that others can change: {done}")
    must("status 1" in done, "the loader must fail, and say why")


VICTIMS = "mkdir -p /var/lib/other/app_1; touch /var/lib/other/app_1/x; "
PLANTED = {
    "directory is a link": f"rm -r {LAYOUTS}; ln -s /var/lib/other {LAYOUTS}",
    "directory is a link, and the image is loaded": (
        f"rm -r {LAYOUTS}; ln -s /var/lib/other {LAYOUTS};echo CONFIG MANIFEST >/var/lib/kiwi_containers/podman-app_1"
    ),
    "layout is a link, and the image is loaded": (
        f"rm -r {LAYOUT}; ln -s /var/lib/other {LAYOUT}; echo CONFIG MANIFEST >/var/lib/kiwi_containers/podman-app_1"
    ),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_loader_removes_elsewhere(booted: Booted, kind: str) -> None:
    """There is a link in the place of a directory: root removes and writes nothing where it leads."""
    attack = PLANTED[kind].replace("CONFIG", booted.config).replace("MANIFEST", booted.manifest)
    done = booted.load(VICTIMS + attack, after="cd /var/lib/other && find . | sort | tr '\\n' ' '")
    must(". ./app_1 ./app_1/x" in done, f"nothing elsewhere may be removed: {done}")


@pytest.mark.parametrize("kind", ["user", "link"])
@pytest.mark.parametrize("where", ["/var/lib/kiwi_containers", "/run/kiwi_containers"])
def test_loader_trusts_a_state_of_a_user(booted: Booted, where: str, kind: str) -> None:
    """State or run-time directory is not root's: the loader writes nothing there, and believes nothing."""
    make = f"rm -rf {where}; mkdir -m 0777 {where}; chown 65534 {where}"
    if kind == "link":
        make = f"rm -rf {where}; mkdir -m 0777 /var/tmp/mine; chown 65534 /var/tmp/mine; ln -s /var/tmp/mine {where}"
    record = f"{make}; {USER} sh -c 'echo {booted.config} {booted.manifest} >{where}/podman-app_1'"
    done = booted.load(record, after=f"ls -A {where}/")
    must("status 1" in done, f"the loader must refuse a directory that is not root's: {done}")
    must(done.endswith("podman-app_1\n"), f"nothing may be written there: {done}")


@pytest.mark.parametrize("kind", ["new", "directory of a user"])
def test_tmpfiles_make_the_directory(victim: Victim, package: Path, kind: str) -> None:
    """A user may come first where the directory is missing: systemd-tmpfiles makes it early, root's and 0755."""
    root = victim.directory / "root"
    root.mkdir()
    for path in package.glob("*.xml"):
        path.write_text(path.read_text().replace(APP, f'{APP} fetch_only="true"'))
    victim.run("inject", "--root", root, "--arch", "x86_64").succeeded()
    directory = root / "var/tmp/kiwi_containers"
    shutil.rmtree(directory)
    if kind != "new":
        directory.mkdir(mode=0o777)
        os.chown(directory, NOBODY, NOBODY)
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    subprocess.run(["systemd-tmpfiles", "--create", f"--root={root}"], check=True, capture_output=True)
    must(directory.is_dir(), "systemd-tmpfiles must make the directory")
    status = directory.lstat()
    must((status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o755), "the directory must be root's, with mode 0755")


# Sources that are the victim's own


@pytest.fixture
def private(victim: Victim) -> Path:
    """Give a directory of the victim with a private image, `app:1`, in several forms."""
    directory = victim.home / "private"
    image = images.image(images.layer({"etc/secret": SECRET.encode()}, compression="none"))
    images.write_layout(image, directory / "app", "1")
    with tarfile.open(directory / "app.tar", "w") as tar:
        tar.add(directory / "app", ".")
    saved = directory / "saved"
    saved.mkdir()
    (saved / "config.json").write_bytes(image.blobs[0])
    (saved / "layer.tar").write_bytes(image.blobs[1])
    (saved / "manifest.json").write_text(
        json.dumps([{"Config": "config.json", "Layers": ["layer.tar"], "RepoTags": []}])
    )
    with tarfile.open(directory / "saved.tar", "w") as tar:
        for name in ("manifest.json", "config.json", "layer.tar"):
            tar.add(saved / name, name)
    copied = directory / "dir"
    copied.mkdir()
    (copied / "manifest.json").write_bytes(image.raw)
    for blob in image.blobs:
        (copied / hashlib.sha256(blob).hexdigest()).write_bytes(blob)
    victim.keep()
    return directory


OUTSIDE = {
    "layout": ("oci:{private}", 'name="app" tag="1"', ""),
    "layout beside the package": ("oci:..", 'path="home/private" name="app" tag="1"', ""),
    "layout by the path": ("oci:x", 'path="../../home/private" name="app" tag="1"', ""),
    "tar": ("oci-archive:{private}", 'name="app.tar" tag="1"', ""),
    "saved": ("docker-archive:{private}", 'name="saved.tar"', ""),
    "dir": ("dir:{private}", 'name="dir"', ""),
    "upper case": ("OCI:{private}", 'name="app" tag="1"', ""),
    "link to the directory": ("oci:images", 'name="app" tag="1"', "ln -s {private} images"),
    "link to the layout": ("oci:images", 'name="app" tag="1"', "mkdir images; ln -s {private}/app images/app"),
    "link to the blobs": (
        "oci:images",
        'name="app" tag="1"',
        "mkdir -p images/app; cp {private}/app/*.json images/app; ln -s {private}/app/blobs images/app",
    ),
    "links to each blob": (
        "oci:images",
        'name="app" tag="1"',
        "mkdir -p images/app/blobs/sha256; cp {private}/app/*.json images/app;"
        "ln -s {private}/app/blobs/sha256/* images/app/blobs/sha256",
    ),
    "link to the tar": ("oci-archive:images", 'name="x" tag="1"', "mkdir images; ln -s {private}/app.tar images/x"),
    "link to what was saved": ("docker-archive:i", 'name="x"', "mkdir i; ln -s ../../home/private/saved.tar i/x"),
    "link to a link": ("dir:i", 'name="x"', "mkdir i; ln -s y i/x; ln -s {private}/dir i/y"),
    "link of the kernel": ("dir:/proc/self/root{private}", 'name="dir"', ""),
}


@pytest.mark.parametrize(
    ("front", "kind"),
    [*(("prefetch", kind) for kind in OUTSIDE), ("service", "layout"), ("service", "link to the layout")],
)
def test_private_image_is_committed(victim: Victim, private: Path, front: str, kind: str) -> None:
    """A description names an image outside of the package: it is not fetched, and the option that it needs is named."""
    source, container, commands = OUTSIDE[kind]
    victim.write_package(packages.section(source.format(private=private), container))
    subprocess.run(["sh", "-ec", commands.format(private=private)], cwd=victim.package, check=True)
    done = victim.run("prefetch") if front == "prefetch" else victim.service()
    done.refused("--allow-local-sources")
    made = [
        path for path in (*victim.package.iterdir(), *victim.directory.glob("out/*")) if path.suffix == ".ociarchive"
    ]
    must(not made, "nothing may be fetched")


@pytest.mark.parametrize(
    ("front", "transport"),
    [
        ("prefetch", "containers-storage"),
        ("prefetch", "docker-daemon"),
        ("prefetch", "CONTAINERS-STORAGE"),
        ("service", "containers-storage"),
        ("init", "containers-storage"),
    ],
)
def test_private_image_of_an_engine(victim: Victim, front: str, transport: str) -> None:
    """A description names an image in the victim's own engine: skopeo is not even started."""
    victim.write_package(packages.section(f"{transport}:", 'name="private" path="localhost/corp"'))
    if front == "init":
        (victim.package / "_service").unlink()
    victim.trap_program(victim.bin / "skopeo")
    done = victim.service() if front == "service" else victim.run(front)
    done.refused("--allow-local-sources")


@pytest.mark.parametrize("command", ["check", "init --no-prefetch"])
@pytest.mark.parametrize("kind", ["layout", "link to the layout", "engine"])
def test_private_image_is_not_mentioned(victim: Victim, private: Path, kind: str, command: str) -> None:
    """The same, and the victim looks first: `check` and `init` warn that the image comes from this machine."""
    source, container, commands = OUTSIDE.get(kind, ("containers-storage:", 'name="private" path="localhost/corp"', ""))
    victim.write_package(packages.section(source.format(private=private), container))
    subprocess.run(["sh", "-ec", commands.format(private=private)], cwd=victim.package, check=True)
    victim.trap_program(victim.bin / "skopeo")
    must("this machine" in victim.run(*command.split()).output, "the warning must say 'this machine'")


def test_private_image_is_asked_for_in_service(victim: Victim, private: Path) -> None:
    """A package's `_service` allows what only the victim may allow: it is refused."""
    victim.write_package(packages.section(f"oci:{private}", 'name="app" tag="1"'))
    service = victim.package / "_service"
    parameter = '<param name="allow-local-sources">yes</param></service>'
    service.write_text(service.read_text().replace("</service>", parameter, 1))
    victim.run("prefetch").refused()
    victim.service("--allow-local-sources", "yes").refused()


@pytest.mark.parametrize("helper", [False, True], ids=["file", "helper"])
@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_image_comes_by_the_login_of_the_victim(
    victim: Victim, registry: FaultRegistry, auth: str, helper: bool
) -> None:
    """A description names an image that only the victim can pull: the line that tells of it says so."""
    registry.push(IMAGE, "team/app:1")
    registry.auth, registry.users, registry.allows_anonymous = auth, {"ann": SECRET}, False
    victim.log_in(registry.host, helper=helper)
    victim.write_package(packages.section(registry.host, APP))
    done = victim.run("prefetch")
    done.succeeded()
    must(f"with your login for {registry.host}" in done.output, f"the login must be mentioned: {done.output}")


CONTENTS = {
    "index.json is a link": "rm images/app/index.json; ln -s {private}/app/index.json images/app/index.json",
    "index.json is a pipe": "rm images/app/index.json; mkfifo images/app/index.json",
    "index.json is a device": "rm images/app/index.json; ln -s /dev/zero images/app/index.json",
    "blobs are pipes": "cd images/app/blobs/sha256; for blob in *; do rm $blob; mkfifo $blob; done",
    "a huge index": "truncate -s 100G images/app/index.json",
    "huge blobs": "truncate -s 100G images/app/blobs/sha256/*",
    "digests with a path": "sed -i 's,sha256:.,sha256:../../../../,' images/app/index.json",
    "no index": "rm images/app/index.json; mkdir images/app/index.json",
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_layout_in_the_package(victim: Victim, private: Path, kind: str) -> None:
    """A package holds an image layout whose files are other things: it is refused soon."""
    victim.write_package(packages.section("oci:images", 'name="app" tag="1"'))
    images.write_layout(IMAGE, victim.package / "images/app", "1")
    subprocess.run(["sh", "-ec", CONTENTS[kind].format(private=private)], cwd=victim.package, check=True)
    victim.run("prefetch", within=["prlimit", "--as=2000000000"], patience=20).refused()


def saved_archive(path: Path, **members: bytes | str) -> None:
    """Write an archive of `docker save`: contents are files, texts are links."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            if isinstance(content, str):
                member.type, member.linkname = (
                    (tarfile.LNKTYPE if content.startswith("=") else tarfile.SYMTYPE),
                    content.lstrip("="),
                )
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


LISTING = b'[{"Config": "config.json", "Layers": ["layer.tar"]}]'
SAVED: dict[str, dict[str, bytes | str]] = {
    "link outside": {"manifest_json": LISTING, "config_json": IMAGE.blobs[0], "layer_tar": "/etc/passwd"},
    "link upwards": {"manifest_json": LISTING, "config_json": IMAGE.blobs[0], "layer_tar": "../../../../etc/passwd"},
    "hard link outside": {"manifest_json": LISTING, "config_json": IMAGE.blobs[0], "layer_tar": "=/etc/passwd"},
    "links in a circle": {"manifest_json": LISTING, "config_json": "layer.tar", "layer_tar": "config.json"},
    "path outside": {"manifest_json": b'[{"Config": "../../../../etc/passwd", "Layers": ["/etc/passwd"]}]'},
    "no list": {"manifest_json": b'{"Config": {}}'},
    "deep": {"manifest_json": b"[" * 100_000},
    "nothing": {},
}


@pytest.mark.parametrize("kind", SAVED)
def test_saved_archive_in_the_package(victim: Victim, kind: str) -> None:
    """A package holds an archive whose members lead elsewhere: it is refused, and nothing else is read."""
    victim.write_package(packages.section("docker-archive:.", 'name="app.tar"'))
    saved_archive(victim.package / "app.tar", **SAVED[kind])
    victim.run("prefetch", patience=20).refused()


# Caches


def interrupted(victim: Victim, registry: FaultRegistry) -> Path:
    """Let a prefetch fail in the middle; return the part that it left in the cache."""
    image = images.image(images.random_layer("first", 400_000), images.random_layer("second", 400_000))
    registry.push(image, "team/app:1")
    victim.write_package(packages.section(registry.host, APP))
    last = str(Digest.of(image.blobs[-1]))
    registry.script = lambda request: faults.status(404) if request.path.endswith(last) else None
    victim.run("prefetch").refused()
    registry.script = lambda request: None
    (part,) = (victim.home / ".cache/osc-containers").glob("*.part")
    return part


def replace_by_link(path: Path, target: Path) -> None:
    """Move a file or directory, and put a link to it, of another user, in its place."""
    path.rename(target)
    path.symlink_to(target)
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


PARTS: dict[str, Callable[[Path, Path], None]] = {
    "part of another": lambda part, _: os.chown(part, NOBODY, NOBODY),
    "part with a second name": lambda part, outside: os.link(part, outside / "mine"),
    "open part": lambda part, _: part.chmod(0o666),
    "directory of another": lambda part, _: os.chown(part.parent, NOBODY, NOBODY),
    "open directory": lambda part, _: part.parent.chmod(0o777),
    "link to a part": lambda part, outside: replace_by_link(part, outside / "mine"),
}


@pytest.mark.parametrize("kind", PARTS)
def test_cache_of_another_user(victim: Victim, registry: FaultRegistry, kind: str) -> None:
    """A local user has prepared the cache: the archive of the package is no file that this user can change."""
    part = interrupted(victim, registry)
    inode = part.stat().st_ino
    PARTS[kind](part, victim.outside)
    victim.keep()
    before = registry.requests.copy()
    victim.run("prefetch").succeeded()
    status = archive_of(victim.package).lstat()
    must(status.st_uid == os.geteuid(), "the archive must be the victim's")
    must(status.st_nlink == 1, "the archive must have one name")
    must(stat.S_IMODE(status.st_mode) == 0o644, "the archive must have the mode 0644")
    must(status.st_ino != inode, "a file that another user may have open must not be used")
    assert len(registry.requests) > len(before)


SUMS: dict[str, Callable[[Path], None]] = {
    "sum of another": lambda path: os.chown(path, NOBODY, NOBODY),
    "open sum": lambda path: path.chmod(0o666),
    "sum with a second name": lambda path: os.link(path, path.parent.parent / "mine"),
    "sums of another": lambda path: os.chown(path.parent, NOBODY, NOBODY),
    "open sums": lambda path: path.parent.chmod(0o777),
    "cache of another": lambda path: os.chown(path.parent.parent, NOBODY, NOBODY),
    "link to sums": lambda path: replace_by_link(path.parent, path.parent.with_name("x")),
}


@pytest.mark.parametrize("kind", SUMS)
def test_remembered_sum_of_another_user(victim: Victim, package: Path, kind: str) -> None:
    """A local user says in the cache that a changed archive is the locked one: the prefetch makes it anew."""
    path = archive_of(package)
    good = path.read_bytes()
    layer = IMAGE.blobs[1]
    path.write_bytes(good.replace(layer, layer[:-1] + bytes([layer[-1] ^ 1])))
    assert path.read_bytes() != good
    status = path.stat()
    fields = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    memory = victim.home / ".cache/osc-containers/verified" / "-".join(f"{field:x}" for field in fields)
    memory.parent.mkdir(parents=True)
    lock = lockfile.loads((package / "containers.lock").read_text())
    memory.write_text(archive_files(jobs_of(lock))[0].key)
    SUMS[kind](memory)
    victim.run("prefetch").succeeded()
    must(archive_of(package).read_bytes() == good, "the changed archive must be made anew")


# Networks


INTERNAL = {
    "IPv4-compatible": "::7f00:1",
    "translated": "::ffff:0:7f00:1",
    "NAT64": "64:ff9b::7f00:1",
    "local NAT64": "64:ff9b:1::7f00:1",
    "NAT64 of the link": "64:ff9b::a9fe:a9fe",
    "6to4": "2002:7f00:1::",
    "6to4 of the link": "2002:a9fe:a9fe::1",
    "Teredo": "2001:0:7f00:1::80ff:fffe",
    "unique local": "fd00::1",
    "site local": "fec0::1",
    "metadata service": "fd00:ec2::254",
    "link local": "169.254.169.254",
    "loopback": "127.0.0.1",
}
WAYS = ("redirect of the manifest", "redirect of a blob", "token server")


def lead(victim: Victim, registry: FaultRegistry, way: str, url: str) -> None:
    """Let a registry, which the victim can log in to, lead to a URL; see what the prefetch sends there."""
    registry.push(IMAGE, "team/app:1")
    victim.log_in(registry.host)
    victim.write_package(packages.section(registry.host, APP))
    if way == "token server":
        registry.auth, registry.users, registry.realm = "bearer", {"ann": SECRET}, f"{url}/token"
    else:
        path = "/manifests/" if "manifest" in way else "/blobs/"
        registry.script = lambda request: (
            faults.status(307, {"Location": f"{url}{request.path}"}) if path in request.path else None
        )
    victim.run("prefetch", patience=60).refused()


@pytest.mark.parametrize(
    ("way", "kind"),
    [*(("redirect of a blob", kind) for kind in INTERNAL), *((way, "NAT64") for way in WAYS if "blob" not in way)],
)
def test_public_registry_leads_inside(victim: Victim, way: str, kind: str) -> None:
    """A registry of the internet leads to an address inside, in any spelling: nobody is asked there."""
    address = INTERNAL[kind]
    known = [address + ("/128" if ":" in address else "/32")] if kind != "loopback" else []
    with own_network("192.0.2.1/32", *known), serve(address="192.0.2.1") as registry, listen(address) as sink:
        victim.watch(lambda: sink.received)
        victim.allow_http(registry.host)
        lead(victim, registry, way, sink.url)
        must(not sink.received, f"nobody may be asked at {address}")


@pytest.mark.parametrize(
    ("way", "address"),
    [
        *((way, "169.254.169.254") for way in WAYS),
        *(("redirect of a blob", address) for address in ("192.0.2.1", "10.0.0.1", "2001:db8::1", "fd00::1")),
    ],
)
def test_registry_on_this_machine_leads_elsewhere(victim: Victim, way: str, address: str) -> None:
    """A registry on loopback, as anybody can start one, leads to another address: nobody is asked there."""
    known = address + ("/128" if ":" in address else "/32")
    with own_network(known), serve() as registry, listen(address) as sink:
        victim.watch(lambda: sink.received)
        lead(victim, registry, way, sink.url)
        must(not sink.received, f"nobody may be asked at {address}")


def test_name_that_leads_inside(victim: Victim) -> None:
    """A registry leads to a name whose address is one of this machine, in another spelling: nobody is asked there."""
    hosts = victim.directory / "hosts"
    hosts.write_text("192.0.2.1 registry.example\n::7f00:1 storage.example\n")
    script = 'mount --bind "$0" /etc/hosts; exec "$@"'
    internal = "::7f00:1"
    with (
        own_network("192.0.2.1/32", f"{internal}/128"),
        serve(address="192.0.2.1") as registry,
        listen(internal) as sink,
    ):
        name = registry.host.replace("192.0.2.1", "registry.example")
        victim.allow_http(name)
        registry.push(IMAGE, "team/app:1")
        victim.write_package(packages.section(name, APP))
        registry.blob_location = sink.url.replace(f"[{internal}]", "storage.example") + "/"
        victim.run("prefetch", within=["unshare", "--mount", "sh", "-ec", script, hosts]).refused()
        must(not sink.received, "nobody may be asked there")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_login_goes_elsewhere(victim: Victim, registry: FaultRegistry, way: str, auth: str) -> None:
    """A registry leads to another server of this machine: the login for the registry is not sent there."""
    registry.push(IMAGE, "team/app:1")
    registry.auth, registry.users, registry.allows_anonymous = auth, {"ann": SECRET}, False
    with listen() as sink:
        victim.watch(lambda: [] if way == "token server" else sink.received)
        victim.log_in(registry.host)
        victim.write_package(packages.section(registry.host, APP))
        path = "/manifests/" if "manifest" in way else "/blobs/"
        if way == "token server":
            registry.realm = f"{sink.url}/token"
        else:
            registry.script = lambda request: (
                faults.status(307, {"Location": f"{sink.url}{request.path}"})
                if path in request.path and "authorization" in request.headers
                else None
            )
        victim.run("prefetch", patience=100)
        tokens = [each for each in sink.received if b"Authorization" in each and b"/token" not in each]
        must(not tokens, "nothing that proves who the victim is may be sent there")


# Registries that send too much, or something else


REPLIES: dict[str, Callable[[FaultRegistry], Fault]] = {
    "endless manifest": lambda _: faults.endless_body,
    "endless headers": lambda _: faults.endless_headers,
    "huge manifest": lambda _: body(b'{"schemaVersion": 2, "x": "' + b"x" * (5 << 20) + b'"}'),
    "packed manifest": lambda _: body(gzip.compress(bytes(64 << 20)), {"Content-Encoding": "gzip"}),
    "deep manifest": lambda _: body(b'{"a":' * 100_000),
    "wide manifest": lambda _: body(b'{"schemaVersion": 2, "manifests": [' + b"{}," * 500_000 + b"{}]}"),
    "manifest of another digest": lambda _: body(
        images.small("other").raw, {"Docker-Content-Digest": str(IMAGE.digest)}
    ),
    "manifest of another type": lambda _: body(IMAGE.raw, {"Content-Type": "text/html\x1b[2J"}),
    "huge number": lambda _: body(b'{"schemaVersion": ' + b"9" * 1_000_000 + b"}"),
    "same key twice": lambda _: body(IMAGE.raw.replace(b'"layers"', b'"layers": [], "layers"')),
    "terminal": lambda _: body(b'{"errors": [{"code": "\\u001b[2J", "message": "\\u001b]0;x\\u0007"}]}', status=404),
    "negative length": lambda _: body(IMAGE.raw, {"Content-Length": "-1", "Connection": "close"}),
    "redirect to a file": lambda _: faults.status(307, {"Location": "file:///etc/passwd"}),
    "redirect to itself": lambda _: faults.status(307, {"Location": "/v2/team/app/manifests/1"}),
    "redirect with a user": lambda registry: faults.status(307, {"Location": f"http://ann:x@{registry.host}/"}),
    "redirect by a backslash": lambda _: faults.status(307, {"Location": "http://127.0.0.1\\@169.254.169.254/"}),
    "redirect to a pipe": lambda _: faults.status(307, {"Location": "ftp+unix://%2frun%2fx/"}),
    "challenge for a file": lambda _: faults.status(401, {"WWW-Authenticate": 'Bearer realm="file:///etc/passwd"'}),
}


def body(content: bytes, headers: Mapping[str, str] | None = None, status: int = 200) -> Fault:
    """Answer with these bytes."""
    default = {"Content-Type": IMAGE.media_type, "Content-Length": str(len(content))}
    return lambda exchange: exchange.send(Answer(status=status, headers=default | dict(headers or {}), body=content))


@pytest.mark.parametrize("kind", REPLIES)
def test_registry_answers_with_a_bomb(victim: Victim, registry: FaultRegistry, kind: str) -> None:
    """A registry sends too much, or what leads elsewhere, in place of a manifest: it is refused in time."""
    registry.push(IMAGE, "team/app:1")
    registry.script = lambda request: REPLIES[kind](registry) if request.method == "GET" else None
    registry.has_digest_header = False
    victim.log_in(registry.host)
    victim.write_package(packages.section(registry.host, APP))
    victim.run("prefetch", within=["prlimit", "--as=1500000000"], patience=100).refused()


def changed(**changes: object) -> Image:
    """Return the image with a manifest that says something else."""
    return replace(IMAGE, raw=json.dumps(json.loads(IMAGE.raw) | changes).encode())


LAYER = json.loads(IMAGE.raw)["layers"][0]
CONFIG = json.loads(IMAGE.raw)["config"]
MANIFESTS: dict[str, Image] = {
    "layer of terabytes": changed(layers=[LAYER | {"size": 1 << 50, "digest": f"sha256:{5:064x}"}]),
    "layer of another size": changed(layers=[LAYER | {"size": LAYER["size"] + 1}]),
    "layer of nothing": changed(layers=[LAYER | {"size": 0}]),
    "layer of a negative size": changed(layers=[LAYER | {"size": -1}]),
    "layer of another digest": changed(layers=[LAYER | {"digest": f"sha256:{5:064x}"}]),
    "digest with a path": changed(layers=[LAYER | {"digest": "sha256:../../../../etc/passwd"}]),
    "digest of another kind": changed(layers=[LAYER | {"digest": "md5:" + "0" * 32}]),
    "many layers": changed(layers=[LAYER] * 100_000),
    "same layer of two sizes": changed(layers=[LAYER, LAYER | {"size": 5}]),
    "configuration of terabytes": changed(config=CONFIG | {"size": 1 << 50}),
    "configuration of another size": changed(config=CONFIG | {"size": 3}),
    "configuration that is a layer": changed(config=LAYER),
    "layer from another place": changed(
        layers=[LAYER | {"digest": f"sha256:{5:064x}", "urls": ["file:///etc/passwd"]}]
    ),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_manifest_that_lies(victim: Victim, registry: FaultRegistry, kind: str) -> None:
    """A registry has a manifest that says other things than its blobs are: nothing is written."""
    registry.push(MANIFESTS[kind], "team/app:1")
    victim.write_package(packages.section(registry.host, APP))
    before = snapshot(victim.package)
    victim.run("prefetch", patience=100).refused()
    must(snapshot(victim.package) == before, "the package must stay as it was")


def test_registry_that_is_blocked_in_other_letters(victim: Victim, registry: FaultRegistry) -> None:
    """The administrator blocks a registry, and a description writes it in other letters: it is blocked."""
    port = registry.host.partition(":")[2]
    configuration = victim.home / ".config/containers/registries.conf"
    configuration.parent.mkdir(parents=True)
    configuration.write_text(f'[[registry]]\nprefix = "localhost:{port}"\nblocked = true\n')
    victim.keep()
    registry.push(IMAGE, "team/app:1")
    victim.write_package(packages.section(f"LOCALHOST:{port}", APP))
    victim.run("prefetch").refused("blocked")
    must(not registry.requests, "nobody may be asked")


# Descriptions


XML = """<?xml version="1.0"?>{doctype}
<image schemaversion="8.0" name="x">{content}
<containers source="registry.example.com" backend="podman"><container name="{name}"/></containers></image>
"""
DESCRIPTIONS: dict[str, str | bytes] = {
    "entities in entities": XML.format(
        doctype="<!DOCTYPE image [<!ENTITY a0 'aaaaaaaaaa'>"
        + "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 20))
        + "]>",
        content="",
        name="&a19;",
    ),
    "entity of a file": XML.format(
        doctype='<!DOCTYPE image [<!ENTITY x SYSTEM "file://{secret}">]>', content="<x>&x;</x>", name="&x;"
    ),
    "entity of a server": XML.format(
        doctype='<!DOCTYPE image [<!ENTITY % x SYSTEM "{url}"> %x;]>', content="", name="a"
    ),
    "DTD of a server": XML.format(doctype='<!DOCTYPE image SYSTEM "{url}">', content="", name="a"),
    "include of a file": XML.format(doctype="", content='<include from="file://{secret}"/>', name="a"),
    "include of a path": XML.format(doctype="", content='<include from="{secret}"/>', name="a"),
    "include outside": XML.format(doctype="", content='<include from="this://../home/.ssh/id_ed25519"/>', name="a"),
    "include outside, escaped": XML.format(
        doctype="", content='<include from="this://%2e%2e/home/.ssh/id_ed25519"/>', name="a"
    ),
    "include of a server": XML.format(doctype="", content='<include from="{url}"/>', name="a"),
    "include of a link": XML.format(doctype="", content='<include from="this://./link.xml"/>', name="a"),
    "include through a link": XML.format(doctype="", content='<include from="this://./linked/id_ed25519"/>', name="a"),
    "include of a pipe": XML.format(doctype="", content='<include from="this://./pipe.xml"/>', name="a"),
    "include of itself": XML.format(doctype="", content='<include from="this://./a.kiwi"/>', name="a"),
    "includes in a circle": XML.format(doctype="", content='<include from="this://./b.xml"/>', name="a"),
    "many includes": XML.format(doctype="", content='<include from="this://./empty.xml"/>' * 1000, name="a"),
    "XInclude": XML.format(
        doctype="", content='<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{secret}"/>', name="a"
    ),
    "style sheet": XML.format(doctype='<?xml-stylesheet href="{url}"?>', content="", name="../a"),
    "deep": "<image>" + "<a>" * 200_000,
    "wide": "<image>" + "<containers/>" * 300_000,
    "many attributes": "<image><containers " + " ".join(f'a{n}=""' for n in range(200_000)) + "/></image>",
    "long name": f"<{'a' * 4_000_000}/>",
    "zeros": b"\0" * 1000,
    "UTF-7": b'<?xml version="1.0" encoding="utf-7"?>+ADw-image/+AD4-',
    "UTF-16": "\ufeff<image/>".encode("utf-16-le") + b"\xd8",
}


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_description_that_is_a_trap(victim: Victim, kind: str) -> None:
    """A description reads other files, asks servers, or has no end: it is refused soon, and nothing else is read."""
    victim.package.mkdir()
    content = DESCRIPTIONS[kind]
    with listen(body=b"<!ENTITY y 'z'>") as sink:
        if isinstance(content, str):
            text = content.replace("{secret}", str(victim.home / ".ssh/id_ed25519")).replace("{url}", sink.url)
            content = text.encode()
        (victim.package / "a.kiwi").write_bytes(content)
        (victim.package / "b.xml").write_text('<image><include from="this://./a.kiwi"/></image>')
        (victim.package / "empty.xml").write_text("<image/>")
        (victim.package / "link.xml").symlink_to(victim.home / ".ssh/id_ed25519")
        (victim.package / "linked").symlink_to(victim.home / ".ssh")
        os.mkfifo(victim.package / "pipe.xml")
        victim.run("check", within=["prlimit", "--as=1000000000"], patience=20).refused()
        must(not sink.received, "no server may be asked")


@pytest.mark.parametrize("kind", ["huge", "link", "pipe", "device", "directory"])
@pytest.mark.parametrize("name", ["a.kiwi", "_service"])
def test_description_that_is_no_file(victim: Victim, name: str, kind: str) -> None:
    """A description or `_service` is something else than a file, or has no end: the command ends soon."""
    victim.write_package(packages.section("registry.example.com", APP))
    path = victim.package / name
    path.unlink(missing_ok=True)
    if kind == "huge":
        path.touch()
        os.truncate(path, 1 << 40)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else victim.home / ".ssh/id_ed25519")
    victim.run("check", within=["prlimit", "--as=1000000000"], patience=20)


WEAPONS = (
    *("../app", "../../etc/cron.d/x", "/etc/passwd", "a/../../b", "a/../..", "..", ".", "", "a//b", "%2e%2e%2f", "%2f"),
    *("app\nExecStart=/bin/true", "app\\\nUser=root", "app\r", "app\t", "a b", "%n", "%%", "$HOME", "$(id)", "`id`"),
    *("'; id; '", '" id "', "-rf", "--help", "-", "app\x1b[2J", "app\x9b2J", "app\u202egnp", "app\u2028x", "аpp"),
    *("a" * 300, "app:1:2", ".app", "app.", "app#x", "app?x", "app*", "~", "~root", "app|id", "app&id", "app<x>"),
    *(
        "APP",
        "con",
        ",",
        "docker,",
        ",docker",
        "app@sha256:" + "0" * 63,
        "app\x7f",
        "\ufeffapp",
        "app\udcff",
        "a\u0300",
    ),
)
GOOD = {"source": "", "path": "team", "name": "app", "tag": "1", "profiles": "", "arch": "x86_64"}
HARMLESS = re.compile(
    r"/(?:var/tmp|var/lib/kiwi_containers|usr/lib|usr/libexec|usr/share/kiwi_containers|etc)(?:/[A-Za-z0-9_.@:-]+)+"
)


@pytest.mark.parametrize("attribute", [*GOOD, "backend"])
def test_names_in_a_description(victim: Victim, attribute: str) -> None:
    """Names in a description mean harm to paths, units or terminals: they are refused, or harmless everywhere."""
    victim.package.mkdir()
    path = victim.package / "a.kiwi"
    with own_network(), serve() as registry:
        registry.script = lambda request: body(IMAGE.raw) if "/manifests/" in request.path else None
        registry.push(IMAGE, "team/app:1")
        good = GOOD | {"source": registry.host, "backend": "podman"}
        lines = [line for weapon in WEAPONS if (line := describe(good | {attribute: weapon}))]
        while True:  # one run names a hundred problems at most
            path.write_bytes(b'<image schemaversion="8.0" name="x">\n' + b"\n".join(lines) + b"\n</image>")
            done = victim.run("list")
            wrong = {
                int(number)
                for number in re.findall(r"^osc-containers: error: a\.kiwi:(\d+): ", done.output, re.MULTILINE)
            }
            if not wrong:
                break
            lines = [line for number, line in enumerate(lines, 2) if number not in wrong]
        for front in ("check", "prefetch"):
            victim.run(front, patience=100)
        root = victim.directory / "root"
        root.mkdir()
        victim.run("inject", "--root", root, "--arch", "x86_64")
    odd = [name for each in files_of(root) if not HARMLESS.fullmatch(name := str(each)[len(str(root)) :])]
    must(not odd, f"these names are not harmless: {odd}")
    for unit in root.rglob("*.service"):
        text = unit.read_text()
        must(text.isascii() and text.count("ExecStart=") == 1, f"{unit.name} is not ours")


def describe(values: Mapping[str, str]) -> bytes | None:
    """Write a section of a description in a line; None where XML cannot hold it."""
    lists = (("source", "backend", "profiles", "arch"), ("path", "name", "tag"))
    section, container = (
        " ".join(f"{name}={quoteattr(values[name], ENTITIES)}" for name in names if name in values) for names in lists
    )
    text = f"<containers {section}><container {container}/></containers>"
    if any(ord(character) < 32 or 0xD800 <= ord(character) < 0xE000 for character in text):
        return None
    return text.encode()


ENTITIES = {character: f"&#{ord(character)};" for character in "\n\r\t"}


@pytest.mark.parametrize("parameter", ["description", "arch", "profile", "locked", "inject"])
def test_parameters_of_a_service(victim: Victim, parameter: str) -> None:
    """A package's `_service` has parameters that are paths, options or terminal sequences: they are refused."""
    victim.write_package(packages.section("127.0.0.1:1", APP))
    entries = "".join(
        f"<param name={quoteattr(parameter)}>{escape(each)}</param>" for each in WEAPONS if describe({"name": each})
    )
    text = f'<services><service name="kiwi_containers" mode="manual">{entries}</service></services>'
    (victim.package / "_service").write_text(text)
    victim.run("prefetch").refused()
    for weapon in ("../a.kiwi", "--help", "a\nb\x1b[2J\u202e"):
        victim.service(f"--{parameter}={weapon}").refused()


FILES: dict[str, tuple[bytes, ...]] = {
    "options": (b"-rf", b"--config=x", b"-x y", b"--"),
    "lines": (b"a\nosc-containers: all is well", b"a\r\nb"),
    "terminal": (b"\x1b[2J", b"\x9b2J", "\u202egnp".encode(), b"\xff\xfe", b"a\tb", b"\x07"),
    "shell": (b"$(touch ran)", b"`touch ran`", b"~", b"#x", b"a b", b"a'b", b'a"b', b"a\\b", b"*", b";touch ran"),
    "services": (b"_service:x:y", b"_service:x:..", b"_service:"),
}


@pytest.mark.parametrize("suffix", [".kiwi", "others"])
@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("command", ["check", "init --no-prefetch", "prefetch"])
def test_names_of_files(victim: Victim, package: Path, command: str, kind: str, suffix: str) -> None:
    """A package has files whose names are options, commands, lines or terminal sequences: output does not act so."""
    (package / "_service").unlink()
    text = b'<image schemaversion="8.0" name="x"><containers source="127.0.0.1:1" backend="podman">'
    text += b'<container name="a"/></containers></image>'
    for name in FILES[kind]:
        for each in [".kiwi"] if suffix == ".kiwi" else [".ociarchive", ".obscpio", ".xml", ".tar"]:
            with open(os.fsencode(package) + b"/" + name + each.encode(), "wb") as file:
                file.write(text)
    if suffix == ".kiwi":
        (package / "appliance.kiwi").unlink()
    done = victim.run(*command.split())
    lines = done.output.splitlines()
    must(not any(line.startswith("osc-containers: all is well") for line in lines), "a name must not make a line")
    hints = [line for line in lines if re.match(r"\s*>? ?(osc|git|rm) ", line)]
    options = [line for line in hints if re.search(r"""\s['"]?-(?!-force |-outdir )""", line)]
    must(not options, f"a hint must write ./ before a name that begins with a dash: {options}")
    for line in hints:
        subprocess.run(
            ["sh", "-c", f"osc() {{ :; }}; git() {{ :; }}; rm() {{ :; }}; {line.lstrip(' >')}"], cwd=victim.traps
        )
    victim.check()


# Locks, and what they name


def lock_texts(lock: dict[str, Any]) -> dict[str, bytes]:
    """Return locks that are none."""
    ((reference, entry),) = lock["containers"].items()
    image = entry["architectures"]["x86_64"]

    def with_image(**changes: object) -> bytes:
        architectures = {"architectures": {"x86_64": image | changes}}
        return json.dumps(lock | {"containers": {reference: entry | architectures}}).encode()

    good = json.dumps(lock).encode()
    return {
        "nothing": b"",
        "null": b"null",
        "list": b"[]",
        "other types": json.dumps(lock | {"containers": [reference]}).encode(),
        "no architectures": json.dumps(lock | {"containers": {reference: entry | {"architectures": {}}}}).encode(),
        "other version": json.dumps(lock | {"version": "9\x1b[2J"}).encode(),
        "keys twice": good.replace(b'"version": ', b'"version": 1, "version": '),
        "reference twice": good.replace(b'"containers": {', b'"containers": {"' + reference.encode() + b'": {}, '),
        "deep": b'{"version": 1, "containers": ' + b'{"a":' * 100_000,
        "huge number": with_image(config=image["config"] | {"size": 10**4000}),
        "not a number": good.replace(b'"size": ', b'"size": NaN, "x": '),
        "negative size": with_image(layers=[image["layers"][0] | {"size": -1}]),
        "huge size": with_image(layers=[image["layers"][0] | {"size": 1 << 62}]),
        "boolean size": with_image(layers=[image["layers"][0] | {"size": True}]),
        "digest with a path": with_image(config=image["config"] | {"digest": "sha256:../../../etc/passwd"}),
        "swapped digests": with_image(config=image["layers"][0], layers=[image["config"]]),
        "fewer layers": with_image(layers=image["layers"][:1]),
        "two sizes": with_image(layers=[image["layers"][0], image["layers"][0] | {"size": 7}]),
        "other manifest": with_image(manifest=image["manifest"] | {"digest": f"sha256:{5:064x}"}),
        "other type": with_image(manifest=image["manifest"] | {"mediaType": "\x1b[2J"}),
        "date of a terminal": with_image(created="\x1b[2J"),
        "lone surrogate": good.replace(b'"created": "', b'"created": "\\ud800'),
        "UTF-16": good.decode().encode("utf-16"),
        "70 MB": b" " * (70 << 20) + good,
        "reference of a terminal": good.replace(reference.encode(), b"\\u001b[2J" + reference.encode()),
        "reference with a path": good.replace(reference.encode(), b"127.0.0.1:1/../../etc/passwd:1"),
    }


LOCKS = tuple(
    lock_texts({"containers": {"x": {"architectures": {"x86_64": {"config": {}, "manifest": {}, "layers": [{}]}}}}})
)


@pytest.mark.parametrize("kind", LOCKS)
def test_lock_that_is_none(victim: Victim, package: Path, kind: str) -> None:
    """A merge request brings a lock that is malformed, or says other things: it is refused, and writes nothing."""
    (package / "containers.lock").write_bytes(lock_texts(read_lock(package))[kind])
    before = snapshot(package)
    for command in ("verify", "prefetch --locked"):
        victim.run(*command.split(), within=["prlimit", "--as=1000000000"], patience=20).refused()
    must(snapshot(package) == before, "the package must stay as it was")


@pytest.mark.parametrize("kind", ["link to a secret", "link to a device", "pipe", "directory", "huge"])
@pytest.mark.parametrize("command", ["verify", "prefetch", "check"])
def test_lock_that_is_no_file(victim: Victim, package: Path, kind: str, command: str) -> None:
    """The lock is a link, a pipe or a directory: nothing of a secret is shown, and the command ends soon."""
    path = package / "containers.lock"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "huge":
        path.touch()
        os.truncate(path, 1 << 40)
    else:
        path.symlink_to("/dev/zero" if "device" in kind else victim.home / ".ssh/id_ed25519")
    victim.run(command, within=["prlimit", "--as=1000000000"], patience=20)


NAMED = ("Important.ociarchive", "other_1.x86_64.ociarchive", "root.ociarchive")


@pytest.mark.parametrize("name", NAMED)
def test_prefetch_removes_what_a_lock_names(victim: Victim, package: Path, name: str) -> None:
    """A lock names a file of the package that we never made: the next prefetch does not remove it."""
    precious = package / name
    precious.write_text("precious\n")
    lock = read_lock(package)
    ((reference, entry),) = lock["containers"].items()
    other = json.loads(json.dumps(entry))
    other["architectures"]["x86_64"]["archive"] = {"name": name}
    lock["containers"][reference.replace("team", "gone")] = other
    write_lock(package, lock)
    victim.run("prefetch")
    must(precious.exists(), f"{name} must stay")


@pytest.mark.parametrize("kind", ["shared", "exclusive"])
def test_lock_on_the_directory(victim: Victim, package: Path, kind: str) -> None:
    """Another user, who can read the package's directory, holds a lock on it: the victim's runs go on."""
    for each in (victim.directory, package):
        each.chmod(0o755)
    with open_directory(package, kind):
        victim.run("prefetch").succeeded()


@contextmanager
def open_directory(directory: Path, kind: str) -> Iterator[None]:
    """Hold a lock of flock(2) on a directory, as another user does who has it open."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    holder = subprocess.Popen(
        [*USER.split(), "sh", "-c", f"flock --{kind} 9 && echo held && exec sleep 60 9<&9"],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.dup2(descriptor, 9),
        pass_fds=[9],
    )
    assert holder.stdout
    try:
        assert holder.stdout.readline() == b"held\n"
        yield
    finally:
        holder.kill()
        holder.communicate()
        os.close(descriptor)


# Archives


def rewritten(content: bytes, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]) -> bytes:
    """Write a tar again, with what `change` makes of its members."""
    with tarfile.open(fileobj=io.BytesIO(content)) as old:
        members = [(member, (old.extractfile(member) or io.BytesIO()).read()) for member in old]
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as new:
        change(members)
        for member, data in members:
            new.addfile(member, io.BytesIO(data))
    return written.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """Return the header of an empty member."""
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, target
    return found


ARCHIVE_CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "traversal": lambda old: rewritten(old, lambda all: all.append((member("../../etc/cron.d/x"), b""))),
    "absolute path": lambda old: rewritten(old, lambda all: all.append((member("/etc/cron.d/x"), b""))),
    "link": lambda old: rewritten(old, lambda all: all.insert(0, (member("blobs", tarfile.SYMTYPE, "/etc"), b""))),
    "hard link": lambda old: rewritten(old, lambda all: all.append((member("x", tarfile.LNKTYPE, "/etc/passwd"), b""))),
    "device": lambda old: rewritten(old, lambda all: all.append((member("sda", tarfile.BLKTYPE), b""))),
    "pipe": lambda old: rewritten(old, lambda all: all.append((member("pipe", tarfile.FIFOTYPE), b""))),
    "member twice": lambda old: rewritten(old, lambda all: all.append(all[-1])),
    "other index.json": lambda old: rewritten(old, lambda all: all.append((member("index.json"), b""))),
    "other order": lambda old: rewritten(old, lambda all: all.reverse()),
    "one member less": lambda old: rewritten(old, lambda all: all.pop()),
    "other mode": lambda old: rewritten(old, lambda all: setattr(all[1][0], "mode", 0o4755)),
    "other owner": lambda old: rewritten(old, lambda all: setattr(all[1][0], "uid", 1000)),
    "data behind": lambda old: old + b"x" * 512,
    "archive behind": lambda old: old + old,
    "data in the padding": lambda old: old.replace(b"\0" * 16 + b"blobs/", b"x" * 16 + b"blobs/", 1),
    "data at the end": lambda old: old[:-1] + b"x",
    "cut": lambda old: old[:-1],
    "nothing": lambda old: b"",
    "packed": lambda old: gzip.compress(old),
    "one bit": lambda old: old[: len(old) // 2] + bytes([old[len(old) // 2] ^ 1]) + old[len(old) // 2 + 1 :],
}


@pytest.mark.parametrize("kind", ARCHIVE_CHANGES)
@pytest.mark.parametrize("command", ["verify", "inject"])
def test_archive_with_something_else(victim: Victim, package: Path, kind: str, command: str) -> None:
    """A merge request changes an archive: it gets into no image."""
    path = archive_of(package)
    old = path.read_bytes()
    new = ARCHIVE_CHANGES[kind](old)
    assert new != old
    path.write_bytes(new)
    root = victim.directory / "root"
    root.mkdir()
    arguments = ["inject", "--root", root, "--arch", "x86_64"] if command == "inject" else ["verify"]
    victim.run(*arguments).refused()
    must(not list(root.iterdir()), "nothing may be injected")


@pytest.mark.parametrize("kind", ["link", "pipe", "device", "directory"])
def test_archive_that_is_no_file(victim: Victim, package: Path, kind: str) -> None:
    """An archive is a link to a private file, a pipe or a device: it is refused soon, and not injected."""
    path = archive_of(package)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else victim.home / ".ssh/id_ed25519")
    root = victim.directory / "root"
    root.mkdir()
    for arguments in (["verify"], ["inject", "--root", root, "--arch", "x86_64"], ["prefetch", "--locked"]):
        done = victim.run(*arguments, patience=20)
        if arguments[0] != "prefetch":
            done.refused()
    must(not list(root.iterdir()), "nothing may be injected")


ROOT_ARCHIVES: dict[str, tuple[str, dict[str, bytes | str]]] = {
    "name of a host": ("root.tar.x:y", {"etc/x": b"x"}),
    "traversal": ("root.tar", {"../../../outside/x": b"x"}),
    "link outside": ("root.tar", {"out": "{outside}", "out/x": b"x"}),
    "link upwards": ("root.tar", {"out": "../../outside", "out/x": b"x"}),
    "link for our directory": ("root.tar", {"var": "{outside}"}),
    "option": ("root.tar.gz --to-command=id", {"etc/x": b"x"}),
}


@pytest.mark.parametrize("kind", ROOT_ARCHIVES)
def test_overlay_archive_in_a_build_root(victim: Victim, package: Path, kind: str) -> None:
    """A package's `root.tar` leads out of the overlay, or starts a program: nothing runs or is written elsewhere."""
    name, members = ROOT_ARCHIVES[kind]
    with tarfile.open(package / name, "w") as tar:
        for path, content in members.items():
            if isinstance(content, str):
                tar.addfile(member(path, tarfile.SYMTYPE, content.format(outside=victim.outside)))
            else:
                header = member(path)
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    for program in ("rsh", "ssh", "rmt"):
        victim.trap_program(victim.bin / program)
    remote = {name: str(victim.bin / "rsh") for name in ("TAR_RSH", "RSH")}
    done = victim.service(
        name="kiwi_containers_inject",
        within=[ROOT / "scripts/in-build-root"],
        environment={"BUILD_ARCH": "x86_64"} | remote,
    )
    must("onnect" not in done.output, f"no host may be asked: {done.output}")


class _Table:
    """A plugin of pytest that prints a line for each attack."""

    def __init__(self) -> None:
        self.results: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how an attack ended."""
        if report.when == "call" or report.failed:
            words = {"passed": "holds", "skipped": "open", "failed": "SUCCEEDED"}
            self.results[_name(report.nodeid)] = words[report.outcome]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table."""
        for name, result in self.results.items():
            terminalreporter.write_line(f"{name:90} | {result}")
        counts = Counter(self.results.values())
        terminalreporter.write_line(", ".join(f"{count} {result}" for result, count in sorted(counts.items())))


class _List:
    """A plugin of pytest that lists the attacks and what must hold."""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Print the list."""
        for item in session.items:
            text = (getattr(item, "function").__doc__ or "").splitlines()[0]  # noqa: B009
            print(f"{_name(item.nodeid):90} | {text}")


def _name(nodeid: str) -> str:
    return nodeid.partition("::test_")[2]


def main(arguments: list[str]) -> int:
    """Run the attacks, or list them."""
    options = ["--quiet", "--no-header", "--tb=line", __file__]
    if "--list" in arguments:
        return pytest.main([*options, "--collect-only", "-qqq"], plugins=[_List()])
    return pytest.main([*options, *arguments], plugins=[_Table()])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
