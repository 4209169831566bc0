"""A flush may last for weeks: the number of its kept warnings is bounded, and so is the state of a display."""

from __future__ import annotations

from pathlib import Path

import pytest

from cirron_spool.display.meter import Meter
from cirron_spool.display.warning_lines import KEPT, LEFT_OUT, RecentLines, WarningLines
from cirron_spool.events import Sending, Uploaded
from cirron_spool.fleet.results import joined, nothing_sent
from cirron_spool.pipeline.tally import Tally


@pytest.mark.parametrize(
    ("number", "left_out"), [(0, 0), (KEPT, 0), (2 * KEPT, 0), (2 * KEPT + 1, 1), (9_999, 8_999)]
)
def test_the_first_and_the_last_lines_are_kept(number: int, left_out: int) -> None:
    lines = [str(each) for each in range(number)]
    missing = [LEFT_OUT] if left_out else []
    assert list(WarningLines(lines).lines()) == [*lines[:KEPT], *missing, *lines[KEPT + left_out :]]


def test_the_turns_of_a_spool_keep_the_same_bound(tmp_path: Path) -> None:
    tally = Tally(tmp_path)
    for each in range(9_999):
        tally.warnings.append(f"line {each}")
    result = tally.result(0.0)
    assert (len(result.warnings), result.warnings[-1]) == (2 * KEPT + 1, "line 9998")
    both = joined(result, nothing_sent(result.directory, 0, why="the last"))
    assert (len(both.warnings), both.warnings.count(LEFT_OUT), both.warnings[-1]) == (
        2 * KEPT + 1,
        1,
        "the last",
    )


def test_a_line_is_new_once() -> None:
    said = RecentLines()
    assert [said.is_new(line) for line in ("a", "b", "a")] == [True, True, False]
    assert all(said.is_new(str(each)) for each in range(2 * KEPT))
    assert said.is_new("a")  # forgotten by now


def test_a_batch_that_the_sdk_deleted_in_flight_leaves_the_display() -> None:
    meter = Meter()
    for name in ("1-a.json", "2-b.json"):
        meter.note(Sending(name, 10))
    meter.note(Uploaded("2-b.json", 10, 5))
    assert (meter._sizes, meter.done, meter._given_up_bytes) == ({}, 10, 10)
