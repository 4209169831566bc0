"""Where the head and the chunks of an answer end, read strictly from its bytes.

aiohttp's two parsers tolerate different faults: other protocols, lone carriage returns, NUL, wrong chunk sizes. An
answer that a fault has shifted may not acknowledge, so both are checked here.
"""

from __future__ import annotations

import re

# RFC 9112, sections 2.2 and 4: lines may end in LF alone, and many servers send no reason and no blank before it.
_HEAD = re.compile(
    rb"HTTP/1\.[01] ([1-9][0-9][0-9])(?: [^\r\n\0]*)?\r?\n"
    rb"(?:[^\r\n\0]+\r?\n)*"
    rb"\r?\n"
)  # fmt: skip
# RFC 9112, section 7.1: lines end in CR LF.
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n\0]*)?\r\n")
_TRAILER = re.compile(rb"(?:[^\r\n\0: \t]+:[^\r\n\0]*\r\n)*\r\n")


def find_body(received: bytes | bytearray) -> int | None:
    """Where the body of the final answer begins; None when the bytes are no HTTP/1.0 or 1.1, or no whole head.

    Interim answers (1xx, but 101) come before it.
    """
    at = 0
    while head := _HEAD.match(received, at):
        at = head.end()
        if not head[1].startswith(b"1") or head[1] == b"101":
            return at
    return None


def are_whole_chunks(received: bytes | bytearray, at: int) -> bool:
    """Whether a chunked body that begins ``at`` is there to the end of its trailer, and says its sizes rightly."""
    while line := _CHUNK_SIZE.match(received, at):
        size = int(line[1], 16)
        if size == 0:
            return _TRAILER.match(received, line.end()) is not None
        at = line.end() + size
        if received[at : at + 2] != b"\r\n":
            return False
        at += 2
    return False
