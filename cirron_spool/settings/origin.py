"""The origin of a setting: an argument, an environment variable, a key of a file, the keyring, or the default.

``inspect`` imports this module, so it has no dataclass, which is slow to import.
"""

from __future__ import annotations

from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

from cirron_spool.text import printable

T = TypeVar("T")


class Origin(NamedTuple):
    """The origin of a value. ``name`` is an argument, a variable or a key. ``file`` is the path for a key.

    For a key in the keyring, ``file`` is the configuration that it belongs to.
    """

    kind: Literal["argument", "environment", "file", "keyring", "default"]
    name: str = ""
    file: Path | None = None

    def __str__(self) -> str:
        """The subject of a sentence about the value: ``timeout in /home/me/.cirron/config.json``."""
        if self.kind == "default":
            return "the default"
        if self.kind == "keyring":
            return f"{self.name} in the keyring"
        return f"{self.name} in {self._path}" if self.kind == "file" else self.name

    @property
    def place(self) -> str:
        """The place of the value in a sentence: ``/home/me/.cirron/config.json (key token)``."""
        if self.kind == "file":
            return f"{self._path} (key {self.name})"
        if self.kind == "keyring":
            return f"the keyring (key {self.name})"
        # A caller may replace the name of an argument: --token-file t.txt.
        return (
            f"the {self.name} argument" if self.kind == "argument" and self.name.isidentifier() else str(self)
        )

    @property
    def _path(self) -> str:
        return printable(str(self.file))


class Setting(NamedTuple, Generic[T]):
    """A value and its origin."""

    value: T
    origin: Origin


DEFAULT = Origin("default")
