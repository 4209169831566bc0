"""``--json`` and ``--json-events``: every ending carries its reason, its warnings and the exit code of the process."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from support.answers import json_answer
from support.background import closed_port
from support.cli import CliResult, spawn_cli, write_config
from support.fork_server import run_cli
from support.scripted import Answer, Gate, ScriptedServer, ok
from support.spools import TINY, sdk_batches, write_batch
from support.terminal import run_cli_pty

TOKEN = "sk-very-secret-0123456789"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
FORMS = ["--json", "--json-events"]


def last(done: CliResult, form: str) -> dict[str, Any]:
    """The object that an ending comes to, after a look at what is the same in all of them."""
    if form == "--json":
        document = json.loads(done.stdout)
    else:
        events = [json.loads(line) for line in done.lines]
        assert all(TIME.fullmatch(event["time"]) for event in events)
        assert [event["event"] for event in events].count("end") == 1
        document = events[-1]
        assert document["event"] == "end"
        warned = [event["message"] for event in events if event["event"] == "warning"]
        assert warned == document["warnings"]
    assert isinstance(document, dict)
    assert document["exitCode"] == done.returncode
    said = [
        line.removeprefix("Warning: ") for line in done.stderr.splitlines() if line.startswith("Warning: ")
    ]
    assert document["warnings"] == said
    assert ("error" in document) == (done.returncode != 0)
    if "error" in document:
        assert set(document["error"]) == {"type", "message"}
    assert TOKEN not in done.stdout + done.stderr
    return document


def errors(done: CliResult) -> list[str]:
    return [line.removeprefix("Error: ") for line in done.stderr.splitlines() if line.startswith("Error: ")]


@pytest.mark.thorough
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "words",
    [
        ["flush", "--frob"],
        ["flush", "--timeout", "x"],
        ["flush", "--dir"],
        ["flush", "a"],
        ["inspct"],
        ["receive", "--store", "x"],
        ["quarantine", "retry", "--frob"],
        [],
    ],
    ids=" ".join,
)
def test_wrong_usage(words: list[str], form: str) -> None:
    done = run_cli(*words, form)
    document = last(done, form)
    assert done.returncode == 2
    assert [document["error"]] == [{"type": "UsageError", "message": message} for message in errors(done)]


def test_both_forms_at_once() -> None:
    done = run_cli("flush", "--json", "--json-events")
    assert last(done, "--json-events")["error"]["type"] == "UsageError"


def test_a_word_that_nobody_has(tmp_path: Path) -> None:
    done = run_cli("auth", "--json", prog="cirron", env={"PATH": str(tmp_path)})
    assert last(done, "--json")["error"]["type"] == "UsageError"


@pytest.mark.parametrize(
    "command", [["inspect"], ["clear", "--force"], ["quarantine", "list"], ["flush"]], ids=str
)
def test_a_spool_that_is_none(tmp_path: Path, command: list[str]) -> None:
    place = tmp_path / "file"
    place.write_bytes(b"")
    below = place / "spool" if command[0] == "quarantine" else place
    done = run_cli(*command, "--json", "--dir", below)
    if command[0] == "quarantine" and done.returncode == 0:
        return  # there is no quarantine, and that is all that was asked
    document = last(done, "--json")
    assert (document["error"]["type"], done.returncode) == ("SpoolError", 2)
    assert [document["error"]["message"]] == errors(done)


@pytest.mark.parametrize("form", FORMS)
def test_a_configuration_that_cannot_be_used(tmp_path: Path, form: str) -> None:
    sdk_batches(tmp_path / ".cirron/spool", 1, spans=TINY)
    write_config(tmp_path).write_text("{", encoding="utf-8")
    done = run_cli("flush", form, home=tmp_path, cwd=tmp_path)
    document = last(done, form)
    assert (document["error"]["type"], document["exitCode"]) == ("ConfigError", 2)
    done = run_cli("flush", form, "--token-file", "nowhere", home=tmp_path, cwd=tmp_path)
    assert last(done, form)["error"] == {"type": "ConfigError", "message": errors(done)[0]}


@pytest.mark.parametrize("form", FORMS)
def test_credentials(tmp_path: Path, form: str) -> None:
    sdk_batches(tmp_path / ".cirron/spool", 2, spans=TINY)
    done = run_cli("flush", form, home=tmp_path, cwd=tmp_path)
    document = last(done, form)
    assert document["error"]["type"] == "NotAuthenticatedError"
    assert (document["skipped"], done.returncode) == (2, 3)
    with ScriptedServer(Answer(401), json_answer({"message": f"not {TOKEN}"}, 403)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        for status, kind in ((401, "AuthRejectedError"), (403, "AuthRejectedError")):
            done = run_cli("flush", form, home=tmp_path, cwd=tmp_path)
            document = last(done, form)
            assert (document["error"]["type"], document["failed"], document["exitCode"]) == (kind, 1, 3)
            assert [document["error"]["message"]] == errors(done)
            assert str(status) in document["error"]["message"]
        server.on("GET", "/api/cli/status", Answer(403))
        done = run_cli("flush", form, home=tmp_path, cwd=tmp_path)
        assert last(done, form)["error"]["type"] == "AuthInvalidError"


@pytest.mark.parametrize("form", FORMS)
def test_batches_that_are_left(tmp_path: Path, form: str) -> None:
    sdk_batches(tmp_path / ".cirron/spool", 2, spans=TINY)
    address = f"http://127.0.0.1:{closed_port()}"
    write_config(tmp_path, apiUrl=address, token=TOKEN)
    done = run_cli("flush", form, "--retries", "0", home=tmp_path, cwd=tmp_path)
    document = last(done, form)
    assert (document["exitCode"], document["destination"]) == (4, address)
    assert document["error"] == {"type": "BatchesLeft", "message": errors(done)[-1]}
    assert len(document["warnings"]) == 2  # not verified; one batch left
    spool = tmp_path / "other"
    write_batch(spool, 1, "ab", b"")
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = run_cli("flush", form, "--dir", spool, home=tmp_path)
        document = last(done, form)
        assert (document["exitCode"], document["error"]["type"], errors(done)) == (1, "BatchesLeft", [])
        assert document["error"]["message"] == document["warnings"][0]


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_wrong(tmp_path: Path, form: str) -> None:
    done = run_cli("flush", form, cwd=tmp_path)
    assert last(done, form)["destination"] is None
    sdk_batches(tmp_path / ".cirron/spool", 1, spans=TINY)
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = run_cli("flush", form, home=tmp_path, cwd=tmp_path)
        document = last(done, form)
        assert (document["uploaded"], document["destination"], document["warnings"]) == (1, server.url, [])


@pytest.mark.thorough
@pytest.mark.parametrize("form", FORMS)
def test_another_one_at_work(tmp_path: Path, form: str) -> None:
    sdk_batches(tmp_path / ".cirron/spool", 1, spans=TINY)
    gate = Gate()
    with ScriptedServer(ok(stall_before=gate)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        with spawn_cli("flush", home=tmp_path, cwd=tmp_path) as first:
            server.wait_for(1)
            flush = run_cli("flush", form, home=tmp_path, cwd=tmp_path)
            clear = run_cli("clear", "--force", "--json", home=tmp_path, cwd=tmp_path)
            gate.open()
            assert first.finish().returncode == 0
    for done, how in ((flush, form), (clear, "--json")):
        assert (last(done, how)["error"]["type"], done.returncode) == ("SpoolBusyError", 4)


@pytest.mark.thorough
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(tmp_path: Path, form: str, number: signal.Signals, code: int) -> None:
    sdk_batches(tmp_path / ".cirron/spool", 3, spans=TINY)
    gate = Gate()
    with ScriptedServer(ok(stall_before=gate), Answer(hang=True)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        with spawn_cli("flush", form, home=tmp_path, cwd=tmp_path) as running:
            server.wait_for(1)
            running.send_signal(number)
            running.wait_for_text("Warning: Stopping: ", "stderr")
            gate.open()
            done = running.finish()
        document = last(done, form)
        assert done.returncode == code
        assert document["error"] == {"type": "Interrupted", "message": f"Stopped by {number.name}."}
        assert (document["uploaded"], document["skipped"]) == (1, 2)
        with spawn_cli("flush", form, home=tmp_path, cwd=tmp_path) as running:
            server.wait_for(2)
            running.send_signal(number)
            running.wait_for_text("Warning: Stopping: ", "stderr")
            running.send_signal(number)
            done = running.finish()
        document = last(done, form)
        assert done.returncode == code
        assert (document["error"]["type"], document["uploaded"], document["skipped"]) == ("Interrupted", 0, 2)


def test_ctrl_c_at_the_question(tmp_path: Path) -> None:
    sdk_batches(tmp_path / ".cirron/spool", 1, spans=TINY)
    done = run_cli_pty(
        "clear",
        "--json",
        cwd=tmp_path,
        columns=300,
        answers=[("(y/N) ", "\x03")],
        terminal=("stdin", "stderr"),
    )
    document = json.loads(done.out)
    assert (done.returncode, document["exitCode"], document["error"]["type"]) == (130, 130, "Interrupted")


def test_a_delete_that_fails(tmp_path: Path) -> None:
    """A batch becomes a folder while the question stands, so that root cannot delete it either."""
    spool = tmp_path / ".cirron/spool"
    sdk_batches(spool, 1, spans=TINY)
    path = write_batch(spool, 1, "ab")

    def swap(pid: int) -> None:
        del pid
        path.rename(tmp_path / "aside")
        path.mkdir()

    done = run_cli_pty(
        "clear",
        "--json",
        cwd=tmp_path,
        columns=300,
        answers=[("? Delete ", swap), ("(y/N) ", "y\n")],
        terminal=("stdin", "stderr"),
    )
    document = json.loads(done.out)
    assert (document["deleted"], document["failed"], document["exitCode"]) == (1, 1, done.returncode)
    assert document["error"]["type"] == "DeleteError"
    assert f"Error: {document['error']['message']}" in done.text
