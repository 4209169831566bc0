"""Where the command's settings come from: prepared homes, real servers, the command as a subprocess."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.answers import Answer, json_answer, ok
from support.cli import CliResult, command_line, spawn, write_config
from support.fork_server import run_cli
from support.scripted import ScriptedServer
from support.spools import TINY, Sealed, sdk_batches, snapshot
from support.users import NOBODY, shared_folder

KEY = "sk-key-0123456789"
INVALID = "Error: Authentication invalid. Run cirron auth login first."
MISSING = "Error: Not authenticated. Run cirron auth login first."
STATUS = ("GET", "/api/cli/status")


def spool_in(folder: Path, count: int = 1) -> list[Sealed]:
    return sdk_batches(folder / ".cirron" / "spool", count, spans=TINY)


def flush(home: Path, *args: str, cwd: Path | str | None = None, **env: str) -> CliResult:
    return run_cli("flush", *args, home=home, cwd=Path(cwd or home), env=env)


def put_toml(home: Path, **keys: str) -> Path:
    path = home / ".cirron" / "config.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text("[default]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items()))
    path.chmod(0o600)
    return path


# -- the SDK's own file ------------------------------------------------------------------------------------------


def test_the_sdks_file_alone_is_enough(tmp_path: Path) -> None:
    batches = sdk_batches(tmp_path / "runs/spool", 2, spans=TINY)
    with ScriptedServer() as server:
        server.on("POST", "/v2/traces", default=ok())
        put_toml(tmp_path, api_key=KEY, api_endpoint=server.url, output_dir="runs", ingest_path="/v2/traces")
        done = flush(tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("Uploaded: 2  Failed: 0  Skipped: 0\n")
        posts = server.seen("/v2/traces")
    assert [(post.batch_id, post.token) for post in posts] == [(batch.batch_id, KEY) for batch in batches]
    assert snapshot(tmp_path / "runs/spool") == []


def test_each_place_overrides_the_ones_below(tmp_path: Path) -> None:
    tokens = {}
    with ScriptedServer() as server, ScriptedServer() as other:
        put_toml(tmp_path, api_key="sk-toml", api_endpoint=other.url, ingest_path="/toml")
        server.on("POST", "/toml", default=ok())
        server.on("POST", "/variable", default=ok())
        write_config(tmp_path, apiUrl=server.url)
        for name, env, args in (
            ("toml", {}, []),
            ("json", {}, []),
            ("variable", {"CIRRON_API_KEY": "sk-variable", "CIRRON_INGEST_PATH": "/variable"}, []),
            ("flag", {"CIRRON_API_KEY": "sk-variable", "CIRRON_API_ENDPOINT": other.url}, ["--api-url", server.url]),
        ):  # fmt: skip
            if name == "json":
                write_config(tmp_path, apiUrl=server.url, token="sk-json")
            spool_in(tmp_path)
            before = len(server.requests)
            done = flush(tmp_path, *args, **env)
            assert done.returncode == 0, done.stderr
            tokens[name] = {(request.path, request.token) for request in server.requests[before:]}
        assert other.requests == []
    status = "/api/cli/status"
    assert tokens == {
        "toml": {(status, "sk-toml"), ("/toml", "sk-toml")},
        "json": {(status, "sk-json"), ("/toml", "sk-json")},
        "variable": {(status, "sk-variable"), ("/variable", "sk-variable")},
        "flag": {(status, "sk-variable"), ("/toml", "sk-variable")},
    }


@pytest.mark.parametrize("path", ["/v2/traces", "/ingest/", "/a%20b", "/"])
def test_a_missing_route_is_named_as_it_was_set(tmp_path: Path, path: str) -> None:
    spool_in(tmp_path)
    with ScriptedServer() as server:
        done = flush(tmp_path, CIRRON_API_KEY=KEY, CIRRON_API_ENDPOINT=server.url, CIRRON_INGEST_PATH=path)
        origin = server.url
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == (
        f"Error: Ingest route {path} not available on {origin} (404). "
        "Platform may not have shipped the route yet."
    )


BAD_PATHS = [
    "api",
    "api/traces",
    "/a?b=c",
    "/a#b",
    "/a b",
    "/a\\b",
    "/ü",
    "/a\nX: y",
    "/a/../b",
    "/.",
    "/%zz",
    "http://h/",
]


@pytest.mark.thorough
@pytest.mark.parametrize("path", BAD_PATHS)
@pytest.mark.parametrize("place", ["variable", "file"])
def test_a_bad_route_is_refused_before_anything_is_sent(tmp_path: Path, path: str, place: str) -> None:
    spool_in(tmp_path)
    env = {"CIRRON_API_KEY": KEY}
    named = "CIRRON_INGEST_PATH"
    with ScriptedServer() as server:
        if place == "variable":
            env["CIRRON_INGEST_PATH"] = path
        else:
            named = f"ingest_path in {put_toml(tmp_path, ingest_path=path)}"
        done = flush(tmp_path, CIRRON_API_ENDPOINT=server.url, **env)
        assert server.requests == []
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"Error: {named} must be a path that begins with /")
    assert line.isprintable()


def test_a_path_in_the_address_is_dropped_from_every_call(tmp_path: Path) -> None:
    spool_in(tmp_path)
    with ScriptedServer(check_auth=True) as server:
        write_config(
            tmp_path,
            apiUrl=f"{server.url.upper().replace('HTTP', 'http')}/v1/api/",
            auth={"accessToken": "old", "refreshToken": "refresh-0"},
        )
        done = flush(tmp_path)
        assert done.returncode == 0, done.stderr
        paths = [request.path for request in server.requests]
    assert paths == ["/api/cli/status", "/api/cli/auth/refresh", "/api/traces"]


# -- a configuration that cannot be used, with a key at hand -----------------------------------------------------


def broken_json(home: Path) -> Path:
    file = write_config(home)
    file.write_bytes(b'{"apiUrl": ')
    return file


def folder(home: Path) -> Path:
    file = home / ".cirron" / "config.json"
    file.mkdir(parents=True)
    return file


def pipe(home: Path) -> Path:
    (home / ".cirron").mkdir()
    os.mkfifo(home / ".cirron" / "config.json")
    return home / ".cirron" / "config.json"


def everybodys(home: Path) -> Path:
    file = write_config(home, apiUrl="http://192.0.2.1")
    file.chmod(0o666)
    return file


def a_list(home: Path) -> Path:
    file = write_config(home)
    file.write_bytes(b"[]")
    return file


def below_a_file(home: Path) -> Path:
    (home / ".cirron").touch()
    return home / ".cirron" / "config.json"


def loop(home: Path) -> Path:
    (home / ".cirron").mkdir()
    (home / ".cirron" / "config.json").symlink_to("config.json")
    return home / ".cirron" / "config.json"


def broken_toml(home: Path) -> Path:
    file = put_toml(home)
    file.write_bytes(b"[default")
    return file


UNUSABLE = [broken_json, folder, pipe, everybodys, a_list, below_a_file, loop, broken_toml]


@pytest.mark.thorough
@pytest.mark.parametrize("make", UNUSABLE)
@pytest.mark.parametrize("by", ["variable", "file"])
def test_with_a_key_at_hand_it_is_a_warning(tmp_path: Path, make: Callable[[Path], Path], by: str) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    spool_in(here)
    file = make(home)
    (tmp_path / "key").write_text(KEY)
    env, args = (
        ({"CIRRON_API_KEY": KEY}, []) if by == "variable" else ({}, ["--token-file", str(tmp_path / "key")])
    )
    with ScriptedServer() as server:
        done = flush(home, *args, cwd=here, CIRRON_API_ENDPOINT=server.url, **env)
        tokens = {request.token for request in server.requests}
        url = server.url
    assert (done.returncode, tokens) == (0, {KEY}), done.stderr
    assert done.stdout.startswith("Uploaded: 1")
    warnings = done.stderr.splitlines()
    assert all(line.startswith("Warning: ") and str(file) in line for line in warnings)
    assert warnings[-1].endswith(f". The file is ignored. Batches go to {url} (CIRRON_API_ENDPOINT).")
    if make is broken_toml:
        assert warnings[0].endswith(f"The spool is expected in {here}/.cirron/spool.")
    assert len(warnings) == (2 if make is broken_toml else 1)
    assert file.is_dir() == (make is folder)


@pytest.mark.parametrize("make", UNUSABLE)
def test_without_a_key_it_is_an_error(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    batches = spool_in(here)
    file = make(home)
    done = flush(home, cwd=here)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert str(file) in line
    assert snapshot(here / ".cirron/spool") == batches


def test_the_address_that_a_key_goes_to_is_named(tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    spool_in(here)
    broken_json(home)
    # The refused proxy keeps the key on this machine.
    done = flush(home, "--retries", "0", cwd=here, CIRRON_API_KEY=KEY, HTTPS_PROXY="http://127.0.0.1:9")
    assert done.returncode in (1, 4)
    assert "The file is ignored. Batches go to https://api.cirron.com (the default)." in done.stderr


def test_the_sdks_address_holds_where_the_other_file_is_broken(tmp_path: Path) -> None:
    spool_in(tmp_path)
    broken_json(tmp_path)
    with ScriptedServer() as server:
        file = put_toml(tmp_path, api_endpoint=server.url)
        done = flush(tmp_path, CIRRON_API_KEY=KEY)
        assert len(server.uploads) == 1
        url = server.url
    assert done.returncode == 0
    assert f"The file is ignored. Batches go to {url} (api_endpoint in {file})." in done.stderr


# -- no home, and other users ------------------------------------------------------------------------------------


@pytest.fixture
def shared() -> Iterator[Path]:
    with shared_folder() as place:
        yield place


def run_as_nobody(here: Path, *words: str, home: Path | None, **env: str) -> CliResult:
    """Run the command as a user without a passwd entry, with `home` or without HOME."""
    setpriv = shutil.which("setpriv")
    if setpriv is None or os.geteuid() != 0:
        pytest.skip("needs root and setpriv, to be another user")
    user = [setpriv, f"--reuid={NOBODY - 7}", f"--regid={NOBODY - 7}", "--clear-groups"]
    if home is None:
        user = ["env", "-u", "HOME", *user]
    with spawn([*user, *command_line(["--version"])], cwd=here, home=home or here) as probe:
        if probe.finish().returncode:
            pytest.skip("the interpreter is closed to other users")
    with spawn([*user, *command_line(words)], cwd=here, home=home or here, env=env) as running:
        return running.finish()


def give(path: Path) -> None:
    """Give a tree to the user of `run_as_nobody`."""
    for place in (path, *path.rglob("*")):
        os.chown(place, NOBODY - 7, NOBODY - 7, follow_symlinks=False)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["none", "missing", "null", "closed", "foreign file", "closed file"])
def test_another_user_with_a_key(shared: Path, kind: str) -> None:
    here = shared / "here"
    spool_in(here)
    home: Path | None = shared / "home"
    warned = False
    if kind == "none":
        home = None
    elif kind == "null":
        home = Path(os.devnull)
        warned = True
    elif kind != "missing":
        assert home is not None
        file = write_config(home, apiUrl="http://192.0.2.1", token="sk-other")
        file.parent.chmod(0o755)
        file.chmod(0o644 if kind == "foreign file" else 0o600)
        if os.geteuid() == 0:
            os.chown(file, NOBODY - 8, NOBODY - 8)
        home.chmod(0o700 if kind == "closed" else 0o755)
        warned = True
    if os.geteuid() == 0:
        give(here)
    with ScriptedServer() as server:
        done = run_as_nobody(here, "flush", home=home, CIRRON_API_KEY=KEY, CIRRON_API_ENDPOINT=server.url)
        assert (done.returncode, [upload.token for upload in server.uploads]) == (0, [KEY]), done.stderr
        url = server.url
    lines = done.stderr.splitlines()
    assert len(lines) == warned
    if warned:
        assert str(home) in lines[0]
        assert lines[0].endswith(f"The file is ignored. Batches go to {url} (CIRRON_API_ENDPOINT).")


@pytest.mark.thorough
@pytest.mark.parametrize("command", [("inspect",), ("clear", "--force"), ("quarantine", "list")])
@pytest.mark.parametrize("kind", ["none", "closed", "foreign file"])
def test_what_needs_no_configuration_is_no_matter_of_users(
    shared: Path, command: tuple[str, ...], kind: str
) -> None:
    here = shared / "here"
    spool_in(here)
    home: Path | None = shared / "home"
    if kind == "none":
        home = None
    else:
        assert home is not None
        write_config(home, token="sk-other")
        (home / ".cirron").chmod(0o700 if kind == "closed" else 0o755)
    if os.geteuid() == 0:
        give(here)
    done = run_as_nobody(here, *command, home=home)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_home_and_a_key_nobody_is_authenticated(shared: Path) -> None:
    spool_in(shared / "here")
    if os.geteuid() == 0:
        give(shared / "here")
    done = run_as_nobody(shared / "here", "flush", home=None)
    assert done.returncode == 3
    assert done.stderr.splitlines()[:2] == [
        MISSING,
        (
            "Warning: There is no token in CIRRON_API_KEY, and no home directory that could hold a login. "
            "Set CIRRON_API_KEY, or HOME."
        ),
    ]


# -- the source of a refused token -------------------------------------------------------------------------------


def refused(home: Path, *args: str, **env: str) -> tuple[list[str], list[str]]:
    """What is said about a token that the verification refuses, and about one that is refused in mid-flush."""
    said = []
    for verify in (True, False):
        spool_in(home)
        with ScriptedServer() as server:
            server.on(*STATUS, default=Answer(401))
            server.on("POST", "/api/cli/auth/refresh", default=Answer(401))
            server.on("POST", "/api/traces", default=json_answer({"error": "expired"}, 401))
            args_ = [*args, "--api-url", server.url, *([] if verify else ["--no-verify"])]
            done = flush(home, *args_, **env)
        assert done.returncode == 3
        said.append([line.replace(server.url, "URL") for line in done.stderr.splitlines()])
    assert said[0][0] == INVALID
    assert said[1][0].startswith("Error: Auth rejected (401) for ")
    assert said[1][0].endswith(".json. Run cirron auth login.")
    return said[0], said[1]


def test_an_expired_key_beside_a_good_login(tmp_path: Path) -> None:
    file = write_config(tmp_path, auth={"accessToken": "good", "refreshToken": "r"})
    verified, rejected = refused(tmp_path, CIRRON_API_KEY=KEY)
    hint = (
        "Warning: The refused token came from CIRRON_API_KEY. "
        f"Unset it to use the login in {file}, or set a valid key."
    )
    assert (verified[1], rejected[1]) == (hint, hint)


def test_an_expired_key_alone(tmp_path: Path) -> None:
    verified, _ = refused(tmp_path, CIRRON_API_KEY=KEY)
    assert verified[1] == (
        "Warning: The refused token came from CIRRON_API_KEY. Set a valid key, or unset it."
    )


def test_an_expired_token_in_a_file_that_was_named(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(KEY)
    verified, rejected = refused(tmp_path, "--token-file", "t.txt", CIRRON_API_KEY="sk-other")
    assert (
        verified[1]
        == rejected[1]
        == (
            "Warning: The refused token came from --token-file t.txt. "
            "Give a valid token, or leave it out to use CIRRON_API_KEY."
        )
    )


def test_an_expired_key_in_the_sdks_file(tmp_path: Path) -> None:
    file = put_toml(tmp_path, api_key=KEY)
    verified, rejected = refused(tmp_path)
    assert verified[1].startswith(f"Warning: The refused token came from {file} (key api_key). ")
    assert verified[1].endswith("Put a valid key there.")
    assert rejected[1] == verified[1]


@pytest.mark.parametrize("keys", [{"token": "sk-old"}, {"auth": {"accessToken": "old", "refreshToken": "r"}}])
def test_an_expired_login_where_the_variable_names_another_platform(
    tmp_path: Path, keys: dict[str, object]
) -> None:
    file = write_config(tmp_path, apiUrl="https://one.example", **keys)
    spool_in(tmp_path)
    with ScriptedServer() as server:
        server.on(*STATUS, default=Answer(401))
        server.on("POST", "/api/cli/auth/refresh", default=Answer(401))
        done = flush(tmp_path, CIRRON_API_ENDPOINT=server.url)
        url = server.url
    named = "token" if "token" in keys else "auth.accessToken"
    assert done.returncode == 3
    assert done.stderr.splitlines()[:2] == [
        INVALID,
        (
            f"Warning: The refused token came from {file} (key {named}). "
            f"It was sent to {url}, an address from CIRRON_API_ENDPOINT."
        ),
    ]


def test_no_token_anywhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    spool_in(tmp_path)
    done = flush(tmp_path)
    files = f"{tmp_path}/.cirron/config.json or {tmp_path}/.cirron/config.toml"
    assert done.returncode == 3
    assert done.stderr.splitlines()[:2] == [
        MISSING,
        f"Warning: There is no token in CIRRON_API_KEY, {files}.",
    ]


def test_a_flag_is_called_what_it_is_called_here(tmp_path: Path) -> None:
    spool_in(tmp_path)
    (tmp_path / "t.txt").write_text("two words")
    for args, named in (
        (["--api-url", "api.cirron.com"], "--api-url is not a web address: 'api.cirron.com'. Set it to one like https://api.cirron.com."),
        (["--token-file", "t.txt"], "The token from --token-file t.txt has "),
        (["--timeout", "99999999999"], "--timeout needs a time from 1ms to 24h"),
    ):  # fmt: skip
        done = flush(tmp_path, *args, CIRRON_API_KEY=KEY)
        assert done.returncode == 2
        assert done.stderr.startswith(f"Error: {named}")


# -- a renewed token ---------------------------------------------------------------------------------------------


def test_a_login_in_a_home_that_cannot_be_written_is_renewed_for_this_flush(shared: Path) -> None:
    here, home = shared / "here", shared / "home"
    spool_in(here)
    file = write_config(home, auth={"accessToken": "old", "refreshToken": "refresh-0"}, theme="dark")
    file.parent.chmod(0o755)
    file.chmod(0o644)  # root's, which everybody may use
    before = file.read_bytes()
    if os.geteuid() == 0:
        give(here)
    with ScriptedServer(check_auth=True) as server:
        done = run_as_nobody(here, "flush", home=home, CIRRON_API_ENDPOINT=server.url)
        assert server.platform.rotations == 1
        assert [upload.token for upload in server.uploads] == ["access-1"]
    assert done.returncode == 1
    assert f"The token was renewed but could not be saved in {file}: Permission denied." in done.stderr
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == ["config.json"]


def test_a_login_in_a_relative_home_is_renewed_there(tmp_path: Path) -> None:
    spool_in(tmp_path)
    file = write_config(
        tmp_path / "home", auth={"accessToken": "old", "refreshToken": "refresh-0"}, theme="dark"
    )
    with ScriptedServer(check_auth=True) as server:
        done = flush(Path("home"), cwd=tmp_path, CIRRON_API_ENDPOINT=server.url)
        assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(file.read_bytes())
    assert (document["auth"]["accessToken"], document["theme"]) == ("access-1", "dark")
