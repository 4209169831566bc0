"""Several batches in flight are sent and deleted oldest first. The spool always is a suffix of its listing."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from cirron_spool import (
    AuthRejectedError,
    Failed,
    FlushEvent,
    FlushResult,
    Retrying,
    Sending,
    Uploaded,
    flush_spool,
)
from cirron_spool.spool.directory import SpoolDirectory
from support.answers import Answer, Gate, ok
from support.background import SAFETY_NET
from support.monitor import DeleteWatch
from support.scripted import Request, ScriptedServer
from support.spools import TINY, Sealed, sdk_batches, snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-window-secret"


async def flush(server: ScriptedServer, spool: Path, **options: Any) -> FlushResult:
    return await flush_spool(spool, **{"api_url": server.url, "token": TOKEN, **options})


class Answers:
    """An answer for each batch by its id, and a gate for each that is withheld."""

    def __init__(self, **answers: Answer) -> None:
        self._answers = answers
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Answer:
        with self._lock:
            return self._answers.get(str(request.batch_id), ok())


def by_batch(server: ScriptedServer, answers: dict[str, Answer]) -> None:
    server.on("POST", "/api/traces", default=Answers(**answers))


def has_delivered(batch: Sealed, server: ScriptedServer) -> bool:
    return batch.batch_id in server.delivered


def ids(batches: list[Sealed]) -> list[str]:
    return [batch.batch_id for batch in batches]


@pytest.mark.parametrize("in_flight", [2, 3, 8, 64])
async def test_up_to_n_are_in_flight(spool: Path, in_flight: int, deletes: DeleteWatch) -> None:
    batches = sdk_batches(spool, 12, spans=TINY)
    gate = Gate()
    most = min(in_flight, 12)
    events: list[FlushEvent] = []
    with ScriptedServer() as server:
        by_batch(server, {batch.batch_id: ok(stall_before=gate) for batch in batches})
        async with anyio.create_task_group() as group:
            results: list[FlushResult] = []

            async def run() -> None:
                results.append(await flush(server, spool, in_flight=in_flight, on_event=events.append))

            group.start_soon(run)
            await server.arrived(most)
            assert deletes.names == []
            gate.open()
    assert server.peak_in_flight == most
    assert server.connections == most
    assert len(server.uploads) == 12  # each once: a second attempt would count as one in flight, too
    assert results[0].uploaded == 12
    assert server.delivered == {batch.batch_id: batch.data for batch in batches}
    assert deletes.names == [batch.name for batch in batches]
    started = [event.name for event in events if isinstance(event, Sending)]
    assert started == [batch.name for batch in batches]
    assert [event.name for event in events if isinstance(event, Uploaded)] == started


async def test_they_are_deleted_oldest_first_however_they_are_answered(
    spool: Path, deletes: DeleteWatch
) -> None:
    batches = sdk_batches(spool, 4, spans=TINY)
    gates = [Gate() for _ in batches]
    left: list[list[str]] = []
    with ScriptedServer() as server:
        by_batch(
            server,
            {batch.batch_id: ok(stall_before=gate) for batch, gate in zip(batches, gates, strict=True)},
        )
        async with anyio.create_task_group() as group:
            group.start_soon(partial(flush, server, spool, in_flight=4))
            await server.arrived(4)
            for number in (3, 1, 2, 0):  # the newest is answered first, the oldest last
                await anyio.wait_all_tasks_blocked()
                left.append(deletes.names)
                gates[number].open()
                await server.arrived(partial(has_delivered, batches[number]))
    assert left == [[], [], [], []]
    assert list(server.delivered) == ids([batches[number] for number in (3, 1, 2, 0)])
    assert deletes.names == [batch.name for batch in batches]


@pytest.mark.parametrize(
    "refusal", [Answer(404), Answer(400), Answer(403), Answer(503), Answer(302), ok(cut_after=10)]
)
@pytest.mark.parametrize("which", [0, 2, 4])
async def test_what_is_behind_the_first_that_fails_is_kept(
    spool: Path, refusal: Answer, which: int, deletes: DeleteWatch
) -> None:
    batches = sdk_batches(spool, 10, spans=TINY)
    events: list[FlushEvent] = []
    with ScriptedServer() as server:
        by_batch(server, {batches[which].batch_id: refusal})
        try:
            result = await flush(server, spool, in_flight=4, retries=1, on_event=events.append)
        except AuthRejectedError as error:
            rejected = error.result
            assert rejected is not None
            result = rejected
    assert snapshot(spool) == batches[which:]  # a suffix, whatever the server has made of those behind
    assert deletes.names == [batch.name for batch in batches[:which]]
    assert (result.uploaded, result.failed, result.skipped) == (which, 1, 10 - which - 1)
    assert [event.name for event in events if isinstance(event, Failed)] == [batches[which].name]
    assert not set(ids(batches[which + 4 :])) & {request.batch_id for request in server.uploads}


async def test_the_spool_is_a_suffix_at_every_moment(spool: Path) -> None:
    batches = sdk_batches(spool, 20, spans=TINY)
    names = [batch.name for batch in batches]
    seen: list[list[str]] = []

    def look(request: Request) -> Answer:
        seen.append(sorted(name for name in os.listdir(spool) if name in names))
        return ok(stall_before=False)

    with ScriptedServer(*[look] * 20) as server:
        await flush(server, spool, in_flight=5)
    assert len(seen) == 20
    for left in seen:
        assert left == names[len(names) - len(left) :]


async def test_a_retry_of_the_oldest_does_not_hold_up_those_in_flight(
    spool: Path, deletes: DeleteWatch
) -> None:
    batches = sdk_batches(spool, 6, spans=TINY)
    behind = Gate()  # no retry of the oldest is answered before those behind it are delivered
    tries = 0

    def flaky(request: Request) -> Answer:
        nonlocal tries
        if request.batch_id == batches[0].batch_id:
            tries += 1
            return Answer(503, stall_before=behind if tries > 1 else False) if tries < 4 else ok()
        return ok()

    def those_behind_are_delivered(server: ScriptedServer) -> bool:
        return set(server.delivered) == set(ids(batches[1:3]))

    results: list[FlushResult] = []
    with ScriptedServer() as server:
        server.on("POST", "/api/traces", default=flaky)

        async def run() -> None:
            results.append(await flush(server, spool, in_flight=3))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await server.arrived(those_behind_are_delivered)
            behind.open()
    assert (results[0].uploaded, tries) == (6, 4)
    assert deletes.names == [batch.name for batch in batches]
    assert len({request.body for request in server.attempts(batches[0].batch_id)}) == 1


async def test_keep_going_in_a_window(spool: Path, deletes: DeleteWatch) -> None:
    batches = sdk_batches(spool, 6, spans=TINY)
    with ScriptedServer() as server:
        by_batch(server, {batches[1].batch_id: Answer(503), batches[3].batch_id: Answer(500)})
        result = await flush(server, spool, in_flight=3, retries=1, keep_going=True)
    assert (result.uploaded, result.failed, result.exit_code) == (4, 2, 4)
    assert snapshot(spool) == [batches[1], batches[3]]


async def test_quarantine_in_a_window(spool: Path, deletes: DeleteWatch) -> None:
    batches = sdk_batches(spool, 6, spans=TINY)
    with ScriptedServer() as server:
        by_batch(server, {batches[2].batch_id: Answer(422)})
        result = await flush(server, spool, in_flight=3, quarantine=True)
    assert (result.uploaded, result.quarantined, result.exit_code) == (5, 1, 1)
    assert snapshot(spool.parent / "quarantine") == [batches[2]]
    assert deletes.names == [batch.name for batch in batches if batch is not batches[2]]


@pytest.mark.parametrize("saved", [True, False])
async def test_a_401_in_the_window_refreshes_once(
    spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    batches = sdk_batches(spool, 8, spans=TINY)
    config = tmp_path / "config.json"
    auth = {"accessToken": "access-0", "refreshToken": "refresh-0"}
    config.write_text(json.dumps({"auth": auth}))
    config.chmod(0o600)
    if not saved:

        def failing_fsync(fd: int) -> None:
            raise OSError(28, "No space left on device")  # a full disk: then the token lives in memory only

        monkeypatch.setattr(os, "fsync", failing_fsync)
    gate = Gate()
    with ScriptedServer(*[Answer(401, stall_before=gate)] * 4, check_auth=True) as server:
        server.platform.access_token = "access-0"
        async with anyio.create_task_group() as group:
            results: list[FlushResult] = []

            async def run() -> None:
                results.append(await flush(server, spool, in_flight=4, token=None, config_path=config))

            group.start_soon(run)
            await server.arrived(4)
            gate.open()
    assert server.platform.rotations == 1
    assert len(server.seen("/api/cli/auth/refresh")) == 1
    assert (results[0].uploaded, results[0].exit_code) == (8, 0 if saved else 1)
    assert len(server.uploads) == 12
    assert {request.token for request in server.uploads[4:]} == {"access-1"}
    assert server.delivered == {batch.batch_id: batch.data for batch in batches}


async def test_stop_with_several_in_flight(spool: Path, deletes: DeleteWatch) -> None:
    batches = sdk_batches(spool, 10, spans=TINY)
    gate, stop = Gate(), anyio.Event()
    results: list[FlushResult] = []
    with ScriptedServer() as server:
        by_batch(server, {batch.batch_id: ok(stall_before=gate) for batch in batches})
        async with anyio.create_task_group() as group:

            async def run() -> None:
                results.append(await flush(server, spool, in_flight=4, stop=stop))

            group.start_soon(run)
            await server.arrived(4)
            stop.set()
            await anyio.wait_all_tasks_blocked()
            gate.open()
    # All four were acknowledged in time, so all four are gone; nothing new was started.
    assert len(server.uploads) == 4
    assert snapshot(spool) == batches[4:]
    assert (results[0].uploaded, results[0].skipped, results[0].exit_code) == (4, 6, 4)
    assert deletes.names == [batch.name for batch in batches[:4]]


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_what_was_acknowledged_is_deleted_when_the_flush_is_ended(
    spool: Path, deletes: DeleteWatch, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The first delete is slow; the other acknowledgements come meanwhile, and then the end."""
    batches = sdk_batches(spool, 8, spans=TINY)
    first, gate, stop = Gate(), Gate(), anyio.Event()
    deleting, release = threading.Event(), threading.Event()
    real = SpoolDirectory.delete

    def slow_delete(self: SpoolDirectory, name: str, sent: Any) -> Any:
        deleting.set()
        assert release.wait(SAFETY_NET)
        return real(self, name, sent)

    monkeypatch.setattr(SpoolDirectory, "delete", slow_delete)
    with ScriptedServer() as server:
        gates = [first, *[gate] * (len(batches) - 1)]
        by_batch(
            server,
            {batch.batch_id: ok(stall_before=each) for batch, each in zip(batches, gates, strict=True)},
        )
        task = asyncio.create_task(flush(server, spool, in_flight=4, stop=stop))
        # All four before the first delete begins: the thread that deletes is the one that prefetches.
        await server.arrived(4)
        first.open()
        assert await asyncio.to_thread(deleting.wait, SAFETY_NET)
        gate.open()
        await server.arrived(lambda s: len(s.deliveries) == 4)
        for _ in range(100):  # turns of the loop in which it reads what has come
            await asyncio.sleep(0)
        if how == "stop":
            stop.set()
        else:
            task.cancel()
        for _ in range(100):
            await asyncio.sleep(0)
        release.set()
        [outcome] = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(outcome, FlushResult if how == "stop" else asyncio.CancelledError)
    assert deletes.names == [batch.name for batch in batches[:4]]
    assert snapshot(spool) == batches[4:]


async def test_stop_keeps_what_is_behind_one_that_is_not_answered(
    spool: Path, deletes: DeleteWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four seconds of grace would only be waited for.
    monkeypatch.setattr("cirron_spool.pipeline.runner.GRACE_S", 0.1)
    batches = sdk_batches(spool, 6, spans=TINY)
    stop = anyio.Event()
    results: list[FlushResult] = []
    with ScriptedServer() as server:
        by_batch(server, {batches[1].batch_id: ok(hang=True)})
        async with anyio.create_task_group() as group:

            async def run() -> None:
                results.append(await flush(server, spool, in_flight=3, stop=stop))

            group.start_soon(run)
            await server.arrived(lambda s: batches[2].batch_id in s.delivered)
            stop.set()
    assert snapshot(spool) == batches[1:]
    assert deletes.names == [batches[0].name]
    assert (results[0].uploaded, results[0].failed) == (1, 0)


async def test_a_file_that_is_no_batch_any_more_keeps_its_place(spool: Path) -> None:
    batches = sdk_batches(spool, 5, spans=TINY)
    (spool / batches[1].name).write_bytes(b"")
    with ScriptedServer() as server:
        by_batch(server, {batches[3].batch_id: Answer(404)})
        result = await flush(server, spool, in_flight=3)
    assert (result.uploaded, result.failed, result.skipped, result.exit_code) == (2, 1, 2, 1)
    assert [batch.name for batch in snapshot(spool)] == [batches[n].name for n in (1, 3, 4)]


async def test_one_at_a_time_is_the_default(spool: Path) -> None:
    sdk_batches(spool, 10, spans=TINY)
    with ScriptedServer() as server:
        await flush(server, spool)
    assert (server.peak_in_flight, server.connections) == (1, 1)


class Crowded:
    """A platform that is 10 ms away, and refuses the fifth request at a time."""

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self.seen: list[int] = []
        self.refusals = 0

    def __call__(self, request: Request) -> Answer:
        in_flight = len(self._server._in_flight)
        self.seen.append(in_flight)
        if in_flight > 4:
            self.refusals += 1
            return Answer(429)
        gate = Gate()
        threading.Timer(0.01, gate.open).start()
        return ok(stall_before=gate)


async def test_auto_fills_the_link_and_stays_below_the_number_that_was_refused(
    spool: Path, deletes: DeleteWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine the flush takes longer than the time after which the refused number is tried again.
    monkeypatch.setattr("cirron_spool.pipeline.window_size._FORGIVE_S", 600.0)
    monkeypatch.setattr("cirron_spool.pipeline.window_size._LONGEST_FORGIVE_S", 600.0)
    batches = sdk_batches(spool, 150, spans=TINY)
    with ScriptedServer() as server:
        crowded = Crowded(server)
        server.on("POST", "/api/traces", default=crowded)
        result = await flush(server, spool, in_flight="auto")
    assert result.uploaded == 150
    assert max(crowded.seen) > 4
    # Of the first burst, and of one attempt at a time beyond.
    assert crowded.refusals <= 20
    assert max(crowded.seen[-50:]) <= 4
    assert server.delivered == {batch.batch_id: batch.data for batch in batches}
    assert deletes.names == [batch.name for batch in batches]


async def test_a_stop_sends_no_batch_again_that_waits_for_its_retry(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    gate = Gate()
    stop = anyio.Event()
    results: list[FlushResult] = []

    def hear(event: FlushEvent) -> None:
        if isinstance(event, Retrying):
            stop.set()

    with ScriptedServer() as server:
        by_batch(server, {batches[0].batch_id: ok(stall_before=gate), batches[1].batch_id: Answer(503)})
        async with anyio.create_task_group() as group:

            async def run() -> None:
                results.append(await flush(server, spool, in_flight=2, stop=stop, on_event=hear))

            group.start_soon(run)
            await stop.wait()
            # Many times the delay of the retry, which is a millisecond here.
            await asyncio.sleep(0.1)
            gate.open()
    assert (results[0].uploaded, results[0].skipped) == (1, 1)
    assert len(server.uploads) == 2
    assert snapshot(spool) == batches[1:]
