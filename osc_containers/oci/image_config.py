"""The configuration of an image, as strict as engines are about it.

podman refuses to load an image whose configuration has a value of another type than it expects. In a read-only store it
would find such an image at every command, and "podman images" would fail for all images. Everything else in a
configuration is ignored, there and here.

Spec: OCI image-spec v1.1, config.md; Docker image-spec v1.2; Go's encoding/json, which ignores the case of keys.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeAlias

from osc_containers.formats import strict_json
from osc_containers.oci.digest import Digest

Type: TypeAlias = "str | list[Type] | Mapping[str, Type]"
"""A name in `_CHECKS`, a list with the type of its items, or an object with the types of its keys; `*` is any key."""

_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})")

# The keys are in lower case here: `_check` converts those of a configuration before it looks them up.
_SETTINGS: Mapping[str, Type] = {
    **dict.fromkeys(("hostname", "domainname", "user", "image", "workingdir", "macaddress", "stopsignal"), "string"),
    **dict.fromkeys(("attachstdin", "attachstdout", "attachstderr", "tty", "openstdin", "stdinonce"), "boolean"),
    **dict.fromkeys(("argsescaped", "networkdisabled"), "boolean"),
    **{key: ["string"] for key in ("env", "cmd", "entrypoint", "onbuild", "shell")},
    **{key: {"*": {}} for key in ("exposedports", "volumes")},
    "labels": {"*": "string"},
    "stoptimeout": "number",
    "healthcheck": {
        "test": ["string"],
        **dict.fromkeys(("interval", "timeout", "startperiod", "startinterval", "retries"), "number"),
    },
}
_CONFIG: Mapping[str, Type] = {
    **dict.fromkeys(("author", "architecture", "os", "variant", "os.version", "comment", "id", "parent"), "string"),
    **dict.fromkeys(("container", "docker_version"), "string"),
    "created": "time",
    "os.features": ["string"],
    "config": _SETTINGS,
    "container_config": _SETTINGS,
    "size": "number",
    "rootfs": {"type": "string", "diff_ids": ["string"]},
    "history": [
        {
            "created": "time",
            **dict.fromkeys(("author", "created_by", "comment"), "string"),
            "empty_layer": "boolean",
        }
    ],
}


def check_types(config: bytes) -> None:
    """Check the types of a configuration.

    :raises ValueError: one is wrong. The message names the key.
    """
    _check(dict(strict_json.load(config, "config").values), _CONFIG, "config")


def diff_ids(config: bytes, layer_count: int) -> tuple[Digest, ...]:
    """Return the digests of the unpacked layers, from the lowest to the highest.

    :raises ValueError: there is not one for each of `layer_count` layers, or one is not a sha256 digest.
    """
    root_fs = strict_json.load(config, "config").member("rootfs")
    digests = []
    for text in root_fs.lines("diff_ids"):
        try:
            digests.append(Digest.parse(text))
        except ValueError as error:
            raise ValueError(f"{root_fs.path('diff_ids')}: {error}") from None
    if len(digests) != layer_count or not digests:
        raise ValueError(f"config: got {len(digests)} diff_ids for {layer_count} layers, expected one for each")
    if {each.algorithm for each in digests} != {"sha256"}:
        raise ValueError(f"{root_fs.path('diff_ids')}: got another digest algorithm, expected sha256")
    return tuple(digests)


def _check(value: object, expected: Type, where: str) -> None:
    # Go accepts null for a value of any type.
    if value is None:
        return
    if isinstance(expected, str):
        if not _CHECKS[expected](value):
            raise ValueError(f"{where}: got {repr(value)[:80]}, expected a {expected}")
    elif isinstance(expected, list):
        if not isinstance(value, list):
            raise ValueError(f"{where}: got {repr(value)[:80]}, expected a list")
        for number, item in enumerate(value):
            _check(item, expected[0], f"{where}[{number}]")
    else:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: got {repr(value)[:80]}, expected an object")
        for key, item in value.items():
            kind = expected["*"] if "*" in expected else expected.get(key.casefold())
            if kind is not None:
                _check(item, kind, f"{where}.{key[:80]!r}")


def _is_time(value: object) -> bool:
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if not match:
        return False
    try:
        # The pattern has checked the form; this checks the ranges of months, days and hours.
        datetime.fromisoformat(match[1] + match[3])
    except ValueError:
        return False
    return True


def _is_number(value: object) -> bool:
    # The range is that of Go's int64. In Python, true and false are whole numbers, too.
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63


_CHECKS: Mapping[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "number": _is_number,
    "time": _is_time,
}
