"""Spools through a real scheduler and real worker processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("distributed")

from cirron_spool.cluster.dask_flush import ClusterResult, flush_on_dask
from cirron_spool.events import FlushEvent, Uploaded, Warned
from support.answers import ok
from support.dask_cluster import DaskCluster, kill
from support.scripted import Gate, ScriptedServer
from support.spools import TINY, Sealed, sdk_batches, snapshot


def many_spools(folder: Path, count: int, batches: int) -> dict[Path, list[Sealed]]:
    """Spools of as many batches each, by their paths."""
    paths = [folder / f"run{number}" / ".cirron" / "spool" for number in range(count)]
    return {path: sdk_batches(path, batches, spans=TINY, seed=number) for number, path in enumerate(paths)}


def check_order(server: ScriptedServer, spools: dict[Path, list[Sealed]], *, resent: int = 0) -> None:
    """Every batch was acknowledged, in each spool in order, and at most so many of them a second time."""
    ids = [batch_id for batch_id, _ in server.deliveries]
    for batches in spools.values():
        mine = {batch.batch_id for batch in batches}
        first_times = dict.fromkeys(batch_id for batch_id in ids if batch_id in mine)
        assert list(first_times) == [batch.batch_id for batch in batches]
    assert len(ids) - len(set(ids)) <= resent
    assert [snapshot(path) for path in spools] == [[]] * len(spools)


def test_all_is_delivered_by_both_workers(cluster: DaskCluster, tmp_path: Path) -> None:
    spools = many_spools(tmp_path, 9, 3)
    events: list[tuple[str, FlushEvent]] = []
    with ScriptedServer(check_auth=True) as server:
        result = asyncio.run(
            flush_on_dask(
                list(spools),
                scheduler=cluster.address,
                api_url=server.url,
                on_event=lambda directory, event: events.append((directory, event)),
            )
        )
    check_order(server, spools)
    assert [report.directory for report in result.reports] == list(map(str, spools))
    assert (result.exit_code, result.warnings) == (0, ())
    assert {report.result.uploaded for report in result.reports} == {3}
    assert len({report.where for report in result.reports}) == 2
    uploaded = [(directory, event.name) for directory, event in events if isinstance(event, Uploaded)]
    assert sorted(uploaded) == sorted((str(path), batch.name) for path in spools for batch in spools[path])


def test_a_killed_worker_loses_nothing(cluster: DaskCluster, tmp_path: Path) -> None:
    doomed = cluster.add_worker()
    spools = many_spools(tmp_path, 12, 4)
    gate = Gate()
    events: list[FlushEvent] = []

    async def flush() -> ClusterResult:
        running = asyncio.create_task(
            flush_on_dask(
                list(spools),
                scheduler=cluster.address,
                api_url=server.url,
                on_event=lambda _, event: events.append(event),
            )
        )
        await server.arrived(12)  # each thread has a batch under way that is not acknowledged
        kill(doomed)
        gate.open()
        return await running

    with ScriptedServer(*[ok(stall_before=gate)] * 12) as server:
        result = asyncio.run(flush())
    assert result.exit_code == 0
    check_order(server, spools, resent=4)
    lost = [event.message for event in events if isinstance(event, Warned)]
    assert len(lost) == 4
    assert "goes to another worker" in lost[0]
