"""Our judgement of signatures is that of skopeo and podman."""

import os
from collections.abc import Iterator

import pytest

from tests.support import lookaside, policy_oracle
from tests.support.docker_registry import DockerRegistry
from tests.support.policy_cases import World, fixed_cases, generated_cases
from tests.support.policy_oracle import ask_peers, ask_us, write
from tests.support.signing import Gpg

SEED = int(os.environ.get("SEED", "1"))
PEERS = tuple(os.environ.get("PEERS", "skopeo podman" if "RUNS" in os.environ else "skopeo").split())
RUNS = int(os.environ.get("RUNS", "0"))
"""Generated cases; 0 is the sample of an ordinary run: few cases, and skopeo alone."""

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def world(docker_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("world")
    with Gpg(tmp_path_factory.mktemp("gpg") / "home") as gpg, lookaside.serve(directory / "lookaside") as store:
        yield World(docker_registry, directory, gpg, store)


def test_skopeo_and_podman_agree_with_us(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = list(fixed_cases(world))
    cases = [*(fixed if RUNS else fixed[::3]), *generated_cases(world, SEED, RUNS or 20)]
    homes = [write(case, world.directory / "cases" / str(n)) for n, case in enumerate(cases)]
    answers = {"we": [ask_us(home) for home in homes]}
    answers |= ask_peers(homes, world.directory, PEERS)
    lines, agreements = [], 0
    for n, case in enumerate(cases):
        each = {name: answer[n] for name, answer in answers.items()}
        verdicts = {name: "accepts" if answer.is_accepted else "refuses" for name, answer in each.items()}
        if len(set(verdicts.values())) == 1:
            agreements += 1
        else:
            lines.append(f"{case.title}: {verdicts}")
            lines += [f"    {name}: {answer.message.strip()[-300:]}" for name, answer in each.items()]
            lines.append(f"    {homes[n]}")
    accepted = sum(answer.is_accepted for answer in answers["we"])
    with capsys.disabled():
        print(f"\n{len(cases)} cases, {accepted} accepted, {agreements} agreements of {', '.join(answers)}")
    assert not lines, "\n".join(lines)
    assert policy_oracle.make_system().is_dir()
