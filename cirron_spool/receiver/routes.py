"""The table of routes.

====  =======================  ===============================================================================
POST  /api/traces              200 ``{"success": true, "batchId": …, "duplicate": …}`` once the batch is durable
GET   /api/cli/status          200 when the bearer is accepted, else 401
POST  /api/cli/auth/refresh    200 with new tokens for the right refresh token, else 401
GET   /health                  200 ``{"status": "ok", "batches": …, …}`` with counts, to everybody; else 503
====  =======================  ===============================================================================

Every other answer is ``{"success": false, "error": …}``. docs/contract.md, Receiver, has the statuses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor

from cirron_spool.receiver.account import Account
from cirron_spool.receiver.answers import Answer, RefusedError
from cirron_spool.receiver.connections import Request
from cirron_spool.receiver.health import Health
from cirron_spool.receiver.ingest import Ingest
from cirron_spool.receiver.intake import Intake
from cirron_spool.receiver.journal import Journal
from cirron_spool.receiver.options import ReceiverOptions
from cirron_spool.receiver.shaping import Shaping
from cirron_spool.receiver.store import Store
from cirron_spool.receiver.tokens import Tokens

Handler = Callable[[Request], Awaitable[Answer]]


class Routes:
    """Answers each request by the handler of its path and method."""

    def __init__(self, options: ReceiverOptions, store: Store, threads: Executor, journal: Journal) -> None:
        self._shaping = Shaping(options.latency_ms, options.bandwidth)
        intake = Intake(threads, self._shaping)
        tokens = Tokens(options.token, options.refresh_token)
        account = Account(tokens)
        self._table: Mapping[str, Mapping[str, Handler]] = {
            "/api/traces": {"POST": Ingest(store, intake, tokens, journal).post},
            "/api/cli/status": _get(account.status),
            "/api/cli/auth/refresh": {"POST": account.refresh},
            "/health": _get(Health(store, intake, journal).get),
        }

    async def __call__(self, request: Request) -> Answer:
        """The answer to one request, after the latency that was asked for."""
        try:
            answer = await self._handler(request)(request)
        except RefusedError as refused:
            answer = refused.answer
        await self._shaping.answer()
        return answer

    def _handler(self, request: Request) -> Handler:
        """The handler of a request. Raises RefusedError: 404 for its path, 405 for its method."""
        handlers = self._table.get(request.head.path)
        if handlers is None:
            raise RefusedError(404, "No such route.")
        handler = handlers.get(request.head.method)
        if handler is None:
            raise RefusedError(
                405, f"Only {next(iter(handlers))} is possible here.", {"Allow": ", ".join(handlers)}
            )
        return handler


def _get(handler: Handler) -> dict[str, Handler]:
    """The methods of a route that only reads. The answer to HEAD is sent without its body."""
    return {"GET": handler, "HEAD": handler}
