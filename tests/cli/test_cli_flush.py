"""``flush`` in a pipe: its texts, its exit codes, its forms of output, and its end by signals."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from support import fork_server
from support.answers import html, json_answer
from support.background import closed_port
from support.cli import CliResult, command_line, run_cli, spawn, spawn_cli, write_config
from support.scripted import Answer, AnswerLike, Gate, ScriptedServer, ok
from support.spools import TINY, Sealed, sdk_batches, snapshot, write_batch

TOKEN = "sk-very-secret-0123456789"
PAGE_NAME = "01776486598051509000-446a507b2456443f923f85774a0854e3.json"


def flush(home: Path, *args: str | Path, **more: object) -> CliResult:
    """Flush the spool below `home`, which is also the home."""
    return fork_server.run_cli("flush", *args, home=home, cwd=home, **more)  # type: ignore[arg-type]


def page_batch(home: Path) -> Path:
    """The page's own first batch in the spool below `home`."""
    return write_batch(home / ".cirron/spool", 1776486598051509000, "446a507b2456443f923f85774a0854e3")


def small(home: Path, count: int = 2) -> list[Sealed]:
    """`count` tiny batches of the SDK in the spool below `home`."""
    return sdk_batches(home / ".cirron/spool", count, spans=TINY)


# -- success -----------------------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("prog", ["cirron-spool", "cirron"])
def test_two_batches_go_out_oldest_first_and_the_summary_is_the_pages(tmp_path: Path, prog: str) -> None:
    written = sdk_batches(tmp_path / ".cirron/spool", 2)
    words = ["flush"] if prog == "cirron-spool" else ["spool", "flush"]
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = run_cli(
            *words, home=tmp_path, cwd=tmp_path, prog="cirron" if prog == "cirron" else "cirron-spool"
        )
        assert server.deliveries == [(batch.batch_id, batch.data) for batch in written]
        assert {upload.token for upload in server.uploads} == {TOKEN}
    assert (done.returncode, done.stdout, done.stderr) == (0, "Uploaded: 2  Failed: 0  Skipped: 0\n", "")
    assert snapshot(tmp_path / ".cirron/spool") == []


def test_an_empty_spool_needs_no_credentials_and_no_sound_configuration(tmp_path: Path) -> None:
    done = flush(tmp_path)
    place = tmp_path / ".cirron/spool"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"No spool files to flush in {place}\n", "")
    (tmp_path / ".cirron").mkdir(mode=0o700)
    (tmp_path / ".cirron/config.json").write_text("{", encoding="utf-8")
    (tmp_path / "other").mkdir()
    done = flush(tmp_path, "--dir", "other")
    assert (done.returncode, done.stdout) == (0, f"No spool files to flush in {tmp_path}/other\n")


def test_the_environment_overrides_the_file_and_flags_override_both(tmp_path: Path) -> None:
    written = sdk_batches(tmp_path / "out/spool", 1, spans=TINY)
    key = tmp_path / "key"
    key.write_text("sk-file\n", encoding="utf-8")
    with ScriptedServer() as ours, ScriptedServer() as theirs:
        write_config(tmp_path, apiUrl=theirs.url, token="sk-config")
        env = {"CIRRON_API_KEY": "sk-env", "CIRRON_API_ENDPOINT": ours.url, "CIRRON_OUTPUT_DIR": "out"}
        assert flush(tmp_path, env=env).returncode == 0
        assert [upload.token for upload in ours.uploads] == ["sk-env"]
        (tmp_path / "out/spool" / written[0].name).write_bytes(written[0].data)
        env["CIRRON_API_ENDPOINT"] = theirs.url
        flags = ["--api-url", ours.url, "--token-file", str(key), "--dir", "out/spool"]
        assert flush(tmp_path, *flags, env=env).returncode == 0
        assert [upload.token for upload in ours.uploads] == ["sk-env", "sk-file"]
        assert theirs.requests == []


def test_the_token_may_come_from_standard_input(tmp_path: Path) -> None:
    small(tmp_path, 1)
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url)
        done = flush(tmp_path, "--token-file", "-", input=f"{TOKEN}\n")
        assert [upload.token for upload in server.uploads] == [TOKEN]
    assert done.returncode == 0


@pytest.mark.parametrize("by", ["file", "pipe"])
def test_a_token_saved_by_windows(tmp_path: Path, by: str) -> None:
    small(tmp_path, 1)
    (tmp_path / "key").write_text(f"{TOKEN}\r\n", encoding="utf-8-sig", newline="")
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url)
        given = {"input": f"\ufeff{TOKEN}\r\n"} if by == "pipe" else {}
        assert flush(tmp_path, "--token-file", "-" if by == "pipe" else "key", **given).returncode == 0
        assert [upload.token for upload in server.uploads] == [TOKEN]


def test_no_verify_asks_nothing_first(tmp_path: Path) -> None:
    small(tmp_path, 1)
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        assert flush(tmp_path, "--no-verify").returncode == 0
        assert [request.path for request in server.requests] == ["/api/traces"]


# -- credentials -------------------------------------------------------------------------------------------------


def test_not_authenticated(tmp_path: Path) -> None:
    written = small(tmp_path)
    done = flush(tmp_path)
    assert done.returncode == 3
    assert done.stderr.splitlines()[0] == "Error: Not authenticated. Run cirron auth login first."
    assert snapshot(tmp_path / ".cirron/spool") == written


def test_auth_invalid_before_the_first_batch(tmp_path: Path) -> None:
    written = small(tmp_path)
    with ScriptedServer() as server:
        for status in (401, 403):
            server.on("GET", "/api/cli/status", json_answer({"error": "no"}, status))
            write_config(tmp_path, apiUrl=server.url, token=TOKEN)
            done = flush(tmp_path)
            assert done.returncode == 3
            assert (
                done.stderr.splitlines()[0] == "Error: Authentication invalid. Run cirron auth login first."
            )
        assert server.uploads == []
    assert snapshot(tmp_path / ".cirron/spool") == written


def test_a_401_in_mid_flush_says_the_pages_three_lines_in_its_order(tmp_path: Path) -> None:
    page_batch(tmp_path)
    write_batch(tmp_path / ".cirron/spool", 1776486598073663000, "b38212eb3835460ab6f2345a7ee3fd4c")
    with ScriptedServer(json_answer({"error": "expired"}, 401)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        # One stream for both, as a person or a log sees them: the order is part of the page.
        argv = ["sh", "-c", 'exec "$@" 2>&1', "sh", *command_line(["flush"])]
        with spawn(argv, home=tmp_path, cwd=tmp_path) as running:
            done = running.finish()
        assert len(server.uploads) == 1
    assert done.stdout == (
        f"Error: Auth rejected (401) for {PAGE_NAME}. Run cirron auth login.\n"
        "Warning: Stopping flush; 1 batch left in spool.\n"
        "Uploaded: 0  Failed: 1  Skipped: 1\n"
    )
    assert done.returncode == 3
    assert len(snapshot(tmp_path / ".cirron/spool")) == 2


def test_a_refused_token_is_renewed_silently_and_saved(tmp_path: Path) -> None:
    small(tmp_path)
    with ScriptedServer(check_auth=True, access_token="access-live", refresh_token="refresh-0") as server:
        config = write_config(
            tmp_path,
            apiUrl=server.url,
            theme="dark",
            auth={"accessToken": "access-old", "refreshToken": "refresh-0"},
        )
        done = flush(tmp_path)
        assert [upload.token for upload in server.uploads] == ["access-1", "access-1"]
    assert (done.returncode, done.stderr) == (0, "")
    saved = json.loads(config.read_text(encoding="utf-8"))
    assert (saved["theme"], saved["auth"]["accessToken"], saved["auth"]["refreshToken"]) == (
        "dark",
        "access-1",
        "refresh-1",
    )


def test_a_verification_that_fails_otherwise_is_a_warning(tmp_path: Path) -> None:
    small(tmp_path)
    with ScriptedServer() as server:
        server.on("GET", "/api/cli/status", Answer(500, "Internal \x1bError"))
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = flush(tmp_path)
    assert done.returncode == 0
    assert re.fullmatch(
        r"Warning: Could not verify auth before flush: .+\. Proceeding anyway\.\n", done.stderr
    )
    assert "\x1b" not in done.stderr


# -- answers -----------------------------------------------------------------------------------------------------

ROUTE = "Ingest route /api/traces not available on {url} (404). Platform may not have shipped the route yet."


@pytest.mark.parametrize(
    ("answer", "line", "code"),
    [
        (Answer(404), f"Error: {ROUTE}", 1),
        (Answer(413), "Error: Rejected {name}: HTTP 413 (Request Entity|Content|Payload) Too Large", 1),
        (Answer(409, "Already\x1b[2J there"), r"Error: Rejected {name}: HTTP 409 Already\\x1b\[2J there", 1),
        (Answer(405), "Error: Unexpected HTTP 405 for {name}", 1),
        (Answer(302, headers=[("Location", "/elsewhere")]), "Error: Unexpected HTTP 302 for {name}", 1),
        (html(), "Error: Unexpected HTTP 200 for {name}.*", 1),
        (json_answer({"message": "not \x1b"}, 403), r"Error: Permission denied \(403\) for {name}: not \\x1b", 3),
    ],
    ids=["404", "413", "409", "405", "302", "html", "403"],
)  # fmt: skip
def test_an_answer_that_ends_the_flush(tmp_path: Path, answer: Answer, line: str, code: int) -> None:
    written = small(tmp_path, 3)
    with ScriptedServer(answer) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = flush(tmp_path)
        assert len(server.uploads) == 1
        if answer.status == 404:
            line = re.escape(line.format(url=server.url))
    said = done.stderr.splitlines()
    assert re.fullmatch(line.replace("{name}", re.escape(written[0].name)), said[0])
    assert said[-1] == "Warning: Stopping flush; 2 batches left in spool."
    assert all(text.startswith(("Error: ", "Warning: ")) for text in said)
    assert done.stdout == "Uploaded: 0  Failed: 1  Skipped: 2\n"
    assert done.returncode == code
    assert "\x1b" not in done.stderr
    assert snapshot(tmp_path / ".cirron/spool") == written


def test_retries_until_it_works(tmp_path: Path) -> None:
    small(tmp_path, 1)
    with ScriptedServer(
        Answer(503, headers=[("Retry-After", "0")]), Answer(429, headers=[("Retry-After", "0")])
    ) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = flush(tmp_path, "--verbose")
        assert len(server.uploads) == 3
        assert len({upload.body for upload in server.uploads}) == 1
    assert (done.returncode, done.stdout) == (0, "Uploaded: 1  Failed: 0  Skipped: 0\n")
    assert "(attempt 2): " in done.stderr
    assert "(attempt 3): " in done.stderr


def test_out_of_retries_is_for_later(tmp_path: Path) -> None:
    written = small(tmp_path)
    with ScriptedServer(Answer(500), Answer(503, headers=[("Retry-After", "0")])) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN, retries=7)
        done = flush(tmp_path, "--retries", "0")
        assert len(server.uploads) == 1
        assert done.stderr.splitlines() == [
            f"Error: Upload of {written[0].name} failed: HTTP 500 Internal Server Error",
            "Warning: Stopping flush; 1 batch left in spool.",
        ]
        assert (done.returncode, done.stdout) == (4, "Uploaded: 0  Failed: 1  Skipped: 1\n")
        on_skip = flush(tmp_path, "--retries", "0", "--keep-going")
    assert (on_skip.returncode, on_skip.stdout) == (4, "Uploaded: 1  Failed: 1  Skipped: 0\n")
    assert snapshot(tmp_path / ".cirron/spool") == written[:1]


def test_a_retry_after_beyond_patience_says_when(tmp_path: Path) -> None:
    small(tmp_path)
    with ScriptedServer(Answer(429, headers=[("Retry-After", "3600")])) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = flush(tmp_path)
        assert len(server.uploads) == 1
    assert done.returncode == 4
    assert re.search(r"Run the flush again after \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \(in 3600 s\)", done.stderr)


def test_a_silent_server_times_out_in_the_pages_words(tmp_path: Path) -> None:
    page_batch(tmp_path)
    with ScriptedServer(Answer(hang=True)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN, timeout=30000)
        done = flush(tmp_path, "--timeout", "500", "--retries", "0", "--no-verify")
    assert done.stderr == f"Error: Network error uploading {PAGE_NAME}: timed out after 500ms\n"
    assert (done.returncode, done.stdout) == (4, "Uploaded: 0  Failed: 1  Skipped: 0\n")


def test_nobody_there_is_for_later(tmp_path: Path) -> None:
    page_batch(tmp_path)
    write_config(tmp_path, apiUrl=f"http://127.0.0.1:{closed_port()}", token=TOKEN)
    done = flush(tmp_path, "--retries", "0")
    assert done.returncode == 4
    said = done.stderr.splitlines()
    assert said[0].startswith("Warning: Could not verify auth before flush: ")
    assert said[1].startswith(f"Error: Network error uploading {PAGE_NAME}: cannot connect to 127.0.0.1:")
    assert said[1].endswith("Connection refused")


def test_the_second_flush_of_a_spool_ends_at_once(tmp_path: Path) -> None:
    small(tmp_path)
    answer = Gate()
    with ScriptedServer(ok(stall_before=answer)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        with spawn_cli("flush", home=tmp_path, cwd=tmp_path) as first:
            server.wait_for(1)
            second = flush(tmp_path)
            assert len(server.uploads) == 1
            answer.open()
            assert first.finish().returncode == 0
    assert second.returncode == 4
    assert second.stderr.startswith(f"Error: Another cirron-spool is working on {tmp_path}/.cirron/spool. ")
    assert "Failed: 0" in second.stdout
    assert "Uploaded: 0" in second.stdout
    assert snapshot(tmp_path / ".cirron/spool") == []


def test_what_is_skipped_is_said_and_counted(tmp_path: Path) -> None:
    spool = tmp_path / ".cirron/spool"
    empty = write_batch(spool, 1, "aa", b"")
    (spool / f"{2:020d}-bb.json").symlink_to(empty)
    small(tmp_path, 1)
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = flush(tmp_path)
        assert len(server.uploads) == 1
    assert (done.returncode, done.stdout) == (1, "Uploaded: 1  Failed: 0  Skipped: 1\n")
    said = done.stderr.splitlines()
    assert len(said) == 2
    assert any(empty.name in line and "empty" in line for line in said)
    assert any(f"{2:020d}-bb.json" in line and "symbolic link" in line for line in said)
    assert all(line.startswith("Warning: ") for line in said)
    assert len(list(spool.glob("*.json"))) == 2


# -- forms of output ---------------------------------------------------------------------------------------------


def test_json_at_the_end_with_its_keys_in_order_and_errors_beside_it(tmp_path: Path) -> None:
    written = small(tmp_path, 3)
    with ScriptedServer(ok(), Answer(400, "Bad\x1bRequest")) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = flush(tmp_path, "--json")
        sent = len(server.uploads[0].body)
    document = done.json()
    assert isinstance(document, dict)
    keys = "dir uploaded failed skipped quarantined evicted bytesRead bytesSent seconds failures"
    assert list(document) == [*keys.split(), "destination", "error", "warnings", "exitCode"]
    assert document["seconds"] >= 0
    del document["seconds"]
    message = rf"Rejected {written[1].name}: HTTP 400 Bad\x1bRequest"
    assert document == {
        "dir": str(tmp_path / ".cirron/spool"),
        "uploaded": 1,
        "failed": 1,
        "skipped": 1,
        "quarantined": 0,
        "evicted": 0,
        "bytesRead": len(written[0].data),
        "bytesSent": sent,
        "failures": [{"name": written[1].name, "status": 400, "message": message}],
        "destination": server.url,
        "error": {"type": "BatchesLeft", "message": message},
        "warnings": [line.removeprefix("Warning: ") for line in done.stderr.splitlines()[1:]],
        "exitCode": 1,
    }
    assert len(document["warnings"]) == 2
    assert done.stderr.splitlines()[0] == f"Error: {message}"
    assert done.returncode == 1


def test_json_is_one_document_in_every_ending(tmp_path: Path) -> None:
    nothing = flush(tmp_path, "--json")
    assert isinstance(nothing.json(), dict)
    assert (nothing.returncode, nothing.stderr) == (0, "")
    small(tmp_path)
    unauthenticated = flush(tmp_path, "--json")
    document = unauthenticated.json()
    assert isinstance(document, dict)
    assert (unauthenticated.returncode, document["skipped"], document["failures"]) == (3, 2, [])
    port = closed_port()
    refused = flush(
        tmp_path,
        "--json",
        "--retries",
        "0",
        "--api-url",
        f"http://127.0.0.1:{port}",
        env={"CIRRON_API_KEY": "k"},
    )
    document = refused.json()
    assert isinstance(document, dict)
    assert refused.returncode == 4
    assert [failure["status"] for failure in document["failures"]] == [None]


def test_json_events_a_line_each(tmp_path: Path) -> None:
    written = small(tmp_path, 4)
    answers = [ok(), Answer(503, headers=[("Retry-After", "0")]), ok(), Answer(422), Answer(404)]
    with ScriptedServer(*answers) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = flush(tmp_path, "--json-events", "--quarantine")
    events = [json.loads(line) for line in done.lines]
    names = [batch.name for batch in written]
    assert [(event["event"], event.get("name")) for event in events] == [
        ("start", None),
        ("uploaded", names[0]),
        ("retry", names[1]),
        ("uploaded", names[1]),
        ("quarantined", names[2]),
        ("warning", None),
        ("failed", names[3]),
        ("end", None),
    ]
    assert (events[2]["status"], events[4]["status"], events[6]["status"]) == (503, 422, 404)
    end = events[-1]
    assert (end["uploaded"], end["failed"], end["quarantined"]) == (2, 1, 1)
    assert f"Error: Ingest route /api/traces not available on {server.url} (404)." in done.stderr
    assert done.returncode == 1


def test_quiet_is_silent_unless_something_is_wrong(tmp_path: Path) -> None:
    written = small(tmp_path)
    with ScriptedServer(ok(), Answer(404)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = flush(tmp_path, "--quiet")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("Error: Ingest route /api/traces not available on ")
        assert snapshot(tmp_path / ".cirron/spool") == written[1:]
        done = flush(tmp_path, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verbose_tells_everything_but_the_token(tmp_path: Path) -> None:
    written = small(tmp_path)
    answers: list[AnswerLike] = [ok(), json_answer({"message": f"no {TOKEN}"}, 403)]
    with ScriptedServer(*answers) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = flush(tmp_path, "--verbose", env={"PYTHONASYNCIODEBUG": "1"})
    lines = done.stderr.splitlines()
    for batch in written:
        assert any(batch.name in line and "sending" in line for line in lines)
    assert any(written[0].name in line and "uploaded" in line for line in lines)
    assert any(f"Permission denied (403) for {written[1].name}" in line for line in lines)
    assert TOKEN not in done.stdout + done.stderr  # not even when the server says it back
    assert done.stdout == "Uploaded: 1  Failed: 1  Skipped: 0\n"


@pytest.mark.thorough
def test_no_escape_code_and_no_cut_in_a_pipe_whatever_the_environment_wishes(tmp_path: Path) -> None:
    spool = tmp_path / ("deep/" * 30) / "spool"
    sdk_batches(spool, 2, spans=TINY)
    wishes = {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1"}
    with ScriptedServer(Answer(503, headers=[("Retry-After", "0")]), ok(), Answer(400)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        env = {"COLUMNS": "40", "TERM": "xterm-256color", **wishes}
        done = flush(tmp_path, "--dir", spool, "--quarantine", env=env)
    assert b"\x1b" not in done.out + done.err
    assert b"\r" not in done.out + done.err
    assert str(spool.parent / "quarantine") in done.stderr
    assert len(done.stderr.splitlines()) == 1


# -- signals and closed streams ----------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_batch_in_flight_be_acknowledged(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    written = small(tmp_path, 3)
    answer = Gate()
    with ScriptedServer(ok(stall_before=answer)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        with spawn_cli("flush", home=tmp_path, cwd=tmp_path) as running:
            server.wait_for(1)
            running.send_signal(number)
            running.wait_for_text("Warning: Stopping: ", "stderr")
            answer.open()
            done = running.finish()
        assert list(server.delivered) == [written[0].batch_id]
        assert len(server.uploads) == 1
    assert done.returncode == code
    assert done.stdout == "Uploaded: 1  Failed: 0  Skipped: 2\n"
    assert done.stderr.splitlines()[-1] == "Warning: Stopping flush; 2 batches left in spool."
    assert snapshot(tmp_path / ".cirron/spool") == written[1:]


def test_a_signal_while_a_retry_waits_ends_it(tmp_path: Path) -> None:
    written = small(tmp_path)
    with ScriptedServer(Answer(503, headers=[("Retry-After", "120")])) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        with spawn_cli("flush", "--json-events", home=tmp_path, cwd=tmp_path) as running:
            running.wait_for_text('"retry"')
            running.send_signal(signal.SIGTERM)
            done = running.finish()
        assert len(server.uploads) == 1
    assert done.returncode == 143
    last = json.loads(done.lines[-1])
    assert (last["event"], last["uploaded"], last["failed"], last["skipped"]) == ("end", 0, 0, 2)
    assert snapshot(tmp_path / ".cirron/spool") == written


def test_a_second_signal_is_immediate(tmp_path: Path) -> None:
    written = small(tmp_path)
    with ScriptedServer(Answer(hang=True)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        with spawn_cli("flush", home=tmp_path, cwd=tmp_path) as running:
            server.wait_for(1)
            running.send_signal(signal.SIGINT)
            running.wait_for_text("Warning: Stopping: ", "stderr")
            running.send_signal(signal.SIGTERM)
            done = running.finish()
    assert done.returncode in (130, 143)
    assert done.stdout == "Uploaded: 0  Failed: 0  Skipped: 2\n"
    assert snapshot(tmp_path / ".cirron/spool") == written


@pytest.mark.thorough
def test_nobody_acknowledges_after_a_signal(tmp_path: Path) -> None:
    written = small(tmp_path)
    with ScriptedServer(Answer(hang=True)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        with spawn_cli("flush", home=tmp_path, cwd=tmp_path) as running:
            server.wait_for(1)
            running.send_signal(signal.SIGINT)
            done = running.finish()  # the grace is the flush's own
    assert (done.returncode, done.stdout) == (130, "Uploaded: 0  Failed: 0  Skipped: 2\n")
    assert snapshot(tmp_path / ".cirron/spool") == written


@pytest.mark.thorough
def test_a_flush_whose_reader_has_gone_goes_on_and_tells_of_the_flush(tmp_path: Path) -> None:
    written = small(tmp_path)
    with ScriptedServer(ok(), Answer(404)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = flush(tmp_path, "--json-events", closed_stdout=True)
        assert done.returncode == 1
        assert len(server.delivered) == 1
        done = flush(tmp_path, closed_stdout=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert len(server.delivered) == len(written)
    assert snapshot(tmp_path / ".cirron/spool") == []


def test_a_reader_that_leaves_in_the_middle_stops_nothing(tmp_path: Path) -> None:
    small(tmp_path, 4)
    answer = Gate()
    with ScriptedServer(ok(stall_before=answer)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        # `head` takes the first line and leaves; the shell tells how the flush itself ended.
        script = '{ "$@"; echo "ended with $?" >&2; } | head -n 1'
        argv = ["sh", "-c", script, "sh", *command_line(["flush", "--json-events"])]
        with spawn(argv, home=tmp_path, cwd=tmp_path) as running:
            server.wait_for(1)
            running.wait_for_text('"start"')
            answer.open()
            done = running.finish()
        assert len(server.delivered) == 4
    assert done.stderr == "ended with 0\n"
    assert len(done.lines) == 1


@pytest.mark.thorough
@pytest.mark.parametrize("closed", [">&- 2>&-", "<&-"])
def test_a_stream_that_was_never_there(tmp_path: Path, closed: str) -> None:
    small(tmp_path)
    with ScriptedServer(ok(), Answer(404)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        argv = ["sh", "-c", f'"$@" {closed}', "sh", *command_line(["flush"])]
        with spawn(argv, home=tmp_path, cwd=tmp_path) as running:
            done = running.finish()
        assert len(server.delivered) == 1
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_full_disk_behind_the_output_does_not_stop_the_flush(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    small(tmp_path, 3)
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        argv = ["sh", "-c", 'exec "$@" >/dev/full', "sh", *command_line(["flush", "--json-events"])]
        with spawn(argv, home=tmp_path, cwd=tmp_path) as running:
            done = running.finish()
        assert len(server.delivered) == 3
    assert "Cannot write to standard output: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(tmp_path / ".cirron/spool") == []
