"""Which containers go into a store."""

import logging
from pathlib import Path

import pytest

from osc_containers.errors import DescriptionError
from osc_containers.inject.store import selection
from osc_containers.kiwi import description
from osc_containers.obs import engines

XML = b"""<image schemaversion="7.4" name="x">
<containers source="registry.example.com" backend="podman">
<container name="app" path="team" tag="1.0"/>
<container name="data" path="team" tag="1.0" fetch_only="true"/>
</containers>
<containers source="registry.example.com" backend="docker">
<container name="web" path="team" tag="1.0"/>
</containers>
</image>"""


def select(*patterns: str) -> list[str]:
    containers = description.parse(XML, Path("appliance.kiwi"), lambda name: b"").of_architecture("x86_64")
    targets = {each: engines.targets(each, ()) for each in containers}
    selected = selection.select(containers, patterns, targets)
    return sorted(str(each.reference.name).rpartition("/")[2] for each in selected)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ((), []),
        (("registry.example.com/team/app:1.0",), ["app"]),
        (("*/app:*", "*/data:1.?"), ["app", "data"]),
        (("*/[ad]*:1.0",), ["app", "data"]),
        (("app",), []),
        (("REGISTRY.example.com/*/app:*",), []),
    ],
)
def test_patterns_match_whole_references(patterns: tuple[str, ...], names: list[str]) -> None:
    assert select(*patterns) == names


def test_patterns_without_a_match_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    select("*/app:1.0", "*/nothing", "*/nothing")
    assert caplog.messages == ["store='*/nothing' matches no container of this image"]


def test_archives_that_stay_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        select("*/data:*")
    assert caplog.messages == [
        "appliance.kiwi:4: registry.example.com/team/data:1.0 is in the store, and also stays as an archive "
        "(fetch_only)"
    ]


def test_other_engines_have_no_store() -> None:
    with pytest.raises(DescriptionError) as caught:
        select("registry.example.com/*")
    assert caught.value.problems == (
        "appliance.kiwi:7: registry.example.com/team/web:1.0 matches store='registry.example.com/*', but is for "
        'docker: only podman has such stores; use a pattern that does not match it, or backend="podman"',
    )
