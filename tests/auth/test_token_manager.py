"""The token: where it comes from, verification, refresh before and in a flush, rotation, and that it never shows."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
import threading
import traceback
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from cirron_spool import (
    AuthInvalidError,
    AuthRejectedError,
    ConfigError,
    Ended,
    Failed,
    FlushEvent,
    FlushResult,
    Retrying,
    TokenRenewalError,
    Uploaded,
    Warned,
    flush_spool,
)
from cirron_spool.auth import token_manager, token_store
from cirron_spool.auth.token_store import save, set_login, update
from cirron_spool.settings.model import Credentials
from cirron_spool.spool.lock import FileLock, HeldError, lock_file
from support.answers import HTML, JSON, Answer, Gate, html, json_answer, ok
from support.background import SAFETY_NET
from support.loopwatch import no_blocking_calls
from support.scripted import Request, ScriptedServer
from support.spools import TINY, sdk_batches, snapshot
from support.users import NOBODY, as_user, needs_root, shared_folder

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

STATUS = ("GET", "/api/cli/status")
REFRESH = ("POST", "/api/cli/auth/refresh")
UNKNOWN = {"refreshToken": None, "expiresAt": None}  # of credentials that have neither
INVALID = "Authentication invalid. Run cirron auth login first."


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / ".cirron"
    folder.mkdir(mode=0o700, parents=True)
    return folder / "config.json"


def iso(minutes: float) -> str:
    moment = datetime.now(UTC) + timedelta(minutes=minutes)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def write_login(config: Path, *, minutes: float | None = 60, **more: object) -> None:
    auth: dict[str, object] = {"accessToken": "access-0", "refreshToken": "refresh-0"}
    if minutes is not None:
        auth["expiresAt"] = iso(minutes)
    config.write_text(json.dumps({"auth": {**auth, "scope": "kept"}, **more}))
    config.chmod(0o600)


def put(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def content(path: Path) -> bytes:
    return path.read_bytes()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def login_in(config: Path) -> tuple[object, object]:
    auth = json.loads(config.read_bytes())["auth"]
    return auth["accessToken"], auth["refreshToken"]


async def flush(
    server: ScriptedServer, spool: Path, config: Path | None = None, **options: Any
) -> FlushResult:
    return await flush_spool(spool, api_url=server.url, config_path=config, **options)


def warnings_in(events: list[FlushEvent]) -> list[str]:
    return [event.message for event in events if isinstance(event, Warned)]


# -- where it comes from ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "key", "file", "expected"),
    [
        ("sk-argument", "sk-environment", {"token": "sk-file"}, "sk-argument"),
        (None, "sk-environment", {"token": "sk-file", "auth": {"accessToken": "access"}}, "sk-environment"),
        (None, "", {"token": "sk-file"}, "sk-file"),
        (None, None, {"token": "sk-file", "auth": {"accessToken": "sk-access"}}, "sk-access"),
        (None, None, {"token": "sk-file", "auth": {}}, "sk-file"),
        (None, None, {"token": "sk-file", "auth": None}, "sk-file"),
    ],
)
async def test_precedence_of_the_token(
    spool: Path,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    argument: str | None,
    key: str | None,
    file: dict[str, Any],
    expected: str,
) -> None:
    sdk_batches(spool, 1, spans=TINY)
    write_login(config, **{"auth": None, **file})
    if key is not None:
        monkeypatch.setenv("CIRRON_API_KEY", key)
    with ScriptedServer() as server:
        await flush(server, spool, config, token=argument)
    assert {request.token for request in server.requests} == {expected}


@pytest.mark.parametrize("source", ["argument", "environment", "file"])
async def test_precedence_of_the_endpoint(
    spool: Path, config: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer() as right, ScriptedServer() as wrong:
        order = ["file", "environment", "argument"]
        urls = {place: right.url if place == source else wrong.url for place in order}
        given = order[: order.index(source) + 1]
        write_login(config, apiUrl=f"{urls['file']}/")
        if "environment" in given:
            monkeypatch.setenv("CIRRON_API_ENDPOINT", urls["environment"])
        result = await flush_spool(
            spool, config_path=config, api_url=urls["argument"] if "argument" in given else None
        )
        assert result.uploaded == 1
        assert [request.path for request in right.requests] == ["/api/cli/status", "/api/traces"]
        assert wrong.requests == []


async def test_timeout_and_retries_of_the_file(spool: Path, config: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    write_login(config, timeout=250.0, retries=1)
    with ScriptedServer(*[ok(hang=True)] * 2) as server:
        result = await flush(server, spool, config)
        assert result.failures[0].message.endswith("timed out after 250ms")
        assert len(server.uploads) == 2
        server.script(Answer(503))
        assert (await flush(server, spool, config, retries=0)).uploaded == 0


async def test_the_home_is_where_the_configuration_is(
    spool: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk_batches(spool, 1, spans=TINY)
    write_login(config)
    monkeypatch.setenv("HOME", str(config.parent.parent))
    with ScriptedServer() as server:
        assert (await flush(server, spool)).uploaded == 1
    assert server.uploads[0].token == "access-0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"token": 3}',
        '{"auth": "x"}',
        '{"token": "a\\u0007b"}',
        '{"auth": {"accessToken": "a b"}}',
    ],
)
async def test_an_unusable_configuration_is_an_error_and_left_alone(
    spool: Path, config: Path, text: str
) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    put(config, text)
    with ScriptedServer() as server, pytest.raises(ConfigError, match=str(config)) as caught:
        await flush(server, spool, config)
    assert caught.value.exit_code == 2
    assert (server.requests, content(config)) == ([], text.encode())
    assert "\x07" not in str(caught.value)
    assert snapshot(spool) == batches


async def test_a_configuration_that_others_can_read_is_a_warning(spool: Path, config: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    write_login(config)
    os.chmod(config, 0o640)
    events: list[FlushEvent] = []
    with ScriptedServer() as server:
        result = await flush(server, spool, config, on_event=events.append)
    assert warnings_in(events) == [f"{config} can be read by other users. Run chmod 600 on it."]
    assert (result.uploaded, result.exit_code) == (1, 0)


@pytest.mark.parametrize("url", ["http://spool.test", "http://192.0.2.1:8000", "http://127.0.0.1.spool.test"])
async def test_plain_http_to_another_machine_is_refused(spool: Path, url: str) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    with pytest.raises(ConfigError, match="not sent over plain http to another machine") as caught:
        await flush_spool(spool, api_url=url, token="sk-secret-token")
    assert caught.value.exit_code == 2
    assert snapshot(spool) == batches


@pytest.mark.parametrize("where", ["argument", "file"])
async def test_plain_http_can_be_allowed(
    spool: Path, config: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk_batches(spool, 1, spans=TINY)
    if where == "file":
        write_login(config, allowHttp=True)
    else:
        write_login(config)
    with ScriptedServer() as server:
        # No name server: the one name stands for this machine, as another one's would in a closed network.
        monkeypatch.setattr(
            "socket.getaddrinfo", lambda *args, **more: [(2, 1, 6, "", ("127.0.0.1", server.port))]
        )
        result = await flush_spool(
            spool,
            api_url=f"http://api.spool.test:{server.port}",
            config_path=config,
            allow_http=True if where == "argument" else None,
        )
    assert result.uploaded == 1
    assert [request.headers["host"] for request in server.requests] == [
        f"api.spool.test:{server.port}",
        f"app.spool.test:{server.port}",  # where batches go
    ]


# -- verification -----------------------------------------------------------------------------------------------


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


# -- refresh ----------------------------------------------------------------------------------------------------


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
            "The server redirects to https://sso.example/?t=…. Redirects are never followed: set apiUrl to …",
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
    assert failed.hint.replace("where the platform really is.", "…") == hint


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
    lock_file(f"{config}.lock").give_back()


async def test_no_lock_is_held_while_a_refresh_waits(spool: Path, config: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    write_login(config, minutes=1)
    free: list[bool] = []

    def hear(event: FlushEvent) -> None:
        if isinstance(event, Warned):
            lock_file(f"{config}.lock").give_back()
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
    lock.give_back()
    assert server.seen(REFRESH[1]) == []


async def test_no_refresh_without_a_refresh_token(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer(Answer(401)) as server, pytest.raises(AuthRejectedError):
        await flush(server, spool, token="sk-secret-token")
    assert server.seen(REFRESH[1]) == []


# -- rotation ---------------------------------------------------------------------------------------------------


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


# -- two at once ------------------------------------------------------------------------------------------------


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
    lock.give_back()
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
            lock.give_back()


# -- it never shows ---------------------------------------------------------------------------------------------


def notes(quarantine: Path) -> list[Path]:
    return list(quarantine.glob("*.rejection.json"))


async def test_credentials_are_in_headers_only(
    spool: Path, config: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server even says them back, wherever an answer has room for it."""
    sdk_batches(spool, 5, spans=TINY)
    write_login(config, minutes=1)
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    secrets = ["access-0", "refresh-0", "access-1", "refresh-1"]

    def echo(status: int) -> Any:
        def answer(request: Request) -> Answer:
            text = f"token {request.token} is odd"
            headers = [("Location", f"/{request.token}"), ("X-Token", f"{request.token}")]
            return json_answer({"success": False, "error": text}, status, reason=text, headers=headers)

        return answer

    events: list[FlushEvent] = []
    shown: list[str] = []
    with ScriptedServer(echo(503), echo(200), ok(), echo(422), ok(), echo(403)) as server:
        server.on(*STATUS, echo(500))
        try:
            await flush(server, spool, config, on_event=events.append, quarantine=True)
        except AuthRejectedError as error:
            shown += [repr(error), str(error), *traceback.format_exception(error, chain=True)]
            shown.append(repr(error.result))
        server.script(echo(302))
        shown.append(repr(await flush(server, spool, config, on_event=events.append)))
    asyncio.get_running_loop().set_debug(False)
    assert server.platform.rotations == 1
    assert len(server.uploads) == 7
    quarantined = [content(path).decode() for path in notes(spool.parent / "quarantine")]
    assert len(quarantined) == 1
    captured = capfd.readouterr()
    everything = "\n".join([*shown, repr(events), *quarantined, caplog.text, captured.out, captured.err])
    for secret in secrets:
        at = everything.find(secret)
        assert at < 0, everything[max(0, at - 200) : at + 200]
    for request in server.requests:
        assert not any(secret in request.target for secret in secrets)


def test_credentials_do_not_show_themselves() -> None:
    text = repr(Credentials("sk-secret", "refresh-secret", datetime(2030, 1, 1, tzinfo=UTC)))
    assert "secret" not in text
    assert "2030" in text


@pytest.mark.parametrize("token", ["a\nb", "a\x00", "caf\u00e9", " ", "a\tb", "\u202e"])
async def test_a_token_that_no_header_holds_is_refused(
    spool: Path, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer() as server:
        with pytest.raises(ConfigError) as by_argument:
            await flush(server, spool, token=f"sk-{token}")
        if "\x00" in token:
            return  # the environment holds none
        monkeypatch.setenv("CIRRON_API_KEY", f"sk-{token}")
        with pytest.raises(ConfigError) as by_environment:
            await flush(server, spool)
    for caught in (by_argument, by_environment):
        assert f"sk-{token}" not in str(caught.value)
        assert str(caught.value).isprintable()
    assert server.requests == []
