from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import cirron_spool
from cirron_spool.receiver.jsontext import MAX_DEPTH, JsonCheck, NotABatchError

NO_OBJECT = "A batch is a JSON object, and this body is something else"


def check(text: bytes, cuts: list[int] | None = None) -> JsonCheck:
    checker = JsonCheck()
    edges = [0, *sorted(cuts or []), len(text)]
    for begin, end in itertools.pairwise(edges):
        checker.feed(text[begin:end])
    checker.finish()
    return checker


def accepts(text: bytes, cuts: list[int] | None = None) -> bool:
    try:
        check(text, cuts)
    except NotABatchError:
        return False
    return True


def reference(text: bytes) -> bool:
    """What json.loads says, for UTF-8 and objects."""
    try:
        return isinstance(json.loads(text.decode()), dict)
    except ValueError:
        return False


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30
)
documents = st.dictionaries(st.text() | st.just("created_ns"), values)


@given(documents, st.sampled_from([None, 1, (" , ", " :\t"), (",", ":")]), st.booleans(), st.data())
def test_takes_all_that_json_writes_however_it_is_cut(
    document: dict[str, Any], layout: Any, ascii_only: bool, data: st.DataObject
) -> None:
    indent, separators = (None, layout) if isinstance(layout, tuple) else (layout, None)
    try:
        text = json.dumps(document, indent=indent, separators=separators, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        text = json.dumps(document).encode()
    cuts = data.draw(st.lists(st.integers(0, len(text))))
    checker = check(text, cuts)
    assert checker.created_ns == check(text).created_ns
    assert check(text, list(range(0, len(text), 1 + len(text) // 300))).created_ns == checker.created_ns
    if type(document.get("created_ns")) is int:
        assert checker.created_ns == str(document["created_ns"])[:32]
    assert (checker.created_ns is None) == ("created_ns" not in document)


@pytest.mark.thorough
@given(documents, st.data())
def test_agrees_with_json_on_damaged_documents(document: dict[str, Any], data: st.DataObject) -> None:
    text = bytearray(json.dumps({"": [[document, document]]}).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text) - 1))
        damage = data.draw(
            st.sampled_from(b'{}[]:,"\\0123456789.eE+-ntfNIu \n\x00\xff') | st.integers(0, 255)
        )
        if data.draw(st.booleans()):
            text[place] = damage
        else:
            text[place : place + 1] = b""
        if not text:
            break
    cuts = data.draw(st.lists(st.integers(0, len(text))))
    assert accepts(bytes(text), cuts) == reference(bytes(text))


@given(st.text(alphabet='{}[]:,"\\01.eE+-truefalsn NI', max_size=12))
@example('{"a":1,}')
@example('{"a":[1,]}')
@example('{"a":[[1,]]}')
@example('{"a":[{"b":1,}]}')
@example('{"a":01}')
@example('{"a":-}')
@example('{"a":[[,]]}')
@example('{"a" 1}')
@example("{1:2}")
@example('{"a":1]')
@example('{"a"}')
@example('{"a":}')
@example('{"a":1 2}')
@example('{"a":[1}')
@example("}")
@example("]")
@example(",")
@example(":")
@example("[]")
@example('"a"')
@example("7 ")
@example("{}{}")
@example("{} {")
@example('{} "')
@example("{},")
@example('{"a":"')
@example('{"a":[[["')
def test_agrees_with_json_on_anything(text: str) -> None:
    assert accepts(text.encode()) == reference(text.encode())
    assert accepts(text.encode(), list(range(len(text)))) == reference(text.encode())


@pytest.mark.parametrize(
    "value",
    [
        b'"' + b"x" * 300_000 + b'"',
        b'"' + rb"\u00fc\n" * 40_000 + b'"',
        b'["' + b"x" * 70_000 + rb'\"",[[[[[["' + b"y" * 70_000 + b'"]]]]]]]',
        b'{"' + b"k" * 300_000 + b'":1}',
    ],
)
@pytest.mark.parametrize("step", [1_000, 65_536, 65_537, 1_000_000])
def test_long_strings_and_keys_at_every_level(value: bytes, step: int) -> None:
    text = b'{"deep":[[' + value + b'],[]],"flat":' + value + b',"created_ns":7}'
    assert check(text, list(range(0, len(text), step))).created_ns == "7"


@pytest.mark.parametrize("wrong", [b"\x00", b"\\x", rb"\u12g4", b"\n", b"\\"])
@pytest.mark.parametrize("length", [10, 70_000, 200_000])
def test_wrong_characters_in_strings(wrong: bytes, length: int) -> None:
    text = b'{"a":"' + b"x" * length + wrong + b'y"}'
    if wrong == b"\\":
        text = text.replace(b"y", b"")
    assert not accepts(text)
    assert not accepts(text, list(range(0, len(text), 997)))


@pytest.mark.parametrize("key", [b'"created_ns"', rb'"created\u005fns"', b' "created_ns" '])
@pytest.mark.parametrize(
    ("value", "seen"),
    [(b"0", "0"), (b"-1", "-1"), (b"1.5", "1.5"), (b"null", "null"), (b"[1]", "["), (b'"7"', '"')],
)
def test_created_ns_is_the_documents_own_and_the_last(key: bytes, value: bytes, seen: str) -> None:
    inner = b'"spans":[{"created_ns":5},[{"created_ns":6}]],"o":{"created_ns":8}'
    assert (
        check(b"{" + inner + b',"created_ns":3,' + key + b":" + value + b"," + inner + b"}").created_ns
        == seen
    )
    assert check(b"{" + inner + b"}").created_ns is None


def test_a_created_ns_too_long_to_be_a_number_is_seen_by_its_start() -> None:
    assert check(b'{"created_ns":"' + b"1" * 200_000 + b'"}', [100_000]).created_ns == '"'


@pytest.mark.parametrize("sign", [b"", b"-"])
@pytest.mark.parametrize("form", [b"%b", b"0.%b", b"1e%b", b"%b.5E-7"])
@pytest.mark.parametrize("digits", [4300, 4301, 100_000])
def test_a_number_may_have_any_length(sign: bytes, form: bytes, digits: int) -> None:
    number = sign + form % (b"1" * digits)
    for wrapped in (b'{"a":%b}', b'{"a":[[%b,1]]}', b'{"a":[[1,%b]]}'):
        for step in (131, 4_096, 1 << 20):
            text = wrapped % number
            assert accepts(text, list(range(0, len(text), step)))
            assert not accepts(
                text.replace(b"1" * digits, b"1" * digits + b"."), list(range(0, len(text), step))
            )


def test_depth_is_bounded_and_costs_no_recursion() -> None:
    def nested(levels: int) -> bytes:
        return (
            b'{"a":' * (levels // 2)
            + b"[" * (levels - levels // 2)
            + b"]" * (levels - levels // 2)
            + b"}" * (levels // 2)
        )

    assert accepts(nested(MAX_DEPTH))
    assert not accepts(nested(MAX_DEPTH + 1))
    assert not accepts(b'{"a":' + b"[" * 1_000_000)


@pytest.mark.parametrize(
    "text", [b"", b" \n", b"\xef\xbb\xbf{}", '{"a":1}'.encode("utf-16"), b'{"a":"\xff"}', b'{"a":"\xc3']
)
def test_empty_or_not_utf8(text: bytes) -> None:
    assert not accepts(text)


def test_a_character_cut_between_pieces_is_whole() -> None:
    text = '{"ü":"€𝄞"}'.encode()
    assert check(text, list(range(len(text)))).created_ns is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "The body is not JSON: it is empty"),
        (b'{"a":[1,', "The body is not JSON: it ends too early"),
        (b'{"a":"b', "The body is not JSON: it ends too early"),
        (b'{"a":nul}', "The body is not JSON: unexpected 'nul}'"),
        (b'{"a"::1}', "The body is not JSON: unexpected ':'"),
        (b"no", "The body is not JSON: unexpected 'no'"),
        (b'{"a":"\xff"}', "The body is not JSON: not UTF-8 (invalid start byte)"),
        *((text, NO_OBJECT) for text in (b"[1]", b"[]", b' "x"', b"1", b"-0.5e3 ", b"null", b"NaN", b"true")),
        (b'{"a":' + b"[" * 500, f"The JSON nests deeper than {MAX_DEPTH} levels"),
    ],
)
def test_the_reason_is_said(text: bytes, why: str) -> None:
    for cuts in ([], list(range(len(text)))):
        with pytest.raises(NotABatchError) as refused:
            check(text, cuts)
        if not cuts or "unexpected" not in why:
            assert str(refused.value) == why


def test_the_pythons_of_this_machine_have_the_same_verdict() -> None:
    """CPython 3.11.0 to 3.11.4, Debian 12's for one, match some regular expressions wrongly."""
    root = Path(cirron_spool.__path__[0]).parent
    found = [shutil.which("python3", path=path) for path in ("/usr/bin", "/usr/local/bin")]
    code = (
        "import sys; sys.version_info >= (3, 11) or sys.exit('too old')\n"
        "from cirron_spool.receiver.jsontext import JsonCheck, NotABatchError\n"
        "for text in map(bytes.fromhex, sys.argv[1:]):\n"
        "    for step in (1, 7, 1000):\n"
        "        check = JsonCheck()\n"
        "        try:\n"
        "            for at in range(0, len(text), step): check.feed(text[at : at + step])\n"
        "            check.finish()\n"
        "            print('valid')\n"
        "        except NotABatchError: print('refused')\n"
    )
    texts = [
        b'{"spans":[{"mark_ids":["x"]}]}',
        b'{"a":[[1,{"b":["c","d"],"e":{}}],{"f":[[]]}],"g":[-0.5e1,"\\u00fc"]}',
        b'{"a":[{"b":["c",]}]}',
        b'{"a":[{"b":[01]}]}',
    ]
    ran = 0
    for python in filter(None, found):
        done = subprocess.run(
            [python, "-c", code, *(text.hex() for text in texts)],
            env={"PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.stderr == "too old\n":
            continue
        ran += 1
        assert done.stdout.split() == ["valid"] * 6 + ["refused"] * 6, (python, done.stderr)
    if not ran:
        pytest.skip("this machine has no Python of its own of 3.11 or later")
