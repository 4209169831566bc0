"""Is this JSON? Answered piece by piece, in bounded memory, without building the document.

Parsing a body into objects takes up to twenty times its size in memory and recurses with its depth. This checker holds
one byte for each open bracket and at most one cut token, whatever the body holds, at the speed of ``json.loads``: the
regular expressions below walk over whole runs of array items and object members in C, and only what they cannot take
in one stride (deep nesting, a piece's cut end, the top level) goes token by token.
"""

from __future__ import annotations

import codecs
import json
import re
from enum import Enum, auto

# The SDK nests attributes 32 deep at most; a reader with a recursion limit must be able to follow.
MAX_DEPTH = 500

# Python refuses to read longer integers (sys.int_info.default_max_str_digits), so nobody could read them back.
_INTEGER_DIGITS = 4300

# A token cut by the end of a piece waits for the next piece; one longer than this is no number and no literal ...
_LONGEST_ATOM = 8 << 10
# ... and a string longer than this is walked through in parts. Shorter ones are seen whole, so that keys are.
_LONGEST_WHOLE_STRING = 64 << 10

_SPACE = rb"[ \t\n\r]*+"
_TEXT = rb'[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+'
_STRING = rb'"' + _TEXT + rb'"'
_FRACTION = rb"(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+"
_POSITIVE = rb"[1-9][0-9]{0,%d}+" % (_INTEGER_DIGITS - 1)
# Alternatives that differ in their first byte: the engine then leaves out those that cannot be, 15 % faster in all.
_NUMBER = _POSITIVE + _FRACTION + rb"|0" + _FRACTION + rb"|-(?:0|" + _POSITIVE + rb")" + _FRACTION
# json.dumps writes the last three for floats that are not finite, and the SDK up to 0.3.0 lets it.
_LITERAL = rb"true|false|null|NaN|-?Infinity"


def _with_nested(value: bytes) -> bytes:
    """The pattern of a scalar, or of an array or object whose members match ``value``."""
    items = value + _SPACE + rb"(?:," + _SPACE + rb"(?!\])|(?=\]))"
    members = _STRING + _SPACE + rb":" + _SPACE + value + _SPACE + rb"(?:," + _SPACE + rb"(?!\})|(?=\}))"
    array = rb"\[" + _SPACE + rb"(?:" + items + rb")*+\]"
    object_ = rb"\{" + _SPACE + rb"(?:" + members + rb")*+\}"
    return rb"(?:" + rb"|".join((_STRING, _NUMBER, object_, array, _LITERAL)) + rb")"


_SCALAR = rb"(?:" + rb"|".join((_STRING, _NUMBER, _LITERAL)) + rb")"
# Three levels cover a span with its attributes; each further one doubles the pattern.
_VALUE = _with_nested(_with_nested(_with_nested(_SCALAR)))

_ITEMS = re.compile(rb"(?:" + _SPACE + _VALUE + _SPACE + rb",)*+")
_MEMBERS = re.compile(rb"(?:" + _SPACE + _STRING + _SPACE + rb":" + _SPACE + _VALUE + _SPACE + rb",)*+")
_TOKEN = re.compile(
    _SPACE + rb"(?:(?P<mark>[{}\[\]:,])|(?P<string>" + _STRING + rb")"
    # A number ends only where its successor is seen: the next piece could go on with digits.
    rb"|(?P<atom>(?:" + _NUMBER + rb"|" + _LITERAL + rb")(?=[ \t\n\r,\]}])))"
)
_SPACES = re.compile(_SPACE)
_TEXT_RUN = re.compile(_TEXT)
_CUT_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?")


class NotJsonError(ValueError):
    """The text is not one JSON object, or one that no reader could be expected to take; the message says why."""


class _Expect(Enum):
    FIRST_KEY = auto()  # or the end of the object
    KEY = auto()
    COLON = auto()
    FIRST_ITEM = auto()  # or the end of the array
    VALUE = auto()
    COMMA = auto()  # or the end of the object or array
    OBJECT = auto()  # the document's own opening brace
    NOTHING = auto()


class JsonCheck:
    """Fed a document's bytes in order, raises NotJsonError as soon as they cannot be one JSON object in UTF-8.

    ``NaN`` and the infinities pass, repeated keys pass (the last one counts). ``created_ns`` is the text of the value
    of the document's own key of that name: a number as it is written, of anything else at least its first byte; None
    while there is none.
    """

    def __init__(self) -> None:
        self.created_ns: bytes | None = None
        self._open = bytearray()  # the brackets around the place where we are
        self._expect = _Expect.OBJECT
        self._rest = b""
        self._in_string = False
        self._key_is_created_ns = False
        self._take = {"mark": self._take_mark, "string": self._take_string, "atom": self._take_value}
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    def feed(self, piece: bytes) -> None:
        """Check the next bytes. Pieces of some 100 KB are best: tiny ones are right, and slow."""
        try:
            self._utf8.decode(piece)
        except UnicodeDecodeError as error:
            raise NotJsonError(f"not UTF-8 ({error.reason})") from None
        text = self._rest + piece if self._rest else piece
        self._rest = text[self._walk(text, final=False) :]

    def finish(self) -> None:
        """Say that the document is complete. Raises NotJsonError when it is not."""
        self._walk(self._rest, final=True)
        if self._expect is not _Expect.NOTHING:
            raise NotJsonError("it ends too early" if self._open else "it is empty")

    def _walk(self, text: bytes, *, final: bool) -> int:
        """Check as much of ``text`` as can be; the index of the first byte to be seen again with the next piece."""
        place = 0
        while True:
            if self._in_string:
                place = self._walk_string(text, place)
                if self._in_string:
                    return place
            # Below the top level, whose keys are looked at one by one.
            if len(self._open) > 1:
                place = self._stride(text, place)
            token = _TOKEN.match(text, place)
            if token is not None:
                place = token.end()
                kind = token.lastgroup or ""
                self._take[kind](token[kind])
                continue
            place = _SPACES.match(text, place).end()  # type: ignore[union-attr]  # the pattern matches everywhere
            if self._may_go_on(text, place, final=final):
                return place
            # A string that is too long to be seen whole, or a wrong one, which the walk will find out.
            self._take_string(b'"')
            self._in_string = True
            place += 1

    def _may_go_on(self, text: bytes, place: int, *, final: bool) -> bool:
        """Whether the token that is not complete at ``place`` waits for the next piece; False for a long string."""
        if place == len(text):
            return True
        in_string = text[place] == 0x22
        if not final and len(text) - place < (_LONGEST_WHOLE_STRING if in_string else _LONGEST_ATOM):
            return True
        if in_string:
            return False
        raise NotJsonError(f"unexpected {text[place : place + 20]!r}")

    def _stride(self, text: bytes, place: int) -> int:
        """Over all members or items from here on that are complete and followed by a comma."""
        if self._expect in (_Expect.KEY, _Expect.FIRST_KEY):
            end, then = _MEMBERS.match(text, place).end(), _Expect.KEY  # type: ignore[union-attr]
        elif self._expect is _Expect.FIRST_ITEM or (self._expect is _Expect.VALUE and self._open[-1] == 0x5B):
            end, then = _ITEMS.match(text, place).end(), _Expect.VALUE  # type: ignore[union-attr]
        else:
            return place
        if end > place:
            self._expect = then
        return end

    def _walk_string(self, text: bytes, place: int) -> int:
        """Through a string that did not fit into one piece."""
        place = _TEXT_RUN.match(text, place).end()  # type: ignore[union-attr]
        if place < len(text) and text[place] == 0x22:
            self._in_string = False
            return place + 1
        if place < len(text) and not _CUT_ESCAPE.fullmatch(text, place):
            raise NotJsonError(f"unexpected {text[place : place + 6]!r} in a string")
        return place

    def _take_mark(self, mark: bytes) -> None:
        if mark in b"{[":
            self._take_value(mark)
            if len(self._open) >= MAX_DEPTH:
                raise NotJsonError(f"nested deeper than {MAX_DEPTH} levels")
            self._open += mark
            self._expect = _Expect.FIRST_KEY if mark == b"{" else _Expect.FIRST_ITEM
        elif mark in b"}]":
            opened, first = (0x7B, _Expect.FIRST_KEY) if mark == b"}" else (0x5B, _Expect.FIRST_ITEM)
            if not self._open or self._open[-1] != opened or self._expect not in (first, _Expect.COMMA):
                raise NotJsonError(f"unexpected {mark!r}")
            self._open.pop()
            self._expect = _Expect.COMMA if self._open else _Expect.NOTHING
        elif mark == b":" and self._expect is _Expect.COLON:
            self._expect = _Expect.VALUE
        elif mark == b"," and self._expect is _Expect.COMMA:
            self._expect = _Expect.KEY if self._open[-1] == 0x7B else _Expect.VALUE
        else:
            raise NotJsonError(f"unexpected {mark!r}")

    def _take_string(self, string: bytes) -> None:
        if self._expect not in (_Expect.KEY, _Expect.FIRST_KEY):
            self._take_value(string)
            return
        # A key can be written with escapes, and still be that key.
        plain = json.loads(string) if b"\\" in string else string[1:-1]
        self._key_is_created_ns = len(self._open) == 1 and plain in (b"created_ns", "created_ns")
        self._expect = _Expect.COLON

    def _take_value(self, start: bytes) -> None:
        """A scalar, or the bracket that opens something longer."""
        if self._expect is _Expect.OBJECT:
            if start != b"{":
                raise NotJsonError("not an object")
        elif self._expect not in (_Expect.VALUE, _Expect.FIRST_ITEM):
            raise NotJsonError(f"unexpected {start[:20]!r}")
        elif len(self._open) == 1 and self._key_is_created_ns:
            self.created_ns = start
        self._expect = _Expect.COMMA
