"""The floor of a strict-order upload: bodies compressed beforehand, in memory, posted one after another.

A bare aiohttp session over one kept-alive connection; no listing, reading, compressing, deleting or retrying. No
flush through aiohttp that sends one batch at a time can be faster, so every other contender is a ratio to this one.
"""

from __future__ import annotations

import asyncio
import os
import warnings

import aiohttp

from benchmarks.contenders import harness
from cirron_spool.pipeline.batch_reader import WHOLE_CHUNKS
from cirron_spool.pipeline.encoding import Encoder
from cirron_spool.settings.tuning import Tuning


def encoded(job: harness.Job, name: str) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of one batch: the very bytes that a flush sends, made by its own encoder."""
    tuning = Tuning(**job["options"].get("tuning", {}))
    with open(harness.path(job, name), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= harness.COMPRESS_ABOVE_BYTES:
            return file.read(), harness.headers(job["token"], harness.batch_id(name), gzipped=False)
        encoder = Encoder(tuning.gzip_library, tuning.gzip_level)
        if size <= WHOLE_CHUNKS * tuning.chunk_bytes:
            body = encoder.gzip(file.read())
        else:
            body = b"".join(encoder.gzip_parts(iter(lambda: file.read(tuning.chunk_bytes), b"")))
        return body, harness.headers(job["token"], harness.batch_id(name), gzipped=True)


async def deliver(job: harness.Job, clock: harness.Clock) -> None:
    """Compress all bodies, then post them one after another; time the latter."""
    bodies = [encoded(job, name) for name in job["names"]]
    # aiohttp advises against large bytes; sent at once they are the floor.
    warnings.simplefilter("ignore", ResourceWarning)
    url = job["url"] + harness.TRACES_PATH
    with clock.timed():
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
            for body, headers in bodies:
                async with session.post(url, data=body, headers=headers) as answer:
                    await answer.read()
                    answer.raise_for_status()
                clock.sent(len(body))


def main() -> None:
    """Post the spool and say what it took."""
    clock = harness.Clock()
    asyncio.run(deliver(harness.job(), clock))
    clock.finish()


if __name__ == "__main__":
    main()
