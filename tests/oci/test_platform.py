"""Architectures of kiwi and variants of images come together as they do in kiwi's skopeo."""

import json
import subprocess
from pathlib import Path

import pytest

from osc_containers.oci import platform as platforms
from osc_containers.oci.platform import Platform
from tests.support import images
from tests.support.messages import exactly

# The pattern of `arch-name` in kiwi's schema (kiwi/schema/kiwi.rnc; 10.3 and 11 agree).
_ARCH_NAME = (
    "x86_64|i586|i686|ix86|aarch64|arm64|amd64|armv5el|armv5tel|armv6hl|armv6l|armv7hl|armv7l"
    "|ppc|ppc64|ppc64le|s390|s390x|riscv64"
)
KIWI = _ARCH_NAME.split("|")

V5, V6, V7 = (Platform("linux", "arm", variant) for variant in ("v5", "v6", "v7"))
ARM64 = Platform("linux", "arm64", "v8")
AMD64 = Platform("linux", "amd64")


def test_every_architecture_of_kiwi_has_a_platform() -> None:
    assert sorted(platforms.ARCHITECTURES) == sorted(KIWI)
    assert {str(platforms.of_architecture(arch)) for arch in KIWI} == {
        *("linux/amd64", "linux/386", "linux/arm64/v8", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7"),
        *("linux/ppc", "linux/ppc64", "linux/ppc64le", "linux/s390", "linux/s390x", "linux/riscv64"),
    }


@pytest.mark.parametrize("names", [("x86_64", "amd64"), ("aarch64", "arm64"), ("armv7l", "armv7hl"), ("i586", "ix86")])
def test_synonyms_are_one_platform(names: tuple[str, str]) -> None:
    first, second = map(platforms.of_architecture, names)
    assert first == second


@pytest.mark.parametrize("arch", ["", "X86_64", "sparc", "x86_64 ", "a\n" * 99])
def test_an_unknown_architecture_is_said(arch: str) -> None:
    known = ", ".join(platforms.ARCHITECTURES)
    with pytest.raises(ValueError, match=exactly(f"unknown architecture {arch[:80]!r}, expected one of {known}")):
        platforms.of_architecture(arch)


def takes(wanted: Platform) -> list[str]:
    """Return the variants that are taken for a platform, best first."""
    ranks = {variant: platforms.rank(wanted, Platform("linux", wanted.architecture, variant)) for variant in VARIANTS}
    return [variant for _, variant in sorted((rank, variant) for variant, rank in ranks.items() if rank is not None)]


VARIANTS = ("", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "V8", "8")


@pytest.mark.parametrize(
    ("wanted", "variants"),
    [
        (V5, ["v5", ""]),
        (V6, ["v6", "v5", ""]),
        (V7, ["v7", "v6", "v5", ""]),
        (ARM64, ["v8", ""]),
        (AMD64, ["", "v1"]),
        (Platform("linux", "riscv64"), [""]),
    ],
    ids=str,
)
def test_a_platform_takes_what_it_can_run(wanted: Platform, variants: list[str]) -> None:
    assert takes(wanted) == variants


@pytest.mark.parametrize(
    "offered",
    [Platform("windows", "amd64"), Platform("", "amd64"), Platform("linux", "386"), Platform("linux", ""), ARM64],
    ids=str,
)
def test_another_system_or_architecture_is_never_taken(offered: Platform) -> None:
    assert platforms.rank(AMD64, offered) is None


@pytest.mark.parametrize(
    ("platform", "text"),
    [(AMD64, "linux/amd64"), (V7, "linux/arm/v7"), (Platform("", "arm"), "arm"), (Platform("", ""), "no platform")],
)
def test_a_platform_is_written_as_engines_do(platform: Platform, text: str) -> None:
    assert str(platform) == text


@pytest.mark.integration
@pytest.mark.parametrize("wanted", [V5, V6, V7, ARM64], ids=str)
def test_skopeo_takes_the_same_variants_in_the_same_order(tmp_path: Path, wanted: Platform) -> None:
    left = [Platform("linux", wanted.architecture, variant) for variant in ("", "v5", "v6", "v7", "v8")]
    order = []
    while (chosen := skopeo_takes(wanted, left, tmp_path / str(len(left)))) is not None:
        order.append(chosen)
        left.remove(Platform("linux", wanted.architecture, chosen))
    assert order == takes(wanted)


def skopeo_takes(wanted: Platform, offered: list[Platform], directory: Path) -> str | None:
    """Return the variant that skopeo chooses from an index, None where it finds none that fits."""
    images.write_layout(images.index(*(images.small("x", platform=platform) for platform in offered)), directory, "x")
    command = ["skopeo", "--override-os=linux", f"--override-arch={wanted.architecture}"]
    command += [f"--override-variant={wanted.variant}", "inspect", "--config", "--raw", f"oci:{directory}:x"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        assert "no image found" in done.stderr
        return None
    return str(json.loads(done.stdout).get("variant", ""))
