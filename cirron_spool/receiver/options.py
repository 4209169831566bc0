"""The options of a receiver."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cirron_spool.errors import ConfigError
from cirron_spool.receiver.tokens import ACCESS_SECONDS

# The SDK limits a whole spool to 1 GB, so none of its batches is larger.
DEFAULT_MAX_BYTES = 1 << 30

# Snapshots have the weights of whole models.
DEFAULT_MAX_SNAPSHOT_BYTES = 1 << 40

# Half of the largest head of a request.
MAX_TOKEN = 8 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverOptions:
    """The settings of one receiver.

    ``store`` is the folder (created with mode 0700 when missing); ``port`` 0 takes a free one. Without ``token``
    and ``refresh_token`` every request is accepted. ``refresh_token`` is the first one that the refresh route
    accepts; each refresh replaces it. ``latency_ms`` delays each answer; ``bandwidth`` limits the reading of request
    bodies to so many bytes a second, all connections together. ``max_bytes`` bounds a body as it is sent and again
    as it is decompressed. ``max_snapshot_bytes`` bounds a snapshot. ``verbose`` reports each batch, snapshot, sign-in
    and refusal.

    The times are in seconds. ``access_token_s`` is how long an issued access token is valid. ``device_code_s`` is how
    long a sign-in waits for its approval, and ``device_interval_s`` how often its client may ask. ``header_timeout_s``
    bounds a request's head. ``body_timeout_s`` bounds a stall of a body or of the reading of an answer.
    ``keepalive_s`` bounds an idle connection. ``grace_s`` is for requests in flight at the end.
    """

    store: Path
    host: str = "127.0.0.1"
    port: int = 0
    token: str | None = None
    refresh_token: str | None = None
    latency_ms: float = 0
    bandwidth: int | None = None
    max_bytes: int = DEFAULT_MAX_BYTES
    max_snapshot_bytes: int = DEFAULT_MAX_SNAPSHOT_BYTES
    verbose: bool = False
    access_token_s: int = ACCESS_SECONDS
    device_code_s: int = 900
    device_interval_s: int = 2
    header_timeout_s: float = 30.0
    body_timeout_s: float = 30.0
    keepalive_s: float = 75.0
    grace_s: float = 3.0
    max_connections: int = 512

    def check(self) -> None:
        """Raise ConfigError, which names the option, for an invalid value."""
        if not self.host:
            raise ConfigError("--host must not be empty. Use 0.0.0.0 to listen on every interface.")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port must be between 0 and 65535, not {self.port}.")
        if self.latency_ms < 0:
            raise ConfigError("--latency-ms must not be negative.")
        if self.bandwidth is not None and self.bandwidth < 1:
            raise ConfigError("--bandwidth must be at least 1 byte a second.")
        if self.max_bytes < 1:
            raise ConfigError("--max-bytes must be at least 1.")
        if self.max_snapshot_bytes < 1:
            raise ConfigError("--max-snapshot-bytes must be at least 1.")
        for what, token, hint in (
            ("token", self.token, "Correct --token or CIRRON_RECEIVE_TOKEN."),
            ("refresh token", self.refresh_token, "Choose another one."),
        ):
            # A header accepts no other characters. An empty token comes from an unset variable.
            if token is not None and not (token and all("!" <= character <= "~" for character in token)):
                raise ConfigError(f"The {what} must be printable ASCII without spaces, and not empty. {hint}")
            if token is not None and len(token) > MAX_TOKEN:
                raise ConfigError(f"The {what} must have at most {MAX_TOKEN} characters. {hint}")
