"""``auth``: sign in, and manage the login."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress

from cirron_spool.auth.account import look_up
from cirron_spool.auth.token_manager import TokenManager
from cirron_spool.auth.token_store import remove_tokens, update_locked
from cirron_spool.cli.account_view import account_json, account_lines, account_warnings, iso
from cirron_spool.cli.console import Console, Fault, is_terminal
from cirron_spool.cli.signals import Signals
from cirron_spool.cli.stoppable import run_until_stopped
from cirron_spool.errors import (
    EXIT_ATTENTION,
    EXIT_AUTH,
    EXIT_OK,
    EXIT_TEMPFAIL,
    AuthError,
    AuthInvalidError,
    ConfigError,
    NotAuthenticatedError,
)
from cirron_spool.http.transport import Transport
from cirron_spool.settings import keyring_store
from cirron_spool.settings.files import CONFIG_NAME, Document, home_file
from cirron_spool.settings.load import load_settings
from cirron_spool.settings.model import Credentials, Settings
from cirron_spool.settings.sources import TOKEN
from cirron_spool.text import printable, reason


def run(options: argparse.Namespace, console: Console, signals: Signals) -> int:
    """Run the action that the arguments name; return the exit code."""
    if options.action == "login":
        from cirron_spool.cli.auth_login import login

        return login(options, console, signals)
    actions = {"status": _status, "refresh": _refresh, "token": _token, "logout": _logout}
    return actions[options.action](console, signals)


def _status(console: Console, signals: Signals) -> int:
    settings = _load(console)
    if settings.credentials is None:
        missing = NotAuthenticatedError(hint=settings.missing_hint)
        console.error(str(missing))
        console.warning(missing.hint)
        document: dict[str, object] = {"signedIn": False, "apiUrl": settings.api_url}
        return console.end(EXIT_AUTH, document, Fault.of(missing))
    account = run_until_stopped(lambda: look_up(settings, console.warning), signals)
    identity = account.identity
    if not console.json:
        console.data(account_lines(settings, account))
    for warning in account_warnings(settings, account):
        console.warning(warning)
    document = {"signedIn": identity is not None, **account_json(settings, account)}
    if account.is_refused:
        refused = AuthInvalidError(hint=settings.refusal_hint(account.credentials))
        console.error(str(refused))
        console.warning(refused.hint)
        return console.end(EXIT_AUTH, document, Fault.of(refused))
    if account.problem:
        fault = Fault("PlatformError", f"{settings.api_url} did not verify the token: {account.problem}.")
        console.error(fault.message)
        return console.end(EXIT_TEMPFAIL, document, fault)
    return console.end(EXIT_ATTENTION if account.unsaved else EXIT_OK, document)


def _refresh(console: Console, signals: Signals) -> int:
    # Renew the login, even if a key in the environment overrides it.
    settings = _load(console, without_key=True)
    credentials = settings.credentials
    if credentials is None:
        raise NotAuthenticatedError(hint=settings.missing_hint)
    if credentials.refresh_token is None:
        raise AuthError(
            f"The token from {credentials.origin.place} cannot be renewed: it has no refresh token. "
            "Run cirron auth login."
        )
    tokens, renewed = run_until_stopped(lambda: _renew(settings, credentials, console), signals)
    if not renewed:
        raise AuthInvalidError(hint=settings.refusal_hint(credentials))
    expires = tokens.credentials.expires_at
    if not console.json:
        until = f" It expires at {iso(expires)}." if expires is not None else ""
        console.line(f"Success: The token was renewed.{until}")
    if tokens.unsaved:
        console.warning(tokens.unsaved)
    document = {"renewed": True, "expiresAt": iso(expires) if expires is not None else None}
    return console.end(EXIT_ATTENTION if tokens.unsaved else EXIT_OK, document)


async def _renew(settings: Settings, credentials: Credentials, console: Console) -> tuple[TokenManager, bool]:
    async with Transport(timeout_ms=settings.timeout_ms) as transport:
        tokens = TokenManager(settings, credentials, transport)
        return tokens, await tokens.renew(tokens.token, console.warning)


def _token(console: Console, signals: Signals) -> int:
    settings = _load(console)
    credentials = settings.credentials
    if credentials is None:
        raise NotAuthenticatedError(hint=settings.missing_hint)
    if is_terminal(sys.stdout):
        console.warning("A token is a secret: anybody who reads it here can use the account.")
    console.line(run_until_stopped(lambda: _fresh_token(settings, credentials, console), signals))
    return EXIT_OK


async def _fresh_token(settings: Settings, credentials: Credentials, console: Console) -> str:
    """The token, renewed if it is about to expire. Otherwise no request is made."""
    async with Transport(timeout_ms=settings.timeout_ms) as transport:
        tokens = TokenManager(settings, credentials, transport)
        await tokens.renew_if_due(console.warning)
        if tokens.unsaved:
            console.warning(tokens.unsaved)
        return tokens.token


def _logout(console: Console, signals: Signals) -> int:
    path = home_file(CONFIG_NAME)
    place = printable(str(path))
    tokens_in = place
    removed = False

    def change(document: Document) -> None:
        nonlocal removed, tokens_in
        removed = remove_tokens(document)
        if path is not None:
            tokens_in = keyring_store.place_of_tokens(document, path)

    if path is not None and os.path.lexists(path):
        try:
            run_until_stopped(lambda: update_locked(path, change), signals)
        except OSError as error:
            raise ConfigError(f"Cannot change {place}: {reason(error)}. Check its permissions.") from None
    if not console.json:
        console.line(
            f"Success: Signed out. The tokens in {tokens_in} were removed."
            if removed
            else "Nobody was signed in. Nothing was removed."
        )
    with suppress(ConfigError):  # settings that cannot be used have no token in use
        if (rest := load_settings(os.environ).credentials) is not None:
            console.warning(f"A token is still in use: it comes from {rest.origin.place}.")
    return console.end(EXIT_OK, {"removed": removed})


def _load(console: Console, *, without_key: bool = False) -> Settings:
    """The settings, with their warnings shown; ``without_key`` leaves out the key in the environment."""
    environ = {name: value for name, value in os.environ.items() if name != TOKEN.variable or not without_key}
    settings = load_settings(environ)
    for warning in settings.warnings:
        console.warning(warning)
    return settings
