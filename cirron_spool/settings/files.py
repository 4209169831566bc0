"""Find, read and check the configuration files in ``~/.cirron``. Other modules interpret their keys.

``inspect`` imports this module, so a parser is imported only for an existing file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from cirron_spool.errors import ConfigError, resource_error
from cirron_spool.text import printable, reason

CONFIG_NAME = "config.json"  # shared with the official tool
SDK_CONFIG_NAME = "config.toml"  # the SDK's own
# A larger file cannot be a configuration.
LARGEST_BYTES = 1024 * 1024
_LOG_IN_ANEW = "Correct it, or move it away and run cirron auth login."
_CORRECT = "Correct it, or move it away."

Document = dict[str, object]


class UnusableFileError(Exception):
    """A configuration file that cannot be used. The caller turns it into a warning or a ConfigError.

    ``what`` is the message without the remedy. ``exists`` is False if the existence of the file is unknown, for example
    in an unreadable folder.
    """

    def __init__(self, what: str, remedy: str, *, exists: bool = True) -> None:
        super().__init__(f"{what}. {remedy}")
        self.what = what
        self.exists = exists


def home_file(name: str) -> Path | None:
    """``~/.cirron/<name>`` as an absolute path, or None for a user without a home directory."""
    try:
        return Path(os.path.abspath(Path.home())) / ".cirron" / name
    except (RuntimeError, OSError):  # no HOME and no passwd entry; a relative HOME below a deleted directory
        return None


def read_config(path: Path) -> tuple[Document, tuple[str, ...]]:
    """The object in a ``config.json`` ({} without a file), and warnings about the file.

    Raises UnusableFileError if it is unreadable, not a JSON object, owned by another user, or writable by everybody.
    """
    import json

    found = _read(path, json.loads, "JSON", _LOG_IN_ANEW)
    if found is None:
        return {}, ()
    document, status = found
    where = printable(str(path))
    if not isinstance(document, dict):
        raise UnusableFileError(f"{where} does not hold a JSON object", _LOG_IN_ANEW)
    return document, _check_owner(status, where)


def require_config(path: Path) -> Document:
    """The object in a ``config.json``, as :func:`read_config` reads it. Raises ConfigError."""
    try:
        return read_config(path)[0]
    except UnusableFileError as error:
        raise ConfigError(str(error)) from None


def read_sdk_config(path: Path) -> tuple[Document, tuple[str, ...]]:
    """The table ``[default]`` of a ``config.toml`` ({} without one), and warnings about the file.

    Raises UnusableFileError as :func:`read_config` does, but not if the existence of the file is unknown.
    """
    found = _read_sdk_config(path)
    return ({}, ()) if found is None else (found[0], _check_owner(found[1], printable(str(path))))


def read_sdk_value(path: Path, key: str) -> object:
    """The value of ``key`` in a ``config.toml``, or None. As in the SDK, the owner of the file does not matter.

    Raises UnusableFileError if the file exists and cannot be read.
    """
    found = _read_sdk_config(path)
    return None if found is None else found[0].get(key)


def text_in(document: Document, key: str, where: str) -> str | None:
    """The text under ``key``, or None. Raises ConfigError for another type."""
    value = document.get(key)
    if value is None or isinstance(value, str):
        return value
    raise ConfigError(f"{key} in {where} is not a text. Correct it.")


def _read_sdk_config(path: Path) -> tuple[Document, os.stat_result] | None:
    try:
        found = _read(path, _parse_toml, "TOML", _CORRECT)
    except UnusableFileError as error:
        if error.exists:
            raise
        return None
    if found is None:
        return None
    document, status = found
    table = document.get("default", {}) if isinstance(document, dict) else None
    if not isinstance(table, dict):
        raise UnusableFileError(f"default in {printable(str(path))} is not a table", _CORRECT)
    return table, status


def _parse_toml(text: bytes) -> object:
    import tomllib

    return tomllib.loads(text.decode())


def _read(
    path: Path, parse: Callable[[bytes], object], language: str, remedy: str
) -> tuple[object, os.stat_result] | None:
    """The parsed content of the file, and its stat; None without a file. Raises UnusableFileError."""
    where = printable(str(path))
    not_a_file = UnusableFileError(f"{where} is not a file", "Move it away.")
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            text = file.read(LARGEST_BYTES + 1) if stat.S_ISREG(status.st_mode) else None
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise not_a_file from None
    except OSError as error:
        raise resource_error(error) or UnusableFileError(
            f"Cannot read {where}: {reason(error)}", "Check its permissions.", exists=os.path.lexists(path)
        ) from None
    except ValueError:  # a NUL in the path
        raise UnusableFileError(f"{where} is not a path", "Name the configuration file.") from None
    if text is None:
        raise not_a_file
    if len(text) > LARGEST_BYTES:
        raise UnusableFileError(f"{where} is too large for a configuration", _CORRECT)
    try:
        return parse(text), status
    except (ValueError, RecursionError):
        raise UnusableFileError(f"{where} is not valid {language}", remedy) from None


def _open_at_once(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # do not block on a FIFO


def _check_owner(status: os.stat_result, where: str) -> tuple[str, ...]:
    if not hasattr(os, "geteuid"):
        return ()
    if status.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
        raise UnusableFileError(
            f"{where} belongs to another user", "Move it away, then run cirron auth login."
        )
    if status.st_mode & stat.S_IWOTH:
        raise UnusableFileError(
            f"{where} can be written by every user of this machine", "Run chmod 600 on it, then look at it."
        )
    if status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return (f"{where} can be read by other users. Run chmod 600 on it.",)
    return ()
