"""Standard output and standard error as the commands use them: data here, words there; a closed pipe is no crash."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import IO

from cirron_spool.errors import CirronSpoolError
from cirron_spool.naming import reason
from cirron_spool.streams import silence

# Lines written together: a write a line would be 100,000 system calls for a big spool on a line-buffered terminal.
_LINES_A_WRITE = 1000


class Console:
    """Prints. Data goes to standard output; errors, warnings and progress go to standard error."""

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            # The table's lines and any path can be printed whatever the locale says.
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                with suppress(ValueError, OSError):
                    reconfigure(encoding="utf-8", errors="backslashreplace")
        self._open = sys.stdout is not None

    def data(self, lines: Iterable[str]) -> None:
        """Print lines to standard output; a reader who has left is no error."""
        rest = iter(lines)
        while waiting := list(islice(rest, _LINES_A_WRITE)):
            self._write(waiting)

    def line(self, text: str) -> None:
        """Print one line to standard output at once."""
        self._write([text])

    def error(self, message: str) -> None:
        """``Error: …`` on standard error."""
        self.say(f"Error: {message}")

    def warning(self, message: str) -> None:
        """``Warning: …`` on standard error."""
        self.say(f"Warning: {message}")

    def say(self, text: str) -> None:
        """One line on standard error; a reader who has left is no error."""
        try:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
        except OSError:
            silence(sys.stderr)
        except (ValueError, AttributeError):  # closed, or never there
            return

    def ask(self, question: str, *, on: IO[str]) -> str | None:
        """What is answered to ``question`` on the terminal; None without a terminal or at the end of input."""
        if sys.stdin is None or not sys.stdin.isatty():
            return None
        answer = ""
        try:
            with suppress(OSError, ValueError):
                on.write(question)
                on.flush()
            answer = sys.stdin.readline()
        except (OSError, ValueError):
            pass
        finally:
            if not answer.endswith(
                "\n"
            ):  # the end of input or Ctrl-C: what comes next begins on a line of its own
                with suppress(OSError, ValueError):
                    on.write("\n")
                    on.flush()
        return answer if answer.endswith("\n") else None

    def close(self) -> None:
        """Flush; leave nothing for the interpreter to stumble over at exit when the reader has left."""
        self._write([])

    def _write(self, lines: list[str]) -> None:
        if not self._open:
            return
        try:
            if lines:
                sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()
        except (BrokenPipeError, ValueError):
            self._give_up()
        except OSError as error:
            self._give_up()
            raise OutputError(f"Cannot write to standard output: {reason(error)}.") from None

    def _give_up(self) -> None:
        self._open = False
        silence(sys.stdout)


class OutputError(CirronSpoolError):
    """Standard output cannot be written: a full disk, say."""
