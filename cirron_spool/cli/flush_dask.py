"""``flush --scheduler``: several spools on the workers of a Dask cluster."""

from __future__ import annotations

import argparse
import asyncio
import logging
from contextlib import AbstractContextManager
from typing import Any

from cirron_spool.cli.flush_many import ManyFlush
from cirron_spool.cluster.dask_client import load
from cirron_spool.cluster.dask_flush import SCHEDULER_TIMEOUT_S, DaskFlush
from cirron_spool.errors import ConfigError
from cirron_spool.events import FlushSpoolsResult

# Extra time of a graceful stop for the messages to the workers and their reports.
_EXTRA_S = 5.0
_NOT_ON_DASK = {"watch": "--watch", "spools": "--spools", "receipts": "--receipts"}


def check_scheduler_options(options: argparse.Namespace) -> None:
    """Raise ConfigError for arguments that exclude ``--scheduler``, or need it."""
    if options.scheduler is None:
        for name, flag in (
            ("send_credentials", "--send-credentials"),
            ("scheduler_ms", "--scheduler-timeout"),
        ):
            if getattr(options, name):
                raise ConfigError(
                    f"{flag} is for a Dask cluster. Add --scheduler ADDRESS, or leave {flag} out."
                )
        return
    for name, flag in _NOT_ON_DASK.items():
        if getattr(options, name):
            raise ConfigError(f"--scheduler and {flag} exclude each other. Choose one.")
    if not (options.discover or options.dirs):
        raise ConfigError("--scheduler needs --discover ROOT, or --dir, as the workers see it.")
    if options.token_file is not None and not options.send_credentials:
        raise ConfigError(
            "--token-file stays on this machine, and the workers use their own token. Add --send-credentials, "
            "or leave --token-file out."
        )


class ManyOnDask(ManyFlush):
    """The flush of several spools by the workers of a cluster."""

    _flush: DaskFlush | None = None

    def stopping(self) -> AbstractContextManager[None]:
        """While the block runs, the first signal ends the flush gracefully."""
        return self._signals.stopping(self.stop, self.print_final_output, self._view.close, extra_s=_EXTRA_S)

    async def deliver(self, stop: asyncio.Event, **options: Any) -> FlushSpoolsResult:
        """Flush."""
        del options["receipts"]
        asked = self._options
        await load()
        _silence_dask()
        self._flush = DaskFlush(
            asked.discover,
            directories=asked.dirs,
            cross_file_systems=asked.cross_file_systems,
            scheduler=asked.scheduler,
            send_credentials=asked.send_credentials,
            timeout_s=asked.scheduler_ms / 1000 if asked.scheduler_ms is not None else SCHEDULER_TIMEOUT_S,
            on_event=self._show,
            stop=stop,
            **options,
        )
        return await self._flush.run()

    def partial_result(self) -> FlushSpoolsResult:
        """The result so far."""
        return self._flush.result() if self._flush is not None else self.empty_result()


def _silence_dask() -> None:
    """Keep the log lines and tracebacks of Dask out of standard error. Each error has one line."""
    for name in [*logging.root.manager.loggerDict]:
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
