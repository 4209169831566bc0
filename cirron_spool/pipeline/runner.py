"""One flush of one spool: preflight, token check and listing, delivery in order, report."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, suppress
from functools import partial

import anyio

from cirron_spool.concurrency.threads import in_thread
from cirron_spool.errors import (
    EXIT_ATTENTION,
    AuthInvalidError,
    CirronSpoolError,
    ResourceError,
    TokenRenewalError,
    first_cause,
    resource_errors,
)
from cirron_spool.events import (
    FlushResult,
    Sending,
    Started,
)
from cirron_spool.pipeline.batch import Prepared
from cirron_spool.pipeline.batch_reader import BatchReader
from cirron_spool.pipeline.client import Client
from cirron_spool.pipeline.deadline import DEADLINE_NEAR, GRACE_S, Deadline, StopSignal
from cirron_spool.pipeline.delivery import Delivery
from cirron_spool.pipeline.disk_worker import DiskWorker
from cirron_spool.pipeline.inline_worker import InlineWorker
from cirron_spool.pipeline.options import FlushOptions
from cirron_spool.pipeline.patience import Patience
from cirron_spool.pipeline.platform import Platform
from cirron_spool.pipeline.preflight import (
    Contents,
    Preflight,
    follow_contents,
    list_contents,
    run_preflight,
)
from cirron_spool.pipeline.report import Report
from cirron_spool.pipeline.sending import send_in_order
from cirron_spool.pipeline.settle import Settlement, remove_acknowledged
from cirron_spool.pipeline.snapshot_upload import SnapshotUpload
from cirron_spool.pipeline.source import BatchSource, FollowedSpool, ListedInTurns, ListedOnce
from cirron_spool.pipeline.thread_worker import ThreadWorker
from cirron_spool.pipeline.token_check import check_token
from cirron_spool.pipeline.upload_route import BatchRoute
from cirron_spool.pipeline.window_size import AutoSize, FixedSize, WindowSize
from cirron_spool.protocol.verdict import Verdict
from cirron_spool.receipts.writer import ReceiptsFile
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.lease import RENEW_S
from cirron_spool.spool.snapshots import snapshots_left
from cirron_spool.telemetry.otel import flush_telemetry

DISK_WORKERS: dict[str, type[DiskWorker]] = {"thread": ThreadWorker, "inline": InlineWorker}


class FlushRun:
    """One flush of ``spool``.

    ``client`` loads the settings. ``warning`` is a line for a person, or empty.
    """

    def __init__(
        self,
        spool: SpoolDirectory,
        client: Client,
        options: FlushOptions,
        warning: str,
    ) -> None:
        self._spool = spool
        self._client = client
        self._options = options
        self._warning = warning
        self._report = Report(spool.path, options)
        self._receipts = ReceiptsFile(options.receipts) if options.receipts is not None else None
        self._reader = BatchReader(spool, options.tuning, digests=options.receipts is not None)
        self._window_size: WindowSize = (
            AutoSize() if options.in_flight == "auto" else FixedSize(options.in_flight)
        )
        self._worker = DISK_WORKERS[options.tuning.disk_work](
            self._reader,
            partial(remove_acknowledged, spool, os.getpid()),
            options.tuning,
            window_size=self._window_size,
            last=self._leave_spool,
        )
        self._settlement = Settlement(
            spool,
            self._worker,
            self._report.tally,
            self._report.emit,
            has_listener=self._report.has_listener,
            quarantine=options.quarantine,
            keep_going=options.keep_going,
            receipts=self._receipts,
        )
        # For a watch: its source, and the event that ends it.
        self._followed: FollowedSpool | None = None
        self._ending = anyio.Event()

    @property
    def verdict(self) -> Verdict | None:
        """The verdict that ended the flush; None if no answer ended it."""
        return self._settlement.verdict

    async def run(self) -> FlushResult:
        """Flush; see :func:`cirron_spool.flush_spool`."""
        with flush_telemetry(self._spool.path) as self._report.telemetry:
            return await self._run()

    async def _run(self) -> FlushResult:
        preflight: Preflight | None = None
        self._report.warn(self._warning)
        try:
            with resource_errors():
                async with AsyncExitStack() as stack:
                    stack.callback(self._reader.close)
                    if self._receipts is not None:
                        stack.callback(self._receipts.close)
                    await stack.enter_async_context(self._worker)
                    if self._receipts is not None and not self._options.dry_run:
                        await self._worker.run(self._receipts.open)
                    preflight = await self._worker.run(
                        partial(
                            run_preflight,
                            self._spool,
                            self._client.load_settings,
                            find_route=self._options.session is None and self._options.platform is None,
                            lock=not self._options.dry_run,
                            follow=self._options.watch is not None,
                            snapshots=self._options.snapshots is not None,
                        )
                    )
                    if preflight is not None:
                        await self._send(preflight)
            self._settlement.check_listener()
        except CirronSpoolError as error:
            if preflight is None and not isinstance(error, ResourceError):
                raise
            if not self._report.started:  # count the batches that are left
                with suppress(CirronSpoolError):
                    self._report.count_listing(await in_thread(partial(self._list, sizes=False)))
            self._report.end(error)
            raise
        except BaseException:
            if preflight is not None:
                self._report.end()
            raise
        if preflight is None:
            self._report.tally.exists = self._spool.exists
            self._report.emit(Started(self._spool.path, 0, 0))
        rejected = self._settlement.auth_error
        result = self._report.end(rejected)
        if rejected is not None:
            raise rejected
        return result

    # -- the steps ---------------------------------------------------------------------------------------------------

    async def _send(self, preflight: Preflight) -> None:
        """Connect to the platform, and deliver."""
        self._report.warn(preflight.warning)
        if preflight.error is not None:
            raise preflight.error
        async with AsyncExitStack() as stack:
            platform = self._options.platform
            if platform is None:
                platform = await stack.enter_async_context(
                    Platform(
                        preflight.settings, self._options.session, preflight.route, self._client.bandwidth
                    )
                )
            self._report.tally.destination = platform.settings.ingest_origin
            for warning in platform.settings.warnings:
                self._report.warn(warning)
            try:
                await self._check_token_and_deliver(platform)
            except BaseExceptionGroup as group:
                raise first_cause(group) from None
            finally:
                if platform.tokens.unsaved:
                    # The refresh token in the file is used up, so the next process cannot renew the token.
                    self._report.tally.exit_codes.add(EXIT_ATTENTION)
                    self._report.warn(platform.tokens.unsaved)

    async def _check_token_and_deliver(self, platform: Platform) -> None:
        """Check the token and list the spool at the same time, then deliver."""
        options = self._options
        patience = self._patience_for(platform)
        delivery = self._delivery_for(platform, patience)
        refused: list[CirronSpoolError] = []
        token_checked = anyio.Event()

        async def check() -> None:
            try:
                self._report.tally.verified = await check_token(
                    platform.tokens, patience, self._report.warn, verify=options.verify
                )
            except (AuthInvalidError, TokenRenewalError) as error:  # raised after the task group
                refused.append(error)
            finally:
                token_checked.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(check)
            tasks.start_soon(self._renew_lease)
            source = await self._open_source(tasks)
            with anyio.CancelScope() as delivering:
                if options.stop is not None:
                    tasks.start_soon(self._watch_stop, options.stop, delivery, delivering, patience)
                group = await source.next_group()
                if group is not None:
                    self._worker.feed(group)
                await token_checked.wait()
                if options.snapshots is not None and not refused:
                    await self._upload_snapshots(platform, delivery)
                if not options.dry_run and not refused:
                    await platform.ingest.resolve()
                    await send_in_order(
                        source,
                        delivery,
                        self._worker,
                        self._settlement,
                        window_size=self._window_size,
                        on_begin=self._report_sending if self._report.has_listener else None,
                    )
            if self._followed is not None:
                self._followed.stop()
            tasks.cancel_scope.cancel()
        if self._followed is not None:
            with suppress(CirronSpoolError):  # count batches of the last moments
                contents = await self._worker.run(partial(self._list, sizes=False))
                self._report.tally.selected += len(self._followed.new_in(contents).selected.batches)
        if self._settlement.auth_error is not None:
            self._settlement.auth_error.hint = platform.tokens.hint
        if refused:
            raise refused[0]

    def _patience_for(self, platform: Platform) -> Patience | None:
        if self._options.patience is not None or self._options.watch is None:
            return self._options.patience
        return Patience(
            platform.settings, platform.tokens, self._client.read_settings, self._ending, self._report.emit
        )

    def _delivery_for(self, platform: Platform, patience: Patience | None) -> Delivery:
        platform.window_sizes.add(self._window_size)
        return Delivery(
            platform,
            BatchRoute(platform.ingest, self._reader.stream, self._worker.poll, self._ensure_claim),
            window_size=self._window_size,
            retries=platform.settings.retries,
            emit=self._report.emit,
            show_progress=self._options.on_event is not None,
            patience=patience,
            ensure_claim=self._ensure_claim,
        )

    async def _upload_snapshots(self, platform: Platform, delivery: Delivery) -> None:
        options = self._options
        await SnapshotUpload(
            self._spool.path,
            platform.ingest,
            delivery,
            self._report.tally,
            self._report.emit,
            delete=options.snapshots == "delete",
            dry_run=options.dry_run,
        ).run()

    async def _open_source(self, tasks: anyio.abc.TaskGroup) -> BatchSource:
        """The source of batches for the options. ``tasks`` runs the background tasks of a watch."""
        options = self._options
        sizes = self._report.has_listener or options.dry_run
        if options.watch is not None:
            self._followed = FollowedSpool(
                self._spool.path,
                partial(self._list_followed, sizes=sizes),
                self._report.report_listing,
                options.watch,
                self._ending,
            )
            tasks.start_soon(self._followed.watch_directory)
            tasks.start_soon(self._followed.watch_process)
            return self._followed
        contents = await self._worker.run(partial(self._list, sizes=sizes))
        self._report.report_listing(contents)
        if options.dry_run:
            self._report.report_plan(contents)
            return ListedOnce(())
        if options.may_go_on is not None:
            return ListedInTurns(contents.selected.batches, options.may_go_on)
        return ListedOnce(contents.selected.batches)

    async def _ensure_claim(self) -> None:
        """Ensure the claim to the spool. Raises SpoolBusyError once another process took the spool over."""
        if self._spool.is_claim_due:
            await self._worker.run(self._spool.ensure_claim)

    async def _renew_lease(self) -> None:
        """Renew the lease also during long waits."""
        while True:
            await anyio.sleep(RENEW_S)
            await self._ensure_claim()

    def _end_watch(self) -> None:
        if self._followed is not None:
            self._followed.end()

    def _report_sending(self, batch: Prepared) -> None:
        self._report.emit(Sending(batch.name, batch.size))

    async def _watch_stop(
        self,
        stop: StopSignal,
        delivery: Delivery,
        delivering: anyio.CancelScope,
        patience: Patience | None,
    ) -> None:
        await stop.wait()
        if isinstance(stop, Deadline) and stop.passed:
            self._end_watch()
            self._report.warn(DEADLINE_NEAR)
            await delivery.wind_down(stop.grace_s)
        elif self._options.watch is None or patience is None:
            await delivery.wind_down(GRACE_S)
        else:
            self._end_watch()
            if not patience.is_waiting:  # time for the batches that exist now
                await anyio.sleep(self._options.watch.grace_s)
            await delivery.wind_down(0)
        delivering.cancel()

    # -- the report --------------------------------------------------------------------------------------------------

    def _list(self, *, sizes: bool) -> Contents:
        return list_contents(self._spool, self._options.selection, sizes=sizes)

    async def _list_followed(self, *, sizes: bool) -> tuple[Contents, bool]:
        """The contents of the followed spool, and whether another directory replaced it."""
        follow = partial(follow_contents, self._spool, self._options.selection, sizes=sizes)
        contents, is_new, warning = await self._worker.run(follow)
        self._report.warn(warning)
        self._report.tally.exists = self._spool.exists
        return contents, is_new

    def _leave_spool(self) -> None:
        """The last step of the disk thread."""
        self._spool.unlock()
        if self._report.tally.uploaded and self._options.snapshots is None:
            self._report.snapshots_left = snapshots_left(self._spool.path)
