from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cirron.core.flush import Batch, SpoolWriter

from cirron_spool import receiver as receiver_package
from cirron_spool.receiver.app import Receiver, ReceiverOptions, running
from cirron_spool.receiver.journal import Journal
from support.monitor import DeleteWatch, watch_deletes

TOKEN = "sk-of-the-receiver-tests"


@pytest.fixture(autouse=True)
def deletes() -> Iterator[DeleteWatch]:
    """A receiver deletes what it could not store whole, and nobody's spool."""
    with watch_deletes(acknowledged=lambda name: True) as watch:
        yield watch


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Peer:
    """A receiver on a free port, and a client that talks to it."""

    receiver: Receiver | _Elsewhere
    session: aiohttp.ClientSession
    said: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.receiver.store.directory

    @property
    def names(self) -> list[str]:
        """All that lies in the store, but for its lock."""
        return sorted(name for name in os.listdir(self.folder) if not name.endswith(".lock"))

    @property
    def port(self) -> int:
        return int(self.receiver.url.rpartition(":")[2])

    async def request(self, method: str, path: str, **more: Any) -> Answer:
        async with self.session.request(method, self.receiver.url + path, **more) as answer:
            return Answer(answer.status, dict(answer.headers), json.loads(await answer.read()))

    async def post(
        self, body: Any, batch_id: str | None = "ab", *, token: str | None = TOKEN, **headers: str
    ) -> Answer:
        head = {name.replace("_", "-"): value for name, value in headers.items()}
        if batch_id is not None:
            head["X-Cirron-Batch-Id"] = batch_id
        if token is not None:
            head["Authorization"] = f"Bearer {token}"
        data = io.BytesIO(body) if isinstance(body, bytes) else body  # aiohttp warns of large bytes
        return await self.request("POST", "/api/traces", data=data, headers=head)

    async def post_gzip(self, body: bytes, batch_id: str = "ab") -> Answer:
        return await self.post(gzip.compress(body), batch_id, Content_Encoding="gzip")

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


Start = Callable[..., contextlib.AbstractAsyncContextManager[Peer]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Makes receivers on ``tmp_path / "store"``, each for the length of an ``async with``."""

    @contextlib.asynccontextmanager
    async def run(**options: Any) -> AsyncIterator[Peer]:
        chosen = replace(ReceiverOptions(store=tmp_path / "store", token=TOKEN), **options)
        said: list[str] = []
        async with running(chosen, report=said.append) as receiver:
            async with aiohttp.ClientSession() as session:
                yield Peer(receiver, session, said)

    return run


@pytest.fixture
def sdk_spool(tmp_path: Path) -> list[Path]:
    """Batches as the SDK itself writes them: small, typical, and one with values that JSON does not have."""
    writer = SpoolWriter(tmp_path / "spool")
    written = []
    for number, count in enumerate((0, 1, 200, 3000)):
        spans = [
            {
                "id": f"{index:032x}",
                "name": "schritt ü",
                "attrs": {"loss": index / 7, "rank": None},
                "mark_ids": [],
            }
            for index in range(count)
        ]
        marks = [{"name": "loss", "value": float("nan")}, {"name": "peak", "value": float("inf")}]
        written.append(
            writer.write(Batch(os.urandom(16).hex(), 1_776_486_598_051_509_000 + number, spans, marks))
        )
    return [Path(path) for path in written]


_SERVE = """
import sys
from pathlib import Path
from cirron_spool import receiver as receiver_package
from cirron_spool.receiver.app import ReceiverOptions, serve
sys.exit(serve(ReceiverOptions(store=Path(sys.argv[1]), {options})))
"""


def serve_command(store: Path, options: str = "") -> list[str]:
    """The command line of a receiver in a process of its own."""
    return [sys.executable, "-c", _SERVE.format(options=options), str(store)]


def serve_environment(**more: str) -> dict[str, str]:
    """The environment with the package on the path and no token in it."""
    root = str(Path(receiver_package.__path__[0]).parents[1])
    ours = {name: value for name, value in os.environ.items() if name != "CIRRON_RECEIVE_TOKEN"}
    return {**ours, "PYTHONPATH": root, **more}


@dataclass
class _Elsewhere:
    """What a peer knows of a receiver that runs in another process."""

    url: str
    directory: Path

    @property
    def store(self) -> _Elsewhere:
        return self

    @property
    def journal(self) -> Journal:
        pytest.fail("it is in the other process")


Serve = Callable[..., contextlib.AbstractAsyncContextManager[tuple[asyncio.subprocess.Process, Peer]]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Makes receivers in processes of their own, which SIGTERM ends after the ``async with``."""

    @contextlib.asynccontextmanager
    async def run(
        options: str = "", *, token: str | None = TOKEN, ends_itself: bool = False
    ) -> AsyncIterator[tuple[asyncio.subprocess.Process, Peer]]:
        store = tmp_path / "store"
        process = await asyncio.create_subprocess_exec(
            *serve_command(store, options),
            env=serve_environment(**({} if token is None else {"CIRRON_RECEIVE_TOKEN": token})),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            ready = (await process.stdout.readline()).decode()
            found = re.fullmatch(r"Receiving on (http://\S+:\d+), storing in (.+)\n", ready)
            assert found, ready
            async with aiohttp.ClientSession() as session:
                yield process, Peer(_Elsewhere(found[1], Path(found[2])), session)
            if not ends_itself:
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    return run
