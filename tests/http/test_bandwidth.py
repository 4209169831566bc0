"""The bandwidth limit: its arithmetic on a clock of the test's own, and each byte of each body asks it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cirron_spool import Client, ConfigError, flush_spool
from cirron_spool.http import transport
from cirron_spool.http.bandwidth import Bandwidth
from cirron_spool.http.transport import Transport
from cirron_spool.http.upload_body import Upload
from cirron_spool.protocol.answer import Answer as Heard
from cirron_spool.protocol.answer import NoAnswer
from support.answers import Gate, ok
from support.scripted import ScriptedServer
from support.snapshots import accept, lay, puts
from support.spools import TINY, random_batch, sdk_batches, snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-bandwidth-secret"


class Clock:
    """A clock that stands still. A sleep is noted, and returns at once."""

    def __init__(self) -> None:
        self.now = 1e6
        self.slept = 0.0
        self.cancels = False

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        if self.cancels:
            raise asyncio.CancelledError
        self.slept = seconds

    def passed_at(self, bandwidth: Bandwidth, size: int) -> float:
        """When a piece passes that asks now."""
        self.slept = 0.0
        asyncio.run(bandwidth.take(size))
        return self.now + self.slept


@given(
    rate=st.integers(1, 10**10),
    asks=st.lists(st.tuples(st.floats(0, 5), st.floats(0, 1)), min_size=2, max_size=40),
)
def test_no_window_of_time_holds_more_than_the_rate_and_one_burst(
    rate: int, asks: list[tuple[float, float]]
) -> None:
    clock = Clock()
    bandwidth = Bandwidth(rate, clock, clock.sleep)
    passed: list[tuple[float, int]] = []
    for wait, share in asks:
        clock.now += wait
        size = max(1, int(bandwidth.piece_bytes * share))
        passed.append((clock.passed_at(bandwidth, size), size))
    assert passed == sorted(passed, key=lambda each: each[0])  # in the order of the calls
    for first, (begin, _) in enumerate(passed):
        held = 0
        for end, size in passed[first:]:
            held += size
            assert held <= rate * (end - begin + 0.1) * (1 + 1e-6) + bandwidth.piece_bytes + 1


def test_a_link_that_is_always_asked_carries_the_whole_rate() -> None:
    clock = Clock()
    bandwidth = Bandwidth(1000, clock, clock.sleep)
    for _ in range(100):  # each timer fires 50 ms late
        clock.now = clock.passed_at(bandwidth, 100) + 0.05
    assert clock.now - 1e6 == pytest.approx(10, abs=0.1)


def test_a_cancelled_wait_gives_its_bytes_back() -> None:
    clock = Clock()
    bandwidth = Bandwidth(1000, clock, clock.sleep)
    clock.passed_at(bandwidth, 1000)
    clock.cancels = True
    with pytest.raises(asyncio.CancelledError):
        clock.passed_at(bandwidth, 50_000)
    clock.cancels = False
    assert clock.passed_at(bandwidth, 1) - clock.now == pytest.approx(1)


@pytest.mark.parametrize("rate", [0, -1, 1.5, True, "2M", float("nan")])
async def test_another_bandwidth_is_refused(tmp_path: Path, rate: Any) -> None:
    with pytest.raises(ConfigError, match="bandwidth must be a whole number of bytes a second above 0"):
        await flush_spool(tmp_path, token=TOKEN, bandwidth=rate)
    with pytest.raises(ConfigError, match="bandwidth must be"):
        Client(bandwidth=rate)


class Recording(Bandwidth):
    """Lets all pass, and notes it."""

    made: list[Recording]

    def __init__(self, bytes_per_second: int) -> None:
        super().__init__(bytes_per_second)
        self.sizes: list[int] = []
        self.made.append(self)

    async def take(self, size: int) -> None:
        self.sizes.append(size)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """The limits that were made since, in place of those that wait."""
    Recording.made = []
    monkeypatch.setattr(transport, "Bandwidth", Recording)
    return Recording.made


async def test_each_byte_of_all_flushes_of_a_client_asks_one_limit(
    tmp_path: Path, made: list[Recording]
) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    sdk_batches(first, 3, spans=TINY)
    sdk_batches(first, 3, spans=400, first_ns=2 * 10**18)
    random_batch(second, 300_000)
    with ScriptedServer() as server:
        async with Client(api_url=server.url, token=TOKEN, bandwidth=200_000) as client:
            await asyncio.gather(
                flush_spool(first, client=client, in_flight=4), flush_spool(second, client=client)
            )
        bodies = [len(request.body) for request in server.uploads]
    [limit] = made
    assert len(bodies) == 7
    assert sum(limit.sizes) == sum(bodies)
    assert max(limit.sizes) <= limit.piece_bytes == 20_000 < max(bodies)
    assert snapshot(first) == snapshot(second) == []


async def test_a_snapshot_and_a_batch_that_is_not_held_ask_it(spool: Path, made: list[Recording]) -> None:
    batch = random_batch(spool, 12_000_000)
    key, _ = lay(spool, data=bytes(300_000))
    with ScriptedServer() as server:
        accept(server, key)
        options: dict[str, Any] = {"api_url": server.url, "token": TOKEN, "verify": False}
        result = await flush_spool(spool, snapshots="keep", bandwidth=10**6, **options)
        sent = sum(len(request.body) for request in (*puts(server), *server.uploads))
        assert server.deliveries[0][1] == batch
    assert (result.exit_code, result.uploaded) == (0, 1)
    # The end of a stream is not known before: its first piece asks for a whole one.
    assert 0 <= sum(made[0].sizes) - sent < made[0].piece_bytes


class Slow(Bandwidth):
    """Holds each piece back for several stall limits."""

    async def take(self, size: int) -> None:
        await asyncio.sleep(0.3)


async def test_an_upload_that_is_held_back_does_not_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "Bandwidth", Slow)
    with ScriptedServer() as server:
        async with Transport(timeout_ms=100, bandwidth=10) as client:
            heard = await client.post(
                f"{server.url}/api/traces", {"X-Cirron-Batch-Id": "01"}, Upload((b"[1]",), 3)
            )
    assert isinstance(heard, Heard)
    assert [request.body for request in server.uploads] == [b"[1]"]


async def test_a_peer_that_takes_nothing_stalls_also_while_bytes_trickle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kernel has room for megabytes: a write into it is no progress."""
    taken = 0

    class Trickle(Bandwidth):
        async def take(self, size: int) -> None:
            nonlocal taken
            taken += size
            await asyncio.sleep(0.02)

    monkeypatch.setattr(transport, "Bandwidth", Trickle)
    length = 10_000_000
    with ScriptedServer(ok(read_only=1000, stall_before=True), receive_buffer=4096) as server:
        async with Transport(timeout_ms=300, bandwidth=100_000) as client:
            url, upload = f"{server.url}/api/traces", Upload((bytes(length),), length)
            heard = await client.post(url, {"X-Cirron-Batch-Id": "01"}, upload)
    assert heard == NoAnswer("timed out after 300ms")
    assert taken < length // 10


async def test_bytes_that_come_before_the_first_piece_are_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()

    class Waiting(Bandwidth):
        async def take(self, size: int) -> None:
            if server.uploads and server.connections == 1:
                gate.open()
                await asyncio.sleep(0.2)

    monkeypatch.setattr(transport, "Bandwidth", Waiting)
    with ScriptedServer(ok(extra=ok().render(), extra_gate=gate)) as server:
        async with Transport(timeout_ms=10_000, bandwidth=100) as client:
            for batch_id in ("01", "02"):
                url, upload = f"{server.url}/api/traces", Upload((b"[]",), 2)
                heard = await client.post(url, {"X-Cirron-Batch-Id": batch_id}, upload)
                assert isinstance(heard, Heard)
        assert server.connections == 2
        assert [request.batch_id for request in server.uploads if request.complete] == ["01", "02"]
