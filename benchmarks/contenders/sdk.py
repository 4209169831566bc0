"""The SDK's own client on a spool: load each batch, hand it to ``IngestClient.post_batch``, delete it."""

from __future__ import annotations

import json
import os
from typing import Any

import requests
from cirron.core.ingest import IngestClient

from benchmarks.contenders import harness

# The client's own limit of 10 s would cut a 300 MB batch off on a slow link.
TIMEOUT_SECONDS = 600.0


class CountingSession(requests.Session):
    """A session that counts the bodies it sends, which the client does not tell."""

    def __init__(self, clock: harness.Clock) -> None:
        super().__init__()
        self._clock = clock

    def post(self, url: Any, data: Any = None, json: Any = None, **options: Any) -> requests.Response:
        """Send, then count."""
        answer = super().post(url, data=data, json=json, **options)
        self._clock.sent(len(data))
        return answer


def main() -> None:
    """Load, post, delete each batch in turn; time that."""
    job = harness.job()
    clock = harness.Clock()
    client = IngestClient(
        job["url"],
        job["token"],
        path=harness.TRACES_PATH,
        timeout=TIMEOUT_SECONDS,
        session=CountingSession(clock),
    )
    with clock.timed():
        for name in sorted(os.listdir(job["directory"])):
            path = harness.path(job, name)
            with open(path, "rb") as file:
                batch = json.load(file)
            result = client.post_batch(batch)
            if not result.ok:
                raise SystemExit(f"not accepted: {name}: HTTP {result.status}")
            os.unlink(path)
        client.close()
    clock.finish()


if __name__ == "__main__":
    main()
