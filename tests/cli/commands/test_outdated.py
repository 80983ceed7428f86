"""The command `outdated`, with a real registry, and `diff` after the update."""

import json
import shutil
from pathlib import Path

import pytest

from osc_containers.cli.main import main
from osc_containers.formats.human import size
from tests.support import images
from tests.support.docker_registry import DockerRegistry
from tests.support.prefetch_run import LAYOUTS


@pytest.mark.integration
@pytest.mark.parametrize("layout", LAYOUTS)
def test_outdated_fetches_no_layers_and_changes_nothing(
    docker_registry: DockerRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str
) -> None:
    base = images.random_layer("base", 100_000)
    old, new = (images.image(base, images.random_layer(name, 50_000)) for name in ("old", "new"))
    docker_registry.push(old, "outdated/moving:1")
    docker_registry.push(images.small("staying"), "outdated/staying:1")
    (tmp_path / "a.kiwi").write_text(
        f"<image><containers source='{docker_registry.host}/outdated' backend='podman'>"
        "<container name='moving' tag='1'/><container name='staying' tag='1'/></containers></image>"
    )
    prefetch = ["prefetch", "--arch", "x86_64", "--layout", layout, str(tmp_path)]
    assert main(prefetch) == 0
    capsys.readouterr()
    assert main(["outdated", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "All 2 images are up to date\n"
    docker_registry.push(new, "outdated/moving:1")
    files, request_count = sorted(tmp_path.iterdir()), len(docker_registry.requests())
    assert main(["outdated", str(tmp_path)]) == 1
    fetch_size = len(new.raw) + len(new.blobs[0]) + len(new.blobs[2])
    dates = f"{old.digest.short}  1970-01-01  {new.digest.short}  1970-01-01"
    table = (
        "  ARCH    OLD           CREATED     NEW           CREATED     LAYERS          TO FETCH\n"
        f"{docker_registry.host}/outdated/moving:1\n"
        f"  x86_64  {dates}  1 kept, +1, -1  {size(fetch_size):>8}\n"
    )
    assert capsys.readouterr().out == f"{table}\n{size(fetch_size)} to fetch\n"
    blobs = [request for request in docker_registry.requests()[request_count:] if request.is_blob]
    assert [request.written for request in blobs] == [len(new.blobs[0])]
    assert sorted(tmp_path.iterdir()) == files
    assert main(["outdated", "--format", "json", str(tmp_path)]) == 1
    (change,) = json.loads(capsys.readouterr().out)
    assert change["architectures"]["x86_64"]["fetch"] == fetch_size
    shutil.copy(tmp_path / "containers.lock", tmp_path / "old")
    assert main(prefetch) == 0
    capsys.readouterr()
    assert main(["diff", "--directory", str(tmp_path), str(tmp_path / "old")]) == 1
    assert capsys.readouterr().out == table
