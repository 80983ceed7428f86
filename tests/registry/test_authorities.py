"""Authorities that podman accepts are accepted, under every Python.

Since 3.13, Python refuses authorities by default that do not follow RFC 5280 in every detail, as those of companies.
`tests/support/authorities` has such authorities, a server certificate of each, and the key of all servers. They were
made with `openssl x509 -req`, and are valid until 2126.
"""

import ssl
from pathlib import Path

import pytest

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
