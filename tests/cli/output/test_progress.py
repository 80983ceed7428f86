"""The output on a terminal: progress bars, what remains of them, and tables."""

import fcntl
import io
import os
import re
import struct
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import dropwhile
from pathlib import Path

import pyte
import pytest

from osc_containers.cli.output import progress
from tests.support import images
from tests.support.fault_registry import Exchange, Fault, FaultRegistry, Request, serve

COUNT = 4
DESCRIPTION = '<image schemaversion="8.0" name="kiosk"><include from="this://./containers.xml"/></image>'
CONTAINERS = """<image schemaversion="8.0" name="containers">
  <containers source="{host}" backend="podman">{containers}</containers>
</image>
"""
FRAME = re.compile(rb"(?=\r\x1b\[2K)")
"""The start of each frame, in which all bars are redrawn."""
PROGRAM = "import sys; from osc_containers.cli.main import console; sys.argv[0] = 'osc-containers'; console()"


def slowly(request: Request) -> Fault | None:
    """Send blobs in pieces, so that there is progress to show."""

    def send(exchange: Exchange) -> None:
        answer = exchange.answer()
        exchange.send_bytes(answer.head())
        for at in range(0, len(answer.body), 100_000):
            exchange.send_bytes(answer.body[at : at + 100_000])
            exchange.pause(0.05)

    return send if request.is_blob else None


def on_terminal(
    columns: int, directory: Path, *arguments: str, interrupt_after: bytes | None = None, status: int = 0
) -> list[list[str]]:
    """Run the program on a terminal with this many columns; return the lines on it after each frame.

    Type Ctrl-C when the program has printed `interrupt_after`. `status` is the exit status to expect.
    """
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    process = subprocess.Popen(
        # A shell makes its background jobs ignore SIGINT, and the tests may run in one.
        ["env", "--default-signal=INT", sys.executable, "-c", PROGRAM, *arguments],
        cwd=directory,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that a Ctrl-C is a signal for it
    )
    os.close(theirs)
    written = b""
    with suppress(OSError):  # the other side was closed
        while True:
            written += os.read(ours, 1 << 16)
            if interrupt_after is not None and interrupt_after in written:
                os.write(ours, b"\x03")
                interrupt_after = None
    os.close(ours)
    assert process.wait() == status
    screen = pyte.HistoryScreen(columns, 30, history=500)
    stream = pyte.ByteStream(screen)
    frames = []
    for frame in FRAME.split(written):
        stream.feed(frame)
        above = ["".join(row[column].data for column in range(columns)) for row in screen.history.top]
        frames.append([line.rstrip() for line in (*above, *screen.display) if line.strip()])
    return frames


@pytest.mark.integration
@pytest.mark.parametrize("columns", [24, 40, 80, 120])
def test_only_messages_remain_after_progress_bars(tmp_path: Path, columns: int) -> None:
    image_by_name = {f"application-{n}": images.image(images.random_layer(f"{n}", 1_000_000)) for n in range(COUNT)}
    with serve() as registry:
        for name, image in image_by_name.items():
            registry.push(image, f"team/{name}:1")
        registry.script = slowly
        containers = "".join(f'<container name="{name}" path="team" tag="1"/>' for name in image_by_name)
        (tmp_path / "kiosk.kiwi").write_text(DESCRIPTION)
        (tmp_path / "containers.xml").write_text(CONTAINERS.format(host=registry.host, containers=containers))
        *frames, last_frame = on_terminal(columns, tmp_path, "prefetch", "--arch", "x86_64", "--connections", "3")
    bars = [line for lines in frames for line in dropwhile(lambda line: not line.startswith("total"), lines)]
    assert len(bars) > COUNT
    assert [line for line in bars if not re.search(r"\d (MB|bytes)", line)] == []
    messages = [
        f"osc-containers: {registry.host}/team/{name}:1 (x86_64): pinned to sha256:{image.digest.short}, 1.0 MB"
        for name, image in image_by_name.items()
    ]
    expected = [message[at : at + columns].rstrip() for message in messages for at in range(0, len(message), columns)]
    assert last_frame == expected


class SlowTerminal(io.StringIO):
    """A terminal that lets other threads run before it takes a text."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        time.sleep(0.001)
        return super().write(text)


@pytest.mark.integration
def test_messages_of_several_threads_stay_above_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    output = SlowTerminal()
    monkeypatch.setattr(sys, "stderr", output)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "100"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(progress, "_INTERVAL", 0.001)
    expected = [f"message {number}" for number in range(60)]

    def transfer(number: int) -> None:
        with watcher.blob(f"blob {number}", 1 << 20) as advance:
            advance(1 << 19)
            time.sleep(0.003)

    with progress.on_terminal() as watcher, ThreadPoolExecutor(4) as pool:
        tasks = pool.map(transfer, range(60))
        for message in expected:
            print(message, file=sys.stderr)
        list(tasks)
    screen = pyte.Screen(80, 100)
    pyte.Stream(screen).feed(output.getvalue().replace("\n", "\r\n"))
    assert [line.rstrip() for line in screen.display if line.strip()] == expected


def test_nothing_of_the_bars_remains_after_an_interrupt(registry: FaultRegistry, tmp_path: Path) -> None:
    """The terminal shows ^C where the cursor is: at the end of the last bar."""
    # So large that the download never ends before the interrupt, however busy the machine is.
    registry.push(images.image(images.random_layer("app", 30_000_000)), "team/app:1")
    registry.script = slowly
    (tmp_path / "kiosk.kiwi").write_text(DESCRIPTION)
    container = '<container name="app" path="team" tag="1"/>'
    (tmp_path / "containers.xml").write_text(CONTAINERS.format(host=registry.host, containers=container))
    *_, lines = on_terminal(80, tmp_path, "prefetch", "--arch", "x86_64", interrupt_after=b"MB", status=130)
    assert lines == ["osc-containers: interrupted; the next run resumes the downloads"]


@pytest.mark.parametrize("columns", [30, 40, 60])
def test_table_fits_a_narrow_terminal(columns: int, tmp_path: Path) -> None:
    containers = '<container name="application" path="some/team" fetch_only="true"/>'
    (tmp_path / "kiosk.kiwi").write_text(CONTAINERS.format(host="registry.example.com", containers=containers))
    *_, lines = on_terminal(columns, tmp_path, "list")
    reference = "registry.example.com/some/team/application:latest"
    assert "".join(lines[: -(-len(reference) // columns)]) == reference
    assert lines[-6:] == [
        *("  BACKEND     podman", "  ARCH        -", "  PROFILES    -"),
        *("  FETCH ONLY  yes", "  PINNED      -", "  SIZE        -"),
    ]


def test_table_fits_the_terminal(tmp_path: Path) -> None:
    containers = '<container name="application" path="some/team"/>'
    (tmp_path / "kiosk.kiwi").write_text(CONTAINERS.format(host="registry.example.com", containers=containers))
    *_, lines = on_terminal(80, tmp_path, "list")
    assert lines == [
        "REFERENCE                      BACKEND  ARCH  PROFILES  FETCH ONLY  PINNED  SIZE",
        "registry.example.com/some/     podman   -     -         no          -          -",
        "team/application:latest",
    ]
