"""What becomes of a batch once its outcome is known: deleted, set aside, or kept; and what is said about it.

A batch is handed to the delete only here, and only on its own acknowledgement.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping

from cirron_spool.concurrency.threads import in_thread
from cirron_spool.errors import EXIT_ATTENTION, EXIT_AUTH, AuthRejectedError, resource_error, resource_errors
from cirron_spool.events import BatchFailure, Failed, FlushEvent, Quarantined, Uploaded, Warned
from cirron_spool.pipeline.bridge import Ahead
from cirron_spool.pipeline.read_ahead import Cause, Prepared, Ready, Unsendable
from cirron_spool.pipeline.tally import Tally
from cirron_spool.protocol.verdict import Action, Verdict
from cirron_spool.settings.paths import quarantine_path
from cirron_spool.spool.directory import Removal, SpoolDirectory
from cirron_spool.spool.quarantine import set_aside
from cirron_spool.text import printable, reason

# So many rejections with no success between them are not the batches' fault: the endpoint is wrong.
MOST_REJECTED_IN_A_ROW = 3

# A batch that was not deleted, though it was acknowledged, and why.
Kept = tuple[Prepared, Removal | OSError]


class Conclusions:
    """Concludes the batches of one flush, one after another, oldest first.

    ``streamed`` is what the bodies of no known length came to, in bytes, by the names of their batches.
    ``ended`` turns true with the first batch that ends the flush; ``auth_error`` is set when its cause is the login.
    """

    def __init__(
        self,
        spool: SpoolDirectory,
        tally: Tally,
        emit: Callable[[FlushEvent], None],
        *,
        told: bool,
        quarantine: bool,
        keep_going: bool,
        streamed: Mapping[str, int],
    ) -> None:
        self._spool = spool
        self._tally = tally
        self._emit = emit
        self._told = told
        self._quarantine = quarantine
        self._keep_going = keep_going
        self._streamed = streamed
        self._process = os.getpid()
        self._rejected_in_a_row = 0
        self.ended = False
        self.auth_error: AuthRejectedError | None = None

    def pass_by(self, batch: Unsendable) -> None:
        """Conclude a batch that could not be prepared."""
        if batch.cause is Cause.VANISHED:
            self._tally.evicted += 1
        elif batch.cause is Cause.UNREADABLE:
            self._unreadable(batch.name, printable(batch.message))
            self.ended = not self._keep_going
        else:
            self._tally.pass_over()
            if batch.cause is Cause.EMPTY:
                why = "the file is empty, perhaps after a power cut. Check it, then delete it"
            else:
                why = f"it is {batch.message}"
            self._emit(Warned(f"Skipped {batch.name}: {why}."))

    def acknowledged(self, batch: Prepared, disk: Ahead[Ready, Prepared, Kept]) -> None:
        """Hand an acknowledged batch over to be deleted, and count it: at once, no await can come in between."""
        disk.put(batch)
        self._rejected_in_a_row = 0
        size = batch.fingerprint.size
        sent = self._sent(batch)
        self._tally.acknowledge(size, sent)
        if self._told:
            self._emit(Uploaded(batch.name, size, sent))

    async def conclude(
        self, batch: Prepared, outcome: Verdict | OSError, disk: Ahead[Ready, Prepared, Kept]
    ) -> None:
        """Act on the outcome of a batch. Raises ResourceError when the system could not let it be sent."""
        if isinstance(outcome, OSError) and (lacking := resource_error(outcome)):
            raise lacking
        if isinstance(outcome, FileNotFoundError):
            self._tally.evicted += 1
        elif isinstance(outcome, OSError):
            self._unreadable(batch.name, reason(outcome))
            self.ended = True
        elif outcome.action is Action.ACKNOWLEDGED:
            self.acknowledged(batch, disk)
        elif outcome.action is Action.REJECTED and self._quarantine:
            await disk.settled()
            await self._set_aside(batch, outcome)
        else:
            self._fail(batch.name, outcome.status, outcome.message, outcome.exit_code, outcome.hint)
            if outcome.exit_code == EXIT_AUTH:
                self.auth_error = AuthRejectedError(outcome.message)
            if outcome.action is not Action.RETRY or not self._keep_going:
                self.ended = True

    def remove(self, batch: Prepared) -> Kept | None:
        """Delete an acknowledged batch, unless another file stands there by now. Blocking. None when it is gone."""
        if os.getpid() != self._process:
            raise RuntimeError("This flush began in another process.")
        try:
            removal = self._spool.delete(batch.name, batch.fingerprint)
        except OSError as error:
            return batch, error
        return (batch, removal) if removal is Removal.CHANGED else None

    def kept(self, batch: Prepared, why: Removal | OSError) -> None:
        """Take note of a delete that did not happen: it ends the flush."""
        if isinstance(why, OSError):
            message = (
                f"Uploaded {batch.name} but failed to delete local spool file "
                f"{printable(str(self._spool.path_of(batch.name)))}: {reason(why)}. "
                "It may be re-uploaded on next flush."
            )
        else:
            message = (
                f"Uploaded {batch.name}, but its file changed meanwhile and stays in the spool. Check it."
            )
        self._tally.unacknowledge(batch.size, self._sent(batch))
        self._fail(batch.name, None, message, EXIT_ATTENTION)
        self.ended = True

    def _sent(self, batch: Prepared) -> int:
        """The bytes of request body that carried an acknowledged ``batch``."""
        return batch.length if batch.length is not None else self._streamed[batch.name]

    async def _set_aside(self, batch: Prepared, verdict: Verdict) -> None:
        message = f"{verdict.message}: {verdict.said}" if verdict.said else verdict.message
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
            self._fail(batch.name, verdict.status, why, EXIT_ATTENTION, remedy)
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

    def _unreadable(self, name: str, why: str) -> None:
        self._fail(name, None, f"Cannot read {name}: {why}. It stays in the spool.", EXIT_ATTENTION)

    def _fail(self, name: str, status: int | None, message: str, exit_code: int, hint: str = "") -> None:
        self._tally.fail(BatchFailure(name, status, message), exit_code)
        self._emit(Failed(name, status, message, hint))
