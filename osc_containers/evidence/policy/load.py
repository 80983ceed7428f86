"""Reads signature policies, and the keys that they name."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from osc_containers.errors import Error, PolicyError
from osc_containers.evidence.policy import locations
from osc_containers.evidence.policy.parser import parse
from osc_containers.evidence.policy.requirements import Policy, Requirement
from osc_containers.fs import plain_file

LIMIT = 4 << 20
"""Bytes of a policy, and of a file with keys."""


def of_file(path: Path, directory: Path = Path("/")) -> Policy:
    """Read a policy.

    :raises PolicyError: it cannot be read, or is not valid.
    """
    try:
        text = plain_file.read_linked(path, LIMIT)
    except (OSError, ValueError) as error:
        raise PolicyError(f"{path}: {error.strerror if isinstance(error, OSError) else error}") from None
    return parse(text, str(path), directory)


def of_package(
    package: Path, names: Iterable[str], environ: Mapping[str, str] | None = os.environ
) -> tuple[Policy, ...]:
    """Return the policy of this machine, if it has one, and those that a package names; with None only the latter.

    :raises PolicyError: one of them is not valid, or is not a file of the package.
    """
    host = locations.policy_json(environ) if environ is not None else None
    policies = [of_file(host)] if host else []
    for name in names:
        is_inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        content = plain_file.read(package, name, LIMIT) if is_inside else None
        if content is None:
            raise PolicyError(f"policy {name[:160]!r}: no such file in the package")
        policies.append(parse(content, name, package.absolute()))
    return tuple(policies)


def read_keys(policy: Policy, requirement: Requirement) -> tuple[bytes, ...]:
    """Return the content of each file with keys, or the keys in the policy.

    :raises Error: a file cannot be read.
    """
    result = []
    for name in requirement.keys.paths:
        path = policy.directory / name
        try:
            result.append(plain_file.read_linked(path, LIMIT))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise Error(f"{requirement.where}: key {str(path)!r}: {reason}") from None
    return (*result, *requirement.keys.data)
