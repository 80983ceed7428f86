"""The report of known vulnerabilities, with a stub in place of pip-audit."""

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
    ("packages", "status", "expected"),
    [
        ([GOOD, FOREIGN], 0, ["audit: 1 packages, 0 vulnerabilities, 0 not in the database"]),
        ([GOOD, UNKNOWN], 0, ["audit: 2 packages, 0 vulnerabilities, 1 not in the database"]),
        (
            [BAD],
            1,
            [
                "audit: Platformdirs 2.0: PYSEC-1; fixed in 2.1, 3.0",
                "audit: 1 packages, 1 vulnerabilities, 0 not in the database",
            ],
        ),
        (None, 0, ["audit: cannot reach the vulnerability database: no network"]),
    ],
)
def test_audit_fails_only_for_known_vulnerabilities(
    tmp_path: Path, packages: Sequence[object] | None, status: int, expected: Sequence[str]
) -> None:
    answer = (
        "import sys; sys.exit('no network')"
        if packages is None
        else f"print({json.dumps({'dependencies': packages})!r})"
    )
    (tmp_path / "pip_audit.py").write_text(answer)
    done = subprocess.run(
        [sys.executable, str(AUDIT)], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (status, expected, "")
