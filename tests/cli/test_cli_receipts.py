"""``flush --receipts`` and ``receipts verify``, against a real receiver's store."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.cli import command_line, spawn, spawn_cli
from support.fork_server import run_cli
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot

TOKEN = "sk-receipts-secret"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "receipts.jsonl"


def test_the_receipts_of_a_flush_hold_against_the_store(spool: Path, tmp_path: Path, path: Path) -> None:
    batches = sdk_batches(spool, 3)
    store = tmp_path / "received"
    with spawn_cli("receive", "--store", store, "--port", "0", "--token", TOKEN) as receiver:
        url = re.findall(r"http://\S+:\d+", receiver.wait_for_text("http://"))[0]
        env = {"CIRRON_API_ENDPOINT": url, "CIRRON_API_KEY": TOKEN}
        done = run_cli("flush", "--dir", spool, "--receipts", path, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    fine = run_cli("receipts", "verify", path, "--against", store)
    assert (fine.returncode, fine.stderr) == (0, "")
    assert fine.lines[0] == "Receipts: 3  Batches: 3  Problems: 0"
    assert fine.lines[-1] == f"In {store}: 3 of 3 batches"

    (store / batches[0].name).write_bytes(b"{}")
    (store / batches[2].name).unlink()
    bad = run_cli("receipts", "verify", path, "--against", store, "--json")
    document = bad.json()
    assert isinstance(document, dict)
    assert (bad.returncode, document["found"], document["problems"]) == (
        1,
        1,
        [
            f"Line 1: {batches[0].name} has different bytes in the store.",
            f"Line 3: {batches[2].name} is not in the store.",
        ],
    )
    assert document["error"] == {"type": "ReceiptsError", "message": document["problems"][0]}


def test_a_full_disk_ends_the_flush_and_a_later_one_goes_on(spool: Path, path: Path) -> None:
    """The limit of a file's size takes a part of a write, as a full disk does."""
    batches = sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer() as platform:
        env = {"CIRRON_API_ENDPOINT": platform.url, "CIRRON_API_KEY": TOKEN}
        flush = command_line(["flush", "--dir", spool, "--receipts", path])
        # Without bytecode: Python would leave a part of it behind, which no later process can read.
        limited = {**env, "PYTHONDONTWRITEBYTECODE": "1"}
        with spawn(["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *flush], env=limited) as run:
            full = run.finish()
        again = run_cli("flush", "--dir", spool, "--receipts", path, env=env)
    assert full.returncode == 1
    assert full.stderr == (
        f"Error: Uploaded {batches[1].name}, but its receipt cannot be written to {path}: No space left on device. "
        "It stays in the spool, and the next flush sends it again.\n"
        "Warning: Make room or correct the file, or flush without --receipts.\n"
    )
    assert (again.returncode, again.stdout) == (0, "Uploaded: 1  Failed: 0  Skipped: 0\n")
    checked = run_cli("receipts", "verify", path)
    assert (checked.returncode, checked.lines[0]) == (0, "Receipts: 2  Batches: 2  Problems: 0")


def test_two_commands_write_one_chain(tmp_path: Path, path: Path) -> None:
    spools = [tmp_path / "a", tmp_path / "b"]
    for seed, spool in enumerate(spools):
        sdk_batches(spool, 10, spans=TINY, seed=seed)
    with ScriptedServer() as platform:
        env = {"CIRRON_API_ENDPOINT": platform.url, "CIRRON_API_KEY": TOKEN}
        with ExitStack() as stack:
            runs = [
                stack.enter_context(spawn_cli("flush", "--dir", spool, "--receipts", path, env=env))
                for spool in spools
            ]
            assert [run.finish().returncode for run in runs] == [0, 0]
    checked = run_cli("receipts", "verify", path)
    assert (checked.returncode, checked.lines[0]) == (0, "Receipts: 20  Batches: 20  Problems: 0")
    assert [snapshot(spool) for spool in spools] == [[], []]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["none.jsonl"], 2, "Error: Cannot read none.jsonl: No such file or directory. Check the path."),
        (["."], 2, "Error: Cannot read .: Is a directory. Check the path."),
        (["/dev/null"], 2, "Error: Cannot read /dev/null: it is not a regular file. Check the path."),
        (["empty"], 0, "Warning: empty has no receipts."),
        (
            ["empty", "--against", "none"],
            2,
            "Error: Cannot read the store none: No such file or directory. Check",
        ),
        (["binary"], 1, "Error: Line 1 is not a receipt."),
        ([], 2, "Error: "),
    ],
)
def test_odd_files_to_verify_are_one_line(tmp_path: Path, args: list[str], code: int, said: str) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\x7fELF" + bytes(range(256)) * 50)
    done = run_cli("receipts", "verify", *args, cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr.startswith(said)
