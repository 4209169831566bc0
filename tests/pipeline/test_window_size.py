"""The size of the window that the measurements call for, on links of a simulation with its own clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random

import pytest

from cirron_spool.pipeline.window_size import MOST_IN_FLIGHT, Attempt, AutoSize


class Link:
    """A link that carries a body in ``service_s``, one after another, and answers ``latency_s`` later.

    ``vary`` makes another latency of the usual one. Beyond ``most`` requests at a time the platform refuses at once.
    """

    def __init__(self, latency_s: float, service_s: float, most: int = 1000) -> None:
        self.latency_s, self.service_s, self.most = latency_s, service_s, most
        self.vary: Callable[[float], float] = lambda latency_s: latency_s
        self.now = 0.0
        self.window = AutoSize(lambda: self.now)
        self.refusals = 0
        self.delivered = 0
        self._free_at = 0.0
        self._open: list[tuple[float, int, Attempt]] = []
        self._number = 0

    def run(self, until: float, each: Callable[[], None] = lambda: None) -> None:
        """Keep the window full until then."""
        while self.now < until:
            while len(self._open) < self.window.size:
                attempt = self.window.begin()
                if len(self._open) >= self.most:
                    self.refusals += 1
                    self.window.refused(len(self._open) + 1, too_many=True)
                    self._wait_for_one()  # the throttle
                    continue
                self._free_at = max(self._free_at, self.now) + self.service_s
                self._number += 1
                answered_at = self._free_at + self.vary(self.latency_s)
                heapq.heappush(self._open, (answered_at, self._number, attempt))
            self._wait_for_one()
            each()

    def rate(self, since: float, until: float) -> float:
        """Deliveries a second."""
        self.run(since)
        before = self.delivered
        self.run(until)
        return (self.delivered - before) / (until - since)

    def _wait_for_one(self) -> None:
        if self._open:
            self.now, _, attempt = heapq.heappop(self._open)
            self.delivered += 1
            self.window.delivered(attempt)
        else:
            self.now += 1.0


@pytest.mark.parametrize("latency_s", [0.001, 0.02, 0.05, 0.2])
@pytest.mark.parametrize("service_s", [0.0001, 0.001, 0.01, 0.1])
def test_after_two_seconds_the_link_is_full_and_stays_so(latency_s: float, service_s: float) -> None:
    link = Link(latency_s, service_s)
    best = min(1 / service_s, MOST_IN_FLIGHT / (latency_s + service_s))
    assert link.rate(2.0, 3.0) >= 0.9 * best


@pytest.mark.parametrize(("latency_s", "service_s"), [(0.02, 0.01), (0.2, 0.002)])
def test_it_stays_full_while_the_round_trip_is_measured_again(latency_s: float, service_s: float) -> None:
    link = Link(latency_s, service_s)
    best = min(1 / service_s, MOST_IN_FLIGHT / (latency_s + service_s))
    assert link.rate(25.0, 75.0) >= 0.97 * best


def test_no_more_are_in_flight_than_the_link_holds() -> None:
    link = Link(0.02, 0.01)
    sizes: list[int] = []
    link.run(70.0, lambda: sizes.append(link.window.size))
    assert max(sizes) <= 2 * 3 + 2


@pytest.mark.parametrize("most", [1, 2, 5, 10, 40])
def test_it_stays_below_the_number_that_was_refused(most: int) -> None:
    link = Link(0.05, 0.0001, most)
    link.run(10.0)
    assert link.refusals <= 8
    sizes: list[int] = []
    before = link.refusals
    link.run(60.0, lambda: sizes.append(link.window.size))
    # Tried again, ever more seldom.
    assert link.refusals - before <= 4
    above = sum(size > most for size in sizes)
    assert above <= len(sizes) // 100
    assert sorted(sizes)[len(sizes) // 2] >= max(1, most * 0.8)


def test_a_failure_halves_and_the_size_grows_back() -> None:
    link = Link(0.05, 0.0001)
    link.run(2.0)
    assert link.window.size == MOST_IN_FLIGHT
    for _ in range(5):  # of one burst
        link.window.refused(MOST_IN_FLIGHT, too_many=False)
    assert link.window.size == MOST_IN_FLIGHT // 2
    link.run(2.5)
    assert MOST_IN_FLIGHT // 2 < link.window.size < MOST_IN_FLIGHT
    link.run(6.0)
    assert link.window.size == MOST_IN_FLIGHT


def test_a_slower_link_gets_fewer_and_a_longer_one_more() -> None:
    link = Link(0.05, 0.001)
    link.run(3.0)
    link.service_s = 0.02
    link.run(10.0)
    assert link.window.size <= 10
    link.service_s, link.latency_s = 0.01, 0.2
    assert link.rate(60.0, 70.0) >= 0.9 / 0.01


def _uniform(latency_s: float, random: Random) -> float:
    return random.uniform(0.2 * latency_s, 1.8 * latency_s)


def _long_tail(latency_s: float, random: Random) -> float:
    return 0.3 * latency_s + random.expovariate(1 / (0.7 * latency_s))


@pytest.mark.parametrize("vary", [_uniform, _long_tail])
def test_answers_that_take_different_times_are_no_queue(vary: Callable[[float, Random], float]) -> None:
    link = Link(0.05, 0.0005)
    random = Random(1)
    link.vary = lambda latency_s: vary(latency_s, random)
    assert link.rate(2.0, 6.0) >= 0.85 * MOST_IN_FLIGHT / 0.0505


def test_three_quick_answers_at_the_begin_are_no_quick_link() -> None:
    link = Link(0.1, 0.0005)
    link.vary = lambda latency_s: 0.001 if link.now == 0 and link._number < 3 else latency_s
    assert link.rate(3.0, 6.0) >= 0.9 * MOST_IN_FLIGHT / 0.1005


def test_one_refusal_at_the_begin_is_forgotten() -> None:
    link = Link(0.02, 0.0001)
    link.window.refused(2, too_many=True)
    assert link.rate(60.0, 70.0) >= 0.9 * MOST_IN_FLIGHT / 0.0201
