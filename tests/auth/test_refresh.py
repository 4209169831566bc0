"""A refresh before and in a flush."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import (
    AuthRejectedError,
    FlushEvent,
    Retrying,
    Uploaded,
)
from support.answers import Answer, json_answer, ok
from support.logins import (
    REFRESH,
    content,
    flush,
    login_in,
    write_login,
)
from support.loopwatch import no_blocking_calls
from support.scripted import Request, ScriptedServer
from support.spools import TINY, sdk_batches, snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]


@pytest.mark.parametrize(("minutes", "refreshed"), [(-60, True), (4.9, True), (5.5, False), (None, False)])
async def test_refreshed_before_the_flush_when_it_expires_within_five_minutes(
    spool: Path, config: Path, minutes: float | None, refreshed: bool
) -> None:
    sdk_batches(spool, 2, spans=TINY)
    write_login(config, minutes=minutes)
    with ScriptedServer() as server:
        with no_blocking_calls():
            await flush(server, spool, config)
    paths = [request.path for request in server.requests]
    assert paths == [*["/api/cli/auth/refresh"] * refreshed, "/api/cli/status", *["/api/traces"] * 2]
    if refreshed:
        refresh = server.requests[0]
        assert json.loads(refresh.body) == {"refresh_token": "refresh-0"}
        assert refresh.headers["content-type"] == "application/json"
        assert "authorization" not in refresh.headers
    assert {request.token for request in server.requests[refreshed:]} == {
        "access-1" if refreshed else "access-0"
    }


async def test_a_clock_that_is_wrong_costs_one_refresh_only(spool: Path, config: Path) -> None:
    """The new token, too, seems to have expired: that is no reason to refresh for every batch."""
    sdk_batches(spool, 10, spans=TINY)
    write_login(config, minutes=-60)
    tokens = {"access_token": "access-1", "refresh_token": "refresh-1", "expires_in": 1}
    with ScriptedServer() as server:
        server.on(*REFRESH, default=json_answer(tokens))
        result = await flush(server, spool, config)
    assert (result.uploaded, len(server.seen(REFRESH[1]))) == (10, 1)


async def test_refreshed_during_the_flush_when_it_is_about_to_expire(
    spool: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk_batches(spool, 3, spans=TINY)
    write_login(config, minutes=60)
    moved: list[timedelta] = [timedelta()]

    class Clock(datetime):
        """An hour passes between two batches: a test cannot wait for it."""

        @classmethod
        def now(cls, tz: Any = None) -> Clock:
            return super().now(tz) + moved[0]

    def hear(event: FlushEvent) -> None:
        if isinstance(event, Uploaded):
            moved[0] = timedelta(minutes=56)

    monkeypatch.setattr("cirron_spool.auth.token_manager.datetime", Clock)
    with ScriptedServer(check_auth=True) as server:
        result = await flush(server, spool, config, on_event=hear)
    assert [request.token for request in server.uploads] == ["access-0", "access-1", "access-1"]
    assert (result.uploaded, server.platform.rotations) == (3, 1)


async def test_a_401_in_mid_flush_is_refreshed_and_resent_once(spool: Path, config: Path) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    write_login(config)
    events: list[FlushEvent] = []

    def expire(request: Request) -> Answer:
        server.platform.access_token = "expired"
        return ok()

    with ScriptedServer(expire, check_auth=True) as server:
        result = await flush(server, spool, config, on_event=events.append, retries=0)
    ids = [batch.batch_id for batch in batches]
    assert [request.batch_id for request in server.uploads] == [ids[0], ids[1], ids[1], ids[2]]
    assert [request.token for request in server.uploads] == ["access-0", "access-0", "access-1", "access-1"]
    assert server.uploads[1].body == server.uploads[2].body
    assert (result.uploaded, result.exit_code, server.platform.rotations) == (3, 0, 1)
    # It does not count: no retry was announced, and none was used up.
    assert not [event for event in events if isinstance(event, Retrying)]
    assert login_in(config) == ("access-1", "refresh-1")


async def test_a_401_that_stays_one_after_the_refresh_stops(spool: Path, config: Path) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    write_login(config)
    with ScriptedServer(ok(), Answer(401), Answer(401)) as server:
        with pytest.raises(AuthRejectedError) as caught:
            await flush(server, spool, config)
    said = f"Auth rejected (401) for {batches[1].name}. Run cirron auth login."
    assert (str(caught.value), caught.value.exit_code) == (said, 3)
    result = caught.value.result
    assert result is not None
    assert (result.uploaded, result.failed, result.skipped, result.exit_code) == (1, 1, 1, 3)
    assert [failure.message for failure in result.failures] == [said]
    assert (len(server.uploads), server.platform.rotations) == (3, 1)
    assert snapshot(spool) == batches[1:]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501, 505])
async def test_a_refused_refresh(spool: Path, config: Path, status: int) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    write_login(config)
    before = content(config)
    with ScriptedServer(Answer(401)) as server:
        server.on(*REFRESH, default=Answer(status, headers=[("Retry-After", "0")]))
        with pytest.raises(AuthRejectedError, match="Run cirron auth login") as caught:
            await flush(server, spool, config)
    assert caught.value.exit_code == 3
    assert (len(server.uploads), len(server.seen(REFRESH[1]))) == (1, 1)
    assert content(config) == before
    assert snapshot(spool) == batches


async def test_no_refresh_without_a_refresh_token(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer(Answer(401)) as server, pytest.raises(AuthRejectedError):
        await flush(server, spool, token="sk-secret-token")
    assert server.seen(REFRESH[1]) == []
