"""``cirron WORD``: a word that is not ours goes to the next ``cirron`` on PATH, the official tool."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from support.cli import PYTHON_SCRIPT, CliResult, clean_environment, run_cli, spawn
from support.terminal import run_pty

OFFICIAL = f"""\
{PYTHON_SCRIPT}import os, sys
print("official", sys.argv[1:], "stdin", sys.stdin.read(), flush=True)
print("its warning", file=sys.stderr)
sys.exit(int(os.environ.get("FAKE_EXIT", "0")))
"""
OURS = f"""\
{PYTHON_SCRIPT}import sys
from cirron_spool.cli.main import cirron
sys.exit(cirron())
"""
NOT_HERE = (
    "Error: 'cirron {word}' is not implemented here, and no other cirron is on PATH. This one has: "
    "cirron spool inspect, flush, clear and quarantine.\n"
)


def program(folder: Path, text: str, name: str = "cirron") -> Path:
    """An executable called `name` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def run(path: Path, *args: str, search: list[Path], stdin: bytes = b"", **env: str) -> CliResult:
    """Run the program at `path` with the folders in `search` as its PATH."""
    places = {"PATH": os.pathsep.join(map(str, search)), **env}
    with spawn([str(path), *args], env=places, stdin=subprocess.PIPE) as running:
        running.write(stdin)
        return running.finish()


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return program(tmp_path / "ours", OURS)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    return program(tmp_path / "official", OFFICIAL)


def test_arguments_streams_and_exit_code_are_the_official_tools(ours: Path, official: Path) -> None:
    words = ["auth", "login", "--json", "-h", "--", "spool", "", "a b", "*", "\x1b[31mé"]
    done = run(ours, *words, search=[ours.parent, official.parent], stdin=b"typed", FAKE_EXIT="7")
    assert done.stdout == f"official {words!r} stdin typed\n"
    assert done.stderr == "its warning\n"
    assert done.returncode == 7


def test_it_becomes_the_official_tool_so_that_signals_and_terminals_are_its_own(
    tmp_path: Path, ours: Path
) -> None:
    asking = f"{PYTHON_SCRIPT}import os\nprint(os.getpid(), os.isatty(0), input('name? '))\n"
    other = program(tmp_path / "asking", asking)
    search = os.pathsep.join(map(str, [ours.parent, other.parent]))
    seen: list[int] = []

    def note(pid: int) -> None:
        seen.append(pid)

    done = run_pty([str(ours), "auth"], env={"PATH": search}, answers=[("name", note), ("? ", "alice\n")])
    assert done.text.endswith(f"{seen[0]} True alice\r\n")


def test_ours_is_found_wherever_it_stands_on_path(tmp_path: Path, ours: Path, official: Path) -> None:
    link = tmp_path / "bin/cirron"
    link.parent.mkdir()
    link.symlink_to(ours)
    for search in ([official.parent, ours.parent], [link.parent, ours.parent, official.parent]):
        done = run(link, "traces", "view", search=search)
        assert done.stdout == "official ['traces', 'view'] stdin \n"


def test_two_of_ours_do_not_call_each_other_for_ever(tmp_path: Path, ours: Path, official: Path) -> None:
    second = program(tmp_path / "second", OURS)
    third = program(tmp_path / "third", OURS)
    folders = [ours.parent, second.parent, third.parent]
    alone = run(ours, "auth", search=folders)
    assert (alone.returncode, alone.stderr) == (2, NOT_HERE.format(word="auth"))
    for search in ([*folders, official.parent], [official.parent, *reversed(folders)]):
        assert run(second, "auth", search=search).stdout == "official ['auth'] stdin \n"


def test_the_official_tool_may_call_ours_again(tmp_path: Path, ours: Path) -> None:
    # Its own scripts may run `cirron spool …`, and words of its own, in their turn.
    calling = program(
        tmp_path / "official",
        f"#!/bin/sh\n[ \"$1\" = inner ] && echo inner && exit 0\n'{ours}' spool inspect && '{ours}' inner\n",
    )
    search = [ours.parent, calling.parent, Path("/usr/bin"), Path("/bin")]
    done = run(ours, "outer", search=search)
    assert done.lines[0].startswith("No spool files found in ")
    assert done.lines[1:] == ["inner"]
    assert done.returncode == 0


def test_without_another_one_it_says_what_there_is(tmp_path: Path, ours: Path) -> None:
    for word, shown in (("auth", "auth"), ("\x1b[31m", r"\x1b[31m"), ("inspect", "inspect")):
        done = run(ours, word, search=[ours.parent])
        assert (done.returncode, done.stdout, done.stderr) == (2, "", NOT_HERE.format(word=shown))


def test_what_cannot_be_run_is_passed_over_or_said(tmp_path: Path, ours: Path, official: Path) -> None:
    plain = program(tmp_path / "plain", OFFICIAL)
    plain.chmod(stat.S_IRUSR | stat.S_IWUSR)
    folder = tmp_path / "folder/cirron"
    folder.mkdir(parents=True)
    dangling = tmp_path / "dangling/cirron"
    dangling.parent.mkdir()
    dangling.symlink_to(tmp_path / "nowhere")
    odd = [plain.parent, folder.parent, dangling.parent, tmp_path / "missing"]
    assert run(ours, "auth", search=[*odd, official.parent]).stdout == "official ['auth'] stdin \n"
    broken = program(tmp_path / "broken", "#!/nowhere/interpreter\n")
    done = run(ours, "auth", search=[broken.parent])
    assert done.returncode == 2
    assert done.stderr == f"Error: Cannot run {broken}: No such file or directory.\n"


def test_spool_and_options_are_never_handed_over(ours: Path, official: Path) -> None:
    search = [ours.parent, official.parent]
    assert run(ours, "spool", "inspect", search=search).stdout.startswith("No spool files found in ")
    assert run(ours, "--version", search=search).stdout.startswith("cirron-spool ")
    assert run(ours, "--help", search=search).stdout.startswith("usage: cirron ")
    unknown = run(ours, "spool", "frob", search=search)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    alone = run(ours, search=search)
    assert (alone.returncode, alone.stdout) == (2, "")


def test_cirron_spool_hands_nothing_over(official: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(official.parent), clean_environment(tmp_path)["PATH"]])
    done = run_cli("auth", "login", env={"PATH": path})
    assert done.returncode == 2
    assert "invalid choice" in done.stderr
    assert done.stdout == ""
