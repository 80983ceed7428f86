"""The tests of what we build on pass with the oldest versions that we allow, which are those of Debian 12.

The versions are the lower bounds of `install_requires` in setup.cfg.
"""

import configparser
import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from tests.support.e2e.debs import ROOT, once, run

pytestmark = pytest.mark.integration

_TESTS = (
    *("registry/test_session.py", "registry/test_client.py", "registry/test_reach.py"),
    *("formats/test_xml_reader.py", "kiwi/test_description.py", "kiwi/test_split.py", "obs/test_service_file.py"),
    "test_hostile.py",
)


@pytest.fixture(scope="session")
def floor() -> Path:
    """Give a directory with the oldest libraries that we allow, and with what they need."""
    configuration = configparser.ConfigParser()
    configuration.read(ROOT / "setup.cfg")
    requirements = configuration["options"]["install_requires"].split("\n")
    oldest = [requirement.replace(" ", "").replace(">=", "==") for requirement in requirements if requirement]
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:")
    directory = once("floor", lambda directory: run(*pip, "--target", directory, *oldest), sys.version, *oldest)
    versions = {each.name.lower(): each.version for each in distributions(path=[str(directory)])}
    for requirement in oldest:
        name, _, version = requirement.partition("==")
        assert f"{versions[name]}.".startswith(f"{version}.")
    return directory


@pytest.mark.parametrize("tests", _TESTS)
def test_the_oldest_libraries_are_good_enough(floor: Path, tests: str) -> None:
    # Plug-ins of pytest that are installed may be parts of the newer libraries.
    environment = os.environ | {"PYTHONPATH": str(floor), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", f"tests/{tests}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
