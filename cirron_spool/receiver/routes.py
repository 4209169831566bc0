"""The table of routes.

* ``POST /api/traces``: 200 ``{"success": true, "batchId": …, "duplicate": …}`` once the batch is durable.
* ``PUT /api/traces/blobs/snapshots/SPAN/FILE``: 201 with ``Location`` once the snapshot is durable.
  200 for a duplicate.
* ``GET /api/cli/status``: 200 when the bearer is accepted, else 401.
* ``POST /api/cli/auth/refresh``: 200 with new tokens for a refresh token, else 401.
* ``POST /api/cli/auth/device``: 200 with the codes of a new sign-in.
* ``GET /api/cli/auth/device?device_code=…``: 200 with tokens. 400 or 429 with an error of RFC 8628.
* ``GET /device``: the page that approves a sign-in. POST sends its form.
* ``GET /health``: 200 ``{"status": "ok", "batches": …, …}`` with counts, else 503.
* ``GET /metrics``: the counts in the text format of Prometheus.

Refusals are ``{"success": false, "error": …}``, and pages to a browser's form. docs/contract.md, Receiver, has the
statuses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor

from cirron_spool.receiver.account import Account
from cirron_spool.receiver.answers import Answer, RefusedError
from cirron_spool.receiver.connections import Request
from cirron_spool.receiver.device_codes import DeviceCodes
from cirron_spool.receiver.device_flow import DeviceFlow
from cirron_spool.receiver.device_page import DevicePage
from cirron_spool.receiver.health import Health
from cirron_spool.receiver.ingest import Ingest
from cirron_spool.receiver.intake import Intake
from cirron_spool.receiver.journal import Journal
from cirron_spool.receiver.metrics import Metrics
from cirron_spool.receiver.options import ReceiverOptions
from cirron_spool.receiver.shaping import Shaping
from cirron_spool.receiver.snapshots import SNAPSHOTS, Snapshots
from cirron_spool.receiver.store import Store
from cirron_spool.receiver.tokens import Tokens

Handler = Callable[[Request], Awaitable[Answer]]


class Routes:
    """Calls the handler for the path and method of a request."""

    def __init__(self, options: ReceiverOptions, store: Store, threads: Executor, journal: Journal) -> None:
        self._shaping = Shaping(options.latency_ms, options.bandwidth)
        intake = Intake(threads, self._shaping)
        tokens = Tokens(options.token, options.refresh_token, access_s=options.access_token_s)
        codes = DeviceCodes(
            tokens.issue, lifetime_s=options.device_code_s, interval_s=options.device_interval_s
        )
        account = Account(tokens, journal)
        device_flow = DeviceFlow(codes, tokens, journal, options.device_code_s)
        device_page = DevicePage(codes, tokens, journal)
        snapshots = Snapshots(store, intake, tokens, journal, max_bytes=options.max_snapshot_bytes)
        self._table: Mapping[str, Mapping[str, Handler]] = {
            "/api/traces": {"POST": Ingest(store, intake, tokens, journal).post},
            SNAPSHOTS: {"PUT": snapshots.put},
            "/api/cli/status": _get(account.status),
            "/api/cli/auth/refresh": {"POST": account.refresh},
            "/api/cli/auth/device": {"GET": device_flow.poll, "POST": device_flow.start},
            "/device": {**_get(device_page.show), "POST": device_page.decide},
            "/health": _get(Health(store, intake, journal).get),
            "/metrics": _get(Metrics(store, intake, journal).get),
        }

    async def __call__(self, request: Request) -> Answer:
        """The answer to one request, after the chosen latency."""
        try:
            answer = await self._handler(request)(request)
        except RefusedError as refused:
            answer = refused.answer
        await self._shaping.answer()
        return answer

    def _handler(self, request: Request) -> Handler:
        """The handler of a request. Raises RefusedError: 404 for its path, 405 for its method."""
        path = request.head.path
        if path.startswith(SNAPSHOTS):
            path = SNAPSHOTS
        handlers = self._table.get(path)
        if handlers is None:
            raise RefusedError(404, "There is no such route.")
        handler = handlers.get(request.head.method)
        if handler is None:
            methods = " and ".join(handlers)
            verb = "is" if len(handlers) == 1 else "are"
            message = f"Only {methods} {verb} possible here."
            raise RefusedError(405, message, {"Allow": ", ".join(handlers)})
        return handler


def _get(handler: Handler) -> dict[str, Handler]:
    """The methods of a read-only route. The answer to HEAD is sent without its body."""
    return {"GET": handler, "HEAD": handler}
