"""The search for spools in a thread: once for a flush, repeatedly for a watch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from cirron_spool.errors import CirronSpoolError
from cirron_spool.spool.discovery import FoundSpool, SkippedFolder, discover, distinct
from cirron_spool.spool.listing import list_names
from cirron_spool.spool.names import created_ns_of
from cirron_spool.text import count, printable

# Largest group of spools that is reported together, and the longest wait for it.
_PORTION = 512
_PORTION_S = 0.25
# Most skipped folders that are named in warnings.
_MOST_NAMED = 20
# Within this time, a later change of a folder may get the same modification time.
_RECENT_NS = 2 * 10**9


class Places(NamedTuple):
    """The places of the spools: ``directories`` are spools, ``roots`` are searched."""

    roots: tuple[Path, ...]
    directories: tuple[Path, ...]
    cross_file_systems: bool = False


class Search:
    """One search of ``places``. Blocking.

    ``found`` is called with groups of spools, ``warn`` with a line for a person. ``is_over`` ends the search early.
    ``missing_ok`` ignores roots that do not exist yet.
    """

    def __init__(
        self,
        places: Places,
        found: Callable[[list[FoundSpool]], None],
        warn: Callable[[str], None],
        *,
        missing_ok: bool = False,
    ) -> None:
        self._places = places
        self._found = found
        self._warn = warn
        self._missing_ok = missing_ok
        self._passed = 0
        self.is_over = False

    def run(self) -> None:
        """Search. Raises SpoolError for a root that cannot be searched."""
        roots: Sequence[Path] = self._places.roots
        if self._missing_ok:
            roots = [root for root in roots if os.path.exists(root)]
        portion = [_named(directory) for directory in distinct(self._places.directories)]
        handed_over = time.monotonic()
        for spool in discover(
            roots,
            cross_file_systems=self._places.cross_file_systems,
            on_skip=self._skip_folder,
            exclude=self._places.directories,
        ):
            if self.is_over:
                return
            portion.append(spool)
            if len(portion) >= _PORTION or time.monotonic() - handed_over > _PORTION_S:
                self._found(portion)
                portion, handed_over = [], time.monotonic()
        self._found(portion)
        if self._passed > _MOST_NAMED:
            self._warn(f"{count(self._passed - _MOST_NAMED, 'further folder')} skipped.")

    def _skip_folder(self, folder: SkippedFolder) -> None:
        self._passed += 1
        if self._passed <= _MOST_NAMED:
            self._warn(f"Skipped {printable(str(folder.path))}: {folder.reason}.")


class Changes:
    """The new batches of the known spools. Blocking."""

    def __init__(self) -> None:
        self._times: dict[Path, int] = {}
        self._given: dict[Path, frozenset[str]] = {}

    def poll(self, paths: Sequence[Path]) -> list[FoundSpool]:
        """The spools with batches that were not reported before, each with their number and the oldest of them."""
        return [found for path in paths if (found := self._poll_one(path)) is not None]

    def forget(self, path: Path) -> None:
        """Report the batches of this spool again."""
        self._times.pop(path, None)
        self._given.pop(path, None)

    def _poll_one(self, path: Path) -> FoundSpool | None:
        try:
            changed_ns = os.stat(path).st_mtime_ns
        except OSError:
            self.forget(path)
            return None
        if self._times.get(path) == changed_ns:
            return None
        if abs(time.time_ns() - changed_ns) > _RECENT_NS:
            self._times[path] = changed_ns
        else:
            self._times.pop(path, None)
        try:
            names = list_names(path, None).names
        except CirronSpoolError:
            self._times.pop(path, None)  # listed again at the next poll
            return None
        given = self._given.get(path, frozenset())
        new = [name for name in names if name not in given]
        if names:
            self._given[path] = frozenset(names)
        else:
            self._given.pop(path, None)
        return FoundSpool(path, len(new), created_ns_of(new[0])) if new else None


def _named(directory: Path) -> FoundSpool:
    """A spool with a path from the caller. An unreadable one counts one batch, so its flush reports the error."""
    names: list[str] = []
    try:
        names = list_names(directory, None).names
    except CirronSpoolError:
        return FoundSpool(directory, 1, 0)
    return FoundSpool(directory, len(names), created_ns_of(names[0]) if names else None)
