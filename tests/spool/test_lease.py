"""The lease: who owns a spool where lock calls succeed for everybody, and who takes it over when."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cirron_spool.errors import SpoolBusyError
from cirron_spool.spool import lease as leases
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.lease import LEASE_S, RECORD_NAME, RENEW_S, TRUSTED_S, Lease, OwnedError
from cirron_spool.spool.lock import LOCK_NAME
from cirron_spool.spool.owner import owner_of, this_process
from cirron_spool.spool.record_files import RecordFiles

ELSEWHERE = "0f0f0f0f-0000-4000-8000-000000000000"


@pytest.fixture(autouse=True)
def _lying_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every lock call succeeds, as between two nodes of some network file systems."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)


def record(folder: Path, *, age_s: float = 0.0, name: str = RECORD_NAME, **changes: Any) -> Path:
    """The record of another owner: by default a living one of another machine, renewed ``age_s`` seconds ago."""
    owner = this_process()._replace(**{"host": "node2", "boot": ELSEWHERE, "process": 4711, **changes})
    path = folder / name
    path.write_bytes(owner.to_json())
    now = path.stat().st_mtime_ns
    os.utime(path, ns=(now, now - round(age_s * 1e9)))
    return path


def key_in(folder: Path) -> str:
    return str(json.loads((folder / RECORD_NAME).read_bytes())["key"])


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


class Case(NamedTuple):
    name: str
    make: Callable[[Path], object]
    is_taken_over: bool


def damaged(content: bytes, age_s: float) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        path = record(folder, age_s=age_s)
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        path.write_bytes(content)
        os.utime(path, ns=times)

    return make


def here(**changes: Any) -> Callable[[Path], object]:
    mine = this_process()
    where = {"host": mine.host, "boot": mine.boot, "process": os.getpid()}
    return lambda folder: record(folder, **{**where, **changes})


def _old_folder(at: Path) -> None:
    (at / RECORD_NAME).mkdir()
    os.utime(at / RECORD_NAME, (0, 0))


CASES = [
    Case("nobody", lambda _: None, True),
    Case("another machine, renewed lately", record, False),
    Case("another machine, just before its time", lambda at: record(at, age_s=LEASE_S - 5), False),
    Case("another machine, its time is past", lambda at: record(at, age_s=LEASE_S + 1), True),
    Case("a live process of this machine", here(), False),
    Case("a live process of this machine, its time is past", here(age_s=LEASE_S + 1), True),
    Case("a killed process of this machine", here(process=dead_process()), True),
    Case("its number has another process now", here(started="1"), True),
    Case("a number that no process can have", here(process=2**70), True),
    Case("a killed process in another container", here(process=2**22 + 1, namespace="pid:[1]"), False),
    Case("a killed process in a clone of this machine", here(process=2**22 + 1, host="clone"), False),
    Case("a killed process of the last boot", here(process=2**22 + 1, boot=ELSEWHERE), False),
    Case("damaged", damaged(b"\0\xff", 0), False),
    Case("empty, its time is past", damaged(b"", LEASE_S + 1), True),
    Case("not an object", damaged(b"[[1]]", LEASE_S + 1), True),
    Case("a key that leads out of the directory", lambda at: record(at, age_s=99, key="../x"), True),
    Case("deeply nested", damaged(b"[" * 4000, LEASE_S + 1), True),
    Case("a folder, its time is past", _old_folder, True),
    Case("from the future: the clock was set back", lambda at: record(at, age_s=-LEASE_S * 2), False),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_whose_it_is(tmp_path: Path, case: Case) -> None:
    case.make(tmp_path)
    with SpoolDirectory(tmp_path) as spool, SpoolDirectory(tmp_path) as other:
        assert spool.open() and other.open()
        if case.is_taken_over:
            assert spool.lock() == ""
            with pytest.raises(SpoolBusyError):
                other.lock()
            spool.ensure_claim()
        else:
            with pytest.raises(SpoolBusyError, match=f"Another cirron-spool is working on {tmp_path}"):
                spool.lock()
            assert set(os.listdir(tmp_path)) == {RECORD_NAME, LOCK_NAME}
    if case.is_taken_over and "folder" not in case.name:
        assert os.listdir(tmp_path) == []


def test_a_record_from_the_future_counts_down_from_the_present(tmp_path: Path) -> None:
    path = record(tmp_path, age_s=-LEASE_S * 100)
    lease = Lease(str(tmp_path))
    with pytest.raises(OwnedError):
        lease.acquire()
    now = tmp_path / "now"
    now.touch()
    assert abs(path.stat().st_mtime_ns - now.stat().st_mtime_ns) < LEASE_S * 1e9
    lease.release()


def test_no_clock_of_a_machine_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the file system's: a machine whose own clock is a year off takes over no earlier, and no later."""
    record(tmp_path, age_s=LEASE_S - 5)
    for skew_s in (-3e7, 3e7):
        monkeypatch.setattr("time.time_ns", lambda skew_s=skew_s: round(skew_s * 1e9))
        lease = Lease(str(tmp_path))
        with pytest.raises(OwnedError):
            lease.acquire()
        lease.release()


def test_of_two_that_take_over_at_once_one_wins(tmp_path: Path) -> None:
    """The second one takes over in the middle of the first one's take-over: at each step of it once."""
    steps = 0
    while _take_over_twice(tmp_path, at_step=steps + 1):
        steps += 1
    assert steps > 5


def _take_over_twice(folder: Path, *, at_step: int) -> bool:
    """Whether the first take-over has that many steps."""
    record(folder, age_s=LEASE_S + 1)
    first, second = Lease(str(folder)), Lease(str(folder))
    owners: list[Lease] = []
    steps = 0

    def interrupted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(files: RecordFiles, *args: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == at_step:
                _try(second, owners)
            return real(files, *args)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for method in ("create", "link", "read", "time_of", "rename", "remove"):
            patch.setattr(RecordFiles, method, interrupted(getattr(RecordFiles, method)))
        _try(first, owners)
    assert len(owners) == 1
    assert os.listdir(folder) == [RECORD_NAME]
    owners[0].renew()
    for lease in (first, second):
        lease.release()
    assert os.listdir(folder) == []
    return steps >= at_step


def _try(lease: Lease, owners: list[Lease]) -> None:
    try:
        lease.acquire()
    except OwnedError:
        return
    owners.append(lease)


def test_a_take_over_that_was_killed_half_way_is_taken_over_in_turn(tmp_path: Path) -> None:
    """It had linked its record, and died before the record moved up."""
    first = record(tmp_path, age_s=LEASE_S + 9)
    key = json.loads(first.read_bytes())["key"]
    half = record(tmp_path, age_s=LEASE_S + 1, name=f"{RECORD_NAME}.{key}.next")
    record(tmp_path, age_s=LEASE_S + 1, name=f"{RECORD_NAME}.{'0' * 16}")  # a candidate that was never linked
    lease = Lease(str(tmp_path))
    lease.acquire()
    assert not half.exists()
    other = Lease(str(tmp_path))
    with pytest.raises(OwnedError):
        other.acquire()
    other.release()
    lease.release()
    assert os.listdir(tmp_path) == []


def test_the_take_over_under_way_counts(tmp_path: Path) -> None:
    first = record(tmp_path, age_s=LEASE_S + 9)
    key = json.loads(first.read_bytes())["key"]
    record(tmp_path, name=f"{RECORD_NAME}.{key}.next", host="node3")
    lease = Lease(str(tmp_path))
    with pytest.raises(OwnedError, match="node3"):
        lease.acquire()
    lease.release()


# -- renewal, and the loss of a lease ----------------------------------------------------------------------------------


class Time:
    """The clock of a machine, which a test moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._offset_s = 0.0
        real = leases.clock
        monkeypatch.setattr(leases, "clock", lambda: real() + self._offset_s)

    def pass_by(self, seconds: float) -> None:
        """As when the machine was suspended."""
        self._offset_s += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def _age(folder: Path, seconds: float) -> None:
    path = folder / RECORD_NAME
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - round(seconds * 1e9)))


def test_the_record_is_renewed_when_that_is_due_and_not_before(tmp_path: Path, time: Time) -> None:
    with SpoolDirectory(tmp_path) as spool:
        spool.open()
        spool.lock()
        _age(tmp_path, 30)
        aged = (tmp_path / RECORD_NAME).stat().st_mtime_ns
        spool.ensure_claim()
        assert (tmp_path / RECORD_NAME).stat().st_mtime_ns == aged
        time.pass_by(RENEW_S)
        assert spool.is_claim_due
        spool.ensure_claim()
        assert not spool.is_claim_due
        assert (tmp_path / RECORD_NAME).stat().st_mtime_ns > aged


@pytest.mark.parametrize(
    ("suspended_s", "is_removed"),
    [(RENEW_S, False), (RENEW_S, True), (TRUSTED_S, False), (LEASE_S * 100, False)],
)
def test_an_owner_that_nobody_followed_goes_on(
    tmp_path: Path, time: Time, suspended_s: float, is_removed: bool
) -> None:
    with SpoolDirectory(tmp_path) as spool, SpoolDirectory(tmp_path) as other:
        assert spool.open() and other.open()
        spool.lock()
        _age(tmp_path, suspended_s)
        time.pass_by(suspended_s)
        if is_removed:  # by a person
            (tmp_path / RECORD_NAME).unlink()
        spool.ensure_claim()
        with pytest.raises(SpoolBusyError):
            other.lock()
    assert os.listdir(tmp_path) == []


def test_a_lease_that_ran_out_at_the_end_leaves_nothing(tmp_path: Path, time: Time) -> None:
    with SpoolDirectory(tmp_path) as spool:
        spool.open()
        spool.lock()
        time.pass_by(LEASE_S + 1)
    assert os.listdir(tmp_path) == []


def test_an_owner_whose_follower_has_gone_already_ends_too(tmp_path: Path, time: Time) -> None:
    """The batches that it holds ready may have been sent meanwhile."""
    with SpoolDirectory(tmp_path) as spool:
        spool.open()
        spool.lock()
        time.pass_by(LEASE_S + 1)
        (tmp_path / RECORD_NAME).unlink()
        for _ in range(2):
            with pytest.raises(SpoolBusyError, match="was taken over by another cirron-spool: "):
                spool.ensure_claim()
    assert os.listdir(tmp_path) == []


def test_an_owner_that_was_followed_ends_and_leaves_the_record_of_its_follower(
    tmp_path: Path, time: Time
) -> None:
    with SpoolDirectory(tmp_path) as spool:
        spool.open()
        spool.lock()
        time.pass_by(LEASE_S + 1)
        record(tmp_path)
        for _ in range(2):
            with pytest.raises(
                SpoolBusyError, match="was taken over by process 4711 on node2, since "
            ) as caught:
                spool.ensure_claim()
            assert caught.value.exit_code == 4
            assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == [RECORD_NAME]


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.ENOSPC, errno.EPERM])
def test_a_renewal_that_fails_is_tried_again_until_the_lease_may_be_another_s(
    tmp_path: Path, time: Time, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with SpoolDirectory(tmp_path) as spool:
        spool.open()
        spool.lock()
        with monkeypatch.context() as broken:
            broken.setattr(RecordFiles, "renew", fail)
            broken.setattr(RecordFiles, "create", fail)
            for _ in range(2):
                time.pass_by(RENEW_S)
                spool.ensure_claim()
            time.pass_by(RENEW_S)
            with pytest.raises(SpoolBusyError, match=f"cannot be renewed: {os.strerror(code)}") as caught:
                spool.ensure_claim()
        assert caught.value.exit_code == 4
        spool.ensure_claim()  # the file system is well again, and nobody has come
    assert os.listdir(tmp_path) == []


def test_a_full_disk_stops_nothing_and_the_lease_comes_with_the_room(
    tmp_path: Path, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with SpoolDirectory(tmp_path) as spool, SpoolDirectory(tmp_path) as other:
        assert spool.open() and other.open()
        with monkeypatch.context() as disk:
            disk.setattr(os, "write", full)
            said = spool.lock()
            time.pass_by(RENEW_S)
            spool.ensure_claim()
        assert said == (
            f"{tmp_path} has no owner record: {os.strerror(errno.ENOSPC)}. "
            "Do not flush it from two machines at the same time."
        )
        assert not (tmp_path / RECORD_NAME).exists()
        time.pass_by(RENEW_S)
        spool.ensure_claim()
        with pytest.raises(SpoolBusyError):
            other.lock()
    assert os.listdir(tmp_path) == []


def test_without_hard_links_the_record_is_made_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    record(tmp_path, age_s=LEASE_S + 1)
    lease, other = Lease(str(tmp_path)), Lease(str(tmp_path))
    lease.acquire()
    with pytest.raises(OwnedError):
        other.acquire()
    lease.release()
    other.acquire()
    other.release()
    assert os.listdir(tmp_path) == []


def test_a_link_whose_answer_was_lost_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def lose(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))  # to the repeated request

    monkeypatch.setattr(os, "link", lose)
    lease = Lease(str(tmp_path))
    lease.acquire()
    assert lease.is_trusted
    lease.release()
    assert os.listdir(tmp_path) == []


def test_a_record_that_another_machine_removed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS: the name is known here, and the file is gone from the server."""
    record(tmp_path, age_s=LEASE_S + 1)
    real, left = os.open, 3

    def stale(path: Any, *args: Any, **kwargs: Any) -> int:
        nonlocal left
        if path == RECORD_NAME and left:
            left -= 1
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", stale)
    lease = Lease(str(tmp_path))
    lease.acquire()
    lease.release()
    assert not left and os.listdir(tmp_path) == []


def test_the_words_of_a_record_can_do_no_harm() -> None:
    owner = owner_of(this_process()._replace(host="a\x1b[2J\n" * 50, since="\r" * 500).to_json(), 0)
    assert "\x1b" not in str(owner) and "\n" not in str(owner) and len(str(owner)) < 1000
