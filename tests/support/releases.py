"""The tests that only one release of Debian can run: the only list of tests that are skipped."""

import platform

ONLY_ON = {
    **{
        f"tests/e2e/test_bs_service.py::{name}": ("bookworm", "Debian 13 has no obs-server")
        for name in (
            "test_server_run_writes_lock_and_archive",
            "test_last_line_explains_a_missing_network",
            "test_server_does_not_run_buildtime_services",
            "test_server_accepts_all_parameters",
        )
    },
    "tests/test_floor.py::test_the_oldest_libraries_are_good_enough": (
        "bookworm",
        "the libraries of Debian 12 do not run on the Python of Debian 13",
    ),
}
"""The code name of the release and the reason, by the test's name without parameters."""


def reason_to_skip(test: str) -> str | None:
    """Return why a test is not run on this release; None where it is."""
    release, reason = ONLY_ON.get(test.partition("[")[0], ("", ""))
    if not release or platform.freedesktop_os_release().get("VERSION_CODENAME") == release:
        return None
    return f"{reason}; it runs on {release}"
