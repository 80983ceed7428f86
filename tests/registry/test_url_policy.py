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


TRANSLATED = [
    "::7f00:1",
    "::a9fe:a9fe",
    "::ffff:0:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::",
    "64:ff9b:1::7f00:1",
    "64:ff9b:1:7f00:0:100::",
    "64:ff9b:1:a9:fe:a9fe::",
    "64:ff9b:1:2:7f:0:100::",
    "64:ff9b:1:2:3::a9fe:a9fe",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:7f00:1::80ff:fffe",
    "2001:0:a00:1::80ff:fffe",
    "2001:0:7f00:1::f5ff:fffe",
    "2001:db8::5efe:7f00:1",
    "2001:db8::200:5efe:a9fe:a9fe",
    "::ffff:169.254.169.254",
    "100.100.100.200",
    "::ffff:168.63.129.16",
]
PRIVATE = ["fd00::1", "fc00::1", "fdff:ffff::1", "fec0::1", "feff::1", "fd00:ec2::254"]
TRANSLATED_PUBLIC = [
    "::ffff:192.0.2.1",
    "64:ff9b::c000:201",
    "64:ff9b:1::c000:201",
    "64:ff9b:1:c000:2:100::",
    "64:ff9b:1:2:c0:2:100:0",
    "2002:c000:201::1",
    "2001:0:c000:201::3fff:fdfe",
    "2001:db8::5efe:c000:201",
]


def named(host: str) -> str:
    """Return a host as a URL has it."""
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_is_recognised_in_any_spelling(host: str) -> None:
    assert url_policy.is_loopback(host)


@pytest.mark.parametrize("host", [*LOOPBACK, *LINK, *TRANSLATED, *PRIVATE])
def test_public_registry_may_not_lead_inside(host: str) -> None:
    host = named(host).replace("%eth0", "")
    with pytest.raises(ValueError, match="inside this machine or its link, or in a private network"):
        url_policy.follow(BASE, f"https://{host}/", home="registry.example")


@pytest.mark.parametrize("host", [*LINK, *TRANSLATED, *PRIVATE])
def test_only_this_machine_is_loopback(host: str) -> None:
    """Plain HTTP is allowed there, so an address that is translated to loopback somewhere else does not count."""
    assert not url_policy.is_loopback(named(host))


@pytest.mark.parametrize("host", [*PUBLIC, *TRANSLATED_PUBLIC])
def test_public_registry_may_lead_to_public_hosts(host: str) -> None:
    assert url_policy.follow(BASE, f"https://{named(host)}/", home="registry.example")


@pytest.mark.parametrize("host", [*LINK, *PUBLIC, *TRANSLATED, *TRANSLATED_PUBLIC, *PRIVATE])
@pytest.mark.parametrize("home", ["localhost:5000", "127.0.0.1:5000"])
def test_registry_on_loopback_may_lead_to_loopback_only(home: str, host: str) -> None:
    with pytest.raises(ValueError, match="expected one on the registry's own machine"):
        url_policy.follow(f"http://{home}/", f"http://{named(host).replace('%eth0', '')}/", home=home)


@pytest.mark.parametrize(
    ("home", "target", "allowed"),
    [
        ("169.254.1.1", "169.254.1.1", True),
        ("169.254.1.1", "169.254.169.254", False),
        ("169.254.1.1", "192.0.2.1", False),
        ("169.254.1.1", "127.0.0.1", False),
        ("fd00::1", "fd00::2", True),
        ("fd00::1", "2001:db8::1", True),
        ("fd00::1", "::1", False),
        ("fd00::1", "fe80::1", False),
        ("192.0.2.1", "fd00::1", False),
        ("::1", "127.0.0.1", True),
        ("::1", "64:ff9b::7f00:1", False),
    ],
)
def test_registry_inside_leads_to_its_own_kind(home: str, target: str, allowed: bool) -> None:
    assert url_policy.may_lead(ipaddress.ip_address(home), ipaddress.ip_address(target)) is allowed


@pytest.mark.parametrize(
    ("first", "later", "allowed"),
    [
        ("192.0.2.1", "192.0.2.2", True),
        ("10.0.0.1", "fd00::1", True),
        ("127.0.0.1", "::1", True),
        ("192.0.2.1", "127.0.0.1", False),
        ("192.0.2.1", "169.254.169.254", False),
    ],
)
def test_name_of_a_registry_may_not_move_inside(first: str, later: str, allowed: bool) -> None:
    assert url_policy.may_be_home(ipaddress.ip_address(first), ipaddress.ip_address(later)) is allowed


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
        (
            "https://127.0.0.1/x",
            "which is inside this machine or its link, or in a private network; expected a public host",
        ),
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
