"""``watch_spool``: a spool is followed while a run writes to it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import (
    AuthError,
    Client,
    ConfigError,
    Ended,
    FlushEvent,
    Found,
    Resumed,
    Selection,
    SpoolBusyError,
    Started,
    Tuning,
    Uploaded,
    Waiting,
    flush_spool,
    watch_spool,
)
from cirron_spool.pipeline.awaited_process import AwaitedProcess
from cirron_spool.pipeline.notifications import Notifications
from cirron_spool.pipeline.patience import LOGIN_POLL_S
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.lock import LOCK_NAME
from support.answers import Answer, Gate, ok
from support.cli import SAFETY_NET, clean_environment, write_config
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot, write_batch

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-watch-secret"
INGEST = ("POST", "/api/traces")


class Events:
    """A listener whose events can be awaited."""

    def __init__(self) -> None:
        self.seen: list[FlushEvent] = []
        self._changed = asyncio.Event()

    def __call__(self, event: FlushEvent) -> None:
        self.seen.append(event)
        self._changed.set()

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.seen if isinstance(event, kind)]

    async def until(self, condition: Callable[[Events], bool]) -> None:
        while not condition(self):
            self._changed.clear()
            await self._changed.wait()

    async def uploaded(self, count: int) -> None:
        await self.until(lambda events: len(events.of(Uploaded)) >= count)


def ids(server: ScriptedServer) -> list[str]:
    return [batch_id for batch_id, _ in server.deliveries]


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    """Writes the configuration of a login, and returns its path."""

    def write(server: ScriptedServer, token: str = TOKEN) -> Path:
        return write_config(tmp_path, apiUrl=server.url, token=token)

    return write


async def test_a_watch_begins_before_the_spool_and_sends_each_batch_in_order(spool: Path) -> None:
    events = Events()
    with ScriptedServer() as server:
        async with watch_spool(spool, api_url=server.url, token=TOKEN, on_event=events) as watch:
            await events.until(lambda seen: bool(seen.of(Started)))
            assert (events.of(Started), watch.result) == ([Started(spool, 0, 0)], None)
            for number in range(1, 4):
                write_batch(spool, number, f"a{number}")
                await events.uploaded(number)
        assert ids(server) == ["a1", "a2", "a3"]
        assert server.connections == 1  # kept for all of them
        assert len(server.seen("/api/cli/status")) == 1
    assert watch.result is not None
    assert (watch.result.uploaded, watch.result.skipped, watch.result.exit_code) == (3, 0, 0)
    assert [found.batches for found in events.of(Found)] == [1, 1, 1]
    assert isinstance(events.seen[-1], Ended)
    assert snapshot(spool) == []


async def test_a_notice_of_the_file_system_wakes_the_watch(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("watchfiles")
    monkeypatch.setattr("cirron_spool.pipeline.source.POLL_S", 10 * SAFETY_NET)
    events, number = Events(), 0
    await asyncio.to_thread(spool.mkdir)
    with ScriptedServer() as server:
        async with watch_spool(spool, api_url=server.url, token=TOKEN, on_event=events):
            await events.until(lambda seen: bool(seen.of(Started)))
            while not events.of(Uploaded):  # the notifications begin some time after the watch
                number += 1
                write_batch(spool, number, f"{number:x}")
                await asyncio.sleep(0.05)
        assert len(set(ids(server))) == len(ids(server)) == number


async def test_notifications_follow_the_directory_that_has_the_path(spool: Path) -> None:
    pytest.importorskip("watchfiles")
    noticed = asyncio.Event()
    notifications = Notifications(spool, noticed.set)
    running = asyncio.create_task(notifications.run())
    for _ in range(3):
        noticed.clear()
        number = 0
        while not noticed.is_set():
            number += 1
            write_batch(spool, number, f"{number:x}")
            await asyncio.sleep(0.05)
        shutil.rmtree(spool)
        notifications.restart()
    notifications.stop()
    await running


async def test_without_the_extra_there_are_no_notifications(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    await Notifications(spool, lambda: None).run()  # returns


async def test_leaving_the_block_delivers_what_is_sealed_by_then(spool: Path) -> None:
    with ScriptedServer() as server:
        async with watch_spool(spool, api_url=server.url, token=TOKEN) as watch:
            sealed = sdk_batches(spool, 20, spans=TINY)
        assert ids(server) == [batch.batch_id for batch in sealed]
    assert watch.result is not None and watch.result.uploaded == 20


@pytest.mark.thorough
@pytest.mark.parametrize("in_flight", [1, 4])
@pytest.mark.parametrize("disk_work", ["thread", "inline"])
async def test_the_real_sdk_at_full_speed_with_eviction(spool: Path, in_flight: int, disk_work: Any) -> None:
    """Each batch is delivered once or evicted by the SDK; those of a drained watch are all gone."""
    events = Events()
    options: dict[str, Any] = {"in_flight": in_flight, "tuning": Tuning(disk_work=disk_work)}
    with ScriptedServer() as server:
        async with watch_spool(spool, api_url=server.url, token=TOKEN, on_event=events, **options) as watch:
            await asyncio.to_thread(sdk_batches, spool, 300, spans=TINY, max_bytes=20_000)
        sent = ids(server)
    assert len(sent) == len(set(sent))  # none twice
    assert watch.result is not None
    result = watch.result
    assert result.uploaded == len(sent) >= 1 and result.failed == result.skipped == 0
    assert result.exit_code == 0
    assert snapshot(spool) == []


async def test_a_real_run_is_delivered_while_it_goes_on(tmp_path: Path) -> None:
    events = Events()
    with ScriptedServer() as server:
        async with watch_spool(tmp_path / "spool", api_url=server.url, token=TOKEN, on_event=events):
            run = await asyncio.to_thread(_start_run, tmp_path)
            try:
                for number in range(1, 4):
                    assert run.stdin is not None
                    run.stdin.write(b"\n")
                    run.stdin.flush()
                    await events.uploaded(number)
                assert run.poll() is None
            finally:
                await asyncio.to_thread(run.communicate)
        assert len(set(ids(server))) == len(ids(server)) >= 3
    assert snapshot(tmp_path / "spool") == []


def _start(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)


def _start_run(directory: Path) -> subprocess.Popen[bytes]:
    """A run under the real SDK, which seals a batch for each line that it is sent."""
    env = clean_environment(directory, {"CIRRON_OUTPUT_DIR": str(directory), "CIRRON_ENABLED": "1"})
    code = (
        "import sys\nimport cirron as ci\nci.profile(frameworks=[], output='spool', flush_interval=3600)\n"
        "for line in sys.stdin:\n    with ci.scope('step'):\n        ci.mark('loss', 0.5)\n    ci.flush()\n"
        "ci.shutdown()\n"
    )
    return subprocess.Popen([sys.executable, "-c", code], env=env, cwd=directory, stdin=subprocess.PIPE)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "down", [Answer(503, body=b"down"), Answer(read_only=0, reset=True)], ids=["503", "reset"]
)
async def test_an_outage_is_waited_out_and_said_twice(spool: Path, down: Answer) -> None:
    events = Events()
    sealed = sdk_batches(spool, 3, spans=TINY)
    with ScriptedServer(*[down] * 12) as server:
        options: dict[str, Any] = {"api_url": server.url, "token": TOKEN, "retries": 2}
        async with watch_spool(spool, on_event=events, **options) as watch:
            await events.uploaded(3)
            write_batch(spool, 2**62, "e1")
            server.script(*[down] * 5)
            await events.until(lambda seen: len(seen.of(Uploaded)) == 4)
        assert ids(server) == [*(batch.batch_id for batch in sealed), "e1"]
    assert watch.result is not None and watch.result.exit_code == 0
    assert watch.result.failures == () and watch.result.warnings == ()
    assert [event.cause for event in events.of(Waiting)] == [event.cause for event in events.of(Resumed)]
    assert 1 <= len(events.of(Waiting)) <= 2  # the second outage may have come behind the batch
    assert "Waiting for the platform" in events.of(Waiting)[0].message


@pytest.mark.thorough
@pytest.mark.parametrize("in_flight", [1, 3])
async def test_a_refused_token_is_replaced_by_a_new_login(
    spool: Path, tmp_path: Path, config: Callable[..., Path], in_flight: int
) -> None:
    events = Events()
    with ScriptedServer(check_auth=True, access_token=TOKEN) as server:
        path = config(server)
        options: dict[str, Any] = {"config_path": path, "in_flight": in_flight, "on_event": events}
        async with watch_spool(spool, **options) as watch:
            write_batch(spool, 1, "a1")
            await events.uploaded(1)
            server.platform.access_token = "sk-second"
            for number in range(2, 6):
                write_batch(spool, number, f"a{number}")
            await events.until(lambda seen: bool(seen.of(Waiting)))
            (waiting,) = events.of(Waiting)
            assert waiting.cause == "token" and TOKEN not in waiting.message
            config(server, "sk-second")
            await events.uploaded(5)
        assert sorted(ids(server)) == ["a1", "a2", "a3", "a4", "a5"]
    assert [event.name[-7:-5] for event in events.of(Uploaded)] == ["a1", "a2", "a3", "a4", "a5"]
    assert len(events.of(Waiting)) == len(events.of(Resumed)) == 1
    assert watch.result is not None and (watch.result.exit_code, watch.result.uploaded) == (0, 5)


async def test_a_token_that_is_refused_at_the_start_is_waited_for(
    spool: Path, config: Callable[..., Path]
) -> None:
    events = Events()
    write_batch(spool, 1, "a1")
    with ScriptedServer(check_auth=True, access_token="sk-right") as server:
        async with watch_spool(config_path=config(server), directory=spool, on_event=events):
            await events.until(lambda seen: bool(seen.of(Waiting)))
            config(server, "sk-right")
            await events.uploaded(1)
        assert server.uploads[0].headers["authorization"] == "Bearer sk-right"


@pytest.mark.thorough
async def test_a_login_to_another_platform_is_not_used(spool: Path, config: Callable[..., Path]) -> None:
    events = Events()
    write_batch(spool, 1, "a1")
    with ScriptedServer(check_auth=True, access_token="sk-right") as server, ScriptedServer() as other:
        async with watch_spool(spool, config_path=config(server), on_event=events):
            await events.until(lambda seen: bool(seen.of(Waiting)))
            config(other, "sk-of-the-other")
            await asyncio.sleep(2 * LOGIN_POLL_S)
            config(server, "sk-right")
            await events.uploaded(1)
        tokens = {request.headers["authorization"] for request in server.requests}
    assert tokens == {f"Bearer {TOKEN}", "Bearer sk-right"}
    assert other.requests == []


async def test_a_refused_token_that_a_login_does_not_replace_ends_the_watch(spool: Path) -> None:
    with ScriptedServer(check_auth=True, access_token="sk-right") as server:
        with pytest.raises(AuthError):
            async with watch_spool(spool, api_url=server.url, token=TOKEN) as watch:
                with pytest.raises(AuthError):
                    await watch.wait()


async def test_poison_ends_the_watch_or_is_set_aside(tmp_path: Path) -> None:
    rejected = Answer(422, body=b"no")
    for quarantine in (False, True):
        spool, events = tmp_path / str(quarantine) / "spool", Events()
        for number in range(3):
            write_batch(spool, number + 1, f"a{number}")
        with ScriptedServer(ok(), rejected) as server:
            options: dict[str, Any] = {"api_url": server.url, "token": TOKEN, "on_event": events}
            async with watch_spool(spool, quarantine=quarantine, **options) as watch:
                if quarantine:
                    await events.uploaded(2)
                else:
                    await watch.wait()
        assert watch.result is not None and watch.result.exit_code == 1
        counts = watch.result.uploaded, watch.result.failed, watch.result.untried, watch.result.quarantined
        assert counts == ((2, 0, 0, 1) if quarantine else (1, 1, 1, 0))


async def test_a_spool_that_is_removed_and_made_again_is_followed(spool: Path) -> None:
    events = Events()
    with ScriptedServer() as server:
        async with watch_spool(spool, api_url=server.url, token=TOKEN, on_event=events):
            for number in range(1, 4):
                write_batch(spool, number, f"a{number}")
                await events.uploaded(number)
                assert (spool / LOCK_NAME).exists()
                shutil.rmtree(spool)
        assert ids(server) == ["a1", "a2", "a3"]


async def test_the_lock_is_held_for_the_life_of_the_watch(spool: Path) -> None:
    events, gate = Events(), Gate()
    with ScriptedServer(ok(), ok(stall_before=gate)) as server:
        options: dict[str, Any] = {"api_url": server.url, "token": TOKEN}
        async with watch_spool(spool, on_event=events, **options):
            write_batch(spool, 1, "a1")
            await events.uploaded(1)
            assert (spool / LOCK_NAME).exists()
            write_batch(spool, 2, "a2")
            with pytest.raises(SpoolBusyError):
                await flush_spool(spool, **options)
            gate.open()
            await events.uploaded(2)
        assert not (spool / LOCK_NAME).exists()
        assert (await flush_spool(spool, **options)).exit_code == 0


def test_the_lock_of_a_renamed_spool_leaves_that_of_its_successor(tmp_path: Path, spool: Path) -> None:
    spool.mkdir()
    with SpoolDirectory(spool) as old:
        old.open()
        old.lock()
        spool.rename(tmp_path / "away")
        spool.mkdir()
        with SpoolDirectory(spool) as new:
            new.open()
            new.lock()
            old.unlock()
            assert (spool / LOCK_NAME).exists()


async def test_idle_exit_ends_after_the_last_batch(spool: Path) -> None:
    sdk_batches(spool, 3, spans=TINY)
    with ScriptedServer() as server:
        async with watch_spool(spool, api_url=server.url, token=TOKEN, idle_exit_s=0.01) as watch:
            result = await watch.wait()
    assert (result.uploaded, result.exit_code) == (3, 0)


async def test_until_pid_delivers_what_is_sealed_when_the_process_ends(spool: Path) -> None:
    events = Events()
    run = await asyncio.to_thread(_start, "input()")
    with ScriptedServer() as server:
        options: dict[str, Any] = {"api_url": server.url, "token": TOKEN, "on_event": events}
        async with watch_spool(spool, until_pid=run.pid, **options) as watch:
            write_batch(spool, 1, "a1")
            await events.uploaded(1)
            write_batch(spool, 2, "a2")
            assert watch.result is None
            assert run.stdin is not None
            run.stdin.close()  # it stays a zombie until it is waited for
            result = await watch.wait()
        assert ids(server) == ["a1", "a2"]
    await asyncio.to_thread(run.wait)
    assert (result.uploaded, result.exit_code) == (2, 0)


async def test_after_the_process_an_outage_is_not_waited_out(spool: Path) -> None:
    write_batch(spool, 1, "a1")
    run = await asyncio.to_thread(_start, "")
    await asyncio.to_thread(run.communicate)
    with ScriptedServer() as server:
        server.on(*INGEST, default=Answer(503))
        options: dict[str, Any] = {"api_url": server.url, "token": TOKEN, "retries": 1}
        async with watch_spool(spool, until_pid=run.pid, **options) as watch:
            result = await watch.wait()
    assert (result.failed, result.exit_code) == (1, 4)
    assert len(snapshot(spool)) == 1


async def test_the_grace_bounds_the_drain(spool: Path) -> None:
    sdk_batches(spool, 3, spans=TINY)
    gate = Gate()
    with ScriptedServer(ok(), ok(stall_before=gate)) as server:
        async with watch_spool(spool, api_url=server.url, token=TOKEN, grace_s=0.05) as watch:
            await server.arrived(2)
        gate.open()
    assert watch.result is not None
    assert (watch.result.uploaded, watch.result.untried, watch.result.exit_code) == (1, 2, 4)
    assert len(snapshot(spool)) == 2


@pytest.mark.parametrize("answer", [Answer(503), Answer(429, headers=[("Retry-After", "7200")])])
async def test_a_watch_that_waits_ends_at_once_and_counts_what_came_meanwhile(
    spool: Path, answer: Answer
) -> None:
    events = Events()
    write_batch(spool, 1, "a1")
    with ScriptedServer() as server:
        server.on(*INGEST, default=answer)
        options: dict[str, Any] = {"api_url": server.url, "token": TOKEN, "retries": 0, "on_event": events}
        async with watch_spool(spool, grace_s=SAFETY_NET * 10, **options) as watch:
            await events.until(lambda seen: bool(seen.of(Waiting)))
            write_batch(spool, 2, "a2")
    assert watch.result is not None and watch.result.uploaded == 0
    assert watch.result.failed + watch.result.skipped == 2 and watch.result.exit_code == 4


async def test_a_cancelled_block_cancels_the_watch(spool: Path) -> None:
    gate = Gate()
    write_batch(spool, 1, "a1")

    async def follow(url: str) -> None:
        async with watch_spool(spool, api_url=url, token=TOKEN):
            await asyncio.Event().wait()

    with ScriptedServer(ok(stall_before=gate)) as server:
        task = asyncio.create_task(follow(server.url))
        await server.arrived(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()
    assert len(snapshot(spool)) == 1


async def test_an_error_of_the_block_is_raised_after_the_drain(spool: Path) -> None:
    with ScriptedServer() as server:
        with pytest.raises(ZeroDivisionError):
            async with watch_spool(spool, api_url=server.url, token=TOKEN):
                write_batch(spool, 1, "a1")
                raise ZeroDivisionError
        assert ids(server) == ["a1"]


async def test_a_watch_shares_a_client(spool: Path) -> None:
    events = Events()
    with ScriptedServer() as server:
        async with Client(api_url=server.url, token=TOKEN) as client:
            async with watch_spool(spool, client=client, on_event=events):
                write_batch(spool, 1, "a1")
                await events.uploaded(1)
        assert server.connections == 1


@pytest.mark.parametrize(
    "options",
    [
        {"dry_run": True},
        {"keep_going": True},
        {"watch": None},
        {"selection": Selection(limit=1)},
        {"until_pid": 0},
        {"until_pid": "1"},
        {"idle_exit_s": -1},
        {"grace_s": None},
        {"grace_s": float("nan")},
    ],
)
async def test_options_that_a_watch_cannot_have(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        watch_spool(**options)


def test_the_process_of_another_user_runs() -> None:
    assert AwaitedProcess(1).is_running()
