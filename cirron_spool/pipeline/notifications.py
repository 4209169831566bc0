"""Notifications of new batches, where the file system gives them and the extra ``watch`` is installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio

from cirron_spool.concurrency.threads import in_thread
from cirron_spool.spool.names import match_batch_name

# Milliseconds between two looks at the notices that the system has queued.
_STEP_MS = 200
# A thread waits for notices at most so long, and a cancellation waits for that thread.
_LONGEST_WAIT_MS = 500
# Seconds before the next look for a directory that does not exist.
_MISSING_S = 1.0


class Notifications:
    """Calls ``notice`` soon after a batch has appeared in the directory ``path``.

    Never raises: network file systems have no notices, and a system may have used up its watches.
    """

    def __init__(self, path: Path, notice: Callable[[], None]) -> None:
        self._path = path
        self._notice = notice
        self._changed = anyio.Event()
        self._is_over = False

    async def run(self) -> None:
        """Give notices until :meth:`stop`, or until there can be none. A cancellation takes half a second."""
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
        """Another directory has the path: follow that one."""
        self._changed.set()

    def stop(self) -> None:
        """Give no more notices."""
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
            self._notice()
