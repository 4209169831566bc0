"""Spools through a real scheduler and real worker processes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed")

from cirron_spool import AuthRejectedError, ClusterError, ConfigError, flush_on_dask
from cirron_spool.errors import CirronSpoolError
from cirron_spool.events import FlushSpoolsResult, SpoolEvent, SpoolsFound, Uploaded, Warned
from support.answers import json_answer, ok
from support.background import closed_port
from support.dask_cluster import DaskCluster, dask_cluster, kill
from support.scripted import Answer, Gate, Request, ScriptedServer
from support.spools import TINY, Sealed, sdk_batches, snapshot


def many_spools(folder: Path, count: int, batches: int) -> dict[Path, list[Sealed]]:
    """Spools of as many batches each, by their paths."""
    paths = [folder / f"run{number:02d}" / ".cirron" / "spool" for number in range(count)]
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


def texts(events: Sequence[SpoolEvent]) -> list[str]:
    """The warnings among events."""
    return [each.event.message for each in events if isinstance(each.event, Warned)]


class Flush:
    """A run in a task beside the test. Its events are in `events`."""

    def __init__(self, *roots: Path, **options: Any) -> None:
        self.events: list[SpoolEvent] = []
        self.stop = asyncio.Event()
        self._run = asyncio.create_task(
            flush_on_dask(roots, stop=self.stop, on_event=self.events.append, **options)
        )

    async def end(self) -> FlushSpoolsResult:
        return await self._run


def test_all_is_delivered_by_both_workers(cluster: DaskCluster, tmp_path: Path) -> None:
    spools = many_spools(tmp_path, 9, 3)
    (tmp_path / "run99" / ".cirron" / "spool").mkdir(parents=True)
    events: list[SpoolEvent] = []
    with ScriptedServer(check_auth=True) as server:
        result = asyncio.run(
            flush_on_dask([tmp_path], scheduler=cluster.address, api_url=server.url, on_event=events.append)
        )
        # The one with the oldest batch is started first.
        check_order(server, spools)
    assert [spool.directory for spool in result.spools] == [*spools, tmp_path / "run99" / ".cirron" / "spool"]
    assert (result.exit_code, result.uploaded, result.warnings) == (0, 27, ())
    assert (result.destination, result.verified) == (server.url, True)
    assert events[0] == SpoolEvent(None, SpoolsFound(10, 27))
    uploaded = [(each.directory, each.event.name) for each in events if isinstance(each.event, Uploaded)]
    assert sorted(uploaded) == [(path, batch.name) for path in spools for batch in spools[path]]


def test_a_killed_worker_loses_nothing(cluster: DaskCluster, tmp_path: Path) -> None:
    doomed = cluster.add_worker()
    spools = many_spools(tmp_path, 30, 3)
    second = {batches[1].batch_id for batches in spools.values()}
    gate = Gate()

    def answer(request: Request) -> Answer:
        return ok(stall_before=gate) if request.batch_id in second else ok()

    def are_stalled(server: ScriptedServer) -> bool:
        return sum(request.batch_id in second for request in server.uploads) >= 12

    async def flush() -> tuple[FlushSpoolsResult, list[str]]:
        running = Flush(tmp_path, scheduler=cluster.address, api_url=server.url)
        await server.arrived(are_stalled)  # each thread waits for the answer to a second batch
        kill(doomed)
        gate.open()
        return await running.end(), texts(running.events)

    with ScriptedServer() as server:
        server.on("POST", "/api/traces", default=answer)
        result, warnings = asyncio.run(flush())
    assert result.exit_code == 0
    check_order(server, spools, resent=8)
    assert len(warnings) == 4
    assert "A worker was lost" in warnings[0]
    # The uploads that the lost worker had told count.
    assert 90 - 8 <= result.uploaded <= 90


def test_a_failing_platform_is_spared_by_all_workers(cluster: DaskCluster, tmp_path: Path) -> None:
    spools = many_spools(tmp_path, 8, 2)
    all_begun, all_told = Gate(), Gate()
    busy = json_answer({"error": "slow down"}, 429, headers=[("Retry-After", "2")], stall_before=all_begun)

    async def flush() -> tuple[FlushSpoolsResult, float, list[float]]:
        times: list[float] = []

        def answer(request: object) -> Answer:
            times.append(time.monotonic())
            return ok()

        server.on("POST", "/api/traces", default=answer)
        running = Flush(tmp_path, scheduler=cluster.address, api_url=server.url)
        await server.arrived(8)
        told = asyncio.create_task(cluster.wait_for_call("hold"))
        await asyncio.sleep(0)
        refused_at = time.monotonic()
        all_begun.open()
        await told  # one thread had the refusal, and all workers know of it
        all_told.open()
        return await running.end(), refused_at, times

    with ScriptedServer(*[ok(stall_before=all_told)] * 7, busy) as server:
        result, refused_at, times = asyncio.run(flush())
    assert result.exit_code == 0
    check_order(server, spools)
    assert min(times) - refused_at >= 2


def test_the_first_attempts_after_a_failure_come_one_by_one(cluster: DaskCluster, tmp_path: Path) -> None:
    many_spools(tmp_path, 8, 1)
    times: list[float] = []
    gates = [Gate() for _ in range(8)]

    def fail(request: object) -> Any:
        times.append(time.monotonic())
        return json_answer({"error": "down"}, 503, stall_before=gates[0])

    async def flush() -> None:
        running = Flush(tmp_path, scheduler=cluster.address, api_url=server.url, verify=False, retries=1)
        await server.arrived(8)
        gates[0].open()
        await server.arrived(11)  # of the second attempts
        running.stop.set()
        result = await running.end()
        assert result.exit_code == 4

    with ScriptedServer() as server:
        server.on("POST", "/api/traces", default=fail)
        asyncio.run(flush())
    assert all(later - earlier > 0.9 for earlier, later in pairwise(times[8:]))


def test_a_stop_ends_what_runs_and_keeps_the_rest(cluster: DaskCluster, tmp_path: Path) -> None:
    spools = many_spools(tmp_path, 30, 3)
    gate = Gate()

    async def flush() -> FlushSpoolsResult:
        running = Flush(tmp_path, scheduler=cluster.address, api_url=server.url)
        await server.arrived(8)
        told = asyncio.create_task(cluster.wait_for_call("stop"))
        await asyncio.sleep(0)
        running.stop.set()
        await told
        gate.open()
        return await running.end()

    with ScriptedServer(*[ok(stall_before=gate)] * 8) as server:
        result = asyncio.run(flush())
    # A thread may have started its next batch just before it heard of the stop.
    assert 8 <= len(server.deliveries) <= 16
    assert (result.exit_code, result.uploaded) == (4, len(server.deliveries))
    assert result.untried == sum(len(snapshot(path)) for path in spools) == 90 - result.uploaded
    assert len(result.spools) == 30


@pytest.mark.parametrize(
    ("answer", "kind", "exit_code", "words"),
    [
        (json_answer({"error": "invalid_token"}, 401), AuthRejectedError, 3, "401"),
        (json_answer({"error": "no route"}, 404), None, 1, "the same for each spool"),
    ],
    ids=["token", "route"],
)
def test_an_answer_that_is_the_same_for_all_ends_all(
    cluster: DaskCluster,
    tmp_path: Path,
    answer: Any,
    kind: type[CirronSpoolError] | None,
    exit_code: int,
    words: str,
) -> None:
    many_spools(tmp_path, 60, 2)
    events: list[SpoolEvent] = []
    with ScriptedServer() as server:
        server.on("POST", "/api/traces", default=answer)
        run = flush_on_dask([tmp_path], scheduler=cluster.address, api_url=server.url, on_event=events.append)
        if kind is None:
            result = asyncio.run(run)
            assert words in "".join(texts(events))
        else:
            with pytest.raises(kind, match=words) as raised:
                asyncio.run(run)
            assert raised.value.spools is not None
            result = raised.value.spools
    assert result.exit_code == exit_code
    assert len(server.uploads) <= 40  # eight threads, and those that began before the news
    assert result.untried + result.failed == 120


def test_a_worker_that_does_not_see_the_spools(cluster: DaskCluster, tmp_path: Path) -> None:
    with ScriptedServer() as server:
        with pytest.raises(ClusterError, match=r"No worker sees .*none"):
            asyncio.run(flush_on_dask([tmp_path / "none"], scheduler=cluster.address, api_url=server.url))
        events: list[SpoolEvent] = []
        result = asyncio.run(
            flush_on_dask(
                directories=[tmp_path / "none"],
                scheduler=cluster.address,
                api_url=server.url,
                on_event=events.append,
            )
        )
    assert result.exit_code == 1
    assert "none does not exist on tcp://127.0.0.1:" in texts(events)[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_worker_with_another_folder_at_the_root_gets_no_spool(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    spools = many_spools(root, 12, 2)
    hidden = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(root))
    with (
        ScriptedServer() as server,
        dask_cluster(tmp_path, config={"token": "access-0"}, workers=1, threads=2) as cluster,
    ):
        cluster.add_worker(threads=2, host="127.0.0.2", prefix=hidden)
        result = asyncio.run(flush_on_dask(root, scheduler=cluster.address, api_url=server.url))
        check_order(server, spools)
    assert (result.exit_code, result.uploaded) == (0, 24)
    assert "see different folders" in result.warnings[0]


@pytest.mark.parametrize(
    ("scheduler", "kind", "words"),
    [
        ("tcp://127.0.0.1:PORT", ClusterError, "No Dask scheduler answers at"),
        ("foo://127.0.0.1:1", ConfigError, "unknown address scheme 'foo'"),
        ("", ConfigError, "An empty text is not a scheduler"),
        ("tls://127.0.0.1:1", ConfigError, "certificates in Dask's configuration"),
    ],
)
def test_a_scheduler_that_cannot_be_used(scheduler: str, kind: type[CirronSpoolError], words: str) -> None:
    with pytest.raises(kind, match=words) as raised:
        asyncio.run(
            flush_on_dask(["/"], scheduler=scheduler.replace("PORT", str(closed_port())), timeout_s=0.5)
        )
    assert "\n" not in str(raised.value)


def test_clusters_that_cannot_help(tmp_path: Path) -> None:
    spools = many_spools(tmp_path, 2, 2)
    gate = Gate()

    async def lose_scheduler() -> None:
        running = Flush(tmp_path, scheduler=bare.address, api_url=server.url, timeout_s=5)
        await server.arrived(2)
        kill(bare.scheduler)
        try:
            await running.end()
        finally:
            gate.open()

    with (
        ScriptedServer(*[ok(stall_before=gate)] * 2) as server,
        dask_cluster(tmp_path, config={"token": "access-0"}, workers=0) as bare,
    ):
        with pytest.raises(ClusterError, match=r"No worker has joined .* dask worker tcp://") as raised:
            asyncio.run(flush_on_dask([tmp_path], scheduler=bare.address, timeout_s=0.5))
        assert raised.value.exit_code == 4
        (tmp_path / "old" / "cirron_spool").mkdir(parents=True)
        (tmp_path / "old" / "cirron_spool" / "__init__.py").write_text("__version__ = '0.0.1'")
        old = bare.add_worker(env={"PYTHONPATH": str(tmp_path / "old")})
        with pytest.raises(
            ClusterError, match=r"1 worker of 1 cannot run this version, such as .* \(0\.0\.1\)"
        ):
            asyncio.run(flush_on_dask([tmp_path], scheduler=bare.address))
        kill(old)
        bare.add_worker()
        with pytest.raises(ClusterError, match="0 of 2 spools are done") as raised:
            asyncio.run(lose_scheduler())
        assert raised.value.spools is not None
        assert raised.value.spools.untried == 4
    # The worker may have been acknowledged a batch of each, and may have deleted it. None is lost.
    left = {batch.batch_id for path in spools for batch in snapshot(path)}
    assert left | set(server.delivered) == {batch.batch_id for path in spools for batch in spools[path]}
