"""What obs-build tells about the build, and what it does not."""

from pathlib import Path

import pytest

from osc_containers.obs import build_root

_URL = "obs://build.opensuse.org/home:ann:images/standard/0123456789abcdef0123456789abcdef-"


@pytest.mark.parametrize(
    ("environment", "data", "expected"),
    [
        (None, None, ""),
        ("BUILD_INCARNATION=0\n", None, ""),
        (f"BUILD_DISTURL='{_URL}appliance'\n", None, ""),
        (f"BUILD_INCARNATION=0\nBUILD_DISTURL='{_URL}appliance:kvm_x.1+2'\nX='y'\n", None, "kvm_x.1+2"),
        (f"BUILD_DISTURL='{_URL}_product:release'\n", None, ""),
        (f"BUILD_DISTURL='{_URL}appliance:../../x'\n", None, ""),
        (f"BUILD_DISTURL='{_URL}appliance:a'\\''b'\n", None, ""),
        ("", "RECIPEFILE='x'\nBUILD_FLAVOR='kvm'\nOBS_PACKAGE='x'\n", "kvm"),
        ("", "BUILD_FLAVOR=''\n", ""),
        ("", "\xff\0", ""),
    ],
)
def test_the_flavor_is_what_obs_build_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: str | None, data: str | None, expected: str
) -> None:
    for attribute, text in (("_ENVIRONMENT", environment), ("_DATA", data)):
        path = tmp_path / attribute
        monkeypatch.setattr(build_root, attribute, path)
        if text is not None:
            path.write_text(text, encoding="latin-1")
    assert build_root.flavor() == expected
