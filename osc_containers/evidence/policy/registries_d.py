"""registries.d: where the signatures of an image are.

Source: containers-registries.d(5). The code of containers/image falls back key by key: a scope without `lookaside`
takes that of the next wider scope, although the manual page says otherwise.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from osc_containers.errors import PolicyError
from osc_containers.fs import plain_file

if TYPE_CHECKING:
    from typing import Any

_LIMIT = 1 << 20
"""Bytes of a file."""
# Where a boolean is expected, podman's library takes the words of YAML 1.1 (gopkg.in/yaml.v3).
_BOOLEANS = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE"), False),
}
_NULL = "tag:yaml.org,2002:null"


class Settings(NamedTuple):
    """The settings of one scope; None or empty means that the next wider scope decides."""

    lookaside: str = ""
    attachments: bool | None = None


class SignatureStores(NamedTuple):
    """The settings of all scopes, and the default; `default_lookaside` is where signatures are without any settings."""

    scopes: Mapping[str, Settings]
    default: Settings = Settings()
    default_lookaside: str = "file:///var/lib/containers/sigstore"

    def lookaside(self, scopes: Iterable[str]) -> str:
        """Return the URL of the signature store for an image with these scopes, the narrowest first."""
        return next((each.lookaside for each in self._chain(scopes) if each.lookaside), self.default_lookaside)

    def uses_attachments(self, scopes: Iterable[str]) -> bool:
        """Return whether sigstore signatures beside the image count."""
        return next((each.attachments for each in self._chain(scopes) if each.attachments is not None), False)

    def _chain(self, scopes: Iterable[str]) -> Iterable[Settings]:
        return (*(self.scopes[scope] for scope in scopes if scope in self.scopes), self.default)


def load(path: Path, environ: Mapping[str, str] = os.environ) -> SignatureStores:
    """Read all files of a directory.

    :raises PolicyError: a file cannot be read, is not valid, or two files have settings for the same scope.
    """
    home = environ.get("HOME") or "/"
    fallback = (
        "file:///var/lib/containers/sigstore"
        if os.geteuid() == 0
        else f"file://{home}/.local/share/containers/sigstore"
    )
    scopes: dict[str, Settings] = {}
    default: Settings | None = None
    owners: dict[str, Path] = {}
    try:
        names = sorted(each for each in os.listdir(path) if each.endswith(".yaml"))
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise PolicyError(f"{path}: {error.strerror}") from None
    for name in names:
        file = path / name
        try:
            content = plain_file.read_linked(file, _LIMIT)
            file_default, file_scopes = parse(content)
        except OSError as error:
            raise PolicyError(f"{file}: {error.strerror}") from None
        except ValueError as error:
            raise PolicyError(f"{file}: {error}; see containers-registries.d(5)") from None
        clashes = set(scopes) & set(file_scopes)
        if clashes or (default is not None and file_default is not None):
            scope = min(clashes, default="default-docker")
            raise PolicyError(f"{file}: {scope!r} is also in {owners[scope]}; remove one of them")
        default = default if file_default is None else file_default
        owners |= dict.fromkeys((*file_scopes, *(("default-docker",) if file_default is not None else ())), file)
        scopes |= file_scopes
    return SignatureStores(scopes=scopes, default=default or Settings(), default_lookaside=fallback)


def parse(text: bytes) -> tuple[Settings | None, dict[str, Settings]]:
    """Parse one file: the default settings, if it has any, and those by scope.

    :raises ValueError: it is not valid, or PyYAML is missing.
    """
    try:
        import yaml  # only machines that verify signatures have such files
    except ImportError:
        raise ValueError("PyYAML is needed to read it; install python3-yaml (openSUSE: python3-PyYAML)") from None
    try:
        # The nodes, not the values: PyYAML would make numbers and dates of what are strings here.
        loader = yaml.SafeLoader(text)
        root = loader.get_node() if loader.check_node() else None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"not valid YAML; {ascii(' '.join(str(error).split()))[1:200]}") from None
    members = _mapping(root, "the file")
    default = members.get("default-docker")
    return (
        None if default is None or default.tag == _NULL else _settings(default, "default-docker"),
        {
            scope: _settings(node, ascii(scope[:300]))
            for scope, node in _mapping(members.get("docker"), "docker").items()
        },
    )


def _settings(node: "Any", where: str) -> Settings:
    members = _mapping(node, where)
    texts = {
        key: _text(members.get(key), f"{where}: {key}")
        for key in ("lookaside", "sigstore", "lookaside-staging", "sigstore-staging")
    }
    return Settings(
        # `sigstore` is the older name of `lookaside`.
        lookaside=texts["lookaside"] or texts["sigstore"],
        attachments=_boolean(members.get("use-sigstore-attachments"), f"{where}: use-sigstore-attachments"),
    )


def _mapping(node: "Any", where: str) -> "dict[str, Any]":
    if node is None or node.tag == _NULL:
        return {}
    if node.id != "mapping":
        raise ValueError(f"{where}: expected a mapping")
    result: dict[str, Any] = {}
    for key, value in node.value:
        if key.id != "scalar":
            raise ValueError(f"{where}: expected names as keys")
        if key.value in result:
            raise ValueError(f"{where}: got {key.value[:80]!r} twice")
        if key.tag == "tag:yaml.org,2002:merge":
            raise ValueError(f"{where}: merge keys are not supported")
        result[key.value] = value
    return result


def _text(node: "Any", where: str) -> str:
    if node is None or node.tag == _NULL:
        return ""
    if node.id != "scalar":
        raise ValueError(f"{where}: expected a string")
    return str(node.value)


def _boolean(node: "Any", where: str) -> bool | None:
    if node is None or node.tag == _NULL:
        return None
    # A scalar in quotes or in a block has a style, and is a string.
    if node.id != "scalar" or node.style is not None or node.value not in _BOOLEANS:
        raise ValueError(f"{where}: expected true or false")
    return _BOOLEANS[node.value]
