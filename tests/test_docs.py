"""The pages of the documentation: their links, and the commands that they mention."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), ROOT / "bench/README.md"]
PICTURES = ["init.svg", "update.svg"]
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"\bosc[ -]containers ([a-z]+)((?: +--?[a-z][a-z-]*)*)")
_TARGET = re.compile(r"\bmake ([a-z]+)\b")

over_pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code(page: Path) -> str:
    """Return what a page shows as code: indented blocks and `spans`."""
    text = page.read_text()
    blocks = re.findall(r"^(?: {4}|\t).*$", text, re.MULTILINE)
    return "\n".join([*blocks, *re.findall(r"`([^`]+)`", text)])


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub and Gitea make for the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def help_of(*command: str) -> str:
    run = [sys.executable, str(ROOT / "scripts/osc-containers"), *command, "--help"]
    return subprocess.run(run, check=True, capture_output=True, text=True).stdout


@over_pages
def test_relative_links_lead_to_a_file_and_its_heading(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@over_pages
def test_commands_and_their_options_exist(page: Path) -> None:
    there = set(re.findall(r"^    ([a-z]+)(?: |$)", help_of(), re.MULTILINE))
    for name, options in _COMMAND.findall(code(page)):
        assert name in there
        known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", help_of(name)))
        assert set(options.split()) <= known, f"{name}{options}"


@over_pages
def test_targets_of_make_exist(page: Path) -> None:
    there = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(_TARGET.findall(code(page))) <= there


def test_the_map_of_the_folders_is_complete() -> None:
    """Every file that CONTRIBUTING.md points to exists, and every folder of the library is in it."""
    spans = set(re.findall(r"`([^`\s]+)`", (ROOT / "CONTRIBUTING.md").read_text()))
    paths = {span for span in spans if re.fullmatch(r"[a-z_./]+/|[a-z_./]+/[a-z_]+\.(py|sh)", span)}
    missing = {path for path in paths if not any((base / path).exists() for base in (ROOT, ROOT / "osc_containers"))}
    # Runs create build/.
    assert missing <= {"build/"}
    folders = {path.parent for path in (ROOT / "osc_containers").rglob("__init__.py")} - {ROOT / "osc_containers"}
    assert {f"{folder.relative_to(ROOT / 'osc_containers')}/" for folder in folders} <= paths


@pytest.mark.parametrize("name", [*PICTURES, "flow.svg", "../bench/speed.svg"])
def test_a_picture_needs_no_network_and_shows_no_path(name: str) -> None:
    text = (ROOT / "docs" / name).read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|url\((?!#)|/home/|/root/|/tmp/|127\.0\.0\.1", text)


@pytest.mark.integration
def test_terminal_pictures_show_what_the_programs_print(tmp_path: Path) -> None:
    """Compare the texts alone: drawing depends on the version of Rich."""
    subprocess.run([sys.executable, ROOT / "scripts/pictures", tmp_path], check=True)
    for name in PICTURES:
        assert shown(ROOT / "docs" / name) == shown(tmp_path / name), "run 'make pictures'"


def shown(picture: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture.read_text())
