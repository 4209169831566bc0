"""The places where a setting can stand, highest first; each value keeps its origin."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from cirron_spool.errors import ConfigError
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
from cirron_spool.settings.model import Credentials
from cirron_spool.text import printable

# The origin of a default value.
DEFAULT = "the default"


class Found(NamedTuple):
    """A text, where it stands in words, and in which place: a file's path, or empty for argument and environment."""

    value: str
    source: str
    place: str | None = ""


@dataclass(frozen=True, slots=True)
class Key:
    """One setting's names: an argument, a variable, a key of config.json and one of config.toml; empty for none."""

    argument: str
    variable: str
    json: str
    toml: str


API_URL = Key("api_url", "CIRRON_API_ENDPOINT", "apiUrl", "api_endpoint")


INGEST_PATH_KEY = Key("", "CIRRON_INGEST_PATH", "", "ingest_path")


TOKEN = Key("token", "CIRRON_API_KEY", "", "api_key")


class Layers:
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
        self._files_needed = given["token"] is None and not environ.get(TOKEN.variable)
        self._toml_warnings: tuple[str, ...] = ()
        self.unusable: list[str] = []
        self.warnings: tuple[str, ...] = ()

    def first(self, key: Key) -> Found | None:
        """The setting from the highest place that has it. Raises ConfigError for a file that cannot be used."""
        return next(self._all(key), None)

    def flag(self, key: str, argument: str, given: bool | None) -> tuple[bool, str]:
        """A setting that is true or false, and its source."""
        if given is not None:
            return given, self._name(argument)
        if key not in self._json:
            return False, DEFAULT
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
            return default, DEFAULT
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON has one kind of number: 30000.0 is 30000
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            unit = " (milliseconds)" if key == "timeout" else ""
            raise ConfigError(f"{source} must be a whole number from {least} to {most}{unit}. Correct it.")
        return value, source

    def token(self) -> tuple[Credentials, str] | None:
        """The credentials to use, and the place that they stand in. Raises ConfigError for a bad token."""
        for found in self._given_and_environment(TOKEN):
            return Credentials(check_token(found.value, found.source), source=found.source), ""
        login = credentials_in(self._json, self._json_where)
        if login is not None:
            return login, self._json_where
        for found in self._in_toml(TOKEN):
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
        if credentials.source == TOKEN.variable:
            return f"Unset it to {login}, or set a valid key." if login else "Set a valid key, or unset it."
        if self._environ.get(TOKEN.variable):
            login = f"use {TOKEN.variable}"
        return f"Give a valid token, or leave it out to {login}." if login else "Give a valid token."

    def missing_hint(self) -> str:
        """Where a token was looked for."""
        if self.json_path is None:
            return (
                f"There is no token in {TOKEN.variable}, and no home directory that could hold a login. "
                f"Set {TOKEN.variable}, or HOME."
            )
        places = [TOKEN.variable, self._json_where, *([self._toml_where] if self._toml_path else [])]
        return f"There is no token in {', '.join(places[:-1])} or {places[-1]}."

    def _all(self, key: Key) -> Iterator[Found]:
        yield from self._given_and_environment(key)
        if key.json and (text := text_in(self._json, key.json, self._json_where)):
            yield Found(text, f"{key.json} in {self._json_where}", self._json_where)
        yield from self._in_toml(key)

    def _given_and_environment(self, key: Key) -> Iterator[Found]:
        given = self._given.get(key.argument)
        if given is not None:
            yield Found(given, self._name(key.argument))
        if value := self._environ.get(key.variable):  # an empty variable says nothing, as in the SDK
            yield Found(value, key.variable)

    def _in_toml(self, key: Key) -> Iterator[Found]:
        if text := text_in(self._toml, key.toml, self._toml_where):
            yield Found(text, f"{key.toml} in {self._toml_where}", self._toml_where)

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


def _moment(value: object) -> datetime | None:
    """An ISO 8601 time; None for anything else, since it is only a hint."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
