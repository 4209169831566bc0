"""A refresh that fails: retried on one schedule, then left for later; nothing is lost."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import (
    AuthRejectedError,
    Failed,
    FlushEvent,
    TokenRenewalError,
    Uploaded,
    Warned,
)
from cirron_spool.auth import token_manager, token_store
from cirron_spool.spool.lock import FileLock, lock_file
from support.answers import HTML, JSON, Answer, html, json_answer, ok
from support.background import SAFETY_NET
from support.logins import (
    REFRESH,
    STATUS,
    content,
    flush,
    login_in,
    put,
    warnings_in,
    write_login,
)
from support.scripted import Request, ScriptedServer
from support.spools import TINY, sdk_batches, snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]


NO_TOKENS = "HTTP 200, but the answer could not be read"
LATER = "The platform could not renew the token. Nothing is lost: run the flush again later."
TEMPORARY = [
    (Answer(408), "HTTP 408 Request Timeout"),
    (Answer(425), "HTTP 425 Too Early"),
    (Answer(429, headers=[("Retry-After", "0")]), "HTTP 429 Too Many Requests"),
    (Answer(500), "HTTP 500 Internal Server Error"),
    (Answer(502, headers=[HTML], body=b"<html>"), "HTTP 502 Bad Gateway"),
    (Answer(503, reason="access-0 and refresh-0\x1b"), "HTTP 503 … and …\\x1b"),
    (Answer(599, reason=""), "HTTP 599 Unknown Status"),
    (ok(cut_after=5), None),
    (ok(cut_after=5, reset=True), None),
    (ok(hang=True), "timed out after 300ms"),
    (html(), NO_TOKENS),
    (Answer(204), "HTTP 204, but the answer could not be read"),
    (json_answer({"access_token": 3}), NO_TOKENS),
    (json_answer({"access_token": "a b"}), NO_TOKENS),
    (json_answer({"refresh_token": "new", "expires_in": 60}), NO_TOKENS),
    (json_answer([]), NO_TOKENS),
    (Answer(200, body=b"{" * 100_000), NO_TOKENS),
    (json_answer({"access_token": "new-token"}, cut_after=70, drop=True), None),
]


@pytest.mark.thorough
@pytest.mark.parametrize(("failure", "why"), TEMPORARY)
async def test_a_refresh_that_fails_in_mid_flush_is_retried_and_then_left_for_later(
    spool: Path, config: Path, failure: Answer, why: str | None
) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    write_login(config)
    before = content(config)
    events: list[FlushEvent] = []
    with ScriptedServer(ok(), Answer(401)) as server:
        server.on(*REFRESH, default=failure)
        result = await flush(server, spool, config, on_event=events.append, retries=2, timeout_ms=300)
    assert (len(server.uploads), len(server.seen(REFRESH[1]))) == (2, 3)
    [kept] = [event for event in events if isinstance(event, Failed)]
    said = f"Auth rejected (401) for {batches[1].name}. The token could not be renewed: "
    assert kept.message.startswith(said)
    assert kept.hint == LATER
    if why is not None:
        assert kept.message == f"{said}{why}."
        assert [warning.rpartition(". Attempt ")[0] for warning in warnings_in(events)] == [
            f"The token could not be renewed: {why}"
        ] * 2
    assert (result.uploaded, result.failed, result.skipped, result.exit_code) == (1, 1, 1, 4)
    assert content(config) == before
    assert snapshot(spool) == batches[1:]


@pytest.mark.parametrize(("failure", "why"), TEMPORARY[4:6])
@pytest.mark.parametrize("asked_by", ["the expiry", "the verification"])
async def test_a_refresh_that_fails_before_the_flush_is_retried_and_then_left_for_later(
    spool: Path, config: Path, failure: Answer, why: str, asked_by: str
) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    write_login(config, minutes=1 if asked_by == "the expiry" else 60)
    events: list[FlushEvent] = []
    with ScriptedServer() as server:
        server.on(*STATUS, default=Answer(401))
        server.on(*REFRESH, default=failure)
        with pytest.raises(TokenRenewalError) as caught:
            await flush(server, spool, config, on_event=events.append)
    error = caught.value
    assert (str(error), error.hint) == (f"The token could not be renewed: {why}.", LATER)
    assert error.exit_code == 4
    assert error.result is not None
    assert (error.result.skipped, error.result.failed) == (2, 0)
    assert (server.uploads, len(server.seen(REFRESH[1])), len(warnings_in(events))) == ([], 4, 3)
    assert snapshot(spool) == batches


@pytest.mark.parametrize("failures", [[Answer(503)], [ok(cut_after=5), Answer(429)], [html()] * 3])
async def test_a_refresh_that_succeeds_at_last_loses_nothing(
    spool: Path, config: Path, failures: list[Answer]
) -> None:
    sdk_batches(spool, 3, spans=TINY)
    write_login(config)
    with ScriptedServer(ok(), Answer(401), check_auth=True) as server:
        server.on(*REFRESH, *failures)
        result = await flush(server, spool, config)
    assert (result.uploaded, result.exit_code, server.platform.rotations) == (3, 0, 1)
    assert login_in(config) == ("access-1", "refresh-1")


@pytest.mark.thorough
@pytest.mark.parametrize("expires_in", ["1e300", "-1e300", "NaN", "1e999", '"soon"', "true", "[]", "9" * 400])
@pytest.mark.parametrize("refresh", ['"refresh-1"', '""', '"a\\u0007"', "7"])
async def test_a_rotated_token_is_used_and_saved_whatever_stands_beside_it(
    spool: Path, config: Path, expires_in: str, refresh: str
) -> None:
    sdk_batches(spool, 2, spans=TINY)
    write_login(config)
    body = f'{{"access_token": "access-1", "refresh_token": {refresh}, "expires_in": {expires_in}}}'
    with ScriptedServer(Answer(401)) as server:
        server.on(*REFRESH, Answer(200, headers=[JSON], body=body.encode()), default=Answer(400))
        result = await flush(server, spool, config)
    assert (result.uploaded, result.exit_code, len(server.seen(REFRESH[1]))) == (2, 0, 1)
    assert server.uploads[-1].headers["authorization"] == "Bearer access-1"
    assert login_in(config) == ("access-1", "refresh-1" if "refresh" in refresh else "refresh-0")


@pytest.mark.parametrize(
    ("answer", "message", "hint"),
    [
        (
            json_answer({"message": "back at noon, refresh-0"}, 503),
            "HTTP 503 Service Unavailable.",
            "The server said: back at noon, …. " + LATER,
        ),
        (
            json_answer({}, 429, headers=[("Retry-After", "3600")]),
            "HTTP 429 Too Many Requests. Run the flush again after",
            LATER,
        ),
        (
            Answer(302, headers=[("Location", "https://sso.example/?t=refresh-0")]),
            "HTTP 302 Found.",
            "The server redirects to https://sso.example/?t=…. Redirects are never followed. Set apiUrl to …",
        ),
    ],
)
async def test_what_the_server_says_about_a_renewal_is_told_without_the_tokens(
    spool: Path, config: Path, answer: Answer, message: str, hint: str
) -> None:
    sdk_batches(spool, 1, spans=TINY)
    write_login(config)
    events: list[FlushEvent] = []
    with ScriptedServer(Answer(401)) as server:
        server.on(*REFRESH, default=answer)
        await flush(server, spool, config, on_event=events.append, retries=0)
    [failed] = [event for event in events if isinstance(event, Failed)]
    assert f"could not be renewed: {message}" in failed.message
    assert ".." not in failed.message
    assert failed.hint.replace("the address of the platform.", "…") == hint


async def test_a_token_of_one_letter_garbles_no_sentence(spool: Path, config: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    put(config, json.dumps({"auth": {"accessToken": "t", "refreshToken": "r"}}))
    with ScriptedServer(Answer(401)) as server:
        server.on(*REFRESH, default=Answer(503))
        result = await flush(server, spool, config, retries=0)
    [failure] = result.failures
    assert failure.message.endswith("The token could not be renewed: HTTP 503 Service Unavailable.")


async def test_a_rotation_whose_answer_was_lost_is_asked_for_again_and_refused(
    spool: Path, config: Path
) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    write_login(config)

    def lost(request: Request) -> Answer:
        return replace(server.platform._refresh(request), cut_after=40)

    with ScriptedServer(Answer(401), check_auth=True) as server:
        server.on(*REFRESH, Answer(late=lost))
        with pytest.raises(AuthRejectedError, match="Run cirron auth login"):
            await flush(server, spool, config)
    assert (len(server.seen(REFRESH[1])), server.platform.rotations) == (2, 1)
    assert snapshot(spool) == batches


async def test_a_refresh_waits_as_long_as_the_server_asks(
    spool: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cirron_spool.protocol.retry.SHORTEST_PAUSE_S", 1.0)  # the real one
    sdk_batches(spool, 1, spans=TINY)
    write_login(config, minutes=1)
    events: list[FlushEvent] = []
    with ScriptedServer() as server:
        server.on(*REFRESH, Answer(429, headers=[("Retry-After", "0")]))
        result = await flush(server, spool, config, on_event=events.append)
    first, second = server.seen(REFRESH[1])
    assert second.arrived - first.arrived >= 1.0
    assert warnings_in(events) == [
        "The token could not be renewed: HTTP 429 Too Many Requests. Attempt 2 in 1.0 s."
    ]
    assert result.uploaded == 1


async def test_a_refresh_that_is_to_wait_longer_than_two_minutes_is_left_for_later(
    spool: Path, config: Path
) -> None:
    sdk_batches(spool, 2, spans=TINY)
    write_login(config)
    with ScriptedServer(Answer(401)) as server:
        server.on(*REFRESH, Answer(503, headers=[("Retry-After", "3600")]))
        result = await flush(server, spool, config)
    [failure] = result.failures
    assert "could not be renewed: HTTP 503 Service Unavailable. Run the flush again after " in failure.message
    assert (result.exit_code, len(server.seen(REFRESH[1]))) == (4, 1)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (Answer(302, headers=[("Location", "https://portal.example/")]), "redirects to https://portal"),
        (Answer(407), "asks for credentials"),
    ],
)
async def test_something_in_between_is_no_reason_to_log_in_again(
    spool: Path, config: Path, answer: Answer, hint: str
) -> None:
    sdk_batches(spool, 1, spans=TINY)
    write_login(config)
    events: list[FlushEvent] = []
    with ScriptedServer(Answer(401)) as server:
        server.on(*REFRESH, default=answer)
        result = await flush(server, spool, config, on_event=events.append)
    [failed] = [event for event in events if isinstance(event, Failed)]
    assert hint in failed.hint
    assert (result.exit_code, len(server.seen(REFRESH[1]))) == (1, 1)


async def test_batches_in_flight_together_wait_for_one_schedule(spool: Path, config: Path) -> None:
    sdk_batches(spool, 8, spans=TINY)
    write_login(config)
    with ScriptedServer(*[Answer(401)] * 8) as server:
        server.on(*REFRESH, default=Answer(503))
        result = await flush(server, spool, config, in_flight=4, retries=2)
    assert len(server.seen(REFRESH[1])) == 3
    assert (result.uploaded, result.exit_code) == (0, 4)


async def test_a_token_that_still_works_carries_the_flush_on(
    spool: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In mid-flush it comes near its expiry, and the login is down: batches that are accepted go on."""
    sdk_batches(spool, 3, spans=TINY)
    write_login(config, minutes=60)
    moved: list[timedelta] = [timedelta()]

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Clock:
            return super().now(tz) + moved[0]

    def hear(event: FlushEvent) -> None:
        if isinstance(event, Uploaded):
            moved[0] = timedelta(minutes=56)

    monkeypatch.setattr("cirron_spool.auth.token_manager.datetime", Clock)
    with ScriptedServer(check_auth=True) as server:
        server.on(*REFRESH, default=Answer(503))
        result = await flush(server, spool, config, on_event=hear)
    assert (result.uploaded, result.exit_code, len(server.seen(REFRESH[1]))) == (3, 0, 1)


@pytest.mark.parametrize("where", ["before the flush", "in mid-flush"])
@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_the_wait_for_the_next_refresh_can_be_ended(
    spool: Path, config: Path, monkeypatch: pytest.MonkeyPatch, how: str, where: str
) -> None:
    monkeypatch.setattr("cirron_spool.pipeline.runner.GRACE_S", 0.01)
    batches = sdk_batches(spool, 2, spans=TINY)
    write_login(config)
    stop, waits = asyncio.Event(), asyncio.Event()

    def hear(event: FlushEvent) -> None:
        if isinstance(event, Warned):
            waits.set()

    with ScriptedServer(*[Answer(401)] * (where == "in mid-flush")) as server:
        server.on(*STATUS, *[Answer(401)] * (where == "before the flush"))
        server.on(*REFRESH, default=Answer(503, headers=[("Retry-After", "119")]))
        task = asyncio.create_task(flush(server, spool, config, on_event=hear, stop=stop))
        async with asyncio.timeout(SAFETY_NET):
            await waits.wait()
            if how == "stop":
                stop.set()
                assert (await task).uploaded == 0
            else:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
    assert len(server.seen(REFRESH[1])) == 1
    assert snapshot(spool) == batches
    # Meanwhile no other process had to wait for us.
    lock_file(f"{config}.lock").release()


async def test_no_lock_is_held_while_a_refresh_waits(spool: Path, config: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    write_login(config, minutes=1)
    free: list[bool] = []

    def hear(event: FlushEvent) -> None:
        if isinstance(event, Warned):
            lock_file(f"{config}.lock").release()
            free.append(True)

    with ScriptedServer() as server:
        server.on(*REFRESH, Answer(503))
        assert (await flush(server, spool, config, on_event=hear)).uploaded == 1
    assert free == [True]


async def test_the_wait_for_another_processs_refresh_can_be_cancelled(
    spool: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cirron_spool.auth.token_store._LOCK_WAIT_S", 1e6)
    sdk_batches(spool, 1, spans=TINY)
    write_login(config, minutes=1)
    waits = asyncio.Event()
    real = token_store.acquire_lock

    async def acquire(path: Path) -> FileLock | None:
        waits.set()
        return await real(path)

    monkeypatch.setattr(token_manager, "acquire_lock", acquire)
    lock = lock_file(f"{config}.lock")
    with ScriptedServer() as server:
        task = asyncio.create_task(flush(server, spool, config))
        async with asyncio.timeout(SAFETY_NET):
            await waits.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    lock.release()
    assert server.seen(REFRESH[1]) == []
