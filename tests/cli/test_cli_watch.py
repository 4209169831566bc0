"""``flush --watch`` as a process: beside a run, under signals, through an outage and a new login."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.answers import Answer, Gate, ok
from support.cli import Running, spawn, spawn_cli, write_config
from support.fork_server import run_cli
from support.scripted import ScriptedServer
from support.spools import TINY, profiled_run, sdk_batches, snapshot, write_batch

TOKEN = "sk-watching"
STARTED = "Watching the spool."
RUN = "from cirron_spool.cli.main import cirron_spool; sys.exit(cirron_spool())\n"


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / ".cirron" / "spool"


def watch(server: ScriptedServer, home: Path, *args: str, token: str = TOKEN) -> Running:
    write_config(home, apiUrl=server.url, token=token)
    return spawn_cli("flush", "--watch", *args, home=home, cwd=home)


def ids(server: ScriptedServer) -> list[str]:
    return [batch_id for batch_id, _ in server.deliveries]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_is_followed_until_a_signal(
    tmp_path: Path, spool: Path, number: signal.Signals, code: int
) -> None:
    with ScriptedServer() as server:
        with watch(server, tmp_path) as running:
            running.wait_for_text(STARTED, "stderr")
            profiled_run(spool.parent, batches=3, followed=True)
            server.wait_for(lambda server: len(server.deliveries) >= 3)
            running.send_signal(number)
            done = running.finish()
        assert server.connections == 1
        sent = ids(server)
    assert len(sent) == len(set(sent))
    assert snapshot(spool) == []
    assert (done.returncode, done.stdout) == (code, f"Uploaded: {len(sent)}  Failed: 0  Skipped: 0\n")
    assert "Stopping: waiting up to 10 s for the sealed batches." in done.stderr


def test_a_signal_drains_what_is_sealed_for_longer_than_a_flush_has(tmp_path: Path, spool: Path) -> None:
    sdk_batches(spool, 3, spans=TINY)
    gate = Gate()
    sooner = "from cirron_spool.cli import signals; signals._STOPPED_WITHIN_S = 0.0"
    with ScriptedServer(ok(stall_before=gate)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        argv = [sys.executable, "-c", f"import sys\n{sooner}\n{RUN}", "flush", "--watch", "--grace", "60s"]
        with spawn(argv, home=tmp_path, cwd=tmp_path) as running:
            server.wait_for(1)
            running.send_signal(signal.SIGTERM)
            running.wait_for_text("Stopping: waiting up to 60 s", "stderr")
            write_batch(spool, 2**62, "e1")
            gate.open()
            done = running.finish()
        assert ids(server)[-1] == "e1"
    assert (done.returncode, done.stdout) == (143, "Uploaded: 4  Failed: 0  Skipped: 0\n")


def test_a_second_signal_ends_at_once(tmp_path: Path, spool: Path) -> None:
    sealed = sdk_batches(spool, 3, spans=TINY)
    with ScriptedServer(ok(), ok(stall_before=True)) as server:
        with watch(server, tmp_path, "--grace", "1h") as running:
            server.wait_for(2)
            running.send_signal(signal.SIGTERM)
            running.wait_for_text("Stopping", "stderr")
            running.send_signal(signal.SIGINT)
            done = running.finish()
    assert done.returncode == 143
    assert done.stdout == "Uploaded: 1  Failed: 0  Skipped: 2\n"
    assert snapshot(spool) == sealed[1:]


def test_the_grace_ends(tmp_path: Path, spool: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer(ok(stall_before=True)) as server:
        with watch(server, tmp_path, "--grace", "0") as running:
            server.wait_for(1)
            running.send_signal(signal.SIGTERM)
            done = running.finish()
    assert (done.returncode, len(snapshot(spool))) == (143, 2)


@pytest.mark.thorough
def test_kill_9_loses_nothing_and_resends_two_at_most(tmp_path: Path, spool: Path) -> None:
    writer = (
        "import sys; from pathlib import Path; from support.spools import TINY, sdk_batches\n"
        "for seed in range(10): sdk_batches(Path(sys.argv[1]), 20, spans=TINY, seed=seed,"
        " first_ns=10**18 + seed * 10**12)\n"
    )
    tests = str(Path(__file__).parent.parent)
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        with spawn(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r})\n{writer}", str(spool)]
        ) as run:
            for kill in range(3):
                with watch(server, tmp_path) as running:
                    server.wait_for(40 * (kill + 1))
                    running.send_signal(signal.SIGKILL)
                    assert running.finish().returncode == -signal.SIGKILL
            assert run.finish().returncode == 0
        with watch(server, tmp_path, "--idle-exit", "1ms") as running:
            assert running.finish().returncode == 0
        sent = ids(server)
    assert len(set(sent)) == 200
    assert len(sent) <= 200 + 3 * 2
    assert snapshot(spool) == []


@pytest.mark.thorough
def test_json_events_of_a_life_with_an_outage(tmp_path: Path, spool: Path) -> None:
    write_batch(spool, 1, "a1")
    with ScriptedServer(Answer(503), Answer(503)) as server:
        with watch(server, tmp_path, "--json-events", "--retries", "0") as running:
            running.wait_for_text('"uploaded"')
            write_batch(spool, 2, "a2")
            server.wait_for(lambda server: len(server.deliveries) == 2)
            running.send_signal(signal.SIGTERM)
            done = running.finish()
    events = [json.loads(line) for line in done.lines]
    kinds = [event["event"] for event in events if event["event"] != "warning"]
    assert kinds == ["start", "waiting", "resumed", "uploaded", "found", "uploaded", "end"]
    assert (events[1]["cause"], events[2]["cause"]) == ("outage", "outage")
    assert (events[-1]["uploaded"], events[-1]["exitCode"]) == (2, 143)
    assert done.stderr.count("Waiting for the platform") == 1
    assert done.stderr.count("The platform answers, after") == 1


def test_a_new_login_is_used_without_a_restart(tmp_path: Path, spool: Path) -> None:
    write_batch(spool, 1, "a1")
    with ScriptedServer(check_auth=True, access_token="sk-new") as server:
        with watch(server, tmp_path, "--json") as running:
            running.wait_for_text("Waiting for a new login", "stderr")
            write_config(tmp_path, apiUrl=server.url, token="sk-new")
            server.wait_for(lambda server: len(server.deliveries) == 1)
            running.send_signal(signal.SIGTERM)
            done = running.finish()
    document = done.json()
    assert isinstance(document, dict) and (document["uploaded"], document["exitCode"]) == (1, 143)
    assert done.stderr.count("Waiting for a new login") == 1
    assert TOKEN not in done.stdout + done.stderr


def test_a_signal_while_it_waits_for_a_login(tmp_path: Path, spool: Path) -> None:
    write_batch(spool, 1, "a1")
    with ScriptedServer(check_auth=True, access_token="sk-new") as server:
        with watch(server, tmp_path, "--grace", "1h") as running:
            running.wait_for_text("Waiting for a new login", "stderr")
            running.send_signal(signal.SIGTERM)
            done = running.finish()
    assert done.returncode == 143
    assert len(snapshot(spool)) == 1
    assert "Traceback" not in done.stderr


def test_it_ends_with_a_process_or_when_idle(tmp_path: Path, spool: Path) -> None:
    with ScriptedServer() as server:
        run = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        with watch(server, tmp_path, "--until-pid", str(run.pid)) as running:
            running.wait_for_text(STARTED, "stderr")
            sdk_batches(spool, 2, spans=TINY)
            run.communicate(b"\n")
            done = running.finish()
        assert (done.returncode, done.stdout) == (0, "Uploaded: 2  Failed: 0  Skipped: 0\n")
        with watch(server, tmp_path, "--idle-exit", "10ms", "-q") as running:
            done = running.finish()
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_poison_ends_the_watch_with_exit_code_1(tmp_path: Path, spool: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer(Answer(422)) as server:
        with watch(server, tmp_path) as running:
            done = running.finish()
    assert (done.returncode, done.stdout) == (1, "Uploaded: 0  Failed: 1  Skipped: 1\n")


def test_another_flush_is_told_that_the_spool_is_busy(tmp_path: Path, spool: Path) -> None:
    write_batch(spool, 1, "a1")
    with ScriptedServer(ok(stall_before=True)) as server:
        with watch(server, tmp_path) as running:
            server.wait_for(1)
            done = run_cli("flush", home=tmp_path, cwd=tmp_path)
            running.send_signal(signal.SIGKILL)
            running.finish()
    assert done.returncode == 4
    assert "Another cirron-spool is working on" in done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--idle-exit", "5m"], "--idle-exit is for a watch."),
        (["--until-pid", "1"], "--until-pid is for a watch."),
        (["--grace", "5s"], "--grace is for a watch."),
        (["--watch", "--dry-run"], "--watch and --dry-run exclude each other."),
        (["--watch", "--keep-going"], "--watch and --keep-going exclude each other."),
        (["--watch", "--limit", "3"], "--watch and --limit exclude each other."),
        (["--watch", "--max-bytes", "3M"], "--watch and --max-bytes exclude each other."),
        (["--watch", "--until-pid", "0"], "--until-pid"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path: Path, args: list[str], said: str) -> None:
    done = run_cli("flush", *args, home=tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
