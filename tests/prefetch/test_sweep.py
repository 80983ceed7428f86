"""Whatever goes wrong between a registry and us: the archives are right, or the package is as it was."""

from dataclasses import replace
from pathlib import Path

import pytest

from osc_containers.oci.digest import Digest
from tests.support import sweep


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("trial", sweep.trials("sample", 40), ids=lambda trial: f"{trial.state} {trial.fault}")
def test_a_prefetch_completes_or_leaves_the_package_as_it_was(trial: sweep.Trial, tmp_path: Path) -> None:
    sweep.attempt(trial, tmp_path)


def test_a_blob_that_was_always_damaged_is_fetched_once_by_the_next_run(tmp_path: Path) -> None:
    """Nothing of what the first run has left of it counts, not even what is in blocks of its own."""
    layer = str(Digest.of(sweep.contents("one")["db:latest"].blobs[1]))
    (key,) = (key for key in sweep.requests("new", "open") if key.endswith(layer))
    trial = sweep.trials("sample", 1)[0]
    trial = replace(trial, state="new", service="open", layout="archives", fault="flip", key=key, is_once=False)
    assert sweep.attempt(trial, tmp_path)[0] == "VerificationError"
