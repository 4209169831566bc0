"""What the reliability harnesses share: a server that remembers only digests, the SDK as producer, and the books.

Imported first by every harness, because it makes ``support`` importable when one is run as a script.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cirron.core.flush import Batch, SpoolWriter

_TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_TESTS))
# Last: where the package is installed, that is what is tested; elsewhere it is the checkout.
sys.path.append(str(_TESTS.parent))

from support import ledger  # noqa: E402  # only now importable outside of pytest
from support.raw import connected, everything  # noqa: E402
from support.scripted import Answer, Gate, Request, ScriptedServer, html, json_answer, ok  # noqa: E402
from support.spools import FIRST_NS, sdk_batches  # noqa: E402
from support.wire import ClientGoneError  # noqa: E402

INGEST = ("POST", "/api/traces")
SAFETY_NET_S = 60.0  # never waited for in a run that passes

Plan = Callable[[Request], Answer]


def digest(data: bytes) -> str:
    """The key of a batch's bytes."""
    return hashlib.sha256(data).hexdigest()


class Vault(ScriptedServer):
    """A platform that remembers of each batch only its id, the digest of its bytes, and how often it came.

    ``plan`` is asked for the answer when an upload's head is there; None is the platform's own success. An upload
    counts as acknowledged when it was received whole and its success was handed whole to the kernel.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.plan: Plan | None = None
        self.arrivals: Counter[str] = Counter()  # uploads started, by batch id
        self.arrived_order: list[str] = []  # batch ids as their uploads began, until somebody empties it
        self.acknowledged: dict[str, set[str]] = {}  # digests by batch id
        self.acknowledged_order: list[str] = []  # as arrived_order, of whole acknowledgements
        self._fallback = self._defaults[INGEST]
        self.on(*INGEST, default=self._plan)

    def knows(self, batch_id: str, content: str) -> bool:
        """Whether exactly the bytes of digest ``content`` were acknowledged under ``batch_id``."""
        with ledger.lock, self.changed:
            return content in self.acknowledged.get(batch_id, ())

    def quiet(self) -> None:
        """Block until every connection has ended: what a killed client had sent is then dealt with."""
        # Connections are accepted in the order in which they came: once this one is, none waits in the kernel.
        with connected(self, b"GET / HTTP/1.1\r\nHost: loopback\r\nConnection: close\r\n\r\n") as sock:
            everything(sock)
        self.wait_until(lambda: not self._writers, "end of all connections")

    def forget(self) -> None:
        """Begin anew, for the next example."""
        with ledger.lock, self.changed:
            self.arrivals.clear()
            self.arrived_order.clear()
            self.acknowledged.clear()
            self.acknowledged_order.clear()
            self.requests.clear()

    async def _guarded(self, *connection: Any) -> None:
        await super()._guarded(*connection)
        self._notify()  # `quiet` waits for the end of the connection itself

    async def _part(self, *connection: Any) -> None:
        try:
            await super()._part(*connection)
        except OSError:  # a client that ended the connection first
            raise ClientGoneError from None

    def _plan(self, request: Request) -> Answer:
        batch_id = request.batch_id or ""
        with self.changed:
            self.arrivals[batch_id] += 1
            self.arrived_order.append(batch_id)
            # What is kept must not grow with the run.
            del self.requests[:-8]
        if self.plan is not None:
            return self.plan(request)
        return self._fallback if isinstance(self._fallback, Answer) else self._fallback(request)

    def _answered(self, request: Request, body: bytes | None) -> None:
        with self.changed:
            request.answered = True
            self._in_flight.discard(request)
            if body is not None and request.batch_id:
                self.acknowledged.setdefault(request.batch_id, set()).add(digest(body))
                self.acknowledged_order.append(request.batch_id)
                ledger.acknowledge(request.batch_id, body)


class Producer:
    """The SDK's own ``SpoolWriter``, fed with spans of real shape under new ids and times.

    ``shapes`` are steps a batch (see ``support.spools``) of which one is drawn for each batch.
    """

    def __init__(self, directory: Path, rng: random.Random, shapes: Iterable[int] = (0, 0, 1, 8, 40)) -> None:
        self.directory = directory
        self._rng = rng
        self._writer = SpoolWriter(directory)
        self._created_ns = FIRST_NS
        with tempfile.TemporaryDirectory() as spare:
            self._documents = [
                json.loads(sdk_batches(Path(spare) / str(index), 1, spans=steps)[0].data)
                for index, steps in enumerate(shapes)
            ]

    def move(self, directory: Path) -> None:
        """Write to another spool from now on."""
        self.directory = directory
        self._writer = SpoolWriter(directory)

    def write(self, count: int, *, shape: int | None = None) -> list[Path]:
        """Seal ``count`` batches, each later than all before; their paths, oldest first."""
        paths = []
        for _ in range(count):
            self._created_ns += self._rng.randrange(1, 1_000_000_000)
            document = self._rng.choice(self._documents) if shape is None else self._documents[shape]
            batch_id = f"{self._rng.getrandbits(128):032x}"
            paths.append(
                self._writer.write(Batch(batch_id, self._created_ns, document["spans"], document["marks"]))
            )
        return paths


class Books:
    """Every batch that was written and not yet accounted for.

    ``check`` settles what has left the directory: each such batch must have been acknowledged, byte for byte, or
    been taken away by somebody who said so. Raises ``AssertionError`` that names the batch otherwise.
    """

    def __init__(self, directory: Path, vault: Vault) -> None:
        self.directory = directory
        self.open: OrderedDict[str, str] = OrderedDict()  # name: digest, oldest first
        self.written = 0
        self.settled = 0
        self._vault = vault

    def enter(self, paths: Iterable[Path]) -> None:
        """Note what was just sealed."""
        for path in paths:
            self.open[path.name] = digest(path.read_bytes())
            self.written += 1

    def check(self) -> list[str]:
        """Settle; the names that are still on disk, oldest first."""
        left = []
        for name, content in list(self.open.items()):
            data = read(self.directory / name)
            if data is not None:
                assert digest(data) == content, f"{name} on disk is not what was written"
                left.append(name)
                continue
            assert self._vault.knows(batch_id(name), content), (
                f"{name} is lost: not on disk, not acknowledged"
            )
            del self.open[name]
            self.settled += 1
        return left


def batch_id(name: str) -> str:
    """The id in a batch's file name."""
    return name.partition("-")[2].removesuffix(".json")


def read(path: Path) -> bytes | None:
    """The file's bytes, None where there is none."""
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return None


@contextmanager
def scratch(where: str | None = None) -> Iterator[Path]:
    """A throw-away folder: in memory where the system has such a place, or in ``where``."""
    if where is None and os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK):
        where = "/dev/shm"
    with tempfile.TemporaryDirectory(prefix="cirron-spool-", dir=where) as folder:
        yield Path(folder)


def arguments(text: str | None, **sizes: int | tuple[str, ...]) -> argparse.Namespace:
    """The command line of a harness: its sizes and its choices as options, ``--seed`` and ``--directory``."""
    parser = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    for name, default in sizes.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(default, tuple):
            chosen = ",".join(default)
            parser.add_argument(
                flag, type=lambda words: words.split(","), default=default, help=f"default {chosen}"
            )
        else:
            parser.add_argument(flag, type=int, default=default, help=f"default {default}")
    parser.add_argument("--seed", type=int, default=None, help="repeat a run; printed by each run")
    parser.add_argument("--directory", help="where the spools are made; default in memory")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = new_seed()
    return options


def new_seed() -> int:
    """A seed, printed before anything can fail with it."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}", flush=True)
    return seed


class Clock:
    """Prints a line of progress every few seconds, for runs that last."""

    def __init__(self, total: int, what: str) -> None:
        self._total = total
        self._what = what
        self._began = self._shown = time.monotonic()

    def tick(self, done: int) -> None:
        """Say how far it is, if the last word was long ago."""
        now = time.monotonic()
        if now - self._shown >= 10:
            self._shown = now
            print(f"  {done} of {self._total} {self._what}, {now - self._began:.0f} s", flush=True)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began


__all__ = [
    "INGEST",
    "SAFETY_NET_S",
    "Answer",
    "Books",
    "Clock",
    "Gate",
    "Plan",
    "Producer",
    "Request",
    "Vault",
    "arguments",
    "batch_id",
    "digest",
    "html",
    "json_answer",
    "ledger",
    "new_seed",
    "ok",
    "read",
    "scratch",
]
