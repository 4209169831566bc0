"""``auth login``, ``status``, ``refresh``, ``token`` and ``logout``."""

from __future__ import annotations

from cirron_spool.cli.arguments.options import EXIT_CODES
from cirron_spool.cli.arguments.parser import Parser


def add_auth(group: Parser) -> None:
    """Add ``auth`` and the commands below it."""
    auth = group.add_command(
        "auth",
        help="sign in, and manage the login",
        description="Sign in, and manage the login in ~/.cirron/config.json, which the official tool shares.",
        epilog=EXIT_CODES,
    )
    auth.make_group("action", "ACTION")
    _add_login(auth)
    status = auth.add_command(
        "status",
        help="show the account of the token in use",
        description=(
            "Ask the platform about the token in use. Print the account, the address, and the token's origin and "
            "expiry. Exit code 3: signed out or refused. Exit code 4: the platform does not answer."
        ),
    )
    refresh = auth.add_command(
        "refresh",
        help="renew the token of the login now",
        description="Renew the token of the login now. A flush renews it automatically.",
    )
    token = auth.add_command(
        "token",
        help="print the token in use, for a script",
        description="Print the token in use. A login's token that is about to expire is renewed first.",
    )
    logout = auth.add_command(
        "logout",
        help="remove the tokens from this machine",
        description="Remove every token from the configuration or the keyring. All other settings stay.",
    )
    for name, command in {"status": status, "refresh": refresh, "logout": logout}.items():
        command.add_argument("--json", action="store_true", help="print one JSON object")
        command.set_defaults(action=name)
    token.set_defaults(action="token")
    for command in auth.commands.values():
        command.set_defaults(run="auth")
        command.hides_arguments = True


def _add_login(auth: Parser) -> None:
    login = auth.add_command(
        "login",
        help="sign in with a code, or with a token",
        description=(
            "Sign in: show a code and an address, wait until the code is approved there, verify the token and save it. "
            "The browser may be on another machine. The former login stays until the new one is saved."
        ),
        epilog=EXIT_CODES,
    )
    login.add_argument(
        "--with-token",
        action="store_true",
        help="read a long-lived token from standard input instead",
    )
    login.add_argument(
        "--url",
        "--api-url",
        dest="api_url",
        metavar="URL",
        example="https://cirron.example.com",
        help="the API of a self-hosted platform; it is saved (default: CIRRON_API_ENDPOINT or apiUrl)",
    )
    login.add_argument("--no-browser", action="store_true", help="never open a browser")
    login.add_argument(
        "--allow-http",
        action="store_true",
        default=None,
        help="send credentials over plain http (closed networks); saved with --url",
    )
    login.add_argument("--json", action="store_true", help="print one JSON object at the end")
    login.set_defaults(action="login")
