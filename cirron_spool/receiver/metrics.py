"""The metrics route, for Prometheus. It needs prometheus-client, the extra ``metrics``."""

from __future__ import annotations

import shutil
import time

from cirron_spool.receiver.answers import Answer, RefusedError
from cirron_spool.receiver.connections import Request
from cirron_spool.receiver.intake import Intake
from cirron_spool.receiver.journal import Journal
from cirron_spool.receiver.store import Store
from cirron_spool.telemetry import families as of
from cirron_spool.telemetry.families import Family

_Values = dict[Family, dict[str, float]]


class Metrics:
    """Reports the counts of the receiver, and the state of its store. It needs no token."""

    def __init__(self, store: Store, intake: Intake, journal: Journal) -> None:
        self._store = store
        self._intake = intake
        self._journal = journal
        self._started = time.time()

    async def get(self, request: Request) -> Answer:
        """The metrics in the text format. Raises RefusedError (501) without prometheus-client."""
        del request
        text, content_type = await self._intake.run(self._text)
        return Answer(200, text, {"Content-Type": content_type})

    def _text(self) -> tuple[str, str]:
        try:
            from cirron_spool.telemetry import prometheus
        except ImportError:
            raise RefusedError(
                501, "Metrics need prometheus-client: install cirron-spool[metrics]."
            ) from None
        return prometheus.text_of(self._values()), prometheus.CONTENT_TYPE

    def _values(self) -> _Values:
        journal = self._journal
        counts = {
            of.RECEIVED: journal.received,
            of.RECEIVED_BYTES: journal.bytes,
            of.DUPLICATES: journal.duplicates,
            of.SNAPSHOTS: journal.snapshots,
            of.SNAPSHOT_BYTES: journal.snapshot_bytes,
            of.SIGN_INS: journal.sign_ins,
        }
        values: _Values = {family: {"": float(number)} for family, number in counts.items()}
        values[of.REFUSED] = {
            str(status): float(number) for status, number in journal.refused_by_status.items()
        }
        return values | self._state_of_store() | {of.STARTED: {"": self._started}}

    def _state_of_store(self) -> _Values:
        """A store that cannot be read has no further values."""
        try:
            batches, free = self._store.count(), shutil.disk_usage(self._store.directory).free
        except OSError:
            return {of.USABLE: {"": 0.0}}
        return {of.STORED: {"": float(batches)}, of.USABLE: {"": 1.0}, of.FREE: {"": float(free)}}
