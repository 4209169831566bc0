"""Errors, events and results travel between processes as they are."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

import cirron_spool
from cirron_spool import BatchFailure, CirronSpoolError, Ended, FlushResult

RESULT = FlushResult(
    Path("/runs/7/spool"), 2, 1, 4, failures=(BatchFailure("1-a.json", 503, "Upload failed"),), exit_code=4
)


def pickled(protocol: int) -> Callable[[Any], Any]:
    return lambda thing: pickle.loads(pickle.dumps(thing, protocol))


WAYS: dict[str, Callable[[Any], Any]] = {
    **{f"pickle {protocol}": pickled(protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


class DemandingError(CirronSpoolError):
    """An error of a caller's own, whose constructor wants other arguments than its message."""

    def __init__(self, batch: str, *, attempts: int) -> None:
        super().__init__(f"{batch} failed {attempts} times", hint="Look at it.")
        self.attempts = attempts


class SilentError(CirronSpoolError):
    """An error of a caller's own that leaves the base's constructor out."""

    def __init__(self, *, why: str) -> None:
        self.why = why


def public_classes() -> Iterator[type]:
    for name in cirron_spool.__all__:
        value = getattr(cirron_spool, name)
        if isinstance(value, type):
            yield value


def error_of(kind: type[CirronSpoolError]) -> CirronSpoolError:
    try:
        return kind()
    except TypeError:
        return kind("Message with a ü.")


PUBLIC_ERRORS = [kind for kind in public_classes() if issubclass(kind, CirronSpoolError)]
# What is no error and no protocol: events, results, options.
PUBLIC_VALUES = [kind for kind in public_classes() if is_dataclass(kind) or hasattr(kind, "_fields")]


def test_the_public_names_are_walked() -> None:
    assert {"SpoolBusyError", "AuthRejectedError"} <= {kind.__name__ for kind in PUBLIC_ERRORS}
    assert {"Warned", "FlushResult", "Inventory"} <= {kind.__name__ for kind in PUBLIC_VALUES}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    "error",
    [
        *map(error_of, PUBLIC_ERRORS),
        cirron_spool.SpoolError("x", 1, hint="y"),
        DemandingError("1-a.json", attempts=4),
        SilentError(why="x"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("started", [False, True], ids=["before the flush", "in mid-flush"])
def test_an_error_keeps_all_that_it_says(
    error: CirronSpoolError, started: bool, way: Callable[[Any], Any]
) -> None:
    error = copy.copy(error)
    if started:
        error.hint = "The refused token came from CIRRON_API_KEY."
        error.exit_code = 7
        error.result = RESULT
        error.add_note("rank 3")
    twin = way(error)
    assert type(twin) is type(error)
    assert twin is not error
    assert (str(twin), twin.args, twin.hint) == (str(error), error.args, error.hint)
    assert (twin.exit_code, twin.result) == (error.exit_code, error.result)
    assert vars(twin) == vars(error)


def example(kind: type) -> object:
    """A value of a public class, whose fields hold distinct things where the class has no default."""
    if issubclass(kind, Ended):
        return kind(RESULT)
    if not is_dataclass(kind):
        return kind(*(Path(f"/{name}") for name in kind._fields))  # type: ignore[attr-defined]
    return kind(**{
        field.name: f"{field.name} \udc80" if field.type == "str" else Path("/a") if field.type == "Path" else 7
        for field in fields(kind)
        if field.default is MISSING and field.default_factory is MISSING
    })  # fmt: skip


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("kind", PUBLIC_VALUES, ids=lambda kind: kind.__name__)
def test_an_event_or_a_result_keeps_all_that_it_says(kind: type, way: Callable[[Any], Any]) -> None:
    value = example(kind)
    twin = way(value)
    assert type(twin) is kind
    assert twin == value
    assert repr(twin) == repr(value)


@pytest.mark.parametrize("kind", PUBLIC_ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_has_a_hint_and_no_result_until_a_flush_gives_them(kind: type[CirronSpoolError]) -> None:
    error = error_of(kind)
    assert (error.hint, error.result) == ("", None)
    assert "\n" not in str(error)
