"""Secrets stay out of texts for a person."""

from __future__ import annotations

# A test receiver's "t" is no secret, and taking it out of a sentence would garble it.
_SHORTEST_SECRET = 8


def hide(text: str, *secrets: str | None) -> str:
    """``text`` as it can be shown: a server that repeats a token must not make us print it."""
    for secret in secrets:
        if secret is not None and len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "…")
    return text
