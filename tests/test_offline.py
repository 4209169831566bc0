"""Whether a spool exists, and where one probably is that was not named rightly."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import ClearResult, ConfigError, Inventory, clear_spool, flush_spool, inspect_spool
from cirron_spool.offline import find_spool_near
from support.spools import write_batch


@pytest.mark.anyio
async def test_a_spool_that_does_not_exist_is_empty_and_said_not_to(tmp_path: Path) -> None:
    missing, empty, full = tmp_path / "missing", tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    write_batch(full, 1, "0a")
    (tmp_path / "dangling").symlink_to(missing)
    for none in (missing, tmp_path / "dangling"):
        assert inspect_spool(none) == Inventory(none, (), exists=False)
        assert clear_spool(none) == ClearResult(none, 0, 0, exists=False)
        assert not (await flush_spool(none)).exists
    for there in (empty, full):
        assert inspect_spool(there).exists
    assert (await flush_spool(empty)).exists
    assert clear_spool(empty).exists


@pytest.mark.parametrize(
    ("asked", "spool"),
    [
        (".", ".cirron/spool"),
        (".cirron", ".cirron/spool"),
        (".", "spool"),
        (".", "out/spool"),
        (".", "recv1"),
        (".cirron", ".cirron/old"),
        ("typo", ".cirron/spool"),
        (".cirron/spol", ".cirron/spool"),
        (".cirron/.cirron/spool", ".cirron/spool"),
    ],
)
def test_a_spool_near_the_directory_that_was_named(tmp_path: Path, asked: str, spool: str) -> None:
    run = tmp_path / "run"
    write_batch(run / spool, 1, "0a")
    write_batch(run / ".cirron" / "quarantine", 2, "0b")
    write_batch(run / "a.quarantine", 2, "0c")
    (run / "file").write_text("{}")
    assert find_spool_near(run / asked) == run / spool


def test_a_spool_with_batches_before_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / ".cirron" / "spool").mkdir(parents=True)
    assert find_spool_near(tmp_path) == tmp_path / ".cirron" / "spool"
    assert find_spool_near(tmp_path / ".cirron") == tmp_path / ".cirron" / "spool"
    write_batch(tmp_path / "z" / "spool", 1, "0a")
    assert find_spool_near(tmp_path) == tmp_path / "z" / "spool"


def test_no_spool_near_is_none(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()  # as /var/spool, which is no spool of the SDK's
    write_batch(tmp_path / "a" / "b" / "c", 1, "0a")
    write_batch(tmp_path / "quarantine", 1, "0a")
    for asked in (tmp_path, tmp_path / "spool", tmp_path / "none" / "of" / "it", Path("/dev/null")):
        assert find_spool_near(asked) is None


@pytest.mark.parametrize("asked", ["~/runs/.cirron/spool", "~/runs/.cirron", "~/runs"])
@pytest.mark.parametrize("made", [False, True])
def test_a_tilde_that_no_shell_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, made: bool
) -> None:
    with tempfile.TemporaryDirectory() as home:
        monkeypatch.setenv("HOME", home)
        spool = Path(home) / "runs" / ".cirron" / "spool"
        write_batch(spool, 1, "0a")
        if made:
            (tmp_path / asked).mkdir(parents=True)
        assert find_spool_near(tmp_path / asked) == spool


def test_a_path_may_be_bytes_and_no_other_type_is_one(spool: Path, tmp_path: Path) -> None:
    write_batch(spool, 1, "aa")
    given: Any = os.fsencode(spool)
    assert len(inspect_spool(given).entries) == 1
    given = os.fsencode(tmp_path / "missing")
    assert clear_spool(given).directory == tmp_path / "missing"
    given = 5
    for function in (inspect_spool, clear_spool):
        with pytest.raises(ConfigError, match="directory must be a path, not int"):
            function(given)
