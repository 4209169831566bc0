from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cirron_spool.errors import ConfigError, SpoolBusyError
from cirron_spool.receiver.store import Upload
from cirron_spool.spool.names import batch_id_of, parse_batch_name

from .conftest import TOKEN, Start

pytestmark = pytest.mark.anyio

BEARER = {"Authorization": f"Bearer {TOKEN}"}


async def test_batches_of_the_sdk_are_stored_byte_for_byte(start: Start, sdk_spool: list[Path]) -> None:
    async with start() as peer:
        for path in sdk_spool:
            batch = parse_batch_name(path.name)
            assert batch is not None
            answer = await peer.post_gzip(path.read_bytes(), batch.batch_id)
            assert answer.status == 200
            assert answer.body == {"success": True, "batchId": batch.batch_id, "duplicate": False}
        assert peer.names == [path.name for path in sdk_spool]
        for path in sdk_spool:
            assert (peer.folder / path.name).read_bytes() == path.read_bytes()


async def test_bare_nan_plain_bodies_and_chunks_without_a_length(start: Start) -> None:
    text = b'{ "created_ns" : 5, "marks": [{"value": NaN}, {"value": -Infinity}], "a": 1, "a": 2 }\n'

    async def in_chunks() -> AsyncIterator[bytes]:
        for place in range(0, len(text), 7):
            yield text[place : place + 7]

    async with start() as peer:
        assert (await peer.post(text, "a1")).status == 200
        assert (await peer.post(text, "a2", Content_Encoding="identity")).status == 200
        assert (await peer.post(in_chunks(), "a3")).status == 200
        assert (await peer.post_gzip(text, "a4")).status == 200
        assert [(peer.folder / name).read_bytes() for name in peer.names] == [text] * 4


async def test_a_duplicate_is_acknowledged_and_not_stored_again(start: Start) -> None:
    async with start() as peer:
        first = await peer.post(b'{"created_ns":1}')
        second = await peer.post(b'{"created_ns":1}')
        assert [first.body["duplicate"], second.body["duplicate"]] == [False, True]
        assert second.status == 200
        assert peer.names == ["00000000000000000001-ab.json"]
    async with start() as peer:
        assert (await peer.post(b'{"created_ns":1}')).body["duplicate"] is True


async def test_the_same_batch_from_many_at_once(start: Start) -> None:
    async with start() as peer:
        answers = await asyncio.gather(*(peer.post_gzip(b'{"created_ns":1}') for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        assert sum(not answer.body["duplicate"] for answer in answers) == 1
        assert len(peer.names) == 1


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", TOKEN[:-1], "ü"])
async def test_a_wrong_token_is_refused_everywhere(start: Start, token: str | None) -> None:
    async with start() as peer:
        refused = await peer.post(b"{}", token=token)
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert refused.body == {"success": False, "error": "The token is not accepted."}
        head = {} if token is None else {"Authorization": f"Bearer {token}"}
        status = await peer.request("GET", "/api/cli/status", headers=head)
        assert (status.status, status.body["valid"]) == (401, False)
        assert peer.names == []


@pytest.mark.parametrize("head", [f"Basic {TOKEN}", TOKEN, f"Bearer{TOKEN}"])
async def test_only_a_bearer_counts(start: Start, head: str) -> None:
    async with start() as peer:
        answer = await peer.request("GET", "/api/cli/status", headers={"Authorization": head})
        assert answer.status == 401


async def test_status(start: Start) -> None:
    async with start() as peer:
        answer = await peer.request("GET", "/api/cli/status", headers={"Authorization": f"bearer  {TOKEN}"})
        assert (answer.status, answer.body["valid"]) == (200, True)
        assert set(answer.body) == {"valid", "token", "user", "organization"}
        assert set(answer.body["user"]) == {"email", "name"}
        assert answer.body["token"] == {"name": "receiver", "expiresAt": None}  # the fixed token stays valid


async def test_without_a_token_everybody_is_welcome(start: Start) -> None:
    async with start(token=None) as peer:
        assert (await peer.post(b"{}", token=None)).status == 200
        assert (await peer.post(b"{}", "cd", token="any")).status == 200
        assert (await peer.request("GET", "/api/cli/status")).status == 200


async def refresh(peer: Any, body: Any) -> Any:
    return await peer.request(
        "POST", "/api/cli/auth/refresh", data=body if isinstance(body, bytes) else json.dumps(body)
    )


async def test_a_refresh_token_works_once_and_is_replaced(start: Start) -> None:
    async with start(refresh_token="first") as peer:
        assert (await refresh(peer, {"refresh_token": "wrong"})).status == 401
        issued = await refresh(peer, {"refresh_token": "first"})
        assert issued.status == 200
        assert set(issued.body) == {"access_token", "refresh_token", "expires_in", "token_type"}
        assert (issued.body["token_type"], issued.body["expires_in"]) == ("Bearer", 3600)
        assert (await peer.post(b"{}", "a1", token=issued.body["access_token"])).status == 200
        assert (await peer.post(b"{}", "a2")).status == 200  # the fixed token stays
        assert (await refresh(peer, {"refresh_token": "first"})).status == 401
        again = await refresh(peer, {"refresh_token": issued.body["refresh_token"]})
        assert again.status == 200
        assert again.body["access_token"] != issued.body["access_token"]


@pytest.mark.parametrize(
    "body",
    [b"", b"no", b"[]", b'"x"', b"{}", b'{"refresh_token":7}', b'{"refresh_token":null}', b"[" * 60_000],
)
async def test_refresh_requests_that_make_no_sense(start: Start, body: bytes) -> None:
    async with start(refresh_token="first") as peer:
        assert (await refresh(peer, body)).status == 400


async def test_a_refresh_request_is_small(start: Start) -> None:
    async with start(refresh_token="first") as peer:
        assert (await refresh(peer, {"refresh_token": "x" * 100_000})).status == 413


async def test_refresh_without_a_refresh_token(start: Start, tmp_path: Path) -> None:
    async with start() as peer:
        assert (await refresh(peer, {"refresh_token": TOKEN})).status == 401
    async with start(token=None, store=tmp_path / "open") as peer:
        assert (await refresh(peer, {"refresh_token": "any"})).status == 200
        assert (await refresh(peer, {"refresh_token": ""})).status == 401
        assert (await refresh(peer, {"refresh_token": "\ud800"})).status == 200


async def test_a_refresh_token_alone_closes_the_door(start: Start) -> None:
    async with start(token=None, refresh_token="first") as peer:
        assert (await peer.post(b"{}", token=None)).status == 401
        issued = await refresh(peer, {"refresh_token": "first"})
        assert (await peer.post(b"{}", token=issued.body["access_token"])).status == 200


@pytest.mark.parametrize("batch_id", [None, "", "AB", "../../ab", "a" * 129, "0x1", "ab cd"])
async def test_identifiers_that_do_not_fit(start: Start, batch_id: str | None) -> None:
    async with start() as peer:
        assert (await peer.post(b"{}", batch_id)).status == 400
        assert peer.names == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no",
        b"[]",
        b"{}x",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' + b"9" * 5_000 + b".}",
        b'{"created_ns":-1}',
        b'{"a":"\xff"}',
    ],
)
async def test_bodies_that_are_no_batch(start: Start, body: bytes) -> None:
    async with start() as peer:
        for answer in (await peer.post(body), await peer.post_gzip(body)):
            assert answer.status == 400
            assert answer.body["success"] is False
        assert peer.names == []
        assert (await peer.post(b"{}")).status == 200


async def test_bodies_that_are_not_the_gzip_they_are_said_to_be(start: Start) -> None:
    packed = gzip.compress(b'{"a":"' + os.urandom(300_000).hex().encode() + b'"}')
    async with start() as peer:
        for body in (b"{}", packed[:-1], packed[:200_000], packed + b"x", b""):
            answer = await peer.post(body, Content_Encoding="gzip")
            assert answer.status == 400
            assert "gzip" in answer.body["error"]
        assert (await peer.post(packed)).status == 400  # gzip that does not say so
        assert (await peer.post(packed, Content_Encoding="br")).status == 415
        assert (await peer.post(packed + gzip.compress(b"\n"), Content_Encoding="gzip")).status == 200
        assert len(peer.names) == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/", 404, None),
        ("POST", "/api/traces/", 404, None),
        ("POST", "/api/traces/../x", 404, None),
        ("GET", "/api/traces", 405, "POST"),
        ("PUT", "/api/traces", 405, "POST"),
        ("POST", "/api/cli/status", 405, "GET, HEAD"),
        ("GET", "/api/cli/auth/refresh", 405, "POST"),
        ("POST", "/health", 405, "GET, HEAD"),
        ("DELETE", "/health", 405, "GET, HEAD"),
        ("PUT", "/device", 405, "GET, HEAD, POST"),
        ("GET", "/device/", 404, None),
        ("POST", "/api/traces/blobs/snapshots/ab/weights.safetensors", 405, "PUT"),
        ("GET", "/api/traces/blobs/", 405, "PUT"),
    ],
)
async def test_other_routes_and_methods(
    start: Start, method: str, path: str, status: int, allow: str | None
) -> None:
    async with start() as peer:
        answer = await peer.request(method, path, headers=BEARER)
        assert (answer.status, answer.headers.get("Allow")) == (status, allow)
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.body["success"] is False


@pytest.mark.parametrize(("number", "status"), [("ENOSPC", 507), ("EDQUOT", 507), ("EIO", 500)])
async def test_what_cannot_be_stored_is_not_acknowledged(
    start: Start, monkeypatch: pytest.MonkeyPatch, number: str, status: int
) -> None:
    import errno

    code = getattr(errno, number)
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    async with start() as peer:
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", full)
            answer = await peer.post(b"{}")
            assert answer.status == status
            assert answer.body == {
                "success": False,
                "error": f"Could not store a batch in {peer.folder}: {os.strerror(code)}.",
            }
        [line] = peer.said
        assert re.fullmatch(
            rf"{TIME} Refused {status} from 127\.0\.0\.1:\d+: Could not store a batch in .+\.", line
        )
        assert peer.names == []
        assert (await peer.post(b"{}")).body["duplicate"] is False


TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


async def test_verbose_says_a_line_a_request_and_silence_is_the_default(start: Start, tmp_path: Path) -> None:
    async with start(verbose=True) as peer:
        await peer.post(b'{"created_ns":1}')
        await peer.post(b'{"created_ns":1}')
        await peer.post(b"no", "cd")
        await peer.post(b"{}", token="sk-guessed")
        await peer.request("GET", "/health")
        reader, writer = await peer.connect()
        writer.write(b"GARBAGE\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()
        name = "00000000000000000001-ab.json"
        client = r"127\.0\.0\.1:\d+"
        for line, expected in zip(
            peer.said,
            (
                rf"Stored {name} \(16 B\) from {client}",
                rf"Duplicate of {name} from {client}",
                rf"Refused 400 from {client}: The body is not JSON: unexpected 'no'\.",
                rf"Refused 401 from {client}: The token is not accepted\.",
                rf"Refused 400 from {client}: The request line is not METHOD TARGET HTTP/1\.1\.",
            ),
            strict=True,
        ):
            assert re.fullmatch(f"{TIME} {expected}", line), line
        assert (
            peer.receiver.journal.totals()
            == "Received 1 batch (16 B), 1 duplicate, 3 refused (1 for the token)."
        )
    async with start(store=tmp_path / "other") as peer:
        await peer.post(b"{}")
        await peer.post(b"no")
        assert peer.said == []
        assert peer.receiver.journal.totals() == "Received 1 batch (2 B), 0 duplicates, 1 refused."


async def test_another_batch_under_a_known_identifier_is_refused_and_always_told(start: Start) -> None:
    async with start() as peer:
        assert (await peer.post(b'{"created_ns":1}')).status == 200
        refused = await peer.post_gzip(b'{"created_ns":2}')
        assert refused.status == 409
        assert refused.body["error"] == (
            "A different batch with this identifier is stored as 00000000000000000001-ab.json."
        )
        [line] = peer.said
        assert "Refused 409 from 127.0.0.1:" in line
        assert peer.names == ["00000000000000000001-ab.json"]
        assert (await peer.post_gzip(b'{"created_ns":1}')).body["duplicate"] is True


async def test_health(start: Start) -> None:
    async with start() as peer:
        await peer.post(b'{"created_ns":1}')
        await peer.post(b'{"created_ns":1}')
        await peer.post(b"{}", token=None)
        health = await peer.request("GET", "/health")
        assert (health.status, health.headers["Content-Type"]) == (200, "application/json")
        assert health.body == {
            "status": "ok",
            "batches": 1,
            "received": 1,
            "duplicates": 1,
            "snapshots": 0,
            "signIns": 0,
            "refused": 1,
            "bytes": 16,
        }
        async with peer.session.head(peer.receiver.url + "/health?x=1") as answer:
            assert answer.status == 200
            assert int(answer.headers["Content-Length"]) > 0
            assert await answer.read() == b""
        # The connection goes on: nothing of a body was sent.
        assert (await peer.request("GET", "/health")).status == 200


async def test_health_tells_what_is_there_now(start: Start, tmp_path: Path) -> None:
    async with start() as peer:
        for number in range(3):
            await peer.post(b'{"created_ns":1}', f"a{number}")
        (peer.folder / "00000000000000000001-a1.json").unlink()
        assert (await peer.request("GET", "/health")).body["batches"] == 2
        peer.folder.rename(tmp_path / "elsewhere")
        gone = await peer.request("GET", "/health")
        assert (gone.status, gone.body) == (
            503,
            {"success": False, "error": f"Cannot store in {peer.folder}: No such file or directory."},
        )
        peer.folder.mkdir()
        assert (await peer.request("GET", "/health")).status == (503 if os.name == "posix" else 200)
        peer.folder.rmdir()
        (tmp_path / "elsewhere").rename(peer.folder)
        assert (await peer.request("GET", "/health")).body["batches"] == 2


@pytest.mark.parametrize("own", ["a,b", ",", "!#$%&'()*+,-./:;<=>?@[]^_`{|}~", "x" * 8192])
async def test_each_token_that_can_be_chosen_can_be_presented(start: Start, own: str) -> None:
    async with start(token=own) as peer:
        assert (await peer.post(b"{}", token=own)).status == 200
        assert (await peer.post(b"{}", token=f"{own},x")).status == 401
        assert (await peer.post(b"{}", token=f"{own}, Bearer")).status == 400


async def test_the_store_is_a_spool(start: Start, sdk_spool: list[Path]) -> None:
    async with start() as peer:
        for path in sdk_spool:
            await peer.post_gzip(path.read_bytes(), batch_id_of(path.name))
        hidden = [name for name in os.listdir(peer.folder) if parse_batch_name(name) is None]
        assert all(name.startswith(".") and ".json" not in name for name in hidden)


async def test_an_upload_that_waits_to_be_asked(start: Start) -> None:
    async with start() as peer:
        reader, writer = await peer.connect()
        head = (
            "POST /api/traces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n"
            "X-Cirron-Batch-Id: ab\r\nContent-Length: 2\r\nExpect: {}\r\n\r\n"
        )
        writer.write(head.format(TOKEN, "100-Continue").encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        for token, expect, status in ((TOKEN, "a-miracle", b" 417 "), ("wrong", "100-continue", b" 401 ")):
            reader, writer = await peer.connect()
            writer.write(head.format(token, expect).encode())
            assert status in await reader.readline()  # without having asked for the body
            writer.close()


async def test_a_second_receiver_and_a_port_in_use(start: Start, tmp_path: Path) -> None:
    async with start() as peer:
        with pytest.raises(SpoolBusyError):
            async with start():
                pytest.fail("a second receiver got the store")
        with pytest.raises(
            ConfigError, match=f"Cannot listen on 127.0.0.1:{peer.port}: Address already in use"
        ):
            async with start(store=tmp_path / "other", port=peer.port):
                pytest.fail("two receivers on one port")
        # Neither has disturbed the first, and the failed one has let go of its store.
        assert (await peer.post(b"{}")).status == 200
        async with start(store=tmp_path / "other") as other:
            assert (await other.post(b"{}")).status == 200


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"host": ""}, "--host"),
        ({"host": "192.0.2.1"}, "Cannot listen on 192.0.2.1"),
        ({"host": "a" * 100}, "Cannot listen on"),
        ({"port": -1}, "--port"),
        ({"port": 65536}, "--port"),
        ({"latency_ms": -1}, "--latency-ms"),
        ({"bandwidth": 0}, "--bandwidth"),
        ({"max_bytes": 0}, "--max-bytes"),
        ({"max_snapshot_bytes": 0}, "--max-snapshot-bytes"),
        ({"token": ""}, "token"),
        ({"token": "a b"}, "token"),
        ({"token": "a\x1bb"}, "token"),
        ({"refresh_token": "ü"}, "refresh token"),
    ],
)
async def test_options_that_cannot_work(start: Start, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        async with start(**options):
            pytest.fail("it started")
    assert caught.value.exit_code == 2
    assert "\x1b" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="no IPv6 here")
async def test_ipv6_addresses_are_written_as_urls_have_them(start: Start) -> None:
    async with start(host="::1") as peer:
        assert peer.receiver.url.startswith("http://[::1]:")
        assert (await peer.post(b"{}")).status == 200


async def test_a_cancelled_request_leaves_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes while a thread still writes: the thread's end is awaited, then its file is removed."""
    import threading

    in_feed, go_on, gone = asyncio.Event(), threading.Event(), threading.Event()
    feed, discard = Upload.feed, Upload.discard
    loop = asyncio.get_running_loop()

    def slow(upload: Upload, data: bytes) -> None:
        feed(upload, data)
        loop.call_soon_threadsafe(in_feed.set)
        assert go_on.wait(30)

    def seen(upload: Upload) -> None:
        discard(upload)
        gone.set()

    monkeypatch.setattr(Upload, "feed", slow)
    monkeypatch.setattr(Upload, "discard", seen)
    async with start() as peer:
        upload = asyncio.create_task(peer.post(b'{"a":"' + b"x" * 1_000_000))
        await in_feed.wait()
        assert len(peer.names) == 1
        upload.cancel()
        await asyncio.gather(upload, return_exceptions=True)
        go_on.set()
        assert await asyncio.to_thread(gone.wait, 30)
        assert peer.names == []
