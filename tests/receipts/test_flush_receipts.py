"""A flush with receipts: one for each batch, durable before the batch is deleted, and right about its bytes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import Client, ConfigError, FlushResult, flush_spool, flush_spools
from cirron_spool.receipts import writer
from cirron_spool.receipts.check import check_receipts
from cirron_spool.settings.tuning import Tuning
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.file_identity import Fingerprint, Removal
from support.answers import Answer
from support.scripted import ScriptedServer
from support.spools import BIG, TINY, Sealed, random_batch, sdk_batches, snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-receipts-secret"


async def flush(server: ScriptedServer, spool: Path, **options: Any) -> FlushResult:
    return await flush_spool(spool, **{"api_url": server.url, "token": TOKEN, "verify": False, **options})


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "receipts.jsonl"


@pytest.mark.parametrize("disk_work", ["thread", "inline"])
async def test_each_batch_has_a_receipt_of_its_bytes(spool: Path, path: Path, disk_work: Any) -> None:
    sdk_batches(spool, 3, spans=TINY)
    sdk_batches(spool, 2, first_ns=2 * 10**18)
    batches = sdk_batches(spool, 1, spans=BIG, first_ns=3 * 10**18)
    with ScriptedServer(Answer(202)) as server:
        result = await flush(server, spool, receipts=path, tuning=Tuning(disk_work=disk_work), in_flight=3)
        url = server.url
    assert result.uploaded == 6
    receipts = read(path)
    assert [
        (each["name"], each["batchId"], each["bytes"], each["sha256"], each["spool"], each["destination"])
        for each in receipts
    ] == [
        (name, batch_id(name), len(data), hashlib.sha256(data).hexdigest(), str(spool), url)
        for name, data in batches
    ]
    assert [each["status"] for each in receipts] == [202, 200, 200, 200, 200, 200]
    assert check_receipts(path).problems == []


def batch_id(name: str) -> str:
    return Sealed(name, b"").batch_id


async def test_a_batch_that_is_not_held_is_hashed_in_the_attempt_that_arrived(
    spool: Path, path: Path
) -> None:
    data = random_batch(spool, 12_000_000)
    with ScriptedServer(Answer(503, read_only=100_000, reset=True)) as server:
        result = await flush(server, spool, receipts=path)
        assert len(server.uploads) == 2
    assert result.uploaded == 1
    assert [each["sha256"] for each in read(path)] == [hashlib.sha256(data).hexdigest()]


@pytest.mark.parametrize("disk_work", ["thread", "inline"])
async def test_a_receipt_is_synced_before_the_delete(
    spool: Path, path: Path, monkeypatch: pytest.MonkeyPatch, disk_work: Any
) -> None:
    sdk_batches(spool, 3, spans=TINY)
    synced = b""
    real_sync, real_delete = writer._sync, SpoolDirectory.delete

    def sync(fd: int) -> None:
        nonlocal synced
        real_sync(fd)
        synced = path.read_bytes()

    def delete(self: SpoolDirectory, name: str, sent: Fingerprint | None) -> Removal:
        assert json.loads(synced.splitlines()[-1])["name"] == name
        return real_delete(self, name, sent)

    monkeypatch.setattr(writer, "_sync", sync)
    monkeypatch.setattr(SpoolDirectory, "delete", delete)
    with ScriptedServer() as server:
        result = await flush(server, spool, receipts=path, tuning=Tuning(disk_work=disk_work))
    assert (result.uploaded, len(read(path))) == (3, 3)


async def test_a_batch_without_its_receipt_stays_and_ends_the_flush(
    spool: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    written = 0

    def sync(fd: int) -> None:
        nonlocal written
        written += 1
        if written == 2:
            raise OSError(28, os.strerror(28))

    with ScriptedServer() as server, monkeypatch.context() as patch:
        patch.setattr(writer, "_sync", sync)
        result = await flush(server, spool, receipts=path)
        assert (result.uploaded, result.failed, result.exit_code) == (1, 1, 1)
        assert result.failures[0].message == (
            f"Uploaded {batches[1].name}, but its receipt cannot be written to {path}: No space left on device. "
            "It stays in the spool, and the next flush sends it again."
        )
        assert result.warnings == ("Make room or correct the file, or flush without --receipts.",)
        assert snapshot(spool) == batches[1:]
        patch.undo()
        assert (await flush(server, spool, receipts=path)).uploaded == 1
    check = check_receipts(path)
    assert (check.receipts, check.problems) == (2, [])


async def test_flushes_beside_each_other_share_one_file(tmp_path: Path, path: Path) -> None:
    spools = [tmp_path / name for name in "abc"]
    for seed, spool in enumerate(spools):
        sdk_batches(spool, 4, spans=TINY, seed=seed)
    with ScriptedServer() as server:
        async with Client(api_url=server.url, token=TOKEN) as client:
            flushes = [flush_spool(spool, client=client, receipts=path) for spool in spools[:2]]
            await asyncio.gather(*flushes)
            await flush_spools(directories=spools[2:], client=client, receipts=path)
    assert sorted(each["spool"] for each in read(path)) == sorted(
        str(spool) for spool in spools for _ in range(4)
    )
    assert check_receipts(path).problems == []


async def test_nothing_is_sent_without_a_file_for_receipts(spool: Path, tmp_path: Path) -> None:
    before = sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer() as server:
        for path in (tmp_path / "none" / "receipts.jsonl", tmp_path, "", 3):
            with pytest.raises(ConfigError, match="receipts"):
                await flush(server, spool, receipts=path)
            with pytest.raises(ConfigError, match="receipts"):
                await flush_spools(directories=[spool], api_url=server.url, token=TOKEN, receipts=path)  # type: ignore[arg-type]
        dry = await flush(server, spool, receipts=tmp_path / "new", dry_run=True)
        assert server.uploads == []
    assert (dry.exit_code, (tmp_path / "new").exists()) == (0, False)
    assert snapshot(spool) == before
