"""Changes of containers as text: a table for people, and entries for the `.changes` file of a package."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from osc_containers.cli.output import table
from osc_containers.formats import human
from osc_containers.lock.diff import Change, ImageChange, SignerChange, Version

_WIDTH = 67
"""The line length of a `.changes` file, in characters, as in osc's template (osc/core.py, `vc`)."""

_DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_HEADS = ("  ARCH", "OLD", "CREATED", "NEW", "CREATED", "LAYERS", "TO FETCH")


def as_text(changes: Sequence[Change]) -> str:
    """Return a table of the images by architecture, with each reference as a line above its images."""
    images = [image for change in changes for image in change.images]
    # One table for all references, so that the columns are aligned; its rows are then distributed.
    head, *rows = table.render(_HEADS, map(_row, images), right=("TO FETCH",), wrapped=("LAYERS",))
    texts = [head]
    for change in changes:
        texts += [str(change.reference), *rows[: len(change.images)]]
        rows = rows[len(change.images) :]
    return "\n".join(texts)


def signers_as_text(changes: Iterable[SignerChange]) -> str:
    """Return a line for each image that is signed by other keys."""
    return "\n".join(f"{each.reference} ({each.arch}): {_signers(each)}" for each in changes)


def _signers(change: SignerChange) -> str:
    new, old = (" and ".join(keys) for keys in (change.new, change.old))
    if not new:
        return f"no longer signed; before by {old}"
    return f"signed by {new}" + (f"; before by {old}" if old else "")


def _row(image: ImageChange) -> tuple[str, ...]:
    layers = f"{len(image.kept)} kept, +{len(image.added)}, -{len(image.dropped)}"
    fetch_size = human.size(image.fetch_size) if image.new else "-"
    return (f"  {image.arch}", *_side(image.old), *_side(image.new), layers, fetch_size)


def _side(version: Version | None) -> tuple[str, str]:
    return (version.image.manifest.digest.short, _day(version) or "-") if version else ("-", "-")


def _day(version: Version) -> str:
    """Return the creation date of an image as YYYY-MM-DD; empty if the lock has something else there."""
    match = _DAY.match(version.created)
    return match[0] if match else ""


def as_changes(changes: Sequence[Change]) -> str:
    """Return the items for an entry of a `.changes` file, without the header of the entry."""
    sections = {
        "Update containers:": [change for change in changes if change.old and change.new],
        "Add containers:": [change for change in changes if not change.old],
        "Remove containers:": [change for change in changes if not change.new],
    }
    lines = []
    for title, items in sections.items():
        if items:
            lines.append(f"- {title}")
            lines += [line for change in items for line in _item(change)]
    return "\n".join(lines)


def _item(change: Change) -> Iterable[str]:
    return textwrap.wrap(
        f"{change.reference}{': ' if change.new else ''}{', '.join(_facts(change))}",
        _WIDTH,
        initial_indent="  * ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _facts(change: Change) -> Iterator[str]:
    """Yield what is still worth knowing years later: the digests, their dates, and how much of the image is new."""
    if change.new is None:
        return
    new = f"{change.new.algorithm}:{change.new.short}{_date(image.new for image in change.images)}"
    if change.old is None:
        yield new
        return
    if change.old != change.new:
        yield f"{change.old.algorithm}:{change.old.short}{_date(image.old for image in change.images)} -> {new}"
    updates = [image for image in change.images if image.old and image.new]
    # A layer that several architectures share counts once.
    if updates:
        added = {layer.digest for image in updates for layer in image.added}
        layers = added | {layer.digest for image in updates for layer in image.kept}
        yield f"{len(added)} of {len(layers)} layers new"
    # Architectures matter only if they changed; most updates are for the same ones.
    for word, arches in (
        ("for", [image.arch for image in change.images if not image.old]),
        ("no longer for", [image.arch for image in change.images if not image.new]),
    ):
        if arches:
            yield f"{word} {' and '.join(arches)}{', too' if word == 'for' else ''}"


def _date(versions: Iterable[Version | None]) -> str:
    """Return the latest creation date of some images, or nothing."""
    day = max((_day(version) for version in versions if version), default="")
    return f" ({day})" if day else ""
