from __future__ import annotations

import asyncio
import contextlib
import io
import os
import threading
import tracemalloc
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cirron_spool.offline import inspect_spool
from cirron_spool.receiver import snapshot_file
from cirron_spool.receiver.answers import RefusedError
from cirron_spool.receiver.incoming import IncomingFile, make_folder, sync_file
from cirron_spool.receiver.snapshot_file import SnapshotFile, StoredSnapshot
from cirron_spool.receiver.store import Store

from .conftest import TOKEN, Answer, Peer, Start

BLOBS = "/api/traces/blobs/"
KEY = "snapshots/00ff00ff00ff00ff/weights.safetensors"
OTHER = "snapshots/00ff00ff00ff00ff/gradients.safetensors"


async def put(peer: Peer, body: Any, key: str = KEY, **headers: str | None) -> Answer:
    head = {
        "Authorization": f"Bearer {TOKEN}",
        "Content-Type": "application/octet-stream",
        "X-Cirron-Blob-Key": key,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    data = io.BytesIO(body) if isinstance(body, bytes) else body
    sent = {name: value for name, value in head.items() if value is not None}
    return await peer.request("PUT", BLOBS + key, data=data, headers=sent)


@pytest.mark.anyio
async def test_a_snapshot_is_stored_below_its_key(start: Start) -> None:
    text = os.urandom(1_000_000)
    async with start(verbose=True) as peer:
        stored = await put(peer, text)
        assert (stored.status, stored.headers["Location"]) == (201, BLOBS + KEY)
        assert stored.body == {"success": True, "key": KEY, "duplicate": False}
        assert (peer.folder / KEY).read_bytes() == text
        assert (peer.folder / KEY).stat().st_mode & 0o777 == 0o600
        again = await put(peer, text)
        assert (again.status, again.body["duplicate"], again.headers["Location"]) == (200, True, BLOBS + KEY)
        other = await put(peer, text[:-1])
        assert other.status == 409
        assert (peer.folder / KEY).read_bytes() == text
        assert (await put(peer, b"x", OTHER)).status == 201
        assert peer.names == ["snapshots"]
        assert sorted(os.listdir((peer.folder / KEY).parent)) == [
            "gradients.safetensors",
            "weights.safetensors",
        ]
        said = [line.partition(" ")[2].rpartition(" from ")[0] for line in peer.said]
        assert said[:2] == [f"Stored {KEY} (977 KB)", f"Duplicate of {KEY}"]
        assert peer.receiver.journal.totals() == (
            "Received 0 batches (0 B), 2 snapshots (977 KB), 1 duplicate, 1 refused."
        )
        assert (await peer.request("GET", "/health")).body["snapshots"] == 2
    async with start() as peer:  # another receiver on the same store
        assert (await put(peer, text)).body["duplicate"] is True


@pytest.mark.anyio
async def test_the_store_stays_a_spool(start: Start, tmp_path: Path) -> None:
    async with start() as peer:
        await peer.post(b'{"created_ns":1}')
        await put(peer, b"weights")
        assert (await peer.request("GET", "/health")).body["batches"] == 1
    listing = inspect_spool(tmp_path / "store")
    assert [entry.name for entry in listing.entries] == ["00000000000000000001-ab.json"]


@pytest.mark.parametrize(
    ("key", "headers", "status"),
    [
        (KEY, {"Authorization": None}, 401),
        (KEY, {"Authorization": "Bearer wrong"}, 401),
        (KEY, {"X_Cirron_Blob_Key": None}, 400),
        (KEY, {"X_Cirron_Blob_Key": OTHER}, 400),
        (KEY, {"X_Cirron_Blob_Key": KEY.upper()}, 400),
        ("snapshots/ab/weights.bin", {}, 404),
        ("snapshots/ab/weights.safetensors/x", {}, 404),
        ("snapshots//weights.safetensors", {}, 404),
        ("snapshots/../weights.safetensors", {}, 404),
        ("snapshots/%2e%2e/weights.safetensors", {}, 404),
        ("snapshots/a.b/weights.safetensors", {}, 404),
        (f"snapshots/{'a' * 129}/weights.safetensors", {}, 404),
        ("weights.safetensors", {}, 404),
        ("", {}, 404),
    ],
)
@pytest.mark.anyio
async def test_snapshots_that_are_refused(
    start: Start, key: str, headers: dict[str, str | None], status: int
) -> None:
    async with start() as peer:
        reader, writer = await peer.connect()  # raw: a client would resolve the dots
        usual = {"Authorization": f"Bearer {TOKEN}", "X-Cirron-Blob-Key": key, "Content-Length": "1"}
        head = {**usual, **{name.replace("_", "-"): value for name, value in headers.items()}}
        lines = [f"PUT {BLOBS}{key} HTTP/1.1", "Host: x"]
        lines += [f"{name}: {value}" for name, value in head.items() if value is not None]
        writer.write("\r\n".join([*lines, "", "x"]).encode())
        assert (await reader.readline()).split()[1] == str(status).encode()
        writer.close()
        assert peer.names == []


@pytest.mark.anyio
async def test_a_length_is_needed(start: Start) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    async with start() as peer:
        assert (await put(peer, chunks())).status == 411
        assert (await put(peer, b"")).status in (400, 411)
        reader, writer = await peer.connect()
        head = f"PUT {BLOBS}{KEY} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nX-Cirron-Blob-Key: {KEY}\r\n"
        writer.write(f"{head}Content-Length: 0\r\n\r\n{head}\r\n".encode())
        got = await reader.readuntil(b"}")
        assert b" 400 " in got
        assert b" 411 " in await reader.readuntil(b"}")
        writer.close()
        assert peer.names == []


@pytest.mark.anyio
async def test_the_limit_is_an_option_of_its_own(start: Start) -> None:
    async with start(max_bytes=10, max_snapshot_bytes=1000) as peer:
        assert (await put(peer, b"x" * 1000)).status == 201
        refused = await put(peer, b"x" * 1001, OTHER)
        assert (refused.status, refused.body["error"]) == (413, "The snapshot is larger than 1000 bytes.")


@pytest.mark.anyio
async def test_a_snapshot_that_breaks_off_leaves_nothing(start: Start) -> None:
    async with start() as peer:
        reader, writer = await peer.connect()
        head = f"PUT {BLOBS}{KEY} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nX-Cirron-Blob-Key: {KEY}\r\n"
        writer.write(f"{head}Content-Length: 900000\r\n\r\n".encode() + b"x" * 800_000)
        writer.write_eof()
        assert b" 400 " in await reader.readline()
        writer.close()
        assert peer.names == []


@pytest.mark.anyio
async def test_the_same_snapshot_from_many_at_once(start: Start) -> None:
    text = os.urandom(300_000)
    async with start() as peer:
        answers = await asyncio.gather(*(put(peer, text) for _ in range(12)))
        assert sorted(answer.status for answer in answers) == [200] * 11 + [201]
        different = await asyncio.gather(*(put(peer, bytes([number]), OTHER) for number in range(12)))
        assert sorted(answer.status for answer in different) == [201] + [409] * 11


@pytest.mark.anyio
async def test_a_disk_that_is_full(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(upload: IncomingFile[Any]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with start() as peer:
        with monkeypatch.context() as broken:
            broken.setattr(IncomingFile, "finish", full)
            answer = await put(peer, b"x" * 600_000)
        assert answer.status == 507
        assert answer.body["error"].startswith("Could not store a snapshot in ")
        assert peer.names == []
        assert (await put(peer, b"x")).status == 201


@pytest.mark.anyio
async def test_a_folder_that_cannot_be_synced_acknowledges_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: object, flags: int) -> None:
        raise OSError(5, os.strerror(5))

    async with start() as peer:
        with monkeypatch.context() as patched:
            patched.setattr(snapshot_file, "sync_file", broken)
            assert (await put(peer, b"x")).status == 500
        assert not (peer.folder / KEY).exists()
        assert (await put(peer, b"y")).status == 201


@pytest.mark.anyio
async def test_what_lies_under_a_key_and_is_no_file_stays(start: Start, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"x")
    async with start() as peer:
        (peer.folder / KEY).parent.mkdir(parents=True)
        (peer.folder / KEY).symlink_to(tmp_path / "outside")
        assert (await put(peer, b"x")).status == 409
        assert (peer.folder / KEY).is_symlink()


@pytest.mark.anyio
async def test_a_large_snapshot_takes_little_memory(start: Start) -> None:
    size = 64 << 20

    async def body() -> AsyncIterator[bytes]:
        piece = bytes(1 << 16)
        for _ in range(size // len(piece)):
            yield piece

    async with start() as peer:
        tracemalloc.start()
        try:
            answer = await put(peer, body(), Content_Length=str(size))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert answer.status == 201
        assert (peer.folder / KEY).stat().st_size == size
        assert peak < 8 << 20


def snapshot(store: Store, text: bytes) -> StoredSnapshot:
    return SnapshotFile(store, KEY).store_all(text)


def test_every_folder_above_a_snapshot_is_synced_before_its_acknowledgement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another upload has made the folders, whose own sync may not have ended."""
    store = Store(tmp_path / "store", max_bytes=1)
    (store.directory / KEY).parent.mkdir(parents=True)
    synced: list[Path] = []

    def seen(path: Path, flags: int) -> None:
        assert (store.directory / KEY).exists()
        synced.append(path)
        sync_file(path, flags)

    monkeypatch.setattr(snapshot_file, "sync_file", seen)
    try:
        snapshot(store, b"x")
    finally:
        store.close()
    folder = (store.directory / KEY).parent
    assert synced == [folder, folder.parent, store.directory]


def test_of_two_at_once_the_second_waits_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_commit, go_on, waiting = threading.Event(), threading.Event(), threading.Event()
    store = Store(tmp_path / "store", max_bytes=1)
    real_wait = store._changed.wait

    def slow(path: Path) -> None:
        in_commit.set()
        assert go_on.wait(60)
        make_folder(path)

    def seen_wait(timeout: float | None = None) -> bool:
        waiting.set()
        return real_wait(timeout)

    monkeypatch.setattr(snapshot_file, "make_folder", slow)
    monkeypatch.setattr(store._changed, "wait", seen_wait)
    with ThreadPoolExecutor(2) as threads, contextlib.closing(store):
        first = threads.submit(snapshot, store, b"one")
        assert in_commit.wait(60)
        second = threads.submit(snapshot, store, b"two")
        waits = waiting.wait(60)
        go_on.set()
        assert waits
        assert not first.result().duplicate
        with pytest.raises(RefusedError, match="A different snapshot is stored under this key"):
            second.result()
        assert (store.directory / KEY).read_bytes() == b"one"
