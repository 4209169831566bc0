"""Load the settings of a flush. Each value has an origin.

The layers, lowest first: defaults, ``~/.cirron/config.toml`` of the SDK, ``~/.cirron/config.json``, the environment,
arguments. No file is changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cirron_spool.protocol.verdict import INGEST_PATH
from cirron_spool.settings.model import Settings
from cirron_spool.settings.origin import Setting
from cirron_spool.settings.sources import (
    ALLOW_HTTP,
    API_URL,
    INGEST_PATH_KEY,
    RETRIES,
    TIMEOUT,
    Layers,
)
from cirron_spool.settings.urls import DEFAULT_API_URL, check_path, check_url

DEFAULT_TIMEOUT_MS = 30_000
DEFAULT_RETRIES = 3
# A day. Timers of some systems overflow with more.
_LONGEST_TIMEOUT_MS = 86_400_000
_MOST_RETRIES = 100
# The configuration path of a user without a home. No regular file, so it is never read or written.
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
    credentials: bool = True,
) -> Settings:
    """Load and check the settings. Blocking.

    ``config_path`` replaces ``~/.cirron/config.json``. ``origins`` replaces the names of arguments in messages. An
    unusable file is only a warning if the token is an argument or in the environment. With ``credentials`` False, the
    token is neither loaded nor checked, for a sign-in. Raises ConfigError, which names the value and its origin.
    """
    layers = Layers(
        environ,
        {
            "api_url": api_url,
            "token": token,
            "timeout_ms": timeout_ms,
            "retries": retries,
            "allow_http": allow_http,
        },
        origins or {},
        config_path,
    )
    address = layers.text(API_URL, DEFAULT_API_URL)
    allowed = layers.flag(ALLOW_HTTP)
    base, ingest_origin = check_url(address, http_allowed=allowed.value)
    path = layers.text(INGEST_PATH_KEY, INGEST_PATH)
    timeout, attempts = timeout_in(layers), retries_in(layers)
    found = layers.credentials() if credentials else None
    remedy = ""
    if found is not None:
        remedy = layers.remedy(found)
        # Token and address have different origins, so the wrong platform may have refused the token.
        if address.origin.kind != "default" and address.origin.file != found.origin.file:
            remedy = f"It was sent to {base}, an address from {address.origin.place}. {remedy}".rstrip()
    return Settings(
        api_url=base,
        ingest_origin=ingest_origin,
        timeout_ms=timeout.value,
        retries=attempts.value,
        credentials=found,
        config_path=layers.json_path or _NO_FILE,
        warnings=(
            *(
                f"{problem.what}. The file is ignored. Batches go to {base} ({address.origin})."
                for problem in layers.unusable
            ),
            *layers.warnings,
        ),
        ingest_path=check_path(path),
        allow_http=allowed.value,
        origins={
            "api_url": address.origin,
            "ingest_path": path.origin,
            "timeout_ms": timeout.origin,
            "retries": attempts.origin,
            "allow_http": allowed.origin,
        },
        remedy=remedy,
        missing_hint=layers.missing_hint(),
        overridden=layers.overridden_login(found),
    )


def timeout_in(layers: Layers) -> Setting[int]:
    """The timeout in milliseconds. Raises ConfigError."""
    return layers.number(TIMEOUT, DEFAULT_TIMEOUT_MS, 1, _LONGEST_TIMEOUT_MS, " (milliseconds)")


def retries_in(layers: Layers) -> Setting[int]:
    """The attempts after the first. Raises ConfigError."""
    return layers.number(RETRIES, DEFAULT_RETRIES, 0, _MOST_RETRIES)
