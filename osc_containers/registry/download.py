"""A blob on its way in from a registry: it goes on where it broke off, and ends where it must or fails.

Spec: OCI distribution-spec v1.1, "Pulling blobs"; RFC 9110, 14 (ranges).
"""

import re
import zlib
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from osc_containers.errors import RegistryError
from osc_containers.oci.manifest import Descriptor
from osc_containers.registry.client import Registry
from osc_containers.registry.errors import Failure
from osc_containers.registry.response import Reply

_EXPECTED = frozenset({200, 206, 404})
_NO_PARTS = frozenset({400, 416, 501})
"""How a request for a part is refused where one for the whole is not."""
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_CHUNK = 256 << 10
_SHORTEST = 32 << 10
"""Bytes of a part that are worth a request, where a server gives less than was asked for (RFC 9110, 15.3.7)."""
_URLS = 8


class _Body(Protocol):
    def readinto(self, buffer: memoryview, /) -> int: ...


class _WithoutRangeError(Exception):
    """The registry cannot give the part that was asked for."""


class Download:
    """Bytes `start` to `stop` of a blob, from the first of `places` (a registry and its repository) that gives it.

    It is the context manager that opens and closes it, and its own stream. A registry that does not know ranges gives
    the whole blob: then bytes before `start` are received in vain, by the first `readinto`.
    """

    def __init__(
        self, places: Sequence[tuple[Registry, str]], blob: Descriptor, start: int, stop: int | None, where: str
    ) -> None:
        self._places = list(places)
        self._blob = blob
        self._position = start
        self._where = f"{where}: blob {blob.digest}"
        self._attempts = places[0][0].attempts(self._where)
        self._takes_ranges = True
        self._problems: list[str] = []
        self._reply: Reply | None = None
        self._body: _Body | None = None
        self._skipped = 0
        self._end_of_part: int | None = None
        self._stop = blob.size if stop is None else stop

    def __enter__(self) -> "Download":
        if self._position < self._stop:
            self._body = self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    @property
    def ignores_range(self) -> bool:
        """Whether the registry sends the whole blob although a part was asked for."""
        return self._is_part and self._reply is not None and self._reply.status == 200

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the start of `buffer` and return how many bytes came; 0 is the end.

        :raises RegistryError: no place gives the rest.
        """
        wanted = min(len(buffer), self._stop - self._position)
        while wanted:
            if self._body is None:
                self._body = self._open()
            try:
                _skip(self._body, self._skipped)
                self._skipped = 0
                count = self._body.readinto(buffer[:wanted])
            except Failure as failure:
                self._break_off(failure)
                continue
            if count:
                self._attempts.received(count)
                self._position += count
                return count
            if self._position == self._end_of_part:
                self._close()
            else:
                self._break_off(Failure("broken off"))
        return 0

    def _open(self) -> _Body:
        """Open the blob at the position, at the first place that gives it."""
        while True:
            registry, repository = self._places[0]
            is_asked = self._is_part and self._takes_ranges
            headers = {"Range": f"bytes={self._position}-{self._stop - 1}"} if is_asked else {}
            try:
                return registry.request(
                    "GET",
                    f"{repository}/blobs/{self._blob.digest}",
                    repository=repository,
                    where=self._where,
                    headers=headers,
                    expected=_EXPECTED | _NO_PARTS if is_asked else _EXPECTED,
                    consume=self._accept,
                    attempts=self._attempts,
                )
            except _WithoutRangeError:
                self._takes_ranges = False
            except RegistryError as error:
                self._go_on_elsewhere(error)

    @property
    def _is_part(self) -> bool:
        return self._position > 0 or self._stop < self._blob.size

    def _accept(self, reply: Reply) -> _Body:
        if reply.status == 404:
            reply = self._foreign(reply)
        try:
            body = self._find_body(reply)
        except BaseException:
            reply.close()
            raise
        self._reply = reply
        return body

    def _find_body(self, reply: Reply) -> _Body:
        self._end_of_part = None
        if reply.status == 200:
            self._skipped = self._position
            return _body_of(reply, self._blob.size)
        length = self._part_length(reply)
        if length is None and self._is_part and self._takes_ranges:
            raise _WithoutRangeError
        if length is None:
            raise Failure(f"got status {reply.status} without having asked for a part")
        if length >= _SHORTEST:
            self._end_of_part = self._position + length
        return _body_of(reply, length)

    def _foreign(self, reply: Reply) -> Reply:
        """Fetch a layer from where its descriptor says, for the registry may not distribute it (descriptor.md)."""
        registry = self._places[0][0]
        problem = f"not in {registry.host}, though its manifest is: {reply.refusal()}"
        wait, is_final = None, True
        for url in self._blob.urls[:_URLS]:
            try:
                return registry.fetch(url)
            except Failure as failure:
                problem += f"; {failure}"
                wait, is_final = failure.wait or wait, is_final and failure.is_final
        raise Failure(problem, is_final=is_final, wait=wait)

    def _part_length(self, reply: Reply) -> int | None:
        """Return the length of a partial reply that begins where it must and does not go too far."""
        match = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", "").strip())
        if reply.status != 206 or match is None:
            return None
        first, last = int(match[1]), int(match[2])
        is_right = first == self._position <= last < self._stop and match[3] in ("*", str(self._blob.size))
        return last - first + 1 if is_right else None

    def _break_off(self, failure: Failure) -> None:
        self._close()
        problem = f"{failure} after {self._position} of {self._blob.size} bytes"
        if failure.is_final:
            self._go_on_elsewhere(RegistryError(f"{self._where}: {problem}"))
            return
        try:
            self._attempts.failed(problem, wait=failure.wait, most=failure.most)
        except RegistryError as error:
            self._go_on_elsewhere(error)

    def _go_on_elsewhere(self, error: RegistryError) -> None:
        self._problems.extend(error.problems)
        del self._places[0]
        if not self._places:
            raise RegistryError(*self._problems) from None
        self._attempts = self._places[0][0].attempts(self._where)
        self._takes_ranges = True

    def _close(self) -> None:
        self._body = None
        if self._reply is not None:
            self._reply.close()
            self._reply = None


def _body_of(reply: Reply, length: int) -> _Body:
    """Check what the headers say of the body; a body of the right length is not packed, whatever they say."""
    if reply.encoding and reply.length != length:
        if reply.encoding not in ("gzip", "x-gzip") or reply.status != 200:
            raise Failure(f"got encoding {reply.encoding[:40]!r}, expected none", is_final=True)
        return _Unpacked(reply)
    if reply.length not in (None, length):
        raise Failure(f"got a reply of {reply.length} bytes, expected {length}", most=3)
    return reply


def _skip(body: _Body, count: int) -> None:
    scratch = memoryview(bytearray(min(count, _CHUNK)))
    left = count
    while left:
        got = body.readinto(scratch[: min(left, _CHUNK)])
        if got == 0:
            raise Failure(f"broken off before byte {count}")
        left -= got


class _Unpacked:
    """The body of a reply whose server packed it for transport although it was asked not to."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._decoder = zlib.decompressobj(wbits=31)
        self._packed = memoryview(bytearray(_CHUNK))

    def readinto(self, buffer: memoryview, /) -> int:
        while not self._decoder.eof:
            packed = self._decoder.unconsumed_tail
            if not packed:
                packed = bytes(self._packed[: self._reply.readinto(self._packed)])
            if not packed:
                return 0
            try:
                unpacked = self._decoder.decompress(packed, len(buffer))
            except zlib.error:
                raise Failure("got broken gzip") from None
            if unpacked:
                buffer[: len(unpacked)] = unpacked
                return len(unpacked)
        return 0
