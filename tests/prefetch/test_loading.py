"""Images that an engine of the description cannot load are refused, or warned of, before a layer is fetched."""

import json

import pytest

from tests.support.odd_images import CASES
from tests.support.workplace import Workplace

PODMAN = "(x86_64): podman cannot load it: "


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("layer with URLs", "podman"),
        ("OCI manifest, Docker's config", "container-snap"),
        ("sha512 for the config", "docker"),
        ("Docker manifest, OCI layers, zstd", "podman"),
    ],
)
def test_an_image_that_cannot_be_loaded_is_refused(workplace: Workplace, name: str, backend: str) -> None:
    problem = f"(x86_64): {backend} cannot load it: "
    workplace.registry.push(CASES[name](name), "team/app:1.0")
    workplace.use('name="app" tag="1.0"', backend)
    output = workplace.fail("prefetch")
    assert f"error: a.kiwi:1: {workplace.registry.host}/team/app:1.0 {problem}" in output
    assert "fetch_only='true'" in output
    # Manifest and configuration were asked for, and nothing else.
    assert sum(request.is_blob for request in workplace.registry.requests) == 1
    assert [path.name for path in workplace.directory.iterdir()] == ["a.kiwi"]
    # With fetch_only it is fetched; without, the package is refused from then on.
    workplace.use('name="app" tag="1.0" fetch_only="true"', backend)
    assert f"warning: a.kiwi:1: {workplace.registry.host}/team/app:1.0 {problem}" in workplace.succeed("prefetch")
    assert problem in workplace.succeed("prefetch")
    assert severities(workplace) == {"info"}
    workplace.use('name="app" tag="1.0"', backend)
    assert severities(workplace) == {"error"}
    assert problem in workplace.fail("prefetch")
    for archive in workplace.directory.glob("*archive"):
        archive.unlink()
    workplace.registry.requests.clear()
    assert problem in workplace.fail("prefetch", "--locked")
    assert not any(request.is_blob for request in workplace.registry.requests)


def severities(workplace: Workplace) -> set[str]:
    """Return the severities of what `check` finds about the image."""
    findings = json.loads(workplace.run("check", "--format", "json")[1])
    return {each["severity"] for each in findings if each["check"] == "load" and "cannot load it" in each["why"]}


@pytest.mark.parametrize("name", ["126 layers", "gzip under a plain type", "Docker manifest, zstd"])
def test_an_image_that_depends_on_the_store_is_warned_of(workplace: Workplace, name: str) -> None:
    workplace.registry.push(CASES[name](name), "team/app:1.0")
    workplace.use('name="app" tag="1.0"', "docker")
    for command in (["prefetch"], ["prefetch"], ["prefetch", "--locked"]):
        assert "warning: a.kiwi:1: " in (output := workplace.succeed(*command))
        assert "(x86_64): docker cannot load it with the c" in output
    assert severities(workplace) == {"warning"}


def test_an_image_that_one_of_two_engines_loads_is_fetched(workplace: Workplace) -> None:
    workplace.registry.push(CASES["layer with URLs"]("two"), "team/app:1.0")
    workplace.use('name="app" tag="1.0"', "podman", "docker")
    output = workplace.succeed("prefetch")
    assert f"warning: a.kiwi:1: {workplace.registry.host}/team/app:1.0 {PODMAN}layers[1] has 'urls'" in output
    assert "docker cannot" not in output
    assert severities(workplace) == {"error"}


def test_an_image_that_every_engine_loads_is_not_mentioned(workplace: Workplace) -> None:
    workplace.registry.push(CASES["125 layers"]("all"), "team/app:1.0")
    workplace.use('name="app" tag="1.0"', "podman", "docker", "container-snap")
    assert "cannot load" not in workplace.succeed("prefetch")
    assert severities(workplace) == set()


SERVICE = """<services>
  <service name="kiwi_containers" mode="manual"/>
  <service name="kiwi_containers_inject" mode="buildtime"><param name="store">*/team/*</param></service>
</services>
"""


@pytest.mark.parametrize(
    ("name", "problem", "blobs"),
    [
        ("OCI manifest, Docker's config", "an OCI manifest with a config of type", 1),
        ("number as a label", "config.'config'.'Labels'.'a': got 1, expected a string", 1),
        ("no diff_ids", "config: got 0 diff_ids for 2 layers, expected one for each", 1),
        ("bzip2 under a plain type", "layers[0] is compressed with bzip2", 3),
    ],
)
def test_an_image_that_a_store_cannot_have_is_refused(
    workplace: Workplace, name: str, problem: str, blobs: int
) -> None:
    """What manifest and configuration show is found before a layer is fetched."""
    (workplace.directory / "_service").write_text(SERVICE)
    workplace.registry.push(CASES[name](name), "team/app:1.0")
    workplace.use('name="app" tag="1.0" fetch_only="true"')
    output = workplace.fail("prefetch")
    assert f"team/app:1.0 (x86_64): a read-only store cannot have it: {problem}" in output
    assert sum(request.is_blob for request in workplace.registry.requests) == blobs
    assert not list(workplace.directory.glob("*archive"))
    # Without the store it is fetched. From then on, nothing needs the registry to refuse it.
    (workplace.directory / "_service").unlink()
    workplace.succeed("prefetch")
    (workplace.directory / "_service").write_text(SERVICE)
    findings, _ = json.JSONDecoder().raw_decode(workplace.run("check", "--format", "json")[1])
    [found] = [each for each in findings if each["check"] == "load"]
    assert found["severity"] == "error"
    assert problem in found["why"]
    assert problem in workplace.fail("prefetch", "--locked")
