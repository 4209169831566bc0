"""Requests as a server sees them, failed connections, and the session of a caller."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cirron_spool import ConfigError, Failed, FlushEvent, FlushResult, Warned, flush_spool
from cirron_spool.http.transport import Transport
from cirron_spool.http.upload_body import Upload
from cirron_spool.protocol.answer import Answer as Heard
from support.answers import Answer, html, json_answer, ok
from support.background import closed_port
from support.scripted import ScriptedServer
from support.spools import TINY, random_batch, sdk_batches, snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-transport-secret"


async def flush(server: ScriptedServer, spool: Path, **options: Any) -> FlushResult:
    return await flush_spool(spool, **{"api_url": server.url, "token": TOKEN, **options})


async def test_a_transport_reuses_one_connection_for_all_requests() -> None:
    with ScriptedServer() as server:
        closed = Transport(timeout_ms=1000)
        with pytest.raises(RuntimeError, match="not open"):
            await closed.get(f"{server.url}/api/cli/status", {})
        async with Transport(timeout_ms=1000) as transport:
            got = await transport.get(f"{server.url}/api/cli/status", {"Authorization": "Bearer t"})
            assert isinstance(got, Heard)
            assert (got.status, got.complete, got.delimited, got.early) == (200, True, True, False)
            sent = await transport.post(
                f"{server.url}/api/traces", {"X-Cirron-Batch-Id": "0a"}, Upload((b"{", b"}"), 2)
            )
            assert isinstance(sent, Heard)
            assert sent.sent == 2
            assert server.connections == 1
    assert [request.body for request in server.uploads] == [b"{}"]


async def test_cookies_are_ignored(spool: Path) -> None:
    sdk_batches(spool, 3, spans=TINY)
    cookie = ("Set-Cookie", "session=1; Path=/")
    with ScriptedServer(ok(headers=[cookie]), ok(headers=[cookie])) as server:
        server.on("GET", "/api/cli/status", json_answer({"valid": True}, headers=[cookie]))
        await flush(server, spool)
    assert len(server.requests) == 4
    assert not any("cookie" in request.headers for request in server.requests)


async def test_a_captive_portal_is_no_acknowledgement(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    events: list[FlushEvent] = []
    with ScriptedServer(html()) as server:
        server.on("GET", "/api/cli/status", html())
        result = await flush(server, spool, on_event=events.append)
    assert (result.uploaded, result.failed, result.exit_code) == (0, 1, 1)
    [failed] = [event for event in events if isinstance(event, Failed)]
    assert "captive portal" in failed.hint
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "Could not verify auth before flush: the answer is not the expected JSON. Proceeding anyway."
    ]
    assert snapshot(spool) == batches


# -- failed connections ----------------------------------------------------------------------------------------


async def test_a_reset_within_or_after_the_body_is_retried_with_the_same_bytes(spool: Path) -> None:
    body = random_batch(spool, 3_000_000)
    script = [ok(read_only=10_000, reset=True), ok(cut_after=0, reset=True), ok(read_only=1)]
    with ScriptedServer(*script) as server:
        result = await flush(server, spool)
    assert (result.uploaded, len(server.uploads)) == (1, 4)
    assert {request.batch_id for request in server.uploads} == {"01"}
    assert server.uploads[1].body == server.uploads[3].body
    assert server.deliveries == [("01", body)]


async def test_a_refused_connection_is_a_temporary_failure(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    port = closed_port()
    events: list[FlushEvent] = []
    result = await flush_spool(
        spool, api_url=f"http://127.0.0.1:{port}", token=TOKEN, retries=1, on_event=events.append
    )
    said = f"cannot connect to 127.0.0.1:{port}: Connection refused"
    assert [f.message for f in result.failures] == [f"Network error uploading {batches[0].name}: {said}"]
    assert [event.message for event in events if isinstance(event, Warned)] == [
        f"Could not verify auth before flush: {said}. Proceeding anyway."
    ]
    assert (result.exit_code, result.skipped) == (4, 1)


# -- the caller's session --------------------------------------------------------------------------------------


async def test_a_callers_session_is_used_and_left_open(spool: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer(ok(headers=[("Set-Cookie", "theirs=1")])) as server:
        async with aiohttp.ClientSession(headers={"X-Theirs": "1"}) as session:
            result = await flush(server, spool, session=session)
            assert not session.closed
            async with session.get(f"{server.url}/api/cli/status") as response:
                assert response.status == 200
                assert (await response.json())["valid"] is True
    assert result.uploaded == 2
    assert {request.headers["x-theirs"] for request in server.requests} == {"1"}
    assert {request.headers["user-agent"] for request in server.uploads} == {
        server.uploads[0].headers["x-cirron-sdk-version"]
    }
    assert server.connections == 1


async def test_a_callers_session_follows_no_redirect(spool: Path) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer() as elsewhere, ScriptedServer() as server:
        server.script(Answer(307, headers=[("Location", f"{elsewhere.url}/api/traces")]))
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            result = await flush(server, spool, session=session, verify=False)
    assert (result.exit_code, elsewhere.requests) == (1, [])
    assert snapshot(spool) == batches


async def test_a_callers_session_decodes_no_answer() -> None:
    """A decoded answer could be any number of times longer than the 64 KB that are read."""
    packed = gzip.compress(b'{"success": true}')
    headers = [("Content-Encoding", "gzip"), ("Content-Type", "application/json")]
    with ScriptedServer(Answer(200, headers=headers, body=packed)) as server:
        async with aiohttp.ClientSession() as session:
            async with Transport(timeout_ms=10_000, session=session) as transport:
                heard = await transport.post(
                    f"{server.url}/api/traces", {"X-Cirron-Batch-Id": "0a"}, Upload((b"{}",), 2)
                )
    assert isinstance(heard, Heard)
    assert heard.body == packed


async def test_a_session_with_credentials_of_its_own_is_refused(
    spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as those of a .netrc."""
    batches = sdk_batches(spool, 1, spans=TINY)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login alice password sk-netrc\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with ScriptedServer() as server:
        async with aiohttp.ClientSession(trust_env=True) as session:
            with pytest.raises(ConfigError, match="The session cannot send this request: ") as caught:
                await flush(server, spool, session=session)
    assert "sk-netrc" not in str(caught.value)
    assert server.requests == []
    assert snapshot(spool) == batches


async def test_a_closed_session_raises_and_keeps_the_batches(spool: Path) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    session = aiohttp.ClientSession()
    await session.close()
    with ScriptedServer() as server, pytest.raises(RuntimeError, match="Session is closed"):
        await flush(server, spool, session=session)
    assert server.requests == []
    assert snapshot(spool) == batches
