"""Moves `<containers>` into a file that the description includes, which is the layout that OBS can build.

obs-build requires each container in the description as a package (`kiwiparse` in Build/Kiwi.pm), but does not read
included files. kiwi replaces an `<include>` by the children of the root element of the included file
(kiwi/xsl/include.xsl).
"""

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import DescriptionError
from osc_containers.formats import xml_editor, xml_reader
from osc_containers.formats.xml_editor import XmlText, escape
from osc_containers.formats.xml_reader import Element
from osc_containers.fs import atomic
from osc_containers.kiwi import description, description_files
from osc_containers.kiwi.containers import Container
from osc_containers.kiwi.description import Description, Include

logger = logging.getLogger(__name__)

FILE_NAME = "containers.xml"

# The end of a line, and of a comment with nothing behind it.
_COMMENT_END = re.compile(r"(?P<comment>-->)[ \t]*\r?\n\Z")
_LINE = 1000
"""Characters before an element that are searched for the end of a comment."""
SECTIONS = (
    "description",
    "preferences",
    "profiles",
    "users",
    "repository",
    "packages",
    "drivers",
    "strip",
    "include",
    "extension",
    "certificates",
)
"""The other sections of a description (`k.image` in kiwi/schema/kiwi.rnc)."""
# obs-build finds its directives in the text of the description, wherever they are (Build/Kiwi.pm).
_DIRECTIVE = re.compile(r"<!--\s*OBS-", re.IGNORECASE)
# The tag of any element but <containers> and <container>.
_OTHER_ELEMENT = re.compile(r"</?(?!containers?\b)[A-Za-z_][^\s<>]*(?:\s[^<>]*)?/?>")
# The characters that `description` accepts in an include, without the slash.
_INCLUDABLE_NAME = re.compile(r"[A-Za-z0-9._+=,~@-]+")


class Split(NamedTuple):
    """The new content of a description and of the file that gets its `<containers>`."""

    description: Path
    included: Path
    edited: bytes
    moved: bytes
    sections: int


def plan(descriptions: Sequence[Description], name: str | None = None) -> tuple[Split, ...]:
    """Return how to move each `<containers>` that obs-build sees in the description `name` of a package, or in all.

    :raises DescriptionError: something would be lost; there is one message for each reason.
    """
    affected = [each for each in descriptions if each.seen_by_obs_build and name in (None, each.path.name)]
    splits = []
    problems = []
    for each in affected:
        try:
            splits.append(_split(each, descriptions, alone=len(affected) == 1))
        except ValueError as error:
            problems.append(f"{each.path.name}:{each.seen_by_obs_build[0].line}: {error}")
    if problems:
        raise DescriptionError(*problems)
    return tuple(splits)


def apply(splits: Sequence[Split]) -> None:
    """Write the files: the new ones first, so that no description ever lacks its containers."""
    for split in splits:
        # The new file is as readable as the description: a service or a build may run as another user.
        mode = split.description.stat().st_mode & 0o7777
        atomic.write_atomically(split.included, split.moved, mode)
        logger.info("%s: created with the <containers> of %s", split.included.name, split.description.name)
    for split in splits:
        # The edited description replaces the old one, so it keeps its mode.
        mode = split.description.stat().st_mode & 0o7777
        atomic.write_atomically(split.description, split.edited, mode)
        logger.info("%s: now includes %s; nothing else changed", split.description.name, split.included.name)


def is_includable(name: str) -> bool:
    """Tell whether an `<include>` can name a file that is beside the description."""
    return bool(_INCLUDABLE_NAME.fullmatch(name))


def detach_containers(described: Description, splits: Sequence[Split] = ()) -> tuple[bytes, tuple[str, ...]]:
    """Return a description without the includes of files with `<containers>`, and the names of these files.

    This is for `inject=source`, where kiwi must not see any container. `splits` are taken as already applied.

    :raises DescriptionError: an included file has more than `<containers>`; there is one message for each reason.
    """
    new = {split.description.name: split.edited for split in splits}
    load = _loader(described.path.parent, new | {split.included.name: split.moved for split in splits})
    if maker := description_files.maker_of(described.path.name):
        raise DescriptionError(
            f"{described.path.name}: the service {maker!r} in _service makes this file at every run, and an edit would "
            f"be lost; remove the includes of files with <containers> where {maker!r} takes it from"
        )
    xml = load(described.path.name)
    described = description.parse(xml, described.path, load)
    detached = tuple(dict.fromkeys(container.file for container in described.containers))
    problems = []
    for include in described.includes:
        if include.name in detached:
            try:
                obstacle = _obstacle(include, load)
            except ValueError as error:
                problems.append(str(error))
                continue
            if obstacle:
                problems.append(
                    f"{include.file}:{include.line}: {include.name} {obstacle}; put <containers> into a separate file"
                )
    if problems:
        raise DescriptionError(*problems)
    source = XmlText.of(xml)
    # Only the description itself is edited, so only its own includes have a position in this text.
    own = (include for include in described.includes if not include.is_nested)
    pieces, done = [], 0
    # Both are in the order of the document, and `strict` notices if they do not belong together.
    for include, (start, end) in zip(own, xml_editor.spans(xml, "include"), strict=True):
        if include.name in detached:
            first, last = source.whole_line(start, end)
            pieces.append(source.text[done:first])
            done = last
    return source.encode("".join([*pieces, source.text[done:]])), detached


def _obstacle(include: Include, load: Callable[[str], bytes]) -> str:
    """Return why an included file with `<containers>` cannot be left to the service, or an empty text.

    :raises ValueError: as `osc_containers.formats.xml_reader.parse`.
    """
    if include.is_nested:
        return "is included by another file"
    if "/" in include.name:
        return "is in a subdirectory, where the service does not look"
    others = xml_reader.parse(load(include.name), include.name, SECTIONS).children
    return f"also has {others[0].name!r}" if others else ""


def _split(described: Description, descriptions: Sequence[Description], *, alone: bool) -> Split:
    if maker := description_files.maker_of(described.path.name):
        raise ValueError(
            f"the service {maker!r} in _service makes this file at every run, and an edit would be lost; move "
            f"<containers> where {maker!r} takes the file from"
        )
    for other in descriptions:
        if described.path in other.files[1:]:
            raise ValueError(
                f"{other.path.name} includes this file, and kiwi ignores includes in included files; move <containers> "
                f"into a file that {other.path.name} includes"
            )
    xml = description_files.load(described.path.parent, described.path.name)
    root = xml_reader.parse(xml, described.path.name)
    source = XmlText.of(xml)
    spans = [(_with_comments(source, start), end) for start, end in xml_editor.spans(xml, "containers")]
    moved = source.encode(_included_text(source, root, spans))
    included = _free_name(described, moved, descriptions, alone=alone)
    edited = source.encode(_edited_text(source, spans, included.name))
    # The edited files are read once more, because a mistake would change which containers are in the image.
    _check(described, edited, {included.name: moved})
    return Split(description=described.path, included=included, edited=edited, moved=moved, sections=len(spans))


def _with_comments(source: XmlText, start: int) -> int:
    """Return the start of the comments directly before an element, on their own lines.

    Comments for obs-build stay where they are, because it reads them only in the description.
    """
    text = source.text
    while source.begins_line(start):
        # Invariant: from `start` to the element there are only whole comments and white space.
        match = _COMMENT_END.search(text, max(0, source.line_start(start) - _LINE), source.line_start(start))
        comment = text.rfind("<!--", 0, match.end("comment")) if match else -1
        if match is None or comment < 0 or not source.begins_line(comment) or _DIRECTIVE.match(text, comment):
            break
        # An element that was commented out stays, unless it is about containers, too.
        if _OTHER_ELEMENT.search(text, comment + 1, match.end("comment")):
            break
        start = comment
    return start


def _included_text(source: XmlText, root: Element, spans: Sequence[tuple[int, int]]) -> str:
    """Return the new file: the unchanged elements, in a copy of the root element."""
    attributes = "".join(
        f' {name}="{escape(root.attributes[name])}"' for name in ("schemaversion", "name") if name in root.attributes
    )
    lines = [
        source.head,
        "<!-- A file of its own, because OBS would take every container in the description for a package. -->",
        f"<image{attributes}>",
        *(source.text[source.line_start(start) : end] for start, end in spans),
        "</image>",
        "",
    ]
    return source.newline.join(lines)


def _edited_text(source: XmlText, spans: Sequence[tuple[int, int]], name: str) -> str:
    # The include takes the place of the first section; the lines of the others are removed.
    (start, end), *others = spans
    pieces = [source.text[:start], f'<include from="this://./{name}"/>']
    for span in others:
        first, last = source.whole_line(*span)
        pieces.append(source.text[end:first])
        end = last
    return "".join([*pieces, source.text[end:]])


def _free_name(described: Description, moved: bytes, descriptions: Sequence[Description], *, alone: bool) -> Path:
    """Return the path of the new file; if several descriptions need one, each gets its own."""
    own = f"{described.path.stem}.{FILE_NAME}"
    used = {path for other in descriptions if other is not described for path in other.files[1:]}
    # A package with one description gets the plain name that the documentation uses.
    path = described.path.parent / (FILE_NAME if alone else own)
    if path in used:
        path = described.path.parent / own
    if not is_includable(path.name):
        raise ValueError(f"{path.name[:160]!r} is not a name that can be included; rename the description")
    if path in described.files:
        raise ValueError(f"{path.name} already exists and is included; move this <containers> into it")
    # An earlier run that was interrupted may have written this file; the same content is no conflict.
    if os.path.lexists(path) and not (path.is_file() and not path.is_symlink() and xml_reader.read(path) == moved):
        raise ValueError(f"{path.name} already exists with other content; rename or remove it")
    return path


def _check(before: Description, edited: bytes, new: Mapping[str, bytes]) -> None:
    """Check that the edited description has the same containers in the same order, and that obs-build sees none."""
    after = description.parse(edited, before.path, _loader(before.path.parent, new))
    if [_content(each) for each in after.containers] != [_content(each) for each in before.containers]:
        raise ValueError(
            "the order of the containers would change, because an include with others is between them; move the "
            "<containers> before or after it"
        )
    if after.seen_by_obs_build:
        # That would be a bug in this module, and not a problem of the package.
        raise AssertionError(f"{before.path}: obs-build still sees {after.seen_by_obs_build[0]}")


def _loader(directory: Path, new: Mapping[str, bytes]) -> Callable[[str], bytes]:
    """Return a function that loads the files of a package, but those in `new` with their new content."""
    return lambda name: new.get(name) or description_files.load(directory, name)


def _content(container: Container) -> Container:
    return container._replace(file="", line=0)
