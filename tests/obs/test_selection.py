"""What a package is asked for: by its descriptions, by `_service`, and by options."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from osc_containers.errors import DescriptionError
from osc_containers.obs import selection
from osc_containers.obs.package import Package
from osc_containers.obs.selection import Request

KIWI = """<image>
<profiles><profile name="A" description="d"/><profile name="B" description="d"/></profiles>
<containers source="r.example.com" backend="podman"><container name="a"/></containers>
<containers source="r.example.com" backend="podman" profiles="A"><container name="only"/></containers>
</image>"""
OTHER = """<!-- OBS-ExclusiveArch: s390x riscv64 -->
<image><containers source="r.example.com" backend="podman"><container name="b"/></containers></image>"""


def write(directory: Path, *services: Sequence[tuple[str, str]]) -> Package:
    """Make a package with an entry of the prefetch for each of `services`, which are its parameters."""
    params = ("".join(f'<param name="{name}">{value}</param>' for name, value in service) for service in services)
    entries = "\n".join(f'<service name="kiwi_containers" mode="manual">{each}</service>' for each in params)
    for name, text in {"a.kiwi": KIWI, "b.kiwi": OTHER, "_service": f"<services>\n{entries}\n</services>"}.items():
        (directory / name).write_text(text)
    return Package(directory)


def asked(found: Request) -> set[str]:
    """Return the images of a request, each as name and architecture."""
    return {
        f"{item.reference.repository} {arch}" for item in selection.image_requests(found) for arch in item.architectures
    }


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        ((), {"a armv7l", "only armv7l", "b s390x", "b riscv64"}),
        (([],), {"a armv7l", "only armv7l", "b s390x", "b riscv64"}),
        (([("arch", "x86_64,aarch64"), ("description", "b.kiwi")],), {"b x86_64", "b aarch64"}),
        (([("description", "a.kiwi"), ("profile", "B"), ("arch", "0"), ("locked", "yes")],), {"a armv7l"}),
        (
            ([("description", "a.kiwi"), ("arch", "x86_64")], [("description", "b.kiwi")]),
            {"a x86_64", "only x86_64", "b s390x", "b riscv64"},
        ),
        (
            ([("description", "a.kiwi"), ("arch", "x86_64")], [("description", "a.kiwi"), ("arch", "aarch64")]),
            {"a x86_64", "only x86_64", "a aarch64", "only aarch64"},
        ),
    ],
)
def test_what_the_service_is_told_is_what_the_package_asks_for(
    tmp_path: Path, services: Sequence[Sequence[tuple[str, str]]], expected: set[str]
) -> None:
    assert asked(selection.of_package(write(tmp_path, *services)).with_default_architectures(["armv7l"])) == expected


def test_what_is_given_replaces_what_the_service_is_told(tmp_path: Path) -> None:
    package = write(tmp_path, [("description", "b.kiwi"), ("arch", "x86_64")], [("arch", "aarch64")])
    assert asked(selection.of_package(package, ["a.kiwi"], ["ppc64le"])) == {"a ppc64le", "only ppc64le"}
    assert asked(selection.of_package(package, ["a.kiwi"], profiles=["B"])) == {"a aarch64"}
    assert asked(selection.of_package(package, [], ["ppc64le"])) == {"b ppc64le", "a ppc64le", "only ppc64le"}


def test_a_description_by_name_is_asked_for_by_the_entries_that_read_it(tmp_path: Path) -> None:
    """As the inject service does with `osc service runall`."""
    (tmp_path / "c.kiwi").write_text(KIWI.replace('"a"', '"c"'))
    first = [("description", "a.kiwi"), ("arch", "x86_64"), ("profile", "A")]
    second = [("description", "b.kiwi"), ("arch", "aarch64")]
    package = write(tmp_path, first, second)
    assert asked(selection.of_package(package, ["a.kiwi"])) == {"a x86_64", "only x86_64"}
    assert asked(selection.of_package(package, ["b.kiwi"])) == {"b aarch64"}
    assert asked(selection.of_package(package, ["b.kiwi", "a.kiwi"])) == {"a x86_64", "only x86_64", "b aarch64"}
    assert asked(selection.of_package(package, ["c.kiwi"])) == {
        "c x86_64",
        "only x86_64",
        "c aarch64",
        "only aarch64",
    }


def test_profiles_are_those_of_the_entries_for_an_architecture(tmp_path: Path) -> None:
    every = [("description", "a.kiwi"), ("arch", "aarch64")]
    some = [("description", "a.kiwi"), ("arch", "x86_64"), ("profile", "A")]
    found = selection.of_package(write(tmp_path, every, some))
    (described,) = found.descriptions
    used = {arch: found.used_profiles(described, arch) for arch in ("aarch64", "x86_64", "s390x")}
    assert used == {"aarch64": None, "x86_64": {"A"}, "s390x": None}


def test_what_the_service_would_refuse_is_refused_with_its_place(tmp_path: Path) -> None:
    package = write(tmp_path, [("arch", "pdp11"), ("locked", "true")], [("foo", "bar")])
    with pytest.raises(DescriptionError) as caught:
        selection.of_package(package)
    assert [problem[:40] for problem in caught.value.problems] == [
        "_service:2: kiwi_containers: locked: got",
        "_service:2: kiwi_containers: unknown arc",
        "_service:3: kiwi_containers: got the par",
    ]
