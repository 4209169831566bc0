"""Snapshots go before the batches, whole, each one once; and no trouble with them holds a batch back."""

from __future__ import annotations

import asyncio
import json
import os
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from cirron_spool import (
    ConfigError,
    FlushEvent,
    FlushResult,
    Progress,
    Retrying,
    Sending,
    SnapshotCounts,
    SnapshotFailed,
    SnapshotsStarted,
    SnapshotUploaded,
    Warned,
    flush_spool,
)
from cirron_spool.spool.sent_ledger import LEDGER_NAME
from support.answers import Answer, Gate, html, json_answer
from support.cli import write_config
from support.scripted import ScriptedServer
from support.snapshots import accept, keys_put, lay, puts, safetensors
from support.spools import TINY, sdk_batches, snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-flush-secret"
A, B, C = "a" * 32, "b" * 32, "c" * 32


async def flush(server: ScriptedServer, spool: Path, **options: Any) -> FlushResult:
    return await flush_spool(
        spool, **{"api_url": server.url, "token": TOKEN, "verify": False, "snapshots": "keep", **options}
    )


def counts(result: FlushResult) -> SnapshotCounts:
    assert result.snapshots is not None
    return result.snapshots


def make(spool: Path) -> None:
    spool.mkdir()


def ledger(spool: Path) -> Path:
    return spool.parent / "snapshots" / LEDGER_NAME


async def test_they_go_first_and_once(spool: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    first, path = lay(spool, A, data=os.urandom(300_000))
    os.utime(path, ns=(5, 5))
    second, other = lay(spool, A, "gradients")
    events: list[FlushEvent] = []
    with ScriptedServer() as server:
        accept(server, first, second)
        result = await flush(server, spool, on_event=events.append)
        assert [(request.method, request.complete) for request in server.requests] == [
            ("PUT", True),
            ("PUT", True),
            ("POST", True),
            ("POST", True),
        ]
        request = server.requests[0]
        assert request.path == f"/api/traces/blobs/{first}"
        assert request.body == path.read_bytes()
        assert dict(request.headers.raw).get("Content-Length") == str(path.stat().st_size)
        for name, value in {
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": "application/octet-stream",
            "X-Cirron-Blob-Key": first,
        }.items():
            assert request.headers.all(name.lower()) == [value]
        assert (request.headers.get("x-cirron-sdk-version") or "").startswith("cirron-spool/")
        assert "content-encoding" not in request.headers
        assert (result.uploaded, result.exit_code, result.warnings) == (2, 0, ())
        size = path.stat().st_size + other.stat().st_size
        assert counts(result) == SnapshotCounts(uploaded=2, bytes_sent=size)
        kinds = [type(event) for event in events]
        assert kinds.index(SnapshotsStarted) < kinds.index(Sending) < kinds.index(SnapshotUploaded)
        assert SnapshotUploaded(first, path.stat().st_size, f"blob://{first}") in events

        # A second flush, without any batch, sends neither; a changed file goes again.
        again = await flush(server, spool)
        assert (again.uploaded, again.exit_code) == (0, 0)
        assert counts(again) == SnapshotCounts(sent_before=2)
        assert len(puts(server)) == 2
        path.write_bytes(safetensors(b"other"))
        changed = await flush(server, spool)
        assert (counts(changed).uploaded, counts(changed).sent_before) == (1, 1)
        assert keys_put(server) == [first, second, first]
    entry = json.loads(ledger(spool).read_text().splitlines()[0])
    assert (entry["key"], entry["destination"]) == (first, f"{server.url}/api/traces/blobs")
    with ScriptedServer() as elsewhere:
        accept(elsewhere, first, second)
        assert counts(await flush(elsewhere, spool)).uploaded == 2


async def test_without_the_option_nothing_of_them_is_sent(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    lay(spool)
    with ScriptedServer() as server:
        result = await flush(server, spool, snapshots=None)
        assert puts(server) == []
    assert (result.uploaded, result.snapshots) == (1, None)
    assert "--snapshots" in result.warnings[0]
    assert not ledger(spool).exists()


@pytest.mark.parametrize("value", [True, "yes", [], 1])
async def test_another_value_of_the_option(spool: Path, value: Any) -> None:
    with pytest.raises(ConfigError, match="snapshots must be"):
        await flush_spool(spool, snapshots=value)


async def test_files_that_were_sent_before_are_deleted_unless_they_changed(spool: Path) -> None:
    make(spool)
    key, path = lay(spool, A)
    other, changed = lay(spool, B)
    with ScriptedServer() as server:
        accept(server, key, other)
        await flush(server, spool)
        changed.write_bytes(safetensors(b"something else"))
        server.on("PUT", f"/api/traces/blobs/{other}", Answer(409))
        result = await flush(server, spool, snapshots="delete")
    assert not path.exists()
    assert changed.exists()
    assert (counts(result).deleted, counts(result).failed, counts(result).uploaded) == (1, 1, 0)
    assert result.exit_code == 1


async def test_a_file_that_is_replaced_while_it_is_acknowledged_stays(spool: Path) -> None:
    make(spool)
    key, path = lay(spool, A)

    def replace(request: object) -> Answer:
        path.unlink()
        path.write_bytes(safetensors(b"the next epoch"))
        return Answer(204)

    with ScriptedServer() as server:
        accept(server, key, answer=Answer(200, late=replace))
        result = await flush(server, spool, snapshots="delete")
        assert (counts(result).uploaded, counts(result).deleted) == (1, 0)
        assert path.read_bytes() == safetensors(b"the next epoch")
        accept(server, key)
        again = await flush(server, spool)
        assert counts(again).uploaded == 1


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_platform_without_the_route_is_said_once(spool: Path, status: int) -> None:
    sdk_batches(spool, 2, spans=TINY)
    keys = [lay(spool, span)[0] for span in (A, B, C)]
    with ScriptedServer() as server:
        accept(server, *keys, answer=Answer(status))
        result = await flush(server, spool)
        assert len(puts(server)) == 1
    assert (result.uploaded, result.failed, result.exit_code) == (2, 0, 1)
    assert counts(result) == SnapshotCounts(left=3)
    assert result.warnings == (f"{server.url} takes no snapshots yet (HTTP {status}). They stay on disk.",)


@pytest.mark.parametrize("status", [400, 409, 413, 422])
async def test_a_refused_one_fails_alone(spool: Path, status: int) -> None:
    sdk_batches(spool, 1, spans=TINY)
    bad, path = lay(spool, A)
    os.utime(path, ns=(1, 1))
    good, _ = lay(spool, B)
    events: list[FlushEvent] = []
    with ScriptedServer() as server:
        accept(server, bad, answer=json_answer({"message": "no such span"}, status))
        accept(server, good)
        result = await flush(server, spool, snapshots="delete", on_event=events.append)
    assert (result.uploaded, result.failed, result.exit_code) == (1, 0, 1)
    assert (counts(result).uploaded, counts(result).failed) == (1, 1)
    assert path.exists()
    assert [event.status for event in events if isinstance(event, SnapshotFailed)] == [status]
    assert counts(result).failures[0].message.startswith(f"Rejected {bad}: HTTP {status}")
    assert "no such span" in result.warnings[0]


async def test_retries_a_renewed_token_and_cut_answers(spool: Path, tmp_path: Path) -> None:
    make(spool)
    key, path = lay(spool, A, data=os.urandom(500_000))
    config = write_config(
        tmp_path,
        auth={"accessToken": "access-0", "refreshToken": "refresh-0", "expiresAt": "2100-01-01T00:00:00Z"},
    )
    route = f"/api/traces/blobs/{key}"
    events: list[FlushEvent] = []
    with ScriptedServer() as server:
        whole = Answer(201, body=b"blob://here")
        server.on(
            "PUT",
            route,
            Answer(429, headers=[("Retry-After", "1")]),
            Answer(201, cut_after=20),
            Answer(401),
            whole,
        )
        result = await flush_spool(
            spool,
            api_url=server.url,
            config_path=config,
            verify=False,
            snapshots="keep",
            on_event=events.append,
        )
        assert [request.body for request in puts(server)] == [path.read_bytes()] * 4
        assert puts(server)[-1].token != "access-0"
    assert (counts(result).uploaded, result.exit_code) == (1, 0)
    assert [event.status for event in events if isinstance(event, Retrying)] == [429, None]
    assert SnapshotUploaded(key, path.stat().st_size, "blob://here") in events


@pytest.mark.parametrize(
    "answer",
    [
        html(),
        json_answer({"success": False}),
        Answer(503),
        Answer(302),
        Answer(403),
        Answer(401),
    ],
    ids=["page", "error", "503", "302", "403", "401"],
)
async def test_no_other_answer_acknowledges_or_holds_a_batch(spool: Path, answer: Answer) -> None:
    sdk_batches(spool, 2, spans=TINY)
    files = [lay(spool, span) for span in (A, B, C)]
    with ScriptedServer() as server:
        accept(server, *(key for key, _ in files), answer=answer)
        result = await flush(server, spool, snapshots="delete", retries=1)
        assert len(puts(server)) <= 4, keys_put(server)
    assert result.uploaded == 2
    assert all(path.exists() for _, path in files)
    assert (counts(result).uploaded, counts(result).failed + counts(result).left) == (0, 3)
    assert result.exit_code in (1, 3, 4)
    assert not ledger(spool).exists()


async def test_one_that_never_goes_through_does_not_hold_the_others(spool: Path) -> None:
    make(spool)
    bad, path = lay(spool, A)
    os.utime(path, ns=(1, 1))
    good, _ = lay(spool, B)
    with ScriptedServer() as server:
        accept(server, bad, answer=Answer(500))
        accept(server, good)
        result = await flush(server, spool, retries=1)
    assert (counts(result).uploaded, counts(result).failed, result.exit_code) == (1, 1, 4)


async def test_an_unfinished_or_empty_one_waits(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    text = safetensors(b"x" * 5000)
    half, path = lay(spool, A, data=text[:-1], raw=True)
    lay(spool, B, data=text[:12], raw=True)
    lay(spool, C, data=b"", raw=True)
    (path.parent / ".tmpcQEvBh").write_bytes(text)
    with ScriptedServer() as server:
        accept(server, half)
        result = await flush(server, spool, snapshots="delete")
        assert puts(server) == []
        assert (result.uploaded, result.exit_code, counts(result)) == (1, 4, SnapshotCounts(left=3))
        assert "3 snapshots that may still be written" in result.warnings[0]
        path.write_bytes(text)
        assert counts(await flush(server, spool)).uploaded == 1


async def test_other_entries_are_left_alone(spool: Path) -> None:
    make(spool)
    key, path = lay(spool, A)
    folder = spool.parent / "snapshots"
    os.mkfifo(path.parent / "gradients.safetensors")
    (folder / "link").symlink_to(path.parent)
    (folder / "B").mkdir()
    (folder / "B" / "weights.safetensors").symlink_to(path)
    for name in ("..a", "ü", "a b", "x\ny", "%2e", "z" * 200):
        (folder / name).mkdir()
        (folder / name / "weights.safetensors").write_bytes(b"t")
    (folder / A / "optimizer.pt").write_bytes(b"t")
    (folder / "notes.txt").touch()
    with ScriptedServer() as server:
        accept(server, key)
        result = await flush(server, spool, snapshots="delete")
        assert keys_put(server) == [key]
    assert (counts(result).uploaded, result.exit_code) == (1, 0)
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith("Ignored beside the snapshots: 8 entries, such as ")
    assert "\n" not in result.warnings[0]


@pytest.mark.parametrize(
    "text", [b"\xff\x00garbage", b'{"key": 1}\n[]\nnull\n"x"\n', b"x" * 100_000, b'{"key": "a']
)
async def test_a_corrupt_ledger_sends_again_and_is_healed(spool: Path, text: bytes) -> None:
    make(spool)
    key, _ = lay(spool, A)
    ledger(spool).write_bytes(text)
    with ScriptedServer() as server:
        accept(server, key)
        assert counts(await flush(server, spool)).uploaded == 1
        assert counts(await flush(server, spool)).sent_before == 1


async def test_a_ledger_that_cannot_be_written_is_said_once(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    keys = [lay(spool, span)[0] for span in (A, B)]
    os.mkfifo(ledger(spool))
    with ScriptedServer() as server:
        accept(server, *keys)
        result = await flush(server, spool)
    assert (result.uploaded, counts(result).uploaded) == (1, 2)
    assert [LEDGER_NAME in warning for warning in result.warnings] == [True, True]
    assert result.warnings[1].endswith("The next flush will send the snapshots again.")


async def test_a_file_that_changes_while_it_is_sent_is_not_acknowledged(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    key, path = lay(spool, A, data=bytes(8_000_000))
    gate = Gate()
    with ScriptedServer(receive_buffer=64 * 1024) as server:
        accept(server, key, answer=Answer(201, read_only=100_000, stall_before=gate))

        async def change() -> None:
            await server.arrived(lambda seen: any(request.received for request in seen.requests))
            with path.open("r+b") as file:
                file.seek(7_000_000)
                file.write(b"changed")
            gate.open()

        async with anyio.create_task_group() as group:
            group.start_soon(change)
            result = await flush(server, spool, retries=0)
    assert result.uploaded == 1
    assert (counts(result).uploaded, counts(result).failed) == (0, 1)
    assert "changed while it was being sent" in counts(result).failures[0].message
    assert not ledger(spool).exists()


async def test_a_vanished_one_is_no_failure(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    key, path = lay(spool, A)
    os.utime(path, ns=(1, 1))
    _, gone = lay(spool, B)

    def vanish(request: object) -> Answer:
        gone.unlink()
        return Answer(201)

    with ScriptedServer() as server:
        accept(server, key, answer=Answer(201, late=vanish))
        result = await flush(server, spool)
        assert keys_put(server) == [key]
    assert (result.exit_code, counts(result).uploaded, counts(result).vanished) == (0, 1, 1)


@pytest.mark.thorough
async def test_a_huge_one_is_streamed_in_flat_memory(spool: Path) -> None:
    make(spool)
    key, path = lay(spool, A, data=b"", raw=True)
    with path.open("r+b") as file:
        file.truncate(300 * 1024 * 1024)
    seen = 0
    left = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        await reader.readuntil(b"\r\n\r\n")
        while seen < path.stat().st_size:
            seen += len(await reader.read(1 << 20))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await reader.read()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        left.set()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    events: list[FlushEvent] = []
    tracemalloc.start()
    try:
        result = await flush_spool(
            spool,
            api_url=f"http://127.0.0.1:{port}",
            token=TOKEN,
            verify=False,
            snapshots="keep",
            on_event=events.append,
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        server.close()
    await left.wait()
    assert (counts(result).uploaded, counts(result).bytes_sent, seen) == (1, 300 << 20, 300 << 20)
    assert peak < 32 << 20
    assert all(
        event.name == key and event.total == 300 << 20 for event in events if isinstance(event, Progress)
    )


async def test_a_cancellation_leaves_what_was_not_acknowledged(spool: Path) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    key, path = lay(spool, A)
    os.utime(path, ns=(1, 1))
    other, second = lay(spool, B)
    with ScriptedServer() as server:
        accept(server, key)
        accept(server, other, answer=Answer(hang=True))
        task = asyncio.create_task(flush(server, spool, snapshots="delete"))
        await server.arrived(lambda seen: any(request.path.endswith(other) for request in seen.requests))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (path.exists(), second.exists(), snapshot(spool)) == (False, True, batches)
        accept(server, other)
        result = await flush(server, spool)
        assert keys_put(server) == [key, other, other]
    assert (result.uploaded, counts(result).uploaded) == (1, 1)


async def test_a_stop_waits_for_the_one_in_flight(spool: Path) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    key, path = lay(spool, A)
    os.utime(path, ns=(1, 1))
    other, _ = lay(spool, B)
    gate, stop = Gate(), asyncio.Event()
    with ScriptedServer() as server:
        accept(server, key, answer=Answer(201, stall_before=gate))
        accept(server, other)
        task = asyncio.create_task(flush(server, spool, stop=stop))
        await server.arrived(lambda seen: any(request.complete for request in seen.requests))
        stop.set()
        await asyncio.sleep(0)
        gate.open()
        result = await task
        assert keys_put(server) == [key]
    assert (counts(result).uploaded, counts(result).left, result.exit_code) == (1, 1, 4)
    assert snapshot(spool) == batches


async def test_a_dry_run_lists_them(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    key, path = lay(spool, A)
    with ScriptedServer() as server:
        result = await flush(server, spool, dry_run=True, snapshots="delete")
        assert server.requests == []
    assert counts(result) == SnapshotCounts(left=1, planned=((key, path.stat().st_size),))
    assert result.exit_code == 0
    assert path.exists()


async def test_a_spool_of_another_name_says_that_there_is_nothing_beside_it(tmp_path: Path) -> None:
    place = tmp_path / "batches"
    sdk_batches(place, 1, spans=TINY)
    lay(place, A)
    with ScriptedServer() as server:
        events: list[FlushEvent] = []
        result = await flush(server, place, on_event=events.append)
        assert puts(server) == []
    assert (result.uploaded, result.exit_code) == (1, 0)
    assert [event.message[:28] for event in events if isinstance(event, Warned)] == [
        "Snapshots were not searched:"
    ]


@pytest.mark.parametrize("status", [401, 404, 413, 503])
async def test_an_answer_before_the_body_ends_the_upload(spool: Path, status: int) -> None:
    sdk_batches(spool, 1, spans=TINY)
    key, path = lay(spool, A, data=bytes(16_000_000))
    with ScriptedServer(receive_buffer=64 * 1024) as server:
        accept(server, key, answer=Answer(status, before_body=True, close=True))
        result = await flush(server, spool, retries=1, snapshots="delete")
    assert (result.uploaded, counts(result).uploaded, path.exists()) == (1, 0, True)
    assert counts(result).failed + counts(result).left == 1


async def test_a_stop_does_not_wait_for_ever(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cirron_spool.pipeline.runner.GRACE_S", 0.05)
    make(spool)
    key, path = lay(spool, A)
    stop = asyncio.Event()
    with ScriptedServer() as server:
        accept(server, key, answer=Answer(hang=True))
        task = asyncio.create_task(flush(server, spool, stop=stop, snapshots="delete"))
        await server.arrived(lambda seen: any(request.complete for request in seen.requests))
        stop.set()
        result = await task
    assert (counts(result), result.exit_code) == (SnapshotCounts(left=1), 4)
    assert path.exists()


async def test_a_folder_that_cannot_be_listed_holds_no_batch(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    (spool.parent / "snapshots").write_bytes(b"a file")
    with ScriptedServer() as server:
        result = await flush(server, spool)
    assert (result.uploaded, result.exit_code) == (1, 1)
    assert result.warnings[0].startswith("Cannot list the snapshots in ")
