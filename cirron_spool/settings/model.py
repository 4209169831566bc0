"""The settings of a flush, and the credentials in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cirron_spool.protocol.verdict import INGEST_PATH


@dataclass(frozen=True, slots=True)
class Credentials:
    """A bearer token and, for a login, its refresh token. ``expires_at`` (aware, UTC) is a hint: the 401 decides.

    ``source`` says where the token stands. It makes no two credentials differ.
    """

    token: str
    refresh_token: str | None = None
    expires_at: datetime | None = None
    source: str = field(default="the token argument", compare=False)

    def __repr__(self) -> str:  # a token never reaches a log or a traceback
        renewable = self.refresh_token is not None
        return f"Credentials(token=…, renewable={renewable}, expires_at={self.expires_at}, source={self.source!r})"


@dataclass(frozen=True, slots=True)
class Settings:
    """Validated settings.

    ``api_url`` and ``ingest_origin`` are origins without a path; batches go to ``ingest_path`` below the second.
    ``origins`` says where each value came from. ``remedy`` says how to replace a token that is refused where
    ``cirron auth login`` does not, ``missing_hint`` where a token was looked for. Both are for a person.
    """

    api_url: str
    ingest_origin: str
    timeout_ms: int
    retries: int
    credentials: Credentials | None
    config_path: Path
    warnings: tuple[str, ...] = ()
    ingest_path: str = INGEST_PATH
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    remedy: str = field(default="", compare=False)
    missing_hint: str = field(default="", compare=False)

    def refusal_hint(self, credentials: Credentials) -> str:
        """For a person whose token was refused: where it came from, and how to replace it."""
        return f"The refused token came from {credentials.source}. {self.remedy}".rstrip()
