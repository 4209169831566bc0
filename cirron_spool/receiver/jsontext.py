"""Check that a document is one JSON object, piece by piece and in bounded memory.

The standard library's decoder checks each value that is complete in a piece. Only a value across two pieces is checked
token by token. The verdict does not depend on the pieces.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import cast

# Most levels. The SDK nests attributes 32 deep at most. Python's decoder fails near 1000.
MAX_DEPTH = 500

# A shorter token at the end of a piece waits for the next piece. The length fits the key "created_ns" in escapes, and
# the longest number after `_shorten`.
_LONGEST_HELD = 128

# Characters that one call of the decoder checks: at first, and at most.
_LEAST_REACH = 1 << 10
_LONGEST_REACH = 256 << 10

# Failed attempts on complete values may read a piece this many times. After that, tokens are faster.
_PATIENCE = 8

_BLANKS = re.compile(r"[ \t\n\r]*")
_ATOM = re.compile(r"[-+.0-9A-Za-z]*")
# The SDK up to 0.3.0 writes the last three, since json.dumps does so for floats that are not finite.
_VALID_ATOM = re.compile(
    r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null|NaN|-?Infinity"
)
_MANY_DIGITS = re.compile(r"([0-9]{32})[0-9]+")
# The repetition is bounded, since the engine stores each iteration.
_STRING_PART = re.compile(r'(?:[^"\\\x00-\x1f]+|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})){0,500}')
_CUT_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?")
_ESCAPE = re.compile(r"\\.", re.DOTALL)
_SQUARE = bytes.maketrans(b"{}", b"[]")
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))

_CLOSING = {"[": "]", "{": "}"}

# The values are not needed. ``len`` is the cheapest callable for the text of a number. Unlike ``int``, it accepts any
# number of digits.
_decoder = json.JSONDecoder(parse_int=cast("Callable[[str], int]", len), parse_float=len, parse_constant=len)


class NotABatchError(ValueError):
    """The text is not one JSON object, or nests too deep. The message is a sentence without its full stop."""


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
    """Checks a document's bytes. Raises NotABatchError as soon as they cannot be one JSON object in UTF-8.

    Beyond RFC 8259, ``NaN`` and the infinities pass. Repeated keys pass (the last one counts), and so do numbers of any
    length. Objects and arrays nest ``MAX_DEPTH`` levels at most. A byte order mark is refused.

    ``created_ns`` is the value of the document's own key of that name: the first 32 characters of a number or literal
    as they are written, only the first one of anything else. None without such a key.
    """

    def __init__(self) -> None:
        self.created_ns: str | None = None
        self._open: list[str] = []  # the brackets around the current place
        self._expect = _Expect.OBJECT
        self._rest = ""
        self._in_string = False
        self._key_is_created_ns = False
        self._patience = 0
        self._reach = _LEAST_REACH
        self._guess_from = 0
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    def feed(self, piece: bytes) -> None:
        """Check the next bytes. Pieces of some 100 KB are fastest."""
        self._take(self._decoded(piece, final=False), final=False)

    def finish(self) -> None:
        """End the document. Raises NotABatchError if it is incomplete."""
        self._take(self._decoded(b"", final=True), final=True)
        if self._expect is not _Expect.NOTHING:
            raise _not_json("it ends too early" if self._open else "it is empty")

    def _decoded(self, piece: bytes, *, final: bool) -> str:
        try:
            return self._utf8.decode(piece, final)
        except UnicodeDecodeError as error:
            raise _not_json(f"not UTF-8 ({error.reason})") from None

    def _take(self, piece: str, *, final: bool) -> None:
        text = self._rest + piece
        self._rest = ""
        self._patience = _PATIENCE * len(text)
        self._guess_from = 0
        place: int | None = 0
        while place is not None:
            place = self._string_part(text, place) if self._in_string else self._step(text, place, final)

    def _step(self, text: str, place: int, final: bool) -> int | None:
        """Check the next value or token. Returns the position after it, or None if it continues in the next piece."""
        place = _end(_BLANKS, text, place)
        if place == len(text):
            return None
        start = text[place]
        if start in "{[" and (end := self._whole(text, place)) is not None:
            self._value(text, place, end)
        elif start in "{}[]:,":
            end = place + 1
            self._structural(start)
        elif start == '"':
            cut_or_end = self._string(text, place, final)
            if cut_or_end is None:
                return None
            end = cut_or_end
        else:
            end = _end(_ATOM, text, place)
            if end == len(text) and not final:
                self._rest = _shorten(text[place:])
                return None
            if not _VALID_ATOM.fullmatch(text, place, end):
                raise _unexpected(text, place)
            self._value(text, place, end)
        return end if self._in_string else self._following_values(text, end)

    def _whole(self, text: str, place: int) -> int | None:
        """The end of the array or object at ``place``; None if it is cut or invalid. Then its tokens are checked."""
        if self._patience <= 0 or self._expect is _Expect.OBJECT:
            return None
        try:
            _, end = _decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            self._patience -= len(text) - place
            return None
        self._check_depth(text[place:end], around=len(self._open))
        return end

    def _following_values(self, text: str, place: int) -> int:
        """The end of the complete array items or object members after the comma at ``place``.

        The end is guessed, and the decoder checks the run up to it. A correct guess quadruples the length of the next
        run. A run of simple values ends at a comma. A run of arrays or objects ends between two of them.
        """
        if self._expect is not _Expect.COMMA or text[place : place + 1] != "," or place < self._guess_from:
            return place
        last = text[place - 1]
        between = text[place - 1 : place + 6] if last == "}" else "]," if last == "]" else ","
        end = text.rfind(between, place + 1, place + self._reach) + (last in "]}")
        items = text[place + 1 : end]
        # The keys of the top level are read one by one if one of them can be "created_ns".
        if end <= place or (len(self._open) == 1 and ("created_ns" in items or "\\" in items)):
            return self._wrong_guess(place)
        opening = self._open[-1]
        run = f"{opening}{items}{_CLOSING[opening]}"
        try:
            _, length = _decoder.raw_decode(run)
        except (ValueError, RecursionError):
            length = 0
        # An empty run is valid for the decoder, but here it is one comma too many.
        if length < len(run) or not items.strip():
            return self._wrong_guess(place)
        self._check_depth(run, around=len(self._open) - 1)
        self._reach = min(4 * self._reach, _LONGEST_REACH)
        return end

    def _wrong_guess(self, place: int) -> int:
        self._reach = _LEAST_REACH
        self._guess_from = place + _LEAST_REACH
        return place

    def _check_depth(self, value: str, *, around: int) -> None:
        """Refuse a valid value that nests too deep inside ``around`` open brackets."""
        room = MAX_DEPTH - around
        # Counting brackets is cheap, and most values have too few of them.
        if value.count("[") + value.count("{") > room and _nests_deeper(value, room):
            raise _too_deep()

    def _string(self, text: str, place: int, final: bool) -> int | None:
        """Check the string that begins at ``place``, or its first part."""
        try:
            string, end = _decoder.raw_decode(text, place)
        except ValueError:
            if not final and len(text) - place < _LONGEST_HELD:
                self._rest = text[place:]
                return None
            string, end = None, place + 1
            self._in_string = True
        if self._expect in (_Expect.KEY, _Expect.FIRST_KEY):
            self._key_is_created_ns = len(self._open) == 1 and string == "created_ns"
            self._expect = _Expect.COLON
        else:
            self._value(text, place, end)
        return end

    def _string_part(self, text: str, place: int) -> int | None:
        """Check a part of a string that is invalid or longer than a piece."""
        end = _end(_STRING_PART, text, place)
        if end > place:
            return end
        if text[place : place + 1] == '"':
            self._in_string = False
            return place + 1
        self._rest = text[place:]
        if self._rest and not _CUT_ESCAPE.fullmatch(self._rest):
            raise _not_json(f"unexpected {self._rest[:6]!r} in a string")
        return None

    def _structural(self, character: str) -> None:
        """Check one of the six structural characters of JSON."""
        if character in "{[":
            self._value(character, 0, 1)
            if len(self._open) >= MAX_DEPTH:
                raise _too_deep()
            self._open.append(character)
            self._expect = _Expect.FIRST_KEY if character == "{" else _Expect.FIRST_ITEM
        elif character in "}]":
            opening, first = ("{", _Expect.FIRST_KEY) if character == "}" else ("[", _Expect.FIRST_ITEM)
            if not self._open or self._open[-1] != opening or self._expect not in (first, _Expect.COMMA):
                raise _unexpected(character)
            self._open.pop()
            self._expect = _Expect.COMMA if self._open else _Expect.NOTHING
        elif character == ":" and self._expect is _Expect.COLON:
            self._expect = _Expect.VALUE
        elif character == "," and self._expect is _Expect.COMMA:
            self._expect = _Expect.KEY if self._open[-1] == "{" else _Expect.VALUE
        else:
            raise _unexpected(character)

    def _value(self, text: str, start: int, end: int) -> None:
        """Handle the value, or the beginning of a value, in ``text``."""
        if self._expect is _Expect.OBJECT:
            if text[start] != "{":
                raise NotABatchError("A batch is a JSON object, and this body is something else")
        elif self._expect not in (_Expect.VALUE, _Expect.FIRST_ITEM):
            raise _unexpected(text, start)
        elif len(self._open) == 1 and self._key_is_created_ns:
            self.created_ns = text[start] if text[start] in '"[{' else text[start : min(end, start + 32)]
        self._expect = _Expect.COMMA


def _end(pattern: re.Pattern[str], text: str, place: int) -> int:
    """The end of the match at ``place``. The pattern always matches."""
    found = pattern.match(text, place)
    return found.end() if found else place


def _shorten(atom: str) -> str:
    """A number with at most 32 digits in a row. More digits do not change its validity."""
    if len(atom) > _LONGEST_HELD:
        atom = _MANY_DIGITS.sub(r"\1", atom)
        if len(atom) > _LONGEST_HELD:
            raise _unexpected(atom)
    return atom


def _nests_deeper(value: str, levels: int) -> bool:
    """Whether a valid value has more than ``levels`` levels of brackets."""
    structure = _ESCAPE.sub("", value).encode().translate(_SQUARE, _NOT_STRUCTURE)
    # Remove empty strings, so that only strings with brackets are left.
    brackets = b"".join(structure.replace(b'""', b"").split(b'"')[::2])
    for _ in range(levels):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _too_deep() -> NotABatchError:
    return NotABatchError(f"The JSON nests deeper than {MAX_DEPTH} levels")


def _not_json(reason: str) -> NotABatchError:
    return NotABatchError(f"The body is not JSON: {reason}")


def _unexpected(text: str, place: int = 0) -> NotABatchError:
    return _not_json(f"unexpected {text[place : place + 20]!r}")
