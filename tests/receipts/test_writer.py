"""Receipts are appended whole, durably and in one chain, whatever was there and whoever appends beside."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from cirron_spool import ConfigError
from cirron_spool.receipts import writer
from cirron_spool.receipts.chain import Receipt
from cirron_spool.receipts.check import check_receipts
from cirron_spool.receipts.writer import ReceiptError, ReceiptsFile


def receipt(number: int) -> Receipt:
    return Receipt(
        None, "2026-04-18T04:29:58.051Z", "/spool", f"1-{number:x}.json", f"{number:x}", 3, "00", 200, "x"
    )


def append(path: Path, *numbers: int) -> None:
    file = ReceiptsFile(path)
    file.open()
    try:
        for number in numbers:
            file.append(receipt(number))
    finally:
        file.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "receipts.jsonl"


def test_a_new_file_is_private_and_each_opening_goes_on(path: Path) -> None:
    append(path, 1, 2)
    append(path, 3)
    assert path.stat().st_mode & 0o777 == 0o600
    check = check_receipts(path)
    assert (check.receipts, check.batches, check.torn, check.first, check.problems) == (3, 3, 0, None, [])


@pytest.mark.parametrize("whole", [0, 2])
@pytest.mark.parametrize(
    "tail",
    [receipt(9).line()[:20], b"{", b"\0" * 4096, receipt(9).line()[:30] + b"\n" + receipt(9).line()[:1]],
    ids=["cut", "one byte", "zeros", "twice"],
)
def test_the_chain_goes_on_behind_a_torn_line(path: Path, whole: int, tail: bytes) -> None:
    append(path, *range(whole))
    with path.open("ab") as file:
        file.write(tail)
    append(path, 10, 11)
    check = check_receipts(path)
    assert (check.receipts, check.problems) == (whole + 2, [])
    assert check.torn == tail.count(b"\n") + 1


def test_a_receipt_that_lost_only_its_line_feed_is_one(path: Path) -> None:
    append(path, 1, 2)
    os.truncate(path, path.stat().st_size - 1)
    append(path, 3)
    check = check_receipts(path)
    assert (check.receipts, check.torn, check.problems) == (3, 0, [])


@pytest.mark.parametrize("content", [b"import os\n", b"x", b'{"a": 1}\n', b"\x7fELF\0\0"])
def test_a_file_with_other_content_stays_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"it has other content than receipts\. Name another file"):
        ReceiptsFile(path).open()
    assert path.read_bytes() == content


def test_a_file_that_was_moved_away_is_continued_in_a_new_one(path: Path) -> None:
    old = path.with_suffix(".1")
    file = ReceiptsFile(path)
    file.append(receipt(1))
    path.rename(old)
    file.append(receipt(2))
    file.close()
    assert check_receipts(path).first == check_receipts(old).last is not None


def test_several_writers_make_one_chain(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = writer._write

    def write(fd: int, data: bytes) -> None:
        time.sleep(0.001)  # for the others
        real_write(fd, data)

    monkeypatch.setattr(writer, "_write", write)

    def work(first: int) -> None:
        append(path, *range(first, first + 25))

    threads = [threading.Thread(target=work, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check = check_receipts(path)
    assert (check.receipts, check.batches, check.torn, check.problems) == (100, 100, 0, [])


@pytest.mark.parametrize("why", ["No space left on device", "Input/output error"])
def test_a_receipt_that_fails_leaves_no_trace(path: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    file = ReceiptsFile(path)
    file.append(receipt(1))
    before = path.read_bytes()
    real_write = os.write
    with monkeypatch.context() as patch:
        if why.startswith("No"):  # a part of the write
            patch.setattr(os, "write", lambda fd, data: real_write(fd, data[:50]))
        else:

            def fail(fd: int) -> None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            patch.setattr(writer, "_sync", fail)
        with pytest.raises(ReceiptError, match=why):
            file.append(receipt(2))
    assert path.read_bytes() == before
    file.append(receipt(3))
    file.close()
    assert check_receipts(path).problems == []


def test_a_lock_that_another_process_keeps_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_LONGEST_WAIT_S", 0.01)
    append(path, 1)
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process holds its lock"):
            ReceiptsFile(path).open()


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda lines: [*lines[:2], *lines[3:]], "Line 3 does not follow"),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], "Line 2 does not follow"),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], "Line 3 does not follow"),
        (
            lambda lines: [lines[0].replace(b'"bytes": 3', b'"bytes": 4'), *lines[1:]],
            "Line 2 does not follow",
        ),
        (lambda lines: [*lines[:2], lines[2][:30], lines[3]], "Line 4 does not follow"),
        (lambda lines: [*lines, b"hello"], "Line 5 is not a receipt"),
        (lambda lines: [*lines, lines[3].replace(b'"00"', b'"01"')], "Line 5 does not follow"),
    ],
    ids=["removed", "moved", "twice", "changed", "cut", "other text", "added"],
)
def test_a_line_that_was_changed_is_found(path: Path, edit: object, problem: str) -> None:
    append(path, 1, 2, 3, 4)
    assert callable(edit)
    path.write_bytes(b"".join(line + b"\n" for line in edit(path.read_bytes().splitlines())))
    assert check_receipts(path).problems[0].startswith(problem)
