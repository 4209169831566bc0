"""What becomes of one batch: each outcome, its delete or its keeping, its counts and its words."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cirron_spool.errors import EXIT_ATTENTION, EXIT_AUTH, EXIT_TEMPFAIL, AuthRejectedError, ResourceError
from cirron_spool.events import BatchFailure, Failed, FlushEvent, Quarantined, Uploaded, Warned
from cirron_spool.pipeline.batch import Cause, Prepared, Unsendable
from cirron_spool.pipeline.inline_worker import InlineWorker
from cirron_spool.pipeline.tally import Tally
from cirron_spool.pipeline.thread_worker import ThreadWorker
from cirron_spool.protocol.verdict import Action, Verdict
from cirron_spool.settings.paths import quarantine_path
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.file_identity import Removal
from cirron_spool.spool.quarantine import entries, set_aside
from support.background import SAFETY_NET
from support.monitor import DeleteWatch, watch_deletes
from support.settling import BODY, NAME, SENT, Flush, outcome

pytestmark = pytest.mark.anyio

ACKNOWLEDGED = Verdict(Action.ACKNOWLEDGED, 202, exit_code=0)
REJECTED = Verdict(
    Action.REJECTED, 400, f"Rejected {NAME}: HTTP 400 Bad Request", hint="A hint.", server_message="no"
)
RETRY = Verdict(Action.RETRY, 503, f"Upload of {NAME} failed: HTTP 503", exit_code=EXIT_TEMPFAIL)
STOP = Verdict(Action.STOP, 404, "The route is not there.", hint="Check apiUrl.")
REFUSED = Verdict(Action.REFRESH, 401, f"Auth rejected (401) for {NAME}.", exit_code=EXIT_AUTH)
READ_ERROR = OSError(errno.EIO, "Input/output error", "/somewhere")


@pytest.fixture(autouse=True)
def deletes() -> Iterator[DeleteWatch]:
    """Nothing is uploaded here: what is acknowledged is what a test says."""
    with watch_deletes(acknowledged=lambda name: True) as watch:
        yield watch


MakeFlush = Callable[..., Flush]


@pytest.fixture(params=[ThreadWorker, InlineWorker])
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeFlush]:
    """Makes a flush of its own spool, with one batch listed by default, for each of the two workers."""
    place = tmp_path / "a spool"
    place.mkdir()
    with SpoolDirectory(place) as spool:
        assert spool.open()
        yield lambda listed=1, **options: Flush(spool, Tally(place, listed), kind=request.param, **options)


def counts(flush: Flush) -> dict[str, int]:
    """The result's counts that are not 0, but for what was skipped."""
    result = flush.tally.result(0.0)
    names = ("uploaded", "failed", "quarantined", "evicted", "bytes_read", "bytes_sent", "exit_code")
    return {name: getattr(result, name) for name in names if getattr(result, name)}


# -- acknowledged ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_listener", [True, False])
async def test_an_acknowledged_batch_is_deleted_and_counted(make: MakeFlush, has_listener: bool) -> None:
    flush = make(has_listener=has_listener)
    await flush.settle(ACKNOWLEDGED)
    assert flush.left == []
    assert flush.handed_over == [NAME]
    assert counts(flush) == {"uploaded": 1, "bytes_read": len(BODY), "bytes_sent": SENT}
    assert flush.events == ([Uploaded(NAME, len(BODY), SENT)] if has_listener else [])
    assert not flush.settlement.ended


async def test_one_that_is_gone_already_is_uploaded_all_the_same(make: MakeFlush) -> None:
    flush = make()
    batch = flush.prepared()
    flush.spool.path_of(NAME).unlink()
    await flush.settle(ACKNOWLEDGED, batch)
    assert flush.handed_over == [NAME]
    assert counts(flush) == {"uploaded": 1, "bytes_read": len(BODY), "bytes_sent": SENT}
    assert not flush.settlement.ended


async def test_another_file_than_the_one_that_was_sent_is_kept(make: MakeFlush) -> None:
    flush = make()
    batch = flush.prepared()
    flush.spool.path_of(NAME).write_bytes(BODY + b" ")
    await flush.settle(ACKNOWLEDGED, batch)
    message = f"Uploaded {NAME}, but its file changed during the upload and stays in the spool. Check it."
    assert flush.left == [NAME]
    assert counts(flush) == {"failed": 1, "exit_code": EXIT_ATTENTION}
    assert flush.tally.failures == [BatchFailure(NAME, None, message)]
    assert flush.events == [Failed(NAME, None, message)]
    assert flush.settlement.ended


async def test_a_delete_that_fails_is_one_failure_and_ends_the_flush(
    make: MakeFlush, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = make()

    def refused(*args: object, **more: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", "/somewhere")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refused)
        await flush.settle(ACKNOWLEDGED)
    message = (
        f"Uploaded {NAME} but failed to delete local spool file {flush.spool.path}/{NAME}: "
        "Operation not permitted. It may be re-uploaded on next flush."
    )
    assert flush.left == [NAME]
    assert counts(flush) == {"failed": 1, "exit_code": EXIT_ATTENTION}
    assert flush.events == [Failed(NAME, None, message)]
    assert flush.settlement.ended


def forked(work: Callable[[], str]) -> str:
    """What `work` returns in a fork of this process, or the words of what it raises."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            said = work()
        except BaseException as error:  # noqa: BLE001
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_deletes_nothing(make: MakeFlush) -> None:
    flush = make()
    batch = flush.prepared()
    said = forked(lambda: repr(flush.remove(batch)))
    assert said == "RuntimeError: This flush began in another process."
    assert flush.left == [NAME]


async def test_an_exception_of_a_listener_is_raised_later_and_the_batch_counts(make: MakeFlush) -> None:
    """A delete is reported while another request is sent: an exception there would break that request."""
    flush = make(listed=2)
    errors = iter(["the first", "the second"])

    def listen(event: FlushEvent) -> None:
        raise ZeroDivisionError(next(errors))

    async with flush.worker():
        flush.settlement._emit = listen
        for number in (1, 2):
            batch = flush.prepared(f"{number:020d}-0a.json")
            await flush.settlement.settle(batch, outcome(ACKNOWLEDGED))
    assert flush.left == []
    assert counts(flush)["uploaded"] == 2
    assert flush.settlement.ended
    with pytest.raises(ZeroDivisionError, match="first"):
        flush.settlement.check_listener()
    flush.settlement.check_listener()  # raised once


async def test_the_end_of_an_earlier_batch_is_reported_before_that_of_a_skipped_one(make: MakeFlush) -> None:
    flush = make(listed=2)
    async with flush.worker():
        await flush.settlement.settle(flush.prepared(), outcome(ACKNOWLEDGED))
        await flush.settlement.skip(Unsendable("00000000000000000002-0b.json", Cause.EMPTY))
        assert [type(event) for event in flush.events] == [Uploaded, Warned]


# -- not sent, or not to its end ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            Unsendable(NAME, Cause.EMPTY),
            f"Skipped {NAME}: the file is empty, perhaps after a power cut. Check it, then delete it.",
        ),
        (Unsendable(NAME, Cause.NOT_A_FILE, "a named pipe"), f"Skipped {NAME}: it is a named pipe."),
    ],
)
async def test_what_is_no_batch_is_passed_by(make: MakeFlush, batch: Unsendable, message: str) -> None:
    flush = make()
    async with flush.worker():
        await flush.settlement.skip(batch)
    assert flush.events == [Warned(message)]
    assert counts(flush) == {"exit_code": EXIT_ATTENTION}
    assert (flush.tally.result(0.0).skipped, flush.tally.result(0.0).untried) == (1, 0)
    assert not flush.settlement.ended


async def test_one_that_vanished_before_it_was_read_is_counted_as_evicted(make: MakeFlush) -> None:
    flush = make()
    async with flush.worker():
        await flush.settlement.skip(Unsendable(NAME, Cause.VANISHED))
    assert (counts(flush), flush.events, flush.settlement.ended) == ({"evicted": 1}, [], False)


@pytest.mark.parametrize("keep_going", [False, True])
async def test_one_that_cannot_be_read_ends_the_flush_unless_it_keeps_going(
    make: MakeFlush, keep_going: bool
) -> None:
    flush = make(keep_going=keep_going)
    async with flush.worker():
        await flush.settlement.skip(Unsendable(NAME, Cause.UNREADABLE, "Permission\x1b denied"))
    message = f"Cannot read {NAME}: Permission\\x1b denied. It stays in the spool."
    assert flush.events == [Failed(NAME, None, message)]
    assert counts(flush) == {"failed": 1, "exit_code": EXIT_ATTENTION}
    assert flush.settlement.ended is not keep_going


async def test_one_that_vanished_while_it_was_sent_is_counted_as_evicted(make: MakeFlush) -> None:
    flush = make()
    await flush.settle(FileNotFoundError(f"{NAME} vanished while it was being sent"))
    assert (counts(flush), flush.events, flush.handed_over) == ({"evicted": 1}, [], [])
    assert not flush.settlement.ended


async def test_a_lack_of_descriptors_while_a_batch_is_sent_is_no_fault_of_the_batch(make: MakeFlush) -> None:
    flush = make()
    with pytest.raises(ResourceError, match="no further file"):
        await flush.settle(OSError(errno.EMFILE, "Too many open files"))
    assert (flush.left, flush.events, flush.tally.failures) == ([NAME], [], [])


@pytest.mark.parametrize("keep_going", [False, True])
async def test_a_disk_that_fails_while_a_batch_is_sent_ends_the_flush(
    make: MakeFlush, keep_going: bool
) -> None:
    flush = make(keep_going=keep_going)
    await flush.settle(READ_ERROR)
    message = f"Cannot read {NAME}: Input/output error. It stays in the spool."
    assert flush.left == [NAME]
    assert flush.events == [Failed(NAME, None, message)]
    assert counts(flush) == {"failed": 1, "exit_code": EXIT_ATTENTION}
    assert flush.settlement.ended


@pytest.mark.parametrize("keep_going", [False, True])
@pytest.mark.parametrize("quarantine", [False, True])
@pytest.mark.parametrize("verdict", [RETRY, STOP, REFUSED], ids=lambda verdict: verdict.action.name)
async def test_what_is_not_delivered_stays_and_is_told(
    make: MakeFlush, verdict: Verdict, quarantine: bool, keep_going: bool
) -> None:
    """Only a rejection is set aside, and only a batch whose attempts are used up is gone past."""
    flush = make(quarantine=quarantine, keep_going=keep_going)
    await flush.settle(verdict)
    assert flush.left == [NAME]
    assert flush.handed_over == []
    is_common = verdict is not RETRY
    assert flush.events == [Failed(NAME, verdict.status, verdict.message, verdict.hint, is_common)]
    assert flush.tally.failures == [BatchFailure(NAME, verdict.status, verdict.message, is_common)]
    assert counts(flush) == {"failed": 1, "exit_code": verdict.exit_code}
    assert flush.settlement.ended is not (keep_going and verdict is RETRY)
    error = flush.settlement.auth_error
    if verdict is REFUSED:
        assert isinstance(error, AuthRejectedError)
        assert str(error) == REFUSED.message
    else:
        assert error is None


# -- rejected ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_going", [False, True])
async def test_a_rejected_batch_ends_the_flush_unless_it_is_to_be_set_aside(
    make: MakeFlush, keep_going: bool
) -> None:
    flush = make(keep_going=keep_going)
    await flush.settle(REJECTED)
    assert flush.left == [NAME]
    assert flush.events == [Failed(NAME, 400, REJECTED.message, "A hint.")]
    assert counts(flush) == {"failed": 1, "exit_code": EXIT_ATTENTION}
    assert flush.settlement.ended


@pytest.mark.parametrize(("said", "message"), [("no", f"{REJECTED.message}: no"), ("", REJECTED.message)])
async def test_a_rejected_batch_is_set_aside(make: MakeFlush, said: str, message: str) -> None:
    flush = make(quarantine=True)
    await flush.settle(Verdict(Action.REJECTED, 400, REJECTED.message, hint="A hint.", server_message=said))
    [rejection] = entries(flush.spool.path)
    assert flush.left == []
    assert (rejection.name, rejection.status, rejection.message) == (NAME, 400, message)
    assert flush.events == [Quarantined(NAME, 400, message, quarantine_path(flush.spool.path))]
    assert counts(flush) == {"quarantined": 1, "exit_code": EXIT_ATTENTION}
    assert not flush.settlement.ended


async def test_what_is_acknowledged_is_deleted_before_the_next_is_set_aside(
    make: MakeFlush, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oldest first in this, too: at any moment what is gone from the spool is its beginning."""
    flush = make(listed=2, quarantine=True)
    first, second = flush.prepared(), flush.prepared("00000000000000000002-0b.json")
    order: list[str] = []
    gate = threading.Event()

    real = flush.remove

    def late(batch: Prepared) -> Removal:
        assert flush.kind is InlineWorker or gate.wait(SAFETY_NET)
        order.append("deleted")
        return real(batch)

    def noted(spool: SpoolDirectory, name: str, status: int | None, message: str) -> Path:
        order.append("set aside")
        return set_aside(spool, name, status, message)

    monkeypatch.setattr("cirron_spool.pipeline.settle.set_aside", noted)
    monkeypatch.setattr(flush, "remove", late)
    async with flush.worker():
        await flush.settlement.settle(first, outcome(ACKNOWLEDGED))
        rejecting = asyncio.ensure_future(flush.settlement.settle(second, outcome(REJECTED)))
        for _ in range(1000):  # time enough to begin with it, if it did not wait
            await asyncio.sleep(0)
        gate.set()
        await rejecting
    assert order == ["deleted", "set aside"]


async def test_one_that_vanished_before_it_was_set_aside(make: MakeFlush) -> None:
    flush = make(quarantine=True)
    batch = flush.prepared()
    flush.spool.path_of(NAME).unlink()
    await flush.settle(REJECTED, batch)
    assert (counts(flush), flush.events, flush.settlement.ended) == ({"evicted": 1}, [], False)


async def test_one_that_cannot_be_set_aside_stays_and_ends_the_flush(make: MakeFlush) -> None:
    flush = make(quarantine=True)
    batch = flush.prepared()
    aside = quarantine_path(flush.spool.path)
    aside.mkdir()
    (aside / NAME).write_bytes(b"another")
    await flush.settle(REJECTED, batch)
    message = (
        f"{REJECTED.message}, and it could not be set aside: a batch of that name is in quarantine already. "
        "It stays in the spool"
    )
    assert flush.left == [NAME]
    assert (aside / NAME).read_bytes() == b"another"
    [failed] = flush.events
    assert isinstance(failed, Failed)
    assert failed == Failed(NAME, 400, message, failed.hint)
    assert failed.hint == (
        f"The quarantine {aside} must be a writable folder on the spool's file system, without a batch of that name. "
        "Correct that, or move the batch away."
    )
    assert counts(flush) == {"failed": 1, "exit_code": EXIT_ATTENTION}
    assert flush.settlement.ended


async def test_the_first_three_may_be_too_many(make: MakeFlush) -> None:
    flush = make(listed=3, quarantine=True)
    for number in range(3):
        assert number == 0 or not flush.settlement.ended
        await flush.settle(REJECTED, flush.prepared(f"{number:020d}-0a.json"))
    assert flush.settlement.ended


async def test_three_rejections_in_a_row_end_the_flush(make: MakeFlush) -> None:
    flush = make(listed=9, quarantine=True)
    names = [f"{number:020d}-0a.json" for number in range(9)]

    async def rejected(name: str) -> None:
        await flush.settle(REJECTED, flush.prepared(name))

    for name in names[:2]:
        await rejected(name)
    await flush.settle(ACKNOWLEDGED, flush.prepared(names[2]))  # begins the count anew
    for name in names[3:5]:
        await rejected(name)
        assert not flush.settlement.ended
    await rejected(names[5])
    assert flush.settlement.ended
    assert [event for event in flush.events if isinstance(event, Warned)] == [
        Warned(
            "3 batches were rejected in a row, so the endpoint may be wrong. "
            f"Check apiUrl, then run cirron-spool quarantine retry --dir '{flush.spool.path}'."
        )
    ]
    assert isinstance(flush.events[-1], Warned)
    assert counts(flush)["quarantined"] == 5
