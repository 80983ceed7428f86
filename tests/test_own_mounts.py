"""Commands in a chroot have mount namespaces whose root is the chroot."""

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).resolve().parent.parent / "scripts/own-mounts"
IN_CHROOT = """
[ "$4" = plain ] || mount --bind "$1" "$1"
cd "$1"
mkdir usr proc dev mnt
for each in bin sbin lib lib64; do ln -s usr/$each $each; done
mount --rbind /usr usr
mount --rbind /dev dev
mount -t proc proc proc
cp "$2" work/own-mounts
echo chroot > marker
exec chroot . sh -c 'cd /work; unshare --mount true 2> /dev/null && echo mount point; exec ./own-mounts "$1"' sh "$3"
"""
INSIDE = """#!/bin/sh
pwd
unshare --mount nsenter --mount=/proc/self/ns/mnt cat /marker
ls /mnt
"""


@pytest.mark.parametrize("kind", ["plain", "mount point"])
def test_entering_a_namespace_does_not_leave_a_chroot(tmp_path: Path, kind: str) -> None:
    """Podman enters the namespace of a container for `exec`: what it does there must not reach the machine."""
    enter = ["unshare", "--mount", "--propagation=private", "sh", "-euc", IN_CHROOT]
    inside = tmp_path / "work/inside"
    inside.parent.mkdir()
    inside.write_text(INSIDE)
    inside.chmod(0o755)
    done = subprocess.run([*enter, "sh", tmp_path, SCRIPT, "./inside", kind], capture_output=True, text=True)
    is_mount_point = "" if kind == "plain" else "mount point\n"
    assert (done.stdout, done.stderr) == (f"{is_mount_point}/work\nchroot\n", "")
