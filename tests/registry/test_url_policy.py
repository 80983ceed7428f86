"""Which URLs of a registry are followed, and how URLs are redacted."""

import ipaddress
import re

import pytest

from osc_containers.registry import url_policy

LOOPBACK = [
    "localhost",
    "LOCALHOST:5000",
    "app.localhost",
    "127.0.0.1",
    "127.9.9.9:80",
    "[::1]",
    "[::1]:5000",
    "127.1",
    "::1",
]
LINK = ["169.254.169.254", "[fe80::1]:80", "[fe80::1%eth0]", "0.0.0.0:5000", "[::]", "224.0.0.1", "0xa9fea9fe"]
PUBLIC = [
    "registry.example",
    "registry.example:5000",
    "10.0.0.1",
    "192.168.1.1:80",
    "localhost.example",
    "[2001:db8::1]",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_is_recognised_in_any_spelling(host: str) -> None:
    assert url_policy.is_loopback(host)
    assert url_policy.is_internal(host)


@pytest.mark.parametrize("host", LINK)
def test_the_local_link_is_internal(host: str) -> None:
    assert not url_policy.is_loopback(host)
    assert url_policy.is_internal(host)


@pytest.mark.parametrize("host", PUBLIC)
def test_other_hosts_are_public(host: str) -> None:
    assert not url_policy.is_internal(host)


def test_ipv4_mapped_addresses_are_recognised() -> None:
    assert url_policy.is_internal_address(ipaddress.ip_address("::ffff:127.0.0.1"))
    assert url_policy.is_internal("[::ffff:169.254.169.254]")


BASE = "https://registry.example/v2/a/blobs/sha256:0"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("https://cdn.example/x?sig=1", "https://cdn.example/x?sig=1"),
        ("/y", "https://registry.example/y"),
        ("//cdn.example/z", "https://cdn.example/z"),
        ("z", "https://registry.example/v2/a/blobs/z"),
    ],
)
def test_public_targets_are_allowed(target: str, expected: str) -> None:
    assert url_policy.follow(BASE, target, home="registry.example") == expected


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("http://cdn.example/x", "got plain HTTP at 'cdn.example', expected HTTPS as before"),
        ("https://u@cdn.example/x", "got a URL with a user name, expected none"),
        ("https://127.0.0.1/x", "which is inside this machine or its link; expected a public host"),
        ("file:///etc/passwd", "got a URL of scheme 'file', expected http or https"),
        ("javascript:alert(1)", "got a URL of scheme 'javascript', expected http or https"),
        ("http:///x", "got a URL without a host"),
        ("https://127.0.0.1\\.cdn.example/", "expected the name or address of a host"),
        ("https://%31%32%37.0.0.1/", "expected the name or address of a host"),
        ("https://cdn.example:x/", "Port could not be cast"),
        ("https://cdn.example/\r\nX-Evil: 1", "expected at most 8192 printable ASCII characters"),
        ("https://cdn.example/" + "x" * 9000, "expected at most 8192 printable ASCII characters"),
        ("https://cdn.example/ü", "expected at most 8192 printable ASCII characters"),
    ],
)
def test_other_targets_are_refused(target: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        url_policy.follow(BASE, target, home="registry.example")


def test_a_local_registry_may_redirect_locally() -> None:
    assert url_policy.follow("http://127.0.0.1:1/v2/", "http://127.0.0.1:2/token", home="127.0.0.1:1")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://cdn.example/path?X-Signature=secret", "https://cdn.example"),
        ("https://me:secret@cdn.example:8443/path", "https://cdn.example:8443"),
        ("https://cdn.example\x1b[31m/", "https://cdn.example\\x1b[31m"),
        ("nonsense?secret", "nonsense"),
        ("file:///etc/passwd", "file://"),
    ],
)
def test_redacted_urls_have_scheme_and_host_only(url: str, shown: str) -> None:
    assert url_policy.redact(url) == shown


def test_another_port_is_another_origin() -> None:
    assert url_policy.origin("https://A.example/x") == url_policy.origin("https://a.example:443/y")
    assert url_policy.origin("https://a.example:444/") != url_policy.origin("https://a.example/")
    assert url_policy.origin("http://a.example/") != url_policy.origin("https://a.example/")
