"""The verification of a token before the first batch."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from cirron_spool import (
    AuthInvalidError,
    Ended,
    FlushEvent,
)
from support.answers import Answer, Gate, json_answer, ok
from support.logins import (
    INVALID,
    REFRESH,
    STATUS,
    content,
    flush,
    warnings_in,
    write_login,
)
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(500, reason="Oops\x1b"), "HTTP 500 Oops\\x1b"),
        (Answer(404), "HTTP 404 Not Found"),
        (Answer(302, headers=[("Location", "/login")]), "HTTP 302 Found"),
        (Answer(429, reason=""), "HTTP 429"),
        (Answer(200, body=b"<html>"), "the answer is not the expected JSON"),
        (Answer(200, body=b"[]"), "the answer is not the expected JSON"),
        (json_answer({"status": "ok"}), "the answer is not the expected JSON"),
        (json_answer({"valid": None, "user": {}}), "the answer is not the expected JSON"),
        (
            json_answer({"valid": True}, cut_after=len(json_answer({"valid": True}).render()) - 3),
            "the answer was cut",
        ),
        (ok(cut_after=5), "the server closed the connection before it answered"),
        (ok(hang=True), "timed out after 300ms"),
    ],
)
async def test_a_verification_that_fails_is_a_warning(spool: Path, answer: Answer, said: str) -> None:
    sdk_batches(spool, 1, spans=TINY)
    events: list[FlushEvent] = []
    with ScriptedServer() as server:
        server.on(*STATUS, default=answer)
        result = await flush(server, spool, token="sk-secret-token", on_event=events.append, timeout_ms=300)
    assert warnings_in(events) == [f"Could not verify auth before flush: {said}. Proceeding anyway."]
    assert (result.uploaded, result.exit_code) == (1, 0)


@pytest.mark.parametrize("answer", [Answer(401), Answer(403), json_answer({"valid": False})])
async def test_a_refused_verification_ends_the_flush(spool: Path, answer: Answer) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    events: list[FlushEvent] = []
    with ScriptedServer() as server:
        server.on(*STATUS, answer)
        with pytest.raises(AuthInvalidError) as caught:
            await flush(server, spool, token="sk-secret-token", on_event=events.append)
    assert (str(caught.value), caught.value.exit_code) == (INVALID, 3)
    assert caught.value.result is not None
    assert (caught.value.result.uploaded, caught.value.result.skipped) == (0, 3)
    assert caught.value.result.exit_code == 3
    assert events[-1] == Ended(caught.value.result)
    assert caught.value.hint == "The refused token came from the token argument. Give a valid token."
    assert server.uploads == []
    assert snapshot(spool) == batches


async def test_no_batch_is_sent_before_the_verification(spool: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    gate = Gate()
    with ScriptedServer() as server:
        server.on(*STATUS, json_answer({"valid": False}, stall_before=gate))
        async with anyio.create_task_group() as group:

            async def run() -> None:
                with pytest.raises(AuthInvalidError):
                    await flush(server, spool, token="sk-secret-token", in_flight=4)

            group.start_soon(run)
            await server.arrived(lambda s: len(s.requests) == 1)
            await anyio.wait_all_tasks_blocked()
            gate.open()
    assert [request.path for request in server.requests] == ["/api/cli/status"]


async def test_without_verification(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer() as server:
        await flush(server, spool, token="sk-secret-token", verify=False)
    assert [request.path for request in server.requests] == ["/api/traces"]


@pytest.mark.parametrize("answer", [Answer(401), json_answer({"valid": False})])
async def test_a_refused_verification_is_refreshed_silently(
    spool: Path, config: Path, answer: Answer
) -> None:
    sdk_batches(spool, 2, spans=TINY)
    write_login(config)
    events: list[FlushEvent] = []
    with ScriptedServer(check_auth=True) as server:
        server.on(*STATUS, answer)
        result = await flush(server, spool, config, on_event=events.append)
    assert (result.uploaded, warnings_in(events)) == (2, [])
    assert server.platform.rotations == 1
    assert {request.token for request in server.uploads} == {"access-1"}


async def test_the_refresh_token_has_expired_too(spool: Path, config: Path) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    write_login(config)
    before = content(config)
    with ScriptedServer(check_auth=True, access_token="other", refresh_token="other") as server:
        with pytest.raises(AuthInvalidError, match=INVALID):
            await flush(server, spool, config)
    assert content(config) == before
    assert len(server.seen(REFRESH[1])) == 1
    assert snapshot(spool) == batches
