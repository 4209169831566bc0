"""``deadline``: a flush sends what fits, ends in time, and says what is left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from cirron_spool import ConfigError, flush_spool
from cirron_spool.pipeline.deadline import Deadline
from support.answers import Answer, Gate, json_answer
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot

pytestmark = pytest.mark.anyio

NEAR = "The deadline is near: no further batch is started."
SOON = timedelta(milliseconds=600)


@pytest.mark.parametrize("aware", [False, True])
async def test_a_flush_that_cannot_end_in_time_stops_and_keeps_the_rest(spool: Path, aware: bool) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    with ScriptedServer(Answer(), Answer(hang=True)) as server:
        end = datetime.now(UTC) + SOON if aware else SOON
        result = await flush_spool(spool, api_url=server.url, token="t", deadline=end)
    assert (result.uploaded, result.failed, result.skipped, result.exit_code) == (1, 0, 2, 4)
    assert result.untried == 2
    assert NEAR in result.warnings
    assert snapshot(spool) == batches[1:]


async def test_a_flush_that_ends_before_its_deadline_is_as_any_other(spool: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer() as server:
        result = await flush_spool(spool, api_url=server.url, token="t", deadline=timedelta(hours=1))
    assert (result.uploaded, result.exit_code, result.warnings) == (2, 0, ())


@pytest.mark.thorough
async def test_the_batch_in_flight_has_the_time_that_is_left(spool: Path) -> None:
    """The last answer comes when the stop has started: the batch arrives, and nothing is left."""
    sdk_batches(spool, 1, spans=TINY)
    gate = Gate()
    with ScriptedServer(Answer(stall_before=gate)) as server:
        warned = anyio.Event()

        def listen(event: object) -> None:
            if NEAR in str(event):
                gate.open()
                warned.set()

        result = await flush_spool(
            spool, api_url=server.url, token="t", deadline=timedelta(seconds=3), on_event=listen
        )
    assert warned.is_set()
    assert (result.uploaded, result.skipped, result.exit_code) == (1, 0, 0)


async def test_a_sign_in_that_hangs_ends_in_time(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer() as server:
        server.on("GET", "/api/cli/status", Answer(hang=True))
        result = await flush_spool(spool, api_url=server.url, token="t", deadline=SOON)
        assert not server.uploads
    assert (result.uploaded, result.untried, result.exit_code) == (0, 2, 4)
    assert snapshot(spool) == batches


@pytest.mark.parametrize("end", [timedelta(0), timedelta(seconds=-5), datetime(2020, 1, 1, tzinfo=UTC)])
async def test_a_deadline_that_has_passed_sends_nothing_or_little(
    spool: Path, end: timedelta | datetime
) -> None:
    sdk_batches(spool, 40, spans=TINY)
    with ScriptedServer() as server:
        server.on("GET", "/api/cli/status", Answer(hang=True))
        result = await flush_spool(spool, api_url=server.url, token="t", deadline=end)
    assert (result.uploaded, result.untried, result.exit_code) == (0, 40, 4)


async def test_another_signal_stops_the_flush_before_its_deadline(spool: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    stop = anyio.Event()
    stop.set()
    with ScriptedServer() as server:
        server.on("GET", "/api/cli/status", default=json_answer({"valid": True}))
        result = await flush_spool(
            spool, api_url=server.url, token="t", deadline=timedelta(hours=1), stop=stop
        )
    assert NEAR not in result.warnings


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (90, "deadline must be a timedelta or a datetime, not int."),
        ("90s", "deadline must be a timedelta or a datetime, not str."),
        (datetime(2026, 1, 1), "deadline must have a time zone, such as tzinfo=UTC."),  # noqa: DTZ001
    ],
)
async def test_an_end_of_another_type_is_refused(spool: Path, end: object, said: str) -> None:
    with pytest.raises(ConfigError, match="^" + said):
        await flush_spool(spool, deadline=end)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("left_s", "grace_s"), [(3600.0, 4.0), (9.0, 4.0), (5.0, 2.0), (1.0, 0.0), (0.0, 0.0), (-1.0, 0.0)]
)
def test_the_last_batch_has_half_of_a_short_time(left_s: float, grace_s: float) -> None:
    assert Deadline(timedelta(seconds=left_s), None).grace_s == pytest.approx(grace_s)
