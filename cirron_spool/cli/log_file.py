"""``--log-file``: each event and message with its time, appended to a file."""

from __future__ import annotations

import os
import time

from cirron_spool.errors import ConfigError
from cirron_spool.text import iso_utc, printable, reason


class LogFile:
    """A log that only this user can read. A missing file is created.

    Raises ConfigError for a path that cannot be written.
    """

    def __init__(self, path: str) -> None:
        self.problem = ""
        self._path = printable(path)
        try:
            # O_NONBLOCK: a named pipe without a reader is an error, not a wait.
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o600)
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else "it is not a path"
            raise ConfigError(f"Cannot write to {self._path}: {why}. Correct --log-file.") from None
        self._fd = fd

    def write(self, text: str) -> None:
        """Append one line. After a failure nothing more is written, and ``problem`` has the reason."""
        if self.problem:
            return
        line = f"{iso_utc(time.time_ns())} {printable(text)}\n".encode()
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError as error:
            self.problem = f"The log in {self._path} ends here: {reason(error)}."

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
