"""Requests and their answers.

====  =======================  ===============================================================================
GET   /api/cli/status          200 when the bearer is accepted, else 401
POST  /api/cli/auth/refresh    200 with new tokens for the right refresh token, else 401
POST  /api/traces              200 ``{"success": true, "batchId": …, "duplicate": …}`` once the batch is durable
====  =======================  ===============================================================================

Every other answer is ``{"success": false, "error": …}``: 400 (identifier, gzip, JSON, a body cut short), 401 (bearer),
404, 405, 408 (the body stood still), 413 (too large, on the wire or decompressed), 415 (encoding), 417 (expectation),
507 (no space), 500 (any other failure to store).
"""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from aiohttp import web

from cirron_spool import naming
from cirron_spool.receiver.body import RefusedError, is_gzip
from cirron_spool.receiver.guard import Door
from cirron_spool.receiver.options import ReceiverOptions
from cirron_spool.receiver.shaping import Shaping
from cirron_spool.receiver.store import Store, Stored, Upload
from cirron_spool.receiver.tokens import ACCESS_SECONDS, Tokens

# A body shorter than this on the wire is collected on the loop and handed to a thread once, because a hop costs about
# as much as decompressing a typical batch. A longer one is handed over in parts of this size, so that it is also what
# one upload can make the loop hold.
_HOP_BYTES = 256 << 10

# A refresh request holds one token.
_REFRESH_BYTES = 64 << 10

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

_Result = TypeVar("_Result")

_Answer = tuple[int, dict[str, object], Mapping[str, str]]


class Routes:
    """Answers each request of an ``aiohttp.web.Server``, which calls it. ``report`` is given lines for the operator."""

    door: Door  # set by whoever makes the server, which needs this object first

    def __init__(
        self, options: ReceiverOptions, store: Store, threads: Executor, report: Callable[[str], None]
    ) -> None:
        self._options = options
        self._store = store
        self._threads = threads
        self._report = report
        self._tokens = Tokens(options.token, options.refresh_token)
        self._shaping = Shaping(options.latency_ms, options.bandwidth)
        self._routes: dict[str, tuple[str, Callable[[web.BaseRequest], Awaitable[_Answer]]]] = {
            "/api/traces": ("POST", self._traces),
            "/api/cli/status": ("GET", self._status),
            "/api/cli/auth/refresh": ("POST", self._refresh),
        }

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to one request."""
        guard = self.door.begin(request.transport)
        try:
            status, answer, headers = await self._answer(request)
            await self._shaping.answer()
            response = web.Response(
                status=status,
                body=json.dumps(answer).encode(),
                content_type="application/json",
                headers=headers,
            )
            # The rest of a body that nobody wants is not worth a kept-alive connection.
            if self.door.draining or not request.content.is_eof():
                response.force_close()
            return response
        finally:
            self.door.end(guard)

    async def _answer(self, request: web.BaseRequest) -> _Answer:
        method, handler = self._routes.get(request.path, ("", None))
        if handler is None:
            return _refusal(404, "No such route.")
        if request.method != method:
            return _refusal(405, f"Only {method} is possible here.", Allow=method)
        try:
            return await handler(request)
        except RefusedError as refused:
            return _refusal(refused.status, refused.message)
        except OSError as error:
            failure = f"Could not store a batch: {error.strerror or error}."
            self._report(f"Error: {failure}")
            return _refusal(507 if error.errno in _NO_SPACE else 500, failure)

    async def _status(self, request: web.BaseRequest) -> _Answer:
        if not self._welcome(request):
            return _unauthorized(valid=False)
        expires = datetime.now(UTC) + timedelta(seconds=ACCESS_SECONDS)
        return (
            200,
            {
                "valid": True,
                "token": {"name": "receiver", "expiresAt": expires.isoformat(timespec="milliseconds")},
                "user": {"email": "receiver@localhost", "name": "cirron-spool receiver"},
                "organization": {"name": "cirron-spool receiver"},
            },
            {},
        )

    async def _refresh(self, request: web.BaseRequest) -> _Answer:
        body = bytearray()
        while chunk := await self._next(request):
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
        return (
            200,
            {
                "access_token": access,
                "refresh_token": refresh,
                "expires_in": ACCESS_SECONDS,
                "token_type": "Bearer",
            },
            {},
        )

    async def _traces(self, request: web.BaseRequest) -> _Answer:
        if not self._welcome(request):
            return _unauthorized()
        batch_id = request.headers.get("X-Cirron-Batch-Id", "")
        gzipped = is_gzip(request.headers.get("Content-Encoding", ""))
        upload = self._store.upload(batch_id, gzipped=gzipped)
        self._check_size(request.content_length or 0)
        self._continue(request)
        stored = await self._take_in(request, upload)
        if self._options.verbose:
            what = "Had already" if stored.duplicate else f"Stored {naming.human_size(stored.size)}:"
            self._report(f"{what} {stored.name}")
        return 200, {"success": True, "batchId": batch_id, "duplicate": stored.duplicate}, {}

    async def _take_in(self, request: web.BaseRequest, upload: Upload) -> Stored:
        """Read the body and store it: in one thread hop if it is short, else hop by hop as it comes."""
        received = 0
        held = bytearray()
        begun = False
        try:
            while chunk := await self._next(request):
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

    async def _next(self, request: web.BaseRequest) -> bytes:
        """The next bytes of the body, empty at its end. Raises RefusedError when it stands still or breaks off."""
        try:
            async with asyncio.timeout(self._options.body_timeout_s):
                return await request.content.readany()
        except TimeoutError:
            silence = f"{self._options.body_timeout_s:g} seconds"
            raise RefusedError(408, f"The body stood still for {silence}.") from None
        except (web.RequestPayloadError, ConnectionError):
            raise RefusedError(400, "The body breaks off.") from None

    async def _hop(self, work: Callable[[bytes], _Result], data: bytes) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, data)

    def _check_size(self, on_the_wire: int) -> None:
        if on_the_wire > self._options.max_bytes:
            raise RefusedError(413, f"The batch is larger than {self._options.max_bytes} bytes.")

    def _welcome(self, request: web.BaseRequest) -> bool:
        return self._tokens.accepts(request.headers.get("Authorization", ""))

    def _continue(self, request: web.BaseRequest) -> None:
        """Ask for the body of a client that waits to be asked, now that its head is known to be fine."""
        expectation = request.headers.get("Expect")
        if expectation is None:
            return
        if expectation.lower() != "100-continue":
            raise RefusedError(417, "Expect must be 100-continue or absent.")
        if request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _refusal(status: int, error: str, **headers: str) -> _Answer:
    return status, {"success": False, "error": error}, headers


def _unauthorized(**more: Any) -> _Answer:
    error = "The token is not accepted."
    return 401, {"success": False, "error": error, **more}, {"WWW-Authenticate": "Bearer"}
