"""The service scripts and `.service` files, as osc, the OBS server and obs-build use them."""

import re
import subprocess
from pathlib import Path

import pytest
from lxml import etree

from osc_containers.obs.parameters import SERVICES, service_xml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "service").glob("*.service"))
NAMES = ["kiwi_containers", "kiwi_containers_inject"]

# OBS' parsers fail on any other element or order (docs/api/api/service-definition.rng and service.rng in OBS).
_CHILDREN = {
    "service": "(summary )(description )(parameter )*",
    "parameter": "(description )(required )?(allowmultiple )?(allowedvalue )*",
}
_USE_CHILDREN = {"services": "(service )*", "service": "(param )*"}


def _tags(element: etree._Element) -> str:
    return "".join(f"{child.tag!s} " for child in element.iterchildren(etree.Element))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.name))
def test_obs_can_parse_the_service_files(path: Path) -> None:
    root = etree.parse(str(path)).getroot()
    assert (root.tag, dict(root.attrib)) == ("service", {"name": path.stem})
    for element in root.iter(etree.Element):
        children = _tags(element)
        assert re.fullmatch(_CHILDREN.get(str(element.tag), ""), children), element.tag
        assert set(element.attrib) == ({"name"} if element.tag in _CHILDREN else set())


def test_service_files_match_the_declared_parameters() -> None:
    assert {path.name: path.read_text() for path in FILES} == {
        f"{service.name}.service": service_xml(service) for service in SERVICES.values()
    }, "run scripts/service-files"


def test_every_service_has_a_service_file() -> None:
    assert [path.stem for path in FILES] == NAMES
    assert all((ROOT / "service" / name).stat().st_mode & 0o111 for name in NAMES)


@pytest.mark.parametrize("path", ["_service.xml.example", "example/_service"])
def test_examples_use_declared_services_and_parameters(path: str) -> None:
    root = etree.parse(str(ROOT / path)).getroot()
    for element in root.iter(etree.Element):
        children = _tags(element)
        assert re.fullmatch(_USE_CHILDREN.get(str(element.tag), ""), children), element.tag
    assert [(use.get("name"), use.get("mode")) for use in root.iterchildren("service")] == list(
        zip(NAMES, ["manual", "buildtime"], strict=True)
    )
    for use in root.iterchildren("service"):
        declaration = etree.parse(str(ROOT / "service" / f"{use.get('name')}.service")).getroot()
        names = {parameter.get("name") for parameter in declaration.iterchildren("parameter")}
        assert {param.get("name") for param in use.iterchildren("param")} <= names


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_package_cannot_inject_code_into_a_service(installed: Path, tmp_path: Path, name: str) -> None:
    """The modules are those that a service imports before it reads the lock or asks the registry."""
    ours = ("osc_containers", "sitecustomize", "usercustomize")
    for module in (*ours, "argparse", "json", "lxml", "platformdirs", "requests", "rich", "urllib3"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('executed')")
    (tmp_path / "a.kiwi").write_text(
        '<image schemaversion="8.0" name="x"><containers source="127.0.0.1:1" backend="podman">'
        '<container name="app"/></containers></image>'
    )
    command = [str(installed / "lib/obs/service" / name), "--outdir", str(tmp_path)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "executed" not in done.stderr
    assert {"kiwi_containers": "connection refused", "kiwi_containers_inject": "containers.lock: "}[name] in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_service_without_its_library_prints_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes((ROOT / "service" / name).read_bytes())
    done = subprocess.run(["/usr/bin/python3", "-I", tmp_path / name], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(rf"{name}: No module named 'osc_containers'; install osc-containers.*\n", done.stderr)


@pytest.mark.parametrize("name", NAMES)
def test_service_accepts_the_declared_parameters(installed: Path, name: str) -> None:
    command = [str(installed / "lib/obs/service" / name), "--help"]
    help_text = subprocess.run(command, capture_output=True, text=True).stdout
    parameters = etree.parse(str(ROOT / "service" / f"{name}.service")).getroot().iterchildren("parameter")
    assert ",," not in help_text
    assert set(re.findall(r"--([a-z]+)", help_text)) - {"help", "outdir"} == {item.get("name") for item in parameters}


def test_readme_lists_the_existing_commands(installed: Path) -> None:
    done = subprocess.run([installed / "bin/osc-containers", "--help"], check=True, capture_output=True, text=True)
    section = (ROOT / "README.md").read_text().partition("## Commands\n")[2].partition("\n#")[0]
    commands = re.findall(r"^    ([a-z]+)(?: |$)", done.stdout, re.MULTILINE)
    assert re.findall(r"^\| `([a-z]+)`", section, re.MULTILINE) == commands
