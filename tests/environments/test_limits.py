"""Few tasks: in a control group as containers have it, and by a user's own limit."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support.cli import command_line, spawn, write_config
from support.environments import installation, pids_cgroup, python_for_everybody
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot
from support.users import needs_root, shared_folder

TOKEN = "sk-limits"


@pytest.mark.parametrize("form", [[], ["--json-events"], ["--verbose"]], ids=["plain", "events", "verbose"])
def test_from_one_task_to_enough_every_flush_delivers_or_is_for_later(
    tmp_path: Path, form: list[str]
) -> None:
    spool = tmp_path / ".cirron/spool"
    sdk_batches(spool, 1, spans=TINY)
    # Large enough for the second thread that compresses.
    written = sdk_batches(spool, 1, spans=6000, seed=1, first_ns=1_800_000_000_000_000_000)
    codes = []
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        for limit in range(1, 11, 3 if form else 1):
            with pids_cgroup(limit) as limited:
                argv = [*limited, *command_line(["flush", *form])]
                with spawn(argv, home=tmp_path, cwd=tmp_path) as running:
                    done = running.finish()
            codes.append(done.returncode)
            assert "Traceback" not in done.stderr
            if done.returncode == 0:
                break
            assert done.returncode == 4, done
            assert done.stderr.count("Error: ") == 1, done
            if not form:
                assert re.fullmatch(r"Uploaded: [01]  Failed: 0  Skipped: [12]\n", done.stdout), done
        assert server.delivered == {batch.batch_id: batch.data for batch in written}
    assert (codes[0], codes[-1]) == (4, 0)
    assert snapshot(spool) == []


def test_a_receiver_with_few_threads_receives(tmp_path: Path) -> None:
    written = sdk_batches(tmp_path / ".cirron/spool", 5, spans=(10, 100))
    with pids_cgroup(5) as limited:
        argv = [*limited, *command_line(["receive", "--store", "store", "--port", "0"])]
        with spawn(argv, home=tmp_path, cwd=tmp_path) as receiver:
            said = receiver.wait_for_text("storing in")
            url = said.removeprefix("Receiving on ").partition(",")[0]
            env = {"CIRRON_API_KEY": TOKEN, "CIRRON_API_ENDPOINT": url}
            argv = command_line(["flush", "--in-flight", "5"])
            with spawn(argv, home=tmp_path, cwd=tmp_path, env=env) as running:
                done = running.finish()
            receiver.process.terminate()
            assert receiver.finish().returncode == 0
    assert (done.returncode, done.stdout) == (0, "Uploaded: 5  Failed: 0  Skipped: 0\n"), done.stderr
    assert snapshot(tmp_path / "store") == written


@needs_root
def test_a_users_limit_of_processes() -> None:
    """``ulimit -u``, which does not hold for root."""
    with shared_folder() as place, installation(python_for_everybody()) as installed:
        spool = place / ".cirron/spool"
        written = sdk_batches(spool, 2, spans=TINY)
        for path in [place / ".cirron", *(place / ".cirron").rglob("*")]:
            path.chmod(0o777)
        with ScriptedServer() as server:
            env = installed.environment({"CIRRON_API_KEY": TOKEN, "CIRRON_API_ENDPOINT": server.url})
            codes = []
            for limit in range(1, 8):
                done = subprocess.run(
                    ["bash", "-c", f'ulimit -u {limit}; exec "$@"', "bash", *installed.command("flush")],
                    cwd=place,
                    env=env,
                    capture_output=True,
                    text=True,
                    check=False,
                    user=54321,
                    group=54321,
                    extra_groups=[],
                )
                codes.append(done.returncode)
                assert "Traceback" not in done.stderr
                if done.returncode == 0:
                    break
                assert (done.returncode, done.stdout) == (4, "Uploaded: 0  Failed: 0  Skipped: 2\n"), done
            assert list(server.delivered) == [batch.batch_id for batch in written]
        assert (codes[0], codes[-1]) == (4, 0)
