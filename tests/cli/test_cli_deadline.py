"""``flush --deadline``: the forms of a time, and the ending."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cirron_spool.cli.arguments.values import End
from support.answers import Answer
from support.fork_server import run_cli
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches


@pytest.mark.thorough
def test_a_flush_with_a_deadline_says_what_is_left(spool: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer(Answer(hang=True)) as platform:
        env = {"CIRRON_API_ENDPOINT": platform.url, "CIRRON_API_KEY": "sk-try-it"}
        done = run_cli("flush", "--dir", spool, "--deadline", "1500ms", env=env)
    assert (done.returncode, done.stdout) == (4, "Uploaded: 0  Failed: 0  Skipped: 2\n")
    assert done.stderr == (
        "Warning: The deadline is near: no further batch is started.\n"
        "Warning: Stopping flush; 2 batches left in spool.\n"
    )


def test_a_time_from_now() -> None:
    read = End()
    assert read("90s") == timedelta(seconds=90)
    assert read("1.5h") == timedelta(minutes=90)


@pytest.mark.parametrize("text", ["04:30", "4:30", "23:59:59", "00:00"])
def test_a_time_of_day_is_the_next_one(text: str) -> None:
    end = End()(text)
    assert isinstance(end, datetime)
    now = datetime.now(UTC)
    assert now - timedelta(minutes=1) < end <= now + timedelta(days=1, hours=2)  # a day can have 25 hours
    assert f"{end:%H:%M:%S}".startswith(text.zfill(5)[:5])


def test_a_date_and_time() -> None:
    assert End()("2026-04-18T04:30Z") == datetime(2026, 4, 18, 4, 30, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "90", "x", "25:00", "4:3", "12:60", "-5s", "2026-13-01", "0s"])
def test_another_text_is_one_line(text: str) -> None:
    done = run_cli("flush", f"--deadline={text}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(
        "Error: --deadline needs a time from now, such as 90s or 2h, or a time of day"
    )
