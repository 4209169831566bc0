"""``flush --bandwidth`` and ``--nice``: limits on the resources of a flush."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from shutil import which
from subprocess import check_output

import pytest

from support.answers import Gate, ok
from support.cli import spawn_cli
from support.fork_server import run_cli
from support.scripted import ScriptedServer
from support.spools import TINY, random_batch, sdk_batches, snapshot

TOKEN = "sk-limits-secret"


@pytest.mark.parametrize("text", ["0", "-1", "", "2 Mbit", "2Mb", "x", "1.5", "inf", "1e6", "0.1K/h"])
def test_another_bandwidth_is_one_line(spool: Path, text: str) -> None:
    done = run_cli("flush", "--dir", spool, f"--bandwidth={text}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("Error: --bandwidth needs a size of 1 or more, with a unit (K, M or G;")


def test_a_flush_takes_the_time_of_its_bandwidth(spool: Path) -> None:
    batch = random_batch(spool, 60_000)
    with ScriptedServer() as platform:
        env = {"CIRRON_API_ENDPOINT": platform.url, "CIRRON_API_KEY": TOKEN}
        done = run_cli("flush", "--dir", spool, "--bandwidth", "50K/s", "--json", env=env)
        assert platform.deliveries[0][1] == batch
    result = done.json()
    assert isinstance(result, dict)
    assert (done.returncode, result["uploaded"]) == (0, 1)
    assert result["seconds"] >= result["bytesSent"] / 51200 - 0.3  # the bucket, and the last piece
    assert snapshot(spool) == []


@pytest.mark.skipif(sys.platform != "linux" or which("ionice") is None, reason="asks Linux's ionice")
def test_nice_is_the_lowest_priority_of_all_threads_that_work(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    gate = Gate()
    with ScriptedServer(ok(stall_before=gate)) as platform:
        env = {"CIRRON_API_ENDPOINT": platform.url, "CIRRON_API_KEY": TOKEN}
        with spawn_cli("flush", "--dir", spool, "--nice", env=env) as run:
            platform.wait_for(1)
            # The nice value and the scheduling policy, of which 5 is SCHED_IDLE: man proc_pid_stat.
            stats = [
                (task / "stat").read_text().rpartition(")")[2].split()
                for task in Path(f"/proc/{run.pid}/task").iterdir()
            ]
            priorities = [(stat[19 - 3], stat[41 - 3]) for stat in stats]
            disk = check_output(["ionice", "-p", str(run.pid)], text=True)
            gate.open()
            done = run.finish()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(priorities) > 2
    # Only the thread that waits for signals began earlier.
    assert [each for each in priorities if each != ("19", "5")] == [(str(os.nice(0)), "0")]
    assert disk == "idle\n"


def test_nice_says_what_the_system_lacks(spool: Path) -> None:
    spool.mkdir()
    done = run_cli("flush", "--dir", spool, "--nice", env={"PATH": "", "CIRRON_API_KEY": TOKEN})
    assert done.returncode == 0
    assert done.stderr == "Warning: The disk priority stays: there is no ionice on PATH.\n"
