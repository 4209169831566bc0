"""A client of bytes: for what no HTTP library would send, and for what none would let through."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

from .background import BackgroundServer

SAFETY_NET = 60.0  # seconds


@contextmanager
def connected(server: BackgroundServer, first: bytes = b"") -> Iterator[socket.socket]:
    """A connection to `server` on which `first` has been sent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=SAFETY_NET) as sock:
        sock.sendall(first)
        yield sock


def everything(sock: socket.socket) -> bytes:
    """What comes until the other side closes. Raises ``ConnectionResetError`` when it resets instead."""
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def exactly(sock: socket.socket, count: int) -> bytes:
    """The next `count` bytes. Raises ``AssertionError`` when there are fewer."""
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece, f"closed after {data!r}"
        data += piece
    return data


def call(
    server: BackgroundServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, object]:
    """One request through the standard library's client: status and the JSON of the answer.

    The underscores in the names of `headers` stand for hyphens.
    """
    with closing(http.client.HTTPConnection("127.0.0.1", server.port)) as client:
        client.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
        answer = client.getresponse()
        return answer.status, json.loads(answer.read())
