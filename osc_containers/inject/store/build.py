"""Build a store: from verified blobs to one squashfs, which podman mounts as an additional image store.

    overlay/LAYER/diff/                         the files of a layer
    overlay/LAYER/{link,lower}                  its short name, and those of the layers below it
    overlay/l/NAME                              link to the files of the layer of that name
    overlay-layers/{layers.json,LAYER.tar-split.gz}
    overlay-images/{images.json,IMAGE/…}        the documents of an image, byte for byte

Nothing of a layer is unpacked to the disk, and no other program than mksquashfs (and zstd) sees its content. First each
layer is decompressed to one temporary file, verified and read once. Only if all layers are good, the squashfs is
written from these files, which are removed one after the other.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import Error
from osc_containers.formats import layer_tar
from osc_containers.formats.layer_tar import FILE, HARD_LINK
from osc_containers.fs.ranges import FileSlice
from osc_containers.inject.store import records, squashfs
from osc_containers.inject.store.inflate import inflate
from osc_containers.inject.store.layer_tree import LayerTree
from osc_containers.inject.store.records import ImageRecord, LayerRecord
from osc_containers.inject.store.squashfs import Entry
from osc_containers.inject.store.tar_split import TarSplit
from osc_containers.kiwi.backend import STORE
from osc_containers.oci import image_config, quirk
from osc_containers.oci.digest import Digest
from osc_containers.oci.image import Image
from osc_containers.oci.manifest import Descriptor, Manifest, created_of, parse_document

_ADVICE = "load this container instead: leave it out of 'store'"

OpenBlob = Callable[[Descriptor], FileSlice]
"""Returns the position of a blob in an open file, where it has the size of its descriptor."""


class StoreImage(NamedTuple):
    """An image for the store, and the name by which podman lists it."""

    name: str
    image: Image


class Summary(NamedTuple):
    """What a store has: images by name with their IDs, the number of layers, and the bytes of the unpacked layers."""

    images: Mapping[str, str]
    layer_count: int
    unpacked: int


class _Layer(NamedTuple):
    """A layer whose tar archive and tar-split are in temporary files; `latest` is the latest time of its files."""

    record: LayerRecord
    tar: Path
    tar_split: Path
    latest: int


def build(
    images: Iterable[StoreImage],
    open_blob: OpenBlob,
    target: Path,
    workspace: Path,
    environ: Mapping[str, str] = os.environ,
) -> Summary:
    """Write a store of these images to the new file `target`, with temporary files in the directory `workspace`.

    The same images and the same version of mksquashfs give the same bytes, in whatever order the images are.

    :raises Error: a layer is damaged, not what its image says, or hostile; or a program is missing or failed. All
        problems that are found are listed.
    """
    squashfs.check_program(environ)
    layers: dict[str, _Layer] = {}
    image_records: dict[str, ImageRecord] = {}
    problems: dict[str, None] = {}
    # The order shows in the store: a layer gets its date from the first image that has it.
    for each in sorted(images, key=lambda each: each.name):
        try:
            _prepare(each, open_blob, workspace, layers, image_records)
        except ValueError as error:
            problems[f"{each.name}: {error}; {_ADVICE}"] = None
    if problems:
        raise Error(*problems)
    latest = max((layer.latest for layer in layers.values()), default=0)
    squashfs.write(target, _entries(list(layers.values()), list(image_records.values())), latest, environ)
    return Summary(
        images={name: record.id for record in image_records.values() for name in record.names},
        layer_count=len(layers),
        unpacked=sum(layer.record.size for layer in layers.values()),
    )


def _prepare(
    each: StoreImage,
    open_blob: OpenBlob,
    workspace: Path,
    layers: dict[str, _Layer],
    image_records: dict[str, ImageRecord],
) -> None:
    """Prepare the layers of an image that are not there yet, and its record."""
    image = each.image
    documents = {descriptor.digest: _read(descriptor, open_blob) for descriptor in image.documents}
    config = documents[image.config.digest]
    _refuse_quirks(image, documents[image.manifest.digest], config, each.name)
    expected = image_config.diff_ids(config, len(image.layers))
    created = records.timestamp(created_of(config, "config"))
    lower: tuple[str, ...] = ()
    for number, (descriptor, diff_id) in enumerate(zip(image.layers, expected, strict=True), 1):
        # The ID depends on all layers below, too, so a layer that is above another base is another layer.
        layer = records.layer_id(lower[0] if lower else "", diff_id)
        if layer not in layers:
            try:
                layers[layer] = _prepare_layer(layer, lower, descriptor, diff_id, open_blob, workspace, created)
            except ValueError as error:
                raise ValueError(f"layer {number} of {len(expected)}, {descriptor.digest}: {error}") from None
        lower = (layer, *lower)
    _add_image(each, documents, lower[0], created, image_records)


def _refuse_quirks(image: Image, raw: bytes, config: bytes, name: str) -> None:
    """Refuse an image with which podman would fail, for this one or even for all images."""
    manifest = parse_document(raw, image.manifest.media_type, name)
    if not isinstance(manifest, Manifest):
        raise ValueError("got an index, expected a manifest")
    found = (*quirk.find(manifest), *quirk.find_in_config(config, manifest))
    problems = [each.detail for each in found if STORE.refuses.get(each.quirk) == ""]
    if problems:
        raise ValueError(f"{'; '.join(problems)}; {STORE.name} cannot have it")


def _read(descriptor: Descriptor, open_blob: OpenBlob) -> bytes:
    content = open_blob(descriptor).read(0, descriptor.size)
    if not descriptor.digest.matches(content):
        raise ValueError(f"{descriptor.digest} is damaged: got {Digest.of(content, descriptor.digest.algorithm)}")
    return content


def _prepare_layer(
    layer: str,
    lower: tuple[str, ...],
    descriptor: Descriptor,
    diff_id: Digest,
    open_blob: OpenBlob,
    workspace: Path,
    created: str,
) -> _Layer:
    tar, tar_split = workspace / f"{layer}.tar", workspace / f"{layer}.tar-split.gz"
    with tar.open("w+b") as file, tar_split.open("wb") as split_file:
        content = FileSlice(file.fileno(), 0)
        inflated = inflate(open_blob(descriptor), descriptor, diff_id, content)
        tree = LayerTree()
        with closing(TarSplit(content, split_file)) as split:
            for member in layer_tar.members(content, inflated.size):
                tree.add(member)
                split.add(member)
            split.finish(inflated.size)
    latest = max(node.mtime for _, node in tree.entries())
    record = LayerRecord(
        id=layer,
        lower=lower,
        blob=descriptor.digest,
        blob_size=descriptor.size,
        compression=inflated.compression,
        diff_id=diff_id,
        size=inflated.size,
        uids=tuple(sorted(tree.uids)),
        gids=tuple(sorted(tree.gids)),
        created=created,
    )
    return _Layer(record=record, tar=tar, tar_split=tar_split, latest=latest)


def _add_image(
    each: StoreImage, documents: Mapping[Digest, bytes], top: str, created: str, image_records: dict[str, ImageRecord]
) -> None:
    """Add the record of an image; two images with the same configuration have one record."""
    image = each.image
    # The manifest and the indexes above it let the image be found by any of their digests.
    data = {
        str(image.config.digest): documents[image.config.digest],
        **{f"manifest-{part.digest}": documents[part.digest] for part in (image.manifest, *image.indexes)},
        # podman can run no image without an item of this name.
        "manifest": documents[image.manifest.digest],
    }
    # podman lists the digest that it was asked for. It knows no index of indexes, so of these the last one counts.
    listed = image.indexes[-1] if image.indexes else image.manifest
    record = image_records.get(image.config.digest.hex)
    image_records[image.config.digest.hex] = ImageRecord(
        id=image.config.digest.hex,
        digest=record.digest if record else listed.digest,
        names=(*record.names, each.name) if record else (each.name,),
        layer=top,
        data={**data, **record.data} if record else data,
        created=created,
    )


def _entries(layers: Sequence[_Layer], images: Sequence[ImageRecord]) -> Iterator[Entry]:
    for path in ("overlay", "overlay/l", "overlay-images", "overlay-layers"):
        yield squashfs.directory(path)
    for layer in layers:
        record = layer.record
        base, link = f"overlay/{record.id}", records.link_name(record.id)
        yield squashfs.directory(base)
        with ExitStack() as stack:
            yield from _diff(f"{base}/diff", layer, stack)
        # mksquashfs has got its content. So the disk need not hold all unpacked layers and the whole squashfs together.
        layer.tar.unlink()
        # podman mounts an image for "podman image mount" on these.
        for name in ("merged", "work"):
            yield squashfs.directory(f"{base}/{name}", 0o700)
        yield squashfs.file(f"{base}/link", link.encode())
        if record.lower:
            lower = ":".join(f"l/{records.link_name(each)}" for each in record.lower)
            yield squashfs.file(f"{base}/lower", lower.encode())
        yield squashfs.symlink(f"overlay/l/{link}", f"../{record.id}/diff")
        with layer.tar_split.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            split_path = f"overlay-layers/{record.id}.tar-split.gz".encode()
            yield Entry(path=split_path, kind=FILE, mode=0o600, size=size, content=FileSlice(file.fileno(), 0))
        layer.tar_split.unlink()
    for image in images:
        yield squashfs.directory(f"overlay-images/{image.id}")
        for name, content in image.data.items():
            yield squashfs.file(f"overlay-images/{image.id}/{records.data_file(name)}", content)
    yield squashfs.file("overlay-layers/layers.json", records.dump([layer.record for layer in layers]))
    yield squashfs.file("overlay-images/images.json", records.dump(images))
    # podman locks these to read the files beside them.
    yield squashfs.file("overlay-layers/layers.lock", b"")
    yield squashfs.file("overlay-images/images.lock", b"")


def _diff(base: str, layer: _Layer, stack: ExitStack) -> Iterator[Entry]:
    """Yield the files of a layer, which has been read before without a problem."""
    content = FileSlice(stack.enter_context(layer.tar.open("rb")).fileno(), 0)
    # The tree of the first reading was not kept: it may need as much as `MEMORY_LIMIT`, and an image has many layers.
    tree = LayerTree()
    for member in layer_tar.members(content, layer.record.size):
        tree.add(member)
    yield from entries_of(tree, base.encode(), content)


def entries_of(tree: LayerTree, base: bytes, content: FileSlice) -> Iterator[Entry]:
    """Yield the files of a layer with paths below `base`; hard links come after the file that has their content.

    :raises ValueError: as `LayerTree.entries`.
    """
    first: dict[int, bytes] = {}
    for path, node in tree.entries():
        full_path = base + (b"/" + path if path else b"")
        original = first.setdefault(id(node), full_path)
        # A node that was there before is a file with several names.
        if original != full_path:
            yield Entry(path=full_path, kind=HARD_LINK, mode=0, target=original)
            continue
        yield Entry(
            path=full_path,
            kind=node.kind,
            mode=node.mode,
            uid=node.uid,
            gid=node.gid,
            mtime=node.mtime,
            size=node.size,
            content=content.at(node.offset),
            target=node.target,
            device=node.device,
            xattrs=node.xattrs,
        )
