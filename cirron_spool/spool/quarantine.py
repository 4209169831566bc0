"""The quarantine: rejected batches beside the spool, each with a note, until a person decides.

``.cirron/quarantine/`` has each batch under its own name, unchanged, moved by a rename. The note has the name
``<name without .json>.rejection.json``, and has time, status and answer.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cirron_spool.errors import SpoolError
from cirron_spool.settings.paths import quarantine_path
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.names import is_batch_name
from cirron_spool.text import printable, reason

NOTE_SUFFIX = ".rejection.json"
_LARGEST_NOTE_BYTES = 64 * 1024


class Rejection(NamedTuple):
    """A batch in quarantine: size in bytes, time of the rejection (ISO 8601), status and answer."""

    name: str
    size: int
    when: str | None = None
    status: int | None = None
    message: str = ""


def set_aside(spool: SpoolDirectory, name: str, status: int | None, message: str) -> Path:
    """Move the batch to the quarantine and write its note; returns the quarantine. Blocking.

    Raises OSError when the move fails, and SpoolBusyError once another process took the spool over. The batch then
    stays in the spool.
    """
    spool.ensure_claim()
    folder = quarantine_path(spool.path)
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / name
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "a batch of that name is in quarantine already", str(target))
    note: dict[str, object] = {
        "name": name,
        "rejectedAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "status": status,
        "message": message,
    }
    # The note first: a note without its batch is harmless, a batch without its note has no reason.
    _write(_note_path(target), note)
    try:
        os.rename(spool.path_of(name), target)
    except OSError:
        if not os.path.lexists(target):  # another process may have moved it
            _tidy(target)
        raise
    return folder


def entries(spool: Path) -> list[Rejection]:
    """The batches in the quarantine of a spool directory, oldest first. Blocking. Raises SpoolError."""
    folder = quarantine_path(spool)
    with SpoolDirectory(folder, remedy="Move it away: rejected batches are kept there.") as opened:
        found = opened.entries() if opened.open() else []
        return [_with_note(folder, entry.name, entry.size) for entry in found]


def entries_if_readable(spool: Path) -> tuple[list[Rejection], str]:
    """As :func:`entries`, for a command that needs no quarantine. Returns a warning in place of an error."""
    try:
        return entries(spool), ""
    except SpoolError as error:
        return [], f"The quarantine is not shown. {error}"


def put_back(spool: Path, names: list[str]) -> tuple[int, list[tuple[str, OSError]]]:
    """Move batches back to the spool for the next flush. Returns the number and the failures. Blocking."""
    try:
        spool.mkdir(parents=True, exist_ok=True)  # the empty spool may have been removed
    except OSError as error:
        shown = printable(str(spool))
        raise SpoolError(
            f"Cannot use {shown} as a spool: {reason(error)}. Move it away, or pass --dir."
        ) from None
    return _each(spool, names, lambda source: os.rename(source, _free(spool / source.name)))


def remove(spool: Path, names: list[str]) -> tuple[int, list[tuple[str, OSError]]]:
    """Delete batches from the quarantine. Returns the number and the failures. Blocking."""
    return _each(spool, names, os.unlink)


def _each(
    spool: Path, names: list[str], act: Callable[[Path], None]
) -> tuple[int, list[tuple[str, OSError]]]:
    done = 0
    failed: list[tuple[str, OSError]] = []
    folder = quarantine_path(spool)
    for name in names:
        if not is_batch_name(name):
            continue
        try:
            act(folder / name)
            done += 1
        except FileNotFoundError:
            continue
        except OSError as error:
            failed.append((name, error))
            continue
        _tidy(folder / name)
    return done, failed


def _tidy(gone: Path) -> None:
    """Remove the note of a batch that left the quarantine, and an empty quarantine."""
    with suppress(OSError):
        os.unlink(_note_path(gone))
    with suppress(OSError):
        os.rmdir(gone.parent)


def _free(target: Path) -> Path:
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "the spool has a batch of that name", str(target))
    return target


def _note_path(batch: Path) -> Path:
    return batch.with_name(f"{batch.stem}{NOTE_SUFFIX}")


def _write(path: Path, note: dict[str, object]) -> None:
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(note, file, indent=2, ensure_ascii=False)
            file.write("\n")
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _unblocking(name: str, flags: int) -> int:
    # A FIFO with this name must not block inspect.
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def _with_note(folder: Path, name: str, size: int) -> Rejection:
    try:
        with open(_note_path(folder / name), encoding="utf-8", opener=_unblocking) as file:
            note = json.loads(file.read(_LARGEST_NOTE_BYTES))
    except (OSError, ValueError, RecursionError):
        note = None
    if not isinstance(note, dict):
        return Rejection(name, size)
    when, status, message = note.get("rejectedAt"), note.get("status"), note.get("message")
    return Rejection(
        name,
        size,
        when if isinstance(when, str) else None,
        status if isinstance(status, int) else None,
        message if isinstance(message, str) else "",
    )
