"""The connection to a Dask scheduler, and a probe of its workers before the first task."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cirron_spool import __version__
from cirron_spool.concurrency.threads import in_daemon_thread, in_thread
from cirron_spool.errors import EXIT_ATTENTION, ClusterError, ConfigError
from cirron_spool.text import count, printable

if TYPE_CHECKING:
    from distributed import Client

# Longest wait for a connection to close.
_CLOSE_S = 2.0


# The version, the missing roots, and the inode and mtime of the others.
_WorkerReport = tuple[str, list[str], tuple[tuple[int, int] | None, ...]]


@dataclass(frozen=True, slots=True)
class Workers:
    """The addresses of the workers that see the roots (``with_roots``), and of the others (``without``).

    An address is a text such as ``tcp://10.0.0.7:40123``. ``threads`` counts the threads of the workers with roots.
    """

    with_roots: tuple[str, ...]
    without: tuple[str, ...]
    threads: int
    views: tuple[tuple[str, ...], ...] = ()

    @property
    def hosts(self) -> list[str]:
        """The hosts that may run tasks; empty if all may. A restarted worker has another port on its host."""
        return sorted({host_of(address) for address in self.with_roots}) if self.without else []


def host_of(address: str) -> str:
    """The host in a worker's address, without brackets."""
    return urlsplit(address).hostname or address


async def load() -> Any:
    """The module ``distributed``, imported in a thread. Raises ConfigError if it is not installed."""
    try:
        # The HTTP client beside it: a quarter of a second.
        await in_daemon_thread(lambda: import_module("cirron_spool.flush"), "cirron-spool import")
        return await in_daemon_thread(lambda: import_module("distributed"), "cirron-spool import")
    except ImportError as error:
        raise ConfigError(
            f"Dask is not installed ({printable(str(error))}). Install cirron-spool[dask] here and on the workers."
        ) from None


@asynccontextmanager
async def connected(
    address: str, *, timeout_s: float, encrypted: bool, warn: Callable[[str], None]
) -> AsyncIterator[Client]:
    """A client of the scheduler at ``address``, which may be the path of a scheduler file.

    Raises ConfigError for an address that cannot be used, and where ``encrypted`` is asked for and it is not;
    ClusterError if nobody answers within ``timeout_s`` seconds.
    """
    dask = await load()
    shown = printable(address)
    is_file = "://" not in address and await in_thread(os.path.isfile, address)
    where: dict[str, Any] = {"scheduler_file" if is_file else "address": address}
    if not is_file and encrypted and not address.startswith("tls://"):
        raise _unencrypted(shown)
    client: Client | None = None
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                client = dask.Client(
                    **where, asynchronous=True, timeout=timeout_s, set_as_default=False, name="cirron-spool"
                )
                # Dask's own timeout does not cover a stalled handshake.
                await asyncio.wait_for(client, timeout_s + _CLOSE_S)
            # MemoryError, OverflowError: Dask reads the greeting of another server as a huge length.
            except (OSError, TimeoutError, MemoryError, OverflowError) as error:
                raise ClusterError(_unreachable(shown, timeout_s, error)) from None
            except (TypeError, ValueError, KeyError, RuntimeError, AssertionError) as error:
                raise ConfigError(
                    f"{shown or 'An empty text'} is not a scheduler: {first_line(error)}. Give a scheduler file, or an "
                    "address such as tcp://HOST:8786. For tls://HOST:8786, set the certificates in Dask's "
                    "configuration."
                ) from None
        if any(issubclass(one.category, dask.versions.VersionMismatchWarning) for one in caught):
            warn(
                "Scheduler, workers and this machine have different versions of Python or of Dask's packages."
            )
        if encrypted and not client.scheduler.address.startswith("tls://"):
            raise _unencrypted(shown)
        yield client
    finally:
        if client is not None:
            with suppress(OSError, TimeoutError, AssertionError):
                await asyncio.wait_for(client.close(timeout=_CLOSE_S), _CLOSE_S)


async def find_workers(client: Client, roots: Sequence[str], *, timeout_s: float, encrypted: bool) -> Workers:
    """The workers, all of this version. Waits up to ``timeout_s`` seconds for the first one.

    Raises ClusterError if there is no worker, if one has another version, or if none sees ``roots``.
    """
    probe = _make_probe(list(roots))
    if not await client.nthreads():
        await _await_worker(client, probe, timeout_s)
    found: dict[str, Any] = await _unless_lost(client.run(probe, on_error="return"))
    if encrypted and (plain := [address for address in found if not address.startswith("tls://")]):
        raise ConfigError(
            f"The worker {plain[0]} has no TLS. --send-credentials needs it on all connections: start each worker "
            "with tls://, and set distributed.comm.require-encryption."
        )
    odd = [
        f"{address} ({_version_in(seen)})"
        for address, seen in found.items()
        if _version_in(seen) != __version__
    ]
    if odd:
        raise ClusterError(
            f"{count(len(odd), 'worker')} of {len(found)} cannot run this version, such as {odd[0]}. "
            f"Install cirron-spool {__version__} there.",
            EXIT_ATTENTION,
        )
    with_roots = tuple(address for address, (_, missing, _) in found.items() if not missing)
    without = tuple(address for address, (_, missing, _) in found.items() if missing)
    if not with_roots:
        _, missing, _ = found[without[0]]
        raise ClusterError(
            f"No worker sees {printable(missing[0])}. Start workers where that file system is mounted.",
            EXIT_ATTENTION,
        )
    threads: dict[str, int] = await _unless_lost(client.nthreads())
    views: dict[object, set[str]] = {}
    for address in with_roots:
        views.setdefault(found[address][2], set()).add(host_of(address))
    return Workers(
        with_roots,
        without,
        max(1, sum(threads.get(address, 0) for address in with_roots)),
        tuple(tuple(sorted(hosts)) for hosts in views.values()),
    )


async def _await_worker(client: Client, probe: Callable[[], Awaitable[object]], timeout_s: float) -> None:
    """Wait for the first worker. A task is submitted, since a cluster may start workers only for tasks."""
    waiting = client.submit(probe, key=f"cirron-spool-probe-{client.id}", pure=False)
    try:
        await client.wait_for_workers(1, timeout=timeout_s)
    except (TimeoutError, OSError):
        raise ClusterError(
            f"No worker has joined the scheduler within {timeout_s:g} s. Start one: dask worker "
            f"{printable(client.scheduler.address)}."
        ) from None
    finally:
        waiting.release()


def _make_probe(roots: list[str]) -> Callable[[], Awaitable[_WorkerReport]]:
    """A function that a worker runs as a probe.

    It returns the version of this package, the missing roots, and the inode and mtime of the other roots.
    """

    # An inner function is pickled with its code, so a worker without this package can run it.
    async def probe() -> _WorkerReport:
        import asyncio
        import os

        try:
            import cirron_spool

            version = cirron_spool.__version__
        except ImportError:
            version = "not installed"

        def mark(root: str) -> tuple[int, int] | None:
            try:
                status = os.stat(root)
            except OSError:
                return None
            return (status.st_ino, status.st_mtime_ns) if os.path.isdir(root) else None

        marks: list[tuple[int, int] | None] = []
        for root in roots:
            try:
                marks.append(await asyncio.wait_for(asyncio.to_thread(mark, root), 10))
            except TimeoutError:
                marks.append(None)
        missing = [root for root, mark_ in zip(roots, marks, strict=True) if mark_ is None]
        return version, missing, tuple(marks)

    return probe


def _version_in(seen: Any) -> str:
    return first_line(seen) if isinstance(seen, BaseException) else str(seen[0])


async def _unless_lost(work: Awaitable[Any]) -> Any:
    try:
        return await work
    except (OSError, TimeoutError) as error:
        raise ClusterError(f"The connection to the scheduler is lost: {first_line(error)}.") from None


def _unreachable(shown: str, timeout_s: float, error: Exception) -> str:
    cause = first_line(error)
    if isinstance(error, MemoryError | OverflowError):
        cause = "another kind of server is there"
    # Dask's text for the usual error adds nothing.
    why = "" if isinstance(error, TimeoutError) or "Timed out" in cause else f" ({cause})"
    return (
        f"No Dask scheduler answers at {shown} within {timeout_s:g} s{why}. Start it, or correct the address."
    )


def _unencrypted(shown: str) -> ConfigError:
    return ConfigError(
        f"--send-credentials needs an encrypted scheduler, and {shown} is none. Use its tls:// address, or configure "
        "the login on the workers."
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without a full stop. An error without text gives its type."""
    lines = printable(str(error).partition("\n")[0]).strip().removesuffix(".")
    return lines or type(error).__name__
