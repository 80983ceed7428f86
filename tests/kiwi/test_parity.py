"""Our reading of a description against kiwi's own, on generated descriptions.

kiwi runs in environments of its own, one for each line of versions: those whose interpreters `KIWI_VENVS` lists (with
colons between them), else those that are made below `build/` at the first run. `PARITY_EXAMPLES` says how many
descriptions are compared with each.

Where kiwi takes a description that we refuse, the generator knows why (`Item.refusals`) and it is counted; the counts
are printed at the end (`pytest -s`).
"""

import os
import posixpath
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from osc_containers.errors import DescriptionError
from osc_containers.kiwi import description
from osc_containers.kiwi.containers import Container
from osc_containers.oci import platform
from tests.support.descriptions import ARCHITECTURES, Encoding, File, Item, Package, attributes, packages
from tests.support.kiwi_peer import Oracle, Selection

EXAMPLES = int(os.environ.get("PARITY_EXAMPLES", "60"))
LOCAL = "/var/tmp/kiwi_containers"


def as_kiwi_says(container: Container) -> dict[str, Any]:
    file = f"{LOCAL}/{container.file_name}"
    return {
        "endpoint": container.endpoint,
        "backend": container.backend,
        "fetch_only": container.fetch_only,
        "container_file": file,
        "load_command": [] if container.fetch_only else [f"/usr/bin/{container.backend}", "load", "-i", file],
    }


def as_we_say(answer: dict[str, Any]) -> dict[str, Any]:
    """Take needless slashes away from kiwi's paths."""
    file = posixpath.normpath(answer["container_file"])
    load = [posixpath.normpath(word) if word == answer["container_file"] else word for word in answer["load_command"]]
    return answer | {"container_file": file, "load_command": load}


@pytest.mark.integration
def test_we_select_what_kiwi_selects(oracle: Oracle) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(packages())
    def compare(package: Package) -> None:
        with tempfile.TemporaryDirectory() as directory:
            compare_in(Path(directory), package, oracle)

    compare()


def compare_in(directory: Path, package: Package, oracle: Oracle) -> None:
    path = package.write(directory)
    said = oracle.ask(path, list(package.selections))
    assert "answers" in said, f"the generator made what kiwi refuses: {said}"
    oracle.counts["descriptions that kiwi accepts"] += 1
    if package.refusals:
        oracle.counts["descriptions that we refuse"] += 1
        for reason in package.refusals:
            oracle.counts[f"refused: {reason}"] += 1
        with pytest.raises(DescriptionError) as caught:
            description.read(path)
        assert len(caught.value.problems) == len(package.refusals), caught.value.problems
        return
    read = description.read(path)
    for selection, answer in zip(package.selections, said["answers"], strict=True):
        compare_selection(read, selection, answer, oracle.counts)
    compare_wanted(read, path, oracle)
    compare_remove_containers(directory, package, oracle)


def compare_wanted(read: description.Description, path: Path, oracle: Oracle) -> None:
    """Check that what is wanted for an architecture is what kiwi selects there with one set of profiles or another."""
    requests = [(), *((profile.name,) for profile in read.profiles)]
    for arch in ARCHITECTURES[:2]:
        answers = oracle.ask(path, [Selection(arch, names) for names in requests])["answers"]
        theirs = {each["endpoint"] for answer in answers for each in answer.get("containers", ())}
        nested = {include.name for include in read.includes if include.is_nested}
        assert {each.endpoint for each in read.of_architecture(arch) if each.file not in nested} == theirs
        oracle.counts["architectures that agree"] += 1


def compare_selection(
    read: description.Description, selection: Selection, answer: dict[str, Any], counts: Counter[str]
) -> None:
    if "error" in answer:
        assert answer["error"] == "KiwiProfileNotFound"
        counts["selections of a profile that is not there"] += 1
        with pytest.raises(DescriptionError):
            read.select(selection.arch, selection.profiles)
        return
    nested = {include.name for include in read.includes if include.is_nested}
    ours = read.select(selection.arch, selection.profiles)
    counts["containers that kiwi loses in nested includes"] += sum(each.file in nested for each in ours)
    mine = [as_kiwi_says(each) for each in ours if each.file not in nested]
    theirs = [as_we_say(each) for each in answer["containers"]]
    assert mine == theirs
    counts["selections that agree"] += 1
    counts["containers that agree"] += len(mine)


def compare_remove_containers(directory: Path, package: Package, oracle: Oracle) -> None:
    """Check that kiwi accepts a description from which the containers are removed, and finds none in it."""
    path = package.write(directory, description.remove_containers)
    said = oracle.ask(path, [Selection("x86_64", ())])
    assert said == {"answers": [{"containers": []}]}
    assert description.read(path).containers == ()


@pytest.mark.integration
def test_we_know_the_architectures_that_kiwi_knows(oracle: Oracle, tmp_path: Path) -> None:
    values = attributes(source="a.b", backend="podman", arch=",".join(platform.ARCHITECTURES))
    section = Item(f"<containers{values}><container name='x'/></containers>")
    package = Package("8.0", File((section,), Encoding("utf-8", "utf-8")))
    selections = [Selection(arch, ()) for arch in platform.ARCHITECTURES]
    said = oracle.ask(package.write(tmp_path), selections)
    assert [len(answer["containers"]) for answer in said["answers"]] == [1] * len(selections)
