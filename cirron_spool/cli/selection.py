"""The selection in the arguments, and the output of a dry run."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cirron_spool.cli.render import Times, inventory_lines
from cirron_spool.errors import ConfigError
from cirron_spool.offline import Inventory
from cirron_spool.text import count, human_size

if TYPE_CHECKING:
    from cirron_spool.spool.selection import Selection

_OPTIONS = ("limit", "max_bytes", "older_than", "newer_than")


def selection_of(options: argparse.Namespace) -> Selection | None:
    """The selection in the arguments; None if they take the whole spool. Raises ConfigError."""
    given = _given(options)
    if not given:
        return None
    from cirron_spool.spool.selection import Selection  # late import: inspect must start fast

    try:
        return Selection(**given)
    except ConfigError:
        raise ConfigError(
            "No batch is both older than --older-than and newer than --newer-than. Exchange the two times."
        ) from None


def left_out_json(options: argparse.Namespace, left_out: int) -> dict[str, object]:
    """``leftOut``, if the arguments have a selection."""
    return {"leftOut": left_out} if _given(options) else {}


def _given(options: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name in _OPTIONS if (value := getattr(options, name)) is not None}


def dry_run_lines(inventory: Inventory, ending: str, columns: int, rows: int) -> Iterator[str]:
    """A dry run as text: the table of ``inspect``, and a sentence that ends in ``ending``."""
    yield from inventory_lines(inventory, (), "", columns, rows)
    if inventory.entries:
        files = f"{count(len(inventory.entries), 'file')} ({human_size(inventory.total_bytes)})"
        yield f"Dry run: {files} {ending}"


def dry_run_json(entries: Sequence[tuple[str, int]]) -> dict[str, object]:
    """The JSON keys of a dry run. Batches have the keys of ``inspect --json``."""
    total = sum(size for _, size in entries)
    return {
        "dryRun": True,
        "files": len(entries),
        "totalBytes": total,
        "entries": list(entries_json(entries)),
    }


def entries_json(entries: Sequence[tuple[str, int]]) -> Iterator[dict[str, object]]:
    """Each batch with the keys of ``inspect --json``."""
    times = Times()
    for name, size in entries:
        created_ns, iso = times.of(name)
        yield {"name": name, "size": size, "createdNs": created_ns, "iso": iso}


def snapshot_plan_lines(files: Sequence[tuple[str, int]]) -> Iterator[str]:
    """The snapshots of a dry run as text: each one with its size, then the totals."""
    yield from (f"{key}  {human_size(size)}" for key, size in files)
    total = human_size(sum(size for _, size in files))
    yield f"Dry run: {count(len(files), 'snapshot')} ({total}) would be sent before the batches."


def snapshot_plan_json(files: Sequence[tuple[str, int]]) -> dict[str, object]:
    """The JSON keys of a dry run with snapshots."""
    return {"snapshotEntries": [{"name": key, "size": size} for key, size in files]}
