"""Changes of the configuration: under the lock of all processes, from the first one on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cirron_spool.auth.token_store import update_locked
from cirron_spool.errors import SpoolBusyError
from cirron_spool.settings.files import Document
from cirron_spool.spool.lock import HeldError, lock_file

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("there", [True, False], ids=["a folder", "no folder yet"])
async def test_a_change_holds_the_lock_and_gives_it_back(tmp_path: Path, there: bool) -> None:
    path = tmp_path / ".cirron/config.json"
    if there:
        path.parent.mkdir()

    def change(document: Document) -> None:
        with pytest.raises(HeldError):
            lock_file(f"{path}.lock")
        document["timeout"] = 1

    await update_locked(path, change)
    assert json.loads(path.read_text(encoding="utf-8")) == {"timeout": 1}
    assert [file.name for file in path.parent.iterdir()] == ["config.json"]


@pytest.mark.parametrize("needed", [True, False])
async def test_a_login_goes_without_a_lock_that_stays_held_and_a_setting_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: bool
) -> None:
    monkeypatch.setattr("cirron_spool.auth.token_store._LOCK_WAIT_S", 0.0)
    path = tmp_path / "config.json"
    lock = lock_file(f"{path}.lock")
    try:
        if needed:
            with pytest.raises(SpoolBusyError, match="Another process is changing"):
                await update_locked(path, lambda document: document.update(a=1), lock_needed=True)
        else:
            await update_locked(path, lambda document: document.update(a=1))
    finally:
        lock.release()
    assert path.exists() != needed
