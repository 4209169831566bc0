"""``clear``: what it asks, what it takes for a yes, what it deletes and what it leaves alone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from support.cli import CliResult, command_line, spawn, spawn_cli, write_config
from support.fork_server import run_cli
from support.scripted import Gate, ScriptedServer, ok
from support.spools import FIRST_NS, sdk_batches, snapshot, write_batch
from support.terminal import Exchange, TerminalResult, run_cli_pty

SIZES = {
    "01776486598051509000-446a507b2456443f923f85774a0854e3.json": 2_621_440,
    "01776486598073663000-b38212eb3835460ab6f2345a7ee3fd4c.json": 6144,
    "01776486601204118000-ff11aa22cc334455667788999aabbccdd.json": 9216,
}
CTRL_C = "\x03"
CTRL_D = "\x04"


def page_spool(directory: Path) -> Path:
    """The page's three files, 2.51 MB together."""
    directory.mkdir(parents=True)
    for name, size in SIZES.items():
        with (directory / name).open("wb") as file:
            file.truncate(size)
    return directory


def asked(
    spool: Path,
    answer: str | Callable[[int], None],
    *more: str,
    terminal: Sequence[str] = ("stdin", "stdout", "stderr"),
) -> TerminalResult:
    """Clear on a terminal, answering the page's question to the letter."""
    question = f"? Delete 3 spool files (2.51 MB) from {spool}? (y/N) "
    answers: list[Exchange] = [(question, answer)]
    return run_cli_pty("clear", "--dir", spool, *more, columns=300, answers=answers, terminal=terminal)


@pytest.mark.parametrize("answer", ["y\n", " YES \n"])
def test_a_yes_deletes(tmp_path: Path, answer: str) -> None:
    spool = page_spool(tmp_path / "spool")
    done = asked(spool, answer)
    assert done.returncode == 0
    assert done.text.endswith("Success: Deleted 3 spool files.\r\n")
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("answer", ["n\n", "\n", "yep\n"])
def test_anything_else_is_a_refusal(tmp_path: Path, answer: str) -> None:
    spool = page_spool(tmp_path / "spool")
    done = asked(spool, answer)
    assert done.returncode == 0
    assert done.text.endswith("\r\nCancelled.\r\n")
    assert {path.name for path in spool.iterdir()} == set(SIZES)


def test_no_answer_at_the_terminal_deletes_nothing(tmp_path: Path) -> None:
    spool = page_spool(tmp_path / "spool")
    end = asked(spool, CTRL_D)
    assert end.returncode == 2
    assert end.text.endswith("\r\nCancelled.\r\n")
    assert "(y/N) \r\n" in end.text  # what is said next does not stand on the question's line
    typed_then_end = asked(spool, f"y{CTRL_D}{CTRL_D}")
    assert typed_then_end.returncode == 2
    typed = asked(spool, CTRL_C)
    assert typed.returncode == 130
    assert "Traceback" not in typed.text
    # By the signal alone: the terminal's echo of ^C, and its flush, may come before or after what we say.
    interrupted = asked(spool, lambda pid: os.kill(pid, signal.SIGINT))
    assert interrupted.returncode == 130
    assert interrupted.text.endswith("\n")  # the prompt of the shell begins on a line of its own
    assert {path.name for path in spool.iterdir()} == set(SIZES)


def piped(spool: Path, script: str, *more: str) -> CliResult:
    """Clear with the answer that a shell's `script` gives; "$@" in it is the command."""
    argv = ["sh", "-c", script, "sh", *command_line(["clear", "--dir", spool, *more])]
    with spawn(argv) as running:
        return running.finish()


@pytest.mark.parametrize(
    "script",
    [
        'echo yes | "$@"',
        'yes | "$@"',
        'printf Y | "$@"',
        "printf '  \\tyes \\r\\n' | \"$@\"",
        '"$@" <<END\n YES\nEND\n',
        "printf 'y\\nn\\n' > answers; \"$@\" < answers",
    ],
)
def test_an_answer_through_a_pipe_is_an_answer(tmp_path: Path, script: str) -> None:
    spool = page_spool(tmp_path / "spool")
    done = piped(spool, script)
    assert (done.returncode, done.stdout) == (0, "Success: Deleted 3 spool files.\n")
    assert done.stderr == f"? Delete 3 spool files (2.51 MB) from {spool}? (y/N) \n"
    assert list(spool.iterdir()) == []


@pytest.mark.thorough
@pytest.mark.parametrize(
    "script",
    [
        "printf 'n\\n' | \"$@\"",
        'echo | "$@"',
        'echo yyy | "$@"',
        'printf "y e s" | "$@"',
        "printf '\\377\\n' | \"$@\"",
        'head -c 3000000 /dev/zero | "$@"',
        'yes no | "$@"',
    ],
)
def test_another_answer_through_a_pipe_is_a_refusal(tmp_path: Path, script: str) -> None:
    spool = page_spool(tmp_path / "spool")
    done = piped(spool, script)
    assert (done.returncode, done.stdout) == (0, "Cancelled.\n")
    assert "Warning: " not in done.stderr
    assert {path.name for path in spool.iterdir()} == set(SIZES)


@pytest.mark.parametrize("script", ['"$@" < /dev/null', '"$@" <&-', ': | "$@"'])
def test_without_an_answer_nothing_is_deleted(tmp_path: Path, script: str) -> None:
    spool = page_spool(tmp_path / "spool")
    done = piped(spool, script)
    assert (done.returncode, done.stdout) == (2, "Cancelled.\n")
    assert done.stderr.splitlines()[-1] == (
        "Warning: Nothing was deleted: there was no answer. Pass --force to delete without asking."
    )
    assert {path.name for path in spool.iterdir()} == set(SIZES)


def test_json_tells_how_it_was_answered(tmp_path: Path) -> None:
    spool = page_spool(tmp_path / "spool")
    nothing = {"dir": str(spool), "deleted": 0, "failed": 0, "bytes": 0}
    refused = piped(spool, 'echo n | "$@"', "--json")
    assert refused.json() == {**nothing, "warnings": [], "exitCode": 0}
    silent = piped(spool, '"$@" < /dev/null', "--json")
    message = "Nothing was deleted: there was no answer. Pass --force to delete without asking."
    error = {"type": "NoAnswer", "message": message}
    assert silent.json() == {**nothing, "error": error, "warnings": [message], "exitCode": 2}
    assert silent.returncode == 2
    agreed = piped(spool, 'echo y | "$@"', "--json")
    assert agreed.json() == {
        **nothing,
        "deleted": 3,
        "bytes": sum(SIZES.values()),
        "warnings": [],
        "exitCode": 0,
    }


def test_force_asks_nothing(tmp_path: Path) -> None:
    spool = page_spool(tmp_path / ".cirron/spool")
    done = run_cli("clear", "--force", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Success: Deleted 3 spool files.\n", "")
    assert list(spool.iterdir()) == []
    again = run_cli("clear", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, f"No spool files to clear in {spool}\n")


def test_one_file_is_in_the_singular(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    write_batch(spool, FIRST_NS, "ab", b"{}")
    question = f"? Delete 1 spool file (2 B) from {spool}? (y/N) "
    done = run_cli_pty("clear", "--dir", spool, columns=300, answers=[(question, "y\n")])
    assert done.text.endswith("Success: Deleted 1 spool file.\r\n")


def test_json_and_its_empty_form(tmp_path: Path) -> None:
    spool = page_spool(tmp_path / "spool")
    size = sum(SIZES.values())
    for deleted, freed in ((3, size), (0, 0)):
        done = run_cli("clear", "--force", "--json", "--dir", spool)
        document = {
            "dir": str(spool),
            "deleted": deleted,
            "failed": 0,
            "bytes": freed,
            "warnings": [],
            "exitCode": 0,
        }
        assert json.dumps(done.json()) == json.dumps(document)
        assert (done.returncode, done.stderr) == (0, "")


def test_json_asks_beside_its_document(tmp_path: Path) -> None:
    spool = page_spool(tmp_path / "spool")
    done = asked(spool, "y\n", "--json", terminal=("stdin", "stderr"))
    assert done.returncode == 0
    assert json.loads(done.out)["deleted"] == 3


def test_the_question_reaches_the_person_whose_output_goes_to_a_file(tmp_path: Path) -> None:
    spool = page_spool(tmp_path / "spool")
    done = asked(spool, "y\n", terminal=("stdin", "stderr"))
    assert done.out == b"Success: Deleted 3 spool files.\n"


def test_only_batches_are_deleted(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    batch = write_batch(spool, FIRST_NS, "ab")
    target = tmp_path / "precious.json"
    target.write_bytes(b"{}")
    left = {f"{FIRST_NS:020d}-{odd}" for odd in ("cd.json.tmp", "AB.json", "1f.json", "0f.json", "2f.json")}
    (spool / f"{FIRST_NS:020d}-cd.json.tmp").write_bytes(b"{")
    (spool / f"{FIRST_NS:020d}-AB.json").write_bytes(b"{}")
    (spool / f"{FIRST_NS:020d}-1f.json").symlink_to(target)
    (spool / f"{FIRST_NS:020d}-0f.json").mkdir()
    os.mkfifo(spool / f"{FIRST_NS:020d}-2f.json")
    done = run_cli("clear", "--force", "--dir", spool)
    assert (done.returncode, done.stdout) == (0, "Success: Deleted 1 spool file.\n")
    assert not batch.exists()
    assert {path.name for path in spool.iterdir()} == left
    assert target.read_bytes() == b"{}"


def test_what_comes_while_the_question_stands_is_not_deleted(tmp_path: Path) -> None:
    spool = page_spool(tmp_path / "spool")

    def seal_another(pid: int) -> None:
        del pid
        write_batch(spool, FIRST_NS, "ab")

    question = f"? Delete 3 spool files (2.51 MB) from {spool}? "
    answers: list[Exchange] = [(question, seal_another), ("(y/N) ", "y\n")]
    done = run_cli_pty("clear", "--dir", spool, columns=300, answers=answers)
    assert done.text.endswith("Success: Deleted 3 spool files.\r\n")
    assert [path.name for path in spool.iterdir()] == [f"{FIRST_NS:020d}-ab.json"]


def test_a_flush_at_work_is_not_disturbed(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    written = sdk_batches(spool, 2)
    answer = Gate()
    with ScriptedServer(ok(stall_before=answer)) as server:
        write_config(tmp_path, apiUrl=server.url, token="sk-1")
        with spawn_cli("flush", "--dir", spool, home=tmp_path) as flush:
            server.wait_for(1)
            refused = run_cli("clear", "--force", "--dir", spool)
            assert snapshot(spool) == written
            answer.open()
            assert flush.finish().returncode == 0
        assert len(server.delivered) == 2
    assert refused.returncode == 4
    assert refused.stdout == ""
    [line] = refused.stderr.splitlines()
    assert line.startswith(
        f"Error: Another cirron-spool is working on {spool}. It is process {flush.pid} on "
    )
    assert line.endswith("Z. Wait for it to end, then run this again.")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may delete anything")
def test_a_directory_that_cannot_be_changed_is_said(tmp_path: Path) -> None:
    spool = page_spool(tmp_path / "spool")
    spool.chmod(0o500)
    try:
        done = run_cli("clear", "--force", "--dir", spool)
    finally:
        spool.chmod(0o700)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: No write permission on {spool}")
    assert {path.name for path in spool.iterdir()} == set(SIZES)


def test_the_name_of_the_directory_cannot_drive_the_terminal_that_is_asked(tmp_path: Path) -> None:
    spool = page_spool(tmp_path / "a\x1b]0;owned\x07")
    question = rf"from {tmp_path}/a\x1b]0;owned\x07? (y/N) "
    done = run_cli_pty("clear", "--dir", spool, columns=300, answers=[(question, "n\n")])
    assert "\x1b" not in done.text
    assert run_cli("clear", "--force", "--dir", spool).returncode == 0


def test_cirron_spool_clear_and_a_signal(tmp_path: Path) -> None:
    spool = page_spool(tmp_path / ".cirron/spool")

    def terminate(pid: int) -> None:
        os.kill(pid, signal.SIGTERM)

    answers: list[Exchange] = [("(y/N) ", terminate)]
    done = run_cli_pty("spool", "clear", cwd=tmp_path, columns=300, answers=answers, prog="cirron")
    assert done.returncode in (-signal.SIGTERM, 143)  # either way a shell reports 143
    assert len(list(spool.iterdir())) == 3
    assert run_cli("spool", "clear", "--force", cwd=tmp_path, prog="cirron").returncode == 0
    assert list(spool.iterdir()) == []
