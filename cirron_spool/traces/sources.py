"""Read the batches of a spool, a receiver's store or an archive, one at a time.

An archive is a folder with spools at any depth, or a tar or zip file of such a folder. Nothing is locked or written.
Links below the path are not followed. A vanished file was delivered or evicted, and is skipped.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from cirron_spool.errors import SpoolError, resource_error
from cirron_spool.settings.paths import is_quarantine_name
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.file_identity import GONE, NotABatch, Vanished
from cirron_spool.spool.names import is_batch_name, oldest_first
from cirron_spool.spool.snapshots import FOLDER
from cirron_spool.text import human_size, printable, reason

# The SDK's largest batches have tens of MB. A limit is needed, since gzip data can expand a thousandfold.
_MOST_BYTES = 1 << 30
# The errors of an archive that is broken or has an unknown compression.
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)
_GZIP_MAGIC = b"\x1f\x8b"
_PACKED = ".gz"


class BatchText(NamedTuple):
    """One batch: its ``name`` with the folder in the archive, the size of its file in bytes, and its JSON."""

    name: str
    size: int
    text: bytes


class UnreadableBatch(NamedTuple):
    """A batch that cannot be read, with the reason."""

    name: str
    why: str


Source = Iterator[BatchText | UnreadableBatch]


def read_batches(path: Path) -> Source:
    """Read the batches in ``path``, oldest first within each folder. Blocking.

    Raises SpoolError for an unreadable path, and for one that is neither a folder nor an archive.
    """
    return _in_file(path) if path.is_file() else _in_folders(path)


def _in_folders(top: Path) -> Source:
    """The batches of a folder. If it has none, those of all folders below it."""
    own = _in_folder(top, top)
    first = next(own, None)
    if first is not None:
        yield first
        yield from own
        return
    for number, (folder, names, _) in enumerate(os.walk(top)):
        names[:] = sorted(name for name in names if name != FOLDER and not is_quarantine_name(name))
        if number:
            yield from _in_folder(Path(folder), top)


def _in_folder(folder: Path, top: Path) -> Source:
    with SpoolDirectory(folder) as spool:
        try:
            if not spool.open():
                return
            names = [*spool.listing().names, *_packed_names(folder)]
        except SpoolError as error:
            if folder == top:
                raise
            yield UnreadableBatch(_shown(folder, top), str(error))
            return
        for name in oldest_first(names, _plain):
            found = _read(spool, name)
            if found is not None:
                yield found._replace(name=_shown(folder / name, top))


def _packed_names(folder: Path) -> list[str]:
    """The file names of the batches that are compressed with gzip."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if _is_packed(entry.name)]
    except OSError:  # a listing has just worked: the folder is gone
        return []


def _is_packed(name: str) -> bool:
    return name.endswith(_PACKED) and is_batch_name(_plain(name))


def _plain(name: str) -> str:
    return name.removesuffix(_PACKED)


def _shown(path: Path, top: Path) -> str:
    return printable(str(path.relative_to(top)))


def _read(spool: SpoolDirectory, name: str) -> BatchText | UnreadableBatch | None:
    """The batch, or the reason why it is unreadable; None for a vanished file."""
    try:
        fd, fingerprint = spool.open_batch(name)
        with open(fd, "rb") as file:
            return _content(name, fingerprint.size, file)
    except Vanished:
        return None
    except NotABatch as error:
        return UnreadableBatch(name, f"it is {error}")
    except OSError as error:
        if error.errno in GONE:
            return None
        if lacking := resource_error(error):
            raise lacking from None
        return UnreadableBatch(name, reason(error))


def _content(name: str, size: int, file: IO[bytes]) -> BatchText | UnreadableBatch:
    """The decompressed content of a batch's file."""
    data = file.read(_MOST_BYTES + 1)
    if data[:2] == _GZIP_MAGIC:
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data = packed.read(_MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error):
            return UnreadableBatch(name, "its gzip data is broken")
    if len(data) > _MOST_BYTES:
        return UnreadableBatch(name, f"it has more than {human_size(_MOST_BYTES)}")
    return BatchText(name, size, data)


def _in_file(path: Path) -> Source:
    """The batches in a tar or zip file. A broken part ends the batches with a warning."""
    has_batches = False
    try:
        if zipfile.is_zipfile(path):
            batches = _in_zip(path)
        elif tarfile.is_tarfile(path):
            batches = _in_tar(path)
        else:
            raise SpoolError(
                f"{printable(str(path))} is not a directory, tar or zip file. Pass --dir a spool or an archive."
            )
        for batch in batches:
            has_batches = True
            yield batch
    except (*_BROKEN, OSError) as error:
        if isinstance(error, OSError) and (lacking := resource_error(error)):
            raise lacking from None
        why = _reason(error)
        if not has_batches:
            raise SpoolError(f"Cannot read {printable(str(path))}: {why}. Check the file.") from None
        yield UnreadableBatch(f"The rest of {printable(path.name)}", why)


def _reason(error: Exception) -> str:
    """The reason of an error in the words of the system or of the library."""
    return (reason(error) if isinstance(error, OSError) else printable(str(error))).rstrip(".")


def _in_tar(path: Path) -> Source:
    # Stream mode reads a compressed archive once, and keeps no list of its members.
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            if (
                member.isfile()
                and _is_batch(member.name)
                and (file := archive.extractfile(member)) is not None
            ):
                yield _content(printable(member.name), member.size, file)
            archive.members = []  # type: ignore[attr-defined]  # else each member stays in memory


def _in_zip(path: Path) -> Source:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir() and _is_batch(member.filename):
                if member.flag_bits & 1:
                    yield UnreadableBatch(printable(member.filename), "it is encrypted")
                    continue
                try:
                    with archive.open(member) as file:
                        batch = _content(printable(member.filename), member.file_size, file)
                except _BROKEN as error:
                    batch = UnreadableBatch(printable(member.filename), _reason(error))
                yield batch


def _is_batch(member: str) -> bool:
    """Whether a member of an archive is a batch outside a quarantine."""
    *folders, name = member.split("/")
    return is_batch_name(_plain(name)) and not any(is_quarantine_name(folder) for folder in folders)
