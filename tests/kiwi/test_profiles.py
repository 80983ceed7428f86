"""Which profiles a build uses."""

import pytest

from osc_containers.kiwi.profiles import Profile, Requirement, is_for, resolve, selectable
from tests.support.messages import assert_bounded


def needs(*names: str) -> tuple[Requirement, ...]:
    return tuple(Requirement(profile=name) for name in names)


DECLARED = (
    Profile(name="plain"),
    Profile(name="default", is_imported=True, requires=needs("plain")),
    Profile(name="arm", arch="aarch64,armv7l", is_imported=True),
    Profile(name="chain", requires=needs("link")),
    Profile(name="link", requires=needs("plain", "chain")),
    Profile(name="mixed", requires=(Requirement(profile="arm", arch="aarch64"), Requirement(profile="plain"))),
    Profile(name="broken", requires=needs("missing")),
    Profile(name="self", requires=needs("self")),
    Profile(name="twice", is_imported=True),
    Profile(name="twice", requires=needs("plain")),
)


@pytest.mark.parametrize(
    ("arch", "asked", "expected"),
    [
        ("x86_64", (), {"default", "twice"}),
        ("aarch64", (), {"default", "twice", "arm"}),
        ("x86_64", ("plain",), {"plain"}),
        ("x86_64", ("default",), {"default", "plain"}),
        ("x86_64", ("chain",), {"chain", "link", "plain"}),
        ("x86_64", ("mixed",), {"mixed", "plain"}),
        ("aarch64", ("mixed",), {"mixed", "plain", "arm"}),
        ("x86_64", ("self", "plain", "self"), {"self", "plain"}),
        ("x86_64", ("twice",), {"twice", "plain"}),
    ],
)
def test_the_used_profiles_are_those_of_kiwi(arch: str, asked: tuple[str, ...], expected: set[str]) -> None:
    assert resolve(DECLARED, arch, asked) == expected


@pytest.mark.parametrize(
    ("arch", "asked", "message"),
    [
        ("x86_64", ("none",), "profile 'none' is not declared for x86_64, expected one of 'a', 'b'"),
        ("x86_64", ("arm",), "profile 'arm' is not declared for x86_64, expected one of 'a', 'b'"),
        ("x86_64", ("a",), "profile 'arm' (required by 'b') is not declared for x86_64, expected one of 'a', 'b'"),
    ],
)
def test_an_undeclared_profile_is_named(arch: str, asked: tuple[str, ...], message: str) -> None:
    declared = (
        Profile(name="a", requires=needs("b")),
        Profile(name="b", requires=needs("arm")),
        Profile(name="arm", arch="aarch64"),
    )
    with pytest.raises(ValueError, match=r"^profile ") as caught:
        resolve(declared, arch, asked)
    assert str(caught.value) == message


def test_a_profile_is_selectable_where_kiwi_takes_it() -> None:
    declared = (
        Profile(name="plain"),
        Profile(name="arm", arch="aarch64"),
        Profile(name="needs-arm", requires=needs("arm")),
        Profile(name="needs-it-indirectly", requires=needs("needs-arm")),
        Profile(name="needs-it-elsewhere", requires=(Requirement(profile="arm", arch="aarch64"),)),
        Profile(name="imported", is_imported=True, requires=needs("arm")),
        Profile(name="circle", requires=needs("circle")),
    )
    assert selectable(declared, "x86_64") == {"plain", "needs-it-elsewhere", "imported", "circle"}
    assert selectable(declared, "aarch64") == {each.name for each in declared}


def test_an_error_names_a_limited_number_of_profiles() -> None:
    many = tuple(Profile(name=f"p{number}") for number in range(9000))
    with pytest.raises(ValueError, match=r"^profile 'a' is not declared for x86_64, expected one of 'p0', ") as caught:
        resolve(many, "x86_64", ("a",))
    assert_bounded(caught.value)


def test_no_profile_can_be_requested_if_none_is_declared() -> None:
    assert resolve((), "x86_64", ()) == frozenset()
    with pytest.raises(ValueError, match=r"^profile 'a' is not declared for x86_64, no profile is$"):
        resolve((), "x86_64", ("a",))


@pytest.mark.parametrize(
    ("wanted", "expected"), [(None, True), ("", True), ("x86_64", True), ("aarch64,x86_64", True), ("x86", False)]
)
def test_an_arch_attribute_lists_architectures(wanted: str | None, *, expected: bool) -> None:
    assert is_for("x86_64", wanted) == expected
