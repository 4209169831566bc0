"""The source of a flush's batches: a spool that is listed once, or one that is followed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class BatchSource(Protocol):
    """The batches of one flush, in groups, oldest first."""

    async def next_group(self) -> Sequence[str] | None:
        """The names of the next batches; None at the end. A source that follows a spool waits here for new ones."""


class ListedOnce:
    """The batches of one listing."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names: Sequence[str] | None = names

    async def next_group(self) -> Sequence[str] | None:
        """All names, then None."""
        names, self._names = self._names, None
        return names
