"""``receive``: run the embedded ingest server."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from cirron_spool.cli.console import Console
from cirron_spool.config import check_token
from cirron_spool.errors import CirronSpoolError


def receive(options: argparse.Namespace, console: Console) -> int:
    """Serve until a signal ends it; the exit code."""
    from cirron_spool.receiver.app import serve
    from cirron_spool.receiver.options import ReceiverOptions

    token = options.token if options.token is not None else os.environ.get("CIRRON_RECEIVE_TOKEN") or None
    if token is not None:
        check_token(token, "--token" if options.token is not None else "CIRRON_RECEIVE_TOKEN")
    chosen = {"max_bytes": options.max_bytes} if options.max_bytes is not None else {}
    try:
        return serve(
            ReceiverOptions(
                store=Path(os.path.abspath(options.store)),
                host=options.host,
                port=options.port,
                token=token,
                latency_ms=options.latency_ms,
                bandwidth=options.bandwidth,
                verbose=options.verbose,
                **chosen,
            )
        )
    except CirronSpoolError as error:
        console.error(str(error))
        return error.exit_code
