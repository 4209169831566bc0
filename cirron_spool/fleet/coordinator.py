"""The coordinator: flush several spools at a time through one client.

Each spool has its own :class:`~cirron_spool.pipeline.runner.FlushRun`. The coordinator selects the next spool, and
decides when all of them end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import anyio

from cirron_spool.concurrency.threads import in_thread
from cirron_spool.display.warning_lines import RecentLines, WarningLines
from cirron_spool.errors import (
    EXIT_TEMPFAIL,
    AuthError,
    CirronSpoolError,
    ConfigError,
    ResourceError,
    TokenRenewalError,
    first_cause,
)
from cirron_spool.events import (
    Failed,
    FlushEvent,
    FlushResult,
    FlushSpoolsResult,
    Quarantined,
    SnapshotFailed,
    SpoolEvent,
    SpoolsFound,
    Waiting,
    Warned,
    describe,
)
from cirron_spool.fleet.descriptors import fitting_spools, open_files_limit
from cirron_spool.fleet.platform_health import PlatformHealth
from cirron_spool.fleet.poller import SpoolPoller
from cirron_spool.fleet.queue import Spool, SpoolQueue
from cirron_spool.fleet.results import failed_result, joined, nothing_sent
from cirron_spool.fleet.search import Places
from cirron_spool.pipeline.client import Client
from cirron_spool.pipeline.deadline import DEADLINE_NEAR, Deadline, StopSignal
from cirron_spool.pipeline.options import FlushOptions, WatchOptions
from cirron_spool.pipeline.patience import Patience
from cirron_spool.pipeline.report import LOGGER
from cirron_spool.pipeline.runner import FlushRun
from cirron_spool.pipeline.tally import Tally, worst
from cirron_spool.pipeline.token_check import check_token
from cirron_spool.receipts.writer import check_writable
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.discovery import FoundSpool
from cirron_spool.text import count, printable

# Longest turn of a spool while others wait. The rest of the spool follows in its next turn.
TURN_S = 30.0
# The first spool starts after this time, even if the search may still find an older one.
_SEARCH_FIRST_S = 2.0

# Errors that would end the flush of every spool.
_COMMON = (AuthError, TokenRenewalError, ConfigError, ResourceError)


class Coordinator:
    """The flush of all spools in ``places``, ``at_once`` of them at a time.

    ``options`` apply to each spool, and their ``stop`` ends all flushes. With ``is_own``, the coordinator opens and
    closes ``client``. ``watch`` follows the places.
    """

    def __init__(
        self,
        places: Places,
        client: Client,
        options: FlushOptions,
        *,
        is_own: bool,
        at_once: int,
        watch: WatchOptions | None,
        deadline: timedelta | datetime | None,
        listener: Callable[[SpoolEvent], None] | None,
    ) -> None:
        self._client = client
        self._is_own = is_own
        self._at_once = at_once
        self._watch = watch
        self._listener = listener if listener is not None else _log
        self._given_stop = options.stop
        self._ending = anyio.Event()  # the poller ends after one more poll
        self._halt = anyio.Event()  # the runs end after the batch in flight
        self._stop: StopSignal = Deadline(deadline, self._halt) if deadline is not None else self._halt
        self._options = options
        self._began = time.monotonic()
        self._spools: dict[Path, Spool] = {}
        self._queue = SpoolQueue()
        self._batches = 0  # in all found spools
        self._with_batches: set[Path] = set()
        self._active = 0
        self._opening = anyio.CancelScope()
        self._changed = anyio.Event()
        self._health = PlatformHealth()
        self._error: CirronSpoolError | None = None
        self._codes: set[int] = set()
        self._warnings = WarningLines()
        self._recent = RecentLines()
        self._destination = ""
        self._verified = False
        self._named = frozenset(places.directories)
        self._poller = SpoolPoller(places, watch, self._ending, self._found, self._warn, lambda: self.is_idle)

    @property
    def is_idle(self) -> bool:
        """Whether no spool waits or is flushed."""
        return not (self._active or len(self._queue))

    async def run(self) -> FlushSpoolsResult:
        """Flush all spools. Raises the errors of :func:`cirron_spool.flush_spools`, with the result so far."""
        if self._options.receipts is not None and not self._options.dry_run:
            # All spools share this file, so no flush starts without it.
            await in_thread(partial(check_writable, self._options.receipts))
        self._fit_files()
        try:
            async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch_stop)
                tasks.start_soon(self._poll_spools)
                await self._flush_all(stack, tasks)
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error = first_cause(group)
            if not isinstance(error, CirronSpoolError):
                raise error from None
            self._error = error
        except CirronSpoolError as error:  # from the close of the client
            self._error = error
        if self._error is not None:
            self._error.spools = self.result()
            raise self._error
        return self.result()

    def _fit_files(self) -> None:
        """Flush fewer spools at a time if the limit of open files is too low."""
        limit = open_files_limit()
        fitting = fitting_spools(self._at_once, self._options.in_flight, limit)
        if fitting < self._at_once:
            self._warn(
                f"This process may open {limit} files: {count(fitting, 'spool')} at once instead of {self._at_once}. "
                "Raise the limit (ulimit -n) for more."
            )
            self._at_once = fitting

    def result(self) -> FlushSpoolsResult:
        """The result so far."""
        results = [self._result_of(spool) for _, spool in sorted(self._spools.items())]
        codes = [*self._codes, *(result.exit_code for result in results)]
        if self._error is not None:
            codes.append(self._error.exit_code)
        return FlushSpoolsResult(
            tuple(results),
            time.monotonic() - self._began,
            worst(codes),
            self._warnings.lines(),
            self._destination,
            self._verified,
        )

    def _result_of(self, spool: Spool) -> FlushResult:
        if spool.tally is not None:  # a turn is under way
            return joined(spool.result, spool.tally.result(0.0))
        if spool.queued:
            return joined(spool.result, nothing_sent(spool.path, spool.batches))
        return spool.result or nothing_sent(spool.path, spool.batches)

    # -- the spools ----------------------------------------------------------------------------------------------------

    def _found(self, found: list[FoundSpool]) -> None:
        """Queue spools that have something to send."""
        for each in found:
            spool = self._spools.setdefault(each.path, Spool(each.path))
            if spool.ended:
                continue
            spool.batches, spool.oldest_ns = each.batches, each.oldest_ns or 0
            snapshots = self._options.snapshots is not None and not spool.turns
            if spool.active:
                spool.again = True
            elif each.batches or snapshots or (each.path in self._named and self._watch is None):
                self._queue.push(spool)
        self._batches += sum(each.batches for each in found)
        self._with_batches.update(each.path for each in found if each.batches)
        if found:
            self._emit(None, SpoolsFound(len(self._spools), self._batches, len(self._with_batches)))
        self._wake()

    async def _poll_spools(self) -> None:
        try:
            await self._poller.run()
        finally:
            self._wake()

    async def _flush_all(self, stack: AsyncExitStack, tasks: anyio.abc.TaskGroup) -> None:
        with anyio.move_on_after(_SEARCH_FIRST_S):
            await self._poller.searched.wait()
        patience: Patience | None = None
        is_open = False
        while True:
            self._changed = anyio.Event()
            if not self._halt.is_set():
                if len(self._queue) and not is_open:
                    with self._opening:  # a stop does not wait for the platform
                        patience, is_open = await self._open(stack), True
                while (
                    is_open and self._active < self._at_once and len(self._queue) and not self._halt.is_set()
                ):
                    spool = self._queue.pop()
                    spool.active = True
                    self._active += 1
                    tasks.start_soon(self._flush, spool, patience)
            if not self._active and (self._halt.is_set() or (self._poller.is_over and not len(self._queue))):
                return
            await self._changed.wait()

    async def _open(self, stack: AsyncExitStack) -> Patience | None:
        """Connect to the platform and check the token: once for all spools."""
        client, options = self._client, self._options
        if self._is_own:
            await stack.enter_async_context(client)
        platform = client.platform
        self._destination = platform.settings.ingest_origin
        for warning in platform.settings.warnings:
            self._warn(warning)
        patience: Patience | None = None
        if self._watch is not None:
            patience = Patience(
                platform.settings,
                platform.tokens,
                client.read_settings,
                self._ending,
                partial(self._emit, None),
            )
        self._poller.patience = patience
        self._verified = await check_token(platform.tokens, patience, self._warn, verify=options.verify)
        return patience

    async def _flush(self, spool: Spool, patience: Patience | None) -> None:
        """One turn of a spool."""
        spool.again, spool.tally = False, Tally(spool.path, spool.batches)
        try:
            result, reason = await self._flush_turn(spool, patience)
            warnings = tuple(line for line in result.warnings if line != DEADLINE_NEAR)  # it is about all
            result = replace(result, verified=self._verified, warnings=warnings)
            spool.result = joined(spool.result, result)
            spool.turns += 1
            if reason:
                self._end_all(reason, result.exit_code)
            elif spool.is_turn_over and result.untried:
                spool.batches = result.untried
                self._queue.push(spool)
            else:
                self._settle_turn(spool, result)
        except BaseException:
            spool.result = joined(spool.result, spool.tally.result(0.0))
            raise
        finally:
            spool.active, spool.tally = False, None
            self._active -= 1
            self._poller.note_activity()
            self._wake()

    def _settle_turn(self, spool: Spool, result: FlushResult) -> None:
        if self._watch is None:
            spool.ended = True
        elif result.exit_code == EXIT_TEMPFAIL:
            self._poller.forget(spool.path)  # for example busy: try again after the next search
        elif result.failed or result.untried:
            spool.ended = True  # a person must look at it
        elif spool.again:
            self._queue.push(spool)

    async def _flush_turn(self, spool: Spool, patience: Patience | None) -> tuple[FlushResult, str]:
        """The result of one turn, and the reason to flush no further spool, or an empty string."""
        platform = self._client.platform
        until = time.monotonic() + TURN_S
        spool.is_turn_over = False

        def may_go_on() -> bool:
            spool.is_turn_over = len(self._queue) > 0 and time.monotonic() >= until
            return not spool.is_turn_over

        selection = self._options.selection
        options = replace(
            self._options,
            verify=False,  # the token was checked for all
            platform=platform,
            on_event=partial(self._handle_event, spool),
            stop=self._stop,
            snapshots=self._options.snapshots if not spool.turns else None,
            patience=patience,
            # A second turn would apply the limit again.
            may_go_on=may_go_on if selection.limit is None and selection.max_bytes is None else None,
        )
        try:
            with SpoolDirectory(spool.path) as directory:
                run = FlushRun(directory, self._client, options, "")
                result = await run.run()
        except CirronSpoolError as error:
            result = failed_result(spool.path, spool.batches, error)
            if isinstance(error, _COMMON):
                self._error = self._error or error
                return result, "No further spool is started."
            self._emit(spool.path, Warned(f"{error} {error.hint}".rstrip()))
            return result, ""
        return result, self._health.judge(result, run.verdict)

    def _end_all(self, reason: str, exit_code: int) -> None:
        if not self._halt.is_set():
            self._codes.add(exit_code)
            left = len(self._queue)
            if left or self._active > 1 or self._watch is not None:
                self._warn(reason)
        self._halt_now()

    def _halt_now(self) -> None:
        self._ending.set()
        self._halt.set()
        self._opening.cancel()
        self._wake()

    async def _watch_stop(self) -> None:
        """End all at the caller's signal, at the deadline, or for a reason of the coordinator."""
        async with anyio.create_task_group() as signals:
            signals.start_soon(self._watch_deadline)
            if self._given_stop is not None:
                await self._given_stop.wait()
                self._ending.set()
                waits = self._poller.patience is not None and self._poller.patience.is_waiting
                if self._watch is not None and not waits:
                    await anyio.sleep(self._watch.grace_s)
                self._halt_now()

    async def _watch_deadline(self) -> None:
        await self._stop.wait()
        self._halt_now()

    def _wake(self) -> None:
        self._changed.set()

    # -- the report ----------------------------------------------------------------------------------------------------

    def _handle_event(self, spool: Spool, event: FlushEvent) -> None:
        if spool.tally is not None:
            spool.tally.note(event)
        if isinstance(event, Warned):
            if event.message == DEADLINE_NEAR:
                self._warn(event.message)
                return
            # The same warning of several spools, such as the deadline, is emitted once.
            if not self._recent.is_new(event.message):
                return
        self._emit(spool.path, event)

    def _emit(self, directory: Path | None, event: FlushEvent | SpoolsFound) -> None:
        self._listener(SpoolEvent(directory, event))

    def _warn(self, message: str) -> None:
        if self._recent.is_new(message):
            self._warnings.append(message)
            self._emit(None, Warned(message))


def _log(event: SpoolEvent) -> None:
    """Log an event, for a flush without a listener."""
    inner = event.event
    if isinstance(inner, SpoolsFound):
        LOGGER.debug("found %d spools, %d batches in them", inner.spools, inner.batches)
        return
    is_for_person = isinstance(inner, Failed | Quarantined | SnapshotFailed | Waiting | Warned)
    level = logging.WARNING if is_for_person else logging.DEBUG
    if LOGGER.isEnabledFor(level):
        place = f"{printable(str(event.directory))}: " if event.directory is not None else ""
        LOGGER.log(level, "%s%s", place, describe(inner))
