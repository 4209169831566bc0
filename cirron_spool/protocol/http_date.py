"""HTTP dates: only the three forms of RFC 9110, section 5.6.7.

The standard library's parsers accept more forms, and guess time zones. A wrong guess could end a flush.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_SHORT_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY = "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"
_DAY = "(?P<day>[0-9]{2})"
_YEAR = "(?P<year>[0-9]{4})"
_TIME = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"

# Case matters in HTTP dates, and the zone is always GMT.
_FORMS = tuple(
    re.compile(form)
    for form in (
        f"{_SHORT_DAY}, {_DAY} {_MONTH} {_YEAR} {_TIME} GMT",  # IMF-fixdate
        f"{_LONG_DAY}, {_DAY}-{_MONTH}-(?P<short_year>[0-9]{{2}}) {_TIME} GMT",  # obsolete, RFC 850
        f"{_SHORT_DAY} {_MONTH} (?P<padded_day>[0-9]{{2}}| [0-9]) {_TIME} {_YEAR}",  # obsolete, asctime()
    )
)

# RFC 9110: a two-digit year further ahead than this belongs to the preceding century.
_FURTHEST_AHEAD_YEARS = 50


def parse_http_date(value: str, now: datetime) -> datetime | None:
    """The time of an HTTP date (aware, UTC), or None for any other ``value``.

    ``now`` (aware) decides the century of a two-digit year. The name of the day is ignored, since RFC 9110 asks for
    tolerance. A leap second counts as the start of the next minute.
    """
    parts = next((match.groupdict() for form in _FORMS if (match := form.fullmatch(value))), None)
    if parts is None:
        return None
    month = _MONTHS.index(parts["month"]) + 1
    day = int(parts.get("day") or parts["padded_day"])
    hour, minute, second = int(parts["hour"]), int(parts["minute"]), int(parts["second"])
    leap = (hour, minute, second) == (23, 59, 60)

    def moment(year: int) -> datetime:
        time = datetime(year, month, day, hour, minute, 59 if leap else second, tzinfo=UTC)
        return time + timedelta(seconds=leap)

    try:
        if "year" in parts:
            return moment(int(parts["year"]))
        now = now.astimezone(UTC)
        furthest = now.year + _FURTHEST_AHEAD_YEARS
        year = furthest - (furthest - int(parts["short_year"])) % 100
        # In the furthest year, the date within the year decides.
        if year == furthest and (month, day, hour, minute, second) > now.timetuple()[1:6]:
            year -= 100
        return moment(year)
    except (ValueError, OverflowError):  # no such day, hour or year
        return None
