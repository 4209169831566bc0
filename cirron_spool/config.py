"""What a flush is set to: defaults, then ``~/.cirron/config.json``, then the environment, then the caller.

The file is shared with the official tool. Reading it never changes it; :mod:`cirron_spool.credentials` writes it.
"""

from __future__ import annotations

import ipaddress
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from cirron_spool.errors import ConfigError, resource_error
from cirron_spool.naming import printable
from cirron_spool.places import default_config_path

DEFAULT_API_URL = "https://api.cirron.com"
DEFAULT_TIMEOUT_MS = 30_000
DEFAULT_RETRIES = 3
# A day: beyond it a "timeout" bounds nothing, and timers overflow on some platforms.
_LONGEST_TIMEOUT_MS = 86_400_000
_MOST_RETRIES = 100
# Nobody's configuration; a file of this size was put there by mistake, or worse.
_LARGEST_CONFIG_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Credentials:
    """A bearer token and, for a login, what renews it. ``expires_at`` (aware, UTC) is a hint: the 401 decides.

    ``source`` says where the token stands. ``remedy`` says how to replace it where ``cirron auth login`` does not.
    Neither makes two credentials differ.
    """

    token: str
    refresh_token: str | None = None
    expires_at: datetime | None = None
    source: str = field(default="the token argument", compare=False)
    remedy: str = field(default="", compare=False)

    def __repr__(self) -> str:  # a token never reaches a log or a traceback
        renewable = self.refresh_token is not None
        return f"Credentials(token=…, renewable={renewable}, expires_at={self.expires_at}, source={self.source!r})"


@dataclass(frozen=True, slots=True)
class Settings:
    """Validated settings. ``api_url`` has no trailing slash; ``ingest_origin`` is where batches go."""

    api_url: str
    ingest_origin: str
    timeout_ms: int
    retries: int
    credentials: Credentials | None
    config_path: Path
    warnings: tuple[str, ...] = ()

    def refusal_hint(self, credentials: Credentials) -> str:
        """For a person whose token was refused: where it came from, and how to replace it."""
        return f"The refused token came from {credentials.source}. {credentials.remedy}".rstrip()

    def missing_hint(self) -> str:
        """For a person without a token: where one was looked for."""
        return f"There is no token in CIRRON_API_KEY or {printable(str(self.config_path))}."


def load_settings(
    environ: Mapping[str, str],
    *,
    config_path: str | os.PathLike[str] | None = None,
    api_url: str | None = None,
    token: str | None = None,
    timeout_ms: int | None = None,
    retries: int | None = None,
    allow_http: bool | None = None,
) -> Settings:
    """Read the configuration and lay the environment and the caller's options over it. Blocking.

    Raises ConfigError, whose message names what is wrong and where it stands.
    """
    path = Path(config_path) if config_path is not None else default_config_path()
    document, warnings = read_config(path)
    where = printable(str(path))

    url_from = "the api_url argument"
    url = api_url
    if url is None and (url := environ.get("CIRRON_API_ENDPOINT") or None) is not None:
        url_from = "CIRRON_API_ENDPOINT"
    if url is None:
        url_from = f"apiUrl in {where}"
        url = _text(document, "apiUrl", where) or DEFAULT_API_URL
    http_allowed = allow_http if allow_http is not None else _flag(document, "allowHttp", where)
    base, origin = _check_url(url, url_from, http_allowed)

    return Settings(
        api_url=base,
        ingest_origin=origin,
        timeout_ms=_number(
            timeout_ms, document, "timeout", where, DEFAULT_TIMEOUT_MS, 1, _LONGEST_TIMEOUT_MS
        ),
        retries=_number(retries, document, "retries", where, DEFAULT_RETRIES, 0, _MOST_RETRIES),
        credentials=_credentials(environ, document, where, token),
        config_path=path,
        warnings=warnings,
    )


def read_config(path: Path) -> tuple[dict[str, object], tuple[str, ...]]:
    """The configuration file's object ({} where there is no file) and warnings about it.

    Raises ConfigError when it is unreadable, not a JSON object, another user's, or writable by everybody.
    """
    where = printable(str(path))
    try:
        with open(
            path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
        ) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{where} is not a file. Move it away, then run cirron auth login.")
            text = file.read(_LARGEST_CONFIG_BYTES + 1)
    except FileNotFoundError:
        return {}, ()
    except OSError as error:
        raise resource_error(error) or ConfigError(
            f"Cannot read {where}: {error.strerror}. Check its permissions."
        ) from None
    except ValueError:  # a NUL in the path
        raise ConfigError(f"{where} is not a path. Name the configuration file.") from None
    warnings = _check_owner(status, where)
    if len(text) > _LARGEST_CONFIG_BYTES:
        raise ConfigError(f"{where} is larger than a configuration can be. Correct it, or move it away.")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(
            f"{where} is not valid JSON. Correct it, or move it away and run cirron auth login."
        ) from None
    if not isinstance(document, dict):
        raise ConfigError(
            f"{where} does not hold a JSON object. Correct it, or move it away and run cirron auth login."
        )
    return document, warnings


def credentials_in(document: Mapping[str, object], where: str) -> Credentials | None:
    """The credentials in a configuration: ``auth.accessToken`` before ``token``. Raises ConfigError."""
    auth = document.get("auth")
    if auth is not None and not isinstance(auth, dict):
        raise ConfigError(f"auth in {where} is not an object. Run cirron auth login again.")
    if auth:
        access = _text(auth, "accessToken", where)
        if access:
            refresh = _text(auth, "refreshToken", where)
            source = f"auth.accessToken in {where}"
            return Credentials(
                check_token(access, source),
                check_token(refresh, f"auth.refreshToken in {where}") if refresh else None,
                _moment(auth.get("expiresAt")),
                source,
            )
    token = _text(document, "token", where)
    source = f"token in {where}"
    return Credentials(check_token(token, source), source=source) if token else None


def check_token(token: str, source: str) -> str:
    """``token`` if it can stand in a header; raises ConfigError, which never shows it, otherwise."""
    if not token or not token.isascii() or any(not 0x21 <= ord(char) <= 0x7E for char in token):
        raise ConfigError(
            f"The token from {source} holds control characters, blanks or letters that no token has. "
            "Set it again, or run cirron auth login."
        )
    return token


def is_loopback(host: str | None) -> bool:
    """Whether ``host`` is this machine: localhost (also ``*.localhost``, RFC 6761), 127.0.0.0/8 or ::1."""
    if host is None:
        return False
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _credentials(
    environ: Mapping[str, str], document: Mapping[str, object], where: str, token: str | None
) -> Credentials | None:
    login = f"use the login in {where}" if document.get("auth") or document.get("token") else ""
    if token is not None:
        remedy = f"Give a valid token, or none to {login}." if login else "Give a valid token."
        return Credentials(check_token(token, "the token argument"), remedy=remedy)
    key = environ.get("CIRRON_API_KEY")
    if key:
        instead = login or "use cirron auth login"
        return Credentials(
            check_token(key, "CIRRON_API_KEY"),
            source="CIRRON_API_KEY",
            remedy=f"Unset it to {instead}, or set a valid key.",
        )
    return credentials_in(document, where)


def _check_url(url: str, source: str, http_allowed: bool) -> tuple[str, str]:
    """The URL without its trailing slash, and the ingest origin that follows from it (SPEC section 4)."""
    if any(mark in url for mark in "@?#\\"):
        # Not shown: it may hold a password.
        raise ConfigError(
            f"{source} must not hold a user, a password, a query or a fragment. Set it without them."
        )
    shown = printable(url)[:200]
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if (
        parts.scheme not in ("http", "https")
        or not host
        or any(not 0x21 <= ord(char) <= 0x7E for char in url)
    ):
        raise ConfigError(f"{source} is not a web address: {shown!r}. Set it to one like {DEFAULT_API_URL}.")
    if parts.scheme == "http" and not http_allowed and not is_loopback(host):
        raise ConfigError(
            f"{source} is {shown!r}: credentials are not sent over plain http to another machine. "
            'Use https; in a closed network --allow-http, or "allowHttp": true in the configuration, permits it.'
        )
    web_host = "app." + host.removeprefix("api.") if host.startswith("api.") else host
    if ":" in web_host:
        web_host = f"[{web_host}]"
    origin = f"{parts.scheme}://{web_host}" + (f":{port}" if port is not None else "")
    return url.rstrip("/"), origin


def _check_owner(status: os.stat_result, where: str) -> tuple[str, ...]:
    if not hasattr(os, "geteuid"):
        return ()
    if status.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
        raise ConfigError(f"{where} belongs to another user. Move it away, then run cirron auth login.")
    if status.st_mode & stat.S_IWOTH:
        raise ConfigError(
            f"{where} can be written by every user of this machine. Run chmod 600 on it, then look at it."
        )
    if status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return (f"{where} can be read by other users. Run chmod 600 on it.",)
    return ()


def _text(document: Mapping[str, object], key: str, where: str) -> str | None:
    value = document.get(key)
    if value is None or isinstance(value, str):
        return value
    raise ConfigError(f"{key} in {where} is not a text. Correct it.")


def _flag(document: Mapping[str, object], key: str, where: str) -> bool:
    value = document.get(key, False)
    if isinstance(value, bool):
        return value
    raise ConfigError(f"{key} in {where} is not true or false. Correct it.")


def _number(
    given: int | None,
    document: Mapping[str, object],
    key: str,
    where: str,
    default: int,
    least: int,
    most: int,
) -> int:
    value: object = given
    source = key
    if value is None:
        value, source = document.get(key, default), f"{key} in {where}"
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one kind of number: 30000.0 is 30000
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        unit = " (milliseconds)" if key == "timeout" else ""
        raise ConfigError(f"{source} must be a whole number from {least} to {most}{unit}. Correct it.")
    return value


def _moment(value: object) -> datetime | None:
    """An ISO 8601 time; None for anything else, since it is only a hint."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
