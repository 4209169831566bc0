"""``flush --snapshots`` as a command: against the real receiver, its words and forms, and a kill in the middle."""

from __future__ import annotations

import json
import os
import re
import signal
from http import HTTPStatus
from pathlib import Path

import pytest

from cirron_spool.display.meter import Meter
from cirron_spool.events import Progress, Sending, SnapshotFailed, SnapshotsStarted, SnapshotUploaded, Started
from support.answers import Answer, Gate, json_answer
from support.cli import CliResult, Running, spawn_cli
from support.fork_server import run_cli
from support.scripted import ScriptedServer
from support.snapshots import accept, keys_put, lay, puts
from support.spools import TINY, sdk_batches, snapshot

TOKEN = "sk-snapshots-0123456789"
A, B, C = "a" * 32, "b" * 32, "c" * 32


def flush(server: ScriptedServer, spool: Path, *args: str) -> CliResult:
    return run_cli("flush", "--dir", spool, "--no-verify", *args, env=environment(server))


def environment(server: ScriptedServer) -> dict[str, str]:
    return {"CIRRON_API_KEY": TOKEN, "CIRRON_API_ENDPOINT": server.url}


def url_of(receiver: Running) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+", receiver.wait_for_text("\n"))
    assert found is not None
    return found[0]


def test_the_receiver_takes_snapshots_and_batches(spool: Path, tmp_path: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    key, path = lay(spool, A, data=os.urandom(3_000_000))
    text = path.read_bytes()
    store = tmp_path / "store"
    with spawn_cli("receive", "--store", store, "--port", "0", "--token", TOKEN) as receiver:
        env = {"CIRRON_API_KEY": TOKEN, "CIRRON_API_ENDPOINT": url_of(receiver)}
        done = run_cli("flush", "--dir", spool, "--snapshots", env=env)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.lines == [
            "Uploaded: 2  Failed: 0  Skipped: 0",
            "Snapshots uploaded: 1  Failed: 0  Left: 0",
        ]
        assert (store / key).read_bytes() == text
        assert path.exists()
        again = run_cli("flush", "--dir", spool, "--snapshots", "--delete-snapshots", env=env)
        assert again.lines == [
            "Uploaded: 0  Failed: 0  Skipped: 0",
            "Snapshots uploaded: 0  Failed: 0  Left: 0  Sent before: 1  Deleted: 1",
        ]
        assert not path.exists()
        nothing = run_cli("flush", "--dir", spool, "--snapshots", env=env)
        assert (nothing.returncode, nothing.stdout) == (0, f"No spool files to flush in {spool}\n")
        receiver.send_signal(signal.SIGTERM)
        assert "1 snapshot" in receiver.finish().stderr
    assert snapshot(store) == batches


def test_one_that_is_killed_in_the_middle_goes_again_and_no_other(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    key, path = lay(spool, A)
    os.utime(path, ns=(1, 1))
    other, _ = lay(spool, B, data=bytes(4_000_000))
    with ScriptedServer(receive_buffer=64 * 1024) as server:
        accept(server, key)
        accept(server, other, answer=Answer(201, read_only=100_000, stall_before=Gate()))
        with spawn_cli(
            "flush", "--dir", spool, "--no-verify", "--snapshots", env=environment(server)
        ) as running:
            server.wait_for(lambda seen: any(request.received > 50_000 for request in seen.requests))
            running.send_signal(signal.SIGKILL)
            running.finish()
        assert snapshot(spool) == batches
        accept(server, other)
        done = flush(server, spool, "--snapshots", "--json")
        assert keys_put(server) == [key, other, other]
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert document["uploaded"] == 2
    assert document["snapshots"] | {"bytesSent": 0} == {
        "uploaded": 1,
        "failed": 0,
        "left": 0,
        "vanished": 0,
        "sentBefore": 1,
        "deleted": 0,
        "bytesSent": 0,
        "failures": [],
    }
    assert document["snapshots"]["bytesSent"] > 4_000_000


def test_its_words_and_forms(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    bad, path = lay(spool, A)
    os.utime(path, ns=(1, 1))
    good, _ = lay(spool, B)
    with ScriptedServer() as server:
        accept(server, good)
        accept(server, bad, answer=json_answer({"message": "No such \x1b span."}, 422))
        plan = flush(server, spool, "--snapshots", "--dry-run")
        assert plan.lines[-3:] == [
            f"{bad}  {path.stat().st_size} B",
            f"{good}  {path.stat().st_size} B",
            f"Dry run: 2 snapshots ({2 * path.stat().st_size} B) would be sent before the batches.",
        ]
        planned = json.loads(flush(server, spool, "--snapshots", "--dry-run", "--json").stdout)
        assert [entry["name"] for entry in planned["snapshotEntries"]] == [bad, good]
        assert puts(server) == []
        done = flush(server, spool, "--snapshots", "--json-events")
        assert done.returncode == 1
        assert done.stderr == (
            f"Warning: Rejected {bad}: HTTP 422 {HTTPStatus(422).phrase}. "
            "The server said: No such \\x1b span. The snapshot stays on disk.\n"
        )
        events = [json.loads(line) for line in done.lines]
        told = [event["event"] for event in events]
        assert told == [
            "start",
            "snapshots",
            "snapshotFailed",
            "warning",
            "snapshotUploaded",
            "uploaded",
            "end",
        ]
        assert (events[4]["name"], events[4]["uri"]) == (good, f"blob://{good}")
        assert TOKEN not in done.stdout + done.stderr


def test_a_platform_without_the_route(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    lay(spool, A)
    lay(spool, B)
    with ScriptedServer() as server:
        done = flush(server, spool, "--snapshots")
        assert done.returncode == 1
        assert done.stderr == f"Warning: {server.url} takes no snapshots yet (HTTP 404). They stay on disk.\n"
        assert done.lines == [
            "Uploaded: 1  Failed: 0  Skipped: 0",
            "Snapshots uploaded: 0  Failed: 0  Left: 2",
        ]
        assert len(puts(server)) == 1


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_delete_needs_snapshots(spool: Path, more: list[str]) -> None:
    with ScriptedServer() as server:
        done = flush(server, spool, "--delete-snapshots", *more)
    assert done.returncode == 2
    assert done.stderr == "Error: --delete-snapshots needs --snapshots. Add it, or leave both out.\n"


def test_a_watch_sends_none(spool: Path) -> None:
    with ScriptedServer() as server:
        done = flush(server, spool, "--watch", "--snapshots")
    assert done.returncode == 2
    assert done.stderr == "Error: --watch and --snapshots exclude each other. Choose one.\n"


def test_verbose_says_each_step(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    key, _ = lay(spool, A)
    with ScriptedServer() as server:
        accept(server, key)
        done = flush(server, spool, "--snapshots", "-v")
    said = [line.partition(" ")[2] for line in done.stderr.splitlines()]
    assert said[1].startswith("uploading 1 snapshot (")
    assert said[2].startswith(f"sending {key} (")
    assert said[3].startswith(f"uploaded {key} (")


def test_without_the_flag_it_is_named(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    lay(spool, A)
    with ScriptedServer() as server:
        done = flush(server, spool)
        assert puts(server) == []
    assert done.lines == ["Uploaded: 1  Failed: 0  Skipped: 0"]
    assert done.stderr == (
        f"Warning: Snapshots are not uploaded: 1 file in {spool.parent / 'snapshots'}. "
        "Run a flush with --snapshots to upload them.\n"
    )


def test_the_figures_count_their_bytes(tmp_path: Path) -> None:
    meter = Meter()
    meter.note(Started(tmp_path, 3, 1000))
    meter.note(SnapshotsStarted(tmp_path, 2, 4000))
    meter.note(Sending("a", 3000))
    meter.note(Progress("a", 2000, 3000))
    assert (meter.total, meter.done, meter.left) == (5000, 2000, 3000)
    assert meter.parts()[:2] == ["0/3 batches", "0/2 snapshots"]
    meter.note(SnapshotUploaded("a", 3000))
    meter.note(Sending("b", 1000))
    meter.note(SnapshotFailed("b", 409, "refused"))
    assert (meter.done, meter.left) == (3000, 1000)
    assert meter.parts()[:2] == ["0/3 batches", "1/2 snapshots"]
