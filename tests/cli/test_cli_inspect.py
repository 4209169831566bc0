"""``inspect``: the user's page to the letter, in a pipe and on a terminal, as text and as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cirron_spool.cli.render import Times
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.quarantine import set_aside
from cirron_spool.text import iso_utc
from support.cli import command_line, spawn
from support.fork_server import run_cli
from support.spools import FIRST_NS, TINY, sdk_batches, snapshot, write_batch
from support.terminal import run_cli_pty

# The page's own three files, with sizes that are shown as the page shows them.
FIRST = "01776486598051509000-446a507b2456443f923f85774a0854e3.json"
SECOND = "01776486598073663000-b38212eb3835460ab6f2345a7ee3fd4c.json"
THIRD = "01776486601204118000-ff11aa22cc334455667788999aabbccdd.json"
PAGE_SIZES = {FIRST: 2_621_440, SECOND: 6144, THIRD: 9216}

PAGE_TABLE = """\
Spool: {place}  (3 files, 2.51 MB)
┌──────────────────────────┬─────────┬────────────────────────────────────────────────────────────┐
│ Timestamp                │    Size │ File                                                       │
├──────────────────────────┼─────────┼────────────────────────────────────────────────────────────┤
│ 2026-04-18T04:29:58.051Z │ 2.50 MB │ 01776486598051509000-446a507b2456443f923f85774a0854e3.json │
│ 2026-04-18T04:29:58.073Z │    6 KB │ 01776486598073663000-b38212eb3835460ab6f2345a7ee3fd4c.json │
│ 2026-04-18T04:30:01.204Z │    9 KB │ 01776486601204118000-ff11aa22cc334455667788999aabbccdd.json │
└──────────────────────────┴─────────┴────────────────────────────────────────────────────────────┘
Oldest: 2026-04-18T04:29:58.051Z   Newest: 2026-04-18T04:30:01.204Z
"""


def sparse(spool: Path, sizes: dict[str, int]) -> Path:
    """Files of these sizes that take no room: inspect must not read them anyway."""
    spool.mkdir(parents=True, exist_ok=True)
    for name, size in sizes.items():
        with (spool / name).open("wb") as file:
            file.truncate(size)
    return spool


def page_table(place: Path) -> str:
    """The page's table; its third name has a digit more than its column, which ours makes room for."""
    wide = max(len(name) for name in PAGE_SIZES)
    lines = []
    for line in PAGE_TABLE.format(place=place).splitlines():
        if line[0] in "┌├└":
            lines.append(line[:-1] + "─" * (wide - 58) + line[-1])
        elif line[0] == "│":
            head, _, last = line.removesuffix(" │").rpartition("│ ")
            lines.append(f"{head}│ {last:<{wide}} │")
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def test_the_pages_table_to_the_letter_in_a_pipe(tmp_path: Path) -> None:
    sparse(tmp_path / ".cirron/spool", PAGE_SIZES)
    done = run_cli("inspect", cwd=tmp_path, env={"COLUMNS": "40"})
    assert done.stdout == page_table(tmp_path / ".cirron/spool")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("columns", [100, 200])
def test_the_same_table_on_a_wide_terminal_without_a_colour(tmp_path: Path, columns: int) -> None:
    spool = sparse(tmp_path / "spool", PAGE_SIZES)
    done = run_cli_pty("inspect", "--dir", spool, columns=columns)
    assert done.text.replace("\r\n", "\n") == page_table(spool)
    assert done.returncode == 0


def box(text: str) -> list[str]:
    """The lines of the table on a terminal."""
    return [line for line in text.replace("\r\n", "\n").splitlines() if line[:1] in tuple("┌│├└")]


@pytest.mark.thorough
@pytest.mark.parametrize("columns", [18, 33, 40, 53, 62, 80, 98])
@pytest.mark.parametrize("command", ["inspect", "quarantine"])
def test_the_table_never_wraps_on_a_narrow_terminal(tmp_path: Path, columns: int, command: str) -> None:
    place = tmp_path / "wide 日本語 é/.cirron"
    names = {FIRST: 2_621_440, SECOND: 1023 << 20, f"{THIRD[:21]}{'a' * 33}.json": 1, "7-0a.json": 3}
    sparse(place / ("spool" if command == "inspect" else "quarantine"), names)
    words = ["inspect"] if command == "inspect" else ["quarantine", "list"]
    done = run_cli_pty(*words, "--dir", place / "spool", columns=columns)
    lines = box(done.text)
    assert len(lines) == len(names) + 4
    [width] = {len(line) for line in lines}
    assert width <= columns
    cells = [line.split("│")[-2].strip() for line in lines if line[0] == "│"][1:]
    for cell, name in zip(cells, sorted(names, key=lambda name: int(name.partition("-")[0])), strict=True):
        head, cut, tail = cell.partition("…")
        assert name.startswith(head)
        assert name.endswith(tail if cut else name)
        assert abs(len(head) - len(tail)) <= 1 or not cut
    # The columns of the environment count, as in other programs; a pipe has none.
    told = run_cli_pty(*words, "--dir", place / "spool", columns=200, env={"COLUMNS": str(columns)})
    assert box(told.text) == lines
    piped = run_cli(*words, "--dir", place / "spool", env={"COLUMNS": str(columns)})
    assert all(name in piped.stdout for name in names)


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["inspect", "quarantine"])
def test_the_count_stands_at_the_end_where_the_first_line_leaves_the_screen(
    tmp_path: Path, command: str
) -> None:
    place = tmp_path / ".cirron"
    sizes = {f"{FIRST_NS + number:020d}-ab.json": 1024 for number in range(30)}
    sparse(place / ("spool" if command == "inspect" else "quarantine"), sizes)
    words = ["inspect"] if command == "inspect" else ["quarantine", "list"]
    for rows, there in ((24, True), (36, True), (60, False)):
        done = run_cli_pty(*words, cwd=tmp_path, columns=120, rows=rows)
        last = done.text.splitlines()[-1]
        assert (last == "Total: 30 files, 30 KB") == there, (rows, last)
    assert "Total: " not in run_cli(*words, cwd=tmp_path, env={"LINES": "5"}).stdout
    told = run_cli_pty(*words, cwd=tmp_path, columns=120, rows=100, env={"LINES": "5"})
    assert "Total: 30 files, 30 KB" in told.text


def test_cirron_spool_is_the_same_command_twice(tmp_path: Path) -> None:
    sparse(tmp_path / ".cirron/spool", PAGE_SIZES)
    done = run_cli("spool", "inspect", cwd=tmp_path, prog="cirron")
    assert (done.returncode, done.stdout) == (0, page_table(tmp_path / ".cirron/spool"))


def test_the_pages_json_value_for_value_and_in_its_order(tmp_path: Path) -> None:
    spool = sparse(tmp_path / "spool", {FIRST: 2_633_103, SECOND: 444})
    done = run_cli("inspect", "--json", "--dir", "spool", cwd=tmp_path)
    first = {"name": FIRST, "createdNs": "1776486598051509000", "iso": "2026-04-18T04:29:58.051Z"}
    second = {"name": SECOND, "createdNs": "1776486598073663000", "iso": "2026-04-18T04:29:58.073Z"}
    expected = {
        "dir": str(spool),
        "files": 2,
        "totalBytes": 2_633_547,
        "oldest": first,
        "newest": second,
        "entries": [
            {
                "name": FIRST,
                "size": 2_633_103,
                "createdNs": "1776486598051509000",
                "iso": "2026-04-18T04:29:58.051Z",
            },
            {
                "name": SECOND,
                "size": 444,
                "createdNs": "1776486598073663000",
                "iso": "2026-04-18T04:29:58.073Z",
            },
        ],
    }
    # Text against text: the order of keys is part of it.
    assert json.dumps(done.json()) == json.dumps(expected)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_empty_spool_as_text_and_as_json(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    done = run_cli("inspect", "--dir", spool)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"No spool files found in {spool}\n", "")
    done = run_cli("inspect", "--dir", spool, "--json")
    document = {"dir": str(spool), "files": 0, "totalBytes": 0, "oldest": None, "newest": None, "entries": []}
    assert json.dumps(done.json()) == json.dumps(document)
    assert done.returncode == 0


def test_one_file_and_the_sizes_and_times_of_its_row(tmp_path: Path) -> None:
    # 2026-04-18T04:29:58.999999999Z: a rounded time would be another second.
    late = "01776486598999999999-ab.json"
    for size, shown in ((444, "444 B"), (1024, "1 KB"), (6656, "7 KB"), (5 << 30, "5.00 GB")):
        spool = sparse(tmp_path / str(size), {late: size})
        lines = run_cli("inspect", "--dir", spool).lines
        assert lines[0] == f"Spool: {spool}  (1 file, {shown})"
        assert lines[4].split("│")[1:3] == [
            " 2026-04-18T04:29:58.999Z ",
            f" {shown:>{max(len(shown), 4)}} ",
        ]
        assert lines[6] == "Oldest: 2026-04-18T04:29:58.999Z   Newest: 2026-04-18T04:29:58.999Z"


def test_order_is_by_time_as_a_number_then_by_name(tmp_path: Path) -> None:
    spool = sparse(tmp_path / "spool", {"9-aa.json": 1, "10-bb.json": 1, "00000000000000000009-cc.json": 1})
    listed = [line.split("│")[3].strip() for line in run_cli("inspect", "--dir", spool).lines[4:7]]
    assert listed == ["00000000000000000009-cc.json", "9-aa.json", "10-bb.json"]


def test_only_batches_are_counted(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    batch = write_batch(spool, FIRST_NS, "ab")
    (spool / f"{FIRST_NS:020d}-cd.json.tmp").write_bytes(b"{")
    (spool / f"{FIRST_NS:020d}-AB.json").write_bytes(b"{}")
    (spool / f"{FIRST_NS:020d}-0f.json").mkdir()
    (spool / f"{FIRST_NS:020d}-1f.json").symlink_to(batch)
    os.mkfifo(spool / f"{FIRST_NS:020d}-2f.json")
    (spool / "notes.json").write_bytes(b"{}")
    done = run_cli("inspect", "--json", "--dir", spool)
    document = done.json()
    assert isinstance(document, dict)
    assert [entry["name"] for entry in document["entries"]] == [batch.name]
    assert document["totalBytes"] == batch.stat().st_size


def test_the_directory_comes_from_the_flag_then_the_environment_and_is_shown_absolute(
    tmp_path: Path,
) -> None:
    env = {"CIRRON_OUTPUT_DIR": "out"}
    flagged = run_cli("inspect", "--dir", "here/../there", cwd=tmp_path, env=env)
    from_environment = run_cli("inspect", cwd=tmp_path, env=env)
    default = run_cli("inspect", cwd=tmp_path, env={"CIRRON_OUTPUT_DIR": ""})
    assert flagged.stdout == f"No spool files found in {tmp_path}/there\n"
    assert from_environment.stdout == f"No spool files found in {tmp_path}/out/spool\n"
    assert default.stdout == f"No spool files found in {tmp_path}/.cirron/spool\n"


def test_what_the_sdk_wrote_is_listed_whole(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    written = sdk_batches(spool, 5)
    document = run_cli("inspect", "--json", "--dir", spool).json()
    assert isinstance(document, dict)
    assert [(entry["name"], entry["size"]) for entry in document["entries"]] == [
        (batch.name, len(batch.data)) for batch in written
    ]


def test_a_quarantine_is_counted(tmp_path: Path) -> None:
    spool = sparse(tmp_path / "spool", PAGE_SIZES)
    with SpoolDirectory(spool) as opened:
        assert opened.open()
        set_aside(opened, THIRD, 400, "Rejected")
    done = run_cli("inspect", "--dir", spool)
    assert done.lines[-2].startswith("Oldest: ")
    # What to run next is for the same spool.
    assert done.lines[-1] == f"Quarantine: 1 file, 9 KB (see cirron-spool quarantine list --dir {spool})"
    (tmp_path / "the link").symlink_to(spool)
    linked = run_cli("inspect", "--dir", "the link/../spool", cwd=tmp_path)
    assert linked.lines[-1].endswith("(see cirron-spool quarantine list --dir 'the link/../spool')")
    here = run_cli("inspect", cwd=tmp_path, env={"CIRRON_OUTPUT_DIR": str(tmp_path)})
    assert here.lines[-1] == "Quarantine: 1 file, 9 KB (see cirron-spool quarantine list)"
    document = run_cli("inspect", "--json", "--dir", spool).json()
    assert isinstance(document, dict)
    assert (document["files"], document["quarantined"]) == (2, 1)


def test_control_characters_in_the_path_are_escaped_as_text_and_exact_in_json(tmp_path: Path) -> None:
    spool = sparse(tmp_path / "a\x1b[31m\nb\u202e", PAGE_SIZES)
    done = run_cli_pty("inspect", "--dir", spool)
    assert r"a\x1b[31m\nb\u202e" in done.text
    assert "\x1b" not in done.text
    assert "\u202e" not in done.text
    document = run_cli("inspect", "--json", "--dir", spool).json()
    assert isinstance(document, dict)
    assert document["dir"] == str(spool)


@pytest.mark.thorough
def test_a_reader_that_leaves_is_no_crash(tmp_path: Path) -> None:
    spool = sparse(tmp_path / "spool", {f"{number}-ab.json": 1 for number in range(3000)})
    done = run_cli("inspect", "--dir", spool, closed_stdout=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_behind_the_output_is_said(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    argv = ["sh", "-c", 'exec "$@" > /dev/full', "sh", *command_line(["inspect", "--dir", tmp_path])]
    with spawn(argv) as running:
        done = running.finish()
    assert done.stderr == "Error: Cannot write to standard output: No space left on device.\n"
    assert done.returncode == 1


def test_a_locale_without_boxes_still_gets_the_table(tmp_path: Path) -> None:
    spool = sparse(tmp_path / "spool", PAGE_SIZES)
    env = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert run_cli("inspect", "--dir", spool, env=env).stdout == page_table(spool)


def test_inspecting_needs_neither_a_home_nor_a_sound_configuration(tmp_path: Path) -> None:
    spool = sparse(tmp_path / "spool", PAGE_SIZES)
    home = tmp_path / "home"
    (home / ".cirron").mkdir(parents=True)
    (home / ".cirron/config.json").write_text("{")
    assert run_cli("inspect", "--dir", spool, home=home).stdout == page_table(spool)


# Seconds and days share what was found for the name before: times beside each other, and names of few digits.
BESIDE = st.integers(0, 2 * 86_400 * 10**9).map(lambda ns: 1_776_470_400_000_000_000 + ns)
DIGITS = (BESIDE | st.integers(0, 10**20) | st.integers(0, 10**40)).map(lambda ns: f"{ns:020d}") | st.text(
    "0123456789", min_size=1, max_size=30
)


@given(st.lists(DIGITS, min_size=1))
def test_each_name_has_its_own_time(digits: list[str]) -> None:
    times = Times()
    for created in digits:
        assert times.of(f"{created}-0a.json") == (str(int(created)), iso_utc(int(created)))


@pytest.mark.thorough
@pytest.mark.parametrize("made", ["file", "link", "loop", "unlistable"])
def test_a_quarantine_that_cannot_be_read_hides_no_batch(tmp_path: Path, made: str) -> None:
    spool = tmp_path / ".cirron" / "spool"
    batches = sdk_batches(spool, 2, spans=TINY)
    aside = spool.parent / "quarantine"
    if made == "file":
        aside.write_text("x")
    elif made == "link":
        (spool.parent / "file").write_text("x")
        aside.symlink_to("file")
    elif made == "loop":
        aside.symlink_to("quarantine")
    else:
        aside.mkdir()
        (aside / batches[0].name).mkdir()  # no batch, and so nothing to warn of
    done = run_cli("inspect", cwd=tmp_path)
    assert done.returncode == 0
    assert all(batch.name in done.stdout for batch in batches)
    warnings = done.stderr.splitlines()
    if made == "unlistable":
        assert warnings == []
    else:
        assert len(warnings) == 1
        assert warnings[0].startswith("Warning: The quarantine is not shown. ")
        assert str(aside) in warnings[0]
    # Where the quarantine is what was asked for, it is an error.
    listed = run_cli("quarantine", "list", cwd=tmp_path)
    assert (listed.returncode != 0) == (made != "unlistable")
    assert "Traceback" not in listed.stderr
    cleared = run_cli("clear", "--force", cwd=tmp_path)
    assert (cleared.returncode, cleared.stderr) == (0, "")
    assert snapshot(spool) == []


def test_the_newest_batches_only(tmp_path: Path) -> None:
    spool = sparse(tmp_path / "spool", PAGE_SIZES)
    lines = run_cli("inspect", "--dir", spool, "--last", "1").stdout.splitlines()
    assert lines[0] == f"Spool: {spool}  (3 files, 2.51 MB)"
    assert [line for line in lines if ".json" in line] == [f"│ 2026-04-18T04:30:01.204Z │ 9 KB │ {THIRD} │"]
    assert lines[-2:] == ["Shown: the newest 1 of 3 files", page_table(spool).splitlines()[-1]]
    assert run_cli("inspect", "--dir", spool, "--last", "3").stdout == page_table(spool)
    document = json.loads(run_cli("inspect", "--dir", spool, "--last", "2", "--json").stdout)
    assert [entry["name"] for entry in document["entries"]] == [SECOND, THIRD]
    assert document["files"] == 3


def test_the_summary(tmp_path: Path) -> None:
    spool = sparse(tmp_path / "spool", PAGE_SIZES)
    shown = run_cli("inspect", "--dir", spool, "--summary")
    assert shown.stdout.splitlines()[:4] == [
        f"Spool: {spool}  (3 files, 2.51 MB)",
        "Oldest: 2026-04-18T04:29:58.051Z   Newest: 2026-04-18T04:30:01.204Z",
        "Span: 3 seconds",
        f"Largest: 2.50 MB ({FIRST})",
    ]
    assert "SDK limit: 953.67 MB, 0 % full. Nothing was written in the last " in shown.stdout
    assert shown.stdout.endswith("\nBytes over time: █▁▂\n")
    document = json.loads(run_cli("inspect", "--dir", spool, "--summary", "--json").stdout)
    assert document["summary"]["largest"] == {"name": FIRST, "size": 2_621_440}
    assert "entries" not in document
    nothing = run_cli("inspect", "--dir", tmp_path, "--summary")
    assert nothing.stdout == f"No spool files found in {tmp_path}\n"
    both = run_cli("inspect", "--dir", spool, "--summary", "--last", "1")
    assert (both.returncode, both.stderr) == (
        2,
        "Error: --summary and --last exclude each other. Choose one.\n",
    )


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    spool = sparse(tmp_path / "spool", PAGE_SIZES)
    page = tmp_path / "page.html"
    page.write_text("before")
    failed = run_cli("inspect", "--dir", spool, "--html", tmp_path / "no" / "page.html")
    line = f"Error: Cannot write {tmp_path}/no/page.html: No such file or directory. Correct --html.\n"
    assert (failed.returncode, failed.stderr) == (2, line)
    assert run_cli("inspect", "--dir", spool, "--html", page, "--json").returncode == 2
    assert page.read_text() == "before"
    assert run_cli("inspect", "--dir", spool, "--html", page, "--last", "1").returncode == 0
    assert page.read_text().count(".json</td>") == 1
    assert [entry.name for entry in tmp_path.iterdir() if entry.name not in ("spool", "home")] == [
        "page.html"
    ]
    printed = run_cli("inspect", "--dir", spool, "--html", "-").stdout
    assert printed.startswith("<!doctype html>")
    assert printed.endswith("</html>\n")
