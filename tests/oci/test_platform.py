"""Architectures of kiwi are matched with variants of images in the same way as by skopeo, which kiwi uses."""

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
def test_synonyms_have_the_same_platform(names: tuple[str, str]) -> None:
    first, second = map(platforms.of_architecture, names)
    assert first == second


@pytest.mark.parametrize("arch", ["", "X86_64", "sparc", "x86_64 ", "a\n" * 99])
def test_an_unknown_architecture_is_an_error(arch: str) -> None:
    names = ", ".join(platforms.ARCHITECTURES)
    with pytest.raises(ValueError, match=exactly(f"unknown architecture {arch[:80]!r}, expected one of {names}")):
        platforms.of_architecture(arch)


def compatible_variants(target: Platform) -> list[str]:
    """Return the variants that a platform can run, best first."""
    ranks = {variant: platforms.rank(target, Platform("linux", target.architecture, variant)) for variant in VARIANTS}
    return [variant for _, variant in sorted((rank, variant) for variant, rank in ranks.items() if rank is not None)]


VARIANTS = ("", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "V8", "8")


@pytest.mark.parametrize(
    ("target", "variants"),
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
def test_the_variants_of_a_platform_are_ranked(target: Platform, variants: list[str]) -> None:
    assert compatible_variants(target) == variants


@pytest.mark.parametrize(
    "candidate",
    [Platform("windows", "amd64"), Platform("", "amd64"), Platform("linux", "386"), Platform("linux", ""), ARM64],
    ids=str,
)
def test_another_system_or_architecture_never_fits(candidate: Platform) -> None:
    assert platforms.rank(AMD64, candidate) is None


NOTHING = Platform("", "")


@pytest.mark.parametrize(
    ("target", "config", "listed", "warning"),
    [
        (AMD64, AMD64, None, ""),
        (V7, Platform("linux", "arm"), None, ""),
        (AMD64, NOTHING, AMD64, ""),
        (V7, Platform("linux", ""), V7, ""),
        (AMD64, NOTHING, None, "its config names no platform; taken for linux/amd64, as engines do"),
        (AMD64, NOTHING, NOTHING, "its config names no platform; taken for linux/amd64, as engines do"),
        (AMD64, Platform("", "amd64"), None, "its config names no operating system; taken for linux/amd64"),
        (AMD64, Platform("linux", ""), None, "its config names no architecture; taken for linux/amd64"),
        (AMD64, Platform("linux", "x86_64"), None, "its config is for linux/x86_64; taken for linux/amd64"),
        (ARM64, Platform("linux", "aarch64"), None, "its config is for linux/aarch64; taken for linux/arm64/v8"),
        (AMD64, ARM64, AMD64, "its config is for linux/arm64/v8, but its index lists it for linux/amd64; taken"),
        (AMD64, Platform("", "arm64"), AMD64, "its config is for arm64, but its index lists it for linux/amd64; taken"),
        (V6, V7, V5, "its config is for linux/arm/v7, but its index lists it for linux/arm/v5; taken"),
    ],
)
def test_a_config_without_platform_or_with_another_is_taken(
    target: Platform, config: Platform, listed: Platform | None, warning: str
) -> None:
    found = platforms.check_config(target, config, listed=listed, is_chosen=False)
    assert found.startswith(warning)
    assert bool(found) == bool(warning)


@pytest.mark.parametrize(
    ("config", "listed", "is_chosen"),
    [
        (ARM64, None, False),
        (ARM64, None, True),
        (ARM64, NOTHING, False),
        (Platform("windows", ""), None, False),
        (Platform("", "arm64"), None, True),
        (Platform("linux", "amd64", "v3"), None, False),
        (Platform("windows", "amd64"), None, True),
    ],
)
def test_a_config_for_another_platform_alone_is_refused(
    config: Platform, listed: Platform | None, is_chosen: bool
) -> None:
    with pytest.raises(ValueError, match=exactly(f"it is for {config} only")):
        platforms.check_config(AMD64, config, listed=listed, is_chosen=is_chosen)


@pytest.mark.parametrize(
    ("platform", "text"),
    [(AMD64, "linux/amd64"), (V7, "linux/arm/v7"), (Platform("", "arm"), "arm"), (Platform("", ""), "no platform")],
)
def test_a_platform_is_formatted_as_by_engines(platform: Platform, text: str) -> None:
    assert str(platform) == text


@pytest.mark.integration
@pytest.mark.parametrize("target", [V5, V6, V7, ARM64], ids=str)
def test_skopeo_has_the_same_order_of_variants(tmp_path: Path, target: Platform) -> None:
    remaining = [Platform("linux", target.architecture, variant) for variant in ("", "v5", "v6", "v7", "v8")]
    order = []
    while (variant := skopeo_choice(target, remaining, tmp_path / str(len(remaining)))) is not None:
        order.append(variant)
        remaining.remove(Platform("linux", target.architecture, variant))
    assert order == compatible_variants(target)


def skopeo_choice(target: Platform, candidates: list[Platform], directory: Path) -> str | None:
    """Return the variant that skopeo chooses from an index, or None if none fits."""
    images.write_layout(
        images.index(*(images.small("x", platform=platform) for platform in candidates)), directory, "x"
    )
    command = ["skopeo", "--override-os=linux", f"--override-arch={target.architecture}"]
    command += [f"--override-variant={target.variant}", "inspect", "--config", "--raw", f"oci:{directory}:x"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        assert "no image found" in result.stderr
        return None
    return str(json.loads(result.stdout).get("variant", ""))
