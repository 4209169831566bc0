"""What another user left behind is in nobody's way: the commands, run by a user who may not touch it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.lock import LOCK_NAME
from cirron_spool.spool.quarantine import set_aside
from support.cli import CliResult, command_line, spawn
from support.scripted import ScriptedServer
from support.spools import TINY, Sealed, sdk_batches, snapshot
from support.users import give_away, powerless


@pytest.fixture
def batches(spool: Path) -> list[Sealed]:
    return sdk_batches(spool, 3, spans=TINY)


def run(server: ScriptedServer, *args: str | Path) -> CliResult:
    env = {"CIRRON_API_KEY": "sk-test", "CIRRON_API_ENDPOINT": server.url}
    with spawn(powerless(command_line(args)), env=env) as running:
        done = running.finish()
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.thorough
@pytest.mark.parametrize("mode", [0o644, 0o600, 0o444, 0], ids=oct)
@pytest.mark.parametrize("command", ["flush", "clear"])
def test_the_lock_of_another_user_counts_as_long_as_it_is_held(
    spool: Path, batches: list[Sealed], mode: int, command: str
) -> None:
    options = ["--force"] if command == "clear" else ["--no-verify"]
    holder = os.open(spool / LOCK_NAME, os.O_RDWR | os.O_CREAT)
    give_away(spool / LOCK_NAME, mode)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with ScriptedServer() as server:
        busy = run(server, command, "--dir", spool, *options)
        assert (busy.returncode, server.uploads) == (4, [])
        assert snapshot(spool) == batches
        os.close(holder)  # as when its process is killed
        done = run(server, command, "--dir", spool, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(spool) == []


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "something").touch()


@pytest.mark.thorough
@pytest.mark.parametrize(
    "make", [_folder, os.mkfifo, lambda path: path.symlink_to("/etc/passwd")], ids=["folder", "pipe", "link"]
)
def test_something_else_under_the_name_of_the_lock(
    spool: Path, batches: list[Sealed], make: Callable[[Path], None]
) -> None:
    lock = spool / LOCK_NAME
    make(lock)
    if not lock.is_symlink():
        give_away(lock, 0o700)
    with ScriptedServer() as server:
        done = run(server, "flush", "--dir", spool, "--no-verify")
    assert done.returncode == 0
    assert len(server.deliveries) == len(batches)
    assert snapshot(spool) == []


@pytest.mark.thorough
@pytest.mark.parametrize("mode", [0o700, 0, 0o744], ids=oct)
def test_a_closed_quarantine_hides_no_batch(spool: Path, batches: list[Sealed], mode: int) -> None:
    with SpoolDirectory(spool) as opened:
        assert opened.open()
        aside = set_aside(opened, batches[0].name, 422, "Rejected")
    give_away(aside, mode)
    with ScriptedServer() as server:
        shown = run(server, "inspect", "--dir", spool)
        assert shown.returncode == 0
        assert all(batch.name in shown.stdout for batch in batches[1:])
        [warning] = shown.stderr.splitlines()
        assert warning.startswith("Warning: ")
        assert str(aside) in warning
        listed = run(server, "quarantine", "list", "--dir", spool)
        assert listed.returncode == 2
        assert listed.stderr.startswith("Error: ")
        done = run(server, "flush", "--dir", spool, "--no-verify")
        assert done.returncode == 0
        assert run(server, "clear", "--force", "--dir", spool).returncode == 0
    assert snapshot(aside) == batches[:1]


@pytest.mark.parametrize("action", ["retry", "clear"])
def test_a_quarantine_that_can_only_be_read_lets_nothing_go(
    spool: Path, batches: list[Sealed], action: str
) -> None:
    with SpoolDirectory(spool) as opened:
        assert opened.open()
        aside = set_aside(opened, batches[0].name, 422, "Rejected")
    give_away(aside, 0o755)
    force = ["--force"] if action == "clear" else []
    with ScriptedServer() as server:
        done = run(server, "quarantine", action, "--dir", spool, *force)
    assert (done.returncode, done.stdout) == (1, "")  # no "Success: … 0 batches"
    assert done.stderr.startswith("Error: Could not ")
    assert snapshot(aside) == batches[:1]


def test_unreadable_notes_and_batches_in_quarantine_are_shown_as_far_as_they_can_be(
    spool: Path, batches: list[Sealed]
) -> None:
    with SpoolDirectory(spool) as opened:
        assert opened.open()
        aside = set_aside(opened, batches[0].name, 422, "Rejected")
    for path in aside.iterdir():
        give_away(path, 0)
    with ScriptedServer() as server:
        for command in (["inspect"], ["quarantine", "list"]):
            shown = run(server, *command, "--dir", spool)
            assert (shown.returncode, shown.stderr) == (0, "")
        assert batches[0].name in run(server, "quarantine", "list", "--dir", spool).stdout
        back = run(server, "quarantine", "retry", "--dir", spool)
        assert back.returncode == 0
    assert snapshot(spool) == batches


def test_a_batch_of_another_user_stays_and_is_said(spool: Path, batches: list[Sealed]) -> None:
    give_away(spool / batches[1].name, 0o600)
    with ScriptedServer() as server:
        done = run(server, "flush", "--dir", spool, "--no-verify")
    assert done.returncode == 1
    assert f"Cannot read {batches[1].name}: Permission denied" in done.stderr
    assert [body for _, body in server.deliveries] == [batches[0].data]
    assert snapshot(spool) == batches[1:]


def test_snapshots_that_may_not_be_counted_hold_nothing_up(spool: Path, batches: list[Sealed]) -> None:
    folder = spool.parent / "snapshots"
    folder.mkdir()
    give_away(folder, 0o700)
    with ScriptedServer() as server:
        done = run(server, "flush", "--dir", spool, "--no-verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(server.deliveries) == len(batches)
