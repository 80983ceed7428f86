"""Whatever goes wrong between a registry and us: the archives are right, or the package is as it was."""

from pathlib import Path

import pytest

from tests.support import sweep


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("trial", sweep.trials("sample", 40), ids=lambda trial: f"{trial.state} {trial.fault}")
def test_a_prefetch_completes_or_leaves_the_package_as_it_was(trial: sweep.Trial, tmp_path: Path) -> None:
    sweep.attempt(trial, tmp_path)
