"""A selection takes one run of a listing: by age, by number, by size, and says what it leaves out."""

from __future__ import annotations

import pickle
import random
import time
from datetime import UTC, datetime, timedelta, timezone
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import ConfigError, Selection, clear_spool, inspect_spool
from cirron_spool.spool.listing import Entry
from cirron_spool.spool.selection import Selected
from support.monitor import DeleteWatch
from support.spools import FIRST_NS, TINY, sdk_batches, snapshot, write_batch

SECOND = 10**9
NOW = FIRST_NS + 100 * SECOND
MOMENT = datetime(2026, 4, 18, 4, 29, 58, 51_509, tzinfo=UTC)  # FIRST_NS


def entry(created_ns: int, size: int = 10, batch_id: str = "ab") -> Entry:
    return Entry(f"{created_ns:020d}-{batch_id}.json", size)


def take(selection: Selection, entries: list[Entry], now_ns: int = NOW) -> Selected[Entry]:
    return selection.take(
        entries, name_of=lambda entry: entry.name, size_of=lambda entry: entry.size, now_ns=now_ns
    )


def taken(selection: Selection, entries: list[Entry], now_ns: int = NOW) -> list[int]:
    """The places in ``entries`` of the selected ones."""
    selected = take(selection, entries, now_ns)
    assert selected.older + len(selected.batches) + selected.newer == len(entries)
    assert selected.left_out == len(entries) - len(selected.batches)
    assert list(selected.batches) == entries[selected.older : len(entries) - selected.newer]
    return list(range(selected.older, len(entries) - selected.newer))


# One batch a ten seconds, the oldest a hundred seconds old.
TEN = [entry(FIRST_NS + number * 10 * SECOND, 10 + number) for number in range(10)]


@pytest.mark.parametrize(
    ("selection", "places"),
    [
        (Selection(), range(10)),
        (Selection(limit=1), range(1)),
        (Selection(limit=10), range(10)),
        (Selection(limit=11), range(10)),
        (Selection(max_bytes=10), range(1)),
        (Selection(max_bytes=20), range(1)),
        (Selection(max_bytes=21), range(2)),
        (Selection(max_bytes=22), range(2)),
        (Selection(max_bytes=sum(batch.size for batch in TEN)), range(10)),
        (Selection(max_bytes=sum(batch.size for batch in TEN) - 1), range(9)),
        (Selection(older_than=timedelta(seconds=81)), range(2)),
        (Selection(older_than=timedelta(seconds=80)), range(2)),  # at the moment itself: newer
        (Selection(newer_than=timedelta(seconds=80)), range(2, 10)),
        (Selection(newer_than=timedelta(seconds=79, microseconds=999_999)), range(3, 10)),
        (Selection(older_than=timedelta(seconds=30), newer_than=timedelta(seconds=80)), range(2, 7)),
        (Selection(older_than=timedelta(seconds=30), newer_than=timedelta(seconds=80), limit=2), range(2, 4)),
        (Selection(newer_than=timedelta(seconds=80), max_bytes=25), range(2, 4)),
        (Selection(limit=2, max_bytes=1000), range(2)),
        (Selection(limit=5, max_bytes=21), range(2)),
        (Selection(older_than=MOMENT), range(0)),
        (Selection(newer_than=MOMENT), range(10)),
        (Selection(older_than=MOMENT + timedelta(microseconds=1)), range(1)),
        (Selection(newer_than=MOMENT + timedelta(microseconds=1)), range(1, 10)),
        (Selection(older_than=timedelta(days=1)), range(0)),
        (Selection(newer_than=timedelta(0)), range(0)),
        # An age and a date without a time between them.
        (Selection(older_than=MOMENT, newer_than=timedelta(seconds=5)), range(0)),
        (Selection(older_than=timedelta(seconds=95), newer_than=MOMENT + timedelta(seconds=50)), range(0)),
    ],
)
def test_a_selection_takes_one_run_of_the_listing(selection: Selection, places: range) -> None:
    assert taken(selection, TEN) == list(places)
    assert taken(selection, []) == []


def test_every_batch_is_either_older_or_newer() -> None:
    rng = random.Random(7)
    times = sorted(
        rng.choice([0, 1, NOW - SECOND, NOW, NOW + 1, 10**25, rng.randrange(NOW)]) for _ in range(200)
    )
    entries = [entry(created_ns, batch_id=f"{number:04x}") for number, created_ns in enumerate(times)]
    for when in (timedelta(0), timedelta(seconds=1), timedelta(days=30_000), MOMENT):
        older = taken(Selection(older_than=when), entries)
        newer = taken(Selection(newer_than=when), entries)
        assert older + newer == list(range(200))


def test_a_selection_is_as_its_definition_says() -> None:
    """Against the definition, batch by batch, with equal times and all kinds of bounds."""
    rng = random.Random(3)
    for _ in range(50):
        times = sorted(rng.randrange(20) for _ in range(rng.randrange(15)))
        entries = [entry(time * SECOND, rng.randrange(5), f"{number:x}") for number, time in enumerate(times)]
        for older, newer in product((None, 3, 10), (None, 12, 20)):
            limit, most = rng.choice([None, 1, 4]), rng.choice([None, 1, 3, 9])
            expected: list[int] = []
            for place, batch in enumerate(entries):
                created, total = times[place], sum(entries[chosen].size for chosen in expected)
                if (older is not None and created >= 20 - older) or (
                    newer is not None and created < 20 - newer
                ):
                    continue
                if len(expected) == limit or (most is not None and total + batch.size > most):
                    break
                expected.append(place)
            selection = Selection(
                limit=limit,
                max_bytes=most,
                older_than=None if older is None else timedelta(seconds=older),
                newer_than=None if newer is None else timedelta(seconds=newer),
            )
            assert [entries[place] for place in taken(selection, entries, 20 * SECOND)] == [
                entries[place] for place in expected
            ]


def test_times_of_a_wrong_clock() -> None:
    entries = [entry(0), entry(1), entry(NOW + 3600 * SECOND), entry(10**30)]
    assert taken(Selection(older_than=timedelta(days=30_000)), entries) == []  # before the epoch
    assert taken(Selection(older_than=timedelta(days=3650)), entries) == [0, 1]
    assert taken(Selection(older_than=timedelta(0)), entries) == [0, 1]
    assert taken(Selection(newer_than=timedelta(0)), entries) == [2, 3]
    assert taken(Selection(older_than=timedelta.max), entries) == []
    assert taken(Selection(newer_than=timedelta.max), entries) == [0, 1, 2, 3]
    assert taken(Selection(older_than=datetime.max.replace(tzinfo=UTC)), entries) == [0, 1, 2]


@pytest.mark.parametrize("option", ["older_than", "newer_than"])
def test_an_age_warns_of_batches_of_the_future(tmp_path: Path, option: str) -> None:
    def by(moment: Any) -> Selection:
        return Selection(older_than=moment) if option == "older_than" else Selection(newer_than=moment)

    now = time.time_ns()
    write_batch(tmp_path, now - 7200 * SECOND, "aa", b"{}")
    write_batch(tmp_path, now + 60 * SECOND, "bb", b"{}")  # the clock of another machine
    hour = by(timedelta(hours=1))
    assert inspect_spool(tmp_path, selection=hour).warnings == ()
    name = write_batch(tmp_path, now + 3600 * SECOND, "cc", b"{}").name
    said = f"1 batch, such as {name}, has a time in the future. Check the clock, which decides the age of a batch."
    assert inspect_spool(tmp_path, selection=hour).warnings == (said,)
    # A date is compared without this machine's clock.
    moment = by(datetime.now(UTC))
    assert inspect_spool(tmp_path, selection=moment).warnings == ()


def test_names_that_are_not_padded() -> None:
    names = ["9-a.json", "00000000000000000010-b.json", "11-c.json"]
    entries = [Entry(name, 1) for name in names]
    assert taken(Selection(newer_than=datetime(1970, 1, 1, tzinfo=UTC)), entries) == [0, 1, 2]
    long_ago = Selection(older_than=timedelta(microseconds=1))
    assert taken(long_ago, entries, now_ns=1010) == [0]


def test_another_time_zone_is_the_same_moment() -> None:
    here = MOMENT.astimezone(timezone(timedelta(hours=-7)))
    assert taken(Selection(newer_than=here), TEN) == list(range(10))


def test_a_first_batch_beyond_the_bound_blocks_and_is_said() -> None:
    entries = [entry(1, 3 * 1024), entry(2, 1)]
    blocked = take(Selection(max_bytes=1024), entries)
    assert (blocked.batches, blocked.left_out) == ([], 2)
    assert blocked.blocked == (
        f"{entries[0].name} alone has 3 KB, more than the bound of 1 KB. Nothing is selected. Raise the bound."
    )
    close = take(Selection(max_bytes=3 * 1024 - 1), entries)
    assert "alone has 3072 bytes, more than the bound of 3071 bytes." in close.blocked
    assert take(Selection(max_bytes=3 * 1024), entries).blocked == ""
    assert (
        take(Selection(max_bytes=1, newer_than=timedelta(0)), entries).blocked == ""
    )  # there is no first batch


def test_sizes_are_asked_only_of_batches_that_may_be_taken() -> None:
    asked: list[str] = []

    def size_of(name: str) -> int:
        asked.append(name)
        return 10

    names = [batch.name for batch in TEN]

    def count(selection: Selection) -> int:
        asked.clear()
        selection.take(names, name_of=str, size_of=size_of, now_ns=NOW)
        return len(asked)

    assert count(Selection(limit=3)) == 0
    assert count(Selection(max_bytes=35)) == 4
    assert count(Selection(max_bytes=1000, limit=2)) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limit": 0}, "limit must be a whole number above 0."),
        ({"limit": -1}, "limit must be a whole number above 0."),
        ({"max_bytes": 0}, "max_bytes must be a whole number above 0."),
        ({"max_bytes": 0.5}, "max_bytes must be a whole number above 0."),
        ({"limit": True}, "limit must be a whole number above 0."),
        ({"limit": "3"}, "limit must be a whole number above 0."),
        ({"older_than": 7200}, "older_than must be a timedelta or a datetime, not int."),
        ({"newer_than": "2h"}, "newer_than must be a timedelta or a datetime, not str."),
        (
            {"older_than": MOMENT.replace(tzinfo=None)},
            "older_than must have a time zone, such as tzinfo=UTC.",
        ),
        (
            {"newer_than": MOMENT.replace(tzinfo=None)},
            "newer_than must have a time zone, such as tzinfo=UTC.",
        ),
        (
            {"older_than": timedelta(hours=2), "newer_than": timedelta(hours=1)},
            "older_than and newer_than leave no time between them. Exchange them.",
        ),
        (
            {"older_than": timedelta(hours=2), "newer_than": timedelta(hours=2)},
            "older_than and newer_than leave no time between them. Exchange them.",
        ),
        (
            {"older_than": MOMENT, "newer_than": MOMENT},
            "older_than and newer_than leave no time between them. Exchange them.",
        ),
    ],
)
def test_options_that_no_batch_can_fulfil(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Selection(**options)  # type: ignore[arg-type]  # any option
    assert str(caught.value) == said


def test_a_selection_is_a_value() -> None:
    selection = Selection(limit=2, older_than=timedelta(hours=2))
    assert pickle.loads(pickle.dumps(selection)) == selection == Selection(2, older_than=timedelta(hours=2))
    assert len({selection, Selection(), Selection()}) == 2
    with pytest.raises(AttributeError):
        selection.limit = 3  # type: ignore[misc]  # frozen


# -- inspect and clear ---------------------------------------------------------------------------------------------


def test_inspect_and_clear_take_the_selected_part_of_a_spool_of_the_sdk(
    tmp_path: Path, deletes: DeleteWatch
) -> None:
    batches = sdk_batches(tmp_path, 6)
    sizes = [len(batch.data) for batch in batches]
    two = Selection(max_bytes=sizes[0] + sizes[1], older_than=timedelta(0))
    inventory = inspect_spool(tmp_path, selection=two)
    assert inventory.entries == [Entry(batch.name, len(batch.data)) for batch in batches[:2]]
    assert (inventory.total_bytes, inventory.left_out) == (sizes[0] + sizes[1], 4)
    with deletes.allowed():
        one = clear_spool(inventory=inventory, selection=Selection(limit=1))
    assert (one.deleted, one.bytes, one.left_out) == (1, sizes[0], 5)
    assert snapshot(tmp_path) == batches[1:]
    newest = Selection(newer_than=datetime.fromtimestamp(batches[4].created_ns // SECOND, UTC))
    with deletes.allowed():
        rest = clear_spool(tmp_path, selection=newest)
    assert (rest.deleted, rest.left_out) == (2, 3)
    assert snapshot(tmp_path) == batches[1:4]
    none = clear_spool(tmp_path, selection=Selection(newer_than=timedelta(0)))
    assert (none.deleted, none.left_out, none.exists) == (0, 3, True)


def test_a_blocked_selection_is_a_warning_and_clears_nothing(tmp_path: Path) -> None:
    batch = sdk_batches(tmp_path, 2, spans=TINY)[0]
    write_batch(tmp_path, 1, "ab", b"x" * 9000)
    small = Selection(max_bytes=100)
    inventory = inspect_spool(tmp_path, selection=small)
    assert (list(inventory.entries), inventory.left_out) == ([], 3)
    assert [line.partition(". ")[0] for line in inventory.warnings] == [
        "00000000000000000001-ab.json alone has 9 KB, more than the bound of 100 B"
    ]
    assert clear_spool(tmp_path, selection=small).deleted == 0
    assert batch in snapshot(tmp_path)


def test_no_spool_with_a_selection(tmp_path: Path) -> None:
    missing = inspect_spool(tmp_path / "none", selection=Selection(limit=1))
    assert (missing.exists, missing.left_out) == (False, 0)
    assert not clear_spool(tmp_path / "none", selection=Selection(limit=1)).exists
