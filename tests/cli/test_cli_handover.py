"""``cirron WORD``: a word that is not ours goes to the next ``cirron`` on PATH, the official tool."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from cirron_spool import __version__
from cirron_spool.cli.arguments.build import OWN_WORDS
from cirron_spool.cli.arguments.parser import listed
from support.cli import PYTHON_SCRIPT, CliResult, clean_environment, spawn
from support.fork_server import run_cli
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
    f"{listed([f'cirron {word}' for word in OWN_WORDS])}.\n"
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
    words = ["deploy", "login", "--json", "-h", "--", "spool", "", "a b", "*", "\x1b[31mé"]
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

    done = run_pty([str(ours), "deploy"], env={"PATH": search}, answers=[("name", note), ("? ", "alice\n")])
    assert done.text.endswith(f"{seen[0]} True alice\r\n")


def test_ours_is_found_wherever_it_stands_on_path(tmp_path: Path, ours: Path, official: Path) -> None:
    link = tmp_path / "bin/cirron"
    link.parent.mkdir()
    link.symlink_to(ours)
    for search in ([official.parent, ours.parent], [link.parent, ours.parent, official.parent]):
        done = run(link, "deploy", "view", search=search)
        assert done.stdout == "official ['deploy', 'view'] stdin \n"


def test_two_of_ours_do_not_call_each_other_for_ever(tmp_path: Path, ours: Path, official: Path) -> None:
    second = program(tmp_path / "second", OURS)
    third = program(tmp_path / "third", OURS)
    folders = [ours.parent, second.parent, third.parent]
    alone = run(ours, "deploy", search=folders)
    assert (alone.returncode, alone.stderr) == (2, NOT_HERE.format(word="deploy"))
    for search in ([*folders, official.parent], [official.parent, *reversed(folders)]):
        assert run(second, "deploy", search=search).stdout == "official ['deploy'] stdin \n"


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


@pytest.mark.thorough
def test_without_another_one_it_says_what_there_is(tmp_path: Path, ours: Path) -> None:
    for word, shown in (("deploy", "deploy"), ("\x1b[31m", r"\x1b[31m")):
        done = run(ours, word, search=[ours.parent])
        assert (done.returncode, done.stdout, done.stderr) == (2, "", NOT_HERE.format(word=shown))
    for word, meant in (
        ("inspct", "spool inspect"),
        ("flush", "spool flush"),
        ("spoool", "spool"),
        ("Spol", "spool"),
    ):
        for words in ([word], ["-v", word, "--json"]):
            done = run(ours, *words, search=[ours.parent])
            said = NOT_HERE.format(word=word).rstrip()
            assert (done.returncode, done.stderr) == (2, f"{said} Did you mean cirron {meant}?\n")


def test_what_cannot_be_run_is_passed_over_or_said(tmp_path: Path, ours: Path, official: Path) -> None:
    plain = program(tmp_path / "plain", OFFICIAL)
    plain.chmod(stat.S_IRUSR | stat.S_IWUSR)
    folder = tmp_path / "folder/cirron"
    folder.mkdir(parents=True)
    dangling = tmp_path / "dangling/cirron"
    dangling.parent.mkdir()
    dangling.symlink_to(tmp_path / "nowhere")
    odd = [plain.parent, folder.parent, dangling.parent, tmp_path / "missing"]
    assert run(ours, "deploy", search=[*odd, official.parent]).stdout == "official ['deploy'] stdin \n"
    broken = program(tmp_path / "broken", "#!/nowhere/interpreter\n")
    done = run(ours, "deploy", search=[broken.parent])
    assert done.returncode == 2
    assert done.stderr == f"Error: Cannot run {broken}: No such file or directory.\n"


@pytest.mark.parametrize(
    "words",
    [
        ["-v", "deploy", "login"],
        ["--profile", "dev", "--no-color", "deploy", "view"],
        ["--api-url=https://x", "deploy", "--json"],
        ["--help", "deploy"],
        ["help", "deploy"],
        ["--", "deploy"],
        ["-q"],
        ["--frob=3"],
    ],
    ids=" ".join,
)
def test_options_before_a_foreign_word_go_with_it(ours: Path, official: Path, words: list[str]) -> None:
    done = run(ours, *words, search=[ours.parent, official.parent], FAKE_EXIT="5")
    assert (done.returncode, done.stdout) == (5, f"official {words!r} stdin \n")


def test_spool_is_never_handed_over(ours: Path, official: Path) -> None:
    search = [ours.parent, official.parent]
    assert run(ours, "spool", "inspect", search=search).stdout.startswith("No spool files found in ")
    for wrong in (["spool", "frob"], ["-x", "spool", "inspect"], ["spool", "--jsn"]):
        unknown = run(ours, *wrong, search=search)
        assert (unknown.returncode, unknown.stdout) == (2, "")
        assert unknown.stderr.startswith("Error: There is no ")


@pytest.mark.thorough
@pytest.mark.parametrize(
    "words", [["--help"], ["-h"], ["help"], ["help", "spool", "flush"], []], ids=" ".join
)
def test_the_help_says_where_other_words_go(ours: Path, official: Path, words: list[str]) -> None:
    done = run(ours, *words, search=[ours.parent, official.parent])
    assert done.returncode == (0 if words else 2)
    text = " ".join(done.stdout.split())
    if words == ["help", "spool", "flush"]:
        assert text.startswith("usage: cirron spool flush ")
        return
    assert text.startswith("usage: cirron ")
    assert "Any other command (such as deploy) is handed over, with all its options" in text
    assert done.lines[-1] == f"next cirron on PATH: {official}"
    alone = run(ours, *words, search=[ours.parent])
    assert alone.lines[-1] == "next cirron on PATH: none"


@pytest.mark.thorough
@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_ours_and_the_other_tools_own(tmp_path: Path, ours: Path, option: str) -> None:
    own = f"cirron-spool {__version__}"
    second = program(tmp_path / "second", OURS)
    assert run(ours, option, search=[ours.parent]).lines == [own]
    official = program(tmp_path / "official", '#!/bin/sh\necho "1.4.0 $*"\n')
    search = [ours.parent, official.parent]
    assert run(ours, option, search=search).lines == [
        own,
        f"{official} has the other commands. Its version:",
        "1.4.0 --version",
    ]
    # However many of ours stand on PATH, each speaks once, and the other tool has the last word.
    both = run(ours, option, search=[ours.parent, second.parent, official.parent])
    assert both.lines[-1] == "1.4.0 --version"
    assert both.lines.count(own) == 2
    broken = program(tmp_path / "broken", "#!/nowhere/interpreter\n")
    done = run(ours, option, search=[ours.parent, broken.parent])
    assert (done.returncode, done.lines[0]) == (0, own)
    assert done.stderr == f"Warning: Cannot run {broken}: No such file or directory.\n"


def test_of_the_traces_only_our_own_actions_are_ours(ours: Path, official: Path) -> None:
    search = [ours.parent, official.parent]
    assert run(ours, "traces", "list", search=search).stdout.startswith("No traces found in ")
    assert (
        run(ours, "traces", "clear", "--yes", search=search).stdout
        == "official ['traces', 'clear', '--yes'] stdin \n"
    )
    alone = run(ours, "traces", "clear", search=[ours.parent])
    assert (alone.returncode, alone.stdout) == (2, "")
    assert alone.stderr.startswith("Error: There is no command 'clear'. There are: list")


def test_cirron_spool_hands_nothing_over(official: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(official.parent), clean_environment(tmp_path)["PATH"]])
    done = run_cli("deploy", "login", env={"PATH": path})
    assert done.returncode == 2
    assert done.stderr.startswith("Error: There is no command 'deploy'. There are: inspect, flush, ")
    assert done.stdout == ""


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_behind_spool_is_ours_alone(ours: Path, official: Path, option: str) -> None:
    done = run(ours, "spool", option, search=[ours.parent, official.parent])
    assert (done.returncode, done.lines) == (0, [f"cirron-spool {__version__}"])
