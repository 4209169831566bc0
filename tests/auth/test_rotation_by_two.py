"""Two processes that renew one login."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import anyio
import pytest

from cirron_spool import (
    AuthRejectedError,
    FlushResult,
)
from cirron_spool.auth import token_manager, token_store
from cirron_spool.spool.lock import FileLock, HeldError, lock_file
from support.answers import Answer
from support.background import SAFETY_NET
from support.logins import (
    REFRESH,
    content,
    flush,
    login_in,
    put,
    write_login,
)
from support.scripted import Request, ScriptedServer
from support.spools import TINY, sdk_batches
from support.users import NOBODY, as_user, needs_root, shared_folder

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]


async def test_two_flushes_that_refresh_at_once_rotate_once(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_login(config, minutes=1)
    both = threading.Barrier(2)  # both want to refresh before the first one has
    lock = token_store.acquire_lock

    async def acquire(path: Path) -> FileLock | None:
        await asyncio.to_thread(both.wait, SAFETY_NET)
        return await lock(path)

    monkeypatch.setattr(token_manager, "acquire_lock", acquire)
    batches = {name: sdk_batches(tmp_path / name, 3, spans=TINY) for name in ("one", "two")}
    results: list[FlushResult] = []
    with ScriptedServer(check_auth=True) as server:
        async with anyio.create_task_group() as group:

            async def run(name: str) -> None:
                results.append(await flush(server, tmp_path / name, config))

            for name in batches:
                group.start_soon(run, name)
    assert (server.platform.rotations, len(server.seen(REFRESH[1]))) == (1, 1)
    assert [result.uploaded for result in results] == [3, 3]
    assert {request.token for request in server.uploads} == {"access-1"}
    assert login_in(config) == ("access-1", "refresh-1")


async def test_what_another_process_renewed_is_used(spool: Path, config: Path) -> None:
    """It was faster: our token is refused, and the file holds another one by then."""
    sdk_batches(spool, 2, spans=TINY)
    write_login(config)

    def overtaken(request: Request) -> Answer:
        server.platform.access_token = "access-of-another"
        auth = {"accessToken": "access-of-another", "refreshToken": "refresh-of-another"}
        put(config, json.dumps({"auth": auth}))
        return Answer(401)

    with ScriptedServer(overtaken, check_auth=True) as server:
        result = await flush(server, spool, config)
    assert result.uploaded == 2
    assert server.seen(REFRESH[1]) == []
    assert {request.token for request in server.uploads[1:]} == {"access-of-another"}


async def test_a_process_without_our_lock_that_was_faster(spool: Path, config: Path) -> None:
    """Our refresh token was used up by the official tool: its new token is in the file when ours is refused."""
    sdk_batches(spool, 1, spans=TINY)
    write_login(config)

    def used_up(request: Request) -> Answer:
        put(config, json.dumps({"auth": {"accessToken": "access-0-new", "refreshToken": "r"}}))
        server.platform.access_token = "access-0-new"
        return Answer(401)

    with ScriptedServer(Answer(401), check_auth=True) as server:
        server.on(*REFRESH, Answer(late=used_up))
        result = await flush(server, spool, config)
    assert result.uploaded == 1
    assert server.uploads[-1].token == "access-0-new"


async def test_a_configuration_broken_meanwhile_is_no_help(spool: Path, config: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    write_login(config)

    def spoil(request: Request) -> Answer:
        put(config, "{")
        return Answer(401)

    with ScriptedServer(spoil) as server:
        server.on(*REFRESH, default=Answer(400))
        with pytest.raises(AuthRejectedError):
            await flush(server, spool, config)
    assert content(config) == b"{"


async def test_a_lock_that_another_process_keeps_does_not_keep_us(
    spool: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ten seconds would only be waited for; going on without the lock is the same after fifty milliseconds.
    monkeypatch.setattr("cirron_spool.auth.token_store._LOCK_WAIT_S", 0.05)
    sdk_batches(spool, 1, spans=TINY)
    write_login(config, minutes=1)
    lock = lock_file(f"{config}.lock")
    with ScriptedServer(check_auth=True) as server:
        result = await flush(server, spool, config)
    lock.release()
    assert (result.uploaded, server.platform.rotations) == (1, 1)


@needs_root
@pytest.mark.parametrize("mode", [0o644, 0o600])
async def test_a_lock_that_another_user_left_beside_the_configuration_is_taken_over(mode: int) -> None:
    with shared_folder() as folder:
        (folder / "config.json.lock").touch(mode)
        with as_user(NOBODY):
            lock = await token_store.acquire_lock(folder / "config.json")
            assert lock is not None
            with pytest.raises(HeldError):
                lock_file(str(folder / "config.json.lock"))
            lock.release()
