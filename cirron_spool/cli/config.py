"""``config``: show and change the settings."""

from __future__ import annotations

import argparse
import os
from contextlib import suppress
from pathlib import Path

from cirron_spool.cli.config_table import lines, setting_json
from cirron_spool.cli.config_values import check_key, read_value, refuse_further, refuse_unchangeable
from cirron_spool.cli.console import Console, Fault
from cirron_spool.cli.signals import Signals
from cirron_spool.errors import EXIT_ATTENTION, EXIT_OK, ConfigError
from cirron_spool.settings import keyring_store
from cirron_spool.settings.description import describe, describe_one
from cirron_spool.settings.files import CONFIG_NAME, Document, home_file
from cirron_spool.settings.sources import ALLOW_HTTP, Layers
from cirron_spool.text import mask, printable, reason


def run(options: argparse.Namespace, console: Console, signals: Signals) -> int:
    """Run the action that the arguments name; return the exit code."""
    if options.action == "list":
        return _list(console)
    if options.action == "path":
        console.line(str(_path()))
        return EXIT_OK
    key = check_key(options.key)
    if options.action == "get":
        refuse_further("get", key, options.values)
        return _get(key, console)
    if options.action == "set":
        refuse_unchangeable(key, "cirron auth login")
        return _set(key, options.values, console, signals)
    refuse_further("unset", key, options.values)
    refuse_unchangeable(key, "cirron auth logout")
    return _unset(key, console, signals)


def _list(console: Console) -> int:
    layers = _layers()
    settings = describe(layers)
    if not console.json:
        console.data(lines(settings, layers.json_path, console.columns))
    unusable = [str(error) for error in layers.unusable]
    for problem in dict.fromkeys([*layers.warnings, *(setting.problem for setting in settings)]):
        if problem and problem not in unusable:
            console.warning(problem)
    document = {
        "path": str(layers.json_path) if layers.json_path is not None else None,
        "settings": [setting_json(setting) for setting in settings],
    }
    for message in unusable:
        console.error(message)
    if unusable:
        error = ConfigError(unusable[0])
        return console.end(error.exit_code, document, Fault.of(error))
    return console.end(EXIT_OK, document)


def _get(key: str, console: Console) -> int:
    layers = _layers()
    setting = describe_one(layers, key)
    # The unreadable file may have a value that overrides this one.
    if layers.unusable and setting.origin.kind not in ("argument", "environment"):
        raise ConfigError(str(layers.unusable[0]))
    if setting.problem:
        raise ConfigError(setting.problem)
    for error in layers.unusable:
        console.warning(str(error))
    if setting.value is None:
        fault = Fault("NotSet", f"{key} is not set.")
        console.error(fault.message)
        return console.end(EXIT_ATTENTION, setting_json(setting), fault)
    if not console.json:
        console.line(setting.text(setting.value))
    return console.end(EXIT_OK, setting_json(setting))


def _set(key: str, values: list[str], console: Console, signals: Signals) -> int:
    path = _path()
    value = read_value(key, values, http_allowed=_is_http_allowed())
    _change(path, key, value, console, signals)
    if not console.json:
        shown = (
            mask(str(value)) if key == "token" else str(value).lower() if isinstance(value, bool) else value
        )
        console.line(f"Success: Set {key} to {shown} in {printable(str(path))}.")
    layers = _layers()
    setting = describe_one(layers, key)
    if setting.origin.file != path:
        console.warning(f"{setting.origin} is set, and overrides this value.")
    elif setting.origin.name != key:
        remedy = "Run cirron auth login --with-token to replace it."
        console.warning(f"{setting.origin} overrides this token. {remedy}")
    return _end_change(key, console)


def _unset(key: str, console: Console, signals: Signals) -> int:
    path = _path()
    was_there = os.path.lexists(path) and _change(path, key, None, console, signals)
    if not console.json:
        place = printable(str(path))
        console.line(
            f"Success: Removed {key} from {place}."
            if was_there
            else f"{key} is not set in {place}. Nothing was changed."
        )
    return _end_change(key, console)


def _end_change(key: str, console: Console) -> int:
    """End a change, and warn if a dependent setting cannot be used."""
    layers = _layers()
    # allowHttp decides about plain http to another machine.
    for name in ("apiUrl", key) if key == "allowHttp" else (key,):
        if problem := describe_one(layers, name).problem:
            console.warning(problem)
    return console.end(EXIT_OK, setting_json(describe_one(layers, key)))


def _change(path: Path, key: str, value: object, console: Console, signals: Signals) -> bool:
    """Set ``key`` in the file, or remove it for None; return whether it was there. Raises ConfigError."""
    from cirron_spool.auth.token_store import update_locked
    from cirron_spool.cli.stoppable import run_until_stopped

    was_there = False

    def change(document: Document) -> None:
        nonlocal was_there
        was_there = _put(document, key, value, path)

    def update(*, with_tokens: bool) -> None:
        run_until_stopped(
            lambda: update_locked(path, change, with_tokens=with_tokens, lock_needed=True), signals
        )

    try:
        if key != "auth.store" or value == "keyring":
            if key == "auth.store":
                keyring_store.read_replaceable(path)  # raises if the keyring fails
            update(with_tokens=key in ("auth.store", "token"))
            return was_there
        try:
            update(with_tokens=True)
        except ConfigError as error:
            # The keyring fails: change only the file. An unusable file raises again.
            update(with_tokens=False)
            console.warning(f"{error} Tokens in the keyring stay there.")
    except OSError as error:
        raise ConfigError(
            f"Cannot change {printable(str(path))}: {reason(error)}. Check its permissions and those of its folder."
        ) from None
    return was_there


def _put(document: Document, key: str, value: object, path: Path) -> bool:
    """Set or remove ``key`` in ``document``; return whether it was there. Raises ConfigError."""
    parent, name = document, key
    if key == "auth.store":
        auth = document.get("auth")
        if auth is not None and not isinstance(auth, dict):
            raise ConfigError(f"auth in {printable(str(path))} is not an object. Correct it.")
        parent, name = auth or {}, "store"
    was_there = name in parent
    if value is not None:
        parent[name] = value
    elif was_there:
        del parent[name]
    if parent is not document:
        if parent:
            document["auth"] = parent
        elif was_there:
            del document["auth"]
    return was_there


def _is_http_allowed() -> bool:
    with suppress(ConfigError):  # an invalid allowHttp counts as false
        return _layers().flag(ALLOW_HTTP).value
    return False


def _layers() -> Layers:
    return Layers(os.environ, {}, {}, None, files_needed=False)


def _path() -> Path:
    path = home_file(CONFIG_NAME)
    if path is None:
        raise ConfigError("There is no home directory for the configuration. Set HOME.")
    return path
