"""The names and values in the arguments of ``config``, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cirron_spool.cli.arguments.parser import (
    LONG_LIVED,
    NOT_AN_ARGUMENT,
    UsageError,
    did_you_mean,
    listed,
)
from cirron_spool.cli.arguments.values import Measure, OneOf, Reader, Whole
from cirron_spool.cli.token_input import read_token
from cirron_spool.settings.description import ENTRIES
from cirron_spool.settings.files import SDK_CONFIG_NAME, home_file
from cirron_spool.settings.origin import Origin, Setting
from cirron_spool.settings.urls import DEFAULT_API_URL, check_url
from cirron_spool.text import printable

# A longer word is cut in an error: it may be a secret for another key.
_SHOWN_CHARS = 20


class _Settable(NamedTuple):
    """The reader of a key's value, and a valid value for error messages."""

    read: Reader
    example: str


# The bounds of the official tool, which shares the file. A flush accepts wider ones.
_TIMEOUT = Measure(
    {"": 1, "ms": 1, "s": 1000, "m": 60_000},
    "a time from 1000 to 300000 ms, with a unit (ms, s or m; milliseconds without one)",
    least=1000,
    most=300_000,
)
_SETTABLE = {
    "timeout": _Settable(_TIMEOUT, "30s"),
    "retries": _Settable(Whole(0, 10), "3"),
    "allowHttp": _Settable(OneOf("true", "false"), "true"),
    "auth.store": _Settable(OneOf("file", "keyring"), "keyring"),
}
# The keys that cannot be changed here, and how they are changed.
_OF_LOGIN = ("auth.accessToken", "auth.refreshToken", "auth.expiresAt")
_OF_SDK = {
    "output_dir": "or set CIRRON_OUTPUT_DIR",
    "ingest_path": "or set CIRRON_INGEST_PATH",
    "spool_max_bytes": "or set CIRRON_SPOOL_MAX_BYTES",
    "api_endpoint": f"or override it with apiUrl: cirron config set apiUrl {DEFAULT_API_URL}",
    "api_key": "or override it with a token: cirron auth login --with-token < token.txt",
}


def check_key(key: str | None) -> str:
    """Return the name of a setting. Raises UsageError for a missing and an unknown name."""
    names = list(ENTRIES)
    if key is None:
        raise UsageError(f"Name a setting. There are: {listed(names)}.")
    if key in ENTRIES:
        return key
    if LONG_LIVED in key:
        raise UsageError(NOT_AN_ARGUMENT)
    word, is_pair, _ = key.partition("=")
    if is_pair and word in ENTRIES:
        raise UsageError(f"Put a blank between a setting and its value: cirron config set {word} VALUE.")
    raise UsageError(
        f"There is no setting {_shown(word)}.{did_you_mean(word, names) or f' There are: {listed(names)}.'}"
    )


def refuse_further(action: str, key: str, values: Sequence[str]) -> None:
    """Raise UsageError for words after the key of an action."""
    if values:
        raise UsageError(f"config {action} takes one setting, as in cirron config {action} {key}.")


def refuse_unchangeable(key: str, command: str) -> None:
    """Raise UsageError for a key that only ``command`` or the SDK's file can change."""
    if key in _OF_LOGIN:
        raise UsageError(f"{key} belongs to the login. Run {command} to change it.")
    if key in _OF_SDK:
        file = home_file(SDK_CONFIG_NAME)
        where = str(file) if file is not None else f"~/.cirron/{SDK_CONFIG_NAME}"
        raise UsageError(
            f"{key} is a setting of the SDK. Edit the table [default] of {where}, {_OF_SDK[key]}."
        )


def read_value(key: str, values: Sequence[str], *, http_allowed: bool) -> object:
    """The value for ``key``. A ``token`` is read from standard input. Raises UsageError and ConfigError."""
    if (key == "token" and values) or any(value.startswith(LONG_LIVED) for value in values):
        raise UsageError(NOT_AN_ARGUMENT)
    if key == "token":
        return read_token("-", remedy="Pipe it: cirron config set token < token.txt.")
    settable = _SETTABLE.get(key)
    example = f"cirron config set {key} {settable.example if settable is not None else DEFAULT_API_URL}"
    if not values:
        raise UsageError(f"{key} needs a value, as in {example}.")
    if len(values) > 1:
        raise UsageError(f"{key} takes one value, as in {example}.")
    text = values[0]
    if settable is None:
        check_url(Setting(text, Origin("argument", "apiUrl")), http_allowed=http_allowed)
        return text.strip()
    try:
        value = settable.read(text)
    except ValueError:
        raise UsageError(
            f"{key} needs {settable.read.wants}, as in {example}. It cannot be {_shown(text)}."
        ) from None
    return value == "true" if key == "allowHttp" else value


def _shown(text: str) -> str:
    return f"'{printable(text[:_SHOWN_CHARS])}{'…' if len(text) > _SHOWN_CHARS else ''}'"
