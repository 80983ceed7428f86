"""Authorities that podman accepts are accepted, under every Python, wherever the system has them.

Since 3.13, Python refuses authorities by default that do not follow RFC 5280 in every detail, as those of companies.
`tests/support/authorities` has such authorities, a server certificate of each, and the key of all servers. They were
made with `openssl x509 -req`, and are valid until 2126.
"""

import ssl
import subprocess
from pathlib import Path

import pytest

from osc_containers.errors import RegistryError
from osc_containers.oci.reference import Reference
from osc_containers.registry.retry import Policy
from osc_containers.sources.transports import Sources
from tests.support import fault_registry, images, proxy

AUTHORITIES = Path(__file__).parent.parent / "support/authorities"
IMAGE = images.small("app")


def server_context(authority: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(AUTHORITIES / f"{authority}.server.crt", AUTHORITIES / "server.key")
    return context


@pytest.mark.parametrize("authority", ["no-key-usage", "not-critical", "version-1"])
@pytest.mark.parametrize("way", ["system", "certs.d", "proxy"])
def test_an_authority_that_podman_accepts_is_accepted(
    authority: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = server_context(authority)
    with fault_registry.serve(context) as registry, proxy.serve(registry.host, context=context) as tunnel:
        registry.push(IMAGE, "team/app:1.0")
        host = registry.host
        if way == "certs.d":
            monkeypatch.setenv("HOME", str(tmp_path))
            directory = tmp_path / ".config/containers/certs.d" / host
            directory.mkdir(parents=True)
            (directory / "ca.crt").write_bytes((AUTHORITIES / f"{authority}.crt").read_bytes())
        else:
            monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITIES / f"{authority}.crt"))
        if way == "proxy":
            monkeypatch.setenv("HTTPS_PROXY", f"https://{tunnel.host}")
            host = "registry.example"
        with Sources(Path(), policy=Policy(attempts=1)) as sources:
            reference = Reference.parse(f"{host}/team/app:1.0")
            assert sources.open("docker://").manifest(reference).digest == IMAGE.digest


def system_with(monkeypatch: pytest.MonkeyPatch, bundle: Path, directory: Path) -> list[object]:
    """Let the system's authorities be a file and a directory; return the list of reads of the file."""
    reads: list[object] = []
    paths = ssl.get_default_verify_paths()._replace(capath=str(directory))

    def load(context: ssl.SSLContext, purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH) -> None:
        reads.append(context)
        context.load_verify_locations(bundle)

    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", load)
    return reads


@pytest.mark.parametrize("place", ["directory", "file", "nowhere"])
def test_authorities_are_looked_up_by_hash_before_all_are_read(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read all takes as long as all other preparations, and a certificate has only one or two."""
    own, other = (AUTHORITIES / f"{name}.crt" for name in ("version-1", "not-critical"))
    hashed = tmp_path / "certs"
    hashed.mkdir()
    for authority in (own,) if place == "directory" else (other,):
        (hashed / authority.name).write_bytes(authority.read_bytes())
    subprocess.run(["openssl", "rehash", hashed], check=True)
    reads = system_with(monkeypatch, own if place == "file" else other, hashed)
    with fault_registry.serve(server_context("version-1")) as registry:
        registry.push(IMAGE, "team/app:1.0")
        with Sources(Path(), policy=Policy(attempts=1)) as sources:
            source, reference = sources.open("docker://"), Reference.parse(f"{registry.host}/team/app:1.0")
            if place == "nowhere":
                with pytest.raises(RegistryError, match="the certificate is not accepted"):
                    source.manifest(reference)
            else:
                assert source.manifest(reference).digest == IMAGE.digest
    assert len(reads) == (0 if place == "directory" else 1)
