"""A package whose containers are signed: from prefetch to the build, and what happens to those that are not."""

import json
import os
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from osc_containers.cli import signature_check
from osc_containers.cli.main import main
from osc_containers.evidence.policy import registries_d
from osc_containers.evidence.sbom.document import FORMATS
from osc_containers.evidence.signatures import openpgp
from osc_containers.evidence.signatures.programs import Verifier
from osc_containers.lock import lockfile
from osc_containers.oci.digest import Digest
from tests.support import images, packages
from tests.support.docker_registry import DockerRegistry
from tests.support.sbom_validators import problems
from tests.support.signing import ATOMIC, Attachment, Gpg, attach, attachment, make_key, payload, public_pem, sign

pytestmark = pytest.mark.integration

REPOSITORY = {"type": "matchRepository"}
ACCEPT = [{"type": "insecureAcceptAnything"}]


class Setting:
    """A home with a policy and keys, a registry with signed images, and a package that has been prefetched."""

    def __init__(self, registry: DockerRegistry, directory: Path, gpg: Gpg) -> None:
        self.registry = registry
        self.host = registry.host
        self.home = directory / "home"
        self.package = directory / "package"
        self.key = make_key("rsa2048")
        self._gpg = gpg
        (self.home / ".config/containers/registries.d").mkdir(parents=True)
        (self.home / "obs.pub").write_bytes(public_pem(self.key))
        (self.home / "other.pub").write_bytes(public_pem(make_key("p256")))
        gpg.make_key("good")
        (self.home / "good.gpg").write_bytes(gpg.public("good"))
        default = {"use-sigstore-attachments": True, "lookaside": f"file://{self.home}/lookaside"}
        (self.home / ".config/containers/registries.d/default.yaml").write_text(json.dumps({"default-docker": default}))

    def write_policy(self, directory: Path, scopes: Mapping[str, object], default: object = ACCEPT) -> Path:
        path = directory / "policy.json"
        path.write_text(json.dumps({"default": default, "transports": {"docker": scopes}}))
        return path

    @property
    def scopes(self) -> dict[str, object]:
        obs = {"type": "sigstoreSigned", "keyPath": f"{self.home}/obs.pub", "signedIdentity": REPOSITORY}
        gpg = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": f"{self.home}/good.gpg"}
        return {f"{self.host}/signed/obs": [obs], f"{self.host}/signed/gpg": [gpg], f"{self.host}/none": [obs]}

    def sign(self, name: str, image: images.Image) -> None:
        for each in image.children or (image,):
            text = payload(each.digest, f"{self.host}/{name}", optional={"creator": "OBS"})
            attach(self.registry, name, each.digest, [attachment(text, sign(self.key, text))])

    def sign_by_gpg(self, name: str, image: images.Image) -> None:
        text = payload(image.digest, f"{self.host}/{name}:1", type_=ATOMIC, optional={})
        directory = self.home / f"lookaside/{name}@sha256={image.digest.hex}"
        directory.mkdir(parents=True)
        (directory / "signature-1").write_bytes(self._gpg.sign(["good"], text))

    def write_package(self, directory: Path, *names: str) -> Path:
        containers = [f'name="{name.rpartition("/")[2]}" path="{name.rpartition("/")[0]}" tag="1"' for name in names]
        packages.write(directory, packages.section(self.host, *containers))
        service = (directory / "_service").read_text().replace('    <param name="arch">aarch64</param>\n', "")
        (directory / "_service").write_text(service)
        return directory


@pytest.fixture(scope="module")
def original(docker_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    directory = tmp_path_factory.mktemp("signed")
    with Gpg(tmp_path_factory.mktemp("gpg") / "home") as gpg, pytest.MonkeyPatch.context() as patch:
        setting = Setting(docker_registry, directory, gpg)
        obs, plain = images.multi_platform("obs"), images.small("gpg")
        docker_registry.push(obs, "signed/obs:1")
        docker_registry.push(plain, "signed/gpg:1")
        docker_registry.push(images.small("none"), "none/app:1")
        docker_registry.push(images.small("free"), "free/app:1")
        setting.sign("signed/obs", obs)
        setting.sign_by_gpg("signed/gpg", plain)
        setting.write_policy(setting.home / ".config/containers", setting.scopes)
        setting.write_package(setting.package, "signed/obs", "signed/gpg", "free/app")
        patch.setenv("HOME", str(setting.home))
        assert main(["prefetch", str(setting.package)]) == 0
        yield setting


@pytest.fixture
def setting(original: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """Give a copy of the package, and the home with its policy."""
    monkeypatch.setenv("HOME", str(original.home))
    copy = Setting.__new__(Setting)
    copy.__dict__.update(original.__dict__)
    copy.package = shutil.copytree(original.package, tmp_path / "package")
    return copy


def lock_of(package: Path) -> Any:
    return json.loads((package / lockfile.FILE_NAME).read_text())


def add_parameters(package: Path, **parameters: str) -> None:
    text = "".join(f'    <param name="{name}">{value}</param>\n' for name, value in parameters.items())
    service = package / "_service"
    service.write_text(service.read_text().replace('    <param name="arch">', f'{text}    <param name="arch">', 1))


def test_the_lock_has_the_evidence(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    lock = lock_of(setting.package)
    recorded = {
        name: [each["type"] for each in entry["architectures"]["x86_64"].get("signatures", [])]
        for name, entry in lock["containers"].items()
    }
    host = setting.host
    assert recorded == {
        f"{host}/free/app:1": [],
        f"{host}/signed/gpg:1": ["simple"],
        f"{host}/signed/obs:1": ["sigstore"],
    }
    assert len(lock["keys"]) == 2
    assert main(["verify", str(setting.package)]) == 0
    assert "3 images verified" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["prefetch"], ["signatures", "--package"]])
def test_the_places_of_signatures_are_read_once(
    setting: Setting, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not for each image."""
    (setting.package / lockfile.FILE_NAME).unlink()
    load, directories = registries_d.load, []

    def load_noted(path: Path, environ: Mapping[str, str]) -> registries_d.SignatureStores:
        directories.append(path)
        return load(path, environ)

    monkeypatch.setattr(registries_d, "load", load_noted)
    assert main([*command, str(setting.package)]) == 0
    assert directories == [setting.home / ".config/containers/registries.d"]


def test_a_second_run_asks_for_no_signature(setting: Setting) -> None:
    before = (setting.package / lockfile.FILE_NAME).read_bytes()
    count = len(setting.registry.requests())
    assert main(["prefetch", str(setting.package)]) == 0
    assert (setting.package / lockfile.FILE_NAME).read_bytes() == before
    paths = [request.path for request in setting.registry.requests()[count:]]
    assert not [path for path in paths if path.endswith(".sig") or "/blobs/" in path]


@pytest.mark.parametrize("has_signed", [False, True])
def test_nothing_is_loaded_where_no_policy_asks(setting: Setting, tmp_path: Path, *, has_signed: bool) -> None:
    """With the policy that distributions have: it accepts everything, which only shows when it has been read."""
    (tmp_path / ".config/containers").mkdir(parents=True)
    setting.write_policy(tmp_path / ".config/containers", {})
    package = setting.package if has_signed else setting.write_package(tmp_path / "free", "free/app")
    run = f"main(['prefetch', '--arch', 'x86_64', {str(package)!r}])"
    script = f"import sys; from osc_containers.cli.main import main; assert {run} == 0; print(*sys.modules)"
    environ = {**os.environ, "HOME": str(tmp_path)}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", script], env=environ, check=True, capture_output=True, text=True)
    ours = {name.removeprefix("osc_containers.evidence.") for name in done.stdout.split() if ".evidence." in name}
    files = {f"policy.{name}" for name in ("identity", "load", "locations", "parser", "requirements")}
    assert ours == {"json_object", "policy", *files}
    assert "yaml" not in done.stdout.split()


def test_an_unsigned_image_is_refused_before_its_layers(
    setting: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = setting.write_package(tmp_path / "none", "none/app")
    before = sorted(path.name for path in package.iterdir())
    count = len(setting.registry.requests())
    assert main(["prefetch", str(package)]) == 1
    error = capsys.readouterr().err
    policy = setting.home / ".config/containers/policy.json"
    assert f"containers.xml:5: {setting.host}/none/app:1 (x86_64): {policy} asks for a signature (scope " in error
    assert "but the image has none" in error
    assert sorted(path.name for path in package.iterdir()) == before
    layer = images.small("none").blobs[1]
    assert not [each for each in setting.registry.requests()[count:] if str(Digest.of(layer)) in each.path]
    assert main(["prefetch", str(package), "--signatures", "ignore"]) == 0


def test_the_package_cannot_lift_what_the_host_demands(
    setting: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = setting.write_package(tmp_path / "none", "none/app")
    add_parameters(package, signatures="ignore")
    assert main(["prefetch", str(package)]) == 1
    assert "asks for a signature" in capsys.readouterr().err


def test_required_refuses_what_is_not_signed(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    add_parameters(setting.package, signatures="required")
    assert main(["prefetch", str(setting.package)]) == 1
    assert "free/app:1 (x86_64): signatures=required, but" in capsys.readouterr().err
    assert main(["verify", str(setting.package)]) == 1
    assert "signatures=required, but the lock has none" in capsys.readouterr().err


def test_the_policy_of_a_package_applies_too(
    setting: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = setting.write_package(tmp_path / "more", "free/app")
    shutil.copy(setting.home / "other.pub", package / "key.pub")
    setting.write_policy(package, {f"{setting.host}/free": [{"type": "sigstoreSigned", "keyPath": "key.pub"}]})
    add_parameters(package, policy="policy.json")
    assert main(["prefetch", str(package)]) == 1
    assert f"policy.json asks for a signature (scope docker {setting.host}/free)" in capsys.readouterr().err
    assert main(["prefetch", str(package), "--signatures", "ignore"]) == 0
    assert main(["verify", str(package)]) == 1
    assert "the lock has no signature of it: run the prefetch with this policy" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["missing.json", "../policy.json", "/etc/passwd"])
def test_a_policy_must_be_in_the_package(setting: Setting, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prefetch", str(setting.package), "--policy", name]) == 1
    assert f"policy {name!r}: no such file in the package" in capsys.readouterr().err


def test_a_different_key_is_named(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    scopes = {setting.host: [{"type": "sigstoreSigned", "keyPath": "other.pub", "signedIdentity": REPOSITORY}]}
    shutil.copy(setting.home / "other.pub", setting.package)
    setting.write_policy(setting.package, scopes)
    assert main(["prefetch", str(setting.package), "--policy", "policy.json"]) == 1
    assert "signed with a different key than other.pub" in capsys.readouterr().err


def test_a_signature_without_the_tag_needs_matchrepository(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    scopes = {f"{setting.host}/signed/obs": [{"type": "sigstoreSigned", "keyPath": f"{setting.home}/obs.pub"}]}
    setting.write_policy(setting.package, scopes)
    assert main(["prefetch", str(setting.package), "--policy", "policy.json"]) == 1
    assert 'use "signedIdentity": {"type": "matchRepository"}' in capsys.readouterr().err


def test_a_signed_index_is_explained(setting: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = images.multi_platform("index")
    setting.registry.push(image, "none/index:1")
    text = payload(image.digest, f"{setting.host}/none/index")
    attach(setting.registry, "none/index", image.digest, [attachment(text, sign(setting.key, text))])
    package = setting.write_package(tmp_path / "index", "none/index")
    assert main(["prefetch", str(package)]) == 1
    assert "only the index is signed, but podman checks the manifest of the platform" in capsys.readouterr().err


def test_switched_off_attachments_are_explained(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = shutil.copytree(setting.home, tmp_path / "home")
    shutil.rmtree(home / ".config/containers/registries.d")
    monkeypatch.setenv("HOME", str(home))
    package = setting.write_package(tmp_path / "again", "signed/obs")
    assert main(["prefetch", str(package)]) == 1
    assert "registries.d does not enable use-sigstore-attachments for 127.0.0.1" in capsys.readouterr().err


def test_signatures_shows_what_meets_what(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["signatures", "--package", str(setting.package), f"{setting.host}/signed/obs:1"]) == 0
    shown = capsys.readouterr().out
    assert f"met, signed as {setting.host}/signed/obs by sha256:" in shown
    assert main(["signatures", "--package", str(setting.package), f"{setting.host}/none/app:1"]) == 1
    assert "refused: " in capsys.readouterr().out
    assert main(["signatures", "--package", str(setting.package)]) == 0
    assert "insecureAcceptAnything: met" in capsys.readouterr().out


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to each text, and to each key of an object."""
    if isinstance(value, dict):
        for key in value:
            yield (*path, key, None)
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from leaves(each, (*path, number))
    else:
        yield path


def tamper(document: Any, path: tuple[Any, ...], change: Callable[[str], str]) -> None:
    *parents, last = path
    target = document
    for key in parents[:-1] if last is None else parents:
        target = target[key]
    if last is None:
        target[change(parents[-1])] = target.pop(parents[-1])
    else:
        target[last] = change(target[last])


def _flip(text: str) -> str:
    middle = len(text) // 2
    return text[:middle] + ("x" if text[middle] != "x" else "y") + text[middle + 1 :]


def _other_hex(text: str) -> str:
    return text[:-1] + ("0" if text[-1] != "0" else "1")


def test_every_flipped_field_of_the_evidence_is_refused(
    setting: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = lock_of(setting.package)
    paths = [
        ("containers", name, "architectures", "x86_64", "signatures", *path)
        for name, entry in document["containers"].items()
        for path in leaves(entry["architectures"]["x86_64"].get("signatures", []))
    ]
    paths += [("keys", *path) for path in leaves(document["keys"])]
    assert len(paths) > 20
    root = tmp_path / "root"
    root.mkdir()
    inject = ["inject", "--root", str(root), "--arch", "x86_64", str(setting.package)]
    assert main(["verify", str(setting.package)]) == main(inject) == 0
    shutil.rmtree(root)
    root.mkdir()
    accepted = []
    for path in paths:
        for change in (_flip, _other_hex):
            changed = json.loads(json.dumps(document))
            tamper(changed, path, change)
            (setting.package / lockfile.FILE_NAME).write_text(json.dumps(changed, indent=2, sort_keys=True) + "\n")
            if main(["verify", str(setting.package)]) == 0:
                accepted.append(path)
            if main(inject) == 0:
                accepted.append((*path, "build"))
            assert not list(root.iterdir())
    capsys.readouterr()
    assert accepted == []


def test_evidence_of_another_image_is_refused(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    document = lock_of(setting.package)
    entries = document["containers"]
    host = setting.host
    evidence = entries[f"{host}/signed/obs:1"]["architectures"]["x86_64"]["signatures"]
    entries[f"{host}/free/app:1"]["architectures"]["x86_64"]["signatures"] = evidence
    (setting.package / lockfile.FILE_NAME).write_text(json.dumps(document))
    assert main(["verify", str(setting.package)]) == 1
    assert "it is for sha256:" in capsys.readouterr().err


def test_the_policy_of_the_project_can_fail_the_build(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    inject = ["inject", "--root", str(root), "--arch", "x86_64", str(setting.package)]
    anchor = setting.write_policy(tmp_path, setting.scopes)
    monkeypatch.setattr(signature_check, "ANCHOR", anchor)
    assert main(inject) == 0
    setting.write_policy(tmp_path, setting.scopes, [{"type": "reject"}])
    shutil.rmtree(root)
    root.mkdir()
    capsys.readouterr()
    assert main(inject) == 1
    assert f"free/app:1 (x86_64): {anchor} rejects it (scope default)" in capsys.readouterr().err
    other = {f"{setting.host}": [{"type": "sigstoreSigned", "keyPath": f"{setting.home}/other.pub"}]}
    setting.write_policy(tmp_path, other)
    assert main(inject) == 1
    assert "signed with a different key" in capsys.readouterr().err
    anchor.write_text("{}")
    assert main(inject) == 1
    assert "signatures: " in capsys.readouterr().err
    anchor.unlink()
    anchor.symlink_to("nowhere")
    assert main(inject) == 1
    assert "signatures: " in capsys.readouterr().err
    assert not list(root.iterdir())


def test_a_build_root_without_programs_names_their_packages(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "root").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["inject", "--root", str(tmp_path / "root"), "--arch", "x86_64", str(setting.package)]) == 1
    assert "not installed, but needed to verify signatures; install " in capsys.readouterr().err


@pytest.mark.parametrize("format_", FORMATS)
def test_the_sbom_lists_containers_and_signatures(
    setting: Setting, tmp_path: Path, format_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sbom", "--arch", "x86_64", "--format", format_, str(setting.package)]) == 0
    text = capsys.readouterr().out
    assert problems(text.encode(), format_) == []
    assert f"signed as {setting.host}/signed/obs by sha256:" in text
    assert '"name": "appliance' in text
    (tmp_path / "out").mkdir()
    assert main(["sbom", "--arch", "x86_64", "--output", str(tmp_path / "out"), str(setting.package)]) == 0
    name = f"appliance.x86_64-1.0.0.containers.{FORMATS[format_]}.json"
    assert (tmp_path / "out" / name).read_text() == text


def test_the_image_lists_its_containers(setting: Setting, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    assert main(["inject", "--root", str(tmp_path / "root"), "--arch", "x86_64", str(setting.package)]) == 0
    text = (tmp_path / "root/usr/share/kiwi_containers/containers.cdx.json").read_bytes()
    assert problems(text, "cyclonedx") == []
    assert {each["type"] for each in json.loads(text)["components"]} == {"container"}


def test_list_shows_the_keys(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--arch", "x86_64", str(setting.package)]) == 0
    shown = capsys.readouterr().out
    assert "SIGNED BY" in shown
    for key in lock_of(setting.package)["keys"]:
        assert key.removeprefix("sha256:")[:12] in shown


def test_diff_shows_other_keys(setting: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = lock_of(setting.package)
    del document["keys"]
    for entry in document["containers"].values():
        entry["architectures"]["x86_64"].pop("signatures", None)
    (tmp_path / "old").write_text(json.dumps(document))
    assert main(["diff", "--directory", str(setting.package), str(tmp_path / "old")]) == 1
    shown = capsys.readouterr().out
    assert f"{setting.host}/signed/obs:1 (x86_64): signed by sha256:" in shown
    assert f"{setting.host}/signed/gpg:1 (x86_64): signed by " in shown
    shutil.copy(setting.package / lockfile.FILE_NAME, tmp_path / "new")
    (setting.package / lockfile.FILE_NAME).write_text(json.dumps(document))
    assert main(["diff", "--directory", str(setting.package), str(tmp_path / "new")]) == 1
    assert "no longer signed; before by " in capsys.readouterr().out


def test_check_finds_what_is_not_signed(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    add_parameters(setting.package, signatures="ignore")
    document = lock_of(setting.package)
    del document["keys"]
    for entry in document["containers"].values():
        entry["architectures"]["x86_64"].pop("signatures", None)
    (setting.package / lockfile.FILE_NAME).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    main(["check", "--arch", "x86_64", "--format", "json", str(setting.package)])
    found = [each["why"] for each in json.loads(capsys.readouterr().out) if each["check"] == "signatures"]
    assert [why for why in found if why.startswith("a policy asks for signatures of")]
    assert [why for why in found if why.startswith("signatures=ignore")]


def test_check_finds_keys_that_expire(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Gpg(tmp_path / "gpg") as gpg:
        gpg.make_key("brief", expires="30d")
        key = gpg.public("brief")
    document = lock_of(setting.package)
    name = next(name for name in document["keys"] if not name.startswith("sha256:"))
    document["keys"][name] = b64encode(key).decode()
    (setting.package / lockfile.FILE_NAME).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    main(["check", "--arch", "x86_64", str(setting.package)])
    assert f"the key {name} expires on 20" in " ".join(capsys.readouterr().out.split())


def test_a_bundle_of_cosign_3_is_recognised(
    setting: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = images.small("bundle")
    setting.registry.push(image, "none/bundle:1")
    bundle = Attachment(b"{}", "application/vnd.dev.sigstore.bundle.v0.3+json", {})
    attach(setting.registry, "none/bundle", image.digest, [bundle], suffix="")
    package = setting.write_package(tmp_path / "bundle", "none/bundle")
    assert main(["prefetch", str(package)]) == 1
    assert "sign with 'cosign sign --new-bundle-format=false'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (
            "fulcio",
            {"fulcio": {"caData": "eA==", "oidcIssuer": "x", "subjectEmail": "y"}, "rekorPublicKeyData": "eA=="},
        ),
        ("pki", {"pki": {"caRootsData": "eA==", "subjectEmail": "y"}}),
        ("rekor", {"keyData": "eA==", "rekorPublicKeyData": "eA=="}),
    ],
)
def test_what_is_not_supported_is_refused_in_words(
    setting: Setting, kind: str, more: Mapping[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    setting.write_policy(setting.package, {setting.host: [{"type": "sigstoreSigned", **more}]})
    assert main(["prefetch", str(setting.package), "--policy", "policy.json"]) == 1
    error = capsys.readouterr().err
    assert "policy.json asks for " in error
    assert kind in error
    assert "which is not supported; use a key" in error


def test_a_policy_for_files_applies_to_layouts(
    setting: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = packages.write(tmp_path / "layout", packages.section("oci:.", 'name="app" tag="1"'))
    images.write_layout(images.small("layout"), package / "app", "1")
    document = {"default": ACCEPT, "transports": {"oci": {str(package / "app"): [{"type": "reject"}]}}}
    (package / "policy.json").write_text(json.dumps(document))
    assert main(["prefetch", "--arch", "x86_64", str(package), "--policy", "policy.json"]) == 1
    assert f"policy.json rejects it (scope oci {package / 'app'})" in capsys.readouterr().err


def test_a_key_that_expired_since_is_a_warning(
    setting: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = lock_of(setting.package)
    name = f"{setting.host}/free/app:1"
    image = document["containers"][name]["architectures"]["x86_64"]
    text = payload(image["manifest"]["digest"], name, type_=ATOMIC, optional={})
    with Gpg(tmp_path / "gpg") as gpg:
        gpg.make_key("old", expires="2021-01-01", at="20200101T000000")
        message = openpgp.uncompressed(gpg.sign(["old"], text, "--faked-system-time", "20200601T000000!"), 1 << 20)
        key = gpg.public("old")
    opened = Verifier().open(key, message)
    assert (opened.payload, opened.expired) == (text, "the key has expired")
    signature = {"type": "simple", "identity": name, "key": opened.fingerprint}
    image["signatures"] = [{**signature, "signature": b64encode(message).decode()}]
    document["keys"][opened.fingerprint] = b64encode(key).decode()
    (setting.package / lockfile.FILE_NAME).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    assert main(["verify", str(setting.package)]) == 0
    assert f"signature by {opened.fingerprint}: the key has expired" in " ".join(capsys.readouterr().err.split())
