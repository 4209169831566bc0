"""Every setting by name: its value, its origin, the overridden values, and its problem."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from cirron_spool.errors import ConfigError
from cirron_spool.protocol.verdict import INGEST_PATH
from cirron_spool.settings.files import UnusableFileError, read_sdk_value
from cirron_spool.settings.load import DEFAULT_RETRIES, DEFAULT_TIMEOUT_MS, retries_in, timeout_in
from cirron_spool.settings.origin import DEFAULT, Origin, Setting
from cirron_spool.settings.paths import SDK_CAP, find_spool
from cirron_spool.settings.sources import (
    ALLOW_HTTP,
    API_URL,
    INGEST_PATH_KEY,
    RETRIES,
    TIMEOUT,
    TOKEN,
    Key,
    Layers,
    check_token,
    parse_time,
)
from cirron_spool.settings.urls import DEFAULT_API_URL, check_path, check_url
from cirron_spool.text import mask, printable

_OUTPUT_DIR = Key(variable="CIRRON_OUTPUT_DIR", toml="output_dir")
_SPOOL_CAP = Key(variable="CIRRON_SPOOL_MAX_BYTES", toml="spool_max_bytes")
_LONGEST_SHOWN = 200


class Description(NamedTuple):
    """A setting with its present value, or None. ``overridden`` has the values of lower layers, the highest first.

    ``problem`` is the reason why the value cannot be used, or empty. The values are raw: :meth:`shown` redacts
    secrets.
    """

    key: str
    value: object = None
    origin: Origin = DEFAULT
    overridden: tuple[Setting[object], ...] = ()
    problem: str = ""
    is_secret: bool = False

    def shown(self, value: object) -> object:
        """A value of this setting for output: a number, a boolean or text, never a secret."""
        if value is None:
            return None
        if not isinstance(value, str):
            is_plain = isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
            return value if is_plain and not self.is_secret else "…"
        if self.is_secret or value.startswith("sk-"):
            return mask(value)
        if self.key in _ADDRESSES and any(mark in value for mark in "@?#\\"):
            return "…"  # it may have a password
        return value

    def text(self, value: object) -> str:
        """As :meth:`shown`, as text in one line."""
        shown = self.shown(value)
        return printable(shown)[:_LONGEST_SHOWN] if isinstance(shown, str) else json.dumps(shown)


class _Entry(NamedTuple):
    """The lookup and the check of a setting.

    ``check`` raises ConfigError. With ``is_text``, null in a file is no value.
    """

    values: Callable[[Layers], Iterator[Setting[object]]]
    check: Callable[[Layers], object]
    default: object = None
    is_text: bool = True
    is_secret: bool = False


def describe(layers: Layers) -> list[Description]:
    """Describe every setting. Raises nothing; ``layers`` must not need files."""
    return [describe_one(layers, key) for key in ENTRIES]


def describe_one(layers: Layers, key: str) -> Description:
    """Describe the setting ``key``, one of ENTRIES; as :func:`describe`."""
    entry = ENTRIES[key]
    found: list[Setting[object]] = []
    problem = ""
    try:
        for value, origin in entry.values(layers):
            if not (entry.is_text and origin.kind in ("file", "keyring") and value in (None, "")):
                found.append(Setting(value, origin))
        entry.check(layers)
    except ConfigError as error:
        problem = str(error)
    first, *overridden = found or [Setting(entry.default, DEFAULT)]
    return Description(key, first.value, first.origin, tuple(overridden), problem, entry.is_secret)


def _plain(key: Key) -> Callable[[Layers], Iterator[Setting[object]]]:
    return lambda layers: layers.values(key)


def _login(name: str) -> Callable[[Layers], Iterator[Setting[object]]]:
    return lambda layers: layers.in_login(name)


def _token_in_use(layers: Layers) -> Iterator[Setting[object]]:
    """The values in the order of :meth:`Layers.credentials`."""
    yield from layers.values(TOKEN._replace(toml=""))
    logins, tokens = list(layers.in_login("auth.accessToken")), list(layers.in_login("token"))
    # The keyring has priority over the file.
    for kind in ("keyring", "file"):
        yield from (setting for setting in (*logins, *tokens) if setting.origin.kind == kind)
    yield from layers.values(Key(toml=TOKEN.toml))


def _of_sdk(key: Key) -> Callable[[Layers], Iterator[Setting[object]]]:
    """The values of a key of the SDK, which does not check the owner of its file."""

    def values(layers: Layers) -> Iterator[Setting[object]]:
        yield from layers.values(key._replace(toml=""))
        if layers.toml_path is not None:
            try:
                found = read_sdk_value(layers.toml_path, key.toml)
            except UnusableFileError as error:
                raise ConfigError(str(error)) from None
            if found is not None:
                yield Setting(found, Origin("file", key.toml, layers.toml_path))

    return values


def _check_address(layers: Layers) -> None:
    allowed = False
    with suppress(ConfigError):  # reported as the problem of allowHttp
        allowed = layers.flag(ALLOW_HTTP).value
    check_url(layers.text(API_URL, DEFAULT_API_URL), http_allowed=allowed)


def _check_sdk_address(layers: Layers) -> None:
    layers.text(Key(toml=API_URL.toml), "")  # its address is checked where it is used


def _check_secret(name: str) -> Callable[[Layers], None]:
    def check(layers: Layers) -> None:
        for value, origin in layers.in_login(name):
            if not isinstance(value, str):
                raise ConfigError(f"{origin} is not a text. Run cirron auth login again.")
            if value:
                check_token(value, origin.place)

    return check


def _check_sdk_key(layers: Layers) -> None:
    value, origin = layers.text(Key(toml=TOKEN.toml), "")
    if value:
        check_token(value, origin.place)


def _check_expiry(layers: Layers) -> None:
    for value, origin in layers.in_login("auth.expiresAt"):
        if value and parse_time(value) is None:
            raise ConfigError(f"{origin} is not a time, so it is not used. Run cirron auth login again.")


def _check_cap(layers: Layers) -> None:
    for value, origin in _of_sdk(_SPOOL_CAP)(layers):
        if re.fullmatch("0*[1-9][0-9]*", str(value).strip()) is None:
            raise ConfigError(f"{origin} is not a number of bytes, so it is not used. Correct it.")
        return


# In the order of the output.
ENTRIES: Mapping[str, _Entry] = {
    "apiUrl": _Entry(_plain(API_URL), _check_address, DEFAULT_API_URL),
    "timeout": _Entry(_plain(TIMEOUT), timeout_in, DEFAULT_TIMEOUT_MS, is_text=False),
    "retries": _Entry(_plain(RETRIES), retries_in, DEFAULT_RETRIES, is_text=False),
    "allowHttp": _Entry(_plain(ALLOW_HTTP), lambda layers: layers.flag(ALLOW_HTTP), False, is_text=False),
    "token": _Entry(_token_in_use, lambda layers: layers.credentials(), is_secret=True),
    "auth.accessToken": _Entry(_login("auth.accessToken"), _check_secret("auth.accessToken"), is_secret=True),
    "auth.refreshToken": _Entry(
        _login("auth.refreshToken"), _check_secret("auth.refreshToken"), is_secret=True
    ),
    "auth.expiresAt": _Entry(_login("auth.expiresAt"), _check_expiry),
    "auth.store": _Entry(
        lambda layers: layers.in_file("auth.store"), lambda layers: layers.check_store(), "file"
    ),
    "output_dir": _Entry(_of_sdk(_OUTPUT_DIR), lambda layers: find_spool(None, layers.environ), ".cirron"),
    "ingest_path": _Entry(
        _plain(INGEST_PATH_KEY),
        lambda layers: check_path(layers.text(INGEST_PATH_KEY, INGEST_PATH)),
        INGEST_PATH,
    ),
    "spool_max_bytes": _Entry(_of_sdk(_SPOOL_CAP), _check_cap, SDK_CAP),
    "api_endpoint": _Entry(_plain(Key(toml=API_URL.toml)), _check_sdk_address),
    "api_key": _Entry(_plain(Key(toml=TOKEN.toml)), _check_sdk_key, is_secret=True),
}
_ADDRESSES = ("apiUrl", "api_endpoint")
