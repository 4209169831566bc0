"""Read a token from standard input or from a file."""

from __future__ import annotations

import codecs
import sys

from cirron_spool.cli.console import is_terminal
from cirron_spool.errors import ConfigError
from cirron_spool.settings.sources import check_token
from cirron_spool.text import printable

_LARGEST_BYTES = 64 * 1024
# Linux cuts a longer line of terminal input. The first part would look like a token.
_LONGEST_TYPED = 4095


def read_token(path: str, *, remedy: str, option: str = "") -> str:
    """The token in the file ``path``. ``-`` is standard input, where a terminal does not echo it.

    Each error names ``option`` and ends with ``remedy``. Raises ConfigError for an unreadable file, a missing or second
    token, and a token that is invalid in a header.
    """
    where = "standard input" if path == "-" else f"{option} {printable(path)}".lstrip()
    is_typed = path == "-" and is_terminal(sys.stdin)
    try:
        text = _typed() if is_typed else _decoded(_read(path))
    except UnicodeDecodeError:
        raise ConfigError(f"Cannot read the token from {where}: it is not text. {remedy}") from None
    except OSError as error:
        raise ConfigError(f"Cannot read the token from {where}: {error.strerror}. {remedy}") from None
    except (ValueError, EOFError, AttributeError):  # a closed standard input, a path with a null byte
        text = ""
    if len(text) > _LARGEST_BYTES:
        raise ConfigError(f"There is more than a token in {where}. {remedy}")
    if is_typed and len(text) >= _LONGEST_TYPED:
        raise ConfigError(f"A terminal passes no more than {_LONGEST_TYPED} characters of a token. {remedy}")
    token = text.strip()
    if not token:
        raise ConfigError(f"There is no token in {where}. {remedy}")
    return check_token(token, where, remedy="Give the token alone, on one line.")


def _read(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read(_LARGEST_BYTES + 1)
    with open(path, "rb") as file:
        return file.read(_LARGEST_BYTES + 1)


def _typed() -> str:
    import getpass

    return getpass.getpass("Paste the token, then press Enter (it is not shown): ", sys.stderr)


def _decoded(data: bytes) -> str:
    """``data`` as text: UTF-8, or the UTF-16 that PowerShell writes. Raises UnicodeDecodeError."""
    is_utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if is_utf_16 else "utf-8-sig")
