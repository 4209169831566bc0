from __future__ import annotations

import errno
import gzip
import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cirron_spool.errors import SpoolBusyError, SpoolError
from cirron_spool.receiver import store as store_module
from cirron_spool.receiver.answers import RefusedError
from cirron_spool.receiver.store import Store, Stored, Upload
from cirron_spool.spool.names import parse_batch_name
from support.users import NOBODY, as_user, needs_root, shared_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a" / "store"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    opened = Store(folder, max_bytes=10_000_000)
    yield opened
    opened.close()


def upload(store: Store, batch_id: str = "ab") -> Upload:
    return store.upload(batch_id, gzipped=False)


def names(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.endswith(".lock"))


def test_modes_and_the_folders_that_had_to_be_made(store: Store, folder: Path) -> None:
    name = upload(store).store_all(b'{"created_ns":7}').name
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert name == "00000000000000000007-ab.json"


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Store(tmp_path, max_bytes=1).close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_nothing_is_called_a_batch_before_it_is_synced(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, list[str]]] = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(descriptor: int) -> None:
        fsync(descriptor)
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        calls.append((kind, [name for name in names(folder) if parse_batch_name(name)]))

    def seen_replace(source: str, target: str) -> None:
        calls.append(("replace", []))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    name = upload(store).store_all(b"{}").name
    assert calls == [("file", []), ("replace", []), ("folder", [name])]


@pytest.mark.parametrize("text", [b"{}", b'{"created_ns":0}', b'{"created_ns":99999999999999999999}'])
def test_created_ns_is_the_documents_or_the_time_of_receipt(store: Store, text: bytes) -> None:
    before = time.time_ns()
    batch = parse_batch_name(upload(store).store_all(text).name)
    assert batch is not None
    if text == b"{}":
        assert before <= batch.created_ns <= time.time_ns()
    else:
        assert text == b'{"created_ns":%d}' % batch.created_ns
    assert batch.name.index("-") == 20


@pytest.mark.parametrize(
    "value", [b"-1", b"1.0", b"1e3", b"null", b'"7"', b"true", b"NaN", b"[]", b"{}", b"-0", b"1" * 21]
)
def test_a_created_ns_that_does_not_fit_is_refused(store: Store, folder: Path, value: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        upload(store).store_all(b'{"created_ns":%b}' % value)
    assert caught.value.status == 400
    assert names(folder) == []


@pytest.mark.parametrize(
    "batch_id",
    ["", "AB", "xy", "a" * 129, "../ab", "ab/cd", "ab\n", "a-b", "٣", "ab.json"],
)
def test_identifiers_that_do_not_fit_are_refused(store: Store, batch_id: str) -> None:
    with pytest.raises(RefusedError) as caught:
        store.upload(batch_id, gzipped=False)
    assert caught.value.status == 400


def test_the_longest_identifier(store: Store, folder: Path) -> None:
    assert upload(store, "f" * 128).store_all(b"{}").name in names(folder)


def test_a_duplicate_has_the_same_bytes(store: Store, folder: Path) -> None:
    first = upload(store).store_all(b'{"created_ns":1}')
    second = upload(store).store_all(b'{"created_ns":1}')
    packed = store.upload("ab", gzipped=True).store_all(gzip.compress(b'{"created_ns":1}', 9))
    assert (first.duplicate, first.size) == (False, 16)
    assert second == packed == Stored(first.name, 0, duplicate=True)
    assert names(folder) == [first.name]
    assert store.count() == 1


@pytest.mark.parametrize(
    "other", [b'{"created_ns":2}', b'{"created_ns":1 }', b'{"created_ns":1,"spans":[]}', b"{}"]
)
def test_another_batch_with_a_known_identifier_is_refused(store: Store, folder: Path, other: bytes) -> None:
    first = upload(store).store_all(b'{"created_ns":1}')
    with pytest.raises(RefusedError, match="A different batch with this identifier is stored as") as caught:
        upload(store).store_all(other)
    assert caught.value.status == 409
    assert names(folder) == [first.name]
    assert (folder / first.name).read_bytes() == b'{"created_ns":1}'


def test_files_that_somebody_else_put_there_are_compared_and_never_overwritten(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in (5, 6):
        (folder / f"{number}-ab.json").write_bytes(b'{"created_ns":%d}' % number)
    store = Store(folder, max_bytes=100)
    try:
        assert [upload(store).store_all(b'{"created_ns":%d}' % number).duplicate for number in (5, 6)] == [
            True,
            True,
        ]
        with pytest.raises(RefusedError):
            upload(store).store_all(b'{"created_ns":7}')
        # Since the start, and so not in the index.
        late = folder / "00000000000000000001-cd.json"
        late.write_bytes(b'{"created_ns":1,"spans":[]}')
        with pytest.raises(RefusedError):
            upload(store, "cd").store_all(b'{"created_ns":1}')
        assert late.read_bytes() == b'{"created_ns":1,"spans":[]}'
        assert upload(store, "cd").store_all(b'{"created_ns":1,"spans":[]}').duplicate
    finally:
        store.close()


@pytest.mark.parametrize("change", ["removed", "moved", "replaced"])
def test_a_folder_that_goes_away_takes_no_more_batches(store: Store, folder: Path, change: str) -> None:
    upload(store).store_all(b'{"created_ns":1}')
    if change == "removed":
        shutil.rmtree(folder)
    else:
        folder.rename(folder.with_name("elsewhere"))
    if change == "replaced":
        folder.mkdir()
    with pytest.raises(FileNotFoundError):
        upload(store, "cd").store_all(b"{}")
    assert not folder.exists() or names(folder) == []


def test_a_new_start_knows_what_is_there(store: Store, folder: Path) -> None:
    name = upload(store).store_all(b'{"created_ns":1}').name
    store.close()
    again = Store(folder, max_bytes=100)
    try:
        assert again.holds("ab") == (name,)
        assert again.holds("cd") == ()
        assert upload(again).store_all(b'{"created_ns":1}').duplicate
    finally:
        again.close()


def test_a_batch_that_was_there_at_the_start_counts_once_a_durable_copy_has_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir(parents=True)
    (folder / "1-ab.json").write_bytes(b'{"created_ns":1}')
    store = Store(folder, max_bytes=100)
    synced: list[int] = []
    fsync = os.fsync

    def seen(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    try:
        assert upload(store).store_all(b'{"created_ns":1}') == Stored("1-ab.json", 0, duplicate=True)
        assert synced == [(folder / "1-ab.json").stat().st_ino, folder.stat().st_ino]
    finally:
        store.close()


@needs_root
@pytest.mark.parametrize(("owner", "mode"), [(NOBODY, 0o400), (NOBODY, 0o444), (0, 0o644)])
def test_a_batch_that_may_only_be_read_is_a_duplicate_all_the_same(owner: int, mode: int) -> None:
    """As one is that was copied here from an archive, or by another user."""
    with shared_folder() as place:
        there = place / "1-ab.json"
        there.write_bytes(b'{"created_ns":1}')
        there.chmod(mode)
        os.chown(there, owner, owner)
        with as_user(NOBODY):
            store = Store(place, max_bytes=100)
            try:
                assert upload(store).store_all(b'{"created_ns":1}').duplicate
                with pytest.raises(RefusedError) as refused:
                    upload(store).store_all(b'{"created_ns":2}')
                assert refused.value.status == 409
            finally:
                store.close()


@pytest.mark.parametrize("loss", ["removed", "emptied", "link"])
def test_a_batch_that_is_gone_is_stored_again(store: Store, folder: Path, loss: str) -> None:
    path = folder / upload(store).store_all(b'{"created_ns":1}').name
    if loss == "emptied":
        path.write_bytes(b"")
    else:
        path.unlink()
        if loss == "link":
            path.symlink_to("/etc/hostname")
    assert not upload(store).store_all(b'{"created_ns":1}').duplicate
    assert path.read_bytes() == b'{"created_ns":1}'
    assert not path.is_symlink()


def test_left_overs_are_cleaned_and_nothing_else(folder: Path) -> None:
    folder.mkdir(parents=True)
    ours = ".incoming-0123456789abcdef.part"
    (folder / ours).write_bytes(b'{"half')
    others = {"1-ab.json", "2-cd.json.tmp", "notes.txt", ".incoming-x.part", "3-AB.json"}
    for name in others:
        (folder / name).write_bytes(b"{}")
    (folder / "sub").mkdir()
    (folder / "4-ef.json").mkdir()
    (folder / "5-ff.json").symlink_to("1-ab.json")
    assert parse_batch_name(ours) is None
    store = Store(folder, max_bytes=100)
    try:
        assert set(names(folder)) == others | {"sub", "4-ef.json", "5-ff.json"}
        assert store.count() == 1
    finally:
        store.close()


def test_discarding_leaves_nothing_and_may_be_repeated(store: Store, folder: Path) -> None:
    taken = upload(store)
    taken.feed(b'{"a":"' + b"x" * 500_000)
    assert len(names(folder)) == 1
    taken.discard()
    taken.discard()
    assert names(folder) == []


def test_what_is_refused_at_its_first_piece_never_touches_the_disk(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("a file was opened"))
    with pytest.raises(RefusedError):
        upload(store).store_all(b"no")


def test_a_bomb_writes_no_more_than_the_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0
    write = os.write

    def counted(descriptor: int, data: Any) -> int:
        nonlocal written
        done = write(descriptor, data)
        written += done
        return done

    store = Store(folder, max_bytes=300_000)
    monkeypatch.setattr(os, "write", counted)
    try:
        with pytest.raises(RefusedError) as caught:
            store.upload("ab", gzipped=True).store_all(gzip.compress(b'{"a":"' + b"x" * 30_000_000 + b'"}'))
        assert caught.value.status == 413
        assert 0 < written <= 300_000
        assert names(folder) == []
    finally:
        store.close()


def test_short_writes_are_continued(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    name = upload(store).store_all(b'{"created_ns":1234567890}').name
    assert (folder / name).read_bytes() == b'{"created_ns":1234567890}'


@pytest.mark.parametrize("call", ["open", "write", "fsync", "close", "replace", "fsync of the folder"])
def test_a_failure_at_any_step_leaves_nothing(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real = getattr(os, call.split(maxsplit=1)[0])

    def failing(*arguments: Any) -> Any:
        is_folder = call.startswith("fsync") and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
        if call.startswith("fsync") and is_folder != call.endswith("folder"):
            return real(*arguments)
        if call == "close":
            real(*arguments)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(os, call.split(maxsplit=1)[0], failing)
        with pytest.raises(OSError, match="Input/output error"):
            upload(store).store_all(b"{}")
    assert names(folder) == []
    assert store.holds("ab") == ()
    assert not upload(store).store_all(b"{}").duplicate


def test_two_at_once_are_one_and_the_second_waits_until_it_is_durable(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_commit, go_on = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow_for_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            in_commit.set()
            assert go_on.wait(30)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow_for_folders)
    waiting = threading.Event()
    real_wait = store._changed.wait

    def seen_wait(timeout: float | None = None) -> bool:
        waiting.set()
        return real_wait(timeout)

    monkeypatch.setattr(store._changed, "wait", seen_wait)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(upload(store).store_all, b'{"created_ns":1}')
        assert in_commit.wait(30)
        second = threads.submit(upload(store).store_all, b'{"created_ns":1}')
        assert waiting.wait(30)
        assert not second.done()
        go_on.set()
        assert [first.result().duplicate, second.result().duplicate] == [False, True]
    assert names(folder) == ["00000000000000000001-ab.json"]


def test_many_at_once(store: Store, folder: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        text = b'{"created_ns":1}'
        done = [threads.submit(upload(store, f"{number % 10:x}").store_all, text) for number in range(200)]
        assert sum(not each.result().duplicate for each in done) == 10
    assert len(names(folder)) == 10


def test_a_second_receiver_is_refused_until_the_first_ends(store: Store, folder: Path) -> None:
    with pytest.raises(SpoolBusyError, match="Another receiver stores in") as caught:
        Store(folder, max_bytes=100)
    assert caught.value.exit_code == 4
    store.close()
    Store(folder, max_bytes=100).close()


@needs_root
def test_what_another_users_receiver_left_is_in_nobodys_way() -> None:
    with shared_folder() as place:
        lock = place / ".cirron-spool-receive.lock"
        lock.touch(0o600)
        with as_user(NOBODY):
            Store(place, max_bytes=1).close()
        store = Store(place, max_bytes=1)
        with as_user(NOBODY), pytest.raises(SpoolBusyError):
            Store(place, max_bytes=1)
        store.close()


def test_folders_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SpoolError, match=r"Cannot store in .*--store") as caught:
            Store(directory, max_bytes=1)
        assert caught.value.exit_code == 2

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as broken:
        broken.setattr(store_module, "parse_batch_name", refuse)
        (tmp_path / "1-ab.json").write_bytes(b"{}")
        with pytest.raises(SpoolError, match="Permission denied"):
            Store(tmp_path, max_bytes=1)
    Store(tmp_path, max_bytes=1).close()  # the lock was let go
