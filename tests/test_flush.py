"""A whole flush through the library: order, requests, verdicts, results, events, and what is left on disk."""

from __future__ import annotations

import errno
import fcntl
import gzip
import json
import os
import socket
import stat
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
from yarl import URL

from cirron_spool import (
    AuthRejectedError,
    CirronSpoolError,
    ConfigError,
    Ended,
    Failed,
    FlushEvent,
    FlushResult,
    NotAuthenticatedError,
    Quarantined,
    Retrying,
    Sending,
    SpoolBusyError,
    SpoolError,
    Started,
    Tuning,
    Uploaded,
    Warned,
    __version__,
    flush_spool,
)
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.listing import Listing
from cirron_spool.spool.lock import LOCK_NAME
from cirron_spool.spool.record_files import RecordFiles
from support import spools
from support.answers import Answer, Gate, html, json_answer, ok
from support.loopwatch import no_blocking_calls
from support.monitor import DeleteWatch
from support.scripted import ScriptedServer
from support.spools import TINY, Sealed, sdk_batches, snapshot, write_batch

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-flush-secret"


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / ".cirron" / "spool"


async def flush(server: ScriptedServer, spool: Path, **options: Any) -> FlushResult:
    return await flush_spool(spool, **{"api_url": server.url, "token": TOKEN, **options})


async def result_of(server: ScriptedServer, spool: Path, **options: Any) -> FlushResult:
    """The result, also of a flush that ended with an error for the credentials."""
    try:
        return await flush(server, spool, **options)
    except AuthRejectedError as error:
        rejected = error
    assert rejected.result is not None
    assert [str(rejected)] == [failure.message for failure in rejected.result.failures]
    return rejected.result


def there(path: Path) -> bool:
    return os.path.lexists(path)


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def ids(batches: list[Sealed]) -> list[str]:
    return [batch.batch_id for batch in batches]


def delivered(server: ScriptedServer) -> list[tuple[str, bytes]]:
    return server.deliveries


# -- the usual way ---------------------------------------------------------------------------------------------


async def test_batches_go_up_oldest_first_and_are_deleted(spool: Path, deletes: DeleteWatch) -> None:
    batches = sdk_batches(spool, 12, spans=(0, 20))
    with ScriptedServer() as server:
        result = await flush(server, spool)
    assert server.deliveries == [(batch.batch_id, batch.data) for batch in batches]
    assert deletes.names == [batch.name for batch in batches]
    assert os.listdir(spool) == []
    assert (server.connections, server.peak_in_flight) == (1, 1)
    assert {request.connection for request in server.requests} == {1}
    assert [request.path for request in server.requests[:2]] == ["/api/cli/status", "/api/traces"]
    assert result == FlushResult(
        directory=spool,
        uploaded=12,
        bytes_read=sum(len(batch.data) for batch in batches),
        bytes_sent=sum(len(request.body) for request in server.uploads),
        seconds=result.seconds,
        destination=server.url,
        verified=True,
    )
    assert result.seconds > 0


async def test_order_is_by_number_then_by_name(spool: Path) -> None:
    folder(spool)
    ordered = ["9-0b.json", "10-0a.json", "0010-0b.json", "10-0b.json", "00000000000000000011-0.json"]
    ordered = [ordered[0], *sorted(ordered[1:4]), ordered[4], "123456789012345678901234-ff.json"]
    for name in reversed(ordered):
        (spool / name).write_bytes(json.dumps({"name": name}).encode())
    with ScriptedServer() as server:
        result = await flush(server, spool)
    assert [json.loads(body)["name"] for _, body in server.deliveries] == ordered
    assert server.deliveries[-1][0] == "ff"
    assert result.uploaded == len(ordered)


async def test_headers_are_exactly_those_of_the_contract(spool: Path) -> None:
    small = write_batch(spool, 1, "0a", b"x" * 1024)
    large = write_batch(spool, 2, "0b", b"x" * 1025)
    bodies = small.read_bytes(), large.read_bytes()
    with ScriptedServer() as server:
        await flush(server, spool)
    product = f"cirron-spool/{__version__}"
    common = {
        "Host": f"127.0.0.1:{server.port}",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Authorization": f"Bearer {TOKEN}",
        "Content-Type": "application/json",
        "User-Agent": product,
        "X-Cirron-SDK-Version": product,
    }
    first, second = server.uploads
    assert (first.method, first.target) == ("POST", "/api/traces")
    assert dict(first.headers.raw) == {**common, "X-Cirron-Batch-Id": "0a", "Content-Length": "1024"}
    assert dict(second.headers.raw) == {
        **common,
        "X-Cirron-Batch-Id": "0b",
        "Content-Encoding": "gzip",
        "Content-Length": str(len(second.body)),
    }
    assert len(first.headers.raw) == 9 and len(second.headers.raw) == 10  # nothing twice
    assert (first.body, gzip.decompress(second.body)) == bodies


@pytest.mark.parametrize(("size", "compressed"), [(1, False), (1023, False), (1024, False), (1025, True)])
@pytest.mark.parametrize("library", ["isal", "zlib-ng", "zlib"])
async def test_gzip_above_1024_bytes(spool: Path, size: int, compressed: bool, library: str) -> None:
    body = os.urandom(size)
    write_batch(spool, 1, "0a", body)
    with ScriptedServer() as server:
        result = await flush(server, spool, tuning=Tuning(gzip_library=library))
    [request] = server.uploads
    assert ("content-encoding" in request.headers) is compressed
    assert (request.body == body) is not compressed
    assert request.decoded == body
    assert (result.bytes_read, result.bytes_sent) == (size, len(request.body))


async def test_what_the_sdk_wrote_goes_out_unchanged_with_nan(spool: Path) -> None:
    odd = b'{"spans":[],"marks":[{"value":NaN}],"batch_id":"another"}'
    write_batch(spool, 7, "0" * 33, odd)
    with ScriptedServer() as server:
        await flush(server, spool)
    assert server.deliveries == [("0" * 33, odd)]


async def test_a_real_profiled_run_is_delivered(tmp_path: Path) -> None:
    batches = spools.profiled_run(tmp_path, batches=2)
    with ScriptedServer() as server:
        result = await flush(server, tmp_path / "spool")
    assert delivered(server) == [(batch.batch_id, batch.data) for batch in batches]
    assert (result.uploaded, result.exit_code) == (len(batches), 0)


# -- verdicts, end to end --------------------------------------------------------------------------------------

JSON = ("Content-Type", "application/json")
TEXT = ("Content-Type", "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    "answer",
    [
        *(Answer(status) for status in (200, 201, 202, 204)),
        Answer(200, headers=[JSON], body=b'{"success": true}'),
        Answer(201, headers=[JSON], body=b'{"error": null}'),
        Answer(200, headers=[JSON], body=b"[]"),
        Answer(200, headers=[JSON], body=b"null"),
        Answer(202, headers=[TEXT], body=b"accepted"),
        Answer(200, body=b"ok"),
        Answer(200, headers=[("Content-Type", "application/problem+json")], body=b"{}"),
        ok(chunked=True),
        ok(headers=[("Set-Cookie", "a=b; Path=/"), ("X-Other", "y" * 4000)]),
        ok(close=True),
        ok(interim=[100, 102, 103]),
        Answer(200, reason="", headers=[TEXT]),
    ],
)
async def test_acknowledged(spool: Path, answer: Answer) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    with ScriptedServer(answer, answer, answer) as server:
        result = await flush(server, spool)
    assert (result.uploaded, result.failures, result.exit_code) == (3, (), 0)
    assert [request.batch_id for request in server.uploads] == ids(batches)
    assert snapshot(spool) == []
    assert not any("cookie" in request.headers for request in server.requests)


UNEXPECTED = "Unexpected HTTP {status} for {name}"
WEB_PAGE = UNEXPECTED + ": a web page, not an acknowledgement"
NO_ROUTE = (
    "Ingest route /api/traces not available on {origin} (404). Platform may not have shipped the route yet."
)
STOPS = [
    (Answer(404), 404, NO_ROUTE, 1),
    (Answer(401), 401, "Auth rejected (401) for {name}. Run cirron auth login.", 3),
    (Answer(403), 403, "Permission denied (403) for {name}: Forbidden", 3),
    (json_answer({"error": "no\x1b[2J"}, 403), 403, "Permission denied (403) for {name}: no\\x1b[2J", 3),
    (Answer(400), 400, "Rejected {name}: HTTP 400 Bad Request", 1),
    (Answer(409), 409, "Rejected {name}: HTTP 409 Conflict", 1),
    (Answer(413, reason="Too Big\x1b"), 413, "Rejected {name}: HTTP 413 Too Big\\x1b", 1),
    (Answer(422, reason="Unprocessable"), 422, "Rejected {name}: HTTP 422 Unprocessable", 1),
    (html(), 200, WEB_PAGE, 1),
    (Answer(202, body=b"\n <!DOCTYPE html>"), 202, WEB_PAGE, 1),
    (
        Answer(200, headers=[("Content-Type", "image/png")], body=b"PNG"),
        200,
        UNEXPECTED + ": an answer of type image/png, not an acknowledgement",
        1,
    ),
    *((Answer(status), status, UNEXPECTED, 1) for status in (203, 205, 206, 207, 208, 226, 299)),
    *(
        (Answer(status, headers=[("Location", "https://login.example/")]), status, UNEXPECTED, 1)
        for status in (300, 301, 302, 303, 304, 307, 308)
    ),
    *(
        (Answer(status), status, UNEXPECTED, 1)
        for status in (402, 405, 406, 410, 411, 415, 418, 431, 451, 501, 505)
    ),
    *((Answer(status, reason="?"), status, UNEXPECTED, 1) for status in (600, 999)),
]


@pytest.mark.parametrize(("answer", "status", "message", "exit_code"), STOPS)
async def test_stop(spool: Path, answer: Answer, status: int, message: str, exit_code: int) -> None:
    batches = sdk_batches(spool, 4, spans=TINY)
    with ScriptedServer(ok(), answer) as server:
        result = await result_of(server, spool)
    said = message.format(name=batches[1].name, origin=server.url, status=status)
    assert [(f.name, f.status, f.message) for f in result.failures] == [(batches[1].name, status, said)]
    assert (result.uploaded, result.failed, result.skipped, result.untried) == (1, 1, 2, 2)
    assert result.exit_code == exit_code
    assert [request.batch_id for request in server.uploads] == ids(batches[:2])  # once, and nothing later
    assert snapshot(spool) == batches[1:]


NETWORK = "Network error uploading {name}: "
REFUSED = "Upload of {name} was not acknowledged: HTTP %s, but the answer reports an error"
RETRIED = [
    *(
        (Answer(status, reason="Later"), f"Upload of {{name}} failed: HTTP {status} Later")
        for status in (408, 425, 429, 500, 502, 503, 504, 507, 511, 599)
    ),
    (json_answer({"success": False, "message": "full"}), f"{REFUSED}: full" % 200),
    (json_answer({"ok": False}), REFUSED % 200),
    (json_answer({"error": "no"}, 201), f"{REFUSED}: no" % 201),
    (
        Answer(200, headers=[JSON], body=b'{"succ'),
        NETWORK + "HTTP 200, but the answer is not valid JSON",
    ),
    (ok(cut_after=0), NETWORK + "the server closed the connection before it answered"),
    (Answer(raw=b"garbage\r\n\r\n", drop=True), NETWORK + "the answer is not HTTP"),
    (
        Answer(200, headers=[("Content-Length", "9")], body=b"{}", drop=True),
        NETWORK + "the answer was cut",
    ),
]


@pytest.mark.parametrize(("answer", "message"), RETRIED)
async def test_out_of_retries_ends_the_flush(spool: Path, answer: Answer, message: str) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    # The connection of each attempt is a fresh one: a dead one that was kept alive costs none.
    with ScriptedServer(ok(close=True), *[answer] * 4) as server:
        result = await flush(server, spool)
    said = message.format(name=batches[1].name)
    assert [failure.message for failure in result.failures] == [said]
    assert (result.uploaded, result.failed, result.skipped, result.exit_code) == (1, 1, 1, 4)
    assert [request.batch_id for request in server.uploads] == [batches[0].batch_id] + [
        batches[1].batch_id
    ] * 4
    assert snapshot(spool) == batches[1:]


async def test_keep_going_passes_by_what_is_out_of_retries(spool: Path) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    with ScriptedServer(*[Answer(503)] * 2) as server:
        result = await flush(server, spool, keep_going=True, retries=1)
    assert [request.batch_id for request in server.uploads] == ids([batches[0], *batches])
    assert (result.uploaded, result.failed, result.skipped, result.exit_code) == (2, 1, 0, 4)
    assert snapshot(spool) == batches[:1]


async def test_keep_going_does_not_pass_by_a_stop(spool: Path) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    with ScriptedServer(Answer(404)) as server:
        result = await flush(server, spool, keep_going=True)
    assert (result.failed, result.skipped, len(server.uploads)) == (1, 2, 1)
    assert snapshot(spool) == batches


async def test_a_redirect_is_shown_and_not_followed(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    events: list[FlushEvent] = []
    with ScriptedServer() as elsewhere, ScriptedServer() as server:
        server.script(Answer(302, headers=[("Location", f"{elsewhere.url}/\x1b[2Jin")]))
        await flush(server, spool, on_event=events.append)
    assert elsewhere.requests == []
    assert [request.method for request in server.uploads] == ["POST"]
    [failed] = [event for event in events if isinstance(event, Failed)]
    assert failed.hint == (
        f"The server redirects to {elsewhere.url}/\\x1b[2Jin. Redirects are never followed. Set apiUrl to the "
        "address of the platform."
    )


# -- quarantine ------------------------------------------------------------------------------------------------


async def test_quarantine_sets_rejected_batches_aside(spool: Path) -> None:
    batches = sdk_batches(spool, 6, spans=TINY)
    bad = Answer(422, reason="Unprocessable")
    events: list[FlushEvent] = []
    with ScriptedServer(ok(), bad, bad, ok(), Answer(400), ok()) as server:
        inodes = {batch.name: (spool / batch.name).stat().st_ino for batch in batches}
        result = await flush(server, spool, quarantine=True, on_event=events.append)
    quarantine = spool.parent / "quarantine"
    aside = [batches[1], batches[2], batches[4]]
    assert snapshot(quarantine) == aside
    assert {batch.name: (quarantine / batch.name).stat().st_ino for batch in aside} == {
        batch.name: inodes[batch.name] for batch in aside
    }  # renamed, not copied
    assert stat.S_IMODE(os.stat(quarantine).st_mode) == 0o700
    notes = [json.loads((quarantine / f"{batch.name[:-5]}.rejection.json").read_bytes()) for batch in aside]
    assert [(note["name"], note["status"], note["message"]) for note in notes] == [
        (batches[1].name, 422, f"Rejected {batches[1].name}: HTTP 422 Unprocessable"),
        (batches[2].name, 422, f"Rejected {batches[2].name}: HTTP 422 Unprocessable"),
        (batches[4].name, 400, f"Rejected {batches[4].name}: HTTP 400 Bad Request"),
    ]
    assert all(note["rejectedAt"].endswith("Z") for note in notes)
    assert sorted(os.listdir(quarantine)) == sorted(
        [batch.name for batch in aside] + [f"{batch.name[:-5]}.rejection.json" for batch in aside]
    )
    assert (result.uploaded, result.quarantined, result.failed, result.skipped) == (3, 3, 0, 0)
    assert (result.exit_code, result.failures) == (1, ())
    assert [event.name for event in events if isinstance(event, Quarantined)] == [b.name for b in aside]
    assert snapshot(spool) == []


async def test_three_rejected_in_a_row_end_the_flush(spool: Path) -> None:
    batches = sdk_batches(spool, 6, spans=TINY)
    events: list[FlushEvent] = []
    with ScriptedServer(*[Answer(400)] * 6) as server:
        result = await flush(server, spool, quarantine=True, on_event=events.append)
    assert snapshot(spool.parent / "quarantine") == batches[:3]
    assert snapshot(spool) == batches[3:]
    assert (result.quarantined, result.failed, result.skipped, result.exit_code) == (3, 0, 3, 1)
    assert len(server.uploads) == 3
    [warned] = [event.message for event in events if isinstance(event, Warned)]
    assert warned.startswith("3 batches were rejected in a row, so the endpoint may be wrong.")


async def test_a_success_between_two_rejections_starts_the_count_anew(spool: Path) -> None:
    sdk_batches(spool, 7, spans=TINY)
    bad = Answer(400)
    with ScriptedServer(bad, bad, ok(), bad, bad, ok(), bad) as server:
        result = await flush(server, spool, quarantine=True)
    assert (result.uploaded, result.quarantined, result.skipped) == (2, 5, 0)


async def test_three_rejected_in_a_row_after_a_success_end_the_flush(spool: Path) -> None:
    batches = sdk_batches(spool, 6, spans=TINY)
    with ScriptedServer(ok(), *[Answer(400)] * 5) as server:
        result = await flush(server, spool, quarantine=True)
    assert (result.uploaded, result.quarantined, result.skipped) == (1, 3, 2)
    assert snapshot(spool) == batches[4:]


async def test_a_batch_that_cannot_be_set_aside_ends_the_flush(spool: Path) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    taken = spool.parent / "quarantine" / batches[0].name
    taken.parent.mkdir()
    taken.write_bytes(b"an earlier one")
    with ScriptedServer(Answer(400)) as server:
        result = await flush(server, spool, quarantine=True)
    [failure] = result.failures
    assert failure.message == (
        f"Rejected {batches[0].name}: HTTP 400 Bad Request, and it could not be set aside: "
        "a batch of that name is in quarantine already. It stays in the spool"
    )
    assert (result.exit_code, result.skipped) == (1, 2)
    assert taken.read_bytes() == b"an earlier one"
    assert snapshot(spool) == batches


async def test_a_rejected_batch_that_vanished_is_no_failure(spool: Path, deletes: DeleteWatch) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)

    def evict(request: object) -> Answer:
        with deletes.allowed():
            (spool / batches[0].name).unlink()
        return Answer(400)

    with ScriptedServer(evict) as server:
        result = await flush(server, spool, quarantine=True)
    assert (result.uploaded, result.evicted, result.quarantined, result.exit_code) == (1, 1, 0, 0)
    assert snapshot(spool.parent / "quarantine") == []


# -- events ----------------------------------------------------------------------------------------------------


async def test_events_in_order(spool: Path) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    sizes = [len(batch.data) for batch in batches]
    events: list[FlushEvent] = []
    with ScriptedServer(ok(), Answer(503, reason="Busy"), ok(), Answer(404)) as server:
        result = await flush(server, spool, on_event=events.append)
    said = "Upload of %s failed: HTTP 503 Busy"
    retrying = events[4]
    assert isinstance(retrying, Retrying)
    assert 0.001 <= retrying.delay_s <= 0.00125
    missing = NO_ROUTE.format(origin=server.url)
    failed = events[7]
    assert isinstance(failed, Failed)
    assert events == [
        Started(spool, 3, sum(sizes)),
        Sending(batches[0].name, sizes[0]),
        Uploaded(batches[0].name, sizes[0], sizes[0]),
        Sending(batches[1].name, sizes[1]),
        Retrying(batches[1].name, 503, said % batches[1].name, retrying.delay_s, 2, "HTTP 503 Busy"),
        Sending(batches[2].name, sizes[2]),
        Uploaded(batches[1].name, sizes[1], sizes[1]),  # deleted while the next is on its way
        Failed(batches[2].name, 404, missing, failed.hint, is_common=True),
        Ended(result),
    ]


@pytest.mark.parametrize("made", [True, False])
async def test_nothing_to_flush(spool: Path, made: bool) -> None:
    if made:
        folder(spool)
        (spool / "00000000000000000001-0a.json.tmp").write_bytes(b"{}")
        (spool / "00000000000000000001-0A.json").write_bytes(b"{}")
        (spool / "notes.json").write_bytes(b"{}")
    before = sorted(os.listdir(spool)) if made else []
    events: list[FlushEvent] = []
    result = await flush_spool(spool, on_event=events.append)  # and no credentials are needed for it
    assert result == FlushResult(spool, seconds=result.seconds, exists=made)
    assert events == [Started(spool, 0, 0), Ended(result)]
    assert (sorted(os.listdir(spool)) if made else []) == before
    assert there(spool) is made


@pytest.mark.parametrize("kind", [Started, Sending, Uploaded, Ended])
async def test_a_callback_that_raises_loses_nothing(spool: Path, kind: type[FlushEvent]) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)

    def raise_at(event: FlushEvent) -> None:
        if isinstance(event, kind):
            raise ZeroDivisionError("of the caller")

    with ScriptedServer() as server:
        with pytest.raises(ZeroDivisionError, match="of the caller"):
            await flush(server, spool, on_event=raise_at)
        left = snapshot(spool)
        assert left == batches[len(batches) - len(left) :]
        assert len(left) == {Started: 3, Sending: 3, Uploaded: 2, Ended: 0}[kind]
        assert (await flush(server, spool)).exit_code == 0


@pytest.mark.parametrize("method", ["open_batch", "delete"])
@pytest.mark.parametrize("in_flight", [1, 3])
async def test_a_bug_is_raised_and_loses_nothing(
    spool: Path, monkeypatch: pytest.MonkeyPatch, method: str, in_flight: int
) -> None:
    """What no table foresees, in the thread that works on the disk, is an error of the flush and no hang."""
    batches = sdk_batches(spool, 8, spans=TINY)
    real = getattr(SpoolDirectory, method)

    def failing(self: SpoolDirectory, name: str, *args: object) -> object:
        if name == batches[3].name:
            raise ZeroDivisionError("a bug")
        return real(self, name, *args)

    monkeypatch.setattr(SpoolDirectory, method, failing)
    events: list[FlushEvent] = []
    with ScriptedServer() as server:
        with pytest.raises(ZeroDivisionError, match="a bug"):
            await flush(server, spool, in_flight=in_flight, on_event=events.append)
        left = snapshot(spool)
        assert left == batches[len(batches) - len(left) :]
        assert batches[3] in left
        assert isinstance(events[-1], Ended)
        monkeypatch.undo()
        assert (await flush(server, spool)).exit_code == 0
    assert server.delivered == {batch.batch_id: batch.data for batch in batches}


# -- files that are no batches, or trouble ---------------------------------------------------------------------


async def test_empty_files_are_said_and_left(spool: Path) -> None:
    write_batch(spool, 1, "0a", b"")
    write_batch(spool, 2, "0b", b"{}")
    write_batch(spool, 3, "0c", b"")
    events: list[FlushEvent] = []
    with ScriptedServer() as server:
        result = await flush(server, spool, on_event=events.append)
    assert server.deliveries == [("0b", b"{}")]
    assert (result.uploaded, result.failed, result.skipped, result.untried, result.exit_code) == (
        1,
        0,
        2,
        0,
        1,
    )
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert {message.partition(": ")[2] for message in warned} == {
        "the file is empty, perhaps after a power cut. Check it, then delete it."
    }
    assert [message.split(":")[0] for message in warned] == [
        "Skipped 00000000000000000001-0a.json",
        "Skipped 00000000000000000003-0c.json",
    ]
    assert [batch.data for batch in snapshot(spool)] == [b"", b""]


async def test_only_regular_files_are_batches(
    spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_batch(spool, 5, "0e", b"{}")
    target = tmp_path / "secret"
    target.write_bytes(b'{"secret":1}')
    (spool / "00000000000000000001-0a.json").symlink_to(target)
    os.mkfifo(spool / "00000000000000000002-0b.json")
    (spool / "00000000000000000003-0c.json").mkdir()
    monkeypatch.chdir(spool)  # a socket's path has no room for a long folder
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("00000000000000000004-0d.json")
    (spool / "00000000000000000006-0f.json").symlink_to(tmp_path / "dangling")
    events: list[FlushEvent] = []
    with ScriptedServer() as server:
        result = await flush(server, spool, on_event=events.append)
    assert server.deliveries == [("0e", b"{}")]
    assert (result.uploaded, result.skipped, result.exit_code) == (1, 0, 0)
    [warned] = [event.message for event in events if isinstance(event, Warned)]
    assert warned == (
        "5 entries with a batch's name are not regular files, such as "
        "00000000000000000001-0a.json (a symbolic link). Move that out of the spool."
    )
    assert len(os.listdir(spool)) == 5 and target.read_bytes() == b'{"secret":1}'


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "socket"])
async def test_what_takes_a_batchs_place_after_the_listing_is_left_alone(
    spool: Path, tmp_path: Path, kind: str, deletes: DeleteWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sdk_batches(spool, 2, spans=TINY)
    monkeypatch.chdir(spool)  # a socket's path has no room for a long folder
    secret = tmp_path / "secret"
    secret.write_bytes(b"{}")
    place = spool / first.name

    events: list[FlushEvent] = []
    listing = SpoolDirectory.listing

    def then_swap(directory: SpoolDirectory) -> Listing:
        listed = listing(directory)
        with deletes.allowed():
            place.unlink()
        if kind == "link":
            place.symlink_to(secret)
        elif kind == "fifo":
            os.mkfifo(place)
        elif kind == "folder":
            place.mkdir()
        else:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(first.name)
        return listed

    monkeypatch.setattr(SpoolDirectory, "listing", then_swap)
    with ScriptedServer() as server:
        result = await flush(server, spool, on_event=events.append)
    assert server.deliveries == [(second.batch_id, second.data)]
    assert (result.uploaded, result.skipped, result.exit_code) == (1, 1, 1)
    words = {"link": "a symbolic link", "fifo": "a named pipe", "folder": "a folder", "socket": "a socket"}[
        kind
    ]
    assert [event.message for event in events if isinstance(event, Warned)] == [
        f"Skipped {first.name}: it is {words}."
    ]
    assert there(place)


@pytest.mark.parametrize("call", ["open", "read"])
@pytest.mark.parametrize("keep_going", [False, True])
async def test_an_unreadable_batch_stays(
    spool: Path, monkeypatch: pytest.MonkeyPatch, call: str, keep_going: bool
) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    real_open, real_read = os.open, os.read
    bad: set[int] = set()

    # The tests may run as root, whom no mode keeps out, and a failing disk cannot be had: the calls fail instead.
    def failing_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        mine = path == batches[1].name
        if mine and call == "open":
            raise PermissionError(13, "Permission denied", path)
        fd = real_open(path, flags, mode, dir_fd=dir_fd)
        if mine:
            bad.add(fd)
        return fd

    def failing_read(fd: int, size: int) -> bytes:
        if fd in bad:
            bad.remove(fd)
            raise OSError(5, "Input/output error")
        return real_read(fd, size)

    monkeypatch.setattr(os, "open", failing_open)
    monkeypatch.setattr(os, "supports_dir_fd", {*os.supports_dir_fd, failing_open})
    monkeypatch.setattr(os, "read", failing_read)
    with ScriptedServer() as server:
        result = await flush(server, spool, keep_going=keep_going)
    monkeypatch.undo()
    why = "Permission denied" if call == "open" else "Input/output error"
    assert [(f.name, f.status, f.message) for f in result.failures] == [
        (batches[1].name, None, f"Cannot read {batches[1].name}: {why}. It stays in the spool.")
    ]
    left = batches[1:2] if keep_going else batches[1:]
    assert snapshot(spool) == left
    assert (result.uploaded, result.failed, result.skipped) == (3 - len(left), 1, len(left) - 1)
    assert result.exit_code == 1


# -- the directory ---------------------------------------------------------------------------------------------


async def test_a_file_in_the_spools_place(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_bytes(b"")
    with pytest.raises(SpoolError, match=f"{path} is not a directory") as caught:
        await flush_spool(path)
    assert caught.value.exit_code == 2


async def test_a_link_to_the_spool_is_resolved_once(tmp_path: Path) -> None:
    real, other, link = tmp_path / "real", tmp_path / "other", tmp_path / "link"
    batches, others = sdk_batches(real, 3, spans=TINY), sdk_batches(other, 3, spans=TINY, seed=1)
    link.symlink_to(real)

    def repoint(event: FlushEvent) -> None:
        if isinstance(event, Started):
            link.unlink()
            link.symlink_to(other)

    with ScriptedServer() as server:
        result = await flush(server, link, on_event=repoint)
    assert server.deliveries == [(batch.batch_id, batch.data) for batch in batches]
    assert (result.directory, result.uploaded) == (link, 3)
    assert (snapshot(real), snapshot(other)) == ([], others)
    assert sorted(os.listdir(real)) == []  # and its lock is gone


async def test_a_spool_deleted_meanwhile_is_nothing_to_do(spool: Path, deletes: DeleteWatch) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    gate = Gate()

    def remove(event: FlushEvent) -> None:
        if isinstance(event, Started):
            with deletes.allowed():
                for batch in batches:
                    (spool / batch.name).unlink()

    with ScriptedServer(ok(stall_before=gate)) as server:
        gate.open()
        result = await flush(server, spool, on_event=remove)
    assert (result.uploaded + result.evicted, result.failed, result.exit_code) == (3, 0, 0)


async def test_a_read_only_directory_is_noticed_before_the_first_post(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    # Root may write everywhere, and a read-only mount needs rights that tests have not: what is asked says no.
    monkeypatch.setattr(os, "access", lambda *args, **more: False)
    events: list[FlushEvent] = []
    with ScriptedServer() as server, pytest.raises(SpoolError, match="No write permission") as caught:
        await flush(server, spool, on_event=events.append)
    assert server.requests == []
    assert caught.value.exit_code == 1
    assert str(spool) in str(caught.value)
    assert caught.value.result is not None
    assert (caught.value.result.skipped, caught.value.result.uploaded) == (2, 0)
    assert events == [Ended(caught.value.result)]
    assert snapshot(spool) == batches


async def test_a_directory_that_cannot_be_opened(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk_batches(spool, 1, spans=TINY)
    real_open = os.open

    # As above: no mode keeps root out.
    def failing_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == spool:
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", failing_open)
    with pytest.raises(SpoolError, match=f"Cannot read {spool}: Permission denied"):
        await flush_spool(spool, token=TOKEN)


@pytest.mark.parametrize("failing_listing", [1, 2])
async def test_a_directory_that_cannot_be_listed(
    spool: Path, monkeypatch: pytest.MonkeyPatch, failing_listing: int
) -> None:
    sdk_batches(spool, 1, spans=TINY)
    real_scandir, calls = os.scandir, 0

    # A failing disk: the listing for "is there anything" or the one that counts.
    def failing_scandir(path: Any = ".") -> Any:
        nonlocal calls
        calls += isinstance(path, int)
        if isinstance(path, int) and calls == failing_listing:
            raise OSError(5, "Input/output error")
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", failing_scandir)
    with (
        ScriptedServer() as server,
        pytest.raises(SpoolError, match=f"Cannot list {spool}: Input/output error") as caught,
    ):
        await flush(server, spool)
    assert caught.value.exit_code == 1
    assert caught.value.result is None or caught.value.result.exit_code == 1
    assert server.uploads == []


# -- the lock --------------------------------------------------------------------------------------------------


async def test_the_second_flush_of_a_spool_ends_at_once(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    gate = Gate()
    results: list[FlushResult] = []
    with ScriptedServer(ok(stall_before=gate)) as server:
        async with anyio.create_task_group() as group:

            async def first() -> None:
                results.append(await flush(server, spool))

            group.start_soon(first)
            await server.arrived(1)
            assert (spool / LOCK_NAME).exists()
            with pytest.raises(SpoolBusyError, match=f"Another cirron-spool is working on {spool}") as caught:
                await flush(server, spool)
            assert len(server.uploads) == 1
            gate.open()
    assert caught.value.exit_code == 4
    assert caught.value.result is not None
    assert (caught.value.result.uploaded, caught.value.result.skipped) == (0, 2)
    assert caught.value.result.exit_code == 4
    assert results[0].uploaded == len(batches)
    assert os.listdir(spool) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOLCK, errno.EINVAL, 524])
async def test_neither_a_lock_nor_a_record_can_be_had(
    spool: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    sdk_batches(spool, 2, spans=TINY)

    def refuse(fd: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    # A network file system without locks, on a full disk, cannot be had here.
    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(RecordFiles, "create", lambda *_: refuse(0, 0))
    events: list[FlushEvent] = []
    with ScriptedServer() as server:
        result = await flush(server, spool, on_event=events.append)
    said = f"{spool} cannot be locked: {os.strerror(number)}. Do not run two flushes on it at the same time."
    assert [event.message for event in events if isinstance(event, Warned)] == [said]
    assert (result.uploaded, result.exit_code) == (2, 0)


async def test_a_lock_that_cannot_be_made_is_said_though_the_flush_ends_at_once(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk_batches(spool, 2, spans=TINY)
    monkeypatch.setattr(SpoolDirectory, "lock", lambda directory: "no locks here")
    monkeypatch.setenv("HTTPS_PROXY", "ftp://192.0.2.1")
    events: list[FlushEvent] = []
    with pytest.raises(ConfigError, match="The proxy in HTTPS_PROXY cannot be used") as caught:
        await flush_spool(spool, api_url="https://platform.test", token=TOKEN, on_event=events.append)
    assert [event.message for event in events if isinstance(event, Warned)] == ["no locks here"]
    assert caught.value.result is not None
    assert events[-1] == Ended(caught.value.result)
    assert (caught.value.result.skipped, caught.value.result.exit_code) == (2, 2)


async def test_a_folder_in_the_locks_place_is_locked_in_its_stead(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    (spool / LOCK_NAME).mkdir()
    with ScriptedServer() as server, SpoolDirectory(spool) as other:
        assert other.open()
        assert other.lock() == ""
        with pytest.raises(SpoolBusyError):
            await flush(server, spool)
        assert server.uploads == []
        other.unlock()
        result = await flush(server, spool)
    assert (result.uploaded, result.warnings) == (1, ())
    assert os.listdir(spool) == [LOCK_NAME]


@pytest.mark.parametrize("ending", ["done", "stopped", "refused"])
async def test_the_lock_is_free_after_any_ending(spool: Path, ending: str) -> None:
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer(Answer({"done": 200, "stopped": 404, "refused": 401}[ending])) as server:
        await result_of(server, spool)
        with SpoolDirectory(spool) as directory:
            assert directory.lock() == ""
        assert not (spool / LOCK_NAME).exists()


# -- stop ------------------------------------------------------------------------------------------------------


async def test_stop_lets_the_batch_in_flight_be_acknowledged(spool: Path) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    gate, stop = Gate(), anyio.Event()
    results: list[FlushResult] = []
    with ScriptedServer(ok(), ok(stall_before=gate)) as server:
        async with anyio.create_task_group() as group:

            async def run() -> None:
                results.append(await flush(server, spool, stop=stop))

            group.start_soon(run)
            await server.arrived(2)
            stop.set()
            await anyio.wait_all_tasks_blocked()
            gate.open()
    assert snapshot(spool) == batches[2:]
    [result] = results
    assert (result.uploaded, result.failed, result.skipped, result.exit_code) == (2, 0, 1, 4)
    assert [request.batch_id for request in server.uploads] == ids(batches[:2])


async def test_stop_abandons_what_is_not_acknowledged_in_time(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four seconds of grace would only be waited for; what follows them is the same after fifty milliseconds.
    monkeypatch.setattr("cirron_spool.pipeline.runner.GRACE_S", 0.05)
    batches = sdk_batches(spool, 3, spans=TINY)
    stop = anyio.Event()
    results: list[FlushResult] = []
    with ScriptedServer(ok(), ok(hang=True)) as server:
        async with anyio.create_task_group() as group:

            async def run() -> None:
                results.append(await flush(server, spool, stop=stop))

            group.start_soon(run)
            await server.arrived(2)
            stop.set()
    assert snapshot(spool) == batches[1:]
    [result] = results
    assert (result.uploaded, result.failed, result.skipped, result.exit_code) == (1, 0, 2, 4)
    assert result.failures == ()


async def test_stop_does_not_wait_for_the_next_attempt(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real delays: an hour of Retry-After would not be waited for either
    batches = sdk_batches(spool, 2, spans=TINY)
    stop = anyio.Event()
    delays: list[float] = []

    def hear(event: FlushEvent) -> None:
        if isinstance(event, Retrying):
            delays.append(event.delay_s)
            stop.set()

    with ScriptedServer(Answer(503), Answer(503, headers=[("Retry-After", "110")])) as server:
        result = await flush(server, spool, stop=stop, on_event=hear)
        assert 1.0 <= delays[0] <= 1.25
        assert (result.uploaded, result.failed, result.skipped, result.exit_code) == (0, 0, 2, 4)
        stop = anyio.Event()
        result = await flush(server, spool, stop=stop, on_event=hear)
    assert delays[1] == 110.0
    assert (result.failed, result.exit_code) == (0, 4)
    assert snapshot(spool) == batches


async def test_stop_before_the_first_batch(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    stop = anyio.Event()
    stop.set()
    with ScriptedServer() as server:
        server.on("GET", "/api/cli/status", ok(hang=True))
        result = await flush(server, spool, stop=stop)
    assert server.uploads == []
    assert (result.skipped, result.exit_code) == (2, 4)
    assert snapshot(spool) == batches


async def test_a_failure_in_the_grace_is_no_retry(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    stop, gate = anyio.Event(), Gate()
    results: list[FlushResult] = []
    with ScriptedServer(Answer(503, stall_before=gate)) as server:
        async with anyio.create_task_group() as group:

            async def run() -> None:
                results.append(await flush(server, spool, stop=stop))

            group.start_soon(run)
            await server.arrived(1)
            stop.set()
            await anyio.wait_all_tasks_blocked()
            gate.open()
    assert (len(server.uploads), results[0].failed, results[0].skipped, results[0].exit_code) == (1, 0, 2, 4)
    assert snapshot(spool) == batches


# -- arguments -------------------------------------------------------------------------------------------------


async def listen_asynchronously(event: FlushEvent) -> None:
    """No listener: nothing awaits it."""


class AsynchronousListener:
    """No listener either."""

    async def __call__(self, event: FlushEvent) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"in_flight": 0}, "in_flight must be a whole number from 1 to 64"),
        ({"in_flight": 65}, "in_flight must be a whole number from 1 to 64"),
        ({"in_flight": "4"}, "in_flight must be a whole number from 1 to 64"),
        ({"in_flight": 2.5}, "in_flight must be a whole number from 1 to 64"),
        ({"in_flight": True}, "in_flight must be a whole number from 1 to 64"),
        ({"tuning": {"prefetch_batches": 8}}, "tuning must be a Tuning, not dict"),
        ({"selection": {"limit": 1}}, "selection must be a Selection, not dict"),
        ({"tuning": Tuning(prefetch_batches=0)}, "prefetch_batches must be"),
        ({"tuning": cast("Any", Tuning)(prefetch_batches=1.5)}, "prefetch_batches must be"),
        ({"tuning": cast("Any", Tuning)(prefetch_bytes="4M")}, "prefetch_bytes must be"),
        ({"tuning": cast("Any", Tuning)(gzip_level=1.0)}, "gzip_level must be"),
        ({"tuning": cast("Any", Tuning)(disk_work=["inline"])}, "disk_work must be one of"),
        ({"tuning": Tuning(prefetch_bytes=0)}, "prefetch_bytes must be"),
        ({"tuning": Tuning(chunk_bytes=0)}, "chunk_bytes must be"),
        ({"tuning": Tuning(gzip_library="brotli")}, "no gzip library 'brotli'"),
        ({"tuning": Tuning(gzip_library="zlib", gzip_level=0)}, "There is no gzip level 0 in zlib."),
        ({"retries": -1}, "retries must be a whole number from 0"),
        ({"timeout_ms": 0}, "timeout_ms must be a whole number from 1"),
        ({"api_url": "ftp://127.0.0.1"}, "is not a web address"),
        ({"api_url": "http://127.0.0.1/?a=b"}, "must not hold a user, a password, a query"),
        ({"token": "a b"}, "has characters that are not allowed"),
        # Of another type: an option that was given is never passed over for a lower place.
        ({"api_url": URL("http://127.0.0.1")}, "api_url must be a text, not URL"),
        ({"token": b"sk-bytes"}, "token must be a text, not bytes"),
        ({"config_path": 5}, "config_path must be a path, not int"),
        ({"allow_http": "yes"}, "allow_http is not true or false"),
        # Nothing would await the one; the other would block the event loop.
        ({"on_event": listen_asynchronously}, "on_event must be an ordinary function"),
        ({"on_event": partial(listen_asynchronously)}, "on_event must be an ordinary function"),
        ({"on_event": AsynchronousListener()}, "on_event must be an ordinary function"),
        ({"on_event": []}, "on_event must be a function, not list"),
        ({"stop": threading.Event()}, "stop must be an asyncio.Event"),
        ({"stop": True}, "stop must be an asyncio.Event"),
    ],
)
async def test_arguments_are_refused_before_anything_is_sent(
    spool: Path, options: dict[str, object], said: str
) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer() as server, pytest.raises(ConfigError, match=said) as caught:
        await flush(server, spool, **options)
    assert server.requests == []
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, CirronSpoolError)
    assert snapshot(spool) == batches


async def test_without_credentials(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer() as server:
        with pytest.raises(NotAuthenticatedError) as caught:
            await flush(server, spool, token=None)
        assert server.requests == []
    assert str(caught.value) == "Not authenticated. Run cirron auth login first."
    assert caught.value.exit_code == 3
    assert caught.value.result is not None
    assert (caught.value.result.skipped, caught.value.result.exit_code) == (2, 3)
    assert "CIRRON_API_KEY" in caught.value.hint
    assert snapshot(spool) == batches


async def test_the_default_directory_and_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    mine = sdk_batches(here / ".cirron" / "spool", 1, spans=TINY)
    other = sdk_batches(there / "spool", 1, spans=TINY, seed=1)
    monkeypatch.chdir(here)
    with ScriptedServer() as server:
        result = await flush_spool(api_url=server.url, token=TOKEN)
        assert result.directory == here / ".cirron" / "spool"
        monkeypatch.setenv("CIRRON_OUTPUT_DIR", str(there))
        assert (await flush_spool(api_url=server.url, token=TOKEN)).directory == there / "spool"
    assert ids([*mine, *other]) == [name for name, _ in server.deliveries]


# -- the harness's loop ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", [1, 4])
async def test_the_event_loop_is_never_blocked(spool: Path, in_flight: int) -> None:
    sdk_batches(spool, 20, spans=(0, 60))
    answers = [ok()] * 3 + [Answer(503), ok(), Answer(400), Answer(400)]
    with ScriptedServer(*answers) as server:
        with no_blocking_calls():
            result = await flush(server, spool, in_flight=in_flight, quarantine=True)
    assert (result.uploaded, result.quarantined) == (18, 2)


@pytest.mark.thorough
async def test_a_ticker_in_the_same_loop_goes_on(spool: Path) -> None:
    sdk_batches(spool, 5, spans=2000)
    ticks, gate = 0, Gate()

    async def tick() -> None:
        nonlocal ticks
        while True:
            await anyio.lowlevel.checkpoint()
            ticks += 1
            if ticks == 1000:
                gate.open()

    # The first answer is given only once the ticker has ticked a thousand times beside the flush.
    with ScriptedServer(ok(stall_before=gate)) as server:
        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            result = await flush(server, spool)
            group.cancel_scope.cancel()
    assert result.uploaded == 5


async def test_two_spools_in_one_loop(tmp_path: Path) -> None:
    one, two = sdk_batches(tmp_path / "1", 5, spans=TINY), sdk_batches(tmp_path / "2", 5, spans=TINY, seed=1)
    with ScriptedServer() as server:
        async with anyio.create_task_group() as group:
            for name in ("1", "2"):
                group.start_soon(flush, server, tmp_path / name)
    assert server.delivered == {batch.batch_id: batch.data for batch in one + two}
    assert server.connections == 2


async def test_seconds_are_those_of_the_flush(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer() as server:
        began = time.monotonic()
        result = await flush(server, spool)
        assert 0 < result.seconds <= time.monotonic() - began
