"""What is fuzzed: for each parser a function that takes any bytes, and may raise what the parser declares and no more.

Beyond that each says what holds of whatever gets through.
"""

import functools
import io
import os
import re
import tarfile
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from lxml import etree

from osc_containers.archive import blobs
from osc_containers.archive.layout import lay_out
from osc_containers.archive.verify import check_images
from osc_containers.errors import DescriptionError, Error, LockError, PolicyError, RegistryError
from osc_containers.evidence.policy import parser, registries_d
from osc_containers.evidence.policy.identity import Identity, IdentityRule
from osc_containers.evidence.signatures import openpgp, payload, programs, public_key, signature
from osc_containers.formats import cpio, layer_tar, xml_editor, xml_reader, xml_tags
from osc_containers.inject.packages import installed
from osc_containers.inject.packages.databases import Databases
from osc_containers.inject.store import build, squashfs
from osc_containers.inject.store.inflate import inflate
from osc_containers.inject.store.layer_tree import LayerTree
from osc_containers.inject.store.squashfs import Entry
from osc_containers.inject.store.tar_split import TarSplit
from osc_containers.kiwi import description
from osc_containers.kiwi.image_source import Source, interpret
from osc_containers.lock import archive_names, lockfile
from osc_containers.lock.lockfile import LockedImage, LockedReference
from osc_containers.obs import service_file
from osc_containers.obs.package import Package
from osc_containers.oci import image_config, quirk
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import (
    Descriptor,
    Manifest,
    candidates,
    created_of,
    engine_choice,
    parse_document,
    platform_of,
)
from osc_containers.oci.reference import Reference
from osc_containers.registry import challenge as auth
from osc_containers.registry import retry
from osc_containers.registry.config import auth_json, registries_conf
from osc_containers.sources.blob_store import Tar
from osc_containers.sources.docker_archive import DockerArchive
from osc_containers.sources.oci_layout import OciLayout
from tests.support import images, store
from tests.support.slices import slice_of

_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_REFERENCE = Reference.parse("registry.example/team/app:1.0")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _expect_printable(*texts: str) -> None:
    assert texts
    assert all(text.isprintable() for text in texts), texts


def parse_description(data: bytes) -> None:
    """Read a description with an include, which is the other half of the bytes."""
    xml, _, included = data.partition(b"\0\0")

    def load(name: str) -> bytes:
        if name != "containers.xml":
            raise FileNotFoundError
        return included

    try:
        found = description.parse(xml, Path("appliance.kiwi"), load)
    except DescriptionError as error:
        _expect_printable(*error.problems)
        return
    for arch in ("x86_64", "aarch64"):
        for container in found.of_architecture(arch):
            assert (str(container.reference) + container.origin).isprintable()
    edited = description.remove_containers(xml)
    assert xml_editor.spans(edited, "containers") == ()


def parse_reference(data: bytes) -> None:
    """Read an image name, and make a file name of it."""
    try:
        reference = Reference.parse(_text(data))
    except ValueError:
        return
    assert Reference.parse(str(reference)) == reference
    assert _SAFE_NAME.fullmatch(archive_names.archive(archive_names.flatten([reference])[reference], "x86_64"))


def parse_origin(data: bytes) -> None:
    """Join the four attributes of a container."""
    source, path, name, tag, *_ = (*_text(data).split("\n"), "", "", "", "")
    try:
        origin = interpret(source=Source.parse(source), path=path, name=name, tag=tag)
    except ValueError as error:
        _expect_printable(str(error))
        return
    assert (origin.location + origin.file_name + str(origin.reference)).isprintable()
    assert not {"..", "."} & set(origin.file_name.split("/"))
    assert not origin.file_name.startswith("/")


def parse_manifest(data: bytes) -> None:
    """Read a manifest or an index."""
    kind, _, raw = data.partition(b"\n")
    try:
        found = parse_document(raw, _text(kind), "registry.example/app:1")
        if not isinstance(found, Manifest):
            engine_choice(found, images.AMD64)
            candidates(found, images.AMD64, "app")
            return
    except ValueError as error:
        _expect_printable(str(error))
        return
    for each in quirk.find(found):
        _expect_printable(each.detail)
    lay_out(
        Image(
            manifest=Descriptor(digest=found.digest, size=len(raw), media_type=found.media_type),
            config=found.config,
            layers=found.layers,
        ),
        _REFERENCE,
        "x86_64",
    )


def parse_config(data: bytes) -> None:
    """Read a configuration."""
    try:
        platform, created = platform_of(data, "config"), created_of(data, "config")
    except ValueError as error:
        _expect_printable(str(error))
        return
    assert (str(platform) + created).isprintable()


def parse_lock(data: bytes) -> None:
    """Read a lock, and write it as it was."""
    try:
        found = lockfile.loads(data.decode())
    except UnicodeDecodeError:
        return
    except LockError as error:
        _expect_printable(*error.problems)
        return
    assert lockfile.loads(lockfile.dumps(found)) == found


def parse_policy(data: bytes) -> None:
    """Read a signature policy, and ask it for the scope of an image."""
    try:
        found = parser.parse(data, "policy.json")
    except PolicyError as error:
        _expect_printable(*error.problems)
        return
    for requirement in found.all_requirements():
        requirement.identity.check()
        requirement.identity.accepts(Identity.of(_REFERENCE), "registry.example/team/app:1.0")
    assert found.requirements("docker", Identity.of(_REFERENCE).scopes())[1]


def parse_signature_stores(data: bytes) -> None:
    """Read a file of registries.d."""
    try:
        default, scopes = registries_d.parse(data)
    except ValueError as error:
        _expect_printable(str(error))
        return
    stores = registries_d.SignatureStores(scopes=scopes, default=default or registries_d.Settings())
    assert stores.lookaside(scopes)


def parse_payload(data: bytes) -> None:
    """Read the payload of a signature, and a signature in a file."""
    for format_ in (payload.SIMPLE, payload.SIGSTORE):
        try:
            claim = payload.parse(data, format_)
        except ValueError as error:
            _expect_printable(str(error))
            continue
        IdentityRule("matchRepository").accepts(Identity.of(_REFERENCE), claim.identity)
    with suppress(ValueError):
        signature.of_file(data)


def parse_gpg_status(data: bytes) -> None:
    """Read what gpgv says. Only one good signature by a primary key counts."""
    for status in (0, 1):
        try:
            opened = programs.read_status(b"", data, status)
        except ValueError as error:
            _expect_printable(str(error))
            continue
        assert opened.fingerprint.isalnum()
        assert data.count(b"[GNUPG:] ") >= 3
        assert status == 0 or opened.expired


def parse_keys(data: bytes) -> None:
    """Read a public key in PEM, and an OpenPGP keyring and message."""
    ring = openpgp.keyring(data)
    assert openpgp.keyring(ring) == ring
    assert openpgp.key_of(ring, "0" * 40) == ring
    assert (openpgp.expiry(ring) or 1) > 0
    try:
        message = openpgp.uncompressed(data, 1 << 16)
    except ValueError as error:
        _expect_printable(str(error))
    else:
        assert openpgp.uncompressed(message, 1 << 16) == message
    try:
        key = public_key.parse_pem(data)
    except ValueError as error:
        _expect_printable(str(error))
        return
    assert public_key.parse_der(key.der) == key == public_key.parse_pem(key.pem)
    key.fits(data)


def read_tar(data: bytes) -> None:
    """Look for blobs in what seems to be an archive."""
    _read_blobs(data, "x.ociarchive")


def read_cpio(data: bytes) -> None:
    """Look for blobs in what seems to be a bundle."""
    _read_blobs(data, cpio.FILE_NAME)


def _read_blobs(data: bytes, name: str) -> None:
    path = _scratch() / name
    path.write_bytes(data)
    with ExitStack() as stack:
        for digest, place in blobs.in_files([path], stack).items():
            assert place.offset >= 0, digest


@functools.cache
def _scratch() -> Path:
    """Return a directory in memory; the process that made it leaves it to whoever started it."""
    directory = Path(os.environ["FUZZ_SCRATCH"])
    directory.mkdir(exist_ok=True)
    return directory


@functools.cache
def good_archive() -> tuple[bytes, LockedImage]:
    """Return an archive and its lock."""
    image = images.image(images.layer({"a": b"a"}, compression="gzip"))
    manifest = parse_document(image.raw, image.media_type, "image")
    assert isinstance(manifest, Manifest)
    described = Descriptor(digest=manifest.digest, size=len(image.raw), media_type=manifest.media_type)
    pinned = Image(manifest=described, config=manifest.config, layers=manifest.layers)
    layout = lay_out(pinned, _REFERENCE, "x86_64")
    content = bytearray(layout.size)
    for offset, part in layout.frame():
        content[offset : offset + len(part)] = part
    for member in layout.blobs():
        blob = next(b for b in (image.raw, *image.blobs) if member.digest.matches(b))
        content[member.offset : member.offset + len(blob)] = blob
    return bytes(content), LockedImage(image=pinned, created="1970-01-01T00:00:00Z")


def verify_archive(data: bytes) -> None:
    """Change an archive from an offset on (two bytes) to what follows them; only the right one is right."""
    good, _ = good_archive()
    changed = _changed(good, data)
    package = _scratch() / "package"
    package.mkdir(exist_ok=True)
    (package / "registry.example_team_app_1.0.x86_64.ociarchive").write_bytes(changed)
    _verify(package, is_right=changed == good)


def verify_blobs(data: bytes) -> None:
    """Change one blob of a package (the first byte says which) in the same way."""
    good, locked = good_archive()
    package = _scratch() / "blobs"
    package.mkdir(exist_ok=True)
    sizes = {blob.digest: blob.size for blob in locked.image.blobs}
    offsets = {member.digest: member.offset for member in lay_out(locked.image, _REFERENCE, "x86_64").blobs()}
    contents = [good[offset : offset + sizes[digest]] for digest, offset in offsets.items()]
    number = data[0] % len(contents) if data else 0
    changed = _changed(contents[number], data[1:])
    for position, (digest, content) in enumerate(zip(offsets, contents, strict=True)):
        (package / archive_names.blob(digest)).write_bytes(changed if position == number else content)
    _verify(package, is_right=changed == contents[number])


def _changed(good: bytes, data: bytes) -> bytes:
    offset = int.from_bytes(data[:2], "big") % (len(good) + 1)
    return good[:offset] + data[2:] + good[offset + len(data[2:]) :]


def _verify(package: Path, *, is_right: bool) -> None:
    _, locked = good_archive()
    manifest = locked.image.manifest
    entry = LockedReference(digest=manifest.digest, media_type=manifest.media_type, images={"x86_64": locked})
    lock = lockfile.Lock(references={_REFERENCE: entry})
    with ExitStack() as stack:
        problems = check_images(blobs.PackageBlobs(Package(package), lock, stack), [(_REFERENCE, "x86_64")])
    assert (not problems) == is_right, problems
    assert all(problem.isprintable() for problem in problems)


def read_docker_archive(data: bytes) -> None:
    """Read an archive of `docker save`."""
    path = _scratch() / "save.tar"
    path.write_bytes(data)
    try:
        source = DockerArchive(Tar(path), "")
        source.manifest(_REFERENCE)
    except RegistryError:
        return


def read_oci_archive(data: bytes) -> None:
    """Read a tar of an OCI layout."""
    path = _scratch() / "oci.tar"
    path.write_bytes(data)
    try:
        source = OciLayout(Tar(path), "")
        source.manifest(_REFERENCE)
    except RegistryError:
        return


def parse_logins(data: bytes) -> None:
    """Read a credential file, and each of its entries."""
    try:
        found = auth_json.parse(data, "auth.json")
        for key in (*found.logins.values, *found.helpers.values):
            found.login(key)
            found.helper(key)
    except ValueError as error:
        _expect_printable(str(error))


def parse_registries(data: bytes) -> None:
    """Read a registries.conf, and look for an image."""
    try:
        found = registries_conf.parse(data, "registries.conf")
    except ValueError:
        return
    for by_digest in (True, False):
        try:
            found.endpoints(_REFERENCE, by_digest=by_digest)
        except RegistryError:
            continue


def parse_challenges(data: bytes) -> None:
    """Read a `WWW-Authenticate`, and compose what is asked for then."""
    for challenge in auth.parse_challenges(data.decode("latin-1")):
        scope = auth.scope_of(challenge, "team/app")
        assert scope.startswith("repository:")
        assert auth.token_request(challenge, "https://a.example/token", scope, None).url.isprintable()


def parse_token(data: bytes) -> None:
    """Read a token server's reply."""
    try:
        token = auth.parse_token(data, "token")
    except ValueError as error:
        _expect_printable(str(error))
        return
    assert token.value.isprintable()
    assert " " not in token.value


def parse_xml(data: bytes) -> None:
    """Read XML with lxml as kiwi does; what differs must be refused for a reason of ours."""
    try:
        root = etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True))
        names = [str(element.tag) for element in root.iter(etree.Element)]
    except etree.XMLSyntaxError:
        names = []
    try:
        xml_reader.parse(data, "file", [name.rpartition("}")[2] for name in names])
    except ValueError as error:
        _expect_printable(str(error))
        if names and "not XML" in str(error):
            raise AssertionError("kiwi reads it") from error
        return
    text, codec = xml_tags.decode(data)
    assert text.encode(codec) == data
    tags = xml_tags.find(text)
    assert len(tags) == len(names)
    for tag in tags:
        assert text.startswith(f"<{tag.name}", tag.start)
        assert text[tag.end - 1] == ">"


def parse_services(data: bytes) -> None:
    """Read a `_service` file."""
    try:
        service_file.parse(data)
    except DescriptionError as error:
        _expect_printable(*error.problems)


def parse_retry_after(data: bytes) -> None:
    """Read a `Retry-After`."""
    seconds = retry.parse_retry_after(data.decode("latin-1"), 0)
    assert seconds is None or seconds >= 0


def read_layer(data: bytes) -> None:
    """Read a layer for a store: what gets through has safe paths, and can be restored and written again."""
    entries: list[Entry] = []
    packed = io.BytesIO()
    tree = LayerTree()
    contents = {}
    with slice_of(data) as layer:
        try:
            with closing(TarSplit(layer, packed)) as split:
                for member in layer_tar.members(layer, len(data)):
                    tree.add(member)
                    split.add(member)
                    contents[member.offset] = data[member.offset : member.offset + member.size]
                split.finish(len(data))
            entries = list(build.entries_of(tree, b"diff", layer))
        except ValueError as error:
            _expect_printable(str(error))
            return
        written = b"".join(squashfs.tar_of(entries))
    restored = b""
    positions = iter(contents)
    for kind, value, *_ in store.split_entries(packed.getvalue()):
        assert isinstance(value, bytes)
        restored += value if kind == "segment" else contents[next(positions)]
    assert restored == data
    paths = [entry.path for entry in entries]
    assert len(set(paths)) == len(paths)
    assert paths[0] == b"diff"
    assert all(path.startswith(b"diff/") and not {b"", b".", b".."} & set(path.split(b"/")) for path in paths[1:])
    with tarfile.open(fileobj=io.BytesIO(written), encoding="utf-8", errors="surrogateescape") as tar:
        assert [os.fsencode(member.name) for member in tar] == paths


def inflate_layer(data: bytes) -> None:
    """Unpack a layer for a store; the first line says what it should unpack to."""
    expected, _, blob = data.partition(b"\n")
    descriptor = Descriptor(digest=Digest.of(blob), size=len(blob), media_type="")
    with slice_of(blob) as source, slice_of(b"") as target:
        try:
            result = inflate(source, descriptor, Digest.of(expected), target)
        except ValueError as error:
            _expect_printable(str(error))
            return
        except Error as error:
            if not error.problems[0].startswith("zstd: "):  # the program says what is wrong
                raise
            return
        assert target.read(0, result.size) == expected


def read_packages(data: bytes) -> None:
    """Read the database of a package manager; the first line is its path in a container."""
    path, _, content = data.partition(b"\n")
    found = installed.of_databases(Databases({path: content}, []))
    _expect_printable("gaps", *found.gaps)
    purls = [each.purl for each in found.packages]
    assert len(set(purls)) == len(purls)
    assert all(purl.isascii() and purl.startswith("pkg:") for purl in purls)


def check_config_types(data: bytes) -> None:
    """Check the types in a configuration, and read its diff_ids."""
    for check in (image_config.check_types, functools.partial(image_config.diff_ids, layer_count=2)):
        try:
            check(data)
        except ValueError as error:
            _expect_printable(str(error))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "challenges": parse_challenges,
    "config": parse_config,
    "config-types": check_config_types,
    "cpio": read_cpio,
    "description": parse_description,
    "docker-archive": read_docker_archive,
    "gpg-status": parse_gpg_status,
    "keys": parse_keys,
    "inflate": inflate_layer,
    "layer": read_layer,
    "lock": parse_lock,
    "logins": parse_logins,
    "manifest": parse_manifest,
    "oci-archive": read_oci_archive,
    "origin": parse_origin,
    "packages": read_packages,
    "payload": parse_payload,
    "policy": parse_policy,
    "reference": parse_reference,
    "registries": parse_registries,
    "retry-after": parse_retry_after,
    "services": parse_services,
    "signature-stores": parse_signature_stores,
    "tar": read_tar,
    "token": parse_token,
    "verify": verify_archive,
    "verify-blobs": verify_blobs,
    "xml": parse_xml,
}
