"""The layers of settings: arguments, environment, ``config.json``, ``config.toml``. Each value has an origin."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from cirron_spool.errors import ConfigError
from cirron_spool.settings import keyring_store
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
from cirron_spool.settings.origin import DEFAULT, Origin, Setting
from cirron_spool.settings.paths import path_text
from cirron_spool.text import printable


class Key(NamedTuple):
    """The name of one setting in each layer, or empty."""

    argument: str = ""
    variable: str = ""
    json: str = ""
    toml: str = ""


API_URL = Key("api_url", "CIRRON_API_ENDPOINT", "apiUrl", "api_endpoint")
INGEST_PATH_KEY = Key(variable="CIRRON_INGEST_PATH", toml="ingest_path")
TOKEN = Key("token", "CIRRON_API_KEY", toml="api_key")
TIMEOUT = Key("timeout_ms", json="timeout")
RETRIES = Key("retries", json="retries")
ALLOW_HTTP = Key("allow_http", json="allowHttp")


class Layers:
    """The layers of one load, highest first. A file is read at its first use.

    ``given`` has the arguments, None for an absent one. ``names`` replaces names of arguments in messages. ``unusable``
    collects unusable files, ``warnings`` has messages about the other files. An unusable file is an error unless a
    token is given, or ``files_needed`` is False.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        given: Mapping[str, object],
        names: Mapping[str, str],
        config_path: str | os.PathLike[str] | None,
        *,
        files_needed: bool = True,
    ) -> None:
        self.environ = environ
        self._given = given
        self._names = names
        self.json_path = (
            Path(path_text(config_path, "config_path")) if config_path is not None else home_file(CONFIG_NAME)
        )
        self.toml_path = home_file(SDK_CONFIG_NAME)
        has_token = given.get("token") is not None or environ.get(TOKEN.variable)
        self._files_needed = files_needed and not has_token
        self._toml_warnings: tuple[str, ...] = ()
        self.unusable: list[UnusableFileError] = []
        self.warnings: tuple[str, ...] = ()

    def text(self, key: Key, default: str) -> Setting[str]:
        """Look up a text. Raises ConfigError for another type, and for an unusable file."""
        for value, origin in self.values(key):
            if origin.kind == "file" and value in (None, ""):
                continue
            return Setting(_check_text(value, origin), origin)
        return Setting(default, DEFAULT)

    def flag(self, key: Key) -> Setting[bool]:
        """Look up a boolean. Raises ConfigError as :meth:`text` does."""
        found = next(self.values(key), Setting(False, DEFAULT))
        if not isinstance(found.value, bool):
            raise ConfigError(f"{found.origin} is not true or false. Correct it.")
        return Setting(found.value, found.origin)

    def number(self, key: Key, default: int, least: int, most: int, unit: str = "") -> Setting[int]:
        """Look up a whole number from ``least`` to ``most``. Raises ConfigError as :meth:`text` does."""
        value, origin = next(self.values(key), Setting(default, DEFAULT))
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # in JSON, 30000.0 is the integer 30000
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ConfigError(f"{origin} must be a whole number from {least} to {most}{unit}. Correct it.")
        return Setting(value, origin)

    def credentials(self) -> Credentials | None:
        """Look up the token. Raises ConfigError for a token that is invalid in a header."""
        for value, origin in self._given_and_environment(TOKEN):
            # A login does not replace this token.
            token = check_token(_check_text(value, origin), origin.place, remedy="Set it again.")
            return Credentials(token, origin=origin)
        if self.json_path is not None and (login := credentials_in(self._json, self.json_path)):
            return login
        sdk_key = self.text(Key(toml=TOKEN.toml), "")
        if sdk_key.value:
            self.warnings += self._toml_warnings  # a file with a secret must not be readable by others
            return Credentials(check_token(sdk_key.value, sdk_key.origin.place), origin=sdk_key.origin)
        return None

    def remedy(self, credentials: Credentials) -> str:
        """The remedy for refused ``credentials``, or empty if ``cirron auth login`` replaces them."""
        origin = credentials.origin
        if origin.kind in ("file", "keyring"):
            return "" if origin.file == self.json_path else "Put a valid key there."
        alternative = f"use {self._login}" if self._login else ""
        if origin.kind == "environment":
            return (
                f"Unset it to {alternative}, or set a valid key."
                if alternative
                else "Set a valid key, or unset it."
            )
        if self.environ.get(TOKEN.variable):
            alternative = f"use {TOKEN.variable}"
        return (
            f"Give a valid token, or leave it out to {alternative}." if alternative else "Give a valid token."
        )

    def overridden_login(self, credentials: Credentials | None) -> str:
        """A sentence about a login that a token in the environment overrides, or empty."""
        if credentials is None or credentials.origin.kind != "environment" or not self._login:
            return ""
        return f"{credentials.origin.place} overrides {self._login}."

    @cached_property
    def _login(self) -> str:
        """A text about the login in ``config.json``, or empty. A login that is not in use is not checked."""
        with suppress(ConfigError):
            if self.json_path is not None and credentials_in(self._json, self.json_path):
                return f"the login in {printable(str(self.json_path))}"
        return ""

    def missing_hint(self) -> str:
        """A text for a person about the places without a token."""
        if self.json_path is None:
            return (
                f"There is no token in {TOKEN.variable}, and no home directory that could hold a login. "
                f"Set {TOKEN.variable}, or HOME."
            )
        files = [printable(str(path)) for path in (self.json_path, self.toml_path) if path is not None]
        keyring = ["the keyring"] if self._uses_keyring else []
        places = [TOKEN.variable, *keyring, *files]
        return f"There is no token in {', '.join(places[:-1])} or {places[-1]}."

    def values(self, key: Key) -> Iterator[Setting[object]]:
        """All values of a setting, unchecked, the highest layer first. Raises ConfigError for an unusable file."""
        yield from self._given_and_environment(key)
        if key.json and key.json in self._json:
            yield Setting(self._json[key.json], Origin("file", key.json, self.json_path))
        if key.toml and key.toml in self._toml:
            yield Setting(self._toml[key.toml], Origin("file", key.toml, self.toml_path))

    def in_login(self, name: str) -> Iterator[Setting[object]]:
        """All values of a login's key, such as ``auth.accessToken``: from the keyring if used, then from the file.

        The values are unchecked. Raises ConfigError for a failed keyring, and for an unusable file.
        """
        if self.json_path is None:
            return
        if isinstance(self._keyring, ConfigError):
            raise self._keyring
        yield from _under(name, self._keyring, "keyring", self.json_path)
        yield from self.in_file(name)

    def in_file(self, name: str) -> Iterator[Setting[object]]:
        """The unchecked value of a key in ``config.json``, such as ``auth.store``. Raises as :meth:`values` does."""
        if self.json_path is not None:
            yield from _under(name, self._json, "file", self.json_path)

    def check_store(self) -> None:
        """Raise ConfigError when ``auth.store`` names no store."""
        if self.json_path is not None:
            keyring_store.is_used(self._json, self.json_path)

    def _given_and_environment(self, key: Key) -> Iterator[Setting[object]]:
        given = self._given.get(key.argument)
        if given is not None:
            yield Setting(given, self._argument(key))
        if value := self.environ.get(key.variable):  # as in the SDK, an empty variable is ignored
            yield Setting(value, Origin("environment", key.variable))

    def _argument(self, key: Key) -> Origin:
        return Origin("argument", self._names.get(key.argument, key.argument))

    @property
    def _uses_keyring(self) -> bool:
        """Whether the login is in the keyring. Raises ConfigError for an unusable file."""
        return self.json_path is not None and keyring_store.is_used(self._json, self.json_path)

    @cached_property
    def _keyring(self) -> Document | ConfigError:
        """The tokens in the keyring, or its error. Cached, since a read may ask a person to unlock the keyring."""
        try:
            if self.json_path is None or not self._uses_keyring:
                return {}
            return keyring_store.read_tokens(self.json_path)
        except ConfigError as error:
            return error

    @cached_property
    def _json(self) -> Document:
        document, warnings = self._read(read_config, self.json_path)
        self.warnings += warnings
        return document

    @cached_property
    def _toml(self) -> Document:
        document, self._toml_warnings = self._read(read_sdk_config, self.toml_path)
        return document

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
            self.unusable.append(error)
            return {}, ()


def credentials_in(document: Document, path: Path) -> Credentials | None:
    """Read the credentials of a ``config.json``: ``auth.accessToken``, else ``token``. Raises ConfigError.

    The keyring has priority over the file if ``auth.store`` names it.
    """
    where = printable(str(path))
    auth = document.get("auth")
    if auth is not None and not isinstance(auth, dict):
        raise ConfigError(f"auth in {where} is not an object. Run cirron auth login again.")
    if keyring_store.is_used(document, path) and (tokens := keyring_store.read_tokens(path)):
        return _tokens_in(tokens, path, "keyring")
    return _tokens_in(document, path, "file")


def _under(
    name: str, document: Document, kind: Literal["file", "keyring"], path: Path
) -> Iterator[Setting[object]]:
    found: object = document
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    if found is not None:
        yield Setting(found, Origin(kind, name, path))


def _tokens_in(document: Document, path: Path, kind: Literal["file", "keyring"]) -> Credentials | None:
    where = printable(str(path)) if kind == "file" else "the keyring"
    auth = document.get("auth")
    if isinstance(auth, dict) and (access := text_in(auth, "accessToken", where)):
        refresh = text_in(auth, "refreshToken", where)
        origin = Origin(kind, "auth.accessToken", path)
        refresh_place = Origin(kind, "auth.refreshToken", path).place
        return Credentials(
            check_token(access, origin.place),
            check_token(refresh, refresh_place) if refresh else None,
            parse_time(auth.get("expiresAt")),
            origin,
        )
    token = text_in(document, "token", where)
    origin = Origin(kind, "token", path)
    return Credentials(check_token(token, origin.place), origin=origin) if token else None


def _check_text(value: object, origin: Origin) -> str:
    """Return ``value`` if it is a text. The ConfigError does not show it, since it may be a secret."""
    if isinstance(value, str):
        return value
    if origin.kind == "argument":
        raise ConfigError(f"{origin} must be a text, not {type(value).__name__}. Pass a str.")
    raise ConfigError(f"{origin} is not a text. Correct it.")


def check_token(token: str, place: str, *, remedy: str = "Set it again, or run cirron auth login.") -> str:
    """Return ``token`` if it is valid in a header. The ConfigError names ``place``, not the token."""
    if not token or not token.isascii() or any(not 0x21 <= ord(char) <= 0x7E for char in token):
        raise ConfigError(f"The token from {place} has characters that are not allowed in a token. {remedy}")
    return token


def parse_time(value: object) -> datetime | None:
    """Parse an ISO 8601 time; without an offset it is UTC. None for other values."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
        return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
