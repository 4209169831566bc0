"""Rotated tokens are saved, whatever fails meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import (
    FlushEvent,
)
from cirron_spool.auth import token_manager
from cirron_spool.auth.token_store import save, set_login, update
from cirron_spool.settings.model import Credentials
from support.answers import Answer, Gate, json_answer
from support.background import SAFETY_NET
from support.logins import (
    REFRESH,
    UNKNOWN,
    content,
    flush,
    login_in,
    mode,
    put,
    warnings_in,
    write_login,
)
from support.scripted import Request, ScriptedServer
from support.spools import TINY, sdk_batches

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]


async def test_a_rotation_is_saved_and_every_other_key_kept(spool: Path, config: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    kept = {
        "theme": "dark",
        "nested": {"é": [1, 2.5, None]},
        "half a pair": "\ud83d",
        "token": "sk-long-lived",
    }
    write_login(config, minutes=1, **kept)
    with ScriptedServer() as server:
        await flush(server, spool, config)
    document = json.loads(content(config))
    expires = datetime.fromisoformat(document["auth"].pop("expiresAt"))
    assert timedelta(minutes=59) < expires - datetime.now(UTC) <= timedelta(hours=1)
    assert document == {
        "auth": {"accessToken": "access-1", "refreshToken": "refresh-1", "scope": "kept"},
        **kept,
    }
    assert mode(config) == 0o600
    assert set(os.listdir(config.parent)) <= {"config.json", "config.json.lock"}


async def test_a_refresh_without_a_new_refresh_token_keeps_the_old_one(spool: Path, config: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    write_login(config, minutes=1)
    with ScriptedServer() as server:
        server.on(*REFRESH, json_answer({"access_token": "access-9"}))
        await flush(server, spool, config)
    assert login_in(config) == ("access-9", "refresh-0")
    assert json.loads(content(config))["auth"]["expiresAt"] is None


async def test_a_linked_configuration_stays_a_link(spool: Path, config: Path, tmp_path: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    real = tmp_path / "dotfiles.json"
    write_login(real, minutes=1)
    os.symlink(real, config)
    with ScriptedServer() as server:
        await flush(server, spool, config)
    assert os.readlink(config) == str(real)
    assert login_in(real) == ("access-1", "refresh-1")


@pytest.mark.parametrize("how", ["no space", "broken meanwhile"])
async def test_a_rotation_that_cannot_be_saved_is_said_loudly(
    spool: Path, config: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    write_login(config, minutes=1)
    before = content(config)
    real_open = os.open

    # Root may write anywhere: the disk is full in place of a home that is not ours to write.
    def failing_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if str(path).startswith(str(config.with_name(f".{config.name}."))):
            raise OSError(28, "No space left on device")
        return real_open(path, flags, mode, dir_fd=dir_fd)

    def spoil(request: Request) -> Answer:
        put(config, "{")
        return server.platform._refresh(request)

    if how == "no space":
        monkeypatch.setattr(os, "open", failing_open)
    events: list[FlushEvent] = []
    with ScriptedServer(check_auth=True) as server:
        if how != "no space":
            server.on(*REFRESH, Answer(late=spoil))
        result = await flush(server, spool, config, on_event=events.append)
    monkeypatch.undo()
    why = "No space left on device" if how == "no space" else f"{config} is not valid JSON"
    [warning] = warnings_in(events)
    assert warning.startswith(f"The token was renewed but could not be saved in {config}: {why}")
    assert warning.endswith(". Run cirron auth login before the next flush.")
    assert (result.uploaded, result.exit_code) == (len(batches), 1)
    assert content(config) == (before if how == "no space" else b"{")
    assert set(os.listdir(config.parent)) <= {"config.json", "config.json.lock"}


async def test_saving_replaces_the_file_in_one_step(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_login(config)
    before = content(config)
    seen: list[tuple[bytes, dict[str, Any], int]] = []

    # The last moment before the new file takes the old one's place is the one to fail in.
    def failing_fsync(fd: int) -> None:
        [temporary] = set(config.parent.iterdir()) - {config}
        seen.append((content(config), json.loads(content(temporary)), mode(temporary)))
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing_fsync)
    with pytest.raises(OSError, match="Input/output error"):
        await save(config, Credentials("new"), replaces={"access-0"})
    assert seen == [
        (before, {"auth": {**json.loads(before)["auth"], **UNKNOWN, "accessToken": "new"}}, 0o600)
    ]
    assert content(config) == before
    assert os.listdir(config.parent) == ["config.json"]


async def test_a_rotation_is_saved_though_the_flush_is_cancelled(
    spool: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The platform has rotated by then: what is lost now is the login."""
    sdk_batches(spool, 1, spans=TINY)
    write_login(config, minutes=1)
    saving, release = threading.Event(), threading.Event()
    real_fsync = os.fsync

    def slow_fsync(fd: int) -> None:
        saving.set()
        assert release.wait(SAFETY_NET)
        real_fsync(fd)

    monkeypatch.setattr(os, "fsync", slow_fsync)
    # The wait for the refresh's answer is over at once: it does not cut the save.
    monkeypatch.setattr(token_manager, "_ROTATION_GRACE_S", 0.0)
    with ScriptedServer() as server:
        task = asyncio.create_task(flush(server, spool, config))
        assert await asyncio.to_thread(saving.wait, SAFETY_NET)
        task.cancel()
        for _ in range(100):
            await asyncio.sleep(0)
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert login_in(config) == ("access-1", "refresh-1")
        assert set(os.listdir(config.parent)) <= {"config.json", "config.json.lock"}
        assert (await flush(server, spool, config)).uploaded == 1
    assert server.platform.rotations == 1


async def test_a_refresh_under_way_is_not_lost_to_a_cancellation(
    spool: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_manager, "_ROTATION_GRACE_S", SAFETY_NET)
    sdk_batches(spool, 1, spans=TINY)
    write_login(config, minutes=1)
    asked, gate = threading.Event(), Gate()
    with ScriptedServer() as server:

        def rotated(request: Request) -> Answer:
            answer = server.platform._refresh(request)
            asked.set()
            return replace(answer, stall_before=gate)

        server.on(*REFRESH, default=Answer(late=rotated))
        task = asyncio.create_task(flush(server, spool, config))
        assert await asyncio.to_thread(asked.wait, SAFETY_NET)
        task.cancel()
        for _ in range(100):
            await asyncio.sleep(0)
        assert not task.done()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert login_in(config) == ("access-1", "refresh-1")
    assert server.platform.rotations == 1


async def test_a_refresh_that_is_never_answered_does_not_hold_a_cancellation_up(
    spool: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_manager, "_ROTATION_GRACE_S", 0.01)
    sdk_batches(spool, 1, spans=TINY)
    write_login(config, minutes=1)
    asked, gate = threading.Event(), Gate()
    with ScriptedServer() as server:

        def never(request: Request) -> Answer:
            asked.set()
            return Answer(stall_before=gate)

        server.on(*REFRESH, default=never)
        task = asyncio.create_task(flush(server, spool, config, timeout_ms=int(SAFETY_NET * 2000)))
        assert await asyncio.to_thread(asked.wait, SAFETY_NET)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(SAFETY_NET):
                await task
        gate.open()
    assert login_in(config) == ("access-0", "refresh-0")


async def test_saving_makes_what_is_missing(tmp_path: Path) -> None:
    config = tmp_path / ".cirron" / "config.json"
    renewed = Credentials("new", "again", datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC))
    await update(config, partial(set_login, credentials=renewed))
    assert json.loads(content(config)) == {
        "auth": {"accessToken": "new", "refreshToken": "again", "expiresAt": "2030-01-02T03:04:05.000Z"}
    }
    assert (mode(config), mode(config.parent)) == (0o600, 0o700)
