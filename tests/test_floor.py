"""The tests of what we build on pass with the libraries of the distribution, which our packages use.

Debian 12's are the oldest that we allow: the lower bounds of `install_requires` in setup.cfg. A distribution patches
its libraries, so the same versions from PyPI would not show the same.
"""

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.e2e.debs import ROOT

pytestmark = pytest.mark.integration

_PACKAGES = Path("/usr/lib/python3/dist-packages")
_LIBRARIES = (
    *("requests", "urllib3", "six.py", "chardet", "charset_normalizer", "idna", "certifi"),
    *("lxml", "platformdirs", "rich"),
)
_TESTS = (
    *("registry/test_session.py", "registry/test_client.py", "registry/test_reach.py", "registry/test_authorities.py"),
    *("formats/test_xml_reader.py", "kiwi/test_description.py", "kiwi/test_split.py", "obs/test_service_file.py"),
    "test_hostile.py",
)


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory with Debian's libraries, and with nothing else of its Python."""
    directory = tmp_path_factory.mktemp("libraries")
    for path in [_PACKAGES / name for name in _LIBRARIES]:
        if path.exists():  # Debian 13 has no six, for example.
            (directory / path.name).symlink_to(path)
    return directory


def run(libraries: Path, *arguments: str) -> str:
    """Run this Python with Debian's libraries, and return what it prints."""
    # Plug-ins of pytest that are installed may be parts of the newer libraries.
    environment = os.environ | {"PYTHONPATH": str(libraries), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("tests", _TESTS)
def test_the_libraries_of_the_distribution_are_good_enough(libraries: Path, tests: str) -> None:
    run(libraries, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", f"tests/{tests}")


def test_debian_12_has_the_oldest_libraries_that_we_allow(libraries: Path) -> None:
    configuration = configparser.ConfigParser()
    configuration.read(ROOT / "setup.cfg")
    requirements = re.findall(r"^(\S+) >= (\S+)$", configuration["options"]["install_requires"], re.MULTILINE)
    script = "import sys\nfrom importlib.metadata import version\nprint(*map(version, sys.argv[1:]))"
    command = ["/usr/bin/python3", "-c", script, *(name for name, _ in requirements)]
    versions = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    oldest = [version for _, version in requirements]
    assert [version[: len(bound)] for version, bound in zip(versions, oldest, strict=True)] == oldest
    imported = run(libraries, "-c", "import requests, urllib3, lxml; print(*requests.__path__, *lxml.__path__)")
    assert imported.split() == [str(libraries / "requests"), str(libraries / "lxml")]
