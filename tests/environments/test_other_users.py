"""A user whom the system does not know: no passwd entry, no home, or a home that belongs to another."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cirron_spool.spool.lock import LOCK_NAME
from support.cli import write_config
from support.environments import Installation, installation, python_for_everybody
from support.scripted import ScriptedServer
from support.spools import TINY, Sealed, sdk_batches, snapshot
from support.users import needs_root, shared_folder

pytestmark = needs_root

STRANGER = 12345  # in no passwd file
DELIVERED = "Uploaded: 2  Failed: 0  Skipped: 0\n"


@pytest.fixture(scope="module")
def installed() -> Iterator[Installation]:
    with installation(python_for_everybody()) as found:
        yield found


@pytest.fixture
def place() -> Iterator[Path]:
    with shared_folder() as found:
        yield found


@pytest.fixture
def written(place: Path) -> list[Sealed]:
    batches = sdk_batches(place / ".cirron/spool", 2, spans=TINY)
    for path in [place / ".cirron", *(place / ".cirron").rglob("*")]:
        os.chown(path, STRANGER, STRANGER)
    return batches


def homes(place: Path) -> dict[str, dict[str, str]]:
    write_config(place / "roots", token="sk-of-root")
    write_config(place / "closed", token="sk-of-root")
    (place / "closed").chmod(0o700)
    (place / "roots/.cirron").chmod(0o755)
    return {
        "none": {},
        "empty": {"HOME": ""},
        "relative": {"HOME": "x"},
        "missing": {"HOME": str(place / "nosuch")},
        "unreadable": {"HOME": str(place / "closed")},
        "another user's": {"HOME": str(place / "roots")},
        "a file": {"HOME": "/dev/null"},
        "root's": {"HOME": "/root"},
    }


@pytest.mark.parametrize(
    "kind",
    ["none", "empty", "relative", "missing", "unreadable", "another user's", "a file", "root's"],
)
def test_with_a_key_in_the_environment_no_home_is_needed(
    installed: Installation, place: Path, written: list[Sealed], kind: str
) -> None:
    env = homes(place)[kind]
    seen = installed.run("inspect", "--json", cwd=place, uid=STRANGER, env=env)
    assert (seen.returncode, json.loads(seen.stdout)["files"]) == (0, 2), seen.stderr
    with ScriptedServer() as server:
        key = {"CIRRON_API_KEY": "sk-own", "CIRRON_API_ENDPOINT": server.url}
        done = installed.run("flush", cwd=place, uid=STRANGER, env={**env, **key})
        assert (done.returncode, done.stdout) == (0, DELIVERED), done.stderr
        assert list(server.delivered) == [batch.batch_id for batch in written]
        assert {request.token for request in server.requests} == {"sk-own"}
    assert "Traceback" not in done.stderr


def test_without_a_key_and_a_home_it_is_a_matter_of_login(
    installed: Installation, place: Path, written: list[Sealed]
) -> None:
    done = installed.run("flush", cwd=place, uid=STRANGER)
    assert done.returncode in (2, 3)
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    assert snapshot(place / ".cirron/spool") == written


def test_a_lock_that_root_left_behind_is_taken_over_and_one_that_is_held_is_not(
    installed: Installation, place: Path, written: list[Sealed]
) -> None:
    lock = place / ".cirron/spool" / LOCK_NAME
    lock.touch(mode=0o644)
    with ScriptedServer() as server:
        env = {"CIRRON_API_KEY": "sk-own", "CIRRON_API_ENDPOINT": server.url}
        with lock.open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            busy = installed.run("flush", cwd=place, uid=STRANGER, env=env)
            assert (busy.returncode, server.requests) == (4, [])
        done = installed.run("flush", cwd=place, uid=STRANGER, env=env)
        assert (done.returncode, done.stdout) == (0, DELIVERED), done.stderr


def test_a_quarantine_that_is_closed_to_us_hides_no_spool(
    installed: Installation, place: Path, written: list[Sealed]
) -> None:
    (place / ".cirron/quarantine").mkdir(mode=0o700)
    done = installed.run("inspect", "--json", cwd=place, uid=STRANGER)
    assert (done.returncode, json.loads(done.stdout)["files"]) == (0, 2)
    assert done.stderr.count("Warning: ") == 1
