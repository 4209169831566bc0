"""File system notifications of new batches, if the extra ``watch`` is installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio

from cirron_spool.concurrency.threads import in_thread
from cirron_spool.spool.names import match_batch_name

# Milliseconds between two reads of the queued notifications.
_STEP_MS = 200
# Longest wait of the library's thread. A cancellation waits for that thread.
_LONGEST_WAIT_MS = 500
# Seconds between two checks for a missing directory.
_MISSING_S = 1.0


class Notifications:
    """Calls ``on_batch`` soon after a batch appeared in the directory ``path``.

    Never raises: a network file system has no notifications, and the system limits the number of watches.
    """

    def __init__(self, path: Path, on_batch: Callable[[], None]) -> None:
        self._path = path
        self._on_batch = on_batch
        self._changed = anyio.Event()
        self._is_over = False

    async def run(self) -> None:
        """Wait for notifications until :meth:`stop`, or until they fail. A cancellation takes half a second."""
        try:
            library = await in_thread(import_module, "watchfiles")
        except ImportError:
            return
        while not self._is_over:
            self._changed = anyio.Event()
            try:
                await self._follow(library, self._changed)
            except FileNotFoundError:
                with anyio.move_on_after(_MISSING_S):
                    await self._changed.wait()
            except (OSError, RuntimeError):
                return

    def restart(self) -> None:
        """Follow the directory that now has the path."""
        self._changed.set()

    def stop(self) -> None:
        """Stop all notifications."""
        self._is_over = True
        self._changed.set()

    async def _follow(self, library: Any, stop: anyio.Event) -> None:
        def is_new_batch(change: Any, path: str) -> bool:
            return change != library.Change.deleted and bool(match_batch_name(os.path.basename(path)))

        changes = library.awatch(
            self._path,
            watch_filter=is_new_batch,
            debounce=_STEP_MS,
            step=_STEP_MS,
            stop_event=stop,
            rust_timeout=_LONGEST_WAIT_MS,
            recursive=False,
        )
        async for _ in changes:
            self._on_batch()
