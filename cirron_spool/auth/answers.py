"""Read the platform's JSON answers about tokens (docs/contract.md, Settings and tokens)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeGuard

from cirron_spool.errors import ConfigError
from cirron_spool.protocol.answer import Answer
from cirron_spool.settings.model import Credentials
from cirron_spool.settings.sources import check_token, parse_time
from cirron_spool.text import printable

# Longest name, e-mail address or organisation in a message.
_SHOWN_CHARS = 120


@dataclass(frozen=True, slots=True)
class Identity:
    """The person and the organisation of a token, each empty if unknown.

    ``expires_at`` (aware, UTC) is the end of the token as the platform reports it, or None. All texts are printable.
    """

    email: str = ""
    name: str = ""
    organization: str = ""
    expires_at: datetime | None = None

    def __str__(self) -> str:
        """``Alice <alice@example.com>``, or the known part."""
        if self.name and self.email:
            return f"{self.name} <{self.email}>"
        return self.email or self.name or "an account without a name"

    @property
    def with_organization(self) -> str:
        """As text, with the organisation in parentheses if known."""
        return f"{self} ({self.organization})" if self.organization else str(self)


def json_object(answer: Answer) -> dict[str, object] | None:
    """The JSON object in a complete answer, or None."""
    if not answer.complete:
        return None
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def read_validity(document: dict[str, object]) -> bool | None:
    """Whether the platform accepts the token, from the answer to a verification; None for another answer.

    An answer with a user and without ``valid`` means a valid token.
    """
    valid = document.get("valid")
    if "valid" not in document and isinstance(document.get("user"), dict):
        return True
    return valid if isinstance(valid, bool) else None


def read_identity(document: dict[str, object]) -> Identity:
    """Read the answer to a verification. Parts with another type are ignored."""
    user, token = _object_in(document, "user"), _object_in(document, "token")
    return Identity(
        _text_in(user, "email"),
        _text_in(user, "name"),
        _text_in(_object_in(document, "organization"), "name"),
        parse_time(token.get("expiresAt")),
    )


def read_renewal(answer: Answer, old: Credentials) -> Credentials | None:
    """The credentials in the answer to a refresh; None without a new token."""
    document = json_object(answer) if answer.status == 200 else None
    if document is None:
        return None
    access, refresh = document.get("access_token"), document.get("refresh_token")
    if not is_token(access):
        return None
    # The old refresh token may be used up, so other faults of the answer must not lose the new tokens.
    return replace(
        old,
        token=access,
        refresh_token=refresh if is_token(refresh) else old.refresh_token,
        expires_at=_expiry(document.get("expires_in")),
    )


def read_grant(answer: Answer) -> Credentials | None:
    """The credentials in the answer to a poll of the device flow; None without a token."""
    document = json_object(answer) if answer.status == 200 else None
    if document is None:
        return None
    access, refresh = document.get("accessToken"), document.get("refreshToken")
    if not is_token(access):
        return None
    return Credentials(access, refresh if is_token(refresh) else None, _expiry(document.get("expiresIn")))


def is_token(value: object) -> TypeGuard[str]:
    """Whether ``value`` is a token that is valid in a header."""
    if not isinstance(value, str):
        return False
    try:
        check_token(value, "the platform")
    except ConfigError:
        return False
    return True


def seconds_in(value: object, *, usual: float, most: float) -> float:
    """``value`` as a number of seconds from 0 to ``most``; ``usual`` if it is not a number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
        return usual
    return float(min(value, most))  # min() first, since JSON integers may be too large for a float


def _expiry(seconds: object) -> datetime | None:
    """The time ``seconds`` from now; None if ``seconds`` is invalid."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return None
    try:
        return datetime.now(UTC) + timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        return None


def _object_in(document: dict[str, object], key: str) -> dict[str, object]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _text_in(document: dict[str, object], key: str) -> str:
    value = document.get(key)
    return printable(value)[:_SHOWN_CHARS] if isinstance(value, str) else ""
