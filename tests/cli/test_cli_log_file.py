"""``flush --log-file``: all that happened, in a file of this user alone."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from support.answers import Answer
from support.cli import CliResult
from support.fork_server import run_cli
from support.scripted import ScriptedServer

TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", re.MULTILINE)
NAMES = [f"{1776486598051509000:020d}-{digit * 32}.json" for digit in "ab"]


@pytest.fixture
def filled(spool: Path) -> Path:
    spool.mkdir()
    for name in NAMES:
        (spool / name).write_text("{}", encoding="utf-8")
    return spool


def flush(spool: Path, platform: ScriptedServer, log: str | Path, *args: str) -> CliResult:
    env = {"CIRRON_API_ENDPOINT": platform.url, "CIRRON_API_KEY": "sk-long-lived"}
    return run_cli("flush", "--dir", spool, "--log-file", log, *args, env=env)


@pytest.mark.thorough
def test_each_event_and_message_has_a_line(filled: Path, tmp_path: Path) -> None:
    log = tmp_path / "flush.log"
    with ScriptedServer(Answer(), Answer(400)) as platform:
        done = flush(filled, platform, log)
        again = flush(filled, platform, log, "--quiet")
    assert (done.returncode, again.returncode) == (1, 0)
    text = log.read_text(encoding="utf-8")
    assert len(TIME.findall(text)) == text.count("\n")
    lines = TIME.sub("", text).splitlines()
    assert (lines[0], lines[6]) == ("flushing 2 batches (4 B)", "Uploaded: 1  Failed: 1  Skipped: 0")
    # A delete runs beside the next request, so their lines may change places.
    assert sorted(lines[:7]) + lines[7:] == [
        *sorted(
            [
                "flushing 2 batches (4 B)",
                f"sending {NAMES[0]} (2 B)",
                f"sending {NAMES[1]} (2 B)",
                f"uploaded {NAMES[0]} (2 bytes sent)",
                f"Error: Rejected {NAMES[1]}: HTTP 400 Bad Request",
                "Warning: It stays in the spool. Run again with --quarantine to set rejected batches aside.",
                "Uploaded: 1  Failed: 1  Skipped: 0",
            ]
        ),
        "flushing 1 batch (2 B)",
        f"sending {NAMES[1]} (2 B)",
        f"uploaded {NAMES[1]} (2 bytes sent)",
        "Uploaded: 1  Failed: 0  Skipped: 0",
    ]
    assert "sk-long-lived" not in text
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["folder", "no folder", "pipe"])
def test_a_place_that_cannot_be_written_is_one_line_before_anything_is_sent(
    filled: Path, tmp_path: Path, kind: str
) -> None:
    places: dict[str, Path] = {
        "folder": tmp_path,
        "no folder": tmp_path / "no" / "log",
        "pipe": tmp_path / "pipe",
    }
    if kind == "pipe":
        os.mkfifo(tmp_path / "pipe")
    with ScriptedServer() as platform:
        done = flush(filled, platform, places[kind])
        assert not platform.requests
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "Correct --log-file." in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
def test_a_log_that_cannot_be_continued_does_not_end_the_flush(filled: Path) -> None:
    with ScriptedServer() as platform:
        done = flush(filled, platform, "/dev/full")
    assert (done.returncode, done.stdout) == (0, "Uploaded: 2  Failed: 0  Skipped: 0\n")
    assert done.stderr == "Warning: The log in /dev/full ends here: No space left on device.\n"
