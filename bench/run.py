#!/usr/bin/env python3
"""Compare us with skopeo on this machine; `make bench` runs it, bench/README.md explains it."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench import machine, page, report
from bench.cases import CASES, Case
from bench.limits import limit_of
from bench.workshop import Installed, install, open_workshop


def main() -> int:
    """Run the cases; the status says whether all targets are met."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="osc-containers-bench-", dir=options.dir) as name:
        installed = install(Path(name, "installed"))
        if options.serve:
            return _serve(CASES[options.serve], Path(name), installed)
        return _run(options.cases, options.pairs, Path(name), installed, is_update=options.update)


def _run(names: Sequence[str], pairs: int, directory: Path, installed: Installed, *, is_update: bool) -> int:
    verdicts: list[str] = []
    noisy: list[str] = []
    lines: list[str] = []
    cases: dict[str, Any] = {}

    def say(*texts: str) -> None:
        lines.extend(texts)
        print(*texts, sep="\n", flush=True)

    rates = machine.measure_rates(directory)
    say(f"{machine.describe()}; load {_load()}", str(rates), "", report.heads())
    for name in names:
        case = CASES[name]
        with open_workshop(directory, installed) as workshop:
            samples = case.run(case, workshop, pairs, partial(_progress, name))
        _progress()
        limit = limit_of(samples, rates, case.link_rate) if case.rival else None
        say(*report.rows(name, samples, limit))
        cases[name] = page.figures_of(name, samples, limit)
        verdicts += report.verdicts(case, name, samples, limit)
        noisy += [name] if report.is_noisy(samples) else []
    say("", *verdicts)
    if noisy:
        say("", f"Doubtful, others kept more than {report.NOISE} cores busy: {', '.join(noisy)}; load {_load()}")
    if is_update:
        page.update({"machine": machine.describe(), "pairs": pairs, "cases": cases}, lines)
    return int(any(line.startswith("FAIL") for line in verdicts))


def _serve(case: Case, directory: Path, installed: Installed) -> int:
    """Let somebody else, a profiler say, run what a case runs."""
    with open_workshop(directory, installed) as workshop, case.link(workshop.host) as link:
        package = directory / "package"
        workshop.make_package(link.host if link else workshop.host, workshop.push(case.images()), package)
        print(f"{machine.PYTHON} -I {installed.program} prefetch --arch x86_64 {package}", flush=True)
        sys.stdin.read()
    return 0


def _options() -> argparse.Namespace:
    names = "\n".join(f"  {name:<17} {case.title}" for name, case in CASES.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"cases:\n{names}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5, help="runs of each program per case (default: 5)")
    parser.add_argument("--dir", default="/var/tmp", help="where everything is written (default: /var/tmp)")
    parser.add_argument(
        "--update", action="store_true", help="write figures, plot and table of the page; needs all cases"
    )
    parser.add_argument("--serve", metavar="CASE", choices=CASES, help="print a command of the case to run; end by ^D")
    parser.add_argument("cases", nargs="*", metavar="CASE", default=[], help="default: all of them")
    options = parser.parse_args()
    if options.update and options.cases:
        parser.error("--update shows one run of all cases; name none")
    options.cases = options.cases or list(CASES)
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    return options


def _load() -> str:
    return " ".join(f"{load:.1f}" for load in os.getloadavg())


def _progress(*words: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{' '.join(words)}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
