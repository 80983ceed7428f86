"""The service `kiwi_containers_inject`: what it does with its parameters."""

import argparse
import html
import logging
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from osc_containers.cli import arguments, signature_check
from osc_containers.cli.commands import sbom
from osc_containers.cli.commands.inject import select_description
from osc_containers.cli.commands.verify import verify_all
from osc_containers.formats import human
from osc_containers.inject import inject as injection
from osc_containers.kiwi import image_type
from osc_containers.kiwi.containers import Container
from osc_containers.kiwi.description import Description
from osc_containers.lock.lockfile import EMPTY
from osc_containers.obs import build_root, engines, selection, service_file
from osc_containers.obs.package import Package
from osc_containers.oci import platform

logger = logging.getLogger(__name__)

_RESULTS = Path("/.build.packages/OTHER")
"""Where obs-build collects results that are neither packages nor images."""


def run(options: argparse.Namespace) -> int:
    """Inject the containers into the package, which is the current directory.

    Outside a build root, verify the archives and change nothing.
    """
    package, names = Package(Path()), arguments.drop_empty(options.description)
    patterns, values = arguments.drop_empty(options.store), arguments.drop_empty(options.engine)
    service_file.check_no_bundle(package.service_entries, {"store": patterns, "engine": values})
    choices = engines.parse(values)
    formats = sbom.formats_of(options.sbom)
    # osc runs all services on the packager's machine, too (`osc service runall`), where nothing may be changed.
    if not build_root.is_here():
        with package.share():
            count = verify_all(package, names, [], [])
        logger.info("not in a build root: %s verified, nothing changed", human.count(count, "image"))
        return 0
    # The architecture may be a colon-separated list of compatible ones, the best first (obs-build, BUILD_ARCH).
    arch = platform.canonical(os.environ["BUILD_ARCH"].partition(":")[0])
    # obs-build's parser of _service does not resolve character references (Build/SimpleXML.pm).
    names, patterns, values = (list(map(html.unescape, each)) for each in (names, patterns, values))
    choices = engines.parse(values)
    description = select_description(selection.read(package, names, [arch], []), arch)
    configured = selection.of_entries(package, package.prefetches, [description.path.name])
    # Without arch in _service, the prefetch was for the packager's machine. Only the lock tells which that was.
    default = selection.default_architectures(configured, package.read_lock() or EMPTY) or [arch]
    profiles = configured.with_default_architectures(default).used_profiles(description, arch)
    _check_signatures(package, description, arch)
    # The description says what the image is only as long as it is not edited.
    images = _images(description, arch, profiles) if formats else ()
    documents = [
        document
        for suffix, containers in images
        for document in sbom.documents(package, description, arch, containers, formats, suffix)
    ]
    injection.inject_sources(package, description, arch, profiles, patterns, choices)
    # obs-build makes /.build.packages a link to TOPDIR, and the current directory is TOPDIR/SOURCES.
    sbom.write(documents, _RESULTS if _RESULTS.is_dir() else Path("../OTHER"))
    return 0


def _check_signatures(package: Package, description: Description, arch: str) -> None:
    containers = description.of_architecture(arch)
    lock = package.read_lock()
    if lock and containers:
        images = {(container.reference, arch) for container in containers}
        signature_check.require(package, lock, images, {each.reference: each.origin for each in containers})


def _images(
    description: Description, arch: str, profiles: Collection[str] | None
) -> Iterator[tuple[str, tuple[Container, ...]]]:
    """Yield the containers of each image that is built here, and what distinguishes its name from the others.

    Without OBS-Profiles, that is one image without a profile. `profiles` are those that are prefetched; None means all.
    """
    flavor = build_root.flavor()
    named = description.obs_profiles is not None
    builds = image_type.builds(description, arch, flavor) if named else [()]
    for names in builds:
        containers = [each for each in description.select(arch, names) if profiles is None or each.is_in(profiles)]
        if containers:
            yield "-".join(filter(None, dict.fromkeys((flavor, *names)))), tuple(containers)
    if not named and len(description.select(arch)) < len(description.of_architecture(arch)):
        logger.warning(
            "%s: the SBOM has the containers of an image without a profile; if the project configuration chooses one "
            "(kiwiprofile), name it in the description instead: <!-- OBS-Profiles: PROFILE -->",
            description.path.name,
        )
