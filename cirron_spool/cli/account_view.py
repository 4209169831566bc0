"""The account of a login, as lines, warnings and JSON."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cirron_spool.auth.account import Account
from cirron_spool.auth.answers import Identity
from cirron_spool.settings.model import Settings
from cirron_spool.text import iso_utc, time_span

# A long-lived token that ends this soon is worth a warning.
_ENDS_SOON = timedelta(days=7)


def account_lines(settings: Settings, account: Account) -> list[str]:
    """The account for a person, one fact a line."""
    identity = account.identity
    lines = []
    if identity is not None:
        lines.append(f"Signed in as {identity}")
        if identity.organization:
            lines.append(f"Organization: {identity.organization}")
    lines.append(f"Platform: {settings.api_url} ({settings.origins['api_url'].place})")
    lines.append(f"Token: {account.credentials.origin.place}")
    expires = expiry_of(account)
    if expires is not None:
        renewed = ", renewed by itself" if account.credentials.refresh_token is not None else ""
        lines.append(f"Expires: {iso(expires)}{renewed}")
    return lines


def expiry_of(account: Account) -> datetime | None:
    """The expiry of the token from the platform, or else from the login."""
    reported = account.identity.expires_at if account.identity is not None else None
    return reported or account.credentials.expires_at


def account_warnings(settings: Settings, account: Account) -> list[str]:
    """Warnings about the token, one line each."""
    warnings = []
    if overridden := settings.overridden:
        warnings.append(f"{overridden} Unset it to use the login.")
    expires = expiry_of(account)
    if expires is not None and account.credentials.refresh_token is None and account.identity is not None:
        left = expires - datetime.now(UTC)
        if left < timedelta(0):
            warnings.append(
                f"The token expired at {iso(expires)} by the clock of this machine, and the platform accepts it. "
                "Check the clock."
            )
        elif left < _ENDS_SOON:
            span = time_span(left.total_seconds())
            warnings.append(f"The token expires in {span} ({iso(expires)}). Get a new one before.")
    if account.unsaved:
        warnings.append(account.unsaved)
    return warnings


def account_json(settings: Settings, account: Account) -> dict[str, object]:
    """The keys about the account in a form for a program."""
    identity, credentials = account.identity, account.credentials
    expires = expiry_of(account)
    return {
        "apiUrl": settings.api_url,
        "valid": None if account.problem else not account.is_refused,
        **identity_json(identity),
        "token": {
            "source": credentials.origin.place,
            "renewable": credentials.refresh_token is not None,
            "expiresAt": iso(expires) if expires is not None else None,
        },
        "overridesLogin": bool(settings.overridden),
    }


def identity_json(identity: Identity | None) -> dict[str, object]:
    """``user`` and ``organization``, each null if unknown."""
    if identity is None:
        return {"user": None, "organization": None}
    organization = {"name": identity.organization} if identity.organization else None
    return {"user": {"email": identity.email, "name": identity.name}, "organization": organization}


def iso(moment: datetime) -> str:
    """The time in UTC, to the second."""
    return iso_utc(int(moment.timestamp()) * 10**9)
