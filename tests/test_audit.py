"""What `make check` says of known vulnerabilities; a stand-in answers in place of pip-audit."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

AUDIT = Path(__file__).resolve().parent.parent / "scripts/audit"
GOOD = {"name": "rich", "version": "1", "vulns": []}
BAD = {"name": "Platformdirs", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1", "3.0"]}]}
FOREIGN = BAD | {"name": "pytest"}
UNKNOWN = {"name": "urllib3", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("audited", "status", "expected"),
    [
        ([GOOD, FOREIGN], 0, ["audit: 1 packages, 0 vulnerabilities, 0 could not be asked for"]),
        ([GOOD, UNKNOWN], 0, ["audit: 2 packages, 0 vulnerabilities, 1 could not be asked for"]),
        (
            [BAD],
            1,
            [
                "audit: Platformdirs 2.0: PYSEC-1; mended in 2.1, 3.0",
                "audit: 1 packages, 1 vulnerabilities, 0 could not be asked for",
            ],
        ),
        (None, 0, ["audit: nobody was reached who knows vulnerabilities: no network"]),
    ],
)
def test_it_fails_for_what_is_known_alone(
    tmp_path: Path, audited: Sequence[object] | None, status: int, expected: Sequence[str]
) -> None:
    answer = (
        "import sys; sys.exit('no network')" if audited is None else f"print({json.dumps({'dependencies': audited})!r})"
    )
    (tmp_path / "pip_audit.py").write_text(answer)
    done = subprocess.run(
        [sys.executable, str(AUDIT)], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (status, expected, "")
