"""The library as a caller writes it: checked by mypy --strict, never run."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import assert_never, assert_type

import aiohttp
import anyio

from cirron_spool import (
    AuthError,
    AuthRejectedError,
    BatchFailure,
    CirronSpoolError,
    ClearResult,
    ConfigError,
    Ended,
    Failed,
    FlushEvent,
    FlushResult,
    Found,
    Inventory,
    Progress,
    Quarantined,
    Resumed,
    Retrying,
    Selection,
    Sending,
    SnapshotFailed,
    SnapshotsStarted,
    SnapshotUploaded,
    SpoolBusyError,
    SpoolError,
    Started,
    Tuning,
    Uploaded,
    Waiting,
    Warned,
    clear_spool,
    flush_spool,
    inspect_spool,
)


def listen(event: FlushEvent) -> None:  # noqa: C901  # one case an event
    """Every event can be told apart, and no other is left."""
    match event:
        case Started(directory, batches, total_bytes):
            assert_type(directory, Path)
            assert_type(batches, int)
            assert_type(total_bytes, int)
        case Sending(name, size) | Uploaded(name, size, _):
            assert_type(name, str)
            assert_type(size, int)
        case Progress(name, sent, total):
            assert_type((name, sent, total), tuple[str, int, int])
        case Retrying() as retrying:
            assert_type(retrying.status, int | None)
            assert_type(retrying.delay_s, float)
            assert_type(retrying.attempt, int)
        case Failed(name, status, message, hint):
            assert_type((name, status, message, hint), tuple[str, int | None, str, str])
        case SnapshotsStarted(folder, snapshots, total_bytes):
            assert_type((folder, snapshots, total_bytes), tuple[Path, int, int])
        case SnapshotUploaded(name, size, uri):
            assert_type((name, size, uri), tuple[str, int, str])
        case SnapshotFailed(name, status, message, hint):
            assert_type((name, status, message, hint), tuple[str, int | None, str, str])
        case Quarantined() as quarantined:
            assert_type(quarantined.quarantine, Path)
        case Found(batches, total_bytes):
            assert_type((batches, total_bytes), tuple[int, int])
        case Waiting(cause, message):
            assert_type((cause, message), tuple[str, str])
        case Resumed(cause, seconds):
            assert_type((cause, seconds), tuple[str, float])
        case Warned(message):
            assert_type(message, str)
        case Ended(result):
            assert_type(result, FlushResult)
        case _ as never:
            assert_never(never)


async def flush() -> FlushResult:
    """Every option, and every error."""
    await flush_spool()
    await flush_spool("spool")
    stop = anyio.Event()
    try:
        async with aiohttp.ClientSession() as session:
            result = await flush_spool(
                Path("spool"),
                api_url="https://api.example.com",
                token="sk-…",
                config_path=Path("config.json"),
                timeout_ms=30_000,
                retries=3,
                quarantine=True,
                keep_going=True,
                in_flight=4,
                verify=False,
                selection=Selection(limit=1, newer_than=datetime(2026, 4, 18, tzinfo=UTC)),
                dry_run=True,
                allow_http=None,
                tuning=Tuning(prefetch_batches=8, gzip_library="zlib", gzip_level=None),
                session=session,
                on_event=listen,
                stop=stop,
            )
    except AuthRejectedError as error:
        assert_type(error.result, FlushResult | None)
        raise
    except (AuthError, ConfigError, SpoolBusyError, SpoolError) as error:
        assert_type(error.exit_code, int)
        raise
    except CirronSpoolError:
        raise
    assert_type(result, FlushResult)
    assert_type(result.failures, tuple[BatchFailure, ...])
    assert_type(result.seconds, float)
    assert_type(result.planned, tuple[tuple[str, int], ...])
    assert_type(result.exit_code, int)
    await flush_spool(stop=asyncio.Event())
    return result


async def misuse() -> None:
    """What mypy must refuse; an ignore that is not needed is an error."""
    await flush_spool("spool", "https://api.example.com")  # type: ignore[call-arg]  # options are keyword-only
    await flush_spool(selection=Selection(older_than=7200))  # type: ignore[arg-type]  # seconds say no unit
    await flush_spool(timeout_ms="30000")  # type: ignore[arg-type]
    await flush_spool(on_event=offline)  # type: ignore[arg-type]
    result = await flush_spool()
    result.uploaded = 1  # type: ignore[misc]  # frozen


def offline() -> None:
    """Inspect and clear."""
    selection = Selection(max_bytes=500, older_than=timedelta(hours=2))
    assert_type(inspect_spool(selection=selection).left_out, int)
    assert_type(clear_spool(selection=selection).left_out, int)
    inventory = inspect_spool("spool")
    assert_type(inventory, Inventory)
    assert_type(inventory.total_bytes, int)
    for entry in inventory.entries:
        assert_type(entry.name, str)
        assert_type(entry.size, int)
    assert_type(clear_spool(), ClearResult)
    assert_type(clear_spool(inventory=inventory).failures, tuple[tuple[str, str], ...])
