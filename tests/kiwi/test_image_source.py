"""How the attributes of a section and a container become a location and a name."""

import subprocess
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.kiwi.image_source import Origin, Source, interpret
from osc_containers.oci.reference import Reference

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


def join(source: str, path: str = "", name: str = "app", tag: str = "") -> Origin:
    return interpret(source=Source.parse(source), path=path, name=name, tag=tag)


@pytest.mark.parametrize(
    ("arguments", "endpoint", "reference"),
    [
        (("a.b",), "a.b/app:latest", "a.b/app:latest"),
        (("a.b", "c/d", "e", "1"), "a.b/c/d/e:1", "a.b/c/d/e:1"),
        (("a.b/", "/c/", "e"), "a.b/c/e:latest", "a.b/c/e:latest"),
        (("a.b//c", "./d", "./e"), "a.b/c/d/e:latest", "a.b/c/d/e:latest"),
        (("a.b/x/..", "y/../c"), "a.b/c/app:latest", "a.b/c/app:latest"),
        (("localhost:5000",), "localhost:5000/app:latest", "localhost:5000/app:latest"),
        (("docker.io",), "docker.io/app:latest", "docker.io/library/app:latest"),
        (("index.docker.io",), "index.docker.io/app:latest", "docker.io/library/app:latest"),
        (("opensuse",), "opensuse/app:latest", "docker.io/opensuse/app:latest"),
        (("oci:5000",), "oci:5000/app:latest", "oci:5000/app:latest"),
    ],
)
def test_a_registry_is_joined_as_by_kiwi(arguments: tuple[str, ...], endpoint: str, reference: str) -> None:
    origin = join(*arguments)
    assert (origin.endpoint, str(origin.reference), origin.location) == (endpoint, reference, f"docker://{reference}")


@pytest.mark.parametrize(
    ("name", "tag", "reference", "file_name"),
    [
        ("app", f"sha256:{HEX}", f"a.b/app@{DIGEST}", f"app_sha256:{HEX}"),
        ("app", f"1.0@{DIGEST}", f"a.b/app:1.0@{DIGEST}", f"app_1.0@{DIGEST}"),
        ("app", f"@{DIGEST}", f"a.b/app@{DIGEST}", f"app_@{DIGEST}"),
        ("app@sha256", HEX, f"a.b/app@{DIGEST}", f"app@sha256_{HEX}"),
        (f"app@{DIGEST}", "", f"a.b/app@{DIGEST}", f"app@{DIGEST}_latest"),
        (f"app@{DIGEST}", "1.0", f"a.b/app:1.0@{DIGEST}", f"app@{DIGEST}_1.0"),
        (f"app@{DIGEST}", DIGEST, f"a.b/app@{DIGEST}", f"app@{DIGEST}_{DIGEST}"),
        (f"app:1.0@{DIGEST}", "", f"a.b/app:1.0@{DIGEST}", f"app:1.0@{DIGEST}_latest"),
        ("app:v1.0", "", "a.b/app:v1.0", "app:v1.0_latest"),
        ("app:v1.0", "v1.0", "a.b/app:v1.0", "app:v1.0_v1.0"),
        ("team/app", "1", "a.b/team/app:1", "team/app_1"),
        ("/team//./app", "1", "a.b/team/app:1", "team/app_1"),
    ],
)
def test_tag_and_digest_may_be_in_both_attributes(name: str, tag: str, reference: str, file_name: str) -> None:
    origin = join("a.b", name=name, tag=tag)
    assert (str(origin.reference), origin.file_name) == (reference, file_name)
    assert Reference.parse(reference) == origin.reference


@pytest.mark.parametrize(
    ("arguments", "location", "reference"),
    [
        (("docker://a.b/c", "", "app", "1"), "docker://a.b/c/app:1", "a.b/c/app:1"),
        (("docker://docker.io", "", "alpine"), "docker://docker.io/library/alpine:latest", None),
        (("oci:/srv", "", "layout", "1.0"), "oci:/srv/layout:1.0", "localhost/layout:1.0"),
        (("oci:/srv", "team", "layout"), "oci:/srv/team/layout", "localhost/team/layout:latest"),
        (("dir:/srv/x", "..", "app"), "dir:/srv/app", "localhost/app:latest"),
        (("oci:images", "", "layout"), "oci:images/layout", "localhost/layout:latest"),
        (("oci-archive:/srv", "", "app.tar", "1.0"), "oci-archive:/srv/app.tar:1.0", "localhost/app.tar:1.0"),
        (("docker-archive:/srv", "", "app.tar", "1.0"), "docker-archive:/srv/app.tar:1.0", "localhost/app.tar:1.0"),
        (("dir:/srv", "", "app", DIGEST), "dir:/srv/app", f"localhost/app@{DIGEST}"),
        (("containers-storage:localhost", "", "app", "1"), "containers-storage:localhost/app:1", "localhost/app:1"),
        (("containers-storage:", "/team", "app"), "containers-storage:docker.io/team/app:latest", None),
        (("docker-daemon:", "", "app"), "docker-daemon:docker.io/library/app:latest", None),
        (("docker-daemon:a.b", "", "app", DIGEST), f"docker-daemon:a.b/app@{DIGEST}", f"a.b/app@{DIGEST}"),
    ],
)
def test_a_source_may_have_a_transport(arguments: tuple[str, ...], location: str, reference: str | None) -> None:
    origin = join(*arguments)
    assert origin.location == location
    assert str(origin.reference) == (reference or location.partition(":")[2].removeprefix("//"))


_KNOWN = (
    "'docker:', 'containers-storage:', 'docker-daemon:', 'dir:', 'docker-archive:', 'oci:', 'oci-archive:' before a "
    "location"
)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "source '': empty, expected a registry like 'docker.io', or a transport and a path"),
        ("docker://", "source 'docker://': empty, expected a registry like 'docker.io', or a transport and a path"),
        ("oci:", "source 'oci:': empty, expected a registry like 'docker.io', or a transport and a path"),
        ("docker:a.b", "source 'docker:a.b': expected 'docker://' before the registry"),
        ("https://a.b/", "source 'https://a.b/': expected a registry without scheme; write source='a.b'"),
        ("HTTP://", "source 'HTTP://': expected a registry without scheme; write source='registry.example.com'"),
        (
            "obs://A:B/c",
            "source 'obs://A:B/c': only builds in the Open Build Service can use this; write the registry that "
            "has the image, like source='registry.opensuse.org'",
        ),
        (
            "obsrepositories:/",
            "source 'obsrepositories:/': only builds in the Open Build Service can use this; write the registry that "
            "has the image, like source='registry.opensuse.org'",
        ),
        ("ostree:/x", f"source 'ostree:/x': expected a registry, or one of {_KNOWN}"),
        ("localhost:port", f"source 'localhost:port': expected a registry, or one of {_KNOWN}"),
        ("a.b:123456/c", f"source 'a.b:123456/c': expected a registry, or one of {_KNOWN}"),
        ("a.b\n", "source 'a.b\\n': got non-printable characters"),
        ("a\u202eb", "source 'a\\u202eb': got non-printable characters"),
    ],
)
def test_an_invalid_source_is_refused(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^source ") as caught:
        Source.parse(source)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "source", ["user:secret@a.b", "docker://user:secret@a.b", "https://user:secret@a.b", "secret@a.b"]
)
def test_a_password_in_a_source_is_refused_and_not_shown(source: str) -> None:
    with pytest.raises(ValueError, match="log in with 'podman login'") as caught:
        Source.parse(source)
    assert "secret" not in str(caught.value)


_TAG = "expected at most 128 letters, digits and '_.-', starting with a letter, digit or '_'"
_REPOSITORY = "expected lower-case letters and digits, separated by '.', '_', '__' or '-'"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.b", "", ""), "name '': expected the name of an image"),
        (("a.b", "", "x/"), "name 'x/': expected the name of an image"),
        (("a.b", "", "x/."), "name 'x/.': expected the name of an image"),
        (("a.b", "", ":1.0"), "name ':1.0': expected the name of an image"),
        (("a.b", "", f"@{DIGEST}"), f"name '@{DIGEST}': expected the name of an image"),
        (("a.b", "c/d", "../x"), "name '../x': expected the name of an image"),
        (("a.b", "", "x/../y"), "name 'x/../y': expected the name of an image"),
        (("a.b", "", "x\n"), "name 'x\\n': got non-printable characters"),
        (("a.b", "", "x\x1b[31m"), "name 'x\\x1b[31m': got non-printable characters"),
        (("a.b", "p\t"), "path 'p\\t': got non-printable characters"),
        (("a.b", "", "x", "1\r"), "tag '1\\r': got non-printable characters"),
        (("a.b", "", "x", "a b"), f"tag 'a b': {_TAG}"),
        (("a.b", "", "x", "%n"), f"tag '%n': {_TAG}"),
        (("a.b", "", "x", "-1"), f"tag '-1': {_TAG}"),
        (("a.b", "", "x", "1" * 129), f"tag '{'1' * 129}': {_TAG}"),
        (("a.b", "", "x:", "1"), "name has the tag '' and tag has '1'; expected one of them"),
        (("a.b", "", "x:"), f"tag '': {_TAG}"),
        (("a.b", "", "x:1", "2"), "name has the tag '1' and tag has '2'; expected one of them"),
        (
            ("a.b", "", f"x@{DIGEST}", f"sha256:{'0' * 64}"),
            f"name has the digest '{DIGEST}' and tag has 'sha256:{'0' * 64}'; expected one of them",
        ),
        (("a.b", "", "x", "1@"), "got '', expected a digest like 'sha256:<64 hexadecimal digits>'"),
        (("a.b", "", "x@sha256"), "got 'sha256:', expected a digest like 'sha256:<64 hexadecimal digits>'"),
        (("a.b", "", "x", "a/.."), f"repository 'x:a/..': got component 'x:a', {_REPOSITORY}"),
        (("a.b", "", "X"), f"repository 'X': got component 'X', {_REPOSITORY}"),
        (("a.b", "", "$(x)"), f"repository '$(x)': got component '$(x)', {_REPOSITORY}"),
        (("a.b", "", "--x"), f"repository '--x': got component '--x', {_REPOSITORY}"),
        (("a.b", "", "x y"), f"repository 'x y': got component 'x y', {_REPOSITORY}"),
        (("a.b", "", "\u0430pp"), f"repository '\u0430pp': got component '\u0430pp', {_REPOSITORY}"),
        (("a.b", "c:1"), f"repository 'c:1/app': got component 'c:1', {_REPOSITORY}"),
        (("a.b", "../.."), "registry '..': expected a host name, optionally with a port"),
        (("/a.b",), f"repository '/a.b/app': got component '', {_REPOSITORY}"),
        (("-a.b",), "registry '-a.b': expected a host name, optionally with a port"),
        (("a..b",), "registry 'a..b': expected a host name, optionally with a port"),
        ((f"{'a.' * 127}b",), f"registry {('a.' * 127)[:160]!r}: expected a host name, optionally with a port"),
        (
            (f"{'a' * 64}.b",),
            f"registry '{'a' * 64}.b': got 64 characters between dots, expected at most 63",
        ),
        (("a.b:99999",), "registry 'a.b:99999': got port 99999, expected a number from 1 to 65535"),
        (("containers-storage:a.b:0",), "registry 'a.b:0': got port 0, expected a number from 1 to 65535"),
        (
            ("docker://[::1]:5000",),
            "registry '[::1]:5000': podman and skopeo do not support IPv6 addresses; use a host name",
        ),
        (
            ("a.b", "", "x" * 300),
            f"repository {'x' * 80!r}…: got 304 characters with its registry, expected at most 255",
        ),
        (
            ("oci:/a:b",),
            "source 'oci:/a:b': expected a path without ':', got '/a:b/app'; write the last part of the path as "
            "the container's 'name', and what follows a ':' as its 'tag'",
        ),
        (("dir:/srv", "", "My App"), f"repository 'My App': got component 'My App', {_REPOSITORY}"),
    ],
)
def test_an_invalid_name_is_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=r"^\w") as caught:
        join(*arguments)
    assert str(caught.value) == message


@given(
    st.sampled_from(["a.b", "localhost:1", "docker.io", "oci:/srv", "containers-storage:"]),
    st.text("a/.:@%- \n\\'\"$é", max_size=8),
    st.text("a/.:@%- \n\\'\"$é", max_size=8),
    st.text("a/.:@%- \n\\'\"$é", max_size=8),
)
def test_results_have_no_special_characters(source: str, path: str, name: str, tag: str) -> None:
    try:
        origin = join(source, path, name, tag)
    except ValueError:
        return
    assert not set(origin.file_name) & set(" \n\\'\"$%é")
    assert not origin.file_name.startswith(("/", "-"))
    assert ".." not in origin.file_name.split("/")
    assert Reference.parse(str(origin.reference)) == origin.reference


@pytest.mark.integration
@pytest.mark.parametrize(("length", "fits"), [(255, True), (256, False)])
def test_the_length_of_a_name_is_limited_as_by_skopeo(length: int, fits: bool) -> None:
    """podman, too: an image of a longer name could not be loaded when the appliance boots."""
    name = "127.0.0.1:1/".ljust(length, "x")
    done = subprocess.run(["skopeo", "inspect", f"docker://{name}"], capture_output=True, text=True, check=False)
    assert ("must not be more than 255" in done.stderr) is not fits
    with nullcontext() if fits else pytest.raises(ValueError, match="got 256 characters with its registry"):
        Reference.parse(name)


@pytest.mark.integration
@pytest.mark.parametrize("program", [["skopeo", "inspect"], ["podman", "pull"]])
def test_no_engine_accepts_an_ipv6_address_as_registry(program: list[str]) -> None:
    done = subprocess.run([*program, "docker://[::1]:1/app"], capture_output=True, text=True, check=False)
    assert "invalid reference format" in done.stderr
