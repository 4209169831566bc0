"""A platform on a raw socket that answers by script, byte for byte, however badly the script says."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from . import ledger
from .answers import Answer, Gate, html, json_answer, ok
from .background import BackgroundServer, reset
from .platform import INGEST, UNDECODABLE, AnswerLike, Platform, Route
from .proxy import ProxyServer
from .wire import ClientGoneError, ProtocolError, Request, read_body, read_head

__all__ = [
    "Answer",
    "AnswerLike",
    "Gate",
    "ProxyServer",
    "Request",
    "ScriptedServer",
    "html",
    "json_answer",
    "ok",
]

# The answer's end goes out under the ledger's lock in one write; it must fit any socket buffer.
TAIL = 8192


class _OverError(Exception):
    """The script ends this connection."""


class ScriptedServer(BackgroundServer):
    """The platform's side of the contract, on 127.0.0.1 and a port of the kernel's choice.

    `answers` are for ``POST /api/traces``, one each in order; after them comes the platform's own behaviour.
    With `check_auth` the platform demands the access token (which a refresh rotates) and answers 401 otherwise;
    scripted answers are given without looking at it. `platform` holds the tokens of the moment.

    `requests` holds every request in the order of arrival, `deliveries` every (batch id, decoded body)
    received whole and answered whole with a success, `delivered` the same as a mapping, first body first.
    """

    def __init__(
        self,
        *answers: AnswerLike,
        tls: ssl.SSLContext | None = None,
        receive_buffer: int | None = None,
        check_auth: bool = False,
        access_token: str = "access-0",
        refresh_token: str = "refresh-0",
    ) -> None:
        super().__init__(tls=tls, receive_buffer=receive_buffer)
        self.requests: list[Request] = []
        self.deliveries: list[tuple[str, bytes]] = []
        self.delivered: dict[str, bytes] = {}
        self.peak_in_flight = 0  # most uploads between head and whole answer at one moment
        self.platform = Platform(
            check_auth=check_auth, access_token=access_token, refresh_token=refresh_token
        )
        self._in_flight: set[Request] = set()
        self._queues: dict[Route, deque[AnswerLike]] = {}
        self._defaults = self.platform.routes()
        self.script(*answers)

    def __repr__(self) -> str:
        seen = [f"{r.method} {r.path}{'' if r.complete else ' (cut)'}" for r in self.requests[-20:]]
        return f"<{type(self).__name__} {self.url} {self.connections} connections, ends in {seen}>"

    # -- the script

    def script(self, *answers: AnswerLike) -> None:
        """Queue `answers` for ``POST /api/traces``."""
        self.on(*INGEST, *answers)

    def on(self, method: str, path: str, *answers: AnswerLike, default: AnswerLike | None = None) -> None:
        """Queue `answers` for a route; `default` replaces what is said when its queue is empty."""
        with self.changed:
            self._queues.setdefault((method, path), deque()).extend(answers)
            if default is not None:
                self._defaults[(method, path)] = default

    @property
    def unused(self) -> int:
        """Scripted answers that nobody has asked for yet."""
        with self.changed:
            return sum(len(queue) for queue in self._queues.values())

    # -- what was seen

    @property
    def uploads(self) -> list[Request]:
        """The requests to ``/api/traces``, whole or not, in order of arrival."""
        return self.seen(INGEST[1])

    def seen(self, path: str) -> list[Request]:
        """The requests to `path`, in order of arrival."""
        with self.changed:
            return [request for request in self.requests if request.path == path]

    def attempts(self, batch_id: str) -> list[Request]:
        """The uploads of one batch, in order of arrival."""
        return [request for request in self.uploads if request.batch_id == batch_id]

    def wait_for(self, condition: int | Callable[[ScriptedServer], bool]) -> None:
        """Block until so many uploads were received whole, or until `condition(self)` holds.

        For threads without a running event loop; `arrived` is the same for coroutines.
        """
        if isinstance(condition, int):
            count = condition
            self.wait_until(lambda: sum(r.complete for r in self.uploads) >= count, f"{count} whole uploads")
        else:
            test = condition
            self.wait_until(lambda: test(self), "fulfilled condition")

    async def arrived(self, condition: int | Callable[[ScriptedServer], bool]) -> None:
        """As `wait_for`, without blocking the event loop."""
        await asyncio.to_thread(self.wait_for, condition)

    # -- one connection

    async def _converse(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while request := await read_head(reader, number):
                await self._exchange(request, reader, writer)
        except (ClientGoneError, _OverError):
            pass
        except ProtocolError as exc:
            self.errors.append(f"connection {number}: {exc}")
            writer.write(Answer(400, close=True).render())

    async def _exchange(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with self.changed:
            self.requests.append(request)
            if request.path == INGEST[1]:
                self._in_flight.add(request)
            self.peak_in_flight = max(self.peak_in_flight, len(self._in_flight))
            chosen = self._choose((request.method, request.path))
            self.changed.notify_all()
        answer = chosen if isinstance(chosen, Answer) else chosen(request)
        try:
            for status in answer.interim:
                await _send(writer, Answer(status).render())
            if answer.before_body:
                await self._answer(answer, request, writer)
                await self._part(answer, reader, writer)
                await self._read(answer, request, reader, writer)
            else:
                await self._read(answer, request, reader, writer)
                if answer.late is not None:
                    answer = answer.late(request)
                await self._answer(answer, request, writer)
                await self._part(answer, reader, writer)
        finally:
            with self.changed:
                self._in_flight.discard(request)
                self.changed.notify_all()
        if request.http10 or (request.headers.get("connection") or "").lower() == "close":
            raise _OverError

    def _choose(self, route: Route) -> AnswerLike:
        queue = self._queues.get(route)
        if queue:
            return queue.popleft()
        return self._defaults.get(route, json_answer({"error": f"no route {route[1]}"}, 404))

    async def _read(
        self, answer: Answer, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async def pause() -> None:
            if answer.stall_before or answer.hang:
                await self._stall(answer.stall_before)
            else:
                _end(answer, writer)

        await read_body(reader, request, progress=self._notify, pause_at=answer.read_only, pause=pause)

    async def _answer(self, answer: Answer, request: Request, writer: asyncio.StreamWriter) -> None:
        if answer.hang:
            await self._stall(True)
        if answer.stall_before:
            await self._stall(answer.stall_before)
        wire = answer.render()
        whole = answer.cut_after is None or answer.cut_after >= len(wire)
        if not whole:
            wire = wire[: answer.cut_after]
        sent = 0
        if answer.stall_after_bytes is not None and answer.stall_after_bytes < len(wire):
            sent = answer.stall_after_bytes
            await self._trickle(wire[:sent], answer.drip, writer)
            await self._stall(answer.stall_gate or True)
        # The tail is never empty: with it goes the entry in the ledger.
        tail = max(sent, len(wire) - (1 if answer.drip else TAIL))
        await self._trickle(wire[sent:tail], answer.drip, writer)
        together = answer.extra if answer.extra_gate is None and whole else b""
        body = _acknowledged_body(answer, request) if whole else None
        with ledger.lock:
            writer.write(wire[tail:] + together)
            if whole and not writer.is_closing():
                self._answered(request, body)
        await writer.drain()
        if answer.extra_gate is not None and whole:
            await self.passes(answer.extra_gate)
            await _send(writer, answer.extra)
        if not whole:
            _end(answer, writer)

    def _answered(self, request: Request, body: bytes | None) -> None:
        with self.changed:
            request.answered = True
            self._in_flight.discard(request)
            if body is not None and request.batch_id:
                self.deliveries.append((request.batch_id, body))
                self.delivered.setdefault(request.batch_id, body)
                ledger.acknowledge(request.batch_id, body)

    async def _part(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """End the connection where the script says so; a client still sending gets the time to read the answer."""
        if not (answer.close or answer.drop or answer.http10 or answer.reset):
            return
        if answer.before_body and not answer.reset:
            if writer.can_write_eof():
                writer.write_eof()
            while await reader.read(65536):
                pass
        _end(answer, writer)

    async def _stall(self, until: bool | Gate) -> None:
        if isinstance(until, Gate):
            await self.passes(until)
        else:
            await self.passes(self._release)
            raise _OverError

    async def _trickle(self, data: bytes, drip: float | None, writer: asyncio.StreamWriter) -> None:
        if drip is None:
            await _send(writer, data)
            return
        for offset in range(len(data)):
            await _send(writer, data[offset : offset + 1])
            await asyncio.sleep(drip)


def _end(answer: Answer, writer: asyncio.StreamWriter) -> NoReturn:
    if answer.reset:
        reset(writer)
    raise _OverError


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    if data:
        writer.write(data)
        await writer.drain()


def _acknowledged_body(answer: Answer, request: Request) -> bytes | None:
    """The batch that `answer`, once it is out, has acknowledged; None when it acknowledges nothing."""
    if not (answer.acknowledged and request.complete and request.path == INGEST[1]):
        return None
    try:
        return request.decoded
    except UNDECODABLE:
        return None  # a success answer to garbage is the word for no batch
