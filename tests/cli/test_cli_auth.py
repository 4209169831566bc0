"""``auth login``, ``status``, ``refresh``, ``token`` and ``logout``: real commands against a scripted platform."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import cirron_spool
from cirron_spool.text import iso_utc
from support.answers import Answer, Gate, html, json_answer
from support.background import closed_port
from support.cli import PYTHON_SCRIPT, CliResult, command_line, spawn, spawn_cli, write_config
from support.fork_server import run_cli
from support.scripted import Request, ScriptedServer
from support.terminal import run_cli_pty
from support.users import NOBODY, needs_root, powerless

DEVICE = "/api/cli/auth/device"
STATUS = ("GET", "/api/cli/status")
REFRESH = ("POST", "/api/cli/auth/refresh")
SIGNED_OUT = "Error: Not authenticated. Run cirron auth login first.\n"
OLD_LOGIN = {
    "accessToken": "access-old",
    "refreshToken": "refresh-old",
    "expiresAt": "2099-01-01T00:00:00.000Z",
}
CODE = {
    "deviceCode": "device-code-secret",
    "userCode": "BCDF-GHJK",
    "verificationUrl": "https://app.example.com/device",
    "verificationUrlComplete": "https://app.example.com/device?user_code=BCDF-GHJK",
    "expiresIn": 600,
    "interval": 1,
}
GRANT = {
    "accessToken": "access-0",
    "refreshToken": "refresh-0",
    "tokenType": "Bearer",
    "expiresIn": 3600,
    "user": {"email": "alice@example.com"},
}
PENDING = json_answer({"error": "authorization_pending"}, 400)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def package_root() -> Path:
    """The folder that the package is imported from."""
    return Path(cirron_spool.__file__).parent.parent


def offer(platform: ScriptedServer, *polls: Answer, **code: object) -> None:
    """Script a device flow: its code, then an answer for each poll."""
    platform.on("POST", DEVICE, json_answer({**CODE, **code}))
    platform.on("GET", DEVICE, *polls)


def config_of(home: Path) -> dict[str, object]:
    document = json.loads((home / ".cirron" / "config.json").read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def login(platform: ScriptedServer, home: Path, *args: str, **more: Any) -> CliResult:
    return run_cli("auth", "login", "--url", platform.url, *args, home=home, **more)


def no_secret_in(*texts: str) -> None:
    for secret in (
        "access-0",
        "refresh-0",
        "device-code-secret",
        "access-old",
        "refresh-old",
        "sk-long-lived",
    ):
        assert all(secret not in text for text in texts)


# -- the device flow


def test_a_code_is_shown_polled_for_verified_and_saved(home: Path) -> None:
    write_config(home, timeout=31000, auth={"store": "file", "foreign": [1]}, other={"a": 1})
    with ScriptedServer(check_auth=True) as platform:
        offer(platform, PENDING, json_answer(GRANT))
        done = login(platform, home)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[:3] == [
            "Code: BCDF-GHJK",
            "Open https://app.example.com/device in a browser on any machine, and enter the code there.",
            "This address has the code filled in: https://app.example.com/device?user_code=BCDF-GHJK",
        ]
        assert (
            f"Success: Signed in as Alice <alice@example.com> (Example) at {platform.url}.\n" in done.stdout
        )
        no_secret_in(done.stdout, done.stderr)
        assert len(platform.seen(DEVICE)) == 3
        assert [request.token for request in platform.seen(STATUS[1])] == ["access-0"]
    saved = config_of(home)
    auth = saved.pop("auth")
    assert saved == {"timeout": 31000, "other": {"a": 1}, "apiUrl": platform.url}
    assert isinstance(auth, dict)
    expires = datetime.fromisoformat(auth.pop("expiresAt"))
    assert timedelta(minutes=55) < expires - datetime.now(UTC) < timedelta(minutes=61)
    assert auth == {"store": "file", "foreign": [1], "accessToken": "access-0", "refreshToken": "refresh-0"}
    path = home / ".cirron" / "config.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.thorough
def test_the_login_is_used_by_a_flush_and_by_cirron(home: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / f"{1:020d}-{'a' * 32}.json").write_text("{}")
    with ScriptedServer(check_auth=True) as platform:
        offer(platform, json_answer(GRANT))
        assert login(platform, home, prog="cirron").returncode == 0
        done = run_cli("spool", "flush", "--dir", spool, home=home, prog="cirron")
    assert (done.returncode, done.stdout) == (0, "Uploaded: 1  Failed: 0  Skipped: 0\n"), done.stderr


def test_json_keeps_standard_output_for_the_object(home: Path) -> None:
    with ScriptedServer() as platform:
        offer(platform, json_answer(GRANT))
        done = login(platform, home, "--json")
    assert "Code: BCDF-GHJK" in done.stderr
    document = json.loads(done.stdout)
    assert document["user"] == {"email": "alice@example.com", "name": "Alice"}
    assert (document["signedIn"], document["exitCode"]) == (True, 0)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("polls", "exit_code", "line"),
    [
        (
            [json_answer({"error": "access_denied"}, 400)],
            3,
            "Error: The sign-in was denied in the browser. Nothing was saved.\n",
        ),
        (
            [PENDING, json_answer({"error": "expired_token"}, 400)],
            3,
            "Error: The code has expired. Nothing was saved. Run cirron auth login again.\n",
        ),
        (
            [json_answer({"error": "invalid_client", "message": "no \x1b[31mway device-code-secret"}, 400)],
            3,
            "Error: The sign-in failed: HTTP 400 Bad Request. Nothing was saved.\n",
        ),
        ([html(), html()], 4, "HTTP 200, but the answer could not be read. Nothing was saved."),
        ([Answer(503), Answer(503)], 4, "HTTP 503 Service Unavailable. Nothing was saved. Run cirron auth"),
        ([json_answer({"accessToken": "a\nb"}), json_answer([])], 4, "the answer could not be read"),
        ([Answer(302, headers=[("Location", "https://elsewhere.example")])], 1, "HTTP 302 Found. Nothing"),
    ],
    ids=["denied", "expired", "unknown", "web page", "away", "malformed", "redirect"],
)
def test_a_sign_in_that_ends_otherwise_saves_nothing(
    home: Path, polls: list[Answer], exit_code: int, line: str
) -> None:
    path = write_config(home, auth=OLD_LOGIN, retries=1)
    before = path.read_bytes()
    with ScriptedServer() as platform:
        offer(platform, *polls)
        done = login(platform, home)
    assert done.returncode == exit_code, done.stderr
    assert line in done.stderr
    assert "\x1b" not in done.stderr
    assert "Traceback" not in done.stderr
    no_secret_in(done.stdout, done.stderr)
    assert path.read_bytes() == before


@pytest.mark.thorough
def test_the_platforms_pace_is_kept(home: Path) -> None:
    with ScriptedServer() as platform:
        slow = Answer(429, headers=[("Retry-After", "2")])
        offer(platform, slow, json_answer({"error": "slow_down"}, 400), json_answer(GRANT), interval=1)
        done = login(platform, home)
        assert done.returncode == 0, done.stderr
        polls = [request.arrived for request in platform.seen(DEVICE)[1:]]
    assert polls[1] - polls[0] >= 1.9
    assert polls[2] - polls[1] >= 5.9  # slow_down adds five seconds (RFC 8628)


@pytest.mark.thorough
def test_a_lost_answer_is_asked_for_again(home: Path) -> None:
    with ScriptedServer() as platform:
        offer(platform, Answer(200, body=json.dumps(GRANT).encode(), cut_after=40), json_answer(GRANT))
        done = login(platform, home)
    assert done.returncode == 0, done.stderr
    assert "Warning: The sign-in failed: " in done.stderr
    assert config_of(home)["auth"]


@pytest.mark.thorough
def test_a_code_ends_by_its_own_time(home: Path) -> None:
    with ScriptedServer() as platform:
        platform.on("POST", DEVICE, json_answer({**CODE, "expiresIn": 1.5}))
        platform.on("GET", DEVICE, default=PENDING)
        done = login(platform, home)
    assert (done.returncode, "The code has expired." in done.stderr) == (3, True)


@pytest.mark.parametrize(
    "answer",
    [
        json_answer({**CODE, "verificationUrl": "file:///etc/passwd"}),
        json_answer({**CODE, "verificationUrl": "javascript:alert(1)"}),
        json_answer({**CODE, "userCode": "A\x1b[2J"}),
        json_answer({**CODE, "deviceCode": "a b\r\n"}),
        json_answer({key: value for key, value in CODE.items() if key != "userCode"}),
        html(),
        Answer(200, body=b""),
    ],
    ids=["file address", "script address", "control code", "device code", "no code", "page", "empty"],
)
def test_a_malformed_beginning_is_one_line(home: Path, answer: Answer) -> None:
    write_config(home, retries=0)
    with ScriptedServer() as platform:
        platform.on("POST", DEVICE, answer)
        done = login(platform, home)
    assert (done.returncode, done.stdout) == (4, "")
    assert "The sign-in could not begin: HTTP 200, but the answer could not be read." in done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("interval", [None, "5", -1, True, [], 1e99])
def test_an_unusable_interval_is_the_usual_one(home: Path, interval: object) -> None:
    with ScriptedServer() as platform:
        offer(platform, interval=interval)
        with spawn_cli("auth", "login", "--url", platform.url, home=home) as running:
            running.wait_for_text("Waiting for the approval")
            running.send_signal(signal.SIGINT)
            assert running.finish().returncode == 130
        assert len(platform.seen(DEVICE)) == 1


@pytest.mark.thorough
@pytest.mark.parametrize("key", ["expiresIn", "interval"])
def test_a_number_beyond_all_floats_is_bounded(home: Path, key: str) -> None:
    body = json.dumps({**CODE, key: 123456}).replace("123456", "1" + "0" * 400)
    with ScriptedServer() as platform:
        platform.on("POST", DEVICE, Answer(200, body=body.encode()))
        platform.on("GET", DEVICE, json_answer({"error": "access_denied"}, 400))
        with spawn_cli("auth", "login", "--url", platform.url, home=home) as running:
            said = running.wait_for_text("at most.")
            running.send_signal(signal.SIGINT)
            done = running.finish()
    assert ("Waiting for the approval, 1 hour at most." in said) == (key == "expiresIn")
    assert (done.returncode, done.stderr) == (130, "")


def test_a_redirect_that_repeats_the_address_shows_no_device_code(home: Path) -> None:
    def redirect(request: Request) -> Answer:
        return Answer(302, headers=[("Location", f"/sign-in?next={request.target}")])

    with ScriptedServer() as platform:
        platform.on("POST", DEVICE, json_answer({**CODE, "deviceCode": "ab+/device-code=="}))
        platform.on("GET", DEVICE, default=redirect)
        done = login(platform, home)
    assert done.returncode == 1
    assert "The server redirects to /sign-in?next=/api/cli/auth/device?device_code=…" in done.stderr
    assert "device-code" not in done.stderr


def test_a_platform_without_the_route_is_a_matter_for_a_person(home: Path) -> None:
    with ScriptedServer() as platform:
        done = login(platform, home)
    assert done.returncode == 1
    assert "Check --url, or give a token: cirron auth login --with-token." in done.stderr


def test_a_platform_that_is_away_is_temporary(home: Path) -> None:
    write_config(home, retries=0)
    done = run_cli("auth", "login", "--url", f"http://127.0.0.1:{closed_port()}", home=home)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert "Nothing was saved. Run cirron auth login again later." in done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_old_login(home: Path, number: signal.Signals) -> None:
    path = write_config(home, auth=OLD_LOGIN)
    before = path.read_bytes()
    with ScriptedServer() as platform:
        platform.on("POST", DEVICE, json_answer(CODE))
        platform.on("GET", DEVICE, default=PENDING)
        with spawn_cli("auth", "login", "--url", platform.url, home=home) as running:
            platform.wait_for(lambda seen: len(seen.seen(DEVICE)) > 1)
            running.send_signal(number)
            done = running.finish()
    assert done.returncode == 128 + number
    assert "Traceback" not in done.stderr
    assert path.read_bytes() == before


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("answer", "exit_code", "line"),
    [
        (Answer(401), 3, "refused the token. Nothing was saved."),
        (json_answer({"valid": False}), 3, "refused the token. Nothing was saved."),
        (
            Answer(503),
            4,
            "The new token could not be verified: HTTP 503 Service Unavailable. Nothing was saved.",
        ),
        (html(), 4, "Nothing was saved."),
    ],
    ids=["401", "invalid", "503", "page"],
)
def test_a_token_that_is_not_verified_is_not_saved(
    home: Path, answer: Answer, exit_code: int, line: str
) -> None:
    path = write_config(home, auth=OLD_LOGIN, retries=0)
    before = path.read_bytes()
    with ScriptedServer() as platform:
        platform.on(*STATUS, answer)
        offer(platform, json_answer(GRANT))
        done = login(platform, home)
    assert done.returncode == exit_code
    assert line in done.stderr
    no_secret_in(done.stdout, done.stderr)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "document",
    [{}, {"status": "ok"}, {"error": "nope"}, {"valid": None}, {"valid": "true"}, {"valid": 1, "user": {}}],
)
def test_a_json_answer_of_something_else_verifies_no_token(home: Path, document: object) -> None:
    write_config(home, retries=0)
    before = config_of(home)
    with ScriptedServer() as platform:
        platform.on(*STATUS, default=json_answer(document))
        done = login(platform, home, "--with-token", input="sk-long-lived\n")
        assert done.returncode == 4
        assert (
            "The new token could not be verified: HTTP 200, but the answer could not be read." in done.stderr
        )
        assert config_of(home) == before
        write_config(home, apiUrl=platform.url, token="sk-long-lived")
        assert run_cli("auth", "status", home=home).returncode == 4


# -- the browser


def browser(folder: Path) -> tuple[str, Path]:
    """A program that notes its arguments and never ends by itself, and the file of its notes."""
    notes = folder / "opened"
    path = folder / "browser"
    path.write_text(
        f"{PYTHON_SCRIPT}import sys, time\nopen({str(notes)!r}, 'a').write(sys.argv[1])\ntime.sleep(3)\n",
        encoding="utf-8",
    )
    path.chmod(0o755)
    return str(path), notes


@pytest.mark.thorough
def test_enter_opens_a_browser_and_nothing_waits_for_it(home: Path, tmp_path: Path) -> None:
    program, notes = browser(tmp_path)
    with ScriptedServer() as platform:

        def poll(request: object) -> Answer:
            return json_answer(GRANT) if notes.exists() and notes.read_text() else PENDING

        platform.on("POST", DEVICE, json_answer(CODE))
        platform.on("GET", DEVICE, default=poll)
        done = run_cli_pty(
            "auth",
            "login",
            "--url",
            platform.url,
            home=home,
            env={"BROWSER": program},
            answers=[("Press Enter to open it", "\n")],
        )
    assert done.returncode == 0, done.text
    assert notes.read_text() == CODE["verificationUrlComplete"]


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["--no-browser", "pipe", "no browser", "in the terminal"])
def test_no_browser_is_offered(home: Path, tmp_path: Path, how: str) -> None:
    program, notes = browser(tmp_path)
    if how == "in the terminal":
        program = str(Path(program).rename(tmp_path / "w3m"))
    env = {} if how == "no browser" else {"BROWSER": program}
    flags = [how] if how.startswith("--") else []
    with ScriptedServer() as platform:
        offer(platform, json_answer(GRANT))
        args = ("auth", "login", "--url", platform.url, *flags)
        if how == "pipe":
            piped = run_cli(*args, home=home, env=env, input="\n")
            text, code = piped.stdout, piped.returncode
        else:
            shown = run_cli_pty(*args, home=home, env=env)
            text, code = shown.text, shown.returncode
    assert code == 0
    assert "Press Enter" not in text
    assert not notes.exists()


# -- a long-lived token


def test_a_token_from_standard_input_replaces_a_login(home: Path) -> None:
    write_config(home, auth={**OLD_LOGIN, "store": "file"}, other=1)
    with ScriptedServer(check_auth=True, access_token="sk-long-lived") as platform:
        done = login(platform, home, "--with-token", input="sk-long-lived\n")
        assert done.returncode == 0, done.stderr
    assert config_of(home) == {
        "auth": {"store": "file"},
        "other": 1,
        "token": "sk-long-lived",
        "apiUrl": platform.url,
    }
    no_secret_in(done.stdout, done.stderr)


@pytest.mark.parametrize("typed", ["", "\n", "a b\n", "sk-\x07\n", "é\n"])
def test_a_token_that_is_none_is_refused_unsent(home: Path, typed: str) -> None:
    with ScriptedServer() as platform:
        done = login(platform, home, "--with-token", input=typed)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert not platform.requests


@pytest.mark.parametrize(
    "args",
    [["--with-token", "sk-long-lived"], ["eyJsecret"], ["--with-token=sk-long-lived"], ["--token", "s3cret"]],
)
def test_a_token_on_the_command_line_is_refused_and_not_shown(home: Path, args: list[str]) -> None:
    done = run_cli("auth", "login", *args, home=home)
    assert (done.returncode, done.stdout) == (2, "")
    assert not any(secret in done.stderr for secret in ("long-lived", "eyJ", "s3cret"))


POWERSHELL = "\ufeffsk-long-lived\r\n".encode("utf-16-le")
SAVED = {"token": "sk-long-lived"}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"\xef\xbb\xbfsk-long-lived\r\n", ""),
        (POWERSHELL, ""),
        (POWERSHELL[:-1], "Error: Cannot read the token from standard input: it is not text. Pipe it: "),
        (b"sk-\xff\xfe-long", "Error: Cannot read the token from standard input: it is not text. Pipe it: "),
        (b"s" * 70_000, "Error: There is more than a token in standard input. Pipe it: "),
        (
            b"sk-long-lived\nsk-second\n",
            "Error: The token from standard input has characters that are not allowed",
        ),
    ],
    ids=["utf-8 mark", "utf-16", "half a character", "bytes", "long", "two"],
)
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_the_bytes_of_standard_input(home: Path, data: bytes, line: str, locale: str) -> None:
    with ScriptedServer() as platform:
        env = {"CIRRON_API_ENDPOINT": platform.url, "LC_ALL": locale, "PYTHONUTF8": "0"}
        done = run_cli("auth", "login", "--with-token", home=home, input=data, env=env)
    assert (done.returncode == 0) == (not line), done.stderr
    assert line in done.stderr
    no_secret_in(done.stdout, done.stderr)
    if line:
        assert not (home / ".cirron" / "config.json").exists()
    else:
        assert config_of(home) == SAVED


def test_a_terminal_that_cuts_a_token_is_said(home: Path) -> None:
    with ScriptedServer() as platform:
        args = ("auth", "login", "--with-token", "--url", platform.url)
        done = run_cli_pty(*args, home=home, answers=[("not shown): ", "s" * 5000 + "\n")])
        assert platform.requests == []
    assert done.returncode == 2
    assert "A terminal passes no more than 4095 characters of a token." in " ".join(done.text.split())


def test_a_token_is_typed_without_an_echo(home: Path) -> None:
    with ScriptedServer(check_auth=True, access_token="sk-long-lived") as platform:
        done = run_cli_pty(
            "auth",
            "login",
            "--with-token",
            "--url",
            platform.url,
            home=home,
            answers=[("(it is not shown): ", "sk-long-lived\n")],
        )
    assert done.returncode == 0, done.text
    assert "sk-long-lived" not in done.text


# -- the configuration


def test_a_corrupt_configuration_is_named_and_kept(home: Path) -> None:
    path = write_config(home)
    path.write_text("{", encoding="utf-8")
    with ScriptedServer() as platform:
        done = login(platform, home)
        assert not platform.requests
    assert done.returncode == 2
    assert str(path) in done.stderr
    assert path.read_text(encoding="utf-8") == "{"


def test_a_bad_token_in_the_file_does_not_prevent_a_login(home: Path) -> None:
    write_config(home, auth={**OLD_LOGIN, "accessToken": "a\nb"}, token=5)
    with ScriptedServer() as platform:
        offer(platform, json_answer(GRANT))
        assert login(platform, home).returncode == 0


def test_a_folder_that_is_read_only_is_said_before_anybody_approves(home: Path) -> None:
    folder = home / ".cirron"
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    with ScriptedServer() as platform:
        command = command_line(["auth", "login", "--url", platform.url])
        argv = powerless(command) if os.geteuid() == 0 else command
        with spawn(argv, home=home) as running:
            done = running.finish()
        assert not platform.requests
    assert done.returncode == 2
    assert "is not writable" in done.stderr


@pytest.mark.parametrize("option", ["--url", "--api-url"])
def test_an_option_without_its_value_is_named_as_it_was_typed(home: Path, option: str) -> None:
    done = run_cli("auth", "login", option, home=home)
    assert done.returncode == 2
    assert f"Error: {option} needs a value, as in {option} https://cirron.example.com." in done.stderr


@pytest.mark.parametrize("auth", ["sk-long-lived", ["sk-long-lived"], 5])
def test_a_login_replaces_an_auth_that_is_no_object(home: Path, auth: object) -> None:
    with ScriptedServer() as platform:
        write_config(home, apiUrl=platform.url, auth=auth, other=1)
        assert login(platform, home, "--with-token", input="sk-long-lived").returncode == 0
        assert config_of(home) == {"apiUrl": platform.url, "other": 1, "token": "sk-long-lived"}
        assert run_cli("auth", "status", home=home).returncode == 0
        write_config(home, apiUrl=platform.url, auth=auth, other=1)
        assert run_cli("auth", "logout", home=home).stdout.startswith("Success: Signed out.")
        assert config_of(home) == {"apiUrl": platform.url, "other": 1}


def test_a_remedy_helps_where_the_token_came_from(home: Path) -> None:
    line = "The token from CIRRON_API_KEY has characters that are not allowed in a token."
    done = run_cli("auth", "status", home=home, env={"CIRRON_API_KEY": "sk-long-lived\n"})
    assert (done.returncode, done.stderr) == (2, f"Error: {line} Set it again.\n")


@needs_root
@pytest.mark.parametrize("owner", [0, NOBODY])
def test_a_login_by_sudo_says_that_the_user_cannot_read_it(home: Path, owner: int) -> None:
    home.mkdir()
    os.chown(home, owner, owner)
    with ScriptedServer() as platform:
        done = login(platform, home, "--with-token", input="sk-long-lived")
    assert done.returncode == 0
    line = f"Warning: {home / '.cirron' / 'config.json'} will belong to root, and the user of this home"
    assert (line in done.stderr) == (owner != 0)


def test_a_key_in_the_environment_is_said_to_override_the_login(home: Path) -> None:
    with ScriptedServer() as platform:
        offer(platform, json_answer(GRANT))
        done = login(platform, home, env={"CIRRON_API_KEY": "sk-other"})
    assert "Warning: CIRRON_API_KEY is set and overrides this login." in done.stderr


@pytest.mark.parametrize("url", ["ftp://x", "http://example.com", "https://user:pw@example.com", ""])
def test_an_address_that_cannot_be_used_is_one_line(home: Path, url: str) -> None:
    done = run_cli("auth", "login", f"--url={url}", home=home)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--url" in done.stderr
    assert "pw@" not in done.stderr


# -- status


def status(platform: ScriptedServer, home: Path, *args: str, **env: str) -> CliResult:
    return run_cli("auth", "status", *args, home=home, env={"CIRRON_API_ENDPOINT": platform.url, **env})


def test_status_says_who_against_what_and_from_where(home: Path) -> None:
    path = write_config(home, auth=OLD_LOGIN)
    with ScriptedServer() as platform:
        done = status(platform, home)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "Signed in as Alice <alice@example.com>\n"
        "Organization: Example\n"
        f"Platform: {platform.url} (CIRRON_API_ENDPOINT)\n"
        f"Token: {path} (key auth.accessToken)\n"
        "Expires: 2099-01-01T00:00:00.000Z, renewed by itself\n"
    )


def test_status_as_json(home: Path) -> None:
    path = write_config(home, auth=OLD_LOGIN)
    with ScriptedServer() as platform:
        done = status(platform, home, "--json")
    assert json.loads(done.stdout) == {
        "signedIn": True,
        "apiUrl": platform.url,
        "valid": True,
        "user": {"email": "alice@example.com", "name": "Alice"},
        "organization": {"name": "Example"},
        "token": {
            "source": f"{path} (key auth.accessToken)",
            "renewable": True,
            "expiresAt": "2099-01-01T00:00:00.000Z",
        },
        "overridesLogin": False,
        "warnings": [],
        "exitCode": 0,
    }


def test_status_signed_out(home: Path) -> None:
    with ScriptedServer() as platform:
        done = status(platform, home)
        shaped = status(platform, home, "--json")
        assert not platform.requests
    assert (done.returncode, done.stderr.startswith(SIGNED_OUT)) == (3, True)
    document = json.loads(shaped.stdout)
    assert (document["signedIn"], document["error"]["type"]) == (False, "NotAuthenticatedError")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("answer", "exit_code"),
    [(Answer(401), 3), (Answer(403), 3), (Answer(503), 4), (html(), 4), (json_answer({"valid": False}), 3)],
)
def test_status_of_a_token_that_is_not_valid(home: Path, answer: Answer, exit_code: int) -> None:
    write_config(home, token="sk-long-lived")
    with ScriptedServer() as platform:
        platform.on(*STATUS, default=answer)
        done = status(platform, home)
        shaped = status(platform, home, "--json")
    assert done.returncode == shaped.returncode == exit_code
    assert "Signed in" not in done.stdout
    assert json.loads(shaped.stdout)["signedIn"] is False
    assert done.stderr.startswith("Error: ")
    no_secret_in(done.stdout, done.stderr)


def test_status_renews_a_refused_login_once(home: Path) -> None:
    write_config(home, auth={**OLD_LOGIN, "refreshToken": "refresh-0"})
    with ScriptedServer(check_auth=True) as platform:
        done = status(platform, home)
    assert done.returncode == 0, done.stderr
    assert config_of(home)["auth"] is not None


def test_a_token_in_its_last_days_is_a_warning(home: Path) -> None:
    write_config(home, token="sk-long-lived")
    soon = iso_utc(int((datetime.now(UTC) + timedelta(days=3, hours=1)).timestamp()) * 10**9)
    with ScriptedServer() as platform:
        platform.on(*STATUS, json_answer({"valid": True, "token": {"expiresAt": soon}}))
        done = status(platform, home)
    assert f"Warning: The token expires in 3 days ({soon})." in done.stderr


def test_a_key_that_overrides_a_login_is_said(home: Path) -> None:
    path = write_config(home, auth=OLD_LOGIN)
    with ScriptedServer() as platform:
        done = status(platform, home, CIRRON_API_KEY="sk-long-lived")
    assert f"Warning: CIRRON_API_KEY overrides the login in {path}." in done.stderr
    assert "Token: CIRRON_API_KEY" in done.stdout


# -- refresh, token and logout


def test_refresh_renews_the_login_also_beside_a_key(home: Path) -> None:
    with ScriptedServer() as platform:
        write_config(home, auth={**OLD_LOGIN, "refreshToken": "refresh-0"}, apiUrl=platform.url)
        done = run_cli("auth", "refresh", home=home, env={"CIRRON_API_KEY": "sk-long-lived"})
    assert (done.returncode, done.stdout.startswith("Success: The token was renewed. It expires at ")) == (
        0,
        True,
    )
    auth = config_of(home)["auth"]
    assert isinstance(auth, dict)
    assert (auth["accessToken"], auth["refreshToken"]) == ("access-1", "refresh-1")


@pytest.mark.parametrize(("answer", "exit_code"), [(Answer(401), 3), (Answer(503), 4)])
def test_a_refresh_that_fails_keeps_the_login(home: Path, answer: Answer, exit_code: int) -> None:
    with ScriptedServer() as platform:
        platform.on(*REFRESH, default=answer)
        path = write_config(home, auth=OLD_LOGIN, apiUrl=platform.url, retries=0)
        before = path.read_bytes()
        done = run_cli("auth", "refresh", home=home)
    assert done.returncode == exit_code, done.stderr
    assert path.read_bytes() == before


def test_a_long_lived_token_cannot_be_renewed(home: Path) -> None:
    write_config(home, token="sk-long-lived")
    done = run_cli("auth", "refresh", home=home)
    assert done.returncode == 3
    assert "cannot be renewed: it has no refresh token" in done.stderr


def test_token_prints_the_token_alone(home: Path) -> None:
    write_config(home, token="sk-long-lived")
    done = run_cli("auth", "token", home=home)
    assert (done.returncode, done.stdout, done.stderr) == (0, "sk-long-lived\n", "")
    shown = run_cli_pty("auth", "token", home=home)
    assert "Warning: A token is a secret" in shown.text


def test_token_is_renewed_when_it_is_about_to_end(home: Path) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    with ScriptedServer() as platform:
        auth = {**OLD_LOGIN, "refreshToken": "refresh-0", "expiresAt": soon}
        write_config(home, auth=auth, apiUrl=platform.url)
        assert run_cli("auth", "token", home=home).stdout == "access-1\n"


def test_logout_removes_tokens_only(home: Path) -> None:
    path = write_config(
        home, auth={**OLD_LOGIN, "store": "file"}, token="sk-long-lived", apiUrl="https://a.b", x=[1]
    )
    done = run_cli("auth", "logout", home=home)
    assert (done.returncode, done.stdout) == (0, f"Success: Signed out. The tokens in {path} were removed.\n")
    assert config_of(home) == {"auth": {"store": "file"}, "apiUrl": "https://a.b", "x": [1]}
    again = run_cli("auth", "logout", home=home)
    assert (again.returncode, again.stdout) == (0, "Nobody was signed in. Nothing was removed.\n")


def test_logout_says_which_token_is_left(home: Path) -> None:
    done = run_cli("auth", "logout", home=home, env={"CIRRON_API_KEY": "sk-long-lived"})
    assert "Warning: A token is still in use: it comes from CIRRON_API_KEY." in done.stderr


@pytest.mark.parametrize("make", [lambda path: path.write_text("{"), lambda path: path.mkdir()])
def test_logout_of_an_unusable_file_keeps_it(home: Path, make: Callable[[Path], object]) -> None:
    (home / ".cirron").mkdir(parents=True)
    path = home / ".cirron" / "config.json"
    make(path)
    done = run_cli("auth", "logout", home=home)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert path.exists()


@pytest.mark.thorough
@pytest.mark.parametrize("auth", [None, {"accessToken": "other", "refreshToken": "again"}])
def test_a_renewal_leaves_the_change_of_another_program(home: Path, auth: dict[str, str] | None) -> None:
    gate = Gate()
    with ScriptedServer() as platform:
        path = write_config(home, apiUrl=platform.url, auth=OLD_LOGIN)
        answer = {"access_token": "access-0", "refresh_token": "refresh-0", "expires_in": 3600}
        platform.on(*REFRESH, json_answer(answer, stall_before=gate))
        with spawn_cli("auth", "refresh", home=home) as running:
            platform.wait_for(lambda seen: bool(seen.seen(REFRESH[1])))
            # The official tool takes no lock.
            write_config(home, apiUrl=platform.url, auth=auth)
            changed = path.read_bytes()
            gate.open()
            done = running.finish()
    assert done.returncode == 0
    assert f"Warning: Another program changed the login in {path} during the renewal." in done.stderr
    assert path.read_bytes() == changed


@pytest.mark.parametrize(
    ("seconds", "line"),
    [
        (-7200, "by the clock of this machine, and the platform accepts it. Check the clock."),
        (2430, "The token expires in 40 minutes ("),
        (5430, "The token expires in 1 hour ("),
        (2 * 86430, "The token expires in 2 days ("),
    ],
)
def test_the_rest_of_a_token_in_words(home: Path, seconds: int, line: str) -> None:
    end = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    with ScriptedServer() as platform:
        write_config(home, apiUrl=platform.url, token="sk-long-lived")
        platform.on(*STATUS, json_answer({"valid": True, "token": {"expiresAt": end}}))
        done = run_cli("auth", "status", home=home)
    assert done.returncode == 0
    assert line in done.stderr


def test_a_variable_that_overrides_the_address_of_a_login_is_said(home: Path) -> None:
    with ScriptedServer() as platform:
        args = ("--with-token",)
        other = {"CIRRON_API_ENDPOINT": "https://other.example.com"}
        done = login(platform, home, *args, "--json", input="sk-long-lived", env=other)
        assert json.loads(done.stdout)["savedIn"] == str(home / ".cirron" / "config.json")
        line = "Warning: CIRRON_API_ENDPOINT overrides this address with https://other.example.com."
        assert (done.returncode, line in done.stderr) == (0, True)
        same = login(platform, home, *args, input="sk-long-lived", env={"CIRRON_API_ENDPOINT": platform.url})
        assert (same.returncode, same.stderr) == (0, "")


# -- the keyring

KEYRING = {"PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring"}


@pytest.mark.thorough
def test_tokens_live_in_the_keyring_and_not_in_the_file(home: Path) -> None:
    write_config(home, auth={"store": "keyring"}, other=1)
    with ScriptedServer(check_auth=True) as platform:
        offer(platform, json_answer(GRANT))
        assert "The login is saved in the keyring.\n" in login(platform, home, env=KEYRING).stdout
        expected = {"auth": {"store": "keyring"}, "other": 1, "apiUrl": platform.url}
        assert config_of(home) == expected
        shown = run_cli("auth", "status", home=home, env=KEYRING)
        assert "Token: the keyring (key auth.accessToken)\n" in shown.stdout, shown.stderr
        renewed = run_cli("auth", "refresh", home=home, env=KEYRING)
        assert renewed.returncode == 0, renewed.stderr
        assert run_cli("auth", "token", home=home, env=KEYRING).stdout == "access-1\n"
        assert config_of(home) == expected
        gone = run_cli("auth", "logout", home=home, env=KEYRING)
        assert gone.stdout == "Success: Signed out. The tokens in the keyring were removed.\n"
        assert run_cli("auth", "token", home=home, env=KEYRING).returncode == 3
        assert config_of(home) == expected


def test_a_login_in_the_file_is_used_until_the_next_sign_in(home: Path) -> None:
    write_config(home, auth={**OLD_LOGIN, "store": "keyring"})
    assert run_cli("auth", "token", home=home, env=KEYRING).stdout == "access-old\n"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("backend", "line"),
    [
        ("keyring.backends.fail.Keyring", "Error: Cannot read the keyring: "),
        ("keyring.backends.null.Keyring", "Error: The keyring does not store the tokens."),
    ],
)
def test_a_keyring_that_fails_is_one_line(home: Path, backend: str, line: str) -> None:
    path = write_config(home, auth={"store": "keyring"})
    before = path.read_bytes()
    with ScriptedServer() as platform:
        offer(platform, json_answer(GRANT))
        done = login(platform, home, env={"PYTHON_KEYRING_BACKEND": backend})
    assert done.returncode == 2
    assert line in done.stderr
    assert "or keep the login in the file: cirron config set auth.store file" in done.stderr
    assert "Traceback" not in done.stderr
    assert path.read_bytes() == before


def keyring_that(folder: Path, get: str, set_: str = "pass") -> dict[str, str]:
    """The environment with a keyring whose methods are these statements."""
    folder.mkdir(exist_ok=True)
    lines = [
        "from pathlib import Path",
        "from keyring.backend import KeyringBackend",
        f"entry = Path({str(folder / 'entry')!r})",
        "class Keyring(KeyringBackend):",
        "    priority = 1",
        "    def get_password(self, service, user):",
        f"        {get}",
        "    def set_password(self, service, user, password):",
        f"        {set_}",
        "    def delete_password(self, service, user):",
        "        entry.unlink()",
    ]
    (folder / "scripted_keyring.py").write_text("\n".join(lines), encoding="utf-8")
    path = f"{folder}{os.pathsep}{package_root()}"
    return {"PYTHON_KEYRING_BACKEND": "scripted_keyring.Keyring", "PYTHONPATH": path}


@pytest.mark.thorough
def test_a_keyring_that_repeats_a_token_in_its_error(home: Path, tmp_path: Path) -> None:
    write_config(home, auth={"store": "keyring"})
    env = keyring_that(tmp_path / "ring", "return None", "raise RuntimeError('cannot keep ' + password)")
    with ScriptedServer() as platform:
        offer(platform, json_answer(GRANT))
        done = login(platform, home, env=env)
    assert done.returncode == 2
    assert "Error: Cannot change the keyring: cannot keep " in done.stderr
    no_secret_in(done.stdout, done.stderr)


@pytest.mark.thorough
@pytest.mark.parametrize("action", ["status", "token", "logout"])
def test_a_keyring_that_exits_is_one_line(home: Path, tmp_path: Path, action: str) -> None:
    write_config(home, auth={"store": "keyring"})
    done = run_cli("auth", action, home=home, env=keyring_that(tmp_path / "ring", "raise SystemExit('no')"))
    assert done.returncode == 2
    assert done.stderr.startswith("Error: Cannot read the keyring: no. Unlock it, or ")
    assert done.stderr.count("\n") == 1


@pytest.mark.thorough
@pytest.mark.parametrize("entry", ["not json", "[1]", '{"auth": [1], "token": 5}', "[" * 100_000])
def test_a_login_replaces_an_entry_of_the_keyring_that_is_none(
    home: Path, tmp_path: Path, entry: str
) -> None:
    write_config(home, auth={"store": "keyring"})
    ring = tmp_path / "ring"
    env = keyring_that(
        ring, "return entry.read_text() if entry.exists() else None", "entry.write_text(password)"
    )
    (ring / "entry").write_text(entry, encoding="utf-8")
    refused = run_cli("auth", "token", home=home, env=env)
    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
    assert "keyring" in refused.stderr
    with ScriptedServer() as platform:
        offer(platform, json_answer(GRANT))
        done = login(platform, home, env=env)
    assert done.returncode == 0, done.stderr
    assert run_cli("auth", "token", home=home, env=env).stdout == "access-0\n"


def test_a_missing_keyring_library_is_one_line(home: Path, tmp_path: Path) -> None:
    (tmp_path / "keyring.py").write_text("raise ImportError('not here')\n", encoding="utf-8")
    write_config(home, auth={"store": "keyring"})
    done = run_cli("auth", "token", home=home, env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{package_root()}"})
    assert done.returncode == 2
    assert "Install it (pip install 'cirron-spool[keyring]')" in done.stderr


def test_an_unknown_store_is_named(home: Path) -> None:
    path = write_config(home, auth={"store": "vault"})
    done = run_cli("auth", "token", home=home)
    assert (done.returncode, done.stderr) == (
        2,
        f"Error: auth.store in {path} is neither file nor keyring. Correct it.\n",
    )
