"""A stand-in for the API of OBS, as far as osc needs it, in front of a source server without the Rails application.

    python -m tests.support.e2e.obs.api PORT PORT-OF-THE-SOURCE-SERVER LOG

It answers questions about itself and about users, makes the project of a branch, and passes everything else to the
source server, which passes requests about builds on to the repository server. Each user is who he says he is.
"""

import base64
import http.client
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

_CHUNK = 1 << 20
_TIMEOUT = 600
_DIFFS = ("diff", "linkdiff", "servicediff")
"""Commands that change nothing, and that the source server refuses with a user."""


class _Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    backend = 0
    log: IO[str]

    def _handle(self) -> None:
        url = urlsplit(self.path)
        path, query = url.path.removeprefix("/public"), dict(parse_qsl(url.query, keep_blank_values=True))
        method, encoded = self.headers.get("Authorization", " ").split(" ", 1)
        if method != "Basic":
            self.rfile.read(self._length)
            self._reply(401, _status("authentication_required"), {"WWW-Authenticate": 'Basic realm="OBS"'})
            return
        user = base64.b64decode(encoded).decode().partition(":")[0]
        if answer := _answer(path, user):
            self.rfile.read(self._length)
            self._reply(200, answer)
            return
        pairs = parse_qsl(url.query, keep_blank_values=True)
        if query.get("cmd") == "branch":
            path, pairs = self._branch(path, query, pairs, user)
        changes_sources = self.command != "GET" and path.startswith("/source") and query.get("cmd") not in _DIFFS
        if changes_sources and "user" not in query:
            pairs.append(("user", user))
        self._forward(path + ("?" + urlencode(pairs) if pairs else ""))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

    @property
    def _length(self) -> int:
        return int(self.headers.get("Content-Length") or 0)

    def _branch(
        self, path: str, query: dict[str, str], pairs: list[tuple[str, str]], user: str
    ) -> tuple[str, list[tuple[str, str]]]:
        """Make the project and package that are branched into; the source server makes only the link."""
        _, _, project, package = map(unquote, path.split("/"))
        target = query.get("target_project", f"home:{user}:branches:{project}")
        person = f'<person userid="{user}" role="maintainer"/>'
        for name, meta in (
            (target, f'<project name="{target}"><title/><description/>{person}</project>'),
            (f"{target}/{package}", f'<package name="{package}" project="{target}"><title/><description/></package>'),
        ):
            connection = self._connect()
            connection.request("PUT", f"/source/{name}/_meta?user={user}", meta.encode())
            connection.getresponse().read()
            connection.close()
        kept = [(name, value) for name, value in pairs if not name.startswith("target_")]
        return f"/source/{target}/{package}", [*kept, ("oproject", project), ("opackage", package)]

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.backend, timeout=_TIMEOUT)

    def _forward(self, target: str) -> None:
        connection = self._connect()
        connection.putrequest(self.command, target, skip_accept_encoding=True)
        for name in ("Content-Type", "Accept"):
            if value := self.headers.get(name):
                connection.putheader(name, value)
        if self.command in ("PUT", "POST"):
            connection.putheader("Content-Length", str(self._length))
        try:
            connection.endheaders()
            left = self._length
            while left:
                part = self.rfile.read(min(left, _CHUNK))
                if not part:
                    return
                left -= len(part)
                connection.send(part)
            answer = connection.getresponse()
            content = answer.read()
        except OSError as error:
            self.close_connection = True
            self._reply(503, _status("source_server_unreachable", str(error)))
            self.log.write(f"503 {self.command} 0 {target}\n")
            return
        finally:
            connection.close()
        if self.command == "PUT" and target.partition("?")[0].endswith("/_meta") and answer.status == 200:
            content = _status("ok").encode()
        kind = answer.getheader("Content-Type") or "application/octet-stream"
        self._reply(answer.status, content, {"Content-Type": kind})
        self.log.write(f"{answer.status} {self.command} {self._length} {target}\n")

    def _reply(self, status: int, body: str | bytes, headers: dict[str, str] | None = None) -> None:
        content = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in ({"Content-Type": "text/xml"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _answer(path: str, user: str) -> str:
    """Return what the Rails application answers without the back end."""
    if path == "/about":
        return "<about><title>Open Build Service API</title><revision>2.9.4</revision></about>"
    if path == "/configuration":
        return "<configuration><schedulers><arch>x86_64</arch></schedulers></configuration>"
    if path.startswith("/person/"):
        return f"<person><login>{user}</login><email>{user}@example.com</email><realname>{user}</realname></person>"
    if path == "/request":  # after a commit, osc asks for open requests
        return '<collection matches="0"/>'
    return ""


def _status(code: str, summary: str = "") -> str:
    return f'<status code="{code}"><summary>{summary or code}</summary></status>'


def main() -> None:
    """Serve until the process is killed."""
    port, _Api.backend = int(sys.argv[1]), int(sys.argv[2])
    with open(sys.argv[3], "a", buffering=1) as _Api.log:
        server = ThreadingHTTPServer(("127.0.0.1", port), _Api)
        server.daemon_threads = True
        server.serve_forever()


if __name__ == "__main__":
    main()
