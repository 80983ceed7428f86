"""An OBS package as a directory: its lock, its archives, and what osc left of an earlier run.

osc and the source server give the files of a service that runs automatically the prefix `_service:NAME:`; before the
next run osc puts them into `.old` (osc/obs_scm/serviceinfo.py), and the server does the same (bs_service).
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from osc_containers.errors import DescriptionError, LockError, VerificationError
from osc_containers.formats import cpio
from osc_containers.fs import atomic, lfs_pointer
from osc_containers.kiwi import description, description_files
from osc_containers.kiwi.description import Description
from osc_containers.lock import archive_names, lockfile
from osc_containers.lock.archive_names import ARCHIVE_SUFFIX, BLOB_SUFFIX
from osc_containers.lock.lockfile import Lock
from osc_containers.obs import hints, run_lock, service_file
from osc_containers.obs.parameters import PREFETCH
from osc_containers.obs.service_file import Entry

_IMAGE_FILES = (ARCHIVE_SUFFIX, BLOB_SUFFIX, cpio.FILE_NAME)
logger = logging.getLogger(__name__)

# obs-build removes everything up to the last colon (script `build`), so this can be the prefix of several services.
_PREFIX = re.compile(r"_service:(?:[^:/]+:)*")


class Package:
    """The package in a directory.

    `_service` and the descriptions are read once, when they are first needed. Make a new object after editing one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._descriptions: dict[str, Description] = {}

    @cached_property
    def service_entries(self) -> tuple[Entry, ...]:
        """The entries of `_service`; none where there is no such file.

        :raises DescriptionError: it cannot be used.
        """
        return service_file.read_entries(self.directory)

    @property
    def prefetches(self) -> tuple[Entry, ...]:
        """The entries of the prefetch service in `_service`.

        :raises DescriptionError: as `service_entries`.
        """
        return tuple(entry for entry in self.service_entries if entry.name == PREFETCH)

    def store_patterns(self, description: str) -> tuple[str, ...]:
        """Return the patterns for containers of a description that go into a read-only store, by `_service`.

        There are none if that cannot be used.
        """
        try:
            return tuple(service_file.store_patterns(self.service_entries, description))
        except DescriptionError:  # reported where the entries themselves are needed
            return ()

    @cached_property
    def description_names(self) -> tuple[str, ...]:
        """The file names of all descriptions.

        :raises DescriptionError: there is none.
        """
        return tuple(path.name for path in description_files.find(self.directory))

    def description(self, name: str) -> Description:
        """Return the description in the file `name`.

        :raises DescriptionError: it cannot be used.
        """
        if name not in self._descriptions:
            self._descriptions[name] = description.read(self.directory / name)
        return self._descriptions[name]

    def read_lock(self) -> Lock | None:
        """Return what is locked, or None where there is no lock file.

        :raises LockError: the file is broken, or something other than a file.
        """
        path = self.find(lockfile.FILE_NAME)
        if path is None:
            if (self.directory / lockfile.FILE_NAME).exists():
                raise LockError(f"{lockfile.FILE_NAME}: got a directory or a special file, expected a file; remove it")
            return None
        if path.stat().st_size > lockfile.LIMIT:
            raise LockError(f"{path.name}: got {path.stat().st_size} bytes, expected at most {lockfile.LIMIT}")
        try:
            with atomic.naming(path):
                text = path.read_text("utf-8")
        except UnicodeDecodeError:
            raise LockError(f"{path.name}: not UTF-8 text; remove it and run the prefetch again") from None
        if lfs_pointer.is_pointer(text.encode()):
            raise LockError(f"{path.name}: {lfs_pointer.problem(self.directory)}")
        return lockfile.loads(text, lockfile.FILE_NAME)

    def require_lock(self) -> Lock:
        """Return what is locked.

        :raises LockError: there is no lock file; or as `read_lock`.
        :raises DescriptionError: there is neither a lock nor a description, or `_service` cannot be used.
        """
        lock = self.read_lock()
        if lock is None:
            _ = self.description_names  # In a directory that is no package, the lock is not what is missing.
            raise LockError(
                f"{lockfile.FILE_NAME}: missing; run '{hints.prefetch(self.directory, self.service_entries)}', and "
                "commit the result"
            )
        return lock

    def find(self, name: str) -> Path | None:
        """Return where the file `name` is: in the package, or among the results of an earlier run."""
        own = self.directory / name
        if own.is_file():
            return own
        return next((path for path in self._earlier(name) if _PREFIX.sub("", path.name, count=1) == name), None)

    def image_files(self) -> Mapping[str, Path]:
        """Return the files that may hold blobs, by their names without the prefix of a service.

        If the package and the results of an earlier run have files of the same name, it is that of the package.
        """
        paths = self.image_paths()
        earlier = {_PREFIX.sub("", path.name, count=1): path for path in paths if path.name.startswith("_service:")}
        # Later keys win, so these are the files of the package.
        return {**earlier, **{path.name: path for path in paths if not path.name.startswith("_service:")}}

    def image_paths(self) -> tuple[Path, ...]:
        """Return every file that may hold blobs, in the package and among the results of an earlier run, sorted."""
        found = {*self.directory.iterdir(), *self._earlier()}
        return tuple(sorted(path for path in found if path.name.endswith(_IMAGE_FILES) and path.is_file()))

    def own_files(self, lock: Lock | None) -> tuple[str, ...]:
        """Return the names of the files in the package that a build with containers needs, sorted.

        Of the images, these are the files that `lock` needs.

        :raises DescriptionError: a description cannot be used.
        """
        files = {path for name in self.description_names for path in self.description(name).files}
        names = {str(path.relative_to(self.directory)) for path in files}
        if not all(path.is_file() for path in files):  # A build unpacks the others.
            names |= {path.name for path in self.cpio_archives()}
        names |= {service_file.FILE_NAME, lockfile.FILE_NAME, cpio.FILE_NAME}
        if lock:
            blobs = {blob.digest for _, _, locked in lock.images() for blob in locked.image.blobs}
            names |= {*lock.archive_names().values(), *map(archive_names.blob, blobs)}
        # osc does not commit the files that services make at every run.
        present = (name for name in names if (self.directory / name).is_file())
        return tuple(sorted(name for name in present if not name.startswith("_service:")))

    def refuse_pointers(self) -> None:
        """Refuse a package with archives that were never downloaded: nothing may be verified by them, or replace them.

        :raises VerificationError: there are pointers of git-lfs.
        """
        names = [path.name for path in self.image_paths() if lfs_pointer.is_pointer_file(path)]
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise VerificationError(f"{names[0]}{more}: {lfs_pointer.problem(self.directory)}")

    def cpio_archives(self) -> tuple[Path, ...]:
        """Return every file of the package that obs-build unpacks over the sources, sorted."""
        return tuple(sorted(path for path in self.directory.iterdir() if path.name.endswith(cpio.SUFFIX)))

    def _earlier(self, end: str = "") -> Iterator[Path]:
        """Yield the results of an earlier run whose names end so; each name that does not costs a look at it alone."""
        old = self.directory / ".old"
        for directory in (old, self.directory):
            if directory.is_dir():
                found = [name for name in os.listdir(directory) if name.startswith("_service:") and name.endswith(end)]
                yield from (path for name in sorted(found) if (path := directory / name).is_file())

    @contextmanager
    def share(self) -> Iterator[None]:
        """Keep runs that would change the package waiting while the block reads it.

        :raises Error: as `run_lock.share`.
        """
        with run_lock.share(self.directory):
            yield

    def warn_of_writer(self) -> None:
        """Warn if another run is changing the package: what a command prints may be out of date soon."""
        if writer := run_lock.find_writer(self.directory):
            logger.warning("%s: %s is changing it, as prefetch and init do", self.directory, writer)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other runs out of the package while the block runs; nothing is written to the package for it.

        Temporary files of runs that were killed are removed first.

        :raises Error: another run of this user is in the package; or as `run_lock.hold`.
        """
        with run_lock.hold(self.directory) as is_alone:
            # Otherwise a run of another user may still be writing its temporary files.
            if is_alone:
                atomic.remove_abandoned(self.directory)
            yield
