"""Where settings come from, which are refused, and that a token is never shown."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cirron_spool.errors import ConfigError
from cirron_spool.settings.files import read_config
from cirron_spool.settings.load import load_settings
from cirron_spool.settings.model import Credentials, Settings
from cirron_spool.settings.origin import DEFAULT, Origin, Setting
from cirron_spool.settings.sources import check_token
from cirron_spool.settings.urls import is_loopback
from support.cli import clean_environment, write_config
from support.fork_server import run_cli

# Python 3.13 writes the last half of such an address with dots.
MAPPED = ipaddress.ip_address("::ffff:127.0.0.1")
SECRET = "sk-do-not-show-1f2e3d"
NOBODY = 65534  # a user other than the one who runs the tests; it owns nothing here
NO_ENV: Mapping[str, str] = {}

needs_root = pytest.mark.skipif(
    not hasattr(os, "setresuid") or os.geteuid() != 0, reason="only root can act as two users"
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Where the configuration is; nothing is there yet."""
    folder = tmp_path / ".cirron"
    folder.mkdir(mode=0o700)
    return folder / "config.json"


def put(path: Path, **keys: object) -> None:
    path.write_text(json.dumps(keys), encoding="utf-8")
    path.chmod(0o600)


def load(path: Path, environ: Mapping[str, str] = NO_ENV, **given: Any) -> Settings:
    return load_settings(environ, config_path=path, **given)


def refusal(path: Path, environ: Mapping[str, str] = NO_ENV, **given: Any) -> str:
    """The message of the ConfigError that loading must raise; nothing secret may be in any form of it."""
    with pytest.raises(ConfigError) as caught:
        load(path, environ, **given)
    for shown in (
        str(caught.value),
        repr(caught.value),
        "".join(traceback.format_exception(caught.value)),
    ):
        assert "do-not-show" not in shown
    assert caught.value.exit_code == 2
    return str(caught.value)


# -- precedence ------------------------------------------------------------------------------------------------------


def test_defaults_without_a_file(config: Path) -> None:
    assert load(config) == Settings(
        "https://api.cirron.com", "https://app.cirron.com", 30_000, 3, None, config
    )


FILE = {"apiUrl": "https://file.example", "timeout": 1000, "retries": 1, "token": "sk-file"}
ENVIRONMENT = {"CIRRON_API_ENDPOINT": "https://env.example", "CIRRON_API_KEY": "sk-env"}
GIVEN: dict[str, Any] = {
    "api_url": "https://flag.example",
    "token": "sk-flag",
    "timeout_ms": 2000,
    "retries": 0,
}


@pytest.mark.parametrize(
    ("file", "environ", "given_", "expected"),
    [
        pytest.param(FILE, {}, {}, ("https://file.example", "sk-file", 1000, 1), id="file over defaults"),
        pytest.param(
            FILE, ENVIRONMENT, {}, ("https://env.example", "sk-env", 1000, 1), id="environment over file"
        ),
        pytest.param(
            FILE,
            ENVIRONMENT,
            GIVEN,
            ("https://flag.example", "sk-flag", 2000, 0),
            id="flags over environment",
        ),
        pytest.param(FILE, {}, GIVEN, ("https://flag.example", "sk-flag", 2000, 0), id="flags over file"),
        pytest.param(
            {}, ENVIRONMENT, {}, ("https://env.example", "sk-env", 30000, 3), id="environment over defaults"
        ),
        pytest.param(
            FILE,
            {"CIRRON_API_ENDPOINT": "", "CIRRON_API_KEY": ""},
            {},
            ("https://file.example", "sk-file", 1000, 1),
            id="an empty variable says nothing",
        ),
        pytest.param(
            {"timeout": 30000.0, "retries": 3.0, "token": "t"},
            {},
            {},
            ("https://api.cirron.com", "t", 30000, 3),
            id="whole numbers written as fractions",
        ),
        pytest.param(
            {"apiUrl": None, "token": "t"},
            {},
            {},
            ("https://api.cirron.com", "t", 30000, 3),
            id="null address",
        ),
    ],
)
def test_precedence(
    config: Path,
    file: dict[str, object],
    environ: dict[str, str],
    given_: dict[str, Any],
    expected: tuple[str, str, int, int],
) -> None:
    put(config, **file)
    found = load(config, environ, **given_)
    assert found.credentials is not None
    assert (found.api_url, found.credentials.token, found.timeout_ms, found.retries) == expected


def test_what_a_higher_place_overrides_is_not_judged(config: Path) -> None:
    put(config, apiUrl="nonsense", timeout="x", retries="x", token="bad token", auth=7)
    assert load(config, **GIVEN).timeout_ms == 2000


def test_unknown_keys_are_nobodys_business(config: Path) -> None:
    put(config, apiUrl="https://x.example", theme={"dark": True}, Timeout="no", api_url=7)
    assert load(config).api_url == "https://x.example"
    assert read_config(config)[0]["theme"] == {"dark": True}


# -- credentials -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"token": ""}, None, id="empty"),
        pytest.param({"token": None, "auth": None}, None, id="null"),
        pytest.param({"auth": {}}, None, id="empty login"),
        pytest.param({"token": "sk-1"}, Credentials("sk-1"), id="token"),
        pytest.param(
            {"token": "sk-1", "auth": {"accessToken": "a"}}, Credentials("a"), id="login before token"
        ),
        pytest.param(
            {"token": "sk-1", "auth": {"accessToken": ""}}, Credentials("sk-1"), id="an empty login is none"
        ),
        pytest.param(
            {"token": "sk-1", "auth": {"refreshToken": "r"}}, Credentials("sk-1"), id="half a login"
        ),
        pytest.param(
            {"auth": {"accessToken": "a", "refreshToken": "r", "expiresAt": "2026-04-18T04:29:58.051Z"}},
            Credentials("a", "r", datetime(2026, 4, 18, 4, 29, 58, 51000, tzinfo=UTC)),
            id="a whole login",
        ),
        pytest.param(
            {"auth": {"accessToken": "a", "refreshToken": "", "expiresAt": "2026-04-18T06:29:58+02:00"}},
            Credentials("a", None, datetime(2026, 4, 18, 4, 29, 58, tzinfo=UTC)),
            id="another zone",
        ),
        pytest.param(
            {"auth": {"accessToken": "a", "expiresAt": "2026-04-18T04:29:58"}},
            Credentials("a", None, datetime(2026, 4, 18, 4, 29, 58, tzinfo=UTC)),
            id="no zone",
        ),
        *[
            pytest.param(
                {"auth": {"accessToken": "a", "expiresAt": hint}}, Credentials("a"), id=f"hint {hint!r}"
            )
            for hint in ("soon", "", 1776486598, None, ["x"], "0001-01-01T00:00:00+14:00", "2026-13-01")
        ],
    ],
)
def test_credentials_in_the_file(config: Path, file: dict[str, object], expected: Credentials | None) -> None:
    put(config, **file)
    assert load(config).credentials == expected


def test_a_key_from_the_environment_cannot_be_refreshed(config: Path) -> None:
    put(config, auth={"accessToken": "a", "refreshToken": "r"})
    assert load(config, ENVIRONMENT).credentials == Credentials("sk-env")


BAD_TOKENS = {
    "line feed": f"{SECRET}\n",
    "header injection": f"{SECRET}\r\nX-Evil: 1",
    "NUL": f"{SECRET}\0",
    "escape": f"\x1b[31m{SECRET}",
    "blank": f"{SECRET} {SECRET}",
    "DEL": f"{SECRET}\x7f",
    "C1": f"{SECRET}\x9b",
    "not ASCII": f"{SECRET}é",
    "surrogate": f"{SECRET}\udc80",
}


@pytest.mark.parametrize("token", BAD_TOKENS.values(), ids=BAD_TOKENS)
@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("flag", "the token argument"),
        ("environment", "CIRRON_API_KEY"),
        ("token", "{path} (key token)"),
        ("access", "{path} (key auth.accessToken)"),
        ("refresh", "{path} (key auth.refreshToken)"),
    ],
)
def test_a_bad_token_is_refused_and_never_shown(config: Path, token: str, place: str, named: str) -> None:
    environ: dict[str, str] = {}
    given_: dict[str, str] = {}
    if place == "flag":
        given_ = {"token": token}
    elif place == "environment":
        environ = {"CIRRON_API_KEY": token}
    elif place == "token":
        put(config, token=token)
    elif place == "access":
        put(config, auth={"accessToken": token})
    else:
        put(config, auth={"accessToken": "good", "refreshToken": token})
    assert named.format(path=config) in refusal(config, environ, **given_)


def test_an_empty_token_given_is_refused(config: Path) -> None:
    assert "the token argument" in refusal(config, ENVIRONMENT, token="")


@given(st.text())
def test_a_token_is_printable_ascii_or_refused(token: str) -> None:
    if token and all("!" <= char <= "~" for char in token):
        assert check_token(token, "here") == token
    else:
        with pytest.raises(ConfigError, match="here"):
            check_token(token, "here")


def test_credentials_do_not_show_themselves(config: Path) -> None:
    put(config, auth={"accessToken": SECRET, "refreshToken": SECRET + "-r"})
    settings = load(config)
    assert settings.credentials is not None
    shown = [f"{thing!r} {thing!s} {thing}" for thing in (settings, settings.credentials, [settings])]
    assert SECRET not in "".join(shown)
    assert "renewable=True" in repr(settings.credentials)
    assert "renewable=False" in repr(Credentials(SECRET))


@pytest.mark.parametrize("token", [f"{SECRET}\nX: y", f"\x1b]0;{SECRET}\x07"], ids=["line feed", "escape"])
def test_the_command_refuses_a_bad_token_and_does_not_show_it(tmp_path: Path, token: str) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "1-a.json").write_bytes(b"{}")
    home = tmp_path / "home"
    write_config(home, apiUrl="http://127.0.0.1:9", token=token)
    for environ in ({}, {"CIRRON_API_KEY": token.replace("\0", "")}):
        done = run_cli("flush", "--dir", spool, "--verbose", home=home, env=environ)
        assert done.returncode == 2
        assert b"do-not-show" not in done.out + done.err
        assert done.stderr.startswith("Error: The token from ")
    assert (spool / "1-a.json").exists()


def test_an_uncaught_error_does_not_show_the_token(tmp_path: Path) -> None:
    write_config(tmp_path, auth={"accessToken": f"{SECRET}\n"})
    done = subprocess.run(
        [sys.executable, "-c", "from cirron_spool.settings.load import load_settings; load_settings({})"],
        env=clean_environment(tmp_path),
        capture_output=True,
        check=False,
    )
    assert b"ConfigError" in done.stderr
    assert b"do-not-show" not in done.stderr


# -- bad values ------------------------------------------------------------------------------------------------------


BAD_VALUES: dict[str, list[object]] = {
    "timeout": [0, -1, 1.5, "30000", True, None, [], 86_400_001, float("nan"), float("inf")],
    "retries": [-1, 101, 0.5, "3", False, None, {}, 10**400],
    "apiUrl": [7, True, [], {}],
    "token": [7, True, [], {}],
    "auth": [7, "x", [], [1], True, False],
    "accessToken": [{"accessToken": value} for value in (7, True, ["x"])],
    "refreshToken": [{"accessToken": "a", "refreshToken": value} for value in (7, True, ["x"])],
    "allowHttp": [0, 1, "true", None, []],
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(key, value, id=f"{key} {value!r:.40}")
        for key, values in BAD_VALUES.items()
        for value in values
    ],
)
def test_a_bad_value_names_its_key_and_the_file(config: Path, key: str, value: object) -> None:
    put(config, **{"auth" if key in ("accessToken", "refreshToken") else key: value})
    message = refusal(config)
    assert message.startswith(f"{key} in {config} ")
    assert message.endswith(".")


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("timeout_ms", 0, "timeout_ms"),
        ("timeout_ms", -5, "timeout_ms"),
        ("timeout_ms", 1.5, "timeout_ms"),
        ("timeout_ms", True, "timeout_ms"),
        ("timeout_ms", 86_400_001, "timeout_ms"),
        ("retries", -1, "retries"),
        ("retries", 101, "retries"),
        ("retries", "3", "retries"),
    ],
)
def test_a_bad_option_is_named(config: Path, option: str, value: object, named: str) -> None:
    given_: dict[str, Any] = {option: value}
    message = refusal(config, **given_)
    assert message.startswith(f"{named} must be a whole number from ")
    assert str(config) not in message


@pytest.mark.parametrize(
    ("option", "value"),
    [("timeout_ms", 1), ("timeout_ms", 86_400_000), ("retries", 0), ("retries", 100)],
)
def test_the_bounds_themselves_are_good(config: Path, option: str, value: int) -> None:
    given_: dict[str, Any] = {option: value}
    assert getattr(load(config, **given_), option) == value


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b'{"token":"sk-do-not-show"', id="cut after the token"),
        pytest.param(b"\xff\xfe\xff", id="binary"),
        pytest.param(b'{"token":"\xff sk-do-not-show"}', id="not UTF-8"),
        pytest.param(b"[" * 100_000, id="too deep"),
        pytest.param(b'{"retries": ' + b"9" * 5000 + b"}", id="number too long"),
        pytest.param(b'["sk-do-not-show"]', id="a list"),
        pytest.param(b'"sk-do-not-show"', id="a text"),
        pytest.param(b"null", id="null"),
        pytest.param(b" " * (1024 * 1024) + b"{}", id="too large"),
    ],
)
def test_a_corrupt_file_is_named_and_left_alone(config: Path, content: bytes) -> None:
    config.write_bytes(content)
    config.chmod(0o600)
    assert refusal(config).startswith(f"{config} ")
    assert config.read_bytes() == content


def test_a_byte_order_mark_is_no_corruption(config: Path) -> None:
    config.write_bytes(b'\xef\xbb\xbf{"retries": 7}')
    config.chmod(0o600)
    assert load(config).retries == 7


def test_a_folder_for_a_file_is_named(config: Path) -> None:
    config.mkdir()
    assert str(config) in refusal(config)


def test_a_file_for_the_folder_is_named(config: Path) -> None:
    config.touch()
    assert str(config / "config.json") in refusal(config / "config.json")


def test_a_fifo_for_a_file_does_not_block(config: Path) -> None:
    os.mkfifo(config)
    assert refusal(config) == f"{config} is not a file. Move it away."


def test_a_path_that_cannot_be_one_is_a_configuration_error(config: Path) -> None:
    assert "config" in refusal(config.with_name("config\0.json"))


def test_a_name_with_escapes_is_shown_escaped(tmp_path: Path) -> None:
    odd = tmp_path / "a\x1b[31m\nb.json"
    odd.write_bytes(b"nope")
    message = refusal(odd)
    assert r"a\x1b[31m\nb.json" in message
    assert message.isprintable()


def test_a_link_to_the_file_is_followed(config: Path, tmp_path: Path) -> None:
    put(tmp_path / "dotfiles.json", retries=9)
    config.symlink_to(tmp_path / "dotfiles.json")
    assert load(config).retries == 9


# -- the address -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "base", "origin"),
    [
        ("https://api.cirron.com", "https://api.cirron.com", "https://app.cirron.com"),
        ("https://api.cirron.com/", "https://api.cirron.com", "https://app.cirron.com"),
        ("https://api.cirron.com//", "https://api.cirron.com", "https://app.cirron.com"),
        ("https://API.Cirron.com", "https://api.cirron.com", "https://app.cirron.com"),
        ("HTTPS://api.cirron.com:", "https://api.cirron.com", "https://app.cirron.com"),
        ("https://api.cirron.com:443", "https://api.cirron.com", "https://app.cirron.com"),
        ("https://api.cirron.com:0443/v1", "https://api.cirron.com", "https://app.cirron.com"),
        ("http://127.0.0.1:80/", "http://127.0.0.1", "http://127.0.0.1"),
        ("https://api.cirron.com:80", "https://api.cirron.com:80", "https://app.cirron.com:80"),
        ("https://api.cirron.com.", "https://api.cirron.com.", "https://app.cirron.com."),
        ("https://api.", "https://api.", "https://api."),
        ("  https://api.cirron.com\n", "https://api.cirron.com", "https://app.cirron.com"),
        ("https://api.exämple.com", "https://api.xn--exmple-cua.com", "https://app.xn--exmple-cua.com"),
        ("https://Straße.example/x/", "https://xn--strae-oqa.example", "https://xn--strae-oqa.example"),
        ("https://xn--exmple-cua.com", "https://xn--exmple-cua.com", "https://xn--exmple-cua.com"),
        ("https://spool_1.internal", "https://spool_1.internal", "https://spool_1.internal"),
        ("http://[0:0::1]:80/", "http://[::1]", "http://[::1]"),
        ("http://[::FFFF:127.0.0.1]:9", f"http://[{MAPPED}]:9", f"http://[{MAPPED}]:9"),
        ("https://api.cirron.com:8443", "https://api.cirron.com:8443", "https://app.cirron.com:8443"),
        ("https://api.cirron.com/base/", "https://api.cirron.com", "https://app.cirron.com"),
        ("https://api.api.example", "https://api.api.example", "https://app.api.example"),
        ("https://apis.example", "https://apis.example", "https://apis.example"),
        ("https://my-api.example", "https://my-api.example", "https://my-api.example"),
        ("https://eu.api.example", "https://eu.api.example", "https://eu.api.example"),
        ("https://api", "https://api", "https://api"),
        ("https://cirron.example:444", "https://cirron.example:444", "https://cirron.example:444"),
        ("https://10.0.0.1", "https://10.0.0.1", "https://10.0.0.1"),
        ("https://[2001:DB8::1]:8443/x", "https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("http://[::1]", "http://[::1]", "http://[::1]"),
        ("http://[::1]:9", "http://[::1]:9", "http://[::1]:9"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.9.8.7", "http://127.9.8.7", "http://127.9.8.7"),
        ("http://localhost:3000/", "http://localhost:3000", "http://localhost:3000"),
        ("http://api.localhost:3000", "http://api.localhost:3000", "http://app.localhost:3000"),
        ("http://LOCALHOST.", "http://localhost.", "http://localhost."),
    ],
)
@pytest.mark.parametrize("place", ["flag", "environment", "file"])
def test_where_batches_go(config: Path, url: str, base: str, origin: str, place: str) -> None:
    if place == "file":
        put(config, apiUrl=url)
    found = load(
        config,
        {"CIRRON_API_ENDPOINT": url} if place == "environment" else {},
        api_url=url if place == "flag" else None,
    )
    assert (found.api_url, found.ingest_origin) == (base, origin)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("api.cirron.com", id="no scheme"),
        pytest.param("ftp://api.cirron.com", id="ftp"),
        pytest.param("file:///etc/passwd", id="file"),
        pytest.param("https://", id="no host"),
        pytest.param("https:///path", id="only a path"),
        pytest.param("https://host:port", id="port no number"),
        pytest.param("https://host:65536", id="port too large"),
        pytest.param("https://[::1", id="half a bracket"),
        pytest.param("https://[nonsense]", id="no address in brackets"),
        pytest.param("https://exa mple", id="blank"),
        pytest.param("https://exam\u00a0ple.com", id="blank of another kind"),
        pytest.param("https:/example.com", id="one slash"),
        pytest.param("https:example.com", id="no slash"),
        pytest.param("https://host:0", id="port zero"),
        pytest.param("https://host:+80", id="port with a sign"),
        pytest.param("https://host:\uff18\uff10", id="port in other digits"),
        pytest.param("https://host:1:2", id="two ports"),
        pytest.param("https://[v1.x]", id="address of the future"),
        pytest.param("https://[::1]x", id="something behind brackets"),
        pytest.param("https://ex%61mple.com", id="encoded host"),
        pytest.param("https://exa*mple.com", id="asterisk"),
        pytest.param("https://a..example", id="empty label"),
        pytest.param("https://-a.example", id="label that begins with a hyphen"),
        pytest.param("https://" + "a" * 64, id="label too long"),
        pytest.param("https://" + "a." * 127 + "b", id="name too long"),
        pytest.param("https://xn--a", id="no international name"),
        pytest.param("https://\u202eexample.com", id="text direction"),
        pytest.param("https://example.com\r\nX-Evil: 1", id="line feed"),
        pytest.param("https://exam\tple.com", id="tab"),
        pytest.param("https://user@example.com", id="user"),
        pytest.param("https://user:do-not-show@example.com", id="password"),
        pytest.param("https://:do-not-show@example.com", id="only a password"),
        pytest.param("https://example.com\\@evil.example", id="backslash"),
        pytest.param("https://example.com/?key=do-not-show", id="query"),
        pytest.param("https://example.com?", id="empty query"),
        pytest.param("https://example.com/#x", id="fragment"),
        pytest.param("https://example.com#", id="empty fragment"),
        pytest.param("ftp://user:do-not-show@example.com", id="password, wrong scheme"),
        pytest.param("https://user:do-not-show@example.com:port", id="password, wrong port"),
        pytest.param("", id="empty"),
    ],
)
@pytest.mark.parametrize("place", ["flag", "environment", "file"])
def test_addresses_that_are_refused(config: Path, url: str, place: str) -> None:
    if not url and place != "flag":
        put(config, apiUrl=url)
        assert load(config, {"CIRRON_API_ENDPOINT": url}).api_url == "https://api.cirron.com"
        return
    if place == "file":
        put(config, apiUrl=url)
        assert f"apiUrl in {config} " in refusal(config)
    elif place == "environment":
        assert "CIRRON_API_ENDPOINT " in refusal(config, {"CIRRON_API_ENDPOINT": url})
    else:
        assert "api_url" in refusal(config, api_url=url)


def test_an_address_is_shown_escaped_and_cut(config: Path) -> None:
    message = refusal(config, api_url="\x1b]0;x\x07\u202e" + "a" * 9000)
    assert message.isprintable()
    assert len(message) < 500


@pytest.mark.parametrize(
    "url",
    ["http://example.com", "http://10.0.0.1:80", "http://[2001:db8::1]", "http://localhost.example.com"],
)
def test_plain_http_off_this_machine_needs_leave(config: Path, url: str) -> None:
    assert "plain http" in refusal(config, {"CIRRON_API_ENDPOINT": url})
    put(config, apiUrl=url)
    assert f"apiUrl in {config} " in refusal(config)
    assert "--allow-http" in refusal(config, api_url=url)
    origin = url.removesuffix(":80")
    assert load(config, api_url=url, allow_http=True).api_url == origin
    put(config, apiUrl=url, allowHttp=True)
    assert load(config).api_url == origin
    assert "plain http" in refusal(config, allow_http=False)
    assert load(config, api_url="https://example.com", allow_http=False).api_url == "https://example.com"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (None, False),
        ("", False),
        ("localhost", True),
        ("LocalHost", True),
        ("localhost.", True),
        ("x.localhost", True),
        ("localhost.evil.example", False),
        ("notlocalhost", False),
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("128.0.0.1", False),
        ("127.0.0.1.evil.example", False),
        ("2130706433", False),
    ],
)
def test_loopback(host: str | None, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("url", "proposed"),
    [
        ("api.cirron.com", "https://api.cirron.com"),
        ("spool.example:8443/api", "https://spool.example:8443"),
        ("localhost:8080", "http://localhost:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("ftp://spool.example", "https://api.cirron.com"),
        ("https//spool.example", "https://api.cirron.com"),
        (":8080", "https://api.cirron.com"),
    ],
)
def test_an_address_without_a_scheme_is_completed_in_the_message(
    config: Path, url: str, proposed: str
) -> None:
    said = f"api_url is not a web address: '{url}'. Set it to one like {proposed}."
    assert refusal(config, api_url=url, origins={"api_url": "api_url"}) == said


# -- origins -----------------------------------------------------------------------------------------------------


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the SDK's file is; nothing is there yet."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".cirron").mkdir(mode=0o700, exist_ok=True)
    return tmp_path / ".cirron" / "config.toml"


def put_toml(path: Path, text: str) -> None:
    path.write_text(f"[default]\n{text}\n")
    path.chmod(0o600)


def shown(settings: Settings) -> dict[str, str]:
    """The origin of each setting, as a message shows it."""
    return {name: str(setting.origin) for name, setting in settings.with_origins().items()}


def test_each_setting_has_its_origin(toml: Path) -> None:
    config = toml.with_name("config.json")
    assert shown(load_settings({})) == {
        "api_url": "the default",
        "ingest_path": "the default",
        "timeout_ms": "the default",
        "retries": "the default",
        "allow_http": "the default",
    }
    put_toml(toml, 'api_key = "k"\napi_endpoint = "https://t.example/v1"\ningest_path = "/t"')
    found = load_settings({})
    assert found.with_origins() == {
        "api_url": Setting("https://t.example", Origin("file", "api_endpoint", toml)),
        "ingest_path": Setting("/t", Origin("file", "ingest_path", toml)),
        "timeout_ms": Setting(30_000, DEFAULT),
        "retries": Setting(3, DEFAULT),
        "allow_http": Setting(False, DEFAULT),
        "token": Setting(Credentials("k"), Origin("file", "api_key", toml)),
    }
    put(config, apiUrl="https://j.example", retries=1, auth={"accessToken": "a"}, allowHttp=False)
    found = load_settings({"CIRRON_INGEST_PATH": "/e"}, timeout_ms=5, origins={"timeout_ms": "--timeout"})
    assert shown(found) == {
        "api_url": f"apiUrl in {config}",
        "ingest_path": "CIRRON_INGEST_PATH",
        "timeout_ms": "--timeout",
        "retries": f"retries in {config}",
        "allow_http": f"allowHttp in {config}",
        "token": f"auth.accessToken in {config}",
    }
    found = load_settings({"CIRRON_API_KEY": "e"}, token="t", api_url="https://a.example")
    assert (shown(found)["token"], shown(found)["api_url"]) == ("token", "api_url")


def test_settings_with_their_origins_show_no_token(config: Path) -> None:
    settings = load(config, token=SECRET).with_origins()
    assert settings["token"].origin == Origin("argument", "token")
    assert SECRET not in f"{settings} {settings['token'].value}"


@pytest.mark.parametrize(
    ("origin", "place"),
    [
        (Origin("argument", "token"), "the token argument"),
        (Origin("argument", "--token-file t.txt"), "--token-file t.txt"),
        (Origin("environment", "CIRRON_API_KEY"), "CIRRON_API_KEY"),
        (Origin("file", "token", Path("/a\x1bb")), "/a\\x1bb (key token)"),
        (DEFAULT, "the default"),
    ],
)
def test_an_origin_names_a_place(origin: Origin, place: str) -> None:
    assert origin.place == place


@pytest.mark.parametrize("key", ["api_key", "api_endpoint", "ingest_path"])
@pytest.mark.parametrize("value", ["7", "true", "['x']", "{ a = 1 }", "2026-04-18"])
def test_a_bad_value_of_the_sdks_file_names_its_key_and_the_file(toml: Path, key: str, value: str) -> None:
    put_toml(toml, f"{key} = {value}")
    with pytest.raises(ConfigError) as caught:
        load_settings({})
    assert str(caught.value) == f"{key} in {toml} is not a text. Correct it."


@pytest.mark.parametrize("key", ["api_key", "api_endpoint", "ingest_path"])
def test_an_empty_value_of_the_sdks_file_says_nothing(toml: Path, key: str) -> None:
    put_toml(toml, f"{key} = ''\nflush_interval = 'nonsense'")
    found = load_settings({})
    assert (found.api_url, found.ingest_path, found.credentials) == (
        "https://api.cirron.com",
        "/api/traces",
        None,
    )


def test_a_token_of_the_sdks_file_is_never_shown(toml: Path) -> None:
    put_toml(toml, f'api_key = "{SECRET}\\n"')
    with pytest.raises(ConfigError, match=re.escape(f"{toml} (key api_key)")) as caught:
        load_settings({})
    assert "do-not-show" not in "".join(traceback.format_exception(caught.value))
    toml.write_text(f'[default]\napi_key = "{SECRET}')
    with pytest.raises(ConfigError, match="TOML") as caught:
        load_settings({})
    assert "do-not-show" not in "".join(traceback.format_exception(caught.value))


def test_a_key_that_others_can_read_is_warned_of_where_it_is_used(toml: Path) -> None:
    put_toml(toml, 'api_key = "k"')
    toml.chmod(0o644)
    warning = f"{toml} can be read by other users. Run chmod 600 on it."
    assert load_settings({}).warnings == (warning,)
    assert load_settings({"CIRRON_API_KEY": "e"}).warnings == ()


def test_what_a_higher_place_has_needs_no_sound_file(toml: Path) -> None:
    toml.write_text("[default")
    put(toml.with_name("config.json"), apiUrl="https://j.example", token="sk-file")
    found = load_settings({"CIRRON_INGEST_PATH": "/e"})
    assert (found.api_url, found.warnings) == ("https://j.example", ())
    with pytest.raises(ConfigError, match="TOML"):
        load_settings({})


def test_a_hint_never_judges_what_is_not_used(toml: Path) -> None:
    config = toml.with_name("config.json")
    put(config, auth={"accessToken": "two words"})
    found = load_settings({"CIRRON_API_KEY": "e"})
    assert found.remedy == "Set a valid key, or unset it."
    put(config, apiUrl="https://j.example", auth=7)
    assert load_settings({}, token="t").remedy == (
        f"It was sent to https://j.example, an address from {config} (key apiUrl). Give a valid token."
    )


def test_no_home_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "~")
    found = load_settings({"CIRRON_API_KEY": "e"})
    assert (found.api_url, found.warnings) == ("https://api.cirron.com", ())
    assert load_settings({}).credentials is None
    assert "no home directory" in load_settings({}).missing_hint


# -- whose file ------------------------------------------------------------------------------------------------------


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users can reach: pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    """Be another user until the end of the block; root stays in reserve."""
    os.setresuid(uid, uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@needs_root
def test_another_users_file_is_refused(shared: Path) -> None:
    config = shared / "config.json"
    put(config, token=SECRET)
    config.chmod(0o644)
    os.chown(config, NOBODY - 1, -1)
    with as_user(NOBODY):
        assert (
            refusal(config) == f"{config} belongs to another user. Move it away, then run cirron auth login."
        )
    # Root reads everybody's, and everybody reads root's.
    assert load(config).credentials == Credentials(SECRET)
    os.chown(config, 0, -1)
    with as_user(NOBODY):
        assert load(config).credentials == Credentials(SECRET)


@needs_root
def test_an_unreadable_file_is_named(shared: Path) -> None:
    config = shared / "config.json"
    put(config, token=SECRET)
    with as_user(NOBODY):
        assert refusal(config) == f"Cannot read {config}: Permission denied. Check its permissions."
    assert stat.S_IMODE(config.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o602, 0o666, 0o622])
def test_a_file_that_everybody_can_write_is_refused(config: Path, mode: int) -> None:
    put(config, token=SECRET)
    config.chmod(mode)
    assert f"{config} can be written by every user" in refusal(config)


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o644, True)]
)
def test_a_file_that_others_can_read_is_warned_of(config: Path, mode: int, warned: bool) -> None:
    put(config, token=SECRET)
    config.chmod(mode)
    expected = (f"{config} can be read by other users. Run chmod 600 on it.",) if warned else ()
    assert load(config).warnings == expected


def test_systems_without_users_have_no_owner_to_check(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Windows, which cannot be had here.
    put(config)
    config.chmod(0o666)
    monkeypatch.delattr(os, "geteuid")
    assert load(config).warnings == ()


# -- settings ---------------------------------------------------------------------------------------------------------


def test_settings_cannot_be_changed(config: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(config).retries = 5  # type: ignore[misc]


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=14)), None])))
def test_any_expiry_is_read_or_ignored(moment: datetime) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "config.json"
        put(path, auth={"accessToken": "a", "expiresAt": moment.isoformat()})
        found = load(path).credentials
    assert found is not None
    if moment.year > 1:
        assert found.expires_at == (moment if moment.tzinfo else moment.replace(tzinfo=UTC))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KEYS = [
    "apiUrl",
    "timeout",
    "retries",
    "token",
    "auth",
    "allowHttp",
    "accessToken",
    "refreshToken",
    "expiresAt",
]


@given(
    st.dictionaries(
        st.sampled_from(KEYS), JSON_VALUES | st.dictionaries(st.sampled_from(KEYS), JSON_VALUES), max_size=6
    )
)
def test_any_file_loads_or_is_refused(document: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "config.json"
        put(path, **document)
        message = ""
        try:
            load(path)
        except ConfigError as error:
            message = str(error)
    assert message == "" or str(path) in message
    assert all(char.isprintable() or ord(char) >= 0xA0 for char in message)
