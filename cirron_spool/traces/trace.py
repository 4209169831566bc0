"""One read of a spool: the records in a temporary database, and the sessions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cirron_spool.errors import ConfigError
from cirron_spool.text import printable
from cirron_spool.traces.database import Loaded, load, working_database
from cirron_spool.traces.records import KINDS
from cirron_spool.traces.sessions import Session, Sessions, find_sessions


@dataclass(frozen=True, slots=True)
class Trace:
    """The records of the batches in ``path``, and their sessions."""

    path: Path
    loaded: Loaded
    connection: sqlite3.Connection
    found: Sessions

    @property
    def sessions(self) -> list[Session]:
        """All sessions, oldest first."""
        return self.found.sessions

    @property
    def orphans(self) -> int:
        """The number of spans with a missing parent."""
        return sum(session.orphans for session in self.sessions)

    def choose(self, session: str | None, last: int | None) -> list[int]:
        """The numbers of the chosen sessions, oldest first.

        ``session`` is the start of an identifier. ``last`` chooses the newest sessions. Without both, all are chosen.
        Raises ConfigError.
        """
        if session is None:
            numbers = list(range(len(self.sessions)))
            return numbers if last is None else numbers[max(0, len(numbers) - last) :]
        fits = [number for number, each in enumerate(self.sessions) if each.id.startswith(session)]
        exact = [number for number in fits if self.sessions[number].id == session]
        if len(exact or fits) == 1:
            return exact or fits
        what = "Several sessions begin" if fits else "No session begins"
        raise ConfigError(
            f"{what} with '{printable(session)}' in {printable(str(self.path))}. See them with traces list."
        )

    def newest_run(self) -> list[int]:
        """The newest session, and the overlapping sessions of the other ranks of its run."""
        if not self.sessions:
            return []
        *_, newest = self.sessions
        ranks = {newest.rank}
        chosen = [len(self.sessions) - 1]
        for number in range(len(self.sessions) - 2, -1, -1):
            session = self.sessions[number]
            if session.rank not in ranks and session.start_ns + session.duration_ns >= newest.start_ns:
                ranks.add(session.rank)
                chosen.append(number)
        return sorted(chosen)


@contextmanager
def read_trace(path: Path, warn: Callable[[str], None], detailed: Collection[str] = KINDS) -> Iterator[Trace]:
    """Read the batches in ``path``. ``warn`` gets a line about each skipped batch. Blocking.

    ``detailed`` are the kinds of records (spans, marks, snapshots) that keep all their fields. Raises SpoolError.
    """
    with working_database() as connection:
        loaded = load(connection, path, warn, detailed)
        yield Trace(path, loaded, connection, find_sessions(connection))
