"""Inspect and clear: the work on a spool that needs no network.

Named tuples stand here in place of data classes: their import takes a sixth of the start of ``inspect``.
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
from cirron_spool.text import count, reason

if TYPE_CHECKING:
    from cirron_spool.spool.selection import Selected, Selection

# The search for a spool looks at no more entries of one folder.
_MOST_ENTRIES = 500


class Inventory(NamedTuple):
    """The batches in a spool directory, oldest first, and their sizes in bytes.

    ``exists`` is False where there is no such directory. ``warnings`` are for a person, one line each. ``left_out``
    counts the further batches that a selection left out.
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

    def _repr_html_(self) -> str:
        """The table in a notebook's cell."""
        from cirron_spool.html.fragments import inventory_html

        return inventory_html(str(self.directory), self.entries, self.left_out, self.warnings)


class ClearResult(NamedTuple):
    """The result of a clear: batches and bytes deleted, and the failures with the system's reason.

    ``exists`` is False where there is no such directory. ``left_out`` counts the further batches that a selection
    left out.
    """

    directory: Path
    deleted: int
    bytes: int
    failures: tuple[tuple[str, str], ...] = ()
    exists: bool = True
    left_out: int = 0

    @property
    def failed(self) -> int:
        """Batches that could not be deleted and are still there."""
        return len(self.failures)


def inspect_spool(
    directory: str | os.PathLike[str] | None = None, *, selection: Selection | None = None
) -> Inventory:
    """List the spool in ``directory`` (``$CIRRON_OUTPUT_DIR/spool`` or ``./.cirron/spool``) without reading a batch.

    ``selection`` lists a part of it. A directory that does not exist is an empty spool. Blocking; works offline.
    Raises SpoolError when it is not a directory or may not be read.
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
    """Delete every batch in the spool, or only those of an ``inventory``, or of either those of a ``selection``.

    Anything that is not a batch is left alone; a batch that is gone already counts as deleted. Blocking; works
    offline. Raises SpoolError, and SpoolBusyError while a flush or another clear works on the spool.
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
        spool.lock()  # given back with the directory
        deleted = size = 0
        failures: list[tuple[str, str]] = []
        for entry in entries:
            spool.hold()
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


def spool_near(directory: Path) -> Path | None:
    """The spool that a person who named ``directory`` probably meant, or None. For a directory without batches.

    The search covers two levels below ``directory``. Where that is missing, the search covers the folders beside and
    above it. A path with a ``~`` that no shell expanded is looked up below the home directory. A spool with batches
    comes before an empty ``.cirron/spool``. Blocking; the work is bounded, and nothing is raised.
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
    """Where a spool may be, the likely places first."""
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
        yield above  # the spool itself was taken for its output directory
        yield from _by_the_sdk(above)


def _below(folder: Path) -> Iterator[Path]:
    yield from _by_the_sdk(folder)
    for name in sorted(entry.name for entry in _some_entries(folder)):
        if not is_quarantine_name(name):
            yield folder / name
            yield folder / name / SPOOL_NAME


def _by_the_sdk(folder: Path) -> tuple[Path, Path]:
    return folder / SPOOL_NAME, folder / ".cirron" / SPOOL_NAME


def _has_batches(folder: Path) -> bool:
    return any(is_batch_name(entry.name) for entry in _some_entries(folder))


def _some_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(islice(found, _MOST_ENTRIES))
    except OSError:
        return []
