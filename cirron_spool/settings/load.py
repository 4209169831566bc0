"""Load the settings of a flush; each value knows its origin.

Defaults, then ``~/.cirron/config.toml`` (the SDK's own), ``~/.cirron/config.json`` (shared with the official tool), the
environment, and the caller. Reading never changes a file; the token manager writes ``config.json``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cirron_spool.protocol.verdict import INGEST_PATH
from cirron_spool.settings.model import Settings
from cirron_spool.settings.sources import API_URL, DEFAULT, INGEST_PATH_KEY, Found, Layers
from cirron_spool.settings.urls import DEFAULT_API_URL, check_path, check_url

DEFAULT_TIMEOUT_MS = 30_000
DEFAULT_RETRIES = 3
# A day: beyond it a "timeout" bounds nothing, and timers overflow on some platforms.
_LONGEST_TIMEOUT_MS = 86_400_000
_MOST_RETRIES = 100
# The configuration of a user without a home: it cannot be read as a file, and is never written.
_NO_FILE = Path(os.devnull)


def load_settings(
    environ: Mapping[str, str],
    *,
    config_path: str | os.PathLike[str] | None = None,
    api_url: str | None = None,
    token: str | None = None,
    timeout_ms: int | None = None,
    retries: int | None = None,
    allow_http: bool | None = None,
    origins: Mapping[str, str] | None = None,
) -> Settings:
    """Lay the arguments over the environment, that over the files, and those over the defaults. Blocking.

    ``origins`` names the arguments in messages. A file that cannot be used is a warning where the token is an
    argument or in the environment. Raises ConfigError, whose message names the value and its origin.
    """
    layers = Layers(
        environ,
        {"api_url": api_url, "token": token},
        origins or {},
        config_path,
    )
    url = layers.first(API_URL) or Found(DEFAULT_API_URL, DEFAULT, None)
    allowed, allowed_by = layers.flag("allowHttp", "allow_http", allow_http)
    base, ingest_origin = check_url(url.value, url.source, http_allowed=allowed)
    path = layers.first(INGEST_PATH_KEY) or Found(INGEST_PATH, DEFAULT, None)
    timeout = layers.number("timeout", "timeout_ms", timeout_ms, DEFAULT_TIMEOUT_MS, 1, _LONGEST_TIMEOUT_MS)
    attempts = layers.number("retries", "retries", retries, DEFAULT_RETRIES, 0, _MOST_RETRIES)
    token_found = layers.token()
    sources = {
        "api_url": url.source,
        "ingest_path": path.source,
        "timeout_ms": timeout[1],
        "retries": attempts[1],
        "allow_http": allowed_by,
    }
    remedy = ""
    if token_found is not None:
        sources["token"] = token_found[0].source
        remedy = layers.remedy(*token_found)
        if url.place not in (None, token_found[1]):
            remedy = f"It was sent to {base}, from {url.source}. {remedy}".rstrip()
    return Settings(
        api_url=base,
        ingest_origin=ingest_origin,
        timeout_ms=timeout[0],
        retries=attempts[0],
        credentials=token_found[0] if token_found is not None else None,
        config_path=layers.json_path or _NO_FILE,
        warnings=(
            *(f"{what}. Going on without it, to {base} ({url.source})." for what in layers.unusable),
            *layers.warnings,
        ),
        ingest_path=check_path(path.value, path.source),
        origins=sources,
        remedy=remedy,
        missing_hint=layers.missing_hint(),
    )
