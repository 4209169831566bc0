"""The records of many batches in a temporary database, with bounded memory and one record for each identifier.

SQLite keeps a small temporary database in memory, and a larger one in an unnamed file. The batches are read only once,
since a flush may delete them at the same time. Exports sort and join in the database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cirron_spool.errors import EXIT_TEMPFAIL, SpoolError
from cirron_spool.traces.records import KINDS, BrokenBatchError, parse_batch
from cirron_spool.traces.sources import UnreadableBatch, read_batches

# Cache in memory. Beyond it, SQLite writes to its temporary file.
_CACHE_KB = 48 * 1024

_SCHEMA = """
CREATE TABLE batch (n INTEGER PRIMARY KEY, name TEXT, size INTEGER, sdk_version TEXT);
CREATE TABLE span (
    n INTEGER PRIMARY KEY, id TEXT, parent_id TEXT, name TEXT, idx INTEGER, start_ns INTEGER, end_ns INTEGER,
    pid INTEGER, rank INTEGER, thread_id INTEGER, more TEXT, batch INTEGER);
CREATE TABLE mark (
    n INTEGER PRIMARY KEY, id TEXT, span_id TEXT, name TEXT, kind TEXT, value_type TEXT, value, nonfinite TEXT,
    ts_ns INTEGER, more TEXT, batch INTEGER);
CREATE TABLE snapshot (
    n INTEGER PRIMARY KEY, id TEXT, span_id TEXT, tensor_name TEXT, ts_ns INTEGER, more TEXT, batch INTEGER);
"""
_INSERTS = {
    "span": "INSERT INTO span VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "mark": "INSERT INTO mark VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "snapshot": "INSERT INTO snapshot VALUES (NULL, ?, ?, ?, ?, ?, ?)",
}
# The best of several records with one identifier: a closed span before an open one, then the last one read.
_BEST = {"span": "end_ns IS NOT NULL DESC, n DESC", "mark": "n DESC", "snapshot": "n DESC"}


class Loaded(NamedTuple):
    """The result of a load: batches and bytes read, batches skipped, and duplicate records."""

    batches: int
    size: int
    broken: int
    duplicates: int


@contextmanager
def working_database() -> Iterator[sqlite3.Connection]:
    """A temporary database that is deleted at the end of the block. Raises SpoolError without disk space."""
    try:
        connection = sqlite3.connect("", isolation_level=None)
        try:
            connection.executescript(
                f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{_CACHE_KB}; {_SCHEMA}"
            )
            yield connection
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        raise SpoolError(
            f"The temporary database cannot be written: {error}. Free space in the folder for temporary files, or set "
            "SQLITE_TMPDIR to another folder.",
            EXIT_TEMPFAIL,
        ) from None


def load(
    connection: sqlite3.Connection, path: Path, warn: Callable[[str], None], detailed: Collection[str] = KINDS
) -> Loaded:
    """Read the batches in ``path`` into the database. ``warn`` gets a line about each skipped batch.

    ``detailed`` are the kinds of records that keep all their fields.
    Raises SpoolError as :func:`~cirron_spool.traces.sources.read_batches`.
    """
    batches = size = broken = 0
    connection.execute("BEGIN")
    for source in read_batches(path):
        if isinstance(source, UnreadableBatch):
            broken += 1
            warn(f"{source.name} is skipped: {source.why}.")
            continue
        try:
            batch = parse_batch(source.text, detailed)
        except BrokenBatchError as error:
            broken += 1
            warn(f"{source.name} is skipped: {error}.")
            continue
        batches += 1
        size += source.size
        for problem in batch.problems:
            warn(f"{source.name} has invalid records: {problem}.")
        row = (batches, source.name, source.size, batch.sdk_version)
        connection.execute("INSERT INTO batch VALUES (?, ?, ?, ?)", row)
        for table, records in (("span", batch.spans), ("mark", batch.marks), ("snapshot", batch.snapshots)):
            connection.executemany(_INSERTS[table], [(*record, batches) for record in records])
    duplicates = 0
    for table, best in _BEST.items():
        connection.execute(f"CREATE INDEX {table}_id ON {table} (id)")
        duplicates += _keep_best(connection, table, best)
    connection.execute("CREATE INDEX mark_span ON mark (span_id)")
    connection.execute("COMMIT")
    return Loaded(batches, size, broken, duplicates)


def _keep_best(connection: sqlite3.Connection, table: str, best: str) -> int:
    """Delete all records but the best one of each identifier. Returns the number of deleted records."""
    repeated = connection.execute(f"SELECT id FROM {table} GROUP BY id HAVING count(*) > 1").fetchall()
    before = connection.total_changes
    for (each,) in repeated:
        connection.execute(
            f"DELETE FROM {table} WHERE id = ? AND n <> (SELECT n FROM {table} WHERE id = ? ORDER BY {best} LIMIT 1)",
            (each, each),
        )
    return connection.total_changes - before
