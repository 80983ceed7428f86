"""The endpoints of images according to containers-registries.conf(5)."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.errors import RegistryError
from osc_containers.oci.reference import Reference
from osc_containers.registry.config import registries_conf
from osc_containers.registry.config.registries_conf import Configuration

DIGEST = "sha256:" + "0" * 64

# The manual's example, with the other keys of a table.
MANUAL = """
unqualified-search-registries = ["example.com", "docker.io"]
credential-helpers = ["containers-auth.json", "secretservice"]

[[registry]]
prefix = "example.com/foo"
insecure = false
location = "internal-registry-for-example.com/bar"
[[registry.mirror]]
location = "example-mirror-0.local/mirror-for-foo"
[[registry.mirror]]
location = "example-mirror-1.local/mirrors/foo/"
insecure = true

[[registry]]
location = "registry.com"
[[registry.mirror]]
location = "mirror.registry.com"

[[registry]]
prefix = "example.com/foo/secret"
blocked = true

[[registry]]
prefix = "*.example.org"
insecure = true

[[registry]]
prefix = "*.moved.example"
location = "new.example/all"

[[registry]]
location = "digests.example"
mirror-by-digest-only = true
[[registry.mirror]]
location = "mirror.example"

[[registry]]
location = "mixed.example"
[[registry.mirror]]
location = "by-digest.example"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "by-tag.example"
pull-from-mirror = "tag-only"

[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "hub-mirror.example:5000"

[aliases]
"tumbleweed" = "registry.opensuse.org/opensuse/tumbleweed"
"team/app" = "registry.example/team/app"
"""


def endpoints_of(configuration: Configuration, name: str, *, by_digest: bool = False) -> list[str]:
    endpoints = configuration.endpoints(Reference.parse(name), by_digest=by_digest)
    return [
        f"{endpoint.host}/{endpoint.repository}{' insecure' if endpoint.insecure else ''}" for endpoint in endpoints
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "example.com/foo/image:latest",
            [
                "example-mirror-0.local/mirror-for-foo/image",
                "example-mirror-1.local/mirrors/foo/image insecure",
                "internal-registry-for-example.com/bar/image",
            ],
        ),
        ("registry.com/image:latest", ["mirror.registry.com/image", "registry.com/image"]),
        ("example.com/food/image", ["example.com/food/image"]),
        ("example.com/other", ["example.com/other"]),
        ("a.example.org/x", ["a.example.org/x insecure"]),
        ("a.b.example.org/x", ["a.b.example.org/x insecure"]),
        ("a.example.org:5000/x", ["a.example.org:5000/x insecure"]),
        ("example.org/x", ["example.org/x"]),
        ("badexample.org/x", ["badexample.org/x"]),
        ("a.moved.example/x/y", ["new.example/all/x/y"]),
        ("digests.example/x:1", ["digests.example/x"]),
        ("mixed.example/x:1", ["by-tag.example/x", "mixed.example/x"]),
        (f"mixed.example/x@{DIGEST}", ["mixed.example/x"]),
        ("busybox", ["hub-mirror.example:5000/library/busybox", "docker.io/library/busybox"]),
    ],
)
def test_endpoints_follow_the_manual(name: str, expected: list[str]) -> None:
    assert endpoints_of(registries_conf.parse(MANUAL.encode(), "conf"), name) == expected


@pytest.mark.parametrize("tables", [("*.example.org", "a.b.example.org"), ("a.b.example.org", "*.example.org")])
def test_the_longest_prefix_takes_precedence(tables: tuple[str, str]) -> None:
    blocks = "".join(f'[[registry]]\nprefix = "{prefix}"\nblocked = {{}}\n' for prefix in tables)
    for is_blocked in ("true", "false"):
        others = "false" if is_blocked == "true" else "true"
        order = (is_blocked, others) if tables[0].startswith("*") else (others, is_blocked)
        configuration = registries_conf.parse(blocks.format(*order).encode(), "conf")
        wide, narrow = ("c.example.org:5000/x", "a.b.example.org/x")
        blocked, allowed = (wide, narrow) if is_blocked == "true" else (narrow, wide)
        assert endpoints_of(configuration, allowed) == [allowed]
        with pytest.raises(RegistryError, match="is blocked by conf"):
            endpoints_of(configuration, blocked)


def test_the_first_table_of_a_prefix_counts(tmp_path: Path) -> None:
    file = tmp_path / "registries.conf"
    file.write_text("".join(f'[[registry]]\nprefix = "a.example"\nlocation = "{to}.example"\n' for to in ("b", "c")))
    configuration = registries_conf.load({"CONTAINERS_REGISTRIES_CONF": str(file), "HOME": str(tmp_path)})
    assert endpoints_of(configuration, "a.example/x") == ["b.example/x"]


def test_digest_only_mirrors_are_used_for_digests() -> None:
    configuration = registries_conf.parse(MANUAL.encode(), "conf")
    assert endpoints_of(configuration, "digests.example/x:1", by_digest=True) == [
        "mirror.example/x",
        "digests.example/x",
    ]
    assert endpoints_of(configuration, f"mixed.example/x@{DIGEST}", by_digest=True) == [
        "by-digest.example/x",
        "mixed.example/x",
    ]


def test_a_blocked_image_is_reported_with_the_file() -> None:
    with pytest.raises(RegistryError, match=r"^example.com/foo/secret/x:1: registry .* is blocked by conf$"):
        endpoints_of(registries_conf.parse(MANUAL.encode(), "conf"), "example.com/foo/secret/x:1")


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("example.com", "EXAMPLE.com/foo/x"),
        ("Example.com:5000/foo", "example.com:5000/foo/x"),
        ("example.com", "Example.com:5000/x"),
        ("localhost:5000", "LOCALHOST:5000/x"),
        ("*.Example.com", "a.EXAMPLE.com/x"),
        ("docker.io", "Index.Docker.IO/team/x"),
    ],
)
def test_blocked_registries_are_blocked_in_any_case(prefix: str, name: str) -> None:
    configuration = registries_conf.parse(f'[[registry]]\nprefix = "{prefix}"\nblocked = true\n'.encode(), "conf")
    with pytest.raises(RegistryError, match="is blocked by conf"):
        configuration.endpoints(Reference.parse(name), by_digest=False)


def test_location_replaces_a_prefix_in_any_case() -> None:
    text = b'[[registry]]\nprefix = "example.com/foo"\nlocation = "Mirror.example/bar"\n'
    assert endpoints_of(registries_conf.parse(text, "conf"), "EXAMPLE.com/foo/x") == ["Mirror.example/bar/x"]


def test_short_names_mean_the_same_as_in_skopeo() -> None:
    """Aliases and search registries do not replace the image that kiwi would pull."""
    configuration = registries_conf.parse(MANUAL.encode(), "conf")
    assert endpoints_of(configuration, "tumbleweed") == [
        "hub-mirror.example:5000/library/tumbleweed",
        "docker.io/library/tumbleweed",
    ]
    assert endpoints_of(Configuration(), "team/app") == ["docker.io/team/app"]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_later_files_replace_lists_and_same_prefixes(tmp_path: Path) -> None:
    home = tmp_path / ".config/containers"
    write(home / "registries.conf", MANUAL)
    write(home / "registries.conf.d/10-a.conf", '[[registry]]\nlocation = "registry.com"\n')
    write(home / "registries.conf.d/20-b.conf", 'credential-helpers = ["containers-auth.json"]\n')
    write(home / "registries.conf.d/30-c.txt", "nonsense")
    configuration = registries_conf.load({"HOME": str(tmp_path)})
    assert configuration.helpers == ("containers-auth.json",)
    assert endpoints_of(configuration, "registry.com/image") == ["registry.com/image"]


def test_the_users_file_is_where_podman_reads_it(tmp_path: Path) -> None:
    """In HOME, even if XDG_CONFIG_HOME is set, unlike the user's logins."""
    write(tmp_path / ".config/containers/registries.conf", '[[registry]]\nlocation = "a.example"\nblocked = true\n')
    write(tmp_path / "other/containers/registries.conf", "nonsense")
    configuration = registries_conf.load({"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "other")})
    with pytest.raises(RegistryError, match="is blocked"):
        endpoints_of(configuration, "a.example/x")


def test_the_environment_replaces_the_main_file(tmp_path: Path) -> None:
    write(tmp_path / "mine.conf", '[[registry]]\nlocation = "a.example"\nblocked = true\n')
    configuration = registries_conf.load(
        {"HOME": str(tmp_path), "CONTAINERS_REGISTRIES_CONF": str(tmp_path / "mine.conf")}
    )
    with pytest.raises(RegistryError, match="is blocked"):
        endpoints_of(configuration, "a.example/x")


@pytest.fixture
def _kept_garbage() -> Iterator[None]:
    """Exempt existing objects from garbage collection: their finalizers would fail in a test that uses up the stack."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nonsense", "not valid TOML"),
        ("a = " + "[" * 10_000, "not valid TOML"),
        ("[[registry]]\n", "registry[0]: got neither prefix nor location"),
        ("[[registry]]\nlocation = 5\n", "got a number, expected a string"),
        ('[[registry]]\nlocation = "a"\nblocked = "yes"\n', "blocked: expected true or false"),
        ('[registry]\nlocation = "a"\n', "registry: got an object, expected an array"),
        ('[[registry]]\nlocation = "a"\n[[registry.mirror]]\n', "location: missing"),
        (
            '[[registry]]\nlocation = "a"\n[[registry.mirror]]\nlocation = "b"\npull-from-mirror = "never"\n',
            "['pull-from-mirror']: got 'never', expected one of all, digest-only, tag-only",
        ),
        *(
            (
                f'[[registry]]\nprefix = "*.example.com{rest}"\nblocked = true\n',
                f"prefix: got '*.example.com{rest}', expected only a domain after '*.', as in '*.example.com'",
            )
            for rest in (":5000", "/team", ":5000/team", "@sha256")
        ),
        ("#" * (4 << 20) + '\n[[registry]]\nlocation = "a"\nblocked = true\n', "got more than 4194304 bytes"),
        ("[registries.search]\nregistries = ['docker.io']\n", "version 1 of registries.conf"),
    ],
)
@pytest.mark.usefixtures("_kept_garbage")
def test_a_malformed_file_is_reported(tmp_path: Path, text: str, problem: str) -> None:
    write(tmp_path / "r.conf", text)
    with pytest.raises(RegistryError) as caught:
        registries_conf.load({"HOME": str(tmp_path), "CONTAINERS_REGISTRIES_CONF": str(tmp_path / "r.conf")})
    assert str(caught.value).startswith(f"{tmp_path}/r.conf: ")
    assert problem in str(caught.value)


def test_a_missing_file_from_the_environment_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="No such file"):
        registries_conf.load({"HOME": str(tmp_path), "CONTAINERS_REGISTRIES_CONF": str(tmp_path / "none")})


@pytest.mark.parametrize(
    "location", ["b.example/%", "b.example:99999", "b", "b/x", "docker.io", "index.docker.io/library"]
)
def test_a_location_that_is_no_name_is_reported(location: str) -> None:
    """In particular, it does not become a name of Docker Hub."""
    table = f'[[registry]]\nprefix = "a.example"\nlocation = "{location}"\n'
    configuration = registries_conf.parse(table.encode(), "conf")
    with pytest.raises(RegistryError, match=r"^conf: cannot be applied to a.example/x:latest: "):
        endpoints_of(configuration, "a.example/x")


@given(st.text(alphabet=st.sampled_from('[registy]\n= "a.mirolcn#'), max_size=80))
def test_any_file_is_parsed_or_refused(text: str) -> None:
    try:
        registries_conf.parse(text.encode(), "file")
    except ValueError as error:
        problem = str(error)
        assert problem.startswith("file")
