"""``flush --watch``: its options, and the start of the watch."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from cirron_spool.errors import ConfigError
from cirron_spool.watch import WATCH_GRACE_S, watch_spool

if TYPE_CHECKING:
    from cirron_spool.events import FlushResult

_OF_A_WATCH = {"until_pid": "--until-pid", "idle_exit_ms": "--idle-exit", "grace_ms": "--grace"}
_NOT_IN_A_WATCH = {
    "dry_run": "--dry-run",
    "keep_going": "--keep-going",
    "snapshots": "--snapshots",
    "limit": "--limit",
    "max_bytes": "--max-bytes",
}


def watch_options(options: argparse.Namespace) -> dict[str, Any]:
    """The options of ``watch_spool()`` in the arguments; empty without ``--watch``. Raises ConfigError."""
    if not options.watch:
        for name, flag in _OF_A_WATCH.items():
            if getattr(options, name) is not None:
                raise ConfigError(f"{flag} is for a watch. Add --watch, or leave {flag} out.")
        return {}
    for name, flag in _NOT_IN_A_WATCH.items():
        if getattr(options, name):
            raise ConfigError(f"--watch and {flag} exclude each other. Choose one.")
    return {
        "until_pid": options.until_pid,
        "idle_exit_s": options.idle_exit_ms / 1000 if options.idle_exit_ms is not None else None,
        "grace_s": options.grace_ms / 1000 if options.grace_ms is not None else WATCH_GRACE_S,
    }


async def watch(directory: str | None, **options: Any) -> FlushResult:
    """Follow the spool to the end of the watch."""
    async with watch_spool(directory, **options) as watching:
        return await watching.wait()
