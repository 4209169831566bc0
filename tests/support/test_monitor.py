"""The delete monitor sees every delete, and only an acknowledgement makes one legal."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from support import ledger, spools
from support.answers import Answer, ok
from support.monitor import watch_deletes
from support.raw import connected, exactly
from support.scripted import ScriptedServer

NAME = "00000000000000000007-0a.json"
HEAD = b"POST /api/traces HTTP/1.1\r\nHost: x\r\nX-Cirron-Batch-Id: 0a\r\n"
UPLOAD = HEAD + b"Content-Length: 2\r\n\r\n{}"


@pytest.fixture(autouse=True)
def _empty_ledger() -> None:
    ledger.forget()


def acknowledge(name: str, body: bytes) -> None:
    ledger.acknowledge(name.partition("-")[2].removesuffix(".json"), body)


def test_an_acknowledged_delete_is_legal(tmp_path: Path) -> None:
    path = spools.write_batch(tmp_path, 7, "0a", b"{}")
    with ScriptedServer() as server, watch_deletes() as watch, connected(server, UPLOAD) as sock:
        exactly(sock, len(ok().render()))
        path.unlink()
    assert (watch.names, watch.deletions[0].size, watch.deletions[0].batch_id) == ([NAME], 2, "0a")


@pytest.mark.parametrize("sent", [b"{}", b"{} ", None])
@pytest.mark.parametrize("answer", [ok(), Answer(200, cut_after=10), Answer(500)])
def test_any_other_delete_is_not(tmp_path: Path, answer: Answer, sent: bytes | None) -> None:
    path = spools.write_batch(tmp_path, 7, "0b" if sent is None else "0a", sent or b"{}")
    legal = sent == b"{}" and answer == ok()
    with ScriptedServer(answer, ok()) as server, connected(server, UPLOAD) as sock:
        exactly(sock, 10)
        server.wait_until(lambda: not server._in_flight, "answer")
        if legal:
            with watch_deletes():
                path.unlink()
        else:
            with pytest.raises(AssertionError, match=path.name), watch_deletes():
                path.unlink()


def test_every_way_of_deleting_is_seen(tmp_path: Path) -> None:
    paths = [spools.write_batch(tmp_path, number, "0a") for number in range(6)]
    (tmp_path / "quarantine").mkdir()
    other = spools.write_batch(tmp_path / "quarantine", 4, "0a", b"other bytes")
    folder = os.open(tmp_path, os.O_RDONLY)

    def delete_all() -> None:
        os.remove(paths[0])
        os.unlink(os.fsencode(paths[1].name), dir_fd=folder)
        paths[2].rename(tmp_path / "gone")
        worker = threading.Thread(target=paths[3].unlink, name="deleter")
        worker.start()
        worker.join()
        os.replace(paths[4], other)
        with pytest.raises(FileNotFoundError):
            paths[0].unlink()

    with pytest.raises(AssertionError) as caught, watch_deletes() as watch:
        delete_all()
    os.close(folder)
    hows = [(deletion.how, deletion.name) for deletion in watch.violations]
    names = [path.name for path in paths]
    assert hows == [
        ("remove", names[0]),
        ("remove", names[1]),
        ("rename", names[2]),
        ("remove", names[3]),
        ("overwrite", names[4]),
    ]
    assert str(paths[1]) in str(caught.value)
    assert "in deleter" in str(caught.value)


def _unlink(*paths: Path) -> None:
    for path in paths:
        path.unlink()


def test_special_files_and_empty_ones_are_never_deleted(tmp_path: Path) -> None:
    ledger.acknowledge("0b", b"{}")
    target = spools.write_batch(tmp_path, 1, "0a", b"{}")
    link = tmp_path / "00000000000000000002-0b.json"
    link.symlink_to(target)
    empty = spools.write_batch(tmp_path, 3, "0c", b"")
    fifo = tmp_path / "00000000000000000004-0d.json"
    os.mkfifo(fifo)
    with pytest.raises(AssertionError), watch_deletes() as watch:
        _unlink(link, empty, fifo)
    assert len(watch.violations) == 3


def test_what_the_monitor_leaves_alone(tmp_path: Path) -> None:
    (tmp_path / "quarantine").mkdir()
    path = spools.write_batch(tmp_path, 1, "0a")
    cleared = spools.write_batch(tmp_path, 2, "0b")
    with watch_deletes(acknowledged=lambda name: name.endswith("-0c.json")) as watch:
        path.rename(tmp_path / "quarantine" / path.name)
        spools.write_batch(tmp_path, 3, "0c").unlink()
        (tmp_path / "notes.json").write_text("")
        (tmp_path / "notes.json").unlink()
        with watch.allowed():
            cleared.unlink()
        shutil.rmtree(tmp_path / "quarantine")
        with pytest.raises(AssertionError), watch_deletes():
            spools.write_batch(tmp_path, 4, "0d").unlink()
    assert [name[-7:-5] for name in watch.names] == ["0c", "0b"]


def test_an_acknowledgement_is_entered_before_its_last_byte_can_be_seen(tmp_path: Path) -> None:
    """The client deletes at once, many times: the ledger must never be the later one."""
    with ScriptedServer() as server, watch_deletes() as watch, connected(server) as sock:
        for number in range(300):
            path = spools.write_batch(tmp_path, number, f"{number:02x}", b"{}")
            sock.sendall(UPLOAD.replace(b"0a", b"%02x" % number))
            exactly(sock, len(ok().render()))
            path.unlink()
    assert len(watch.deletions) == 300
