"""A project of one test on the back end."""

from dataclasses import dataclass
from pathlib import Path

from tests.support.e2e.obs import backend as backends
from tests.support.e2e.obs import scene
from tests.support.e2e.obs.backend import Backend


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project of one test, and a directory for its working copies."""

    name: str
    backend: Backend
    directory: Path

    def make_package(self, name: str) -> Path:
        """Return the working copy of a new package with `<containers>` in its description; OBS does not build it."""
        return scene.make_package(self.backend, self.name, name, self.directory)

    def init(self, package: Path, *options: str) -> str:
        """Set a package up as this server needs it, commit it, and return what osc prints."""
        printed = self.backend.osc("containers", "init", "--mode", "disabled", *options, directory=package).stdout
        return printed + scene.commit(self.backend, package)

    def results(self, name: str, *states: str) -> str:
        """Wait until a package is in one of these states, and return the state with the server's reason."""
        (state,) = backends.wait_for(self.backend, self.name, name, states, limit=300).values()
        print(f"{name}: {state}")
        return state
