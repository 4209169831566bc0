"""From the disk to the delete: prefetch, retries and their delays, big bodies, files that change or vanish, deletes."""

from __future__ import annotations

import asyncio
import base64
import errno
import os
import random
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from cirron_spool import (
    Failed,
    FlushEvent,
    FlushResult,
    Retrying,
    Sending,
    Tuning,
    Uploaded,
    Warned,
    flush_spool,
)
from cirron_spool.pipeline import disk_thread
from cirron_spool.spool.directory import SpoolDirectory
from support import audit
from support.answers import Answer, Gate, json_answer, ok
from support.background import SAFETY_NET
from support.monitor import DeleteWatch
from support.scripted import Request, ScriptedServer
from support.spools import BIG, TINY, sdk_batches, snapshot, write_batch

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-delivery-secret"
DISK = "cirron-spool disk"


async def flush(server: ScriptedServer, spool: Path, **options: Any) -> FlushResult:
    return await flush_spool(spool, **{"api_url": server.url, "token": TOKEN, **options})


# -- prefetch ---------------------------------------------------------------------------------------------------


class Reader:
    """Watches what reads ahead, a thread and the loop: what they opened, and when neither goes on by itself."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.changed = threading.Condition()
        self._ident = 0

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and re.fullmatch(r"\d{20}-.*\.json", str(args[0])):
            with self.changed:
                if threading.current_thread().name == DISK:
                    self._ident = threading.get_ident()
                self.opened.append(str(args[0]))
                self.changed.notify_all()

    async def has_opened(self, count: int) -> None:
        def wait() -> bool:
            with self.changed:
                return self.changed.wait_for(lambda: len(self.opened) >= count, SAFETY_NET)

        assert await anyio.to_thread.run_sync(wait)

    async def rests(self) -> None:
        """Return once the thread has stood still where it waits for the loop for some thirty turns of the loop."""
        same, last = 0, None
        for _ in range(60_000):
            frame = sys._current_frames().get(self._ident)
            now = frame and (frame.f_code.co_filename, frame.f_lasti)
            same = same + 1 if now == last else 0
            last = now
            if same == 30 and frame is not None and frame.f_code.co_filename == disk_thread.__file__:
                return
            await anyio.sleep(0.001)  # no event tells that a thread has started to wait
        pytest.fail("the thread never rests")


@contextmanager
def reading() -> Iterator[Reader]:
    reader = Reader()
    with audit.listening(reader.hear):
        yield reader


async def test_the_next_batches_are_ready_while_one_is_in_flight(spool: Path, deletes: DeleteWatch) -> None:
    batches = sdk_batches(spool, 6)
    gate = Gate()
    results: list[FlushResult] = []
    with ScriptedServer(ok(stall_before=gate)) as server, reading() as reader:
        async with anyio.create_task_group() as group:

            async def run() -> None:
                results.append(await flush(server, spool))

            group.start_soon(run)
            await server.arrived(1)
            await reader.has_opened(6)
            await reader.rests()
            with deletes.allowed():  # by an evictor
                for batch in batches[1:]:
                    (spool / batch.name).unlink()
            gate.open()
    # They had been read and compressed already: what was evicted is delivered all the same.
    assert server.deliveries == [(batch.batch_id, batch.data) for batch in batches]
    assert (results[0].uploaded, results[0].evicted, results[0].exit_code) == (6, 0, 0)


@pytest.mark.parametrize(
    ("tuning", "ahead"),
    [
        (Tuning(prefetch_batches=1), 1),
        (Tuning(prefetch_batches=3), 3),
        (Tuning(prefetch_bytes=1), 1),
        (Tuning(prefetch_bytes=3 * 1000), 3),
        (Tuning(), 7),
    ],
)
async def test_prefetch_is_bounded_in_count_and_in_bytes(spool: Path, tuning: Tuning, ahead: int) -> None:
    for number in range(8):
        write_batch(spool, number, "0a", os.urandom(1000))  # sent as they are: a thousand bytes each
    gate = Gate()
    opened: list[list[str]] = []
    with ScriptedServer(ok(stall_before=gate)) as server, reading() as reader:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(flush, server, spool, tuning=tuning))
            await server.arrived(1)
            await reader.has_opened(2)
            await reader.rests()
            opened.append(list(reader.opened))
            gate.open()
    # The one in flight, and what waits ready: how much below the bound the thread is woken again is its own matter.
    assert 2 <= len(opened[0]) <= 1 + ahead
    assert len(opened[0]) == 8 or ahead < 7
    assert len(server.uploads) == 8


async def test_a_bad_next_file_does_not_disturb_the_one_in_flight(spool: Path) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    (spool / batches[1].name).write_bytes(b"")
    gate = Gate()
    with ScriptedServer(ok(stall_before=gate)) as server, reading() as reader:
        async with anyio.create_task_group() as group:
            group.start_soon(flush, server, spool)
            await server.arrived(1)
            await reader.has_opened(3)
            gate.open()
    assert list(server.delivered) == [batches[0].batch_id, batches[2].batch_id]


# -- retries ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 1, 3, 5])
async def test_attempts_are_counted_and_their_bytes_the_same(spool: Path, retries: int) -> None:
    batches = sdk_batches(spool, 2)
    events: list[FlushEvent] = []
    with ScriptedServer(*[Answer(503)] * (retries + 1)) as server:
        result = await flush(server, spool, retries=retries, on_event=events.append)
    assert len(server.uploads) == retries + 1
    assert len({(request.head, request.body) for request in server.uploads}) == 1
    assert server.uploads[0].decoded == batches[0].data
    waits = [event for event in events if isinstance(event, Retrying)]
    assert [event.attempt for event in waits] == list(range(2, retries + 2))
    for number, event in enumerate(waits):
        assert 0.001 * 2**number <= event.delay_s <= 0.001 * 2**number * 1.25
    assert {(event.name, event.status) for event in waits} <= {(batches[0].name, 503)}
    assert (result.failed, result.skipped, result.exit_code) == (1, 1, 4)


async def test_retries_succeed_in_order(spool: Path) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    with ScriptedServer(Answer(500), Answer(429), ok(), ok(cut_after=5), Answer(408)) as server:
        result = await flush(server, spool)
    first, second, third = (batch.batch_id for batch in batches)
    assert [request.batch_id for request in server.uploads] == [first] * 3 + [second] * 3 + [third]
    assert server.deliveries == [(batch.batch_id, batch.data) for batch in batches]
    assert (result.uploaded, result.exit_code) == (3, 0)


async def test_each_batch_has_its_own_retries(spool: Path) -> None:
    sdk_batches(spool, 3, spans=TINY)
    with ScriptedServer(*[*[Answer(503)] * 3, ok()] * 3) as server:
        result = await flush(server, spool)
    assert (result.uploaded, len(server.uploads)) == (3, 12)


async def test_the_first_delay_is_a_second_and_the_longest_ten(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real ones; nobody waits for them, since the flush is asked to stop in each
    sdk_batches(spool, 1, spans=TINY)
    delays: list[float] = []
    with ScriptedServer(*[Answer(503)] * 2) as server:
        stop = anyio.Event()

        def hear(event: FlushEvent) -> None:
            if isinstance(event, Retrying):
                delays.append(event.delay_s)
                stop.set()

        await flush(server, spool, stop=stop, on_event=hear)
        stop = anyio.Event()
        monkeypatch.setattr("cirron_spool.protocol.retry.FIRST_DELAY_S", 100.0)
        await flush(server, spool, stop=stop, on_event=hear)
    assert 1.0 <= delays[0] <= 1.25
    assert delays[1] == 10.0


@pytest.mark.thorough
@pytest.mark.parametrize("value", ["0", "00", "1", " 1 ", "0000000000000000000000001"])
async def test_retry_after_replaces_the_delay_and_is_a_second_at_least(
    spool: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setattr("cirron_spool.protocol.retry.SHORTEST_PAUSE_S", 1.0)  # the real one
    sdk_batches(spool, 1, spans=TINY)
    events: list[FlushEvent] = []
    with ScriptedServer(Answer(429, headers=[("Retry-After", value)])) as server:
        result = await flush(server, spool, on_event=events.append)
    assert [event.delay_s for event in events if isinstance(event, Retrying)] == [1.0]
    first, second = server.uploads
    assert second.arrived - first.arrived >= 1.0
    assert result.uploaded == 1


PAUSE_S = 0.05


@pytest.mark.thorough
@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("in_flight", [1, 4])
@pytest.mark.parametrize(
    "answer",
    [Answer(503), Answer(429, headers=[("Retry-After", "0")]), ok(cut_after=9), json_answer({"ok": False})],
    ids=["503", "Retry-After 0", "cut", "JSON that reports an error"],
)
async def test_a_server_that_fails_is_not_hammered(
    spool: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, in_flight: int, retries: int
) -> None:
    monkeypatch.setattr("cirron_spool.protocol.retry.SHORTEST_PAUSE_S", PAUSE_S)
    batches = sdk_batches(spool, 6, spans=TINY)
    with ScriptedServer() as server:
        server.on("POST", "/api/traces", default=answer)
        result = await flush(server, spool, keep_going=True, retries=retries, in_flight=in_flight)
    # A request arrives before its answer goes out, and the next leaves a pause after that answer came. Of any
    # `in_flight` + 1 in a row, one had its answer before the last left.
    arrived = sorted(request.arrived for request in server.uploads)
    assert all(
        later - earlier >= PAUSE_S for earlier, later in zip(arrived, arrived[in_flight:], strict=False)
    )
    assert (result.failed, len(arrived)) == (6, 6 * (retries + 1))
    assert snapshot(spool) == batches


async def test_the_servers_own_delay_counts_for_the_next_batch_too(spool: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    events: list[FlushEvent] = []
    with ScriptedServer(Answer(503, headers=[("Retry-After", "1")])) as server:
        result = await flush(server, spool, keep_going=True, retries=0, on_event=events.append)
    first, second = server.uploads
    assert second.arrived - first.arrived >= 1.0
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "Waiting 1 s before the next upload, as the server asks."
    ]
    assert (result.uploaded, result.failed) == (1, 1)


async def test_after_a_success_nothing_waits(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk_batches(spool, 4, spans=TINY)

    def recovered(request: Request) -> Answer:
        # From here on a pause would last for ever.
        monkeypatch.setattr("cirron_spool.protocol.retry.SHORTEST_PAUSE_S", 1e6)
        return ok()

    with ScriptedServer(Answer(503), recovered) as server:
        async with asyncio.timeout(SAFETY_NET):
            result = await flush(server, spool)
    assert (result.uploaded, len(server.uploads)) == (4, 5)


async def test_a_stop_ends_the_pause_before_the_next_batch(spool: Path) -> None:
    sdk_batches(spool, 3, spans=TINY)
    stop = anyio.Event()

    def hear(event: FlushEvent) -> None:
        if isinstance(event, Warned):
            stop.set()

    with ScriptedServer(Answer(503, headers=[("Retry-After", "100")])) as server:
        async with asyncio.timeout(SAFETY_NET):
            result = await flush(server, spool, keep_going=True, retries=0, stop=stop, on_event=hear)
    assert (result.failed, result.untried, len(server.uploads)) == (1, 2, 1)


@pytest.mark.parametrize(
    "value",
    [
        "nan", "-5", "1.5", "1e3", "soon", "", "\u0661",
        "Fri, 31 Dec 1999 23:59:59 GMT", "Fri, 99 Foo 2099 99:99:99 GMT",
        "+3", "0x10", "inf",
    ],
)  # fmt: skip
async def test_a_retry_after_that_says_nothing_is_ignored(spool: Path, value: str) -> None:
    sdk_batches(spool, 1, spans=TINY)
    events: list[FlushEvent] = []
    raw = f"HTTP/1.1 503 Busy\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n".encode()
    with ScriptedServer(Answer(raw=raw)) as server:
        result = await flush(server, spool, on_event=events.append)
    [retrying] = [event for event in events if isinstance(event, Retrying)]
    assert 0.001 <= retrying.delay_s <= 0.00125
    assert result.uploaded == 1


async def test_a_retry_after_within_two_minutes_is_waited_for(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    stop = anyio.Event()
    delays: list[float] = []

    def hear(event: FlushEvent) -> None:
        if isinstance(event, Retrying):
            delays.append(event.delay_s)
            stop.set()  # or it would be waited for

    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    with ScriptedServer(Answer(429, headers=[("Retry-After", date)])) as server:
        result = await flush(server, spool, on_event=hear, stop=stop)
    assert 0 < delays[0] <= 100
    assert result.exit_code == 4


@pytest.mark.parametrize("value", ["121", "86400", "1000000000", "9" * 5000, "Fri, 31 Dec 2999 23:59:59 GMT"])
async def test_a_retry_after_beyond_two_minutes_ends_the_flush(spool: Path, value: str) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    answer = Answer(429, headers=[("Retry-After", value)])
    with ScriptedServer(answer) as server:
        result = await flush(server, spool)
    [failure] = result.failures
    said = f"Upload of {batches[0].name} failed: HTTP 429 Too Many Requests. "
    assert failure.message.startswith(said)
    assert ("Run the flush again after " in failure.message) is (len(value) < 100)
    assert (result.exit_code, result.skipped, len(server.uploads)) == (4, 1, 1)
    assert snapshot(spool) == batches


# -- files that vanish or change --------------------------------------------------------------------------------


async def test_vanished_between_listing_and_opening(spool: Path, deletes: DeleteWatch) -> None:
    batches = sdk_batches(spool, 5, spans=TINY)

    def evict(event: FlushEvent) -> None:
        if isinstance(event, Sending) and event.name == batches[0].name:
            with deletes.allowed():
                (spool / batches[3].name).unlink()

    with ScriptedServer() as server:
        result = await flush(server, spool, on_event=evict, tuning=Tuning(prefetch_batches=1))
    assert list(server.delivered) == [batch.batch_id for batch in batches if batch is not batches[3]]
    assert (result.uploaded, result.evicted, result.failed, result.skipped) == (4, 1, 0, 0)
    assert (result.failures, result.exit_code) == ((), 0)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ESTALE])
async def test_gone_as_a_network_file_system_says_it(
    spool: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    real_open = os.open

    # A file server that deleted the file answers ESTALE; there is none here.
    def failing_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == batches[0].name:
            raise OSError(number, os.strerror(number))
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", failing_open)
    with ScriptedServer() as server:
        result = await flush(server, spool)
    monkeypatch.undo()
    assert (result.uploaded, result.evicted, result.exit_code) == (1, 1, 0)
    assert snapshot(spool) == batches[:1]


async def test_vanished_between_opening_and_deleting(spool: Path, deletes: DeleteWatch) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)

    def evict(request: Request) -> Answer:
        with deletes.allowed():
            (spool / batches[1].name).unlink()
        return ok()

    with ScriptedServer(ok(), evict) as server:
        result = await flush(server, spool)
    assert (result.uploaded, result.evicted, result.failed, result.exit_code) == (3, 0, 0, 0)


@pytest.mark.parametrize("how", ["rewritten", "replaced", "appended", "touched", "link"])
async def test_changed_while_it_was_uploaded_is_kept(
    spool: Path, tmp_path: Path, how: str, deletes: DeleteWatch
) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    path = spool / batches[0].name
    other = bytes(reversed(batches[0].data))

    def change(request: Request) -> Answer:
        with deletes.allowed():
            if how == "rewritten":
                path.write_bytes(other)
            elif how == "replaced":
                (tmp_path / "new").write_bytes(other)
                os.replace(tmp_path / "new", path)
            elif how == "appended":
                with path.open("ab") as file:
                    file.write(b" ")
            elif how == "touched":
                os.utime(path, ns=(0, 1))
            else:
                path.unlink()
                path.symlink_to(tmp_path)
        return ok()

    with ScriptedServer(change) as server:
        result = await flush(server, spool)
    assert [(failure.name, failure.status, failure.message) for failure in result.failures] == [
        (
            batches[0].name,
            None,
            f"Uploaded {batches[0].name}, but its file changed during the upload and stays in the spool. Check it.",
        )
    ]
    assert (result.uploaded, result.failed, result.skipped, result.exit_code) == (0, 1, 2, 1)
    assert os.path.lexists(path)  # noqa: ASYNC240 - after the flush
    if how != "link":
        expected = {"appended": batches[0].data + b" ", "touched": batches[0].data}.get(how, other)
        assert snapshot(spool)[0].data == expected
    assert len(server.uploads) == 1
    assert [deletion for deletion in deletes.deletions if deletion.thread == DISK] == []


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("grows", [True, False])
async def test_a_file_that_changes_while_it_is_read_is_not_sent(
    spool: Path, monkeypatch: pytest.MonkeyPatch, size: int, grows: bool
) -> None:
    path = write_batch(spool, 1, "0a", b"x" * size)
    real = SpoolDirectory.open_batch

    # Between the open and the read: a moment that nothing outside this process can meet dependably.
    def change_after(self: SpoolDirectory, name: str) -> Any:
        opened = real(self, name)
        os.truncate(path, size + 1 if grows else size - 1)
        return opened

    monkeypatch.setattr(SpoolDirectory, "open_batch", change_after)
    with ScriptedServer() as server:
        result = await flush(server, spool)
    assert server.uploads == []
    [failure] = result.failures
    assert failure.message == f"Cannot read {path.name}: it changes while it is read. It stays in the spool."
    assert result.exit_code == 1


# -- deleting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_a_delete_that_fails_after_the_acknowledgement(
    spool: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    batches = sdk_batches(spool, 5, spans=TINY)
    real_unlink = os.unlink

    # Root may delete anything: the call fails as it does in a directory that became read-only.
    def failing_unlink(path: Any, *, dir_fd: int | None = None) -> None:
        if path == batches[which].name:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        real_unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", failing_unlink)
    events: list[FlushEvent] = []
    with ScriptedServer() as server:
        result = await flush(server, spool, on_event=events.append)
    monkeypatch.undo()
    name = batches[which].name
    said = (
        f"Uploaded {name} but failed to delete local spool file {spool / name}: Read-only file system. "
        "It may be re-uploaded on next flush."
    )
    assert [(f.name, f.status, f.message) for f in result.failures] == [(name, None, said)]
    assert [event.message for event in events if isinstance(event, Failed)] == [said]
    assert result.exit_code == 1
    assert batches[which] in snapshot(spool)
    # The first delete is waited for; a later one may be under way while one more batch is posted.
    assert len(server.uploads) <= which + (1 if which == 0 else 2)
    assert result.uploaded + 1 == len(server.uploads)
    assert result.uploaded + result.failed + result.skipped == 5


def immutable(path: Path, flag: str) -> bool:
    """Set or take the file system's own word that nobody, root included, may delete a file."""
    chattr = shutil.which("chattr")
    return chattr is not None and subprocess.run([chattr, flag, str(path)], check=False).returncode == 0


async def test_an_immutable_file_is_told_in_the_pages_words(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    if not immutable(spool / batches[0].name, "+i"):
        pytest.skip("no chattr +i here")
    try:
        with ScriptedServer() as server:
            result = await flush(server, spool)
    finally:
        assert immutable(spool / batches[0].name, "-i")
    assert [failure.message for failure in result.failures] == [
        (
            f"Uploaded {batches[0].name} but failed to delete local spool file {spool / batches[0].name}: "
            "Operation not permitted. It may be re-uploaded on next flush."
        )
    ]
    assert (result.uploaded, result.failed, result.skipped, result.exit_code) == (0, 1, 1, 1)
    assert snapshot(spool) == batches


async def test_the_first_delete_is_done_before_the_second_post(spool: Path, deletes: DeleteWatch) -> None:
    batches = sdk_batches(spool, 4, spans=TINY)
    seen: list[list[str]] = []

    def look(request: Request) -> Answer:
        seen.append(sorted(os.listdir(spool)))
        return ok()

    with ScriptedServer(*[look] * 4) as server:
        await flush(server, spool)
    assert batches[0].name not in seen[1]
    # No more than one delete is behind at any time.
    for number, names in enumerate(seen):
        assert all(batch.name not in names for batch in batches[: max(0, number - 1)])
    assert deletes.names == [batch.name for batch in batches]


# -- big batches ------------------------------------------------------------------------------------------------


def incompressible(size: int, seed: int = 0) -> bytes:
    return base64.b64encode(random.Random(seed).randbytes(size))


async def test_a_batch_too_large_to_hold_is_streamed(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 8 MB compressed are some 35 MB of JSON; the way out is the same for a limit of 10 KB.
    monkeypatch.setattr("cirron_spool.pipeline.batch_reader.HELD_BYTES", 10_000)
    write_batch(spool, 1, "0a", incompressible(300_000))
    write_batch(spool, 2, "0b", incompressible(400_000))
    batches = sdk_batches(spool, 2, spans=TINY)
    events: list[FlushEvent] = []
    with ScriptedServer(ok(), Answer(503)) as server:
        result = await flush(server, spool, on_event=events.append, tuning=Tuning(chunk_bytes=4096))
    assert server.deliveries == [(batch.batch_id, batch.data) for batch in batches]
    assert [request.chunked for request in server.uploads] == [True, True, True, False, False]
    for request in server.uploads[:3]:
        assert request.headers["content-encoding"] == "gzip"
        assert "content-length" not in request.headers
    assert {request.body for request in server.attempts(batches[1].batch_id)} == {server.uploads[1].body}
    assert result.bytes_sent == sum(
        len({r.batch_id: r.body for r in server.uploads}[batch.batch_id]) for batch in batches
    )
    assert [event.sent for event in events if isinstance(event, Uploaded)] == [
        len({r.batch_id: r.body for r in server.uploads}[batch.batch_id]) for batch in batches
    ]
    assert (result.uploaded, result.bytes_read) == (4, sum(len(batch.data) for batch in batches))


async def test_a_streamed_batch_is_retried_with_the_same_bytes(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cirron_spool.pipeline.batch_reader.HELD_BYTES", 1)  # as above
    body = incompressible(2_000_000)
    write_batch(spool, 1, "0a", body)
    script = [ok(read_only=500_000, reset=True), Answer(500), ok(cut_after=30)]
    with ScriptedServer(*script) as server:
        result = await flush(server, spool)
    assert result.uploaded == 1
    cut, *whole = server.uploads
    assert len(whole) == 3
    assert all(request.chunked and request.batch_id == "0a" for request in server.uploads)
    assert {request.body for request in whole} == {whole[0].body}
    assert whole[0].body.startswith(cut.body)
    assert server.deliveries == [("0a", body)]


@pytest.mark.parametrize("how", ["grown", "cut", "rewritten"])
@pytest.mark.parametrize("when", ["before", "between attempts"])
async def test_a_streamed_batch_that_changed_is_kept(
    spool: Path, monkeypatch: pytest.MonkeyPatch, how: str, when: str
) -> None:
    monkeypatch.setattr("cirron_spool.pipeline.batch_reader.HELD_BYTES", 1)
    path = write_batch(spool, 1, "0a", incompressible(300_000))
    write_batch(spool, 2, "0b", b"{}")

    def change() -> None:
        if how == "grown":
            with path.open("ab") as file:
                file.write(b"more")
        elif how == "cut":
            os.truncate(path, 1000)
        else:
            path.write_bytes(incompressible(300_000, seed=1))

    def hear(event: FlushEvent) -> None:
        if isinstance(event, Sending if when == "before" else Retrying):
            change()

    with ScriptedServer(*[Answer(503)] * (when != "before")) as server:
        result = await flush(server, spool, on_event=hear)
    assert [(failure.name, failure.message) for failure in result.failures] == [
        (
            path.name,
            f"Cannot read {path.name}: {path.name} changed while it was being sent. It stays in the spool.",
        )
    ]
    assert (result.uploaded, result.failed, result.skipped, result.exit_code) == (0, 1, 1, 1)
    assert [batch.batch_id for batch in snapshot(spool)] == ["0a", "0b"]
    assert server.delivered == {}


async def test_a_streamed_batch_that_changes_in_mid_stream_is_kept(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cirron_spool.pipeline.batch_reader.HELD_BYTES", 1)
    monkeypatch.setattr("cirron_spool.pipeline.batch_reader.STREAM_AHEAD_BYTES", 65536)
    path = write_batch(spool, 1, "0a", incompressible(20_000_000))
    gate = Gate()
    results: list[FlushResult] = []
    with ScriptedServer(ok(read_only=100_000, stall_before=gate), receive_buffer=4096) as server:
        async with anyio.create_task_group() as group:

            async def run() -> None:
                results.append(await flush(server, spool, retries=1))

            group.start_soon(run)
            await server.arrived(lambda s: bool(s.uploads) and s.uploads[0].received == 100_000)
            os.truncate(path, 10_000_000)
            gate.open()
    [failure] = results[0].failures
    assert failure.message.endswith("changed while it was being sent. It stays in the spool.")
    assert (results[0].exit_code, server.delivered) == (1, {})
    assert len(snapshot(spool)[0].data) == 10_000_000


async def test_a_streamed_batch_that_vanished_is_no_failure(
    spool: Path, monkeypatch: pytest.MonkeyPatch, deletes: DeleteWatch
) -> None:
    monkeypatch.setattr("cirron_spool.pipeline.batch_reader.HELD_BYTES", 1)
    paths = [write_batch(spool, number, f"0{number}", incompressible(300_000)) for number in range(3)]

    def hear(event: FlushEvent) -> None:
        if isinstance(event, Sending) and event.name == paths[1].name:
            with deletes.allowed():
                paths[1].unlink()

    with ScriptedServer() as server:
        result = await flush(server, spool, on_event=hear)
    assert list(server.delivered) == ["00", "02"]
    assert (result.uploaded, result.evicted, result.failed, result.exit_code) == (2, 1, 0, 0)


async def test_a_streamed_batch_replaced_by_a_link_is_kept(
    spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deletes: DeleteWatch
) -> None:
    monkeypatch.setattr("cirron_spool.pipeline.batch_reader.HELD_BYTES", 1)
    path = write_batch(spool, 1, "0a", incompressible(300_000))
    secret = tmp_path / "secret"
    secret.write_bytes(incompressible(300_000))

    def hear(event: FlushEvent) -> None:
        if isinstance(event, Sending):
            with deletes.allowed():
                path.unlink()
            path.symlink_to(secret)

    with ScriptedServer() as server:
        result = await flush(server, spool, on_event=hear)
    assert [failure.message for failure in result.failures] == [
        f"Cannot read {path.name}: {path.name} is a symbolic link now. It stays in the spool."
    ]
    assert (result.exit_code, server.delivered) == (1, {})


async def test_a_large_batch_of_the_sdks_goes_out_with_a_length(spool: Path) -> None:
    [batch] = sdk_batches(spool, 1, spans=BIG)
    with ScriptedServer() as server:
        result = await flush(server, spool)
    [request] = server.uploads
    assert not request.chunked
    assert server.deliveries == [(batch.batch_id, batch.data)]
    assert result.bytes_sent == len(request.body) < result.bytes_read / 3


@pytest.mark.thorough
async def test_sixty_megabytes_that_do_not_fit_in_memory_are_streamed(spool: Path) -> None:
    body = incompressible(48_000_000)  # 60 MB of text that gzip makes 48 MB of
    write_batch(spool, 1, "0a", body)
    write_batch(spool, 2, "0b", b"{}")
    with ScriptedServer() as server:
        result = await flush(server, spool)
    assert [request.chunked for request in server.uploads] == [True, False]
    assert server.deliveries == [("0a", body), ("0b", b"{}")]
    assert (result.uploaded, result.bytes_read, result.exit_code) == (2, len(body) + 2, 0)
    assert result.bytes_sent == len(server.uploads[0].body) + 2
