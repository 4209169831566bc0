"""Answers to requests, and the error for a refused request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, its content and other header fields.

    An object as ``content`` becomes JSON, text becomes an HTML page unless ``fields`` has a ``Content-Type``.
    ``refused`` is the reason of a refusal for the journal, and empty if nothing was refused.
    """

    status: int
    content: Mapping[str, object] | str
    fields: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""


class RefusedError(Exception):
    """The request is refused with ``status``, ``message`` and ``fields``. Nothing is stored."""

    def __init__(self, status: int, message: str, fields: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.fields = fields or {}

    @property
    def answer(self) -> Answer:
        """The answer to the refused request, in JSON."""
        content = {"success": False, "error": self.message}
        return Answer(self.status, content, self.fields, refused=self.message)


def unauthorized() -> RefusedError:
    """The error for a request without an accepted token."""
    return RefusedError(401, "The token is not accepted.", {"WWW-Authenticate": "Bearer"})
