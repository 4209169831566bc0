"""Blocking calls in the thread of a running event loop are found, others are not."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from support.loopwatch import no_blocking_calls, record_blocking_calls
from support.scripted import ScriptedServer


def test_blocking_calls_are_found(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()

    async def block() -> None:
        path.read_bytes()
        os.close(os.open(path, os.O_RDONLY))
        os.listdir(tmp_path)
        list(os.scandir(tmp_path))
        path.stat()
        os.remove(path)
        socket.getaddrinfo("127.0.0.1", 80)
        time.sleep(1e-9)  # noqa: ASYNC251 - that it is noticed is the test

    with record_blocking_calls() as calls:
        asyncio.run(block())
    events = [found.event for found in calls]
    expected = [
        "open",
        "open",
        "os.listdir",
        "os.scandir",
        "os.stat",
        "os.remove",
        "socket.getaddrinfo",
        "time.sleep",
    ]
    assert [event for event in events if event in expected] == expected
    assert all(any("block" in line for line in found.stack) for found in calls)
    path.touch()
    with pytest.raises(AssertionError, match="blocked the event loop"), no_blocking_calls():
        asyncio.run(block())


def test_threads_and_the_time_without_a_loop_are_free(tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def good() -> None:
        await asyncio.to_thread(path.write_bytes, b"x")
        await asyncio.to_thread(path.unlink)
        await asyncio.sleep(0)

    with no_blocking_calls(), ScriptedServer() as server:
        asyncio.run(good())
        other = threading.Thread(target=asyncio.run, args=(_listing(tmp_path),))
        other.start()
        other.join()
        path.write_bytes(b"y")
        assert server.requests == []
    with no_blocking_calls(ignore=lambda found: found.event == "os.listdir"):
        asyncio.run(_listing(tmp_path))


async def _listing(folder: Path) -> list[str]:
    return os.listdir(folder)
