"""Signed images and policies for them: fixed cases, each for one rule, and cases made at random from a seed."""

import json
import random
import re
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from osc_containers.oci.digest import Digest
from tests.support.docker_registry import DockerRegistry
from tests.support.images import AMD64, ARM64, Image, image, index, layer
from tests.support.policy_oracle import Case, policy_text
from tests.support.signing import (
    ATOMIC,
    COSIGN,
    SIGNATURE,
    Attachment,
    Gpg,
    PrivateKey,
    attach,
    attachment,
    make_key,
    payload,
    public_der,
    public_pem,
    sign,
)

_LAYER = layer({"etc/base": b"base\n"})
_KINDS = ("rsa2048", "rsa1024", "p224", "p256", "p384", "p521", "k256", "ed25519")
ACCEPT: Mapping[str, object] = {"type": "insecureAcceptAnything"}
REPOSITORY: Mapping[str, object] = {"type": "matchRepository"}


class World:
    """A registry, keys, and the directories that hold them; all of them are visible to the peers at the same paths.

    `store` is the address of a server with the signatures in `lookaside`, see `tests.support.lookaside`.
    """

    def __init__(self, registry: DockerRegistry, directory: Path, gpg: Gpg, store: str) -> None:
        self.registry = registry
        self.store = store
        self.host = registry.host
        self.directory = directory
        self.gpg = gpg
        self.keys: dict[str, PrivateKey] = {kind: make_key(kind) for kind in _KINDS}
        self.keys["other"] = make_key("p256")
        self._count = 0
        (directory / "keys").mkdir()
        for name, key in self.keys.items():
            self.file(f"{name}.pub", public_pem(key))
        for name in ("good", "other"):
            gpg.make_key(name, at="20250101T000000")
        gpg.make_key("rsa", algorithm="rsa2048")
        gpg.make_key("old", expires="2021-01-01", at="20200101T000000")
        gpg.make_key("sub", algorithm="ed25519")
        fingerprint = re.findall(
            r"^fpr:+([0-9A-F]+)", gpg.run("--with-colons", "--list-keys", "sub@example.org").decode(), re.M
        )[0]
        gpg.run("--quick-add-key", fingerprint, "ed25519", "sign")
        for name in ("good", "other", "rsa", "old", "sub"):
            self.file(f"{name}.gpg", gpg.public(name))
        self.file("good.asc", gpg.public("good", armor=True))

    def file(self, name: str, content: bytes) -> str:
        """Write a file with a key and return its path."""
        path = self.directory / "keys" / name
        path.write_bytes(content)
        return str(path)

    def key(self, name: str) -> str:
        """Return the path of a public key."""
        return str(self.directory / "keys" / name)

    def push(self, *, host: str = "", platforms: int = 1) -> tuple[str, str, Image]:
        """Store a new image; return its repository, its name without a tag, and the image. Its tag is `1`."""
        self._count += 1
        repository = f"case{self._count}/app"
        images = [self._image(platform) for platform in (AMD64, ARM64)[:platforms]]
        pushed = index(*images) if platforms > 1 else images[0]
        self.registry.push(pushed, f"{repository}:1")
        return repository, f"{host or self.host}/{repository}", pushed

    def _image(self, platform: Any) -> Image:
        return image(_LAYER, platform=platform, created=f"2020-01-01T00:00:{self._count % 60:02}.{self._count:06}Z")

    def lookaside(self, repository: str, digest: Digest, contents: Sequence[bytes]) -> None:
        """Store signatures as files."""
        directory = self.directory / "lookaside" / f"{repository}@{digest.algorithm}={digest.hex}"
        directory.mkdir(parents=True)
        for n, content in enumerate(contents, 1):
            (directory / f"signature-{n}").write_bytes(content)

    def case(self, title: str, policy: str, reference: str, registries_d: str | None = None, conf: str = "") -> Case:
        """Return a case; by default signatures are looked for beside the image and in the lookaside store."""
        default = {
            "default-docker": {
                "lookaside": f"file://{self.directory}/lookaside",
                "use-sigstore-attachments": True,
            }
        }
        text = json.dumps(default) if registries_d is None else registries_d
        local = f'[[registry]]\nlocation = "{self.host}"\ninsecure = true\n'
        return Case(title, policy, reference, {"default.yaml": text}, local + conf)

    def sigstore(
        self, key: str = "p256", identity: object = None, paths: Sequence[str] = (), **more: object
    ) -> dict[str, object]:
        """Return a requirement."""
        keys: Mapping[str, object] = more or (
            {"keyPaths": list(paths)} if paths else {"keyPath": self.key(f"{key}.pub")}
        )
        return {"type": "sigstoreSigned", **keys, **({"signedIdentity": identity} if identity else {})}

    def signed_by(self, key: str = "good.gpg", identity: object = None, **more: object) -> dict[str, object]:
        """Return a requirement for an OpenPGP key."""
        keys = more or {"keyPath": self.key(key)}
        return {"type": "signedBy", "keyType": "GPGKeys", **keys, **({"signedIdentity": identity} if identity else {})}

    def cosign(self, digest: object, identity: str, key: str = "p256", **options: Any) -> Attachment:
        """Return a signature as cosign makes it."""
        text = payload(digest, identity, **options)
        return attachment(text, sign(self.keys[key], text))

    def message(self, digest: object, identity: str, *names: str, options: Sequence[str] = (), **more: Any) -> bytes:
        """Return an OpenPGP signature as podman makes it."""
        text = payload(digest, identity, **{"type_": ATOMIC, "optional": {}, **more})
        return self.gpg.sign(names or ("good",), text, *options)

    def signed(self, key: str = "p256", *, tag: str = ":1") -> tuple[str, str, Image]:
        """Store an image that is signed under its full name."""
        repository, name, pushed = self.push()
        attach(self.registry, repository, pushed.digest, [self.cosign(pushed.digest, f"{name}{tag}", key)])
        return repository, name, pushed


def fixed_cases(world: World) -> Iterator[Case]:
    """Yield a case for each rule."""
    host = world.host
    signed = f"{world.signed()[1]}:1"
    plain = f"{world.push()[1]}:1"

    def policy(*requirements: object, scope: str = host, **more: object) -> str:
        return policy_text({scope: list(requirements)}, **more)  # type: ignore[arg-type]

    yield world.case("right key", policy(world.sigstore()), signed)
    yield world.case("wrong key", policy(world.sigstore("other")), signed)
    yield world.case("no signature", policy(world.sigstore()), plain)
    yield world.case("accept anything", policy(ACCEPT), plain)
    yield world.case("reject by default", policy(ACCEPT, scope="elsewhere.test"), plain)
    yield world.case("reject", policy({"type": "reject"}, default="insecureAcceptAnything"), signed)
    yield world.case("accept anything and a signature", policy(ACCEPT, world.sigstore()), signed)
    yield world.case("accept anything and no signature", policy(ACCEPT, world.sigstore()), plain)
    yield world.case(
        "second of two keys", policy(world.sigstore(paths=[world.key("other.pub"), world.key("p256.pub")])), signed
    )
    yield world.case(
        "a key that is no key spoils the others",
        policy(world.sigstore(paths=[world.key("p256.pub"), world.file("bad.pub", b"bad")])),
        signed,
    )
    yield world.case("a key file that is missing", policy(world.sigstore("nowhere")), signed)
    yield world.case(
        "key data", policy(world.sigstore(keyData=b64encode(public_pem(world.keys["p256"])).decode())), signed
    )
    yield world.case(
        "several key data",
        policy(world.sigstore(keyDatas=[b64encode(public_pem(world.keys[k])).decode() for k in ("other", "p256")])),
        signed,
    )
    for kind in _KINDS:
        yield world.case(f"key {kind}", policy(world.sigstore(kind)), f"{world.signed(kind)[1]}:1")

    repository, name, pushed = world.push()
    text = payload(pushed.digest, f"{name}:1")
    attach(world.registry, repository, pushed.digest, [attachment(text, sign(world.keys["rsa2048"], text, pss=True))])
    yield world.case("RSA-PSS", policy(world.sigstore("rsa2048")), f"{name}:1")
    repository, name, pushed = world.push()
    text = payload(pushed.digest, f"{name}:1")
    attach(
        world.registry,
        repository,
        pushed.digest,
        [attachment(text, sign(world.keys["p256"], text, algorithm="sha512"))],
    )
    yield world.case("SHA-512", policy(world.sigstore()), f"{name}:1")

    repository, name, pushed = world.push()
    attach(
        world.registry,
        repository,
        pushed.digest,
        [world.cosign(pushed.digest, f"{name}:1", key) for key in ("other", "p256")],
    )
    yield world.case("second of two signatures", policy(world.sigstore()), f"{name}:1")
    yield world.case("two requirements", policy(world.sigstore(), world.sigstore("other")), f"{name}:1")
    yield world.case("one of two requirements", policy(world.sigstore(), world.sigstore("rsa2048")), f"{name}:1")

    # Names.
    repository, name, pushed = world.signed(tag="")
    yield world.case("OBS signs without the tag", policy(world.sigstore()), f"{name}:1")
    yield world.case("matchRepository", policy(world.sigstore(identity=REPOSITORY)), f"{name}:1")
    yield world.case("a digest needs a name with a tag", policy(world.sigstore()), f"{name}@{pushed.digest}")
    repository, name, pushed = world.signed()
    world.registry.push(pushed, f"{repository}:2")
    yield world.case("another tag", policy(world.sigstore()), f"{name}:2")
    yield world.case("another tag, matchRepository", policy(world.sigstore(identity=REPOSITORY)), f"{name}:2")
    yield world.case("by digest", policy(world.sigstore()), f"{name}@{pushed.digest}")
    yield world.case(
        "by digest, matchExact", policy(world.sigstore(identity={"type": "matchExact"})), f"{name}@{pushed.digest}"
    )
    yield world.case(
        "exactReference",
        policy(world.sigstore(identity={"type": "exactReference", "dockerReference": f"{name}:1"})),
        f"{name}:2",
    )
    yield world.case(
        "exactReference, bare",
        policy(world.sigstore(identity={"type": "exactReference", "dockerReference": name})),
        f"{name}:1",
    )
    yield world.case(
        "exactRepository",
        policy(world.sigstore(identity={"type": "exactRepository", "dockerRepository": name})),
        f"{name}:2",
    )
    yield world.case(
        "remapIdentity",
        policy(world.sigstore(identity={"type": "remapIdentity", "prefix": host, "signedPrefix": "x.test"})),
        f"{name}:1",
    )
    repository, name, pushed = world.push()
    attach(world.registry, repository, pushed.digest, [world.cosign(pushed.digest, f"x.test/{repository}:1")])
    remap = {"type": "remapIdentity", "prefix": host, "signedPrefix": "x.test"}
    yield world.case("remapIdentity to the name", policy(world.sigstore(identity=remap)), f"{name}:1")
    yield world.case(
        "remapIdentity, invalid", policy(world.sigstore(identity={**remap, "signedPrefix": "x.test/"})), f"{name}:1"
    )

    # Content.
    repository, name, pushed = world.push()
    attach(world.registry, repository, pushed.digest, [world.cosign(Digest.of(b"other"), f"{name}:1")])
    yield world.case("signature of another digest", policy(world.sigstore()), f"{name}:1")
    for title, platforms in (("index", (0,)), ("platform", (1,)), ("index and platform", (0, 1))):
        repository, name, pushed = world.push(platforms=2)
        for number in platforms:
            signed_image = pushed if number == 0 else pushed.children[0]
            attach(world.registry, repository, signed_image.digest, [world.cosign(signed_image.digest, f"{name}:1")])
        yield world.case(f"signed {title}", policy(world.sigstore()), f"{name}:1")

    # Places.
    repository, name, pushed = world.push(host="upstream.test")
    attach(world.registry, repository, pushed.digest, [world.cosign(pushed.digest, f"{name}:1")])
    rewrite = f'[[registry]]\nprefix = "upstream.test"\nlocation = "{host}"\ninsecure = true\n'
    yield world.case(
        "rewritten, logical name", policy(world.sigstore(), scope="upstream.test"), f"{name}:1", conf=rewrite
    )
    yield world.case("rewritten, physical scope", policy(world.sigstore()), f"{name}:1", conf=rewrite)
    mirror = f'[[registry]]\nlocation = "upstream.test"\n[[registry.mirror]]\nlocation = "{host}"\ninsecure = true\n'
    yield world.case("mirror", policy(world.sigstore(), scope="*.test"), f"{name}:1", conf=mirror)
    by_host = json.dumps({"docker": {host: {"use-sigstore-attachments": True}}})
    yield world.case(
        "registries.d of the mirror", policy(world.sigstore(), scope="upstream.test"), f"{name}:1", by_host, mirror
    )
    by_name = json.dumps({"docker": {"upstream.test": {"use-sigstore-attachments": True}}})
    yield world.case(
        "registries.d of the name", policy(world.sigstore(), scope="upstream.test"), f"{name}:1", by_name, mirror
    )
    repository, name, pushed = world.signed()
    yield world.case("no registries.d", policy(world.sigstore()), f"{name}:1", "{}")
    yield world.case(
        "attachments switched off",
        policy(world.sigstore()),
        f"{name}:1",
        json.dumps(
            {
                "default-docker": {"use-sigstore-attachments": True},
                "docker": {name: {"use-sigstore-attachments": False}},
            }
        ),
    )
    yield world.case(
        "fallback key by key",
        policy(world.sigstore()),
        f"{name}:1",
        json.dumps(
            {
                "default-docker": {"use-sigstore-attachments": True},
                "docker": {name: {"lookaside": f"file://{world.directory}/lookaside"}},
            }
        ),
    )

    # OpenPGP.
    def stored(contents: Callable[[object, str], Sequence[bytes]]) -> str:
        repository, name, pushed = world.push()
        world.lookaside(repository, pushed.digest, contents(pushed.digest, f"{name}:1"))
        return f"{name}:1"

    good = stored(lambda digest, name: [world.message(digest, name)])
    yield world.case("OpenPGP", policy(world.signed_by()), good)
    yield world.case("OpenPGP, armored key", policy(world.signed_by("good.asc")), good)
    key, armored = world.gpg.public("good"), world.gpg.public("good", armor=True)
    for title, content in {
        "indented": b" " + armored,
        "after text": b"key:\n" + armored,
        "cut": key[:-1],
        "before other bytes": key + b"junk",
        "before another and other bytes": key + world.gpg.public("other") + b"junk",
        "after another and before other bytes": world.gpg.public("other") + key + b"junk",
    }.items():
        path = world.file(f"{title}.gpg", content)
        yield world.case(f"OpenPGP, key {title}", policy(world.signed_by(keyPath=path)), good)
    yield world.case(
        "OpenPGP, key data", policy(world.signed_by(keyData=b64encode(world.gpg.public("good")).decode())), good
    )
    yield world.case(
        "OpenPGP, several files",
        policy(world.signed_by(keyPaths=[world.key("other.gpg"), world.key("good.gpg")])),
        good,
    )
    yield world.case("OpenPGP, no files", policy(world.signed_by(keyPaths=[])), good)
    yield world.case(
        "OpenPGP, file that is no key",
        policy(world.signed_by(keyPaths=[world.key("good.gpg"), world.file("bad.gpg", b"bad")])),
        good,
    )
    yield world.case("OpenPGP, another key", policy(world.signed_by("other.gpg")), good)
    yield world.case("OpenPGP, other key type", policy({**world.signed_by(), "keyType": "X509Certificates"}), good)
    yield world.case("OpenPGP for sigstore", policy(world.sigstore()), good)
    yield world.case("sigstore for OpenPGP", policy(world.signed_by()), signed)
    yield world.case(
        "OpenPGP, RSA", policy(world.signed_by("rsa.gpg")), stored(lambda d, n: [world.message(d, n, "rsa")])
    )
    yield world.case(
        "OpenPGP, second of two",
        policy(world.signed_by()),
        stored(lambda d, n: [world.message(d, n, "other"), world.message(d, n)]),
    )
    yield world.case(
        "OpenPGP, two keys in one message",
        policy(world.signed_by()),
        stored(lambda d, n: [world.message(d, n, "good", "other")]),
    )
    yield world.case(
        "OpenPGP, signed by a subkey",
        policy(world.signed_by("sub.gpg")),
        stored(lambda d, n: [world.message(d, n, "sub")]),
    )
    old = ("--faked-system-time", "20200601T000000!")
    yield world.case(
        "OpenPGP, expired key",
        policy(world.signed_by("old.gpg")),
        stored(lambda d, n: [world.message(d, n, "old", options=old)]),
    )
    yield world.case(
        "OpenPGP, expired signature",
        policy(world.signed_by()),
        stored(
            lambda d, n: [
                world.message(d, n, options=("--faked-system-time", "20261101T000000", "--default-sig-expire", "1d"))
            ]
        ),
    )
    yield world.case(
        "OpenPGP, optional is null",
        policy(world.signed_by()),
        stored(lambda d, n: [world.message(d, n, optional=None)]),
    )
    yield world.case(
        "OpenPGP, type of cosign", policy(world.signed_by()), stored(lambda d, n: [world.message(d, n, type_=COSIGN)])
    )
    yield world.case(
        "OpenPGP, not compressed",
        policy(world.signed_by()),
        stored(lambda d, n: [world.message(d, n, options=("--compress-level", "0"))]),
    )

    def compressed(times: int) -> str:
        return stored(lambda d, n: [_deflated(world.message(d, n), times - 1)])

    for times in (2, 31, 32):
        yield world.case(f"OpenPGP, compressed {times} times", policy(world.signed_by()), compressed(times))
    yield world.case(
        "OpenPGP, compressed in parts",
        policy(world.signed_by()),
        stored(lambda d, n: [_in_parts(world.message(d, n, options=("--compress-level", "0")))]),
    )
    yield world.case(
        "OpenPGP, armored", policy(world.signed_by()), stored(lambda d, n: [world.message(d, n, options=("--armor",))])
    )
    yield world.case(
        "OpenPGP, with its format",
        policy(world.signed_by()),
        stored(lambda d, n: [b"\0simple-signing\n" + world.message(d, n)]),
    )
    yield world.case(
        "a file that is no signature", policy(world.signed_by()), stored(lambda d, n: [world.message(d, n), b"text"])
    )
    yield world.case("a file that is empty", policy(world.signed_by()), stored(lambda d, n: [b"", world.message(d, n)]))

    def as_json(digest: object, name: str) -> list[bytes]:
        each = world.cosign(digest, name)
        document = {
            "mimeType": each.media_type,
            "payload": b64encode(each.payload).decode(),
            "annotations": dict(each.annotations),
        }
        return [b"\0sigstore-json\n" + json.dumps(document).encode()]

    yield world.case("sigstore in a lookaside store", policy(world.sigstore()), stored(as_json))
    second = stored(lambda digest, name: [world.message(digest, name, "other"), world.message(digest, name)])
    for title, reference, base in (
        ("a store behind HTTP", good, f"http://{world.store}/files"),
        ("second of two, behind HTTP", second, f"http://{world.store}/files"),
        ("a store that ends in a slash", good, f"http://{world.store}/files/"),
        ("a store with a query", good, f"http://{world.store}/files?a=b%20c"),
        ("a store with an escaped path", good, f"http://{world.store}/f%69les"),
        ("a store that redirects", good, f"http://{world.store}/redirect"),
        ("a store that hides what is missing", good, f"http://{world.store}/hidden"),
        ("a store without a signature", f"{plain}", f"http://{world.store}/files"),
        ("a store that sends too much", good, f"http://{world.store}/large"),
        ("a store without TLS", good, f"https://{world.store}/files"),
        ("a store that is down", good, "http://127.0.0.1:1/files"),
        *((f"a store with status {status}", good, f"http://{world.store}/{status}") for status in (204, 401, 403, 410)),
        ("a store that fails", good, f"http://{world.store}/500"),
    ):
        yield world.case(
            title, policy(world.signed_by()), reference, json.dumps({"default-docker": {"lookaside": base}})
        )

    # Policies.
    for title, policy_of_case in _policies(world).items():
        yield world.case(f"policy: {title}", policy_of_case, signed)


def _policies(world: World) -> Mapping[str, str]:
    host, good = world.host, world.sigstore()
    pem = b64encode(public_pem(world.keys["p256"])).decode()

    def of(requirement: object) -> str:
        return policy_text({host: [requirement]})

    fulcio = {"caData": pem, "oidcIssuer": "x", "subjectEmail": "y"}
    return {
        "unknown field": of({**good, "more": 1}),
        "unknown field at the top": policy_text({host: [good]}, more=1),
        "unknown field of accept": policy_text({host: [good], "x.test": [{**ACCEPT, "more": 1}]}),
        "unknown type": policy_text({host: [good], "x.test": [{"type": "signed"}]}),
        "no default": json.dumps({"transports": {"docker": {host: [good]}}}),
        "default is null": json.dumps({"default": None, "transports": {"docker": {host: [good]}}}),
        "transports is null": json.dumps({"default": [ACCEPT], "transports": None}),
        "no requirement": policy_text({host: [good], "x.test": []}),
        "a requirement is null": policy_text({host: [good], "x.test": [None]}),
        "a requirement is text": policy_text({host: [good], "x.test": ["reject"]}),
        "type is null": policy_text({host: [good], "x.test": [{"type": None}]}),
        "two sources of keys": of({**good, "keyData": pem}),
        "an empty path beside key data": of({**world.sigstore(keyData=pem), "keyPath": ""}),
        "a null path beside key data": of({**world.sigstore(keyData=pem), "keyPath": None}),
        "null paths": of({**good, "keyPaths": None}),
        "no paths": of({**good, "keyPaths": []}),
        "null key data": of({**good, "keyData": None}),
        "empty key data": of({**good, "keyData": ""}),
        "key data with line breaks": of(world.sigstore(keyData=pem[:20] + "\r\n" + pem[20:] + "\n")),
        "key data with spaces": of(world.sigstore(keyData=pem[:20] + " " + pem[20:])),
        "key data without padding": of(world.sigstore(keyData=pem.rstrip("=") if "=" in pem else pem + "=")),
        "key data as a list": of(world.sigstore(keyData=list(public_pem(world.keys["p256"])))),
        "key path is a number": of(world.sigstore(keyPath=1)),
        "signed identity is null": of({**good, "signedIdentity": None}),
        "signed identity is text": of({**good, "signedIdentity": "matchExact"}),
        "identity with an unknown field": of({**good, "signedIdentity": {"type": "matchExact", "more": 1}}),
        "field twice": of(good).replace(
            '"type": "sigstoreSigned"', '"type": "sigstoreSigned", "type": "sigstoreSigned"'
        ),
        "scope twice": '{"default": [{"type": "reject"}], "transports": {"docker": {"x": [%s], "x": [%s]}}}'
        % ((json.dumps(good),) * 2),
        "upper case field": of(good).replace('"type"', '"Type"'),
        "trailing text": of(good) + " x",
        "NaN": of({**good, "keyPath": float("nan")}),
        "a byte that is not UTF-8": of(good).replace('"docker": {', '"docker": {"\udcff": [{"type": "reject"}], '),
        "empty": "",
        "signedBaseLayer": of({"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}),
        "signedBaseLayer elsewhere": policy_text(
            {host: [good], "x.test": [{"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}]}
        ),
        "dir: valid scope": json.dumps(
            {"default": [{"type": "reject"}], "transports": {"docker": {host: [good]}, "dir": {"/x": [ACCEPT]}}}
        ),
        "dir: invalid scope": json.dumps(
            {"default": [{"type": "reject"}], "transports": {"docker": {host: [good]}, "dir": {"/x/": [ACCEPT]}}}
        ),
        "docker-daemon: scope is a digest": json.dumps(
            {
                "default": [{"type": "reject"}],
                "transports": {"docker": {host: [good]}, "docker-daemon": {f"sha256:{'0' * 64}": [ACCEPT]}},
            }
        ),
        "docker-archive: scope": json.dumps(
            {
                "default": [{"type": "reject"}],
                "transports": {"docker": {host: [good]}, "docker-archive": {"/x": [ACCEPT]}},
            }
        ),
        "containers-storage: valid scope": json.dumps(
            {
                "default": [{"type": "reject"}],
                "transports": {"docker": {host: [good]}, "containers-storage": {"[overlay@/x]a": [ACCEPT]}},
            }
        ),
        "containers-storage: invalid scope": json.dumps(
            {
                "default": [{"type": "reject"}],
                "transports": {"docker": {host: [good]}, "containers-storage": {"x": [ACCEPT]}},
            }
        ),
        "sif: invalid scope": json.dumps(
            {"default": [{"type": "reject"}], "transports": {"docker": {host: [good]}, "sif": {"x": [ACCEPT]}}}
        ),
        "tarball: scope": json.dumps(
            {"default": [{"type": "reject"}], "transports": {"docker": {host: [good]}, "tarball": {"/x": [ACCEPT]}}}
        ),
        "oci: root": json.dumps(
            {"default": [{"type": "reject"}], "transports": {"docker": {host: [good]}, "oci": {"/": [ACCEPT]}}}
        ),
        "oci-archive: two slashes": json.dumps(
            {
                "default": [{"type": "reject"}],
                "transports": {"docker": {host: [good]}, "oci-archive": {"//x": [ACCEPT]}},
            }
        ),
        "ostree: scope": json.dumps(
            {"default": [{"type": "reject"}], "transports": {"docker": {host: [good]}, "ostree": {"x": [ACCEPT]}}}
        ),
        "atomic: invalid scope": json.dumps(
            {"default": [{"type": "reject"}], "transports": {"docker": {host: [good]}, "atomic": {"a/b/c/d": [ACCEPT]}}}
        ),
        "unknown transport": json.dumps(
            {"default": [{"type": "reject"}], "transports": {"docker": {host: [good]}, "more": {"x": [ACCEPT]}}}
        ),
        "fulcio elsewhere": policy_text(
            {host: [good], "x.test": [{"type": "sigstoreSigned", "fulcio": fulcio, "rekorPublicKeyData": pem}]}
        ),
        "fulcio without rekor": policy_text({host: [good], "x.test": [{"type": "sigstoreSigned", "fulcio": fulcio}]}),
        "fulcio without an issuer": policy_text(
            {
                host: [good],
                "x.test": [
                    {
                        "type": "sigstoreSigned",
                        "fulcio": {"caData": pem, "subjectEmail": "y"},
                        "rekorPublicKeyData": pem,
                    }
                ],
            }
        ),
        "pki elsewhere": policy_text(
            {host: [good], "x.test": [{"type": "sigstoreSigned", "pki": {"caRootsData": pem, "subjectEmail": "y"}}]}
        ),
        "pki with rekor": policy_text(
            {
                host: [good],
                "x.test": [
                    {
                        "type": "sigstoreSigned",
                        "pki": {"caRootsData": pem, "subjectEmail": "y"},
                        "rekorPublicKeyData": pem,
                    }
                ],
            }
        ),
        "rekor, but no entry": of({**good, "rekorPublicKeyData": pem}),
        "two rekor keys": policy_text(
            {host: [good], "x.test": [{**good, "rekorPublicKeyData": pem, "rekorPublicKeyPath": "x"}]}
        ),
        "signedBy with two empty sources": policy_text(
            {host: [good], "x.test": [{**world.signed_by(), "keyData": None}]}
        ),
        "signedBy without a key type": policy_text({host: [good], "x.test": [{"type": "signedBy", "keyPath": "x"}]}),
    }


def generated_cases(world: World, seed: int, count: int) -> Iterator[Case]:
    """Yield random cases; the same seed gives the same choices."""
    random_ = random.Random(seed)
    for number in range(count):
        yield _Generated(world, random_, f"seed {seed} case {number}").case()


class _Generated:
    """One random image with random signatures, and a random policy that often fits."""

    def __init__(self, world: World, random_: random.Random, title: str) -> None:
        self._world = world
        self._random = random_
        self._title = title
        self._notes: list[str] = []

    def _pick(self, *choices: Any, note: str = "") -> Any:
        choice = self._random.choice(choices)
        if note:
            self._notes.append(f"{note}={choice if isinstance(choice, str) else choices.index(choice)}"[:60])
        return choice

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def case(self) -> Case:
        world = self._world
        is_gpg = self._chance(0.3)
        host = "upstream.test" if self._chance(0.2) else world.host
        platforms = 2 if self._chance(0.1) else 1
        repository, name, pushed = world.push(host=host, platforms=platforms)
        subject = pushed.children[0] if platforms == 2 and not self._chance(0.2) else pushed
        reference = f"{name}:1" if self._chance(0.8) else f"{name}@{pushed.digest}"
        keys = [self._key_name(is_gpg) for _ in range(self._pick(0, *[1] * 8, 2, 2, 3))]
        identity = self._signed_name(name, repository, pushed.digest)
        if is_gpg:
            world.lookaside(repository, subject.digest, [self._message(subject.digest, identity, key) for key in keys])
        elif keys:
            attach(
                world.registry,
                repository,
                subject.digest,
                [self._attachment(subject.digest, identity, key) for key in keys],
            )
        requirements = [
            self._requirement(
                is_gpg,
                self._random.choice(keys) if keys and self._chance(0.93) else self._key_name(is_gpg),
                identity,
                name,
                reference,
            )
            for _ in range(self._pick(1, 1, 1, 1, 2))
        ]
        if self._chance(0.1):
            requirements.insert(self._random.randrange(len(requirements) + 1), self._pick(ACCEPT, {"type": "reject"}))
        text = policy_text(self._scopes(requirements, name, reference))
        if self._chance(0.08):
            text = self._mutate_json(text)
        local = f'location = "{world.host}"\ninsecure = true\n'
        conf = self._pick(
            f'[[registry]]\nprefix = "upstream.test"\n{local}',
            f'[[registry]]\nlocation = "upstream.test"\n[[registry.mirror]]\n{local}',
        )
        return world.case(
            f"{self._title}: {' '.join(self._notes)}", text, reference, self._registries_d(name, repository), conf
        )

    def _key_name(self, is_gpg: bool) -> str:
        return str(
            self._pick("good", "other", "rsa", "sub", note="key")
            if is_gpg
            else self._pick(*_KINDS, "other", "p256", "rsa2048", note="key")
        )

    def _signed_name(self, name: str, repository: str, digest: Digest) -> str:
        if self._chance(0.75):
            return f"{name}:1"
        return str(
            self._pick(
                name,
                f"{name}:2",
                f"{name}:latest",
                f"{name}@{digest}",
                f"{name}:1@{digest}",
                f"{name}/more:1",
                f"signed.test/{repository}:1",
                f"signed.test/{repository}",
                repository,
                f"{name.upper()}:1",
                f"{name.rpartition('/')[0]}/other:1",
                f" {name}:1",
                f"docker://{name}:1",
                "0" * 64,
                f"{name}:",
                f"{name}:1@sha256:00",
                f"{name.replace('app', 'a--p')}:1",
                "",
                note="signed",
            )
        )

    def _payload(self, digest: Digest, identity: str, type_: str) -> bytes:
        is_simple = type_ == ATOMIC
        text = payload(digest, identity, type_=type_, optional={} if is_simple else None)
        if self._chance(0.75):
            return text
        document = json.loads(text)
        mutation = self._pick(*_PAYLOADS, note="payload")
        return _PAYLOADS[mutation](text, document)

    def _attachment(self, digest: Digest, identity: str, key: str) -> Attachment:
        world = self._world
        text = self._payload(digest, identity, COSIGN)
        value = sign(world.keys[key], text)
        encoded = b64encode(value).decode()
        if self._chance(0.82):
            return attachment(text, value)
        mutation = self._pick(*_SIGNATURES, note="signature")
        annotations = {SIGNATURE: _SIGNATURES[mutation](world.keys[key], text, encoded)}
        if mutation == "no annotation":
            annotations = {}
        media_type = (
            "application/vnd.dsse.envelope.v1+json"
            if mutation == "other media type"
            else attachment(b"", b"").media_type
        )
        return Attachment(text, media_type, annotations)

    def _message(self, digest: Digest, identity: str, key: str) -> bytes:
        text = self._payload(digest, identity, ATOMIC)
        options = self._pick(
            (),
            (),
            (),
            ("--compress-level", "0"),
            ("--digest-algo", "SHA512"),
            ("--digest-algo", "SHA1"),
            ("--textmode",),
            ("--bzip2-compress-level", "6", "--compress-algo", "bzip2"),
        )
        message = self._world.gpg.sign((key,), text, *options)
        mutation = self._pick(
            "none",
            "none",
            "none",
            "none",
            "twice",
            "cut",
            "flip",
            "format",
            "trailing",
            "clear",
            "detached",
            note="message",
        )
        if mutation == "twice":
            return message + message
        if mutation == "cut":
            return message[: self._random.randrange(1, len(message))]
        if mutation == "flip":
            at = self._random.randrange(len(message) - 1) + 1
            return message[:at] + bytes((message[at] ^ 1 << self._random.randrange(8),)) + message[at + 1 :]
        if mutation == "format":
            return b"\0simple-signing\n" + message
        if mutation == "trailing":
            return message + b"\0"
        if mutation == "clear":
            return b"\0simple-signing\n" + self._world.gpg.sign((key,), text, "--clear-sign")
        if mutation == "detached":
            return self._world.gpg.sign((key,), text, "--detach-sign")
        return message

    def _requirement(self, is_gpg: bool, key: str, signed: str, name: str, reference: str) -> dict[str, object]:
        identity = None if self._chance(0.5) else self._identity(signed, name, reference)
        world = self._world
        if is_gpg:
            if self._chance(0.2):
                return world.signed_by(
                    identity=identity, keyPaths=[world.key(f"{each}.gpg") for each in (key, "other")]
                )
            if self._chance(0.2):
                armored = world.gpg.run("--armor", "--export", f"{key}@example.org")
                return world.signed_by(
                    identity=identity,
                    keyData=b64encode(self._pick(armored, armored + armored, b"text\n" + armored)).decode(),
                )
            return world.signed_by(f"{key}.gpg", identity)
        if self._chance(0.4):
            encoding = self._pick(*_ENCODINGS, note="encoding")
            content = _ENCODINGS[encoding](world.keys[key])
            data = b64encode(content).decode()
            return (
                world.sigstore(identity=identity, keyDatas=[data])
                if self._chance(0.3)
                else world.sigstore(identity=identity, keyData=data)
            )
        if self._chance(0.2):
            return world.sigstore(
                identity=identity,
                paths=[world.key(f"{each}.pub") for each in (key, self._pick("other", "k256", "rsa1024"))],
            )
        return world.sigstore(key, identity)

    def _identity(self, signed: str, name: str, reference: str) -> dict[str, object]:
        kind = self._pick(
            "matchExact",
            "matchRepoDigestOrExact",
            "matchRepository",
            "exactReference",
            "exactRepository",
            "remapIdentity",
            note="identity",
        )
        host = name.partition("/")[0]
        if kind == "exactReference":
            return {"type": kind, "dockerReference": self._pick(signed, f"{name}:1", reference, name)}
        if kind == "exactRepository":
            return {"type": kind, "dockerRepository": self._pick(signed, name, f"{name}:9", "Upper/case", "busybox")}
        if kind == "remapIdentity":
            prefixes = (host, host, name, name.rpartition("/")[0], host[:-1], f"{name}:1", f"{host}/", "")
            targets = (
                "signed.test",
                "signed.test",
                host,
                name,
                "busybox",
                "localhost",
                f"signed.test/{name.partition('/')[2]}",
                "a_b.test",
            )
            return {"type": kind, "prefix": self._pick(*prefixes), "signedPrefix": self._pick(*targets)}
        return {"type": kind}

    def _scopes(self, requirements: list[Any], name: str, reference: str) -> dict[str, object]:
        host, _, path = name.partition("/")
        bare = host.partition(":")[0]
        narrow = (
            reference,
            name,
            name.rpartition("/")[0],
            host,
            f"*.{bare.partition('.')[2]}",
            f"*.{bare.rpartition('.')[2]}",
            "",
        )
        wrong = (
            bare,
            f"*.{bare}",
            f"{host}/",
            f"*{bare[1:]}",
            path,
            f"{name}/app",
            host.upper(),
            f"{name}:2",
            name[:-1],
            "*",
            ".",
        )
        scopes: dict[str, object] = {self._pick(*narrow, note="scope"): requirements}
        for _ in range(self._pick(0, 0, 1, 2)):
            scopes.setdefault(self._pick(*narrow, *wrong), [self._pick(ACCEPT, {"type": "reject"})])
        if self._chance(0.06):
            scopes = {self._pick(*wrong, note="wrong"): requirements}
        return scopes

    def _registries_d(self, name: str, repository: str) -> str | None:
        if self._chance(0.85):
            return None
        world, host = self._world, self._world.host
        physical = f"{host}/{repository}"
        store = f"file://{world.directory}/lookaside"
        scopes = (
            physical,
            f"{physical}:1",
            host,
            f"{host}/{repository.partition('/')[0]}",
            name,
            "*.0.0.1",
            "*.1",
            "127.0.0.1",
            "",
        )
        document: dict[str, Any] = {"docker": {}}
        for _ in range(self._pick(1, 2)):
            document["docker"][self._pick(*scopes, note="d")] = self._pick(
                {"use-sigstore-attachments": True, "lookaside": store},
                {"use-sigstore-attachments": True},
                {"use-sigstore-attachments": False},
                {"use-sigstore-attachments": None, "sigstore": store},
                {"lookaside": store},
                {"lookaside": "", "more": 1},
                {"lookaside-staging": store},
                None,
            )
        if self._chance(0.5):
            document["default-docker"] = self._pick(
                {"use-sigstore-attachments": True, "lookaside": store}, {"sigstore": store}, None, {}
            )
        text = json.dumps(document)
        if self._chance(0.2):
            text = text.replace("true", self._pick("yes", "on", "y", "True", '"true"', "1", note="yaml"))
        return text

    def _mutate_json(self, text: str) -> str:
        """Replace a value somewhere in a policy by one of another type, or add, remove or repeat a field."""
        document = json.loads(text)
        places: list[tuple[Any, Any]] = []

        def walk(value: Any) -> None:
            if isinstance(value, dict | list):
                for key in value if isinstance(value, dict) else range(len(value)):
                    places.append((value, key))
                    walk(value[key])

        walk(document)
        container, key = self._random.choice(places)
        mutation = self._pick("replace", "replace", "remove", "add", "repeat", note=f"policy at {key}")
        if mutation == "replace":
            container[key] = self._pick(None, True, 1, 1.5, "", "x", [], {}, [None], {"type": "reject"}, note="by")
        elif mutation == "remove":
            del container[key]
        elif mutation == "add" and isinstance(container, dict):
            container[self._pick("more", "", "type", "keyPath", "keyData")] = self._pick("x", None, 1)
        elif isinstance(container, dict):
            value = json.dumps(container[key])
            return json.dumps(document).replace(
                f"{json.dumps(key)}: {value}", f"{json.dumps(key)}: {value}, {json.dumps(key)}: {value}", 1
            )
        return json.dumps(document)


def _with(path: Sequence[str], value: object) -> Callable[[bytes, Any], bytes]:
    def change(_text: bytes, document: Any) -> bytes:
        target = document
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value
        return json.dumps(document).encode()

    return change


def _without(*path: str) -> Callable[[bytes, Any], bytes]:
    def change(_text: bytes, document: Any) -> bytes:
        target = document
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]
        return json.dumps(document).encode()

    return change


_PAYLOADS: Mapping[str, Callable[[bytes, Any], bytes]] = {
    "spaces": lambda text, _: b"\n\t " + text.replace(b":", b" : ") + b"\r\n",
    "trailing": lambda text, _: text + b"x",
    "trailing zero": lambda text, _: text + b"\0",
    "byte order mark": lambda text, _: b"\xef\xbb\xbf" + text,
    "upper case key": lambda text, _: text.replace(b'"critical"', b'"Critical"'),
    "twice": lambda text, _: text.replace(b'"type":', b'"type":"x","type":'),
    "optional twice": lambda text, _: text[:-1] + b',"optional":{}}',
    "extra": _with(["more"], 1),
    "extra in critical": _with(["critical", "more"], 1),
    "extra in image": _with(["critical", "image", "more"], 1),
    "extra in identity": _with(["critical", "identity", "more"], 1),
    "type": _with(["critical", "type"], "x"),
    "type is null": _with(["critical", "type"], None),
    "identity is null": _with(["critical", "identity"], None),
    "name is null": _with(["critical", "identity", "docker-reference"], None),
    "digest is null": _with(["critical", "image", "docker-manifest-digest"], None),
    "digest is a number": _with(["critical", "image", "docker-manifest-digest"], 5),
    "digest of SHA-512": _with(["critical", "image", "docker-manifest-digest"], f"sha512:{'0' * 128}"),
    "digest in upper case": lambda text, d: text.replace(
        d["critical"]["image"]["docker-manifest-digest"].encode(),
        b"sha256:" + d["critical"]["image"]["docker-manifest-digest"][7:].upper().encode(),
    ),
    "no optional": _without("optional"),
    "no type": _without("critical", "type"),
    "optional is empty": _with(["optional"], {}),
    "optional is null": _with(["optional"], None),
    "optional is a list": _with(["optional"], []),
    "optional is text": _with(["optional"], ""),
    "optional has anything": _with(["optional"], {"x": {"y": [1, 2.5, None, True]}}),
    "optional has duplicates": lambda text, _: text.replace(
        b'"optional":null', b'"optional":{"x":{"y":1,"y":2}}'
    ).replace(b'"optional":{}', b'"optional":{"x":{"y":1,"y":2}}'),
    "optional has a duplicate": lambda text, _: text.replace(b'"optional":null', b'"optional":{"x":1,"x":2}').replace(
        b'"optional":{}', b'"optional":{"x":1,"x":2}'
    ),
    "creator": _with(["optional"], {"creator": "OBS"}),
    "creator is null": _with(["optional"], {"creator": None}),
    "creator is a number": _with(["optional"], {"creator": 1}),
    "timestamp": _with(["optional"], {"timestamp": 1700000000}),
    "timestamp is null": _with(["optional"], {"timestamp": None}),
    "timestamp is a fraction": _with(["optional"], {"timestamp": 1.5}),
    "timestamp is text": _with(["optional"], {"timestamp": "1"}),
    "timestamp is large": _with(["optional"], {"timestamp": 2**63}),
    "timestamp is boolean": _with(["optional"], {"timestamp": True}),
    "number is too large": lambda text, _: text.replace(b'"optional":null', b'"optional":{"x":1e999}').replace(
        b'"optional":{}', b'"optional":{"x":1e999}'
    ),
    "number is long": lambda text, _: text.replace(b'"optional":null', b'"optional":{"x":' + b"1" * 300 + b"}").replace(
        b'"optional":{}', b'"optional":{"x":' + b"1" * 300 + b"}"
    ),
    "number with a leading zero": lambda text, _: text.replace(b'"optional":null', b'"optional":{"x":01}').replace(
        b'"optional":{}', b'"optional":{"x":01}'
    ),
    "NaN": lambda text, _: text.replace(b'"optional":null', b'"optional":{"x":NaN}').replace(
        b'"optional":{}', b'"optional":{"x":NaN}'
    ),
    "not UTF-8": lambda text, _: text.replace(b'"optional":null', b'"optional":{"x":"\xff"}').replace(
        b'"optional":{}', b'"optional":{"x":"\xff"}'
    ),
    "lone surrogate": lambda text, _: text.replace(b'"optional":null', b'"optional":{"x":"\\ud800"}').replace(
        b'"optional":{}', b'"optional":{"x":"\\ud800"}'
    ),
    "control character": lambda text, _: text.replace(b'"optional":null', b'"optional":{"x":"\x01"}').replace(
        b'"optional":{}', b'"optional":{"x":"\x01"}'
    ),
    "a list": lambda text, _: b"[" + text + b"]",
    "empty": lambda _text, _: b"",
    "escaped": lambda text, _: text.replace(b"docker-reference", b"docker\\u002dreference"),
}

_SIGNATURES: Mapping[str, Callable[[PrivateKey, bytes, str], str]] = {
    "no annotation": lambda _key, _text, encoded: encoded,
    "other media type": lambda _key, _text, encoded: encoded,
    "line breaks": lambda _key, _text, encoded: encoded[:10] + "\n" + encoded[10:] + "\r\n",
    "spaces": lambda _key, _text, encoded: encoded[:10] + " " + encoded[10:],
    "no padding": lambda _key, _text, encoded: encoded.rstrip("="),
    "more padding": lambda _key, _text, encoded: encoded + "=",
    "trailing": lambda _key, _text, encoded: encoded + "x",
    "url alphabet": lambda _key, _text, encoded: encoded.replace("+", "-").replace("/", "_"),
    "last bits": lambda _key, _text, encoded: re.sub(
        r"[A-Za-z0-9+/](=*)$", lambda m: f"{'B' if m[1] else m[0][0]}{m[1]}", encoded
    ),
    "empty": lambda _key, _text, _encoded: "",
    "a byte more": lambda key, text, _encoded: b64encode(sign(key, text) + b"\0").decode(),
    "a byte less": lambda key, text, _encoded: b64encode(sign(key, text)[:-1]).decode(),
    "SHA-512": lambda key, text, _encoded: b64encode(sign(key, text, algorithm="sha512")).decode(),
    "SHA-384": lambda key, text, _encoded: b64encode(sign(key, text, algorithm="sha384")).decode(),
    "of other text": lambda key, text, _encoded: b64encode(sign(key, text + b" ")).decode(),
    "of the hash": lambda key, text, _encoded: b64encode(sign(key, Digest.of(text).hex.encode())).decode(),
}


def _pem(label: str, der: bytes, width: int = 64, end: str = "\n", headers: str = "") -> bytes:
    text = b64encode(der).decode()
    lines = end.join(text[i : i + width] for i in range(0, len(text), width))
    return f"-----BEGIN {label}-----{end}{headers}{lines}{end}-----END {label}-----{end}".encode()


def _pkcs1(key: PrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    if not isinstance(key, rsa.RSAPrivateKey):
        return public_pem(key)
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)


def _deflated(message: bytes, times: int) -> bytes:
    """Return a message in so many packets of compressed data (RFC 4880, section 5.6)."""
    for _ in range(times):
        compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        message = b"\xa3\x01" + compressor.compress(message) + compressor.flush()
    return message


def _in_parts(message: bytes) -> bytes:
    """Return a compressed message with partial lengths, of 128 bytes each."""
    body, result = _deflated(message, 1)[1:], b"\xc8"
    while len(body) > 128:
        result, body = result + b"\xe7" + body[:128], body[128:]
    return result + bytes([len(body)]) + body


def _compressed(key: PrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return public_pem(key)
    point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    der = public_der(key)
    # Replace the uncompressed point; all lengths stay below 256.
    algorithm = der[der.index(b"\x30", 1) :]
    algorithm = algorithm[: 2 + algorithm[1]]
    bits = bytes((3, len(point) + 1, 0)) + point
    body = algorithm + bits
    return _pem("PUBLIC KEY", bytes((0x30, len(body))) + body)


def _private(key: PrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


_ENCODINGS: Mapping[str, Callable[[PrivateKey], bytes]] = {
    "CRLF": lambda key: _pem("PUBLIC KEY", public_der(key), end="\r\n"),
    "long lines": lambda key: _pem("PUBLIC KEY", public_der(key), width=5000),
    "short lines": lambda key: _pem("PUBLIC KEY", public_der(key), width=10),
    "text before": lambda key: b"some text\n" + public_pem(key),
    "text before without a line": lambda key: b"some text" + public_pem(key),
    "text after": lambda key: public_pem(key) + b"text",
    "headers": lambda key: _pem("PUBLIC KEY", public_der(key), headers="Comment: x\n\n"),
    "header without an empty line": lambda key: _pem("PUBLIC KEY", public_der(key), headers="Comment: x\n"),
    "spaces in lines": lambda key: public_pem(key).replace(b"\nM", b"\n M "),
    "spaces at the ends": lambda key: public_pem(key).replace(b"\n", b" \t\n"),
    "no last line break": lambda key: public_pem(key).rstrip(),
    "text after the end line": lambda key: public_pem(key).rstrip() + b"x\n",
    "two keys": lambda key: public_pem(key) + public_pem(make_key("ed25519")),
    "second of two": lambda key: public_pem(make_key("ed25519")) + public_pem(key),
    "after a broken block": lambda key: b"-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----\n" + public_pem(key),
    "after an open block": lambda key: b"-----BEGIN PUBLIC KEY-----\n" + public_pem(key),
    "after another label": lambda key: _pem("CERTIFICATE", b"x") + public_pem(key),
    "another label": lambda key: _pem("EC PUBLIC KEY", public_der(key)),
    "PKCS #1": _pkcs1,
    "PKCS #1 label": lambda key: _pem("RSA PUBLIC KEY", public_der(key)),
    "private": _private,
    "DER": public_der,
    "compressed point": _compressed,
    "a byte after": lambda key: _pem("PUBLIC KEY", public_der(key) + b"\0"),
    "cut off": lambda key: _pem("PUBLIC KEY", public_der(key)[:-1]),
    "byte order mark": lambda key: b"\xef\xbb\xbf" + public_pem(key),
    "dashes": lambda key: public_pem(key).replace(b"-----BEGIN", b"----- BEGIN"),
    "empty": lambda _key: b"",
}
