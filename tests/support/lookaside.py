"""A store of signatures behind HTTP: the first part of a path says how the server behaves."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = 5 << 20
"""Bytes of a file in `large`, more than any signature may have."""


@contextmanager
def serve(directory: Path) -> Iterator[str]:
    """Serve the files below `directory`, and yield the address of the server.

    `/files` has them, and `/redirect` leads there; what does not exist is 403 in `/hidden`, as in some object stores.
    Every file of `/large` is too large, and a number is the status of everything below it.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _, behaviour, name = unquote(urlsplit(self.path).path).split("/", 2)
            path = directory / name.lstrip("/")
            if behaviour == "redirect":
                self._send(302, {"Location": f"/files/{self.path.split('/', 2)[2]}"})
            elif behaviour.isdecimal():
                self._send(int(behaviour), {"WWW-Authenticate": 'Basic realm="store"'})
            elif behaviour == "large":
                self._send(200, {}, bytes(LARGE))
            elif path.is_file():
                self._send(200, {}, path.read_bytes())
            else:
                self._send(403 if behaviour == "hidden" else 404, {})

        def _send(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
