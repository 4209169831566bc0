"""A token never shows."""

from __future__ import annotations

import asyncio
import logging
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import (
    AuthRejectedError,
    ConfigError,
    FlushEvent,
)
from cirron_spool.settings.model import Credentials
from support.answers import Answer, json_answer, ok
from support.logins import (
    STATUS,
    content,
    flush,
    write_login,
)
from support.scripted import Request, ScriptedServer
from support.spools import TINY, sdk_batches

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]


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
