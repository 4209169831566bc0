"""File systems with errors, numbers and types of their own: the commands say one clear line, and lose nothing."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cirron_spool.spool.lock import LOCK_NAME
from support.answers import Answer, Gate, ok
from support.cli import CliResult, spawn_cli
from support.filesystem import strange
from support.fork_server import run_cli
from support.scripted import ScriptedServer
from support.spools import TINY, Sealed, sdk_batches, snapshot, write_batch

ENOTSUPP = 524  # the kernel's own, which reaches users from some network file systems
# What nobody thought of yet, and what dead mounts, failing disks and Kerberos say.
ERRORS = [
    errno.EIO, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EKEYEXPIRED, errno.ENODATA, errno.EUCLEAN,
    errno.EREMOTE, errno.ENOMEM, errno.EDEADLK, ENOTSUPP,
]  # fmt: skip


def named(code: int) -> str:
    return errno.errorcode.get(code, str(code))


@pytest.fixture
def batches(spool: Path) -> list[Sealed]:
    return sdk_batches(spool, 3, spans=TINY)


def flush(server: ScriptedServer, spool: Path, env: dict[str, str], *options: str) -> CliResult:
    key = {"CIRRON_API_KEY": "sk-test", "CIRRON_API_ENDPOINT": server.url}
    return run_cli("flush", "--dir", spool, "--no-verify", *options, env={**key, **env})


def lines(done: CliResult, kind: str) -> list[str]:
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith(kind)]


# -- the lock ----------------------------------------------------------------------------------------------------------


LOCK_ERRORS = [
    *[("flock", code) for code in (*ERRORS, errno.EBADF, errno.EINVAL, errno.EPERM)],
    *[("open", code) for code in (errno.EROFS, errno.EIO, errno.EDQUOT, errno.EMFILE, ENOTSUPP)],
]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("call", "code"), LOCK_ERRORS, ids=[f"{call}-{named(code)}" for call, code in LOCK_ERRORS]
)
def test_without_a_lock_the_lease_will_do_whatever_the_error(
    spool: Path, batches: list[Sealed], call: str, code: int
) -> None:
    with ScriptedServer() as server:
        done = flush(server, spool, strange(f"{call}:{code}:{LOCK_NAME}"))
    assert (done.returncode, done.stderr) == (0, "")
    assert [body for _, body in server.deliveries] == [batch.data for batch in batches]
    assert snapshot(spool) == []


# -- the directory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["inspect", "flush", "clear"])
@pytest.mark.parametrize("call", ["open", "scandir", "readdir"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOTCONN, errno.ESTALE, ENOTSUPP], ids=named)
def test_a_directory_that_cannot_be_read_is_one_line(
    spool: Path, batches: list[Sealed], command: str, call: str, code: int
) -> None:
    options = {"inspect": [], "flush": [], "clear": ["--force"]}[command]
    env = {"CIRRON_API_KEY": "sk-test", "CIRRON_API_ENDPOINT": "http://127.0.0.1:9"}
    env |= strange(f"{call}:{code}:{spool}")
    done = run_cli(command, "--dir", spool, *options, env=env)
    assert done.returncode == 1
    [error] = lines(done, "Error: ")
    assert str(spool) in error
    assert os.strerror(code) in error
    assert snapshot(spool) == batches


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOTCONN, errno.EACCES, errno.ESTALE], ids=named)
def test_a_quarantine_on_a_dead_mount_hides_no_batch(spool: Path, batches: list[Sealed], code: int) -> None:
    (spool.parent / "quarantine").mkdir()
    env = strange(f"open:{code}:/quarantine")
    shown = run_cli("inspect", "--dir", spool, env=env)
    assert shown.returncode == 0
    assert all(batch.name in shown.stdout for batch in batches)
    [warning] = shown.stderr.splitlines()
    assert os.strerror(code) in warning
    listed = run_cli("quarantine", "list", "--dir", spool, env=env)
    assert listed.returncode in (1, 2)
    assert len(lines(listed, "Error: ")) == 1
    with ScriptedServer() as server:
        assert flush(server, spool, env).returncode == 0
    assert snapshot(spool) == []


# -- one batch ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["open", "fstat", "read"])
@pytest.mark.parametrize("code", [errno.EIO, errno.EKEYEXPIRED, errno.ENODATA, ENOTSUPP], ids=named)
def test_a_batch_that_cannot_be_read_stays_and_ends_the_flush(
    spool: Path, batches: list[Sealed], call: str, code: int
) -> None:
    with ScriptedServer() as server:
        done = flush(server, spool, strange(f"{call}:{code}:{batches[1].name}"))
    assert done.returncode == 1
    [error] = lines(done, "Error: ")
    assert error == f"Error: Cannot read {batches[1].name}: {os.strerror(code)}. It stays in the spool."
    assert [body for _, body in server.deliveries] == [batches[0].data]
    assert snapshot(spool) == batches[1:]


@pytest.mark.parametrize("code", [errno.EIO, errno.EDQUOT], ids=named)
def test_a_late_error_of_a_close_holds_nothing_up(spool: Path, batches: list[Sealed], code: int) -> None:
    with ScriptedServer() as server:
        done = flush(server, spool, strange(f"close:{code}:{batches[1].name}", f"close:{code}:/spool"))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(server.deliveries) == 3
    assert snapshot(spool) == []


@pytest.mark.parametrize("call", ["stat", "unlink"])
@pytest.mark.parametrize("code", [errno.EIO, errno.EBUSY, errno.EPERM, errno.EHOSTDOWN], ids=named)
def test_a_batch_that_cannot_be_deleted_is_said(
    spool: Path, batches: list[Sealed], call: str, code: int
) -> None:
    with ScriptedServer() as server:
        done = flush(server, spool, strange(f"{call}:{code}:{batches[1].name}"))
    assert done.returncode == 1
    [error] = lines(done, "Error: ")
    assert error.startswith(f"Error: Uploaded {batches[1].name} but failed to delete local spool file ")
    assert os.strerror(code) in error
    assert batches[1] in snapshot(spool)
    delivered = {body for _, body in server.deliveries}
    assert all(batch in snapshot(spool) or batch.data in delivered for batch in batches)
    write_batch(spool, 1, "0a")
    cleared = run_cli("clear", "--force", "--dir", spool, env=strange(f"{call}:{code}:{batches[1].name}"))
    assert cleared.returncode == 1
    assert len(lines(cleared, "Error: ")) == 1
    assert snapshot(spool) == [batches[1]]


@pytest.mark.parametrize("code", [errno.EIO, errno.EUCLEAN, ENOTSUPP], ids=named)
@pytest.mark.parametrize("types", ["", "unknown"])
def test_one_batch_that_cannot_be_asked_hides_no_other(
    spool: Path, batches: list[Sealed], code: int, types: str
) -> None:
    env = strange(f"stat:{code}:{batches[1].name}", types=types)
    shown = run_cli("inspect", "--dir", spool, env=env)
    assert shown.returncode == 0
    assert all(batch.name in shown.stdout for batch in batches)
    [warning] = shown.stderr.splitlines()
    assert warning.startswith(f"Warning: Cannot read the size of 1 file, such as {batches[1].name}: ")


@pytest.mark.parametrize("call", ["mkdir", "rename"])
@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.EXDEV, ENOTSUPP], ids=named)
def test_a_batch_that_cannot_be_set_aside_stays(
    spool: Path, batches: list[Sealed], call: str, code: int
) -> None:
    part = {"mkdir": "/quarantine", "rename": batches[0].name}[call]
    with ScriptedServer(Answer(422)) as server:
        done = flush(server, spool, strange(f"{call}:{code}:{part}"), "--quarantine")
    assert done.returncode == 1
    assert any(os.strerror(code) in line for line in lines(done, "Error: "))
    assert snapshot(spool) == batches


# -- types and numbers -------------------------------------------------------------------------------------------------


def test_a_directory_that_tells_no_types(spool: Path, batches: list[Sealed]) -> None:
    (spool / "1-a.json").mkdir()
    (spool / "2-a.json").symlink_to(batches[0].name)
    os.mkfifo(spool / "3-a.json")
    env = strange(types="unknown")
    shown = run_cli("inspect", "--dir", spool, "--json", env=env)
    assert shown.out == run_cli("inspect", "--dir", spool, "--json").out
    with ScriptedServer() as server:
        done = flush(server, spool, env)
    assert done.stdout == "Uploaded: 3  Failed: 0  Skipped: 0\n"
    assert "3 entries" in done.stderr
    assert sorted(os.listdir(spool)) == ["1-a.json", "2-a.json", "3-a.json"]


NUMBERS = ["each", "look-up", "device", "mounts", "round"]


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_that_do_not_last_keep_no_batch_from_being_deleted(
    spool: Path, batches: list[Sealed], kind: str
) -> None:
    with ScriptedServer() as server:
        done = flush(server, spool, strange(numbers=f"{kind}:.json"))
    assert (done.returncode, done.stderr) == (0, "")
    assert [body for _, body in server.deliveries] == [batch.data for batch in batches]
    assert snapshot(spool) == []


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["each", "look-up", "mounts"])
def test_a_large_batch_goes_out_whose_numbers_do_not_last(spool: Path, kind: str) -> None:
    body = b'{"spans": "%s"}' % random.Random(1).randbytes(10 * 1024 * 1024).hex().encode()
    write_batch(spool, 1, "0a", body)
    with ScriptedServer() as server:
        done = flush(server, spool, strange(numbers=f"{kind}:.json"))
    assert (done.returncode, done.stderr) == (0, "")
    assert [sent for _, sent in server.deliveries] == [body]
    assert snapshot(spool) == []


def _longer(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes() + b" ")
    os.utime(other, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns))
    other.replace(path)


def _later(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes().swapcase())
    mtime_ns = path.stat().st_mtime_ns + 3_000_000_000
    os.utime(other, ns=(mtime_ns, mtime_ns))
    other.replace(path)


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "replace"), [(kind, _later) for kind in NUMBERS] + [(NUMBERS[0], _longer)])
def test_a_batch_that_was_replaced_is_kept_whatever_the_numbers(
    spool: Path, batches: list[Sealed], kind: str, replace: Callable[[Path], None]
) -> None:
    gate = Gate()
    env = {"CIRRON_API_KEY": "sk-test", **strange(numbers=f"{kind}:.json")}
    with ScriptedServer(ok(), Answer(stall_before=gate)) as server:
        env["CIRRON_API_ENDPOINT"] = server.url
        with spawn_cli("flush", "--dir", spool, "--no-verify", env=env) as running:
            server.wait_for(2)
            replace(spool / batches[1].name)
            replaced = (spool / batches[1].name).read_bytes()
            gate.open()
            done = running.finish()
    assert done.returncode == 1
    [error] = lines(done, "Error: ")
    assert "its file changed during the upload and stays in the spool" in error
    assert (spool / batches[1].name).read_bytes() == replaced
