"""The events of a flush as plain values, which every engine can transmit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from cirron_spool import events
from cirron_spool.events import FlushEvent

# Other events are not sent: the report of a task has its counts.
_KINDS: dict[str, Callable[..., FlushEvent]] = {
    kind.__name__: kind
    for kind in (
        *(events.Started, events.Uploaded, events.Retrying, events.Failed, events.Quarantined, events.Warned),
        *(events.SnapshotsStarted, events.SnapshotUploaded, events.SnapshotFailed),
    )
}


def pack(event: FlushEvent) -> list[Any] | None:
    """The event as a list of plain values; None for an event that is not sent to other machines."""
    name = type(event).__name__
    if name not in _KINDS:
        return None
    values = [getattr(event, field.name) for field in fields(event)]
    return [name, *(str(value) if isinstance(value, Path) else value for value in values)]


def unpack(message: list[Any]) -> FlushEvent:
    """The event of a message."""
    kind: Any = _KINDS[message[0]]
    values = [
        Path(value) if field.type == "Path" else value
        for field, value in zip(fields(kind), message[1:], strict=True)
    ]
    event: FlushEvent = kind(*values)
    return event
