"""``flush_spool_sync``: the same flush for code without an event loop, and inside of one."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import ConfigError, FlushEvent, Started, flush_spool_sync
from support.answers import Gate, ok
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot

TOKEN = "sk-sync"


def test_a_script_flushes_without_an_event_loop(spool: Path) -> None:
    sdk_batches(spool, 3, spans=TINY)
    with ScriptedServer() as server:
        result = flush_spool_sync(spool, api_url=server.url, token=TOKEN)
    assert (result.uploaded, result.exit_code) == (3, 0)
    assert snapshot(spool) == []


@pytest.mark.anyio
async def test_under_a_running_loop_the_flush_has_its_own_thread_and_loop(spool: Path) -> None:
    sdk_batches(spool, 3, spans=TINY)
    threads: list[threading.Thread] = []

    def listen(event: FlushEvent) -> None:
        if isinstance(event, Started):
            threads.append(threading.current_thread())

    with ScriptedServer() as server:
        result = flush_spool_sync(spool, api_url=server.url, token=TOKEN, on_event=listen)
    assert (result.uploaded, result.exit_code) == (3, 0)
    assert [thread.name for thread in threads] == ["cirron-spool flush"]
    assert not threads[0].is_alive()


async def _flush(**options: Any) -> None:
    flush_spool_sync(**options)


@pytest.mark.parametrize("in_loop", [False, True])
def test_the_errors_are_those_of_the_flush(spool: Path, in_loop: bool) -> None:
    with pytest.raises(ConfigError, match="in_flight"):
        if in_loop:
            asyncio.run(_flush(directory=spool, in_flight=0))
        else:
            flush_spool_sync(spool, in_flight=0)


@pytest.mark.parametrize("option", ["client", "session", "stop"])
def test_what_belongs_to_an_event_loop_is_refused(spool: Path, option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        flush_spool_sync(spool, **{option: object()})


@pytest.mark.parametrize("in_loop", [False, True])
def test_ctrl_c_cancels_the_flush_and_keeps_the_batches(spool: Path, in_loop: bool) -> None:
    sdk_batches(spool, 2, spans=TINY)
    gate = Gate()
    with ScriptedServer(ok(stall_before=gate)) as server:
        options = {"directory": spool, "api_url": server.url, "token": TOKEN}

        def interrupt() -> None:
            server.wait_for(1)
            os.kill(os.getpid(), signal.SIGINT)

        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            if in_loop:
                with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
                    runner.get_loop().run_until_complete(_flush(**options))
            else:
                flush_spool_sync(**options)
        interrupting.join()
        gate.open()
    assert len(snapshot(spool)) == 2
