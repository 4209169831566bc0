"""Threads, descriptors and memory that the system refuses: a typed error, and nothing is lost."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cirron_spool import (
    FlushEvent,
    Quarantined,
    ResourceError,
    Sending,
    SpoolError,
    Started,
    flush_spool,
)
from cirron_spool.auth.token_store import save
from cirron_spool.errors import NoThreadError, resource_error
from cirron_spool.pipeline import encoding
from cirron_spool.pipeline.encoding import Encoder
from cirron_spool.settings.model import Credentials
from support.answers import Answer
from support.cli import CliResult, clean_environment, spawn, write_config
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot
from support.threads import REFUSE, allow_threads, no_more_threads, refuse_threads

TOKEN = "sk-resources"


@pytest.fixture
def threads_again() -> Iterator[None]:
    """Threads can be started after the test, whatever it did."""
    yield
    allow_threads()


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else set()


@pytest.mark.anyio
@pytest.mark.parametrize("keep_going", [False, True])
async def test_a_flush_without_its_thread_is_a_typed_error_with_a_result(
    spool: Path, keep_going: bool
) -> None:
    written = sdk_batches(spool, 3, spans=TINY)
    with ScriptedServer() as server:
        before = descriptors()
        with no_more_threads(), pytest.raises(ResourceError, match="ulimit -u") as caught:
            await flush_spool(spool, api_url=server.url, token=TOKEN, keep_going=keep_going)
        assert descriptors() == before
        assert server.requests == []
        result = caught.value.result
        assert result is not None
        assert (caught.value.exit_code, result.exit_code) == (4, 4)
        assert (result.uploaded, result.failed, result.skipped) == (0, 0, 3)
        assert snapshot(spool) == written
        assert sorted(os.listdir(spool)) == sorted(batch.name for batch in written)  # no lock either
        assert (await flush_spool(spool, api_url=server.url, token=TOKEN)).uploaded == 3


@pytest.mark.anyio
async def test_an_upload_that_needs_a_further_thread_ends_the_flush_and_keeps_the_batch(
    spool: Path, monkeypatch: pytest.MonkeyPatch, threads_again: None
) -> None:
    monkeypatch.setattr(
        "cirron_spool.pipeline.batch_reader.HELD_BYTES", 10_000
    )  # a body that has to be streamed
    sdk_batches(spool, 1, spans=TINY)
    written = sdk_batches(spool, 1, spans=1000, seed=1, first_ns=1_800_000_000_000_000_000)

    def listen(event: FlushEvent) -> None:
        if isinstance(event, Sending) and event.name == written[1].name:
            refuse_threads()

    with ScriptedServer() as server:
        with pytest.raises(ResourceError) as caught:
            await flush_spool(spool, api_url=server.url, token=TOKEN, on_event=listen)
        assert list(server.delivered) == [written[0].batch_id]
    result = caught.value.result
    assert result is not None
    assert (result.uploaded, result.skipped, result.exit_code) == (1, 1, 4)
    assert snapshot(spool) == written[1:]


def test_compression_goes_on_without_the_thread_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_cores", lambda: 2)
    blocks = [bytes([number]) * 3000 for number in range(12)]
    alone, helped = Encoder("zlib"), Encoder("zlib")
    with no_more_threads():
        whole = b"".join(alone.gzip_parts(iter(blocks)))
    assert gzip.decompress(whole) == b"".join(blocks)
    assert whole == b"".join(helped.gzip_parts(iter(blocks)))  # a retry sends the same bytes
    alone.close()
    helped.close()


@pytest.mark.anyio
async def test_a_renewed_token_is_saved_without_a_thread(tmp_path: Path) -> None:
    path = write_config(tmp_path, apiUrl="https://api.example.com", auth={"accessToken": "old"}, other=1)
    renewed = Credentials("new", "refresh", datetime.now(UTC) + timedelta(hours=1))
    with no_more_threads():
        await save(path, renewed, replaces={"old"})
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["auth"]["accessToken"] == "new"
    assert (document["other"], path.stat().st_mode & 0o777) == (1, 0o600)


@pytest.mark.anyio
async def test_a_rejected_batch_is_set_aside_without_a_further_thread(
    spool: Path, threads_again: None
) -> None:
    written = sdk_batches(spool, 2, spans=TINY)
    aside: list[str] = []

    def listen(event: FlushEvent) -> None:
        if isinstance(event, Started):
            refuse_threads()
        elif isinstance(event, Quarantined):
            aside.append(event.name)

    with ScriptedServer(Answer(422)) as server:
        result = await flush_spool(spool, api_url=server.url, token=TOKEN, quarantine=True, on_event=listen)
        assert list(server.delivered) == [written[1].batch_id]
    assert (result.uploaded, result.quarantined, aside) == (1, 1, [written[0].name])


@pytest.mark.parametrize("asked_for", ["at its start", "at its end"])
def test_a_flush_while_the_interpreter_ends_is_delivered_or_a_typed_error(
    spool: Path, tmp_path: Path, asked_for: str
) -> None:
    written = sdk_batches(spool, 2, spans=TINY)
    early = "from cirron_spool import flush_spool\n" if asked_for == "at its start" else ""
    program = (
        "import asyncio, atexit, os, sys\n"
        "import cirron_spool\n"
        "from cirron_spool import CirronSpoolError\n"
        f"{early}"
        "def last():\n"
        "    flush_spool = cirron_spool.flush_spool\n"
        "    try:\n"
        f"        print(asyncio.run(flush_spool(sys.argv[1], api_url=sys.argv[2], token={TOKEN!r})).uploaded)\n"
        "    except CirronSpoolError as error:\n"
        "        print(type(error).__name__, error.result.skipped)\n"
        "atexit.register(last)\n"
    )
    with ScriptedServer() as server:
        done = subprocess.run(
            [sys.executable, "-c", program, str(spool), server.url],
            env=clean_environment(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        if done.stdout.strip() == "2":
            assert [batch.batch_id for batch in written] == list(server.delivered)
        else:
            assert done.stdout.strip() == "ResourceError 2"
            assert server.delivered == {}
            assert snapshot(spool) == written


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NoThreadError(), "ulimit -u"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.ENFILE, "Too many open files in system"), "The system"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (MemoryError(), "memory"),
    ],
)
def test_what_is_lacking_is_said_with_a_remedy(error: BaseException, said: str) -> None:
    lacking = resource_error(error)
    assert lacking is not None
    assert said in str(lacking)
    assert lacking.exit_code == 4


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "no"), OSError("no number"), SpoolError("x")])
def test_other_errors_mean_no_lack(error: BaseException) -> None:
    assert resource_error(error) is None


# -- the commands -----------------------------------------------------------------------------------------------------


def command(tmp_path: Path, program: str, *args: str) -> CliResult:
    argv = [
        *(sys.executable, "-c"),
        f"import sys; {program}from cirron_spool.cli.main import cirron_spool; sys.exit(cirron_spool())",
        *args,
    ]
    with spawn(argv, home=tmp_path, cwd=tmp_path) as running:
        return running.finish()


@pytest.mark.thorough
@pytest.mark.parametrize("form", [[], ["--verbose"], ["--json"], ["--json-events"]], ids=" ".join)
def test_a_flush_whose_thread_is_refused_says_so_in_one_line(tmp_path: Path, form: list[str]) -> None:
    written = sdk_batches(tmp_path / ".cirron/spool", 2, spans=TINY)
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = command(tmp_path, REFUSE, "flush", *form)
        assert server.requests == []
    assert done.returncode == 4
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert "ulimit -u" in errors[0]
    assert "Traceback" not in done.stderr
    if form in ([], ["--verbose"]):
        assert done.stdout == "Uploaded: 0  Failed: 0  Skipped: 2\n"
    else:
        last = json.loads(done.stdout) if form == ["--json"] else json.loads(done.lines[-1])
        assert (last["uploaded"], last["skipped"], last["exitCode"]) == (0, 2, 4)
        assert last["error"]["type"] == "ResourceError"
    assert snapshot(tmp_path / ".cirron/spool") == written


@pytest.mark.parametrize("args", [["inspect"], ["clear", "--force"]], ids=" ".join)
def test_commands_that_need_no_thread_do_without(tmp_path: Path, args: list[str]) -> None:
    sdk_batches(tmp_path / ".cirron/spool", 2, spans=TINY)
    done = command(tmp_path, REFUSE, *args)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_receiver_without_threads_is_a_line_and_for_later(tmp_path: Path) -> None:
    done = command(tmp_path, REFUSE, "receive", "--store", "store", "--port", "0")
    assert (done.returncode, done.stdout) == (4, "")
    assert [line[:7] for line in done.stderr.splitlines()] == ["Error: "]


@pytest.mark.thorough
def test_from_too_few_descriptors_to_enough_a_flush_delivers_or_says_what_is_lacking(tmp_path: Path) -> None:
    """Each limit lets the flush come a little further than the one before."""
    pytest.importorskip("resource", reason="no resource limits here")
    written = sdk_batches(tmp_path / ".cirron/spool", 2, spans=TINY)
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        refused = 0
        # Set when the interpreter is there: what it needs itself is no matter of ours.
        limited = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({0}, {0})); "
        while True:
            done = command(tmp_path, limited.format(6 + refused), "flush", "--no-verify")
            if done.returncode == 0:
                break
            refused += 1
            assert (done.returncode, done.stderr.count("Error: ")) == (4, 1), done
            assert re.fullmatch(r"Uploaded: 0  Failed: 0  Skipped: [02]\n", done.stdout), done
            for word in ("Traceback", "never awaited", "Exception ignored"):
                assert word not in done.stderr
            assert snapshot(tmp_path / ".cirron/spool") == written
        assert list(server.delivered) == [batch.batch_id for batch in written]
    assert refused > 3


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("OSError(24, 'Too many open files', '/x/dispatch.py')", "Too many open files"),
        ("MemoryError()", "not enough memory"),
        ("ImportError('no module here')", "no module here"),
    ],
)
def test_what_cannot_even_be_loaded_is_one_plain_line(tmp_path: Path, error: str, said: str) -> None:
    program = (
        f"error = {error}; "
        "Finder = type('Finder', (), {'find_spec': staticmethod(lambda name, *_: "
        "(_ for _ in ()).throw(error) if name == 'cirron_spool.cli.dispatch' else None)}); "
        "sys.meta_path.insert(0, Finder); "
    )
    done = command(tmp_path, program, "flush")
    assert done.returncode == 4
    assert done.stderr == f"Error: cirron-spool cannot be loaded: {said}. Check the limits (ulimit -a).\n"
