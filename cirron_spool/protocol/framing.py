"""Strict checks of the head and the chunks of an answer.

aiohttp's two parsers tolerate different errors: other protocols, lone carriage returns, NUL, wrong chunk sizes. After
such an error the boundaries of an answer are unsure, and it must not acknowledge a batch.
"""

from __future__ import annotations

import re

# RFC 9112, sections 2.2 and 4: lines may end in LF only. Many servers send no reason phrase.
_HEAD = re.compile(
    rb"HTTP/1\.[01] ([1-9][0-9][0-9])(?: [^\r\n\0]*)?\r?\n"
    rb"(?:[^\r\n\0]+\r?\n)*"
    rb"\r?\n"
)  # fmt: skip
# RFC 9112, section 7.1: lines end in CR LF.
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n\0]*)?\r\n")
_TRAILER = re.compile(rb"(?:[^\r\n\0: \t]+:[^\r\n\0]*\r\n)*\r\n")


def find_body(received: bytes | bytearray) -> int | None:
    """The start of the final answer's body; None if the bytes are not HTTP/1.0 or 1.1, or the head is incomplete.

    Interim answers (1xx except 101) are skipped.
    """
    at = 0
    while head := _HEAD.match(received, at):
        at = head.end()
        if not head[1].startswith(b"1") or head[1] == b"101":
            return at
    return None


def are_whole_chunks(received: bytes | bytearray, at: int) -> bool:
    """Whether the chunked body from ``at`` is complete, trailer included, with correct sizes."""
    while line := _CHUNK_SIZE.match(received, at):
        size = int(line[1], 16)
        if size == 0:
            return _TRAILER.match(received, line.end()) is not None
        at = line.end() + size
        if received[at : at + 2] != b"\r\n":
            return False
        at += 2
    return False
