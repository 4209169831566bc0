"""Find the snapshots of a run, which are beside its spool."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from cirron_spool.settings.paths import SPOOL_NAME
from cirron_spool.text import count, printable

# The SDK's layout: <output dir>/snapshots/<span_id>/<file>.
FOLDER = "snapshots"
FILES = ("weights.safetensors", "gradients.safetensors")
# Limits of the count, in spans and in seconds. Beyond them the message says "at least".
_MOST_SPANS = 2000
_MOST_S = 0.2


class Snapshots(NamedTuple):
    """The snapshot files of a run in ``folder``. ``all_counted`` is False if there are more than ``files``."""

    folder: Path
    files: int
    all_counted: bool

    def __str__(self) -> str:
        """``3 files in /…/snapshots``."""
        number = ("" if self.all_counted else "at least ") + count(self.files, "file")
        return f"{number} in {printable(str(self.folder))}"


def find_snapshots(spool: Path) -> Snapshots | None:
    """Count the snapshots that belong to ``spool``; None without any. Blocking, bounded."""
    for folder in _places(spool):
        files, whole = _count(folder)
        if files:
            return Snapshots(folder, files, whole)
    return None


def snapshot_folder(spool: Path) -> tuple[Path | None, bool]:
    """The folder of the snapshots that belong to ``spool``, or None. Blocking.

    The second value is False if the name of the spool is not the SDK's, so that its snapshots cannot be found.
    """
    places = _places(spool)
    folders = [folder for folder in places if os.path.lexists(folder)]
    best = next((folder for folder in folders if _count(folder)[0]), folders[0] if folders else None)
    return best, bool(places)


def _places(spool: Path) -> list[Path]:
    """The folders where the snapshots of the run may be."""
    places = dict.fromkeys((spool, Path(os.path.realpath(spool))))
    # Only the SDK's name of a spool shows that the parent is an output directory.
    return [place.parent / FOLDER for place in places if place.name == SPOOL_NAME]


def snapshots_left(spool: Path) -> str:
    """A warning with the number of snapshots that belong to ``spool``, or an empty string. Blocking."""
    found = find_snapshots(spool)
    return (
        f"Snapshots are not uploaded: {found}. Run a flush with --snapshots to upload them."
        if found is not None
        else ""
    )


def _count(folder: Path) -> tuple[int, bool]:
    """The number of snapshot files in the folder, and whether the count is complete."""
    deadline = time.monotonic() + _MOST_S
    found = 0
    for number, span in enumerate(_spans(folder)):
        if number == _MOST_SPANS or time.monotonic() > deadline:
            return found, False
        found += sum(os.path.isfile(os.path.join(span, name)) for name in FILES)
    return found, True


def _spans(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in islice(entries, _MOST_SPANS + 1):
                yield entry.path
    except OSError:  # missing or unreadable
        return
