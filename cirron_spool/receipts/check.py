"""Check a receipts file: its chain, and the bytes in a receiver's store. Blocking.

Only the batch ids and, with a store, its file names are held in memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import file_digest
from pathlib import Path

from cirron_spool.errors import ConfigError
from cirron_spool.receipts.chain import Receipt, hash_of, is_torn, parse
from cirron_spool.spool.names import parse_batch_name
from cirron_spool.text import printable, reason

# A longer line is not a receipt.
_LONGEST_LINE = 1024 * 1024


@dataclass(slots=True)
class ReceiptsCheck:
    """The result of a check.

    ``receipts`` counts the receipts, ``batches`` the different batches in them, ``torn`` the lines that a crash has
    left. ``first`` is the hash that the first receipt refers to, None if it begins a chain; ``last`` is the hash of
    the last receipt. ``problems`` says in one line each what is wrong. With a store ``found`` counts the batches whose
    bytes are there.
    """

    receipts: int = 0
    batches: int = 0
    torn: int = 0
    first: str | None = None
    last: str | None = None
    found: int = 0
    problems: list[str] = field(default_factory=list)


def check_receipts(
    path: str | os.PathLike[str], store: str | os.PathLike[str] | None = None
) -> ReceiptsCheck:
    """Check the receipts file ``path``; with ``store``, a receiver's folder, also that it holds the same bytes.

    Raises ConfigError for a file or a folder that cannot be read.
    """
    check = ReceiptsCheck()
    there = _Store(store) if store is not None else None
    seen: dict[str, str] = {}  # the content of each batch, by its id
    try:
        for number, receipt, line in _receipts(path, check):
            if not check.receipts:
                check.first = receipt.previous
            elif receipt.previous != check.last:
                check.problems.append(
                    f"Line {number} does not follow the receipt before it: a line was changed, added or removed."
                )
            check.receipts += 1
            check.last = hash_of(line)
            if seen.get(receipt.batch_id) == receipt.sha256:
                continue  # sent twice: a crash came before the delete
            if receipt.batch_id in seen:
                check.problems.append(
                    f"Line {number} has a different hash for {_shown(receipt)} than an earlier line."
                )
            seen[receipt.batch_id] = receipt.sha256
            if there is not None:
                _compare(check, there, receipt, number)
    except OSError as error:
        raise ConfigError(
            f"Cannot read {printable(os.fspath(path))}: {reason(error)}. Check the path."
        ) from None
    check.batches = len(seen)
    return check


def _receipts(path: str | os.PathLike[str], check: ReceiptsCheck) -> Iterator[tuple[int, Receipt, bytes]]:
    """Each receipt with the number and the bytes of its line. Other lines are counted. Raises OSError, ConfigError."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError("it is not a regular file")
        number = 0
        while line := file.readline(_LONGEST_LINE):
            number += 1
            line = line.removesuffix(b"\n")
            receipt = parse(line)
            if receipt is not None:
                yield number, receipt, line
            elif is_torn(line):
                check.torn += 1
            else:
                check.problems.append(f"Line {number} is not a receipt.")


def _compare(check: ReceiptsCheck, store: _Store, receipt: Receipt, number: int) -> None:
    """Search the store for the batch of ``receipt``."""
    try:
        hashes = store.hashes_of(receipt)
    except OSError as error:
        check.problems.append(f"Line {number}: cannot read {_shown(receipt)} in the store: {reason(error)}.")
        return
    if receipt.sha256 in hashes:
        check.found += 1
    elif hashes:
        check.problems.append(f"Line {number}: {_shown(receipt)} has different bytes in the store.")
    else:
        check.problems.append(f"Line {number}: {_shown(receipt)} is not in the store.")


def _shown(receipt: Receipt) -> str:
    return printable(receipt.name)


class _Store:
    """The batches in a receiver's folder. Raises ConfigError."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._names: dict[str, list[str]] = {}
        try:
            names = os.listdir(path)
        except OSError as error:
            raise ConfigError(
                f"Cannot read the store {printable(os.fspath(path))}: {reason(error)}. Check --against."
            ) from None
        for name in names:
            if (batch := parse_batch_name(name)) is not None:
                self._names.setdefault(batch.batch_id, []).append(name)

    def hashes_of(self, receipt: Receipt) -> list[str]:
        """The SHA-256 of each file with the receipt's batch id. Raises OSError."""
        hashes = []
        for name in self._names.get(receipt.batch_id, ()):
            with open(self._path / name, "rb") as file:
                hashes.append(file_digest(file, "sha256").hexdigest())
        return hashes
