"""``receive``: run the embedded platform."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from cirron_spool.cli.console import Console
from cirron_spool.cli.signals import Signals, StopRequest
from cirron_spool.concurrency import event_loop
from cirron_spool.errors import EXIT_OK


def run(options: argparse.Namespace, console: Console, signals: Signals) -> int:
    """Serve until a signal ends it; return the exit code."""
    del console
    from cirron_spool.receiver.app import serve_until
    from cirron_spool.receiver.options import ReceiverOptions

    token = options.token if options.token is not None else os.environ.get("CIRRON_RECEIVE_TOKEN") or None
    limits = {"max_bytes": options.max_bytes, "max_snapshot_bytes": options.max_snapshot_bytes}
    chosen = {name: value for name, value in limits.items() if value is not None}
    receiver_options = ReceiverOptions(
        store=Path(os.path.abspath(options.store)),
        host=options.host,
        port=options.port,
        token=token,
        latency_ms=options.latency_ms,
        bandwidth=options.bandwidth,
        verbose=options.verbose,
        **chosen,
    )
    stop = StopRequest()

    async def serve() -> None:
        stopped = asyncio.Event()
        stop.bind(stopped.set)
        await serve_until(stopped, receiver_options)

    with signals.stopping(stop):
        event_loop.run(serve)
    return EXIT_OK
