"""Write the archive of one image of a package, for engines on the packager's machine."""

import errno
import os
from contextlib import ExitStack
from pathlib import Path

from osc_containers.archive.blobs import PackageBlobs
from osc_containers.archive.layout import layout_of
from osc_containers.errors import Error, VerificationError
from osc_containers.fs import atomic
from osc_containers.fs.ranges import FileSlice
from osc_containers.lock import archive_names
from osc_containers.lock.lockfile import Lock
from osc_containers.obs.package import Package
from osc_containers.oci import chain, platform
from osc_containers.oci.chain import Claim
from osc_containers.oci.digest import Digest


def export(package: Package, lock: Lock, claim: Claim, path: Path, *, force: bool) -> int:
    """Write the archive of an image to `path`, and return its size in bytes; all of it is verified.

    An existing file is replaced with `force` only. `path` has either the old content or the complete archive.

    :raises VerificationError: the package does not have all of the image, or something is damaged.
    :raises Error: `path` exists and may not be replaced.
    :raises OSError: it cannot be written, or there is too little space.
    """
    if os.path.lexists(path) and (not force or path.is_dir()):
        advice = "choose another name" if path.is_dir() else "use --force to replace it"
        raise Error(f"{path}: exists already; {advice}")
    package.refuse_pointers()
    with ExitStack() as stack:
        blobs = PackageBlobs(package, lock, stack)
        # By an index, an engine would look for the image of this machine's architecture, which may be another one.
        is_foreign = platform.canonical(claim.arch) != platform.of_this_machine()
        layout = layout_of(claim._replace(image=claim.image._replace(indexes=())) if is_foreign else claim)
        shortage = atomic.describe_shortage(path.parent, layout.size)
        if shortage:
            raise OSError(errno.ENOSPC, shortage, str(path.parent))
        with atomic.naming(path), atomic.new_file(path) as descriptor:
            target = FileSlice(descriptor, 0)
            for offset, content in layout.frame():
                target.write(content, offset)
            sizes = {blob.digest: blob for blob in claim.image.blobs}
            for member in layout.blobs():
                found = blobs.find(claim, sizes[member.digest])
                name = archive_names.blob(member.digest)
                if found is None:
                    raise VerificationError(f"{name}: missing, or of another size than locked; {_ADVICE}")
                found.content.copy(target.at(member.offset), member.size)
                # The copy is hashed, because the file of the package may have been changed while it was copied.
                digest = Digest(
                    member.digest.algorithm, target.at(member.offset).hash(member.digest.algorithm, member.size)
                )
                if digest != member.digest:
                    where = found.source.path.name
                    raise VerificationError(f"{where}: got {digest}, expected {member.digest}; {_ADVICE}")
            _check_chain(blobs, claim)
            atomic.flush(descriptor)
    return layout.size


_ADVICE = "run the prefetch again"


def _check_chain(blobs: PackageBlobs, claim: Claim) -> None:
    try:
        chain.check(claim, lambda each: blobs.document(claim, each) or b"")
    except ValueError as error:
        raise VerificationError(f"{claim.reference} for {claim.arch}: {error}; {_ADVICE}") from None
