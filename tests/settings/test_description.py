"""Every setting with its origin and the layers that it overrides; secrets as they are shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cirron_spool.errors import ConfigError
from cirron_spool.settings.description import ENTRIES, Description, describe, describe_one
from cirron_spool.settings.load import load_settings
from cirron_spool.settings.origin import DEFAULT, Origin, Setting
from cirron_spool.settings.sources import Layers
from cirron_spool.text import mask
from support.cli import write_config


def layers(home: Path, environ: Mapping[str, str] | None = None, **given_: object) -> Layers:
    return Layers(
        environ or {}, given_, {"api_url": "--api-url"}, home / ".cirron/config.json", files_needed=False
    )


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_an_argument_overrides_all_other_layers(home: Path) -> None:
    file = write_config(home, apiUrl="https://json.example", timeout=5000)
    found = describe_one(
        layers(home, {"CIRRON_API_ENDPOINT": "https://env.example"}, api_url="https://flag.example"), "apiUrl"
    )
    assert (found.value, found.origin) == ("https://flag.example", Origin("argument", "--api-url"))
    assert found.overridden == (
        Setting("https://env.example", Origin("environment", "CIRRON_API_ENDPOINT")),
        Setting("https://json.example", Origin("file", "apiUrl", file)),
    )
    assert found.problem == ""
    timeout = describe_one(layers(home, timeout_ms=7), "timeout")
    assert (timeout.value, timeout.overridden) == (7, (Setting(5000, Origin("file", "timeout", file)),))


@pytest.mark.parametrize(
    ("file", "environ"),
    [
        ({}, {}),
        ({"apiUrl": None, "token": ""}, {"CIRRON_API_ENDPOINT": ""}),
        ({"apiUrl": "https://a.b", "timeout": 5, "retries": 0, "allowHttp": True, "token": "sk-1"}, {}),
        ({"token": "sk-1", "auth": {"accessToken": "a", "refreshToken": "r"}}, {}),
        ({"token": "sk-1", "auth": {"refreshToken": "r"}}, {"CIRRON_INGEST_PATH": "/x"}),
        ({"token": "sk-1"}, {"CIRRON_API_KEY": "sk-2", "CIRRON_API_ENDPOINT": "http://localhost:1"}),
        ({"apiUrl": "nonsense"}, {}),
        ({"timeout": None}, {}),
        ({"retries": "3"}, {}),
        ({"auth": []}, {}),
        ({"auth": {"accessToken": 3}}, {}),
        ({"token": "a b"}, {}),
        ({"allowHttp": 0}, {}),
    ],
)
def test_the_values_and_the_problems_are_those_of_a_flush(
    home: Path, file: dict[str, object], environ: dict[str, str]
) -> None:
    path = write_config(home, **file)
    found = {setting.key: setting for setting in describe(layers(home, environ))}
    problems = [
        found[key].problem for key in ("apiUrl", "timeout", "retries", "allowHttp", "token", "ingest_path")
    ]
    if any(problems):
        with pytest.raises(ConfigError) as refused:
            load_settings(environ, config_path=path)
        assert str(refused.value) in problems
        return
    settings = load_settings(environ, config_path=path)
    assert problems == [""] * 6
    assert (
        found["apiUrl"].value,
        found["timeout"].value,
        found["retries"].value,
        found["allowHttp"].value,
    ) == (
        settings.api_url,
        settings.timeout_ms,
        settings.retries,
        settings.allow_http,
    )
    assert found["ingest_path"].value == settings.ingest_path
    used = settings.credentials
    assert (found["token"].value, found["token"].origin) == (
        (used.token, used.origin) if used is not None else (None, DEFAULT)
    )


def test_nothing_is_raised_whatever_is_in_the_file(home: Path) -> None:
    values: list[object] = [None, 7, [], {}, "\ud800\x1b", True, 1e400, {"accessToken": {}, "store": []}]
    for value in values:
        keys = ("apiUrl", "timeout", "retries", "allowHttp", "token", "auth")
        write_config(home, **dict.fromkeys(keys, value))
        for setting in describe(layers(home)):
            for shown in (setting.value, *(lower.value for lower in setting.overridden)):
                json.dumps(setting.shown(shown), allow_nan=False)
                assert setting.text(shown).isprintable()


def test_a_file_that_cannot_be_used_is_collected(home: Path) -> None:
    file = write_config(home)
    file.write_bytes(b"{")
    found = layers(home)
    assert [setting.value for setting in describe(found)] == [entry.default for entry in ENTRIES.values()]
    assert [str(error) for error in found.unusable] == [
        f"{file} is not valid JSON. Correct it, or move it away and run cirron auth login."
    ]


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("timeout", 5, 5),
        ("timeout", "5", "5"),
        ("timeout", {"sk": "sk-0123456789abcdefghij"}, "…"),
        ("timeout", float("nan"), "…"),
        ("timeout", "sk-0123456789abcdefghij", "sk-…ghij"),
        ("allowHttp", False, False),
        ("apiUrl", "https://user:pa55@h", "…"),
        ("apiUrl", "https://h?key=1", "…"),
        ("api_endpoint", "https://u@h", "…"),
    ],
)
def test_a_value_that_may_be_a_secret_is_hidden(key: str, value: Any, shown: object) -> None:
    assert Description(key).shown(value) == shown


@pytest.mark.parametrize("value", ["short", 123456789012345678901, ["x"], True, 1.5])
def test_a_secret_of_any_type_is_hidden(value: object) -> None:
    assert Description("token", is_secret=True).shown(value) == "…"


@given(st.text(max_size=60))
def test_a_mask_shows_four_characters_of_a_long_token_and_none_of_a_short_one(secret: str) -> None:
    shown = mask(secret)
    assert shown == "…" or (len(secret) >= 20 and shown.removeprefix("sk-") == f"…{secret[-4:]}")
    assert shown.isprintable()
