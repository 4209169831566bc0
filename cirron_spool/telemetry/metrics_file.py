"""The metrics file of a command, for the textfile collector of node_exporter."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cirron_spool.concurrency.threads import in_thread
from cirron_spool.errors import CirronSpoolError, ConfigError
from cirron_spool.spool.lock import FileLock, HeldError, lock_file
from cirron_spool.telemetry.families import KEPT, Family
from cirron_spool.telemetry.flush_metrics import FlushMetrics
from cirron_spool.text import printable, reason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from cirron_spool.events import FlushEvent

# Seconds between two writes of a long flush. Scrapes are rarely more frequent.
_INTERVAL_S = 15.0
# Largest share of the time for writes, which read each spool.
_MOST_WORK = 0.02
# Another command holds the lock for a few milliseconds.
_LOCK_TRIES = 100
_LOCK_RETRY_S = 0.01
# The first line of a file of this command.
_BEGINNING = b"# HELP cirron_spool_"
_LARGEST_BYTES = 1024 * 1024


class MetricsFile:
    """The file ``path`` with the metrics of this command. ``spool`` is the value of their label.

    It shows the state of the spools in ``directories``, and of those that :meth:`note` and :meth:`add_spool` name.

    Counters continue from the existing file, which other commands may write, too. ``warn`` is called with a line for
    a person. Blocking. Raises ConfigError for a file that cannot be replaced, and where prometheus-client is not
    installed.
    """

    def __init__(
        self, path: str, spool: str, directories: Iterable[Path], warn: Callable[[str], None]
    ) -> None:
        try:
            from cirron_spool.telemetry import prometheus
        except ImportError:
            raise ConfigError(
                "--metrics-file needs prometheus-client. Run pip install 'cirron-spool[metrics]', or leave it out."
            ) from None
        self._format = prometheus
        self._shown = printable(path)
        self._path = os.path.realpath(path)  # a link stays one
        # The text format is UTF-8.
        self._labels = {"spool": spool.encode("utf-8", "replace").decode()}
        self._warn = warn
        self._has_warned = False
        self._began = time.monotonic()
        self._metrics = FlushMetrics()
        for directory in directories:
            self.add_spool(directory)
        self._write()

    def add_spool(self, directory: Path) -> None:
        """Include the state of ``directory``, also before its flush."""
        self._metrics.add_spool(directory)

    def note(self, event: FlushEvent, directory: Path | None = None) -> None:
        """Count an event of the flush of ``directory``."""
        self._metrics.note(event, directory)

    @asynccontextmanager
    async def kept_written(self) -> AsyncIterator[None]:
        """Write the file every 15 seconds while the block runs."""
        writing = asyncio.create_task(self._keep_written(), name="cirron-spool metrics")
        try:
            yield
        finally:
            writing.cancel()
            await asyncio.wait([writing])

    async def _keep_written(self) -> None:
        pause_s = _INTERVAL_S
        while True:
            await asyncio.sleep(pause_s)
            began = time.monotonic()
            with suppress(CirronSpoolError):  # no free thread: the next write tries again
                await in_thread(self.write)
            pause_s = max(_INTERVAL_S, (time.monotonic() - began) / _MOST_WORK)

    def end(self, exit_code: int) -> None:
        """Count the end of the command, and write the file."""
        self._metrics.end(exit_code, time.monotonic() - self._began, time.time())
        self.write()

    def write(self) -> None:
        """Replace the file in one step. A failure is a warning, once."""
        try:
            self._write()
        except ConfigError as error:
            if not self._has_warned:
                self._has_warned = True
                self._warn(f"{error} The flush continues without metrics.")

    def _write(self) -> None:
        """Add the new counts to the counts in the file. Two flushes by cron may overlap."""
        with self._exclusive():
            if before := self._read():
                self._metrics.continue_from(before)
            values = self._metrics.values(time.time())
            try:
                self._format.write_file(self._path, values, self._labels)
            except OSError as error:
                raise ConfigError(f"Cannot write metrics to {self._shown}: {reason(error)}.") from None
            self._metrics.include(values)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Exclude other commands with this file. Without locks, two commands may overwrite each other's counts."""
        folder, name = os.path.split(self._path)
        lock: FileLock | None = None
        for _ in range(_LOCK_TRIES):
            try:
                lock = lock_file(os.path.join(folder, f".{name[:100]}.lock"))
            except HeldError:
                time.sleep(_LOCK_RETRY_S)
                continue
            except OSError:  # no locks here, or no such folder, which the write says
                pass
            break
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def _read(self) -> dict[Family, dict[str, float]]:
        """The values in the file. Raises ConfigError for a file of another kind."""
        try:
            with open(os.open(self._path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
                is_regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                content = file.read(_LARGEST_BYTES) if is_regular else b"x"
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigError(f"Cannot read {self._shown}: {reason(error)}. Name another file.") from None
        if content and not content.startswith(_BEGINNING):
            raise ConfigError(f"{self._shown} is not a metrics file. Name another file.")
        try:
            return self._format.read_values(content.decode(), KEPT, self._labels)
        except ValueError:
            self._warn(f"The metrics in {self._shown} cannot be read. The counters begin at 0.")
            return {}
