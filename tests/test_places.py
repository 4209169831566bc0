"""Where the spool, the quarantine and the configuration are."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from cirron_spool.config import load_settings
from cirron_spool.errors import ConfigError
from cirron_spool.places import default_config_path, is_quarantine_name, quarantine_path, spool_directory
from support.cli import write_config


def test_the_spool_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/alice")
    moved = {"CIRRON_OUTPUT_DIR": str(tmp_path / "out")}
    assert spool_directory(None, {}) == tmp_path / ".cirron" / "spool"
    assert spool_directory(None, {"CIRRON_OUTPUT_DIR": ""}) == tmp_path / ".cirron" / "spool"
    assert spool_directory(None, moved) == tmp_path / "out" / "spool"
    assert spool_directory(None, {"CIRRON_OUTPUT_DIR": "out"}) == tmp_path / "out" / "spool"
    assert spool_directory(None, {"CIRRON_OUTPUT_DIR": "~/out"}) == Path("/home/alice/out/spool")
    assert spool_directory("here/../there", moved) == tmp_path / "there"
    assert spool_directory(Path("/x"), moved) == Path("/x")
    # The shell has expanded what it meant to; a folder may be called ~.
    assert spool_directory("~", moved) == tmp_path / "~"


@pytest.mark.parametrize("bad", ["", "a\0b"])
def test_a_directory_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match="--dir"):
        spool_directory(bad, {})


def test_a_current_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="current directory"):
        spool_directory(None, {})
    assert spool_directory("/x", {}) == Path("/x")


def test_the_configuration_is_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_config_path() == tmp_path / ".cirron" / "config.json"
    write_config(tmp_path, retries=8)
    assert load_settings({}).retries == 8


def test_no_home_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> object:
        raise KeyError(uid)

    # A user who is in no list, as containers have them.
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(ConfigError, match="Set HOME"):
        default_config_path()


@pytest.mark.parametrize(
    ("spool", "quarantine"),
    [
        (".cirron/spool", ".cirron/quarantine"),
        (".cirron/spool/", ".cirron/quarantine"),
        ("recv1", "recv1.quarantine"),
        ("deep/../recv1/.", "recv1.quarantine"),
        ("spool.old", "spool.old.quarantine"),
        ("quarantine", "quarantine.quarantine"),
        ("/", "/.quarantine"),
    ],
)
def test_each_spool_has_a_quarantine_of_its_own(tmp_path: Path, spool: str, quarantine: str) -> None:
    assert quarantine_path(tmp_path / spool) == tmp_path / quarantine
    assert is_quarantine_name((tmp_path / quarantine).name)
    assert not is_quarantine_name(quarantine_path(tmp_path / spool).name + "d")


def test_a_link_has_the_quarantine_of_the_spool_that_it_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run" / "spool").mkdir(parents=True)
    (tmp_path / "latest").symlink_to(tmp_path / "run" / "spool")
    assert quarantine_path(tmp_path / "latest") == tmp_path / "run" / "quarantine"
    monkeypatch.chdir(tmp_path / "run" / "spool")
    assert quarantine_path(spool_directory(".", {})) == tmp_path / "run" / "quarantine"
