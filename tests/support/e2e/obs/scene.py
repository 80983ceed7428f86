"""What the back end has to begin with: Debian, kiwi, our packages, a user's project, and a package with containers."""

from collections.abc import Mapping
from pathlib import Path

from tests.support import docker_registry, images
from tests.support.e2e import debs
from tests.support.e2e.debs import HERE, ROOT, run
from tests.support.e2e.obs.backend import REGISTRY_HOST, Backend, import_debs, make_project
from tests.support.images import Image

IMAGES = '%if "%_repository" == "images"\nType: kiwi\nRepotype: none\nPatterntype: none\n%endif\n'
"""The project configuration of a project that builds images in its repository `images`."""
FULL = "containers/main"
"""The repository with everything that builds of images need."""

_DESCRIPTION = """\
<?xml version="1.0" encoding="utf-8"?>
<image schemaversion="8.0" name="appliance">
    <description type="system">
        <author>Ann</author>
        <contact>ann@example.com</contact>
        <specification>An appliance</specification>
    </description>
    <profiles>
        <profile name="plain" description="One container"/>
        <profile name="full" description="All containers"/>
    </profiles>
    <preferences>
        <version>1.0.0</version>
        <packagemanager>apt</packagemanager>
        <type image="ext4">
            <size unit="M" additive="true">100</size>
        </type>
    </preferences>
    <repository alias="main" repository_gpgcheck="false">
        <source path="obs://containers/main"/>
    </repository>
    <containers source="REGISTRY" backend="podman">
        <container name="app" path="team" tag="1.0"/>
    </containers>
    <containers source="REGISTRY" backend="podman" profiles="full">
        <container name="data" path="team" tag="1.0" fetch_only="true"/>
        <container name="tools" path="team" tag="2.0"/>
    </containers>
    <packages type="image">
        <package name="systemd-sysv"/>
    </packages>
    <packages type="bootstrap">
        <package name="apt"/>
        <package name="systemd"/>
        <package name="gnupg"/>
    </packages>
</image>
"""
DESCRIPTION = _DESCRIPTION.replace("REGISTRY", REGISTRY_HOST)
FLAVORS = DESCRIPTION.replace("<image", "<!-- OBS-Profiles: @BUILD_FLAVOR@ -->\n<image", 1)
"""The same description, for a package with `MULTIBUILD`."""
MULTIBUILD = "<multibuild><flavor>plain</flavor><flavor>full</flavor></multibuild>\n"


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


def make_images(version: str = "1") -> dict[str, Image]:
    """Return the images of the package; one small layer of `team/app:1.0` depends on `version`."""
    base, app = images.random_layer("base", 8 << 20), images.random_layer(f"app {version}", 1 << 20)
    return {
        "team/app:1.0": images.image(base, images.random_layer("library", 4 << 20), app),
        "team/data:1.0": images.image(base, images.random_layer("data", 2 << 20)),
        "team/tools:2.0": images.image(images.layer({"etc/tools": b"tools\n"}), docker=True),
    }


def start_build(backend: Backend) -> None:
    """Commit the package `home:ann/appliance` with two flavors, `plain` and `full`, so that the worker builds both.

    Its working copy is `appliance` in the directory of the back end.
    """
    package = make_package(backend, "home:ann", "appliance", backend.directory, builds=True)
    (package / "appliance.kiwi").write_text(FLAVORS)
    (package / "_multibuild").write_text(MULTIBUILD)
    backend.osc("containers", "init", "--mode", "disabled", directory=package)
    commit(backend, package)


def make_package(backend: Backend, project: str, name: str, directory: Path, *, builds: bool = False) -> Path:
    """Make a package with the description, not committed yet, and return its working copy `directory/NAME`.

    Unless it `builds`, the scheduler stops where it would send it to a worker.
    """
    meta = backend.directory / f"{project}.{name}.meta"
    meta.write_text(f'<package name="{name}" project="{project}"><title/><description/></package>')
    backend.osc("meta", "pkg", project, name, "-F", str(meta))
    package = check_out(backend, project, name, directory)
    (package / "appliance.kiwi").write_text(DESCRIPTION)
    if not builds:
        (package / "_constraints").write_text("<constraints><hostlabel>none</hostlabel></constraints>\n")
    return package


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
