"""A user with secrets, whose machine an attack must not harm, and the check that it did not.

The programs run as separate processes, as the user starts them. After each of them everything that an attack may not do
is looked for: see `Victim.check`.
"""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from tests.support import packages
from tests.support.service_program import Entry, snapshot

ROOT = Path(__file__).resolve().parents[2]
SECRET = "s3cr3t-0f-th3-v1ct1m"
"""Part of everything that the victim keeps secret: files, passwords, private images."""
NOBODY = 65534
"""Another user of the machine."""
PATIENCE = 60.0
"""Seconds after which a program hangs."""

_UNSAFE = re.compile(r"[^\n\t\x20-\x7e\xa0-\u2027\u2030-\u2065\u2070-\uffff]")
"""What drives a terminal or changes the direction of text."""
_HELPER = f"""#!/bin/sh
read -r server
echo "$server" >>"$HOME/asked-helper"
echo '{{"Username": "ann", "Secret": "{SECRET}"}}'
"""


class Harm(AssertionError):
    """An attack succeeded."""


def must(holds: object, what: str) -> None:
    """Let the attack count as successful unless something holds; `what` says what must hold."""
    if not holds:
        raise Harm(what)


class Done(NamedTuple):
    """How a program ended."""

    status: int
    output: str
    """Its standard output and standard error."""

    def refused(self, why: str = "") -> None:
        """Check that the program ended with a message; `why` is a part of the message that must be there."""
        must(self.status != 0, f"the program must refuse this; it said: {self.output[-800:]}")
        must(why in self.output, f"the message must have {why!r}; got: {self.output[-800:]}")

    def succeeded(self) -> None:
        """Check that the program did its work: the attack must not get in the way."""
        must(self.status == 0, f"the program must succeed; it said: {self.output[-800:]}")


class Victim:
    """A user in `directory`: a home with secrets, a package that others wrote, and files outside of the package."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home, self.package, self.outside, self.bin, self.traps = (
            directory / name for name in ("home", "package", "outside", "bin", "traps")
        )
        for each in (self.home, self.outside, self.bin, self.traps):
            each.mkdir()
        self.traps.chmod(0o1777)
        self.environment = {
            "PATH": f"{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
        }
        (self.outside / "precious").write_text("precious\n")
        self._write(".ssh/id_ed25519", f"-----BEGIN {SECRET}-----\n", 0o600)
        self._write(".netrc", f"default login ann password {SECRET}\n", 0o600)
        self._write(".gitconfig", "[user]\n name = Ann\n email = ann@example.com\n[init]\n defaultBranch = main\n")
        self.program("docker-credential-vault", _HELPER)
        self._untouched: dict[Path, dict[str, Entry]] = {}
        self._hostile: list[Callable[[], Iterable[bytes]]] = []
        self.keep()

    def _write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def program(self, name: str, text: str) -> Path:
        """Install a program of the victim's own."""
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def trap(self, name: str = "ran") -> str:
        """Return a shell command that must never run."""
        return f"touch {self.traps}/{name}"

    def trap_program(self, path: Path) -> Path:
        """Write a program that must never run."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{self.trap(path.name)}\nexit 1\n")
        path.chmod(0o755)
        return path

    def log_in(self, host: str, *, helper: bool = False) -> None:
        """Store a login for a registry, or that a credential helper has it."""
        path = self.home / "run/containers/auth.json"
        known = json.loads(path.read_text()) if path.exists() else {"auths": {}, "credHelpers": {}}
        if helper:
            known["credHelpers"][host] = "vault"
        else:
            known["auths"][host] = {"auth": base64.b64encode(f"ann:{SECRET}".encode()).decode()}
        self._write("run/containers/auth.json", json.dumps(known), 0o600)
        self.keep()

    def allow_http(self, *hosts: str) -> None:
        """Let registries be spoken to without TLS."""
        tables = (f'[[registry]]\nlocation = "{host}"\ninsecure = true\n' for host in hosts)
        self._write(".config/containers/registries.conf", "".join(tables))
        self.keep()

    def write_package(self, *sections: str, architectures: Sequence[str] = ("x86_64",)) -> Path:
        """Write the package: a description with these `<containers>`, and a `_service` for these architectures."""
        packages.write(self.package, *sections)
        self.write_service(*architectures)
        return self.package

    def write_service(self, *architectures: str) -> None:
        """Write `_service`."""
        parameters = "".join(f'<param name="arch">{arch}</param>' for arch in architectures)
        (self.package / "_service").write_text(
            f'<services><service name="kiwi_containers" mode="manual">{parameters}</service>'
            '<service name="kiwi_containers_inject" mode="buildtime"/></services>\n'
        )

    def git(self, *arguments: str, directory: Path | None = None) -> str:
        """Run git as the victim."""
        done = subprocess.run(
            ["git", *arguments],
            cwd=directory or self.package,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def commit(self, directory: Path | None = None) -> None:
        """Commit everything, in a new repository where there is none."""
        for arguments in (["init", "-q"], ["add", "-A", "-f"], ["commit", "-q", "-m", "all", "--allow-empty"]):
            self.git(*arguments, directory=directory)

    def keep(self) -> None:
        """Expect home and outside to stay as they are now; only the cache may change."""
        self._untouched = {each: self._snapshot(each) for each in (self.home, self.outside)}

    def _snapshot(self, directory: Path) -> dict[str, Entry]:
        own = (".cache", "asked-helper", ".local")
        return {name: entry for name, entry in snapshot(directory).items() if not name.startswith(own)}

    def watch(self, received: Callable[[], Iterable[bytes]]) -> None:
        """Expect that nothing secret is in what an attacker received."""
        self._hostile.append(received)

    def run(
        self,
        *arguments: str | bytes | Path,
        program: Sequence[str | Path] = (sys.executable, "-I", ROOT / "scripts/osc-containers"),
        directory: Path | None = None,
        within: Sequence[str | Path] = (),
        environment: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> Done:
        """Run osc-containers, or another program, in the package, and check that nothing happened that must not.

        `within` is a command that runs the command.
        """
        try:
            done = subprocess.run(
                [*within, *program, *arguments],
                cwd=directory or self.package,
                env=self.environment | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=patience,
            )
        except subprocess.TimeoutExpired:
            hangs(patience)
        found = Done(done.returncode, done.stdout.decode("utf-8", "backslashreplace"))
        self.check(found.output)
        return found

    def service(self, *arguments: str | Path, name: str = "kiwi_containers", **options: Any) -> Done:
        """Run a source service as osc does, with a directory of its own for what it makes."""
        out = self.directory / "out"
        out.mkdir(exist_ok=True)
        program = (sys.executable, "-I", ROOT / "service" / name)
        return self.run(*arguments, "--outdir", out, program=program, **options)

    def check(self, output: str = "") -> None:
        """Check that no trap ran, that no secret left home, and that nothing outside of the package changed.

        :raises Harm: something of that happened.
        """
        ran = sorted(path.name for path in self.traps.iterdir())
        must(not ran, f"nothing of the package may run; {', '.join(ran)} did")
        must("Traceback" not in output, f"a message must be printed, not a traceback: {output[-1500:]}")
        must(SECRET not in output, f"no secret may be printed: {output[-800:]!r}")
        unsafe = _UNSAFE.search(output)
        must(not unsafe, f"nothing that drives a terminal may be printed: {output[-800:]!r}")
        for directory, before in self._untouched.items():
            after = self._snapshot(directory)
            changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
            must(not changed, f"{directory.name} must stay as it is; changed: {', '.join(changed)}")
        for received in self._hostile:
            must(not any(_is_secret(each) for each in received()), "no secret may be sent to an attacker")
        if self.package.is_dir():
            leaks = [path.name for path in files_of(self.package) if SECRET.encode() in read_start(path)]
            must(not leaks, f"no secret may get into the package: {', '.join(leaks)}")


def hangs(patience: float) -> NoReturn:
    """Report a program that does not end."""
    raise Harm(f"the program must end within {patience:.0f} s")


def _is_secret(content: bytes) -> bool:
    if SECRET.encode() in content:
        return True
    for word in re.findall(rb"[A-Za-z0-9+/=]{16,}", content):
        try:
            if SECRET.encode() in base64.b64decode(word + b"=" * (-len(word) % 4)):
                return True
        except ValueError:
            continue
    return False


def read_start(path: Path) -> bytes:
    """Return what a file begins with; files of an attack may have no end."""
    with path.open("rb") as file:
        return file.read(16 << 20)


def files_of(directory: Path) -> Iterator[Path]:
    """Yield the regular files below a directory; links are not followed."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path


@contextmanager
def as_nobody() -> Iterator[None]:
    """Let this process be another user for the file system while the block runs; it must be root."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
