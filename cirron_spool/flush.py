"""Upload a spool: prefetch, deliver in order with retries, delete what was acknowledged, report.

A batch goes one way: listed, prepared ahead by a thread, posted, judged, and only on its own acknowledgement handed
back to the thread, which deletes it. The position moves with the acknowledgement and never before it.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.to_thread
import backoff

from cirron_spool.bridge import Ahead, complete
from cirron_spool.config import Credentials, Settings, load_settings, spool_directory
from cirron_spool.credentials import Login
from cirron_spool.errors import (
    AuthInvalidError,
    AuthRejectedError,
    CirronSpoolError,
    ConfigError,
    NotAuthenticatedError,
)
from cirron_spool.ingest import Ingest
from cirron_spool.naming import count, printable
from cirron_spool.prefetch import Cause, Prefetch, Prepared, Ready, Tuning, Unsendable
from cirron_spool.quarantine import set_aside
from cirron_spool.report import (
    EXIT_AUTH,
    EXIT_LOOK,
    BatchFailure,
    Ended,
    Failed,
    FlushEvent,
    FlushResult,
    Quarantined,
    Retrying,
    Sending,
    Started,
    Tally,
    Uploaded,
    Warned,
)
from cirron_spool.schedule import delays
from cirron_spool.spool import Removal, SpoolDirectory, reason
from cirron_spool.transport import Transport
from cirron_spool.verdict import Action, Answer, Verdict, judge

if TYPE_CHECKING:
    import aiohttp

# A flush that is asked to stop gives the batch in flight this long to be acknowledged: within the five seconds that
# a person or a job scheduler waits before it kills.
GRACE_S = 4.0
# So many rejections with no success between them are not the batches' fault: the endpoint is wrong.
MOST_REJECTED_IN_A_ROW = 3
# Deletes that may be under way while the next batch is posted. One keeps a crash's resends at two: the batch in
# flight, and one acknowledged but not yet deleted.
_DELETES_BEHIND = 1
_MOST_IN_FLIGHT = 64


# How one batch's delivery comes out, awaited at once or running beside others.
_Delivery = Coroutine[Any, Any, "Verdict | OSError"] | asyncio.Future["Verdict | OSError"]


class StopSignal(Protocol):
    """What asks a flush to stop gracefully: an ``anyio.Event`` or ``asyncio.Event``."""

    async def wait(self) -> object:
        """Return once the flush is to stop."""


async def flush_spool(
    directory: str | os.PathLike[str] | None = None,
    *,
    api_url: str | None = None,
    token: str | None = None,
    config_path: str | os.PathLike[str] | None = None,
    timeout_ms: int | None = None,
    retries: int | None = None,
    quarantine: bool = False,
    keep_going: bool = False,
    in_flight: int = 1,
    verify: bool = True,
    allow_http: bool | None = None,
    tuning: Tuning | None = None,
    session: aiohttp.ClientSession | None = None,
    on_event: Callable[[FlushEvent], None] | None = None,
    stop: StopSignal | None = None,
) -> FlushResult:
    """Upload the spool in ``directory``, oldest first, deleting each batch after its own acknowledgement.

    Options override the environment (``CIRRON_API_KEY``, ``CIRRON_API_ENDPOINT``, ``CIRRON_OUTPUT_DIR``), which
    overrides ``~/.cirron/config.json`` or the file at ``config_path``.

    ``timeout_ms`` bounds silence in milliseconds, ``retries`` the attempts after the first. ``quarantine`` sets
    rejected batches aside and goes on; ``keep_going`` passes by a batch that is out of retries. ``in_flight`` up to N
    batches are posted at a time: begun and deleted strictly oldest first, but the server may accept one before an
    older one. ``verify`` asks the platform about the token first. ``session`` is used instead of a session of our own
    and left open. ``on_event`` is called in the event loop with each event of :mod:`cirron_spool.report`. Setting
    ``stop`` ends the flush gracefully: no new batch is begun and the one in flight has four seconds.

    Returns what happened; batches that could not be delivered are in ``failures`` and in the spool. Raises
    ConfigError (arguments or configuration), SpoolError (the directory), SpoolBusyError (another flush),
    NotAuthenticatedError, AuthInvalidError, and AuthRejectedError for a 401 or 403 in mid-flush; what a flush had
    done until then is in the error's ``result``.

    Safe to cancel at any await: a batch that was not acknowledged stays, a delete that follows an acknowledgement
    completes before the cancellation goes on.
    """
    if not 1 <= in_flight <= _MOST_IN_FLIGHT:
        raise ConfigError(f"in_flight must be a whole number from 1 to {_MOST_IN_FLIGHT}.")
    tuning = tuning if tuning is not None else Tuning()
    for option in ("prefetch_batches", "prefetch_bytes", "chunk_bytes"):
        if getattr(tuning, option) < 1:
            raise ConfigError(f"{option} must be a whole number above 0.")
    path = await anyio.to_thread.run_sync(spool_directory, directory, os.environ)
    options = _Options(quarantine, keep_going, in_flight, verify, tuning, session, on_event or _ignore, stop)
    with SpoolDirectory(path) as spool:
        if not await anyio.to_thread.run_sync(spool.open) or not await anyio.to_thread.run_sync(
            spool.has_batches
        ):
            return _nothing(path, options)
        settings = await anyio.to_thread.run_sync(
            partial(
                load_settings,
                os.environ,
                config_path=config_path,
                api_url=api_url,
                token=token,
                timeout_ms=timeout_ms,
                retries=retries,
                allow_http=allow_http,
            )
        )
        return await _Flush(spool, settings, options).run()


@dataclass(frozen=True, slots=True)
class _Options:
    quarantine: bool
    keep_going: bool
    in_flight: int
    verify: bool
    tuning: Tuning
    session: aiohttp.ClientSession | None
    emit: Callable[[FlushEvent], None]
    stop: StopSignal | None


def _sole(group: BaseExceptionGroup) -> BaseException:
    """The one error that a caller can act on: the first of ours, else the first, out of a task group's wrapping."""
    errors: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending = [*error.exceptions, *pending]
        else:
            errors.append(error)
    return next((error for error in errors if isinstance(error, CirronSpoolError)), errors[0])


def _required(credentials: Credentials | None) -> Credentials:
    if credentials is None:
        raise NotAuthenticatedError
    return credentials


def _ignore(event: FlushEvent) -> None:
    del event


def _nothing(path: Path, options: _Options) -> FlushResult:
    result = FlushResult(path)
    options.emit(Started(path, 0, 0))
    options.emit(Ended(result))
    return result


class _Flush:
    """One flush of one open spool directory."""

    def __init__(self, spool: SpoolDirectory, settings: Settings, options: _Options) -> None:
        self._spool = spool
        self._settings = settings
        self._options = options
        self._emit = options.emit
        self._told = (
            options.emit is not _ignore
        )  # an event for each batch is made only for somebody who listens
        self._tally = Tally(spool.path)
        self._prefetch = Prefetch(spool, options.tuning)
        self._began = time.monotonic()
        self._process = os.getpid()
        self._stopping = False  # asked to: nothing new is begun
        self._ended = False  # by a batch: nothing new is begun, and what is behind it is kept
        self._posting = 0
        self._idle: asyncio.Event | None = None
        self._rejected_in_a_row = 0
        self._proved_deletable = False
        self._auth_error: AuthRejectedError | None = None
        self._streamed: dict[str, int] = {}  # bytes that bodies of no known length came to
        # Set up in run(): what the attempts need.
        self._login: Login
        self._ingest: Ingest
        self._disk: Ahead[Ready, Prepared, tuple[Prepared, Removal | OSError]]

    async def run(self) -> FlushResult:
        """Flush; see :func:`flush_spool`."""
        try:
            async with AsyncExitStack() as stack:
                credentials = _required(self._settings.credentials)
                await anyio.to_thread.run_sync(self._spool.check_writable)
                self._warn(await anyio.to_thread.run_sync(self._spool.lock))
                stack.push_async_callback(self._unlock)
                transport = await stack.enter_async_context(
                    Transport(
                        timeout_ms=self._settings.timeout_ms,
                        connections=self._options.in_flight,
                        session=self._options.session,
                    )
                )
                self._login = Login(self._settings, credentials, transport)
                self._ingest = Ingest(transport, self._settings.ingest_origin)
                try:
                    await self._flush()
                except BaseExceptionGroup as group:
                    raise _sole(group) from None
        except CirronSpoolError as error:
            if not self._tally.listed:  # it ended before the listing: say how much is left all the same
                self._tally.listed = len((await anyio.to_thread.run_sync(self._spool.listing)).names)
            error.result = self._end()
            raise
        except BaseException:
            self._end()
            raise
        result = self._end()
        if self._auth_error is not None:
            self._auth_error.result = result
            raise self._auth_error
        return result

    async def _unlock(self) -> None:
        await complete(anyio.to_thread.run_sync(self._spool.unlock))

    def _end(self) -> FlushResult:
        result = self._tally.result(time.monotonic() - self._began)
        self._emit(Ended(result))
        return result

    # -- the stages --------------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        """List, then deliver while a thread prepares ahead and deletes behind; verify beside the first of it."""
        for warning in self._settings.warnings:
            self._warn(warning)
        refused: list[AuthInvalidError] = []
        verified = anyio.Event()

        async def authenticate() -> None:
            try:
                await self._login.renew_if_due()
                if self._options.verify:
                    await self._login.verify()
            except AuthInvalidError as error:  # an outcome, not a crash of the group
                refused.append(error)
            finally:
                verified.set()

        async with anyio.create_task_group() as beside:
            beside.start_soon(authenticate)
            if self._settings.ingest_origin != self._settings.api_url:
                beside.start_soon(self._ingest.preconnect)
            names = await self._list()
            async with self._prefetch.ahead(names, self._remove) as self._disk:
                with anyio.CancelScope() as delivery:
                    if self._options.stop is not None:
                        beside.start_soon(self._watch_stop, self._options.stop, delivery)
                    await verified.wait()
                    self._collect_warnings()
                    if not refused:
                        await self._deliver()
                beside.cancel_scope.cancel()
        self._collect_removals()
        self._collect_warnings()
        if refused:
            raise refused[0]

    async def _list(self) -> list[str]:
        listing = await anyio.to_thread.run_sync(self._spool.listing)
        self._tally.listed = len(listing.names)
        total = 0
        if self._told:
            # Sizes cost a stat a file: only for somebody who shows them.
            total = await anyio.to_thread.run_sync(lambda: sum(map(self._spool.size_of, listing.names)))
        self._emit(Started(self._spool.path, len(listing.names), total))
        if listing.strangers:
            first = listing.strangers[0]
            kind = await anyio.to_thread.run_sync(self._spool.kind_of, first)
            what = count(len(listing.strangers), "entry", "entries")
            self._warn(
                f"Left alone {what} named like a batch that is no regular file, such as {first} ({kind})."
            )
        return listing.names

    async def _deliver(self) -> None:
        """Post what is ready, oldest first and up to ``in_flight`` at a time; conclude strictly oldest first."""
        window: deque[Unsendable | tuple[Prepared, _Delivery]] = deque()
        try:
            async for item in self._disk:
                if self._stopping or self._ended:
                    break
                if isinstance(item, Unsendable):
                    window.append(item)
                else:
                    if not await self._catch_up():
                        break
                    if self._told:
                        self._emit(Sending(item.name, item.size))
                    delivery: _Delivery = self._deliver_one(item)
                    if (
                        self._options.in_flight > 1
                    ):  # one alone needs no task of its own: it is awaited at once
                        delivery = asyncio.ensure_future(delivery)
                    window.append((item, delivery))
                while window and (len(window) >= self._options.in_flight or _is_done(window[0])):
                    await self._conclude(window.popleft())
                    if self._ended:
                        return
            while window and not self._ended:
                await self._conclude(window.popleft())
        finally:
            # What is behind a batch that ended the flush is kept, whatever the server may have made of it.
            deliveries = [entry[1] for entry in window if not isinstance(entry, Unsendable)]
            behind = [delivery for delivery in deliveries if isinstance(delivery, asyncio.Future)]
            for task in behind:
                task.cancel()
            await asyncio.gather(*behind, return_exceptions=True)

    async def _catch_up(self) -> bool:
        """Let no more than the allowed deletes be behind; the first one proves that the directory allows any.

        Whether another batch may be begun.
        """
        if not self._proved_deletable and self._tally.uploaded:
            await self._disk.settled(0)
            self._proved_deletable = True
        else:
            await self._disk.settled(_DELETES_BEHIND + self._options.in_flight - 1)
        self._collect_removals()
        return not (self._stopping or self._ended)

    # -- one batch ---------------------------------------------------------------------------------------------------

    async def _deliver_one(self, batch: Prepared) -> Verdict | OSError:
        try:
            verdict = await self._attempt(batch)
            if verdict.action is Action.RETRY and not self._stopping:
                verdict = await self._retry(batch, verdict)
        except OSError as error:  # the file's: a body that is read while it is sent
            return error
        return verdict

    async def _retry(self, batch: Prepared, verdict: Verdict) -> Verdict:
        """Attempt ``batch`` again on the schedule, after a first attempt that came to ``verdict``."""
        known = [verdict]

        async def attempt() -> Verdict:
            return known.pop() if known else await self._attempt(batch)

        async def announce(details: Any) -> None:
            again: Verdict = details["value"]
            self._emit(
                Retrying(batch.name, again.status, again.message, details["wait"], details["tries"] + 1)
            )

        # As backoff's types have it nothing is sent into a schedule; it does send each outcome (its _common.py).
        schedule: Any = partial(delays, retries=self._settings.retries, random=random.random)
        attempts = backoff.on_predicate(
            schedule,
            lambda outcome: outcome.action is Action.RETRY and not self._stopping,
            jitter=None,  # the schedule's own: backoff's would shorten a Retry-After
            on_backoff=announce,
            logger=None,
        )(attempt)
        outcome: Verdict = await attempts()
        return outcome

    async def _attempt(self, batch: Prepared) -> Verdict:
        """One attempt; a 401 is answered with one renewal of the token and one more try before it counts."""
        if self._login.due:
            await self._login.renew_if_due()
        token = self._login.token
        verdict = await self._post(batch, token)
        if verdict.action is Action.REFRESH and await self._login.renew(token):
            verdict = await self._post(batch, self._login.token)
        return verdict

    async def _post(self, batch: Prepared, token: str) -> Verdict:
        if os.getpid() != self._process:
            raise RuntimeError("This flush belongs to the process that began it; a fork must begin its own.")
        self._posting += 1
        try:
            outcome = await self._ingest.post(batch, token, self._prefetch.stream)
        finally:
            self._posting -= 1
            if self._posting == 0 and self._idle is not None:
                self._idle.set()
        if batch.length is None and isinstance(outcome, Answer):
            self._streamed[batch.name] = outcome.sent
        verdict = judge(outcome, name=batch.name, origin=self._ingest.origin, now=datetime.now(UTC))
        if token in verdict.message or token in verdict.hint or token in verdict.said:
            # A server that repeats the token must not make us print it.
            verdict = replace(
                verdict,
                message=verdict.message.replace(token, "…"),
                hint=verdict.hint.replace(token, "…"),
                said=verdict.said.replace(token, "…"),
            )
        return verdict

    async def _conclude(self, oldest: Unsendable | tuple[Prepared, _Delivery]) -> None:
        """Wait for the oldest batch's outcome and act on it; no await parts an acknowledgement from its delete."""
        if isinstance(oldest, Unsendable):
            self._pass_by(oldest)
            return
        item, delivery = oldest
        verdict = await delivery
        if self._stopping and isinstance(verdict, Verdict) and verdict.action is Action.RETRY:
            return  # asked to stop in the middle of it: it stays, untried
        if isinstance(verdict, OSError):
            if isinstance(verdict, FileNotFoundError):
                self._tally.evicted += 1
            else:
                self._fail(
                    item.name,
                    None,
                    f"Cannot read {item.name}: {reason(verdict)}. It stays in the spool.",
                    EXIT_LOOK,
                )
                self._ended = True
        elif verdict.action is Action.ACKNOWLEDGED:
            self._disk.put(item)
            self._rejected_in_a_row = 0
            sent = self._sent(item)
            self._tally.acknowledge(item.size, sent)
            if self._told:
                self._emit(Uploaded(item.name, item.size, sent))
        elif verdict.action is Action.REJECTED and self._options.quarantine:
            await self._set_aside(item, verdict)
        else:
            self._fail(item.name, verdict.status, verdict.message, verdict.exit_code, verdict.hint)
            if verdict.exit_code == EXIT_AUTH:
                self._auth_error = AuthRejectedError(verdict.message)
            if verdict.action is not Action.RETRY or not self._options.keep_going:
                self._ended = True

    def _pass_by(self, item: Unsendable) -> None:
        if item.cause is Cause.VANISHED:
            self._tally.evicted += 1
        elif item.cause is Cause.UNREADABLE:
            self._fail(
                item.name,
                None,
                f"Cannot read {item.name}: {printable(item.message)}. It stays in the spool.",
                EXIT_LOOK,
            )
            if not self._options.keep_going:
                self._ended = True
        else:
            self._tally.pass_over()
            if item.cause is Cause.EMPTY:
                why = "it is empty, as a power cut can leave it. Look at it, then delete it"
            else:
                why = f"it is {item.message}"
            self._warn(f"Skipped {item.name}: {why}.")

    def _sent(self, batch: Prepared) -> int:
        return batch.length if batch.length is not None else self._streamed[batch.name]

    async def _set_aside(self, item: Prepared, verdict: Verdict) -> None:
        self._rejected_in_a_row += 1
        if self._rejected_in_a_row >= MOST_REJECTED_IN_A_ROW:
            self._fail(
                item.name,
                verdict.status,
                verdict.message,
                EXIT_LOOK,
                f"{MOST_REJECTED_IN_A_ROW} batches were rejected in a row: the endpoint may be wrong. "
                "Nothing more is set aside; check apiUrl.",
            )
            self._ended = True
            return
        await self._disk.settled()
        message = f"{verdict.message}: {verdict.said}" if verdict.said else verdict.message
        try:
            place = await anyio.to_thread.run_sync(set_aside, self._spool, item.name, verdict.status, message)
        except FileNotFoundError:
            self._tally.evicted += 1
        except OSError as error:
            message = (
                f"{verdict.message}, and it could not be set aside: {reason(error)}. It stays in the spool"
            )
            self._fail(item.name, verdict.status, message, EXIT_LOOK)
            self._ended = True
        else:
            self._tally.set_aside()
            self._emit(Quarantined(item.name, verdict.status, message, place))

    # -- deleting ------------------------------------------------------------------------------------------------------

    def _remove(self, batch: Prepared) -> tuple[Prepared, Removal | OSError]:
        """Delete an acknowledged batch; runs in the thread."""
        if os.getpid() != self._process:
            raise RuntimeError("This flush belongs to the process that began it.")
        try:
            return batch, self._spool.delete(batch.name, batch.fingerprint)
        except OSError as error:
            return batch, error

    def _collect_removals(self) -> None:
        for batch, removal in self._disk.results():
            if removal is Removal.CHANGED:
                message = f"Uploaded {batch.name}, but the file has changed since it was read and was kept. Look at it."
            elif isinstance(removal, OSError):
                message = (
                    f"Uploaded {batch.name} but failed to delete local spool file "
                    f"{printable(str(self._spool.path_of(batch.name)))}: {reason(removal)}. "
                    "It may be re-uploaded on next flush."
                )
            else:
                continue
            self._tally.unacknowledge(batch.size, self._sent(batch))
            self._fail(batch.name, None, message, EXIT_LOOK)
            self._ended = True

    # -- stopping and telling --------------------------------------------------------------------------------

    async def _watch_stop(self, stop: StopSignal, delivery: anyio.CancelScope) -> None:
        await stop.wait()
        self._stopping = True
        self._idle = asyncio.Event()
        with anyio.move_on_after(GRACE_S):
            while self._posting:
                self._idle.clear()
                await self._idle.wait()
        delivery.cancel()

    def _fail(self, name: str, status: int | None, message: str, exit_code: int, hint: str = "") -> None:
        self._tally.fail(BatchFailure(name, status, message), exit_code)
        self._emit(Failed(name, status, message, hint))

    def _warn(self, message: str) -> None:
        if message:
            self._emit(Warned(message))

    def _collect_warnings(self) -> None:
        for warning in self._login.warnings:
            self._warn(warning)
        self._login.warnings.clear()
        if self._login.unsaved:
            # Delivered or not, the next flush will find a refresh token that was used up.
            self._tally.exit_codes.add(EXIT_LOOK)


def _is_done(entry: Unsendable | tuple[Prepared, _Delivery]) -> bool:
    return isinstance(entry, Unsendable) or (isinstance(entry[1], asyncio.Future) and entry[1].done())
