"""Less than all, and a dry run, from the command line: tables, forms, questions, exit codes, wrong values."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cirron_spool.cli.arguments.build import parse
from cirron_spool.text import iso_utc
from support.cli import CliResult, write_config
from support.fork_server import run_cli
from support.scripted import Answer, ScriptedServer
from support.spools import TINY, Sealed, sdk_batches, snapshot, write_batch
from support.terminal import run_cli_pty

TOKEN = "sk-very-secret-0123456789"
HOUR = 3600 * 10**9


@pytest.fixture
def aged(tmp_path: Path) -> list[Sealed]:
    """Batches of 72, 48, 5 and 1 hours ago, with 3000, 500, 100 and 2000 bytes."""
    now = time.time_ns()
    for place, (hours, size) in enumerate(((72, 3000), (48, 500), (5, 100), (1, 2000))):
        write_batch(tmp_path / ".cirron/spool", now - hours * HOUR, f"{place:02x}", b"x" * size)
    return snapshot(tmp_path / ".cirron/spool")


def run(home: Path, *args: str, answer: str | None = None) -> CliResult:
    return run_cli(*args, home=home, cwd=home, input=answer)


def names(text: str) -> list[str]:
    """The names in a table, or in any other text, in order."""
    return re.findall(r"[0-9]+-[0-9a-f]+\.json", text)


SELECTIONS = [
    (["--limit", "2"], [0, 1]),
    (["--limit", "9"], [0, 1, 2, 3]),
    (["--max-bytes", "3500"], [0, 1]),
    (["--max-bytes=3499"], [0]),
    (["--max-bytes", "3K"], [0]),
    (["--older-than", "2h"], [0, 1, 2]),
    (["--older-than", "1.5d"], [0, 1]),
    (["--older-than", "3w"], []),
    (["--newer-than", "300m"], [3]),
    (["--newer-than", "3600000ms"], []),
    (["--newer-than", "301m", "--limit", "1"], [2]),
    (["--older-than", "2h", "--newer-than", "3d"], [1, 2]),
    (["--newer-than", "2000-01-01"], [0, 1, 2, 3]),
    (["--older-than", "2000-01-01T00:00+05:00"], []),
]


# -- inspect ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "places"), SELECTIONS, ids=lambda value: " ".join(map(str, value)))
def test_inspect_lists_the_selected_part(
    tmp_path: Path, aged: list[Sealed], options: list[str], places: list[int]
) -> None:
    chosen = [aged[place] for place in places]
    shown = run(tmp_path, "inspect", *options)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert names(shown.stdout) == [batch.name for batch in chosen]
    if chosen == aged:
        assert "Left out" not in shown.stdout
    else:
        number = f"{len(aged) - len(chosen)} file{'s' if len(aged) - len(chosen) > 1 else ''}"
        assert shown.lines[-1] == f"Left out by the selection: {number}"
    if not chosen:
        assert shown.lines[0] == f"No spool files selected in {tmp_path}/.cirron/spool"
    form = json.loads(run(tmp_path, "inspect", "--json", *options).out)
    assert list(form) == ["dir", "files", "totalBytes", "oldest", "newest", "entries", "leftOut"]
    entries = [
        {
            "name": batch.name,
            "size": len(batch.data),
            "createdNs": str(batch.created_ns),
            "iso": iso_utc(batch.created_ns),
        }
        for batch in chosen
    ]
    assert form["entries"] == entries
    assert (form["files"], form["leftOut"]) == (len(chosen), len(aged) - len(chosen))
    assert form["totalBytes"] == sum(len(batch.data) for batch in chosen)
    ends: list[object] = [
        {key: entry[key] for key in ("name", "createdNs", "iso")} for entry in entries[:1] + entries[-1:]
    ]
    assert [form["oldest"], form["newest"]] == (ends or [None, None])


def test_without_a_selection_the_forms_are_as_they_were(tmp_path: Path, aged: list[Sealed]) -> None:
    form = json.loads(run(tmp_path, "inspect", "--json").out)
    assert list(form) == ["dir", "files", "totalBytes", "oldest", "newest", "entries"]
    assert "leftOut" not in json.loads(run(tmp_path, "clear", "--force", "--json").out)
    assert len(aged) == 4


def test_the_moment_that_inspect_shows_divides_the_spool(tmp_path: Path) -> None:
    batches = sdk_batches(tmp_path / ".cirron/spool", 5, spans=TINY)
    shown = iso_utc(batches[2].created_ns)
    older = run(tmp_path, "inspect", "--older-than", shown)
    newer = run(tmp_path, "inspect", "--newer-than", shown)
    assert names(older.stdout) == [batch.name for batch in batches[:2]]
    assert names(newer.stdout) == [batch.name for batch in batches[2:]]


def test_a_bound_below_the_first_batch(tmp_path: Path, aged: list[Sealed]) -> None:
    spool = tmp_path / ".cirron/spool"
    said = (
        f"{aged[0].name} alone has 3 KB, more than the bound of 100 B. Nothing is selected. Raise the bound."
    )
    for command, code in ((["inspect"], 0), (["clear", "--force"], 0), (["clear", "-n"], 0)):
        done = run(tmp_path, *command, "--max-bytes", "100")
        assert (done.returncode, done.stderr) == (code, f"Warning: {said}\n")
        assert done.lines == [f"No spool files selected in {spool}", "Left out by the selection: 4 files"]
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        flush = run(tmp_path, "flush", "--max-bytes", "100")
        form = json.loads(run(tmp_path, "flush", "--max-bytes", "100", "--json").out)
        tried = run(tmp_path, "flush", "-n", "--max-bytes", "100")
        assert server.uploads == []
    assert (flush.returncode, flush.stderr) == (1, f"Warning: {said}\n")
    assert flush.stdout == "Uploaded: 0  Failed: 0  Skipped: 0  Left out: 4\n"
    assert (form["error"], form["leftOut"]) == ({"type": "BatchesLeft", "message": said}, 4)
    assert (tried.returncode, tried.stderr) == (1, f"Warning: {said}\n")
    assert snapshot(spool) == aged


# -- flush -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "places"), SELECTIONS, ids=lambda value: " ".join(map(str, value)))
def test_flush_sends_the_selected_part_and_a_dry_run_has_said_so(
    tmp_path: Path, aged: list[Sealed], options: list[str], places: list[int]
) -> None:
    chosen = [aged[place] for place in places]
    rest = [batch for batch in aged if batch not in chosen]
    older = len([batch for batch in rest if chosen and batch.created_ns < chosen[0].created_ns])
    warning = (
        f"Warning: The selection leaves out {older} older batch{'es' if older > 1 else ''}: "
        "they stay, and will arrive after newer ones.\n"
        if older
        else ""
    )
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        tried = run(tmp_path, "flush", "-n", *options)
        assert [request.path for request in server.requests] == ["/api/cli/status"]
        assert snapshot(tmp_path / ".cirron/spool") == aged
        done = run(tmp_path, "flush", *options)
    assert (tried.returncode, tried.stderr) == (0, warning)
    assert names(tried.stdout) == [batch.name for batch in chosen]
    if chosen:
        assert re.fullmatch(
            rf"Dry run: {len(chosen)} files? \([^)]+\) would be sent to {server.url}\. "
            r"The platform accepts the token\.",
            tried.lines[-1],
        )
    left = f"  Left out: {len(rest)}" if rest else ""
    assert done.stdout == f"Uploaded: {len(chosen)}  Failed: 0  Skipped: 0{left}\n"
    assert (done.returncode, done.stderr) == (0, warning)
    assert [batch_id for batch_id, _ in server.deliveries] == [batch.batch_id for batch in chosen]
    assert snapshot(tmp_path / ".cirron/spool") == rest


def test_the_forms_of_a_dry_run(tmp_path: Path, aged: list[Sealed]) -> None:
    entries = [
        {
            "name": batch.name,
            "size": len(batch.data),
            "createdNs": str(batch.created_ns),
            "iso": iso_utc(batch.created_ns),
        }
        for batch in aged[:2]
    ]
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = run(tmp_path, "flush", "--dry-run", "--json", "--limit", "2")
        events = run(tmp_path, "flush", "--dry-run", "--json-events", "--limit", "2")
        quiet = run(tmp_path, "flush", "-nq")
        verbose = run(tmp_path, "flush", "-n", "-v")
        whole = json.loads(run(tmp_path, "flush", "-n", "--json", "--no-verify").out)
        assert server.uploads == []
    assert (done.returncode, done.stderr) == (0, "")
    form = json.loads(done.out)
    assert form == {
        "dir": f"{tmp_path}/.cirron/spool",
        "uploaded": 0,
        "failed": 0,
        "skipped": 2,
        "quarantined": 0,
        "evicted": 0,
        "bytesRead": 0,
        "bytesSent": 0,
        "seconds": form["seconds"],
        "failures": [],
        "destination": server.url,
        "dryRun": True,
        "files": 2,
        "totalBytes": 3500,
        "entries": entries,
        "verified": True,
        "leftOut": 2,
        "warnings": [],
        "exitCode": 0,
    }
    lines = [json.loads(line) for line in events.lines]
    assert [line["event"] for line in lines] == ["start", "planned", "planned", "end"]
    assert [{key: line[key] for key in entries[0]} for line in lines[1:3]] == entries
    end = {**form, "seconds": lines[3]["seconds"]}
    del end["entries"]
    assert {key: value for key, value in lines[3].items() if key not in ("event", "time")} == end
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    assert "flushing 4 batches (5 KB)" in verbose.stderr
    assert names(verbose.stdout) == [batch.name for batch in aged]
    assert (whole["verified"], whole["files"], "leftOut" in whole) == (False, 4, False)


def test_a_dry_run_that_cannot_begin(tmp_path: Path, aged: list[Sealed]) -> None:
    del aged
    for form in ("--json", "--quiet"):
        signed_out = run(tmp_path, "flush", "-n", form)
        assert signed_out.returncode == 3
        assert signed_out.stderr.startswith(
            "Error: Not authenticated. Run cirron auth login first.\nWarning: There is"
        )
        assert "Stopping flush" not in signed_out.stderr
    with ScriptedServer() as server:
        server.on("GET", "/api/cli/status", default=Answer(403))
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        refused = run(tmp_path, "flush", "-n")
        server.on("GET", "/api/cli/status", default=Answer(500))
        unknown = run(tmp_path, "flush", "-n")
        unasked = run(tmp_path, "flush", "-n", "--no-verify")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr.startswith("Error: Authentication invalid. Run cirron auth login first.\n")
    assert unknown.returncode == 0
    assert unknown.stderr.startswith("Warning: Could not verify auth before flush: HTTP 500")
    assert unknown.lines[-1].endswith(" The platform did not say whether the token is valid.")
    assert unasked.lines[-1].endswith(" The platform was not asked about the token.")
    assert TOKEN not in refused.stdout + refused.stderr + unknown.stdout + unknown.stderr


def test_a_dry_run_of_an_empty_spool(tmp_path: Path) -> None:
    spool = tmp_path / ".cirron/spool"
    flush, clear = run(tmp_path, "flush", "-n"), run(tmp_path, "clear", "-n")
    assert (flush.returncode, flush.stdout) == (0, f"No spool files to flush in {spool}\n")
    assert (clear.returncode, clear.stdout) == (0, f"No spool files to clear in {spool}\n")
    missing = json.loads(run(tmp_path, "flush", "-n", "--json").out)
    assert (missing["exists"], missing["entries"], missing["verified"]) == (False, [], False)


def test_a_selection_in_an_ending_without_a_flush(tmp_path: Path, aged: list[Sealed]) -> None:
    done = run(tmp_path, "flush", "--limit", "3", "--json")
    form = json.loads(done.out)
    assert (form["skipped"], form["leftOut"], done.returncode) == (3, len(aged) - 3, 3)
    assert "Stopping flush; 3 batches left in spool." in done.stderr


def test_a_dry_run_on_a_terminal_draws_no_bar(tmp_path: Path, aged: list[Sealed]) -> None:
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = run_cli_pty("flush", "--dry-run", home=tmp_path, cwd=tmp_path, columns=110, rows=6)
    assert done.returncode == 0
    assert "\x1b" not in done.text
    assert names(done.text) == [batch.name for batch in aged]


# -- clear -----------------------------------------------------------------------------------------------------------


def test_clear_asks_with_the_selected_count_and_deletes_no_other(tmp_path: Path, aged: list[Sealed]) -> None:
    spool = tmp_path / ".cirron/spool"
    refused = run(tmp_path, "clear", "--older-than", "2d", answer="n\n")
    assert (refused.returncode, refused.stdout) == (0, "Cancelled.\n")
    assert refused.stderr == f"? Delete 2 spool files (3 KB) from {spool}? (y/N) \n"
    assert snapshot(spool) == aged
    done = run(tmp_path, "clear", "--older-than", "2d", answer="y\n")
    assert done.stdout == "Success: Deleted 2 spool files.\nLeft out by the selection: 2 files\n"
    assert snapshot(spool) == aged[2:]
    form = json.loads(run(tmp_path, "clear", "-y", "--json", "--limit", "1").out)
    assert form == {
        "dir": str(spool),
        "deleted": 1,
        "failed": 0,
        "bytes": 100,
        "leftOut": 1,
        "warnings": [],
        "exitCode": 0,
    }
    assert snapshot(spool) == aged[3:]


def test_a_dry_run_of_a_clear_asks_nothing_and_deletes_nothing(tmp_path: Path, aged: list[Sealed]) -> None:
    spool = tmp_path / ".cirron/spool"
    for force in ([], ["--force"]):
        done = run(tmp_path, "clear", "--dry-run", *force, "--limit", "3", answer="y\n")
        assert (done.returncode, done.stderr) == (0, "")
        assert names(done.stdout) == [batch.name for batch in aged[:3]]
        assert done.lines[-2:] == [
            "Left out by the selection: 1 file",
            "Dry run: 3 files (4 KB) would be deleted.",
        ]
    form = json.loads(run(tmp_path, "clear", "-n", "--json").out)
    assert [entry["name"] for entry in form.pop("entries")] == [batch.name for batch in aged]
    nothing = {"dir": str(spool), "deleted": 0, "failed": 0, "bytes": 0}
    assert form == {**nothing, "dryRun": True, "files": 4, "totalBytes": 5600, "warnings": [], "exitCode": 0}
    assert snapshot(spool) == aged


# -- flags and wrong values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("flush -n", "flush --dry-run"),
        ("flush -q", "flush --quiet"),
        ("flush -v", "flush --verbose"),
        ("flush -nv", "flush --dry-run --verbose"),
        ("clear -f", "clear --force"),
        ("clear -y", "clear --force"),
        ("clear -nf", "clear --dry-run --force"),
        ("quarantine clear -y", "quarantine clear --force"),
        ("receive --store x -v", "receive --store x --verbose"),
    ],
)
def test_short_flags(short: str, long: str) -> None:
    assert parse("cirron-spool", short.split()) == parse("cirron-spool", long.split())


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", timedelta(hours=2)),
        ("1.5 h", timedelta(minutes=90)),
        ("90s", timedelta(seconds=90)),
        ("0s", timedelta(0)),
        ("3d", timedelta(days=3)),
        ("2w", timedelta(weeks=2)),
        ("2026-04-18", datetime(2026, 4, 18, tzinfo=UTC)),
        ("2026-04-18T04:29:58.051Z", datetime(2026, 4, 18, 4, 29, 58, 51_000, tzinfo=UTC)),
        ("2026-04-18 04:30", datetime(2026, 4, 18, 4, 30, tzinfo=UTC)),
        ("2026-04-18T06:30+02:00", datetime(2026, 4, 18, 4, 30, tzinfo=UTC)),
    ],
)
def test_times_are_ages_or_moments_in_utc(
    monkeypatch: pytest.MonkeyPatch, text: str, moment: timedelta | datetime
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert parse("cirron-spool", ["flush", "--older-than", text]).older_than == moment
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


NEITHER = "No batch is both older than --older-than and newer than --newer-than. Exchange the two times."


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["inspect", "clear", "flush"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--limit", "0"],
            "--limit needs a whole number of 1 or more, for example --limit 100. It cannot be '0'.",
        ),
        (["--limit", "2.5"], "It cannot be '2.5'."),
        (["--limit", "-1"], "It cannot be '-1'."),
        (["--limit", "9" * 30], "--limit needs a whole number"),
        (["--max-bytes", "0"], "--max-bytes needs a size of 1 or more, with a unit"),
        (["--max-bytes", "lots"], "for example --max-bytes 500M. It cannot be 'lots'."),
        (
            ["--older-than", "2"],
            "--older-than needs a time before now, such as 30m, 2h or 3d, or a date, such as",
        ),
        (["--older-than", ""], "for example --older-than 2h. It cannot be ''."),
        (["--older-than", "-2h"], "--older-than needs a value, as in --older-than 2h."),
        (["--older-than", "2 hours"], "It cannot be '2 hours'."),
        (["--older-than", "40000d"], "It cannot be '40000d'."),
        (["--newer-than", "2026-13-01"], "It cannot be '2026-13-01'."),
        (["--newer-than", "2026-04-18T25:00"], "It cannot be '2026-04-18T25:00'."),
        (["--newer-than", "20260418"], "It cannot be '20260418'."),
        (["--newer-than", "yesterday"], "It cannot be 'yesterday'."),
        (["--older-than", "2h", "--older-than", "3h"], "--older-than was given twice. Give it once."),
        (["--older-than", "2h", "--newer-than", "1h"], NEITHER),
        (["--older-than", "2h", "--newer-than", "120m"], NEITHER),
        (["--older-than", "2026-04-18", "--newer-than", "2026-04-19"], NEITHER),
    ],
    ids=str,
)
def test_wrong_values(tmp_path: Path, command: str, options: list[str], said: str) -> None:
    batches = sdk_batches(tmp_path / ".cirron/spool", 1, spans=TINY)
    done = run(tmp_path, command, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"Error: [^\n]+\n", done.stderr)
    assert said in done.stderr
    assert snapshot(tmp_path / ".cirron/spool") == batches


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("flush -q -v", "--quiet and --verbose exclude each other. Choose one."),
        ("flush -vq", "--quiet and --verbose exclude each other. Choose one."),
        ("flush --quiet -v", "--quiet and --verbose exclude each other. Choose one."),
        ("flush --dry-run=yes", "--dry-run takes no value."),
        ("flush --quiet=1", "--quiet takes no value."),
        ("clear --force=1", "--force takes no value."),
        ("inspect --dry-run", "There is no option '--dry-run'."),
        ("clear --dry-ru", "Did you mean --dry-run?"),
        ("flush -x", "There is no option '-x'."),
    ],
)
def test_wrong_flags(options: str, said: str) -> None:
    done = run_cli(*options.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
