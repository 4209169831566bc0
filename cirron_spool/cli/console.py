"""Standard output for data, standard error for messages. A closed pipe is not an error.

Each command ends through this module, which adds the error, the warnings and the exit code to JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import islice
from typing import IO, TYPE_CHECKING, NamedTuple, Self, TypeVar

import cirron_spool
from cirron_spool.cli.stdio import write_now
from cirron_spool.display.warning_lines import WarningLines
from cirron_spool.errors import CirronSpoolError
from cirron_spool.text import iso_utc, reason

if TYPE_CHECKING:
    from cirron_spool.cli.log_file import LogFile

T = TypeVar("T", str, bytes)

# Lines of one write: a terminal would otherwise need a system call for each line.
_LINES_A_WRITE = 1000
# Longest answer to a question. A stream without line ends must not fill the memory.
_LONGEST_ANSWER = 1000


class Fault(NamedTuple):
    """The failure of a command: a stable word for programs, and a message."""

    type: str
    message: str

    @classmethod
    def of(cls, error: CirronSpoolError) -> Self:
        """The fault for an error. Its word is the name of the public class."""
        kind = next(base for base in type(error).__mro__ if base.__name__ in cirron_spool.__all__)
        return cls(kind.__name__, str(error))


INTERRUPTED = "Interrupted"


class Console:
    """Prints data to standard output, and errors, warnings and progress to standard error.

    ``--json`` or ``--json-events`` in ``arguments`` selects JSON, even if the arguments are invalid. ``above`` prints
    lines above a progress bar. With ``output_required``, a failed write to standard output is an error, else a
    warning. ``log`` also gets errors, warnings and notes. ``uninterrupted`` protects each write against signals.
    """

    def __init__(
        self,
        arguments: Sequence[str] = (),
        uninterrupted: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        names = {argument.partition("=")[0] for argument in arguments}
        self.json_events = "--json-events" in names
        self.json = "--json" in names and not self.json_events
        self.uninterrupted = uninterrupted
        self.warnings = WarningLines()
        self.above: Callable[[str], None] | None = None
        self.output_required = True
        self.log: LogFile | None = None
        self._open = True
        self._unbuffered = False

    def write_unbuffered(self) -> None:
        """Print without buffers from now on, and only as much as the streams accept at once."""
        self._unbuffered = True
        self.above = None

    def data(self, lines: Iterable[str]) -> None:
        """Print lines to standard output. A closed pipe is no error."""
        rest = iter(lines)
        while waiting := list(islice(rest, _LINES_A_WRITE)):
            self._write("\n".join(waiting) + "\n")

    def parts(self, parts: Iterable[bytes]) -> None:
        """Print a document to standard output. A closed pipe is no error."""
        stream = getattr(sys.stdout, "buffer", None)
        for part in parts:
            if not self._open or stream is None:
                return
            self._put(stream, part)

    def line(self, text: str) -> None:
        """Print one line to standard output at once."""
        self._write(f"{text}\n")

    def error(self, message: str) -> None:
        """``Error: …`` on standard error."""
        self.note(f"Error: {message}")
        self.say(f"Error: {message}")

    def warning(self, message: str) -> None:
        """``Warning: …`` on standard error, also in the JSON output."""
        # The event first, since the reader of the line may end the process.
        self.event("warning", {"message": message})
        self.warnings.append(message)
        self.note(f"Warning: {message}")
        self.say(f"Warning: {message}")

    def note(self, text: str) -> None:
        """One line of the log, if there is one. Its first failure is a warning."""
        log = self.log
        if log is None:
            return
        log.write(text)
        if log.problem:
            self.log = None
            self.warning(log.problem)

    def say(self, text: str) -> None:
        """One line on standard error. A closed pipe is no error."""
        if self.above is not None:
            self.above(text)
            return
        if self._unbuffered:
            write_now(sys.stderr, f"{text}\n")
            return
        with self.uninterrupted(), suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def event(self, name: str, fields: Mapping[str, object]) -> None:
        """One line of ``--json-events``, if that is selected."""
        if self.json_events:
            self.line(json.dumps({"event": name, "time": iso_utc(time.time_ns()), **fields}))

    def ending(self, exit_code: int, fault: Fault | None = None) -> dict[str, object]:
        """The last keys of the JSON output: the error, the warnings and the exit code."""
        why: dict[str, object] = {} if fault is None else {"error": fault._asdict()}
        return {**why, "warnings": list(self.warnings.lines()), "exitCode": exit_code}

    def end(self, exit_code: int, document: Mapping[str, object], fault: Fault | None = None) -> int:
        """Print ``document`` if JSON is selected; return ``exit_code``."""
        whole = {**document, **self.ending(exit_code, fault)}
        if self.json:
            self.line(json.dumps(whole, indent=2))
        self.event("end", whole)
        return exit_code

    def fail(self, error: CirronSpoolError) -> int:
        """End with an error without further output; returns its exit code."""
        self.error(str(error))
        if error.hint:
            self.warning(error.hint)
        return self.end(error.exit_code, {}, Fault.of(error))

    def ask(self, question: str, *, on: IO[str] | None) -> str | None:
        """The line that answers ``question``, from a terminal or a pipe; None at the end of input."""
        if sys.stdin is None:
            return None
        answer, typed = "", False
        try:
            typed = sys.stdin.isatty()
            _write(on, question)
            answer = sys.stdin.readline(_LONGEST_ANSWER)
        except UnicodeDecodeError:
            answer = "?\n"  # an answer other than yes
        except (OSError, ValueError):
            pass
        finally:
            # A pipe, the end of input or Ctrl-C: the next text begins on a new line.
            if not (typed and answer.endswith("\n")):
                _write(on, "\n")
        # A line without its end is no confirmation.
        return None if not answer or (typed and not answer.endswith("\n")) else answer

    @property
    def is_for_person(self) -> bool:
        """Whether standard output is a terminal, and JSON is not selected."""
        return is_terminal(sys.stdout) and not (self.json or self.json_events)

    @property
    def columns(self) -> int:
        """The width of the terminal of standard output; 0 if it is no terminal, or the width is unknown."""
        return dimension("COLUMNS", 0, sys.stdout) if self.is_for_person else 0

    @property
    def rows(self) -> int:
        """The height of the terminal of standard output; 0 as for :attr:`columns`."""
        return dimension("LINES", 1, sys.stdout) if self.is_for_person else 0

    def close(self) -> None:
        """Write the buffered text."""
        self._write("")

    def _write(self, text: str) -> None:
        if self._unbuffered:
            write_now(sys.stdout, text)
            return
        if self._open:
            self._put(sys.stdout, text)

    def _put(self, stream: IO[T], part: T) -> None:
        try:
            with self.uninterrupted():
                stream.write(part)
                stream.flush()
        except (BrokenPipeError, ValueError, AttributeError):  # the reader has left; closed, or never there
            self._open = False
        except OSError as error:
            self._open = False
            message = f"Cannot write to standard output: {reason(error)}."
            if self.output_required:
                raise OutputError(message) from None
            self.warning(f"{message} The exit code has the result of the command.")


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether ``stream`` is a terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def dimension(variable: str, index: int, stream: IO[str] | None) -> int:
    """The value of the environment variable, else that of the terminal ``stream``, else 0.

    The standard library's function has slow imports.
    """
    value = os.environ.get(variable, "")
    if value.isascii() and value.isdigit() and int(value[:6]) > 0:
        return int(value[:6])
    try:
        return os.get_terminal_size(stream.fileno())[index] if stream is not None else 0
    except (OSError, ValueError, AttributeError):
        return 0


def _write(stream: IO[str] | None, text: str) -> None:
    if stream is not None:
        with suppress(OSError, ValueError):
            stream.write(text)
            stream.flush()


class OutputError(CirronSpoolError):
    """Standard output cannot be written, for example because the disk is full."""
