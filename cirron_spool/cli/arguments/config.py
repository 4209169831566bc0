"""``config list``, ``get``, ``set``, ``unset`` and ``path``."""

from __future__ import annotations

import argparse

from cirron_spool.cli.arguments.parser import Parser

# Copies of names in settings/: the parser imports only the standard library.
CHANGEABLE = ("apiUrl", "timeout", "retries", "allowHttp", "auth.store", "token")
SETTINGS = (
    *("apiUrl", "timeout", "retries", "allowHttp", "token"),
    *("auth.accessToken", "auth.refreshToken", "auth.expiresAt", "auth.store"),
    *("output_dir", "ingest_path", "spool_max_bytes", "api_endpoint", "api_key"),
)
_CAN_BE_CHANGED = (
    f"settings that can be changed: {', '.join(CHANGEABLE)}. "
    "For any other setting, set prints how to change it."
)


def add_config(group: Parser) -> None:
    """Add ``config`` and the commands below it."""
    config = group.add_command(
        "config",
        help="show and change the settings",
        description="Show every setting with its origin, and change those in ~/.cirron/config.json.",
        epilog=_CAN_BE_CHANGED,
    )
    config.make_group("action", "ACTION")
    config.add_command(
        "list",
        help="show every setting, its origin, and the values that it overrides",
        description="Show every setting, its origin, and the values that it overrides. Secrets are masked.",
    )
    get = config.add_command(
        "get",
        usage="%(prog)s [-h] [--json] KEY",
        help="print one value, for a script",
        description="Print the value in use. A secret is masked: see cirron auth token. Exit code 1: not set.",
        epilog=_CAN_BE_CHANGED,
    )
    set_parser = config.add_command(
        "set",
        usage="%(prog)s [-h] [--json] KEY VALUE",
        help="change a setting in config.json",
        description=(
            "Change a setting in ~/.cirron/config.json, and keep every other key. The value is checked. A token is "
            "read from standard input: cirron config set token < token.txt. It is not verified. Use cirron auth login "
            "--with-token to verify it."
        ),
        epilog=_CAN_BE_CHANGED,
    )
    unset = config.add_command(
        "unset",
        usage="%(prog)s [-h] [--json] KEY",
        help="remove a setting from config.json",
        description="Remove a setting from ~/.cirron/config.json, and keep every other key.",
        epilog=_CAN_BE_CHANGED,
    )
    config.add_command(
        "path", help="print the path of config.json", description="Print the path of config.json."
    )
    # The command checks the number of words: its error must not show a word that may be a token.
    for command in (get, set_parser, unset):
        command.add_argument(
            "key",
            nargs="?",
            metavar="KEY",
            words=SETTINGS if command is get else CHANGEABLE,
            help="the name of the setting, such as timeout",
        )
        command.takes_names = True
    set_parser.add_argument(
        "values", nargs="*", metavar="VALUE", help="the value, such as 30s; none for token"
    )
    for command in (get, unset):
        command.add_argument("values", nargs="*", help=argparse.SUPPRESS)
    for name, command in config.commands.items():
        if name != "path":
            command.add_argument("--json", action="store_true", help="print one JSON object")
        command.set_defaults(run="config", action=name)
