"""Read a token from standard input."""

from __future__ import annotations

import codecs
import sys

from cirron_spool.cli.console import is_terminal
from cirron_spool.errors import ConfigError
from cirron_spool.settings.sources import check_token

LARGEST_TOKEN_BYTES = 64 * 1024
# Linux drops the further characters of a line that is typed or pasted. The rest would pass for the token.
_LONGEST_TYPED = 4095


def read_token(command: str) -> str:
    """The token from standard input, asked for on a terminal without an echo. ``command`` is for an error's line.

    Raises ConfigError for no token, for more than one, and for one that no header can hold.
    """
    pipe_it = f"Pipe it: {command} < token.txt."
    try:
        text = (
            _typed() if is_terminal(sys.stdin) else _decoded(sys.stdin.buffer.read(LARGEST_TOKEN_BYTES + 1))
        )
    except UnicodeDecodeError:
        raise ConfigError(f"Standard input is not text. {pipe_it}") from None
    except (OSError, ValueError, EOFError, AttributeError):
        text = ""
    if len(text) > LARGEST_TOKEN_BYTES:
        raise ConfigError(f"Standard input holds more than a token. {pipe_it}")
    if is_terminal(sys.stdin) and len(text) >= _LONGEST_TYPED:
        raise ConfigError(f"A terminal passes no more than {_LONGEST_TYPED} characters of a token. {pipe_it}")
    token = text.strip()
    if not token:
        raise ConfigError(f"There is no token on standard input. {pipe_it}")
    return check_token(token, "standard input", remedy="Give the token alone, on one line.")


def _typed() -> str:
    import getpass

    return getpass.getpass("Paste the token, then press Enter (it is not shown): ", sys.stderr)


def _decoded(data: bytes) -> str:
    """``data`` as text: UTF-8, or the UTF-16 that PowerShell writes. Raises UnicodeDecodeError."""
    is_utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if is_utf_16 else "utf-8-sig")
