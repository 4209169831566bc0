"""Inspect and clear a spool without the network.

The results are named tuples: the import of dataclasses takes a sixth of the start of ``inspect``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cirron_spool.settings.paths import SPOOL_NAME, is_quarantine_name, spool_directory
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.file_identity import Removal
from cirron_spool.spool.listing import Entry
from cirron_spool.spool.names import is_batch_name
from cirron_spool.text import bounded_repr, count, reason

if TYPE_CHECKING:
    from cirron_spool.spool.selection import Selected, Selection

# Entries of one folder that the search for a spool reads at most.
_MOST_ENTRIES = 500


class Inventory(NamedTuple):
    """The batches in a spool directory, oldest first, and their sizes in bytes.

    ``exists`` is False when the directory does not exist. ``warnings`` are for a person, one line each. ``left_out``
    counts the batches that the selection leaves out.
    """

    directory: Path
    entries: Sequence[Entry]
    exists: bool = True
    warnings: tuple[str, ...] = ()
    left_out: int = 0

    @property
    def total_bytes(self) -> int:
        """The sizes of all batches together."""
        return sum(entry.size for entry in self.entries)

    def __repr__(self) -> str:
        return bounded_repr(self)

    def _repr_html_(self) -> str:
        """The table in a notebook's cell."""
        from cirron_spool.html.fragments import inventory_html

        return inventory_html(str(self.directory), self.entries, self.left_out, self.warnings)


class ClearResult(NamedTuple):
    """The result of a clear: the deleted batches and bytes, and each failure with its reason.

    ``exists`` is False when the directory does not exist. ``left_out`` counts the batches that the
    selection leaves out.
    """

    directory: Path
    deleted: int
    bytes: int
    failures: tuple[tuple[str, str], ...] = ()
    exists: bool = True
    left_out: int = 0

    def __repr__(self) -> str:
        return bounded_repr(self)

    @property
    def failed(self) -> int:
        """Batches that could not be deleted and are still there."""
        return len(self.failures)


def inspect_spool(
    directory: str | os.PathLike[str] | None = None, *, selection: Selection | None = None
) -> Inventory:
    """List the spool in ``directory`` (``$CIRRON_OUTPUT_DIR/spool`` or ``./.cirron/spool``) without reading a batch.

    ``selection`` lists a part of it. A missing directory counts as an empty spool. Blocking; works offline. Raises
    SpoolError when the path is not a directory or cannot be read.
    """
    path = spool_directory(directory, os.environ)
    with SpoolDirectory(path) as spool:
        if not spool.open():
            return Inventory(path, (), exists=False)
        unknown: list[tuple[str, OSError]] = []
        entries: Sequence[Entry] = spool.entries(unknown)
    warnings: list[str] = []
    if unknown:
        name, error = unknown[0]
        what = f"Cannot read the size of {count(len(unknown), 'file')}, such as {name}: {reason(error)}."
        warnings.append(f"{what} Check the file system.")
    if selection is None:
        return Inventory(path, entries, warnings=tuple(warnings))
    selected = _select(entries, selection)
    warnings += filter(None, (selected.blocked, selected.odd))
    return Inventory(path, selected.batches, warnings=tuple(warnings), left_out=selected.left_out)


def clear_spool(
    directory: str | os.PathLike[str] | None = None,
    *,
    inventory: Inventory | None = None,
    selection: Selection | None = None,
) -> ClearResult:
    """Delete all batches of the spool or of an ``inventory``; with a ``selection``, a part of them.

    Other files stay. A batch that has already vanished counts as deleted. Blocking; works offline. Raises SpoolError,
    and SpoolBusyError while a flush or another clear works on the spool.
    """
    path = inventory.directory if inventory is not None else spool_directory(directory, os.environ)
    with SpoolDirectory(path) as spool:
        if not spool.open():
            return ClearResult(path, 0, 0, exists=False)
        entries = inventory.entries if inventory is not None else spool.entries()
        left_out = inventory.left_out if inventory is not None else 0
        if selection is not None:
            selected = _select(entries, selection)
            entries, left_out = selected.batches, left_out + selected.left_out
        if not entries:
            return ClearResult(path, 0, 0, left_out=left_out)
        spool.check_writable()
        spool.lock()  # released with the directory
        deleted = size = 0
        failures: list[tuple[str, str]] = []
        for entry in entries:
            spool.ensure_claim()
            try:
                removal = spool.delete(entry.name, None)
            except OSError as error:
                failures.append((entry.name, reason(error)))
                continue
            if removal is Removal.CHANGED:
                failures.append((entry.name, "it is not a regular file any more"))
            else:
                deleted += 1
                size += entry.size
        return ClearResult(path, deleted, size, tuple(failures), left_out=left_out)


def _select(entries: Sequence[Entry], selection: Selection) -> Selected[Entry]:
    return selection.take(
        entries, name_of=lambda entry: entry.name, size_of=lambda entry: entry.size, now_ns=time.time_ns()
    )


def find_spool_near(directory: Path) -> Path | None:
    """A spool near ``directory``, which has no batches, or None. It is a suggestion for a person.

    The search covers two levels below ``directory``. For a missing directory it covers the folders beside and above. A
    path with a ``~`` that no shell expanded is searched below the home directory. A spool with batches is preferred to
    an empty ``.cirron/spool``. Blocking. The work is bounded, and nothing is raised.
    """
    empty = None
    for place in _candidates(directory):
        if place != directory and os.path.isdir(place):
            if _has_batches(place):
                return place
            if empty is None and place.parts[-2:] == (".cirron", SPOOL_NAME):
                empty = place
    return empty


def _candidates(asked: Path) -> Iterator[Path]:
    """The paths where a spool may be, the likely ones first."""
    tilde = next((index for index, part in enumerate(asked.parts) if part.startswith("~")), None)
    if tilde is not None:
        expanded = Path(os.path.expanduser(os.path.join(*asked.parts[tilde:])))
        if expanded.is_absolute():
            yield expanded
            yield from _below(expanded)
    if os.path.isdir(asked):
        yield from _below(asked)
    else:
        above = next((above for above in asked.parents if os.path.isdir(above)), asked)
        yield above  # the caller appended a name to the path of a spool
        yield from _sdk_places(above)


def _below(folder: Path) -> Iterator[Path]:
    yield from _sdk_places(folder)
    for name in sorted(entry.name for entry in _some_entries(folder)):
        if not is_quarantine_name(name):
            yield folder / name
            yield folder / name / SPOOL_NAME


def _sdk_places(folder: Path) -> tuple[Path, Path]:
    return folder / SPOOL_NAME, folder / ".cirron" / SPOOL_NAME


def _has_batches(folder: Path) -> bool:
    return any(is_batch_name(entry.name) for entry in _some_entries(folder))


def _some_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(islice(found, _MOST_ENTRIES))
    except OSError:
        return []
