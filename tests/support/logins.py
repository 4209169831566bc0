"""Logins in a configuration, and flushes that use them."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cirron_spool import (
    FlushEvent,
    FlushResult,
    Warned,
    flush_spool,
)
from support.scripted import ScriptedServer

STATUS = ("GET", "/api/cli/status")
REFRESH = ("POST", "/api/cli/auth/refresh")
UNKNOWN = {"refreshToken": None, "expiresAt": None}  # of credentials that have neither
INVALID = "Authentication invalid. Run cirron auth login first."


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
