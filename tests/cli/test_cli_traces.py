"""``traces``: runs of the real SDK as a person and as a program see them; nothing is changed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from unicodedata import combining, east_asian_width

import pytest

from support.cli import Prog, run_cli
from support.runs import lay, mark, span, traced_run
from support.spools import FIRST_NS, snapshot
from support.terminal import run_cli_pty

ROOT = "5f2c81aa" + "0" * 24


def walk(node: dict[str, Any]) -> list[dict[str, Any]]:
    """A node of ``view --json`` and all below it."""
    return [node, *(each for child in node["children"] for each in walk(child))]


def state(folder: Path) -> list[tuple[str, int, int, int]]:
    """All that a write, a lock or a rename would change, of a folder and all in it."""
    found = [(path, path.lstat()) for path in [folder, *sorted(folder.rglob("*"))]]
    return [(str(path), each.st_ino, each.st_size, each.st_mtime_ns) for path, each in found]


@pytest.mark.parametrize("prog", ["cirron", "cirron-spool"])
def test_a_run_of_the_sdk_as_json_and_as_text(tmp_path: Path, prog: Prog) -> None:
    spool = traced_run(tmp_path / ".cirron", epochs=3, steps=25)
    before = state(tmp_path)
    listed = run_cli("traces", "list", "--json", cwd=tmp_path, prog=prog).json()
    assert isinstance(listed, dict)
    (session,) = listed["sessions"]
    sealed = snapshot(spool)
    # 3 epochs, of 25 steps with two scopes each, beside 25 of another thread.
    counts = {"spans": 1 + 3 * (1 + 25 * 4), "marks": 3 * 27, "snapshots": 3, "live": False, "rank": 0}
    assert {key: session[key] for key in counts} == counts
    assert (session["bytes"], session["batches"]) == (sum(len(each.data) for each in sealed), len(sealed))
    assert (listed["exitCode"], listed["warnings"]) == (0, [])

    seen = run_cli("traces", "view", "--json", cwd=tmp_path, prog=prog).json()
    assert isinstance(seen, dict)
    (viewed,) = seen["sessions"]
    assert {key: viewed[key] for key in session} == session
    nodes = walk(viewed["tree"])
    epochs = [node for node in nodes if node["name"] == "epoch"]
    assert [node["index"] for node in epochs] == [0, 1, 2]
    written = {each["id"]: each for batch in sealed for each in json.loads(batch.data)["spans"]}
    for node in epochs:
        own = written[node["id"]]
        assert (node["startNs"], node["endNs"]) == (str(own["start_ns"]), str(own["end_ns"]))
        (steps,) = node["children"]
        durations = sorted(
            each["end_ns"] - each["start_ns"] for each in written.values() if each["parent_id"] == node["id"]
        )
        assert (steps["count"], steps["totalNs"]) == (25, sum(durations))
        assert (steps["medianNs"], steps["p95Ns"], steps["maxNs"]) == (
            durations[12],
            durations[23],
            durations[24],
        )
    (loss,) = epochs[0]["children"][0]["marks"]
    assert (loss["count"], loss["last"], loss["min"], loss["max"]) == (25, 1 / 25, 1 / 25, 1.0)
    (odd,) = epochs[2]["children"][0]["marks"]
    assert (odd["last"], odd["lastNonfinite"], odd["nonfinite"]) == (None, "nan", 25)

    text = run_cli("traces", "view", cwd=tmp_path, prog=prog)
    assert (text.returncode, text.stderr) == (0, "")
    assert text.lines[0].startswith(f"Session {session['session']}  {session['iso']}, ")
    assert "├─ epoch[0]  " in text.stdout
    assert "{accuracy=0, best=True}" in text.stdout
    assert "step  ×25  total " in text.stdout
    assert "{loss ×25: last nan, 25 not finite}" in text.stdout
    assert "prefetch  ×75  total " in text.stdout
    assert run_cli("traces", "list", cwd=tmp_path, prog=prog).lines[0] == (
        f"Spool: {spool}  (1 session, {len(sealed)} batches, {_kb(session['bytes'])})"
    )
    assert state(tmp_path) == before


def _kb(size: int) -> str:
    return f"{(size + 512) >> 10} KB"


def test_broken_batches_are_named_and_passed_by(spool: Path) -> None:
    lay(spool, 1, {"spans": [span(ROOT, None, "cirron.session", 0, 9)]})
    cut = lay(spool, 2, b'{"spans":[{"id":"a"')
    odd = lay(
        spool,
        3,
        {"spans": [span("b", ROOT, "step", 1, 2), {"id": 7}], "marks": [mark("m", "b", "loss", {}, 1)]},
    )
    (spool / "01776486598051509009-0f.json").touch()
    done = run_cli("traces", "list", "--dir", spool)
    assert done.returncode == 0
    assert [line.split(" ", 2)[1:] for line in done.stderr.splitlines()] == [
        [cut.name, "is skipped: it is not JSON: Expecting ',' delimiter at character 19."],
        [odd.name, "has invalid records: 1 span left out (number 1: id is not text)."],
        [
            odd.name,
            "has invalid records: 1 mark left out (number 0: value is not a number, text or boolean).",
        ],
        ["01776486598051509009-0f.json", "is skipped: it is empty."],
    ]
    assert f"│ {ROOT} │ 2026-04-18T04:29:58.051Z │     9 ns │    0 │     2 │     0 │" in done.stdout


def test_ranks_of_one_run_are_shown_together_and_sessions_are_chosen(tmp_path: Path) -> None:
    for number in range(40):
        rank, run = number % 4, number // 4
        id_ = f"{run:02x}{rank:02x}{'0' * 28}"
        lay(
            tmp_path / "spool",
            number,
            {"spans": [span(id_, None, "cirron.session", run * 100 + rank, run * 100 + 90, rank=rank)]},
        )

    def ids(*args: str) -> list[str]:
        document = run_cli("traces", "view", "--json", "--dir", tmp_path / "spool", *args).json()
        assert isinstance(document, dict)
        return [each["session"][:4] for each in document["sessions"]]

    assert ids() == ["0900", "0901", "0902", "0903"]
    assert ids("--last", "2") == ["0902", "0903"]
    assert ids("--session", "0301") == ["0301"]
    for wrong in ("03", "ff"):
        done = run_cli("traces", "view", "--dir", tmp_path / "spool", "--session", wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("Error: ")
        assert f"begin{'' if wrong == '03' else 's'} with '{wrong}'" in done.stderr


@pytest.mark.parametrize("action", ["list", "view", "snapshots"])
def test_an_empty_spool_has_the_same_keys(tmp_path: Path, action: str) -> None:
    lay(tmp_path / "full", 1, {"spans": [span("r", None, "cirron.session", 0, 9)]})
    (tmp_path / "empty").mkdir()
    full, empty = (
        run_cli("traces", action, "--json", "--dir", tmp_path / each) for each in ("full", "empty")
    )
    assert isinstance(ours := empty.json(), dict)
    assert isinstance(theirs := full.json(), dict)
    assert list(ours) == list(theirs)
    assert ours["snapshots" if action == "snapshots" else "sessions"] == []


def test_an_export_of_no_place_warns(tmp_path: Path) -> None:
    done = run_cli("traces", "export", "--format", "csv", "--dir", tmp_path / "gone")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert "does not exist" in done.stderr


def test_no_traces_and_no_place(tmp_path: Path) -> None:
    for action in ("list", "view"):
        done = run_cli("traces", action, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, f"No traces found in {tmp_path}/.cirron/spool\n")
        gone = run_cli("traces", action, "--json", "--dir", tmp_path / "gone")
        assert isinstance(document := gone.json(), dict)
        assert (gone.returncode, document["sessions"], document["exists"]) == (0, [], False)
        assert "does not exist" in gone.stderr
    (tmp_path / "notes").write_text("x")
    wrong = run_cli("traces", "list", "--dir", tmp_path / "notes")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert (
        wrong.stderr
        == f"Error: {tmp_path}/notes is not a directory, tar or zip file. Pass --dir a spool or an archive.\n"
    )


def test_nothing_from_a_batch_controls_the_terminal_and_no_line_wraps(spool: Path) -> None:
    evil = "\x1b[2J\x1b]0;x\x07\u202eepoch\n"
    session = span(ROOT, None, "cirron.session", 0, 9)
    spans = [session, span(evil, ROOT, evil, 1, 2), span("o", evil + "x", evil, 1, 2)]
    lay(spool, 1, {"spans": spans, "marks": [mark("m", evil, evil, evil * 20, 1)]})
    for action in ("list", "view"):
        for columns in (20, 80, 200):
            done = run_cli_pty("traces", action, "--dir", "spool", cwd=spool.parent, columns=columns)
            assert done.returncode == 0
            assert not set(done.text) & {"\x1b", "\x07", "\u202e"}
            _note, place, *lines = done.text.replace("\r\n", "\n").splitlines()
            assert max(map(len, lines)) <= columns, (place, lines)


def test_wide_characters_take_two_columns(tmp_path: Path) -> None:
    wide, marks = "学習率" * 20, "e\u0301" * 20
    lay(
        tmp_path / "spool",
        1,
        {
            "spans": [span("r", None, "cirron.session", 0, 9), span("a", "r", wide, 1, 2)],
            "marks": [mark("m", "a", marks, 1.0, 1)],
            "snapshots": [
                {"id": name, "span_id": "r", "tensor_name": name, "ts_ns": FIRST_NS}
                for name in (wide, marks, "w")
            ],
        },
    )

    def width(text: str) -> int:
        return sum(2 if east_asian_width(each) == "W" else not combining(each) for each in text)

    rows: list[str] = []
    for columns in (40, 80):
        shown = run_cli_pty("traces", "view", "--dir", "spool", cwd=tmp_path, columns=columns)
        assert [width(line) for line in shown.text.splitlines()][-1] in (columns - 1, columns)
        table = run_cli_pty("traces", "snapshots", "--dir", "spool", cwd=tmp_path, columns=columns)
        _place, _head, *rows = table.text.splitlines()
        assert max(map(width, rows)) <= columns
    assert len({width(row.partition("2026-")[0]) for row in rows}) == 1


def test_the_start_of_a_session_is_whole_at_80_columns(tmp_path: Path) -> None:
    lay(tmp_path / "spool", 1, {"spans": [span(ROOT, None, "cirron.session", 0, 9)]})
    shown = run_cli_pty("traces", "list", "--dir", "spool", cwd=tmp_path, columns=80)
    assert re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", shown.text)
