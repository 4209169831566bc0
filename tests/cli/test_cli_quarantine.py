"""``flush --quarantine`` and ``quarantine list|retry|clear``: rejected batches, from their rejection to their end."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from support.answers import json_answer
from support.cli import write_config
from support.fork_server import run_cli
from support.scripted import Answer, ScriptedServer
from support.spools import Sealed, sdk_batches, snapshot
from support.terminal import run_cli_pty

REJECTED = json_answer({"message": "span \x1b[31mids\x1b[0m repeat"}, 422)


def quarantined(home: Path, count: int = 1) -> list[Sealed]:
    """A spool of `count` batches and one more, of which the platform rejects the first `count`; those."""
    spool = home / ".cirron/spool"
    written = sdk_batches(spool, count + 1, spans=5)
    with ScriptedServer(*[REJECTED] * count) as server:
        write_config(home, apiUrl=server.url, token="sk-1")
        done = run_cli("flush", "--quarantine", home=home, cwd=home)
        assert done.returncode == 1, done.stderr
        assert list(server.delivered) == [written[-1].batch_id]
    return written[:-1]


def test_a_rejected_batch_is_set_aside_with_a_word_why_and_the_flush_goes_on(tmp_path: Path) -> None:
    spool, aside = tmp_path / ".cirron/spool", tmp_path / ".cirron/quarantine"
    written = sdk_batches(spool, 3, spans=5)
    with ScriptedServer(REJECTED) as server:
        write_config(tmp_path, apiUrl=server.url, token="sk-1")
        done = run_cli("flush", "--quarantine", home=tmp_path, cwd=tmp_path)
        assert [upload.batch_id for upload in server.uploads] == [batch.batch_id for batch in written]
    name = written[0].name
    assert done.stdout == "Uploaded: 2  Failed: 0  Skipped: 0  Quarantined: 1\n"
    assert done.stderr.startswith(f"Warning: Rejected {name}: HTTP 422 Unprocessable ")
    assert done.stderr.endswith(f"Moved to {aside}.\n")
    assert "\x1b" not in done.stderr
    assert done.returncode == 1
    assert snapshot(spool) == []
    assert snapshot(aside) == written[:1]
    assert stat.S_IMODE(aside.stat().st_mode) == 0o700
    notes = [path for path in aside.iterdir() if path.name != name]
    assert len(notes) == 1
    note = json.loads(notes[0].read_text(encoding="utf-8"))
    assert note["name"] == name
    assert note["status"] == 422
    assert "repeat" in note["message"]  # what the server said: the only clue to what is wrong with it


def test_three_rejections_in_a_row_end_the_flush(tmp_path: Path) -> None:
    spool = tmp_path / ".cirron/spool"
    written = sdk_batches(spool, 5, spans=5)
    with ScriptedServer(*[REJECTED] * 3) as server:
        write_config(tmp_path, apiUrl=server.url, token="sk-1")
        done = run_cli("flush", "--quarantine", "--json", home=tmp_path, cwd=tmp_path)
        assert len(server.uploads) == 3
    document = done.json()
    assert isinstance(document, dict)
    counts = [document[key] for key in ("uploaded", "failed", "skipped", "quarantined")]
    assert counts == [0, 0, 2, 3]
    assert document["failures"] == []
    assert done.returncode == 1
    assert "3 batches were rejected in a row" in done.stderr
    assert done.stderr.endswith("Warning: Stopping flush; 2 batches left in spool.\n")
    assert snapshot(spool) == written[3:]
    assert snapshot(tmp_path / ".cirron/quarantine") == written[:3]


def test_list_as_text_and_as_json(tmp_path: Path) -> None:
    aside = tmp_path / ".cirron/quarantine"
    none = run_cli("quarantine", "list", cwd=tmp_path)
    assert (none.returncode, none.stdout) == (0, f"No batches in quarantine in {aside}\n")
    [batch] = quarantined(tmp_path)
    listed = run_cli("quarantine", "list", cwd=tmp_path, env={"COLUMNS": "40"})
    assert listed.lines[0].startswith(f"Quarantine: {aside}  (1 file, ")
    assert [cell.strip() for cell in listed.lines[2].split("│")[1:4]] == ["Rejected", "Size", "File"]
    assert listed.lines[4].split("│")[3].strip() == batch.name
    assert listed.lines[6].startswith(f"Rejected {batch.name}: HTTP 422 Unprocessable ")
    assert "\x1b" not in listed.stdout
    assert listed.returncode == 0
    document = run_cli("quarantine", "list", "--json", cwd=tmp_path).json()
    assert isinstance(document, dict)
    assert list(document) == ["dir", "files", "entries", "warnings", "exitCode"]
    assert (document["dir"], document["files"]) == (str(aside), 1)
    [entry] = document["entries"]
    assert list(entry) == ["name", "size", "rejectedAt", "status", "message"]
    assert (entry["name"], entry["size"], entry["status"]) == (batch.name, len(batch.data), 422)
    assert run_cli("inspect", cwd=tmp_path).lines == [
        f"No spool files found in {tmp_path}/.cirron/spool",
        run_cli("inspect", cwd=tmp_path).lines[-1],
    ]


def test_retry_moves_them_back_byte_for_byte_and_the_next_flush_sends_them(tmp_path: Path) -> None:
    spool, aside = tmp_path / ".cirron/spool", tmp_path / ".cirron/quarantine"
    first, second = quarantined(tmp_path, 2)
    one = run_cli("quarantine", "retry", second.name, cwd=tmp_path)
    assert one.stdout == "Success: Moved 1 batch back into the spool. Run cirron-spool flush to send them.\n"
    assert (snapshot(spool), snapshot(aside)) == ([second], [first])
    rest = run_cli("spool", "quarantine", "retry", cwd=tmp_path, prog="cirron")
    assert rest.returncode == 0
    assert snapshot(spool) == [first, second]
    assert not aside.exists()  # empty, its notes gone with the batches
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token="sk-1")
        assert run_cli("flush", home=tmp_path, cwd=tmp_path).returncode == 0
        assert server.delivered == {first.batch_id: first.data, second.batch_id: second.data}
    nothing = run_cli("quarantine", "retry", cwd=tmp_path)
    assert (nothing.returncode, nothing.stdout) == (0, f"No batches in quarantine in {aside}\n")


def test_retry_never_overwrites_a_batch(tmp_path: Path) -> None:
    [batch] = quarantined(tmp_path)
    (tmp_path / ".cirron/spool" / batch.name).write_bytes(b'{"another": 1}')
    done = run_cli("quarantine", "retry", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")  # no "Success: Moved 0 batches"
    assert done.stderr.startswith(f"Error: Could not move {batch.name} back: ")
    assert snapshot(tmp_path / ".cirron/quarantine") == [batch]
    assert (tmp_path / ".cirron/spool" / batch.name).read_bytes() == b'{"another": 1}'


def test_clear_asks_like_clear(tmp_path: Path) -> None:
    aside = tmp_path / ".cirron/quarantine"
    batches = quarantined(tmp_path, 2)
    for given, code in ((None, 2), ("n\n", 0)):
        piped = run_cli("quarantine", "clear", cwd=tmp_path, input=given)
        assert (piped.returncode, piped.stdout) == (code, "Cancelled.\n")
    question = f"? Delete 2 rejected batches from {aside}? (y/N) "
    for answer, code, last in (("n\n", 0, "Cancelled."), ("\x03", 130, "")):
        asked = run_cli_pty("quarantine", "clear", cwd=tmp_path, columns=300, answers=[(question, answer)])
        assert (asked.returncode, asked.text.rstrip().endswith(last)) == (code, True)
    assert snapshot(aside) == batches
    one = run_cli("quarantine", "clear", "--force", batches[0].name, cwd=tmp_path)
    assert (one.returncode, one.stdout) == (0, "Success: Deleted 1 rejected batch.\n")
    assert snapshot(aside) == batches[1:]
    question = f"? Delete 1 rejected batch from {aside}? (y/N) "
    agreed = run_cli_pty("quarantine", "clear", cwd=tmp_path, columns=300, answers=[(question, "y\n")])
    assert agreed.text.endswith("Success: Deleted 1 rejected batch.\r\n")
    assert not aside.exists()
    quarantined(tmp_path)
    piped = run_cli("quarantine", "clear", cwd=tmp_path, input="y")
    assert (piped.returncode, piped.stdout) == (0, "Success: Deleted 1 rejected batch.\n")
    assert not aside.exists()


@pytest.mark.thorough
def test_retry_and_clear_as_json(tmp_path: Path) -> None:
    aside = str(tmp_path / ".cirron/quarantine")
    fine = {"dir": aside, "failed": 0, "warnings": [], "exitCode": 0}
    first, second = quarantined(tmp_path, 2)

    def run(*words: str, code: int = 0, answer: str | None = None) -> dict[str, Any]:
        done = run_cli("quarantine", *words, "--json", cwd=tmp_path, input=answer)
        assert done.returncode == code, done.stderr
        return dict(json.loads(done.stdout))

    assert run("retry", first.name) == {**fine, "moved": 1}
    refused = run("clear", code=2, answer="")
    assert (refused["error"]["type"], refused["exitCode"], refused["deleted"]) == ("NoAnswer", 2, 0)
    (tmp_path / ".cirron/spool" / second.name).write_bytes(b"{}")
    failed = run("retry", second.name, code=1)
    assert (failed["failed"], failed["moved"], failed["exitCode"]) == (1, 0, 1)
    assert failed["error"]["message"].startswith(second.name)
    assert run("clear", "--force") == {**fine, "deleted": 1}
    assert run("retry") == {**fine, "moved": 0}
    assert run("clear") == {**fine, "deleted": 0}
    assert run("retry", first.name, code=2)["exitCode"] == 2


@pytest.mark.thorough
def test_a_name_that_is_not_in_quarantine_is_wrong_usage_and_escaped(tmp_path: Path) -> None:
    [batch] = quarantined(tmp_path)
    for name in ("1-ab.json", "../spool/x", "a\x1b[31m"):
        for action in (("retry",), ("clear", "--force")):
            done = run_cli("quarantine", *action, batch.name, name, cwd=tmp_path)
            assert done.returncode == 2
            assert done.stderr.endswith(" is not in quarantine (see cirron-spool quarantine list).\n")
            assert "\x1b" not in done.stderr
    assert snapshot(tmp_path / ".cirron/quarantine") == [batch]


def test_a_note_that_is_gone_or_hostile_keeps_the_list_readable(tmp_path: Path) -> None:
    aside = tmp_path / ".cirron/quarantine"
    batches = quarantined(tmp_path, 2)
    notes = sorted(path for path in aside.iterdir() if path.name not in {batch.name for batch in batches})
    notes[0].unlink()
    notes[1].write_text(
        json.dumps({"name": "x", "rejectedAt": "\x1b[2J", "status": "x", "message": "\x1b]0;owned\x07"}),
        encoding="utf-8",
    )
    done = run_cli("quarantine", "list", cwd=tmp_path)
    assert [batch.name in done.stdout for batch in batches] == [True, True]
    assert "\x1b" not in done.stdout
    assert done.returncode == 0
    assert run_cli("quarantine", "list", "--json", cwd=tmp_path).returncode == 0


def test_a_failed_answer_is_no_rejection(tmp_path: Path) -> None:
    spool = tmp_path / ".cirron/spool"
    written = sdk_batches(spool, 2, spans=5)
    with ScriptedServer(Answer(405)) as server:
        write_config(tmp_path, apiUrl=server.url, token="sk-1")
        done = run_cli("flush", "--quarantine", home=tmp_path, cwd=tmp_path)
    assert done.returncode == 1
    assert snapshot(spool) == written
    assert not (tmp_path / ".cirron/quarantine").exists()
