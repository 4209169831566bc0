"""The directory: what is a batch in it, opening, deleting, and the lock."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import random
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from cirron_spool.errors import ResourceError, SpoolBusyError, SpoolError
from cirron_spool.offline import clear_spool, inspect_spool
from cirron_spool.spool import directory as room
from cirron_spool.spool import listing as listing_module
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.file_identity import Fingerprint, NotABatch, Removal, Vanished
from cirron_spool.spool.lease import RECORD_NAME
from cirron_spool.spool.listing import Entry, Listing
from cirron_spool.spool.lock import LOCK_NAME
from support.cli import clean_environment
from support.monitor import DeleteWatch, watch_deletes
from support.users import NOBODY, as_user, needs_root, shared_folder

NAME = "00000000000000000001-0a.json"


@pytest.fixture(autouse=True)
def deletes() -> Iterator[DeleteWatch]:
    """Nothing is uploaded here, and deleting is what is tested."""
    with watch_deletes(acknowledged=lambda name: True) as watch:
        yield watch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "spool"
    place.mkdir()
    return place


@pytest.fixture
def spool(folder: Path) -> Iterator[SpoolDirectory]:
    with SpoolDirectory(folder) as opened:
        assert opened.open()
        yield opened


@pytest.fixture
def shared() -> Iterator[Path]:
    with shared_folder() as place:
        yield place


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


# -- what stands under a batch's name and is none ----------------------------------------------------------------------


def _link(path: Path) -> None:
    target = path.with_name("target")
    target.write_bytes(b"{}")
    path.symlink_to(target)


def _socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # the address of a socket holds about a hundred bytes
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path.name)
    finally:
        os.chdir(before)


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))  # as /dev/null
    except PermissionError:
        pytest.skip("only root can make a device")
    try:
        os.close(os.open(path, os.O_RDONLY))
    except PermissionError:
        pytest.skip("devices have no effect on this file system")


STRANGERS: dict[str, Callable[[Path], object]] = {
    "a symbolic link": _link,
    "a folder": lambda path: path.mkdir(),
    "a named pipe": os.mkfifo,
    "a socket": _socket,
    "a device": _device,
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_strangers_are_told_apart_without_blocking(spool: SpoolDirectory, folder: Path, kind: str) -> None:
    STRANGERS[kind](folder / NAME)
    before = descriptors()
    with pytest.raises(NotABatch) as caught:
        spool.open_batch(NAME)
    assert str(caught.value) == kind == spool.kind_of(NAME)
    assert descriptors() == before
    listing = spool.listing()
    assert (listing.names, listing.irregular) == ([], (NAME,))
    assert spool.entries() == []
    assert not spool.has_batches()
    assert spool.delete(NAME, None) is Removal.CHANGED
    assert os.path.lexists(folder / NAME)


def test_a_dangling_link_is_a_stranger_too(spool: SpoolDirectory, folder: Path) -> None:
    (folder / NAME).symlink_to("nowhere")
    with pytest.raises(NotABatch, match="a symbolic link"):
        spool.open_batch(NAME)
    assert spool.listing().irregular == (NAME,)


def test_a_pipe_with_a_writer_is_not_read(spool: SpoolDirectory, folder: Path) -> None:
    os.mkfifo(folder / NAME)
    reader = os.open(folder / NAME, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(folder / NAME, os.O_WRONLY)
    try:
        os.write(writer, b"{}")
        with pytest.raises(NotABatch, match="a named pipe"):
            spool.open_batch(NAME)
        assert os.read(reader, 10) == b"{}"
    finally:
        os.close(reader)
        os.close(writer)


def test_a_regular_file_and_nothing_have_words_too(spool: SpoolDirectory, folder: Path) -> None:
    assert spool.kind_of(NAME) == "gone"
    (folder / NAME).touch()
    assert spool.kind_of(NAME) == "a file"


# -- opening -----------------------------------------------------------------------------------------------------------


def test_open_batch_gives_its_bytes_and_fingerprint(spool: SpoolDirectory, folder: Path) -> None:
    (folder / NAME).write_bytes(b'{"spans":[]}')
    fd, fingerprint = spool.open_batch(NAME)
    with open(fd, "rb") as file:
        assert file.read() == b'{"spans":[]}'
    status = (folder / NAME).stat()
    assert fingerprint == (status.st_dev, status.st_ino, 12, status.st_mtime_ns)
    assert spool.size_of(NAME) == 12
    assert spool.path_of(NAME) == folder / NAME


def test_open_batch_leaves_no_descriptor_to_children(spool: SpoolDirectory, folder: Path) -> None:
    (folder / NAME).touch()
    fd, _ = spool.open_batch(NAME)
    try:
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_a_vanished_batch(spool: SpoolDirectory) -> None:
    with pytest.raises(Vanished):
        spool.open_batch(NAME)
    assert spool.size_of(NAME) == 0
    assert spool.delete(NAME, None) is Removal.GONE


@needs_root
def test_an_unreadable_batch_is_an_os_error(shared: Path) -> None:
    (shared / NAME).write_bytes(b"{}")
    (shared / NAME).chmod(0o600)
    with as_user(NOBODY), SpoolDirectory(shared) as spool:
        assert spool.open()
        with pytest.raises(PermissionError):
            spool.open_batch(NAME)


def test_a_stale_network_file_is_vanished(spool: SpoolDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ESTALE, "Stale file handle")

    # A network file system whose server deleted the file cannot be had here.
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", stale)
        with pytest.raises(Vanished):
            spool.open_batch(NAME)
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stale)
        assert spool.delete(NAME, None) is Removal.GONE


def test_a_failing_fstat_leaks_nothing(
    spool: SpoolDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / NAME).touch()
    before = descriptors()

    def broken(fd: int) -> os.stat_result:
        raise OSError(errno.EIO, "Input/output error")  # a disk that fails cannot be had here

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", broken)
        with pytest.raises(OSError, match="Input/output error"):
            spool.open_batch(NAME)
    assert descriptors() == before


# -- deleting ----------------------------------------------------------------------------------------------------------


def _appended(path: Path) -> None:
    status = path.stat()
    with path.open("ab") as file:
        file.write(b" ")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _touched(path: Path) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))


def _replaced(path: Path) -> None:
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


def _linked(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


@pytest.mark.parametrize(
    "change", [_appended, _touched, _replaced, _linked], ids=["size", "mtime", "inode", "a link to itself"]
)
def test_a_file_that_is_not_the_one_sent_is_kept(
    spool: SpoolDirectory, folder: Path, change: Callable[[Path], None]
) -> None:
    (folder / NAME).write_bytes(b"{}")
    fd, sent = spool.open_batch(NAME)
    os.close(fd)
    change(folder / NAME)
    assert spool.delete(NAME, sent) is Removal.CHANGED
    assert (folder / NAME).exists()


def test_the_file_that_was_sent_is_deleted(spool: SpoolDirectory, folder: Path) -> None:
    (folder / NAME).write_bytes(b"{}")
    (folder / "2-b.json").write_bytes(b"{}")
    fd, sent = spool.open_batch(NAME)
    os.close(fd)
    assert spool.delete(NAME, sent) is Removal.DELETED
    assert spool.delete(NAME, sent) is Removal.GONE
    assert os.listdir(folder) == ["2-b.json"]


def test_without_a_fingerprint_any_regular_file_is_deleted(spool: SpoolDirectory, folder: Path) -> None:
    (folder / NAME).write_bytes(b"{}")
    assert spool.delete(NAME, None) is Removal.DELETED
    assert os.listdir(folder) == []


@needs_root
def test_a_delete_that_is_refused_is_an_os_error(shared: Path) -> None:
    (shared / NAME).write_bytes(b"{}")
    shared.chmod(0o755)
    with as_user(NOBODY), SpoolDirectory(shared) as spool:
        assert spool.open()
        with pytest.raises(PermissionError):
            spool.delete(NAME, None)
    assert (shared / NAME).exists()


def test_the_directory_stays_the_same_when_its_path_is_repointed(
    spool: SpoolDirectory, folder: Path, tmp_path: Path
) -> None:
    (folder / NAME).write_bytes(b"mine")
    folder.rename(tmp_path / "moved")
    folder.mkdir()
    (folder / NAME).write_bytes(b"another run's")
    (folder / "2-b.json").write_bytes(b"another run's")
    assert spool.listing().names == [NAME]
    fd, sent = spool.open_batch(NAME)
    with open(fd, "rb") as file:
        assert file.read() == b"mine"
    assert spool.delete(NAME, sent) is Removal.DELETED
    assert sorted(os.listdir(folder)) == [NAME, "2-b.json"]
    assert os.listdir(tmp_path / "moved") == []


def test_clearing_does_not_count_what_it_left(folder: Path) -> None:
    (folder / NAME).write_bytes(b"{}")
    inventory = inspect_spool(folder)
    (folder / NAME).unlink()
    (folder / NAME).mkdir()  # something else took the name between the question and the answer
    assert clear_spool(inventory=inventory).deleted == 0
    assert (folder / NAME).is_dir()


# -- listing -----------------------------------------------------------------------------------------------------------


def test_listing_ignores_everything_else(spool: SpoolDirectory, folder: Path) -> None:
    batches = [NAME, "2-b.json", "00000000000000000003-cd.json", "10-a.json"]
    shuffled = random.Random(0).sample(batches, len(batches))
    for name in shuffled:
        (folder / name).write_bytes(b"x" * len(name))
    others = [
        f"{NAME}.tmp",
        f".{NAME}",
        "4-AB.json",
        "4-xy.json",
        "4.json",
        "4-a.JSON",
        "notes.txt",
        LOCK_NAME,
        ".nfs0001",
        "4-a.rejection.json",
        os.fsdecode(b"4-a\xff.json"),
    ]
    for name in others:
        (folder / name).touch()
    (folder / "5-a.json").mkdir()
    (folder / "6-a.json").symlink_to(folder / NAME)
    os.mkfifo(folder / "7-a.json")
    (folder / "sub").mkdir()
    (folder / "sub" / "8-a.json").touch()
    listing = spool.listing()
    assert listing.names == batches
    assert listing.irregular == ("5-a.json", "6-a.json", "7-a.json")
    assert spool.entries() == [Entry(name, len(name)) for name in batches]
    assert spool.has_batches()


def test_odd_digit_counts_are_sorted_as_numbers(spool: SpoolDirectory, folder: Path) -> None:
    ordered = ["9-f.json", "10-a.json", "0000100-b.json", "100-a.json", "00000000000000000101-a.json"]
    ordered += ["99999999999999999999-a.json", "100000000000000000000-a.json", "1" + "0" * 100 + "-a.json"]
    for name in reversed(ordered):
        (folder / name).touch()
    assert spool.listing().names == ordered
    assert [entry.name for entry in spool.entries()] == ordered


def test_many_batches_are_listed_again_and_again(spool: SpoolDirectory, folder: Path) -> None:
    names = [f"{number:020d}-a.json" for number in range(600)]
    for name in names:
        (folder / name).touch()
    before = descriptors()
    assert spool.listing().names == names
    assert spool.listing().names == names
    assert len(spool.entries()) == 600
    assert spool.has_batches()
    assert descriptors() == before


def test_a_directory_deleted_while_it_is_open_is_empty(spool: SpoolDirectory, folder: Path) -> None:
    folder.rmdir()
    assert spool.listing().names == []
    assert spool.entries() == []
    assert not spool.has_batches()


class Failing:
    """A directory entry that cannot be asked, on a file system that must be asked; neither can be had here."""

    name = NAME

    def __init__(self, code: int) -> None:
        self._error = OSError(code, os.strerror(code))

    def is_file(self, *, follow_symlinks: bool) -> bool:
        raise self._error

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        raise self._error


def test_a_disk_that_fails_while_it_is_listed_is_named(
    spool: SpoolDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "_batch_entries", lambda path, fd: iter([[Failing(errno.EIO)]]))
    with pytest.raises(SpoolError, match=rf"Cannot list {folder}: Input/output error\.") as caught:
        spool.entries()
    assert caught.value.exit_code == 1
    # Opening it will show the error.
    assert spool.listing().names == [NAME]
    assert spool.has_batches()


def test_one_batch_that_cannot_be_asked_does_not_hide_the_others(
    spool: SpoolDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "2-b.json").write_bytes(b"{}")
    with os.scandir(folder) as found:
        (fine,) = found
    monkeypatch.setattr(
        listing_module, "_batch_entries", lambda path, fd: iter([[fine, Failing(errno.EUCLEAN)]])
    )
    unknown: list[tuple[str, OSError]] = []
    assert spool.entries(unknown) == [Entry(NAME, 0), Entry("2-b.json", 2)]
    assert [(name, error.errno) for name, error in unknown] == [(NAME, errno.EUCLEAN)]
    assert spool.listing().names == [NAME, "2-b.json"]


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESTALE], ids=["ENOENT", "ESTALE"])
def test_a_batch_that_vanishes_while_it_is_listed_is_not_in_it(
    spool: SpoolDirectory, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(listing_module, "_batch_entries", lambda path, fd: iter([[Failing(code)]]))
    assert spool.entries() == []
    assert spool.listing() == Listing([], ())
    assert not spool.has_batches()


@needs_root
def test_a_directory_that_may_not_be_searched_is_named(shared: Path) -> None:
    (shared / NAME).touch()
    shared.chmod(0o744)
    with as_user(NOBODY), SpoolDirectory(shared) as spool:
        assert spool.open()
        with pytest.raises(SpoolError, match=rf"Cannot list {shared}: Permission denied\.") as caught:
            spool.listing()
    assert caught.value.exit_code == 2


# -- the directory itself ----------------------------------------------------------------------------------------------


def test_no_directory_is_an_empty_spool(tmp_path: Path) -> None:
    with SpoolDirectory(tmp_path / "none") as spool:
        assert not spool.open()


def test_a_dangling_link_is_an_empty_spool(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with SpoolDirectory(tmp_path / "link") as spool:
        assert not spool.open()


def test_a_link_to_the_spool_is_followed(folder: Path, tmp_path: Path) -> None:
    (folder / NAME).touch()
    (tmp_path / "link").symlink_to(folder)
    with SpoolDirectory(tmp_path / "link") as spool:
        assert spool.open()
        assert spool.listing().names == [NAME]
        assert spool.path == tmp_path / "link"


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo], ids=["file", "pipe"])
def test_no_directory_but_something_else(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "x\x1b"
    make(path)
    with (
        SpoolDirectory(path) as spool,
        pytest.raises(SpoolError, match=r"x\\x1b is not a directory") as caught,
    ):
        spool.open()
    assert caught.value.exit_code == 2


def test_a_path_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with SpoolDirectory(tmp_path / "loop") as spool, pytest.raises(SpoolError, match=r"Cannot read .*loop: "):
        spool.open()


@needs_root
def test_permissions_of_the_directory(shared: Path) -> None:
    shared.chmod(0o755)
    with as_user(NOBODY), SpoolDirectory(shared) as spool:
        assert spool.open()
        with pytest.raises(SpoolError, match=f"No write permission on {shared}") as caught:
            spool.check_writable()
        assert caught.value.exit_code == 1
        assert (
            spool.lock()
            == f"{shared} cannot be locked: Permission denied. Do not run two flushes on it at the same time."
        )
    shared.chmod(0o777)
    with as_user(NOBODY), SpoolDirectory(shared) as spool:
        assert spool.open()
        spool.check_writable()
    shared.chmod(0o700)
    with as_user(NOBODY), SpoolDirectory(shared) as spool, pytest.raises(SpoolError, match="Cannot read"):
        spool.open()


def test_closing_gives_everything_back(folder: Path) -> None:
    before = descriptors()
    with SpoolDirectory(folder) as spool:
        assert spool.open()
        assert spool.lock() == ""
        assert descriptors() > before
    assert descriptors() == before
    assert os.listdir(folder) == []
    spool.close()


def test_what_comes_after_the_close_is_given_back_at_once(folder: Path) -> None:
    """As when a task is cancelled while a thread opens or locks for it."""
    before = descriptors()
    spool = SpoolDirectory(folder)
    spool.close()
    assert spool.open()
    assert spool.lock() == ""
    assert descriptors() == before
    assert os.listdir(folder) == []
    with SpoolDirectory(folder) as other:
        assert other.open()
        assert other.lock() == ""


def test_where_directories_cannot_be_held_open(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Windows, which cannot be had here, has no descriptors of directories.
    monkeypatch.setattr(room, "_HAS_DIR_FD", False)
    (folder / NAME).write_bytes(b"{}")
    with SpoolDirectory(tmp_path / "none") as spool:
        assert not spool.open()
    with SpoolDirectory(folder / NAME) as spool, pytest.raises(SpoolError, match="is not a directory"):
        spool.open()
    with SpoolDirectory(folder) as spool:
        assert spool.open()
        spool.check_writable()
        assert spool.listing().names == [NAME]
        fd, sent = spool.open_batch(NAME)
        os.close(fd)
        assert spool.delete(NAME, sent) is Removal.DELETED
        folder.rmdir()
        assert spool.listing().names == []


def test_fingerprints_of_two_files_differ(folder: Path) -> None:
    (folder / "a").touch()
    (folder / "b").touch()
    assert Fingerprint.of((folder / "a").stat()) != Fingerprint.of((folder / "b").stat())


# -- the lock ----------------------------------------------------------------------------------------------------------

FILES = [LOCK_NAME, RECORD_NAME]

HOLDER = """
import os, sys
from pathlib import Path
from cirron_spool.spool.directory import SpoolDirectory

with SpoolDirectory(Path(sys.argv[1])) as spool:
    assert spool.open()
    assert spool.lock() == ""
    if sys.argv[2:] == ["fork"] and not (child := os.fork()):
        spool.close()
        os._exit(0)
    elif sys.argv[2:] == ["fork"]:
        assert os.waitpid(child, 0) == (child, 0)
    print("held", flush=True)
    sys.stdin.read()
print("given back", flush=True)
"""


@contextmanager
def holder(folder: Path, home: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock until its standard input ends."""
    # Not measured: what it would write of its coverage is cut where it is killed.
    env = {key: value for key, value in clean_environment(home).items() if "COVERAGE" not in key}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *options],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert _stream(process.stdout).readline() == b"held\n"
            yield process
        finally:
            process.kill()


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def test_a_second_process_is_refused_until_the_first_is_done(
    spool: SpoolDirectory, folder: Path, tmp_path: Path
) -> None:
    with holder(folder, tmp_path) as other:
        for _ in range(2):
            with pytest.raises(SpoolBusyError) as caught:
                spool.lock()
            assert caught.value.exit_code == 4
            named = re.escape(f"It is process {other.pid} on {platform.node()}, since ") + "[0-9T:.-]+Z"
            busy = re.escape(f"Another cirron-spool is working on {folder}. ")
            wait = re.escape(". Wait for it to end, then run this again.")
            assert re.fullmatch(busy + named + wait, str(caught.value))
        assert sorted(os.listdir(folder)) == FILES
        _stream(other.stdin).close()
        assert _stream(other.stdout).readline() == b"given back\n"
        assert os.listdir(folder) == []
        assert spool.lock() == ""


def test_the_lock_ends_with_a_process_that_is_killed(
    spool: SpoolDirectory, folder: Path, tmp_path: Path
) -> None:
    with holder(folder, tmp_path) as other:
        other.kill()
        other.wait()
        assert sorted(os.listdir(folder)) == FILES  # left behind, and in nobody's way
        assert spool.lock() == ""
        spool.unlock()
    assert os.listdir(folder) == []


def test_a_fork_does_not_give_back_the_lock_of_its_parent(
    spool: SpoolDirectory, folder: Path, tmp_path: Path
) -> None:
    with holder(folder, tmp_path, "fork"):
        assert sorted(os.listdir(folder)) == FILES
        with pytest.raises(SpoolBusyError):
            spool.lock()


def test_the_lock_is_one_for_all_names_of_the_directory(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with holder(folder, tmp_path), SpoolDirectory(tmp_path / "link") as spool:
        assert spool.open()
        with pytest.raises(SpoolBusyError):
            spool.lock()


def test_the_lock_file_is_no_batch_and_no_file_of_the_sdk(spool: SpoolDirectory, folder: Path) -> None:
    spool.lock()
    assert sorted(os.listdir(folder)) == FILES
    assert spool.listing() == Listing([], ())
    assert list(folder.glob("*.json*")) == []


@pytest.mark.parametrize("taken_by_a_third", [False, True], ids=["free", "taken by a third"])
def test_a_waiter_never_holds_a_lock_file_that_was_unlinked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, taken_by_a_third: bool
) -> None:
    """The second has the lock file open; before it asks for the lock the first gives it back, unlinked."""
    first, second, third = (SpoolDirectory(folder) for _ in range(3))
    with first, second, third:
        assert first.open() and second.open() and third.open()
        first.lock()
        flock = fcntl.flock
        overtaken: list[int] = []

        def overtake(fd: int, operation: int) -> None:
            monkeypatch.setattr(fcntl, "flock", flock)
            overtaken.append(fd)
            first.unlock()
            if taken_by_a_third:
                third.lock()
            flock(fd, operation)

        monkeypatch.setattr(fcntl, "flock", overtake)
        try:
            second.lock()
            second_holds = True
        except SpoolBusyError:
            second_holds = False
        assert overtaken
        if taken_by_a_third:
            assert not second_holds
        if second_holds:
            with pytest.raises(SpoolBusyError):
                first.lock()
        third.unlock()
        second.unlock()
        assert first.lock() == ""


@pytest.mark.parametrize("how", ["unlock", "close"])
def test_a_lock_can_be_taken_again(folder: Path, how: str) -> None:
    for _ in range(3):
        with SpoolDirectory(folder) as spool:
            assert spool.open()
            spool.lock()
            getattr(spool, how)()
            spool.unlock()
        assert os.listdir(folder) == []


def test_a_lock_file_that_somebody_removed_is_given_back_all_the_same(
    spool: SpoolDirectory, folder: Path
) -> None:
    spool.lock()
    (folder / LOCK_NAME).unlink()
    spool.unlock()
    assert spool.lock() == ""


@pytest.mark.parametrize("code", [errno.EWOULDBLOCK, errno.EACCES], ids=["EWOULDBLOCK", "EACCES"])
def test_a_lock_that_somebody_holds_ends_the_work(
    spool: SpoolDirectory, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    _refuse(monkeypatch, "flock", code)
    with pytest.raises(SpoolBusyError):
        spool.lock()


NO_LOCKS = [
    errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF, errno.EINVAL, errno.EIO, errno.EPERM, errno.ESTALE,
    errno.ETIMEDOUT, errno.ENOTCONN, errno.ENOMEM, errno.EDEADLK, errno.EREMOTEIO, 524,
]  # fmt: skip


@pytest.mark.parametrize("code", NO_LOCKS, ids=lambda code: errno.errorcode.get(code, str(code)))
def test_the_lease_excludes_where_a_file_system_has_no_locks(
    spool: SpoolDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    before = descriptors()
    _refuse(monkeypatch, "flock", code)
    assert spool.lock() == ""
    with SpoolDirectory(folder) as other:
        other.open()
        with pytest.raises(SpoolBusyError):
            other.lock()
    spool.unlock()
    assert descriptors() == before


NO_FILE = [
    errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG,
]  # fmt: skip


@pytest.mark.parametrize("code", NO_FILE, ids=lambda code: errno.errorcode[code])
@pytest.mark.parametrize("left", [False, True], ids=["", "one was left"])
def test_a_spool_that_cannot_be_claimed_is_a_warning(
    spool: SpoolDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, left: bool
) -> None:
    if left:
        (folder / LOCK_NAME).touch()
    _refuse(monkeypatch, "open", code)
    _refuse(monkeypatch, "write", code)
    expected = (
        f"{folder} cannot be locked: {os.strerror(code)}. Do not run two flushes on it at the same time."
    )
    assert spool.lock() == expected
    spool.unlock()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE], ids=lambda code: errno.errorcode[code])
def test_a_spool_is_not_touched_without_a_claim_where_no_file_can_be_opened(
    spool: SpoolDirectory, folder: Path, code: int
) -> None:
    before = sorted(os.listdir(folder))
    with pytest.MonkeyPatch.context() as patch:
        _refuse(patch, "open", code)
        _refuse(patch, "write", code)
        with pytest.raises(ResourceError):
            spool.lock()
    assert sorted(os.listdir(folder)) == before
    assert spool.lock() == ""
    spool.unlock()


def _refuse(monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    """Let a call for the lock fail as on a full disk or a network file system, which cannot be had here."""
    real = os.open

    def refuse(*args: Any, **kwargs: Any) -> Any:
        if call == "open" and not os.fspath(args[0]).endswith(LOCK_NAME):
            return real(*args, **kwargs)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl if call == "flock" else os, call, refuse)


# -- the lock, and files that others left under its name ---------------------------------------------------------------


def _left(mode: int) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        path.touch()
        path.chmod(mode)

    return make


def _closed_folder(path: Path) -> None:
    path.mkdir()
    path.chmod(0o700)


LEFT: dict[str, Callable[[Path], object]] = {
    "0644": _left(0o644),
    "0444": _left(0o444),
    "0600": _left(0o600),
    "0000": _left(0),
    "link": _link,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "folder": Path.mkdir,
    "closed folder": _closed_folder,
    "pipe": os.mkfifo,
    "socket": _socket,
    "device": _device,
}


@needs_root
@pytest.mark.parametrize("sticky", [False, True], ids=["", "sticky"])
@pytest.mark.parametrize("kind", LEFT)
def test_what_another_user_left_under_the_name_of_the_lock_is_in_nobodys_way(
    shared: Path, kind: str, sticky: bool
) -> None:
    shared.chmod(0o1777 if sticky else 0o777)
    LEFT[kind](shared / LOCK_NAME)
    before = descriptors()
    with as_user(NOBODY), SpoolDirectory(shared) as spool, SpoolDirectory(shared) as other:
        assert spool.open() and other.open()
        assert spool.lock() == ""
        with pytest.raises(SpoolBusyError):  # by the lease where the lock cannot be had
            other.lock()
    assert descriptors() == before


@needs_root
@pytest.mark.parametrize("sticky", [False, True], ids=["", "sticky"])
@pytest.mark.parametrize("mode", [0o644, 0o600, 0o400, 0], ids=oct)
def test_a_lock_that_another_user_holds_is_held(shared: Path, mode: int, sticky: bool) -> None:
    """Whatever the mode of its file: only Linux tells of a file that may not be opened."""
    if not mode & 0o044 and not Path("/proc/locks").exists():
        pytest.skip("this system does not tell who holds a lock")
    shared.chmod(0o1777 if sticky else 0o777)
    holder = os.open(shared / LOCK_NAME, os.O_RDWR | os.O_CREAT, mode)
    os.fchmod(holder, mode)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with as_user(NOBODY), SpoolDirectory(shared) as spool:
        assert spool.open()
        for _ in range(2):
            with pytest.raises(SpoolBusyError):
                spool.lock()
        os.close(holder)
        assert spool.lock() == ""  # the holder was killed: what it left is in nobody's way


@needs_root
@pytest.mark.parametrize(
    ("directory", "file"), [(0o777, 0o666), (0o1777, 0o666), (0o2775, 0o664), (0o700, 0o600)]
)
def test_whoever_may_write_to_the_directory_may_lock_it(shared: Path, directory: int, file: int) -> None:
    shared.chmod(directory)
    before = os.umask(0o077)
    try:
        with SpoolDirectory(shared) as spool:
            assert spool.open()
            assert spool.lock() == ""
            assert stat.S_IMODE((shared / LOCK_NAME).stat().st_mode) == file
            if directory & 0o002:
                with as_user(NOBODY), SpoolDirectory(shared) as other, pytest.raises(SpoolBusyError):
                    assert other.open()
                    other.lock()
    finally:
        os.umask(before)


def test_files_that_somebody_else_made_anew_stay(spool: SpoolDirectory, folder: Path) -> None:
    with SpoolDirectory(folder) as other:
        assert other.open()
        spool.lock()
        (folder / LOCK_NAME).unlink()
        with pytest.raises(SpoolBusyError):
            other.lock()
        for name in os.listdir(folder):
            (folder / name).unlink()
        assert other.lock() == ""
        spool.unlock()
        with pytest.raises(SpoolBusyError):
            spool.lock()


def test_a_file_system_that_counts_no_links_has_locks(
    spool: SpoolDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fstat = os.fstat

    def uncounted(fd: int) -> os.stat_result:
        status = fstat(fd)
        values = list(status)
        values[stat.ST_NLINK] = 0
        return os.stat_result(values, {"st_mtime_ns": status.st_mtime_ns})

    monkeypatch.setattr(os, "fstat", uncounted)  # such a file system cannot be had here
    before = descriptors()
    assert spool.lock() == ""
    with SpoolDirectory(folder) as other, pytest.raises(SpoolBusyError):
        assert other.open()
        other.lock()
    spool.unlock()
    assert descriptors() == before
    assert spool.lock() == ""
