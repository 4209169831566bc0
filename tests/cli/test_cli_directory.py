"""A directory that was named and is no spool: the page's text, exit code 0, and a warning that names the right one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.fork_server import run_cli
from support.spools import TINY, sdk_batches, snapshot

EMPTY = {
    "inspect": "No spool files found in {place}",
    "flush": "No spool files to flush in {place}",
    "clear": "No spool files to clear in {place}",
}


@pytest.mark.thorough
@pytest.mark.parametrize("command", EMPTY)
@pytest.mark.parametrize(
    ("named", "spool", "how"),
    [
        ("run/.cirron", "run/.cirron/spool", "holds no batches"),
        ("run", "run/.cirron/spool", "holds no batches"),
        ("out", "out/spool", "holds no batches"),
        ("run/.cirron/spol", "run/.cirron/spool", "does not exist"),
        ("run/spool", "run/.cirron/spool", "does not exist"),
        ("run/.cirron/spool/spool", "run/.cirron/spool", "does not exist"),
    ],
)
@pytest.mark.parametrize("by", ["--dir", "CIRRON_OUTPUT_DIR"])
def test_a_spool_near_is_named(
    tmp_path: Path, command: str, named: str, spool: str, how: str, by: str
) -> None:
    written = sdk_batches(tmp_path / spool, 2, spans=TINY)
    if by == "--dir":
        asked, args, env = tmp_path / named, ["--dir", named], {}
    else:
        asked, args, env = tmp_path / named / "spool", [], {"CIRRON_OUTPUT_DIR": named}
        if asked == tmp_path / spool:
            return  # that is where the batches are
        how = "does not exist"
    text = run_cli(command, *args, cwd=tmp_path, env=env)
    assert (text.returncode, text.stdout) == (0, EMPTY[command].format(place=asked) + "\n")
    right = tmp_path / spool
    assert text.stderr == f"Warning: {asked} {how}. There is a spool in {right}. Pass --dir {right}.\n"
    document = run_cli(command, "--json", *args, cwd=tmp_path, env=env).json()
    assert isinstance(document, dict)
    assert document.get("exists", True) == (how == "holds no batches")
    assert [f"Warning: {warning}\n" for warning in document["warnings"]] == [text.stderr]
    assert document["exitCode"] == 0
    assert snapshot(right) == written


@pytest.mark.parametrize("command", [*EMPTY, "quarantine list", "quarantine retry", "quarantine clear"])
def test_a_directory_that_is_not_there_is_said(tmp_path: Path, command: str) -> None:
    for args, env, place, source in (
        (["--dir", "no\x1bsuch"], {}, r"no\x1bsuch", "--dir"),
        (["--dir", "~/x y"], {}, "~/x y", "--dir"),
        ([], {"CIRRON_OUTPUT_DIR": "gone"}, "gone/spool", "CIRRON_OUTPUT_DIR"),
    ):
        done = run_cli(*command.split(), *args, cwd=tmp_path, env=env)
        assert done.returncode == 0
        assert done.stderr == f"Warning: {tmp_path}/{place} does not exist. Check {source}.\n"
        assert list(tmp_path.iterdir()) == []


def test_what_nobody_named_and_what_is_only_empty_is_no_slip(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for command in EMPTY:
        for args in ([], ["--dir", "empty"]):
            done = run_cli(command, *args, cwd=tmp_path)
            assert (done.returncode, done.stderr) == (0, "")
            document = run_cli(command, "--json", *args, cwd=tmp_path).json()
            assert isinstance(document, dict)
            assert document.get("warnings", []) == []
            assert document.get("exists", True) is bool(args)


def test_the_quarantine_of_a_spool_that_is_not_there(tmp_path: Path) -> None:
    done = run_cli("quarantine", "list", "--json", "--dir", "nosuch", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert (document["exists"], document["files"], document["exitCode"]) == (False, 0, 0)


def test_a_path_with_blanks_can_be_pasted(tmp_path: Path) -> None:
    sdk_batches(tmp_path / "my run/.cirron/spool", 1, spans=TINY)
    done = run_cli("inspect", "--dir", "my run", cwd=tmp_path)
    assert done.stderr.endswith(f"Pass --dir '{tmp_path}/my run/.cirron/spool'.\n")
