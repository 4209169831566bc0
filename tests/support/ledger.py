"""What the servers of this process have acknowledged: the other side of every delete.

An entry stands for "these bytes, under this id, were received whole and a success answer was sent whole".
Writers hold `lock` from before the answer's last byte until the entry stands, readers hold it while they
look: so a client that has the whole answer can never look too early.
"""

from __future__ import annotations

import hashlib
import threading

lock = threading.RLock()
_entries: set[tuple[str, str]] = set()


def digest(body: bytes) -> str:
    """The key of a batch's bytes (as on disk, not compressed)."""
    return hashlib.sha256(body).hexdigest()


def acknowledge(batch_id: str, body: bytes) -> None:
    """Enter `body` as acknowledged under `batch_id`."""
    with lock:
        _entries.add((batch_id, digest(body)))


def is_acknowledged(batch_id: str, body_digest: str) -> bool:
    """Whether exactly these bytes were acknowledged under `batch_id`."""
    with lock:
        return (batch_id, body_digest) in _entries


def forget() -> None:
    """Empty the ledger, at the start of a test."""
    with lock:
        _entries.clear()
