"""Parses policy.json.

Source: containers-policy.json(5), and its parser in containers/image: every unknown field, type or value is an error,
because a typing error in a policy must not allow more than was meant.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from osc_containers.errors import PolicyError
from osc_containers.evidence import json_object
from osc_containers.evidence.policy.identity import RULES, IdentityRule
from osc_containers.evidence.policy.requirements import (
    ACCEPT,
    BASE_LAYER,
    GPG,
    REJECT,
    SIGSTORE,
    Keys,
    Policy,
    Requirement,
)
from osc_containers.oci.digest import Digest

_KEY_TYPES = ("GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs")
_REKOR = ("rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas")
_KEYS = ("keyPath", "keyPaths", "keyData", "keyDatas")
_FULCIO = ("caPath", "caData", "oidcIssuer", "subjectEmail")
_Item = TypeVar("_Item")
_PKI = ("caRootsPath", "caRootsData", "caIntermediatesPath", "caIntermediatesData", "subjectEmail", "subjectHostname")


def parse(text: bytes, where: str, directory: Path = Path("/")) -> Policy:
    """Parse a policy. Messages begin with `where`.

    :raises PolicyError: it is not valid; the error has the first problem of each scope.
    """
    problems: list[str] = []
    transports: dict[str, dict[str, tuple[Requirement, ...]]] = {}
    default: tuple[Requirement, ...] = ()
    try:
        document = json_object.fields(
            json_object.decode(text, where), where, ("default", "transports"), required=("default",)
        )
        scopes_of = json_object.fields(document.get("transports", json_object.Object(())), f"{where}: transports", None)
    except ValueError as error:
        raise PolicyError(_with_advice(str(error))) from None
    try:
        default = _requirements(document["default"], f"{where}: default")
    except ValueError as error:
        problems.append(_with_advice(str(error)))
    for transport, value in scopes_of.items():
        path = f"{where}: transports[{transport[:80]!r}]"
        transports[transport] = {}
        try:
            scopes = json_object.fields(value, path, None)
        except ValueError as error:
            problems.append(_with_advice(str(error)))
            continue
        for scope, requirements in scopes.items():
            at = f"{path}[{scope[:300]!r}]"
            if scope and not _is_valid_scope(transport, scope):
                problems.append(_with_advice(f"{at}: not a valid scope of this transport"))
                continue
            try:
                transports[transport][scope] = _requirements(requirements, at)
            except ValueError as error:
                problems.append(_with_advice(str(error)))
    if problems:
        raise PolicyError(*problems[:50])
    return Policy(default=default, transports=transports, where=where, directory=directory)


def _with_advice(problem: str) -> str:
    return f"{problem}; podman refuses every image with such a policy, see containers-policy.json(5)"


def _requirements(value: object, where: str) -> tuple[Requirement, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: got {json_object.kind(value)}, expected an array of requirements")
    if not value:
        raise ValueError(f"{where}: got no requirement, expected at least one")
    return tuple(_requirement(each, f"{where}[{i}]") for i, each in enumerate(value))


def _requirement(value: object, where: str) -> Requirement:
    type_ = _type(value, where)
    if type_ in (ACCEPT, REJECT):
        json_object.fields(value, where, ("type",))
        return Requirement(type=type_, where=where)
    if type_ == BASE_LAYER:
        members = json_object.fields(value, where, ("type", "baseLayerIdentity"), required=("baseLayerIdentity",))
        _identity_rule(members["baseLayerIdentity"], f"{where}.baseLayerIdentity")
        return Requirement(type=type_, unsupported="signedBaseLayer (podman does not support it either)", where=where)
    if type_ == GPG:
        return _signed_by(value, where)
    if type_ == SIGSTORE:
        return _sigstore_signed(value, where)
    known = ", ".join((ACCEPT, REJECT, GPG, SIGSTORE))
    raise ValueError(f"{where}.type: got {type_[:80]!r}, expected one of {known}")


def _type(value: object, where: str) -> str:
    return json_object.text(json_object.fields(value, where, None, required=("type",))["type"], f"{where}.type")


def _signed_by(value: object, where: str) -> Requirement:
    members = json_object.fields(value, where, ("type", "keyType", *_KEYS[:3], "signedIdentity"), required=("keyType",))
    key_type = json_object.text(members["keyType"], f"{where}.keyType")
    if key_type not in _KEY_TYPES:
        raise ValueError(f"{where}.keyType: got {key_type[:80]!r}, expected {_KEY_TYPES[0]!r}")
    sources = [key for key in _KEYS[:3] if key in members]
    keys = _keys(members, sources, where)
    # Here, unlike below, a second source counts even if it is empty.
    if len(sources) != 1 or keys is None:
        raise ValueError(f"{where}: got {' and '.join(sources) or 'no key'}, expected one of {', '.join(_KEYS[:3])}")
    unsupported = "" if key_type == _KEY_TYPES[0] else f"keyType {key_type} (podman does not support it either)"
    identity = _optional_identity(members, where)
    return Requirement(type=GPG, keys=keys, identity=identity, unsupported=unsupported, where=where)


def _sigstore_signed(value: object, where: str) -> Requirement:
    members = json_object.fields(value, where, ("type", *_KEYS, "fulcio", "pki", *_REKOR, "signedIdentity"))
    sources = [key for key in _KEYS if _is_source(members, key, where)]
    rekor = [key for key in _REKOR if _is_source(members, key, where)]
    others = [key for key in ("fulcio", "pki") if key in members]
    # Even what is not supported has to be valid: podman refuses every image with a policy that is not.
    if "fulcio" in others:
        _check_fulcio(members["fulcio"], f"{where}.fulcio")
    if "pki" in others:
        _check_pki(members["pki"], f"{where}.pki")
    if len(sources) + len(others) != 1:
        raise ValueError(f"{where}: expected exactly one of {', '.join(_KEYS)}, fulcio, pki")
    if len(rekor) > 1:
        raise ValueError(f"{where}: got {' and '.join(rekor)}, expected at most one of them")
    if "fulcio" in others and not rekor:
        raise ValueError(f"{where}: fulcio needs one of {', '.join(_REKOR)}")
    if "pki" in others and rekor:
        raise ValueError(f"{where}: got pki and {rekor[0]}, expected only one of them")
    unsupported = " and ".join((*others, *(("rekor",) if rekor else ())))
    identity = _optional_identity(members, where)
    return Requirement(
        type=SIGSTORE,
        keys=_keys(members, sources, where) or Keys(),
        identity=identity,
        unsupported=unsupported,
        where=where,
    )


def _is_source(members: Mapping[str, object], key: str, where: str) -> bool:
    """Return whether a source of keys is given: null counts as missing, and so does an empty path."""
    if key not in members:
        return False
    value, path = members[key], f"{where}.{key}"
    if key.endswith("Paths"):
        if not _texts(value, path):
            raise ValueError(f"{path}: got no path, expected at least one")
        return True
    if key.endswith("Datas"):
        if not _datas(value, path):
            raise ValueError(f"{path}: got no key, expected at least one")
        return True
    return bool(json_object.text(value, path)) if key.endswith("Path") else json_object.data(value, path) is not None


def _keys(members: Mapping[str, object], sources: Iterable[str], where: str) -> Keys | None:
    """Return the keys, or None without exactly one source."""
    result: list[Keys] = []
    for key in sources:
        value, path = members[key], f"{where}.{key}"
        if key == "keyPath":
            text = json_object.text(value, path)
            result += [Keys(paths=(text,))] if text else []
        elif key == "keyPaths":
            result += [Keys(paths=_texts(value, path))] if value is not None else []
        elif key == "keyData":
            data = json_object.data(value, path)
            result += [Keys(data=(data,))] if data is not None else []
        else:
            result.append(Keys(data=_datas(value, path)))
    return result[0] if len(result) == 1 else None


def _texts(value: object, where: str) -> tuple[str, ...]:
    return _array(value, where, json_object.text)


def _datas(value: object, where: str) -> tuple[bytes, ...]:
    return _array(value, where, lambda each, path: json_object.data(each, path) or b"")


def _array(value: object, where: str, convert: Callable[[object, str], _Item]) -> tuple[_Item, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"{where}: got {json_object.kind(value)}, expected an array")
    return tuple(convert(each, f"{where}[{i}]") for i, each in enumerate(value))


def _check_fulcio(value: object, where: str) -> None:
    members = json_object.fields(value, where, _FULCIO)
    _check_sources(members, where, "caPath", "caData")
    for key in ("oidcIssuer", "subjectEmail"):
        if not json_object.text(members.get(key), f"{where}.{key}"):
            raise ValueError(f"{where}: {key} is missing")


def _check_pki(value: object, where: str) -> None:
    members = json_object.fields(value, where, _PKI)
    _check_sources(members, where, "caRootsPath", "caRootsData")
    _check_sources(members, where, "caIntermediatesPath", "caIntermediatesData", is_optional=True)
    subjects = [json_object.text(members.get(key), f"{where}.{key}") for key in ("subjectEmail", "subjectHostname")]
    if not any(subjects):
        raise ValueError(f"{where}: expected subjectEmail or subjectHostname")


def _check_sources(
    members: Mapping[str, object], where: str, path: str, data: str, *, is_optional: bool = False
) -> None:
    count = int(json_object.text(members.get(path), f"{where}.{path}") != "")
    count += json_object.data(members.get(data), f"{where}.{data}") is not None
    if count > 1 or (not count and not is_optional):
        raise ValueError(f"{where}: expected {'at most' if is_optional else 'exactly'} one of {path} and {data}")


def _optional_identity(members: Mapping[str, object], where: str) -> IdentityRule:
    if "signedIdentity" not in members:
        return IdentityRule()
    return _identity_rule(members["signedIdentity"], f"{where}.signedIdentity")


def _identity_rule(value: object, where: str) -> IdentityRule:
    type_ = _type(value, where)
    if type_ not in RULES:
        raise ValueError(f"{where}.type: got {type_[:80]!r}, expected one of {', '.join(RULES)}")
    members = json_object.fields(value, where, ("type", *RULES[type_]), required=RULES[type_])
    values = tuple(json_object.text(members[key], f"{where}.{key}") for key in RULES[type_])
    rule = IdentityRule(type=type_, values=values)
    try:
        rule.check()
    except ValueError as error:
        raise ValueError(f"{where}.{error}") from None
    return rule


def _is_valid_scope(transport: str, scope: str) -> bool:
    """Return whether a transport of containers-transports(5) can have such a scope; others can have any.

    `atomic:` is one of the others: distributions build podman without it.
    """
    if transport in ("dir", "oci", "oci-archive", "sif"):
        return _is_clean_path(scope)
    if transport in ("docker-archive", "tarball"):
        return False
    if transport == "docker-daemon":
        return not _is_digest(scope)
    if transport == "containers-storage":
        return _is_storage_scope(scope)
    return True


def _is_clean_path(scope: str) -> bool:
    return scope.startswith("/") and scope != "/" and not scope.startswith("//") and posixpath.normpath(scope) == scope


def _is_digest(text: str) -> bool:
    try:
        Digest.parse(text)
    except ValueError:
        return False
    return True


def _is_storage_scope(scope: str) -> bool:
    match = re.fullmatch(r"\[([^]]*)\](.*)", scope, re.DOTALL)
    if match is None:
        return False
    # The store is `[DRIVER@ROOT]` or `[ROOT]`. A name may follow, and behind `@` a digest, the ID of an image, or both.
    driver, at, root = match[1].partition("@")
    if not (driver.startswith("/") if not at else driver and root.startswith("/")):
        return False
    _, *rest = match[2].split("@", 2)
    if not rest:
        return True
    is_id = _is_digest(f"sha256:{rest[-1]}")
    return is_id or _is_digest(rest[0]) if len(rest) == 1 else is_id and _is_digest(rest[0])
