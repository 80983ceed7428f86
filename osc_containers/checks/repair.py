"""What `check --fix` repairs: what needs no decision, and loses nothing."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from osc_containers.checks import files
from osc_containers.checks.context import Context
from osc_containers.errors import DescriptionError, Error
from osc_containers.formats import xml_editor, xml_reader
from osc_containers.formats.xml_editor import XmlText
from osc_containers.fs import atomic, ranges
from osc_containers.kiwi import description as descriptions
from osc_containers.kiwi import description_files, split
from osc_containers.obs import hints, service_editor, service_file, working_copy
from osc_containers.obs.hints import Place
from osc_containers.obs.parameters import PREFETCH
from osc_containers.obs.working_copy import System


class Edit(NamedTuple):
    """The old and the new content of a file."""

    path: Path
    before: bytes
    after: bytes

    def diff(self) -> str:
        """Return the unified diff of the file."""
        import difflib  # rarely needed

        before, after = (XmlText.of(each).text.splitlines() for each in (self.before, self.after))
        return "\n".join(difflib.unified_diff(before, after, f"a/{self.path.name}", f"b/{self.path.name}", lineterm=""))


def plan_edits(context: Context) -> tuple[Edit, ...]:
    """Return the edits that a package needs, which its own files determine.

    :raises DescriptionError: a file that would be edited has changes that are not committed.
    """
    edits = tuple(each for each in (*_includes(context), *_modes(context)) if each.after != each.before)
    directory = context.package.directory
    names = [each.path.name for each in edits]
    # If all was committed before, a revert undoes the edits and nothing else.
    if working_copy.system_of(directory) is not None and (changed := working_copy.uncommitted(directory, names)):
        raise DescriptionError(
            *(
                f"{name}: has changes that are not committed; commit or revert them, then run it again"
                for name in changed
            )
        )
    return edits


def apply(edits: Sequence[Edit]) -> None:
    """Write the new contents. No file changes unless all of them could be written.

    :raises OSError: a file cannot be written.
    """
    with ExitStack() as stack:
        for each in edits:
            mode = each.path.stat().st_mode & 0o7777
            with atomic.naming(each.path):
                # Each file is renamed when the stack is closed, after all of them were written.
                descriptor = stack.enter_context(atomic.new_file(each.path, mode))
                ranges.write_all(descriptor, each.after, 0)


def add_files(context: Context) -> tuple[str, ...]:
    """Add the files that a build needs to version control, and return their names.

    :raises Error: some cannot be added.
    """
    package = context.package
    system = working_copy.system_of(package.directory)
    names = [name for name in package.own_files(context.lock) if system is not System.OSC or "/" not in name]
    missing = working_copy.untracked(package.directory, names)
    if not missing or hints.place_of(package.directory) is Place.PROJECT:
        return ()
    working_copy.add(package.directory, missing)
    # osc ends with success even if it could not add a file.
    failed = working_copy.untracked(package.directory, missing)
    if failed:
        raise Error(f"{', '.join(failed)}: cannot be added; try it by hand: {hints.add(package.directory, failed)}")
    return tuple(missing)


def _includes(context: Context) -> Iterator[Edit]:
    """Include the files with containers that nothing uses, if there is one description, which must be the place."""
    unused = list(files.list_unused(context))
    if not unused or len(context.request.descriptions) != 1 or context.is_bundled:
        return
    path = context.request.descriptions[0].path
    if description_files.maker_of(path.name) or not all(map(split.is_includable, unused)):
        return
    before = after = description_files.load(path.parent, path.name)
    for name in unused:
        after = _with_include(after, path.name, name)
    # The edited file is read again, because a mistake would break a description that works.
    read = descriptions.parse(after, path, lambda name: description_files.load(path.parent, name))
    if not {*unused} <= {include.name for include in read.includes}:
        raise AssertionError(f"{path}: includes {read.includes}")
    yield Edit(path=path, before=before, after=after)


def _with_include(xml: bytes, file: str, name: str) -> bytes:
    root = xml_reader.parse(xml, file, split.SECTIONS)
    source = XmlText.of(xml)
    end = root.tag.stop
    line = f'<include from="this://./{name}"/>'
    if not source.text.startswith("</", end):  # <image/>
        raise Error(f"{file}: is empty; add {line}")
    start = source.line_start(end)
    before = "" if source.begins_line(end) else source.newline
    indent = xml_editor.indent_of(source, root)
    return source.encode(source.text[:start] + before + indent + line + source.newline + source.text[start:])


def _modes(context: Context) -> Iterator[Edit]:
    """Replace the mode of the prefetch by one that old servers know."""
    xml = service_file.read(context.package.directory)
    if not context.has_old_server or xml is None:
        return
    after = service_editor.replace_mode(xml, PREFETCH, "manual", "disabled")
    yield Edit(path=context.package.directory / service_file.FILE_NAME, before=xml, after=after)
