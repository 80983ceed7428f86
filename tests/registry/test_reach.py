"""Settings of podman and skopeo work here, too: real registries, logins, certificates and proxies."""

import json
import re
import ssl
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from osc_containers.errors import RegistryError
from osc_containers.oci.manifest import Manifest
from osc_containers.oci.reference import Reference
from osc_containers.registry.config import proxy as proxies
from osc_containers.registry.retry import Policy
from osc_containers.sources.transports import Sources
from tests.support import fault_registry, faults, images, proxy
from tests.support.docker_registry import DockerRegistry, StartRegistry, serve
from tests.support.fault_registry import FaultRegistry

pytestmark = pytest.mark.integration

IMAGE = images.image(images.random_layer("reach", 200_000), images.random_layer("second", 500, compression="zstd"))
USERS = {"me": "se/cr:et"}


def pull(name: str) -> list[bytes]:
    """Pull an image with a new client; return manifest and blobs."""
    reference = Reference.parse(name)
    buffer = memoryview(bytearray(64 << 10))
    with Sources(Path(), policy=Policy(attempts=2, first_delay=0.1)) as sources:
        source = sources.open("docker://")
        manifest = source.manifest(reference, source.resolve(reference))
        assert isinstance(manifest, Manifest)
        found = [manifest.raw]
        for blob in manifest.blobs:
            with source.blob(reference, blob) as stream:
                found.append(b"".join(bytes(buffer[:count]) for count in iter(lambda: stream.readinto(buffer), 0)))
    return found


EXPECTED = [IMAGE.raw, *IMAGE.blobs]


def run(*command: str | Path, text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def trust(home: Path, registry: DockerRegistry) -> None:
    """Install the registry's authority where podman looks for it."""
    assert registry.authority
    directory = home / ".config/containers/certs.d" / registry.host
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "ca.crt").write_bytes(registry.authority.read_bytes())


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "home").mkdir()
    (tmp_path / "run").mkdir(mode=0o700)
    return tmp_path / "home"


@pytest.mark.parametrize("program", ["podman", "skopeo"])
def test_logins_of_podman_and_skopeo_are_used(home: Path, start_registry: StartRegistry, program: str) -> None:
    registry = start_registry(tls=True, users=USERS)
    name = registry.push(IMAGE, "team/app:1.0")
    with pytest.raises(RegistryError, match=f"put the certificate of .*/etc/containers/certs.d/{registry.host}/ca.crt"):
        pull(name)
    (home / ".config/containers/certs.d" / registry.host).mkdir(parents=True)
    with pytest.raises(RegistryError, match=f"{home}/.config/containers/certs.d/{registry.host}/ca.crt"):
        pull(name)  # the directory in /etc no longer counts
    trust(home, registry)
    with pytest.raises(RegistryError, match=f"requires a login: use `podman login {registry.host}`"):
        pull(name)
    run(program, "login", "--username", "me", "--password-stdin", registry.host, text=USERS["me"])
    assert pull(name) == EXPECTED


def test_a_login_for_a_namespace_is_used_there_only(home: Path, start_registry: StartRegistry) -> None:
    registry = start_registry(tls=True, users=USERS)
    trust(home, registry)
    names = [registry.push(IMAGE, f"{part}/app:1.0") for part in ("team", "other")]
    run("skopeo", "login", "--username", "me", "--password-stdin", f"{registry.host}/team", text=USERS["me"])
    assert pull(names[0]) == EXPECTED
    with pytest.raises(RegistryError, match="requires a login"):
        pull(names[1])


def test_a_wrong_password_is_reported_but_not_shown(
    home: Path, start_registry: StartRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    registry = start_registry(users=USERS)
    (tmp_path / "auth.json").write_text(
        json.dumps({"auths": {registry.host: {"username": "me", "password": "hunter2"}}})
    )
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    with pytest.raises(RegistryError, match="is not sufficient, renew it with `podman login") as caught:
        pull(registry.push(IMAGE, "team/app:1.0"))
    assert "hunter2" not in str(caught.value)


def test_a_pull_through_mirror_is_used(
    home: Path, docker_registry: DockerRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker_registry.push(IMAGE, "reach/app:1.0")
    with serve(tmp_path / "mirror", mirror_of=f"http://{docker_registry.host}") as mirror:
        configuration = tmp_path / "registries.conf"
        configuration.write_text(
            f'[[registry]]\nlocation = "registry.invalid"\n[[registry.mirror]]\nlocation = "{mirror.host}"\n'
        )
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(configuration))
        assert pull("registry.invalid/reach/app:1.0") == EXPECTED


# Certificates


class Certificates:
    """An authority and its certificates: `name.crt` (or `.cert`) and `name.key` in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = directory / "authority.crt"
        self._make("/CN=authority", "authority.key", "authority.crt")

    def sign(self, name: str, suffix: str, extension: str) -> tuple[Path, Path]:
        """Create a certificate for this machine, and its key."""
        signed = ("-CA", self.authority, "-CAkey", self.directory / "authority.key", "-addext", extension)
        return self._make(f"/CN={name}", f"{name}.key", f"{name}{suffix}", *signed)

    def _make(self, subject: str, key: str, certificate: str, *more: str | Path) -> tuple[Path, Path]:
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        out = ("-keyout", self.directory / key, "-out", self.directory / certificate)
        run("openssl", "req", "-x509", *curve, "-subj", subject, *out, *more)
        return self.directory / certificate, self.directory / key


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    (tmp_path / "certificates").mkdir()
    return Certificates(tmp_path / "certificates")


@pytest.fixture
def secure(certificates: Certificates) -> Iterator[FaultRegistry]:
    """Run a registry with TLS that requires a client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.sign("server", ".crt", "subjectAltName=IP:127.0.0.1"))
    context.load_verify_locations(certificates.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    with fault_registry.serve(context) as registry:
        yield registry


def test_a_client_certificate_is_sent(home: Path, certificates: Certificates, secure: FaultRegistry) -> None:
    name = secure.push(IMAGE, "team/app:1.0")
    directory = home / ".config/containers/certs.d" / secure.host
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_bytes(certificates.authority.read_bytes())
    # The refusal may be lost when the server closes the connection.
    refusal = rf"requires a client certificate: put .* into {directory}|interrupted|reset|not HTTP"
    with pytest.raises(RegistryError, match=refusal):
        pull(name)
    certificate, key = certificates.sign("client", ".cert", "extendedKeyUsage=clientAuth")
    (directory / "client.key").write_bytes(key.read_bytes())
    with pytest.raises(RegistryError, match=r"client\.key: client\.cert is missing in the same directory$"):
        pull(name)
    (directory / "client.cert").write_bytes(certificate.read_bytes())
    assert pull(name) == EXPECTED
    (directory / "client.key").unlink()
    with pytest.raises(RegistryError, match=r"client\.cert: client\.key is missing in the same directory$"):
        pull(name)
    (directory / "client.key").write_text("nonsense")
    with pytest.raises(RegistryError, match=r"client\.cert: not a certificate in PEM format, or not the key for it"):
        pull(name)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("subjectAltName=DNS:localhost", "mismatch|another name"),
        ("subjectAltName=IP:127.0.0.2", "mismatch|another name"),
        ("subjectAltName=IP:127.0.0.1", None),
    ],
)
def test_a_certificate_for_another_name_is_refused(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, name: str, problem: str | None
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.sign("server", ".crt", name))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    with fault_registry.serve(context) as registry:
        image = registry.push(IMAGE, "team/app:1.0")
        if problem is None:
            assert pull(image) == EXPECTED
        else:
            with pytest.raises(RegistryError, match=f"not accepted: .*({problem}).*; use a name"):
                pull(image)
            assert registry.requests == []


def test_an_expired_certificate_is_reported(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = certificates.sign("server", ".crt", "subjectAltName=IP:127.0.0.1")
    run("openssl", "x509", "-in", certificate, "-signkey", key, "-days", "0", "-out", certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with fault_registry.serve(context) as registry:
        with pytest.raises(RegistryError, match="has expired; its administrator must renew it, or the clock of this"):
            pull(registry.push(IMAGE, "team/app:1.0"))
        assert registry.requests == []


def test_a_tls_registry_receives_no_plain_http(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.sign("server", ".crt", "subjectAltName=IP:127.0.0.1"))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    with fault_registry.serve(context) as registry:
        name = registry.push(IMAGE, "team/app:1.0")
        registry.script = faults.on(faults.reset_before, lambda _: True, times=1)
        assert pull(name) == EXPECTED
        (tmp_path / "registries.conf").write_text(f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n')
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
        monkeypatch.delenv("SSL_CERT_FILE")
        assert pull(name) == EXPECTED


def test_requests_adds_no_authorities(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither certifi's nor those of variables that podman ignores."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.sign("server", ".crt", "subjectAltName=IP:127.0.0.1"))
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(certificates.authority))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.authority))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(certificates.authority))
    with fault_registry.serve(context) as registry:
        with pytest.raises(RegistryError, match="the certificate is not accepted"):
            pull(registry.push(IMAGE, "team/app:1.0"))
        assert registry.requests == []


@pytest.mark.parametrize(
    ("login", "decoded"),
    [("me:se%2Fcr:et", "me:se/cr:et"), ("m%40e:s%C3%A9cret", "m@e:sécret"), ("me:sécr€t", "me:sécr€t"), ("me", "me:")],
)
def test_a_proxy_is_used_with_the_login_from_its_url(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, login: str, decoded: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.sign("server", ".crt", "subjectAltName=DNS:registry.example"))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    with fault_registry.serve(context) as registry, proxy.serve(registry.host) as tunnel:
        registry.push(IMAGE, "team/app:1.0")
        monkeypatch.setenv("HTTPS_PROXY", f"http://{login}@{tunnel.host}")
        assert pull("registry.example/team/app:1.0") == EXPECTED
        assert tunnel.asked
        for head in tunnel.asked:
            assert head.startswith("CONNECT registry.example:443 ")
            assert f"Proxy-Authorization: Basic {b64encode(decoded.encode()).decode()}" in head
        assert not any("proxy-authorization" in request.headers for request in registry.requests)


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (407, "it requires a login: use http://USER:PASSWORD@HOST:PORT in https_proxy (or http_proxy)"),
        (403, "ask its administrator to allow registry.example, or add that to no_proxy"),
        (502, "it cannot reach registry.example; tried 2 times"),
    ],
)
def test_the_answer_of_a_proxy_is_reported(monkeypatch: pytest.MonkeyPatch, status: int, problem: str) -> None:
    with proxy.serve("", status=status) as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@{tunnel.host}")
        with pytest.raises(RegistryError) as caught:
            pull("registry.example/team/app:1.0")
    expected = f"https://registry.example: the proxy http://{tunnel.host} answers HTTP {status}; {problem}"
    assert f": {expected}" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(tunnel.asked) == (2 if status == 502 else 1)


def test_a_login_required_by_an_http_proxy_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "registries.conf").write_text('[[registry]]\nlocation = "registry.example"\ninsecure = true\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    with proxy.serve("", status=407) as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{tunnel.host}")
        monkeypatch.setenv("HTTP_PROXY", f"http://{tunnel.host}")
        with pytest.raises(RegistryError, match=f"the proxy http://{tunnel.host} answers HTTP 407; it requires"):
            pull("registry.example/team/app:1.0")
    assert [head.split()[0] for head in tunnel.asked] == ["CONNECT", "HEAD"]


def test_a_proxy_that_does_not_answer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@127.0.0.1:1")
    with pytest.raises(RegistryError, match=r"the proxy http://127\.0\.0\.1:1 does not answer; check https_proxy"):
        pull("registry.example/team/app:1.0")


def test_the_certificate_of_a_proxy_is_not_the_registrys(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = "subjectAltName=DNS:registry.example,IP:127.0.0.1"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.sign("server", ".crt", names))
    with fault_registry.serve(context) as registry, proxy.serve(registry.host, context=context) as tunnel:
        registry.push(IMAGE, "team/app:1.0")
        monkeypatch.setenv("HTTPS_PROXY", f"https://me:secret@{tunnel.host}")
        with pytest.raises(RegistryError) as caught:
            pull("registry.example/team/app:1.0")
        expected = f"https://{tunnel.host}: the certificate of this proxy is not accepted: "
        assert f": {expected}" in str(caught.value)
        assert "certs.d" not in str(caught.value)
        assert "secret" not in str(caught.value)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
        assert pull("registry.example/team/app:1.0") == EXPECTED


def test_a_proxy_without_tls_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy.serve("", status=400) as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", f"https://{tunnel.host}")
        with pytest.raises(RegistryError, match=r"TLS with this proxy failed; use http:// in https_proxy if"):
            pull("registry.example/team/app:1.0")


def test_a_proxy_that_speaks_plain_http_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with fault_registry.serve() as registry:
        monkeypatch.setenv("HTTPS_PROXY", f"https://{registry.host}")
        with pytest.raises(RegistryError, match=r"this proxy speaks plain HTTP, not TLS; use http:// in") as caught:
            pull("registry.example/team/app:1.0")
    assert "tried" not in str(caught.value)


def test_lines_in_the_message_allow_plain_http(
    home: Path, docker_registry: DockerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker_registry.push(IMAGE, "plain/app:1.0")
    with proxy.serve(docker_registry.host) as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{tunnel.host}")
        with pytest.raises(RegistryError) as caught:
            pull("registry.example:5000/plain/app:1.0")
        assert "https://registry.example:5000: it speaks plain HTTP, expected HTTPS" in str(caught.value)
        lines = re.findall("`(.*?)`", str(caught.value))
        (home / ".config/containers").mkdir(parents=True)
        (home / ".config/containers/registries.conf").write_text("\n".join(lines))
        monkeypatch.setenv("HTTP_PROXY", f"http://{tunnel.host}")
        assert pull("registry.example:5000/plain/app:1.0") == EXPECTED


@pytest.mark.parametrize(
    ("url", "exceptions", "expected"),
    [
        ("https://registry.example/v2/", "", "http://tls.example:3128"),
        ("http://registry.example/v2/", "", "http://plain.example"),
        ("https://registry.example/v2/", "example", None),
        ("https://registry.example/v2/", ".example", None),
        ("https://registry.example/v2/", "*.example", None),
        ("https://registry.example/v2/", "other, REGISTRY.example ", None),
        ("https://registry.example/v2/", ".registry.example", "http://tls.example:3128"),
        ("https://registry.example/v2/", "*.registry.example", "http://tls.example:3128"),
        ("https://registry.example/v2/", "y.example", "http://tls.example:3128"),
        ("https://registry.example/v2/", "*registry.example", "http://tls.example:3128"),
        ("https://registry.example/v2/", "other registry.example", "http://tls.example:3128"),
        ("https://registry.example/v2/", ",, ,:443", "http://tls.example:3128"),
        ("https://registry.example/v2/", "registry.example:443", None),
        ("https://registry.example:5000/v2/", "registry.example:5000", None),
        ("https://registry.example:5000/v2/", "registry.example:5001", "http://tls.example:3128"),
        ("https://registry.example:5000/v2/", "*.example:5000", None),
        ("https://registry.example:5000/v2/", "000", "http://tls.example:3128"),
        ("https://10.1.2.3/v2/", "10.1.2.3", None),
        ("https://10.1.2.3:5000/v2/", "10.1.2.3:5000", None),
        ("https://10.1.2.3:5000/v2/", "10.1.2.3:5001", "http://tls.example:3128"),
        ("https://10.1.2.3/v2/", "10.1.0.0/16", None),
        ("https://10.2.2.3/v2/", "10.1.0.0/16", "http://tls.example:3128"),
        ("https://10.1.2.3/v2/", "10.1.2.3/33", "http://tls.example:3128"),
        ("https://[2001:db8::1]:5000/v2/", "2001:db8::1", None),
        ("https://[2001:db8::1]:5000/v2/", "[2001:db8::1]:5000", None),
        ("https://[2001:db8::1]:5000/v2/", "[2001:db8::1]:5001", "http://tls.example:3128"),
        ("https://[2001:db8::1]/v2/", "2001:db8::/32", None),
        ("https://[2001:db8::1]/v2/", "10.0.0.0/8", "http://tls.example:3128"),
        ("https://registry.example/v2/", "10.0.0.0/8,*", None),
        ("https://127.0.0.1:5000/v2/", "", None),
        ("http://localhost:5000/v2/", "", None),
    ],
)
def test_no_proxy_is_interpreted_as_in_go(
    monkeypatch: pytest.MonkeyPatch, url: str, exceptions: str, expected: str | None
) -> None:
    monkeypatch.setenv("https_proxy", "http://tls.example:3128")
    monkeypatch.setenv("http_proxy", "plain.example")
    monkeypatch.setenv("no_proxy", exceptions)
    assert proxies.of_environment(url) == expected


def test_all_proxy_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "plain.example")
    assert proxies.of_environment("https://registry.example/v2/") is None


def test_variables_in_capitals_take_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://small.example")
    monkeypatch.setenv("HTTPS_PROXY", "http://capital.example")
    monkeypatch.setenv("no_proxy", "registry.example")
    monkeypatch.setenv("NO_PROXY", "")
    assert proxies.of_environment("https://registry.example/v2/") is None
    assert proxies.of_environment("https://other.example/v2/") == "http://capital.example"


@pytest.mark.parametrize(
    ("proxy_url", "problem"),
    [
        ("socks5://me:secret@127.0.0.1:1", "socks5://127.0.0.1:1: not the URL of an HTTP proxy, ProxySchemeUnknown"),
        ("http://me:secret@[half", "http://[half: not the URL of an HTTP proxy, LocationParseError"),
        ("ftp://me:secret@127.0.0.1", "ftp://127.0.0.1: not the URL of an HTTP proxy, ProxySchemeUnknown"),
    ],
)
def test_an_unsupported_proxy_is_reported_not_bypassed(
    monkeypatch: pytest.MonkeyPatch, proxy_url: str, problem: str
) -> None:
    monkeypatch.setenv("https_proxy", proxy_url)
    with pytest.raises(RegistryError) as caught:
        pull("registry.example/team/app:1.0")
    assert str(caught.value) == f"registry.example/team/app:1.0: {problem}; correct https_proxy (or http_proxy)"
