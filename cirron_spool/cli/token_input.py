"""Read a token from standard input."""

from __future__ import annotations

import sys

from cirron_spool.cli.console import is_terminal
from cirron_spool.errors import ConfigError
from cirron_spool.settings.sources import check_token

LARGEST_TOKEN_BYTES = 64 * 1024


def read_token(command: str) -> str:
    """The token from standard input, asked for on a terminal without an echo. ``command`` is for an error's line.

    Raises ConfigError for no token, and for one that no header can hold.
    """
    try:
        if is_terminal(sys.stdin):
            import getpass

            text = getpass.getpass("Paste the token, then press Enter (it is not shown): ", sys.stderr)
        else:
            text = sys.stdin.read(LARGEST_TOKEN_BYTES)
    except (OSError, ValueError, EOFError, AttributeError):
        text = ""
    token = text.removeprefix("\ufeff").strip()  # the mark that Windows begins a text with
    if not token:
        raise ConfigError(f"There is no token on standard input. Pipe it: {command} < token.txt.")
    return check_token(token, "standard input")
