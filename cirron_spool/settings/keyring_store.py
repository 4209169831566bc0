"""Tokens in the system's keyring, with the extra ``[keyring]`` (``auth.store`` is ``keyring``). All calls block.

One entry holds the tokens of one configuration file, as JSON under the keys that the file would have.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from cirron_spool.errors import ConfigError
from cirron_spool.settings.files import Document
from cirron_spool.text import printable, redact

SERVICE = "cirron"

# A call of the keyring library, with the library and the name of the entry.
_Use = Callable[[ModuleType, str], Any]
_BACK_TO_FILE = "or keep the login in the file: cirron config set auth.store file"


def is_used(document: Document, path: Path) -> bool:
    """Whether ``auth.store`` in the configuration names the keyring. Raises ConfigError for an unknown store."""
    auth = document.get("auth")
    store = auth.get("store") if isinstance(auth, dict) else None
    if store in (None, "file"):
        return False
    if store == "keyring":
        return True
    where = printable(str(path))
    raise ConfigError(f"auth.store in {where} is neither file nor keyring. Correct it.")


def place_of_tokens(document: Document, path: Path) -> str:
    """The place of the tokens, for a message. Raises ConfigError for an unknown store."""
    return "the keyring" if is_used(document, path) else printable(str(path))


def read_tokens(path: Path) -> Document:
    """The tokens of the configuration at ``path``; {} without any.

    Raises ConfigError when the keyring fails, and for an entry that is no login.
    """
    text = _read_entry(path)
    document = _tokens_in(text) if text is not None else {}
    if document is None:
        raise ConfigError("The keyring holds no login of cirron. Run cirron auth login.")
    return document


def read_replaceable(path: Path) -> Document:
    """As :func:`read_tokens`, before a change. An entry that is no login counts as {}."""
    return _tokens_in(_read_entry(path) or "") or {}


def write_tokens(path: Path, tokens: Document) -> None:
    """Keep ``tokens`` for the configuration at ``path``; {} removes the entry. Raises ConfigError."""
    if not tokens:
        if _read_entry(path) is not None:
            _call("change", path, lambda keyring, user: keyring.delete_password(SERVICE, user))
        return
    text = json.dumps(tokens)
    _call(
        "change", path, lambda keyring, user: keyring.set_password(SERVICE, user, text), _secrets_in(tokens)
    )
    # Some backends accept a value and do not store it.
    if read_tokens(path) != tokens:
        raise ConfigError(f"The keyring does not store the tokens. Choose another keyring, {_BACK_TO_FILE}.")


def _read_entry(path: Path) -> str | None:
    text = _call("read", path, lambda keyring, user: keyring.get_password(SERVICE, user))
    return None if text is None else str(text)


def _tokens_in(text: str) -> Document | None:
    """The tokens in an entry; None if it is no login."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _secrets_in(tokens: Document) -> list[str]:
    login = tokens.get("auth")
    values = [tokens.get("token"), *(login.values() if isinstance(login, dict) else ())]
    return [value for value in values if isinstance(value, str)]


def _call(verb: str, path: Path, use: _Use, secrets: Iterable[str] = ()) -> object:
    try:
        import keyring
    except ImportError:
        raise ConfigError(
            "auth.store is keyring, but the keyring library is not installed. "
            f"Install it (pip install 'cirron-spool[keyring]'), {_BACK_TO_FILE}."
        ) from None
    try:
        return use(keyring, os.path.realpath(path))
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a backend raises whatever its system raises
        # The text of the error may have tokens.
        reason = redact(printable(str(error).partition("\n")[0]), *secrets) or type(error).__name__
        raise ConfigError(
            f"Cannot {verb} the keyring: {reason.removesuffix('.')}. Unlock it, {_BACK_TO_FILE}."
        ) from None
