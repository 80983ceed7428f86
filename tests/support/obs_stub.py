"""As much of an OBS server as osc asks before it runs services, and a working copy of a package of it."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Api(BaseHTTPRequestHandler):
    """No project has services of its own, and nobody is asked who they are, since oscrc says it."""

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
    """Run the server on a free loopback port and give out its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Api) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def check_out(package: Path, apiurl: str) -> None:
    """Make a working copy of a directory with the sources of a package (osc/_private, store)."""
    store = {"_osclib_version": "2.0", "_apiurl": apiurl, "_project": "home:ann", "_package": package.name}
    (package / ".osc").mkdir()
    for name, text in store.items():
        (package / ".osc" / name).write_text(f"{text}\n")
    (package / ".osc/_files").write_text("<directory/>\n")


def commit(package: Path, *names: str) -> None:
    """Make the working copy one in which the files `names` are committed as they are now."""
    kept = package / ".osc/sources"
    kept.mkdir(exist_ok=True)
    entries = ""
    for name in names:
        content = (package / name).read_bytes()
        (kept / name).write_bytes(content)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        entries += f'  <entry name="{name}" md5="{md5}" size="{len(content)}" mtime="0"/>\n'
    (package / ".osc/_files").write_text(f"<directory>\n{entries}</directory>\n")
