"""The names, kinds and help texts of the metrics. docs/metrics.md lists them.

Do not change a name or a help text: node_exporter rejects a metric with different help texts in two files.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import NamedTuple


class Kind(Enum):
    """The kind of a metric: a counter only grows, a gauge is a current value."""

    COUNTER = auto()
    GAUGE = auto()


class Family(NamedTuple):
    """A metric. The name of a counter ends in ``_total``. Units are seconds and bytes. ``label`` may be empty."""

    name: str
    kind: Kind
    help: str
    label: str = ""


# The values of a metric by label value. A metric without a label has the key "".
Values = Mapping[str, float]

UPLOADED = Family(
    "cirron_spool_uploaded_batches_total", Kind.COUNTER, "Batches that were acknowledged and deleted."
)
UPLOADED_BYTES = Family(
    "cirron_spool_uploaded_bytes_total", Kind.COUNTER, "Bytes of the files of the uploaded batches."
)
SENT_BYTES = Family(
    "cirron_spool_sent_bytes_total",
    Kind.COUNTER,
    "Bytes of the request bodies that carried the uploaded batches.",
)
FAILED = Family("cirron_spool_failed_batches_total", Kind.COUNTER, "Batches that failed and stayed.")
QUARANTINED = Family(
    "cirron_spool_quarantined_batches_total", Kind.COUNTER, "Batches that were rejected and set aside."
)
EVICTED = Family(
    "cirron_spool_evicted_batches_total", Kind.COUNTER, "Batches that vanished before their upload."
)
RETRIES = Family("cirron_spool_retries_total", Kind.COUNTER, "Attempts after the first one of a batch.")
FLUSHES = Family(
    "cirron_spool_flushes_total", Kind.COUNTER, "Flushes that ended, by their exit code.", "exit_code"
)
LAST_FLUSH = Family("cirron_spool_last_flush_timestamp_seconds", Kind.GAUGE, "When the last flush ended.")
LAST_SUCCESS = Family(
    "cirron_spool_last_success_timestamp_seconds", Kind.GAUGE, "When the last flush with exit code 0 ended."
)
LAST_EXIT_CODE = Family("cirron_spool_last_flush_exit_code", Kind.GAUGE, "The exit code of the last flush.")
LAST_DURATION = Family(
    "cirron_spool_last_flush_duration_seconds", Kind.GAUGE, "The duration of the last flush."
)
WAITING = Family("cirron_spool_waiting_batches", Kind.GAUGE, "Batches in the spool.")
WAITING_BYTES = Family("cirron_spool_waiting_bytes", Kind.GAUGE, "Bytes of the batches in the spool.")
OLDEST = Family(
    "cirron_spool_oldest_batch_timestamp_seconds",
    Kind.GAUGE,
    "When the oldest batch in the spool was made, by its name; absent for an empty spool.",
)
QUARANTINE = Family("cirron_spool_quarantine_batches", Kind.GAUGE, "Batches in the quarantine.")
HELD_UP = Family(
    "cirron_spool_watch_held_up",
    Kind.GAUGE,
    "Whether a watch waits for the platform or for a new login.",
    "cause",
)
UPDATED = Family("cirron_spool_updated_timestamp_seconds", Kind.GAUGE, "When these metrics were written.")

OF_A_FLUSH = (
    UPLOADED,
    UPLOADED_BYTES,
    SENT_BYTES,
    FAILED,
    QUARANTINED,
    EVICTED,
    RETRIES,
    FLUSHES,
    LAST_FLUSH,
    LAST_SUCCESS,
    LAST_EXIT_CODE,
    LAST_DURATION,
    WAITING,
    WAITING_BYTES,
    OLDEST,
    QUARANTINE,
    HELD_UP,
    UPDATED,
)
# The counters that a command continues from an earlier one.
KEPT = (*(family for family in OF_A_FLUSH if family.kind is Kind.COUNTER), LAST_FLUSH, LAST_SUCCESS)
KEPT += (LAST_EXIT_CODE, LAST_DURATION)

RECEIVED = Family("cirron_spool_receiver_batches_total", Kind.COUNTER, "Batches that were stored.")
RECEIVED_BYTES = Family("cirron_spool_receiver_bytes_total", Kind.COUNTER, "Bytes of the stored batches.")
DUPLICATES = Family(
    "cirron_spool_receiver_duplicates_total", Kind.COUNTER, "Batches and snapshots that were stored before."
)
SNAPSHOTS = Family("cirron_spool_receiver_snapshots_total", Kind.COUNTER, "Snapshots that were stored.")
SNAPSHOT_BYTES = Family(
    "cirron_spool_receiver_snapshot_bytes_total", Kind.COUNTER, "Bytes of the stored snapshots."
)
SIGN_INS = Family("cirron_spool_receiver_sign_ins_total", Kind.COUNTER, "Sign-ins that got their tokens.")
REFUSED = Family(
    "cirron_spool_receiver_refused_requests_total",
    Kind.COUNTER,
    "Requests that were refused, by status.",
    "status",
)
STORED = Family("cirron_spool_receiver_stored_batches", Kind.GAUGE, "Batches in the store.")
USABLE = Family(
    "cirron_spool_receiver_store_usable", Kind.GAUGE, "Whether the folder of the store is in its place."
)
FREE = Family("cirron_spool_receiver_free_bytes", Kind.GAUGE, "Bytes free on the file system of the store.")
STARTED = Family(
    "cirron_spool_receiver_start_timestamp_seconds", Kind.GAUGE, "When the receiver was started."
)

OF_A_RECEIVER = (
    RECEIVED,
    RECEIVED_BYTES,
    DUPLICATES,
    SNAPSHOTS,
    SNAPSHOT_BYTES,
    SIGN_INS,
    REFUSED,
    STORED,
    USABLE,
    FREE,
    STARTED,
)
