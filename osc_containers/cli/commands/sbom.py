"""`osc-containers sbom`, and the parameter `sbom` of the inject service."""

import argparse
import logging
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

from osc_containers.cli import arguments, modules
from osc_containers.errors import DescriptionError
from osc_containers.evidence.sbom import component, document
from osc_containers.evidence.sbom.document import FORMATS
from osc_containers.fs import atomic, program
from osc_containers.inject import inventory
from osc_containers.inject.inventory import ReadPackages
from osc_containers.kiwi import image_name
from osc_containers.kiwi.containers import Container
from osc_containers.kiwi.description import Description
from osc_containers.obs import selection
from osc_containers.obs.package import Package

logger = logging.getLogger(__name__)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.describe(
        parser,
        "The SBOM lists the containers, their layers, digests, sources, licences and signatures, and with --packages "
        "the packages in them. "
        "Without --output it is printed, which needs one architecture and one format. The same lock gives the "
        "same bytes.",
        "  osc-containers sbom --arch x86_64 --format spdx\n"
        "  osc-containers sbom --arch x86_64 --arch aarch64 --output /tmp/sboms",
    )
    arguments.add_package(parser)
    arguments.add_parameters(
        parser, ("description", "arch", "profile"), {"arch": "of OBS-ExclusiveArch, else all that are locked"}
    )
    parser.add_argument(
        "--format",
        action="append",
        choices=tuple(FORMATS),
        help="format, SPDX 2.3 or CycloneDX 1.6; may be repeated (default: both with --output, else cyclonedx)",
    )
    parser.add_argument(
        "--packages",
        action="store_true",
        help="also list the packages in the containers, from the databases of dpkg, apk and rpm",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="write a file for each architecture and format")


def run(options: argparse.Namespace) -> int:
    """Print or write the SBOMs."""
    package = Package(options.directory)
    lock = package.require_lock()
    request = selection.of_package(
        package,
        arguments.drop_empty(options.description),
        arguments.architectures(options.arch),
        arguments.drop_empty(options.profile),
    )
    request = request.with_default_architectures(selection.default_architectures(selection.of_package(package), lock))
    if len(request.descriptions) != 1:
        found = ", ".join(each.path.name for each in request.descriptions) or "none"
        raise DescriptionError(f"got the descriptions {found}, expected one; choose it by --description")
    formats = options.format or (list(FORMATS) if options.output else ["cyclonedx"])
    read_packages: ReadPackages | None = None
    if options.packages:
        modules.load_late("osc_containers.inject.packages.installed", "sqlite3")
        from osc_containers.inject.packages import installed

        read_packages = partial(installed.read, environ=program.outside(package.directory, os.environ))
    # Entries of `_service` may read the description for other architectures or profiles, each of which is an image.
    parts = {(arch, part.profiles): part for part in request.parts for arch in part.architectures}
    files = [
        file
        for (arch, profiles), part in parts.items()
        for file in documents(
            package,
            part.description,
            arch,
            part.containers(arch),
            formats,
            "-".join(profiles),
            read_packages,
        )
    ]
    if options.output:
        write(files, options.output)
    elif len(files) == 1:
        # print() would add a newline, and the file of --output would have other bytes.
        sys.stdout.write(files[0][1].decode())
    else:
        profile = ", one --profile" if any(part.profiles for part in parts.values()) else ""
        raise DescriptionError(
            f"got {len(files)} SBOMs to print; choose one --arch{profile} and one --format, or use --output"
        )
    return 0


def formats_of(values: Sequence[str]) -> tuple[str, ...]:
    """Return the formats in the values of the parameter `sbom`.

    :raises DescriptionError: one of them is unknown.
    """
    for value in arguments.drop_empty(values):
        if value not in FORMATS:
            raise DescriptionError(f"sbom: got {value[:80]!r}, expected {' or '.join(FORMATS)}")
    return tuple(arguments.drop_empty(values))


def write(files: Collection[tuple[str, bytes]], directory: Path) -> None:
    """Write SBOMs to a directory, which is created if it does not exist."""
    if files:
        directory.mkdir(parents=True, exist_ok=True)
    for name, text in files:
        atomic.write_atomically(directory / name, text)
        logger.info("%s: written", directory / name)


def documents(
    package: Package,
    description: Description,
    arch: str,
    containers: Collection[Container],
    formats: Sequence[str],
    suffix: str = "",
    read_packages: ReadPackages | None = None,
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the text of the SBOM of an image in each format.

    `suffix` is what distinguishes the image from others of the description: flavor and profiles. With `read_packages`,
    the images are read and must be as in the lock.
    """
    images = {(container.reference, arch) for container in containers}
    name, version = image_name.read(description)
    components = inventory.components(package, package.require_lock(), images, read_packages)
    found = component.inventory(name, version, components, os.environ)
    for format_ in dict.fromkeys(formats):
        yield document.file_name(found, arch, format_, suffix), document.render(found, format_)
