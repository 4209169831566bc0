"""``flush_spool`` for an event loop in which nothing is imported yet: a thread imports the HTTP client.

The import takes a quarter of a second. Nothing else in the event loop waits for it.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cirron_spool.concurrency.threads import in_daemon_thread
from cirron_spool.errors import NoThreadError

if TYPE_CHECKING:
    from cirron_spool.events import FlushResult


async def flush_spool(*arguments: Any, **options: Any) -> FlushResult:
    """Upload a spool; see :func:`cirron_spool.flush.flush_spool` for arguments, result and errors."""
    load = partial(import_module, "cirron_spool.flush")
    try:
        flush = await in_daemon_thread(load, "cirron-spool import")
    except NoThreadError:
        flush = load()
    result: FlushResult = await flush.flush_spool(*arguments, **options)
    return result
