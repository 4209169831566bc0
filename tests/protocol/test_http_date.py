"""HTTP dates: RFC 9110's three forms, to the letter, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cirron_spool.protocol.http_date import parse_http_date

NOW = datetime(2026, 4, 18, 4, 29, 58, tzinfo=UTC)


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]  # a year, a month, a day …


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", at(1994, 11, 6, 8, 49, 37)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", at(1994, 11, 6, 8, 49, 37)),
        ("Sun Nov  6 08:49:37 1994", at(1994, 11, 6, 8, 49, 37)),
        ("Wed Nov 16 08:49:37 1994", at(1994, 11, 16, 8, 49, 37)),
        ("Sun Nov 06 08:49:37 1994", at(1994, 11, 6, 8, 49, 37)),
        pytest.param("Tue, 18 Apr 2026 04:31:58 GMT", at(2026, 4, 18, 4, 31, 58), id="another day's name"),
        ("Thu, 29 Feb 2024 00:00:00 GMT", at(2024, 2, 29)),
        ("Mon, 01 Jan 0001 00:00:00 GMT", at(1, 1, 1)),
        pytest.param("Sat, 31 Dec 2016 23:59:60 GMT", at(2017, 1, 1), id="a leap second"),
        pytest.param("Saturday, 31-Dec-16 23:59:60 GMT", at(2017, 1, 1), id="a leap second, RFC 850"),
        pytest.param("Sat Dec 31 23:59:60 2016", at(2017, 1, 1), id="a leap second, asctime"),
    ],
)
def test_the_three_forms(value: str, moment: datetime) -> None:
    assert parse_http_date(value, NOW) == moment


@pytest.mark.parametrize(
    ("value", "now", "year"),
    [
        ("Sunday, 06-Nov-69 08:49:37 GMT", NOW, 2069),
        ("Saturday, 18-Apr-76 04:29:58 GMT", NOW, 2076),
        ("Saturday, 18-Apr-76 04:29:59 GMT", NOW, 1976),
        ("Thursday, 01-Jan-76 00:00:00 GMT", NOW, 2076),
        ("Friday, 31-Dec-76 23:59:60 GMT", NOW, 1977),
        ("Friday, 01-Jan-77 00:00:00 GMT", NOW, 1977),
        ("Saturday, 18-Apr-26 04:29:58 GMT", NOW, 2026),
        ("Monday, 01-Jan-00 00:00:00 GMT", NOW, 2000),
        ("Monday, 01-Jan-05 00:00:00 GMT", at(2060, 6, 1), 2105),
        ("Monday, 01-Jan-99 00:00:00 GMT", at(2105, 1, 1), 2099),
    ],
)
def test_a_year_of_two_digits_is_at_most_fifty_years_ahead(value: str, now: datetime, year: int) -> None:
    found = parse_http_date(value, now)
    assert found is not None
    assert found.year == year
    there = timezone(timedelta(hours=-11))
    assert parse_http_date(value, now.astimezone(there)) == found


GOOD = "Thu, 18 Aug 2050 02:01:18 GMT"


@pytest.mark.parametrize(
    "value",
    [
        "",
        GOOD.lower(),
        GOOD.upper(),
        *(
            GOOD.replace("GMT", zone)
            for zone in ("AEST", "UTC", "UT", "Z", "+0000", "-0000", "EST", "gmt", "")
        ),
        *(
            GOOD.replace("02:01:18", time)
            for time in ("02.01.18", "2:01:18", "02:01", "24:00:00", "02:60:00")
        ),
        *(GOOD.replace("02:01:18", time) for time in ("02:01:60", "23:59:61", "-2:01:18", "02:01:18.5")),
        *(
            GOOD.replace("18 Aug", day)
            for day in ("8 Aug", "31 Jun", "00 Aug", "32 Aug", "29 Feb", "18 August")
        ),
        *(GOOD.replace("18 Aug", day) for day in ("18 AUG", "Aug 18", "18-Aug", "18 Foo", "18 Aoû")),
        *(GOOD.replace("2050", year) for year in ("50", "0000", "12050", "+2050", "\uff12050")),
        *(GOOD.replace("Thu", day) for day in ("Thursday", "Thr", "thu", "")),
        GOOD.replace(",", ""),
        GOOD.replace(" ", "  ", 1),
        GOOD.removeprefix("Thu, "),
        f" {GOOD}",
        f"{GOOD} ",
        f"{GOOD}\n",
        f"{GOOD}, {GOOD}",
        "25 Nov 2026 13:00",
        "2050-08-18T02:01:18Z",
        "Thu, 18-Aug-50 02:01:18 GMT",
        "Thursday, 18-Aug-2050 02:01:18 GMT",
        "Thursday, 18 Aug 50 02:01:18 GMT",
        "Thursday, 18-Aug-50 02:01:18",
        "Thursday, 29-Feb-50 02:01:18 GMT",
        "Thu Aug 18 02:01:18 2050 GMT",
        "Thu Aug 6 02:01:18 2050",
        "Thu Aug   6 02:01:18 2050",
        "Thu, Aug 18 02:01:18 2050",
        "Fri, 31 Dec 9999 23:59:60 GMT",
        "2050",
        "0",
    ],
)
def test_nothing_else_is_a_date(value: str) -> None:
    assert parse_http_date(value, NOW) is None


@given(
    st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
    st.sampled_from(["%a %b %e %H:%M:%S %Y", "%a, %d %b %Y %H:%M:%S GMT"]),
)
def test_every_moment_is_read_back(moment: datetime, form: str) -> None:
    moment = moment.replace(microsecond=0)
    assert parse_http_date(moment.strftime(form), NOW) == moment
    assert parse_http_date(format_datetime(moment, usegmt=True), NOW) == moment


@given(
    st.text() | st.from_regex(r"\A[MTWFS][a-z]{2,8},? [0-9A-Za-z]{2}[ -][0-9A-Za-z]{2,4}.[0-9: GMT]{2,20}\Z")
)
@example("9" * 5000)
@example("Sat, 99 Apr 2026 99:99:99 GMT")
def test_it_never_raises(value: str) -> None:
    moment = parse_http_date(value, NOW)
    assert moment is None or moment.tzinfo is UTC
