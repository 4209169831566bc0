"""``--discover`` and several ``--dir``: each command on many spools."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import Ended, FlushResult, Sending, SpoolsFound, Started, Uploaded
from cirron_spool.display.meter import Meter
from support.answers import Answer, Gate, ok
from support.cli import CliResult, spawn_cli, write_config
from support.fork_server import run_cli
from support.scripted import Request, ScriptedServer
from support.spools import snapshot, write_batch

TOKEN = "sk-many"


def fill(root: Path, name: str, count: int = 2) -> Path:
    spool = root / name / ".cirron" / "spool"
    spool.mkdir(parents=True)
    for index in range(count):
        write_batch(spool, 10 + index, f"{name}{index}")
    return spool


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Spools a, b and c, an empty one, and a link to one."""
    root = tmp_path / "runs"
    for name in "abc":
        fill(root, name)
    fill(root, "empty", 0)
    (root / "link" / ".cirron").mkdir(parents=True)
    (root / "link" / ".cirron" / "spool").symlink_to(root / "a" / ".cirron" / "spool")
    return root


def flush(server: ScriptedServer, home: Path, *args: str | Path) -> CliResult:
    write_config(home, apiUrl=server.url, token=TOKEN)
    return run_cli("flush", *args, home=home, cwd=home)


def poisoned(request: Request) -> Answer:
    return Answer(422, "no such run") if request.batch_id == "b0" else ok()


def test_a_flush_says_which_spool_needs_a_look(tmp_path: Path, root: Path) -> None:
    broken = root / "b" / ".cirron" / "spool"
    with ScriptedServer() as server:
        server.on("POST", "/api/traces", default=poisoned)
        plan = flush(server, tmp_path, "--discover", root, "--dry-run")
        assert server.uploads == []
        done = flush(server, tmp_path, "--discover", root, "--spools", "2")
        again = flush(server, tmp_path, "--discover", root, "--json")
    assert plan.returncode == 0
    assert "Dry run: 6 files (72 B) in 3 spools would be sent to" in plan.stdout
    first, *rest = done.lines
    assert done.returncode == 1
    assert first.startswith(f"{broken}: Uploaded: 0  Failed: 1  Skipped: 1  Rejected ")
    assert rest == ["Uploaded: 4  Failed: 1  Skipped: 1  Spools: 4"]
    assert f"Error: {broken}: Rejected" in done.stderr
    assert f"Warning: Skipped {root}/link/.cirron/spool: a symbolic link." in done.stderr
    document = json.loads(again.stdout)
    assert again.returncode == document["exitCode"] == 1
    assert {Path(each["dir"]).parts[-3]: each["exitCode"] for each in document["spools"]} == {
        "a": 0, "b": 1, "c": 0, "empty": 0,
    }  # fmt: skip
    assert (document["uploaded"], document["failed"], document["error"]["type"]) == (0, 1, "BatchesLeft")
    assert [each["status"] for each in document["spools"][1]["failures"]] == [422]


def test_each_event_names_its_spool(tmp_path: Path, root: Path) -> None:
    directories = [root / name / ".cirron" / "spool" for name in "ab"]
    dirs = [word for directory in directories for word in ("--dir", str(directory))]
    with ScriptedServer() as server:
        done = flush(server, tmp_path, *dirs, "--json-events", "--log-file", "flush.log", "--quarantine")
    events: list[dict[str, Any]] = [json.loads(line) for line in done.lines]
    assert [events[0]["event"], events[-1]["event"]] == ["spools", "end"]
    assert (events[0]["spools"], events[0]["batches"], events[-1]["uploaded"]) == (2, 4, 4)
    for directory in directories:
        own = [event["event"] for event in events if event.get("dir") == str(directory)]
        assert own == ["start", "uploaded", "uploaded", "spoolEnd"]
        assert f"{directory}: uploaded" in (tmp_path / "flush.log").read_text()
    assert snapshot(root / "c" / ".cirron" / "spool") != []


def test_a_refused_token_ends_all_with_its_code(tmp_path: Path, root: Path) -> None:
    with ScriptedServer(check_auth=True) as server:
        done = flush(server, tmp_path, "--discover", root, "--json")
        assert server.uploads == []
    document = json.loads(done.stdout)
    assert done.returncode == document["exitCode"] == 3
    assert (document["skipped"], document["error"]["type"]) == (6, "AuthInvalidError")


@pytest.mark.parametrize(
    ("refusal", "words", "code"),
    [(401, "Auth rejected (401)", 3), (404, "Ingest route", 1), (302, "Unexpected HTTP 302", 1)],
)
def test_the_same_answer_to_several_spools_is_printed_once(
    tmp_path: Path, root: Path, refusal: int, words: str, code: int
) -> None:
    all_sent = Gate()
    with ScriptedServer() as server:
        server.on("POST", "/api/traces", default=Answer(refusal, stall_before=all_sent))
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        arguments = ("flush", "--discover", root, "--spools", "3", "--log-file", "flush.log", "--json-events")
        with spawn_cli(*arguments, home=tmp_path, cwd=tmp_path) as running:
            server.wait_for(3)
            all_sent.open()
            done = running.finish()
    assert done.returncode == code
    assert done.stderr.count(f": {words}") == 1
    events = [json.loads(line) for line in done.lines]
    assert sum(event["event"] == "failed" for event in events) == 3
    log = (tmp_path / "flush.log").read_text()
    assert log.count("Failed: 1  Skipped: 1") == 1
    assert "2 further spools ended with the same answer" in log
    assert log.count(f"spool: {words}") == 3


def test_a_watch_serves_spools_that_appear(tmp_path: Path) -> None:
    root = tmp_path / "later"
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        with spawn_cli("flush", "--watch", "--discover", root, home=tmp_path, cwd=tmp_path) as running:
            running.wait_for_text(f"Watching the spools below {root}.", "stderr")
            fill(root, "a")
            server.wait_for(2)
            write_batch(root / "a" / ".cirron" / "spool", 50, "a50")
            running.send_signal(signal.SIGTERM)
            done = running.finish()
        assert [batch_id for batch_id, _ in server.deliveries] == ["a0", "a1", "a50"]
    assert (done.returncode, done.stdout) == (143, "Uploaded: 3  Failed: 0  Skipped: 0  Spools: 1\n")


def test_inspect_status_and_clear(tmp_path: Path, root: Path) -> None:
    shown = run_cli("inspect", "--discover", root, home=tmp_path)
    assert [line.split("│")[2].strip() for line in shown.lines[3:7]] == ["2", "2", "2", "0"]
    assert shown.lines[-1] == "Total: 6 files, 72 B in 4 spools"
    document = json.loads(
        run_cli("inspect", "--discover", root, "--limit", "1", "--json", home=tmp_path).stdout
    )
    assert [each["files"] for each in document["spools"]] == [1, 1, 1, 0]
    assert [len(each["entries"]) for each in document["spools"]] == [1, 1, 1, 0]
    assert (document["files"], document["leftOut"], document["exitCode"]) == (3, 3, 0)

    status = run_cli("status", "--discover", root, "--offline", home=tmp_path)
    assert status.returncode == 0
    assert "Total: 6 batches, 72 B in 4 spools" in status.lines
    assert f"Next: Run cirron-spool flush --discover {root} to send 6 batches of 3 spools." in status.lines

    asked = run_cli("clear", "--discover", root, input=b"", home=tmp_path)
    assert asked.returncode == 2
    assert "? Delete 6 spool files (72 B) from 3 spools? (y/N)" in asked.stderr
    cleared = run_cli("clear", "--discover", root, "--force", "--limit", "1", "--json", home=tmp_path)
    document = json.loads(cleared.stdout)
    assert [each["deleted"] for each in document["spools"]] == [1, 1, 1, 0]
    assert (document["deleted"], document["leftOut"], document["exitCode"]) == (3, 3, 0)
    assert len(snapshot(root / "a" / ".cirron" / "spool")) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("flush", "--spools", "8"), "--spools is for several spools."),
        (("inspect", "--cross-file-systems"), "--cross-file-systems is for several spools."),
        (("inspect", "--discover", ".", "--summary"), "--summary is for one spool."),
        (("flush", "--discover", "none"), "none does not exist. Pass --discover an existing folder."),
        (("clear", "--discover", "a-file"), "a-file is not a folder. Pass --discover a folder."),
        (("status", "--discover", ""), "--discover needs the path of a directory, and it is empty."),
    ],
)
def test_what_cannot_be_is_one_clear_line(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "a-file").touch()
    done = run_cli(*arguments, home=tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_meter_counts_spools(tmp_path: Path) -> None:
    meter = Meter()
    a, b = tmp_path / "a", tmp_path / "b"
    meter.note(SpoolsFound(3, 4, 2))
    for spool in (a, b):
        meter.note(Started(spool, 2, 20), spool)
        meter.note(Sending("1-0a.json", 10), spool)
        meter.note(Uploaded("1-0a.json", 10, 5), spool)
    meter.note(Ended(FlushResult(a)), a)
    assert meter.parts()[:3] == ["1/2 spools", "2/4 batches", "20 B"]
    assert (meter.share_done, meter.left) == (0.5, 20)
    assert meter.now() == f"{b}/1-0a.json"
