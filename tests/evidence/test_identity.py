"""Names in signatures are compared as podman compares them."""

import pytest

from osc_containers.evidence.policy.identity import Identity, IdentityRule
from osc_containers.oci.reference import Reference

DIGEST = f"sha256:{'0' * 64}"
APP = "r.test/ns/app"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("busybox", "docker.io/library/busybox"),
        ("index.docker.io/busybox:1", "docker.io/library/busybox:1"),
        ("ns/app", "docker.io/ns/app"),
        ("localhost/app", "localhost/app"),
        (f"{APP}:1@{DIGEST}", f"{APP}:1@{DIGEST}"),
        ("r.test/a--b__c.d", "r.test/a--b__c.d"),
        ("R.test/app", "R.test/app"),
    ],
)
def test_names_are_normalised(text: str, expected: str) -> None:
    assert str(Identity.parse(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "0" * 64, "r.test/App", "r.test/app:", "r.test/app@sha256:00", "r.test/", " r.test/app", "r.test/a..b"),
        *(
            f"r.test/{'a' * 250}",
            "r.test/app:1:2",
            "r.test/app\n",
            "[::1]/app",
            "a" * 100_000,
            "r.test/a" + "-a" * 5000,
        ),
    ],
)
def test_other_text_is_no_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"got|expected"):
        Identity.parse(text)


def test_a_digest_precedes_a_tag() -> None:
    assert str(Identity.of(Reference.parse(f"{APP}:1@{DIGEST}"))) == f"{APP}@{DIGEST}"


REMAP = IdentityRule("remapIdentity", ("r.test/ns", "signed.test"))


@pytest.mark.parametrize(
    ("rule", "image", "signed", "accepts"),
    [
        (IdentityRule(), f"{APP}:1", f"{APP}:1", True),
        (IdentityRule(), f"{APP}:1", f"{APP}:2", False),
        (IdentityRule(), f"{APP}:1", APP, False),
        (IdentityRule(), f"{APP}@{DIGEST}", f"{APP}:2", True),
        (IdentityRule(), f"{APP}@{DIGEST}", APP, False),
        (IdentityRule("matchExact"), f"{APP}@{DIGEST}", f"{APP}:2", False),
        (IdentityRule("matchRepository"), f"{APP}:1", APP, True),
        (IdentityRule("matchRepository"), f"{APP}:1", "r.test/ns/other", False),
        (IdentityRule("exactReference", (f"{APP}:2",)), f"{APP}:1", f"{APP}:2", True),
        (IdentityRule("exactRepository", (APP,)), "r.test/other:1", f"{APP}:2", True),
        (REMAP, f"{APP}:1", "signed.test/app:1", True),
        (REMAP, f"{APP}:1", f"{APP}:1", False),
        (REMAP, "r.test/nsx/app:1", "r.test/nsx/app:1", True),
        (IdentityRule("remapIdentity", ("r.test/ns/app", "busybox")), f"{APP}:1", "busybox:1", False),
    ],
)
def test_rules_accept_names(rule: IdentityRule, image: str, signed: str, accepts: bool) -> None:
    assert rule.accepts(Identity.parse(image), signed) is accepts
