"""What a terminal shows: of a prefetch while it runs and when it has ended, and of tables."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from itertools import dropwhile
from pathlib import Path

import pyte
import pytest

from tests.support import images
from tests.support.fault_registry import Exchange, Fault, Request, serve

COUNT = 4
DESCRIPTION = '<image schemaversion="8.0" name="kiosk"><include from="this://./containers.xml"/></image>'
CONTAINERS = """<image schemaversion="8.0" name="containers">
  <containers source="{host}" backend="podman">{containers}</containers>
</image>
"""
FRAME = re.compile(rb"(?=\r\x1b\[2K)")
"""Where all bars are drawn anew."""
PROGRAM = "import sys; from osc_containers.cli.main import console; sys.argv[0] = 'osc-containers'; console()"


def slowly(request: Request) -> Fault | None:
    """Let blobs come in pieces, so that there is something to draw."""

    def send(exchange: Exchange) -> None:
        answer = exchange.answer()
        exchange.send_bytes(answer.head())
        for at in range(0, len(answer.body), 100_000):
            exchange.send_bytes(answer.body[at : at + 100_000])
            exchange.pause(0.05)

    return send if request.is_blob else None


def on_terminal(columns: int, directory: Path, *arguments: str) -> list[list[str]]:
    """Run the program on a terminal of so many columns; return the lines on it as often as they are drawn anew."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=directory,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    with suppress(OSError):  # when the other side is closed
        while True:
            written += os.read(ours, 1 << 16)
    os.close(ours)
    assert process.wait() == 0
    screen = pyte.HistoryScreen(columns, 30, history=500)
    stream = pyte.ByteStream(screen)
    shown = []
    for frame in FRAME.split(written):
        stream.feed(frame)
        above = ["".join(row[column].data for column in range(columns)) for row in screen.history.top]
        shown.append([line.rstrip() for line in (*above, *screen.display) if line.strip()])
    return shown


@pytest.mark.parametrize("columns", [24, 40, 80, 120])
def test_of_a_prefetch_its_messages_are_left_on_the_terminal_and_nothing_else(tmp_path: Path, columns: int) -> None:
    made = {f"application-{n}": images.image(images.random_layer(f"{n}", 1_000_000)) for n in range(COUNT)}
    with serve() as registry:
        for name, image in made.items():
            registry.push(image, f"team/{name}:1")
        registry.script = slowly
        containers = "".join(f'<container name="{name}" path="team" tag="1"/>' for name in made)
        (tmp_path / "kiosk.kiwi").write_text(DESCRIPTION)
        (tmp_path / "containers.xml").write_text(CONTAINERS.format(host=registry.host, containers=containers))
        *shown, left = on_terminal(columns, tmp_path, "prefetch", "--arch", "x86_64", "--connections", "3")
    bars = [line for lines in shown for line in dropwhile(lambda line: not line.startswith("total"), lines)]
    assert len(bars) > COUNT
    assert [line for line in bars if not re.search(r"\d (MB|bytes)", line)] == []
    messages = [
        f"osc-containers: {registry.host}/team/{name}:1 (x86_64): pinned to {image.digest}, 1.0 MB"
        for name, image in made.items()
    ]
    expected = [message[at : at + columns].rstrip() for message in messages for at in range(0, len(message), columns)]
    assert left == expected


def test_a_table_is_no_wider_than_the_terminal(tmp_path: Path) -> None:
    containers = '<container name="application" path="some/team"/>'
    (tmp_path / "kiosk.kiwi").write_text(CONTAINERS.format(host="registry.example.com", containers=containers))
    *_, lines = on_terminal(80, tmp_path, "list")
    assert lines == [
        "REFERENCE                      BACKEND  ARCH  PROFILES  FETCH ONLY  PINNED  SIZE",
        "registry.example.com/some/     podman   -     -         no          -          -",
        "team/application:latest",
    ]
