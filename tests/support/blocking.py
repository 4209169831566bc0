"""A server of blocking sockets in a thread, for behaviour that an event loop's server cannot show."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

from .background import SAFETY_NET


class BlockingServer:
    """Listens on the loopback while the block runs. Subclasses give `serve`, which one thread runs."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # wakes an accept()
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(SAFETY_NET)
        assert not self._thread.is_alive()

    def serve(self) -> None:
        raise NotImplementedError
