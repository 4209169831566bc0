"""``completion``: the scripts in the real shells."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.cli import clean_environment
from support.fork_server import run_cli

# Sets up bash as it is when a person presses Tab, and prints the proposals.
_PRESS_TAB = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
completer=$(complete -p "$1" | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$completer "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def press_tab(folder: Path, *words: str) -> list[str]:
    """The proposals of a real bash in ``folder`` behind ``words``."""
    script = folder / "completion"
    script.write_text(run_cli("completion", "bash", "--program", words[0]).stdout, encoding="utf-8")
    done = subprocess.run(
        ["bash", "--norc", "-c", _PRESS_TAB, "bash", str(script), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@pytest.mark.thorough
@needs_bash
@pytest.mark.parametrize(
    ("words", "proposals"),
    [
        (("cirron-spool", "fl"), ["flush"]),
        (("cirron-spool", "auth", "log"), ["login", "logout"]),
        (("cirron-spool", "flush", "--disk"), ["--disk-work"]),
        (("cirron-spool", "completion", ""), ["bash", "zsh", "fish"]),
        (("cirron-spool", "flush", "--disk-work", ""), ["inline", "thread"]),
        (("cirron-spool", "flush", "--gzip-library", "z"), ["zlib-ng", "zlib"]),
        (("cirron", "spool", "qua"), ["quarantine"]),
        (("cirron", "sta"), ["status"]),
    ],
)
def test_bash_completes_words(tmp_path: Path, words: tuple[str, ...], proposals: list[str]) -> None:
    assert press_tab(tmp_path, *words) == proposals


@needs_bash
def test_bash_completes_paths(tmp_path: Path) -> None:
    (tmp_path / "run a").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "rules.txt").touch()
    assert press_tab(tmp_path, "cirron-spool", "inspect", "--dir", "runs") == ["runs"]
    assert press_tab(tmp_path, "cirron-spool", "inspect", "--dir", "rul") == []
    assert press_tab(tmp_path, "cirron-spool", "flush", "--token-file", "rul") == ["rules.txt"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_command_is_described_in_one_line(shell: str) -> None:
    script = run_cli("completion", shell).stdout
    assert "upload buffered batches to the platform" in script
    assert "A batch that cannot be delivered ends the flush" not in script


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(
    ("line", "proposals"),
    [
        ("cirron-spool fl", ["flush"]),
        ("cirron-spool flush --disk", ["--disk-work"]),
        ("cirron-spool inspect --dir ru", ["runs/"]),
        ("cirron-spool flush --token-file rul", ["rules.txt"]),
    ],
)
def test_fish_completes(tmp_path: Path, line: str, proposals: list[str]) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "rules.txt").touch()
    script = tmp_path / "completion.fish"
    script.write_text(run_cli("completion", "fish").stdout, encoding="utf-8")
    done = subprocess.run(
        ["fish", "--no-config", "-c", "source $argv[1]; complete -C $argv[2]", str(script), line],
        cwd=tmp_path,
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert [proposal.partition("\t")[0] for proposal in done.stdout.splitlines()] == proposals


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("program", ["cirron-spool", "cirron"])
def test_a_shell_takes_the_script(tmp_path: Path, shell: str, program: str) -> None:
    done = run_cli("completion", shell, "--program", program)
    assert (done.returncode, done.stderr) == (0, "")
    assert program in done.stdout
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=done.out, check=True)


def test_the_shell_is_that_of_the_environment() -> None:
    named = run_cli("completion", "zsh")
    assert run_cli("completion", env={"SHELL": "/usr/bin/zsh"}).stdout == named.stdout


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            ["ksh"],
            "Error: SHELL needs one of bash, zsh, fish, for example cirron-spool completion bash. It cannot",
        ),
        (
            ["bash", "--program", "x"],
            "Error: --program needs one of cirron-spool, cirron, for example --program",
        ),
        ([], "Error: Name the shell: cirron-spool completion bash, zsh or fish.\n"),
        (["bash", "zsh"], "Error: Unexpected argument 'zsh'."),
    ],
)
def test_another_shell_is_one_line(args: list[str], line: str) -> None:
    done = run_cli("completion", *args, env={"SHELL": "/bin/ksh"})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(line)
