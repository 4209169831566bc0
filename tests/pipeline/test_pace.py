"""When a disk counts as quick enough for the event loop to do a small file's work itself."""

from __future__ import annotations

import itertools

import pytest

from cirron_spool.pipeline import pace as room
from cirron_spool.pipeline.pace import QUICK_S, SLOW_S, Pace

TRIALS = room._LEADS[0]
WEIGHT = room._SLOW_WEIGHT
TURNS = len(room._LEADS)
NOT_QUICK_IN_THREAD = QUICK_S * 1.001
BARELY_SLOW = SLOW_S * 1.001


def needed(pace: Pace) -> int | None:
    """How many quick pieces in a row it takes until `pace` is quick; None where many more do not help."""
    for count in range(1, TRIALS * 10 ** (TURNS + 1)):
        pace.tried(QUICK_S)
        if pace.quick:
            return count
    return None


def quick_pace() -> Pace:
    pace = Pace()
    assert needed(pace) == TRIALS
    return pace


def turn_slow(pace: Pace) -> None:
    pace.done_in_loop(BARELY_SLOW)
    pace.done_in_loop(BARELY_SLOW)
    assert not pace.quick


def test_it_takes_a_few_quick_pieces_in_a_row() -> None:
    assert TRIALS == 4
    pace = Pace()
    for quick in (False, False, False, True, True):
        pace.tried(QUICK_S)
        assert pace.quick == quick


@pytest.mark.parametrize("quick_before", range(TRIALS))
def test_a_piece_that_is_neither_quick_nor_slow_takes_one_quick_piece_back(quick_before: int) -> None:
    pace = Pace()
    for _ in range(quick_before):
        pace.tried(QUICK_S)
    pace.tried(NOT_QUICK_IN_THREAD)
    assert not pace.quick
    assert needed(pace) == TRIALS - max(quick_before - 1, 0)


@pytest.mark.parametrize("quick_before", range(TRIALS))
def test_a_slow_piece_in_the_thread_starts_the_count_again(quick_before: int) -> None:
    pace = Pace()
    for _ in range(quick_before):
        pace.tried(0)
    pace.tried(BARELY_SLOW)
    assert not pace.quick
    assert needed(pace) == TRIALS


def test_a_slow_piece_in_the_thread_takes_it_back() -> None:
    pace = quick_pace()
    pace.tried(BARELY_SLOW)
    assert not pace.quick
    assert needed(pace) == TRIALS  # of the thread, which holds nobody up: no turn


def test_waits_for_the_interpreter_now_and_then_change_nothing() -> None:
    pace = quick_pace()
    for _ in range(100):
        for seconds in (NOT_QUICK_IN_THREAD, 0, SLOW_S, 0, 0, 0):
            pace.tried(seconds)
        assert pace.quick


def test_a_disk_that_gets_slower_is_noticed_however_long_it_was_quick() -> None:
    pace = Pace()
    for _ in range(1000):
        pace.tried(0)
    for _ in range(TRIALS):
        assert pace.quick
        pace.tried(NOT_QUICK_IN_THREAD)
    pace.tried(NOT_QUICK_IN_THREAD)
    assert not pace.quick


def test_a_disk_that_is_as_often_quick_as_not_is_the_threads() -> None:
    pace = Pace()
    for _ in range(100):
        for seconds in (0, NOT_QUICK_IN_THREAD):
            pace.tried(seconds)
            assert not pace.quick


def test_a_turn_is_not_undone_by_a_thread_in_the_midst_of_a_piece() -> None:
    pace = quick_pace()
    turn_slow(pace)
    pace._lead = 10**6  # as a thread may write that reckoned before the turn
    assert not pace.quick
    pace.tried(0)
    assert not pace.quick


def test_in_the_loop_a_piece_may_take_longer() -> None:
    pace = quick_pace()
    for _ in range(10 * WEIGHT):
        pace.done_in_loop(SLOW_S)
    assert pace.quick
    assert SLOW_S > QUICK_S


def test_one_slow_piece_is_forgiven_after_so_many_quick_ones() -> None:
    pace = quick_pace()
    for _ in range(5):
        pace.done_in_loop(BARELY_SLOW)
        for _ in range(WEIGHT):
            assert pace.quick
            pace.done_in_loop(0)
    assert pace.quick


@pytest.mark.parametrize("between", [0, 1, WEIGHT - 1])
def test_two_slow_pieces_close_to_each_other_are_the_disks_doing(between: int) -> None:
    pace = quick_pace()
    for _ in range(10 * WEIGHT):
        pace.done_in_loop(0)  # a long good run is no credit
    pace.done_in_loop(BARELY_SLOW)
    for _ in range(between):
        pace.done_in_loop(0)
    assert pace.quick
    pace.done_in_loop(BARELY_SLOW)
    assert not pace.quick


def test_each_turn_takes_ten_times_as_many_trials_and_the_last_is_for_good() -> None:
    pace = Pace()
    for turn in range(TURNS):
        assert needed(pace) == TRIALS * 10**turn
        turn_slow(pace)
    assert needed(pace) is None
    assert TURNS == 3


def test_after_a_turn_the_slow_pieces_before_it_do_not_count() -> None:
    pace = quick_pace()
    turn_slow(pace)
    needed(pace)
    pace.done_in_loop(BARELY_SLOW)
    assert pace.quick


def test_after_a_turn_the_trials_must_be_in_a_row_as_well() -> None:
    pace = quick_pace()
    turn_slow(pace)
    for seconds in itertools.chain([0] * (10 * TRIALS - 1), [BARELY_SLOW], [0] * (10 * TRIALS - 1)):
        pace.tried(seconds)
        assert not pace.quick
    pace.tried(0)
    assert pace.quick
