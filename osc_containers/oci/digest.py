"""Content digests: parsing, computing and comparing them.

Spec: OCI image-spec v1.1, descriptor.md, section "Digests".
"""

import hashlib
import re
from typing import NamedTuple

# The algorithms of go-digest, the library that container engines use.
_HEX_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
# The grammar for digests of any algorithm, so that an unknown algorithm gets a message of its own.
_PATTERN = re.compile(r"(?P<algorithm>[a-z0-9]+(?:[+._-][a-z0-9]+)*):(?P<hex>[A-Za-z0-9=_-]+)")


class Digest(NamedTuple):
    """The hash of some content: a registered algorithm and lower-case hexadecimal digits."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Parse `algorithm:hex`.

        :raises ValueError: the algorithm is not supported, or the hash is not lower-case hexadecimal of its length.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(f"got {text[:80]!r}, expected a digest like 'sha256:<64 hexadecimal digits>'")
        algorithm, value = match["algorithm"], match["hex"]
        length = _HEX_LENGTHS.get(algorithm)
        if length is None:
            raise ValueError(f"got digest algorithm {algorithm[:40]!r}, expected one of {', '.join(_HEX_LENGTHS)}")
        if not re.fullmatch(f"[0-9a-f]{{{length}}}", value):
            raise ValueError(
                f"got {text[:160]!r}, expected {length} lower-case hexadecimal digits after '{algorithm}:'"
            )
        return cls(algorithm, value)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> "Digest":
        """Return the digest of `content`."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    def hasher(self) -> "hashlib._Hash":
        """Return a new hash object of this algorithm, for content that is read in chunks."""
        return hashlib.new(self.algorithm)

    def matches(self, content: bytes) -> bool:
        """Return whether `content` has this digest."""
        return Digest.of(content, self.algorithm) == self

    @property
    def short(self) -> str:
        """The first 12 hexadecimal digits, for display."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
