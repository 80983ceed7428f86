"""The tests that only one release of Debian can run: the only list of tests that are skipped."""

import platform

ONLY_ON = {
    "tests/e2e/obs/": ("bookworm", "Debian 13 has no obs-server"),
    "tests/test_floor.py::test_debian_12_has_the_oldest_libraries_that_we_allow": (
        "bookworm",
        "Debian 13 has newer libraries",
    ),
}
"""The code name of the release and the reason, by the test's name without parameters, or by a folder of tests."""


def reason_to_skip(test: str) -> str | None:
    """Return why a test is not run on this release; None where it is."""
    name = test.partition("[")[0]
    folder = f"{name.partition('::')[0].rpartition('/')[0]}/"
    release, reason = ONLY_ON.get(name) or ONLY_ON.get(folder, ("", ""))
    if not release or platform.freedesktop_os_release().get("VERSION_CODENAME") == release:
        return None
    return f"{reason}; it runs on {release}"
