"""The events of a flush, and its result.

A flush emits events while it runs, and returns a :class:`FlushResult`. Nothing here prints.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cirron_spool.errors import EXIT_OK
from cirron_spool.text import bounded_repr, count, human_size, printable


@dataclass(frozen=True, slots=True)
class BatchFailure:
    """The failure of one batch or snapshot. ``status`` is the HTTP status, None when no answer came.

    ``is_common`` is True if all others would fail the same way, as with a refused token.
    """

    name: str
    status: int | None
    message: str
    is_common: bool = False


@dataclass(frozen=True, slots=True)
class SnapshotCounts:
    """The counts of a flush with the option ``snapshots``.

    ``uploaded``, ``failed``, ``left`` (not tried, or incomplete) and ``vanished`` (no failure) count files. Their sum
    is the number of files without an earlier acknowledgement. ``sent_before`` counts the files with one. ``deleted``
    counts the files that were deleted after their acknowledgement. ``bytes_sent`` counts the bytes of the uploaded
    files. ``planned`` is for a dry run: key and size in bytes of each file that a flush would send.
    """

    uploaded: int = 0
    failed: int = 0
    left: int = 0
    vanished: int = 0
    sent_before: int = 0
    deleted: int = 0
    bytes_sent: int = 0
    failures: tuple[BatchFailure, ...] = ()
    planned: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class FlushResult:
    """The result of a flush.

    ``uploaded``, ``failed``, ``skipped`` (neither delivered nor failed), ``quarantined`` and ``evicted`` (vanished, no
    failure) count batches. Their sum is the number of selected batches. Without a selection, all listed batches are
    selected. ``left_out`` counts the batches that the selection leaves out. ``untried`` counts the skipped batches that
    the flush did not reach. ``bytes_read`` counts the bytes of the uploaded files, ``bytes_sent`` those of their
    request bodies. ``warnings`` are the warnings of the flush, one line each: at most the first 500 and the last 500.
    ``destination`` is the origin of the ingest. It is empty when the flush ended before it was known. ``exists`` is
    False when the directory does not exist; it counts as an empty spool. ``exit_code`` is the exit code of the command:
    0 nothing is left to do, 1 a person must look, 3 credentials, 4 retry later. Batches that were left out do not
    change it.

    ``verified`` is True if the platform confirmed the token. ``planned`` is for a dry run: name and size in bytes of
    each batch that a flush would send, oldest first. They count as skipped, but not as untried. ``snapshots`` is None
    for a flush without the option ``snapshots``. No other count includes snapshots.
    """

    directory: Path
    uploaded: int = 0
    failed: int = 0
    skipped: int = 0
    quarantined: int = 0
    evicted: int = 0
    untried: int = 0
    bytes_read: int = 0
    bytes_sent: int = 0
    seconds: float = 0.0
    failures: tuple[BatchFailure, ...] = ()
    exit_code: int = EXIT_OK
    warnings: tuple[str, ...] = ()
    destination: str = ""
    exists: bool = True
    left_out: int = 0
    verified: bool = False
    planned: tuple[tuple[str, int], ...] = ()
    snapshots: SnapshotCounts | None = None

    def __repr__(self) -> str:
        return bounded_repr(self)

    def _repr_html_(self) -> str:
        """The counts in a notebook's cell."""
        from cirron_spool.html.fragments import result_html

        return result_html(self)


@dataclass(frozen=True, slots=True)
class Started:
    """The flush begins. ``batches`` counts the batches to send, ``total_bytes`` is their size on disk.

    ``left_out`` counts the further batches that a selection left out.
    """

    directory: Path
    batches: int
    total_bytes: int
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Sending:
    """The first attempt at ``name`` begins; ``size`` is the file's, in bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Progress:
    """The upload of ``name`` progresses: the peer has confirmed about ``sent`` of the file's ``total`` bytes.

    Only a listener gets this event, up to four times a second, during long uploads. An exception of the listener goes
    to the event loop's exception handler.
    """

    name: str
    sent: int
    total: int


@dataclass(frozen=True, slots=True)
class Uploaded:
    """``name`` was acknowledged, and its file is deleted. ``size`` is the file's size, ``sent`` that of the body."""

    name: str
    size: int
    sent: int


@dataclass(frozen=True, slots=True)
class Retrying:
    """``name`` is tried again after ``delay_s`` seconds. ``attempt`` is the number of that attempt, 2 or more.

    ``reason`` is the part of ``message`` after the batch's name.
    """

    name: str
    status: int | None
    message: str
    delay_s: float
    attempt: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """``name`` was not delivered and stays. ``hint`` is one more line for a person, or empty.

    ``is_common`` is True if all others would fail the same way, as with a refused token.
    """

    name: str
    status: int | None
    message: str
    hint: str = ""
    is_common: bool = False


@dataclass(frozen=True, slots=True)
class Quarantined:
    """``name`` was rejected and set aside in ``quarantine``."""

    name: str
    status: int | None
    message: str
    quarantine: Path


@dataclass(frozen=True, slots=True)
class SnapshotsStarted:
    """The upload of snapshots begins. ``snapshots`` counts the files in ``folder`` to send.

    ``total_bytes`` is their size. Until Started, the events Sending, Progress and Retrying name snapshots by their
    keys.
    """

    folder: Path
    snapshots: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class SnapshotUploaded:
    """A snapshot was acknowledged. ``name`` is its key, ``size`` its size in bytes.

    ``uri`` is its address on the platform, or empty.
    """

    name: str
    size: int
    uri: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotFailed:
    """A snapshot was not delivered and stays. ``name`` is its key, ``hint`` one more line for a person.

    ``is_common`` is that of :class:`Failed`.
    """

    name: str
    status: int | None
    message: str
    hint: str = ""
    is_common: bool = False


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning for a person. The flush continues."""

    message: str


@dataclass(frozen=True, slots=True)
class Found:
    """A watch found ``batches`` more batches; ``total_bytes`` is their size on disk."""

    batches: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A watch waits for the platform (``cause`` "outage") or a new login ("token"). ``message`` is one line."""

    cause: str
    message: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """The wait of a watch for ``cause`` is over after ``seconds``."""

    cause: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The flush has ended, with or without an error. Always the last event."""

    result: FlushResult


@dataclass(frozen=True, slots=True)
class SpoolsFound:
    """A search found ``spools`` spools so far, with ``batches`` batches together.

    ``with_batches`` counts the spools that are not empty; None when that is unknown.
    """

    spools: int
    batches: int
    with_batches: int | None = None


FlushEvent = (
    Started
    | Found
    | Sending
    | Progress
    | Uploaded
    | Retrying
    | Failed
    | Quarantined
    | Waiting
    | Resumed
    | SnapshotsStarted
    | SnapshotUploaded
    | SnapshotFailed
    | Warned
    | Ended
)


@dataclass(frozen=True, slots=True)
class SpoolEvent:
    """An ``event`` of a flush of several spools. ``directory`` is that of the spool, None for all spools."""

    directory: Path | None
    event: FlushEvent | SpoolsFound


@dataclass(frozen=True, slots=True)
class FlushSpoolsResult:
    """The result of a flush of several spools.

    ``spools`` has the result of each spool, ordered by path. An empty spool has a result, too. In a spool that the
    flush did not reach, all batches are untried. ``warnings`` concern no single spool, one line each. ``exit_code`` is
    the most serious one: 2, 3, 1, 4, 0 in this order. Each count is the sum over the spools.
    """

    spools: tuple[FlushResult, ...]
    seconds: float = 0.0
    exit_code: int = EXIT_OK
    warnings: tuple[str, ...] = ()
    destination: str = ""
    verified: bool = False

    def __repr__(self) -> str:
        return bounded_repr(self)

    @property
    def uploaded(self) -> int:
        """Batches that were acknowledged and deleted."""
        return sum(spool.uploaded for spool in self.spools)

    @property
    def failed(self) -> int:
        """Batches that failed, and stay."""
        return sum(spool.failed for spool in self.spools)

    @property
    def skipped(self) -> int:
        """Batches that were listed, but neither delivered nor failed."""
        return sum(spool.skipped for spool in self.spools)

    @property
    def quarantined(self) -> int:
        """Batches that were set aside."""
        return sum(spool.quarantined for spool in self.spools)

    @property
    def evicted(self) -> int:
        """Batches that vanished."""
        return sum(spool.evicted for spool in self.spools)

    @property
    def untried(self) -> int:
        """Skipped batches that a flush did not reach."""
        return sum(spool.untried for spool in self.spools)

    @property
    def left_out(self) -> int:
        """Batches that the selection left out."""
        return sum(spool.left_out for spool in self.spools)

    @property
    def bytes_read(self) -> int:
        """Bytes of the uploaded files."""
        return sum(spool.bytes_read for spool in self.spools)

    @property
    def bytes_sent(self) -> int:
        """Bytes of their request bodies."""
        return sum(spool.bytes_sent for spool in self.spools)


def warning_in(event: FlushEvent) -> str:
    """The warning in an event, one line for a person; empty for most events."""
    match event:
        case Warned():
            return event.message
        case Failed():
            return event.hint
        case SnapshotFailed():
            return f"{event.message.removesuffix('.')}. {event.hint}" if event.hint else event.message
        case Quarantined():
            return f"{event.message.removesuffix('.')}. Moved to {printable(str(event.quarantine))}."
        case _:
            return ""


def is_for_person(event: FlushEvent) -> bool:
    """Whether the event is logged at WARNING, for a person."""
    return isinstance(event, Failed | Quarantined | SnapshotFailed | Waiting | Warned)


def describe(event: FlushEvent) -> str:
    """One line for a log about any event."""
    match event:
        case Started():
            left_out = f", {event.left_out} left out" if event.left_out else ""
            return f"flushing {count(event.batches, 'batch')} ({human_size(event.total_bytes)}){left_out}"
        case Sending():
            return f"sending {event.name} ({human_size(event.size)})"
        case Progress():
            return f"sent {human_size(event.sent)} of {human_size(event.total)} of {event.name}"
        case Uploaded():
            return f"uploaded {event.name} ({event.sent} bytes sent)"
        case Retrying():
            return (
                f"retrying {event.name} in {event.delay_s:.1f} s (attempt {event.attempt}): {event.message}"
            )
        case Failed():
            return f"{event.message.removesuffix('.')}. {event.hint}" if event.hint else event.message
        case Found():
            return f"found {count(event.batches, 'batch')} ({human_size(event.total_bytes)})"
        case Waiting():
            return event.message
        case Resumed():
            subject = "The platform answers" if event.cause == "outage" else "A new login is used"
            return f"{subject}, after {event.seconds:.0f} s. The watch goes on."
        case SnapshotsStarted() | SnapshotUploaded():
            return _describe_snapshot(event)
        case Ended():
            return f"ended after {event.result.seconds:.1f} s"
        case _:
            return warning_in(event)


def _describe_snapshot(event: SnapshotsStarted | SnapshotUploaded) -> str:
    if isinstance(event, SnapshotUploaded):
        return f"uploaded {event.name} ({event.size} bytes sent)"
    return f"uploading {count(event.snapshots, 'snapshot')} ({human_size(event.total_bytes)})"
