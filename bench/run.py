#!/usr/bin/env python3
"""Compare us with skopeo on this machine; `make bench` runs it, bench/README.md explains it."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import machine
import report
from cases import CASES
from workshop import open_workshop


def main() -> int:
    """Run the cases; the status says whether all targets are met."""
    options = _options()
    verdicts: list[str] = []
    noisy: list[str] = []
    with tempfile.TemporaryDirectory(prefix="osc-containers-bench-", dir=options.dir) as name:
        print(f"{machine.describe(Path(name))}; load {_load()}\n{report.heads()}", flush=True)
        for number, case_name in enumerate(options.cases):
            case = CASES[case_name]
            scratch = Path(name, str(number))
            scratch.mkdir()
            with open_workshop(scratch) as workshop:
                samples = case.run(workshop, options.pairs, lambda text, n=case_name: _progress(f"{n} {text}"))  # type: ignore[misc]
            _progress("")
            print("\n".join(report.rows(case_name, samples)), flush=True)
            verdicts += report.verdicts(case, case_name, samples)
            noisy += [case_name] if report.is_noisy(samples) else []
    print("", *verdicts, sep="\n")
    if noisy:
        print(
            f"\nToo noisy to trust, others kept more than {report.NOISE} cores busy: {', '.join(noisy)}; load {_load()}"
        )
    return int(any(line.startswith("FAIL") for line in verdicts))


def _options() -> argparse.Namespace:
    names = "\n".join(f"  {name:<12} {case.title}" for name, case in CASES.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"cases:\n{names}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5, help="runs of each program per case (default: 5)")
    parser.add_argument("--dir", default="/var/tmp", help="where everything is written (default: /var/tmp)")
    parser.add_argument("cases", nargs="*", metavar="CASE", default=[], help="default: all of them")
    options = parser.parse_args()
    options.cases = options.cases or list(CASES)
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    return options


def _load() -> str:
    return " ".join(f"{load:.1f}" for load in os.getloadavg())


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
