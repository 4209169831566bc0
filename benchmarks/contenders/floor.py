"""The floor: a bare aiohttp session posts compressed bodies from memory, one after another.

The floor does not list, read, compress, delete or retry. No flush through aiohttp in strict order can be much faster.
"""

from __future__ import annotations

import asyncio
import os
import warnings

import aiohttp

from benchmarks.contenders import harness
from cirron_spool.pipeline.encoding import GZIP_ABOVE_BYTES, Encoder
from cirron_spool.spool.names import batch_id_of


def encode(job: harness.Job, name: str, encoder: Encoder) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of one batch, made by the encoder of a flush."""
    with open(os.path.join(job["directory"], name), "rb") as file:
        body = file.read()
    headers = {
        "Authorization": f"Bearer {job['token']}",
        "Content-Type": "application/json",
        "User-Agent": "cirron-spool/benchmark",
        "X-Cirron-SDK-Version": "cirron-spool/benchmark",
        "X-Cirron-Batch-Id": batch_id_of(name),
    }
    if len(body) <= GZIP_ABOVE_BYTES:
        return body, headers
    return encoder.gzip(body), headers | {"Content-Encoding": "gzip"}


async def deliver(job: harness.Job, clock: harness.Clock) -> None:
    """Compress all bodies. Then post them and time the posts."""
    encoder = Encoder()
    bodies = [encode(job, name, encoder) for name in job["names"]]
    warnings.simplefilter("ignore", ResourceWarning)  # aiohttp warns of large bodies in memory
    url = job["url"] + "/api/traces"
    with clock.timed():
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
            for body, headers in bodies:
                async with session.post(url, data=body, headers=headers) as answer:
                    await answer.read()
                    answer.raise_for_status()
    clock.outcome["batches"] = len(bodies)
    clock.outcome["sent_bytes"] = sum(len(body) for body, _ in bodies)


def main() -> None:
    """Deliver the job's spool and print the outcome."""
    clock = harness.Clock()
    asyncio.run(deliver(harness.read_job(), clock))
    clock.report()


if __name__ == "__main__":
    main()
