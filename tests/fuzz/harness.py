"""Fuzz one target: `python -m tests.fuzz.harness TARGET [option of libFuzzer…] [corpus…]`."""

import sys

import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

with atheris.instrument_imports(include=["osc_containers"]):
    from tests.fuzz import targets

if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, targets.TARGETS[name])
    atheris.Fuzz()
