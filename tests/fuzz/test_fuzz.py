"""Every parser with the seeds of its fuzzer, and with every input that was once too much for it."""

from pathlib import Path

import pytest

from tests.fuzz import targets

FUZZ = Path(__file__).resolve().parent

SEEDS = sorted(FUZZ.glob("seeds/*/*"))


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: f"{path.parent.name} {path.name}")
def test_a_parser_takes_it_or_says_why_not(seed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUZZ_SCRATCH", str(tmp_path))
    targets._scratch.cache_clear()
    targets.TARGETS[seed.parent.name](seed.read_bytes())


def test_every_parser_has_seeds() -> None:
    assert {path.parent.name for path in SEEDS} == set(targets.TARGETS)
