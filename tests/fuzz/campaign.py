"""Fuzz every target for some seconds, or some of them: `make fuzz`.

    python -m tests.fuzz.campaign SECONDS [TARGET…]

What is found stays in build/fuzz/TARGET: give it a telling name in seeds/TARGET, and it is a test.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.targets import TARGETS

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "fuzz"
_LIMITS = ["-rss_limit_mb=1024", "-malloc_limit_mb=512", "-timeout=20", "-max_len=20000", "-print_final_stats=1"]


def fuzz(name: str, seconds: str) -> tuple[str, int, bool]:
    """Fuzz a target; return its name, the number of executions, and whether nothing was found."""
    corpus, log = BUILD / name / "corpus", BUILD / name / "log"
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = HERE / "seeds" / name
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch, log.open("wb") as output:
        options = [f"-max_total_time={seconds}", *_LIMITS, f"-artifact_prefix={BUILD / name}/"]
        folders = [str(folder) for folder in (corpus, seeds) if folder.is_dir()]
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.harness", name, *options, *folders],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "FUZZ_SCRATCH": scratch, "XDG_CACHE_HOME": "/proc/none"},
        )
    count = re.findall(r"number_of_executed_units: (\d+)", log.read_text(errors="replace"))
    return name, int(count[-1]) if count else 0, done.returncode == 0


def main(arguments: Sequence[str]) -> int:
    """Fuzz, two targets at a time, and print a line for each."""
    seconds, *names = arguments
    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, count, is_good in pool.map(lambda each: fuzz(each, seconds), names or TARGETS):
            failed += not is_good
            print(f"{name:16}{count:>12,} executions{'' if is_good else f'; FAILED, see {BUILD / name}'}", flush=True)
    print(f"{len(names or TARGETS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
