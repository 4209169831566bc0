"""What a flush is set to, and where each value came from.

Defaults, then ``~/.cirron/config.toml`` (the SDK's own), ``~/.cirron/config.json`` (shared with the official tool), the
environment, and the caller. Reading never changes a file; the token manager writes ``config.json``.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from yarl import URL

from cirron_spool.errors import ConfigError
from cirron_spool.protocol.verdict import INGEST_PATH
from cirron_spool.settings.files import (
    CONFIG_NAME,
    SDK_CONFIG_NAME,
    Document,
    UnusableFileError,
    home_file,
    read_config,
    read_sdk_config,
    text_in,
)
from cirron_spool.text import printable

DEFAULT_API_URL = "https://api.cirron.com"
DEFAULT_TIMEOUT_MS = 30_000
DEFAULT_RETRIES = 3
# A day: beyond it a "timeout" bounds nothing, and timers overflow on some platforms.
_LONGEST_TIMEOUT_MS = 86_400_000
_MOST_RETRIES = 100
# The configuration of a user without a home: it cannot be read as a file, and is never written.
_NO_FILE = Path(os.devnull)

_DEFAULT = "the default"

# An address as it may be set: a scheme, a host or an IPv6 address in brackets, a port, and a path that is dropped.
_ADDRESS = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[^\[\]/]+\]|[^\[\]/:]+)(?::(?P<port>[0-9]{0,5}))?(?:/.*)?",
    re.IGNORECASE,
)
_LABEL = r"(?!-)[a-z0-9_-]{1,63}"
_HOST = re.compile(rf"(?=.{{1,254}}$){_LABEL}(?:\.{_LABEL})*\.?")
# No query, no fragment, nothing that a request line or a URL reads otherwise, and no way up.
_PATH = re.compile(r"(?!.*/\.{1,2}(?:/|$))/(?:[A-Za-z0-9/._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A bearer token and, for a login, what renews it. ``expires_at`` (aware, UTC) is a hint: the 401 decides.

    ``source`` says where the token stands. It makes no two credentials differ.
    """

    token: str
    refresh_token: str | None = None
    expires_at: datetime | None = None
    source: str = field(default="the token argument", compare=False)

    def __repr__(self) -> str:  # a token never reaches a log or a traceback
        renewable = self.refresh_token is not None
        return f"Credentials(token=…, renewable={renewable}, expires_at={self.expires_at}, source={self.source!r})"


@dataclass(frozen=True, slots=True)
class Settings:
    """Validated settings.

    ``api_url`` and ``ingest_origin`` are origins without a path; batches go to ``ingest_path`` below the second.
    ``origins`` says where each value came from. ``remedy`` says how to replace a token that is refused where
    ``cirron auth login`` does not, ``missing_hint`` where a token was looked for. Both are for a person.
    """

    api_url: str
    ingest_origin: str
    timeout_ms: int
    retries: int
    credentials: Credentials | None
    config_path: Path
    warnings: tuple[str, ...] = ()
    ingest_path: str = INGEST_PATH
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    remedy: str = field(default="", compare=False)
    missing_hint: str = field(default="", compare=False)

    def refusal_hint(self, credentials: Credentials) -> str:
        """For a person whose token was refused: where it came from, and how to replace it."""
        return f"The refused token came from {credentials.source}. {self.remedy}".rstrip()


class _Found(NamedTuple):
    """A text, where it stands in words, and in which place: a file's path, or empty for argument and environment."""

    value: str
    source: str
    place: str | None = ""


@dataclass(frozen=True, slots=True)
class _Key:
    """One setting's names: an argument, a variable, a key of config.json and one of config.toml; empty for none."""

    argument: str
    variable: str
    json: str
    toml: str


_API_URL = _Key("api_url", "CIRRON_API_ENDPOINT", "apiUrl", "api_endpoint")
_INGEST_PATH = _Key("", "CIRRON_INGEST_PATH", "", "ingest_path")
_TOKEN = _Key("token", "CIRRON_API_KEY", "", "api_key")


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
    argument or in the environment. Raises ConfigError, whose message names what is wrong and where it stands.
    """
    layers = _Layers(
        environ,
        {"api_url": api_url, "token": token},
        origins or {},
        config_path,
    )
    url = layers.first(_API_URL) or _Found(DEFAULT_API_URL, _DEFAULT, None)
    allowed, allowed_by = layers.flag("allowHttp", "allow_http", allow_http)
    base, ingest_origin = _check_url(url.value, url.source, http_allowed=allowed)
    path = layers.first(_INGEST_PATH) or _Found(INGEST_PATH, _DEFAULT, None)
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
        ingest_path=_check_path(path.value, path.source),
        origins=sources,
        remedy=remedy,
        missing_hint=layers.missing_hint(),
    )


class _Layers:
    """The places where a setting can stand, highest first. A file is read when something is looked for in it.

    ``unusable`` collects the files that could not be used, ``warnings`` what is to be said about the others.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        given: Mapping[str, str | None],
        origins: Mapping[str, str],
        config_path: str | os.PathLike[str] | None,
    ) -> None:
        self._environ = environ
        self._given = given
        self._origins = origins
        self.json_path = Path(config_path) if config_path is not None else home_file(CONFIG_NAME)
        self._toml_path = home_file(SDK_CONFIG_NAME)
        self._files_needed = given["token"] is None and not environ.get(_TOKEN.variable)
        self._toml_warnings: tuple[str, ...] = ()
        self.unusable: list[str] = []
        self.warnings: tuple[str, ...] = ()

    def first(self, key: _Key) -> _Found | None:
        """The setting from the highest place that has it. Raises ConfigError for a file that cannot be used."""
        return next(self._all(key), None)

    def flag(self, key: str, argument: str, given: bool | None) -> tuple[bool, str]:
        """A setting that is true or false, and its source."""
        if given is not None:
            return given, self._name(argument)
        if key not in self._json:
            return False, _DEFAULT
        value, source = self._json[key], f"{key} in {self._json_where}"
        if not isinstance(value, bool):
            raise ConfigError(f"{source} is not true or false. Correct it.")
        return value, source

    def number(
        self, key: str, argument: str, given: int | None, default: int, least: int, most: int
    ) -> tuple[int, str]:
        """A whole number from ``least`` to ``most``, and its source."""
        value: object
        if given is not None:
            value, source = given, self._origins.get(argument, argument)
        elif key in self._json:
            value, source = self._json[key], f"{key} in {self._json_where}"
        else:
            return default, _DEFAULT
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON has one kind of number: 30000.0 is 30000
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            unit = " (milliseconds)" if key == "timeout" else ""
            raise ConfigError(f"{source} must be a whole number from {least} to {most}{unit}. Correct it.")
        return value, source

    def token(self) -> tuple[Credentials, str] | None:
        """The credentials to use, and the place that they stand in. Raises ConfigError for a bad token."""
        for found in self._given_and_environment(_TOKEN):
            return Credentials(check_token(found.value, found.source), source=found.source), ""
        login = credentials_in(self._json, self._json_where)
        if login is not None:
            return login, self._json_where
        for found in self._in_toml(_TOKEN):
            self.warnings += self._toml_warnings  # who else can read the file matters to a secret in it
            return Credentials(check_token(found.value, found.source), source=found.source), self._toml_where
        return None

    def remedy(self, credentials: Credentials, place: str) -> str:
        """How to replace refused ``credentials`` from ``place``, where ``cirron auth login`` does not."""
        if place == self._json_where:
            return ""
        if place == self._toml_where:
            return "Put a valid key there."
        login = ""
        with suppress(ConfigError):  # not used, so not judged
            if credentials_in(self._json, self._json_where):
                login = f"use the login in {self._json_where}"
        if credentials.source == _TOKEN.variable:
            return f"Unset it to {login}, or set a valid key." if login else "Set a valid key, or unset it."
        if self._environ.get(_TOKEN.variable):
            login = f"use {_TOKEN.variable}"
        return f"Give a valid token, or leave it out to {login}." if login else "Give a valid token."

    def missing_hint(self) -> str:
        """Where a token was looked for."""
        if self.json_path is None:
            return (
                f"There is no token in {_TOKEN.variable}, and no home directory that could hold a login. "
                f"Set {_TOKEN.variable}, or HOME."
            )
        places = [_TOKEN.variable, self._json_where, *([self._toml_where] if self._toml_path else [])]
        return f"There is no token in {', '.join(places[:-1])} or {places[-1]}."

    def _all(self, key: _Key) -> Iterator[_Found]:
        yield from self._given_and_environment(key)
        if key.json and (text := text_in(self._json, key.json, self._json_where)):
            yield _Found(text, f"{key.json} in {self._json_where}", self._json_where)
        yield from self._in_toml(key)

    def _given_and_environment(self, key: _Key) -> Iterator[_Found]:
        given = self._given.get(key.argument)
        if given is not None:
            yield _Found(given, self._name(key.argument))
        if value := self._environ.get(key.variable):  # an empty variable says nothing, as in the SDK
            yield _Found(value, key.variable)

    def _in_toml(self, key: _Key) -> Iterator[_Found]:
        if text := text_in(self._toml, key.toml, self._toml_where):
            yield _Found(text, f"{key.toml} in {self._toml_where}", self._toml_where)

    def _name(self, argument: str) -> str:
        return self._origins.get(argument, f"the {argument} argument")

    @cached_property
    def _json(self) -> Document:
        document, warnings = self._read(read_config, self.json_path)
        self.warnings += warnings
        return document

    @cached_property
    def _toml(self) -> Document:
        document, self._toml_warnings = self._read(read_sdk_config, self._toml_path)
        return document

    @cached_property
    def _json_where(self) -> str:
        return printable(str(self.json_path))

    @cached_property
    def _toml_where(self) -> str:
        return printable(str(self._toml_path))

    def _read(
        self, read: Callable[[Path], tuple[Document, tuple[str, ...]]], path: Path | None
    ) -> tuple[Document, tuple[str, ...]]:
        if path is None:
            return {}, ()
        try:
            return read(path)
        except UnusableFileError as error:
            if self._files_needed:
                raise ConfigError(str(error)) from None
            self.unusable.append(error.what)
            return {}, ()


def credentials_in(document: Document, where: str) -> Credentials | None:
    """The credentials in a ``config.json``: ``auth.accessToken`` before ``token``. Raises ConfigError."""
    auth = document.get("auth")
    if auth is not None and not isinstance(auth, dict):
        raise ConfigError(f"auth in {where} is not an object. Run cirron auth login again.")
    if auth and (access := text_in(auth, "accessToken", where)):
        refresh = text_in(auth, "refreshToken", where)
        source = f"auth.accessToken in {where}"
        return Credentials(
            check_token(access, source),
            check_token(refresh, f"auth.refreshToken in {where}") if refresh else None,
            _moment(auth.get("expiresAt")),
            source,
        )
    token = text_in(document, "token", where)
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
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _check_url(url: str, source: str, *, http_allowed: bool) -> tuple[str, str]:
    """The origin of the API, whose path is dropped, and the ingest origin that follows from it."""
    url = url.strip()
    if any(mark in url for mark in "@?#\\"):
        # Not shown: it may hold a password.
        raise ConfigError(
            f"{source} must not hold a user, a password, a query or a fragment. Set it without them."
        )
    shown = printable(url)[:200]
    origin = _origin(url)
    if origin is None:
        completed = _origin(f"https://{url}") if "//" not in url else None
        if completed is not None and is_loopback(completed.raw_host):
            completed = completed.with_scheme("http")
        raise ConfigError(
            f"{source} is not a web address: '{shown}'. Set it to one like {completed or DEFAULT_API_URL}."
        )
    host = origin.raw_host or ""
    if origin.scheme == "http" and not http_allowed and not is_loopback(host):
        raise ConfigError(
            f"{source} is '{shown}': credentials are not sent over plain http to another machine. "
            'Use https; in a closed network --allow-http, or "allowHttp": true in the configuration, permits it.'
        )
    rest = host.removeprefix("api.")
    web = origin.with_host(f"app.{rest}") if rest and rest != host else origin
    return str(origin), str(web)


def _origin(url: str) -> URL | None:
    """Scheme, host and port of a web address as a URL, in the form that is compared and shown; None if it is none."""
    found = _ADDRESS.fullmatch(url)
    if found is None or not url.isprintable() or " " in url or not int(found["port"] or 1):
        return None
    host = found["host"]
    try:
        if host.startswith("["):
            ipaddress.IPv6Address(host[1:-1])
        origin = URL(f"{found['scheme']}://{host}" + (f":{found['port']}" if found["port"] else "")).origin()
        can_be_shown = origin.host  # decodes an international name
    except ValueError:  # no such address, port or international name
        return None
    named = host.startswith("[") or _HOST.fullmatch(origin.raw_host or "")
    return origin if named and can_be_shown else None


def _check_path(path: str, source: str) -> str:
    if not _PATH.fullmatch(path):
        raise ConfigError(
            f"{source} must be a path that begins with /, without a query or a fragment: "
            f"'{printable(path)[:200]}'. Set it to one like {INGEST_PATH}."
        )
    return path


def _moment(value: object) -> datetime | None:
    """An ISO 8601 time; None for anything else, since it is only a hint."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
