"""``flush_spools``: many spools through one client, each in its own order, one's trouble not the others'."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import (
    AuthError,
    Client,
    ConfigError,
    FlushSpoolsResult,
    SpoolError,
    SpoolEvent,
    SpoolsFound,
    Started,
    Uploaded,
    Warned,
    flush_spools,
    flush_spools_sync,
)
from cirron_spool.fleet import coordinator
from cirron_spool.pipeline.options import WatchOptions
from cirron_spool.spool.directory import SpoolDirectory
from support.answers import Answer, Gate, ok
from support.scripted import Request, ScriptedServer
from support.spools import snapshot, write_batch

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-fleet-secret"


class Events:
    """A listener whose events can be awaited."""

    def __init__(self) -> None:
        self.seen: list[SpoolEvent] = []
        self._changed = asyncio.Event()

    def __call__(self, event: SpoolEvent) -> None:
        self.seen.append(event)
        self._changed.set()

    def warnings(self) -> list[str]:
        return [each.event.message for each in self.seen if isinstance(each.event, Warned)]

    def started(self) -> list[Path | None]:
        return [each.directory for each in self.seen if isinstance(each.event, Started)]

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def uploaded(self, count: int) -> None:
        await self.until(lambda: sum(isinstance(each.event, Uploaded) for each in self.seen) >= count)


def fill(root: Path, name: str, count: int = 3, first_ns: int = 1) -> Path:
    """A run's spool below ``root``; the ids begin with ``name``, hexadecimal letters."""
    spool = root / name / ".cirron" / "spool"
    spool.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        write_batch(spool, first_ns + index, f"{name}{index:02x}")
    return spool


def by_spool(server: ScriptedServer, letters: int = 1) -> dict[str, list[str]]:
    order = defaultdict(list)
    for batch_id, _ in server.deliveries:
        order[batch_id[:letters]].append(batch_id)
    return order


def poison(*ids: str, status: int = 422) -> Callable[[Request], Answer]:
    return lambda request: Answer(status) if request.batch_id in ids else ok()


def of(result: FlushSpoolsResult, spool: Path) -> tuple[int, int, int]:
    found = next(each for each in result.spools if each.directory == spool)
    return found.uploaded, found.failed, found.exit_code


async def test_each_spool_goes_in_its_own_order_through_one_client(tmp_path: Path) -> None:
    spools = [fill(tmp_path, name, 5) for name in "abcdef"]
    empty = fill(tmp_path, "9", 0)
    events, gate = Events(), Gate()
    with ScriptedServer(*[replace(ok(), stall_before=gate)] * 3) as server:
        flush = asyncio.ensure_future(
            flush_spools(tmp_path, spools=3, api_url=server.url, token=TOKEN, on_event=events)
        )
        await server.arrived(lambda server: server.peak_in_flight == 3)
        gate.open()
        result = await flush
        assert len(server.seen("/api/cli/status")) == 1
        assert server.connections <= 3
        assert server.peak_in_flight == 3
    assert by_spool(server) == {name: [f"{name}{n:02x}" for n in range(5)] for name in "abcdef"}
    assert [each.directory for each in result.spools] == sorted([*spools, empty])
    assert (result.uploaded, result.exit_code, result.verified, result.warnings) == (30, 0, True, ())
    assert all(each.verified for each in result.spools if each.uploaded)
    assert SpoolEvent(None, SpoolsFound(7, 30, 6)) in events.seen
    assert pickle.loads(pickle.dumps((events.seen, result))) == (events.seen, result)
    assert not any(snapshot(spool) for spool in spools)


async def test_the_oldest_batch_decides_which_spool_begins(tmp_path: Path) -> None:
    ages = {"a": 30, "b": 10, "c": 20}
    spools = {name: fill(tmp_path, name, 2, age) for name, age in ages.items()}
    events = Events()
    with ScriptedServer() as server:
        await flush_spools(tmp_path, spools=1, api_url=server.url, token=TOKEN, on_event=events)
    assert events.started() == [spools[name] for name in "bca"]


async def test_a_long_spool_gives_its_place_to_a_waiting_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "TURN_S", 0.0)
    monkeypatch.setattr("cirron_spool.pipeline.source._GROUP_BATCHES", 2)
    fill(tmp_path, "a", 5)
    fill(tmp_path, "b", 3, 100)
    with ScriptedServer() as server:
        result = await flush_spools(tmp_path, spools=1, api_url=server.url, token=TOKEN)
    assert [batch_id for batch_id, _ in server.deliveries] == [
        "a00", "a01", "b00", "b01", "a02", "a03", "b02", "a04",
    ]  # fmt: skip
    assert (result.uploaded, result.untried, result.exit_code) == (8, 0, 0)


async def test_a_pause_that_the_server_asks_for_holds_back_all(tmp_path: Path) -> None:
    for name in "abcd":
        fill(tmp_path, name)
    events = Events()
    stop = asyncio.Event()
    with ScriptedServer() as server:
        server.on("POST", "/api/traces", default=Answer(429, headers=[("Retry-After", "110")]))
        flush = asyncio.ensure_future(
            flush_spools(
                tmp_path, spools=2, api_url=server.url, token=TOKEN, on_event=events, stop=stop, retries=0
            )
        )
        await events.until(lambda: any("as the server asks" in line for line in events.warnings()))
        stop.set()
        result = await flush
        assert len(server.uploads) <= 2  # those that were under way
    assert result.exit_code == 4
    assert result.uploaded == 0
    assert result.failed + result.skipped == 12


@pytest.mark.parametrize(("status", "code"), [(401, 3), (403, 3), (404, 1)])
async def test_a_refused_token_or_a_missing_route_ends_all(tmp_path: Path, status: int, code: int) -> None:
    for name in "abcdef":
        fill(tmp_path, name)
    with ScriptedServer() as server:
        server.on("POST", "/api/traces", default=Answer(status))
        flush = flush_spools(tmp_path, spools=2, api_url=server.url, token=TOKEN)
        if code == 3:
            with pytest.raises(AuthError) as caught:
                await flush
            result = caught.value.spools
        else:
            result = await flush
        assert len(server.uploads) <= 2
    assert result is not None
    assert result.exit_code == code
    assert (result.uploaded, result.failed + result.skipped) == (0, 18)
    assert [each.exit_code for each in result.spools].count(4) >= 4


async def test_a_refused_verification_ends_all_before_the_first_upload(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    with ScriptedServer(check_auth=True) as server:
        with pytest.raises(AuthError) as caught:
            await flush_spools(tmp_path, api_url=server.url, token=TOKEN)
        assert server.uploads == []
    assert caught.value.spools is not None
    assert (caught.value.spools.untried, caught.value.spools.exit_code) == (3, 3)


async def test_the_trouble_of_one_spool_is_not_that_of_the_others(tmp_path: Path) -> None:
    poisoned, busy = fill(tmp_path, "a"), fill(tmp_path, "b")
    fine = [fill(tmp_path, name) for name in "cdef"]
    file = tmp_path / "file"
    file.touch()
    with ScriptedServer() as server, SpoolDirectory(busy) as held:
        held.open()
        held.lock()
        server.on("POST", "/api/traces", default=poison("a01"))
        result = await flush_spools(tmp_path, directories=[file], api_url=server.url, token=TOKEN)
    assert of(result, poisoned) == (1, 1, 1)
    assert of(result, busy) == (0, 0, 4)
    assert [of(result, spool) for spool in fine] == [(3, 0, 0)] * 4
    assert of(result, file) == (0, 0, 2)
    assert result.exit_code == 2
    reasons = {each.directory: each.warnings for each in result.spools}
    assert "is not a directory" in reasons[file][0]
    assert len(reasons[busy]) == 1


async def test_an_outage_ends_all_after_some_spools(tmp_path: Path) -> None:
    for name in "abcdef0123":
        fill(tmp_path, name)
    with ScriptedServer() as server:
        server.on("POST", "/api/traces", default=Answer(503))
        result = await flush_spools(tmp_path, spools=1, retries=1, api_url=server.url, token=TOKEN)
        assert len(server.uploads) == 6
    assert result.exit_code == 4
    assert result.warnings == ("3 spools in a row are out of retries, so no further spool is started.",)


async def test_a_root_that_is_not_there_and_options_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="does not exist"):
        await flush_spools(tmp_path / "none")
    wrong: list[dict[str, Any]] = [
        {"spools": 0},
        {"spools": 65},
        {"spools": True},
        {"roots": 7},
        {"roots": ()},
        {"watch": True},
    ]
    for options in wrong:
        given: dict[str, Any] = {"roots": tmp_path, **options}
        with pytest.raises(ConfigError):
            await flush_spools(**given)
    # Nothing but empty spools: no settings are needed, and nothing is asked.
    fill(tmp_path, "a", 0)
    assert (await flush_spools(tmp_path)).exit_code == 0


async def test_a_given_client_stays_open(tmp_path: Path) -> None:
    fill(tmp_path / "one", "a")
    fill(tmp_path / "two", "b")
    with ScriptedServer() as server:
        async with Client(api_url=server.url, token=TOKEN) as client:
            for root in ("one", "two"):
                assert (await flush_spools(tmp_path / root, client=client)).uploaded == 3
        assert server.connections == 1


def test_without_an_event_loop(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    with ScriptedServer() as server:
        assert flush_spools_sync([tmp_path], api_url=server.url, token=TOKEN).uploaded == 3


async def test_a_watch_finds_new_spools_and_new_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cirron_spool.fleet.poller.POLL_S", 0.01)
    monkeypatch.setattr("cirron_spool.fleet.poller._REST", 0)
    root = tmp_path / "later"
    events, stop = Events(), asyncio.Event()
    with ScriptedServer() as server:
        server.on("POST", "/api/traces", default=poison("bad0"))
        watch = asyncio.ensure_future(
            flush_spools(
                root,
                api_url=server.url,
                token=TOKEN,
                on_event=events,
                stop=stop,
                watch=WatchOptions(None, None, 5.0),
            )
        )
        first = fill(root, "a", 1)
        await events.uploaded(1)
        write_batch(first, 50, "a50")
        fill(root, "b", 2)
        await events.uploaded(4)
        poisoned = root / "bad" / ".cirron" / "spool"
        write_batch(poisoned, 1, "bad0")
        write_batch(poisoned, 2, "bad1")
        await events.until(lambda: poisoned in events.started())
        write_batch(first, 60, "a60")
        await events.uploaded(5)
        write_batch(first, 70, "a70")  # sealed by the time of the stop
        stop.set()
        result = await watch
        assert len(server.attempts("bad0")) == 1
        assert len(server.seen("/api/cli/status")) == 1
    assert by_spool(server)["a"] == ["a00", "a50", "a60", "a70"]
    assert of(result, first) == (4, 0, 0)
    assert of(result, poisoned) == (0, 1, 1)
    assert os.listdir(first) == []


async def test_a_watch_waits_out_an_outage_once_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cirron_spool.protocol.retry.outage_delay_s", lambda waits, random: 0.001)
    for name in "abc":
        fill(tmp_path, name)
    events = Events()
    with ScriptedServer(*[Answer(503)] * 12) as server:
        result = await flush_spools(
            tmp_path,
            api_url=server.url,
            token=TOKEN,
            on_event=events,
            retries=1,
            watch=WatchOptions(None, 0.2, 5.0),
        )
    kinds = [type(each.event).__name__ for each in events.seen]
    assert (result.uploaded, result.exit_code) == (9, 0)
    assert kinds.count("Waiting") == kinds.count("Resumed") == 1


async def test_a_deadline_is_said_once_and_ends_all_in_time(tmp_path: Path) -> None:
    for name in "abcd":
        fill(tmp_path, name)
    with ScriptedServer() as server:
        server.on("POST", "/api/traces", default=Answer(200, hang=True))
        result = await flush_spools(
            tmp_path, spools=2, api_url=server.url, token=TOKEN, deadline=timedelta(seconds=0.4)
        )
        assert len(server.uploads) == 2
    assert result.warnings == ("The deadline is near: no further batch is started.",)
    assert {(each.exit_code, each.untried, each.warnings) for each in result.spools} == {(4, 3, ())}


async def test_a_watch_says_once_what_cannot_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cirron_spool.fleet.poller.POLL_S", 0.01)
    monkeypatch.setattr("cirron_spool.fleet.poller._REST", 0)
    odd = fill(tmp_path, "a", 0)
    write_batch(odd, 1, "a0", b"")
    events = Events()
    with ScriptedServer() as server:
        result = await flush_spools(
            tmp_path,
            api_url=server.url,
            token=TOKEN,
            on_event=events,
            watch=WatchOptions(None, 0.3, 5.0),
        )
    assert events.started() == [odd]
    assert (result.skipped, result.exit_code) == (1, 1)
