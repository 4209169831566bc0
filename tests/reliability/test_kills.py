"""A flush that is killed at any instant loses nothing and resends two batches at most."""

from __future__ import annotations

import random
from pathlib import Path

import kills
import pytest
from harness import Books, Producer, Vault, json_answer, new_seed
from zygote import Zygote


def test_120_kills_lose_nothing(tmp_path: Path) -> None:
    report = kills.run(tmp_path, 120, new_seed(), until_seen=2)
    print(report)
    # It did not only kill flushes that had not started, or were over.
    assert report.seen_on_disk[1] > 6 and report.seen_on_disk[2] > 0
    assert all(report.by_mode[mode] > 6 for mode in kills.MODES)


def test_kills_with_several_in_flight(tmp_path: Path) -> None:
    report = kills.run(tmp_path, 60, new_seed(), in_flight=3, until_seen=3)
    print(report)
    assert report.most_seen_on_disk > 2


def test_a_flush_that_deletes_too_much_is_caught(tmp_path: Path) -> None:
    with Vault() as vault, Zygote() as zygote:
        producer, books = Producer(tmp_path, random.Random(1)), Books(tmp_path, vault)
        books.enter(producer.write(3))
        vault.plan = lambda _: json_answer({"error": "not now"}, 503)
        outcome = zygote.flush(tmp_path, vault.url)
        assert (outcome.code, len(books.check())) == (4, 3)
        zygote.flush(tmp_path, vault.url, sabotage=True)
        with pytest.raises(AssertionError, match="is lost"):
            books.check()
