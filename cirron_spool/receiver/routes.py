"""Requests and their answers.

====  =======================  ===============================================================================
POST  /api/traces              200 ``{"success": true, "batchId": …, "duplicate": …}`` once the batch is durable
GET   /api/cli/status          200 when the bearer is accepted, else 401
POST  /api/cli/auth/refresh    200 with new tokens for the right refresh token, else 401
GET   /health                  200 ``{"status": "ok", "batches": …, …}`` with counts, to everybody; else 503
====  =======================  ===============================================================================

HEAD is answered wherever GET is. Every other answer is ``{"success": false, "error": …}``. docs/contract.md, Receiver,
has the statuses.
"""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from cirron_spool.receiver.body import is_gzip
from cirron_spool.receiver.connections import Request
from cirron_spool.receiver.http1 import Answer, RefusedError, refusal
from cirron_spool.receiver.journal import Journal
from cirron_spool.receiver.options import ReceiverOptions
from cirron_spool.receiver.shaping import Shaping
from cirron_spool.receiver.store import Store, Stored, Upload
from cirron_spool.receiver.tokens import ACCESS_SECONDS, Tokens
from cirron_spool.text import printable, reason

# A shorter body is collected on the loop and handed to a thread once: a hop costs as much as decompressing a typical
# batch. A longer one is handed over in parts of this size, which bounds the memory of one upload.
_HOP_BYTES = 256 << 10

# A refresh request holds one token.
_REFRESH_BYTES = 64 << 10

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

_Result = TypeVar("_Result")


class Routes:
    """Answers requests, and notes stored batches in ``journal``."""

    def __init__(self, options: ReceiverOptions, store: Store, threads: Executor, journal: Journal) -> None:
        self._options = options
        self._store = store
        self._threads = threads
        self._journal = journal
        self._tokens = Tokens(options.token, options.refresh_token)
        self._shaping = Shaping(options.latency_ms, options.bandwidth)
        self._routes: dict[str, tuple[tuple[str, ...], Callable[[Request], Awaitable[Answer]]]] = {
            "/api/traces": (("POST",), self._traces),
            "/api/cli/status": (("GET", "HEAD"), self._status),
            "/api/cli/auth/refresh": (("POST",), self._refresh),
            "/health": (("GET", "HEAD"), self._health),
        }

    async def __call__(self, request: Request) -> Answer:
        """The answer to one request, after the latency that was asked for."""
        try:
            answer = await self._answer(request)
        except RefusedError as refused:
            answer = refusal(refused.status, refused.message)
        except OSError as error:
            where = printable(str(self._store.directory))
            failure = f"Could not store a batch in {where}: {reason(error)}."
            answer = refusal(507 if error.errno in _NO_SPACE else 500, failure)
        await self._shaping.answer()
        return answer

    async def _answer(self, request: Request) -> Answer:
        methods, handler = self._routes.get(request.head.path, ((), None))
        if handler is None:
            return refusal(404, "No such route.")
        if request.head.method not in methods:
            return refusal(405, f"Only {methods[0]} is possible here.", Allow=", ".join(methods))
        return await handler(request)

    async def _health(self, request: Request) -> Answer:
        del request
        try:
            batches = await asyncio.get_running_loop().run_in_executor(self._threads, self._store.count)
        except OSError as error:
            where = printable(str(self._store.directory))
            return refusal(503, f"Cannot store in {where}: {reason(error)}.")
        return Answer(200, {"status": "ok", "batches": batches, **self._journal.counts()})

    async def _status(self, request: Request) -> Answer:
        if not self._welcome(request):
            return _unauthorized(valid=False)
        expires = datetime.now(UTC) + timedelta(seconds=ACCESS_SECONDS)
        return Answer(
            200,
            {
                "valid": True,
                "token": {"name": "receiver", "expiresAt": expires.isoformat(timespec="milliseconds")},
                "user": {"email": "receiver@localhost", "name": "cirron-spool receiver"},
                "organization": {"name": "cirron-spool receiver"},
            },
        )

    async def _refresh(self, request: Request) -> Answer:
        body = bytearray()
        while chunk := await request.read():
            body += chunk
            if len(body) > _REFRESH_BYTES:
                raise RefusedError(413, f"The request is larger than {_REFRESH_BYTES} bytes.")
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            raise RefusedError(400, "The body is not JSON.") from None
        token = asked.get("refresh_token") if isinstance(asked, dict) else None
        if not isinstance(token, str):
            raise RefusedError(400, 'The body must be {"refresh_token": "…"}.')
        issued = self._tokens.refresh(token)
        if issued is None:
            return _unauthorized()
        access, refresh = issued
        return Answer(
            200,
            {
                "access_token": access,
                "refresh_token": refresh,
                "expires_in": ACCESS_SECONDS,
                "token_type": "Bearer",
            },
        )

    async def _traces(self, request: Request) -> Answer:
        if not self._welcome(request):
            return _unauthorized()
        batch_id = request.head.fields.get("x-cirron-batch-id", "")
        gzipped = is_gzip(request.head.fields.get("content-encoding", ""))
        upload = self._store.upload(batch_id, gzipped=gzipped)
        self._check_size(request.head.length or 0)
        stored = await self._take_in(request, upload)
        self._journal.stored(stored, request.peer)
        return Answer(200, {"success": True, "batchId": batch_id, "duplicate": stored.duplicate})

    async def _take_in(self, request: Request, upload: Upload) -> Stored:
        """Read the body and store it: in one thread hop if it is short, else hop by hop as it comes."""
        received = 0
        held = bytearray()
        begun = False
        try:
            while chunk := await request.read():
                received += len(chunk)
                self._check_size(received)
                await self._shaping.body(len(chunk))
                held += chunk
                if len(held) >= _HOP_BYTES:
                    begun = True
                    part = bytes(held)
                    held.clear()
                    await self._hop(upload.feed, part)
            return await self._hop(upload.run, bytes(held))
        except BaseException as error:
            if begun:
                # The hop that a cancelled request leaves behind may still run: then this comes after it, unawaited.
                discarding = self._threads.submit(upload.discard)
                if isinstance(error, Exception):
                    await asyncio.wrap_future(discarding)
            raise

    async def _hop(self, work: Callable[[bytes], _Result], data: bytes) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, data)

    def _check_size(self, on_the_wire: int) -> None:
        if on_the_wire > self._options.max_bytes:
            raise RefusedError(413, f"The batch is larger than {self._options.max_bytes} bytes.")

    def _welcome(self, request: Request) -> bool:
        return self._tokens.accepts(request.head.fields.get("authorization", ""))


def _unauthorized(**more: Any) -> Answer:
    error = "The token is not accepted."
    return Answer(401, {"success": False, "error": error, **more}, {"WWW-Authenticate": "Bearer"})
