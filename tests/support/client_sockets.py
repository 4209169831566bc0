"""The test process's own connections to a server, as the kernel sees them."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from contextlib import closing

from .background import SAFETY_NET


def client_sockets(port: int) -> list[socket.socket]:
    """Duplicates of this process's connections to `port`, from the client's side."""
    found: dict[int, socket.socket] = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own; or no socket
            number = os.dup(int(name))
            try:
                sock = socket.socket(fileno=number)
            except OSError:
                os.close(number)
                continue
            inode = os.fstat(number).st_ino
            if _peer(sock) == ("127.0.0.1", port) and inode not in found:
                found[inode] = sock
            else:
                sock.close()
    return list(found.values())


def _peer(sock: socket.socket) -> object:
    try:
        return sock.getpeername()
    except OSError:
        return None


def wait_for_unread_bytes(port: int) -> None:
    """Block, with the loop, until bytes wait unread in the kernel on the kept-alive connection."""
    [sock] = client_sockets(port)
    with closing(sock):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        assert poll.poll(SAFETY_NET * 1000)
