"""Standard streams that are closed, full, blocked or abandoned, under each command."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from itertools import product
from pathlib import Path

import pytest

from support.answers import Answer
from support.cli import CliResult, clean_environment, command_line, run_cli, spawn, write_config
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot, write_batch

TOKEN = "sk-streams"
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
COMMANDS = [
    *(["flush"], ["flush", "--json"], ["flush", "--json-events"], ["flush", "--verbose"]),
    *(["inspect"], ["clear", "--force", "--json"], ["quarantine", "list"], ["--help"], ["--version"]),
]


def redirected(tmp_path: Path, redirection: str, *args: str) -> CliResult:
    argv = ["sh", "-c", f'exec "$@" {redirection}', "sh", *command_line(args)]
    with spawn(argv, home=tmp_path, cwd=tmp_path) as running:
        return running.finish()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("redirection", "args"),
    [
        *((">&- 2>&- <&-", args) for args in COMMANDS),
        *product((">&-", "2>&-", "<&-"), (["flush"], ["flush", "--json"], ["inspect"])),
    ],
    ids=str,
)
def test_a_closed_stream_changes_nothing_else(tmp_path: Path, redirection: str, args: list[str]) -> None:
    spool = tmp_path / ".cirron/spool"
    written = sdk_batches(spool, 3, spans=TINY)
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = redirected(tmp_path, redirection, *args)
        assert list(server.delivered) == [batch.batch_id for batch in written if args[0] == "flush"]
    assert done.returncode == 0
    assert done.stderr == "" or "--verbose" in args
    assert bool(done.stdout) == (">&-" not in redirection.split())
    assert snapshot(spool) == ([] if args[0] in ("flush", "clear") else written)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("redirection", "args"),
    [
        (">&-", ["--verbose"]),
        ("2>&-", ["--verbose"]),
        (">&- 2>&-", ["--json-events"]),
        (">&- 2>&- <&-", ["--json-events"]),
        ("2>&-", ["--json-events"]),
        (">&- 2>&- <&-", ["--keep-going"]),
    ],
    ids=str,
)
def test_words_do_not_go_into_the_file_or_socket_that_took_a_closed_streams_number(
    tmp_path: Path, redirection: str, args: list[str]
) -> None:
    spool = tmp_path / ".cirron/spool"
    sdk_batches(spool, 2, spans=TINY)
    written = sdk_batches(spool, 1, spans=4000, seed=1, first_ns=1_800_000_000_000_000_000)
    # The server reports whatever comes on a connection that is no request.
    with ScriptedServer(Answer(503, headers=[("Retry-After", "1")])) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = redirected(tmp_path, redirection, "flush", *args)
        assert server.delivered == {batch.batch_id: batch.data for batch in written}
    assert done.returncode == 0
    assert os.listdir(spool) == []


@pytest.mark.parametrize("closed", [">&- </dev/null", ">&- 2>&- </dev/null", ">&- <&-"])
def test_a_question_that_nobody_can_answer_deletes_nothing(tmp_path: Path, closed: str) -> None:
    written = sdk_batches(tmp_path / ".cirron/spool", 2, spans=TINY)
    done = redirected(tmp_path, closed, "clear")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert snapshot(tmp_path / ".cirron/spool") == written


def test_an_answer_is_taken_though_the_question_went_nowhere(tmp_path: Path) -> None:
    sdk_batches(tmp_path / ".cirron/spool", 2, spans=TINY)
    argv = ["sh", "-c", 'echo y | "$@" >&- 2>&-', "sh", *command_line(["clear"])]
    with spawn(argv, home=tmp_path, cwd=tmp_path) as running:
        assert running.finish().returncode == 0
    assert snapshot(tmp_path / ".cirron/spool") == []


@pytest.mark.thorough
@FULL
@pytest.mark.parametrize(
    ("form", "answers", "code"),
    [
        ([], [], 0),
        ([], [Answer(404)], 1),
        ([], [Answer(401)], 3),
        ([], [Answer(503)], 4),
        (["--json"], [], 0),
        (["--json"], [Answer(404)], 1),
        (["--json-events"], [], 0),
        (["--json-events"], [Answer(503)], 4),
        (["--verbose"], [Answer(401)], 3),
    ],
)
def test_the_exit_code_tells_of_the_delivery_and_a_warning_of_the_stream(
    tmp_path: Path, form: list[str], answers: list[Answer], code: int
) -> None:
    sdk_batches(tmp_path / ".cirron/spool", 2, spans=TINY)
    with ScriptedServer(*answers) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN, retries=0)
        done = redirected(tmp_path, ">/dev/full", "flush", "--no-verify", *form)
    assert done.returncode == code
    assert done.stderr.count("Warning: Cannot write to standard output: No space left on device.") == 1
    assert "Traceback" not in done.stderr


@FULL
@pytest.mark.parametrize("args", [["clear", "--force"], ["clear", "--force", "--json"]], ids=" ".join)
@pytest.mark.parametrize("errors", ["", "2>/dev/full"])
def test_a_clear_whose_words_cannot_be_written_has_cleared(
    tmp_path: Path, args: list[str], errors: str
) -> None:
    sdk_batches(tmp_path / ".cirron/spool", 2, spans=TINY)
    done = redirected(tmp_path, f">/dev/full {errors}", *args)
    assert done.returncode == 0
    assert snapshot(tmp_path / ".cirron/spool") == []
    assert len(done.stderr.splitlines()) == (0 if errors else 1)


@FULL
def test_a_batch_that_was_moved_back_was_though_the_words_are_lost(tmp_path: Path) -> None:
    spool = tmp_path / ".cirron/spool"
    spool.mkdir(parents=True)
    path = write_batch(tmp_path / ".cirron/quarantine", 1, "ab")
    assert redirected(tmp_path, ">/dev/full", "quarantine", "retry").returncode == 0
    assert os.listdir(spool) == [path.name]


@FULL
@pytest.mark.parametrize("redirection", [">/dev/full", "1</dev/null"])
@pytest.mark.parametrize(
    "args", [args for args in COMMANDS if args[0] not in ("flush", "clear")], ids=" ".join
)
def test_output_that_is_the_job_is_missed(tmp_path: Path, redirection: str, args: list[str]) -> None:
    sdk_batches(tmp_path / ".cirron/spool", 2, spans=TINY)
    done = redirected(tmp_path, redirection, *args)
    assert done.returncode == 1
    assert [line[:38] for line in done.stderr.splitlines()] == ["Error: Cannot write to standard output"]


@pytest.mark.thorough
@FULL
@pytest.mark.parametrize("form", [[], ["--verbose"], ["--json"]], ids=" ".join)
def test_a_full_disk_behind_the_words_stops_nothing(tmp_path: Path, form: list[str]) -> None:
    sdk_batches(tmp_path / ".cirron/spool", 3, spans=TINY)
    with ScriptedServer(Answer(503, headers=[("Retry-After", "1")])) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = redirected(tmp_path, "2>/dev/full", "flush", *form)
        assert len(server.delivered) == 3
    assert done.returncode == 0


@pytest.mark.thorough
def test_a_pipe_that_does_not_block_gets_everything(tmp_path: Path) -> None:
    """Its reader is slower than we are, and the pipe's owner has made it non-blocking."""
    spool = tmp_path / ".cirron/spool"
    for number in range(3000):
        write_batch(spool, 1_700_000_000_000_000_000 + number, f"{number:032x}")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = subprocess.Popen(
        command_line(["inspect", "--json"]),
        cwd=tmp_path,
        env=clean_environment(tmp_path),
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    with open(reader, "rb") as stream:
        document = json.loads(stream.read())
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 0
    assert document["files"] == len(document["entries"]) == 3000


def test_an_answer_from_a_pipe_that_does_not_block_is_waited_for(tmp_path: Path) -> None:
    sdk_batches(tmp_path / ".cirron/spool", 2, spans=TINY)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    process = subprocess.Popen(
        command_line(["clear"]),
        cwd=tmp_path,
        env=clean_environment(tmp_path),
        stdin=reader,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    asked = threading.Event()

    def answer() -> None:
        assert process.stderr is not None
        while process.stderr.read(1) not in (b"N", b""):  # of "(y/N)"
            pass
        asked.set()
        os.write(writer, b"y\n")

    thread = threading.Thread(target=answer)
    thread.start()
    process.wait(60)
    thread.join()
    os.close(writer)
    os.close(reader)
    assert process.stdout is not None
    with process.stdout, process.stderr:
        assert process.stdout.read() == b"Success: Deleted 2 spool files.\n"
    assert process.returncode == 0
    assert asked.is_set()


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        {"LC_ALL": "C", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "utf-16", "PYTHONUTF8": "0"},
    ],
    ids=["ascii", "C", "utf-16"],
)
def test_output_is_utf_8_whatever_the_locale_says(tmp_path: Path, env: dict[str, str]) -> None:
    sdk_batches(tmp_path / "spool", 1, spans=TINY)
    done = run_cli("inspect", "--dir", tmp_path / "spool", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "│" in done.out.decode("utf-8")
