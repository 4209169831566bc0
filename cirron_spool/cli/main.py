"""The two programs: ``cirron-spool``, and ``cirron`` with the same commands below ``cirron spool``.

Here is the life of the process. Almost nothing is imported before its signals and its streams are safe.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from cirron_spool.cli.signals import Signals

# As in cirron_spool.errors: that module may be the one that cannot be loaded.
_EXIT_TEMPFAIL = 4


def cirron_spool(arguments: Sequence[str] | None = None) -> int:
    """Run ``cirron-spool`` and return its exit code. Without ``arguments`` the process is the program's own."""
    return _run("cirron-spool", arguments)


def cirron(arguments: Sequence[str] | None = None) -> int:
    """Run ``cirron`` and return its exit code; as :func:`cirron_spool`."""
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
            # A thread that hangs must not delay an end that a signal asked for.
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
