"""The two programs: ``cirron-spool``, and ``cirron`` with the same commands below ``cirron spool``."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

from cirron_spool import __version__
from cirron_spool.cli.console import INTERRUPTED, Console, Fault
from cirron_spool.cli.parser import UsageError, parse, suggestion
from cirron_spool.errors import CirronSpoolError
from cirron_spool.exits import EXIT_OK, EXIT_USAGE
from cirron_spool.naming import printable

_EXIT_INTERRUPTED = 130


def cirron_spool(arguments: Sequence[str] | None = None) -> int:
    """Run ``cirron-spool`` and return its exit code."""
    return _run("cirron-spool", sys.argv[1:] if arguments is None else arguments)


def cirron(arguments: Sequence[str] | None = None) -> int:
    """Run ``cirron``: ``spool`` is ours, any other word is the next ``cirron``'s on PATH, with all its options."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    words = [argument for argument in given if not argument.startswith("-")]
    if words[:1] == ["help"]:
        words = words[1:]
    # Options alone are the other's, too, unless they are ours.
    foreign = words[0] != "spool" if words else not set(given) <= {"help", "-h", "--help", "-V", "--version"}
    return _run("cirron", given, foreign=foreign)


def _run(prog: str, arguments: Sequence[str], *, foreign: bool = False) -> int:
    console = Console(arguments)
    try:
        return _hand_over(arguments, console) if foreign else _command(prog, arguments, console)
    except UsageError as error:
        message = printable(str(error))
        if error.help and not (console.json or console.json_events):
            console.data([error.help])
        console.error(message)
        return console.end(EXIT_USAGE, {}, Fault("UsageError", message))
    except CirronSpoolError as error:
        return console.fail(error)
    except KeyboardInterrupt:
        return console.end(_EXIT_INTERRUPTED, {}, Fault(INTERRUPTED, "Stopped by SIGINT."))
    finally:
        console.close()


def _command(prog: str, arguments: Sequence[str], console: Console) -> int:
    options = parse(prog, arguments, _other_program)
    if options.run == "help":
        console.data([options.text])
        return EXIT_OK
    if options.run == "version":
        return _versions(prog, console)
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


def _hand_over(arguments: Sequence[str], console: Console) -> int:
    from cirron_spool.cli.handover import hand_over, next_cirron

    program = next_cirron()
    if program is None:
        words = [argument for argument in arguments if not argument.startswith("-")]
        if not words:
            return _command("cirron", arguments, console)  # which says what is wrong with them
        raise UsageError(
            f"'cirron {words[0]}' is not implemented here, and no other cirron is on PATH. This one has: cirron spool "
            f"inspect, flush, clear and quarantine.{suggestion(words)}"
        )
    try:
        return hand_over(program, arguments)
    except OSError as error:
        raise UsageError(f"Cannot run {program}: {error.strerror}.") from None


def _other_program() -> str:
    """For the help of ``cirron``: where its other words go."""
    from cirron_spool.cli.handover import next_cirron

    program = next_cirron()
    return f"next cirron on PATH: {printable(program)}" if program else "next cirron on PATH: none"


def _versions(prog: str, console: Console) -> int:
    """Our version, and below it that of the tool which ``cirron`` hands other words over to."""
    console.line(f"cirron-spool {__version__}")
    if prog == "cirron":
        from cirron_spool.cli.handover import hand_over, next_cirron

        program = next_cirron()
        if program is not None:
            console.line(f"{printable(program)} has the other commands. Its version:")
            try:
                return hand_over(program, ["--version"])
            except OSError as error:
                console.warning(f"Cannot run {printable(program)}: {error.strerror}.")
    return EXIT_OK
