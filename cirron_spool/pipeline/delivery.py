"""One batch's delivery: its attempts on the schedule, with a token that is renewed where that helps.

What comes out is a verdict; what becomes of the file is not decided here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import anyio

from cirron_spool.auth.token_manager import TokenManager, hide
from cirron_spool.errors import EXIT_AUTH, TokenRenewalError
from cirron_spool.events import FlushEvent, Progress, Retrying, Warned
from cirron_spool.http.attempts import Throttle, attempt_on_schedule
from cirron_spool.pipeline.ingest import Ingest, Stream
from cirron_spool.pipeline.read_ahead import Prepared
from cirron_spool.protocol.answer import Answer, NoAnswer
from cirron_spool.protocol.verdict import Action, Verdict, judge


class Delivery:
    """Delivers the batches of one flush. ``retries`` bounds the attempts of each after its first.

    What a body of no known length came to, in bytes, is noted in ``streamed`` under its batch's name. ``told`` asks for
    the progress of each batch. ``stopping`` says whether the flush was asked to stop: then nothing new is begun.
    """

    def __init__(
        self,
        ingest: Ingest,
        login: TokenManager,
        *,
        retries: int,
        stream: Stream,
        streamed: dict[str, int],
        emit: Callable[[FlushEvent], None],
        told: bool = False,
    ) -> None:
        self._ingest = ingest
        self._login = login
        self._retries = retries
        self._stream = stream
        self._streamed = streamed
        self._emit = emit
        self._told = told
        self._process = os.getpid()
        self._throttle = Throttle(self._announce_pause)
        self.stopping = False
        self._attempting = 0
        self._idle: asyncio.Event | None = None

    async def deliver(self, batch: Prepared, on_sent: Callable[[], None] | None = None) -> Verdict | OSError:
        """Attempt until the verdict is not to retry, or the schedule ends; an OSError is the file's own.

        ``on_sent`` is called each time that the body has been written and only its answer is missing.
        """
        try:
            verdict = await self._attempt(batch, on_sent)
            if verdict.action is Action.RETRY and not self.stopping:
                verdict = await self._retry(batch, verdict, on_sent)
        except OSError as error:  # a body that is read while it is sent
            return error
        return verdict

    def _announce_pause(self, seconds: float) -> None:
        self._emit(Warned(f"Waiting {seconds:.0f} s before the next upload, as the server asks."))

    async def wind_down(self, grace_s: float) -> None:
        """Begin no further attempt, and wait up to ``grace_s`` seconds until none is under way."""
        self.stopping = True
        self._idle = asyncio.Event()
        with anyio.move_on_after(grace_s):
            while self._attempting:
                self._idle.clear()
                await self._idle.wait()

    async def _retry(self, batch: Prepared, verdict: Verdict, on_sent: Callable[[], None] | None) -> Verdict:
        """Attempt ``batch`` again on the schedule, after a first attempt that came to ``verdict``."""
        known = [verdict]

        async def attempt() -> Verdict:
            return known.pop() if known else await self._attempt(batch, on_sent)

        def announce(last: Verdict, delay_s: float, number: int) -> None:
            self._emit(Retrying(batch.name, last.status, last.message, delay_s, number))

        return await attempt_on_schedule(
            attempt,
            retries=self._retries,
            is_temporary=lambda outcome: outcome.action is Action.RETRY and not self.stopping,
            announce=announce,
        )

    async def _attempt(self, batch: Prepared, on_sent: Callable[[], None] | None) -> Verdict:
        """One attempt; a 401 is answered with one renewal of the token and one more try before it counts."""
        await self._throttle.turn()
        self._attempting += 1
        login = self._login
        renewed = False
        try:
            if login.due:
                await login.renew_early()
            while True:
                if os.getpid() != self._process:
                    raise RuntimeError("This flush began in another process. Start a new flush after a fork.")
                token = login.token
                progress = partial(self._tell_progress, batch) if self._told else None
                outcome = await self._ingest.post(batch, token, self._stream, on_sent, progress)
                verdict = self._judge(batch, token, outcome)
                if verdict.action is not Action.REFRESH or renewed:
                    return verdict
                try:
                    renewed = await login.renew(token)
                except TokenRenewalError as error:
                    return Verdict(
                        Action.STOP,
                        verdict.status,
                        f"Auth rejected (401) for {batch.name}. {error}",
                        error.hint,
                        exit_code=error.exit_code,
                    )
                if not renewed:
                    return verdict
        finally:
            self._attempting -= 1
            if self._attempting == 0 and self._idle is not None:
                self._idle.set()

    def _tell_progress(self, batch: Prepared, sent: int) -> None:
        try:
            self._emit(Progress(batch.name, batch.share_of_file(sent), batch.size))
        except Exception as error:  # noqa: BLE001  # the watch over silence, which calls, must go on
            context = {"message": "on_event raised for Progress", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    def _judge(self, batch: Prepared, token: str, outcome: Answer | NoAnswer) -> Verdict:
        if batch.length is None and isinstance(outcome, Answer):
            self._streamed[batch.name] = outcome.sent
        verdict = judge(
            outcome,
            name=batch.name,
            origin=self._ingest.origin,
            path=self._ingest.path,
            now=datetime.now(UTC),
        )
        if verdict.action is Action.RETRY:
            self._throttle.failed(verdict)
        else:
            self._throttle.succeeded()
        if verdict.exit_code == EXIT_AUTH:
            verdict = replace(verdict, hint=self._login.advice)
        return verdict if verdict.action is Action.ACKNOWLEDGED else _without(token, verdict)


def _without(token: str, verdict: Verdict) -> Verdict:
    return replace(
        verdict,
        message=hide(verdict.message, token),
        hint=hide(verdict.hint, token),
        said=hide(verdict.said, token),
    )
