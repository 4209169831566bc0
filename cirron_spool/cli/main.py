"""The two programs: ``cirron-spool``, and ``cirron`` with the same commands below ``cirron spool``."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

from cirron_spool.cli.console import Console
from cirron_spool.cli.parser import UsageError, parse
from cirron_spool.errors import CirronSpoolError
from cirron_spool.exits import EXIT_USAGE
from cirron_spool.naming import printable

_EXIT_INTERRUPTED = 130


def cirron_spool(arguments: Sequence[str] | None = None) -> int:
    """Run ``cirron-spool`` and return its exit code."""
    return _run("cirron-spool", sys.argv[1:] if arguments is None else arguments)


def cirron(arguments: Sequence[str] | None = None) -> int:
    """Run ``cirron``: ``spool`` is ours, any other word is the next ``cirron``'s on PATH."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given and given[0] != "spool" and not given[0].startswith("-"):
        return _hand_over(given)
    return _run("cirron", given)


def _run(prog: str, arguments: Sequence[str]) -> int:
    console = Console()
    try:
        options = parse(prog, arguments)
        # Each command is imported when it is run: inspect starts without the HTTP client.
        if options.run == "flush":
            from cirron_spool.cli.flush import flush

            return flush(options, console)
        if options.run == "receive":
            from cirron_spool.cli.receive import receive

            return receive(options, console)
        from cirron_spool.cli import offline

        # A short life with one big list in it: looking for garbage in 100,000 entries only costs time.
        gc.disable()
        return offline.run(options, console)
    except UsageError as error:
        console.error(printable(str(error)))
        return EXIT_USAGE
    except CirronSpoolError as error:
        console.error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    finally:
        console.close()


def _hand_over(arguments: Sequence[str]) -> int:
    from cirron_spool.cli.handover import hand_over, next_cirron

    console = Console()
    word = printable(arguments[0])
    program = next_cirron()
    if program is not None:
        try:
            return hand_over(program, arguments)
        except OSError as error:
            console.error(f"Cannot run {printable(program)}: {error.strerror}.")
            return EXIT_USAGE
    console.error(
        f"'cirron {word}' is not implemented here, and no other cirron is on PATH. This one has: cirron spool "
        "inspect, flush, clear and quarantine."
    )
    return EXIT_USAGE
