"""``flush_spool`` and ``flush_spools`` that import the HTTP client in a thread at the first call.

The import takes a quarter of a second, and would block the event loop.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cirron_spool.concurrency.threads import in_daemon_thread
from cirron_spool.errors import NoThreadError

if TYPE_CHECKING:
    from cirron_spool.events import FlushResult, FlushSpoolsResult


async def flush_spool(*arguments: Any, **options: Any) -> FlushResult:
    """Upload a spool; see :func:`cirron_spool.flush.flush_spool` for arguments, result and errors."""
    module = await _load("cirron_spool.flush")
    result: FlushResult = await module.flush_spool(*arguments, **options)
    return result


async def flush_spools(*arguments: Any, **options: Any) -> FlushSpoolsResult:
    """Upload several spools; see :func:`cirron_spool.fleet.flush_spools.flush_spools`."""
    module = await _load("cirron_spool.fleet.flush_spools")
    result: FlushSpoolsResult = await module.flush_spools(*arguments, **options)
    return result


async def _load(name: str) -> Any:
    load = partial(import_module, name)
    try:
        return await in_daemon_thread(load, "cirron-spool import")
    except NoThreadError:
        return load()
