"""The events of a flush, and its result.

A flush emits events while it runs, and returns a :class:`FlushResult`. Nothing here prints.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cirron_spool.errors import EXIT_OK
from cirron_spool.text import count, human_size, printable


@dataclass(frozen=True, slots=True)
class BatchFailure:
    """Why one batch or snapshot was not delivered: ``status`` is the HTTP status, None when no answer came."""

    name: str
    status: int | None
    message: str


@dataclass(frozen=True, slots=True)
class SnapshotCounts:
    """The snapshots of a flush that was asked to upload them.

    ``uploaded``, ``failed``, ``left`` (not tried, or not whole yet) and ``vanished`` (no failure) count files. Their
    sum is the number of files that the destination had not acknowledged before; ``sent_before`` counts the others.
    ``deleted`` counts the files that were deleted after their acknowledgement, ``bytes_sent`` the bytes of those
    uploaded. ``planned`` is for a dry run: key and size in bytes of each file that a flush would send.
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

    ``uploaded``, ``failed``, ``skipped`` (listed, but not delivered and not failed), ``quarantined`` and ``evicted``
    (vanished, no failure) count batches. Their sum is the number of selected batches: of all listed ones, where there
    was no selection. ``left_out`` counts the listed batches that the selection left out. ``untried`` counts the skipped
    batches behind the end of the flush. ``bytes_read`` counts the bytes of the uploaded files, ``bytes_sent`` those
    of their request bodies. ``warnings`` are the warnings of the flush, one line each: at most the first 500 and the
    last 500. ``destination`` is the origin that batches go to, empty when the flush ended before it was known.
    ``exists`` is False where there is no such directory, which is an empty spool. ``exit_code`` is the exit code of
    the command: 0 nothing is left to do, 1 a person must look, 3 credentials, 4 retry later. Batches that were left
    out do not count for it.

    ``verified`` is True once the platform has said that the token is valid. ``planned`` is for a dry run: name and size
    in bytes of each batch that a flush would send, oldest first. They count as skipped, but not as untried.
    ``snapshots`` is None for a flush that was not asked to upload them; no other count includes them.
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

    def _repr_html_(self) -> str:
        """The counts in a notebook's cell."""
        from cirron_spool.html.fragments import result_html

        return result_html(self)


@dataclass(frozen=True, slots=True)
class Started:
    """The flush begins: ``batches`` are to be sent, ``total_bytes`` is their size on disk.

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
    """``name`` is on its way: the peer has taken about ``sent`` of its file's ``total`` bytes in this attempt.

    Comes a few times a second, only while a body takes that long, and only to a listener. An exception of the
    listener then goes to the event loop's exception handler.
    """

    name: str
    sent: int
    total: int


@dataclass(frozen=True, slots=True)
class Uploaded:
    """``name`` was acknowledged; its file of ``size`` bytes went out as ``sent`` bytes and is being deleted."""

    name: str
    size: int
    sent: int


@dataclass(frozen=True, slots=True)
class Retrying:
    """``name`` will be tried again (attempt ``attempt``, from 2) after ``delay_s`` seconds.

    ``reason`` is the part of ``message`` behind the batch's name.
    """

    name: str
    status: int | None
    message: str
    delay_s: float
    attempt: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """``name`` was not delivered and stays. ``hint`` is one more line for a person, or empty."""

    name: str
    status: int | None
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """``name`` was rejected and set aside in ``quarantine``."""

    name: str
    status: int | None
    message: str
    quarantine: Path


@dataclass(frozen=True, slots=True)
class SnapshotsStarted:
    """The upload of snapshots begins, before the batches: ``snapshots`` files in ``folder`` are to be sent.

    ``total_bytes`` is their size. Sending, Progress and Retrying then speak of snapshots, by their keys.
    """

    folder: Path
    snapshots: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class SnapshotUploaded:
    """The snapshot ``name``, its key, was acknowledged; it has ``size`` bytes.

    ``uri`` is the platform's address of it, or empty.
    """

    name: str
    size: int
    uri: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotFailed:
    """The snapshot ``name``, its key, was not delivered and stays. ``hint`` is more for a person, or empty."""

    name: str
    status: int | None
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Warned:
    """Something a person should know that ends nothing."""

    message: str


@dataclass(frozen=True, slots=True)
class Found:
    """A watch has found ``batches`` more to send; ``total_bytes`` is their size on disk."""

    batches: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A watch waits: ``cause`` is "outage" (for the platform) or "token" (for a new login). ``message`` is one line."""

    cause: str
    message: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """The wait of a watch for ``cause`` is over after ``seconds``."""

    cause: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The flush is over, however it ended; always the last event."""

    result: FlushResult


@dataclass(frozen=True, slots=True)
class SpoolsFound:
    """A search has found ``spools`` so far, with ``batches`` in all.

    ``with_batches`` counts the spools that are not empty; None where that is not known.
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
    """An ``event`` of a flush of several spools. ``directory`` is the spool's, None for an event about all of them."""

    directory: Path | None
    event: FlushEvent | SpoolsFound


@dataclass(frozen=True, slots=True)
class FlushSpoolsResult:
    """The result of a flush of several spools.

    ``spools`` has the result of each spool, by path; an empty spool has one, too. In a spool that the flush did not
    come to, all batches are untried. ``warnings`` are those about no spool, one line each. ``exit_code`` is the worst
    of all: 2, 3, 1, 4, 0. Counts are the sums of the spools' counts.
    """

    spools: tuple[FlushResult, ...]
    seconds: float = 0.0
    exit_code: int = EXIT_OK
    warnings: tuple[str, ...] = ()
    destination: str = ""
    verified: bool = False

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
        """Batches that were skipped behind the end of a flush."""
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
        """Bytes of the request bodies that carried them."""
        return sum(spool.bytes_sent for spool in self.spools)


def warning_in(event: FlushEvent) -> str:
    """The warning that an event carries, one line for a person; empty for most events."""
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
    """Whether a person should see the event, in a log too."""
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
