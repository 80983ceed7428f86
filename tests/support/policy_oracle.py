"""Cases for signature policies, put to skopeo and podman of Debian 13 and to our evaluation.

Each case is a home directory with policy.json, registries.conf and registries.d, and a reference to pull. The programs
run in a small system of their own, made by mmdebstrap, where the cases have the same paths. Those of Debian 12 know
fewer formats.
"""

import json
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import Error
from osc_containers.evidence.evaluate import Image
from osc_containers.evidence.policy import load, locations
from osc_containers.evidence.policy.identity import Identity
from osc_containers.evidence.signatures.programs import Verifier
from osc_containers.oci.manifest import Index, candidates
from osc_containers.oci.platform import of_architecture
from osc_containers.oci.reference import Reference
from osc_containers.prefetch.signature_finder import SignatureFinder, StoreReader
from osc_containers.prefetch.signatures import Judge
from osc_containers.registry.config import certs_d
from osc_containers.registry.retry import Policy
from osc_containers.sources.registry import RegistryImages

ROOT = Path(__file__).resolve().parent.parent.parent
_SYSTEM = ROOT / "build/signatures/trixie"

# The script runs in a mount and process namespace of its own. podman unpacks layers only below a mount point, so the
# system becomes the real root; what the cases need appears there at the path that it has outside.
_ENTER = """
mount --rbind "$1" "$1"; cd "$1"
mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev; mount -t tmpfs tmp tmp; mount -t tmpfs tmp run
mkdir -p tmp/old ".$2"; mount --bind "$2" ".$2"
pivot_root . tmp/old; cd /
exec sh -e "$2/run"
"""


class Case(NamedTuple):
    """A policy, the reference to judge by it, and the configuration of registries and signatures."""

    title: str
    policy: str
    reference: str
    registries_d: Mapping[str, str]
    registries_conf: str


class Answer(NamedTuple):
    """Whether an image was accepted, and what was said."""

    is_accepted: bool
    message: str


def make_system() -> Path:
    """Return the root of Debian 13 with skopeo and podman; it is made once, from the mirror that this machine uses."""
    if not _SYSTEM.is_dir():
        subprocess.run([ROOT / "scripts/signature-peers", _SYSTEM], check=True)
    return _SYSTEM


def write(case: Case, directory: Path) -> Path:
    """Write a case as the home directory of a user."""
    configuration = directory / ".config/containers"
    (configuration / "registries.d").mkdir(parents=True)
    (configuration / "policy.json").write_bytes(case.policy.encode("utf-8", "surrogateescape"))
    (configuration / "registries.conf").write_text(case.registries_conf)
    for name, text in case.registries_d.items():
        (configuration / "registries.d" / name).write_text(text)
    (directory / "reference").write_text(case.reference)
    return directory


def ask_peers(homes: Sequence[Path], work: Path, programs: Sequence[str]) -> dict[str, list[Answer]]:
    """Return the answers of `skopeo` and `podman` for each case; `work` is the directory that holds everything."""
    lines = []
    for name in programs:
        for home in homes:
            reference = shlex.quote((home / "reference").read_text())
            log, status = f"{home}/{name}.log", f"{home}/{name}.status"
            if name == "skopeo":
                options = "copy --quiet --remove-signatures --override-arch amd64 --override-os linux"
                command = f"timeout 60 skopeo {options} docker://{reference} dir:/tmp/out{home.name}"
            else:
                stores = "--root /tmp/podman --runroot /run/podman --storage-driver vfs --cgroup-manager cgroupfs"
                command = f"timeout 60 podman {stores} pull --quiet --arch amd64 --os linux {reference}"
            lines.append(f"HOME={home} {command} >{log} 2>&1 && echo 0 >{status} || echo 1 >{status}\n")
    # Two at a time; podman locks its storage itself.
    (work / "commands").write_text("".join(lines))
    (work / "run").write_text(f"tr '\\n' '\\0' <{work}/commands | xargs -0 -n 1 -P 2 sh -c\n")
    script = ["sh", "-ec", _ENTER, "sh", str(make_system()), str(work)]
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private"]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    subprocess.run([*namespaces, *script], check=True, env=environment, capture_output=True)
    return {
        name: [
            Answer((home / f"{name}.status").read_text() == "0\n", (home / f"{name}.log").read_text()[-600:])
            for home in homes
        ]
        for name in programs
    }


def ask_us(home: Path) -> Answer:
    """Return our answer for a case."""
    environ = {**os.environ, "HOME": str(home)}
    images = RegistryImages(Policy(), environ, certs_d.system_context)
    try:
        path = locations.policy_json(environ)
        assert path is not None
        judge = Judge([load.of_file(path)], SignatureFinder(images, StoreReader(environ)), Verifier())
        reference = Reference.parse((home / "reference").read_text())
        document, index = images.manifest(reference), None
        while isinstance(document, Index):
            index = index or document.digest
            entry = candidates(document, of_architecture("x86_64"), str(reference))[0]
            document = images.manifest(reference, entry.digest)
        image = Image(identity=Identity.of(reference), digest=document.digest)
        problem = judge.judge(image, reference, index).problem
    except Error as error:
        return Answer(False, str(error))
    finally:
        images.close()
    return Answer(not problem, problem)


def policy_text(scopes: Mapping[str, object], default: str = "reject", **more: object) -> str:
    """Return a policy for registries."""
    return json.dumps({"default": [{"type": default}], "transports": {"docker": scopes}, **more})
