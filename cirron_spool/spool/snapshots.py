"""Snapshots of sampled and full runs: files beside the spool, which a flush uploads on request."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from cirron_spool.settings.paths import SPOOL_NAME
from cirron_spool.text import count, printable

# As the SDK lays them out: <output dir>/snapshots/<span_id>/<file>.
FOLDER = "snapshots"
FILES = ("weights.safetensors", "gradients.safetensors")
# The count is for a person: at so many spans, or after so many seconds, "at least" is enough.
_MOST_SPANS = 2000
_MOST_S = 0.2


class Snapshots(NamedTuple):
    """The snapshot files of a run in ``folder``. ``all_counted`` is False where there are more than ``files``."""

    folder: Path
    files: int
    all_counted: bool

    def __str__(self) -> str:
        """``3 files in /…/snapshots``."""
        number = ("" if self.all_counted else "at least ") + count(self.files, "file")
        return f"{number} in {printable(str(self.folder))}"


def find_snapshots(spool: Path) -> Snapshots | None:
    """Count the snapshots of the run whose spool is ``spool``; None without any. Blocking, bounded."""
    for folder in _places(spool):
        files, whole = _count(folder)
        if files:
            return Snapshots(folder, files, whole)
    return None


def snapshot_folder(spool: Path) -> tuple[Path | None, bool]:
    """The folder for the snapshots of the run whose spool is ``spool``, or None. Blocking.

    The second value says whether the directory has a name beside which snapshots lie.
    """
    places = _places(spool)
    folders = [folder for folder in places if os.path.lexists(folder)]
    best = next((folder for folder in folders if _count(folder)[0]), folders[0] if folders else None)
    return best, bool(places)


def _places(spool: Path) -> list[Path]:
    """The folders in which the snapshots of the run may be."""
    places = dict.fromkeys((spool, Path(os.path.realpath(spool))))
    # The SDK calls its spool so; any other directory says nothing about an output directory around it.
    return [place.parent / FOLDER for place in places if place.name == SPOOL_NAME]


def snapshots_left(spool: Path) -> str:
    """A warning that counts the snapshots of the run whose spool is ``spool``, or an empty string. Blocking."""
    found = find_snapshots(spool)
    return (
        f"Snapshots stay behind: {found}. Run a flush with --snapshots to upload them."
        if found is not None
        else ""
    )


def _count(folder: Path) -> tuple[int, bool]:
    """How many snapshot files are in the folder, and whether those are all."""
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
    except OSError:  # none, or unreadable: what is there cannot be told
        return
