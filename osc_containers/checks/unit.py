"""A packager's unit or quadlet: which images it runs, with which engine, and after which other units."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from osc_containers.formats.unit_file import Assignment
from osc_containers.kiwi.backend import NAMESPACE

# The program may have a path before it, but is a whole word: no other program that ends in "podman" matches.
_PULLS = re.compile(r"(?<![^\s/])(?:podman|docker)\s+(?:image\s+)?pull\s|--pull[= ]always")
_CONTAINERD_CLIENT = re.compile(r"(?<![^\s/])(?:ctr|nerdctl)(?=\s)")
_PULL_COMMAND = re.compile(r"\spull\s")
_SHOWN = 200
"""Characters of a command in a message."""
_CLIENTS = re.compile(r"\b(podman|docker|ctr|nerdctl)\b")
_NAMESPACE = re.compile(r"\s(?:-n|--namespace)[= ]\s*[\"']?([\w.-]+)")
# A unit goes on if a command with the prefix `-` fails; other prefixes may come before it (systemd.service(5)).
_IGNORES_FAILURE = re.compile(r"[@:+!|]*-")
# Mount=type=image,source=IMAGE,… in a quadlet, with the options in any order.
_MOUNTED = re.compile(r"(?:^|,)type=image(?:,|$)")
_SOURCE = re.compile(r"(?:^|,)(?:source|src)=([^,]+)")
# Not a parser of YAML: PyYAML is required for signatures only, and these lines are enough here.
_YAML_IMAGE = re.compile(r"^[ \t-]*image:\s*[\"']?([^\s\"'#]+)", re.MULTILINE)


class Unit(NamedTuple):
    """A unit or quadlet; `location` is its path in the package, `path` that in the image."""

    location: str
    path: PurePosixPath
    assignments: tuple[Assignment, ...]
    yaml: str = ""

    @property
    def service(self) -> str:
        """The name of the service, which podman makes of the name of a quadlet."""
        suffix = {".image": "-image", ".volume": "-volume"}.get(self.path.suffix, "")
        return self.path.name if self.path.suffix == ".service" else f"{self.path.stem}{suffix}.service"

    def values(self, *keys: str) -> frozenset[str]:
        """Return the words of all assignments of these keys in the section [Unit]."""
        return frozenset(
            word
            for each in self.assignments
            if each.section == "Unit" and each.key in keys
            for word in each.value.split()
        )

    def images(self) -> Iterator[tuple[str, int]]:
        """Yield what may be the name of an image, with its line."""
        for each in self.assignments:
            if self.path.suffix != ".service" and each.key == "Image":
                yield each.value, each.line
            elif each.key == "Mount" and _MOUNTED.search(each.value) and (match := _SOURCE.search(each.value)):
                yield match[1], each.line
            elif each.key.startswith("Exec") and _CLIENTS.search(each.value):
                # Which word is the image depends on the options before it. The others name no image of the package.
                yield from ((word.strip("\"'"), each.line) for word in each.value.split())
        line = next((each.line for each in self.assignments if each.key == "Yaml"), 0)
        yield from ((match[1], line) for match in _YAML_IMAGE.finditer(self.yaml))

    @property
    def target(self) -> str:
        """The engine that runs the unit's containers, as in `obs.engines`."""
        if self.path.suffix != ".service":
            return "podman"
        commands = [each.value for each in self.assignments if each.key.startswith("Exec")]
        clients = {client for command in commands for client in _CLIENTS.findall(command)}
        if not clients.isdisjoint({"ctr", "nerdctl"}):
            # Both clients use the namespace `default` unless an option names another.
            namespace = next((match[1] for match in map(_NAMESPACE.search, commands) if match), "default")
            return "containerd" if namespace == NAMESPACE else f"containerd:{namespace}"
        return "docker" if "docker" in clients else "podman"

    @property
    def pulls(self) -> str:
        """What makes the unit ask a registry although it has the image, or an empty string."""
        if self.path.suffix == ".image":
            return "an .image unit"
        for each in self.assignments:
            if self.path.suffix == ".container" and each.key == "Pull" and each.value == "always":
                return "Pull=always"
            is_command = each.key.startswith("Exec") and not _IGNORES_FAILURE.match(each.value)
            if (is_command or each.key == "PodmanArgs") and (pull := _find_pull(each.value)):
                return pull
        return "imagePullPolicy: Always" if re.search(r"imagePullPolicy:\s*[\"']?Always", self.yaml) else ""


def _find_pull(line: str) -> str:
    """Return the part of a command line that asks a registry, or an empty text."""
    if match := _PULLS.search(line):
        return match[0].strip()
    # One pattern for both would take quadratic time: ctr and nerdctl have options before the command.
    for command in re.split("[;&|]", line):
        client = _CONTAINERD_CLIENT.search(command)
        if client and (pull := _PULL_COMMAND.search(command, client.end())):
            return command[client.start() : pull.end()].strip()[:_SHOWN]
    return ""
