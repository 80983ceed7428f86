"""The parameter `engine`: which values it takes, and which containers it selects."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.errors import DescriptionError
from osc_containers.kiwi import description
from osc_containers.kiwi.backend import OTHER_ENGINES
from osc_containers.kiwi.containers import Container
from osc_containers.obs import engines
from osc_containers.obs.engines import Choice
from osc_containers.oci.reference import Reference

XML = b"""<image schemaversion="7.4" name="x">
<containers source="registry.example.com" backend="podman">
<container name="app" path="team" tag="1.0" fetch_only="true"/>
<container name="data" path="team" tag="1.0" fetch_only="true"/>
</containers>
<containers source="registry.example.com" backend="docker">
<container name="web" path="team" tag="1.0"/>
</containers>
</image>"""


def containers(xml: bytes = XML) -> tuple[Container, ...]:
    return description.parse(xml, Path("appliance.kiwi"), lambda name: b"").of_architecture("x86_64")


@pytest.mark.parametrize(
    ("value", "target", "pattern"),
    [
        ("containerd=*", "containerd", "*"),
        ("containerd:k8s.io=*/app:*", "containerd", "*/app:*"),
        ("containerd:moby=*=*", "containerd:moby", "*=*"),
    ],
)
def test_values_are_an_engine_and_a_pattern(value: str, target: str, pattern: str) -> None:
    assert engines.parse([value, value]) == (Choice(target, pattern),)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("containerd", "engine: got 'containerd', expected ENGINE=PATTERN, such as containerd=*"),
        ("containerd=", "engine: got 'containerd=', expected ENGINE=PATTERN, such as containerd=*"),
        ("*/app:1.0", "engine: got '*/app:1.0', expected ENGINE=PATTERN, such as containerd=*"),
        ("crio=*", f"engine: got 'crio', expected one of {', '.join(OTHER_ENGINES)}"),
        (" containerd=*", f"engine: got ' containerd', expected one of {', '.join(OTHER_ENGINES)}"),
        (
            "podman=*",
            "engine: got 'podman', which is a backend of kiwi: write backend='podman' in the description instead",
        ),
        ("k3s:x=*", "engine: got 'k3s:x', but only containerd has namespaces; write 'k3s'"),
        (
            "containerd:a-b=*",
            "engine: got the namespace 'a-b', expected at most 32 letters and digits, separated by '.' or '_'",
        ),
        (
            "containerd:=*",
            "engine: got the namespace '', expected at most 32 letters and digits, separated by '.' or '_'",
        ),
        (
            f"containerd:{'x' * 33}=*",
            f"engine: got the namespace '{'x' * 33}', expected at most 32 letters and digits, separated by '.' or '_'",
        ),
    ],
)
def test_other_values_are_refused(value: str, problem: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        engines.parse(["containerd=*", value])
    assert caught.value.problems == (problem,)
    assert engines.parse_valid([value, "containerd=*"]) == (Choice("containerd", "*"),)


@given(st.text() | st.builds("{}={}".format, st.sampled_from(["containerd", "k3s", "containerd:x"]), st.text()))
def test_any_value_is_a_choice_or_a_problem(value: str) -> None:
    choices, problems = engines.parse_valid([value]), list(engines.list_problems([value]))
    assert len(choices) + len(problems) == 1
    assert all(problem.isprintable() and len(problem) < 400 for problem in problems)
    for choice in choices:
        engines.select(containers()[:2], [choice])
        assert str(choice).isprintable()


def test_a_container_may_go_to_several_engines() -> None:
    choices = engines.parse(["containerd:moby=*", "containerd=*/app:*", "containerd=*:1.0"])
    selected = engines.select(containers()[:2], choices)
    assert list(selected.values()) == [("containerd", "containerd:moby")] * 2


def test_the_others_stay_with_their_backends() -> None:
    selected = engines.select(containers(), engines.parse(["containerd=*/app:*"]))
    assert list(selected.values()) == [("containerd",), (), ("docker",)]


@pytest.mark.parametrize("pattern", ["h.example/app:1", "h.example/app:1@sha256:*", "*/app*", "h.example/ap[p]:?"])
def test_patterns_match_the_reference_with_and_without_digest(pattern: str) -> None:
    assert Reference.parse(f"h.example/app:1@sha256:{'a' * 64}").matches(pattern)


def test_containers_that_a_backend_loads_are_refused() -> None:
    with pytest.raises(DescriptionError) as caught:
        engines.select(containers(), engines.parse(["containerd=registry.example.com/*"]))
    assert caught.value.problems == (
        "appliance.kiwi:7: registry.example.com/team/web:1.0 matches engine='containerd=registry.example.com/*', but "
        'is loaded into docker: add fetch_only="true" to it, so that kiwi\'s backend leaves it alone, or use a pattern '
        "that does not match it",
    )


@pytest.mark.parametrize("engine", ["k3s", "rke2", "mgradm"])
def test_engines_that_know_tags_only_need_one(engine: str) -> None:
    digest = f"sha256:{'a' * 64}"
    choices = engines.parse([f"{engine}=*/app@*", "containerd=*"])
    assert engines.select(containers(XML.replace(b'"1.0"', f'"2@{digest}"'.encode()))[:2], choices)
    with pytest.raises(DescriptionError) as caught:
        engines.select(containers(XML.replace(b'"1.0"', f'"{digest}"'.encode()))[:2], choices)
    assert caught.value.problems == (
        f"appliance.kiwi:3: registry.example.com/team/app@{digest} matches engine='{engine}=*/app@*', but {engine} "
        f'finds images by their tags: add one to its digest, such as tag="1.0@{digest}"',
    )


def test_images_that_mgradm_cannot_tell_apart_are_refused() -> None:
    xml = XML.replace(b'name="data" path="team"', b'name="team-app"')
    assert engines.select(containers(xml)[:2], engines.parse(["k3s=*"]))
    with pytest.raises(DescriptionError) as caught:
        engines.select(containers(xml)[:2], engines.parse(["mgradm=*"]))
    assert caught.value.problems == (
        "appliance.kiwi:4: registry.example.com/team-app:1.0 is the same image to mgradm as "
        "registry.example.com/team/app:1.0 at appliance.kiwi:3; use a pattern of engine that does not match both",
    )


def test_choices_without_a_match_are_found() -> None:
    choices = engines.parse(["containerd=*/app:*", "containerd=app"])
    assert [str(choice) for choice in engines.unused(containers(), choices)] == ["engine='containerd=app'"]
