"""What one would write first: aiofiles, gzip.compress, aiohttp, remove; one batch after another."""

from __future__ import annotations

import asyncio
import gzip
import warnings

import aiofiles
import aiofiles.os
import aiohttp

from benchmarks.contenders import harness


async def deliver(job: harness.Job, clock: harness.Clock) -> None:
    """Read, compress, post, delete each batch in turn; time that."""
    warnings.simplefilter("ignore", ResourceWarning)
    url = job["url"] + harness.TRACES_PATH
    with clock.timed():
        async with aiohttp.ClientSession() as session:
            for name in sorted(await aiofiles.os.listdir(job["directory"])):
                path = harness.path(job, name)
                async with aiofiles.open(path, "rb") as file:
                    body = await file.read()
                gzipped = len(body) > harness.COMPRESS_ABOVE_BYTES
                if gzipped:
                    body = gzip.compress(body)
                headers = harness.headers(job["token"], harness.batch_id(name), gzipped)
                async with session.post(url, data=body, headers=headers) as answer:
                    await answer.read()
                    answer.raise_for_status()
                await aiofiles.os.remove(path)
                clock.sent(len(body))


def main() -> None:
    """Deliver the spool and say what it took."""
    clock = harness.Clock()
    asyncio.run(deliver(harness.job(), clock))
    clock.finish()


if __name__ == "__main__":
    main()
