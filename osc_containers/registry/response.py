"""A reply on its way in: bounded, its length checked, its refusal in words."""

import math
import zlib
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from osc_containers.formats import strict_json
from osc_containers.registry import connection
from osc_containers.registry import errors as failures
from osc_containers.registry.errors import Failure, Way

_ERROR_LIMIT = 64 << 10
_DISCARD_LIMIT = 64 << 10
_CHUNK = 64 << 10
_PACKINGS = frozenset({"br", "compress", "deflate", "gzip", "x-compress", "x-gzip", "zstd"})
"""Other encodings say nothing of the bytes: stores keep 'aws-chunked' of an upload, or have the name of a charset."""


class Reply:
    """The reply that `response` brings from `url` by a way; whoever has it must close it.

    Its body is read below requests, which would decode it, without a limit, and lose what came before a break.
    """

    def __init__(self, response: requests.Response, url: str, way: Way) -> None:
        self._raw: Any = response.raw
        self._way = way
        self._body = connection.reply_on(self._raw.connection)
        self.url = url
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    @property
    def latency(self) -> float:
        """The seconds from the request to the end of the headers."""
        return self._body.latency if self._body else math.inf

    @property
    def length(self) -> int | None:
        """How many bytes of body the headers announce, as they come over the wire; None where they do not."""
        text = self.headers.get("Content-Length", "")
        if not (text.isascii() and text.isdigit()) or "Transfer-Encoding" in self.headers:
            return None
        return min(int(text[:20]), 1 << 63)

    @property
    def encoding(self) -> str:
        """The encodings that packed the body for transport; empty for none."""
        names = self.headers.get("Content-Encoding", "").lower().split(",")
        return ", ".join(name.strip() for name in names if name.strip() in _PACKINGS)

    def read(self, limit: int) -> bytes:
        """Return the whole body, decoded, and close.

        :raises Failure: it is larger than `limit` bytes, encoded in an unknown way, or broken off.
        """
        try:
            body = self._read_up_to(limit + 1)
        finally:
            self.close()
        if len(body) > limit:
            raise Failure(f"{self._where}: got more than {limit} bytes", is_final=True)
        if self.length is not None and len(body) < self.length:
            raise Failure(f"{self._where}: broken off after {len(body)} of {self.length} bytes")
        return self._decode(body, limit) if self.encoding else body

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` with bytes as they come over the wire, or with those that are left.

        :raises Failure: the connection broke, and all that came before was given.
        """
        try:
            return int((self._body or self._raw).readinto(buffer))
        except (HTTPException, HTTPError, OSError, ValueError) as error:
            raise failures.of(error, self._way) from None

    def discard(self) -> None:
        """Read what little may be left, so that the connection can be used again, and close."""
        try:
            self._read_up_to(_DISCARD_LIMIT)
        except Failure:
            pass
        finally:
            self.close()

    def refusal(self) -> str:
        """Say what the status means, with the registry's own error where there is one, and close.

        Form: distribution-spec v1.1, "Error Codes".
        """
        try:
            return f"HTTP {self.status}{self._error()}"
        finally:
            self.close()

    def close(self) -> None:
        """Give the connection back if all was read from it, else close it."""
        if self._body and self._body.isclosed():  # which it is when all was read
            self._raw.release_conn()
        self._raw.close()
        self._raw.release_conn()

    @property
    def _where(self) -> str:
        return self._way.url

    def _error(self) -> str:
        try:
            errors = strict_json.load(self.read(_ERROR_LIMIT), "").members("errors")
            first = errors[0]
            texts = [text for key in ("code", "message") if (text := first.text(key, ""))]
        except (Failure, ValueError, IndexError):
            return ""
        return f" ({', '.join(repr(text[:200]) for text in texts)})" if texts else ""

    def _read_up_to(self, limit: int) -> bytes:
        found = bytearray()
        try:
            while len(found) < limit and (
                chunk := self._raw.read(min(_CHUNK, limit - len(found)), decode_content=False)
            ):
                found += chunk
        except (HTTPError, OSError, ValueError) as error:
            raise failures.of(error, self._way) from None
        return bytes(found)

    def _decode(self, body: bytes, limit: int) -> bytes:
        if self.encoding not in ("gzip", "x-gzip"):
            raise Failure(f"{self._where}: got encoding {self.encoding[:40]!r}, expected none or gzip", is_final=True)
        decoder = zlib.decompressobj(wbits=31)
        try:
            decoded = decoder.decompress(body, limit + 1)
        except zlib.error:
            raise Failure(f"{self._where}: got broken gzip") from None
        if len(decoded) > limit:
            raise Failure(f"{self._where}: got more than {limit} bytes when unpacked", is_final=True)
        if not decoder.eof:
            raise Failure(f"{self._where}: got broken gzip")
        return decoded
