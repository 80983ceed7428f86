"""Checks of `store`: whether the containers can be in a store, podman will use it, and the image can mount it."""

import re
from collections.abc import Iterator
from pathlib import Path

from osc_containers.checks import overlay_files
from osc_containers.checks.context import Context
from osc_containers.checks.finding import Finding, Severity, from_problem
from osc_containers.errors import DescriptionError, Error
from osc_containers.formats import xml_reader
from osc_containers.formats.human import size
from osc_containers.inject import overlay
from osc_containers.inject.store import selection, stores
from osc_containers.kiwi.containers import Container
from osc_containers.kiwi.description import Description
from osc_containers.obs import service_file
from osc_containers.obs.parameters import INJECT
from osc_containers.obs.service_file import FILE_NAME, Entry
from osc_containers.oci.image import Image

_CONSTRAINTS = "_constraints"
# `install MODULE COMMAND` runs a command instead of loading the module, mostly /bin/true (modprobe.d(5)).
_MODULE_LINE = re.compile(r"^\s*(?:blacklist|install)\s+(squashfs|loop)\b", re.MULTILINE)
_SMALL_KERNELS = ("kernel-default-base", "kernel-kvmsmall", "kernel-azure-base")
_CONFIGURATION_LIMIT = 1 << 16
_UNPACKED = 3
"""How many times larger layers are when they are unpacked, as a rule."""
_SMALL_SPACE = 4 << 30
"""Bytes that every build has."""
# More digits are no size of a disk, and int() refuses texts of more than 4300.
_SIZE = re.compile(r"\s*([0-9]{1,18})\s*")
_UNITS = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def check(context: Context) -> Iterator[Finding]:
    """Check the containers that each entry of the inject service puts into a store."""
    for entry in context.entries_of(INJECT):
        patterns = entry.effective_values("store")
        if not patterns:
            continue
        if context.is_bundled:
            why = f"{service_file.BUNDLE_LACKS['store']}, so that all containers would be loaded"
            fix = f"remove 'store', or inject=source of {entry.name.removesuffix('_inject')}"
            yield _finding(FILE_NAME, why, fix, line=entry.line)
            continue
        stored = []
        for description in context.descriptions:
            if entry.reads(description.path.name):
                stored += _containers(context, description, patterns)
        yield from _patterns(context, entry, stored, patterns)
        if stored:
            yield from _configuration(context, stored)
            yield from _modules(context)
            yield from _space(context, entry, stored)


def _containers(context: Context, description: Description, patterns: list[str]) -> list[tuple[Container, str]]:
    """Return the containers that match, with their architectures."""
    return [
        (container, arch)
        for arch in context.request.architectures_of(description)
        for container in description.of_architecture(arch)
        if container.matching(patterns)
    ]


def _patterns(
    context: Context, entry: Entry, stored: list[tuple[Container, str]], patterns: list[str]
) -> Iterator[Finding]:
    """Find patterns that match nothing, and containers that match and are not for podman."""
    try:
        selection.select([container for container, _ in stored], patterns, context.targets)
    except DescriptionError as error:
        yield from (from_problem(problem, "store") for problem in dict.fromkeys(error.problems))
    for pattern in dict.fromkeys(patterns):
        if not any(container.matching([pattern]) for container, _ in stored):
            why = f"store={pattern[:160]!r} matches no container"
            yield _finding(FILE_NAME, why, line=entry.line, severity=Severity.WARNING)


def _configuration(context: Context, stored: list[tuple[Container, str]]) -> Iterator[Finding]:
    """Find a storage.conf with which podman would not use the stores."""
    with_store = {name for container, _ in stored for name in container.profile_names or (overlay.ROOT,)}
    try:
        stores.find_configured(context.package.directory, context.overlay_names, with_store)
    except Error as error:
        yield from (from_problem(problem, "store") for problem in error.problems)


def _modules(context: Context) -> Iterator[Finding]:
    """Find what keeps the kernel from mounting a squashfs."""
    for name in sorted(context.overlay_names):
        for directory in ("etc/modprobe.d", "usr/lib/modprobe.d"):
            for path in overlay_files.list_below(context.package.directory / name, directory):
                # modprobe reads no subdirectories.
                if path.suffix != ".conf" or str(path.parent) != directory:
                    continue
                text = overlay_files.read(context.package.directory / name, path, _CONFIGURATION_LIMIT)
                for module in dict.fromkeys(_MODULE_LINE.findall(text or "")):
                    why = f"this disables the kernel module {module}, which is needed to mount the store"
                    yield _finding(f"{name}/{path}", why, f"remove the line of {module}")
    kernels = {
        (section.file, section.line, kernel)
        for image in context.images()
        for section in image.packages
        for kernel in section.names(image.arch).intersection(_SMALL_KERNELS)
        if section.kind not in ("delete", "uninstall")
    }
    for file, line, kernel in sorted(kernels):
        why = f"{kernel} has few modules: the store needs squashfs with zstd, and loop"
        yield _finding(file, why, line=line, severity=Severity.INFO)


def _space(context: Context, entry: Entry, stored: list[tuple[Container, str]]) -> Iterator[Finding]:
    """Find builds that may have too little space to unpack the containers."""
    needs: dict[str, dict[Image, None]] = {}
    for container, arch in stored:
        locked = context.lock and context.lock.image_for(container.reference, arch)
        if locked:
            needs.setdefault(arch, {})[locked.image] = None
    # One build is for one architecture. Layers that images have in common are unpacked once.
    need = max((_bytes_for(images) for images in needs.values()), default=0)
    requested = _requested_space(context.package.directory / _CONSTRAINTS)
    if need > max(requested, _SMALL_SPACE):
        why = f"the build needs about {size(need)} of disk space to unpack the containers of the store"
        why += f", and {_CONSTRAINTS} asks for {size(requested)}" if requested else ""
        # Rounded up to whole GiB, and four more for the build itself.
        fix = f'{_CONSTRAINTS}: <hardware><disk><size unit="G">{-(-need // (1 << 30)) + 4}</size></disk></hardware>'
        severity = Severity.WARNING if requested else Severity.INFO
        yield _finding(FILE_NAME, why, fix, line=entry.line, severity=severity)


def _bytes_for(images: dict[Image, None]) -> int:
    """Return the space for the unpacked layers and the squashfs, which is about as large as compressed layers."""
    layers = {layer.digest: layer for image in images for layer in image.layers}.values()
    # A layer that is not compressed has the same size when it is unpacked, and the squashfs is counted like it.
    return sum(
        layer.size * (2 if layer.media_type.endswith((".tar", ".diff.tar")) else _UNPACKED + 1) for layer in layers
    )


def _requested_space(path: Path) -> int:
    """Return the disk space that the packager asks OBS for, in bytes; 0 if there is no such line."""
    try:
        root = xml_reader.parse(xml_reader.read(path), _CONSTRAINTS, ("hardware",)) if path.is_file() else None
    except (ValueError, OSError, Error):
        return 0
    sizes = [
        int(match[1]) * _UNITS.get(element.attributes.get("unit", "B"), 1)
        for hardware in (root.children if root else ())
        if hardware.name == "hardware"
        for disk in hardware.children
        if disk.name == "disk"
        for element in disk.children
        if element.name == "size" and (match := _SIZE.fullmatch(element.text))
    ]
    return max(sizes, default=0)


def _finding(file: str, why: str, fix: str = "", *, line: int = 0, severity: Severity = Severity.ERROR) -> Finding:
    return Finding(severity=severity, check="store", file=file, line=line, why=why, fix=fix)
