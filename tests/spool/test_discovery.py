"""Discovery finds each spool below a folder once, and says which folders it skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cirron_spool.errors import SpoolError
from cirron_spool.spool.discovery import FoundSpool, SkippedFolder, discover
from support.spools import FIRST_NS, TINY, sdk_batches, write_batch
from support.users import NOBODY, as_user, needs_root, shared_folder


def search(*roots: Path) -> tuple[list[FoundSpool], dict[Path, str]]:
    passed: list[SkippedFolder] = []
    return list(discover(roots, on_skip=passed.append)), {folder.path: folder.reason for folder in passed}


def test_an_archive_of_odd_folders(tmp_path: Path) -> None:
    root = tmp_path / "root"
    sdk_batches(root / "run" / ".cirron" / "spool", 2, spans=TINY)
    (root / "new" / ".cirron" / "spool").mkdir(parents=True)
    bad_name = root / os.fsdecode(b"caf\xe9") / "spool"
    write_batch(bad_name, 7, "ab")
    write_batch(root / "run" / ".cirron" / "spool.bak", 5, "ab")
    # Not found: below a spool, quarantines, a copy of a quarantine, other programs' names, links.
    write_batch(root / "new" / ".cirron" / "spool" / "deep" / ".cirron" / "spool", 1, "ab")
    write_batch(root / "run" / ".cirron" / "quarantine", 2, "ab")
    write_batch(root / "run" / ".cirron" / "spool.bak.quarantine", 2, "ab")
    (write_batch(root / "rejected", 2, "ab").parent / f"{2:020d}-ab.rejection.json").touch()
    write_batch(root / "reports", 5, "ab")
    (root / "reports" / "2024-12.json").touch()
    (root / "linked" / ".cirron").mkdir(parents=True)
    (root / "linked" / ".cirron" / "spool").symlink_to(bad_name)
    (root / "loop").symlink_to(root)
    # A folder with a batch's name is a folder.
    write_batch(root / "1-ab.json", 9, "ab")

    found, passed = search(root, root / "run")

    assert found == sorted(
        [
            FoundSpool(root / "1-ab.json", 1, 9),
            FoundSpool(bad_name, 1, 7),
            FoundSpool(root / "new" / ".cirron" / "spool", 0, None),
            FoundSpool(root / "run" / ".cirron" / "spool", 2, FIRST_NS),
            FoundSpool(root / "run" / ".cirron" / "spool.bak", 1, 5),
        ]
    )
    assert passed.keys() == {root / "reports", root / "linked" / ".cirron" / "spool"}
    assert "--dir" in passed[root / "reports"]


def test_a_root_may_be_a_spool_or_a_link(tmp_path: Path) -> None:
    spool = tmp_path / "out" / ".cirron" / "spool"
    write_batch(spool, 3, "ab")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for root in (spool, spool.parent):
        assert search(root)[0] == [FoundSpool(spool, 1, 3)]
    assert search(tmp_path / "link", tmp_path)[0] == [
        FoundSpool(tmp_path / "link" / ".cirron" / "spool", 1, 3)
    ]


def test_a_root_that_cannot_be_searched(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root, words in ((tmp_path / "none", "does not exist"), (tmp_path / "file", "is not a folder")):
        with pytest.raises(SpoolError, match=words):
            next(discover([tmp_path, root]))


def test_other_file_systems_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = tmp_path / "mount" / ".cirron" / "spool"
    write_batch(spool, 3, "ab")
    real = os.lstat

    def lstat(path: str) -> os.stat_result:
        status = real(path)
        if path.endswith("mount"):
            return os.stat_result((*status[:2], status.st_dev + 1, *status[3:]))
        return status

    monkeypatch.setattr(os, "lstat", lstat)
    assert search(tmp_path) == ([], {tmp_path / "mount": "another file system"})
    assert list(discover([tmp_path], cross_file_systems=True)) == [FoundSpool(spool, 1, 3)]


@needs_root
def test_an_unreadable_folder_is_said_and_the_rest_is_found() -> None:
    with shared_folder() as shared:
        write_batch(shared / "closed", 3, "ab")
        write_batch(shared / "open", 4, "ab")
        (shared / "closed").chmod(0o700)
        with as_user(NOBODY):
            assert search(shared) == (
                [FoundSpool(shared / "open", 1, 4)],
                {shared / "closed": "Permission denied"},
            )
            with pytest.raises(SpoolError, match=r"Cannot read .*closed: Permission denied"):
                next(discover([shared / "closed"]))
