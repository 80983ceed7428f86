"""What a prefetch says about each image."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from osc_containers.oci.digest import Digest
from tests.support import images
from tests.support.fake_source import FakeSource
from tests.support.prefetch_run import APP, WEB, run_prefetch, want


def short(digest: Digest) -> str:
    return f"sha256:{digest.hex[:12]}"


class Run:
    """A package with two images, and what the next prefetch says about the first."""

    def __init__(self, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.directory, self._caplog = directory, caplog
        self.source = FakeSource({APP: images.multi_platform("app"), WEB: images.small("web")})
        self.image = self.source.tags[APP].children[0].digest
        self.again()

    def again(self, *, locked: bool = False) -> str:
        self._caplog.clear()
        with self._caplog.at_level(logging.INFO):
            run_prefetch(self.source, self.directory, *want(APP, WEB), locked=locked)
        message, _ = (text for text in self._caplog.messages if "removed" not in text)
        return message.removeprefix(f"{APP} (x86_64): ")

    def edit_lock(self, edit: Any) -> None:
        path = self.directory / "containers.lock"
        document = json.loads(path.read_text())
        edit(document["containers"][APP])
        path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")


@pytest.fixture
def run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Run:
    return Run(tmp_path, caplog)


def test_unchanged_image_is_reported_with_a_short_digest(run: Run) -> None:
    assert run.again() == f"unchanged, {short(run.image)}"


def test_moved_tag_is_reported_with_both_digests(run: Run) -> None:
    run.source.tags[APP] = images.multi_platform("new")
    new = run.source.tags[APP].children[0].digest
    assert run.again() == f"moved from {short(run.image)} to {short(new)}"


def test_moved_index_of_the_same_image_is_reported(run: Run) -> None:
    old = run.source.tags[APP]
    run.source.tags[APP] = new = images.index(old.children[0], images.multi_platform("new").children[1])
    assert run.again() == (
        f"the index moved from {short(old.digest)} to {short(new.digest)}, the image for x86_64 is still "
        f"{short(run.image)}"
    )


@pytest.mark.parametrize("locked", [False, True])
def test_archive_that_was_removed_is_fetched_again(run: Run, locked: bool) -> None:
    next(run.directory.glob("*app*.ociarchive")).unlink()
    assert run.again(locked=locked) == f"fetched again, {short(run.image)}"


OTHER = str(Digest.of(b"other"))


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda entry: entry["architectures"]["x86_64"]["config"].update(digest=OTHER), "config"),
        (lambda entry: entry["architectures"]["x86_64"]["layers"][0].update(digest=OTHER), "list of layers"),
        (lambda entry: entry["architectures"]["x86_64"]["manifest"].update(size=1), "size or type of the manifest"),
        (lambda entry: entry["architectures"]["x86_64"].update(created="2001-01-01T00:00:00Z"), "creation date"),
    ],
)
def test_edited_lock_is_reported_by_what_was_edited(run: Run, edit: Any, what: str) -> None:
    run.edit_lock(edit)
    assert run.again() == f"still {short(run.image)}, the lock had another {what}"
