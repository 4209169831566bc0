"""A flush warns once of snapshots that are not uploaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cirron.snapshots.blob import GRADIENTS_FILENAME, WEIGHTS_FILENAME, snapshot_dir

from cirron_spool.spool import snapshots
from cirron_spool.spool.snapshots import snapshots_left
from support.answers import Answer
from support.fork_server import run_cli
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches

KINDS = (WEIGHTS_FILENAME, GRADIENTS_FILENAME)


def lay(output: Path, *spans: str, kinds: tuple[str, ...] = KINDS) -> Path:
    """Files where the SDK puts them; to write tensors into them it needs more than is installed here."""
    for span in spans:
        folder = snapshot_dir(output, span)
        folder.mkdir(parents=True, exist_ok=True)
        for kind in kinds:
            (folder / kind).write_bytes(b"tensors")
    return output / "snapshots"


def message(count: str, folder: Path) -> str:
    return f"Snapshots are not uploaded: {count} in {folder}. Run a flush with --snapshots to upload them."


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    place = tmp_path / "spool"
    place.mkdir()
    return place


def test_they_are_counted(spool: Path, tmp_path: Path) -> None:
    assert snapshots_left(spool) == ""
    folder = lay(tmp_path, "a" * 32, "b" * 32)
    lay(tmp_path, "c" * 32, kinds=KINDS[:1])
    (folder / "notes.txt").touch()
    (folder / "d").mkdir()
    (folder / ("a" * 32) / "weights.safetensors.tmp").touch()
    expected = message("5 files", folder)
    assert snapshots_left(spool) == expected
    # A link to the spool: the output directory is where the spool really is.
    (tmp_path / "latest").symlink_to(spool)
    assert snapshots_left(tmp_path / "latest") == expected
    # The SDK's output directory may hold a spool that lies elsewhere.
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "spool").symlink_to(spool)
    assert snapshots_left(tmp_path / "out" / "spool") == expected
    here = lay(tmp_path / "out", "a")
    (here / "a" / KINDS[0]).unlink()
    assert snapshots_left(tmp_path / "out" / "spool") == message("1 file", here)


def test_a_spool_of_another_name_says_nothing_of_an_output_directory(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    lay(tmp_path, "a")
    assert snapshots_left(tmp_path / "store") == ""


@pytest.mark.parametrize("kind", ["file", "link", "loop", "pipe"])
def test_what_cannot_be_counted_is_not_said(spool: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "snapshots"
    if kind == "file":
        folder.touch()
    elif kind == "pipe":
        os.mkfifo(folder)
    else:
        folder.symlink_to("snapshots" if kind == "loop" else "nowhere")
    assert snapshots_left(spool) == ""


@pytest.mark.parametrize(("limit", "value"), [("_MOST_SPANS", 2), ("_MOST_S", -1.0)])
def test_the_count_is_bounded(
    spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    lay(tmp_path, "a", "b", "c")
    monkeypatch.setattr(snapshots, limit, value)
    expected = "" if limit == "_MOST_S" else ": at least 4 files in"
    assert expected in snapshots_left(spool)
    assert "6 " not in snapshots_left(spool)


def test_a_flush_warns_once_at_its_end(spool: Path, tmp_path: Path) -> None:
    folder = lay(tmp_path, "a", "b")
    env = {"CIRRON_API_KEY": "sk-test"}
    with ScriptedServer() as server:
        env["CIRRON_API_ENDPOINT"] = server.url
        empty = run_cli("flush", "--dir", spool, env=env)
        sdk_batches(spool, 3, spans=TINY)
        done = run_cli("flush", "--dir", spool, env=env)
    assert (empty.returncode, empty.stderr) == (0, "")
    line = f"Warning: {message('4 files', folder)}"
    assert done.stderr.splitlines() == [line]
    assert done.returncode == 0
    assert done.stdout == "Uploaded: 3  Failed: 0  Skipped: 0\n"
    assert len(list(folder.rglob("*.safetensors"))) == 4


def test_a_flush_that_uploaded_nothing_says_nothing_of_them(spool: Path, tmp_path: Path) -> None:
    lay(tmp_path, "a")
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer(Answer(404)) as server:
        env = {"CIRRON_API_KEY": "sk-test", "CIRRON_API_ENDPOINT": server.url}
        done = run_cli("flush", "--dir", spool, env=env)
    assert done.returncode == 1
    assert "snapshot" not in done.stderr
