"""One spool as a task: what travels, what it shows, and what comes back."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from cirron_spool.cluster.event_messages import pack, unpack
from cirron_spool.cluster.secret import Secret
from cirron_spool.cluster.task import SpoolReport, SpoolTask, flush_one
from cirron_spool.errors import ConfigError, NotAuthenticatedError
from cirron_spool.events import (
    Ended,
    Failed,
    FlushEvent,
    FlushResult,
    Progress,
    Quarantined,
    SnapshotsStarted,
    Started,
    Uploaded,
)
from support.cli import write_config
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot

TOKEN = "sk-live-0123456789abcdef"


def over_there(task: SpoolTask) -> SpoolReport:
    """What an engine does: the task and its report travel as pickles."""
    report: SpoolReport = pickle.loads(pickle.dumps(flush_one(pickle.loads(pickle.dumps(task)))))
    return report


def test_a_task_travels_and_delivers(spool: Path) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    with ScriptedServer(check_auth=True, access_token=TOKEN) as server:
        report = over_there(SpoolTask(str(spool), Secret(TOKEN), {"api_url": server.url}))
    assert (report.result.uploaded, report.exit_code, report.message) == (3, 0, "")
    assert server.deliveries == [(batch.batch_id, batch.data) for batch in batches]
    assert snapshot(spool) == []


def test_without_a_token_the_machine_of_the_task_uses_its_own(spool: Path, tmp_path: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer(check_auth=True) as server:
        config = write_config(tmp_path, apiUrl=server.url, token="access-0")
        assert over_there(SpoolTask(str(spool), options={"config_path": str(config)})).exit_code == 0


def test_under_a_running_event_loop(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)

    async def actor() -> SpoolReport:  # of Ray, whose methods run in an event loop
        return flush_one(SpoolTask(str(spool), Secret("access-0"), {"api_url": server.url}))

    with ScriptedServer() as server:
        assert asyncio.run(actor()).result.uploaded == 1


def test_an_error_is_in_the_report(spool: Path, tmp_path: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    report = over_there(SpoolTask(str(spool), options={"config_path": str(tmp_path / "none.json")}))
    assert isinstance(report.error, NotAuthenticatedError)
    assert (report.exit_code, report.result.untried) == (3, 2)
    assert len(snapshot(spool)) == 2


def test_a_spool_that_is_not_there_is_missing(tmp_path: Path) -> None:
    report = flush_one(SpoolTask(str(tmp_path / "none"), Secret(TOKEN)))
    assert report.is_missing
    assert report.exit_code == 1
    assert "none does not exist on" in report.message


@pytest.mark.parametrize("show", [repr, str, "{}".format, lambda value: f"{value!r:>90}"])
def test_nothing_shows_the_token_of_a_task(show: Callable[[object], str]) -> None:
    task = SpoolTask("/runs/1", Secret(TOKEN))
    for value in (task, task.token, [task], {"task": task}):
        assert TOKEN not in show(value)
        assert TOKEN[:-4] not in show(value)
    assert pickle.loads(pickle.dumps(task)) == task


@pytest.mark.parametrize(
    ("option", "words"), [("token", "Secret"), ("client", "one process"), ("on_event", "one process")]
)
def test_an_option_that_cannot_travel(option: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SpoolTask("/runs/1", options={option: TOKEN})


@pytest.mark.parametrize(
    "event",
    [
        Started(Path("/a"), 1, 2, 3),
        Uploaded("1-a.json", 5, 4),
        Failed("1-a.json", None, "why", "what to do", is_common=True),
        Quarantined("1-a.json", 400, "why", Path("/q")),
        SnapshotsStarted(Path("/s"), 1, 2),
    ],
)
def test_an_event_travels_as_plain_values(event: FlushEvent) -> None:
    packed = pack(event)
    assert packed is not None
    assert {type(value) for value in packed} <= {str, int, bool, type(None)}
    assert unpack(packed) == event


def test_events_that_stay() -> None:
    assert pack(Progress("1-a.json", 1, 2)) is None
    assert pack(Ended(FlushResult(Path("/a")))) is None
