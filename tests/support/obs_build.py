"""How obs-build reads a description."""

import os
import subprocess
from pathlib import Path


def obs_builds() -> list[str]:
    """Return the directories of obs-build: Debian's, and the one in `OBS_BUILD`, if any."""
    return list(filter(None, ["/usr/lib/obs-build", os.environ.get("OBS_BUILD")]))


def dependencies(obs_build: str, path: Path) -> list[str]:
    """Return the build dependencies that obs-build reads from a description."""
    script = "my $r = Build::Kiwi::parse({arch => 'x86_64'}, $ARGV[0]); print map {qq{$_\\n}} @{$r->{deps}}"
    command = ["perl", f"-I{obs_build}", "-MBuild", "-MBuild::Kiwi", "-e", script, str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
