"""Two real processes on one spool whose lock calls succeed for both, as on two nodes of some network file systems."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from cirron_spool.spool.lease import LEASE_S, RECORD_NAME
from support.answers import Gate, ok
from support.cli import CliResult, Running, clean_environment, command_line, spawn
from support.scripted import ScriptedServer
from support.spools import TINY, Sealed, sdk_batches, snapshot

# Python runs this at its start. Locks between nodes cannot be had here, and nobody waits for the end of a lease.
_SITE = """
import fcntl, os, time

fcntl.flock = lambda fd, operation: None
_real = time.clock_gettime
time.clock_gettime = lambda clock: _real(clock) + os.path.getsize(os.environ["SECONDS_GONE"])
"""


class Nodes:
    """Runs commands as on nodes whose locks exclude nobody. ``gone`` holds one byte for each second that has passed."""

    def __init__(self, folder: Path, server: ScriptedServer, spool: Path) -> None:
        lies = folder / "lies"
        lies.mkdir()
        (lies / "sitecustomize.py").write_text(_SITE)
        self.gone = folder / "gone"
        self.gone.touch()
        self.spool = spool
        path = clean_environment(folder).get("PYTHONPATH", "")
        self._env = {
            "CIRRON_API_KEY": "sk-test",
            "CIRRON_API_ENDPOINT": server.url,
            "PYTHONPATH": f"{lies}{os.pathsep}{path}",
            "SECONDS_GONE": str(self.gone),
        }

    def start(self, command: str, *options: str) -> Running:
        verify = ["--no-verify"] if command == "flush" else []
        return spawn(command_line([command, "--dir", self.spool, *verify, *options]), env=self._env)

    def run(self, command: str, *options: str) -> CliResult:
        with self.start(command, *options) as running:
            return running.finish()

    def pass_by(self, seconds: float) -> None:
        """Let time pass, for the processes and for the record."""
        self.gone.write_bytes(b"." * round(seconds))
        path = self.spool / RECORD_NAME
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - round(seconds * 1e9)))


@pytest.fixture
def batches(spool: Path) -> list[Sealed]:
    return sdk_batches(spool, 3, spans=TINY)


def _bodies(server: ScriptedServer) -> list[bytes]:
    return [body for _, body in server.deliveries]


def test_the_second_is_refused_and_told_whom_to_wait_for(
    tmp_path: Path, spool: Path, batches: list[Sealed]
) -> None:
    answer = Gate()
    with ScriptedServer(ok(stall_before=answer)) as server:
        nodes = Nodes(tmp_path, server, spool)
        with nodes.start("flush") as first:
            server.wait_for(1)
            there = sorted(os.listdir(spool))
            for refused in (nodes.run("flush"), nodes.run("clear", "--force")):
                assert refused.returncode == 4
                line = refused.stderr.splitlines()[0]
                assert f"Another cirron-spool is working on {spool}. It is process {first.pid} on " in line
            assert nodes.run("inspect").returncode == nodes.run("flush", "--dry-run").returncode == 0
            assert "Locked: " in nodes.run("status").stdout
            assert sorted(os.listdir(spool)) == there
            answer.open()
            assert first.finish().returncode == 0
    assert _bodies(server) == [batch.data for batch in batches]
    assert os.listdir(spool) == []


@pytest.mark.thorough
def test_a_killed_owner_is_followed_at_once_on_its_machine_and_later_on_another(
    tmp_path: Path, spool: Path, batches: list[Sealed]
) -> None:
    with ScriptedServer(*[ok(stall_before=Gate()) for _ in range(2)]) as server:
        nodes = Nodes(tmp_path, server, spool)
        for killed in range(2):
            with nodes.start("flush") as first:
                server.wait_for(killed + 1)
                first.send_signal(signal.SIGKILL)
        path = spool / RECORD_NAME
        fields = json.loads(path.read_bytes())
        path.write_text(json.dumps({**fields, "host": "node2", "boot": "another"}))
        refused = nodes.run("flush")
        assert refused.returncode == 4
        assert " on node2, since " in refused.stderr and "or 1 minute if it was killed" in refused.stderr
        assert len(server.uploads) == 2
        nodes.pass_by(LEASE_S + 1)
        done = nodes.run("flush")
    assert (done.returncode, done.stderr) == (0, "")
    assert _bodies(server) == [batch.data for batch in batches]
    assert os.listdir(spool) == []


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("is_followed", "is_reset"), [(True, False), (True, True), (False, False)], ids=["", "reset", "alone"]
)
def test_an_owner_that_was_suspended_asks_before_it_goes_on(
    tmp_path: Path, spool: Path, batches: list[Sealed], is_followed: bool, is_reset: bool
) -> None:
    """Also before it sends the batch again on another connection: the kept one rarely outlives a suspension."""
    answer = Gate()
    with ScriptedServer(
        ok(), ok(stall_before=answer, reset=is_reset, cut_after=0 if is_reset else None)
    ) as server:
        nodes = Nodes(tmp_path, server, spool)
        with nodes.start("flush") as first:
            server.wait_for(2)
            first.send_signal(signal.SIGSTOP)
            nodes.pass_by(LEASE_S + 1)
            left: list[Sealed] = []
            if is_followed:
                second = nodes.run("flush")
                assert (second.returncode, snapshot(spool)) == (0, [])
                # The SDK goes on; this batch must wait for the next flush.
                left = sdk_batches(spool, 1, spans=TINY, seed=1)
            answer.open()
            first.send_signal(signal.SIGCONT)
            ended = first.finish()
    again = [batches[1].data] if is_followed else []  # in flight at the suspension: the same id twice
    assert len(server.uploads) == len(batches) + len(again)
    acknowledged = [batch.data for batch in batches] + (again if not is_reset else [])
    assert sorted(_bodies(server)) == sorted(acknowledged)
    if is_followed:
        assert ended.returncode == 4
        assert snapshot(spool) == left
        [line] = [line for line in ended.stderr.splitlines() if line.startswith("Error: ")]
        assert f"{spool} was taken over by " in line
    else:
        assert (ended.returncode, ended.stderr, os.listdir(spool)) == (0, "", [])
