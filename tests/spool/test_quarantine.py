"""Rejected batches are moved, never copied, and said why; and they come back."""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cirron_spool.errors import SpoolError
from cirron_spool.settings.paths import quarantine_path
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.quarantine import Rejection, entries, put_back, remove, set_aside
from support.monitor import DeleteWatch, watch_deletes

NAME = "00000000000000000001-0a.json"
NOTE = "00000000000000000001-0a.rejection.json"
BODY = b'{"spans": [NaN]}'


@pytest.fixture(autouse=True)
def deletes() -> Iterator[DeleteWatch]:
    """Nothing is uploaded here, and deleting is what is tested."""
    with watch_deletes(acknowledged=lambda name: True) as watch:
        yield watch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "spool"
    place.mkdir()
    (place / NAME).write_bytes(BODY)
    return place


@pytest.fixture
def aside(tmp_path: Path) -> Path:
    """Where the quarantine of `folder` is."""
    return tmp_path / "quarantine"


@pytest.fixture
def spool(folder: Path) -> Iterator[SpoolDirectory]:
    with SpoolDirectory(folder) as opened:
        assert opened.open()
        yield opened


def test_a_batch_is_moved_with_a_note_of_why(spool: SpoolDirectory, folder: Path, aside: Path) -> None:
    inode = (folder / NAME).stat().st_ino
    before = datetime.now(UTC).replace(microsecond=0)
    assert set_aside(spool, NAME, 422, "Rejected: ünread") == aside
    assert os.listdir(folder) == []
    assert sorted(os.listdir(aside)) == [NAME, NOTE]
    assert (aside / NAME).read_bytes() == BODY
    assert (aside / NAME).stat().st_ino == inode  # moved, not copied
    assert stat.S_IMODE(aside.stat().st_mode) == 0o700
    assert stat.S_IMODE((aside / NOTE).stat().st_mode) == 0o600
    note = json.loads((aside / NOTE).read_bytes())
    when = datetime.strptime(note.pop("rejectedAt"), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert note == {"name": NAME, "status": 422, "message": "Rejected: ünread"}
    assert before <= when <= datetime.now(UTC)
    (found,) = entries(folder)
    assert (found.name, found.size, found.status, found.message) == (NAME, len(BODY), 422, "Rejected: ünread")


def test_the_quarantine_is_beside_where_the_spool_really_is(folder: Path, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / "spool").symlink_to(folder)
    assert quarantine_path(links / "spool") == tmp_path / "quarantine"
    with SpoolDirectory(links / "spool") as spool:
        assert spool.open()
        assert set_aside(spool, NAME, 400, "x") == tmp_path / "quarantine"
    assert os.listdir(links) == ["spool"]
    assert [entry.name for entry in entries(links / "spool")] == [NAME]
    assert put_back(links / "spool", [NAME]) == (1, [])
    assert (folder / NAME).read_bytes() == BODY


def test_a_name_that_is_taken_is_not_overwritten(spool: SpoolDirectory, folder: Path, aside: Path) -> None:
    aside.mkdir()
    (aside / NAME).write_bytes(b"earlier")
    with pytest.raises(FileExistsError):
        set_aside(spool, NAME, 400, "x")
    assert (folder / NAME).read_bytes() == BODY
    assert (aside / NAME).read_bytes() == b"earlier"


def test_a_dangling_link_takes_a_name_too(spool: SpoolDirectory, folder: Path, aside: Path) -> None:
    aside.mkdir()
    (aside / NAME).symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        set_aside(spool, NAME, 400, "x")
    assert (folder / NAME).exists()


def test_a_batch_that_vanished_is_said_to_have(spool: SpoolDirectory, folder: Path, aside: Path) -> None:
    (folder / NAME).unlink()
    with pytest.raises(FileNotFoundError):
        set_aside(spool, NAME, 400, "x")
    assert entries(folder) == []
    assert not aside.exists()


def test_a_batch_is_never_copied_to_another_file_system(
    spool: SpoolDirectory, folder: Path, aside: Path
) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == folder.stat().st_dev:
        pytest.skip("there is no second file system here")
    with tempfile.TemporaryDirectory(dir=memory) as elsewhere:
        aside.symlink_to(elsewhere)
        with pytest.raises(OSError, match=os.strerror(errno.EXDEV)):
            set_aside(spool, NAME, 400, "x")
        assert os.listdir(elsewhere) == []  # not even a note
    assert (folder / NAME).read_bytes() == BODY


def test_a_file_for_the_quarantine_is_an_os_error(spool: SpoolDirectory, folder: Path, aside: Path) -> None:
    aside.touch()
    with pytest.raises(FileExistsError):
        set_aside(spool, NAME, 400, "x")
    assert (folder / NAME).exists()


def test_without_its_note_nothing_is_moved(
    spool: SpoolDirectory, folder: Path, aside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # a full disk cannot be had here

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        set_aside(spool, NAME, 400, "x")
    assert (folder / NAME).exists()
    assert os.listdir(aside) == []  # not even the note's temporary file


def test_a_note_left_over_is_overwritten(spool: SpoolDirectory, folder: Path, aside: Path) -> None:
    aside.mkdir()
    (aside / NOTE).write_text('{"status": 1}')
    set_aside(spool, NAME, 400, "x")
    assert entries(folder)[0].status == 400


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        pytest.param(None, Rejection(NAME, 16), id="none"),
        pytest.param(b"", Rejection(NAME, 16), id="empty"),
        pytest.param(b"{", Rejection(NAME, 16), id="cut"),
        pytest.param(b"[]", Rejection(NAME, 16), id="a list"),
        pytest.param(b"\xff", Rejection(NAME, 16), id="not UTF-8"),
        pytest.param(b"[" * 50_000, Rejection(NAME, 16), id="too deep"),
        pytest.param(b'{"x": "' + b"y" * 70_000 + b'"}', Rejection(NAME, 16), id="too long"),
        pytest.param(b"{}", Rejection(NAME, 16), id="says nothing"),
        pytest.param(
            b'{"rejectedAt": 7, "status": "x", "message": null}', Rejection(NAME, 16), id="other types"
        ),
        pytest.param(
            b'{"rejectedAt": "2026-04-18T04:29:58Z", "status": 422, "message": "no", "more": 1}',
            Rejection(NAME, 16, "2026-04-18T04:29:58Z", 422, "no"),
            id="all",
        ),
    ],
)
def test_notes_are_read_as_far_as_they_can_be(
    folder: Path, aside: Path, note: bytes | None, expected: Rejection
) -> None:
    aside.mkdir()
    (folder / NAME).rename(aside / NAME)
    if note is not None:
        (aside / NOTE).write_bytes(note)
    assert entries(folder) == [expected]


def test_a_folder_for_a_note_is_no_note(folder: Path, aside: Path) -> None:
    aside.mkdir()
    (folder / NAME).rename(aside / NAME)
    (aside / NOTE).mkdir()
    assert entries(folder) == [Rejection(NAME, len(BODY))]


def test_entries_are_oldest_first_and_only_batches(folder: Path, aside: Path) -> None:
    assert entries(folder) == []
    aside.mkdir()
    for name in ("10-a.json", "9-a.json", "notes.txt", NOTE):
        (aside / name).touch()
    (aside / "8-a.json").mkdir()
    assert [entry.name for entry in entries(folder)] == ["9-a.json", "10-a.json"]


def test_back_into_the_spool(spool: SpoolDirectory, folder: Path, aside: Path) -> None:
    set_aside(spool, NAME, 400, "x")
    assert put_back(folder, [NAME]) == (1, [])
    assert (folder / NAME).read_bytes() == BODY
    assert not aside.exists()  # nothing is left to be kept in it
    assert put_back(folder, ["2-b.json"]) == (0, [])  # somebody else moved it meanwhile


def test_back_into_a_spool_that_has_the_name_is_refused(
    spool: SpoolDirectory, folder: Path, aside: Path
) -> None:
    set_aside(spool, NAME, 400, "x")
    (folder / NAME).write_bytes(b"newer")
    done, ((name, error),) = put_back(folder, [NAME])
    assert (done, name) == (0, NAME)
    assert isinstance(error, FileExistsError)
    assert (folder / NAME).read_bytes() == b"newer"
    assert (aside / NAME).read_bytes() == BODY
    assert (aside / NOTE).exists()


def test_back_into_a_spool_that_is_gone_is_not_silently_nothing(
    spool: SpoolDirectory, folder: Path, aside: Path
) -> None:
    set_aside(spool, NAME, 400, "x")
    folder.rmdir()  # as people tidy up once all is delivered
    done, failed = put_back(folder, [NAME])
    if done:
        assert (folder / NAME).read_bytes() == BODY
    else:
        assert [name for name, _ in failed] == [NAME]
        assert (aside / NAME).read_bytes() == BODY


@pytest.mark.parametrize(
    "make", [Path.touch, lambda path: path.symlink_to("nowhere/x")], ids=["file", "link"]
)
def test_back_into_what_is_no_directory_is_refused(
    spool: SpoolDirectory, folder: Path, aside: Path, make: Callable[[Path], None]
) -> None:
    set_aside(spool, NAME, 400, "x")
    folder.rmdir()
    make(folder)
    moved = quarantine_path(folder)
    if moved != aside:
        moved.parent.mkdir()
        aside.rename(moved)
    with pytest.raises(SpoolError):
        put_back(folder, [NAME])
    assert (moved / NAME).read_bytes() == BODY


def test_removed_for_good(spool: SpoolDirectory, folder: Path, aside: Path) -> None:
    set_aside(spool, NAME, 400, "x")
    (folder / "2-b.json").touch()
    set_aside(spool, "2-b.json", 400, "x")
    assert remove(folder, [NAME, "3-c.json"]) == (1, [])
    assert sorted(os.listdir(aside)) == ["2-b.json", "2-b.rejection.json"]
    assert remove(folder, ["2-b.json"]) == (1, [])
    assert not aside.exists()
    assert os.listdir(folder) == []


def test_a_batch_that_cannot_be_removed_is_said(folder: Path, aside: Path) -> None:
    aside.mkdir()
    (aside / NAME).mkdir()
    (aside / NOTE).touch()
    done, ((name, error),) = remove(folder, [NAME])
    assert (done, name) == (0, NAME)
    assert isinstance(error, OSError)
    assert (aside / NOTE).exists()


def test_only_batches_are_touched(folder: Path, aside: Path, tmp_path: Path) -> None:
    aside.mkdir()
    (tmp_path / "4-d.json").touch()
    (aside / "notes.txt").touch()
    names = ["../4-d.json", "notes.txt", "", ".", str(tmp_path / "4-d.json")]
    assert remove(folder, names) == (0, [])
    assert put_back(folder, names) == (0, [])
    assert (tmp_path / "4-d.json").exists()
    assert os.listdir(aside) == ["notes.txt"]  # and so the folder stays
