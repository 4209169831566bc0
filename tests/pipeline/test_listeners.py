"""Who is told what a flush has to say: a listener, the log, the result; and what a listener may do with it."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import subprocess
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import (
    BatchFailure,
    Client,
    Ended,
    Failed,
    FlushEvent,
    FlushResult,
    Progress,
    Quarantined,
    Retrying,
    Sending,
    Started,
    Tuning,
    Uploaded,
    Warned,
    flush_spool,
)
from support.answers import Answer, Gate, html, json_answer, ok
from support.cli import SAFETY_NET, clean_environment, write_config
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot, write_batch

TOKEN = "sk-nobody-may-read-this"
NAME = "01776486598051509000-446a507b2456443f923f85774a0854e3.json"


async def flush(server: ScriptedServer, spool: Path, **options: Any) -> FlushResult:
    return await flush_spool(spool, **{"api_url": server.url, "token": TOKEN, **options})


@pytest.mark.anyio
@pytest.mark.usefixtures("short_delays")
@pytest.mark.parametrize("listening", [True, False])
async def test_every_warning_is_in_the_result_and_without_a_listener_in_the_log(
    spool: Path, caplog: pytest.LogCaptureFixture, listening: bool
) -> None:
    write_batch(spool, 1, "aa", b"")
    written = sdk_batches(spool, 3, spans=TINY)[1:]
    os.mkfifo(spool / "2-bb.json")
    rejected = json_answer({"message": f"no {TOKEN}"}, 422)
    events: list[FlushEvent] = []
    with ScriptedServer(rejected, ok(), html()) as server:
        server.on("GET", "/api/cli/status", Answer(500, f"No {TOKEN}"))
        options = {"on_event": events.append} if listening else {}
        result = await flush(server, spool, quarantine=True, **options)
    said = "\n".join(result.warnings)
    assert len(result.warnings) == 5
    for part in (
        "Could not verify auth",
        "named pipe",
        "the file is empty",
        f"Rejected {written[0].name}",
        "captive portal",
    ):
        assert part.lower() in said.lower(), part
    assert len(result.failures) == 1
    assert TOKEN not in said + caplog.text
    logged = [record.getMessage() for record in caplog.records if record.name == "cirron_spool"]
    if listening:
        assert logged == []
        assert isinstance(events[-1], Ended)
        assert events[-1].result.warnings == result.warnings
    else:
        assert {record.levelno for record in caplog.records} == {logging.WARNING}
        assert len(logged) == len(result.warnings)  # the failure and its hint are one record
        for warning in result.warnings:
            assert any(warning in line for line in logged), warning
        assert any(result.failures[0].message in line for line in logged)


@pytest.mark.anyio
@pytest.mark.usefixtures("short_delays")
async def test_at_debug_the_log_has_all_events(spool: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "cirron_spool")
    [batch] = sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer(Answer(503), ok()) as server:
        result = await flush(server, spool)
    assert result.warnings == ()
    words = [record.getMessage().split()[0] for record in caplog.records if record.name == "cirron_spool"]
    assert words == ["flushing", "sending", "retrying", "uploaded", "ended"]
    assert batch.name in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.anyio
async def test_a_renewed_token_that_cannot_be_saved_is_in_the_result(spool: Path, tmp_path: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer(check_auth=True, access_token="live", refresh_token="refresh-0") as server:
        config = write_config(
            tmp_path, apiUrl=server.url, auth={"accessToken": "stale", "refreshToken": "refresh-0"}
        )

        def spoil(event: FlushEvent) -> None:
            if isinstance(event, Started):
                config.write_text("{", encoding="utf-8")

        # Broken between the reading and the saving, so that the renewed token has nowhere to go.
        result = await flush_spool(spool, config_path=config, verify=False, on_event=spoil)
    assert (result.uploaded, result.exit_code) == (1, 1)
    [warning] = result.warnings
    assert "could not be saved" in warning


def test_a_library_prints_nothing_by_itself(spool: Path, tmp_path: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    code = (
        "import asyncio, sys, cirron_spool\n"
        "done = asyncio.run(cirron_spool.flush_spool(sys.argv[1], api_url=sys.argv[2], token='sk-1'))\n"
        "assert done.failures and done.warnings, done\n"
    )
    with ScriptedServer(json_answer({"error": "no"}, 422)) as server:
        done = subprocess.run(
            [sys.executable, "-c", code, str(spool), server.url],
            env=clean_environment(tmp_path),
            capture_output=True,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


RESULT = FlushResult(
    Path("/spool"), uploaded=1, failures=(BatchFailure(NAME, 404, "gone"),), warnings=("Look.",)
)


@pytest.mark.parametrize(
    "event",
    [
        Started(Path("/spool"), 2, 3000),
        Sending(NAME, 3000),
        Progress(NAME, 1000, 3000),
        Uploaded(NAME, 3000, 400),
        Retrying(NAME, 503, "busy", 1.5, 2),
        Failed(NAME, None, "gone", "Look."),
        Quarantined(NAME, 422, "no", Path("/quarantine")),
        Warned("Look."),
        Ended(RESULT),
    ],
    ids=lambda event: type(event).__name__,
)
def test_events_survive_the_way_to_another_process(event: FlushEvent) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(event, protocol)) == event


RUN: ContextVar[str] = ContextVar("RUN", default="")


@pytest.mark.anyio
@pytest.mark.parametrize("disk_work", ["thread", "inline"])
async def test_a_listener_has_the_context_variables_of_its_flush(tmp_path: Path, disk_work: Any) -> None:
    heard: dict[str, set[tuple[str, str]]] = {"a": set(), "b": set()}

    async def flush_as(run: str, client: Client) -> None:
        RUN.set(run)
        await flush_spool(
            tmp_path / run,
            client=client,
            tuning=Tuning(disk_work=disk_work),
            on_event=lambda event: heard[run].add((type(event).__name__, RUN.get())),
        )

    for run in heard:
        sdk_batches(tmp_path / run, 20, spans=TINY)
    with ScriptedServer() as server:
        async with Client(api_url=server.url, token=TOKEN) as client:
            await asyncio.gather(*(flush_as(run, client) for run in heard))
    for run, events in heard.items():
        # A busy machine adds Progress.
        assert events - {("Progress", run)} == {
            (name, run) for name in ("Started", "Sending", "Uploaded", "Ended")
        }


@pytest.mark.anyio
async def test_a_listener_hears_progress_with_the_context_variables_of_its_flush(tmp_path: Path) -> None:
    """The timer of a shared client was set by another flush."""
    heard: set[str] = set()
    gate = Gate()

    def listen(event: FlushEvent) -> None:
        if isinstance(event, Progress):
            heard.add(RUN.get())
            gate.open()

    sdk_batches(tmp_path / "a", 1, spans=TINY)
    write_batch(tmp_path / "b", 1, "bb", os.urandom(4 * 1024 * 1024))
    with ScriptedServer(ok(), Answer(read_only=65536, stall_before=gate)) as server:
        async with Client(api_url=server.url, token=TOKEN, retries=0) as client:
            RUN.set("first")
            await flush_spool(tmp_path / "a", client=client)
            RUN.set("second")
            await flush_spool(tmp_path / "b", client=client, on_event=listen)
    assert heard == {"second"}


@pytest.mark.anyio
@pytest.mark.parametrize("disk_work", ["thread", "inline"])
async def test_a_listener_that_raises_a_cancellation_ends_the_flush(spool: Path, disk_work: Any) -> None:
    """As ``future.result()`` of a cancelled future does. Files that were acknowledged are deleted all the same."""
    batches = sdk_batches(spool, 40, spans=TINY)
    heard: list[str] = []

    def listen(event: FlushEvent) -> None:
        if isinstance(event, Uploaded):
            heard.append(event.name)
            raise asyncio.CancelledError

    with ScriptedServer() as server:
        flushing = asyncio.create_task(
            flush(server, spool, in_flight=8, tuning=Tuning(disk_work=disk_work), on_event=listen)
        )
        await asyncio.wait([flushing])
    assert flushing.cancelled()
    assert heard[0] == batches[0].name
    left = [batch.name for batch in snapshot(spool)]
    assert left == [batch.name for batch in batches[len(heard) :]] != []


@pytest.mark.thorough
@pytest.mark.parametrize("raised", ["SystemExit(7)", "KeyboardInterrupt"])
def test_a_listener_that_exits_ends_the_process(spool: Path, tmp_path: Path, raised: str) -> None:
    """A second Ctrl-C may come there, too."""
    sdk_batches(spool, 40, spans=TINY)
    code = (
        "import asyncio, sys, cirron_spool\n"
        "def listen(event):\n"
        f"    if isinstance(event, cirron_spool.Uploaded): raise {raised}\n"
        "asyncio.run(cirron_spool.flush_spool(\n"
        "    sys.argv[1], api_url=sys.argv[2], token='sk-1', in_flight=8, on_event=listen))\n"
    )
    with ScriptedServer() as server:
        done = subprocess.run(
            [sys.executable, "-c", code, str(spool), server.url],
            env=clean_environment(tmp_path),
            capture_output=True,
            check=False,
            timeout=SAFETY_NET,
        )
    assert done.returncode == (7 if raised == "SystemExit(7)" else -signal.SIGINT)
    assert snapshot(spool) != []
