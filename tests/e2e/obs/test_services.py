"""The services, run by the source service server of OBS after a commit."""

from pathlib import Path

import pytest
from lxml import etree

from osc_containers.lock import lockfile
from osc_containers.obs import service_editor
from osc_containers.obs.parameters import PREFETCH, SERVICES
from tests.support.e2e.obs import scene
from tests.support.e2e.obs.project import Project

pytestmark = pytest.mark.integration

_RESULT = "_service:kiwi_containers:"


def write_service(package: Path, **parameters: str) -> None:
    """Write a `_service` with the prefetch without a mode, so that the server runs it."""
    params = "".join(f'<param name="{name}">{value}</param>' for name, value in parameters.items())
    (package / "_service").write_text(
        f'<services><service name="kiwi_containers">{params}</service>'
        '<service name="kiwi_containers_inject" mode="buildtime"/></services>\n'
    )


def listed(project: Project, name: str) -> dict[str, str]:
    """Return the files of a package with those that services made: the MD5 of each, or an error."""
    answer = project.backend.osc("api", f"/source/{project.name}/{name}?expand=1", check=False).stdout
    if "<directory" not in answer:
        return {"error": answer}
    return {entry.get("name", ""): entry.get("md5", "") for entry in etree.fromstring(answer).iter("entry")}


def test_server_run_writes_lock_and_archives(project: Project) -> None:
    package = project.make_package("server")
    parameters = SERVICES[PREFETCH].parameters.values()
    values = {each.name: each.choices[0] for each in parameters if each.choices} | {"connections": "2"}
    values |= {"arch": "x86_64", "description": "appliance.kiwi", "profile": "main"}
    write_service(package, **values)
    scene.commit(project.backend, package)
    made = {name.removeprefix(_RESULT) for name in listed(project, "server") if name.startswith(_RESULT)}
    text = project.backend.osc("cat", project.name, "server", f"{_RESULT}containers.lock", "--expand").stdout
    archives = lockfile.loads(text).archive_names().values()
    assert made == {"containers.lock", *archives}
    unused = {each.name for each in parameters} - values.keys()
    assert unused == {"policy"}, "all others are accepted"


def test_last_line_explains_why_a_prefetch_failed(project: Project) -> None:
    package = project.make_package("offline")
    text = (package / "appliance.kiwi").read_text()
    (package / "appliance.kiwi").write_text(text.replace("127.0.0.1:5000", "127.0.0.1:1"))
    write_service(package, arch="x86_64")
    scene.commit(project.backend, package)
    reason = project.results("offline", "broken", "unresolvable", "scheduled")
    assert reason.startswith("broken: service error: kiwi_containers: error: appliance.kiwi:")
    assert "127.0.0.1:1" in reason
    assert "Traceback" not in reason


def test_server_refuses_unknown_parameters(project: Project) -> None:
    package = project.make_package("unknown")
    write_service(package, unheard="of")
    scene.commit(project.backend, package)
    assert "is not defined" in project.results("unknown", "broken", "unresolvable", "scheduled")


def test_old_server_runs_what_is_manual_and_check_says_so(project: Project) -> None:
    package = project.make_package("manual")
    project.backend.osc("containers", "init", directory=package)
    text = (package / "containers.xml").read_text()
    (package / "containers.xml").write_text(text.replace("127.0.0.1:5000", "127.0.0.1:1"))
    scene.commit(project.backend, package)
    found = project.backend.osc("containers", "check", directory=package, check=False).stdout
    assert "do not know the mode 'manual', and would run" in found
    assert '<service name="kiwi_containers" mode="disabled"/>' in found


def test_server_runs_nothing_that_is_disabled(project: Project) -> None:
    package = project.make_package("disabled")
    project.init(package)
    assert not [name for name in listed(project, "disabled") if name.startswith("_service:")]


def test_current_server_runs_nothing_that_init_writes() -> None:
    """With these modes, a current server starts no run (BSSrcServer/Service.pm, genservicemark)."""
    for mode in ("manual", "disabled"):
        document = etree.fromstring(service_editor.add_our_services(None, mode=mode))
        assert [service.get("mode") for service in document.iterchildren("service")] == [mode, "buildtime"]
