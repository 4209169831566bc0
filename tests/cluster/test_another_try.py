"""Which report on a spool calls for another task, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed")

from cirron_spool.cluster import dask_run
from cirron_spool.cluster.dask_client import Workers
from cirron_spool.cluster.dask_run import DaskRun
from cirron_spool.cluster.dask_spool import DaskSpool
from cirron_spool.cluster.task import SpoolReport, SpoolTask
from cirron_spool.errors import AuthInvalidError, CirronSpoolError, ClusterError, SpoolBusyError
from cirron_spool.events import FlushResult
from cirron_spool.spool.discovery import FoundSpool

SPOOL = Path("/runs/1")
BOTH = Workers(("tcp://10.0.0.1:1", "tcp://10.0.0.2:2"), (), 8)
SOME = Workers(("tcp://10.0.0.1:1", "tcp://10.0.0.2:2"), ("tcp://10.0.0.3:3",), 8)


def report(error: CirronSpoolError | None = None, **result: Any) -> SpoolReport:
    return SpoolReport(str(SPOOL), FlushResult(SPOOL, **result), error, "tcp://10.0.0.1:1")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("workers", "last", "attempts", "tries", "expected"),
    [
        (BOTH, report(uploaded=3), 1, 0, None),
        (BOTH, report(AuthInvalidError()), 1, 0, None),
        (BOTH, report(ClusterError("lost")), 1, 0, []),
        (SOME, report(ClusterError("lost")), 1, 0, ["10.0.0.1", "10.0.0.2"]),
        (BOTH, report(ClusterError("lost")), 4, 3, None),
        (BOTH, report(exists=False), 1, 0, ["10.0.0.2"]),
        (Workers(("tcp://10.0.0.1:1",), (), 4), report(exists=False), 1, 0, None),
        # Another flush holds it; or, after an attempt that was lost, that attempt does.
        (BOTH, report(SpoolBusyError("busy")), 1, 0, None),
        (BOTH, report(SpoolBusyError("busy")), 2, 0, []),
        (BOTH, report(SpoolBusyError("busy")), 12, 10, []),
        (BOTH, report(SpoolBusyError("busy")), 99, 97, None),
        (BOTH, None, 1, 0, None),
    ],
)
async def test_another_try(
    monkeypatch: pytest.MonkeyPatch,
    workers: Workers,
    last: SpoolReport | None,
    attempts: int,
    tries: int,
    expected: list[str] | None,
) -> None:
    monkeypatch.setattr(dask_run, "_BUSY_S", 0.0)
    client: Any = None
    run = DaskRun(client, workers, SpoolTask(""), [], lambda _: None, timeout_s=1)
    spool = DaskSpool(FoundSpool(SPOOL, 3, 1), tries=tries, report=last)
    for number in range(attempts):
        spool.begin(str(number))
    assert await run._hosts_for_another_try(spool) == expected
