"""``flush`` at a terminal: what a person sees while it runs, and what is left on the screen afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support.answers import json_answer
from support.cli import command_line, write_config
from support.scripted import Answer, Gate, ScriptedServer, ok
from support.spools import TINY, Sealed, sdk_batches, snapshot
from support.terminal import Exchange, TerminalResult, run_cli_pty, run_pty

TOKEN = "sk-very-secret-0123456789"
CTRL_C = "\x03"
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-9]|4[0-9]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")
_TOKEN = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b.|[\r\n\b]|[^\x1b\r\n\b]", re.DOTALL)


class Screen:
    """As much of a terminal as a progress bar needs; anything else that is sent to it fails the test.

    `frames` are the pictures that stood before something was erased, `lines` is the last one.
    """

    def __init__(self, text: str, columns: int) -> None:
        self.frames: list[list[str]] = []
        self.cursor_shown = True
        self._columns = columns
        self._rows: list[list[str]] = [[]]
        self._row = self._column = 0
        for found in _TOKEN.finditer(text):
            self._feed(found[0], found[1], found[2])

    @property
    def lines(self) -> list[str]:
        """The rows, without trailing blanks."""
        rows = ["".join(row).rstrip() for row in self._rows]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def _feed(self, token: str, parameters: str | None, final: str | None) -> None:
        if final is not None:
            self._control(parameters or "", final)
        elif token == "\r":
            self._column = 0
        elif token == "\n":
            self._down()
        else:
            assert token.isprintable(), f"{token!r} reached the terminal"
            if self._column == self._columns:
                self._down()
                self._column = 0
            row = self._rows[self._row]
            row.extend(" " * (self._column + 1 - len(row)))
            row[self._column] = token
            self._column += 1

    def _control(self, parameters: str, final: str) -> None:
        if final == "m":
            return
        if final in "hl":
            assert parameters == "?25"
            self.cursor_shown = final == "h"
        elif final == "K":
            assert parameters == "2"
            if self._rows[self._row]:
                self.frames.append(self.lines)
            self._rows[self._row] = []
        elif final == "A":
            self._row -= int(parameters or "1")
            assert self._row >= 0
        else:
            raise AssertionError(f"CSI {parameters}{final} reached the terminal")

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._rows):
            self._rows.append([])


def spool_of(home: Path, count: int, spans: int | tuple[int, int] = TINY) -> list[Sealed]:
    """`count` batches of the SDK in the spool below `home`."""
    return sdk_batches(home / ".cirron/spool", count, spans=spans)


def flush(home: Path, server: ScriptedServer, *args: str, **more: object) -> TerminalResult:
    """Flush the spool below `home` to `server` on a terminal."""
    write_config(home, apiUrl=server.url, token=TOKEN)
    return run_cli_pty("flush", *args, home=home, cwd=home, **more)  # type: ignore[arg-type]


def opening(gate: Gate) -> Callable[[int], None]:
    """An answer at the terminal that opens `gate`, whichever process asks."""
    return lambda _: gate.open()


def stopping(server: ScriptedServer) -> Callable[[int], str]:
    """Ctrl-C at the terminal, once the server has a batch: its name is on the screen before its request is sent."""

    def press(_: int) -> str:
        server.wait_for(1)
        return CTRL_C

    return press


def settled(screen: Screen) -> list[str]:
    """What stands on the screen in the end; a line of bytes, seconds and destination stands below the summary."""
    *lines, sent = screen.lines
    assert re.fullmatch(r"Sent: \d.* [KMG]?B.* in \d+\.\d s, .+/s, to http://127\.0\.0\.1:\d+", sent), (
        screen.lines
    )
    assert lines[-1].startswith("Uploaded: ")
    return lines


def shown(frames: list[list[str]], pattern: str) -> bool:
    return any(re.search(pattern, "\n".join(frame)) for frame in frames)


@pytest.mark.thorough
def test_the_bar_shows_it_all_and_leaves_only_the_summary(tmp_path: Path) -> None:
    written = spool_of(tmp_path, 4, spans=(10, 20))
    total = sum(len(batch.data) for batch in written)
    gates = [Gate() for _ in written]
    with ScriptedServer(*[ok(stall_before=gate) for gate in gates]) as server:
        # Each batch is held until the bar has shown it as the one in flight.
        answers: list[Exchange] = [
            (batch.name[:24], opening(gate)) for batch, gate in zip(written, gates, strict=True)
        ]
        done = flush(tmp_path, server, columns=200, answers=answers)
    assert done.returncode == 0
    screen = Screen(done.text, 200)
    assert settled(screen) == ["Uploaded: 4  Failed: 0  Skipped: 0"]
    for number in range(4):
        assert shown(screen.frames, rf"\b{number}/4 batches\b")
    kilobytes = (total + 512) >> 10
    assert shown(screen.frames, rf"\d+ (B|KB) / {kilobytes} KB")
    assert shown(screen.frames, r"\d+ (B|KB)/s")
    assert shown(screen.frames, r"\d:\d\d\b")
    for batch in written:
        assert shown(screen.frames, re.escape(batch.name))
    assert HIDE in done.text
    assert screen.cursor_shown
    assert TOKEN not in done.text


@pytest.mark.thorough
@pytest.mark.parametrize("columns", [40, 80])
def test_the_bar_keeps_its_shape_on_a_narrow_terminal(tmp_path: Path, columns: int) -> None:
    written = spool_of(tmp_path, 3, spans=(10, 20))
    gates = [Gate() for _ in written]
    with ScriptedServer(*[ok(stall_before=gate) for gate in gates]) as server:
        answers: list[Exchange] = [
            (batch.name[:9], opening(gate)) for batch, gate in zip(written, gates, strict=True)
        ]
        done = flush(tmp_path, server, columns=columns, answers=answers)
    screen = Screen(done.text, columns)
    assert screen.lines[0] == "Uploaded: 3  Failed: 0  Skipped: 0"
    assert "".join(screen.lines[1:]).startswith("Sent: ")
    frames = [frame for frame in screen.frames if any("batches" in line for line in frame)]
    assert frames
    for frame in frames:
        # Figures stand together with their units, on one line, and the picture does not grow and shrink.
        assert re.search(r"(?m)\b\d/3 batches\b", "\n".join(frame)), frame
        assert len(frame) <= 2, frame
        assert not any(re.fullmatch(r"\s*([KMGT]?B(/s)?|\d+)\s*", line) for line in frame), frame


@pytest.mark.thorough
def test_a_retry_counts_down_and_then_says_that_it_is_tried(tmp_path: Path) -> None:
    written = spool_of(tmp_path, 1)
    gate = Gate()
    answers = [Answer(503, headers=[("Retry-After", "2")]), ok(stall_before=gate)]
    with ScriptedServer(*answers) as server:
        seen: list[Exchange] = [
            ("retry in 2 s (attempt 2): HTTP 503 Service Unavailable  " + written[0].name, ""),
            ("retry in 1 s (attempt 2): HTTP 503 Service Unavailable  " + written[0].name, ""),
            # Held until the bar no longer speaks of a wait.
            ("mattempt 2  " + written[0].name, opening(gate)),
        ]
        done = flush(tmp_path, server, columns=200, answers=seen)
    assert done.returncode == 0
    assert "retry in 0 s" not in done.text
    assert settled(Screen(done.text, 200)) == ["Uploaded: 1  Failed: 0  Skipped: 0"]


def suspended(home: Path, then: str, *answers: Callable[[Gate, str], Exchange]) -> str:
    """The screen of a flush that is suspended by Ctrl-Z in a shell, which then does `then`; what was sent is checked.

    Each of `answers` is given the gate that the upload waits for, and the name of its batch.
    """
    if shutil.which("bash") is None:
        pytest.skip("no bash here, whose job control this needs")
    [batch] = spool_of(home, 1)
    gate = Gate()
    with ScriptedServer(ok(stall_before=gate)) as server:
        write_config(home, apiUrl=server.url, token=TOKEN)
        done = run_pty(
            ["bash", "-m", "-c", f'"$@"; echo suspended; {then}', "bash", *command_line(["flush"])],
            home=home,
            cwd=home,
            columns=200,
            answers=[(batch.name, "\x1a"), *(answer(gate, batch.name) for answer in answers)],
        )
    assert done.returncode == 0
    assert server.delivered == {batch.batch_id: batch.data}
    return done.text


def test_a_suspended_flush_gives_the_terminal_its_cursor_back(tmp_path: Path) -> None:
    text = suspended(
        tmp_path,
        "fg",
        lambda gate, name: (SHOW, ""),
        lambda gate, name: ("suspended", ""),
        lambda gate, name: (HIDE, ""),
        lambda gate, name: (name, opening(gate)),
    )
    before = text[: text.index("suspended")]
    assert before.count(HIDE) == before.count(SHOW) == 1
    assert "\x1b[2KUploaded: 1  Failed: 0  Skipped: 0\r\nSent: " in text
    assert text.rindex(SHOW) > text.rindex(HIDE)


def test_a_flush_that_goes_on_in_the_background_leaves_the_terminal_to_the_shell(tmp_path: Path) -> None:
    text = suspended(tmp_path, "bg; wait %1", lambda gate, name: ("suspended", opening(gate)))
    after = text[text.index("suspended") :]
    assert "Uploaded: 1  Failed: 0  Skipped: 0\r\n" in after
    assert HIDE not in after


def test_where_nobody_could_continue_it_a_flush_is_not_suspended(tmp_path: Path) -> None:
    """Alone on a terminal, as in a container: the system does not stop it either."""
    written = spool_of(tmp_path, 1)
    gate = Gate()
    with ScriptedServer(ok(stall_before=gate)) as server:
        seen: list[Exchange] = [
            (written[0].name, "\x1a"),
            (SHOW, ""),
            (HIDE, ""),
            (written[0].name, opening(gate)),
        ]
        done = flush(tmp_path, server, columns=200, answers=seen)
    assert done.returncode == 0
    assert settled(Screen(done.text, 200))[-1] == "Uploaded: 1  Failed: 0  Skipped: 0"


@pytest.mark.thorough
def test_the_rate_stands_still_while_a_retry_waits(tmp_path: Path) -> None:
    spool_of(tmp_path, 2, spans=(200, 300))
    with ScriptedServer(ok(), Answer(503, headers=[("Retry-After", "2")]), ok()) as server:
        done = flush(tmp_path, server, columns=200, answers=[("retry in 2 s", ""), ("retry in 1 s", "")])
    waiting = [frame for frame in Screen(done.text, 200).frames if any("retry in" in line for line in frame)]
    assert len(waiting) > 2
    assert len({frame[0] for frame in waiting}) == 1
    assert re.search(r"1/2 batches  .+/s  \d+:\d\d left", waiting[0][0])


def test_warnings_stand_whole_above_the_bar_and_stay(tmp_path: Path) -> None:
    written = spool_of(tmp_path, 3)
    gate = Gate()
    rejected = json_answer({"message": "\x1b]0;owned\x07"}, 422, reason="Not\x1b[2J this")
    with ScriptedServer(rejected, ok(stall_before=gate)) as server:
        # The name in the bar is cut on so narrow a terminal; the warning's is not.
        answers: list[Exchange] = [("Moved to ", ""), (written[1].name[:14], opening(gate))]
        done = flush(tmp_path, server, "--quarantine", columns=60, answers=answers)
    assert done.returncode == 1
    lines = Screen(done.text, 60).lines
    text = "".join(lines)
    assert text.startswith(rf"Warning: Rejected {written[0].name}: HTTP 422 Not\x1b[2J this")
    assert f"Moved to {tmp_path}/.cirron/quarantine." in text
    assert "Uploaded: 2  Failed: 0  Skipped: 0  Quarantined: 1" in lines
    assert "\x1b[2J" not in done.text
    assert "\x1b]" not in done.text
    assert "━" not in text


def test_an_error_leaves_the_pages_lines_in_its_order(tmp_path: Path) -> None:
    written = spool_of(tmp_path, 2)
    with ScriptedServer(Answer(401)) as server:
        done = flush(tmp_path, server, columns=200)
    assert Screen(done.text, 200).lines == [
        f"Error: Auth rejected (401) for {written[0].name}. Run cirron auth login.",
        "Warning: Stopping flush; 1 batch left in spool.",
        "Uploaded: 0  Failed: 1  Skipped: 1",
    ]
    assert done.returncode == 3


def test_what_ends_before_it_begins_leaves_no_trace_of_a_bar(tmp_path: Path) -> None:
    nothing = run_cli_pty("flush", home=tmp_path, cwd=tmp_path, columns=200)
    place = tmp_path / ".cirron/spool"
    assert Screen(nothing.text, 200).lines == [f"No spool files to flush in {place}"]
    spool_of(tmp_path, 1)
    refused = run_cli_pty("flush", home=tmp_path, cwd=tmp_path, columns=200)
    assert Screen(refused.text, 200).lines[0] == "Error: Not authenticated. Run cirron auth login first."
    assert Screen(refused.text, 200).cursor_shown
    assert (nothing.returncode, refused.returncode) == (0, 3)


def test_ctrl_c_lets_the_batch_in_flight_arrive_and_restores_the_terminal(tmp_path: Path) -> None:
    written = spool_of(tmp_path, 3)
    gate = Gate()
    with ScriptedServer(ok(stall_before=gate)) as server:
        answers: list[Exchange] = [
            (written[0].name[:24], stopping(server)),
            ("Warning: Stopping: ", opening(gate)),
        ]
        done = flush(tmp_path, server, columns=200, answers=answers)
        assert list(server.delivered) == [written[0].batch_id]
    assert done.returncode == 130
    screen = Screen(done.text, 200)
    assert settled(screen)[-2:] == [
        "Warning: Stopping flush; 2 batches left in spool.",
        "Uploaded: 1  Failed: 0  Skipped: 2",
    ]
    assert not any("━" in line for line in screen.lines)
    assert screen.cursor_shown
    assert "Traceback" not in done.text
    assert snapshot(tmp_path / ".cirron/spool") == written[1:]


def test_a_second_one_is_immediate_and_restores_the_terminal(tmp_path: Path) -> None:
    written = spool_of(tmp_path, 2)
    with ScriptedServer(Answer(hang=True)) as server:
        answers: list[Exchange] = [(written[0].name[:24], CTRL_C), ("Warning: Stopping: ", CTRL_C)]
        done = flush(tmp_path, server, columns=200, answers=answers)
    assert done.returncode == 130
    screen = Screen(done.text, 200)
    # The terminal signals before it echoes: the echo may come last.
    assert [line for line in screen.lines if line != "^C"][-1] == "Uploaded: 0  Failed: 0  Skipped: 2"
    assert screen.cursor_shown
    assert not any("━" in line for line in screen.lines)
    assert snapshot(tmp_path / ".cirron/spool") == written


@pytest.mark.thorough
def test_a_terminal_that_can_nothing_gets_plain_lines(tmp_path: Path) -> None:
    for term in ("dumb", "unknown", ""):
        spool_of(tmp_path, 2)
        with ScriptedServer() as server:
            done = flush(tmp_path, server, env={"TERM": term}, columns=40)
        assert done.returncode == 0
        assert settled(Screen(done.text, 200)) == ["Uploaded: 2  Failed: 0  Skipped: 0"]


@pytest.mark.parametrize("said", ["TTY_COMPATIBLE", "TTY_INTERACTIVE"])
def test_who_says_that_a_terminal_cannot_redraw_gets_lines(tmp_path: Path, said: str) -> None:
    spool_of(tmp_path, 2)
    with ScriptedServer() as server:
        done = flush(tmp_path, server, env={said: "0"})
    assert done.returncode == 0
    assert "\x1b" not in done.text
    assert settled(Screen(done.text, 200)) == ["Uploaded: 2  Failed: 0  Skipped: 0"]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("env", "size"),
    [
        ({"COLUMNS": "0"}, {}),
        ({"COLUMNS": "-7"}, {}),
        ({}, {"columns": 0}),
        ({}, {"rows": 1}),
        ({}, {"rows": 0}),
    ],
)
def test_the_count_is_shown_whatever_size_the_terminal_claims(
    tmp_path: Path, env: dict[str, str], size: dict[str, int]
) -> None:
    spool_of(tmp_path, 1)
    gate = Gate()
    with ScriptedServer(ok(stall_before=gate)) as server:
        done = flush(tmp_path, server, env=env, answers=[("0/1 batches", opening(gate))], **size)
    assert done.returncode == 0
    assert snapshot(tmp_path / ".cirron/spool") == []


@pytest.mark.thorough
def test_no_color_means_no_colour(tmp_path: Path) -> None:
    found = {}
    for env in ({}, {"NO_COLOR": "1"}):
        written = spool_of(tmp_path, 1)
        gate = Gate()
        with ScriptedServer(ok(stall_before=gate)) as server:
            answers: list[Exchange] = [(written[0].name[:24], opening(gate))]
            done = flush(tmp_path, server, env=env, columns=200, answers=answers)
        found["NO_COLOR" in env] = bool(COLOUR.search(done.text))
        assert settled(Screen(done.text, 200)) == ["Uploaded: 1  Failed: 0  Skipped: 0"]
    assert found == {False: True, True: False}


def test_the_bar_is_readable_without_colours(tmp_path: Path) -> None:
    written = spool_of(tmp_path, 4, spans=(10, 10))
    gates = [Gate() for _ in written]
    with ScriptedServer(*[ok(stall_before=gate) for gate in gates]) as server:
        answers: list[Exchange] = [
            (batch.name[:24], opening(gate)) for batch, gate in zip(written, gates, strict=True)
        ]
        done = flush(tmp_path, server, env={"NO_COLOR": "1"}, columns=200, answers=answers)
    frames = ["\n".join(frame) for frame in Screen(done.text, 200).frames]
    bars = [found for frame in frames if (found := re.search(r"(\S+) +([0-3])/4 batches", frame))]
    assert {found[2] for found in bars} == set("0123")
    for found in bars:
        # What was acknowledged, and it may be the batch in flight; batches are about equally large.
        quarters = 4 * found[1].count("━") / len(found[1])
        assert int(found[2]) - 0.5 < quarters < int(found[2]) + 1.5, found[0]
    assert {len(found[1]) for found in bars} == {len(bars[0][1])}


@pytest.mark.thorough
def test_a_hung_up_terminal_loses_nothing(tmp_path: Path) -> None:
    written = spool_of(tmp_path, 3)
    with ScriptedServer(ok(), Answer(hang=True)) as server:
        answers: list[Exchange] = [(written[1].name[:24], lambda pid: os.kill(pid, signal.SIGHUP))]
        done = flush(tmp_path, server, columns=200, answers=answers)
        assert len(server.delivered) == 1
    assert done.returncode != 0
    assert snapshot(tmp_path / ".cirron/spool") == written[1:]


def test_quiet_on_a_terminal_is_silence(tmp_path: Path) -> None:
    spool_of(tmp_path, 2)
    with ScriptedServer() as server:
        assert flush(tmp_path, server, "--quiet").screen == b""


def test_json_beside_the_bar(tmp_path: Path) -> None:
    written = spool_of(tmp_path, 2)
    gate = Gate()
    with ScriptedServer(ok(), ok(stall_before=gate)) as server:
        answers: list[Exchange] = [(written[1].name[:24], opening(gate))]
        done = flush(tmp_path, server, "--json", columns=200, answers=answers, terminal=("stdin", "stderr"))
    assert json.loads(done.out)["uploaded"] == 2
    screen = Screen(done.text, 200)
    assert screen.lines == []
    assert shown(screen.frames, "1/2 batches")


def test_words_in_a_pipe_are_plain_though_the_output_is_a_terminal(tmp_path: Path) -> None:
    written = spool_of(tmp_path, 2)
    with ScriptedServer(ok(), Answer(404)) as server:
        done = flush(tmp_path, server, terminal=("stdin", "stdout"), columns=40)
    assert settled(Screen(done.text, 200)) == ["Uploaded: 1  Failed: 1  Skipped: 0"]
    assert done.err.startswith(b"Error: Ingest route /api/traces not available on ")
    assert b"\x1b" not in done.err
    assert snapshot(tmp_path / ".cirron/spool") == written[1:]


def test_verbose_on_a_terminal_is_a_log_and_no_bar(tmp_path: Path) -> None:
    written = spool_of(tmp_path, 2)
    with ScriptedServer() as server:
        done = flush(tmp_path, server, "--verbose", columns=40)
    assert "\x1b" not in done.text
    assert f"sending {written[1].name} (" in done.text
    assert TOKEN not in done.text
