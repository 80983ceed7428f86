"""The back end that all tests of a session share, and a project for each test."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.e2e.obs import backend as backends
from tests.support.e2e.obs import building, scene
from tests.support.e2e.obs.backend import Backend
from tests.support.e2e.obs.project import Project


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Return a running back end, which builds packages of `home:ann` meanwhile."""
    base = tmp_path_factory.getbasetemp()
    # The processes of pytest-xdist have a directory each, in one that they share.
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "obs"

    def set_up(backend: Backend) -> None:
        scene.set_up(backend)
        building.start(backend)

    with backends.share(directory, set_up) as backend:
        yield backend


@pytest.fixture
def project(backend: Backend, request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    """Return a project that has no packages yet."""
    name = "home:ann:" + re.sub(r"\W+", "_", request.node.name.removeprefix("test_"))
    backends.make_project(backend, name, "images", path=scene.FULL, configuration=scene.IMAGES)
    return Project(name=name, backend=backend, directory=tmp_path)
