"""The attempts to deliver one file: retries on the schedule, and a renewal of a refused token.

The result is an :class:`Outcome`. This module never touches the file. A snapshot takes the same steps, with another
route.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import anyio

from cirron_spool.errors import EXIT_AUTH, TokenRenewalError
from cirron_spool.events import FlushEvent, Progress, Retrying, Warned
from cirron_spool.http.attempts import attempt_on_schedule
from cirron_spool.pipeline.batch import Prepared
from cirron_spool.pipeline.outcome import Outcome
from cirron_spool.pipeline.patience import Patience
from cirron_spool.pipeline.platform import Platform
from cirron_spool.pipeline.upload_route import Item, UploadRoute
from cirron_spool.pipeline.window_size import Attempt, FixedSize, WindowSize
from cirron_spool.protocol.verdict import Action, Verdict

T = TypeVar("T", bound=Item)


class Delivery:
    """Delivers the batches of one flush to ``platform``.

    ``route`` is that of batches. ``retries`` bounds the attempts after the first. ``show_progress`` emits the progress
    of each batch. ``stopping`` is True once the flush was asked to stop: no further attempt begins. ``patience`` waits
    where a flush would give up. ``ensure_claim`` is called before each request. It raises SpoolBusyError once another
    process took the spool over. ``window_size`` gets the measurements of each attempt.
    """

    def __init__(
        self,
        platform: Platform,
        route: UploadRoute[Prepared],
        *,
        retries: int,
        emit: Callable[[FlushEvent], None],
        show_progress: bool = False,
        patience: Patience | None = None,
        ensure_claim: Callable[[], Awaitable[None]],
        window_size: WindowSize | None = None,
    ) -> None:
        self._platform = platform
        self._window_size = window_size if window_size is not None else FixedSize(1)
        self._tokens = platform.tokens
        self._retries = retries
        self._route = route
        self._emit = emit
        self._show_progress = show_progress
        self._patience = patience
        self.ensure_claim = ensure_claim
        self._process = os.getpid()
        self.stopping = False
        self._attempting = 0
        self._idle: asyncio.Event | None = None

    async def deliver(self, batch: Prepared) -> Outcome:
        """Deliver ``batch``; see :meth:`deliver_to`."""
        return await self.deliver_to(self._route, batch, self._patience)

    async def deliver_to(self, route: UploadRoute[T], item: T, patience: Patience | None = None) -> Outcome:
        """Repeat attempts on the schedule while the failure is temporary. Then let ``patience`` wait."""
        began = time.monotonic()
        try:
            outcome = await self._attempt(route, item)
            if self._is_temporary(outcome):
                outcome = await self._retry(route, item, outcome)
            if patience is not None:
                while not self.stopping and await patience.outlast(outcome):
                    outcome = replace(await self._attempt(route, item), attempts=outcome.attempts + 1)
        except OSError as error:  # the file could not be read during the upload
            outcome = Outcome(error)
        return replace(outcome, seconds=time.monotonic() - began)

    async def wind_down(self, grace_s: float) -> None:
        """Begin no further attempt. Wait for the running attempts, at most ``grace_s`` seconds."""
        self.stopping = True
        self._idle = asyncio.Event()
        with anyio.move_on_after(grace_s):
            while self._attempting:
                self._idle.clear()
                await self._idle.wait()

    def _is_temporary(self, outcome: Outcome) -> bool:
        """Whether another attempt is due after ``outcome``."""
        return outcome.action is Action.RETRY and not self.stopping

    async def _retry(self, route: UploadRoute[T], item: T, first: Outcome) -> Outcome:
        """Repeat the attempt on the schedule. ``first`` is the outcome of the first attempt."""
        known: list[Outcome] = [first]
        attempts = 0

        async def attempt() -> Outcome:
            nonlocal attempts
            attempts += 1
            return known.pop() if known else await self._attempt(route, item)

        def announce(last: Outcome, delay_s: float, number: int) -> None:
            verdict = last.result
            if isinstance(verdict, Verdict):
                self._emit(
                    Retrying(item.name, verdict.status, verdict.message, delay_s, number, verdict.reason)
                )

        outcome = await attempt_on_schedule(
            attempt, retries=self._retries, is_temporary=self._is_temporary, announce=announce
        )
        return replace(outcome, attempts=attempts)

    async def _attempt(self, route: UploadRoute[T], item: T) -> Outcome:
        """One attempt. A 401 leads to one renewal of the token and one more request before it counts."""
        await self._platform.throttle.wait_turn(self._announce_pause)
        if self.stopping:  # the end of the flush cancels this wait, and the batch stays
            await asyncio.get_running_loop().create_future()
        self._attempting += 1
        tokens = self._tokens
        is_renewed = False
        measured = self._window_size.begin()
        began = time.monotonic()
        try:
            if tokens.due:
                await tokens.renew_early()
            while True:
                if os.getpid() != self._process:
                    raise RuntimeError("This flush began in another process. Start a new flush after a fork.")
                await self.ensure_claim()
                token = tokens.token
                answer = await route.send(item, token, self._progress_of(item))
                outcome = self._note(route.judge(item, token, answer), token, measured)
                if outcome.action is Action.RETRY:
                    return replace(outcome, began=began)
                if outcome.action is not Action.REFRESH or is_renewed:
                    return outcome
                try:
                    is_renewed = await tokens.renew(token, self._warn)
                except TokenRenewalError as error:
                    return Outcome(_cannot_renew(item.name, error), refused=token)
                if not is_renewed:
                    return outcome
        finally:
            self._attempting -= 1
            if self._attempting == 0 and self._idle is not None:
                self._idle.set()

    def _note(self, outcome: Outcome, token: str, measured: Attempt | None) -> Outcome:
        """Report to the throttle and the window size. Returns the outcome, with a hint on a refused token."""
        verdict, throttle = outcome.result, self._platform.throttle
        if outcome.action is Action.RETRY:
            throttle.failed(outcome)
            too_many = isinstance(verdict, Verdict) and verdict.status == 429
            self._platform.refused(self._attempting, too_many=too_many)
        else:
            throttle.succeeded()
            if outcome.acknowledged:
                self._window_size.delivered(measured)
        if isinstance(verdict, Verdict) and verdict.exit_code == EXIT_AUTH:
            return Outcome(replace(verdict, hint=self._tokens.advice), refused=token)
        return outcome

    def _progress_of(self, item: Item) -> Callable[[int], None] | None:
        return partial(self._emit_progress, item) if self._show_progress else None

    def _emit_progress(self, item: Item, sent: int) -> None:
        try:
            self._emit(Progress(item.name, item.share_of_file(sent), item.size))
        except Exception as error:  # noqa: BLE001  # an exception would end the stall watchdog
            context = {"message": "on_event raised for Progress", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    def _announce_pause(self, seconds: float) -> None:
        self._warn(f"Waiting {seconds:.0f} s before the next upload, as the server asks.")

    def _warn(self, message: str) -> None:
        self._emit(Warned(message))


def _cannot_renew(name: str, error: TokenRenewalError) -> Verdict:
    """The verdict on a 401 whose token cannot be renewed now."""
    message = f"Auth rejected (401) for {name}. {error}"
    return Verdict(Action.STOP, 401, message, error.hint, exit_code=error.exit_code)
