"""The two programs: ``cirron-spool``, and ``cirron`` with the same commands below ``cirron spool``.

Signal handlers and safe standard streams come first. Other imports follow them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from cirron_spool.cli.signals import Signals

# A copy of the code in cirron_spool.errors, since the import of that module may fail.
_EXIT_TEMPFAIL = 4


def cirron_spool(arguments: Sequence[str] | None = None) -> int:
    """Run ``cirron-spool`` and return its exit code. Without ``arguments``, take those of the process."""
    return _run("cirron-spool", arguments)


def cirron(arguments: Sequence[str] | None = None) -> int:
    """Run ``cirron`` and return its exit code. ``arguments`` as for :func:`cirron_spool`."""
    return _run("cirron", arguments)


def _run(prog: str, arguments: Sequence[str] | None) -> int:
    signals = Signals()
    if arguments is None:
        try:
            signals.install()
            exit_code = _load_and_run(prog, sys.argv[1:], signals)
        except KeyboardInterrupt:  # outside of the command proper
            exit_code = signals.exit_code
        if signals.number:
            # A blocked thread must not delay the exit after a signal.
            os._exit(exit_code)
        return exit_code
    from cirron_spool.cli.dispatch import run

    return run(prog, arguments, signals)


def _load_and_run(prog: str, arguments: Sequence[str], signals: Signals) -> int:
    try:
        from cirron_spool.cli import stdio

        stdio.prepare()
        signals.watch()  # opens files: the standard streams have their numbers by now
        from cirron_spool.cli.dispatch import run
    except (ImportError, OSError, MemoryError) as error:
        why = getattr(error, "strerror", None) or str(error) or "not enough memory"
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(f"Error: cirron-spool cannot be loaded: {why}. Check the limits (ulimit -a).\n")
        return _EXIT_TEMPFAIL
    return run(prog, arguments, signals)
