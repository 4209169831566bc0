"""``config``: the settings with their origins, and their changes, in prepared homes."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import shutil
import stat
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import cirron_spool as package
from cirron_spool.cli.arguments.config import CHANGEABLE, SETTINGS
from cirron_spool.cli.arguments.parser import UsageError
from cirron_spool.cli.config_table import lines
from cirron_spool.cli.config_values import refuse_unchangeable
from cirron_spool.cli.main import cirron_spool
from cirron_spool.settings.description import ENTRIES, Description
from cirron_spool.settings.origin import DEFAULT, Origin, Setting
from cirron_spool.spool.lock import lock_file
from support.cli import CliResult, command_line, spawn, spawn_cli, write_config
from support.fork_server import run_cli
from support.terminal import run_pty
from support.users import NOBODY, as_user, needs_root, powerless, shared_folder

LONG = "sk-0123456789abcdefghijWXYZ"
SHORT = "sk-short-one"
ACCESS = "access-0123456789-9876543210"


def config(home: Path, *args: str, stdin: str | None = None, **env: str) -> CliResult:
    return run_cli("config", *args, home=home, cwd=home, env=env, input=stdin)


def stored(home: Path) -> Any:
    return json.loads((home / ".cirron/config.json").read_text(encoding="utf-8"))


def refused(done: CliResult, code: int = 2) -> str:
    """The one line of a refusal."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def settings(home: Path, env: dict[str, str] | None = None, *, code: int = 0) -> dict[str, dict[str, Any]]:
    done = config(home, "list", "--json", **(env or {}))
    assert done.returncode == code, done.stderr
    document = done.json()
    assert isinstance(document, dict)
    assert document["exitCode"] == code
    return {setting["key"]: setting for setting in document["settings"]}


def put_toml(home: Path, **keys: object) -> Path:
    path = home / ".cirron/config.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text("[default]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items()))
    path.chmod(0o600)
    return path


# -- list and get ------------------------------------------------------------------------------------------------


def test_without_a_file_every_setting_has_its_default(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert list(found) == list(ENTRIES)
    assert {key: setting["value"] for key, setting in found.items() if setting["value"] is not None} == {
        "apiUrl": "https://api.cirron.com",
        "timeout": 30000,
        "retries": 3,
        "allowHttp": False,
        "auth.store": "file",
        "output_dir": ".cirron",
        "ingest_path": "/api/traces",
        "spool_max_bytes": 1_000_000_000,
    }
    for setting in found.values():
        assert setting["origin"] == {"kind": "default", "name": None, "file": None}
        assert (setting["overridden"], setting["problem"]) == ([], None)
    assert not (tmp_path / ".cirron").exists()


def test_the_shells_complete_the_settings_that_there_are() -> None:
    assert tuple(ENTRIES) == SETTINGS
    for key in SETTINGS:
        if key not in CHANGEABLE:
            with pytest.raises(UsageError, match=r"belongs to the login|is a setting of the SDK"):
                refuse_unchangeable(key, "x")
        else:
            refuse_unchangeable(key, "x")


def test_each_layer_overrides_the_ones_below(tmp_path: Path) -> None:
    toml = put_toml(
        tmp_path,
        api_endpoint="https://toml.example",
        api_key="sk-toml-0123456789-0123456789",
        output_dir="runs",
        ingest_path="/toml",
    )
    file = write_config(
        tmp_path, apiUrl="https://json.example", token=LONG, timeout=5000, auth={"accessToken": ACCESS}
    )
    env = {
        "CIRRON_API_ENDPOINT": "https://env.example",
        "CIRRON_API_KEY": "sk-variable-0123456789",
        "CIRRON_OUTPUT_DIR": "elsewhere",
    }
    found = settings(tmp_path, env)

    def origin(kind: str, name: str, path: Path | None = None) -> dict[str, object]:
        return {"kind": kind, "name": name, "file": str(path) if path else None}

    def below(value: object, *place: Any) -> dict[str, object]:
        return {"value": value, "origin": origin(*place)}

    assert found["apiUrl"] == {
        "key": "apiUrl",
        "value": "https://env.example",
        "origin": origin("environment", "CIRRON_API_ENDPOINT"),
        "overridden": [
            below("https://json.example", "file", "apiUrl", file),
            below("https://toml.example", "file", "api_endpoint", toml),
        ],
        "problem": None,
    }
    assert found["token"]["value"] == "sk-…6789"
    assert found["token"]["overridden"] == [
        below("…3210", "file", "auth.accessToken", file),
        below("sk-…WXYZ", "file", "token", file),
        below("sk-…6789", "file", "api_key", toml),
    ]
    assert (found["timeout"]["value"], found["timeout"]["origin"]) == (5000, origin("file", "timeout", file))
    assert found["output_dir"]["overridden"] == [below("runs", "file", "output_dir", toml)]
    assert found["ingest_path"]["origin"] == origin("file", "ingest_path", toml)
    assert found["api_endpoint"]["value"] == "https://toml.example"
    table = config(tmp_path, "list", **env)
    row = next(line for line in table.lines if "│ apiUrl " in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "apiUrl",
        "https://env.example",
        "CIRRON_API_ENDPOINT",
        "config.json (https://json.example), api_endpoint in config.toml (https://toml.example)",
    ]
    assert table.lines[0] == f"Configuration: {file}"


@pytest.mark.thorough
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["table", "json"])
def test_no_secret_is_shown(tmp_path: Path, form: list[str]) -> None:
    secrets = [
        LONG,
        SHORT,
        ACCESS,
        "refresh-0123456789-012345",
        "sk-toml-0123456789-0123456789",
        "sk-env-01234567",
    ]
    put_toml(tmp_path, api_key=secrets[4], api_endpoint="https://user:pa55word@toml.example")
    write_config(
        tmp_path,
        token=LONG,
        auth={"accessToken": ACCESS, "refreshToken": secrets[3]},
        apiUrl=f"https://h?{SHORT}",
    )
    for env in ({}, {"CIRRON_API_KEY": secrets[5]}):
        said = [config(tmp_path, "list", *form, **env)]
        said += [config(tmp_path, "get", key, *form, **env) for key in ENTRIES]
        for done in said:
            for secret in (*secrets, "pa55word"):
                assert secret not in done.stdout + done.stderr
                assert secret[:-4] not in done.stdout + done.stderr


def test_get_prints_the_value_alone(tmp_path: Path) -> None:
    write_config(tmp_path, timeout=1500.0, allowHttp=True, token=LONG, auth={"refreshToken": SHORT})
    for key, shown in {
        "timeout": "1500.0",
        "retries": "3",
        "allowHttp": "true",
        "token": "sk-…WXYZ",
        "auth.refreshToken": "…",
        "apiUrl": "https://api.cirron.com",
        "output_dir": ".cirron",
    }.items():
        done = config(tmp_path, "get", key)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{shown}\n", "")
    assert config(tmp_path, "get", "apiUrl", CIRRON_API_ENDPOINT="https://b.c").stdout == "https://b.c\n"


def test_get_of_an_unset_setting(tmp_path: Path) -> None:
    assert refused(config(tmp_path, "get", "auth.accessToken"), 1) == "auth.accessToken is not set."
    document = config(tmp_path, "get", "--json", "token").json()
    assert isinstance(document, dict)
    assert (document["value"], document["exitCode"], document["error"]["type"]) == (None, 1, "NotSet")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("file", "key", "problem"),
    [
        ({"timeout": "soon"}, "timeout", "timeout in {file} must be a whole number from 1 to 86400000 (milliseconds)."),
        ({"timeout": None}, "timeout", "timeout in {file} must be a whole number"),
        ({"timeout": {"a": 1}}, "timeout", "timeout in {file} must be a whole number"),
        ({"retries": -1}, "retries", "retries in {file} must be a whole number from 0 to 100."),
        ({"apiUrl": 7}, "apiUrl", "apiUrl in {file} is not a text."),
        ({"apiUrl": "http://far.example"}, "apiUrl", "apiUrl in {file} is 'http://far.example': credentials are not"),
        ({"allowHttp": "yes"}, "allowHttp", "allowHttp in {file} is not true or false."),
        ({"token": ["x"]}, "token", "token in {file} is not a text."),
        ({"token": "a b"}, "token", "The token from {file} (key token) has characters that are not allowed"),
        ({"auth": 7}, "token", "auth in {file} is not an object."),
        ({"auth": {"accessToken": 7}}, "auth.accessToken", "auth.accessToken in {file} is not a text."),
        ({"auth": {"expiresAt": "soon"}}, "auth.expiresAt", "auth.expiresAt in {file} is not a time"),
        ({"auth": {"store": "vault"}}, "auth.store", "auth.store in {file} is neither file nor keyring."),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_used_is_shown_with_a_warning(
    tmp_path: Path, file: dict[str, object], key: str, problem: str
) -> None:
    expected = problem.format(file=write_config(tmp_path, **file))
    done = config(tmp_path, "list")
    assert done.returncode == 0
    assert any(line.startswith(f"Warning: {expected}") for line in done.stderr.splitlines()), done.stderr
    row = next(line for line in done.lines if f"│ {key} " in line)
    assert "(!)" in row or "(not set)" in row or "(unknown)" in row
    assert settings(tmp_path)[key]["problem"].startswith(expected)
    assert refused(config(tmp_path, "get", key)).startswith(expected)
    assert stored(tmp_path) == file


def test_a_value_that_is_overridden_is_not_judged(tmp_path: Path) -> None:
    write_config(tmp_path, apiUrl="nonsense")
    done = config(tmp_path, "list", CIRRON_API_ENDPOINT="https://b.c")
    assert (done.returncode, done.stderr) == (0, "")
    assert "config.json (nonsense)" in done.stdout


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    write_config(tmp_path, apiUrl="https://h\x1b[31m", auth={"expiresAt": "\x1b]0;x\x07\n"})
    put_toml(tmp_path, output_dir="a\nb\x1b")
    for done in (config(tmp_path, "list"), config(tmp_path, "get", "output_dir")):
        assert done.returncode == 0
        assert "\x1b" not in done.stdout + done.stderr
    assert done.lines == [r"a\nb\x1b"]


def test_the_table_fits_any_terminal(tmp_path: Path) -> None:
    file = Path("/home/alice/.cirron/config.json")
    found = [
        Description("apiUrl", "https://a-long-platform.example.com/api", Origin("environment", "CIRRON_API_ENDPOINT"),
                    (Setting("https://another-platform.example.com", Origin("file", "apiUrl", file)),)),
        Description("timeout", 5, Origin("file", "timeout", file), (), "a problem"),
        Description("auth.refreshToken", None, DEFAULT, is_secret=True),
    ]  # fmt: skip
    whole = len(list(lines(found, file))[1])
    for columns in range(10, whole + 5):
        _, *table = lines(found, file, columns)
        overrides = [line for line in table if line.startswith("apiUrl overrides ")]
        assert overrides == (
            ["apiUrl overrides config.json (https://another-platform.example.com)"] if columns < whole else []
        )
        table = [line for line in table if line not in overrides]
        assert max(map(len, table)) <= columns
        assert len({len(line) for line in table}) == 1
    done = run_pty(command_line(["config", "list"]), home=tmp_path, cwd=tmp_path, columns=40)
    assert max(len(line) for line in done.text.splitlines()[1:]) <= 40


def test_path_prints_the_path_whether_the_file_is_there_or_not(tmp_path: Path) -> None:
    done = config(tmp_path, "path")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/.cirron/config.json\n", "")


def test_a_file_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    file = write_config(tmp_path, token=LONG)
    file.chmod(0o644)
    assert config(tmp_path, "list").stderr == (
        f"Warning: {file} can be read by other users. Run chmod 600 on it.\n"
    )


# -- set and unset -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("timeout", "1000", 1000),
        ("timeout", "30s", 30_000),
        ("timeout", "5m", 300_000),
        ("timeout", "1.5s", 1500),
        ("retries", "0", 0),
        ("retries", "10", 10),
        ("apiUrl", "https://cirron.example.com:8443/api", "https://cirron.example.com:8443/api"),
        ("apiUrl", "http://127.0.0.1:8787", "http://127.0.0.1:8787"),
        ("allowHttp", "true", True),
        ("allowHttp", "false", False),
        ("auth.store", "file", "file"),
    ],
)
@pytest.mark.parametrize("prog", ["cirron", "cirron-spool"])
def test_set_writes_the_value_and_get_reads_it(
    tmp_path: Path, key: str, text: str, value: object, prog: Any
) -> None:
    foreign = {"theme": {"dark": True}, "list": [1, None, "\ud800"], "auth": {"foreign": 1.5}}
    write_config(tmp_path, **foreign)
    done = run_cli("config", "set", key, text, home=tmp_path, cwd=tmp_path, prog=prog)
    assert (done.returncode, done.stderr) == (0, "")
    shown = json.dumps(value).strip('"')
    assert done.stdout == f"Success: Set {key} to {shown} in {tmp_path}/.cirron/config.json.\n"
    expected: dict[str, Any] = json.loads(json.dumps(foreign))
    if key == "auth.store":
        expected["auth"]["store"] = value
    else:
        expected[key] = value
    assert stored(tmp_path) == expected
    assert config(tmp_path, "get", key).stdout == f"{shown}\n"
    done = run_cli("config", "unset", "--json", key, home=tmp_path, cwd=tmp_path, prog=prog)
    assert (done.returncode, done.stderr) == (0, "")
    assert stored(tmp_path) == foreign


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["set", "timeout", "999"], (
            "timeout needs a time from 1000 to 300000 ms, with a unit (ms, s or m; milliseconds without one), as in "
            "cirron config set timeout 30s. It cannot be '999'."
        )),
        (["set", "timeout", "301s"], "timeout needs a time from 1000 to 300000 ms"),
        (["set", "timeout", "300001"], "timeout needs a time"),
        (["set", "timeout", "1h"], "timeout needs a time"),
        (["set", "timeout", "-5"], "timeout needs a time"),
        (["set", "timeout", ""], "timeout needs a time"),
        (["set", "timeout", "30", "s"], "timeout takes one value, as in cirron config set timeout 30s."),
        (["set", "timeout"], "timeout needs a value, as in cirron config set timeout 30s."),
        (["set", "retries", "11"], "retries needs a whole number from 0 to 10, as in cirron config set retries 3."),
        (["set", "retries", "-1"], "retries needs a whole number"),
        (["set", "retries", "3.0"], "retries needs a whole number"),
        (["set", "retries", "drei\x1b[31m"], "retries needs a whole number"),
        (["set", "apiUrl"], "apiUrl needs a value, as in cirron config set apiUrl https://api.cirron.com."),
        (["set", "apiUrl", "cirron.example"], "apiUrl is not a web address: 'cirron.example'. Set it to one like"),
        (["set", "apiUrl", "ftp://x"], "apiUrl is not a web address"),
        (["set", "apiUrl", "https://u:p@x"], "apiUrl must not hold a user, a password"),
        (["set", "apiUrl", "http://far.example"], "apiUrl is 'http://far.example': credentials are not sent"),
        (["set", "allowHttp", "yes"], "allowHttp needs one of true, false, as in cirron config set allowHttp true. It"),
        (["set", "auth.store", "vault"], "auth.store needs one of file, keyring"),
        (["set", "auth.accessToken", "eyJ"], "auth.accessToken belongs to the login. Run cirron auth login to"),
        (["unset", "auth.refreshToken"], "auth.refreshToken belongs to the login. Run cirron auth logout"),
        (["set", "output_dir", "x"], (
            "output_dir is a setting of the SDK. Edit the table [default] of {home}/.cirron/config.toml, or set "
            "CIRRON_OUTPUT_DIR."
        )),
        (["unset", "api_endpoint"], "api_endpoint is a setting of the SDK. Edit the table [default] of"),
        (["set", "api_key"], "api_key is a setting of the SDK."),
        (["set"], "Name a setting. There are: apiUrl, timeout, "),
        (["get"], "Name a setting. There are: "),
        (["unset"], "Name a setting. There are: "),
        (["get", "timeot"], "There is no setting 'timeot'. Did you mean timeout?"),
        (["get", "api_url"], "There is no setting 'api_url'. Did you mean apiUrl?"),
        (["set", "theme", "dark"], "There is no setting 'theme'. There are: apiUrl, "),
        (["set", "timeout=30s"], "Put a blank between a setting and its value: cirron config set timeout VALUE."),
        (["get", "timeout", "retries"], "config get takes one setting, as in cirron config get timeout."),
        (["unset", "timeout", "retries"], "config unset takes one setting"),
        (["set", "timeout", "30s", "--frob"], "There is no option '--frob'."),
        (["list", "timeout"], "Unexpected argument 'timeout'."),
        (["path", "--frob"], "There is no option '--frob'."),
        (["sett", "timeout", "1"], "There is no command 'sett'. Did you mean set?"),
    ],
)  # fmt: skip
def test_wrong_words_are_one_line_and_change_nothing(tmp_path: Path, args: list[str], line: str) -> None:
    write_config(tmp_path, timeout=5000)
    before = untouched(tmp_path)
    assert refused(config(tmp_path, *args)).startswith(line.format(home=tmp_path))
    assert untouched(tmp_path) == before


@pytest.mark.thorough
@pytest.mark.parametrize(
    "args",
    [
        ["set", "token", LONG],
        ["set", "token", "not-a-long-lived-one"],
        ["set", LONG],
        ["set", f"token={LONG}"],
        ["get", LONG],
        ["set", "timeout", LONG],
        ["set", "apiUrl", LONG, "x"],
        ["list", LONG],
    ],
)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_token_is_never_an_argument(tmp_path: Path, args: list[str], form: list[str]) -> None:
    done = config(tmp_path, *args, *form)
    assert done.returncode == 2
    assert done.stderr == (
        "Error: A token does not belong on the command line, where other users can read it. "
        "Give it on standard input: cirron auth login --with-token < token.txt. See cirron-spool config list --help.\n"
        if args[0] == "list"
        else "Error: A token does not belong on the command line, where other users can read it. "
        "Give it on standard input: cirron auth login --with-token < token.txt.\n"
    )
    assert "0123456789" not in done.stdout
    assert not (tmp_path / ".cirron").exists()


def test_a_token_is_read_from_standard_input(tmp_path: Path) -> None:
    write_config(tmp_path, theme=1)
    done = config(tmp_path, "set", "token", stdin=f"\ufeff{LONG}\r\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Success: Set token to sk-…WXYZ in {tmp_path}/.cirron/config.json.\n"
    assert stored(tmp_path) == {"theme": 1, "token": LONG}
    assert config(tmp_path, "unset", "token").stdout.startswith("Success: Removed token from ")
    assert stored(tmp_path) == {"theme": 1}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "There is no token in standard input. Pipe it: cirron config set token < token.txt."),
        ("\n \n", "There is no token in standard input."),
        (f"{LONG}\n{LONG}", "The token from standard input has characters that are not allowed"),
        ("sk-\x1b[31m", "The token from standard input has characters that are not allowed"),
    ],
)
def test_standard_input_without_a_token(tmp_path: Path, text: str, line: str) -> None:
    assert refused(config(tmp_path, "set", "token", stdin=text)).startswith(line)
    assert not (tmp_path / ".cirron").exists()


def test_a_token_is_not_echoed_on_a_terminal(tmp_path: Path) -> None:
    done = run_pty(
        command_line(["config", "set", "token"]),
        home=tmp_path,
        cwd=tmp_path,
        answers=[("not shown): ", f"{LONG}\n")],
    )
    assert "Success: Set token to sk-…WXYZ" in done.text
    assert LONG not in done.text
    assert stored(tmp_path) == {"token": LONG}


def test_a_login_comes_before_a_token_that_is_set(tmp_path: Path) -> None:
    file = write_config(tmp_path, auth={"accessToken": ACCESS})
    done = config(tmp_path, "set", "token", stdin=LONG)
    assert done.returncode == 0
    assert done.stderr == (
        f"Warning: auth.accessToken in {file} overrides this token. "
        "Run cirron auth login --with-token to replace it.\n"
    )
    assert stored(tmp_path) == {"auth": {"accessToken": ACCESS}, "token": LONG}


def test_a_value_that_a_variable_overrides_is_a_warning(tmp_path: Path) -> None:
    done = config(
        tmp_path, "set", "apiUrl", "https://b.c", "--json", CIRRON_API_ENDPOINT="https://env.example"
    )
    assert done.returncode == 0
    assert done.stderr == "Warning: CIRRON_API_ENDPOINT is set, and overrides this value.\n"
    document = done.json()
    assert isinstance(document, dict)
    assert document["value"] == "https://env.example"
    assert document["overridden"][0]["value"] == "https://b.c"
    assert stored(tmp_path) == {"apiUrl": "https://b.c"}


def test_plain_http_is_a_matter_of_allow_http(tmp_path: Path) -> None:
    assert config(tmp_path, "set", "allowHttp", "true").returncode == 0
    assert config(tmp_path, "set", "apiUrl", "http://far.example").returncode == 0
    done = config(tmp_path, "unset", "allowHttp")
    assert done.returncode == 0
    assert done.stderr.startswith("Warning: apiUrl in ")
    assert stored(tmp_path) == {"apiUrl": "http://far.example"}


def test_a_wrong_value_in_the_file_can_be_replaced_and_removed(tmp_path: Path) -> None:
    write_config(tmp_path, timeout="x", retries=[], apiUrl="nonsense", allowHttp=3, auth={"store": "vault"})
    for key, text in (
        ("timeout", "30s"),
        ("apiUrl", "https://b.c"),
        ("allowHttp", "true"),
        ("auth.store", "file"),
    ):
        assert config(tmp_path, "set", key, text).returncode == 0
    assert config(tmp_path, "unset", "retries").returncode == 0
    assert stored(tmp_path) == {
        "timeout": 30000,
        "apiUrl": "https://b.c",
        "allowHttp": True,
        "auth": {"store": "file"},
    }


def test_unset_of_a_setting_that_is_not_there(tmp_path: Path) -> None:
    said = f"timeout is not set in {tmp_path}/.cirron/config.json. Nothing was changed.\n"
    done = config(tmp_path, "unset", "timeout")
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
    assert not (tmp_path / ".cirron").exists()
    write_config(tmp_path, auth=7)
    before = untouched(tmp_path)
    assert config(tmp_path, "unset", "timeout").stdout == said
    assert untouched(tmp_path) == before


# -- the file ----------------------------------------------------------------------------------------------------


def test_the_file_and_its_folder_are_private(tmp_path: Path) -> None:
    assert config(tmp_path, "set", "retries", "1").returncode == 0
    folder = tmp_path / ".cirron"
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "config.json").stat().st_mode) == 0o600


def test_the_target_of_a_link_is_changed_and_the_link_stays(tmp_path: Path) -> None:
    target = write_config(tmp_path / "dotfiles", theme=1)
    link = tmp_path / ".cirron/config.json"
    link.parent.mkdir(mode=0o700)
    link.symlink_to(target)
    assert config(tmp_path, "set", "retries", "1").returncode == 0
    assert link.is_symlink()
    assert json.loads(target.read_text()) == {"theme": 1, "retries": 1}


def untouched(home: Path) -> list[tuple[Path, int, int]]:
    """Every file below `home`, its inode and its time. A folder's time tells of the lock."""
    return [
        (path, status.st_ino, 0 if path.is_dir() else status.st_mtime_ns)
        for path in sorted(home.rglob("*"))
        for status in [path.lstat()]
    ]


def cut(path: Path) -> None:
    path.write_bytes(b'{"apiUrl": ')


def a_list(path: Path) -> None:
    path.write_bytes(b"[]")


def everybodys(path: Path) -> None:
    path.chmod(0o666)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def below_a_file(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.touch()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.thorough
@pytest.mark.parametrize("spoil", [cut, a_list, everybodys, folder, below_a_file, pipe, loop])
def test_an_unusable_file_is_named_and_stays(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    file = write_config(tmp_path, timeout=5000)
    spoil(file)
    before = untouched(tmp_path)
    for args in (
        ["get", "timeout"],
        ["set", "timeout", "30s"],
        ["unset", "timeout"],
        ["set", "auth.store", "file"],
    ):
        if args[0] == "unset" and spoil is below_a_file:
            continue  # there is certainly nothing to remove
        assert str(file) in refused(config(tmp_path, *args))
    listed = config(tmp_path, "list")
    assert listed.returncode == 2
    assert f"{file}" in listed.stderr.splitlines()[-1]
    assert listed.stderr.count("Error: ") == 1
    assert "│ apiUrl " in listed.stdout
    assert settings(tmp_path, code=2)["retries"]["value"] == 3
    # What comes before the file is known.
    done = config(tmp_path, "get", "apiUrl", CIRRON_API_ENDPOINT="https://b.c")
    assert (done.returncode, done.stdout) == (0, "https://b.c\n")
    assert untouched(tmp_path) == before


def test_a_broken_file_of_the_sdk_does_not_hinder_a_change(tmp_path: Path) -> None:
    toml = put_toml(tmp_path)
    toml.write_bytes(b"[default")
    assert config(tmp_path, "set", "timeout", "30s").returncode == 0
    assert config(tmp_path, "get", "timeout").stdout == "30000\n"
    assert str(toml) in refused(config(tmp_path, "get", "output_dir"))
    done = config(tmp_path, "list")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"Error: {toml} is not valid TOML. Correct it, or move it away."]


def run_powerless(home: Path, *args: str) -> CliResult:
    with spawn(powerless(command_line(["config", *args])), home=home, cwd=home) as running:
        return running.finish()


@needs_root
@pytest.mark.parametrize(("mode", "why"), [(0o600, "Permission denied"), (0o644, "belongs to another user")])
def test_the_file_of_another_user(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: int, why: str
) -> None:
    with shared_folder() as home:
        file = write_config(home, timeout=5000)
        file.parent.chmod(0o777)
        file.chmod(mode)
        os.chown(file, NOBODY - 1, NOBODY - 1)
        for module in pkgutil.walk_packages(package.__path__, "cirron_spool."):
            # The interpreter's files may be closed to others.
            if module.name.startswith(("cirron_spool.cli.", "cirron_spool.settings.")):
                import_module(module.name)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.delenv("CIRRON_API_KEY", raising=False)
        with as_user(NOBODY):
            for args in (["get", "timeout"], ["set", "timeout", "30s"], ["unset", "timeout"]):
                assert cirron_spool(["config", *args]) == 2
        out, err = capsys.readouterr()
        assert stored(home) == {"timeout": 5000}
    assert out == ""
    assert [re.fullmatch(rf"Error: .*{file}.*{why}.*", line) is not None for line in err.splitlines()] == [
        True
    ] * 3


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    file = write_config(tmp_path, timeout=5000)
    if os.geteuid() == 0:
        os.chown(file.parent, NOBODY, NOBODY)
        file.parent.chmod(0o755)
        file.chmod(0o644)
    else:
        file.parent.chmod(0o500)
    done = (
        run_powerless(tmp_path, "set", "timeout", "30s")
        if os.geteuid() == 0
        else config(tmp_path, "set", "timeout", "30s")
    )
    file.parent.chmod(0o755)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: Cannot change {file}: Permission denied. Check its permissions")
    assert stored(tmp_path) == {"timeout": 5000}


def test_without_a_home(tmp_path: Path) -> None:
    for args in (["set", "timeout", "30s"], ["get", "timeout"], ["list"]):
        done = config(tmp_path, *args, HOME=os.devnull)
        assert done.returncode == 2
        assert "Error: Cannot read /dev/null/.cirron/config.json: Not a directory" in done.stderr
    done = config(tmp_path, "set", "timeout", "30s", HOME=str(tmp_path / "new/home"))
    assert done.returncode == 0
    assert stored(tmp_path / "new/home") == {"timeout": 30000}


@pytest.mark.thorough
@pytest.mark.parametrize("there", [True, False], ids=["a file", "no folder yet"])
def test_changes_of_many_processes_at_once_are_all_kept(tmp_path: Path, there: bool) -> None:
    """Twelve processes wait for one lock; each then sets one of four keys, the last value of which is kept."""
    if there:
        write_config(tmp_path, theme=1)
    changes = [("timeout", "30s"), ("retries", "7"), ("allowHttp", "true"), ("apiUrl", "https://b.c")] * 3
    with ExitStack() as stack:
        running = [
            stack.enter_context(spawn_cli("config", "set", key, value, home=tmp_path, cwd=tmp_path))
            for key, value in changes
        ]
        for process in running:
            done = process.finish()
            assert (done.returncode, done.stderr) == (0, "")
    expected = {"timeout": 30000, "retries": 7, "allowHttp": True, "apiUrl": "https://b.c"}
    assert stored(tmp_path) == ({"theme": 1, **expected} if there else expected)
    assert [path.name for path in (tmp_path / ".cirron").iterdir()] == ["config.json"]


def test_a_change_waits_for_the_lock(tmp_path: Path) -> None:
    file = write_config(tmp_path, theme=1)
    lock = lock_file(f"{file}.lock")
    with spawn_cli("config", "set", "timeout", "30s", home=tmp_path, cwd=tmp_path) as running:
        # Another process ends its change meanwhile.
        write_config(tmp_path, theme=2)
        lock.release()
        assert running.finish().returncode == 0
    assert stored(tmp_path) == {"theme": 2, "timeout": 30000}


# -- the keyring -------------------------------------------------------------------------------------------------

KEYRING = {"PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring"}


@pytest.mark.thorough
def test_the_store_moves_the_tokens(tmp_path: Path) -> None:
    login = {"accessToken": ACCESS, "refreshToken": "refresh-0", "foreign": 1}
    write_config(tmp_path, auth=login, token=LONG)
    done = config(tmp_path, "set", "auth.store", "keyring", **KEYRING)
    assert (done.returncode, done.stderr) == (0, "")
    assert stored(tmp_path) == {"auth": {"store": "keyring", "foreign": 1}}
    found = settings(tmp_path, KEYRING)
    assert (found["token"]["value"], found["token"]["origin"]["kind"]) == ("…3210", "keyring")
    assert found["token"]["overridden"][0]["origin"]["name"] == "token"
    assert found["auth.accessToken"]["origin"]["kind"] == "keyring"
    # A setting that is no token has nothing to do with the keyring.
    assert config(tmp_path, "set", "timeout", "30s", PYTHON_KEYRING_BACKEND="nowhere.Keyring").returncode == 0
    done = config(tmp_path, "unset", "auth.store", **KEYRING)
    assert (done.returncode, done.stderr) == (0, "")
    assert stored(tmp_path) == {"auth": login, "token": LONG, "timeout": 30000}


@pytest.mark.thorough
def test_the_way_back_from_a_keyring_that_fails(tmp_path: Path) -> None:
    failing = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    write_config(tmp_path, auth={"store": "keyring"})
    listed = config(tmp_path, "list", **failing)
    assert listed.returncode == 0
    assert listed.stderr.startswith("Warning: Cannot read the keyring: ")
    assert listed.stderr.count("\n") == 1
    assert "(unknown)" in listed.stdout
    done = config(tmp_path, "set", "auth.store", "file", **failing)
    assert done.returncode == 0
    assert done.stderr.startswith("Warning: Cannot read the keyring: ")
    assert stored(tmp_path) == {"auth": {"store": "file"}}
    assert refused(config(tmp_path, "set", "auth.store", "keyring", **failing)).startswith(
        "Cannot read the keyring"
    )
    assert stored(tmp_path) == {"auth": {"store": "file"}}


def test_a_missing_token_names_the_keyring_that_was_searched(tmp_path: Path) -> None:
    write_config(tmp_path, auth={"store": "keyring"})
    env = {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}
    done = run_cli("auth", "status", home=tmp_path, cwd=tmp_path, env=env)
    assert done.returncode == 3
    assert "There is no token in CIRRON_API_KEY, the keyring, " in done.stderr


# -- in this process: a lock that stays held, and a user without a home


def test_a_lock_that_stays_held_is_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_config(tmp_path, timeout=5000)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("cirron_spool.auth.token_store._LOCK_WAIT_S", 0.0)
    lock = lock_file(f"{file}.lock")
    try:
        assert cirron_spool(["config", "set", "timeout", "30s"]) == 4
    finally:
        lock.release()
    said = f"Error: Another process is changing {file}. Run this again later.\n"
    assert tuple(capsys.readouterr()) == ("", said)
    assert stored(tmp_path) == {"timeout": 5000}


@needs_root
def test_a_user_without_any_home(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("HOME")
    with as_user(NOBODY - 7):  # has no entry in passwd
        for args in (["path"], ["set", "timeout", "30s"], ["unset", "timeout"]):
            assert cirron_spool(["config", *args]) == 2
        assert cirron_spool(["config", "get", "timeout"]) == 0
        assert cirron_spool(["config", "list"]) == 0
    out, err = capsys.readouterr()
    said = "Error: There is no home directory for the configuration. Set HOME.\n"
    assert err == said * 3
    assert out.startswith("30000\nConfiguration: none: there is no home directory\n")


def test_a_number_in_place_of_a_truth_value_is_replaced(tmp_path: Path) -> None:
    write_config(tmp_path, allowHttp=1)
    assert config(tmp_path, "set", "allowHttp", "true").returncode == 0
    assert stored(tmp_path)["allowHttp"] is True


@pytest.mark.thorough
def test_a_file_that_is_nested_deeply_is_kept_or_refused(tmp_path: Path) -> None:
    for depth in (300, 700, 900, 5000):
        file = write_config(tmp_path)
        text = f'{{"a": {"[" * depth}{"]" * depth}}}'
        file.write_text(text)
        done = config(tmp_path, "set", "timeout", "30s")
        if done.returncode:
            assert str(file) in refused(done)
            assert file.read_text() == text
        else:
            assert config(tmp_path, "unset", "timeout").returncode == 0
            assert "".join(file.read_text().split()) == "".join(text.split())


def test_a_file_near_the_limit_is_kept_readable_or_refused(tmp_path: Path) -> None:
    for spare in (100, 10):
        file = write_config(tmp_path)
        # Blanks and indents would take several bytes for each number.
        text = json.dumps(
            {"a": [1] * 100_000, "b": "x" * (1024 * 1024 - 200_014 - spare)}, separators=(",", ":")
        )
        assert len(text) == 1024 * 1024 - spare
        file.write_text(text)
        done = config(tmp_path, "set", "timeout", "30s")
        if spare == 10:
            assert refused(done) == f"{file} would become too large for a configuration. Correct it."
            assert file.read_text() == text
        else:
            assert done.returncode == 0
            assert config(tmp_path, "get", "timeout").stdout == "30000\n"
