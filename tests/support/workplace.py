"""A package with one container in a registry in this process, and the commands on it."""

import json
from pathlib import Path

import pytest

from osc_containers.cli.main import main
from tests.support import images
from tests.support.fault_registry import FaultRegistry


class Workplace:
    """A package with one container, `team/app:1.0` in a registry, and the commands on it."""

    def __init__(self, directory: Path, registry: FaultRegistry, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.registry = registry
        self._capsys = capsys
        self.use('name="app" tag="1.0"')

    def use(self, container: str, *backends: str, source: str = "") -> None:
        """Describe another container, by its attributes, for each of the engines."""
        source = source or f"{self.registry.host}/team"
        sections = (
            f'<containers source="{source}" backend="{backend}"><container {container}/></containers>'
            for backend in backends or ("podman",)
        )
        (self.directory / "a.kiwi").write_text(f"<image>{''.join(sections)}</image>")

    def run(self, command: str, *options: str) -> tuple[int, str]:
        """Return the exit status of a command, and what it printed."""
        status = main([command, "--arch", "x86_64", *options, str(self.directory)])
        captured = self._capsys.readouterr()
        return status, captured.out + captured.err

    def succeed(self, command: str, *options: str) -> str:
        """Return what a command printed that must succeed."""
        status, output = self.run(command, *options)
        assert status == 0, output
        return output

    def fail(self, command: str, *options: str) -> str:
        """Return what a command printed that must fail."""
        status, output = self.run(command, *options)
        assert status != 0, output
        return output

    def pull(self, *, expected: images.Image) -> str:
        """Pull the image with every command that asks a registry; return what the first one printed."""
        output = self.succeed("prefetch")
        assert self.locked == str(expected.digest)
        assert "unchanged" in self.succeed("prefetch")
        self.succeed("outdated")
        for archive in self.directory.glob("*archive"):
            archive.unlink()
        self.succeed("prefetch", "--locked")
        self.succeed("verify")
        assert self.locked == str(expected.digest)
        return output

    @property
    def locked(self) -> str:
        """The digest in the lock."""
        (entry,) = json.loads((self.directory / "containers.lock").read_text())["containers"].values()
        return str(entry["digest"])
