"""Starts other programs. No other module does.

Packages, repositories and registries must not decide which program runs, with which options, or in which environment.
So a program comes from a directory of PATH that only the user or the system can change, it starts in `/`, what others
wrote stands behind `--` or cannot be an option, and it inherits only the environment variables that it needs.
"""

import os
import selectors
import stat
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from osc_containers.errors import Error
from osc_containers.fs import ranges

_INHERITED = ("HOME", "LOGNAME", "TMPDIR", "USER", "XDG_*")
_NEVER = (
    *("BASH*", "CDPATH", "ENV", "IFS", "SHELLOPTS", "GCONV_PATH", "LD_*"),
    *("GIT_*", "NODE_OPTIONS", "OSC_CONFIG", "PERL5*", "PYTHON*", "RUBY*", "TAR_*"),
)
"""Variables that make programs load code or run other programs."""

# Limits for `run`: bytes of output, bytes of messages that are kept, and seconds.
_OUTPUT = 1 << 20
_MESSAGES = 64 << 10
_TIMEOUT = 120.0


class NotInstalledError(Error):
    """There is no such program, or only one that others can change."""


class Done(NamedTuple):
    """How a program ended. `stderr` is only its end if it is long."""

    name: str
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def reason(self) -> str:
        """The last line of its messages, at most 400 characters, or its exit status."""
        lines = self.stderr.decode("utf-8", "replace").strip().splitlines()
        return lines[-1][-400:] if lines else f"exit status {self.status}"

    def output(self) -> bytes:
        """Return the standard output.

        :raises Error: the program failed.
        """
        if self.status:
            raise Error(f"{self.name}: {self.reason}")
        return self.stdout


def outside(package: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with a PATH that does not lead into the package."""
    root = os.path.realpath(package)
    elements = [each for each in _elements(environ) if not Path(os.path.realpath(each)).is_relative_to(root)]
    return {**environ, "PATH": os.pathsep.join(elements)}


def run(
    name: str,
    *options: str,
    arguments: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    inherit: Collection[str] = (),
    settings: Mapping[str, str] | None = None,
    directory: Path = Path("/"),
    stdin: bytes = b"",
    limit: int = _OUTPUT,
    timeout: float = _TIMEOUT,
) -> Done:
    """Run a program and wait until it ends.

    `options` must not be made from what others wrote, unless it is checked; `arguments` may. `inherit` has patterns
    for the names of further variables that the program takes from `environ`, and `settings` the values of others.
    `directory` must be one that we made.

    :raises NotInstalledError: the program was not found.
    :raises Error: it could not be started, or was killed after `timeout` seconds or `limit` bytes of output.
    """
    path = _find(name, environ)
    command = [path, *options, *(("--", *arguments) if arguments else ())]
    environment = _environment(environ, inherit, settings)
    try:
        # A file in memory can be written before the program reads it, so that nobody waits for the other.
        with open(os.memfd_create("stdin"), "r+b") as file:
            ranges.write_all(file.fileno(), stdin, 0)
            process = subprocess.Popen(
                command, cwd=directory, env=environment, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Error(f"{name}: {path} cannot be started: {reason}") from None
    deadline = time.monotonic() + timeout
    with process:
        try:
            stdout, stderr = _read(name, process, limit, deadline)
            process.wait(max(0, deadline - time.monotonic()))
        except BaseException as error:
            # Leaving the block waits for the process, which would otherwise run on.
            process.kill()
            if isinstance(error, (TimeoutError, subprocess.TimeoutExpired)):
                raise Error(f"{name}: killed, because it did not end within {timeout:.0f} seconds") from None
            raise
    return Done(name, process.returncode, stdout, stderr)


def transform(
    name: str,
    *options: str,
    source: Iterable[bytes | memoryview],
    environ: Mapping[str, str] = os.environ,
    settings: Mapping[str, str] | None = None,
    timeout: float = 10 * _TIMEOUT,
) -> Iterator[bytes]:
    """Yield what a program writes to its standard output, while it reads what `source` yields.

    Neither is kept in memory. `options` and `settings` are as for `run`.

    :raises NotInstalledError: the program was not found.
    :raises Error: it could not be started, failed, or neither read nor wrote anything for `timeout` seconds. Also
        everything that `source` raises. The program is killed then.
    """
    path = _find(name, environ)
    try:
        process = subprocess.Popen(
            [path, *options],
            cwd="/",
            env=_environment(environ, settings=settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        raise Error(f"{name}: {path} cannot be started: {error.strerror}") from None
    messages = bytearray()
    try:
        yield from _exchange(name, process, source, timeout, messages)
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise Error(f"{name}: killed, because it did nothing for {timeout:.0f} seconds") from None
    finally:
        # This is also reached if the consumer does not want the rest of the output.
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()
        if process.poll() is None:
            process.kill()
        process.wait()
    Done(name=name, status=process.returncode, stdout=b"", stderr=bytes(messages)).output()


def _exchange(
    name: str,
    process: "subprocess.Popen[bytes]",
    source: Iterable[bytes | memoryview],
    timeout: float,
    messages: bytearray,
) -> Iterator[bytes]:
    """Write `source` to a process and yield its output until it closes that; add its messages to `messages`."""
    chunks = iter(source)
    pending = memoryview(b"")
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise ValueError("expected a process with pipes")
    # A program may have to write before it reads on, so a write to it must never block.
    os.set_blocking(process.stdin.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdin, selectors.EVENT_WRITE)
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        deadline = time.monotonic() + timeout
        while selector.get_map():
            ready = selector.select(max(0, deadline - time.monotonic()))
            # A program that only writes messages does nothing.
            if time.monotonic() > deadline and all(key.fileobj is process.stderr for key, _ in ready):
                raise subprocess.TimeoutExpired(name, timeout)
            for key, _ in ready:
                if key.fileobj is process.stdin:
                    try:
                        # The next chunk is taken when the program has read the previous one, so only one is in memory.
                        pending = pending or memoryview(next(chunks))
                        with suppress(BlockingIOError):
                            pending = pending[os.write(key.fd, pending) :]
                    except (StopIteration, BrokenPipeError):
                        # A process that reads no further has ended, or will; its status says whether that is an error.
                        selector.unregister(process.stdin)
                        with suppress(BrokenPipeError):
                            process.stdin.close()
                elif not (output := os.read(key.fd, ranges.CHUNK)):
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    _keep_end(messages, output)
                    continue
                else:
                    yield output
                # Both the source and the consumer may have taken any time.
                deadline = time.monotonic() + timeout


def _elements(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the absolute directories of PATH. Others would be found in the directory that the user is in."""
    return filter(os.path.isabs, environ.get("PATH", os.defpath).split(os.pathsep))


def _environment(
    environ: Mapping[str, str], inherit: Collection[str] = (), settings: Mapping[str, str] | None = None
) -> dict[str, str]:
    return {
        **{key: value for key, value in environ.items() if _is_inherited(key, (*_INHERITED, *inherit))},
        "PATH": os.pathsep.join(filter(_is_safe, _elements(environ))),
        "LC_ALL": "C.UTF-8",
        **(settings or {}),
    }


def _find(name: str, environ: Mapping[str, str]) -> str:
    unsafe = ""
    for element in _elements(environ):
        path = os.path.join(element, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            # The directory of PATH, the directory where a link leads, and the program itself: each decides what runs.
            if all(map(_is_safe, (element, os.path.dirname(os.path.realpath(path)), path))):
                return path
            unsafe = unsafe or path
    if unsafe:
        raise NotInstalledError(f"{name}: {unsafe} is not used, because another user can change it or its directory")
    raise NotInstalledError(f"{name}: not installed")


def _is_safe(path: str) -> bool:
    """Return whether only this user or the system can change a file or a directory.

    Write permission of a group is accepted, because many systems give each user a group.
    """
    try:
        status = os.stat(path)
    except OSError:
        return False
    # In a user namespace without a mapping for root, the system's files have another owner, but they all have it.
    return status.st_uid in (0, os.geteuid(), os.stat("/").st_uid) and not status.st_mode & stat.S_IWOTH


def _is_inherited(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, each) for each in patterns) and not any(fnmatchcase(name, each) for each in _NEVER)


def _read(name: str, process: "subprocess.Popen[bytes]", limit: int, deadline: float) -> tuple[bytes, bytes]:
    stdout, stderr = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        for pipe, buffer in ((process.stdout, stdout), (process.stderr, stderr)):
            if pipe:
                selector.register(pipe, selectors.EVENT_READ, buffer)
        while selector.get_map():
            ready = selector.select(deadline - time.monotonic())
            if time.monotonic() > deadline:
                raise TimeoutError
            for key, _ in ready:
                chunk = os.read(key.fd, ranges.CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                key.data.extend(chunk)
            if len(stdout) > limit:
                raise Error(f"{name}: killed, because it wrote more than {limit} bytes")
            _keep_end(stderr)
    return bytes(stdout), bytes(stderr)


def _keep_end(messages: bytearray, more: bytes = b"") -> None:
    """Add to the messages of a program, and keep their end only, which is where programs say why they failed."""
    messages.extend(more)
    del messages[:-_MESSAGES]
