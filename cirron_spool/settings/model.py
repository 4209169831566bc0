"""The settings of a flush, and the credentials in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cirron_spool.protocol.verdict import INGEST_PATH
from cirron_spool.settings.origin import DEFAULT, Origin, Setting

_TOKEN_ARGUMENT = Origin("argument", "token")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A bearer token and, for a login, its refresh token.

    ``expires_at`` (aware, UTC) is a hint; a 401 of the platform decides. Equality ignores ``origin``.
    """

    token: str
    refresh_token: str | None = None
    expires_at: datetime | None = None
    origin: Origin = field(default=_TOKEN_ARGUMENT, compare=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets that no message may show."""
        return tuple(filter(None, (self.token, self.refresh_token)))

    def __repr__(self) -> str:  # a log or a traceback must not show a token
        renewable = self.refresh_token is not None
        return f"Credentials(token=…, renewable={renewable}, expires_at={self.expires_at}, origin='{self.origin}')"


@dataclass(frozen=True, slots=True)
class Settings:
    """Validated settings.

    ``api_url`` and ``ingest_origin`` are web origins without a path. Batches go to ``ingest_path`` on
    ``ingest_origin``. ``timeout_ms`` is in milliseconds. ``config_path`` holds the login.

    Texts for a person: ``remedy`` says how to replace a refused token if ``cirron auth login`` does not.
    ``missing_hint`` names the places without a token. ``overridden`` names a login that the token overrides, or is
    empty.
    """

    api_url: str
    ingest_origin: str
    timeout_ms: int
    retries: int
    credentials: Credentials | None
    config_path: Path
    warnings: tuple[str, ...] = ()
    ingest_path: str = INGEST_PATH
    allow_http: bool = False
    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False)
    remedy: str = field(default="", compare=False)
    missing_hint: str = field(default="", compare=False)
    overridden: str = field(default="", compare=False)

    def with_origins(self) -> dict[str, Setting[object]]:
        """Each setting with its origin, by name. ``token`` exists only with a token, and shows no secret."""
        values: dict[str, object] = {
            "api_url": self.api_url,
            "ingest_path": self.ingest_path,
            "timeout_ms": self.timeout_ms,
            "retries": self.retries,
            "allow_http": self.allow_http,
        }
        settings = {name: Setting(value, self.origins.get(name, DEFAULT)) for name, value in values.items()}
        if self.credentials is not None:
            settings["token"] = Setting(self.credentials, self.credentials.origin)
        return settings

    def refusal_hint(self, credentials: Credentials) -> str:
        """A text for a person with the origin of refused ``credentials``, and the remedy."""
        return f"The refused token came from {credentials.origin.place}. {self.remedy}".rstrip()
