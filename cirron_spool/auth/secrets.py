"""Remove secrets from texts for a person."""

from __future__ import annotations

# A shorter token, such as "t" of a test receiver, is no secret. Its removal would garble a sentence.
_SHORTEST_SECRET = 8


def hide(text: str, *secrets: str | None) -> str:
    """Replace the ``secrets`` in ``text``: an answer may repeat a token."""
    for secret in secrets:
        if secret is not None and len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "…")
    return text
