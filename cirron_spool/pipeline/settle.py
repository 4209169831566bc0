"""The end of each batch: deleted, moved to the quarantine, or kept; with one final event.

Only this module has files deleted, and only after their own acknowledgement.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from functools import partial

from cirron_spool.concurrency.threads import in_thread
from cirron_spool.errors import (
    EXIT_ATTENTION,
    EXIT_AUTH,
    AuthRejectedError,
    resource_error,
    resource_errors,
)
from cirron_spool.events import BatchFailure, Failed, FlushEvent, Quarantined, Uploaded, Warned
from cirron_spool.pipeline.batch import Cause, Prepared, Unsendable
from cirron_spool.pipeline.disk_worker import DiskWorker
from cirron_spool.pipeline.outcome import Outcome
from cirron_spool.pipeline.tally import Tally
from cirron_spool.protocol.verdict import Action, Verdict
from cirron_spool.receipts.chain import Receipt
from cirron_spool.receipts.writer import ReceiptError, ReceiptsFile
from cirron_spool.settings.paths import quarantine_path
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.file_identity import Removal
from cirron_spool.spool.names import batch_id_of
from cirron_spool.spool.quarantine import set_aside
from cirron_spool.text import iso_utc, printable, reason

# Rejections in a row that end the flush: the endpoint is probably wrong.
MOST_REJECTED_IN_A_ROW = 3


class Settlement:
    """Settles the batches of one flush, one after another, oldest first.

    ``emit`` reports events. Without ``has_listener``, no ``Uploaded`` is emitted. ``quarantine`` moves rejected batches
    aside, ``keep_going`` skips a batch that is out of retries. ``receipts`` gets a line before each delete. ``ended``
    is True after the first batch that ends the flush. ``verdict`` is the verdict that ended it, or None. ``auth_error``
    is set when the platform refused the token.
    """

    def __init__(
        self,
        spool: SpoolDirectory,
        worker: DiskWorker,
        tally: Tally,
        emit: Callable[[FlushEvent], None],
        *,
        has_listener: bool,
        quarantine: bool,
        keep_going: bool,
        receipts: ReceiptsFile | None = None,
    ) -> None:
        self._receipts = receipts
        self._spool = spool
        self._worker = worker
        self._tally = tally
        self._emit = emit
        self._has_listener = has_listener
        self._quarantine = quarantine
        self._keep_going = keep_going
        self._rejected_in_a_row = 0
        self._listener_error: BaseException | None = None
        self.ended = False
        self.verdict: Verdict | None = None
        self.auth_error: AuthRejectedError | None = None

    async def skip(self, batch: Unsendable) -> None:
        """Settle a batch that could not be prepared."""
        await self._worker.drain()  # the deletes before it are reported before it
        if batch.cause is Cause.VANISHED:
            self._tally.evicted += 1
        elif batch.cause is Cause.UNREADABLE:
            self._fail_to_read(batch.name, printable(batch.message))
            self.ended = not self._keep_going
        else:
            self._tally.skip()
            if batch.cause is Cause.EMPTY:
                why = "the file is empty, perhaps after a power cut. Check it, then delete it"
            else:
                why = f"it is {batch.message}"
            self._emit(Warned(f"Skipped {batch.name}: {why}."))

    def delete_acknowledged(self, batch: Prepared, outcome: Outcome) -> None:
        """Have the file of an acknowledged batch deleted. No await comes between the acknowledgement and this."""
        self._rejected_in_a_row = 0
        self._worker.delete(batch, partial(self._report_delete, outcome), self._receipt_for(batch, outcome))

    async def settle(self, batch: Prepared, outcome: Outcome) -> None:
        """Act on the outcome of a batch. Raises ResourceError when the upload lacked a system resource."""
        result = outcome.result
        if outcome.acknowledged:
            self.delete_acknowledged(batch, outcome)
            return
        await self._worker.drain()  # the deletes before it are reported before it
        if isinstance(result, FileNotFoundError):
            self._tally.evicted += 1
        elif isinstance(result, OSError):
            if lacking := resource_error(result):
                raise lacking
            self._fail_to_read(batch.name, reason(result))
            self.ended = True
        elif result.action is Action.REJECTED and self._quarantine:
            await self._set_aside(batch, result)
        else:
            failure = BatchFailure(batch.name, result.status, result.message, result.is_common)
            self._fail(failure, result.exit_code, result.hint)
            if result.exit_code == EXIT_AUTH:
                self.auth_error = AuthRejectedError(result.message)
            if result.action is not Action.RETRY or not self._keep_going:
                self.verdict = result
                self.ended = True

    def check_listener(self) -> None:
        """Raise the exception of a listener that :meth:`_report_delete` called."""
        error, self._listener_error = self._listener_error, None
        if error is not None:
            raise error

    def _report_delete(self, outcome: Outcome, batch: Prepared, removal: Removal | OSError) -> None:
        """Report the end of an acknowledged batch; ``removal`` is the result of its delete. Never raises."""
        try:
            if isinstance(removal, Removal) and removal is not Removal.CHANGED:
                self._tally.upload(batch.size, outcome.bytes_sent)
                if self._has_listener:
                    self._emit(Uploaded(batch.name, batch.size, outcome.bytes_sent))
            else:
                hint = ReceiptError.hint if isinstance(removal, ReceiptError) and not self.ended else ""
                self.ended = True  # a delete that failed would fail again
                failure = BatchFailure(batch.name, None, self._delete_failure(batch, removal))
                self._fail(failure, EXIT_ATTENTION, hint)
        except BaseException as error:  # noqa: BLE001  # raised by check_listener()
            self._listener_error = self._listener_error or error
            self.ended = True

    def _receipt_for(self, batch: Prepared, outcome: Outcome) -> Callable[[], None] | None:
        """The function that writes the receipt of an acknowledged batch; None without receipts."""
        receipts, verdict = self._receipts, outcome.result
        if receipts is None or batch.digest is None or not isinstance(verdict, Verdict):
            return None
        receipt = Receipt(
            previous=None,
            time=iso_utc(time.time_ns()),
            spool=str(self._spool.path),
            name=batch.name,
            batch_id=batch_id_of(batch.name),
            size=batch.size,
            sha256=batch.digest.hex,
            status=verdict.status,
            destination=self._tally.destination,
        )
        return partial(receipts.append, receipt)

    def _delete_failure(self, batch: Prepared, removal: Removal | OSError) -> str:
        if isinstance(removal, ReceiptError) and self._receipts is not None:
            return (
                f"Uploaded {batch.name}, but its receipt cannot be written to {self._receipts.shown}: "
                f"{reason(removal)}. It stays in the spool, and the next flush sends it again."
            )
        if isinstance(removal, OSError):
            path = printable(str(self._spool.path_of(batch.name)))
            return (
                f"Uploaded {batch.name} but failed to delete local spool file {path}: {reason(removal)}. "
                "It may be re-uploaded on next flush."
            )
        return (
            f"Uploaded {batch.name}, but its file changed during the upload and stays in the spool. Check it."
        )

    async def _set_aside(self, batch: Prepared, verdict: Verdict) -> None:
        message = (
            f"{verdict.message}: {verdict.server_message}" if verdict.server_message else verdict.message
        )
        try:
            with resource_errors():
                place = await in_thread(set_aside, self._spool, batch.name, verdict.status, message)
        except FileNotFoundError:
            self._tally.evicted += 1
            return
        except OSError as error:
            why = f"{verdict.message}, and it could not be set aside: {reason(error)}. It stays in the spool"
            needed = printable(str(await in_thread(quarantine_path, self._spool.path)))
            remedy = (
                f"The quarantine {needed} must be a writable folder on the spool's file system, without a batch of "
                "that name. Correct that, or move the batch away."
            )
            self._fail(BatchFailure(batch.name, verdict.status, why), EXIT_ATTENTION, remedy)
            self.ended = True
            return
        self._tally.set_aside()
        self._emit(Quarantined(batch.name, verdict.status, message, place))
        self._rejected_in_a_row += 1
        if self._rejected_in_a_row >= MOST_REJECTED_IN_A_ROW:
            where = printable(shlex.quote(str(self._spool.path)))
            self._emit(
                Warned(
                    f"{MOST_REJECTED_IN_A_ROW} batches were rejected in a row, so the endpoint may be wrong. "
                    f"Check apiUrl, then run cirron-spool quarantine retry --dir {where}."
                )
            )
            self.ended = True

    def _fail_to_read(self, name: str, why: str) -> None:
        self._fail(
            BatchFailure(name, None, f"Cannot read {name}: {why}. It stays in the spool."), EXIT_ATTENTION
        )

    def _fail(self, failure: BatchFailure, exit_code: int, hint: str = "") -> None:
        self._tally.fail(failure, exit_code)
        self._emit(Failed(failure.name, failure.status, failure.message, hint, failure.is_common))


def remove_acknowledged(spool: SpoolDirectory, process: int, batch: Prepared) -> Removal:
    """Delete the file of an acknowledged ``batch``, unless another file now has its name. Blocking.

    ``process`` is the id of the process that started the flush. Raises OSError when the file system refuses,
    RuntimeError in another process, and SpoolBusyError once another process took the spool over.
    """
    if os.getpid() != process:
        raise RuntimeError("This flush began in another process.")
    spool.ensure_claim()
    return spool.delete(batch.name, batch.fingerprint)
