"""Checks of which files a package has, and which of them version control and a build would leave out."""

from collections.abc import Iterator

from osc_containers.checks.context import Context
from osc_containers.checks.finding import Finding, Severity
from osc_containers.errors import DescriptionError, Error
from osc_containers.formats import cpio, xml_reader
from osc_containers.fs import lfs_pointer
from osc_containers.kiwi.description_files import load, made_for_build, maker_of
from osc_containers.lock import lockfile
from osc_containers.obs import hints, service_file, working_copy
from osc_containers.obs.hints import Place
from osc_containers.obs.parameters import PREFETCH

LINK = "_link"
"""The file of a package that is a link to another one; osc replaces it by the files of both (`osc update -e`)."""

_CANDIDATES = 100
"""XML files that are searched for `<containers>`."""


def check(context: Context) -> Iterator[Finding]:
    """Check the files themselves; what they say is up to other checks."""
    yield from _place(context)
    yield from _pointers(context)
    yield from _link(context)
    yield from _not_included(context)
    yield from _subdirectories(context)
    yield from _untracked(context)


def _place(context: Context) -> Iterator[Finding]:
    if context.descriptions and hints.place_of(context.package.directory) is Place.PROJECT:
        why = "this directory is the working copy of a project, but osc commits only the files of packages below it"
        fix = "osc mkpac NAME, then move the files to the directory NAME"
        yield _finding(Severity.ERROR, "place", context.descriptions[0].path.name, why, fix)


def _pointers(context: Context) -> Iterator[Finding]:
    """Find pointers of git-lfs, also in the place of files that only kiwi reads; who reads the others reports them."""
    directory = context.package.directory
    own = (lockfile.FILE_NAME, service_file.FILE_NAME)
    others = (
        path for path in directory.iterdir() if path.name not in own and not path.name.endswith((".kiwi", ".xml"))
    )
    names = sorted(path.name for path in others if lfs_pointer.is_pointer_file(path))
    if names:
        more = f"; likewise {len(names) - 1} more" if len(names) > 1 else ""
        fix = lfs_pointer.advice(directory).removeprefix("run: ")
        yield _finding(Severity.ERROR, "lfs", names[0], lfs_pointer.WRONG + more, fix)


def _link(context: Context) -> Iterator[Finding]:
    if (context.package.directory / LINK).is_file() and context.descriptions:
        why = "this working copy has only the files that differ from those of the linked package"
        yield _finding(Severity.WARNING, "link", LINK, why, "osc update --expand-link")


def list_unused(context: Context) -> Iterator[str]:
    """Yield the names of XML files with `<containers>` that neither a description includes nor a service reads."""
    package = context.package
    try:
        all_descriptions = [package.description(name) for name in package.description_names]
    except DescriptionError:  # What it includes is not known.
        return
    used = {str(path.relative_to(package.directory)) for each in all_descriptions for path in each.files}
    used |= {name for entry in context.entries_of(PREFETCH) for name in entry.effective_values("description")}
    names = sorted(path.name for path in package.directory.glob("*.xml") if path.name not in used)
    yield from (name for name in names[:_CANDIDATES] if _is_for_inclusion(context, name))


def _is_for_inclusion(context: Context, name: str) -> bool:
    """Tell whether a file has `<containers>`, but is no description of its own."""
    if maker_of(name) or name.startswith("."):
        return False
    try:
        xml = load(context.package.directory, name)
        root = xml_reader.parse(xml, name, ("containers", "preferences")) if b"<containers" in xml else None
    except (OSError, ValueError):
        return False  # Nothing says that it is for kiwi.
    # A description of its own has <preferences>, too; a file that is made to be included may have <containers> alone.
    return root is not None and root.name == "image" and {each.name for each in root.children} == {"containers"}


def _not_included(context: Context) -> Iterator[Finding]:
    if not context.request.descriptions or context.is_bundled:
        return
    names = [each.path.name for each in context.request.descriptions]
    for name in list_unused(context):
        severity = Severity.WARNING if context.descriptions else Severity.ERROR
        why = "no description includes this file, so its containers are neither fetched nor in an image"
        fix = f'<include from="this://./{name}"/> in {names[0] if len(names) == 1 else "the description"}'
        yield _finding(severity, "include", name, why, fix)


def _subdirectories(context: Context) -> Iterator[Finding]:
    """Find included files that osc leaves out. It can only pack a whole directory into a `*.obscpio`."""
    directory = context.package.directory
    if hints.place_of(directory) is not Place.PACKAGE:
        return
    for description in context.request.descriptions:
        for include in description.includes:
            if "/" not in include.name or not (directory / include.name).is_file():
                continue
            packed = made_for_build(directory, include.name)
            if packed is None:
                name = include.name.rpartition("/")[2]
                why = f"osc commits no directories, so kiwi would not find {include.name}"
                fix = f'move it beside the description, and write <include from="this://./{name}"/>'
                yield _finding(Severity.ERROR, "include", include.file, why, fix, line=include.line)
            # kiwi reads what obs-build unpacks over the sources, which may be older than the file.
            elif packed != load(directory, include.name):
                why = f"{include.name} differs from the file of this name in a *{cpio.SUFFIX}, which a build uses"
                fix = f"pack the directory again: osc add {include.name.partition('/')[0]}"
                yield _finding(Severity.ERROR, "include", include.file, why, fix, line=include.line)


def _untracked(context: Context) -> Iterator[Finding]:
    """Find files that a commit would leave out."""
    package = context.package
    if not context.descriptions or not context.is_set_up:
        return
    try:
        place = hints.place_of(package.directory)
        if place is Place.PROJECT:  # another finding
            return
        # osc does not add files in directories; that is another finding.
        names = [name for name in package.own_files(context.lock) if place is not Place.PACKAGE or "/" not in name]
        untracked = working_copy.untracked(package.directory, names)
    except DescriptionError:  # reported by other checks
        return
    except Error as error:
        why = f"cannot tell which files are committed: {error.problems[0]}"
        yield _finding(Severity.INFO, "commit", ".", why)
        return
    if untracked:
        others = [*untracked[1:6], "…"] if len(untracked) > 6 else untracked[1:]
        more = f"; likewise {', '.join(others)}" if others else ""
        system = "osc" if place is Place.PACKAGE else "git"
        why = f"not added to {system}, so a build on OBS would not have it{more}"
        yield _finding(Severity.WARNING, "commit", untracked[0], why, hints.add(package.directory, untracked))


def _finding(severity: Severity, check: str, file: str, why: str, fix: str = "", *, line: int = 0) -> Finding:
    return Finding(severity=severity, check=check, file=file, line=line, why=why, fix=fix)
