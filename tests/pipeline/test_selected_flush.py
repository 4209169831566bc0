"""A flush of a part of the spool, and a flush that is only tried: what goes, what stays, and what is said."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import (
    AuthInvalidError,
    Client,
    Ended,
    FlushEvent,
    FlushResult,
    NotAuthenticatedError,
    Selection,
    Sending,
    SpoolError,
    Started,
    Tuning,
    Uploaded,
    Warned,
    flush_spool,
)
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.lock import LOCK_NAME
from support.answers import Answer, json_answer
from support.cli import write_config
from support.monitor import DeleteWatch
from support.scripted import ScriptedServer
from support.spools import TINY, Sealed, profiled_run, sdk_batches, snapshot, write_batch

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-flush-secret"


async def flush(server: ScriptedServer, spool: Path, **options: Any) -> FlushResult:
    return await flush_spool(spool, **{"api_url": server.url, "token": TOKEN, **options})


def moment(batch: Sealed) -> datetime:
    """The time of ``batch``, cut to the microsecond."""
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=batch.created_ns // 1000)


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    directory.chmod(0o500)
    try:
        yield
    finally:
        directory.chmod(0o700)


def state_of(directory: Path) -> tuple[list[str], int]:
    """The names in ``directory``, and the time of its last change."""
    return sorted(os.listdir(directory)), directory.stat().st_mtime_ns


def sum_of(result: FlushResult) -> int:
    """The batches that the counts of the result speak of."""
    return result.uploaded + result.failed + result.skipped + result.quarantined + result.evicted


# -- a part of the spool -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("disk_work", ["thread", "inline"])
@pytest.mark.parametrize("in_flight", [1, 3])
async def test_only_the_selected_batches_go_in_order(
    spool: Path, deletes: DeleteWatch, disk_work: Any, in_flight: int
) -> None:
    batches = sdk_batches(spool, 9, spans=(0, 20))
    selection = Selection(limit=4, newer_than=moment(batches[2]))
    with ScriptedServer() as server:
        result = await flush(
            server, spool, selection=selection, tuning=Tuning(disk_work=disk_work), in_flight=in_flight
        )
    assert sorted(server.deliveries) == sorted((batch.batch_id, batch.data) for batch in batches[2:6])
    assert deletes.names == [batch.name for batch in batches[2:6]]
    assert snapshot(spool) == batches[:2] + batches[6:]
    assert (result.uploaded, result.left_out, sum_of(result), result.exit_code) == (4, 5, 4, 0)
    assert result.warnings == (
        "The selection leaves out 2 older batches: they stay, and will arrive after newer ones.",
    )


async def test_parts_from_the_oldest_add_up_to_the_whole(spool: Path) -> None:
    batches = sdk_batches(spool, 7, spans=TINY)
    sizes = [len(batch.data) for batch in batches]
    left: list[int] = []
    with ScriptedServer() as server:
        for selection in (Selection(limit=3), Selection(max_bytes=sizes[3] + sizes[4]), Selection(limit=9)):
            result = await flush(server, spool, selection=selection)
            assert (result.warnings, result.exit_code) == ((), 0)
            left.append(result.left_out)
    assert left == [4, 2, 0]
    assert [batch_id for batch_id, _ in server.deliveries] == [batch.batch_id for batch in batches]
    assert snapshot(spool) == []


async def test_batches_of_a_running_sdk_by_their_age(tmp_path: Path) -> None:
    batches = profiled_run(tmp_path)
    spool = tmp_path / "spool"
    with ScriptedServer() as server:
        none = await flush(server, spool, selection=Selection(older_than=timedelta(hours=1)))
        assert (none.uploaded, none.left_out, none.exit_code, server.uploads) == (0, len(batches), 0, [])
        all_of_them = await flush(server, spool, selection=Selection(newer_than=timedelta(hours=1)))
    assert (all_of_them.uploaded, all_of_them.left_out, all_of_them.warnings) == (len(batches), 0, ())


async def test_the_start_and_the_log_say_what_was_left_out(spool: Path) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    events: list[FlushEvent] = []
    with ScriptedServer() as server:
        result = await flush(server, spool, selection=Selection(limit=2), on_event=events.append)
    size = sum(len(batch.data) for batch in batches[:2])
    assert events[0] == Started(spool, 2, size, 1)
    assert sum(isinstance(event, Uploaded) for event in events) == 2
    assert events[-1] == Ended(result)


async def test_a_first_batch_beyond_the_bound_stops_before_it_and_a_person_must_look(spool: Path) -> None:
    write_batch(spool, 1, "0a", b"x" * 3000)
    write_batch(spool, 2, "0b", b"x")
    with ScriptedServer() as server:
        result = await flush(server, spool, selection=Selection(max_bytes=2048))
    assert (result.uploaded, result.left_out, sum_of(result), result.exit_code) == (0, 2, 0, 1)
    assert [line.partition(". ")[0] for line in result.warnings] == [
        "00000000000000000001-0a.json alone has 3 KB, more than the bound of 2 KB"
    ]
    assert (server.uploads, len(snapshot(spool))) == ([], 2)


async def test_a_limit_counts_listed_batches_and_none_takes_the_place_of_another(
    spool: Path, monkeypatch: pytest.MonkeyPatch, deletes: DeleteWatch
) -> None:
    batches = sdk_batches(spool, 6, spans=TINY)
    (spool / batches[2].name).write_bytes(b"")
    real = SpoolDirectory.open_batch

    def vanish(self: SpoolDirectory, name: str) -> Any:
        if name == batches[3].name:
            with deletes.allowed():
                (spool / name).unlink(missing_ok=True)  # the SDK evicts it
        return real(self, name)

    monkeypatch.setattr(SpoolDirectory, "open_batch", vanish)
    with ScriptedServer(Answer(400), Answer(503), Answer(503)) as server:
        result = await flush(
            server, spool, selection=Selection(limit=4), quarantine=True, keep_going=True, retries=1
        )
    assert (result.quarantined, result.failed, result.skipped, result.evicted) == (1, 1, 1, 1)
    assert (result.uploaded, result.left_out, sum_of(result), result.exit_code) == (0, 2, 4, 1)
    assert server.delivered == {}


async def test_a_flush_that_ends_before_the_listing_counts_the_selection(spool: Path) -> None:
    sdk_batches(spool, 5, spans=TINY)
    with ScriptedServer() as server, pytest.raises(NotAuthenticatedError) as caught:
        await flush(server, spool, token=None, selection=Selection(limit=2))
    result = caught.value.result
    assert result is not None
    assert (result.skipped, result.untried, result.left_out) == (2, 2, 3)


# -- a dry run -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("disk_work", ["thread", "inline"])
async def test_a_dry_run_lists_verifies_and_changes_nothing(spool: Path, disk_work: Any) -> None:
    batches = sdk_batches(spool, 4, spans=(0, 20))
    before = state_of(spool)
    events: list[FlushEvent] = []
    with ScriptedServer() as server:
        result = await flush(
            server,
            spool,
            dry_run=True,
            selection=Selection(limit=3),
            on_event=events.append,
            tuning=Tuning(disk_work=disk_work),
        )
        assert [request.path for request in server.requests] == ["/api/cli/status"]
    assert snapshot(spool) == batches
    assert state_of(spool) == before
    planned = tuple((batch.name, len(batch.data)) for batch in batches[:3])
    assert result == FlushResult(
        spool,
        skipped=3,
        seconds=result.seconds,
        destination=server.url,
        left_out=1,
        verified=True,
        planned=planned,
    )
    assert events == [Started(spool, 3, sum(size for _, size in planned), 1), Ended(result)]
    assert pickle.loads(pickle.dumps(result)) == result


@pytest.mark.parametrize("disk_work", ["thread", "inline"])
async def test_a_dry_run_reads_no_batch(spool: Path, monkeypatch: pytest.MonkeyPatch, disk_work: Any) -> None:
    sdk_batches(spool, 3, spans=TINY)
    opened: list[str] = []

    def record(self: SpoolDirectory, name: str) -> Any:
        del self
        opened.append(name)
        raise AssertionError(name)

    monkeypatch.setattr(SpoolDirectory, "open_batch", record)
    with ScriptedServer() as server:
        result = await flush(server, spool, dry_run=True, tuning=Tuning(disk_work=disk_work))
    assert (len(result.planned), opened) == (3, [])


async def test_a_dry_run_takes_no_lock_and_is_not_kept_by_one(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer() as server, SpoolDirectory(spool) as other:
        other.open()
        other.lock()
        busy = await flush(server, spool, dry_run=True)
        assert LOCK_NAME in os.listdir(spool)
    assert [name for name, _ in busy.planned] == [batch.name for batch in batches]
    assert server.uploads == []


async def test_a_dry_run_warns_as_the_flush_will(spool: Path) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    events: list[FlushEvent] = []
    selection = Selection(newer_than=moment(batches[1]))
    with ScriptedServer() as server:
        server.on("GET", "/api/cli/status", Answer(503))
        result = await flush(server, spool, dry_run=True, selection=selection, on_event=events.append)
    assert not any(isinstance(event, Sending) for event in events)
    assert sorted(event.message for event in events if isinstance(event, Warned)) == [
        "Could not verify auth before flush: HTTP 503 Service Unavailable. Proceeding anyway.",
        "The selection leaves out 1 older batch: they stay, and will arrive after newer ones.",
    ]
    assert (result.verified, len(result.planned), result.exit_code) == (False, 2, 0)


async def test_a_flush_by_age_warns_of_batches_of_the_future(spool: Path) -> None:
    name = write_batch(spool, time.time_ns() + 3600 * 10**9, "0a", b"{}").name
    with ScriptedServer() as server:
        result = await flush(server, spool, selection=Selection(newer_than=timedelta(hours=1)))
    assert [warning.partition(",")[0] for warning in result.warnings if name in warning] == ["1 batch"]
    assert (result.uploaded, result.exit_code) == (1, 0)


async def test_a_dry_run_warns_of_batches_without_a_byte(spool: Path) -> None:
    name = write_batch(spool, 5, "0e", b"").name
    write_batch(spool, 6, "0f", b"{}")
    with ScriptedServer() as server:
        result = await flush(server, spool, dry_run=True)
        assert [entry for entry, _ in result.planned if entry == name] == [name]
        said = f"1 batch without a byte, such as {name}, cannot be sent. Delete the empty files"
        assert [warning.partition(":")[0] for warning in result.warnings] == [said]
        write_batch(spool, 5, "0e", b"{}")
        assert (await flush(server, spool, dry_run=True)).warnings == ()


async def test_a_dry_run_ends_as_the_flush_would(spool: Path, tmp_path: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer() as server:
        server.on("GET", "/api/cli/status", default=json_answer({"valid": False}))
        with pytest.raises(AuthInvalidError) as refused:
            await flush(server, spool, dry_run=True)
        with pytest.raises(NotAuthenticatedError):
            await flush(server, spool, dry_run=True, token=None)
        with pytest.raises(SpoolError):
            await flush(server, Path("/dev/null"), dry_run=True)
        empty = await flush(server, tmp_path / "none", dry_run=True)
        blocked = await flush(server, spool, dry_run=True, verify=False, selection=Selection(max_bytes=1))
    assert refused.value.result is not None
    assert len(refused.value.result.planned) == 2
    assert (empty.exists, empty.planned, empty.verified, empty.exit_code) == (False, (), False, 0)
    assert (blocked.planned, blocked.left_out, blocked.exit_code) == ((), 2, 1)
    assert server.uploads == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may delete anything")
async def test_a_dry_run_says_that_batches_could_not_be_deleted(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    with (
        read_only(spool),
        ScriptedServer() as server,
        pytest.raises(SpoolError, match="No write permission"),
    ):
        await flush(server, spool, dry_run=True)


async def test_a_dry_run_may_renew_a_token_that_is_due(spool: Path, tmp_path: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer(check_auth=True) as server:
        soon = datetime.fromtimestamp(time.time() + 60, UTC).isoformat()
        login = {"accessToken": "access-0", "refreshToken": "refresh-0", "expiresAt": soon}
        config = write_config(tmp_path, apiUrl=server.url, auth=login)
        result = await flush_spool(spool, config_path=config, dry_run=True)
        renewed = server.platform.access_token
    assert (result.verified, len(result.planned)) == (True, 2)
    assert renewed != "access-0"
    assert renewed in config.read_text()


async def test_a_dry_run_with_a_client_and_then_the_flush(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer() as server:
        async with Client(api_url=server.url, token=TOKEN) as client:
            tried = await flush_spool(spool, client=client, dry_run=True)
            sent = await flush_spool(spool, client=client)
        assert len(server.seen("/api/cli/status")) == 1
    assert (tried.verified, sent.verified, sent.uploaded, sent.planned) == (True, True, len(batches), ())
