"""Run the command in the arguments, and handle the errors of all commands."""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Callable, Sequence
from importlib import import_module

from cirron_spool import __version__
from cirron_spool.cli.arguments.build import OWN_WORDS, parse, suggestion
from cirron_spool.cli.arguments.parser import UsageError, listed
from cirron_spool.cli.arguments.traces import ACTIONS
from cirron_spool.cli.console import INTERRUPTED, Console, Fault, OutputError
from cirron_spool.cli.signals import Signals
from cirron_spool.errors import (
    EXIT_OK,
    EXIT_USAGE,
    CirronSpoolError,
    ConfigError,
    ResourceError,
    resource_errors,
)
from cirron_spool.text import printable

# Commands with another effect than output: a failed write of their output is only a warning.
_WITH_EFFECT = {"flush", "receive", "clear"}
_LISTING = {"inspect", "clear", "quarantine", "traces"}
# Actions whose only effect is their output.
_READING = {"list", "get", "path", "status", "token", "view", "export", "snapshots"}

Command = Callable[[argparse.Namespace, Console, Signals], int]


def run(prog: str, arguments: Sequence[str], signals: Signals) -> int:
    """Run ``prog`` with its arguments; returns the exit code.

    ``cirron`` hands the commands of other packages over to the next ``cirron`` on PATH.
    """
    console = Console(arguments, signals.uninterrupted)
    try:
        try:
            return _run(prog, arguments, console, signals)
        except KeyboardInterrupt:
            fault = Fault(INTERRUPTED, f"Stopped by {signals.name}.")
            return console.end(signals.exit_code, {}, fault)
        except CirronSpoolError as error:
            return console.fail(error)
        except ImportError as error:
            return console.fail(_unloadable(error))
        finally:
            signals.ending()
            console.close()
    except OutputError as error:
        console.error(str(error))
        return error.exit_code


def _run(prog: str, arguments: Sequence[str], console: Console, signals: Signals) -> int:
    foreign = prog == "cirron" and _is_foreign(arguments)
    try:
        with resource_errors():
            if foreign:
                return _hand_over(arguments, console, signals)
            return _command(prog, arguments, console, signals)
    except UsageError as error:
        message = printable(str(error))
        if error.help and not (console.json or console.json_events):
            console.data([error.help])
        console.error(message)
        return console.end(EXIT_USAGE, {}, Fault("UsageError", message))


def _is_foreign(arguments: Sequence[str]) -> bool:
    words = [argument for argument in arguments if not argument.startswith("-")]
    if words[:1] == ["help"]:
        words = words[1:]
    if words[:1] == ["traces"] and words[1:] and words[1] not in (*ACTIONS, "help"):
        # The official tool has further actions. Without that tool, the error lists the actions of this one.
        from cirron_spool.cli.handover import next_cirron

        return next_cirron() is not None
    # Options without a command are handed over, too, except help and version.
    ours = {"help", "-h", "--help", "-V", "--version"}
    return words[0] not in OWN_WORDS if words else not set(arguments) <= ours


def _command(prog: str, arguments: Sequence[str], console: Console, signals: Signals) -> int:
    options = parse(prog, arguments, _other_program)
    console.output_required = (
        options.run not in _WITH_EFFECT and getattr(options, "action", "list") in _READING
    )
    if options.run == "help":
        console.data([options.text])
        return EXIT_OK
    if options.run == "version":
        return _versions(options.prog, console)
    if options.run == "flush":
        return _flush(options, console, signals)
    if options.run in _LISTING:
        # Garbage collection would scan a list of 100,000 entries repeatedly.
        gc.disable()
    return _load(options.run)(options, console, signals)


def _load(command: str) -> Command:
    """Import a command when it is run: ``inspect`` starts without the HTTP client."""
    run_command: Command = import_module(f"cirron_spool.cli.{command}").run
    return run_command


def _unloadable(error: ImportError) -> CirronSpoolError:
    """The error for a failed import. A shared library may lack memory; any other module is missing or broken."""
    if isinstance(error.__cause__, OSError):
        return ConfigError(f"{error}. Correct or unset OPENSSL_CONF, or install OpenSSL again.")
    kind = ResourceError if (error.path or "").endswith((".so", ".pyd", ".dylib")) else CirronSpoolError
    return kind(
        f"A part of cirron-spool cannot be loaded: {printable(str(error))}. Check the memory limit (ulimit -v), or "
        "install cirron-spool again."
    )


def _flush(options: argparse.Namespace, console: Console, signals: Signals) -> int:
    try:
        if options.nice:
            from cirron_spool.cli.priority import lower_priority

            lower_priority(console.warning)
        return _load_flush()(options, console, signals)
    except (KeyboardInterrupt, ResourceError, ImportError):
        # The summary is printed even if the flush could not start.
        if not (console.json or console.json_events or options.quiet):
            console.line("Uploaded: 0  Failed: 0  Skipped: 0")
        raise


def _load_flush() -> Command:
    """The flush command. Raises ResourceError or ImportError; the latter's cause is an OSError if TLS fails."""
    # The import of aiohttp makes TLS contexts that open this file. A flush uses other contexts.
    os.environ.pop("SSLKEYLOGFILE", None)
    try:
        with resource_errors():
            return _load("flush")
    except OSError as error:
        why = getattr(error, "reason", None) or error.strerror or ""
        raise ImportError(f"OpenSSL cannot be set up for TLS: {why.replace('_', ' ').lower()}") from error


def _hand_over(arguments: Sequence[str], console: Console, signals: Signals) -> int:
    from cirron_spool.cli.handover import hand_over, next_cirron

    program = next_cirron()
    if program is None:
        words = [argument for argument in arguments if not argument.startswith("-")]
        if not words:
            return _command("cirron", arguments, console, signals)  # raises the usage error
        raise UsageError(
            f"'cirron {words[0]}' is not implemented here, and no other cirron is on PATH. This one has: "
            f"{listed([f'cirron {word}' for word in OWN_WORDS])}.{suggestion(words)}"
        )
    try:
        return hand_over(program, arguments)
    except OSError as error:
        raise UsageError(f"Cannot run {program}: {error.strerror}.") from None


def _other_program() -> str:
    """The line about the next ``cirron`` in the help of ``cirron``."""
    from cirron_spool.cli.handover import next_cirron

    program = next_cirron()
    return f"next cirron on PATH: {printable(program)}" if program else "next cirron on PATH: none"


def _versions(prog: str, console: Console) -> int:
    """Print the version. For ``cirron``, also print that of the next ``cirron`` on PATH."""
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
