"""Everything that goes wrong between a registry and us, one function for each.

A fault answers one request in the registry's place (see `fault_registry.Fault`). `FAULTS` names those of them that a
test can put at any request.
"""

import gzip
import random
from collections.abc import Callable, Mapping

from tests.support.fault_registry import Answer, Exchange, Fault, Request, Script, chunks
from tests.support.images import Image

STALL = 20.0
"""Seconds that a stall lasts, much longer than the timeouts of the tests."""


def at(number: int, fault: Fault) -> Script:
    """Apply a fault to one request; the first has the number 0."""
    return lambda request: fault if request.number == number else None


def on(fault: Fault, matches: Callable[[Request], bool], times: int = 1 << 30) -> Script:
    """Apply a fault to the first `times` requests that match."""
    left = [times]

    def script(request: Request) -> Fault | None:
        if left[0] <= 0 or not matches(request):
            return None
        left[0] -= 1
        return fault

    return script


def seeded(seed: str, rate: float) -> Script:
    """Apply a random fault to each request with the probability `rate`, determined by seed and request number."""

    def script(request: Request) -> Fault | None:
        choice = random.Random(f"{seed}/{request.number}")
        return choice.choice(list(FAULTS.values())) if choice.random() < rate else None

    return script


def refuse(exchange: Exchange) -> None:
    """Reset the connection, and accept no new one for a moment."""
    exchange.registry.refuse(0.02)
    exchange.reset()


def reset_before(exchange: Exchange) -> None:
    """Reset the connection instead of answering."""
    exchange.reset()


def close_before(exchange: Exchange) -> None:
    """Close the connection instead of answering."""
    exchange.close()


def reset_in_headers(exchange: Exchange) -> None:
    """Reset the connection after half of the headers."""
    head = exchange.answer().head()
    exchange.send_bytes(head[: len(head) // 2])
    exchange.reset()


def reset_after_headers(exchange: Exchange) -> None:
    """Reset the connection after the headers."""
    exchange.send_bytes(exchange.answer().head())
    exchange.reset()


def reset_in_body(exchange: Exchange) -> None:
    """Reset the connection after half of the body, when it has probably been received."""
    _send_half(exchange)
    exchange.pause(0.02)
    exchange.reset()


def reset_after(exchange: Exchange) -> None:
    """Reset the connection after the answer."""
    exchange.send(exchange.answer())
    exchange.pause(0.02)
    exchange.reset()


def truncate(exchange: Exchange) -> None:
    """Close the connection after half of the body."""
    _send_half(exchange)
    exchange.close()


def stall_before(exchange: Exchange) -> None:
    """Do not answer."""
    exchange.pause(STALL)
    exchange.close()


def stall_in_body(exchange: Exchange) -> None:
    """Send half of the body, then stall."""
    _send_half(exchange)
    exchange.pause(STALL)
    exchange.close()


def trickle(exchange: Exchange) -> None:
    """Send the body byte by byte, each one well within a timeout."""
    answer = exchange.answer()
    exchange.send_bytes(answer.head())
    for at_byte in range(len(answer.body)):
        if not exchange.pause(0.05):
            break
        exchange.send_bytes(answer.body[at_byte : at_byte + 1])
    exchange.close()


def trickle_headers(exchange: Exchange) -> None:
    """Send a header byte by byte, without end."""
    exchange.send_bytes(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while exchange.pause(0.05):
        exchange.send_bytes(b"x")


def endless_headers(exchange: Exchange) -> None:
    """Send short headers without end."""
    exchange.send_bytes(b"HTTP/1.1 200 OK\r\n")
    while exchange.pause(0):
        exchange.send_bytes(b"X-More: x\r\n" * 100)


def interim(code: int) -> Fault:
    """Send interim responses before the answer (RFC 9110, 15.2)."""

    def fault(exchange: Exchange) -> None:
        exchange.send_bytes(b"HTTP/1.1 %d Interim\r\nLink: </a>; rel=preload\r\n\r\n" % code * 2)
        exchange.send(exchange.answer())

    return fault


def endless_interim(exchange: Exchange) -> None:
    """Send interim responses without end (RFC 9110, 15.2)."""
    while exchange.pause(0):
        exchange.send_bytes(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" * 100)


def endless_body(exchange: Exchange) -> None:
    """Send an endless body."""
    exchange.send_bytes(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while exchange.pause(0):
        exchange.send_bytes(b" " * 65536)


def endless_error(exchange: Exchange) -> None:
    """Send an error with an endless body."""
    exchange.send_bytes(b"HTTP/1.1 500 Error\r\nContent-Type: application/json\r\n\r\n")
    while exchange.pause(0):
        exchange.send_bytes(b"x" * 65536)


def garbage(exchange: Exchange) -> None:
    """Answer in another protocol."""
    exchange.send_bytes(b"SSH-2.0-OpenSSH_9.2\r\n")
    exchange.close()


def extend(exchange: Exchange) -> None:
    """Announce and send additional bytes."""
    answer = exchange.answer()
    answer.body += b"more"
    _resize(answer)
    exchange.send(answer)


def extend_silently(exchange: Exchange) -> None:
    """Send more bytes than announced, and close."""
    answer = exchange.answer()
    answer.body += b"more" * 10
    exchange.send(answer)
    exchange.close()


def flip(exchange: Exchange) -> None:
    """Change one bit of the body."""
    answer = exchange.answer()
    if answer.body:
        body = bytearray(answer.body)
        body[len(body) // 2] ^= 1
        answer.body = bytes(body)
    exchange.send(answer)


def repeat(exchange: Exchange) -> None:
    """Send a piece of the body twice, and the body cut to its size."""
    answer = exchange.answer()
    half = len(answer.body) // 2
    answer.body = (answer.body[:half] + answer.body[max(half - 100, 0) :])[: len(answer.body)]
    exchange.send(answer)


def announce_less(exchange: Exchange) -> None:
    """Announce and send fewer bytes."""
    answer = exchange.answer()
    answer.body = answer.body[:-1]
    _resize(answer)
    exchange.send(answer)


def announce_more(exchange: Exchange) -> None:
    """Announce more bytes than are sent, and close."""
    answer = exchange.answer()
    answer.headers["Content-Length"] = str(len(answer.body) + 7)
    exchange.send(answer)
    exchange.close()


def absurd_length(exchange: Exchange) -> None:
    """Announce a length that is not a number."""
    answer = exchange.answer()
    answer.headers["Content-Length"] = "-5"
    exchange.send(answer)
    exchange.close()


def without_type(exchange: Exchange) -> None:
    """Omit the media type."""
    answer = exchange.answer()
    answer.headers.pop("Content-Type", None)
    exchange.send(answer)


def wrong_type(exchange: Exchange) -> None:
    """Declare everything a web page."""
    answer = exchange.answer()
    answer.headers["Content-Type"] = "text/html"
    exchange.send(answer)


def wrong_digest(exchange: Exchange) -> None:
    """Send the digest of something else."""
    answer = exchange.answer()
    answer.headers["Docker-Content-Digest"] = "sha256:" + "0" * 64
    exchange.send(answer)


def absurd_digest(exchange: Exchange) -> None:
    """Send a malformed digest."""
    answer = exchange.answer()
    answer.headers["Docker-Content-Digest"] = "sha256:../../etc/passwd"
    exchange.send(answer)


def expire_token(exchange: Exchange) -> None:
    """Invalidate all tokens just before this request."""
    exchange.registry.expire_tokens()
    exchange.send(exchange.answer())


def move_tag(image: Image, name: str) -> Fault:
    """Push another image under a tag just before this request."""

    def fault(exchange: Exchange) -> None:
        exchange.registry.push(image, name)
        exchange.send(exchange.answer())

    return fault


def empty_success(exchange: Exchange) -> None:
    """Send an empty successful answer."""
    exchange.send(Answer(status=200, headers={"Content-Length": "0"}))


def web_page(exchange: Exchange) -> None:
    """Answer like a captive portal."""
    exchange.send(_page(200))


def status(code: int, headers: Mapping[str, str] | None = None) -> Fault:
    """Answer with a status and a web page."""

    def fault(exchange: Exchange) -> None:
        answer = _page(code)
        answer.headers.update(headers or {})
        exchange.send(answer)

    return fault


def redirect(target: str) -> Fault:
    """Redirect the client."""
    return status(307, {"Location": target})


def redirect_loop(exchange: Exchange) -> None:
    """Redirect the client to the same URL."""
    redirect(exchange.request.target)(exchange)


def old_http(exchange: Exchange) -> None:
    """Answer in HTTP/1.0, without a length: the body ends with the connection."""
    answer = exchange.answer()
    answer.version = "HTTP/1.0"
    answer.headers.pop("Content-Length", None)
    exchange.send(answer)


def chunked(exchange: Exchange) -> None:
    """Send the body in chunks, without its length."""
    answer = exchange.answer()
    del answer.headers["Content-Length"]
    answer.headers["Transfer-Encoding"] = "chunked"
    exchange.send(answer)


def truncate_chunked(exchange: Exchange) -> None:
    """Send the body in chunks, and close in the middle of one."""
    answer = exchange.answer()
    del answer.headers["Content-Length"]
    answer.headers["Transfer-Encoding"] = "chunked"
    body = chunks(answer)
    exchange.send_bytes(answer.head() + body[: len(body) // 2])
    exchange.close()


def endless_trailers(exchange: Exchange) -> None:
    """Send the body in chunks, and endless trailers (RFC 9112, 7.1.2)."""
    answer = exchange.answer()
    del answer.headers["Content-Length"]
    answer.headers["Transfer-Encoding"] = "chunked"
    exchange.send_bytes(answer.head() + chunks(answer).removesuffix(b"\r\n"))
    while exchange.pause(0):
        exchange.send_bytes(b"X-More: x\r\n" * 1000)


def mostly_extensions(exchange: Exchange) -> None:
    """Send the body in chunks of one byte with extensions of a thousand bytes (RFC 9112, 7.1.1)."""
    answer = exchange.answer()
    del answer.headers["Content-Length"]
    answer.headers["Transfer-Encoding"] = "chunked"
    exchange.send_bytes(answer.head())
    for byte in answer.body:
        exchange.send_bytes(b"1;%s\r\n%c\r\n" % (b"x" * 1000, byte))
    exchange.send_bytes(b"0\r\n\r\n")


def packed(exchange: Exchange) -> None:
    """Compress the body although the client refuses that."""
    _pack(exchange, lambda body: (body,))


def packed_in_members(exchange: Exchange) -> None:
    """Compress the body in several members, the first of which is empty (RFC 1952, 2.2)."""
    _pack(exchange, lambda body: (b"", body[:100], body[100:]))


def packed_without_content(data: bytes) -> Fault:
    """Send the same gzip data without end."""

    def fault(exchange: Exchange) -> None:
        head = Answer(status=200, headers={"Content-Encoding": "gzip"}).head()
        exchange.send_bytes(head + gzip.compress(b"")[:10])
        while exchange.pause(0):
            exchange.send_bytes(data)

    return fault


def _pack(exchange: Exchange, split: Callable[[bytes], tuple[bytes, ...]]) -> None:
    answer = exchange.answer()
    # A server that compresses sends the whole, since a part of a compressed body would be useless.
    if answer.status == 206:
        answer = exchange.registry.answer(exchange.request.without_range())
    answer.body = b"".join(gzip.compress(part, compresslevel=1, mtime=0) for part in split(answer.body))
    answer.headers["Content-Encoding"] = "gzip"
    _resize(answer)
    exchange.send(answer)


def falsely_packed(exchange: Exchange) -> None:
    """Declare a body compressed that is not."""
    answer = exchange.answer()
    answer.headers["Content-Encoding"] = "gzip"
    exchange.send(answer)


def wrong_range(exchange: Exchange) -> None:
    """Send another range than the requested one."""
    answer = exchange.answer()
    if answer.status == 206:
        answer.headers["Content-Range"] = f"bytes 0-{len(answer.body) - 1}/{len(answer.body)}"
    exchange.send(answer)


def shorter_range(size: int) -> Fault:
    """Send at most `size` bytes of a range (RFC 9110, 15.3.7)."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.answer()
        if answer.status == 206 and len(answer.body) > size:
            first, _, rest = answer.headers["Content-Range"].partition("-")
            last = int(first.removeprefix("bytes ")) + size - 1
            answer.headers["Content-Range"] = f"{first}-{last}/{rest.partition('/')[2]}"
            answer.body = answer.body[:size]
            _resize(answer)
        exchange.send(answer)

    return fault


def unasked_range(exchange: Exchange) -> None:
    """Declare the answer a range."""
    answer = exchange.answer()
    answer.status = 206
    exchange.send(answer)


def _send_half(exchange: Exchange) -> None:
    answer = exchange.answer()
    exchange.send_bytes(answer.head() + answer.body[: len(answer.body) // 2])


def _resize(answer: Answer) -> None:
    answer.headers["Content-Length"] = str(len(answer.body))


def _page(code: int) -> Answer:
    body = b"<html><body>Something is wrong.</body></html>"
    return Answer(status=code, headers={"Content-Type": "text/html", "Content-Length": str(len(body))}, body=body)


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        refuse,
        reset_before,
        close_before,
        reset_in_headers,
        reset_after_headers,
        reset_in_body,
        reset_after,
        truncate,
        stall_before,
        stall_in_body,
        trickle,
        trickle_headers,
        endless_headers,
        endless_interim,
        endless_body,
        endless_error,
        garbage,
        extend,
        extend_silently,
        flip,
        repeat,
        announce_less,
        announce_more,
        absurd_length,
        without_type,
        wrong_type,
        wrong_digest,
        absurd_digest,
        expire_token,
        empty_success,
        web_page,
        redirect_loop,
        old_http,
        chunked,
        truncate_chunked,
        endless_trailers,
        mostly_extensions,
        packed,
        packed_in_members,
        falsely_packed,
        wrong_range,
        unasked_range,
    )
} | {
    "status_401": status(401),
    "status_403": status(403),
    "status_404": status(404),
    "status_408": status(408),
    "status_416": status(416),
    "status_429": status(429),
    "status_429_soon": status(429, {"Retry-After": "0"}),
    "status_429_later": status(429, {"Retry-After": "100000"}),
    "status_429_date": status(429, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}),
    "status_500": status(500),
    "status_502": status(502),
    "status_503": status(503),
    "status_504": status(504),
    "redirect_elsewhere": redirect("http://127.0.0.2:9/"),
    "redirect_to_file": redirect("file:///etc/passwd"),
    "redirect_to_nothing": redirect(""),
}
"""The faults by name; each can be applied to any request."""
