"""Upload a spool: list, prefetch, deliver in order, delete what was acknowledged, report.

A batch goes one way: listed, prepared ahead by a thread, posted, judged, and only on its own acknowledgement handed
back to be deleted. The position moves with the acknowledgement and never before it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

import anyio

from cirron_spool.auth.token_manager import TokenManager
from cirron_spool.concurrency.threads import in_thread
from cirron_spool.errors import (
    EXIT_ATTENTION,
    AuthInvalidError,
    CirronSpoolError,
    ConfigError,
    ResourceError,
    TokenRenewalError,
    resource_errors,
    sole,
)
from cirron_spool.events import (
    Ended,
    Failed,
    FlushEvent,
    FlushResult,
    Quarantined,
    Sending,
    Started,
    Warned,
    describe,
    warning_in,
)
from cirron_spool.http.transport import Transport
from cirron_spool.pipeline.delivery import Delivery
from cirron_spool.pipeline.ingest import Ingest
from cirron_spool.pipeline.preflight import Beginning, Begun, Listed
from cirron_spool.pipeline.read_ahead import Prefetch, Prepared
from cirron_spool.pipeline.settle import Conclusions
from cirron_spool.pipeline.tally import Tally
from cirron_spool.pipeline.window import Window
from cirron_spool.settings.load import Settings, load_settings
from cirron_spool.settings.paths import find_spool
from cirron_spool.settings.tuning import Tuning
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.snapshots import snapshots_left
from cirron_spool.text import count

if TYPE_CHECKING:
    import aiohttp

# What the first flush of a process would import in the midst of its caller's event loop, 25 to 70 ms, is imported with
# this module.
for _module in ("anyio._backends._asyncio", "isal.isal_zlib"):
    with suppress(ImportError):
        import_module(_module)

_LOG = logging.getLogger("cirron_spool")
# A library prints nothing by itself. Without any handler, logging prints warnings to standard error.
_LOG.addHandler(logging.NullHandler())

# A flush that is asked to stop gives the batch in flight this long to be acknowledged: within the five seconds that
# a person or a job scheduler waits before it kills.
GRACE_S = 4.0
# Deletes that may be under way while the next batch is posted. One keeps a crash's resends at two: the batch in
# flight, and one acknowledged but not yet deleted.
_DELETES_BEHIND = 1
_MOST_IN_FLIGHT = 64


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
    origins: Mapping[str, str] | None = None,
    tuning: Tuning | None = None,
    session: aiohttp.ClientSession | None = None,
    on_event: Callable[[FlushEvent], None] | None = None,
    stop: StopSignal | None = None,
) -> FlushResult:
    """Upload the spool in ``directory``, oldest first, deleting each batch after its own acknowledgement.

    Options override the environment (``CIRRON_API_KEY``, ``CIRRON_API_ENDPOINT``, ``CIRRON_OUTPUT_DIR``,
    ``CIRRON_INGEST_PATH``), which overrides ``~/.cirron/config.json`` or the file at ``config_path``, which overrides
    the SDK's ``~/.cirron/config.toml``. With ``token`` or ``CIRRON_API_KEY``, a file that cannot be used is a warning.
    ``origins`` names the options in messages where they came from elsewhere: ``{"token": "--token-file t.txt"}``.

    ``timeout_ms`` bounds silence in milliseconds, ``retries`` the attempts after the first. ``quarantine`` sets
    rejected batches aside and goes on; ``keep_going`` passes by a batch that is out of retries. ``in_flight`` up to N
    batches are posted at a time: begun and deleted strictly oldest first, but the server may accept one before an
    older one. ``verify`` asks the platform about the token first. ``session`` is used instead of a session of our own
    and left open. ``on_event`` is called in the event loop with each event of :mod:`cirron_spool.events`; without it
    the logger ``cirron_spool`` gets failures and warnings at WARNING and all other events at DEBUG. Setting
    ``stop`` ends the flush gracefully: no new batch is begun and the one in flight has four seconds.

    Returns what happened; batches that could not be delivered are in ``failures`` and in the spool, and all warnings
    are in ``warnings``. Raises
    ConfigError (arguments or configuration), SpoolError (the directory), SpoolBusyError (another flush),
    NotAuthenticatedError, AuthInvalidError, TokenRenewalError when the token cannot be renewed before the flush, and
    AuthRejectedError for a 401 or 403 in mid-flush; what a flush had done until then is in the error's ``result``.

    Safe to cancel at any await: a batch that was not acknowledged stays, a delete that follows an acknowledgement
    completes before the cancellation goes on.
    """
    if not 1 <= in_flight <= _MOST_IN_FLIGHT:
        raise ConfigError(f"in_flight must be a whole number from 1 to {_MOST_IN_FLIGHT}.")
    tuning = tuning if tuning is not None else Tuning()
    for option in ("prefetch_batches", "prefetch_bytes", "chunk_bytes"):
        if getattr(tuning, option) < 1:
            raise ConfigError(f"{option} must be a whole number above 0.")
    if tuning.in_loop_bytes < 0:
        raise ConfigError("in_loop_bytes must be a whole number, 0 or above.")
    find = partial(
        find_spool,
        directory,
        os.environ,
        file_needed=token is None and not os.environ.get("CIRRON_API_KEY"),
    )
    # Only where nobody names the spool, config.toml is read; its disk may be slow.
    named = directory is not None or os.environ.get("CIRRON_OUTPUT_DIR")
    place = find() if named else await in_thread(find)
    options = _Options(quarantine, keep_going, in_flight, verify, tuning, session, on_event, stop)
    load = partial(
        load_settings,
        os.environ,
        config_path=config_path,
        api_url=api_url,
        token=token,
        timeout_ms=timeout_ms,
        retries=retries,
        allow_http=allow_http,
        origins=origins,
    )
    with SpoolDirectory(place.path) as spool:
        return await _Flush(spool, load, options, place.warning).run()


@dataclass(frozen=True, slots=True)
class _Options:
    quarantine: bool
    keep_going: bool
    in_flight: int
    verify: bool
    tuning: Tuning
    session: aiohttp.ClientSession | None
    on_event: Callable[[FlushEvent], None] | None
    stop: StopSignal | None


def _log(event: FlushEvent) -> None:
    """Log an event that nobody listens to."""
    told = isinstance(event, Failed | Quarantined | Warned)
    _LOG.log(logging.WARNING if told else logging.DEBUG, "%s", describe(event))


class _Flush:
    """One flush of one spool directory, whose settings are ``load``ed if there is anything to send.

    ``warning`` is for a person, or empty.
    """

    def __init__(
        self, spool: SpoolDirectory, load: Callable[[], Settings], options: _Options, warning: str
    ) -> None:
        self._spool = spool
        self._options = options
        self._warning = warning
        self._listener = options.on_event or _log
        # An event for each batch is made only for somebody who listens.
        self._told = options.on_event is not None or _LOG.isEnabledFor(logging.DEBUG)
        self._tally = Tally(spool.path)
        self._streamed: dict[str, int] = {}
        self._conclusions = Conclusions(
            spool,
            self._tally,
            self._emit,
            told=self._told,
            quarantine=options.quarantine,
            keep_going=options.keep_going,
            streamed=self._streamed,
        )
        # A session of the caller's has its own ways, and sizes are only for somebody who shows them.
        self._beginning = Beginning(spool, load, own_session=options.session is None, sizes=self._told)
        self._prefetch = Prefetch(spool, options.tuning)
        self._disk = self._prefetch.ahead(
            self._beginning.names(lambda: self._disk.run_errands()),  # noqa: PLW0108  # not bound yet
            self._conclusions.remove,
            at_once=options.in_flight,
            at_end=self._leave_spool,
        )
        self._snapshots_left = ""
        self._began = time.monotonic()

    async def run(self) -> FlushResult:
        """Flush; see :func:`flush_spool`."""
        begun: Begun | None = None
        self._warn(self._warning)
        try:
            with resource_errors():
                async with AsyncExitStack() as stack:
                    stack.callback(self._prefetch.close)
                    await stack.enter_async_context(self._disk)
                    begun = await self._beginning.begun()
                    if begun is not None:
                        await self._send(begun)
            for kept in self._disk.results():
                self._conclusions.kept(*kept)
        except CirronSpoolError as error:
            if begun is None and not isinstance(error, ResourceError):
                raise
            if not self._tally.listed:  # it ended before the listing: say how much is left all the same
                with suppress(CirronSpoolError):
                    self._tally.listed = len((await in_thread(self._spool.listing)).names)
            self._end(error)
            raise
        except BaseException:
            if begun is not None:
                self._end()
            raise
        if begun is None:
            self._tally.exists = self._spool.exists
            self._emit(Started(self._spool.path, 0, 0))
        rejected = self._conclusions.auth_error
        result = self._end(rejected)
        if rejected is not None:
            raise rejected
        return result

    def _emit(self, event: FlushEvent) -> None:
        if warning := warning_in(event):
            self._tally.warnings.append(warning)
        self._listener(event)

    def _leave_spool(self) -> None:
        """For the thread that works on the disk: what it does last."""
        self._spool.unlock()
        if self._tally.uploaded:
            self._snapshots_left = snapshots_left(self._spool.path)

    def _end(self, error: CirronSpoolError | None = None) -> FlushResult:
        """End the flush; ``error`` is the one that its caller will see."""
        if self._tally.evicted:
            vanished = count(self._tally.evicted, "batch")
            self._warn(
                f"{vanished} vanished before the upload. The SDK deletes the oldest when the spool is full."
            )
        self._warn(self._snapshots_left)
        result = self._tally.result(time.monotonic() - self._began)
        if error is not None:
            error.result = result = replace(result, exit_code=error.exit_code)
        self._emit(Ended(result))
        return result

    async def _send(self, begun: Begun) -> None:
        """Connect, and deliver what the thread prepares; authenticate beside its first steps."""
        self._warn(begun.warning)
        settings = begun.settings
        credentials = begun.credentials()
        self._tally.destination = settings.ingest_origin
        async with Transport(
            timeout_ms=settings.timeout_ms,
            session=self._options.session,
            route=begun.route,
        ) as transport:
            login = TokenManager(settings, credentials, transport, self._warn)
            ingest = Ingest(transport, settings.ingest_origin, settings.ingest_path)
            delivery = Delivery(
                ingest,
                login,
                retries=settings.retries,
                stream=self._prefetch.stream,
                streamed=self._streamed,
                emit=self._emit,
                told=self._options.on_event is not None,
            )
            for warning in settings.warnings:
                self._warn(warning)
            try:
                await self._flush(login, ingest, delivery)
            except BaseExceptionGroup as group:
                raise sole(group) from None

    async def _flush(self, login: TokenManager, ingest: Ingest, delivery: Delivery) -> None:
        refused: list[CirronSpoolError] = []
        authenticated = anyio.Event()

        async def authenticate() -> None:
            try:
                await login.renew_if_due()
                if self._options.verify:
                    await login.verify()
            except (AuthInvalidError, TokenRenewalError) as error:  # an outcome, not a crash of the group
                refused.append(error)
            finally:
                authenticated.set()

        async with anyio.create_task_group() as beside:
            beside.start_soon(authenticate)
            self._take_note_of(await self._beginning.listed())
            with anyio.CancelScope() as delivering:
                if self._options.stop is not None:
                    beside.start_soon(self._watch_stop, self._options.stop, delivery, delivering)
                await authenticated.wait()
                if not refused:
                    await ingest.resolve()
                    await self._deliver(delivery)
            beside.cancel_scope.cancel()
        if self._conclusions.auth_error is not None:
            self._conclusions.auth_error.hint = login.hint
        if login.unsaved:
            # Delivered or not, the next flush will find a refresh token that was used up.
            self._tally.exit_codes.add(EXIT_ATTENTION)
        if refused:
            raise refused[0]

    def _take_note_of(self, listed: Listed) -> None:
        names, strangers = listed.listing
        self._tally.listed = len(names)
        self._emit(Started(self._spool.path, len(names), listed.total_bytes))
        if strangers:
            odd = "is not a regular file" if len(strangers) == 1 else "are not regular files"
            what = f"{count(len(strangers), 'entry', 'entries')} with a batch's name {odd}"
            self._warn(f"{what}, such as {strangers[0]} ({listed.strange}). Move that out of the spool.")

    async def _deliver(self, delivery: Delivery) -> None:
        """Post what is ready, oldest first and up to ``in_flight`` at a time; conclude strictly oldest first."""
        disk, conclusions = self._disk, self._conclusions
        window = Window(disk, delivery, conclusions, self._options.in_flight)
        # The first delete proves that the directory allows any; then some may be behind.
        deletes_behind = 0
        try:
            async for item in disk:
                if disk.errands_left > deletes_behind:
                    await disk.settled(deletes_behind)
                    deletes_behind = _DELETES_BEHIND + self._options.in_flight - 1
                for kept in disk.results():
                    conclusions.kept(*kept)
                if conclusions.ended or delivery.stopping:
                    break
                if self._told and isinstance(item, Prepared):
                    self._emit(Sending(item.name, item.size))
                await window.take(item)
                if conclusions.ended:
                    break
            await window.finish()
            disk.meanwhile()  # the last delete, while the connection is closed
        finally:
            await window.abandon()

    async def _watch_stop(self, stop: StopSignal, delivery: Delivery, delivering: anyio.CancelScope) -> None:
        await stop.wait()
        await delivery.wind_down(GRACE_S)
        delivering.cancel()

    def _warn(self, message: str) -> None:
        if message:
            self._emit(Warned(message))
