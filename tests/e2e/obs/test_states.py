"""What OBS says of a package before it builds it: whether the service for the build root can be found."""

import re
import shutil
from pathlib import Path

import pytest

from tests.support.e2e.debs import run
from tests.support.e2e.obs import backend as backends
from tests.support.e2e.obs import scene
from tests.support.e2e.obs.project import Project

pytestmark = pytest.mark.integration


def test_without_the_inject_package_it_is_unresolvable(project: Project) -> None:
    backends.make_project(project.backend, project.name, "images", path="kiwi/main", configuration=scene.IMAGES)
    project.init(project.make_package("bare"))
    reason = project.results("bare", "unresolvable", "scheduled", "failed")
    assert reason == "unresolvable: nothing provides obs-service-kiwi-containers-inject"


def test_substitute_finds_a_package_of_another_name(project: Project, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed"
    (ours,) = (project.backend.directory / "ours").glob("obs-service-kiwi-containers-inject_*.deb")
    run("dpkg-deb", "--raw-extract", ours, renamed)
    control = renamed / "DEBIAN/control"
    control.write_text(re.sub("^Package: .*", "Package: acme-services", control.read_text(), flags=re.MULTILINE))
    (tmp_path / "debs").mkdir()
    run("dpkg-deb", "--build", renamed, tmp_path / "debs/acme-services_1_all.deb")
    shutil.copy(next((project.backend.directory / "ours").glob("python3-osc-containers_*.deb")), tmp_path / "debs")
    repository = f"{project.name}:services"
    backends.make_project(project.backend, repository, "main", path="kiwi/main")
    backends.import_debs(project.backend, repository, "main", tmp_path / "debs")
    configuration = f"{scene.IMAGES}Substitute: obs-service:kiwi_containers_inject acme-services\n"
    path = f"{repository}/main"
    backends.make_project(project.backend, project.name, "images", path=path, configuration=configuration)
    package = project.make_package("renamed")
    project.init(package)
    # Resolved; the dispatcher lets it fail after a while, because no worker fits its constraints.
    assert project.results("renamed", "unresolvable", "scheduled", "failed") in ("scheduled", "failed")


def test_this_server_ignores_visible_containers(project: Project) -> None:
    """Newer ones report `broken` or `unresolvable`, see docs/obs.md."""
    scene.commit(project.backend, project.make_package("visible"))
    assert project.results("visible", "unresolvable", "broken", "scheduled", "failed") in ("scheduled", "failed")
