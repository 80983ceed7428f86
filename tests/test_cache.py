"""Whatever is wrong with the user's cache, all is done without it."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import images
import platformdirs
import pytest
from fake_source import FakeSource
from test_prefetch import APP, run, want


def ask_in_vain(name: str) -> Path:
    raise RuntimeError("could not determine the home directory")


@pytest.mark.parametrize(
    "answer", [ask_in_vain, lambda name: Path("~/.cache", name)], ids=["platformdirs 4.14", "platformdirs 2.6"]
)
def test_a_user_without_a_home_has_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], Path]
) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", answer)
    monkeypatch.setattr(time, "time_ns", lambda: 1 << 62)  # sums of files are remembered after a while
    monkeypatch.chdir(tmp_path)
    source = FakeSource({APP: images.small("app")})
    Path("package").mkdir()
    for _ in range(2):
        run(source, Path("package"), *want(APP))
    assert os.listdir(tmp_path) == ["package"]
    assert len(os.listdir("package")) == 2
