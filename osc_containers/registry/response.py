"""Responses of a registry: bodies with limits, and refusals in words."""

import logging
import time
import zlib
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from osc_containers.formats import strict_json
from osc_containers.registry import errors
from osc_containers.registry.errors import Failure, Route

logger = logging.getLogger(__name__)

_ERROR_LIMIT = 64 << 10
_DISCARD_LIMIT = 64 << 10
_CHUNK = 64 << 10
_GZIP = 31
"""Of zlib's `wbits`: 16 for gzip alone, without a guess, and 15 for the largest window."""
_EMPTY_LIMIT = 1 << 20
"""Bytes of gzip data that may come without any content: empty members and blocks could go on without end."""
_PAGE_START = 512
_PAGE_STARTS = (b"<!doctype html", b"<html", b"<head", b"<script")
_PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_COMPRESSIONS = frozenset({"br", "compress", "deflate", "gzip", "x-compress", "x-gzip", "zstd"})
"""Other encodings leave the body as it is: stores keep the 'aws-chunked' of an upload, or name a character set."""


def is_web_page(content: bytes, content_type: str) -> bool:
    """Tell whether a body, or the start of it, is HTML: a login page, or what a proxy or a portal in between sends.

    The type counts only if the content is not JSON: some registries send everything as HTML.
    """
    # The three bytes are the byte order mark of UTF-8.
    start = content[:_PAGE_START].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    kind = content_type.partition(";")[0].strip().lower()
    return start.startswith(_PAGE_STARTS) or (kind in _PAGE_TYPES and not start.startswith(b"{"))


def error_message(body: bytes) -> str:
    """Return the registry's own message in the body of an error, with a space and in parentheses; empty without one.

    Source: distribution-spec v1.1, "Error Codes".
    """
    try:
        entries = strict_json.load(body, "").members("errors")
        texts = [text for key in ("code", "message") if (text := entries[0].text(key, ""))]
    except (ValueError, IndexError):
        return ""
    return f" ({', '.join(repr(text[:200]) for text in texts)})" if texts else ""


class Response:
    """The response to a request for `url`, which must be closed. Then it is logged under `label`, without secrets.

    The body is read directly from the connection. requests and urllib3 would decompress it, read it without a limit,
    and lose the bytes that came before an interruption.
    """

    def __init__(self, response: requests.Response, url: str, route: Route, label: str) -> None:
        self._raw: Any = response.raw
        self._incoming = self._raw.connection.incoming
        self._route = route
        self._label: str | None = label
        self._received = 0
        self.url = url
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.latency: float = self._incoming.latency
        """Seconds from the start of the request to the end of the headers."""
        self._started = time.monotonic() - self.latency

    @property
    def length(self) -> int | None:
        """The length of the body on the wire according to the headers; None if they do not say."""
        text = self.headers.get("Content-Length", "")
        # `Transfer-Encoding` overrides `Content-Length` (RFC 9112, 6.3).
        if not (text.isascii() and text.isdigit()) or "Transfer-Encoding" in self.headers:
            return None
        # `int` refuses more than 4300 digits. Any number that is too large stands for all of them.
        return min(int(text[:20]), 1 << 63)

    @property
    def encoding(self) -> str:
        """The compression of the body according to the headers; empty if it is not compressed."""
        names = self.headers.get("Content-Encoding", "").lower().split(",")
        return ", ".join(name.strip() for name in names if name.strip() in _COMPRESSIONS)

    def read(self, limit: int) -> bytes:
        """Return the whole body, decompressed, and close the response.

        :raises Failure: the body is larger than `limit` bytes, compressed in an unknown way, or incomplete.
        """
        try:
            body = _read(self.decompressed() if self.encoding else self, limit + 1)
        finally:
            self.close()
        if len(body) > limit:
            raise Failure(f"{self._route.url}: got more than {limit} bytes", is_final=True)
        # http.client takes the end of the connection for the end of the body.
        if not self.encoding and self.length is not None and len(body) < self.length:
            raise Failure(f"{self._route.url}: interrupted after {len(body)} of {self.length} bytes")
        return body

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill `buffer` with bytes as they are on the wire, or with those that are left; 0 is the end.

        :raises Failure: the connection broke, and everything that came before has been returned.
        """
        try:
            count = int(self._incoming.readinto(buffer))
        except (HTTPException, HTTPError, OSError, ValueError) as error:
            raise errors.from_exception(error, self._route) from None
        self._received += count
        return count

    def decompressed(self) -> "Decompressed":
        """Return the decompressed body. Some servers compress although they were asked not to.

        :raises Failure: the compression is not gzip.
        """
        if self.encoding not in ("gzip", "x-gzip"):
            problem = f"got encoding {self.encoding[:40]!r}, expected none or gzip"
            raise Failure(f"{self._route.url}: {problem}", is_final=True)
        return Decompressed(self, self._route.url)

    def discard(self) -> None:
        """Read a body that is short, so that the connection can be used again, and close the response."""
        try:
            _read(self, _DISCARD_LIMIT)
        except Failure:
            pass
        finally:
            self.close()

    @property
    def content_type(self) -> str:
        """The `Content-Type`, possibly empty."""
        return str(self.headers.get("Content-Type", ""))

    def web_page(self, expectation: str) -> Failure:
        """Return the failure for a web page in place of what `expectation` names; no retry would change that."""
        return Failure(
            f"{self._route.url}: got a web page (HTML), expected {expectation}; open {self._route.url} in a browser to "
            "see whether it wants a login, and check the name of the registry and the proxy (https_proxy)",
            is_final=True,
        )

    def refusal(self) -> str:
        """Return the status, with the registry's own message if it sent one, and close the response."""
        try:
            return f"HTTP {self.status}{self._message()}"
        finally:
            self.close()

    def close(self) -> None:
        """Return the connection to its pool if the whole body was read, else close it."""
        if self._label:
            duration = time.monotonic() - self._started
            logger.debug("%s: %d, %d bytes, %.2f s", self._label, self.status, self._received, duration)
            self._label = None
        # `close` ends the connection if the response still has it, so it is given back first. A connection that was
        # closed goes back, too: the pool opens it again.
        if self._incoming.isclosed():  # the whole body was read
            self._raw.release_conn()
        self._raw.close()
        self._raw.release_conn()

    def _message(self) -> str:
        try:
            return error_message(self.read(_ERROR_LIMIT))
        except Failure:
            return ""


class Decompressed:
    """The body of a response that was compressed with gzip.

    All members are read (RFC 1952, 2.2), and nothing else may follow, as in Go's programs.
    """

    def __init__(self, response: Response, where: str) -> None:
        self._response = response
        self._where = where
        self._decoder = zlib.decompressobj(_GZIP)
        self._compressed = memoryview(bytearray(_CHUNK))

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the start of `buffer`; 0 is the end.

        :raises Failure: the body is not gzip, or incomplete.
        """
        count = 0
        while count <= _EMPTY_LIMIT:
            # Input is left over if the last output filled the buffer; a small body may expand to any size.
            compressed = self._decoder.unconsumed_tail or self._decoder.unused_data
            if not compressed:
                compressed = bytes(self._compressed[: self._response.readinto(self._compressed)])
            if self._decoder.eof:
                if not compressed:
                    return 0
                self._decoder = zlib.decompressobj(_GZIP)
            try:
                content = self._decoder.decompress(compressed, len(buffer))
            except zlib.error:
                raise Failure(f"{self._where}: got invalid gzip data") from None
            if content:
                buffer[: len(content)] = content
                return len(content)
            if not compressed:
                raise Failure(f"{self._where}: got incomplete gzip data")
            count += len(compressed)
        raise Failure(f"{self._where}: got more than {_EMPTY_LIMIT} bytes of gzip data without content", is_final=True)


def _read(body: Response | Decompressed, limit: int) -> bytes:
    """Read a body, but no more than `limit` bytes of it."""
    content = bytearray()
    buffer = memoryview(bytearray(min(_CHUNK, limit)))
    while len(content) < limit and (count := body.readinto(buffer[: limit - len(content)])):
        content += buffer[:count]
    return bytes(content)
