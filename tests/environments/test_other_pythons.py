"""The package on the Python that a distribution brings along."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.environments import DEBIANS_PYTHON, Installation, installation
from support.spools import snapshot, write_batch

BODIES = [
    {"spans": [{"mark_ids": ["x"]}]},
    {"spans": [{"mark_ids": []}, {"mark_ids": ["a", "b"]}], "marks": [{"value": -1.5e-3}, {"value": None}]},
    {"text": 'a\\u00e9 "quoted" \\\\ é', "empty": {}, "deep": [[[[{}]]]]},
    {"padding": "x" * 5000},
]


@pytest.fixture(scope="module")
def installed() -> Iterator[Installation]:
    with installation(DEBIANS_PYTHON) as found:
        yield found


def test_a_spool_is_flushed_into_a_receiver(installed: Installation, tmp_path: Path) -> None:
    for number, body in enumerate(BODIES):
        write_batch(tmp_path / "spool", number + 1, f"{number:032x}", json.dumps(body).encode())
    written = snapshot(tmp_path / "spool")
    with subprocess.Popen(
        installed.command("receive", "--store", str(tmp_path / "store"), "--port", "0"),
        env=installed.environment({"HOME": str(tmp_path)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as receiver:
        assert receiver.stdout is not None
        url = receiver.stdout.readline().removeprefix("Receiving on ").partition(",")[0]
        env = {"CIRRON_API_KEY": "sk-any", "CIRRON_API_ENDPOINT": url}
        done = installed.run("flush", "--dir", str(tmp_path / "spool"), env=env)
        receiver.terminate()
        receiver.communicate(timeout=60)
    assert (done.returncode, done.stdout) == (0, "Uploaded: 4  Failed: 0  Skipped: 0\n"), done.stderr
    assert snapshot(tmp_path / "spool") == []
    assert [batch.data for batch in snapshot(tmp_path / "store")] == [batch.data for batch in written]


def test_the_offline_commands(installed: Installation) -> None:
    with tempfile.TemporaryDirectory() as place:
        spool = Path(place, "spool")
        write_batch(spool, 1, "ab")
        assert json.loads(installed.run("inspect", "--json", "--dir", str(spool)).stdout)["files"] == 1
        assert installed.run("clear", "--force", "--dir", str(spool)).returncode == 0
        assert snapshot(spool) == []
