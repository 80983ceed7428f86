"""What the back end has to begin with: Debian, kiwi, our packages, a user's project, and images in the registry."""

import functools
from collections.abc import Mapping
from pathlib import Path

from tests.support import docker_registry
from tests.support.e2e import appliance, debs
from tests.support.e2e.debs import HERE, ROOT, run
from tests.support.e2e.obs.backend import REGISTRY_HOST, Backend, import_debs, make_project
from tests.support.images import Image

IMAGES = '%if "%_repository" == "images"\nType: kiwi\nRepotype: none\nPatterntype: none\n%endif\n'
"""The project configuration of a project that builds images in its repository `images`."""
FULL = "containers/main"
"""The repository with everything that builds of images need."""
_LAYER = 4 << 20
"""The size of the larger layers, in bytes."""


def set_up(backend: Backend) -> None:
    """Make the projects `debian`, `kiwi`, `containers` and `home:ann`, each of which builds on the former.

    `containers` has our packages and Debian's, which images are made of. The registry has the images of `make_images`.
    """
    ours = backend.directory / "ours"
    run(ROOT / "dist/build-deb", ours)
    below = ""
    configuration = (HERE / "obs-build.conf").read_text()
    debian, kiwi = debs.fetch(), debs.kiwi_debs("10.3.*")
    for name, places in {"debian": [debian], "kiwi": [kiwi], "containers": [debian, ours]}.items():
        make_project(backend, name, "main", path=below, configuration="" if name == "kiwi" else configuration)
        import_debs(backend, name, "main", *places)
        below = f"{name}/main"
    make_project(backend, "home:ann", "images", path=FULL, configuration=IMAGES)
    push(backend, make_images())


def push(backend: Backend, made: Mapping[str, Image]) -> None:
    """Put images into the registry of the back end, by `PATH:TAG`."""
    # A second registry with the same files does it, since this process is in another network.
    with docker_registry.serve(backend.directory / "registry") as registry:
        for name, image in made.items():
            registry.push(image, name)


@functools.cache
def make_images() -> Mapping[str, Image]:
    """Return the images of the appliance, by `PATH:TAG`."""
    return appliance.make_images(debs.fetch(), size=_LAYER)


def make_package(backend: Backend, project: str, name: str, directory: Path, *, builds: bool = False) -> Path:
    """Make a package with the appliance, not committed yet, and return its working copy `directory/NAME`.

    Unless it `builds`, the scheduler stops where it would send it to a worker.
    """
    meta = backend.directory / f"{project}.{name}.meta"
    meta.write_text(f'<package name="{name}" project="{project}"><title/><description/></package>')
    backend.osc("meta", "pkg", project, name, "-F", str(meta))
    package = check_out(backend, project, name, directory)
    appliance.write(package, REGISTRY_HOST, f"obs://{FULL}", kernel=False)
    if not builds:
        (package / "_constraints").write_text("<constraints><hostlabel>none</hostlabel></constraints>\n")
    return package


def set_profiles(package: Path, profiles: str) -> None:
    """Let OBS build the image with these profiles: their names, or `@BUILD_FLAVOR@`."""
    path = package / "appliance.kiwi"
    path.write_text(path.read_text().replace("<image", f"<!-- OBS-Profiles: {profiles} -->\n<image", 1))


def set_containers(package: Path, *names: str) -> None:
    """Let the description have these containers only, as `team/NAME:1.0`."""
    path = package / "appliance.kiwi"
    head, _, rest = path.read_text().partition("    <containers")
    containers = "".join(f'<container name="{name}" path="team" tag="1.0"/>' for name in names)
    section = f'    <containers source="{REGISTRY_HOST}" backend="podman">{containers}</containers>'
    path.write_text(head + section + rest.rpartition("</containers>")[2])


def check_out(backend: Backend, project: str, name: str, directory: Path) -> Path:
    """Check a package out and return its working copy `directory/NAME`."""
    backend.osc("checkout", "--output-dir", name, project, name, directory=directory)
    return directory / name


def commit(backend: Backend, package: Path) -> str:
    """Add and remove what is new and missing in a working copy, commit it, and return what osc prints."""
    backend.osc("addremove", directory=package)
    return backend.osc("commit", "--message", "change", directory=package).stdout
