"""Names, their order, and how times, sizes, counts and foreign text are shown."""

from __future__ import annotations

import errno
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cirron_spool.spool.names import (
    BatchName,
    batch_id_of,
    format_batch_name,
    is_batch_name,
    oldest_first,
    parse_batch_name,
)
from cirron_spool.text import count, human_size, iso_utc, printable, reason

PAGE_NAME = "01776486598051509000-446a507b2456443f923f85774a0854e3.json"
IDS = st.text("0123456789abcdef", min_size=1, max_size=40)
TIMES = st.integers(0, 10**21)
# As the SDK writes them, and with fewer and more digits, leading zeros or none.
NAMES = st.builds(lambda zeros, ns, hexa: f"{'0' * zeros}{ns}-{hexa}.json", st.integers(0, 30), TIMES, IDS)


@pytest.mark.parametrize(
    ("name", "created_ns", "batch_id"),
    [
        pytest.param(PAGE_NAME, 1776486598051509000, "446a507b2456443f923f85774a0854e3", id="the page's"),
        pytest.param(
            "01776486601204118000-ff11aa22cc334455667788999aabbccdd.json",
            1776486601204118000,
            "ff11aa22cc334455667788999aabbccdd",
            id="33 hex digits",
        ),
        pytest.param("0-0.json", 0, "0", id="shortest"),
        pytest.param("00000000000000000000-a.json", 0, "a", id="all zeros"),
        pytest.param("7-" + "f" * 200 + ".json", 7, "f" * 200, id="long hex"),
        pytest.param("9" * 200 + "-1.json", int("9" * 200), "1", id="long time"),
    ],
)
def test_batches_are_recognised(name: str, created_ns: int, batch_id: str) -> None:
    assert parse_batch_name(name) == BatchName(created_ns, name)
    assert BatchName(created_ns, name).batch_id == batch_id_of(name) == batch_id
    assert is_batch_name(name)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param(PAGE_NAME + ".tmp", id="being written"),
        pytest.param(PAGE_NAME.upper(), id="upper case"),
        pytest.param("1-AB.json", id="upper-case hex"),
        pytest.param("1-ab.JSON", id="upper-case suffix"),
        pytest.param("1-xy.json", id="bad hex"),
        pytest.param("1-.json", id="no hex"),
        pytest.param("-ab.json", id="no time"),
        pytest.param("1ab.json", id="no hyphen"),
        pytest.param("1--ab.json", id="two hyphens"),
        pytest.param("1-ab-cd.json", id="two ids"),
        pytest.param("+1-ab.json", id="signed"),
        pytest.param("1.5-ab.json", id="fraction"),
        pytest.param("1_0-ab.json", id="underscore"),
        pytest.param(" 1-ab.json", id="leading blank"),
        pytest.param("1-ab.json ", id="trailing blank"),
        pytest.param("1-ab.json\n", id="trailing line feed"),
        pytest.param("\n1-ab.json", id="leading line feed"),
        pytest.param("1-ab.json\0", id="NUL"),
        pytest.param("./1-ab.json", id="a path"),
        pytest.param("1-ab/json", id="a slash for the dot"),
        pytest.param("1-abxjson", id="any letter for the dot"),
        pytest.param("1-ab", id="no suffix"),
        pytest.param(".1-ab.json", id="hidden"),
        pytest.param("1-ab.rejection.json", id="a rejection's note"),
        pytest.param("٣-ab.json", id="Arabic digit"),
        pytest.param("\uff11-ab.json", id="full-width digit"),
        pytest.param("²-ab.json", id="superscript"),
        pytest.param("1-á.json", id="accented"),
        pytest.param("1\u2010ab.json", id="Unicode hyphen"),
        pytest.param("1-ab\udcff.json", id="not UTF-8"),
    ],
)
def test_other_names_are_somebody_elses(name: str) -> None:
    assert parse_batch_name(name) is None
    assert not is_batch_name(name)


@given(st.text() | st.from_regex(r"[0-9]{1,40}-[0-9a-f]{1,40}\.json\n?"))
def test_parse_never_raises_and_agrees_with_the_rule(name: str) -> None:
    found = parse_batch_name(name)
    assert (found is not None) == is_batch_name(name)
    assert is_batch_name(name) == bool(re.fullmatch(r"[0-9]+-[0-9a-f]+\.json", name, re.ASCII))


def test_more_digits_than_python_reads_as_a_number_are_no_crash() -> None:
    name = "1" * 5000 + "-a.json"  # int() refuses text beyond 4300 digits; no file system holds such a name
    assert (parse_batch_name(name) is not None) == is_batch_name(name)


@given(TIMES, IDS)
def test_format_and_parse_are_each_others_inverse(created_ns: int, batch_id: str) -> None:
    found = parse_batch_name(format_batch_name(created_ns, batch_id))
    assert found is not None
    assert (found.created_ns, found.batch_id) == (created_ns, batch_id)


def test_format_pads_as_the_sdk_does() -> None:
    assert format_batch_name(1776486598051509000, "446a507b2456443f923f85774a0854e3") == PAGE_NAME
    assert format_batch_name(10**20, "a") == "100000000000000000000-a.json"


def _as_spec_says(name: str) -> tuple[int, str]:
    return int(name.partition("-")[0]), name


@given(st.lists(NAMES))
def test_order_is_time_as_a_number_then_name(names: list[str]) -> None:
    ordered = oldest_first(iter(names))
    assert ordered == sorted(names, key=_as_spec_says)
    parsed = [batch for name in names if (batch := parse_batch_name(name)) is not None]
    assert [batch.name for batch in sorted(parsed)] == ordered


@given(st.lists(st.builds(format_batch_name, st.integers(0, 10**20 - 1), IDS)))
def test_order_of_padded_names_is_the_same_order(names: list[str]) -> None:
    assert oldest_first(names) == sorted(names, key=_as_spec_says)


@pytest.mark.parametrize(
    "ordered",
    [
        pytest.param(["9-a.json", "10-a.json", "0000000000000000011-a.json"], id="numbers, not text"),
        pytest.param(["00000000000000000001-a.json", "00000000000000000001-b.json"], id="equal: by name"),
        pytest.param(["01-a.json", "1-a.json", "1-b.json"], id="equal but for padding: by name"),
        pytest.param(
            ["99999999999999999999-a.json", "100000000000000000000-a.json"], id="one digit more than padded"
        ),
        pytest.param([], id="none"),
    ],
)
def test_order_examples(ordered: list[str]) -> None:
    assert oldest_first(reversed(ordered)) == ordered


@pytest.mark.parametrize(
    ("created_ns", "shown"),
    [
        pytest.param(1776486598051509000, "2026-04-18T04:29:58.051Z", id="the page's"),
        pytest.param(1776486601204118000, "2026-04-18T04:30:01.204Z", id="the page's third"),
        pytest.param(0, "1970-01-01T00:00:00.000Z", id="epoch"),
        pytest.param(999_999, "1970-01-01T00:00:00.000Z", id="cut, not rounded"),
        pytest.param(1_999_999_999, "1970-01-01T00:00:01.999Z", id="cut at the second"),
        pytest.param(951_782_400 * 10**9, "2000-02-29T00:00:00.000Z", id="leap day"),
        pytest.param(253_402_300_799_999_999_999, "9999-12-31T23:59:59.999Z", id="last of four digits"),
        pytest.param(253_402_300_800_000_000_000, "+010000-01-01T00:00:00.000Z", id="year 10000"),
    ],
)
def test_times(created_ns: int, shown: str) -> None:
    assert iso_utc(created_ns) == shown


@given(st.integers(0, 253_402_300_799_999_999_999))
def test_times_agree_with_datetime(created_ns: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=created_ns // 1000)
    # datetime cuts when asked for milliseconds.
    assert iso_utc(created_ns) == moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


@given(st.integers(0, 10**250))
def test_any_time_can_be_shown(created_ns: int) -> None:
    assert re.fullmatch(r"([0-9]{4}|\+[0-9]{6,})-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", iso_utc(created_ns))


KB, MB, GB, TB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (444, "444 B"),
        (1023, "1023 B"),
        (1024, "1 KB"),
        (1535, "1 KB"),
        (1536, "2 KB"),
        (6 * KB, "6 KB"),
        (1023 * KB + 511, "1023 KB"),
        (1023 * KB + 512, "1.00 MB"),
        (MB - 1, "1.00 MB"),
        (MB, "1.00 MB"),
        (2_633_103, "2.51 MB"),
        (2_633_547, "2.51 MB"),
        (int(2.5 * MB), "2.50 MB"),
        (GB - 5243, "1023.99 MB"),
        (GB - 5242, "1.00 GB"),
        (GB, "1.00 GB"),
        (GB + GB // 2, "1.50 GB"),
        (TB - 1, "1.00 TB"),
        (TB, "1.00 TB"),
        (2 * TB + TB * 6 // 1000, "2.01 TB"),  # 2.006: halves go up, not quarters
        (2 * TB + TB * 4 // 1000, "2.00 TB"),
        (5000 * TB, "5000.00 TB"),
    ],
)
def test_sizes(size: int, shown: str) -> None:
    assert human_size(size) == shown


def _bytes(shown: str) -> float:
    number, unit = shown.split(" ")
    return float(number) * {"B": 1, "KB": KB, "MB": MB, "GB": GB, "TB": TB}[unit]


@given(st.integers(0, 3 * TB) | st.integers(0, 3 * MB))
def test_sizes_are_right_to_half_of_the_last_digit(size: int) -> None:
    shown = human_size(size)
    assert re.fullmatch(r"[0-9]{1,4} (B|KB)|[0-9]{1,4}\.[0-9]{2} (MB|GB|TB)", shown)
    unit = _bytes(f"1 {shown.split(' ')[1]}")
    step = unit / 100 if "." in shown else unit
    assert abs(_bytes(shown) - size) <= step / 2 * 1.000001


@given(st.integers(0, 3 * TB), st.integers(0, 3 * TB))
def test_a_larger_file_is_never_shown_as_smaller(one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert _bytes(human_size(small)) <= _bytes(human_size(large))


@pytest.mark.parametrize(
    ("number", "noun", "shown"),
    [
        (0, "file", "0 files"),
        (1, "file", "1 file"),
        (3, "file", "3 files"),
        (1, "batch", "1 batch"),
        (2, "batch", "2 batches"),
        (0, "batch", "0 batches"),
        (3, "spool file", "3 spool files"),
        (2, "rejected batch", "2 rejected batches"),
    ],
)
def test_counts(number: int, noun: str, shown: str) -> None:
    assert count(number, noun) == shown


def test_counts_with_a_plural_of_their_own() -> None:
    assert [count(n, "entry", "entries") for n in (0, 1, 2)] == ["0 entries", "1 entry", "2 entries"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("plain ä 漢 🚂", "plain ä 漢 🚂", id="letters stay"),
        pytest.param("\x1b[31mred", r"\x1b[31mred", id="escape"),
        pytest.param("a\r\nb\tc", r"a\r\nb\tc", id="lines and tabs"),
        pytest.param("\x00\x07\x08\x7f", r"\x00\x07\x08\x7f", id="C0 and DEL"),
        pytest.param("\x9b31m", r"\x9b31m", id="C1"),
        pytest.param("a\u202eb", r"a\u202eb", id="right-to-left override"),
        pytest.param("\u2028\u2029", r"\u2028\u2029", id="line separators"),
        pytest.param("\u2066\u200f", r"\u2066\u200f", id="isolates and marks"),
        pytest.param("\udc80", r"\udc80", id="a byte that was no UTF-8"),
        pytest.param("it's", "it's", id="quotes stay"),
        pytest.param("", "", id="empty"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_nothing_that_drives_a_terminal_is_left(text: str) -> None:
    shown = printable(text)
    shown.encode()  # raises for a lone surrogate
    assert not any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in shown)
    assert printable(shown) == shown


def test_reasons() -> None:
    assert reason(OSError(errno.EIO, "Input/output error", "/secret/path")) == "Input/output error"
    assert reason(OSError("text\x1b only")) == r"text\x1b only"
    assert reason(OSError()) == "OSError"
