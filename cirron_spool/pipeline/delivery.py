"""The attempts to deliver one batch: on the schedule, with a token renewal where one helps.

The result is an :class:`Outcome`. The file is not touched here.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import anyio

from cirron_spool.errors import EXIT_AUTH, TokenRenewalError
from cirron_spool.events import FlushEvent, Progress, Retrying, Warned
from cirron_spool.http.attempts import attempt_on_schedule
from cirron_spool.pipeline.batch import Prepared
from cirron_spool.pipeline.ingest import OpenStream
from cirron_spool.pipeline.outcome import Outcome
from cirron_spool.pipeline.patience import Patience
from cirron_spool.pipeline.platform import Platform
from cirron_spool.protocol.answer import Answer, NoAnswer
from cirron_spool.protocol.verdict import Action, Verdict, judge


class Delivery:
    """Delivers the batches of one flush to ``platform``.

    ``retries`` bounds the attempts after the first. ``on_sent`` is called each time that a batch has been written and
    only its answer is missing. ``show_progress`` emits the progress of each batch. ``stopping`` says that the flush
    was asked to stop: no attempt begins any more. ``patience`` waits in place of giving up.
    """

    def __init__(
        self,
        platform: Platform,
        *,
        retries: int,
        open_stream: OpenStream,
        on_sent: Callable[[], None],
        emit: Callable[[FlushEvent], None],
        show_progress: bool = False,
        patience: Patience | None = None,
    ) -> None:
        self._platform = platform
        self._tokens = platform.tokens
        self._retries = retries
        self._open_stream = open_stream
        self._on_sent = on_sent
        self._emit = emit
        self._show_progress = show_progress
        self._patience = patience
        self._process = os.getpid()
        self.stopping = False
        self._attempting = 0
        self._idle: asyncio.Event | None = None

    async def deliver(self, batch: Prepared) -> Outcome:
        """Attempt until the verdict is not to retry, or the schedule ends."""
        began = time.monotonic()
        try:
            outcome = await self._attempt(batch)
            if self._is_temporary(outcome):
                outcome = await self._retry(batch, outcome)
            if self._patience is not None:
                while not self.stopping and await self._patience.outlast(outcome):
                    outcome = replace(await self._attempt(batch), attempts=outcome.attempts + 1)
        except OSError as error:  # a body that is read while it is sent
            outcome = Outcome(error)
        return replace(outcome, seconds=time.monotonic() - began)

    async def wind_down(self, grace_s: float) -> None:
        """Begin no further attempt, and wait up to ``grace_s`` seconds until none is under way."""
        self.stopping = True
        self._idle = asyncio.Event()
        with anyio.move_on_after(grace_s):
            while self._attempting:
                self._idle.clear()
                await self._idle.wait()

    def _is_temporary(self, outcome: Outcome) -> bool:
        """Whether another attempt is due after ``outcome``."""
        return outcome.action is Action.RETRY and not self.stopping

    async def _retry(self, batch: Prepared, first: Outcome) -> Outcome:
        """Attempt ``batch`` again on the schedule, after a ``first`` attempt that failed."""
        known: list[Outcome] = [first]
        attempts = 0

        async def attempt() -> Outcome:
            nonlocal attempts
            attempts += 1
            return known.pop() if known else await self._attempt(batch)

        def announce(last: Outcome, delay_s: float, number: int) -> None:
            verdict = last.result
            if isinstance(verdict, Verdict):
                self._emit(
                    Retrying(batch.name, verdict.status, verdict.message, delay_s, number, verdict.reason)
                )

        outcome = await attempt_on_schedule(
            attempt, retries=self._retries, is_temporary=self._is_temporary, announce=announce
        )
        return replace(outcome, attempts=attempts)

    async def _attempt(self, batch: Prepared) -> Outcome:
        """One attempt. A 401 leads to one renewal of the token and one more request before it counts."""
        await self._platform.throttle.turn(self._announce_pause)
        self._attempting += 1
        tokens = self._tokens
        is_renewed = False
        try:
            if tokens.due:
                await tokens.renew_early()
            while True:
                if os.getpid() != self._process:
                    raise RuntimeError("This flush began in another process. Start a new flush after a fork.")
                token = tokens.token
                answer = await self._platform.ingest.post(
                    batch, token, self._open_stream, self._on_sent, self._progress_of(batch)
                )
                outcome = self._judge(batch, token, answer)
                if outcome.action is not Action.REFRESH or is_renewed:
                    return outcome
                try:
                    is_renewed = await tokens.renew(token, self._warn)
                except TokenRenewalError as error:
                    return Outcome(_cannot_renew(batch, error), refused=token)
                if not is_renewed:
                    return outcome
        finally:
            self._attempting -= 1
            if self._attempting == 0 and self._idle is not None:
                self._idle.set()

    def _judge(self, batch: Prepared, token: str, answer: Answer | NoAnswer) -> Outcome:
        ingest, throttle = self._platform.ingest, self._platform.throttle
        verdict = judge(
            answer,
            name=batch.name,
            origin=ingest.origin,
            path=ingest.path,
            now=datetime.now(UTC),
            secrets=(token,),
        )
        if verdict.action is Action.RETRY:
            throttle.failed(verdict)
        else:
            throttle.succeeded()
        if verdict.action is Action.ACKNOWLEDGED:
            sent = batch.length if batch.length is not None else _bytes_sent(answer)
            return Outcome(verdict, bytes_sent=sent)
        if verdict.exit_code == EXIT_AUTH:
            verdict = replace(verdict, hint=self._tokens.advice)
            return Outcome(verdict, refused=token)
        return Outcome(verdict)

    def _progress_of(self, batch: Prepared) -> Callable[[int], None] | None:
        return partial(self._emit_progress, batch) if self._show_progress else None

    def _emit_progress(self, batch: Prepared, sent: int) -> None:
        try:
            self._emit(Progress(batch.name, batch.share_of_file(sent), batch.size))
        except Exception as error:  # noqa: BLE001  # the stall watchdog calls this, and must go on
            context = {"message": "on_event raised for Progress", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    def _announce_pause(self, seconds: float) -> None:
        self._warn(f"Waiting {seconds:.0f} s before the next upload, as the server asks.")

    def _warn(self, message: str) -> None:
        self._emit(Warned(message))


def _bytes_sent(answer: Answer | NoAnswer) -> int:
    return answer.sent if isinstance(answer, Answer) else 0


def _cannot_renew(batch: Prepared, error: TokenRenewalError) -> Verdict:
    """The verdict on a 401 whose token cannot be renewed now."""
    message = f"Auth rejected (401) for {batch.name}. {error}"
    return Verdict(Action.STOP, 401, message, error.hint, exit_code=error.exit_code)
