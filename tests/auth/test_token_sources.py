"""Where the token, the endpoint and the limits come from, and what is refused before anything is sent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import (
    ConfigError,
    FlushEvent,
    flush_spool,
)
from support.answers import Answer, ok
from support.logins import (
    content,
    flush,
    put,
    warnings_in,
    write_login,
)
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]


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
