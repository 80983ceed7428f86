"""Resumable downloads of one blob from a registry or its mirrors.

Sources: OCI distribution-spec v1.1, "Pulling blobs"; RFC 9110, 14 (ranges).
"""

import re
from collections.abc import Sequence
from types import TracebackType

from osc_containers.errors import RegistryError
from osc_containers.oci.manifest import Descriptor
from osc_containers.registry.client import Registry
from osc_containers.registry.errors import Failure
from osc_containers.registry.response import Decompressed, Response, is_web_page

_EXPECTED = frozenset({200, 206, 404})
_RANGE_REFUSED = frozenset({400, 416, 501})
"""Statuses with which registries refuse a range although they have the blob."""
# Nineteen digits hold any size of 64 bits. The server may not know the size of the whole blob (`*`).
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_CHUNK = 256 << 10
_SHORTEST = 32 << 10
"""A server may send less than the range it was asked for (RFC 9110, 15.3.7); fewer bytes are not worth a request."""
# A manifest may list any number of URLs for a foreign layer; only so many are tried.
_URLS = 8
_PAGE_START = 512


class _RangeRefusedError(Exception):
    """The registry cannot send the range that was requested."""


class Download:
    """Bytes `start` to `stop` of a blob, from the first of `endpoints` that has it.

    An endpoint is a registry and the repository there. The object is the stream, and the context manager that opens and
    closes it. A registry without ranges sends the whole blob; then the first `readinto` skips the bytes before `start`.
    """

    def __init__(
        self, endpoints: Sequence[tuple[Registry, str]], blob: Descriptor, start: int, stop: int | None, where: str
    ) -> None:
        self._endpoints = list(endpoints)
        self._blob = blob
        self._position = start
        self._stop = blob.size if stop is None else stop
        self._where = f"{where}: blob {blob.digest}"
        # One count for all requests of this blob, whether they fail at once or are interrupted later.
        self._attempts = endpoints[0][0].attempts(self._where)
        self._takes_ranges = True
        self._problems: list[str] = []
        self._response: Response | None = None
        self._body: Response | Decompressed | None = None
        self._skip_count = 0
        self._end_of_part: int | None = None

    def __enter__(self) -> "Download":
        # A range has at least one byte (RFC 9110, 14.1.1), so an empty part cannot be requested.
        if self._position < self._stop:
            self._body = self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    @property
    def ignores_range(self) -> bool:
        """Whether the registry sends the whole blob although a part of it was requested."""
        return self._is_part and self._response is not None and self._response.status == 200

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the start of `buffer` and return the number of bytes; 0 is the end.

        :raises RegistryError: no endpoint sends the rest.
        """
        size = min(len(buffer), self._stop - self._position)
        while size:
            if self._body is None:
                self._body = self._open()
            try:
                _skip(self._body, self._skip_count)
                self._skip_count = 0
                count = self._body.readinto(buffer[:size])
            except Failure as failure:
                self._interrupted(failure)
                continue
            # Only the first bytes tell a page from a blob; anything may follow in the middle of one.
            if count and self._position == 0 and self._response and _is_page(self._response, buffer[:count]):
                self._interrupted(self._response.web_page("a blob"))
                continue
            if count:
                self._attempts.received(count)
                self._position += count
                return count
            # The server has sent the part that it announced, which was shorter than the range. That is no failure.
            if self._position == self._end_of_part:
                self._close()
            else:
                self._interrupted(Failure("interrupted"))
        return 0

    def _open(self) -> Response | Decompressed:
        """Open the blob at the current position, at the first endpoint that sends it."""
        while True:
            registry, repository = self._endpoints[0]
            wants_range = self._is_part and self._takes_ranges
            try:
                return registry.request(
                    "GET",
                    f"{repository}/blobs/{self._blob.digest}",
                    repository=repository,
                    where=self._where,
                    headers={"Range": f"bytes={self._position}-{self._stop - 1}"} if wants_range else {},
                    expected=_EXPECTED | _RANGE_REFUSED if wants_range else _EXPECTED,
                    consume=self._accept,
                    attempts=self._attempts,
                )
            except _RangeRefusedError:
                # The next request is for the whole blob, of which `_skip` drops the beginning.
                self._takes_ranges = False
            except RegistryError as error:
                self._use_next_endpoint(error)

    @property
    def _is_part(self) -> bool:
        return self._position > 0 or self._stop < self._blob.size

    def _accept(self, response: Response) -> Response | Decompressed:
        # A foreign layer is requested from the registry first, because many registries have it nevertheless.
        if response.status == 404:
            response = self._foreign(response)
        try:
            body = self._body_of(response)
        except BaseException:
            response.close()
            raise
        self._response = response
        return body

    def _body_of(self, response: Response) -> Response | Decompressed:
        """Return the body, after checks of what the headers say about it."""
        # An earlier answer may have been the whole blob, and have ended before all of these bytes were skipped.
        self._skip_count = 0
        self._end_of_part = None
        if response.status == 200:
            self._skip_count = self._position
            length: int | None = self._blob.size
        else:
            length = self._part_length(response)
            # A wrong range is treated like a refusal: next, the whole blob is requested.
            if length is None and self._is_part and self._takes_ranges:
                raise _RangeRefusedError
            if length is None:
                raise Failure(f"got status {response.status}, but no range was requested")
            # With a shorter part its end counts as an interruption, so that the number of requests is limited.
            if length >= _SHORTEST:
                self._end_of_part = self._position + length
        # A body of the right length is not compressed, whatever the headers say.
        if response.encoding and response.length != length:
            # The range counts compressed bytes then (RFC 9110, 14.1.2), which are useless without those before them.
            if response.status != 200:
                raise Failure(f"got encoding {response.encoding[:40]!r} for a range, expected none", is_final=True)
            return response.decompressed()
        # A page in place of the blob hardly ever has its size, so its first bytes decide which message helps.
        if response.length not in (None, length):
            start = memoryview(bytearray(_PAGE_START))
            if is_web_page(bytes(start[: response.readinto(start)]), response.content_type):
                raise response.web_page("a blob")
            raise Failure(f"got a response of {response.length} bytes, expected {length}", max_attempts=3)
        return response

    def _part_length(self, response: Response) -> int | None:
        """Return the length of a partial response; None if it is not a part of what was requested."""
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if response.status != 206 or match is None:
            return None
        first, last = int(match[1]), int(match[2])
        is_right = first == self._position <= last < self._stop and match[3] in ("*", str(self._blob.size))
        return last - first + 1 if is_right else None

    def _foreign(self, response: Response) -> Response:
        """Fetch a layer that the registry may not distribute from the URLs of its descriptor.

        Source: image-spec, descriptor.md.
        """
        registry = self._endpoints[0][0]
        problem = f"not in {registry.host}, although its manifest is: {response.refusal()}"
        wait, is_final, is_outage = None, True, False
        for url in self._blob.urls[:_URLS]:
            try:
                return registry.fetch(url)
            except Failure as failure:
                problem += f"; {failure}"
                # One URL that may work later is enough for another attempt.
                wait, is_final = failure.wait or wait, is_final and failure.is_final
                is_outage = is_outage or failure.is_outage
        raise Failure(problem, is_final=is_final, wait=wait, is_outage=is_outage)

    def _interrupted(self, failure: Failure) -> None:
        """Prepare the next attempt, at the next endpoint if this one has no attempts left."""
        self._close()
        problem = f"{failure} after {self._position} of {self._blob.size} bytes"
        if failure.is_final:
            self._use_next_endpoint(RegistryError(f"{self._where}: {problem}"))
            return
        try:
            self._attempts.record(failure, problem)
        except RegistryError as error:
            self._use_next_endpoint(error)

    def _use_next_endpoint(self, error: RegistryError) -> None:
        self._problems.extend(error.problems)
        del self._endpoints[0]
        if not self._endpoints:
            raise RegistryError(*self._problems) from None
        # Another server may support ranges, and has not failed yet.
        self._attempts = self._endpoints[0][0].attempts(self._where)
        self._takes_ranges = True

    def _close(self) -> None:
        self._body = None
        if self._response is not None:
            self._response.close()
            self._response = None


def _is_page(response: Response, start: memoryview) -> bool:
    """Tell whether a blob is a web page. A tar may begin with the same bytes, but has a NUL behind its first name."""
    content = bytes(start[:_PAGE_START])
    return is_web_page(content, "") and b"\0" not in content


def _skip(body: Response | Decompressed, count: int) -> None:
    scratch = memoryview(bytearray(min(count, _CHUNK)))
    left = count
    while left:
        received = body.readinto(scratch[: min(left, _CHUNK)])
        if received == 0:
            raise Failure(f"interrupted before byte {count}")
        left -= received
