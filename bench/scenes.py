"""The images and the links of the cases."""

import random
import string
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from bench.link import Link, open_link
from tests.support import images
from tests.support.images import Image

MB = 1000 * 1000

BASE = (90, 40, 20)
"""Layers that the images of the suite share, MB: one has most of it, as in most images there are."""
OWN = 30
"""The layer that each has for itself, MB."""
UPDATES = 20
"""Updates of a package in a year."""
_BASE_UPDATES = 6
"""How many of them bring a new base."""
UNPACKED = 1000 * MB
"""Bytes of the files in the image for a store."""
ROUND_TRIP = 0.040
RATE = 20 * MB
CONNECTIONS = 20
"""What we open to a registry that is far."""

Images: TypeAlias = Callable[[], Iterator[tuple[str, Image]]]
"""Makes images by name, one at a time: they are large."""


def nothing() -> Iterator[tuple[str, Image]]:
    """Make no image."""
    return iter(())


def empty() -> Iterator[tuple[str, Image]]:
    """Make an image of next to no bytes."""
    yield "empty", images.image(images.random_layer("empty", 1))


def suite() -> Iterator[tuple[str, Image]]:
    """Make 6 images of 180 MB that share 150 MB."""
    base = base_layers()
    for n in range(6):
        yield f"app{n}", images.image(*base, images.random_layer(f"own{n}", OWN * MB))


def base_layers() -> list[images.Layer]:
    """Make what the images of the suite share."""
    return [images.random_layer(f"base{n}", size * MB) for n, size in enumerate(BASE)]


def year() -> Iterator[list[tuple[str, Image]]]:
    """Make the 6 images of a package as they are at first, and after each of `UPDATES` updates."""
    base_version = 0
    for number in range(UPDATES + 1):
        base_version += number % 3 == 1 and base_version < _BASE_UPDATES
        base = [images.random_layer(f"year{base_version}.{n}", size * MB // 10) for n, size in enumerate(BASE)]
        yield [
            (
                f"year{n}",
                images.image(
                    *base, images.random_layer(f"fixed{n}", MB), images.random_layer(f"own{n}.{number}", 2 * MB)
                ),
            )
            for n in range(6)
        ]


def single() -> Iterator[tuple[str, Image]]:
    """Make an image of 180 MB."""
    yield "single", images.image(*(images.random_layer(f"single{n}", size * MB) for n, size in enumerate((*BASE, OWN))))


def even() -> Iterator[tuple[str, Image]]:
    """Make an image of 180 MB whose layers are equal."""
    yield "even", images.image(*(images.random_layer(f"even{n}", 45 * MB) for n in range(4)))


def large() -> Iterator[tuple[str, Image]]:
    """Make an image of 1 GB."""
    yield "large", images.image(*(images.random_layer(f"large{n}", 500 * MB) for n in range(2)))


def many() -> Iterator[tuple[str, Image]]:
    """Make 50 images of 200 kB that share 100 kB."""
    base = images.random_layer("many", 100_000)
    for n in range(50):
        yield f"small{n}", images.image(base, *(images.random_layer(f"many{n}.{k}", 50_000) for k in range(2)))


def unpacked() -> Iterator[tuple[str, Image]]:
    """Make an image of `UNPACKED` bytes in 4 layers, of which three quarters are text, in files of two sizes."""
    numbers = random.Random(1)
    words = [bytes(numbers.choices(string.ascii_lowercase.encode(), k=numbers.randint(2, 12))) for _ in range(20_000)]
    text = b" ".join(numbers.choices(words, k=1_200_000))

    def content(size: int) -> bytes:
        if numbers.random() < 0.25:
            return numbers.randbytes(size)
        start = numbers.randrange(len(text) - size)
        return text[start : start + size]

    layers = []
    for layer in range(4):
        files = {f"usr/lib/{layer}/{n}": content(20_000) for n in range(UNPACKED // 8 // 20_000)}
        files |= {f"usr/bin/{layer}/{n}": content(5_000_000) for n in range(UNPACKED // 8 // 5_000_000)}
        layers.append(images.layer(files))
    yield "unpacked", images.image(*layers)


def direct(server: str) -> AbstractContextManager[Link | None]:
    """Put nothing before the server: bytes on the wire are then those that it says it sent, without headers."""
    return nullcontext()


def counted(server: str) -> AbstractContextManager[Link | None]:
    """Put a link before the server that only counts."""
    return open_link(server, round_trip=0, rate=0)


def slow(server: str) -> AbstractContextManager[Link | None]:
    """Put a slow link before the server."""
    return open_link(server, round_trip=ROUND_TRIP, rate=RATE)
