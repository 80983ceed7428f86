"""Imports that come before the work: after them, a signal may raise an exception (see `process.handle_signals`).

An exception in the middle of an import can become another one, or get lost. Nothing is imported in worker threads.
"""

import gc
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

# A codec is a module that Python imports when it is first used.
_OFFLINE = ("lxml.etree", "encodings.ascii")
_NETWORK = (
    # What libraries import only when they first look up a name, parse a date or format a number.
    *("encodings.idna", "email.utils", "locale", "platformdirs.unix", "tomllib"),
    *("osc_containers.prefetch.prefetch", "osc_containers.sources.transports"),
)
_LOCAL_SOURCES = tuple(f"osc_containers.sources.{name}" for name in ("blob_store", "docker_archive", "oci_layout"))
_OPTIONAL = {"yaml", "sqlite3"}
"""What distributions package by itself; if it is needed and missing, that is an error with a hint."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PROGRESS = ("rich.console", "rich.constrain", "rich.file_proxy", "rich.progress", "rich.table")


def load_offline() -> None:
    """Import what reading descriptions needs."""
    for name in _OFFLINE:
        import_module(name)
    with suppress(ImportError):  # A build root does not have it.
        import_module("platformdirs.unix")


@cache
def load_network() -> "Callable[[], ssl.SSLContext]":
    """Import what requests to registries need, which a build root lacks; return the function for TLS settings.

    Meanwhile a thread reads the system's certificate authorities, which takes as long.
    """
    from concurrent.futures import ThreadPoolExecutor

    from osc_containers.registry.config import certs_d

    with ThreadPoolExecutor(1) as pool, _no_garbage_collection():
        tls_context = pool.submit(certs_d.system_context)
        load_offline()
        for name in _NETWORK:
            import_module(name)
        if sys.stderr.isatty():
            with suppress(ImportError):
                for name in _PROGRESS:
                    import_module(name)
    return tls_context.result


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Turn off garbage collection, and exclude everything that exists at the end from later collections.

    Imported modules are never garbage, and searching them takes 4 % of the time of a short run.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def load_sources(locations: Iterable[str]) -> None:
    """Import what images at these locations need in addition to `load_network`; signals wait until it is done."""
    if not all(location.startswith("docker://") for location in locations):
        load_late(*_LOCAL_SOURCES)


def load_late(*names: str) -> None:
    """Import what only the package or the options show to be necessary; signals wait until it is done."""
    # The handlers raise exceptions already, and none may arrive in the middle of an import.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        for name in names:
            with suppress(ImportError) if name in _OPTIONAL else nullcontext():
                import_module(name)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
