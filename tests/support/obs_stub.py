"""A stub of the OBS API for osc when it runs services, and working copies of packages."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Api(BaseHTTPRequestHandler):
    """No project has services, and no request is authenticated: oscrc has the login."""

    def do_POST(self) -> None:
        self._answer(200 if self.path.endswith("cmd=getprojectservices") else 404)

    def do_GET(self) -> None:
        self._answer(404)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"<services/>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve() -> Iterator[str]:
    """Run the server on a free loopback port and yield its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Api) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def check_out(package: Path, apiurl: str) -> None:
    """Turn a directory with the sources of a package into a working copy (osc/_private, store)."""
    store = {"_osclib_version": "2.0", "_apiurl": apiurl, "_project": "home:ann", "_package": package.name}
    (package / ".osc").mkdir()
    for name, text in store.items():
        (package / ".osc" / name).write_text(f"{text}\n")
    (package / ".osc/_files").write_text("<directory/>\n")


def commit(package: Path, *names: str) -> None:
    """Mark the files `names` of a working copy as committed with their current content."""
    sources = package / ".osc/sources"
    sources.mkdir(exist_ok=True)
    entries = ""
    for name in names:
        content = (package / name).read_bytes()
        (sources / name).write_bytes(content)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        entries += f'  <entry name="{name}" md5="{md5}" size="{len(content)}" mtime="0"/>\n'
    (package / ".osc/_files").write_text(f"<directory>\n{entries}</directory>\n")
