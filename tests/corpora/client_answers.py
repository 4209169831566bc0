"""Every answer of the corpus, told to real flushes over real sockets, against the oracle's word.

A run is one answer and the way in which it comes: whole, in two segments, byte by byte, or cut at a byte; then the
connection stays open, is closed or is reset. Each flush has a spool of two batches. The first gets the answer; the
second one's answer is always 503, so that a left-over may not delete it.

    python tests/corpora/client_answers.py --runs 10000
    AIOHTTP_NO_EXTENSIONS=1 python tests/corpora/client_answers.py --runs 10000
    python tests/corpora/client_answers.py --full

Without ``--full`` each answer comes whole once, and the other runs are a random choice. ``--full`` takes every split
and every cut of the short answers: some 250,000 runs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import socket
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import http_parser
from answer_corpus import Case, corpus
from answer_oracle import allowed

from cirron_spool import CirronSpoolError, flush_spool

AT_ONCE = 32
SAFETY_NET_S = 60.0  # never waited for in a run that passes
# For answers after which nothing more comes. Where an acknowledgement is due, the limit must not be what fails.
SHORT_LIMIT_MS, LONG_LIMIT_MS = 200, 30_000
# Longer answers are split and cut at some places only, and come in pieces instead of bytes.
SHORT_ANSWER = 600
SOME = 24
NOT_NOW = b"HTTP/1.1 503 Not Now\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Run(NamedTuple):
    """``case`` in the pieces that end at ``ends``, the last of which is the end of what is sent; then ``ending``."""

    case: Case
    how: str
    ends: tuple[int, ...]
    ending: str

    def __str__(self) -> str:
        places = "" if len(self.ends) > 3 or self.how == "whole" else f" at {self.ends[0]}"
        return f"{self.case.name}, {self.how}{places}, then {self.ending}"


def runs(case: Case) -> Iterator[Run]:
    """Every way in which ``case`` comes; the first is the plainest."""
    size = len(case.raw)
    step = 1 if size <= SHORT_ANSWER else size // SOME
    for ending in ("close", "open", "reset"):
        yield Run(case, "whole", (size,), ending)
    for ending in ("close", "open"):
        yield Run(case, "byte by byte", (*range(step, size, step), size), ending)
        for place in range(1, size, step):
            yield Run(case, "in two segments", (place, size), ending)
    for ending in ("close", "reset"):
        for place in range(0, size, step):
            yield Run(case, "cut", (place,), ending)


class Platform(asyncio.Protocol):
    """One connection of the server: reads a request, and answers it by the run that its batch belongs to."""

    def __init__(self, plans: dict[bytes, Run], requests: Counter[bytes]) -> None:
        self._plans = plans
        self._requests = requests
        self._data = b""
        self._transport: Any = None
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if end and len(body) >= int(fields[b"content-length"]):
            self._data = b""
            key = fields[b"x-cirron-batch-id"]
            self._requests[key] += 1
            self._answering = asyncio.ensure_future(self._answer(self._plans.get(key)))

    async def _answer(self, run: Run | None) -> None:
        transport = self._transport
        if run is None:
            transport.write(NOT_NOW)
            transport.close()
            return
        start = 0
        for end in run.ends:
            if transport.is_closing():  # the client has heard enough
                break
            transport.write(run.case.raw[start:end])
            start = end
            # Client and server share this loop: in the second turn from here the client has read the piece.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if run.ending == "close":
            transport.close()
        elif run.ending == "reset" and not transport.is_closing():
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()


class Trial:
    """Runs, and what came of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._plans: dict[bytes, Run] = {}
        self._requests: Counter[bytes] = Counter()
        self._url = ""
        self.count = self.acknowledged = 0
        self.problems: list[str] = []

    async def go(self, chosen: list[Run]) -> None:
        """All of them, some at a time."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(
            lambda _, context: self.problems.append(f"unhandled: {context['message']}")
        )
        server = await loop.create_server(lambda: Platform(self._plans, self._requests), "127.0.0.1", 0)
        self._url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        waiting = iter(enumerate(chosen))

        async def work() -> None:
            for number, run in waiting:
                await self._try(number, run)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
        server.close()

    async def _try(self, number: int, run: Run) -> None:
        spool = self._folder / str(number)
        spool.mkdir()
        keys = [f"{number:031x}{which}" for which in (0, 1)]
        first, second = (spool / f"{which:020}-{key}.json" for which, key in enumerate(keys))
        for path in (first, second):
            path.write_bytes(b'{"spans":[]}')
        key = keys[0].encode()
        self._plans[key] = run
        word = allowed(run.case.raw[: run.ends[-1]], run.ending)
        limit = SHORT_LIMIT_MS if run.ending == "open" and not word.must else LONG_LIMIT_MS
        try:
            async with asyncio.timeout(SAFETY_NET_S):
                await self._flush(spool, limit)
        except CirronSpoolError:
            pass
        except TimeoutError:
            self.problems.append(f"a hang: {run}")
        except Exception as error:  # noqa: BLE001  # whatever leaves a flush is what is looked for
            self.problems.append(f"{error!r} leaves the flush: {run}")
        gone = not first.exists()
        if gone and not word.may:
            self.problems.append(f"a false acknowledgement: {run}")
        if not gone and word.must:
            self.problems.append(f"an acknowledgement was not understood: {run}")
        if not second.exists():
            self.problems.append(f"the second batch was deleted by a left-over: {run}")
        if self._requests.pop(key, 0) > 1:
            self.problems.append(f"the batch was sent more than once: {run}")
        del self._plans[key]
        shutil.rmtree(spool)
        self.count += 1
        self.acknowledged += gone

    async def _flush(self, spool: Path, limit_ms: int) -> None:
        await flush_spool(
            spool,
            api_url=self._url,
            token="sk-test",
            config_path=self._folder / "none.json",
            verify=False,
            retries=0,
            timeout_ms=limit_ms,
        )


def choose(count: int | None, seed: int) -> list[Run]:
    """Each answer whole, and others up to ``count``; all where it is None."""
    everything = [run for case in corpus() for run in runs(case)]
    if count is None:
        return everything
    plain = [run for run in everything if run.how == "whole" and run.ending == "close"]
    others = [run for run in everything if run.how != "whole" or run.ending != "close"]
    rng = random.Random(seed)
    # The ways that one answer has only once are not to drown in the splits and cuts.
    rare = [run for run in others if run.how in ("whole", "byte by byte")]
    return [*plain, *rng.sample(rare, min(len(rare), (count - len(plain)) // 3)), *rng.sample(others, count)][
        :count
    ]


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    chosen = choose(None if options.full else options.runs, options.seed)
    parser_in = "Python" if http_parser.HttpResponseParser is http_parser.HttpResponseParserPy else "C"
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        trial = Trial(Path(folder))
        asyncio.run(trial.go(chosen))
    for problem in trial.problems[:200]:
        print(problem)
    print(
        f"{trial.count} runs of {len(corpus())} answers, aiohttp's parser in {parser_in}, seed {options.seed}: "
        f"{trial.acknowledged} acknowledged, {len(trial.problems)} problems, {time.monotonic() - began:.0f} s"
    )
    return 1 if trial.problems else 0


if __name__ == "__main__":
    sys.exit(main())
