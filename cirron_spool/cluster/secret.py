"""A token for another machine. Only a pickle contains it in clear."""

from __future__ import annotations

from cirron_spool.text import mask


class Secret:
    """A token without a readable form: ``repr``, ``str`` and ``format`` show its last four characters at most.

    Its pickle holds the token in clear. Send that over an encrypted connection only.
    """

    __slots__ = ("__token",)

    def __init__(self, token: str) -> None:
        self.__token = token

    def reveal(self) -> str:
        """The token."""
        return self.__token

    def __repr__(self) -> str:
        return f"Secret({mask(self.__token)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.reveal() == self.__token

    def __hash__(self) -> int:
        return hash((Secret, self.__token))

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return Secret, (self.__token,)
