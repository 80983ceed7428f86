"""The layout that OBS can build: `<containers>` in a file that the description includes.

obs-build reads only the description, no includes, and takes every container in it for a package that has to be there
(Build/Kiwi.pm, `kiwiparse`). kiwi puts the children of the included file's root in place of the `<include>`
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
from osc_containers.kiwi import description
from osc_containers.kiwi.containers import Container
from osc_containers.kiwi.description import Description, Include

logger = logging.getLogger(__name__)

FILE_NAME = "containers.xml"

_END_BEFORE = re.compile(r"(?P<comment>-->)[ \t]*\r?\n\Z")
_LINE = 1000
"""Letters in which the end of a comment and that of its line are looked for."""
_SECTIONS = (
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
"""What else than `<containers>` may be in a description (kiwi.rnc, k.image)."""
_DIRECTIVE = re.compile(r"<!--\s*OBS-", re.IGNORECASE)
_FIT_FOR_INCLUDE = re.compile(r"[A-Za-z0-9._+=,~@-]+")


class Split(NamedTuple):
    """What moves the `<containers>` of one description: the new content of two files."""

    description: Path
    included: Path
    edited: bytes
    moved: bytes
    sections: int


def plan(descriptions: Sequence[Description]) -> tuple[Split, ...]:
    """Move every `<containers>` that obs-build sees in these, all the descriptions of a package; nothing is written.

    :raises DescriptionError: it cannot be done without loss; every reason is named.
    """
    visible = [found for found in descriptions if found.visible]
    splits = []
    problems = []
    for found in visible:
        try:
            splits.append(_split(found, descriptions, alone=len(visible) == 1))
        except ValueError as error:
            problems.append(f"{found.path.name}:{found.visible[0].line}: {error}")
    if problems:
        raise DescriptionError(*problems)
    return tuple(splits)


def apply(splits: Sequence[Split]) -> None:
    """Write the files: the new ones first, so that no description is ever without its containers."""
    for split in splits:
        mode = split.description.stat().st_mode & 0o7777
        atomic.write_atomically(split.included, split.moved, mode)
        logger.info("%s: new, has the <containers> of %s", split.included.name, split.description.name)
    for split in splits:
        mode = split.description.stat().st_mode & 0o7777
        atomic.write_atomically(split.description, split.edited, mode)
        logger.info("%s: includes %s; nothing else changed", split.description.name, split.included.name)


def detached(found: Description, splits: Sequence[Split] = ()) -> tuple[bytes, tuple[str, ...]]:
    """Return a description that includes no file with its `<containers>`, and those files' names, for `inject=source`.

    It is the description as `splits` will leave it; nothing is written.

    :raises DescriptionError: what it includes is more than that; every reason is named.
    """
    new = {split.description.name: split.edited for split in splits}
    load = _loader(found.path.parent, new | {split.included.name: split.moved for split in splits})
    xml = load(found.path.name)
    found = description.parse(xml, found.path, load)
    holding = tuple(dict.fromkeys(container.file for container in found.containers))
    problems = []
    for include in found.includes:
        if include.name in holding:
            try:
                obstacle = _obstacle(include, load)
            except ValueError as error:
                problems.append(str(error))
                continue
            if obstacle:
                problems.append(
                    f"{include.file}:{include.line}: {include.name} {obstacle}; put <containers> into a file of its own"
                )
    if problems:
        raise DescriptionError(*problems)
    source = XmlText.of(xml)
    own = (include for include in found.includes if not include.is_nested)
    pieces, done = [], 0
    for include, (start, end) in zip(own, xml_editor.spans(xml, "include"), strict=True):
        if include.name in holding:
            first, last = source.whole_line(start, end)
            pieces.append(source.text[done:first])
            done = last
    return source.encode("".join([*pieces, source.text[done:]])), holding


def _obstacle(include: Include, load: Callable[[str], bytes]) -> str:
    """Return why an included file with `<containers>` cannot be the service's own; nothing where it can.

    :raises ValueError: as `osc_containers.formats.xml_reader.parse`.
    """
    if include.is_nested:
        return "is included by another file"
    if "/" in include.name:
        return "is in a directory, where the service does not look"
    others = xml_reader.parse(load(include.name), include.name, _SECTIONS).children
    return f"has {others[0].name!r}, too" if others else ""


def _split(found: Description, descriptions: Sequence[Description], *, alone: bool) -> Split:
    for other in descriptions:
        if found.path in other.files[1:]:
            raise ValueError(
                f"{other.path.name} includes this file, and kiwi does not follow an include in it; move <containers> "
                f"into a file that {other.path.name} includes"
            )
    xml = description.load(found.path.parent, found.path.name)
    root = xml_reader.parse(xml, found.path.name)
    source = XmlText.of(xml)
    spans = [(_with_comments(source, start), end) for start, end in description.containers_spans(xml)]
    moved = source.encode(_included_text(source, root, spans))
    included = _free_name(found, moved, descriptions, alone=alone)
    edited = source.encode(_edited_text(source, spans, included.name))
    _check(found, edited, {included.name: moved})
    return Split(description=found.path, included=included, edited=edited, moved=moved, sections=len(spans))


def _with_comments(source: XmlText, start: int) -> int:
    """Return where the comments begin that stand directly before an element, on lines of their own.

    Those for obs-build stay: it reads them in the description alone, and wherever they are.
    """
    text = source.text
    while source.begins_line(start):
        match = _END_BEFORE.search(text, max(0, source.line_start(start) - _LINE), source.line_start(start))
        comment = text.rfind("<!--", 0, match.end("comment")) if match else -1
        if comment < 0 or not source.begins_line(comment) or _DIRECTIVE.match(text, comment):
            break
        start = comment
    return start


def _included_text(source: XmlText, root: Element, spans: Sequence[tuple[int, int]]) -> str:
    """Return the new file: the elements as they are, in the root that they had."""
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
    (start, end), *others = spans
    pieces = [source.text[:start], f'<include from="this://./{name}"/>']
    for place in others:
        first, last = source.whole_line(*place)
        pieces.append(source.text[end:first])
        end = last
    return "".join([*pieces, source.text[end:]])


def _free_name(found: Description, moved: bytes, descriptions: Sequence[Description], *, alone: bool) -> Path:
    """Choose the new file's name: of several descriptions that need one, each gets its own."""
    own = f"{found.path.stem}.{FILE_NAME}"
    used = {path for other in descriptions if other is not found for path in other.files[1:]}
    path = found.path.parent / (FILE_NAME if alone else own)
    if path in used:
        path = found.path.parent / own
    if not _FIT_FOR_INCLUDE.fullmatch(path.name):
        raise ValueError(f"{path.name[:160]!r} is no name that can be included; rename the description")
    if path in found.files:
        raise ValueError(f"{path.name} is there already and included; move this <containers> into it")
    if os.path.lexists(path) and not (path.is_file() and not path.is_symlink() and xml_reader.read(path) == moved):
        raise ValueError(f"{path.name} is there already and is something else; rename or remove it")
    return path


def _check(before: Description, edited: bytes, new: Mapping[str, bytes]) -> None:
    """Make sure that both readings have the same containers in the same order, and obs-build sees none."""
    after = description.parse(edited, before.path, _loader(before.path.parent, new))
    if [_content(each) for each in after.containers] != [_content(each) for each in before.containers]:
        raise ValueError(
            "the order of the containers would change, because an include with others stands between; move the "
            "<containers> before it or behind it"
        )
    if after.visible:
        raise AssertionError(f"{before.path}: {after.visible[0]} is still visible")


def _loader(directory: Path, new: Mapping[str, bytes]) -> Callable[[str], bytes]:
    """Return what loads the files of a package as they will be: those that are `new`, and the others."""
    return lambda name: new.get(name) or description.load(directory, name)


def _content(container: Container) -> Container:
    return container._replace(file="", line=0)
