"""The sessions in a database of records: one for each run of a process under ``ci.profile()``.

A session is the tree below a root span ``cirron.session``. The SDK writes a span when it closes, so the root comes
last. A session without a root is live, was killed, or has its last batches elsewhere. A span without a known parent
belongs to the session of its process that was open at that time. Without such a session, these spans form one.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections import defaultdict
from dataclasses import dataclass, field

SESSION = "cirron.session"
# Special parents: a top has none (NO_PARENT), and the parent of an orphan is missing (MISSING).
# One span of each cycle has LOOP, which cuts the cycle.
NO_PARENT, MISSING, LOOP = 0, -1, -2
_UNKNOWN, _VISITED = -3, -4

# The process of a span: its pid and its rank.
Process = tuple[int | None, int | None]


@dataclass(slots=True)
class Session:
    """One session. Times are in ns since the epoch, ``size`` in bytes.

    ``root`` is the row of its root span, or 0. ``end_ns`` is None for a live session. ``last_ns`` is the latest time in
    its records. ``orphans`` counts the spans with a missing parent.
    """

    id: str
    root: int
    pid: int | None
    rank: int | None
    start_ns: int
    end_ns: int | None
    last_ns: int
    spans: int = 0
    open_spans: int = 0
    orphans: int = 0
    marks: int = 0
    snapshots: int = 0
    size: int = 0
    batches: set[int] = field(default_factory=set)

    @property
    def live(self) -> bool:
        """Whether no batch has the end of its root span."""
        return self.end_ns is None

    @property
    def duration_ns(self) -> int:
        """The time from its start to its end, or to its latest record."""
        return max(0, (self.last_ns if self.end_ns is None else self.end_ns) - self.start_ns)

    def see(self, start_ns: int, last_ns: int) -> None:
        """Extend the session to the times of a record."""
        self.start_ns = min(self.start_ns, start_ns)
        self.last_ns = max(self.last_ns, last_ns)


@dataclass(slots=True)
class Sessions:
    """All sessions, oldest first, and the session number of each row of each table.

    ``parents`` has the row of each span's parent, or NO_PARENT, MISSING or LOOP. Row 0 and deleted rows belong to -1.
    ``cycles`` counts the spans that are their own ancestors; the first of each cycle counts as a top.
    """

    sessions: list[Session]
    parents: array[int]
    of_span: array[int]
    of_mark: array[int]
    of_snapshot: array[int]
    cycles: int


def find_sessions(connection: sqlite3.Connection) -> Sessions:
    """Join the spans by their parents, and find the session of each record."""
    return _Finder(connection).find()


class _Finder:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._sessions: list[Session] = []
        self._by_process: defaultdict[Process, list[int]] = defaultdict(list)
        # By process: the session of the spans without a root.
        self._unfinished: dict[Process, int] = {}
        # By the identifier of a missing span: its session.
        self._by_missing: dict[str, int] = {}
        self._of_batch: dict[int, int] = {}

    def find(self) -> Sessions:
        parents, roots = self._read_parents()
        cycles, tops = _find_tops(parents, roots)
        of_span = self._place_spans(parents, tops)
        of_mark = self._place("mark", of_span)
        of_snapshot = self._place("snapshot", of_span)
        sizes = dict(self._connection.execute("SELECT n, size FROM batch"))
        order = sorted(
            range(len(self._sessions)), key=lambda number: (self._sessions[number].start_ns, number)
        )
        ranks = {number: rank for rank, number in enumerate(order)} | {-1: -1}
        for rows in (of_span, of_mark, of_snapshot):
            for row, number in enumerate(rows):
                rows[row] = ranks[number]
        for session in self._sessions:
            session.size = sum(sizes[batch] for batch in session.batches)
        return Sessions(
            [self._sessions[number] for number in order], parents, of_span, of_mark, of_snapshot, cycles
        )

    def _read_parents(self) -> tuple[array[int], set[int]]:
        """The parent of each span, and the rows of the root spans. Each root span is a session."""
        parents = self._rows("span", NO_PARENT)
        roots: set[int] = set()
        found = self._connection.execute(
            "SELECT s.n, p.n, s.parent_id IS NULL, s.name = ? FROM span s LEFT JOIN span p ON p.id = s.parent_id",
            (SESSION,),
        )
        for row, parent, is_top, is_root in found:
            parents[row] = NO_PARENT if is_top else parent or MISSING
            if is_root:
                roots.add(row)
        return parents, roots

    def _place_spans(self, parents: array[int], tops: array[int]) -> array[int]:
        """Create the sessions, and find the session of each span."""
        of_top: dict[int, int] = {}
        for row, id_, start, end, pid, rank in self._connection.execute(
            "SELECT n, id, start_ns, end_ns, pid, rank FROM span WHERE name = ? ORDER BY start_ns", (SESSION,)
        ):
            of_top[row] = self._add(Session(id_, row, pid, rank, start, end, end or start))
        of_span = self._rows("span", -1)
        for row, parent_id, id_, start, end, pid, rank in self._connection.execute(
            "SELECT n, parent_id, id, start_ns, end_ns, pid, rank FROM span ORDER BY start_ns"
        ):
            if tops[row] == row and row not in of_top:
                of_top[row] = self._adopt(parent_id, id_, start, end or start, (pid, rank))
        for row, start, end, batch in self._connection.execute("SELECT n, start_ns, end_ns, batch FROM span"):
            number = of_span[row] = of_top[tops[row]]
            session = self._sessions[number]
            session.spans += 1
            session.open_spans += end is None
            session.orphans += parents[row] == MISSING
            self._see(number, batch, start, end or start)
        return of_span

    def _adopt(self, parent_id: str | None, id_: str, start: int, end: int, process: Process) -> int:
        """The session of a span without a root above it."""
        for number in reversed(self._by_process[process]):
            session = self._sessions[number]
            if (
                session.root
                and session.start_ns <= end
                and (session.end_ns is None or start <= session.end_ns)
            ):
                break
        else:
            if process not in self._unfinished:
                name = parent_id or id_
                self._unfinished[process] = self._add(Session(name, 0, *process, start, None, end))
            number = self._unfinished[process]
        if parent_id is not None:
            self._by_missing.setdefault(parent_id, number)
        return number

    def _place(self, table: str, of_span: array[int]) -> array[int]:
        """Find the session of each mark or snapshot: by its span, else by its batch."""
        placed = self._rows(table, -1)
        found = self._connection.execute(
            "SELECT r.n, s.n, r.batch, r.span_id, r.ts_ns "
            f"FROM {table} r LEFT JOIN span s ON s.id = r.span_id"
        )
        for row, span, batch, span_id, ts in found:
            number = of_span[span] if span is not None else self._of_missing(span_id, batch, ts)
            placed[row] = number
            session = self._sessions[number]
            if table == "mark":
                session.marks += 1
            else:
                session.snapshots += 1
            self._see(number, batch, ts, ts)
        return placed

    def _of_missing(self, span_id: str, batch: int, ts: int) -> int:
        number = self._by_missing.get(span_id)
        if number is None:
            number = self._of_batch.get(batch)
        if number is None:
            number = self._add(Session(span_id, 0, None, None, ts, None, ts))
        self._by_missing.setdefault(span_id, number)
        return number

    def _add(self, session: Session) -> int:
        self._sessions.append(session)
        number = len(self._sessions) - 1
        self._by_process[session.pid, session.rank].append(number)
        return number

    def _see(self, number: int, batch: int, start: int, last: int) -> None:
        session = self._sessions[number]
        if not session.root:
            session.see(start, last)
        elif last > session.last_ns:
            session.last_ns = last
        session.batches.add(batch)
        self._of_batch.setdefault(batch, number)

    def _rows(self, table: str, value: int) -> array[int]:
        last: int = self._connection.execute(f"SELECT coalesce(max(n), 0) FROM {table}").fetchone()[0]
        return array("i", [value]) * (last + 1)


def _find_tops(parents: array[int], roots: set[int]) -> tuple[int, array[int]]:
    """The number of spans in cycles, and the topmost ancestor of each span, as a row.

    That is a root of a session, a span without a known parent, or the span with the first row of a cycle.
    """
    tops = array("i", [_UNKNOWN]) * len(parents)
    cycles = 0
    for start in range(1, len(parents)):
        line: list[int] = []
        row = start
        while tops[row] == _UNKNOWN and row not in roots and parents[row] > NO_PARENT:
            tops[row] = _VISITED
            line.append(row)
            row = parents[row]
        if tops[row] == _VISITED:
            cycle = line[line.index(row) :]
            cycles += len(cycle)
            row = min(cycle)
            parents[row] = LOOP
        elif tops[row] != _UNKNOWN:
            row = tops[row]
        for each in (*line, row):
            tops[each] = row
    return cycles, tops
